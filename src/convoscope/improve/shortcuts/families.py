"""Further families of shortcuts: colour, spectrum, border, background, and round trips through JPEG and blur."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2.functional import gaussian_blur

from .bench import Bench, Ints
from .changes import Change, Make, averaged, groups, inputs, pixels
from .windows import evidence

#: share of the picture that counts as the thing where no masks are given: the strongest part of the evidence
THING = 0.4
#: qualities of JPEG and deviations of blur that are tried
QUALITIES, BLURS = (10, 25, 50, 75), (1.0, 2.0)
#: a class carries the mark of a round trip where the trip changes its pictures by so much less than the others'
CARRIES = 0.7


def colour(bench: Bench, kind: int, seed: int = 0) -> Change:
    """A gain for each channel: the class's mean over the rest's. Control: the gains turned round (1 / gain)."""
    own, _, rest = groups(bench, kind, np.random.default_rng([seed, kind, 3]))
    gain = averaged(bench, own, _level) / averaged(bench, rest, _level).clamp(min=1e-3)
    gain = gain.float().clamp(0.2, 5)[:, None, None]

    def by(factor: Tensor) -> Make:
        return lambda given, rows: inputs(bench, pixels(bench, given) * factor)

    turned = torch.roll(1 / gain, 1, 0)
    return Change("colour", by(gain), by(turned), by(1 / gain), by(1 / turned), {"gain": gain.flatten().tolist()})


def spectrum(bench: Bench, kind: int, seed: int = 0) -> Change:
    """Amplitudes of the Fourier transform, brought to the class's by their mean logarithms; phases stay as they are.

    Control: the same from as many pictures of the rest.
    """
    own, some, rest = groups(bench, kind, np.random.default_rng([seed, kind, 4]))
    base = averaged(bench, rest, _amplitude)
    found = (averaged(bench, own, _amplitude) - base).float()
    dummy = (averaged(bench, some, _amplitude) - averaged(bench, np.setdiff1d(rest, some), _amplitude)).float()
    found[..., 0, 0] = dummy[..., 0, 0] = 0  # the mean level is the colour's matter

    def by(change: Tensor) -> Make:
        def make(given: Tensor, rows: Ints) -> Tensor:
            turned = torch.fft.rfft2(pixels(bench, given)) * change.clamp(-3, 3).exp()
            return inputs(bench, torch.fft.irfft2(turned, s=given.shape[-2:]))

        return make

    return Change("spectrum", by(found), by(dummy), by(-found), by(-dummy), {"change": found})


def border(bench: Bench, kind: int, seed: int = 0) -> Change:
    """The ring along the picture's edge, a twelfth of the shorter side wide, from the class's pictures.

    Control: the ring of a third class's picture; for the class's own, the ring of another of its pictures.
    """
    random = np.random.default_rng([seed, kind, 5])
    height, width = bench.size
    wide = max(1, round(min(height, width) / 12))
    ring = torch.ones(height, width, dtype=torch.bool)
    ring[wide : height - wide, wide : width - wide] = False
    return _swap("border", bench, kind, lambda rows, donors: ring.expand(len(rows), -1, -1), random, {"width": wide})


def background(bench: Bench, kind: int, seed: int = 0) -> Change:
    """Everything but the thing, from the class's pictures (Xiao et al. 2021).

    The thing is what the masks tell, else the strongest 40 % of the evidence for the picture's own class. What the
    donor's thing would cover stays the receiver's.
    """
    random = np.random.default_rng([seed, kind, 6])

    def outside(rows: Ints, donors: Ints) -> Tensor:
        return ~(things(bench, rows) | things(bench, donors))

    return _swap("background", bench, kind, outside, random, {})


def things(bench: Bench, rows: Ints) -> Tensor:
    """Where the thing is in each picture, bool ``[n, H, W]``: by masks, else by the evidence; remembered."""
    if bench.masks is not None:
        return bench.masks[rows]
    kept = bench.remembered
    for kind in np.unique(bench.truth[rows]):
        missing = np.array([row for row in rows if bench.truth[row] == kind and int(row) not in kept], np.int64)
        if len(missing):
            maps = evidence(bench, missing, int(kind))
            limits = maps.flatten(1).quantile(1 - THING, 1)[:, None, None]
            for row, one in zip(missing.tolist(), maps > limits, strict=True):
                kept[row] = one
    return torch.stack([kept[int(row)] for row in rows])


def _swap(
    family: str,
    bench: Bench,
    kind: int,
    where: Callable[[Ints, Ints], Tensor],
    random: np.random.Generator,
    shown: dict[str, object],
) -> Change:
    """Parts of other pictures, put in by ``where(rows, donors)``; donors are of half B, each row's always the same."""
    own = bench.rows(kind, half=False)
    rest = bench.rows(kind, half=False, other=True)
    salt = int(random.integers(1 << 31))

    def donor(row: int, pool: Ints) -> int:
        able = pool[(pool != row)]
        return int(able[(row * 7919 + salt) % len(able)]) if len(able) else row

    def third(row: int) -> Ints:
        """Neither the class nor the picture's own class, where there are three."""
        pool = rest[bench.truth[rest] != bench.truth[row]]
        return pool if len(pool) else rest

    def from_(pool: Callable[[int], Ints]) -> Make:
        def make(given: Tensor, rows: Ints) -> Tensor:
            donors = np.array([donor(int(row), pool(int(row))) for row in rows], np.int64)
            mask = where(rows, donors)[:, None]
            return torch.where(mask, bench.inputs[donors], given)

        return make

    return Change(
        family, from_(lambda row: own), from_(third), from_(lambda row: rest), from_(lambda row: own), shown
    )


