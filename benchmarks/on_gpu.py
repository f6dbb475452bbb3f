"""Checks and timings on one device, for ``benchmarks/on_gpu.sh``: small enough for eight minutes on one GPU.

Checks: every method on the device against the CPU (1e-3 of the map's largest value, on coarse grids before any
resizing), under autocast and in channels_last, the network untouched, memory bounds kept. Timings are medians of
rounds in which ours and the limit take turns. On a CPU (``--device cpu``) everything runs small, to test the script.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import convoscope as cs
from convoscope.methods import METHODS
from convoscope.toybox import draw

#: methods of hundreds of passes, cut to what a check needs
SMALL: dict[str, dict[str, Any]] = {
    "rise": {"samples": 48}, "lime": {"samples": 48}, "extremal-perturbation": {"rounds": 8},
    "gradient-shap": {"samples": 4}, "smoothgrad": {"samples": 4}, "vargrad": {"samples": 4},
    "integrated-gradients": {"nodes": 8}, "occlusion": {"window": 24, "stride": 12},
}  # fmt: skip
ELEVEN = [
    "saliency", "input-x-gradient", "guided-backprop", "deconvnet", "guided-grad-cam", "grad-cam", "grad-cam++",
    "hirescam", "xgrad-cam", "layercam", "eigen-cam",
]  # fmt: skip


@dataclass
class Report:
    """What was checked and timed, printed as it comes."""

    device: torch.device
    started: float = field(default_factory=time.perf_counter)
    failed: list[str] = field(default_factory=list)

    def check(self, name: str, ok: bool, said: str) -> None:
        """One line of the checks."""
        if not ok:
            self.failed.append(name)
        print(f"{'ok  ' if ok else 'FAIL'} {name}: {said}", flush=True)

    def row(self, what: str, ours: float, limit: float, unit: str = "ms") -> None:
        """One line of the table."""
        print(f"| {what} | {ours:.2f} {unit} | {limit:.2f} {unit} | {ours / limit:.2f} |", flush=True)

    def median(self, *works: Callable[[], Any], rounds: int = 5) -> list[float]:
        """Milliseconds of each piece of work, in turn, after a first round that is not counted."""
        found: list[list[float]] = [[] for _ in works]
        for number in range(rounds + 1):
            for place, work in enumerate(works):
                self.wait()
                before = time.perf_counter()
                work()
                self.wait()
                if number:
                    found[place].append(1000 * (time.perf_counter() - before))
        return [statistics.median(values) for values in found]

    def wait(self) -> None:
        """Until the device has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def settings_of(name: str) -> cs.Method:
    """A method, small."""
    return METHODS[name](**SMALL.get(name, {}))


def on(device: torch.device) -> cs.Model:
    """The bundled network on the device."""
    return cs.open_model("toybox", device=str(device))


def far(ours: cs.Heatmap, truth: cs.Heatmap) -> float:
    """The largest difference of two coarse maps, in shares of the largest value."""
    a, b = (np.asarray(one.grid if one.grid is not None else one.values, np.float64) for one in (ours, truth))
    return float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-12))


def checks(report: Report) -> None:
    """Every method on the device against the CPU; autocast; channels_last; nothing left behind."""
    pictures = [draw(7, label="car").image, draw(8, label="cat").image]
    cpu, there = on(torch.device("cpu")), on(report.device)
    before = {name: value.clone() for name, value in there.module.state_dict().items()}
    state = torch.cuda.get_rng_state(report.device) if report.device.type == "cuda" else torch.get_rng_state()
    methods = {name: settings_of(name) for name in METHODS}
    truth = cs.explain(cpu, pictures, list(methods.values()))
    found = cs.explain(there, pictures, list(methods.values()))
    for name in methods:
        if name in truth[0].refused:
            same = found[0].refused.get(name) == truth[0].refused[name]
            report.check(name, same, f"refused on both ({truth[0].refused[name][:60]}...)")
            continue
        worst = max(far(a[name], b[name]) for a, b in zip(found, truth, strict=True))
        report.check(name, worst <= 1e-3, f"{worst:.1e} of the largest value")
    after = there.module.state_dict()
    now = torch.cuda.get_rng_state(report.device) if report.device.type == "cuda" else torch.get_rng_state()
    whole = all(torch.equal(value, after[name]) for name, value in before.items())
    report.check("untouched", whole and torch.equal(state, now), "weights, buffers and the random state as before")
    last = cs.open_model("toybox", device=str(report.device))
    last.module.to(memory_format=torch.channels_last)
    some = ["grad-cam", "guided-backprop", "saliency", "fullgrad"]
    again = cs.explain(last, pictures, some)
    worst = max(far(a[name], b[name]) for a, b in zip(again, truth, strict=True) for name in some)
    report.check("channels_last", worst <= 1e-3, f"{worst:.1e} of the largest value")
    with torch.autocast(report.device.type, dtype=torch.bfloat16):
        low = cs.explain(there, pictures, ["grad-cam", "saliency"])
    alike = min(
        np.corrcoef(np.ravel(a["grad-cam"].values), np.ravel(b["grad-cam"].values))[0, 1]
        for a, b in zip(low, truth, strict=True)
    )
    report.check("autocast", bool(alike > 0.98), f"Grad-CAM in bfloat16 correlates with float32 at {alike:.3f}")


