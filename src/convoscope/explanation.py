"""``explain``: pictures × targets × methods, through the planner, to explanations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypedDict, Unpack, overload

import numpy as np
import torch
from PIL import Image

from .averaging import Fuse, average, check_fuse, fuse_layers, variants
from .errors import LayerError, UsageError
from .heatmap import Plan
from .methods import Method, method
from .methods.naming import named
from .models.model import Model
from .models.opening import open_model
from .notebook import shows_progress
from .outcomes import Outcome, Progress, Question
from .pictures.door import sources_of
from .pictures.picture import ModelInput, Picture
from .results import Explanation, Explanations
from .targets import TargetLike, parse
from .targets.units import Unit

#: what is drawn when nobody says what
DEFAULT_METHODS = ("grad-cam", "guided-grad-cam", "guided-backprop", "saliency")

MethodLike = str | Method | type[Method]
Methods = MethodLike | Sequence[MethodLike] | Mapping[str, MethodLike]
LayerLike = str | torch.nn.Module


#: one picture, as far as types can tell
One = str | Path | Image.Image | Picture | np.ndarray[Any, Any]
ModelLike = Model | torch.nn.Module | str


class Asked(TypedDict, total=False):
    """What may be asked beside pictures and methods: see :func:`explain`."""

    target: TargetLike | Sequence[TargetLike]
    targets: Sequence[TargetLike] | None
    against: TargetLike
    layer: LayerLike | Sequence[LayerLike] | None
    parts: int
    resize: str
    fuse: Fuse | None
    aug_smooth: bool
    progress: Progress | None


@overload
def explain(model: ModelLike, pictures: One, methods: Methods = ..., **asked: Unpack[Asked]) -> Explanation: ...
@overload
def explain(
    model: ModelLike, pictures: list[Any] | tuple[Any, ...], methods: Methods = ..., **asked: Unpack[Asked]
) -> Explanations: ...
@overload
def explain(model: ModelLike, pictures: Any, methods: Methods = ..., **asked: Unpack[Asked]) -> Any: ...


@shows_progress("Explaining")
def explain(
    model: ModelLike,
    pictures: Any,
    methods: Methods = DEFAULT_METHODS,
    *,
    target: TargetLike | Sequence[TargetLike] = None,
    targets: Sequence[TargetLike] | None = None,
    against: TargetLike = None,
    layer: LayerLike | Sequence[LayerLike] | None = None,
    parts: int = 0,
    resize: str = "exact",
    fuse: Fuse | None = None,
    aug_smooth: bool = False,
    progress: Progress | None = None,
) -> Any:
    """Maps of why the network scores ``target`` as it does.

    Per picture, target and method the outcome is a map or a refusal: what one of them cannot have, the others keep.
    The network is left bit for bit as it was.

    Args:
        model: an open model, a module, or a spec as :func:`open_model` takes it.
        pictures: a path, PIL image, array, tensor (C×H×W in 0..1) or :class:`Picture` gives one
            :class:`Explanation`; a list, a tensor N×C×H×W, (picture, label) pairs or a DataLoader give
            :class:`Explanations`.
        methods: names, classes or instances; a mapping gives the maps names of your own.
        target: ``None`` is each picture's predicted class; see :mod:`.targets`; several targets make rows.
        targets: one target a picture, in their order, instead of ``target``.
        against: a class to contrast classes with.
        layer: the layer of all methods that have one, by name or as the module itself (several layers:
            ``grad-cam@NAME`` each).
        parts: how many channel × weight maps CAMs keep.
        resize: ``plain`` draws coarse maps by the usual half-pixel resize, not at the cells' true centres.
        fuse: one map over several layers, each as a share of its own maximum: their ``mean``, or the strongest
            (``max``).
        aug_smooth: average each map over the picture mirrored or not, its input times 0.9, 1 and 1.1 (six forms).
        progress: called as ``progress(name, done, total)`` by every method, with how much of its own work on the
            batch at hand is done (masks, steps, or 1 of 1 at its end).

    Returns:
        An :class:`Explanation`, or :class:`Explanations` in the pictures' order. A method that gives no map is in
        ``refused``, with the reason.

    Raises:
        UsageError, TargetError, LayerError, PictureError: what was asked fits no picture.
        MethodRefused, ModelError: no picture has a map, and one method was asked for or the network does not run.
    """
    model = open_model(model) if not isinstance(model, Model) else model
    sources, single = sources_of(pictures, volumes=model.preprocessing.frames is not None)
    settings: dict[str, Any] = {
        "against": against, "layer": _names(model, layer), "parts": parts, "resize": resize, "fuse": fuse,
        "aug_smooth": aug_smooth, "progress": progress,
    }  # fmt: skip
    if targets is None:
        done = outcomes(model, sources, methods, target=target, **settings)
    else:
        done = _each_its_own(model, sources, methods, target, list(targets), settings)
    errors = [error for one in done for error in one.errors]
    if errors and all(one.lost for one in done):
        raise errors[0]
    if all(len(one.explanation.refused) == 1 and not any(one.explanation.rows) for one in done):
        raise errors[0]
    explanations = [one.explanation for one in done]
    return explanations[0] if single else Explanations(explanations, explanations[0].plan)


def _each_its_own(
    model: Model, sources: list[Any], methods: Any, target: Any, targets: list[Any], settings: dict[str, Any]
) -> list[Outcome]:
    """One target a picture: pictures of one target go together."""
    if target is not None:
        raise UsageError("Give target= (the same for all pictures) or targets= (one a picture), not both.")
    if len(targets) != len(sources):
        raise UsageError(f"targets= has {len(targets)} entries for {len(sources)} pictures: give one each.")
    groups: dict[Any, list[int]] = {}
    for row, one in enumerate(targets):
        groups.setdefault((type(one).__name__, one if isinstance(one, (str, int)) else id(one)), []).append(row)
    found: dict[int, Outcome] = {}
    for rows in groups.values():
        made = outcomes(model, [sources[row] for row in rows], methods, target=targets[rows[0]], **settings)
        found.update(zip(rows, made, strict=True))
    return [found[row] for row in range(len(sources))]


def _names(model: Model, layer: Any) -> Any:
    """Layers by their names, also where the module itself was given."""
    if isinstance(layer, (list, tuple)):
        return [_names(model, one) for one in layer]
    if isinstance(layer, str):
        return layer.replace("_orig_mod.", "")  # torch.compile's wrapper leaves no mark in names
    if not isinstance(layer, torch.nn.Module):
        return layer
    for name, module in model.module.named_modules():
        if module is layer and name:
            return name
    raise LayerError(f"The layer given as a module ({type(layer).__name__}) is none of {model.name}'s own modules.")


def outcomes(
    model: Model,
    pictures: Sequence[Any],
    methods: Methods = DEFAULT_METHODS,
    *,
    target: TargetLike | Sequence[TargetLike] = None,
    against: TargetLike = None,
    layer: str | Sequence[str] | None = None,
    parts: int = 0,
    resize: str = "exact",
    fuse: Fuse | None = None,
    aug_smooth: bool = False,
    progress: Progress | None = None,
) -> list[Outcome]:
    """As :func:`explain`, one :class:`Outcome` a picture: what some pictures cannot have is told, not raised.

    ``pictures`` may be prepared already (:meth:`Model.prepare`).

    Raises:
        UsageError, TargetError, LayerError, PictureError: what was asked fits no picture.
    """
    if not pictures:
        raise UsageError("No pictures given.")
    if resize not in ("exact", "plain"):
        raise UsageError(f"resize must be exact or plain, not {resize!r}.")
    listed: list[Any] = list(target) if isinstance(target, (list, tuple)) else [target]
    if not listed:
        raise UsageError("No targets given.")
    targets = [parse(one, model, against) for one in listed]
    wanted = _methods(model, methods, layer, parts)
    fitted = [one if isinstance(one, ModelInput) else model.prepare(one) for one in pictures]
    plan = Plan(pictures=len(fitted))
    layers = [layer] if isinstance(layer, str) else list(layer or ())
    check_fuse(fuse, layers)
    question = Question(model, fitted, wanted, targets, resize == "plain", plan, progress)
    done = question.outcomes()
    if aug_smooth:
        _augment(question, done)
    if fuse is not None:
        for one in done:
            fuse_layers(one.explanation, layers, fuse)
    return done


def _augment(question: Question, done: list[Outcome]) -> None:
    """Average every picture's maps over its changed forms, each asked for the same targets."""
    for fitted, one in zip(question.fitted, done, strict=True):
        asked = [row.question for row in one.explanation.rows]
        if one.lost or any(target is None for target in asked):
            continue
        if any(isinstance(target, Unit) and target.place is not None for target in asked):
            raise UsageError("aug_smooth mirrors the picture, so that one neuron's place means another part of it.")
        again = replace(question, fitted=variants(fitted), targets=asked, progress=None)
        average(one.explanation, [other.explanation for other in again.outcomes()])


