"""What the numbers of a dense output are: logits, or probabilities already, which get no second softmax."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor

MapKind = Literal["logits", "probabilities", "sigmoids"]


def map_kind(maps: Tensor, activation: Callable[[], str]) -> MapKind:
    """How maps ``[B, K, h, w]`` are meant.

    Args:
        maps: one map a class.
        activation: the name of the network's last operation; asked only where the values alone do not tell.
    """
    values = maps.detach().float()
    if float(values.min()) < -1e-5 or float(values.max()) > 1 + 1e-5:
        return "logits"
    if values.shape[1] > 1 and bool(((values.sum(1) - 1).abs() < 2e-3).all()):
        return "probabilities"
    return "sigmoids" if activation() == "sigmoid" else "logits"


def map_shares(maps: Tensor, kind: MapKind) -> Tensor:
    """The probabilities ``[B, K, h, w]``; a single map is a class by itself, so it has a sigmoid."""
    if kind != "logits":
        return maps
    return maps.softmax(1) if maps.shape[1] > 1 else maps.sigmoid()


def winners(maps: Tensor, kind: MapKind) -> Tensor:
    """The class of every cell, int64 ``[B, h, w]``; of a single map 0 where it is on, else -1."""
    if maps.shape[1] > 1:
        return maps.argmax(1)
    return (maps[:, 0] > (0.5 if kind == "sigmoids" else 0)).long() - 1


def map_notes(maps: Tensor, kind: MapKind, labels: int | None) -> tuple[str, ...]:
    """How a dense output was read, in sentences; nothing where the labels say that there is a map a class."""
    count, height, width = maps.shape[1:]
    found = []
    if labels != count:
        what = f"{count} maps of {height}×{width}" if count > 1 else f"one map of {height}×{width}"
        known = "nobody gave labels" if labels is None else f"there are {labels} labels"
        found.append(
            f"The network returns {what} a picture and {known}: they are taken for a segmenter's, a map a class. If "
            "they are something else (heat maps of landmarks: landmark:0; a picture, a depth), say what to explain: "
            "pixel:CLASS@x,y, a unit (layer:channel) or a function."
        )
    if kind != "logits":
        found.append(
            "The maps are probabilities already" + (" (sigmoids)" if kind == "sigmoids" else "") + ": no softmax is "
            "added, and where they are sure their gradients vanish."
        )
    return tuple(found)
