"""Which layer: where the default depends on what is explained, it is measured, not guessed.

A feature pyramid has several last layers, and which of them fed a detection depends on the detection. So one forward
keeps all candidates and one backward tells how much each of them mattered: the level with the largest sum of
|activation × gradient| is the one. A network of several heads is treated the same way: a target that the usual last
grid has no part in gets the last grid that has.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ..engine.passes.relu_rules import nodes_of
from ..errors import ConvoscopeError, MethodRefused, TargetError
from ..models.calling import is_torchvision_detector
from .base import Scorer, Target
from .classes import ClassScorer, ClassTarget
from .combinations import Combination
from .outputs import MultiLabelScorer
from .scores import FunctionTarget
from .units import Unit, UnitScorer

if TYPE_CHECKING:
    from ..engine.fields.trace import NetworkTrace
    from ..engine.passes.runner import Recorded, Runner
    from ..models.model import Model
    from ..pictures.picture import ModelInput

#: targets that stand on the class scores, whose last grid the watched forward knows
_USUAL = (ClassScorer, UnitScorer, MultiLabelScorer)


def one_by_one(model: Model) -> bool:
    """Whether every picture must be a batch of its own: what is found in it decides which layer fed it."""
    return is_torchvision_detector(model.module)


def default_layer(
    runner: Runner,
    model: Model,
    watched: NetworkTrace,
    inputs: Tensor,
    pictures: Sequence[ModelInput],
    targets: Sequence[Target],
    methods: Mapping[str, Any],
) -> list[str | None]:
    """For each target the layer that ``None`` stands for, or ``None``: the watched forward's own last grid.

    Costs a forward and a backward for each target, and only where a method asks for the default layer of a network
    whose targets are not class scores.
    """
    asks = any(hasattr(one, "layer") and one.layer is None for one in methods.values())
    # what is made of units has no gradient at a grid that comes after them
    early = [_at_or_before(model, watched, target) for target in targets] if asks else []
    nothing: list[str | None] = early or [None] * len(targets)
    if not asks or not _special(watched, targets, model):
        return nothing
    weights = [] if is_torchvision_detector(model.module) else _weighted(watched)
    names = list(watched.levels) if is_torchvision_detector(model.module) else _candidates(watched, weights)
    layers = [*names, *weights]
    for target in targets:
        layers.extend(target.layers(model))
    if not names:
        return nothing
    recorded = runner.record(inputs, layers=[name for name in dict.fromkeys(layers) if name in watched.layers])
    found: list[str | None] = []
    for target, own in zip(targets, early, strict=True):
        if own is not None:
            found.append(own)
            continue
        try:
            scorer = target.resolve(model, recorded.output, pictures, runner)
        except ConvoscopeError:
            found.append(None)  # whoever resolves it for good says why
            continue
        found.append(None if isinstance(scorer, _USUAL) else _fed(runner, watched, recorded, scorer, names, weights))
    return found


def _at_or_before(model: Model, watched: NetworkTrace, target: Target) -> str | None:
    """The last grid at or before the units that a target is made of; ``None`` where the usual last grid will do."""
    usual = watched.last_grid
    made_of = [watched.layers[name].index for name in target.layers(model) if name in watched.layers]
    if not isinstance(target, (Unit, Combination)) or not made_of or usual is None:
        return None
    if watched.layers[usual].index <= min(made_of):
        return None
    placed = [one for one in watched.layers.values() if one.has_grid and one.single and one.index <= min(made_of)]
    return max(placed, key=lambda one: one.index).name if placed else None


def _special(watched: NetworkTrace, targets: Sequence[Target], model: Model) -> bool:
    if is_torchvision_detector(model.module):
        return True
    if all(len(shape) == 2 for shape in watched.output_shapes[:1]) and len(watched.output_shapes) == 1:
        # one row of scores: only a target that names something else than a class can stand on another layer
        return not all(isinstance(target, (ClassTarget, Unit, FunctionTarget)) for target in targets)
    return True


def _weighted(watched: NetworkTrace) -> list[str]:
    """The layers that hold weights of their own."""
    layers = watched.layers.values()
    return [one.name for one in layers if one.parameters and one.single and not _has_members(one.name, watched)]


def _candidates(watched: NetworkTrace, weights: list[str]) -> list[str]:
    """Every layer with a place that is followed by weights."""
    last = watched.layers[weights[-1]].index if weights else -1
    layers = watched.layers.values()
    placed = [one.name for one in layers if one.geometry is not None and one.single and one.index < last]
    return placed[-40:]


def _has_members(name: str, watched: NetworkTrace) -> bool:
    return any(other.startswith(f"{name}.") for other in watched.layers)


def _fed(
    runner: Runner, watched: NetworkTrace, recorded: Recorded, scorer: Scorer, names: list[str], weights: list[str]
) -> str | None:
    """The candidate that mattered most (pyramids), or the last one that mattered at all."""
    try:
        with torch.enable_grad():
            score = scorer.score(recorded.output, recorded.live(), recorded.rows)
        usable = [name for name in dict.fromkeys([*names, *weights]) if recorded.layers[name].edge is not None]
        gradients = runner.gradients(recorded, score, "plain", usable, keep=True)
    except (MethodRefused, TargetError):
        return None
    shares = {
        name: float((recorded.layers[name].value * gradients[name]).abs().sum(dtype=torch.float64)) for name in usable
    }
    mattered = [name for name in names if shares.get(name, 0) > 0]
    if not mattered:
        return None
    if is_torchvision_detector(runner.network):
        return max(mattered, key=lambda name: shares[name])
    usual, made_of = watched.last_grid, [watched.layers[name].index for name in scorer.layers]
    if usual in mattered and (not made_of or watched.layers[usual].index <= min(made_of)):
        return None
    if made_of:  # the score is made of a layer: the grid before it, or that layer itself
        return ([name for name in mattered if watched.layers[name].index <= min(made_of)] or mattered)[-1]
    # not the head's own output, nor that of one of several heads: the last grid that weights follow on the way
    leading = [name for name in weights if shares.get(name, 0) > 0]
    for name in reversed(mattered):
        after = [one for one in leading if watched.layers[one].index > watched.layers[name].index]
        if _node(recorded, name) in nodes_of(_node(recorded, one) for one in after):
            return name
    return mattered[-1]


def _node(recorded: Recorded, name: str) -> Any:
    edge = recorded.layers[name].edge
    return None if edge is None else edge.node