def timed_maps(report: Report, network: str, model: cs.Model, size: int) -> None:
    """Eleven maps against one forward and three backwards; RISE and visualisation against their passes."""
    inputs = torch.rand(1, 3, size, size, device=report.device)
    picture = torch.rand(3, size, size)

    def limit() -> None:
        x = inputs.clone().requires_grad_()
        top = model.module(x).max()
        for keep in (True, True, False):
            torch.autograd.grad(top, x, retain_graph=keep)

    ours, best = report.median(lambda: cs.explain(model, picture, ELEVEN), limit)
    report.row(f"{network}: eleven maps / one forward, three backwards", ours, best)
    masks, batch = (512, 64) if report.device.type == "cuda" else (32, 16)
    many = torch.rand(batch, 3, size, size, device=report.device)

    def forwards() -> None:
        with torch.inference_mode():
            for _ in range(masks // batch):
                model.module(many)

    ours, best = report.median(lambda: cs.explain(model, picture, cs.RISE(samples=masks)), forwards, rounds=2)
    report.row(f"{network}: RISE of {masks} / as many bare forwards", ours, best)


def timed_occlusion(report: Report, network: str, model: cs.Model, size: int) -> None:
    """Occlusion exact, fast and dense, and captum's where it is installed, at its best batch."""
    picture = torch.rand(3, size, size)
    window, stride = (32, 16) if report.device.type == "cuda" else (32, 32)
    kinds = {
        "exact": cs.Occlusion(window=window, stride=stride),
        "fast": cs.Occlusion(window=window, stride=stride, fast=0.5),
        "dense": cs.Occlusion(window=window, stride=stride, engine="dense"),
    }
    works: dict[str, Callable[[], Any]] = {
        name: (lambda kind=kind: cs.explain(model, picture, kind)) for name, kind in kinds.items()
    }
    try:
        from captum.attr import Occlusion as Captum
    except ImportError:
        print("captum is not installed: not timed")
    else:
        x = torch.rand(1, 3, size, size, device=report.device)
        top = int(model.module(x).argmax())
        for batch in (8, 64, 256) if report.device.type == "cuda" else (8,):
            works[f"captum, {batch} at once"] = lambda batch=batch: Captum(model.module).attribute(
                x, sliding_window_shapes=(3, window, window), strides=(3, stride, stride), target=top,
                perturbations_per_eval=batch,
            )  # fmt: skip
    times = dict(zip(works, report.median(*works.values(), rounds=2), strict=True))
    rivals = [value for name, value in times.items() if name.startswith("captum")]
    for name, value in times.items():
        report.row(f"{network}: occlusion, {name} / captum's best", value, min(rivals) if rivals else value)


def timed_visualisation(report: Report, network: str, model: cs.Model, size: int) -> None:
    """A step of each recipe against a bare forward and backward."""
    steps = 32 if report.device.type == "cuda" else 3
    x = torch.rand(1, 3, size, size, device=report.device)

    def bare() -> None:
        for _ in range(steps):
            y = x.clone().requires_grad_()
            torch.autograd.grad(model.module(y)[0, 3], y)

    for recipe in ("simonyan", "fourier"):
        ours, best = report.median(lambda r=recipe: cs.visualize(model, 3, recipe=r, steps=steps), bare, rounds=2)
        report.row(f"{network}: {steps} steps of {recipe} / forwards and backwards", ours, best)


def timed_survey(report: Report, network: str, model: cs.Model, size: int) -> None:
    """A survey against the bare forward, with decoding told apart: on a GPU it is the bottleneck."""
    from concurrent.futures import ThreadPoolExecutor

    from PIL import Image

    count = 512 if report.device.type == "cuda" else 8
    batch = min(count, model.batch_size)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder) / "pictures"
        place.mkdir()
        rng = np.random.default_rng(0)
        for number in range(count):
            small = Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8))
            small.resize((400, 300)).save(place / f"{number:04}.jpg", quality=90)
        files = sorted(place.glob("*.jpg"))
        began = time.perf_counter()
        with ThreadPoolExecutor() as threads:
            list(threads.map(model.prepare, files))
        decoding = time.perf_counter() - began
        many = torch.rand(batch, 3, size, size, device=report.device)
        with torch.inference_mode():
            model.module(many)
            report.wait()
            began = time.perf_counter()
            for _ in range(-(-count // batch)):
                model.module(many)
            report.wait()
        bare = time.perf_counter() - began
        began = time.perf_counter()
        cs.survey(model, place, Path(folder) / "store")
        survey = time.perf_counter() - began
    print(
        f"{network}: survey of {count}: {count / survey:.0f} pictures a second; decoding alone {count / decoding:.0f}"
    )
    report.row(f"{network}: survey / the slower of bare forwards and decoding", survey, max(bare, decoding), "s")


def timed_graphs(report: Report, network: str, model: cs.Model, size: int) -> None:
    """Whether CUDA graphs or torch.compile would pay for single pictures (never used by the program itself)."""
    if report.device.type != "cuda":
        print("CUDA graphs: not on this device")
        return
    module = copy.deepcopy(model.module).requires_grad_(False)
    x = torch.rand(1, 3, size, size, device=report.device)
    graphed = torch.cuda.make_graphed_callables(copy.deepcopy(module), (x,))
    compiled = torch.compile(copy.deepcopy(module))

    def run(network: Any) -> Callable[[], Tensor]:
        def work() -> Tensor:
            with torch.no_grad():
                out: Tensor = network(x)
            return out

        return work

    began = time.perf_counter()
    run(compiled)()
    report.wait()
    first = time.perf_counter() - began
    eager, replay, fused = report.median(run(module), run(graphed), run(compiled), rounds=20)
    report.row(f"{network}: forward replayed as a CUDA graph / eager", replay, eager)
    report.row(f"{network}: forward compiled ({first:.0f} s to compile) / eager", fused, eager)


def bounded(report: Report, model: cs.Model, size: int) -> None:
    """Peak memory of an occlusion on the device against the bound that the engine states."""
    from convoscope.engine.recompute.incremental import Boxes, Incremental

    starts = np.arange(0, size - 32, 24)
    top, left = (grid.ravel() for grid in np.meshgrid(starts, starts, indexing="ij"))
    x = torch.rand(1, 3, size, size, device=report.device)
    with torch.inference_mode():
        engine = Incremental(model.module, x, memory=1 << 28)
        if report.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(report.device)
            held = torch.cuda.memory_allocated(report.device)
        engine.outputs(Boxes(top, top + 32, left, left + 32), torch.zeros(3, 1, 1))
    if report.device.type != "cuda":
        print(f"memory: the engine states {engine.bound / 2**20:.0f} MB; counted on a GPU only")
        return
    taken = torch.cuda.max_memory_allocated(report.device) - held
    said = f"{taken / 2**20:.0f} MB taken, {engine.bound / 2**20:.0f} stated"
    report.check("memory bound", taken <= 1.25 * engine.bound + 2**26, said)


def main() -> None:
    """Run the checks and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--networks", nargs="+", help="default: resnet50 squeezenet1_0; on a CPU squeezenet1_0")
    parser.add_argument("--weights", default="none")
    parser.add_argument("--only", nargs="*", choices=["checks", "timings"], default=["checks", "timings"])
    given = parser.parse_args()
    device = torch.device(given.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{name}; torch {torch.__version__}; {time.strftime('%d %B %Y')}\n")
    report = Report(device)
    if "checks" in given.only:
        checks(report)
    if "timings" in given.only:
        networks = given.networks or (["resnet50", "squeezenet1_0"] if device.type == "cuda" else ["squeezenet1_0"])
        size = 224 if device.type == "cuda" else 96
        print("\n| what / limit | ours | limit | ratio |\n|---|---|---|---|")
        for network in networks:
            model = cs.open_model(network, weights=given.weights, device=given.device, size=size)
            for parameter in model.module.parameters():
                parameter.requires_grad_(False)
            for part in (timed_maps, timed_occlusion, timed_visualisation, timed_survey, timed_graphs):
                try:
                    part(report, network, model, size)
                except Exception as error:  # one part that breaks is told, and the rest goes on
                    report.check(f"{network}: {part.__name__}", False, f"{type(error).__name__}: {error}"[:300])
            if isinstance(model.module, nn.Module):
                bounded(report, model, size)
    took = time.perf_counter() - report.started
    print(f"\n{took:.0f} s. " + (f"FAILED: {', '.join(report.failed)}" if report.failed else "All checks passed."))
    raise SystemExit(1 if report.failed else 0)


if __name__ == "__main__":
    main()
