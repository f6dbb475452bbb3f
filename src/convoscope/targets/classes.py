"""Classes as targets: by name, by number, by rank, and one rather than another."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..errors import NotInPicture, TargetError
from ..models.outputs import Reading, Undecided, scores_of
from .base import Scorer, Target

if TYPE_CHECKING:
    from ..engine.passes.runner import Runner
    from ..models.model import Model

_RANK = re.compile(r"top([1-9]\d*)")
#: so many names of classes are all said where a name is refused
FEW = 20


@dataclass(frozen=True)
class ClassTarget(Target):
    """A class by ``name`` (a label, a part of one, a number, ``top1`` ...); with ``against``, rather than another.

    ``None`` is each picture's predicted class. Where a network gives no class scores, the best instance, the most
    frequent region or the first landmark stand for it (:mod:`.defaults`).
    """

    name: int | str | None = None
    against: int | str | None = None

    def layers(self, model: Model) -> tuple[str, ...]:
        return ()

    def files(self) -> tuple[Path, ...]:
        return ()

    def key(self) -> str:
        name = "top1" if self.name is None else str(self.name)
        return name if self.against is None else f"{name} rather than {self.against}"

    def resolve(self, model: Model, output: Any, pictures: Sequence[Any], runner: Runner) -> Scorer:
        try:
            reading, values = scores_of(model, output, len(pictures))
        except Undecided:
            raise
        except TargetError:
            from .defaults import default  # a detector, a segmenter, ...: what it is asked for means something else

            scorer = default(self.name, model, output, pictures, runner)
            if scorer is None:
                raise
            if self.against is not None:
                raise TargetError(
                    f"{model.name} gives no class scores, so nothing can be explained against {self.against}: ask "
                    "without it."
                ) from None
            return scorer
        if bool(values.detach().isnan().all(1).any()):
            raise NotInPicture(
                f"{model.name} returns NaN for every class, so there is no score to explain: its weights hold NaN, or "
                "it overflows on this picture."
            )
        classes = class_indices(self.name, model, values)
        if self.against is None:
            return ClassScorer(classes, tuple(class_name(model, reading, int(c)) for c in classes), None, reading)
        if reading.is_value:
            raise TargetError(f"{model.name} returns one number, so there is nothing to explain it against.")
        others = class_indices(self.against, model, values)
        if bool((others == classes).any()):
            raise TargetError("The target and --against are the same class: their difference is zero.")
        labels = tuple(
            f"{model.label(int(a))} rather than {model.label(int(b))}" for a, b in zip(classes, others, strict=True)
        )
        return ClassScorer(classes, labels, others, reading)

    @property
    def rank(self) -> bool:
        """Whether this is a place among a picture's own classes, not one class."""
        return self.name is None or (isinstance(self.name, str) and _RANK.fullmatch(self.name) is not None)


def class_name(model: Model, reading: Reading, index: int) -> str:
    """What a class is called; a single number is no class, and has its label's name where there is one."""
    if reading.is_value and (model.labels is None or len(model.labels) != 1):
        return "output"
    return model.label(index)


@dataclass(eq=False)
class ClassScorer(Scorer):
    """The score of one class a picture; with ``against``, the difference of two."""

    classes: Tensor
    labels: tuple[str, ...]
    against: Tensor | None = None
    reading: Reading = dataclasses.field(default_factory=Reading)

    @property
    def has_probability(self) -> bool:
        return not self.reading.is_value

    @property
    def as_value(self) -> bool:
        return self.reading.is_value

    def score(self, output: Any, layers: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        values = self.reading.values(output, len(rows))
        picked = _pick(values, self.classes, rows)
        return picked if self.against is None else picked - _pick(values, self.against, rows)

    def probability(self, output: Any, layers: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        """The softmax share, or what the network gives as a probability; with ``against``, their difference."""
        shares = self.reading.shares(self.reading.values(output, len(rows)))
        picked = _pick(shares, self.classes, rows)
        return picked if self.against is None else picked - _pick(shares, self.against, rows)


def _pick(values: Tensor, classes: Tensor, rows: Tensor) -> Tensor:
    index = classes[rows].to(values.device)
    return values.gather(1, index[:, None])[:, 0]


def class_indices(target: Any, model: Model, values: Tensor) -> Tensor:
    """The class index for every picture, ``[B]``. A class that is called ``top2`` is that class."""
    count, classes = values.shape
    if target is None:
        target = "top1"
    if isinstance(target, str) and target not in (model.labels or ()) and (place := _RANK.fullmatch(target)):
        rank = int(place[1])
        if rank > classes:
            raise TargetError(f"{target}: the network has only {classes} classes.")
        # NaN is no score, so it has no rank
        known = values.detach().float().nan_to_num(nan=-torch.inf, posinf=torch.inf, neginf=-torch.inf)
        return known.topk(rank, dim=1).indices[:, rank - 1].cpu()
    return torch.full((count,), class_index(target, model.labels, classes))


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
            if labels and str(target) in labels:
                raise TargetError(
                    f"There is no class {target}: the network has {classes} (0 to {classes - 1}). The class called "
                    f"{str(target)!r} is {labels.index(str(target))}."
                )
            raise TargetError(f"There is no class {target}: the network has {classes} (0 to {classes - 1}).")
        return target
    index = named_class(target, labels)
    if index >= classes:
        raise TargetError(f"{target!r} is label {index}, but the network has {classes} classes (0 to {classes - 1}).")
    return index


def named_class(name: str, labels: Sequence[str] | None, kind: str = "class") -> int:
    """The index of a class name (or of another ``kind`` of name): exact (then ignoring case), else a unique part.

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
    raise TargetError(f"There is no {kind} named {name!r}. {instead(name, labels)}")


def instead(name: str, labels: Sequence[str]) -> str:
    """What would work for a name that is not among the labels: the nearest, or all of a few, or some and how many."""
    folded = [label.casefold() for label in labels]
    near = difflib.get_close_matches(name.strip().casefold(), folded, 3, 0.5)
    if near:
        return f"Did you mean {', '.join(labels[folded.index(one)] for one in near)}?"
    if len(labels) <= FEW:
        return f"The names are {', '.join(labels)}."
    some = ", ".join(labels[:: max(1, len(labels) // 4)][:4])
    return f"There are {len(labels)}, among them {some}: give another name, a part of one, or a number from 0."
