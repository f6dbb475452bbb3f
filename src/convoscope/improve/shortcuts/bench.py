"""Labelled pictures in a network's own input space, and the one path on which interventions on them are run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...errors import ModelError, PictureError, UsageError
from ...models.formats import laid_out
from ...models.model import Model
from ...session import forward, protected
from ...surveys.gather.work import class_scores
from ..collection import Labelled
from ..look import batches
from ..statistics import halves

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]
Tell = Callable[[int, int], None]

#: bytes that the pictures may take in memory; of a larger collection each class gives equally many
ROOM = 500_000_000
#: pictures of a class that are looked at: 60 for choosing, 60 for testing
PER_CLASS = 120
#: pictures in one pass of an intervention: small networks gain nothing from more, large ones take their own number
BATCH = 64


@dataclass(eq=False)
class Bench:
    """Pictures of known classes as inputs of one network, all of one size, with what the network says of each.

    Args:
        model: left as it was.
        pictures: those that are held, in the order of ``inputs``.
        inputs: float32 ``[N, C, H, W]`` in the network's input space, on the CPU.
        scores: float32 ``[N, K]``.
        half: whether a picture is in half A, where effects are chosen; half B tests them.
        masks: bool ``[N, H, W]``, True on the thing; None where nobody told.
        left_out: pictures of the collection that are not held (unknown class, another size, no room).
        failed: URI -> why it could not be read.
        lean: ask no control, and no necessity, of what makes hardly any picture the class: it can be no finding.
    """

    model: Model
    pictures: Labelled
    inputs: Tensor
    scores: NDArray[np.float32]
    half: Bools
    masks: Tensor | None = None
    left_out: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    lean: bool = False
    forwards: int = 0
    remembered: dict[int, Tensor] = field(default_factory=dict, repr=False)
    sums: dict[str, dict[int, tuple[Tensor, int]]] = field(default_factory=dict, repr=False)
    tables: dict[str, NDArray[np.float64]] = field(default_factory=dict, repr=False)
    moved: dict[tuple[str, float], dict[int, float]] = field(default_factory=dict, repr=False)

    @classmethod
    def of(
        cls,
        model: Model,
        pictures: Labelled,
        *,
        masks: str | Path | Mapping[str, Any] | None = None,
        per_class: int = PER_CLASS,
        seed: int = 0,
        lean: bool = False,
        progress: Tell | None = None,
    ) -> Bench:
        """Read at most ``per_class`` pictures of each class, the same in every run.

        Raises:
            UsageError: fewer than two classes, or too few pictures of known class to choose and to test.
            ModelError: the network gives no class scores.
        """
        chosen = _evenly(pictures, per_class, seed)
        few = int(np.unique(pictures.truth[chosen]).size)
        if few < 2:
            classifies(model, pictures)
            raise UsageError(
                f"Shortcuts are looked for between classes: these pictures have {few} that the network knows, and at "
                "least 2 are needed (folders named as the network's labels, or a CSV with --truth)."
            )
        shape = model.prepare(pictures.readable(chosen, 1)[0]).tensor.shape
        room = max(1, ROOM // (4 * int(np.prod(shape))))
        if len(chosen) > room:
            chosen = _evenly(pictures, max(4, room // few), seed)[:room]
        held = pictures.take(chosen)
        failed: dict[str, str] = {}
        rows: list[int] = []
        parts: list[Tensor] = []
        scores: list[NDArray[np.float32]] = []
        for group, inputs in batches(model, held, failed):
            if inputs.shape[1:] == shape:
                rows += group
                parts.append(inputs.detach().float().cpu())
                scores.append(_scores(model, inputs))
            if progress is not None:
                progress(group[-1] + 1, len(held))
        if not rows:
            raise PictureError(f"None of the {len(held)} pictures can be used: {next(iter(failed.values()), '')}")
        kept = held.take(rows)
        if scores[0].shape[1] <= int(kept.truth.max()):
            raise UsageError(
                f"{model.name} gives {scores[0].shape[1]} class scores, and these pictures are of a class with the "
                f"number {int(kept.truth.max())} (from 0): give the labels in the order of its outputs (--labels)."
            )
        bench = cls(
            model, kept, torch.cat(parts), np.concatenate(scores), halves(kept.keys, kept.truth.tolist(), seed),
            None, len(pictures) - len(kept) - len(failed), failed, lean,
        )  # fmt: skip
        if masks is not None:
            from .masks import read_masks

            bench.masks = read_masks(masks, bench)
        return bench

    def take(self, rows: Ints, half: bool | None = None) -> Bench:
        """A bench of these rows alone; ``half`` puts all of them in one half."""
        flags = self.half[rows] if half is None else np.full(len(rows), half)
        return Bench(
            self.model, self.pictures.take(rows), self.inputs[rows], self.scores[rows], flags,
            None if self.masks is None else self.masks[rows], lean=self.lean,
        )  # fmt: skip

    @property
    def prediction(self) -> Ints:
        """The class of the highest score, int64 ``[N]``."""
        return np.asarray(self.scores.argmax(1), np.int64)

    @property
    def truth(self) -> Ints:
        """The class index of each picture."""
        return self.pictures.truth

    @property
    def classes(self) -> list[int]:
        """The classes that the pictures are of, in the network's order."""
        return [int(one) for one in np.unique(self.truth)]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the inputs."""
        return int(self.inputs.shape[2]), int(self.inputs.shape[3])

    def rows(self, kind: int, *, half: bool | None = None, other: bool = False) -> Ints:
        """The pictures of class ``kind`` (or, with ``other``, of the others), of one half or of both."""
        flags = self.truth != kind if other else self.truth == kind
        if half is not None:
            flags = flags & (self.half == half)
        return np.flatnonzero(flags)

    def ask(self, count: int, make: Callable[[Ints], Tensor]) -> Ints:
        """What the network says of ``count`` changed pictures, the class of each, int64 ``[count]``.

        Args:
            count: how many.
            make: the changed pictures of some numbers in 0..count - 1, ``[B, C, H, W]`` in the input space.
        """
        return np.asarray(self.score(count, make).argmax(1), np.int64)

    def score(self, count: int, make: Callable[[Ints], Tensor]) -> NDArray[np.float32]:
        """The class scores of ``count`` changed pictures, float32 ``[count, K]``; as :meth:`ask`."""
        if count == 0:
            return np.zeros((0, self.scores.shape[1]), np.float32)
        found = []
        with protected(self.model):
            for numbers in _chunks(count, max(BATCH, self.model.batch_size)):
                found.append(_forward(self.model, make(numbers)))
                self.forwards += len(numbers)
        return np.concatenate(found)

    def shown(self, inputs: Tensor) -> NDArray[np.uint8]:
        """Inputs ``[B, C, H, W]`` as pictures for drawing, uint8 ``[B, H, W, 3]``."""
        values = self.model.preprocessing.denormalise(inputs.float()).clamp(0, 1)
        values = values[:, :3] if values.shape[1] >= 3 else values[:, :1].expand(-1, 3, -1, -1)
        return np.asarray((values * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy())

    @property
    def low(self) -> Tensor:
        """The input's value of black, a column ``[C, 1, 1]``."""
        return self.model.preprocessing.normalise(torch.zeros(self.inputs.shape[1], 1, 1))

    @property
    def high(self) -> Tensor:
        """The input's value of white, a column ``[C, 1, 1]``."""
        return self.model.preprocessing.normalise(torch.ones(self.inputs.shape[1], 1, 1))

    def clip(self, inputs: Tensor) -> Tensor:
        """Only what a picture can be: values between black and white."""
        return torch.minimum(torch.maximum(inputs, self.low), self.high)


