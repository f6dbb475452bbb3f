"""Several maps of one question made into one: a map over several layers, a map averaged over changes of the picture."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from .errors import UsageError
from .heatmap import Heatmap
from .pictures.picture import ModelInput
from .results import Explanation

Fuse = Literal["mean", "max"]
#: what the picture's values are multiplied by, mirrored and not
FACTORS = (0.9, 1.0, 1.1)
AUGMENTED = "mean of 6: mirrored or not, values times 0.9, 1 and 1.1"


def fuse_layers(explanation: Explanation, layers: Sequence[str], how: Fuse) -> None:
    """Replace a method's maps at several layers by one, in place, in every row of the explanation.

    Each map is divided by its largest absolute value first, since layers have different scales: what is averaged are
    shares of each layer's own maximum. An empty map stays empty.

    Args:
        explanation: maps under ``method@layer``, as :func:`convoscope.explain` names them for several layers.
        layers: the layers' names.
        how: ``mean`` of the maps, or at each pixel the one with the largest absolute value (``max``).
    """
    for row in explanation.rows:
        fused: dict[str, Heatmap] = {}
        for key, heatmap in row.heatmaps.items():
            name, _, layer = key.rpartition("@")
            if not name or layer not in layers:
                fused[key] = heatmap
            elif name not in fused:
                parts = [row.heatmaps[f"{name}@{one}"] for one in layers if f"{name}@{one}" in row.heatmaps]
                fused[name] = _fused(parts, how)
        row.heatmaps.clear()
        row.heatmaps.update(fused)


def _fused(parts: list[Heatmap], how: Fuse) -> Heatmap:
    scaled = np.stack([_share(one.values) for one in parts])
    if how == "mean":
        values = scaled.mean(0)
    else:
        values = np.take_along_axis(scaled, np.abs(scaled).argmax(0)[None], 0)[0]
    names = [str(one.layer) for one in parts]
    return replace(
        parts[0],
        values=values.astype(np.float32),
        unit="share of each layer's maximum",
        reduction=f"{how} over {len(parts)} layers" + (f"; {parts[0].reduction}" if parts[0].reduction else ""),
        layer=" + ".join(names),
        grid=None,
        raw=None,
        geometry=None,
        parts=[],
        doubts=tuple(dict.fromkeys(f"{one.layer}: {doubt}" for one in parts for doubt in one.doubts)),
        provenance={**parts[0].provenance, "layer": names, "fuse": how},
    )


def _share(values: NDArray[np.float32]) -> NDArray[np.float32]:
    top = float(np.abs(values).max()) if values.size else 0.0
    return np.divide(values, top, dtype=np.float32) if top > 0 else values


def _same(values: NDArray[Any]) -> NDArray[Any]:
    return values


def _mirrored(values: NDArray[Any]) -> NDArray[Any]:
    return values[..., ::-1]


#: how each map of :func:`variants` is laid back onto the picture, in their order
BACK: tuple[Callable[[NDArray[Any]], NDArray[Any]], ...] = (_same, _same, _mirrored, _mirrored, _mirrored)


def variants(fitted: ModelInput) -> list[ModelInput]:
    """The picture's five changed forms beside itself: times 0.9 and 1.1, and mirrored times 0.9, 1 and 1.1."""
    tensor = fitted.tensor
    plain = [tensor * factor for factor in FACTORS if factor != 1.0]
    mirrored = [tensor.flip(-1) * factor for factor in FACTORS]
    return [replace(fitted, tensor=one) for one in (*plain, *mirrored)]


def average(explanation: Explanation, others: Sequence[Explanation]) -> None:
    """Average the explanation's maps with those of its :func:`variants`, in place (test-time augmentation).

    A map that one of the forms refuses stays as it is, with a doubt that says so.
    """
    for number, row in enumerate(explanation.rows):
        for key, heatmap in list(row.heatmaps.items()):
            maps = [other.rows[number].heatmaps.get(key) for other in others]
            found = [turn(one.values) for turn, one in zip(BACK, maps, strict=True) if one is not None]
            if len(found) < len(others):
                doubt = f"Averaged over {len(found) + 1} of {len(others) + 1} forms of the picture: others refused."
                row.heatmaps[key] = replace(heatmap, doubts=(*heatmap.doubts, doubt))
                row.doubts = (*row.doubts, f"{key}: {doubt}")
            values = np.stack([heatmap.values, *found]).mean(0, dtype=np.float64).astype(np.float32)
            row.heatmaps[key] = replace(
                row.heatmaps[key],
                values=values,
                grid=None,
                raw=None,
                geometry=None,
                parts=[],
                reduction=f"{heatmap.reduction}; {AUGMENTED}" if heatmap.reduction else AUGMENTED,
                provenance={**heatmap.provenance, "aug_smooth": AUGMENTED},
            )


def check_fuse(how: str | None, layers: Sequence[str]) -> None:
    """Raises :class:`UsageError` where there is nothing to fuse, or no such way."""
    if how is None:
        return
    if how not in ("mean", "max"):
        raise UsageError(f"fuse must be mean or max, not {how!r}.")
    if len(layers) < 2:
        raise UsageError("fuse= makes one map of several layers: name at least two with layer=.")
