"""What networks return, whatever it is wrapped in: tensors by path, detections, dense maps, the principal tensor.

Networks return tensors, tuples, dictionaries, dataclasses, named tuples and lists of variable length. Everything here
looks at such a value without changing it and keeps the graph of its tensors.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import torch
from torch import Tensor

from ..errors import TargetError

if TYPE_CHECKING:
    from .model import Model

#: the keys under which networks keep what every pixel is
_DENSE = ("semantic", "sem_seg", "out", "logits", "masks_logits", "heatmaps", "heatmap", "output", "pred")


def members(value: Any) -> list[tuple[str, Any]]:
    """The named members of a dictionary, dataclass, named tuple or sequence (numbers as names); none of a tensor."""
    if isinstance(value, Tensor):
        return []
    if isinstance(value, Mapping):
        return [(str(key), item) for key, item in value.items()]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return [(f.name, getattr(value, f.name)) for f in dataclasses.fields(value)]
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return list(zip(value._fields, value, strict=True))
    if isinstance(value, (list, tuple)):
        return [(str(index), item) for index, item in enumerate(value)]
    return []


def tensors(value: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """Every tensor inside, with its path: ``heads.0``, ``boxes``."""
    if isinstance(value, Tensor):
        yield path, value
        return
    for name, item in members(value):
        yield from tensors(item, f"{path}.{name}" if path else name)


def member(value: Any, name: str) -> Any:
    """One member by name or number; ``None`` where there is none."""
    return dict(members(value)).get(name)


def dense(output: Any, *, named: bool = True) -> Tensor | None:
    """Maps ``[B, K, h, w]`` with more than one cell: what a segmenter or a heat-map regressor returns, or ``None``.

    A single map a picture, ``[B, h, w]``, counts where it is all that is returned or is called by a map's name:
    elsewhere three dimensions are as likely a detector's candidates.
    """
    if isinstance(output, Tensor):
        if not output.is_floating_point():
            return None
        if named and output.ndim == 3 and output.shape[-1] == output.shape[-2] and output.shape[-2] > 2:
            output = output[:, None]
        return output if output.ndim == 4 and output.shape[2] * output.shape[3] > 1 else None
    found = dict(members(output))
    if _pyramid(found):
        return None
    for key in (*(k for k in _DENSE if k in found), *(k for k in found if k not in _DENSE)):
        inner = found[key]
        if isinstance(inner, (Tensor, Mapping)) and (maps := dense(inner, named=key in _DENSE)) is not None:
            return maps
    return None


def _pyramid(found: Mapping[str, Any]) -> bool:
    """Whether these are the stages of a backbone, each smaller and with other channels: none is a map of classes."""
    shapes = [tuple(item.shape[1:]) for item in found.values() if isinstance(item, Tensor) and item.ndim == 4]
    return (
        len(shapes) > 2
        and len(shapes) == len(found)
        and not any(key in _DENSE for key in found)
        and len({shape[0] for shape in shapes}) > 1
        and len({shape[1:] for shape in shapes}) > 1
    )


def element(output: Any, path: str) -> tuple[Any, list[int]]:
    """What stands at ``path`` (``heads.age.0``), and the numbers that are left once a tensor is reached.

    Raises :class:`TargetError` that lists what there is.
    """
    value = output
    steps = [step for step in path.split(".") if step]
    for number, step in enumerate(steps):
        if isinstance(value, Tensor):
            rest = steps[number:]
            if not all(one.isdigit() for one in rest):
                where = ".".join(steps[:number]) or "what the network returns"
                raise TargetError(f"output:{path}: {where} is a tensor; only numbers can follow.")
            return value, [int(one) for one in rest]
        inner = dict(members(value))
        if step not in inner:
            known = ", ".join(name for name, _ in tensors(output)) or "no tensor at all"
            raise TargetError(f"The network's output has no {path!r}: it holds {known}.")
        value = inner[step]
    return value, []


def pick(output: Any, path: str) -> tuple[Tensor, list[int]]:
    """The tensor at ``path`` (``heads.age.0``) and the numbers that are left over once a tensor is reached.

    Raises :class:`TargetError` that lists what there is.
    """
    value, left = element(output, path)
    if isinstance(value, Tensor):
        return value, left
    inside = [tensor for _, tensor in tensors(value)]
    if len(inside) == 1:
        return inside[0], []
    known = ", ".join(name for name, _ in tensors(output)) or "no tensor at all"
    raise TargetError(f"output:{path} is not one tensor: the output holds {known}.")


def anchor(item: Any) -> Tensor:
    """Zero, joined to the graph of whatever tensors are inside: a score for what is not there any more."""
    found = [tensor for _, tensor in tensors(item) if tensor.is_floating_point()]
    live = [tensor for tensor in found if tensor.requires_grad] or found
    return live[0].sum() * 0 if live else torch.zeros(())


#: keys under which networks with several outputs keep the class scores, the likeliest first
_SCORES = ("logits", "logits_per_image", "out", "output", "outputs", "pred", "scores", "prediction")

Form = Literal["rows", "one row", "column", "number"]
Kind = Literal["logits", "probabilities", "percent", "sigmoids", "value", "two classes", "two probabilities"]


class Undecided(TargetError):
    """What a network returns can be read in several ways, or in none: the sentence says what to tell."""


@dataclass(frozen=True)
class Reading:
    """Where the class scores stand in what a network returns, and what they are: decided once, used ever after.

    ``kind``: ``logits`` (softmax gives probabilities); ``probabilities`` (rows sum to one already); ``sigmoids`` (each
    class by itself, in 0..1); ``percent`` (rows sum to a hundred); ``value`` (one number that is no class: a
    regression); ``two classes`` and ``two probabilities`` (one number, a logit or a sigmoid, that decides between two
    labels). ``notes`` are sentences for whoever reads the result.
    """

    path: str = ""
    form: Form = "rows"
    kind: Kind = "logits"
    notes: tuple[str, ...] = ()

    @property
    def is_value(self) -> bool:
        """Whether this is one number without a probability."""
        return self.kind == "value"

    def values(self, output: Any, count: int) -> Tensor:
        """The scores ``[count, K]`` in an output for ``count`` rows. Raises :class:`TargetError` where it changed."""
        found = dict(_candidates(output)).get(self.path)
        if found is None:
            raise TargetError("The network returned another kind of output for the changed picture.")
        if self.form == "number":
            found = found.reshape(1, 1) if found.ndim == 0 else found.flatten(1) if found.ndim > 1 else found[:, None]
        elif self.form == "one row":
            # what is squeezed for one picture has its batch back for several
            found = found[None] if found.ndim == 1 else found.flatten(1)
        elif found.ndim == 1:
            found = found[:, None]
        elif found.ndim > 2:
            found = found.flatten(1)
        if found.ndim != 2 or len(found) != count:
            raise TargetError(
                f"The network returned {tuple(found.shape)} for {count} pictures: not one row of scores for each."
            )
        if self.kind == "two classes":
            return torch.cat([-found, found], 1)
        if self.kind == "two probabilities":
            return torch.cat([1 - found, found], 1)
        return found

    def shares(self, values: Tensor) -> Tensor:
        """Probabilities ``[B, K]`` of scores ``[B, K]``; no softmax is added to one that is there already."""
        values = values.float()
        if self.kind == "logits":
            return values.softmax(1)
        if self.kind == "two classes":
            return values.sigmoid()
        if self.kind == "value":
            raise TargetError("One number that the network returns has no probability: use score=logit.")
        if self.kind == "percent":
            return values / 100
        return values


def class_scores(
    output: Any, count: int, labels: int | None = None, activation: Callable[[], str] = lambda: ""
) -> Reading:
    """How the class scores of ``count`` pictures stand in ``output``.

    Batch size and number of labels decide which element is meant, then its name; whether they are probabilities is
    seen in the values. ``activation`` names the last operation of the network, and is asked only where that matters.

    Args:
        output: whatever the network returned: a tensor, tuple, dictionary, dataclass.
        count: the pictures of the batch.
        labels: how many class names there are, or ``None``.
        activation: the name of the network's last operation.

    Raises:
        TargetError: there are no class scores (a map, detections).
        Undecided: several elements could be meant, or class numbers were returned in place of scores.
    """
    found = _candidates(output)
    fitting = [(path, form, width) for path, tensor in found if (form := _form(tensor, count)) is not None
               for width in [_width(tensor, form)]]  # fmt: skip
    if not fitting:
        _refuse(output, found, count)
    path, form, width = _meant(output, count, fitting, labels)
    notes = []
    if len(fitting) > 1 and path.split(".")[0] not in _SCORES:
        notes.append(
            f"Of what the network returns, output {path} ({width} numbers a picture) is taken for the scores."
        )
    plain = Reading(path, form)
    values = plain.values(output, count).detach().float()
    kind = _kind(values, labels, activation)
    if kind == "probabilities":
        notes.append(
            "The network returns probabilities (every picture's sum to one): they are used as they are. Where it is "
            "sure their gradients vanish; the logits before its softmax explain more."
        )
    elif kind == "percent":
        notes.append("The network returns percentages (every picture's sum to 100): no softmax is added.")
    elif kind == "sigmoids":
        notes.append(
            "The network returns sigmoids: each is used as the probability that it is, and no softmax added."
        )
    elif kind in ("two classes", "two probabilities"):
        what = "logit" if kind == "two classes" else "probability"
        notes.append(f"The network returns one number for two labels: it is taken for the second label's {what}.")
    elif labels is not None and labels != width and not (kind == "value" and labels == 1):
        notes.append(
            f"The network returns {width} scores a picture, but there are {labels} labels: names may be wrong, and "
            "are missing beyond the shorter of the two."
        )
    if labels is None and width >= 8 and bool(((values.norm(dim=1) - 1).abs() < 1e-3).all()):
        notes.append(
            f"Every picture's {width} numbers have length one, as an embedding's have: then none of them is a class, "
            "and what makes two pictures alike is asked by similar:FILE."
        )
    return Reading(path, form, kind, tuple(notes))


def logits(output: Any, count: int | None = None, labels: int | None = None) -> Tensor:
    """The class scores ``[B, K]`` in whatever a classifier returned; one score per picture counts as one class.

    Raises :class:`TargetError` where there are none.
    """
    if count is None:
        count = next((len(tensor) for _, tensor in _candidates(output) if tensor.ndim > 0), 1)
    return class_scores(output, count, labels).values(output, count)


def scores_of(model: Model, output: Any, count: int) -> tuple[Reading, Tensor]:
    """The reading of a model's output, and its class scores ``[count, K]``. Raises as :func:`class_scores`."""
    labels = None if model.labels is None else len(model.labels)
    reading = class_scores(output, count, labels, lambda: last_operation(model))
    return reading, reading.values(output, count)


