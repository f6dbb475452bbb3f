"""What is maximised: one number a view, of the network's output and layers. Items of a batch have each their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional

from ..errors import TargetError
from ..models.outputs import Reading
from ..targets import Scorer
from ..targets.classes import ClassScorer
from ..targets.units import UnitScorer


class Objective(Protocol):
    """``__call__`` gives ``[N]`` for ``N`` views; view ``n`` belongs to item ``items[n]``."""

    @property
    def layers(self) -> tuple[str, ...]: ...

    @property
    def needs_output(self) -> bool: ...

    def __call__(self, output: Any, layers: Mapping[str, Tensor], items: Tensor) -> Tensor: ...


class Scores:
    """Each item's own target: classes by one gather, units of one layer by one index, others one by one."""

    def __init__(self, scorers: Sequence[Scorer]) -> None:
        self.scorers = list(scorers)
        #: probability of each view's class in units of chance, after a call; infinite where it is the first choice
        #: (or where the target is no class)
        self.chance: Tensor | None = None
        #: deviation of all classes' scores, for each view
        self.spread: Tensor | None = None
        #: whether a class that comes second in some view ascends its lead from now on, and the items that do
        self.settling = False
        self.settled: set[int] = set()
        self.classes: dict[int, int] = {}
        self.reading = Reading()
        self.units: dict[tuple[Any, ...], dict[int, UnitScorer]] = {}
        self.others: dict[int, Scorer] = {}
        for item, scorer in enumerate(scorers):
            if isinstance(scorer, ClassScorer) and scorer.against is None:
                self.classes[item] = int(scorer.classes[0])
                self.reading = scorer.reading
            elif isinstance(scorer, UnitScorer):
                key = (scorer.layer, scorer.reduce, scorer.place, scorer.layout)
                self.units.setdefault(key, {})[item] = scorer
            else:
                self.others[item] = scorer

    @property
    def layers(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(layer for scorer in self.scorers for layer in scorer.layers))

    @property
    def needs_output(self) -> bool:
        return any(scorer.needs_output for scorer in self.scorers)

    def __call__(self, output: Any, layers: Mapping[str, Tensor], items: Tensor) -> Tensor:
        found: list[tuple[Tensor, Tensor]] = []
        if self.classes:
            views = _views(items, self.classes)
            values = self.reading.values(output, len(items))
            index = torch.tensor([self.classes[int(i)] for i in items[views]], device=values.device)
            mine = values[views.to(values.device)]
            # one number alone has no rivals, and is never asleep
            shares = torch.ones_like(mine) if self.reading.is_value else self.reading.shares(mine.detach())
            first = shares.argmax(1) == index
            if self.settling:
                self.settled.update(items[views[~first.cpu()]].tolist())
            found.append((views, self._maximised(mine, index, items[views])))
            shares = shares.gather(1, index[:, None])[:, 0] * mine.shape[1]
            shares[first] = torch.inf
            self.chance = torch.full((len(items),), torch.inf)
            self.chance[views] = shares.float().cpu()
            self.spread = torch.ones(len(items))
            self.spread[views] = mine.detach().float().std(1, unbiased=False).cpu()
        for (layer, reduce, place, layout), group in self.units.items():
            views = _views(items, group)
            values = layout.planes(layers[layer])
            chosen = [group[int(i)].channel for i in items[views]]
            channels = torch.tensor(chosen, dtype=torch.long, device=values.device)
            one = values[views.to(values.device), channels]
            if place is not None:
                one = one[:, place[0], place[1]]
            elif one.ndim > 1:
                one = one.flatten(1).amax(1) if reduce == "max" else one.flatten(1).mean(1)
            found.append((views, one))
        for item, scorer in self.others.items():
            views = _views(items, {item: None})
            values = scorer.score(output, layers, torch.zeros(len(items), dtype=torch.long))
            if values.shape != (len(items),):
                raise TargetError(
                    f"The target {scorer.labels[0]} gave {tuple(values.shape)} for {len(items)} pictures: it must "
                    "give one score each."
                )
            found.append((views, values[views.to(values.device)]))
        if len(found) == 1 and len(found[0][0]) == len(items):
            return found[0][1]
        places = torch.cat([views for views, _ in found])
        return torch.cat([values.float() for _, values in found])[torch.argsort(places)]

    def _maximised(self, values: Tensor, index: Tensor, items: Tensor) -> Tensor:
        """The classes' logits ``[N]`` of ``values`` ``[N, K]``; where an item settles, with its lead's gradient."""
        scores = values.gather(1, index[:, None])[:, 0]
        rows = torch.tensor([int(i) in self.settled for i in items], device=values.device)
        if values.shape[1] < 2 or not bool(rows.any()):
            return scores
        rivals = values.scatter(1, index[:, None], -torch.inf).logsumexp(1)
        # the value stays the logit, so that one history holds the whole ascent
        return scores - torch.where(rows, rivals - rivals.detach(), 0.0)


