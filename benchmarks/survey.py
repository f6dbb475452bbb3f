"""Pictures per second of a full survey against the bare forward of the same network in the same process.

    python benchmarks/survey.py [--network resnet50 squeezenet1_0] [--pictures 128] [--naive] [--crp] [--memory]
    [--tsne 10000]

The survey looks at every default layer. *Without decoding* both get ready tensors (the survey then does its forward
with
all bookkeeping: maxima, places, histograms, moments, class sums, embeddings, rows); *with decoding* both read JPEGs
and
the survey also makes thumbnails and hashes and commits to its store. Runs alternate, and the medians are compared.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from convoscope import open_model
from convoscope.engine.passes.untouched import untouched
from convoscope.models.model import Model
from convoscope.surveys.gather import driver, work
from convoscope.surveys.gather.decode import Decoded, decode
from convoscope.surveys.gather.shards import Item, file_sha256, make_shard
from convoscope.surveys.store.recipe import make_recipe


def photos(folder: Path, count: int) -> list[Item]:
    """JPEGs of 400 × 300 smooth noise, of two classes."""
    rng = np.random.default_rng(0)
    items = []
    for number in range(count):
        path = folder / f"{number:05}.jpg"
        small = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        small.resize((400, 300), Image.Resampling.BICUBIC).save(path, quality=90)
        items.append(Item(file_sha256(path), str(path), "ab"[number % 2], number % 2))
    return sorted(items, key=lambda item: item.sha256)


def bare(model: Model, inputs: torch.Tensor, batch: int, channels_last: bool) -> None:
    """The forward alone."""
    with untouched(model.module, gradients=False):
        for start in range(0, len(inputs), batch):
            part = inputs[start : start + batch]
            model.run(part.contiguous(memory_format=torch.channels_last) if channels_last else part)


def bare_decoding(model: Model, items: list[Item], batch: int, channels_last: bool) -> None:
    """Decode, fit and forward, the next batch being decoded meanwhile, as anybody would."""
    from convoscope.pictures.picture import Picture

    def fit(item: Item) -> torch.Tensor:
        return Picture.of(item.uri).prepare(model.preprocessing).tensor

    with untouched(model.module, gradients=False), ThreadPoolExecutor(2) as pool:
        futures = [pool.submit(fit, item) for item in items]
        for start in range(0, len(items), batch):
            part = torch.stack([future.result() for future in futures[start : start + batch]])
            model.run(part.contiguous(memory_format=torch.channels_last) if channels_last else part)


def naive(model: Model, inputs: torch.Tensor, batch: int, names: list[str], top: int) -> None:
    """Hook every layer, keep the batch's activations, look up every maximum and its place, and sort it all."""
    from convoscope.engine.passes.naming import observe

    best: dict[str, Any] = {}
    with untouched(model.module, gradients=False):
        for start in range(0, len(inputs), batch):
            kept: dict[str, torch.Tensor] = {}
            with observe(model.module, lambda name, out: kept.update({name: out.clone()}), only=names):  # noqa: B023
                model.run(inputs[start : start + batch])
            for name, value in kept.items():
                peak, place = value.flatten(2).max(2)
                before = best.get(name)
                both = (
                    (peak, place)
                    if before is None
                    else tuple(torch.cat(p) for p in zip(before, (peak, place), strict=True))
                )
                order = both[0].argsort(0, descending=True)[:top]
                best[name] = tuple(part.gather(0, order) for part in both)


def compare(first: Callable[[], None], second: Callable[[], None], repeats: int) -> tuple[float, float]:
    """Median seconds of both, run in turns."""
    times: tuple[list[float], list[float]] = ([], [])
    for function in (first, second):
        function()
    for _ in range(repeats):
        for function, found in zip((first, second), times, strict=True):
            started = time.perf_counter()
            function()
            found.append(time.perf_counter() - started)
    return statistics.median(times[0]), statistics.median(times[1])