def _methods(model: Model, methods: Methods, layer: str | Sequence[str] | None, parts: int) -> dict[str, Method]:
    """Methods by the keys of their maps: see :func:`convoscope.methods.naming.named`; those of a mapping are kept."""
    given: Mapping[str, MethodLike] | None = methods if isinstance(methods, Mapping) else None
    listed: Sequence[MethodLike]
    if given is not None:
        listed = list(given.values())
    else:
        listed = [methods] if isinstance(methods, (str, Method, type)) else list(methods)
    if not listed:
        raise UsageError("No methods given: `convoscope methods` lists them.")
    layers = [None] if layer is None else list(layer) if isinstance(layer, (list, tuple)) else [layer]
    strange = next((one for one in layers if one is not None and not isinstance(one, str)), None)
    if strange is not None:
        raise LayerError(
            f"A layer is named (layer='layer4') or given as the module itself (layer=net.layer4), not {strange!r}: "
            "`convoscope layers` lists the names."
        )
    if not layers:
        raise UsageError("No layers given: name one, or ask without layer= for the default.")
    if given is not None and len(layers) > 1:
        raise UsageError("Methods with names of your own take one layer each: give it to the method itself.")
    chosen: list[Method] = []
    for one in map(method, listed):
        for where in layers if hasattr(one, "layer") else [None]:
            settings: dict[str, Any] = {}
            if where is not None:
                settings["layer"] = where
            if parts and hasattr(one, "parts"):
                settings["parts"] = parts
            chosen.append(replace(one, **settings) if settings else one)
    return named(chosen) if given is None else dict(zip(given, chosen, strict=True))
