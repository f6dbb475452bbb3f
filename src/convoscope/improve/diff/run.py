"""A run of checkpoints: how a network came to be what it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import UsageError
from ..statistics import Interval, share
from .sides import Side
from .similarity import cka

#: endings of files with weights
ENDINGS = (".pt", ".pth", ".safetensors", ".bin", ".ckpt")


def checkpoints(folder: str | Path) -> list[Path]:
    """The files of weights in a folder, in the order of the numbers in their names (``epoch-2`` before ``epoch-10``).

    Files named ``epoch-*`` are taken alone where there are any.

    Raises:
        UsageError: no folder, or no weights in it.
    """
    where = Path(folder)
    if not where.is_dir():
        raise UsageError(f"{where} is no folder of checkpoints.")
    files = [one for one in sorted(where.iterdir()) if one.suffix in ENDINGS and one.is_file()]
    named = [one for one in files if one.name.startswith("epoch-")]
    if not files:
        raise UsageError(f"{where} holds no checkpoint: files such as epoch-1.pt, epoch-2.pt are looked for.")
    return sorted(named or files, key=_number)


def _number(path: Path) -> tuple[Any, ...]:
    digits = [int(part) for part in _split(path.stem) if part.isdigit()]
    return (digits[-1] if digits else -1, path.name)


def _split(text: str) -> list[str]:
    import re

    return re.findall(r"\d+|\D+", text)


@dataclass(eq=False)
class Memory:
    """When each picture was learnt and forgotten along the run (forgetting events, Toneva et al. 2019).

    Args:
        rows: pictures of known truth.
        learnt: the checkpoint from which on a picture is right for the first time; -1 where it never is.
        forgotten: how often it went from right to wrong.
        right: bool ``[checkpoints, N]``.
    """

    rows: NDArray[np.intp]
    learnt: NDArray[np.int64]
    forgotten: NDArray[np.int64]
    right: NDArray[np.bool_]

    def to_dict(self, uris: Sequence[str]) -> dict[str, Any]:
        worst = np.argsort(-self.forgotten, kind="stable")[:20]
        return {
            "never_learnt": [uris[self.rows[i]] for i in np.flatnonzero(self.learnt < 0)],
            "never_forgotten": int(((self.learnt >= 0) & (self.forgotten == 0)).sum()),
            "learnt": [int((self.learnt == step).sum()) for step in range(len(self.right))],
            "forgotten": [
                {"picture": uris[self.rows[i]], "events": int(self.forgotten[i])} for i in worst if self.forgotten[i]
            ],
            "events": int(self.forgotten.sum()),
        }


def forgetting(right: NDArray[np.bool_], rows: NDArray[np.intp] | None = None) -> Memory:
    """Forgetting events: a picture is forgotten when it is right at one checkpoint and wrong at the next.

    Args:
        right: bool ``[checkpoints, N]``.
        rows: which pictures the columns are; default 0..N-1.
    """
    flags = np.asarray(right, bool)
    learnt = np.where(flags.any(0), flags.argmax(0), -1)
    forgotten = (flags[:-1] & ~flags[1:]).sum(0)
    at = np.arange(flags.shape[1]) if rows is None else rows
    return Memory(at.astype(np.intp), learnt.astype(np.int64), forgotten.astype(np.int64), flags)


@dataclass(eq=False)
class Run:
    """The course of several checkpoints on the same pictures.

    Args:
        names: of the checkpoints, in order.
        accuracy: of each; None without truth.
        to_last: CKA of each checkpoint's layers with the same layers of the last one, ``[checkpoints, layers]``.
        layers: names of these.
        dead: units of each checkpoint that gave every picture the same.
        memory: when pictures were learnt and forgotten; None without truth.
    """

    names: list[str]
    accuracy: list[Interval | None]
    layers: list[str]
    to_last: NDArray[np.float64]
    dead: list[int]
    memory: Memory | None

    def to_dict(self, uris: Sequence[str]) -> dict[str, Any]:
        return {
            "checkpoints": self.names,
            "accuracy": [None if one is None else one.to_dict() for one in self.accuracy],
            "cka_to_last": {"layers": self.layers, "values": self.to_last.tolist()},
            "dead": self.dead,
            "memory": None if self.memory is None else self.memory.to_dict(uris),
        }


def along(sides: Sequence[Side]) -> Run:
    """The course of some sides on the same pictures, the last of which is the end of the run."""
    last = sides[-1]
    layers = [name for name in last.layers if all(name in side.layers for side in sides)]
    to_last = np.full((len(sides), len(layers)), np.nan)
    for place, side in enumerate(sides):
        for column, name in enumerate(layers):
            to_last[place, column] = cka([side.layers[name]], [last.layers[name]])[0, 0]
    known = np.flatnonzero(np.all([side.known for side in sides], axis=0))
    accuracy = [share(int(side.right[known].sum()), len(known)) if len(known) else None for side in sides]
    memory = forgetting(np.stack([side.right[known] for side in sides]), known) if len(known) else None
    dead = [sum(int((np.ptp(values, axis=0) == 0).sum()) for values in side.layers.values()) for side in sides]
    return Run([side.name for side in sides], accuracy, layers, to_last, dead, memory)
