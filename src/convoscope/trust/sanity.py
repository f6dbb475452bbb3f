"""Does the map depend on what was learnt? Randomise the network's weights and look whether the map notices.

Adebayo et al. 2018 (Sanity Checks for Saliency Maps). A map that stays the same when the classifier's weights are
drawn anew cannot explain what the classifier learnt; guided backpropagation is the known case. The reverse does not
hold: a map that changes is not thereby right. The user's network is never touched: a deep copy is randomised.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..engine.passes.untouched import innermost, lock_of
from ..errors import ModelError, UsageError
from ..explanation import MethodLike, explain
from ..models.model import Model
from ..results import Explanation
from ..targets import Target, TargetLike
from .similarity import rank_correlation, ssim

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Survival:
    """How much of each method's map is left at one stage of randomisation.

    ``randomised`` names the modules whose weights were drawn anew; ``rank`` and ``ssim`` compare with the map of the
    trained network, per method: 1 for an unchanged map, 0 where randomising left an empty or constant one. NaN where
    the map was that before.
    """

    stage: str
    randomised: tuple[str, ...]
    rank: dict[str, float]
    ssim: dict[str, float]


def learnt_modules(model: Model) -> list[str]:
    """The modules with weights of their own, in the order of execution, the classifier last."""
    modules = dict(innermost(model.module).named_modules())
    owners = {name for name, m in modules.items() if any(p.numel() > 1 for p in m.parameters(recurse=False))}
    executed = [name.split("#")[0] for name in model.watched().layers]
    ordered = [name for name in dict.fromkeys(executed) if name in owners]
    # a module that the watched forward did not name goes where it stands among the others
    for name in [n for n in modules if n in owners and n not in ordered]:
        before = [n for n in list(modules)[: list(modules).index(name)] if n in ordered]
        ordered.insert(ordered.index(before[-1]) + 1 if before else 0, name)
    if not ordered:
        raise ModelError(f"{model.name} has no weights that could be randomised.")
    return ordered


def classifier(model: Model) -> str:
    """The last module with weights: what turns features into class scores."""
    return learnt_modules(model)[-1]


def randomised(model: Model, modules: Sequence[str], *, seed: int = 0, how: str = "shuffle") -> Model:
    """A copy of the model in which the weights of ``modules`` are random; the model itself stays as it is.

    ``shuffle`` permutes the values within each parameter: what was learnt is gone, the distribution and so the scale
    of the activations stay. ``reset`` calls each module's ``reset_parameters()``, the initialisation before training.
    """
    if how not in ("shuffle", "reset"):
        raise UsageError(f"how must be shuffle or reset, not {how!r}.")
    with lock_of(model.module):
        try:
            network = copy.deepcopy(innermost(model.module))
        except Exception as error:
            raise ModelError(
                f"{model.name} cannot be copied, so its weights cannot be randomised: {error}"
            ) from error
    inner = dict(network.named_modules())
    state = torch.get_rng_state()
    try:
        for number, name in enumerate(modules):
            if name not in inner:
                raise UsageError(f"There is no module {name!r} with weights; learnt_modules() lists them.")
            _randomise(inner[name], seed * 1_000_003 + number, how)
    finally:
        torch.set_rng_state(state)
    # geometry and layer names stay: they depend on shapes, not on weights
    return dataclasses.replace(
        model, module=network, _watched=dict(model._watched), _graphs={}, _fingerprint=None, name=model.name
    )


def _randomise(module: nn.Module, seed: int, how: str) -> None:
    generator = torch.Generator().manual_seed(seed)
    reset: Callable[[], None] | None = getattr(module, "reset_parameters", None)
    if how == "reset" and reset is not None:
        torch.manual_seed(seed)
        reset()
        return
    with torch.no_grad():
        for parameter in module.parameters(recurse=False):
            order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
            parameter.copy_(parameter.flatten()[order].view_as(parameter))


def maps_of(
    model: Model, pictures: Any, methods: MethodLike | Sequence[MethodLike], target: TargetLike = None
) -> list[Arrays]:
    """The maps of every picture by method; a method that does not fit the network is left out."""
    found = explain(model, list(pictures), methods, target=target)
    return [{name: heatmap.values for name, heatmap in one.items()} for one in found]


def randomisation(
    model: Model,
    picture: Any,
    methods: Sequence[MethodLike],
    *,
    target: TargetLike = None,
    cascading: bool = True,
    stages: int | None = None,
    seed: int = 0,
    how: str = "shuffle",
    progress: Callable[[int, int], None] | None = None,
) -> list[Survival]:
    """Compare maps of the trained network with maps of ever more randomised ones, from the classifier down.

    ``cascading`` randomises everything from the output down to a module; else each module alone. ``stages`` picks
    that many modules evenly (the classifier and the first always among them). The target stays the class that the
    trained network predicts. Adebayo et al. 2018.
    """
    modules = learnt_modules(model)[::-1]
    chosen = _spread(len(modules), stages)
    base = explain(model, [picture], list(methods), target=target)[0]
    fixed = target_of(model, base) if target is None else target
    before = {name: heatmap.values for name, heatmap in base.items()}
    found = []
    for number, index in enumerate(chosen):
        names = tuple(modules[: index + 1]) if cascading else (modules[index],)
        other = randomised(model, names, seed=seed, how=how)
        after = maps_of(other, [picture], list(methods), fixed)[0]
        found.append(compare(modules[index], names, before, after))
        if progress is not None:
            progress(number + 1, len(chosen))
    return found


def compare(stage: str, names: tuple[str, ...], before: Arrays, after: Arrays) -> Survival:
    """The similarity of maps before and after."""
    shared = [name for name in before if name in after]
    return Survival(
        stage,
        names,
        {name: left(rank_correlation, before[name], after[name]) for name in shared},
        {name: left(ssim, before[name], after[name]) for name in shared},
    )


def left(measure: Callable[[Any, Any], float], before: NDArray[Any], after: NDArray[Any]) -> float:
    """What is left of a map: 0 where randomising has emptied it, NaN where it was empty before."""
    found = measure(before, after)
    return 0.0 if np.isnan(found) and np.ptp(np.nan_to_num(before)) > 0 else found


def _spread(count: int, stages: int | None) -> list[int]:
    if stages is None or stages >= count:
        return list(range(count))
    if stages < 1:
        raise UsageError(f"stages must be at least 1, not {stages}.")
    return sorted({int(i) for i in np.linspace(0, count - 1, stages).round()})


def target_of(model: Model, explanation: Explanation) -> TargetLike:
    """The target of an explanation as something that can be asked for again: a class index where it is a class."""
    found: Target = explanation.question
    return found
