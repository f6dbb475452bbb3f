"""The page of a watch: its records as curves."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .watch import Watch

#: the field on which curves are drawn
WIDTH, HEIGHT = 600, 140
#: bytes of a film that is put into the page
LARGEST = 30_000_000


def course(watch: Watch) -> dict[str, Any]:
    """Plain data for the template."""
    records = watch.records
    charts = []
    if any(one["accuracy"] is not None for one in records):
        charts.append(_chart("Accuracy on the watched pictures", [one["accuracy"] for one in records], 1.0))
    charts.append(_chart("Units that gave every watched picture the same", [_dead(one) for one in records]))
    norms = [sum(v**2 for v in one["gradients"].values()) ** 0.5 if one["gradients"] else None for one in records]
    if any(one is not None for one in norms):
        charts.append(_chart("Norm of the gradient", norms))
    layers: list[dict[str, Any]] = []
    if records:
        last = records[-1]
        layers = [{"name": name, "dead": last["dead"][name], "units": last["units"][name]} for name in last["dead"]]
    return {"records": records, "charts": charts, "layers": layers, "memory": watch.memory, "notes": watch.notes,
            "film": _film(watch)}  # fmt: skip


def _film(watch: Watch) -> str | None:
    """The film inside the page, which may show nothing from outside."""
    path = None if watch.out is None else watch.out / "film.webp"
    if path is None or not path.is_file() or path.stat().st_size > LARGEST:
        return None
    return f"data:image/webp;base64,{base64.b64encode(path.read_bytes()).decode()}"


def _dead(record: dict[str, Any]) -> float:
    return float(sum(record["dead"].values()))


def _chart(name: str, values: Sequence[float | None], top: float | None = None) -> dict[str, Any]:
    known = [value for value in values if value is not None]
    highest = top or max(known, default=1.0) or 1.0
    steps = max(1, len(values) - 1)
    points = [
        (WIDTH * place / steps, HEIGHT - HEIGHT * value / highest)
        for place, value in enumerate(values)
        if value is not None
    ]
    return {"name": name, "top": highest, "points": points, "last": known[-1] if known else None,
            "line": " ".join(f"{x:.1f},{y:.1f}" for x, y in points)}  # fmt: skip
