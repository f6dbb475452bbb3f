"""Taking out what does nothing: dead units removed, duplicate units merged, the same outputs for less work.

Exact on the pictures given: a unit is dead where no reader ever sees anything but zero from it, and a duplicate where
every reader sees a multiple of another unit of its layer. The result is run on the pictures and compared; what does
not hold is not returned.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx, nn

from ...engine.passes.untouched import untouched
from ...engine.recompute.incremental.graph import NotIncremental, export
from ...errors import ModelError, PictureError
from ...models.model import Model
from ...session import protected
from ..collection import Labelled
from ..look import batches
from .channels import Channels, follow, multiply_adds, run

#: outputs may differ by this much of the largest output, at least of 1
TOLERANCE = 1e-5
#: a reader sees zero where nothing is above this share of the layer's largest value
_ZERO = 1e-8
#: two units are multiples of each other where they differ by no more than this share of the larger
_SAME = 2e-6
#: cells of a picture that the search for duplicates looks at; the proof looks at all of them
_CELLS = 128


@dataclass(frozen=True, eq=False)
class Pruned:
    """A network without the units that do nothing.

    Args:
        module: a new network, with the same keys as the one given; smaller tensors, or with ``masked`` the same shapes.
        removed: dead units, ``layer:channel``.
        merged: (the unit that is gone, the one that does its work now).
        madds_before: multiply-adds of one picture in convolutions and linear layers.
        madds_after: the same without the units (with ``masked``: what a program that skips zeros would need).
        pinned: dead or duplicate units that had to stay -> why.
        error: the largest difference of any output on the pictures.
        masked: the shapes are as before, the units zero.
        refused: why nothing could be done; None where it could.
    """

    module: nn.Module
    removed: tuple[str, ...] = ()
    merged: tuple[tuple[str, str], ...] = ()
    madds_before: int = 0
    madds_after: int = 0
    pinned: dict[str, str] = field(default_factory=dict)
    error: float = 0.0
    masked: bool = False
    refused: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data, without the network."""
        return {
            "removed": list(self.removed), "merged": [list(pair) for pair in self.merged],
            "multiply_adds": {"before": self.madds_before, "after": self.madds_after},
            "pinned": dict(self.pinned), "error": self.error, "masked": self.masked, "refused": self.refused,
        }  # fmt: skip


def prune(model: Model, pictures: Any, *, masked: bool = False) -> Pruned:
    """Remove dead and merge duplicate units; the outputs on ``pictures`` stay as they are.

    Handled: chains of convolutions (depthwise ones, too), batch norm, activations, pooling, dropout, concatenation,
    flattening, and linear heads. Units that are added to others (residual sums), gated, or returned stay: they are
    in ``pinned``.

    Args:
        model: left bit for bit as it was.
        pictures: a folder, a list, a store or :class:`~convoscope.improve.collection.Labelled`; labels are not needed.
        masked: keep all shapes, so that the weights load into the network they came from.

    Returns:
        the new network and what was done. Nothing may be found: then it is a plain copy.

    Raises:
        PictureError: none of the pictures can be read.
    """
    given = Labelled.of(pictures, model)
    failed: dict[str, str] = {}
    first = next(batches(model, given.take(range(min(len(given), 4))), failed), None)
    if first is None:
        raise PictureError(f"None of the pictures can be used: {next(iter(failed.values()), 'there is none')}")
    with protected(model):
        plain = copy.deepcopy(model.module)
        try:
            if model.call is not None:
                raise NotIncremental("the network takes more than the picture")
            graph = export(model.module, first[1][:1])
        except NotIncremental as why:
            return Pruned(plain, refused=str(why))
        state = dict(model.module.state_dict(keep_vars=True))
        channels = follow(graph, state)
        seen = _Seen(channels)
        for _, inputs in batches(model, given, failed):
            if inputs.shape[1:] == first[1].shape[1:]:
                run(graph, model.module, inputs, seen.first)
        dead = seen.dead()
        pairs = seen.candidates(dead)
        if pairs:
            for _, inputs in batches(model, given, failed):
                if inputs.shape[1:] == first[1].shape[1:]:
                    run(graph, model.module, inputs, seen.second)
            pairs = seen.proven()
    return _proven(model, given, channels, seen, dead, pairs, masked, plain)


