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
from .carried import CARRIED, along_the_edge, colours, told_by
from .changes import Change, Make, dearest, inputs, less_rest, means, pixels, table_of
from .windows import evidence

#: share of the picture that counts as the thing where no masks are given: the strongest part of the evidence
THING = 0.4
#: qualities of JPEG and deviations of blur that are tried
QUALITIES, BLURS = (10, 25, 50, 75), (1.0, 2.0)
#: widths of the rings along the edge, as shares of the shorter side: a frame, a corner, all around the thing
RINGS = (1 / 12, 1 / 6, 1 / 4)
#: how much of the detail that JPEG takes out is given back: what few donors have is a part of it
DOSES = (1.0, 2.0)
#: a class carries the mark of a round trip where the trip changes its pictures by so much less than the others'
CARRIES = 0.7


def colour(bench: Bench, kind: int, seed: int = 0) -> Change:
    """A gain for each channel: the class's mean over the rest's, put on others and taken from its own.

    Control of putting: the gains turned round and moved to other channels; of taking: as far the other way.
    """
    own, rest = means(bench, "colour", kind)
    gain = (own / rest.clamp(min=1e-3)).clamp(0.2, 5)[:, None, None]

    def by(factor: Tensor) -> Make:
        return lambda given, rows: inputs(bench, pixels(bench, given) * factor)

    turned = torch.roll(1 / gain, 1, 0)
    return Change(
        "colour", by(gain), by(turned), by(1 / gain), by(gain), {"gain": gain.flatten().tolist()},
        told_by(bench, "colours", table_of(bench, "colours", colours), seed)[kind],
    )  # fmt: skip


def spectrum(bench: Bench, kind: int, seed: int = 0) -> Change:
    """Amplitudes of the Fourier transform, brought to the class's by their mean logarithms; phases stay as they are.

    Control: the same to another class's.
    """
    random = np.random.default_rng([seed, kind, 4])
    other = int(random.choice([one for one in bench.classes if one != kind]))
    found, dummy = less_rest(bench, "amplitude", kind), less_rest(bench, "amplitude", other)
    found[..., 0, 0] = dummy[..., 0, 0] = 0  # the mean level is the colour's matter

    def by(change: Tensor) -> Make:
        def make(given: Tensor, rows: Ints) -> Tensor:
            turned = torch.fft.rfft2(pixels(bench, given)) * change.clamp(-3, 3).exp()
            return inputs(bench, torch.fft.irfft2(turned, s=given.shape[-2:]))

        return make

    return Change("spectrum", by(found), by(dummy), by(-found), by(-dummy), {"change": found})


def border(bench: Bench, kind: int, seed: int = 0, wide: int | None = None) -> Change:
    """The ring along the picture's edge from the class's pictures: a frame, a corner, or the ground a thing stands on.

    The narrowest ring must carry it: things reach into wider ones, which only serve to take it away.

    Control: the ring of a third class's picture; for the class's own, the ring of another of its pictures.

    Args:
        wide: of the ring in pixels; by default of :data:`RINGS` the one that costs most of half A's own pictures.
    """
    random = np.random.default_rng([seed, kind, 5])
    height, width = bench.size

    def ring(pixels_wide: int) -> Tensor:
        made = torch.ones(height, width, dtype=torch.bool)
        made[pixels_wide : height - pixels_wide, pixels_wide : width - pixels_wide] = False
        return made

    def change(pixels_wide: int, half: bool, carried: float | None) -> Change:
        where = ring(pixels_wide)
        shown: dict[str, object] = {"width": pixels_wide, "of": min(height, width)}
        return _swap(
            "border", bench, kind, lambda rows, donors: where.expand(len(rows), -1, -1), random, shown, half, carried
        )

    if wide is not None:
        return change(wide, False, None)
    listed = sorted({max(1, round(min(height, width) * share)) for share in RINGS})
    table = table_of(bench, "ring", lambda values: along_the_edge(values, ring(listed[0])))
    area = told_by(bench, "ring", table, seed)[kind]
    best = dearest(bench, kind, [change(one, True, None) for one in listed]) if area >= CARRIED else 0
    return change(listed[best], False, area)


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
    half: bool = False,
    carried: float | None = None,
) -> Change:
    """Parts of other pictures, put in by ``where(rows, donors)``; donors are of ``half``, a row's always the same."""
    own = bench.rows(kind, half=half)
    rest = bench.rows(kind, half=half, other=True)
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
        family,
        from_(lambda row: own),
        from_(third),
        from_(lambda row: rest),
        from_(lambda row: own),
        shown,
        carried,
    )


