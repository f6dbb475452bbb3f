"""``visualize``: from targets to pictures, in one call or frame by frame."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from ..errors import UsageError
from ..models.model import Model
from ..models.opening import open_model, override
from ..notebook import shows_progress
from ..targets import TargetLike
from . import natural
from .recipes import Recipe
from .recipes import recipe as recipe_of
from .result import Frame, Visualizations
from .work import OBJECTIVES, Work

#: the recipe of each objective where none is named
DEFAULT_RECIPES = {
    "score": "maco", "invert": "mahendran", "dream": "dream", "fool": "ddn", "caricature": "fourier",
}  # fmt: skip

Progress = Callable[[str, int, int], None]


@shows_progress("Visualizing")
def visualize(
    model: Model | nn.Module | str,
    targets: TargetLike | Sequence[TargetLike] = None,
    *,
    recipe: str | Recipe | None = None,
    objective: str = "score",
    image: Any = None,
    layer: str | None = None,
    steps: int | None = None,
    seed: int | None = None,
    count: int = 1,
    diverse: int = 0,
    size: int | tuple[int, int] | None = None,
    settings: Mapping[str, Any] | None = None,
    pictures: Any = None,
    also: Model | Sequence[Model] = (),
    weight: float = 1.0,
    progress: Progress | None = None,
) -> Any:
    """Pictures that the network makes most of: of a class, a unit, a direction, or of another picture.

    Ctrl-C ends the ascent and returns what was reached. The network is left bit for bit as it was.

    Args:
        model: an open model, a module, or a spec.
        targets: anything that :func:`convoscope.explain` takes (``"tabby"``, ``282``, ``"layer3:17"``,
            ``"layer3:17@6,6"``, ``"tabby - tiger cat"``, a function); a list makes them all in one batch.
        recipe: a name or an instance (``maco``, ``fourier``, ``yosinski``, ``simonyan``; ``santurkar`` for robust
            networks).
        objective: ``score`` is the target; ``invert`` finds a picture with the features of ``image`` at ``layer``;
            ``caricature`` exaggerates them; ``dream`` amplifies in ``image`` what ``layer`` (or the target) sees;
            ``fool`` changes ``image`` as little as it can until the network says the target.
        image: where the objective starts from; may be a list.
        layer: of the objective; without ``targets`` it means all of its channels.
        steps: overrides the recipe's.
        seed: of the first picture; further ones have ``seed + 1``, ...; None is the model's.
        count: pictures of each target.
        diverse: makes so many that differ from each other.
        size: the input size to use.
        settings: fields of the recipe.
        pictures: a folder, paths or arrays: give MACO its spectrum and every picture its comparison with real ones.
        also: other models that are asked what they see.
        weight: how much ``diverse`` weighs.
        progress: ``progress(what, done, total)`` is called as steps are taken.

    Returns:
        One :class:`Visualization` for one target, else :class:`Visualizations`. Scores, probabilities and ranks are
        those of the saved 8-bit picture, read again through the model's preprocessing.

    Raises:
        ConvoscopeError: a target, recipe or setting that does not fit.
    """
    single = count == 1 and not diverse and not isinstance(targets, (list, tuple))
    single = single and not isinstance(image, (list, tuple)) and not (targets is None and objective == "score")
    results: Visualizations | None = None
    frames = visualize_frames(
        model, targets, recipe=recipe, objective=objective, image=image, layer=layer, steps=steps, seed=seed,
        count=count, diverse=diverse, size=size, settings=settings, pictures=pictures, also=also, weight=weight,
        progress=progress, pixels=False,
    )  # fmt: skip
    for frame in frames:
        results = frame.results or results
    assert results is not None
    return results[0] if single and len(results) == 1 else results


def visualize_frames(
    model: Model | nn.Module | str,
    targets: TargetLike | Sequence[TargetLike] = None,
    *,
    recipe: str | Recipe | None = None,
    objective: str = "score",
    image: Any = None,
    layer: str | None = None,
    steps: int | None = None,
    seed: int | None = None,
    count: int = 1,
    diverse: int = 0,
    size: int | tuple[int, int] | None = None,
    settings: Mapping[str, Any] | None = None,
    pictures: Any = None,
    also: Model | Sequence[Model] = (),
    weight: float = 1.0,
    progress: Progress | None = None,
    every: int | None = None,
    pixels: bool = True,
) -> Generator[Frame, None, None]:
    """Like :func:`visualize`, as a generator of :class:`Frame`; the last one carries the ``results``.

    Closing the generator cancels; between frames the network is as it was found and free for others.

    Args:
        model: as all that follow, see :func:`visualize`.
        every: a frame comes after so many steps; None: about twice a second.
        pixels: False spares drawing the frames.

    Yields:
        Frames with their step and scores.
    """
    given = model if isinstance(model, Model) else open_model(model)
    preprocessing = override(given.preprocessing, size, None, None, None)
    if preprocessing is not given.preprocessing:
        given = replace(given, preprocessing=preprocessing)
    chosen = recipe_of(recipe or DEFAULT_RECIPES.get(objective, "maco"), settings)
    if steps is not None:
        chosen = dataclasses.replace(chosen, **{"steps": _whole("steps", steps, 1)})
    others = [also] if isinstance(also, Model) else list(also)
    work = Work(
        given, chosen, objective, layer, given.seed if seed is None else seed, _whole("count", count, 1),
        _whole("diverse", diverse, 0), weight, natural.listed(pictures), others, progress, every, pixels,
    )  # fmt: skip
    return work.frames(targets, image)


def _whole(name: str, value: Any, least: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UsageError(f"{name} must be a whole number of at least {least}, not {value!r}.")
    return value


__all__ = ["DEFAULT_RECIPES", "OBJECTIVES", "visualize", "visualize_frames"]
