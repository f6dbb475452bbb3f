"""The class template: what a class's pictures have in common at the same places, which no person may see."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2.functional import gaussian_blur

from .bench import Bench, Ints
from .carried import under_curve
from .changes import Change, Make, by_class, inputs, less_rest, pixels, table_of

#: deviations of the blur whose rest is looked at, as shares of the shorter side: for the eye, and for taking
FINE, COARSE = 1 / 48, 1 / 16
#: pictures of a tone that a place needs: what fewer show there is chance
FEW = 3


def high_pass(values: Tensor, share: float = FINE) -> Tensor:
    """``[..., H, W]`` less its blur, of a deviation of ``share`` of the shorter side (1 pixel at least)."""
    lead = values.reshape(-1, *values.shape[-3:])
    return (lead - _smooth(lead, share)).reshape(values.shape)


def _smooth(values: Tensor, share: float) -> Tensor:
    short = min(values.shape[-2:])
    sigma = max(1.0, short * share)
    size = min(2 * int(3 * sigma) + 1, 2 * ((short - 1) // 2) + 1)
    smooth: Tensor = gaussian_blur(gaussian_blur(values, [size, 1], [sigma, 1.0]), [1, size], [1.0, sigma])
    return smooth


def tones(values: Tensor) -> Tensor:
    """Where a picture is bright, bool ``[B, 1, H, W]``: half-transparent ink darkens what is bright."""
    return _smooth(values.mean(1, keepdim=True), COARSE) > 0.5


def template(bench: Bench, kind: int, seed: int = 0, dose: float | None = None) -> Change:
    """The mean of the class's pictures less the mean of the rest, high-passed: added, and taken away.

    Bright and dark places have a mean each, so that a half-transparent mark is found, too. It is taken ``dose`` times
    (once by default). The control is the template of another class, brought to the same size.
    """
    random = np.random.default_rng([seed, kind, 2])
    rivals = [one for one in bench.classes if one != kind]
    other = int(random.choice(rivals))
    found, dummy = _pair(bench, kind), _pair(bench, other)
    dummy = dummy * (found.square().mean().sqrt() / dummy.square().mean().sqrt().clamp(min=1e-9))
    fine = {one: high_pass(less_rest(bench, "level", one)) for one in bench.classes}

    def put(dose: float, what: Tensor) -> Make:
        def make(given: Tensor, rows: Ints) -> Tensor:
            values = pixels(bench, given)
            return inputs(bench, values + dose * torch.where(tones(values), what[1], what[0]))

        return make

    carried = _carried(bench, kind)
    often = 1.0 if dose is None else dose  # twice the mean of things at one place would take the things, too
    return Change(
        "template", put(1, found), put(1, dummy), put(-often, found), put(-often, dummy),
        {
            "template": fine[kind], "strength": float(found.square().mean().sqrt()), "dose": often,
            "noise": float(np.median([_strong(fine[one]) for one in rivals])),
        },
        carried,
    )  # fmt: skip


def _pair(bench: Bench, kind: int, share: float = COARSE) -> Tensor:
    """``[2, C, H, W]``: how much a class's pictures differ from the rest where they are dark, and where bright."""
    sums = by_class(bench, f"tones {share:g}", lambda values: _by_tone(values, share))
    mine = sums[kind][0]
    theirs = sum((one for label, (one, _) in sums.items() if label != kind), torch.zeros_like(mine))
    mean, rest = (one[:2] / one[2:].clamp(min=1) for one in (mine, theirs))
    return ((mean - rest) * (mine[2:] >= FEW)).float()


def _by_tone(values: Tensor, share: float) -> Tensor:
    """``[B, 4, C, H, W]``: high-passed values where dark, where bright, and where there is the one and the other."""
    bright, detail = tones(values), high_pass(values, share)
    flags = bright.expand_as(detail)
    return torch.stack([detail * ~flags, detail * flags, (~flags).float(), flags.float()], 1)


def _carried(bench: Bench, kind: int) -> float:
    """How well the likeness to a class's template tells its pictures of half B.

    In fine detail alone: the mean of things that lie here and there is a broad blur, and no pattern that all have.
    """
    if "likeness" not in bench.tables:
        pairs = [_pair(bench, one, FINE) for one in bench.classes]

        def likeness(values: Tensor) -> np.ndarray:  # type: ignore[type-arg]
            bright, detail = tones(values), high_pass(values, FINE)
            size = detail.square().sum((1, 2, 3)).sqrt().clamp(min=1e-6)
            alike = [(detail * torch.where(bright, one[1], one[0])).sum((1, 2, 3)) / size for one in pairs]
            return torch.stack(alike, 1).double().numpy()

        table_of(bench, "likeness", likeness)
    own, rest = bench.rows(kind, half=False), bench.rows(kind, half=False, other=True)
    if not len(own) or not len(rest):
        return 0.5
    column = bench.tables["likeness"][:, bench.classes.index(kind)]
    return under_curve(column[own], column[rest])


def visible(found: Tensor, noise: float = 0.0) -> bool:
    """Whether a person would see a template: its strongest part differs by more than some 8 of 255 levels.

    Args:
        found: the template, in 0..1.
        noise: the strong part of a template of other pictures, as many: what is there without any mark.
    """
    return bool(max(0.0, _strong(found) ** 2 - noise**2) ** 0.5 * 255 > 8.0)


def _strong(values: Tensor) -> float:
    """What the strongest hundredth of the places exceed, by the mean of |value| over 3×3 pixels and the channels.

    A small tag is seen, however little of the picture it takes; single pixels of chance are not.
    """
    near = F.avg_pool2d(values.abs().float().mean(0, keepdim=True)[None], 3, 1)
    return float(torch.quantile(near.flatten()[:: max(1, near.numel() // 100_000)], 0.99))