def classifies(model: Model, pictures: Labelled) -> None:
    """Ask one picture whether the network tells classes apart: where no label fits, that may be why.

    Raises:
        ModelError: it gives no row of class scores.
        UsageError: it does, but no label of the pictures is one of its classes.
    """
    [picture] = pictures.readable(range(len(pictures)), 1)
    _scores(model, model.inputs([model.prepare(picture)]))
    if pictures.foreign and not pictures.known.any():
        raise UsageError(
            f"No label of these pictures ({', '.join(list(pictures.foreign)[:3])}, ...) is a class of the network: "
            "give its class names in the order of its outputs (--labels), or the pictures' labels as it calls them "
            "(--truth)."
        )


def _evenly(pictures: Labelled, per_class: int, seed: int) -> Ints:
    """At most ``per_class`` rows of each class, those of the smallest digest: the same whatever the order."""
    import hashlib

    digests = [hashlib.sha256(f"{seed}\0{key}".encode()).hexdigest() for key in pictures.keys]
    chosen: list[int] = []
    for kind in np.unique(pictures.truth[pictures.known]):
        rows = np.flatnonzero(pictures.truth == kind).tolist()
        chosen += sorted(rows, key=lambda row: digests[row])[:per_class]
    return np.array(sorted(chosen), np.int64)


def _chunks(count: int, size: int) -> Iterator[Ints]:
    for start in range(0, count, size):
        yield np.arange(start, min(start + size, count))


def _forward(model: Model, inputs: Tensor) -> NDArray[np.float32]:
    dtype = model.dtype if model.dtype.is_floating_point else torch.float32
    output = forward(model, laid_out(model, inputs.to(model.device, dtype)))
    values = class_scores(model, output, len(inputs))
    if values is None:
        raise ModelError(
            f"{model.name} gives no row of class scores (a detector, a segmenter, a regression?): shortcuts and "
            "repairs are for classifiers."
        )
    return values[:, 0].numpy()


def _scores(model: Model, inputs: Tensor) -> NDArray[np.float32]:
    with protected(model):
        return _forward(model, inputs)
