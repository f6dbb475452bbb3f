"""What is being explained: something that turns a network's output into one score per picture.

A *target* is what a person asks for (``"tabby"``, ``282``, ``"top1"``, ``"layer3:17"``, a function). It is resolved
against one network and one batch into a *scorer*, which the engine differentiates.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, Union, runtime_checkable

import torch
from torch import Tensor

from ..errors import LayerError, TargetError

if TYPE_CHECKING:
    from ..models.model import Model

#: keys under which networks with several outputs keep the one that scores
_OUTPUT_KEYS = ("logits", "out", "output", "outputs", "pred", "scores", "prediction")

TargetLike = Union[int, str, Callable[[Any], Tensor], "Target", None]


@runtime_checkable
class Target(Protocol):
    """A target of your own: ``resolve`` is called once for each batch, with the network's output on it."""

    def resolve(self, model: Model, output: Any, pictures: Sequence[Any]) -> Scorer: ...


class Scorer(Protocol):
    """A resolved target. ``labels`` names it for each picture; ``layers`` are kept in the forward for it."""

    labels: tuple[str, ...]

    @property
    def layers(self) -> tuple[str, ...]: ...

    def score(self, output: Any, layers: Mapping[str, Tensor], rows: Tensor) -> Tensor: ...

    def probability(self, output: Any, layers: Mapping[str, Tensor], rows: Tensor) -> Tensor: ...


def logits(output: Any) -> Tensor:
    """The class scores ``[B, K]`` in whatever a classifier returned: a tensor, tuple, dictionary or dataclass.

    One score per picture (``[B]``) counts as one class. Raises :class:`TargetError` where there are none.
    """
    found = None if _one_a_picture(output) else _first_tensor(output)
    if found is None:
        raise TargetError(
            f"The network returns a {type(output).__name__} without class scores: name one of its outputs "
            "(output:NAME), an instance (instance:0), or give a callable target that turns the output into one score "
            "per picture."
        )
    if found.ndim == 1:
        return found[:, None]
    if found.ndim > 2 and all(side == 1 for side in found.shape[2:]):
        return found.flatten(1)
    if found.ndim != 2:
        raise TargetError(
            f"The network returns {tuple(found.shape)}, not one row of class scores per picture: name a unit "
            "(layer:channel), a segment (segment:CLASS@x,y), or give a callable target."
        )
    return found


def _one_a_picture(output: Any) -> bool:
    """Whether this is a list with one answer a picture, as detectors return: its first tensor is no batch."""
    return isinstance(output, (list, tuple)) and bool(output) and all(isinstance(one, Mapping) for one in output)


def _first_tensor(output: Any) -> Tensor | None:
    if isinstance(output, Tensor):
        return output
    if isinstance(output, Mapping):
        keys = [key for key in _OUTPUT_KEYS if key in output]
        values = [output[key] for key in keys] or list(output.values())
    elif hasattr(output, "logits"):
        values = [output.logits]
    elif dataclasses.is_dataclass(output) and not isinstance(output, type):
        values = [getattr(output, f.name) for f in dataclasses.fields(output)]
    elif isinstance(output, (list, tuple)):
        values = list(output)
    else:
        return None
    return next((tensor for value in values if (tensor := _first_tensor(value)) is not None), None)