def last_operation(model: Model) -> str:
    """The kind of the network's last operation, in small letters; empty where it is not known."""
    trace = next(iter(model._watched.values()), None)
    if trace is None:
        try:
            trace = model.watched()
        except Exception:  # a network that takes one size only, not the usual: then nothing is known
            return ""
    kind, container = "", None
    for layer in reversed(trace.layers.values()):  # a container comes after its members
        if container is not None and not layer.name.startswith(f"{container}."):
            break
        kind, container = layer.kind, layer.name
    return kind.casefold()


def _candidates(output: Any, path: str = "") -> list[tuple[str, Tensor]]:
    """Every tensor that may hold one row a picture; answers of detectors (a dictionary a picture) are none."""
    if isinstance(output, Tensor):
        return [(path, output)]
    if isinstance(output, (list, tuple)) and output and all(isinstance(one, Mapping) for one in output):
        return []
    return [
        found for name, item in members(output) for found in _candidates(item, f"{path}.{name}" if path else name)
    ]


def _form(tensor: Tensor, count: int) -> Form | None:
    if not tensor.is_floating_point():
        return None
    if tensor.ndim == 0:
        return "number" if count == 1 else None
    if tensor.ndim == 1:
        if len(tensor) == count:
            return "column" if count > 1 else "number"
        return "one row" if count == 1 and len(tensor) > 1 else None
    return "rows" if len(tensor) == count and all(side == 1 for side in tensor.shape[2:]) else None


