"""Occlusion, side by side: captum, a well-batched dense loop, Convoscope exact, Convoscope fast.

    python benchmarks/occlusion.py                                    # the whole table
    python benchmarks/occlusion.py --networks resnet18 vgg16 --strides 16 --repeat 3
    python benchmarks/occlusion.py --agreement 20                     # fast against exact, real photos

All see the same windows (those of ``captum.attr.Occlusion``; one more row and column where the stride does not
divide), each once per run; exporting the graph is timed apart. Weights are random with calibrated batch norm, except
SqueezeNet's, which are read from ``$CONVOSCOPE_DATA/weights`` where that exists. The table's limit is what the
saved multiply-adds alone would give.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from convoscope.engine.recompute.incremental import Incremental, dense_outputs, export, grid

NETWORKS = ["vgg16", "resnet18", "resnet50", "squeezenet1_0", "densenet121", "mobilenet_v2"]


def data() -> Path | None:
    """The folder of real data, if there is one."""
    for place in (os.environ.get("CONVOSCOPE_DATA"), "../shared/data", "../../shared/data"):
        if place and Path(place, "weights", "squeezenet1_0.safetensors").exists():
            return Path(place)
    return None


def photos(count: int) -> Tensor | None:
    """[count, 3, 224, 224] as ImageNet networks want them."""
    folder = data()
    if folder is None:
        return None
    from PIL import Image

    files = sorted((folder / "photos").glob("*.jpg"))[:: max(1, 300 // count)][:count]
    size, how = (224, 224), Image.Resampling.BILINEAR
    stack = [np.asarray(Image.open(file).convert("RGB").resize(size, how)) for file in files]
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    return ((torch.from_numpy(np.stack(stack)).float() / 255 - mean) / std).permute(0, 3, 1, 2).contiguous()


def build(name: str) -> nn.Module:
    """The network in evaluation mode: real weights for SqueezeNet if they are there, else calibrated random ones."""
    torch.manual_seed(0)
    network = torchvision.models.get_model(name, weights=None)
    folder = data()
    if name == "squeezenet1_0" and folder is not None:
        from safetensors.torch import load_file

        network.load_state_dict(load_file(folder / "weights" / "squeezenet1_0.safetensors"))
    pictures = F.interpolate(torch.randn(8, 3, 28, 28), size=224, mode="bilinear") + 0.3 * torch.randn(8, 3, 224, 224)
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    network.eval()
    for norm in norms:
        norm.momentum = None
        norm.train()
    if norms:
        with torch.no_grad():
            network(pictures)
    return network.eval().requires_grad_(False)


class Clock:
    """Wall-clock seconds, or seconds of processor time where other programs disturb."""

    def __init__(self, device: torch.device, cpu: bool) -> None:
        self.device = device
        self.now = time.process_time if cpu else time.perf_counter

    def seconds(self, run: Callable[[], object], repeat: int) -> float:
        """Best time of so many runs after one that does not count (``repeat`` 0: that one counts)."""
        times = []
        for _ in range(repeat + 1):
            if self.device.type == "cuda":
                torch.cuda.synchronize()
            start = self.now()
            run()
            if self.device.type == "cuda":
                torch.cuda.synchronize()
            times.append(self.now() - start)
        return min(times[1:] or times)


def captum_best(network: nn.Module, picture: Tensor, window: int, stride: int, clock: Clock) -> tuple[float, int]:
    """Captum's best time over 1, 8 and 32 perturbations at once, and which it was."""
    from captum.attr import Occlusion

    method = Occlusion(network)
    target = int(network(picture).argmax())
    found = []
    for several in (1, 8, 32):

        def run(several: int = several) -> object:
            return method.attribute(
                picture, (3, window, window), strides=(3, stride, stride), target=target,
                perturbations_per_eval=several,
            )  # fmt: skip

        found.append((clock.seconds(run, 0), several))
    return min(found)