@dataclass(eq=False)
class ClassScorer:
    """The logit of one class a picture; with ``against``, the difference of two logits."""

    classes: Tensor
    labels: tuple[str, ...]
    against: Tensor | None = None

    layers: tuple[str, ...] = ()

    def score(self, output: Any, layers: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        values = logits(output)
        picked = _pick(values, self.classes, rows)
        return picked if self.against is None else picked - _pick(values, self.against, rows)

    def probability(self, output: Any, layers: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        """Softmax share (a sigmoid where there is one output only); with ``against``, the difference of shares."""
        values = logits(output).float()
        shares = values.softmax(1) if values.shape[1] > 1 else values.sigmoid()
        picked = _pick(shares, self.classes, rows)
        return picked if self.against is None else picked - _pick(shares, self.against, rows)


def _pick(values: Tensor, classes: Tensor, rows: Tensor) -> Tensor:
    index = classes[rows].to(values.device)
    return values.gather(1, index[:, None])[:, 0]


@dataclass(eq=False)
class UnitScorer:
    """A channel of a layer: its spatial mean, its maximum, or one neuron."""

    layer: str
    channel: int
    labels: tuple[str, ...]
    reduce: str = "mean"
    place: tuple[int, int] | None = None
    channels_last: bool = False

    @property
    def layers(self) -> tuple[str, ...]:
        return (self.layer,)

    def score(self, output: Any, layers: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        values = layers[self.layer]
        if self.channels_last and values.ndim == 4:
            values = values.movedim(-1, 1)
        if values.ndim < 2 or self.channel >= values.shape[1]:
            raise TargetError(
                f"Layer {self.layer} has {values.shape[1] if values.ndim > 1 else 0} channels (0 to "
                f"{values.shape[1] - 1 if values.ndim > 1 else 0}): there is no channel {self.channel}."
            )
        one = values[:, self.channel]
        if self.place is not None:
            row, col = self.place
            if one.ndim != 3 or row >= one.shape[1] or col >= one.shape[2]:
                grid = "×".join(map(str, one.shape[1:])) or "no"
                raise TargetError(f"Layer {self.layer} has a {grid} grid: there is no neuron at {row},{col}.")
            return one[:, row, col]
        flat = one.flatten(1) if one.ndim > 1 else one[:, None]
        return flat.amax(1) if self.reduce == "max" else flat.mean(1)

    def probability(self, output: Any, layers: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        raise TargetError(f"A unit ({self.labels[0]}) has no probability: use score=logit.")


@dataclass(eq=False)
class CallableScorer:
    """A function of the network's output that returns one score per picture (or one scalar)."""

    function: Callable[[Any], Tensor]
    labels: tuple[str, ...]
    layers: tuple[str, ...] = ()

    def score(self, output: Any, layers: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        value = self.function(output)
        if not isinstance(value, Tensor):
            raise TargetError(f"The target function returned a {type(value).__name__}, not a tensor of scores.")
        if value.ndim == 0:
            value = value[None]
        if value.shape != (len(rows),) and not (len(value) == 1 and value.ndim == 1):
            raise TargetError(
                f"The target function returned shape {tuple(value.shape)}: it must be one score per picture, "
                f"({len(rows)},)."
            )
        return value

    def probability(self, output: Any, layers: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        raise TargetError("A function as target has no probability: use score=logit.")


def resolve(
    target: TargetLike,
    model: Model,
    output: Any,
    pictures: Sequence[Any],
    against: TargetLike = None,
) -> Scorer:
    """The scorer of ``target`` for one batch of ``pictures`` on which the network returned ``output``.

    ``None`` and ``"top1"`` are the predicted class, ``"top2"`` the second, and so on. Raises :class:`TargetError`.
    """
    count = len(pictures)
    if isinstance(target, str):
        from .grammar import parse  # the small grammar of structured targets

        structured = parse(target, model)
        if structured is not None:
            if against is not None:
                raise TargetError(f"{target} cannot be contrasted with --against: name two classes.")
            return structured.resolve(model, output, pictures)
    if isinstance(target, Target) and not isinstance(target, str):
        return target.resolve(model, output, pictures)
    if isinstance(target, str) and (unit := parse_unit(target, model)) is not None:
        if against is not None:
            raise TargetError("A unit cannot be contrasted with --against: name two classes.")
        return dataclasses.replace(unit, labels=(target,) * count)
    if callable(target):
        return CallableScorer(target, (getattr(target, "__name__", "function"),) * count)
    try:
        values = logits(output)
    except TargetError:
        from . import default  # a detector, a segmenter, ...: what it is asked for means something else

        scorer = default(target, model, output, pictures)
        if scorer is None:
            raise
        if against is not None:
            raise TargetError(
                f"{model.name} gives no class scores, so nothing can be explained against {against}: leave it away."
            ) from None
        return scorer
    classes = class_indices(target, model, values)
    other = None if against is None else class_indices(against, model, values)
    labels = tuple(model.label(int(c)) for c in classes)
    if other is not None:
        if bool((other == classes).any()):
            raise TargetError("The target and --against are the same class: their difference is zero.")
        labels = tuple(f"{a} rather than {model.label(int(b))}" for a, b in zip(labels, other, strict=True))
    return ClassScorer(classes, labels, other)


def class_indices(target: TargetLike, model: Model, values: Tensor) -> Tensor:
    """The class index for every picture, ``[B]``."""
    count, classes = values.shape
    if target is None:
        target = "top1"
    if isinstance(target, str) and (place := re.fullmatch(r"top([1-9]\d*)", target)):
        rank = int(place[1])
        if rank > classes:
            raise TargetError(f"{target}: the network has only {classes} classes.")
        return values.detach().float().topk(rank, dim=1).indices[:, rank - 1].cpu()
    index = class_index(target, model.labels, classes)
    return torch.full((count,), index)


def class_index(target: Any, labels: Sequence[str] | None, classes: int) -> int:
    """A class by number or by name. An exact name wins; else a part is enough where it is unique."""
    if isinstance(target, bool) or not isinstance(target, (int, str)):
        try:
            target = int(target)
        except (TypeError, ValueError):
            raise TargetError(f"A target can be a class number, a name or a function, not {target!r}.") from None
    if isinstance(target, str) and target not in (labels or ()) and re.fullmatch(r"-?\d+", target.strip()):
        target = int(target)
    if isinstance(target, int):
        if not 0 <= target < classes:
            raise TargetError(f"There is no class {target}: the network has {classes} (0 to {classes - 1}).")
        return target
    return named_class(target, labels)


def named_class(name: str, labels: Sequence[str] | None) -> int:
    """The index of a class name: exact (then ignoring case), else a unique part.

    Raises :class:`TargetError` that lists the candidates, or the nearest names where it is misspelt.
    """
    if not name.strip():
        raise TargetError("The target is empty: give a class name, a number, or top1.")
    if not labels:
        raise TargetError(f"This network has no class names: give {name!r} as a number, or add --labels FILE.")
    folded = [label.casefold() for label in labels]
    wanted = name.strip().casefold()
    for exact in (
        [i for i, x in enumerate(labels) if x == name],
        [i for i, x in enumerate(folded) if x == wanted],
    ):
        if exact:
            if len(exact) > 1:
                raise TargetError(
                    f"{name!r} names {len(exact)} classes ({', '.join(map(str, exact))}): give a number."
                )
            return exact[0]
    partial = [i for i, x in enumerate(folded) if wanted in x]
    words = [i for i in partial if re.search(rf"\b{re.escape(wanted)}\b", folded[i])]
    if len(partial) == 1:
        return partial[0]
    if partial:
        shown = ", ".join(f"{labels[i]} ({i})" for i in (words or partial)[:8])
        more = f" and {len(partial) - 8} more" if len(partial) > 8 else ""
        raise TargetError(f"{name!r} could be {shown}{more}: give the whole name or the number.")
    near = difflib.get_close_matches(wanted, folded, 3, 0.5)
    hint = f" Did you mean {', '.join(labels[folded.index(n)] for n in near)}?" if near else ""
    raise TargetError(f"There is no class named {name!r}.{hint}")


_UNIT = re.compile(r"(?P<layer>.+):(?P<channel>\d+)(@(?:(?P<reduce>max|mean)|(?P<row>\d+)\s*,\s*(?P<col>\d+)))?")


def parse_unit(text: str, model: Model) -> UnitScorer | None:
    """``layer:channel``, ``layer:channel@max`` or ``layer:channel@row,col``; ``None`` where it is no unit.

    A class name that looks like one wins. Raises :class:`LayerError` where there is no such layer.
    """
    if model.labels is not None and text in model.labels:
        return None
    found = _UNIT.fullmatch(text.strip())
    if found is None:
        return None
    watched = model.watched()
    layer = found["layer"]
    if layer not in watched.layers:
        raise LayerError(no_such_layer(layer, list(watched.layers)))
    info = watched.layers[layer]
    place = (int(found["row"]), int(found["col"])) if found["row"] else None
    last = bool(getattr(info, "channels_last", False))
    return UnitScorer(layer, int(found["channel"]), (text,), found["reduce"] or "mean", place, last)


def no_such_layer(name: str, names: Sequence[str]) -> str:
    """The sentence for a wrong layer name, with the nearest ones."""
    near = difflib.get_close_matches(name, names, 3, 0.4) or list(names[-3:])
    return f"There is no layer {name!r}. Nearest: {', '.join(near)}. `convoscope layers` lists all."
