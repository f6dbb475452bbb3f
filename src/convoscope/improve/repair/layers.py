"""Repair of all layers: where the features do not hold the thing, no head can be fitted on them.

The network is trained on for some hundred steps, on the pictures that are there and on counterexamples of the finding.
What it says of ordinary pictures is held to what it said before, so that only the mark's influence changes.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from ...models.outputs import scores_of
from ...session import forward, protected
from ..shortcuts.bench import Bench, Ints
from .attempt import Attempt
from .copies import model_with, with_module
from .examples import AGAIN, Examples, Fault, examples
from .gate import Measured, judge
from .split import PROOF

Tell = Callable[[str, int, int], None]

#: steps of training, and pictures in each
STEPS, BATCH = 200, 64
#: the largest step of a tensor of weights, as a share of its root mean square; and what counts as that at least
RATE, FLOOR = 0.01, 0.05
#: least share of the faulty class in each half of a batch
SHARE = 0.1
#: how far pictures are moved, as a share of the side
SHIFT = 0.08


@dataclass(frozen=True, eq=False)
class _Kind:
    """Pictures of one kind in a batch: number n as the new network sees it, and as the old one does; its class.

    ``chance`` is that of being drawn. ``code``: 0 ordinary, 1 with a foreign mark, 2 without their own.
    """

    make: Callable[[Ints], Tensor]
    plain: Callable[[Ints], Tensor]
    truth: Ints
    chance: np.ndarray  # type: ignore[type-arg]
    code: int


def repair_layers(
    bench: Bench, part: Ints, faults: Sequence[Fault], seed: int = 0, proof: Bench | None = None,
    said: Tell | None = None,
) -> Attempt:  # fmt: skip
    """Train all layers on against shortcuts, with nobody labelling anything.

    Half of each batch are ordinary pictures: the target is what the old network says of them, where it is right (Li &
    Hoiem 2018), else the label. The others are counterexamples: with a foreign mark the target is what the old network
    says of the same picture changed as much by no mark, unless that is the faulty class, too; without its own, the
    label. Steps are relative to each tensor's size (Shazeer & Stern 2018).

    Args:
        bench: the pictures.
        part: of each picture, as :func:`.split.parts` says: all folds fit, :data:`.split.PROOF` proves.
        faults: what was found.
        seed: of donors, batches and shifts.
        proof: other pictures that prove, instead of that part.
        said: called with what is done, how much, and of how much.
    """
    learnt = bench.take(np.flatnonzero(part != PROOF))
    held = proof if proof is not None else bench.take(np.flatnonzero(part == PROOF))
    made = [examples(fault, learnt, learnt, seed, AGAIN) for fault in faults]
    module = trained(
        learnt, made, sorted({one.kind for one in faults}), seed, said or (lambda what, done, total: None)
    )
    tests = [examples(fault, held, learnt, seed) for fault in faults]
    after = with_module(held, module)
    whole = len(held.truth)
    ordinary = Measured(held.prediction == held.truth, after.ask(whole, lambda at: held.inputs[at]) == held.truth)
    right = [np.concatenate([one.ask(len(test), test.make) == test.truth for test in tests]) for one in (held, after)]
    target = Measured(right[0], right[1])
    group = np.concatenate([test.group for test in tests])
    label = bench.model.label
    named = " and ".join(dict.fromkeys(label(one.kind) for one in faults))
    sides = {
        name: [float(flags[group == code].mean()) for flags in right]
        for code, name in ((1, "others with the mark"), (2, "its own without the mark"))
        if (group == code).any()
    }
    proved = judge(
        "held-out counterexamples", ordinary, target.gain, "points", target,
        {"p": target.p, "worst_group": {named: sides}, "steps": STEPS, "pictures_fitted": len(learnt.truth)},
        (
            f"Counterexamples are made, not found: real pictures of {named} without the shortcut were not among those "
            "that prove.",
            "All layers were trained on: maps, units and embeddings of the old network do not tell of the new one.",
        ),
    )  # fmt: skip
    return Attempt("layers", module, proved, {"layers": "all", "steps": STEPS})


def trained(learnt: Bench, made: Sequence[Examples], kinds: Sequence[int], seed: int, tell: Tell) -> nn.Module:
    """A copy of the network, trained on; the original is not touched."""
    model = learnt.model
    random = np.random.default_rng([seed, 8])
    student = copy.deepcopy(model.module)
    other = model_with(model, student)
    weights = [one for one in student.parameters() if one.is_floating_point()]
    for one in weights:
        one.requires_grad_(True)
    for layer in student.modules():
        if isinstance(layer, _BatchNorm):
            layer.training = True
    rates = [RATE * max(float(one.detach().square().mean().sqrt()), FLOOR) for one in weights]
    search = torch.optim.AdamW(
        [{"params": [one], "lr": rate} for one, rate in zip(weights, rates, strict=True)], weight_decay=0.0
    )
    pace = torch.optim.lr_scheduler.OneCycleLR(search, rates, total_steps=STEPS + 1, pct_start=0.2)
    listed = _kinds(learnt, made, kinds)
    for step in range(STEPS):
        if step % 20 == 0:
            tell("Training the layers on", step, STEPS)
        plain, given, truth, code = _batch(listed, random)
        plain, given = plain.to(model.device, model.dtype), given.to(model.device, model.dtype)
        with protected(model):
            reading, values = scores_of(model, forward(model, plain), len(plain))
            target = reading.shares(values).float()
        truth, code = truth.to(target.device), code.to(target.device)
        said = target.argmax(1)
        fooled = (code == 1) & torch.isin(said, torch.tensor(kinds, device=said.device))
        hard = (code == 2) | ((code == 0) & (said != truth)) | fooled
        target = torch.where(hard[:, None], F.one_hot(truth, target.shape[1]).float(), target)
        with torch.enable_grad():
            values = reading.values(other.run(given), len(given)).float()
            chance = values.log_softmax(1) if reading.kind == "logits" else reading.shares(values).clamp(1e-9).log()
            loss = -(target * chance).sum(1).mean()
            search.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
        search.step()
        pace.step()
    tell("Training the layers on", STEPS, STEPS)
    flags = {name: one.requires_grad for name, one in model.module.named_parameters()}
    for name, one in student.named_parameters():
        one.grad = None
        one.requires_grad_(flags[name])
    for new, old in zip(student.modules(), model.module.modules(), strict=True):
        new.training = old.training
    return student


def _kinds(learnt: Bench, made: Sequence[Examples], kinds: Sequence[int]) -> list[_Kind]:
    """Ordinary pictures, and of each finding those with a foreign mark and those without their own."""
    own = np.isin(learnt.truth, kinds)
    share = max(SHARE, len(kinds) / max(1, len(learnt.classes)))

    def ordinary(at: Ints) -> Tensor:
        return learnt.inputs[at]

    found = [_Kind(ordinary, ordinary, learnt.truth, 0.5 * _even(learnt.truth, own, share), 0)]
    for one in made:
        for code in (1, 2):
            at = np.flatnonzero(one.group == code)
            if len(at):
                weight = 0.5 / len(made) * (share if code == 2 else 1 - share)
                chance = weight * _even(one.truth[at], np.zeros(len(at), bool), 0.0)
                plain = one.control if code == 1 and one.control is not None else one.unchanged
                found.append(_Kind(_part(one.make, at), _part(plain, at), one.truth[at], chance, code))
    return found


def _part(make: Callable[[Ints], Tensor], at: Ints) -> Callable[[Ints], Tensor]:
    return lambda numbers: make(at[numbers])


def _even(truth: Ints, own: np.ndarray, share: float) -> np.ndarray:  # type: ignore[type-arg]
    """Chances of sum 1: every class the same, but ``own`` together ``share``."""
    _, place, counts = np.unique(truth, return_inverse=True, return_counts=True)
    chance = 1.0 / counts[place]
    for flags, part in ((own, share), (~own, 1 - share if own.any() else 1.0)):
        if flags.any():
            chance[flags] *= part / chance[flags].sum()
    return np.asarray(chance / chance.sum())


def _batch(listed: Sequence[_Kind], random: np.random.Generator) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What the old network sees, what the new one does, moved alike; the classes, and the kinds' codes."""
    chance = np.concatenate([one.chance for one in listed])
    drawn = random.choice(len(chance), BATCH, p=chance / chance.sum())
    start, plain, given, truth, code = 0, [], [], [], []
    for one in listed:
        numbers = drawn[(drawn >= start) & (drawn < start + len(one.chance))] - start
        start += len(one.chance)
        if len(numbers):
            plain.append(one.plain(numbers))
            given.append(one.make(numbers))
            truth.append(one.truth[numbers])
            code.append(np.full(len(numbers), one.code))
    both = _moved(torch.cat([torch.cat(plain), torch.cat(given)]), random)
    half = len(both) // 2
    return both[:half], both[half:], torch.from_numpy(np.concatenate(truth)), torch.from_numpy(np.concatenate(code))


def _moved(both: Tensor, random: np.random.Generator) -> Tensor:
    """Mirrored and shifted by whole pixels, each picture of the first half as its fellow of the second."""
    count, (height, width) = len(both) // 2, both.shape[-2:]
    far = max(1, round(SHIFT * min(height, width)))
    wide = F.pad(both, [far] * 4, "reflect")
    flips = random.random(count) < 0.5
    steps = random.integers(0, 2 * far + 1, (count, 2))
    found = torch.empty_like(both)
    for at in range(2 * count):
        y, x = steps[at % count]
        one = wide[at, :, y : y + height, x : x + width]
        found[at] = one.flip(-1) if flips[at % count] else one
    return found