def row(name: str, stride: int, args: argparse.Namespace, device: torch.device, clock: Clock) -> list[str]:
    """One line of the table."""
    network = build(name).to(device)
    real = photos(1) if name == "squeezenet1_0" else None
    picture = (torch.randn(1, 3, 224, 224) if real is None else real).to(device)
    boxes = grid(224, 224, args.window, stride)
    fill = torch.zeros(3, 1, 1, device=device)
    start = time.perf_counter()
    graph = export(network, picture)
    exporting = time.perf_counter() - start
    times: dict[str, float] = {}
    note = ""
    if "captum" in args.rivals:
        times["captum"], several = captum_best(network, picture, args.window, stride, clock)
        note = f" ({several})"
    expected = None
    if "dense" in args.rivals:
        times["dense"] = clock.seconds(
            lambda: dense_outputs(network, picture, boxes, fill, args.dense_batch), min(args.repeat, 1)
        )
        expected = dense_outputs(network, picture, boxes, fill, args.dense_batch)
    exact = Incremental(network, picture, graph=graph)
    times["exact"] = clock.seconds(lambda: exact.outputs(boxes, fill), args.repeat)
    ours = exact.outputs(boxes, fill)
    wrong = float("nan") if expected is None else float((ours - expected).abs().max() / expected.abs().max())
    fast = Incremental(network, picture, graph=graph, fast=args.fast)
    times["fast"] = clock.seconds(lambda: fast.outputs(boxes, fill), args.repeat)
    rival = times.get("captum", float("nan"))
    against = [f"{rival / times[kind]:.1f}" for kind in ("dense", "exact", "fast") if kind in times]
    cells = [name, str(len(boxes)), f"{rival:.2f}{note}"]
    cells += [f"{times[kind]:.2f}" if kind in times else "" for kind in ("dense", "exact", "fast")]
    cells += [*against, f"{exact.saved:.1%}", f"{1 / (1 - exact.saved):.1f}", f"{wrong:.0e}", f"{exporting:.1f}"]
    cells += [f"{exact.bound / 2**20:.0f}"]
    return cells


def agreement(count: int, args: argparse.Namespace) -> None:
    """Rank correlation of the fast map with the exact one on real photos."""
    pictures = photos(count)
    if pictures is None:
        sys.exit("no real photos: set CONVOSCOPE_DATA")
    from scipy.stats import spearmanr

    network = build("squeezenet1_0")
    graph = export(network, pictures[:1])
    fill = torch.zeros(3, 1, 1)
    for stride in args.strides:
        boxes = grid(224, 224, args.window, stride)
        ranks, spent = [], np.zeros(2)
        for picture in pictures.split(1):
            target = int(network(picture).argmax())
            maps = []
            for index, fast in enumerate((None, args.fast)):
                engine = Incremental(network, picture, graph=graph, fast=fast)
                start = time.perf_counter()
                maps.append(engine.outputs(boxes, fill)[:, target].numpy())
                spent[index] += time.perf_counter() - start
            ranks.append(spearmanr(maps[0], maps[1]).statistic)
        print(
            f"stride {stride}: rank correlation of fast {args.fast} with exact on {len(ranks)} photos: "
            f"mean {np.mean(ranks):.4f}, worst {min(ranks):.4f}; {spent[0] / spent[1]:.2f} times faster than exact"
        )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=NETWORKS)
    parser.add_argument("--strides", nargs="+", type=int, default=[16, 8])
    parser.add_argument("--window", type=int, default=32)
    parser.add_argument("--repeat", type=int, default=2, help="runs after the first, of which the best counts")
    parser.add_argument("--rivals", nargs="*", default=["captum", "dense"], choices=["captum", "dense"])
    parser.add_argument("--dense-batch", type=int, default=32)
    parser.add_argument("--fast", type=float, default=0.5, help="the setting of the fast mode")
    parser.add_argument("--threads", type=int, default=0, help="0: as PyTorch chooses")
    parser.add_argument("--cpu-seconds", action="store_true", help="processor time instead of wall clock")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--agreement", type=int, default=0, help="compare fast with exact on so many photos instead")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    if args.agreement:
        agreement(args.agreement, args)
        return
    device = torch.device(args.device)
    clock = Clock(device, args.cpu_seconds)
    where = torch.cuda.get_device_name() if device.type == "cuda" else f"{torch.get_num_threads()} CPU threads"
    kind = "processor time" if args.cpu_seconds else "wall clock"
    print(f"224 px, window {args.window}, PyTorch {torch.__version__}, {where}; seconds of {kind}\n")
    for stride in args.strides:
        print(f"Stride {stride}\n")
        head = ["network", "windows", "captum (at once)", "dense", "exact", "fast"]
        ours = [kind for kind in ("dense", "exact", "fast") if kind != "dense" or "dense" in args.rivals]
        head += [f"captum / {kind}" for kind in ours]
        head += ["multiply-adds saved", "limit", "error", "export", "memory bound (MiB)"]
        print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
        for name in args.networks:
            print("| " + " | ".join(row(name, stride, args, device, clock)) + " |", flush=True)
        print()


if __name__ == "__main__":
    with torch.inference_mode(False):
        main()
