"""A run of checkpoints as a film: filters, figures and class pictures, a frame a checkpoint."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from ...errors import ConvoscopeError, UsageError
from ...methods.views import filter_weights
from ...visualization import visualize
from ..film import Film
from ..frames import filter_sheet, frame
from .sides import Side

if TYPE_CHECKING:
    from .result import Diff

#: classes whose pictures are made, and the steps of gradient ascent of each
CLASSES, STEPS = 6, 48
Tell = Callable[[str, int, int], None]


def film_of(diff: Diff, path: str | Path, progress: Tell | None = None) -> Path:
    """Write the film of a comparison of several checkpoints.

    Args:
        diff: the comparison.
        path: the ``.webp`` file.
        progress: called after every frame.

    Raises:
        UsageError: fewer than three networks, or networks that cannot be opened.
    """
    if diff.run is None:
        raise UsageError("A film needs a run of at least three checkpoints.")
    film = Film(path, 700)
    kernels = [_filters(side) for side in diff.sides]
    known = [one for one in kernels if one is not None]
    top = max((float(np.abs(one).max()) for one in known), default=1.0) or 1.0
    last = diff.sides[-1]
    # without labels: the classes that the last network sees in the pictures
    shown = last.pictures.truth[last.known] if last.known.any() else last.prediction[last.prediction >= 0]
    classes = [int(one) for one in np.unique(shown)[:CLASSES]]
    for place, side in enumerate(diff.sides):
        accuracy = diff.run.accuracy[place]
        said = [] if accuracy is None else [f"{accuracy.mean:.1%} right"]
        if diff.run.layers:
            said.append(f"CKA to the last {diff.run.to_last[place, -1]:.2f}")
        said.append(f"{diff.run.dead[place]} dead units")
        weights = kernels[place]
        film.add(
            frame(
                side.name,
                [", ".join(said)],
                None if weights is None else filter_sheet(weights[:64], top),
                [("What its classes want", _class_pictures(side, classes))],
            )
        )
        if progress is not None:
            progress("Film", place + 1, len(diff.sides))
    return film.path


def _filters(side: Side) -> Any:
    if side.open is None:
        return None
    try:
        _, weights = filter_weights(side.open())
    except ConvoscopeError:
        return None
    return weights if weights.shape[1] in (1, 3) else None


def _class_pictures(side: Side, classes: list[int]) -> list[tuple[Image.Image, str]]:
    if side.open is None or not classes:
        return []
    try:
        made = visualize(side.open(), classes, recipe="fourier", steps=STEPS, seed=0)
    except ConvoscopeError:
        return []
    listed = [made] if len(classes) == 1 and not hasattr(made, "__iter__") else list(made)
    return [(one.image, side.label(index)) for one, index in zip(listed, classes, strict=True)]
