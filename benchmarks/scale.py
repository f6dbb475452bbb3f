"""What a survey costs when it grows: workers, the committer alone, the driver's memory, the vector index.

    python benchmarks/scale.py --pictures 640 --units 200     # workers, committer, memory: minutes
    python benchmarks/scale.py --vectors 1000000 --json FILE  # the index: build, bytes, p50, p95, recall

Everything is generated. The network of the workers' benchmark is the toybox's. The vectors are a mixture of 1,000
clusters, each around a random centre in a random 16-dimensional plane of 512 dimensions with noise (``clusters``),
and a harder one (``spread``): 64 intrinsic dimensions without clusters, with stronger noise.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=0, help="pictures of the workers' benchmark")
    parser.add_argument("--shard-size", type=int, default=32)
    parser.add_argument("--units", type=int, default=0, help="units of the committer's benchmark")
    parser.add_argument("--rows", type=int, default=512, help="pictures in each of those units")
    parser.add_argument("--vectors", type=int, default=0, help="rows of the index's benchmark")
    parser.add_argument("--distribution", choices=("clusters", "spread", "both"), default="both")
    parser.add_argument("--folder", help="where the big store lies; default: a temporary folder")
    parser.add_argument("--json", help="write the figures there")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        print(json.dumps(committer(Path(given.child), given.units, given.rows)))
        return
    figures: dict[str, Any] = {
        "machine": f"{os.cpu_count()} cores, {platform.machine()}",
        "date": time.strftime("%F"),
    }
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        base = Path(folder)
        if given.pictures:
            figures["workers"] = workers(base, given.pictures, given.shard_size)
        if given.units:
            figures["committer"] = [
                in_a_child(base / f"c{count}", count, given.rows) for count in (given.units // 4, given.units)
            ]
        if given.vectors:
            both = ("clusters", "spread") if given.distribution == "both" else (given.distribution,)
            figures["index"] = {name: index(base / name, given.vectors, name) for name in both}
    text = json.dumps(figures, indent=1)
    print(text)
    if given.json:
        Path(given.json).write_text(text)


# workers


def workers(base: Path, pictures: int, shard_size: int) -> dict[str, Any]:
    """Units per second of the plain run and of one and two workers on Ray, without Ray's start."""
    from convoscope import open_model
    from convoscope.surveys.gather.driver import survey
    from convoscope.toybox import write

    write(base / "pictures", pictures, seed=1)
    found: dict[str, Any] = {"pictures": pictures, "shard_size": shard_size}
    for name, count in (("plain", 0), ("one worker", 1), ("two workers", 2)):
        marks: list[tuple[float, int]] = []

        def tell(at: Any, marks: list[tuple[float, int]] = marks) -> None:
            if at.stage == "surveying":
                marks.append((time.perf_counter(), at.done))

        started = time.perf_counter()
        store = survey(
            open_model("toybox"), base / "pictures", base / name, progress=tell, shard_size=shard_size,
            memory_format="contiguous", truth=False, ray="local" if count else None, workers=count or None,
        )  # fmt: skip
        # from the first unit on: what comes before it is Ray's start and the worker's opening of the network
        begun = next(when for when, done in marks if done >= shard_size)
        # results that came in together are told of together
        first = max(i for i, (when, _) in enumerate(marks) if when < begun + 0.2)
        steady = (marks[-1][1] - marks[first][1]) / max(1e-9, marks[-1][0] - marks[first][0])
        found[name] = {
            "seconds": time.perf_counter() - started,
            "pictures_per_second": steady,
            "units_per_second": steady / shard_size,
            "committed": len(store.units_done),
        }
    return found


# the committer


