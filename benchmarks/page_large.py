"""How long the page's server takes to filter, search, lasso and turn pages of a large collection.

    python benchmarks/page_large.py [PICTURES]     default: 50,000

The store is made by writing rows (no network's pass); times are medians and worst of twenty answers over HTTP, each
of another question, so that nothing kept is answered.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "browser"))

from fastapi.testclient import TestClient
from large_store import large_store

import convoscope
from convoscope.web import create_app


def main(count: int) -> None:
    model = convoscope.open_model("toybox")
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        store = large_store(model, Path(folder) / "pictures", Path(folder) / "store", count, files=False)
        print(f"{count:,} rows written in {time.perf_counter() - began:.1f} s")
        app = create_app(model, None, store)
        with TestClient(app, base_url="http://127.0.0.1") as asked:
            began = time.perf_counter()
            asked.get("/api/collection/pictures").raise_for_status()
            print(f"columns read for the first answer: {time.perf_counter() - began:.2f} s")
            # the map is made once and kept: it is not part of a lasso
            began = time.perf_counter()
            asked.get("/api/collection/ids", params={"map": "pca", "lasso": "0,0;1,0;1,1"}).raise_for_status()
            print(f"map by PCA: {time.perf_counter() - began:.1f} s")
            labels = model.labels or ()
            questions: dict[str, Any] = {
                "filter": lambda i: {"state": "wrong", "low": 0.5 + i / 100, "label": labels[i % 10]},
                "search": lambda i: {"search": f"img-0{i:02d} {labels[i % 10]}"},
                "sort": lambda i: {"order": "confidence", "low": i / 100},
                "lasso": lambda i: {"map": "pca", "lasso": ";".join(
                    f"{(2 + i / 10) * x:.3f},{(2 + i / 10) * y:.3f}" for x, y in corners(48))},
                "page": lambda i: {"offset": i * count // 20, "limit": 120},
            }  # fmt: skip
            for name, question in questions.items():
                seconds = []
                for i in range(20):
                    began = time.perf_counter()
                    asked.get("/api/collection/pictures", params=question(i)).raise_for_status()
                    seconds.append(time.perf_counter() - began)
                print(f"{name:8} {1000 * statistics.median(seconds):6.0f} ms  (worst {1000 * max(seconds):.0f} ms)")


def corners(count: int) -> list[tuple[float, float]]:
    """A star of so many corners."""
    from math import cos, pi, sin

    return [
        ((0.6 + 0.4 * (k % 2)) * cos(2 * pi * k / count), (0.6 + 0.4 * (k % 2)) * sin(2 * pi * k / count))
        for k in range(count)
    ]


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 50_000)