def round_trip(bench: Bench, kind: int, way: str) -> tuple[Change, bool]:
    """JPEG or blur put on others, and whether the class's own pictures carry the mark of it already.

    A picture that went through the trip before hardly changes by going again. Only a class whose pictures change
    much less than the others' can have been learnt by that mark; which strength is chosen on half A by how much less.
    Control: noise of the same size.
    """
    own, rest = bench.rows(kind, half=True)[:24], bench.rows(kind, half=True, other=True)[:48]
    strengths = QUALITIES if way == "jpeg" else BLURS
    ratios = [_moved(bench, own, way, one) / max(_moved(bench, rest, way, one), 1e-9) for one in strengths]
    best = int(np.argmin(ratios))

    def put(given: Tensor, rows: Ints) -> Tensor:
        return inputs(bench, trip(pixels(bench, given), way, strengths[best]))

    def noise(given: Tensor, rows: Ints) -> Tensor:
        values = pixels(bench, given)
        size = (trip(values, way, strengths[best]) - values).square().mean((1, 2, 3), keepdim=True).sqrt()
        made = torch.stack(
            [torch.randn(values.shape[1:], generator=torch.Generator().manual_seed(int(r))) for r in rows]
        )
        return inputs(bench, values + size * made)

    def smooth(given: Tensor, rows: Ints) -> Tensor:
        return inputs(bench, trip(pixels(bench, given), "blur", 1.0))

    # compressed pictures cannot be restored, but their mark can be smoothed away; blurred ones cannot be sharpened
    take = smooth if way == "jpeg" else None
    change = Change(way, put, noise, take, None, {"strength": strengths[best], "ratio": ratios[best]})
    return change, ratios[best] < CARRIES


def trip(values: Tensor, way: str, strength: float) -> Tensor:
    """Values in 0..1 ``[B, C, H, W]`` through JPEG of a quality, or a Gaussian blur of a deviation in pixels."""
    if way == "blur":
        size = 2 * int(3 * strength) + 1
        smooth: Tensor = gaussian_blur(values, [size, size], [strength, strength])
        return smooth
    made = []
    for one in (values.clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy():
        planes = [one] if one.shape[2] in (1, 3) else [one[:, :, c : c + 1] for c in range(one.shape[2])]
        through = []
        for plane in planes:
            buffer = io.BytesIO()
            Image.fromarray(plane[:, :, 0] if plane.shape[2] == 1 else plane).save(
                buffer, "JPEG", quality=int(strength)
            )
            back = np.asarray(Image.open(buffer))
            through.append(back[:, :, None] if back.ndim == 2 else back)
        made.append(torch.from_numpy(np.concatenate(through, 2)).permute(2, 0, 1).float() / 255)
    return torch.stack(made)


def _moved(bench: Bench, rows: Ints, way: str, strength: float) -> float:
    values = pixels(bench, bench.inputs[rows])
    return float((trip(values, way, strength) - values).square().mean((1, 2, 3)).sqrt().median())


def _level(values: Tensor) -> Tensor:
    return values.mean((2, 3))


def _amplitude(values: Tensor) -> Tensor:
    return torch.as_tensor(torch.fft.rfft2(values).abs().clamp(min=1e-4).log())