def measure(name: str, count: int, repeats: int, with_naive: bool, with_crp: bool) -> dict[str, Any]:
    model = open_model(name, weights="none", batch_size=32)
    recipe = make_recipe(model)
    chosen, _ = driver.choose_format(model, recipe.batch_size)
    from dataclasses import replace

    recipe = replace(recipe, memory_format=chosen)
    last = chosen == "channels_last"
    found: dict[str, Any] = {
        "network": name, "pictures": count, "layers": len(recipe.layers), "units": recipe.channels, "format": chosen,
        "threads": torch.get_num_threads(),
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        items = photos(Path(folder), count)
        unit = make_shard(recipe.space, items)
        ready: dict[str, Decoded] = {item.sha256: decode(item, model.preprocessing) for item in unit.items}
        inputs = torch.stack([ready[item.sha256].fitted.tensor for item in unit.items])  # type: ignore[union-attr]

        def surveyed() -> None:
            real = work.decode
            work.decode = lambda item, preprocessing: ready[item.sha256]
            try:
                work.compute(model, recipe, unit)
            finally:
                work.decode = real

        plain, full = compare(lambda: bare(model, inputs, 32, last), surveyed, repeats)
        found["without decoding"] = {"bare": count / plain, "survey": count / full, "share": plain / full}
        runs = iter(range(100))

        def stored() -> None:
            driver.survey(model, Path(folder), Path(folder) / f"store{next(runs)}", memory_format=chosen)

        plain, full = compare(lambda: bare_decoding(model, items, 32, last), stored, max(1, repeats - 1))
        found["with decoding and store"] = {"bare": count / plain, "survey": count / full, "share": plain / full}
        if with_naive:
            names = [span.name for span in recipe.layers]
            _, slow = compare(lambda: None, lambda: naive(model, inputs, 32, names, 9), 1)
            found["naive hook-and-store"] = {"survey": count / slow}
        if with_crp:
            found["zennit-crp"] = crp(model, inputs, [span.name for span in recipe.layers])
    return found


def crp(model: Model, inputs: torch.Tensor, names: list[str]) -> dict[str, Any]:
    """zennit-crp's feature visualisation over the same tensors, where it is installed (modules only)."""
    try:
        from crp.attribution import CondAttribution
        from crp.concepts import ChannelConcept
        from crp.visualization import FeatureVisualization
    except ImportError:
        return {"skipped": "zennit-crp is not installed"}
    modules = dict(model.module.named_modules())
    layers = {name: ChannelConcept() for name in names if name in modules}
    data = [(tensor, 0) for tensor in inputs]
    with tempfile.TemporaryDirectory() as folder:
        view = FeatureVisualization(CondAttribution(model.module), data, layers, path=folder)
        started = time.perf_counter()
        view.run(None, 0, len(data), 32, 100)  # relevance, too: a backward that the survey does not do
        return {"survey": len(data) / (time.perf_counter() - started), "layers": len(layers)}


def memory(name: str) -> list[dict[str, Any]]:
    """Peak resident memory of a survey of ever more pictures, a new process each (units of 32)."""
    rows = []
    for count in (64, 256, 1024, 2560):
        with ProcessPoolExecutor(1, get_context("spawn")) as pool:
            rows.append({"pictures": count, "peak_mb": pool.submit(peak, name, count).result()})
    return rows


def peak(name: str, count: int) -> float:
    """This process's peak memory in MB after one survey."""
    model = open_model(name, weights="none", batch_size=32)
    with tempfile.TemporaryDirectory() as folder:
        photos(Path(folder), count)
        driver.survey(model, Path(folder), Path(folder) / "store", shard_size=32)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def tsne(count: int, against: bool) -> dict[str, Any]:
    """t-SNE of a mixture of 50 clusters in 64 dimensions, against scikit-learn's."""
    from convoscope.surveys.ask import project
    from convoscope.surveys.ask.metrics import map_metrics

    rng = np.random.default_rng(0)
    truth = rng.integers(0, 50, count)
    points = (rng.standard_normal((50, 64))[truth] * 2 + rng.standard_normal((count, 64))).astype(np.float32)
    started = time.perf_counter()
    xy, kl = project.tsne(points)
    found: dict[str, Any] = {"points": count, "seconds": time.perf_counter() - started, "kl": kl}
    found |= map_metrics(points, xy)
    if against:
        from sklearn.manifold import TSNE

        started = time.perf_counter()
        other = TSNE(random_state=0, n_jobs=-1).fit(points)
        found["scikit-learn"] = {"seconds": time.perf_counter() - started, "kl": float(other.kl_divergence_)}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--network", nargs="*", default=["squeezenet1_0", "resnet50"],
                        help="none: only what else is asked for")  # fmt: skip
    parser.add_argument("--pictures", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--naive", action="store_true")
    parser.add_argument("--crp", action="store_true")
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--tsne", type=int, nargs="*", default=[])
    parser.add_argument("--sklearn", action="store_true", help="t-SNE of scikit-learn beside ours")
    given = parser.parse_args()
    found: dict[str, Any] = {
        "survey": [measure(n, given.pictures, given.repeats, given.naive, given.crp) for n in given.network]
    }
    if given.memory:
        found["memory"] = memory("squeezenet1_0")
    if given.tsne:
        found["tsne"] = [tsne(count, given.sklearn) for count in given.tsne]
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