def in_a_child(folder: Path, units: int, rows: int) -> dict[str, Any]:
    """The committer's figures in a process of its own, whose memory is its own."""
    command = [sys.executable, __file__, "--child", str(folder), "--units", str(units), "--rows", str(rows)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    shutil.rmtree(folder, ignore_errors=True)
    return json.loads(said.splitlines()[-1])  # type: ignore[no-any-return]


def committer(folder: Path, units: int, rows: int, together: int = 1) -> dict[str, Any]:
    """Synthetic units committed to a new store: rows a second, bytes a row, memory; the first and the last tenth."""
    from convoscope.surveys.gather.work import ShardResult
    from convoscope.surveys.store.accumulators import State

    store = new_store(folder)
    draw = np.random.default_rng(0)
    state = State.empty(store.recipe.channels, store.recipe.top, store.recipe.sample)
    tables = [table(store, f"{number}", draw.normal(size=(rows, 512)), thumbnail()) for number in range(4)]
    before = memory()
    seconds: list[float] = []
    names = tables[0].column_names
    import pyarrow as pa

    for number in range(units):
        unit = hashlib.sha256(str(number).encode()).hexdigest()[:32]
        part = tables[number % 4].set_column(names.index("unit"), "unit", pa.array([unit] * rows))
        started = time.perf_counter()
        store.commit(ShardResult(unit, part, state, 1.0, 1))
        seconds.append(time.perf_counter() - started)
    store.close()
    size = sum(file.stat().st_size for file in (folder / "pictures.lance" / "data").iterdir())
    tenth = max(1, units // 10)
    return {
        "units": units,
        "rows_per_second": units * rows / sum(seconds),
        "milliseconds_per_unit": 1000 * float(np.mean(seconds)),
        "first_tenth_ms": 1000 * float(np.mean(seconds[:tenth])),
        "last_tenth_ms": 1000 * float(np.mean(seconds[-tenth:])),
        "bytes_per_row": size / (units * rows),
        "memory_before_mib": before,
        "memory_after_mib": memory(),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def memory() -> float:
    """Resident memory of this process in MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def new_store(folder: Path) -> Any:
    """An empty store of a network with an embedding of 512 numbers."""
    import torch
    from torch import nn

    from convoscope import wrap
    from convoscope.surveys import Store
    from convoscope.surveys.store.recipe import make_recipe

    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 512, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 10))
    return Store.create(folder, make_recipe(wrap(net.eval(), size=32)))


def thumbnail() -> bytes:
    """A JPEG of 96×96 pixels, about as large as a photo's."""
    from PIL import Image

    from convoscope.surveys.gather.decode import encode

    draw = np.random.default_rng(0)
    small = Image.fromarray(draw.integers(0, 256, (12, 12, 3), dtype=np.uint8))
    return encode(small.resize((96, 96), Image.Resampling.BICUBIC))


def table(store: Any, name: str, vectors: np.ndarray[Any, Any], picture: bytes | None) -> Any:
    """Rows as a survey writes them, with these vectors."""
    import pyarrow as pa

    from convoscope.surveys.store.rows import schema

    rows = len(vectors)
    kinds = schema(store.recipe)
    shas = [hashlib.sha256(f"{name}-{n}".encode()).hexdigest() for n in range(rows)]
    columns = {field.name: pa.nulls(rows, field.type) for field in kinds}
    columns |= {
        "sha256": pa.array(shas),
        "key": pa.array([int(sha[:16], 16) for sha in shas], pa.uint64()),
        "unit": pa.array([name] * rows),
        "uri": pa.array([f"/photos/{sha[:2]}/{sha[:16]}.jpg" for sha in shas]),
        "prediction": pa.array(["class"] * rows),
        "thumbnail": pa.array([picture] * rows, pa.binary()),
    }
    flat = pa.array(np.ascontiguousarray(vectors, np.float16).ravel())
    columns[store.recipe.embeddings[0].column] = pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1])
    return pa.table(columns, schema=kinds)


# the index


def vectors_of(name: str, rows: int, part: int, width: int = 512) -> np.ndarray[Any, Any]:
    """Part ``part`` of the generated vectors, ``[rows, width]`` float32."""
    draw = np.random.default_rng([part, 1])
    fixed = np.random.default_rng(0)
    if name == "clusters":
        clusters, inner = 1000, 16
        centres = fixed.normal(size=(clusters, width)).astype(np.float32)
        planes = fixed.normal(size=(50, inner, width)).astype(np.float32) / np.sqrt(inner)
        which = draw.integers(0, clusters, rows)
        found = np.empty((rows, width), np.float32)
        for plane in range(50):
            mine = which % 50 == plane
            inside = draw.normal(size=(int(mine.sum()), inner)).astype(np.float32)
            found[mine] = centres[which[mine]] + inside @ planes[plane]
        return found + 0.1 * draw.normal(size=found.shape).astype(np.float32)
    axes = fixed.normal(size=(64, width)).astype(np.float32) / 8
    inside = draw.normal(size=(rows, 64)).astype(np.float32)
    return inside @ axes + 0.3 * draw.normal(size=(rows, width)).astype(np.float32)


def index(folder: Path, rows: int, name: str, part: int = 50_000) -> dict[str, Any]:
    """A store of ``rows`` generated vectors with thumbnails: build of the index, latency, recall, opening."""
    from convoscope.surveys import Store
    from convoscope.surveys.gather.work import ShardResult
    from convoscope.surveys.store.accumulators import State
    from convoscope.surveys.store.index import build, exact_in_parts, search

    store = new_store(folder)
    state = State.empty(store.recipe.channels, store.recipe.top, store.recipe.sample)
    picture = thumbnail()
    for number, start in enumerate(range(0, rows, part)):
        made = table(store, f"{number:032}", vectors_of(name, min(part, rows - start), number), picture)
        store.commit(ShardResult(f"{number:032}", made, state, 1.0, 1))
    store.close()
    embedding = store.recipe.embeddings[0]
    started = time.perf_counter()
    about = build(store, embedding)[f"{embedding.column}-cosine"]
    wall = time.perf_counter() - started
    size = sum(f.stat().st_size for f in (folder / "pictures.lance" / "_indices").rglob("*") if f.is_file())
    queries = vectors_of(name, 200, 10**6)  # of the same distribution, not in the store
    ids, vectors = store.embeddings()
    truth = exact_in_parts(vectors, queries, 10, "cosine")
    hits, seconds = 0, []
    for query, wanted in zip(queries, truth, strict=True):
        begun = time.perf_counter()
        found, _ = search(store, embedding, query, 10, "cosine")
        seconds.append(time.perf_counter() - begun)
        hits += len({sha for sha, _ in found} & {ids[i] for i in wanted})
    del vectors
    begun = time.perf_counter()
    opened = Store.open(folder)
    opening = time.perf_counter() - begun
    opened.neighbors(id=ids[7], k=10)
    pages = []
    for sha in ids[11 : rows : max(1, rows // 20)]:
        begun = time.perf_counter()
        opened.neighbors(id=sha, k=24)
        pages.append(time.perf_counter() - begun)
    return {
        "rows": rows,
        **{key: about[key] for key in ("kind", "partitions", "probes", "recall")},
        "create_seconds": about["seconds"],
        "build_and_measure_seconds": wall,
        "index_bytes_per_row": size / rows,
        "recall_new_queries": hits / truth.size,
        "p50_ms": 1000 * float(np.percentile(seconds[20:], 50)),
        "p95_ms": 1000 * float(np.percentile(seconds[20:], 95)),
        "open_seconds": opening,
        "page_p50_ms": 1000 * float(np.percentile(pages, 50)),
        "page_p95_ms": 1000 * float(np.percentile(pages, 95)),
    }


if __name__ == "__main__":
    main()