def _width(tensor: Tensor, form: Form) -> int:
    return 1 if form in ("number", "column") else int(tensor.shape[0] if form == "one row" else tensor.shape[1])


def _meant(
    output: Any, count: int, fitting: list[tuple[str, Form, int]], labels: int | None
) -> tuple[str, Form, int]:
    named = {path: one for one in fitting for path in [one[0]]}
    principal = next((key for key in _SCORES if member(output, key) is not None), None)
    if principal is not None and isinstance(member(output, principal), Tensor) and principal not in named:
        # the element that is called the output is no row of scores: a map, most often
        raise TargetError(
            f"The network's {principal!r} is {tuple(member(output, principal).shape)}: no class scores."
        )
    left = fitting
    if labels is not None and len(left) > 1:
        left = [one for one in left if one[2] == labels] or left
    if len(left) > 1 and principal in {one[0].split(".")[0] for one in left}:
        inside = [one for one in left if one[0].split(".")[0] == principal]
        left = inside[:1] if len({one[2] for one in inside}) == 1 else inside
    if len(left) == 2 and (first := _logits_of(output, count, left)) is not None:
        left = [first]
    if len(left) > 1:
        listed = ", ".join(f"{path or 'itself'} ({width} numbers a picture)" for path, _, width in left)
        known = "" if labels is None else f" and {labels} labels do not decide"
        raise Undecided(
            f"The network returns several rows of numbers{known}: {listed}. Say which holds the class scores "
            f"(--output {left[-1][0]}, output={left[-1][0]!r} in Python), or name one number (--target output:"
            f"{left[-1][0]}.0)."
        )
    return left[0]