def round_trip(bench: Bench, kind: int, way: str, dose: float | None = None) -> Change:
    """JPEG or blur put on others, where the class's own pictures carry the mark of it already.

    A picture that went through the trip before hardly changes by going again. Only a class whose pictures change
    much less than the others' can have been learnt by that mark. Of the strengths at which that is so the strongest is
    taken, on half A. Control: noise of the same size.

    The mark of JPEG is taken by giving its own what the trip leaves out of other pictures; the control is the same
    picture compressed again, so that all but the mark is equal. Blurred pictures cannot be sharpened.
    """
    own, rest = bench.rows(kind, half=True)[:24], bench.rows(kind, half=True, other=True)
    rest = rest[:: max(1, len(rest) // 48)]
    strengths = QUALITIES if way == "jpeg" else BLURS[::-1]
    ratios = [_moved(bench, own, way, one) / max(_moved(bench, rest, way, one), 1e-9) for one in strengths]
    best = next((at for at, ratio in enumerate(ratios) if ratio < CARRIES), int(np.argmin(ratios)))
    donors = bench.rows(kind, half=False, other=True)
    donors = donors if len(donors) else bench.rows(kind, other=True)

    def through(values: Tensor) -> Tensor:
        return trip(values, way, strengths[best])

    def put(given: Tensor, rows: Ints) -> Tensor:
        return inputs(bench, through(pixels(bench, given)))

    def noise(given: Tensor, rows: Ints) -> Tensor:
        values = pixels(bench, given)
        size = (through(values) - values).square().mean((1, 2, 3), keepdim=True).sqrt()
        made = torch.stack(
            [torch.randn(values.shape[1:], generator=torch.Generator().manual_seed(int(r))) for r in rows]
        )
        return inputs(bench, values + size * made)

    def filled(given: Tensor, rows: Ints, dose: float) -> Tensor:
        """With the detail of other pictures that the trip would have taken out."""
        other = pixels(bench, bench.inputs[donors[(np.asarray(rows) * 7919) % len(donors)]])
        return (pixels(bench, given) + dose * (other - through(other))).clamp(0, 1)

    def take(dose: float) -> Make:
        return lambda given, rows: inputs(bench, filled(given, rows, dose))

    def again(dose: float) -> Make:
        return lambda given, rows: inputs(bench, through(filled(given, rows, dose)))

    # as an area: 1 where its own pictures do not change at all, 0.5 where they change as others do
    carried = float(np.clip(1 - ratios[best] * (1 - CARRIED) / CARRIES, 0, 1))
    shown = {"strength": strengths[best], "ratio": ratios[best]}
    if way == "blur" or not len(donors):
        return Change(way, put, noise, None, None, shown, carried)
    doses = DOSES if dose is None else (dose,)
    listed = [Change(way, None, None, take(one), again(one)) for one in doses]
    at = dearest(bench, kind, listed) if carried >= CARRIED and dose is None else 0
    return Change(way, put, noise, listed[at].take, listed[at].bare, {**shown, "dose": doses[at]}, carried)


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
    """The median over pictures of how much a trip changes them; what was measured once is remembered."""
    kept = bench.moved.setdefault((way, strength), {})
    missing = [int(row) for row in rows if int(row) not in kept]
    if missing:
        values = pixels(bench, bench.inputs[missing])
        sizes = (trip(values, way, strength) - values).square().mean((1, 2, 3)).sqrt()
        kept.update(zip(missing, sizes.tolist(), strict=True))
    return float(np.median([kept[int(row)] for row in rows]))
