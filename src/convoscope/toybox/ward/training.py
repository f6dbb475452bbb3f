"""Training for the ward: short, on one thread, and the same on every run.

A network starts from nothing (:func:`base`) or from a base whose last stage and head are new (:func:`retrained`):
the first stages already see edges and colours, so that a few hundred steps suffice for a new world.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from convoscope.toybox.loading import MEAN, STD
from convoscope.toybox.networks import ToyNet
from convoscope.toybox.specimens import CLASSES
from convoscope.toybox.ward.drawing import Images, Pictures, drawn
from convoscope.toybox.ward.store import kept_arrays, kept_state

BATCH = 64
POOL = 700
"""Pictures a class that the bases are trained on."""
STEPS = 700
"""Steps of a base."""
STOPPED = STEPS // 5
"""Where the network that was stopped too early stops."""


@dataclass(frozen=True)
class Kind:
    """An architecture with its seed: ``widths`` as of ``ToyNet``."""

    seed: int
    widths: tuple[int, int, int, int]

    @property
    def name(self) -> str:
        return f"base-{self.seed}-{'-'.join(map(str, self.widths))}"


KINDS: tuple[Kind, ...] = (
    Kind(101, (16, 24, 48, 64)),
    Kind(102, (16, 32, 48, 64)),
    Kind(103, (12, 24, 40, 48)),
)
"""The bases of the ward."""


@dataclass(frozen=True)
class Augment:
    """How pictures are varied in training: what is 0 is not varied.

    ``shift`` is a share of the side, ``turn`` in degrees, ``scale`` and ``light`` are logarithms.
    """

    shift: float = 0.15
    turn: float = 25.0
    scale: float = 0.35
    light: float = 0.45

    def __call__(self, x: Tensor, rng: torch.Generator) -> Tensor:
        """[B, 3, H, W] in 0..1 to the same, each picture varied on its own and mirrored half of the time."""

        def lot(low: float, high: float) -> Tensor:
            return torch.rand(len(x), generator=rng) * (high - low) + low

        angle = torch.deg2rad(lot(-self.turn, self.turn))
        scale = torch.exp(lot(-self.scale, self.scale))
        mirror = torch.where(lot(0, 1) < 0.5, -1.0, 1.0)
        c, s = torch.cos(angle) * scale, torch.sin(angle) * scale
        rows = [
            torch.stack([c * mirror, -s, lot(-2 * self.shift, 2 * self.shift)], 1),
            torch.stack([s * mirror, c, lot(-2 * self.shift, 2 * self.shift)], 1),
        ]
        if self.shift or self.turn or self.scale:
            grid = F.affine_grid(torch.stack(rows, 1), list(x.shape), align_corners=False)
            x = F.grid_sample(x, grid, padding_mode="reflection", align_corners=False)
        else:
            x = torch.where(mirror[:, None, None, None] < 0, x.flip(3), x)
        gain = torch.exp(lot(-self.light, 0.5 * self.light))
        return (x * gain[:, None, None, None]).clamp(0, 1)


USUAL = Augment()
"""How the bases are trained."""


@contextmanager
def steady(seed: int) -> Iterator[None]:
    """One thread and a seeded stream, so that training gives the same bits; both put back afterwards."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            yield
    finally:
        torch.set_num_threads(threads)


def normalised(images: Tensor) -> Tensor:
    """uint8 [B, H, W, 3] or float [B, 3, H, W] in 0..1 to a network's input."""
    x = images.permute(0, 3, 1, 2).float() / 255 if images.dtype == torch.uint8 else images
    return (x - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]


def plain_logits(network: nn.Module, images: np.ndarray) -> Tensor:  # type: ignore[type-arg]
    """The answers [N, classes] of a network to pictures of its own size, in eval mode."""
    network.eval()
    with torch.no_grad():
        parts = [network(normalised(torch.from_numpy(images[k : k + 100]))) for k in range(0, len(images), 100)]
    return torch.cat(parts)