def _proven(
    model: Model, given: Labelled, channels: Channels, seen: _Seen, dead: list[int],
    pairs: list[tuple[int, int]], masked: bool, plain: nn.Module,
) -> Pruned:  # fmt: skip
    """What is found, done, and compared; less of it where it does not hold."""
    before = multiply_adds(channels)
    dead_free, held = _free(channels, dead)
    pair_free = [pair for pair in pairs if not {*pair} & set(channels.pinned)]
    held.update({channels.name(gone): channels.pinned[gone] for gone, _ in pairs if gone in channels.pinned})
    for units, merges, small in (
        (dead_free, pair_free, not masked), (dead_free, pair_free, False), (dead_free, [], False),
    ):  # fmt: skip
        gone = frozenset([*units, *(pair[0] for pair in merges)])
        if not gone:
            break
        module = _made(copy.deepcopy(model.module), channels, seen, gone, merges, small)
        error = _difference(model, module, given)
        if error is not None and error <= TOLERANCE:
            return Pruned(
                module, tuple(channels.name(unit) for unit in units),
                tuple((channels.name(a), channels.name(b)) for a, b in merges),
                before, multiply_adds(channels, gone), held, error, not small,
            )  # fmt: skip
    return Pruned(plain, madds_before=before, madds_after=before, pinned=held, masked=masked)


def _free(channels: Channels, dead: list[int]) -> tuple[list[int], dict[str, str]]:
    """The dead units that can be taken out, at least one staying in every layer; and the others with the reason."""
    held: dict[str, str] = {}
    free: list[int] = []
    left = {at: len(one.made) for at, one in enumerate(channels.weighted)}
    for unit in dead:
        at = channels.units[unit][0]
        if unit in channels.pinned:
            held[channels.name(unit)] = channels.pinned[unit]
        elif left[at] <= 1:
            held[channels.name(unit)] = "it is the last of its layer"
        else:
            left[at] -= 1
            free.append(unit)
    return free, held