def _views(items: Tensor, of: Mapping[int, Any]) -> Tensor:
    return torch.tensor([place for place, item in enumerate(items.tolist()) if item in of], dtype=torch.long)


class Inverted:
    """The negative relative squared distance to the reference's features: ``-‖φ(x) - φ0‖² / ‖φ0‖²``.

    Mahendran & Vedaldi 2015. ``reference`` is ``[B, ...]``, one an item.
    """

    needs_output = False

    def __init__(self, layer: str, reference: Tensor) -> None:
        self.layers = (layer,)
        self.reference = reference.detach()
        self.norm = self.reference.flatten(1).pow(2).sum(1).clamp(min=1e-12)

    def __call__(self, output: Any, layers: Mapping[str, Tensor], items: Tensor) -> Tensor:
        values = layers[self.layers[0]]
        items = items.to(values.device)
        return -(values - self.reference[items]).flatten(1).pow(2).sum(1) / self.norm[items]


class Dreamt:
    """Half the mean square of a layer's activations: whatever is there already, more of it (DeepDream)."""

    needs_output = False

    def __init__(self, layer: str) -> None:
        self.layers = (layer,)

    def __call__(self, output: Any, layers: Mapping[str, Tensor], items: Tensor) -> Tensor:
        return 0.5 * layers[self.layers[0]].flatten(1).pow(2).mean(1)


class Caricatured:
    """The reference's activations, exaggerated: dot product times cosine to a ``power`` (Olah 2018, Lucid)."""

    needs_output = False

    def __init__(self, layer: str, reference: Tensor, power: float) -> None:
        self.layers = (layer,)
        self.reference = reference.detach()
        self.power = power

    def __call__(self, output: Any, layers: Mapping[str, Tensor], items: Tensor) -> Tensor:
        values = layers[self.layers[0]].flatten(1)
        wanted = self.reference[items.to(values.device)].flatten(1)
        dot = (values * wanted).mean(1)
        cosine = functional.cosine_similarity(values, wanted, dim=1)
        return dot * cosine.clamp(min=0.1) ** self.power


class Fooled:
    """The log-probability of a wrong class; ``reached`` says after each call which items are taken for it."""

    layers: tuple[str, ...] = ()
    needs_output = True

    def __init__(self, classes: Tensor, reading: Reading | None = None) -> None:
        self.classes = classes
        self.reading = reading or Reading()
        self.reached: Tensor | None = None

    def __call__(self, output: Any, layers: Mapping[str, Tensor], items: Tensor) -> Tensor:
        values = self.reading.values(output, len(items))
        wanted = self.classes[items].to(values.device)
        self.reached = values.detach().argmax(1) == wanted
        if self.reading.kind == "logits":
            return -functional.cross_entropy(values.float(), wanted, reduction="none")
        return self.reading.shares(values).gather(1, wanted[:, None])[:, 0].clamp(min=1e-30).log()


class Diverse:
    """Another objective, less what the items of a group have in common at ``layer`` (Olah et al. 2017).

    In common: the mean cosine between the Gram matrices of an item and the others of its group (``groups``).
    The term is weighed against the objective's own size, so that one ``weight`` fits logits and activations alike.
    """

    def __init__(self, base: Objective, layer: str, groups: Sequence[int], weight: float) -> None:
        self.base, self.layer, self.weight = base, layer, weight
        self.groups = torch.tensor(groups)

    @property
    def layers(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys([*self.base.layers, self.layer]))

    @property
    def needs_output(self) -> bool:
        return self.base.needs_output

    def __call__(self, output: Any, layers: Mapping[str, Tensor], items: Tensor) -> Tensor:
        scores = self.base(output, layers, items)
        values = layers[self.layer].flatten(2)
        grams = functional.normalize((values @ values.transpose(1, 2)).flatten(1), dim=1)
        alike = grams @ grams.T
        groups = self.groups[items].to(values.device)
        numbers = items.to(values.device)
        others = (groups[:, None] == groups[None]) & (numbers[:, None] != numbers[None])
        common = (alike * others).sum(1) / others.sum(1).clamp(min=1)
        return scores - self.weight * scores.detach().abs().clamp(min=1e-3) * common


def undiversified(objective: Objective) -> Objective:
    """What each item ascends by itself, without a group's diversity."""
    return objective.base if isinstance(objective, Diverse) else objective