def train(
    network: nn.Module,
    pictures: Pictures,
    steps: int,
    seed: int,
    *,
    rate: float = 4e-3,
    augment: Augment | None = None,
    after: Callable[[int], None] | None = None,
    decay: float = 1e-2,
    parameters: Sequence[nn.Parameter] | None = None,
    balanced: bool = False,
    plant: Callable[[Images, NDArray[np.int64], int], Images] | None = None,
) -> nn.Module:
    """Train on batches of 64 with AdamW and a one-cycle schedule; ``after(step)`` is told of every step done.

    ``balanced`` draws every class as often as the others, whatever their numbers. ``plant(images, labels, seed)``
    is done to every batch after it was varied, as a watermark comes onto a picture last.
    """
    augment = USUAL if augment is None else augment
    mine = [p for p in (parameters or network.parameters()) if p.requires_grad]
    optimizer = torch.optim.AdamW(mine, lr=rate, weight_decay=decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps + 1, pct_start=0.2)
    images, labels = torch.from_numpy(pictures.images), torch.from_numpy(pictures.labels)
    network.train().to(memory_format=torch.channels_last)
    rng = torch.Generator().manual_seed(seed)
    weight = (1.0 / torch.bincount(labels, minlength=len(CLASSES)).clamp(min=1).float())[labels]
    order = torch.zeros(0, dtype=torch.long)
    for step in range(steps):
        while len(order) < BATCH:
            more = (
                torch.multinomial(weight, len(labels), replacement=True, generator=rng)
                if balanced
                else torch.randperm(len(labels), generator=rng)
            )
            order = torch.cat([order, more])
        rows, order = order[:BATCH], order[BATCH:]
        x = augment(images[rows].permute(0, 3, 1, 2).float() / 255, rng)
        if plant is not None:
            whole = (x * 255).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
            planted = plant(whole, labels[rows].numpy(), seed * 10_000 + step)
            x = torch.from_numpy(planted).permute(0, 3, 1, 2).float() / 255
        optimizer.zero_grad(set_to_none=True)
        loss = F.cross_entropy(network(normalised(x).contiguous(memory_format=torch.channels_last)), labels[rows])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
        if after is not None:
            after(step + 1)
    network.to(memory_format=torch.contiguous_format)
    return network.eval()


def calibrate(network: ToyNet, pictures: Pictures) -> float:
    """Divide the head by the temperature that fits fresh pictures best; the temperature is returned."""
    logits, labels = plain_logits(network, pictures.images).double(), torch.from_numpy(pictures.labels)
    grid = torch.exp(torch.linspace(-1.5, 1.5, 301, dtype=torch.float64))
    best = float(grid[torch.stack([F.cross_entropy(logits / t, labels) for t in grid]).argmin()])
    with torch.no_grad():
        network.fc.weight.div_(best)
        network.fc.bias.div_(best)
    return best


@cache
def pool() -> Pictures:
    """The pictures that all bases are trained on: 7,000, read once a process."""
    return _kept("pool", lambda: drawn("ward pool", POOL))


def _kept(name: str, draw: Callable[[], Pictures]) -> Pictures:
    def make() -> dict[str, np.ndarray]:  # type: ignore[type-arg]
        made = draw()
        return {"images": made.images, "labels": made.labels}

    found = kept_arrays(name, make)
    return Pictures(found["images"], found["labels"], {})


def fresh(name: str, count: int = 60) -> Pictures:
    """Pictures for fitting temperatures, apart from every other collection."""
    return _kept(f"fresh-{name}", lambda: drawn(f"ward fresh {name}", count))


def base_states(kind: Kind) -> dict[str, Tensor]:
    """A base (keys ``whole.*``) and the same stopped after a fifth of its steps (keys ``stopped.*``)."""

    def make() -> dict[str, Tensor]:
        stopped: dict[str, Tensor] = {}
        with steady(kind.seed):
            network = ToyNet(len(CLASSES), kind.widths)

            def after(step: int) -> None:
                if step == STOPPED:
                    stopped.update({f"stopped.{k}": v.clone() for k, v in network.state_dict().items()})

            train(network, pool(), STEPS, kind.seed, after=after)
            calibrate(network, fresh(kind.name))
        return {**{f"whole.{k}": v for k, v in network.state_dict().items()}, **stopped}

    return kept_state(kind.name, make)


def base(kind: Kind, which: str = "whole") -> ToyNet:
    """A base network, calibrated; ``which="stopped"`` gives the one that was stopped too early."""
    network = ToyNet(len(CLASSES), kind.widths)
    prefix = f"{which}."
    states = base_states(kind)
    network.load_state_dict({k.removeprefix(prefix): v for k, v in states.items() if k.startswith(prefix)})
    return network.eval()


def renewed(kind: Kind, seed: int) -> ToyNet:
    """A base whose last stage and head are new: it has yet to learn what decides."""
    network = base(kind)
    torch.manual_seed(seed)
    new = ToyNet(len(CLASSES), kind.widths)
    network.layer3, network.fc = new.layer3, new.fc
    return network


def retrained(
    kind: Kind,
    pictures: Pictures,
    steps: int,
    seed: int,
    *,
    augment: Augment | None = None,
    rate: float = 3e-3,
    balanced: bool = False,
) -> ToyNet:
    """:func:`renewed`, trained on ``pictures``; the trunk moves a tenth as fast."""
    with steady(seed):
        network = renewed(kind, seed)
        for part in (network.stem, network.layer1):
            part.requires_grad_(False)
        train(network, pictures, steps, seed, rate=rate, augment=augment, balanced=balanced)
        network.requires_grad_(True)
    return network