class _Seen:
    """What the readers of every unit have seen."""

    def __init__(self, channels: Channels) -> None:
        self.channels = channels
        self.sources = {node: channels.behind[node] for node in channels.sources() if node in channels.behind}
        self.largest: dict[fx.Node, Tensor] = {}
        self.gram: dict[fx.Node, Tensor] = {}
        self.pairs: list[tuple[int, int]] = []
        self.factor: dict[tuple[fx.Node, int, int], float] = {}
        self.apart: dict[tuple[fx.Node, int, int], float] = {}

    def first(self, node: fx.Node, value: Tensor) -> None:
        """Largest |value| of each channel, and their products over some cells."""
        if node not in self.sources:
            return
        flat = value.detach().float().flatten(2) if value.dim() > 2 else value.detach().float()[:, :, None]
        largest = flat.abs().amax((0, 2)).cpu()
        self.largest[node] = torch.maximum(self.largest[node], largest) if node in self.largest else largest
        step = max(1, flat.shape[2] // _CELLS)
        some = flat[:, :, ::step].transpose(0, 1).flatten(1).double()
        gram = (some @ some.T).cpu()
        self.gram[node] = self.gram[node] + gram if node in self.gram else gram

    def dead(self) -> list[int]:
        """Units that are read, and that every reader sees as zero."""
        alive: set[int] = set()
        read: set[int] = set()
        for node, behind in self.sources.items():
            if node not in self.largest:
                continue
            largest = self.largest[node].numpy()
            read.update(int(unit) for unit in behind if unit >= 0)
            alive.update(int(unit) for unit in behind[largest > _ZERO * float(largest.max())] if unit >= 0)
        return sorted(read - alive)

    def candidates(self, dead: list[int]) -> list[tuple[int, int]]:
        """Pairs of one layer's units that are multiples of each other wherever they are read, as far as is seen."""
        known = set(dead)
        alike: dict[tuple[int, int], int] = {}
        for node, gram in self.gram.items():
            behind = self.sources[node]
            norm = gram.diagonal().clamp(min=1e-300).sqrt()
            cosine = (gram / norm[:, None] / norm[None]).abs().numpy()
            for row, column in np.argwhere(np.triu(cosine, 1) > 1 - 1e-6):
                one, other = int(behind[row]), int(behind[column])
                same = one >= 0 and other >= 0 and self.channels.units[one][0] == self.channels.units[other][0]
                if same and one != other and not {one, other} & known:
                    pair = (max(one, other), min(one, other))
                    alike[pair] = alike.get(pair, 0) + 1
                    keep, gone = (row, column) if one < other else (column, row)
                    self.factor[node, pair[0], pair[1]] = float(gram[gone, keep] / gram[keep, keep])
                    self.apart[node, pair[0], pair[1]] = 0.0
        readers = self.channels.readers()
        taken: set[int] = set()
        self.pairs = []
        for (gone, kept), count in sorted(alike.items(), key=lambda item: (item[0][0], item[0][1])):
            where = set(readers.get(gone, []))
            if (
                gone not in taken
                and kept not in taken
                and where == set(readers.get(kept, []))
                and count == len(where)
            ):
                self.pairs.append((gone, kept))
                taken.add(gone)
        return self.pairs

    def second(self, node: fx.Node, value: Tensor) -> None:
        """How far the candidates are from being multiples, over every cell."""
        if node not in self.sources:
            return
        place = {int(unit): at for at, unit in enumerate(self.sources[node]) if unit >= 0}
        for gone, kept in self.pairs:
            if (node, gone, kept) in self.factor:
                a, b = value[:, place[gone]].float(), value[:, place[kept]].float()
                apart = float((a - self.factor[node, gone, kept] * b).abs().max())
                size = max(float(self.largest[node][place[gone]]), 1e-30)
                self.apart[node, gone, kept] = max(self.apart[node, gone, kept], apart / size)

    def proven(self) -> list[tuple[int, int]]:
        """The pairs that hold on every cell."""
        worst: dict[tuple[int, int], float] = {}
        for (_, gone, kept), value in self.apart.items():
            worst[gone, kept] = max(worst.get((gone, kept), 0.0), value)
        return [pair for pair in self.pairs if worst[pair] <= _SAME]


def _made(
    module: nn.Module,
    channels: Channels,
    seen: _Seen,
    gone: frozenset[int],
    merges: list[tuple[int, int]],
    small: bool,
) -> nn.Module:
    """``module`` (a copy) without the units that are ``gone``."""
    state = {name: value.detach().clone() for name, value in module.state_dict().items()}
    for one in channels.weighted:
        if one.read is None or one.source is None:
            continue
        weight = state[one.weight]
        for a, b in merges:
            at, to = np.flatnonzero(one.read == a), np.flatnonzero(one.read == b)
            if len(at) and len(at) == len(to):
                weight[:, to] += seen.factor[one.source, a, b] * weight[:, at]
    new: dict[str, Tensor] = {}
    for one in channels.weighted:
        weight, rows = state[one.weight], _kept(one.made, gone)
        columns = _kept(one.read, gone) if one.read is not None else np.ones(weight.shape[1], bool)
        for name, value in ((one.weight, weight), (one.bias, state.get(one.bias or ""))):
            if name is None or value is None:
                continue
            both = name == one.weight
            if small:
                value = value[torch.from_numpy(rows)]
                value = value[:, torch.from_numpy(columns)] if both else value
            else:
                value[torch.from_numpy(~rows)] = 0
                if both:
                    value[:, torch.from_numpy(~columns)] = 0
            new[name] = value.contiguous()
    for part in channels.rows:
        rows = _kept(part.units, gone)
        for name in part.names:
            value = state[name]
            if small:
                value = value[torch.from_numpy(rows)]
            elif not name.endswith(("running_mean", "running_var")):
                value[torch.from_numpy(~rows)] = 0
            new[name] = value.contiguous()
    for name, value in new.items():
        _put(module, name, value)
    return module


def _kept(units: NDArray[np.int64], gone: frozenset[int]) -> NDArray[np.bool_]:
    return ~np.isin(units, list(gone))


def _put(module: nn.Module, name: str, value: Tensor) -> None:
    """Set a parameter or buffer by its name, and the numbers of channels that its module tells."""
    path, _, attribute = name.rpartition(".")
    owner: Any = module.get_submodule(path) if path else module
    old = getattr(owner, attribute)
    if isinstance(old, nn.Parameter):
        setattr(owner, attribute, nn.Parameter(value, requires_grad=old.requires_grad))
    else:
        owner._buffers[attribute] = value
    if attribute != "weight":
        return
    if isinstance(owner, nn.Linear):
        owner.out_features, owner.in_features = value.shape
    elif isinstance(owner, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
        owner.out_channels = value.shape[0]
        if owner.groups > 1:
            owner.groups = owner.in_channels = value.shape[0]
        else:
            owner.in_channels = value.shape[1]
    elif hasattr(owner, "num_features"):
        owner.num_features = len(value)


def _difference(model: Model, module: nn.Module, given: Labelled) -> float | None:
    """The largest difference of any output over all pictures, as a share of the largest output (at least of 1)."""
    worst, scale = 0.0, 1.0
    # the smaller module is bare: a session holds a model
    with protected(model), untouched(module, gradients=False):
        for _, inputs in batches(model, given, {}):
            try:
                old, new = _tensors(model.run(inputs)), _tensors(module(inputs))
            except (RuntimeError, ValueError, IndexError, TypeError, ModelError):
                return None
            if len(old) != len(new) or any(a.shape != b.shape for a, b in zip(old, new, strict=True)):
                return None
            for a, b in zip(old, new, strict=True):
                worst = max(worst, float((a.float() - b.float()).abs().max()))
                scale = max(scale, float(a.abs().max()))
    return worst / scale if np.isfinite(worst) else None


def _tensors(output: Any) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    values = output.values() if isinstance(output, dict) else output if isinstance(output, (list, tuple)) else []
    return [tensor for value in values for tensor in _tensors(value)]