def _logits_of(output: Any, count: int, two: list[tuple[str, Form, int]]) -> tuple[str, Form, int] | None:
    """Of scores and their own softmax, the scores."""
    if two[0][2] != two[1][2] or two[0][2] < 2:
        return None
    rows = [Reading(path, form).values(output, count).detach().float() for path, form, _ in two]
    for this, other in ((0, 1), (1, 0)):
        if torch.allclose(rows[this].softmax(1), rows[other], atol=1e-3):
            return two[this]
    return None


def _kind(values: Tensor, labels: int | None, activation: Callable[[], str]) -> Kind:
    low, high = float(values.min()), float(values.max())
    inside = low >= -1e-5 and high <= 1 + 1e-5
    if values.shape[1] > 1:
        if inside and bool(((values.sum(1) - 1).abs() < 2e-3).all()):
            return "probabilities"
        if low >= 0 and values.shape[1] > 2 and bool(((values.sum(1) - 100).abs() < 0.2).all()):
            return "percent"
        return "sigmoids" if inside and activation() == "sigmoid" else "logits"
    if inside and activation() == "sigmoid":
        return "two probabilities" if labels == 2 else "sigmoids"
    return "two classes" if labels == 2 else "value"


def _refuse(output: Any, found: list[tuple[str, Tensor]], count: int) -> NoReturn:
    """The sentence for an output without class scores."""
    numbers = [tensor for _, tensor in found if not tensor.is_floating_point() and not tensor.is_complex()]
    if numbers and not any(tensor.is_floating_point() for _, tensor in found):
        kind = str(numbers[0].dtype).removeprefix("torch.")
        raise Undecided(
            f"The network returns {kind} {tuple(numbers[0].shape)}: decisions (an argmax), not scores, and a decision "
            "has no gradient and no degree. Give the network without its last step, or name a unit (layer:channel)."
        )
    if len(found) == 1:
        raise TargetError(
            f"The network returns {tuple(found[0][1].shape)}, not one row of class scores for each of {count} "
            "pictures: name a unit (layer:channel), a segment (segment:CLASS@x,y), or give a callable target."
        )
    raise TargetError(
        f"The network returns a {type(output).__name__} without class scores: name one of its outputs (output:NAME), "
        "an instance (instance:0), or give a callable target that turns the output into one score per picture."
    )
