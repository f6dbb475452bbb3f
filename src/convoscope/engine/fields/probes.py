"""Index probes: for every element of a tensor, the lowest and highest input index that reaches it.

A probe belongs to one tensor and one axis of the network's input (rows or columns). It is a float64 tensor
``[6, d1, .., dn]`` over the tensor's own dimensions, each kept at length 1 where nothing changes along it:

====  ==============================================================
 0    strict: the lowest index of the picture, over every path
 1    strict: the highest one, negated
 2    local: the lowest index, beyond the picture where it is padded
 3    local: the highest one, negated
 4    -1 if paths that the local field leaves out reach it too, else 0
 5    the centre: the mean position of what is read, by the weights that are known
====  ==============================================================

With the highest index negated, "either of these reaches it" is the elementwise minimum of whole probes, and
infinity is the empty field, the minimum's neutral element. Strictly empty means that the picture cannot
change the element; locally empty means that the element has no place, as after global pooling: such
operands leave the place of the others alone.

The middle of a field is its centre only where the field is even. Behind an upsampling two neighbours read the
same two cells, one with weights 1/4 and 3/4, the other the other way round: their fields are the same and their
centres lie half a cell apart. So the centre is carried by itself: an interpolation's own weights, and equal ones
where the weights are learnt.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Probe = Tensor

PARTS = 6
EMPTY = float("inf")
NOWHERE = -(2**40)
"""A window position that stands for no element at all."""
_LONGEST_PERIOD = 64
_FINEST = 2.0**30
"""Centres are kept to multiples of 1 / _FINEST, so that equal ones are equal bit for bit, whatever was summed."""


def seed(shape: Sequence[int], dim: int) -> Probe:
    """The probe of the picture itself: element ``i`` along ``dim`` is reached by index ``i``."""
    sizes = [1] * len(shape)
    sizes[dim] = shape[dim]
    index = torch.arange(shape[dim], dtype=torch.float64, device="cpu").reshape(sizes)
    return torch.stack((index, -index, index, -index, torch.zeros_like(index), index))


def empty(dims: int) -> Probe:
    """The probe of a constant."""
    return torch.full((PARTS,) + (1,) * dims, EMPTY, dtype=torch.float64, device="cpu")


def everywhere(length: int, dims: int) -> Probe:
    """The probe of what the whole picture may change and what has no place."""
    probe = empty(dims)
    probe[0], probe[1], probe[4] = 0, -(length - 1), -1
    return probe


def compress(probe: Probe, dims: Sequence[int] | None = None) -> Probe:
    """Shorten to 1 the dimensions along which nothing changes."""
    for dim in range(probe.dim() - 1) if dims is None else dims:
        if probe.shape[dim + 1] > 1:
            first = probe.narrow(dim + 1, 0, 1)
            if torch.equal(first.expand_as(probe), probe):
                probe = first
    return probe


def middle(centres: Tensor, dims: Sequence[int], *, keepdim: bool = False) -> Tensor:
    """The mean of the centres over ``dims``, those without a place left out; infinite where none has one."""
    placed = torch.isfinite(centres)
    total = torch.where(placed, centres, 0.0).sum(list(dims), keepdim=keepdim)
    count = placed.sum(list(dims), keepdim=keepdim)
    return torch.where(count > 0, _rounded(total / count.clamp(min=1)), EMPTY)


def _rounded(centres: Tensor) -> Tensor:
    return torch.round(centres * _FINEST) / _FINEST


def merged(probe: Probe, dims: Sequence[int], *, keepdim: bool = False) -> Probe:
    """What reaches any of the elements along ``dims`` (of the probe, its own first one counted)."""
    dims = list(dims)
    if not dims:
        return probe
    low = probe[:5].amin(dims, keepdim=keepdim)
    return torch.cat((low, middle(probe[5:], dims, keepdim=keepdim)))


def varies(local: Tensor) -> bool:
    """Whether a local field ``[2, ...]`` differs between any two elements."""
    flat = local.reshape(2, -1)
    return flat.shape[1] > 1 and not torch.equal(flat[:, :1].expand_as(flat), flat)


def aligned(probe: Probe, dims: int) -> Probe:
    """The probe as of a tensor with more leading dimensions, as in broadcasting."""
    missing = dims - (probe.dim() - 1)
    return probe.reshape(PARTS, *(1,) * missing, *probe.shape[1:]) if missing else probe


def union(probes: Sequence[Probe], dims: int) -> Probe:
    """What reaches any of several broadcast operands.

    The local field leaves out operands that are spatially constant while others are not: gates, statistics.
    """
    probes = [aligned(probe, dims) for probe in probes]
    if len(probes) == 1:
        return probes[0]
    varying = [probe for probe in probes if varies(probe[2:4])]
    lowest = probes[0][:5]
    for probe in probes[1:]:
        lowest = torch.minimum(lowest, probe[:5])
    if not varying or len(varying) == len(probes):
        return joined(lowest[:2], lowest[2:4], lowest[4:], _between(probes))
    local = varying[0][2:4]
    for probe in varying[1:]:
        local = torch.minimum(local, probe[2:4])
    left_out = any(bool(torch.isfinite(probe[:2]).any()) for probe in probes if not varies(probe[2:4]))
    mark = torch.full_like(lowest[4:], -1) if left_out else lowest[4:]
    return joined(lowest[:2], local, mark, _between(varying))


def _between(probes: Sequence[Probe]) -> Tensor:
    """The mean of several operands' centres."""
    if all(torch.equal(probe[5], probes[0][5]) for probe in probes[1:]):
        return probes[0][5:]
    shape = _broadcast([probe[5:] for probe in probes])
    return middle(torch.stack([probe[5:].expand(1, *shape) for probe in probes]), [0])


def joined(strict: Tensor, local: Tensor, mark: Tensor, centre: Tensor) -> Probe:
    """A probe of its parts."""
    parts = (strict, local, mark, centre)
    shape = _broadcast(parts)
    return torch.cat([part.expand(len(part), *shape) for part in parts])


def _broadcast(parts: Sequence[Tensor]) -> list[int]:
    """The shape that probes of one tensor have in common, without their own first dimension."""
    return [max(sizes) for sizes in zip(*(part.shape[1:] for part in parts), strict=True)]


def apart(local: Tensor, dims: list[int]) -> Tensor:
    """Twice the largest distance between the centres of elements that differ in ``dims`` alone."""
    twice = local[0] - local[1]  # the lowest index plus the highest one; not a number where the field is empty
    low = twice.nan_to_num(nan=EMPTY).amin(dims)
    high = twice.nan_to_num(nan=-EMPTY).amax(dims)
    return (high - low).clamp(min=0)


def reduced(probe: Probe, dims: Sequence[int], *, keep: bool) -> Probe:
    """What reaches a reduction over ``dims``.

    It loses its place if the picture was what it reduced over: what is left then differs little in place, as
    channels do, where the elements of windows or of the other axis would be far apart.
    """
    over = [dim + 1 for dim in dims if probe.shape[dim + 1] > 1]
    if over:
        result = merged(probe, over, keepdim=True)
        before = float(apart(probe[2:4], [dim - 1 for dim in over]).max())
        if before and 2 * float(apart(result[2:4], list(range(probe.dim() - 1)))) < before:
            result = placeless(result)
        probe = compress(result)
    return probe if keep else probe.squeeze([dim + 1 for dim in dims])


def spread(probe: Probe, dims: Sequence[int]) -> Probe:
    """What reaches a normalisation over ``dims``: strictly all of them, locally the element itself."""
    over = [dim + 1 for dim in dims if probe.shape[dim + 1] > 1]
    if not over:
        return probe
    strict = probe[:2].amin(over, keepdim=True)
    return joined(strict, probe[2:4], torch.full_like(probe[4:5], -1), probe[5:])


def placeless(probe: Probe) -> Probe:
    """The same reach without a place: content decides what is mixed, as in attention."""
    nowhere = torch.full_like(probe[2:4], EMPTY)
    return torch.cat((probe[:2], nowhere, torch.full_like(probe[4:5], -1), nowhere[:1]))


def _period(local: Tensor, dim: int) -> int:
    """After how many elements the steps along ``dim`` repeat; 1 if they do not."""
    steps = local.diff(dim=dim).nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
    count = steps.shape[dim]
    for period in range(1, min(_LONGEST_PERIOD, count) + 1):
        if period > 1 and 2 * period > count + 1:
            break
        rest = count - period
        # centres that are thirds repeat up to their last bit
        if torch.allclose(steps.narrow(dim, period, rest), steps.narrow(dim, 0, rest), rtol=0, atol=1e-6):
            return period
    return 1


def extended(local: Tensor, dim: int, positions: Tensor) -> Tensor:
    """``local`` at integer ``positions`` along ``dim``, continued at its own pace beyond both ends.

    Padding is thereby seen as if the picture went on, which keeps the fields of border cells as large and as
    evenly spaced as those of interior cells.
    """
    length = local.shape[dim]
    below, above = (-positions).clamp(min=0), (positions - (length - 1)).clamp(min=0)
    beyond = bool((below + above).any())
    if not beyond or length == 1:
        return local.index_select(dim, positions.clamp(0, length - 1))
    period = _period(local, dim)
    turns_below, turns_above = -(-below // period), -(-above // period)
    values = local.index_select(dim, positions + (turns_below - turns_above) * period)
    sizes = [1] * local.dim()
    sizes[dim] = len(positions)
    first = local.narrow(dim, period, 1) - local.narrow(dim, 0, 1)
    last = local.narrow(dim, length - 1, 1) - local.narrow(dim, length - 1 - period, 1)
    first, last = (step.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0) for step in (first, last))
    return values - first * turns_below.reshape(sizes) + last * turns_above.reshape(sizes)


def window(probe: Probe, dim: int, strict: Tensor, local: Tensor | None = None, at: Tensor | None = None) -> Probe:
    """What reaches windows that slide along ``dim``.

    Args:
        probe: of the operand. dim: of the operand. strict: int64 ``[windows, taps]``, the elements that
        each window reads. Positions outside are padding. local: the same for the local field, where
        positions outside count as more picture; ``strict`` if None. at: float64 ``[windows]``, where between
        the elements each window's centre of weight lies; the mean of its local positions if None.
    """
    length = probe.shape[dim + 1]
    if length == 1:
        return probe
    local = strict if local is None else local
    (count, taps), (_, local_taps) = strict.shape, local.shape
    sizes = [1] * (probe.dim() + 1)

    def mask(outside: Tensor) -> Tensor:
        sizes[dim + 1 : dim + 3] = outside.shape
        return outside.reshape(sizes)

    near = torch.cat((probe[:2], probe[4:5])).index_select(dim + 1, strict.clamp(0, length - 1).flatten())
    near = near.reshape(*near.shape[: dim + 1], count, taps, *near.shape[dim + 2 :])
    near = near.masked_fill(mask((strict < 0) | (strict >= length)), EMPTY).amin(dim + 2)
    nowhere = local == NOWHERE
    places = local.masked_fill(nowhere, 0).flatten()

    def beyond(part: Tensor) -> Tensor:
        read = extended(part, dim + 1, places)
        read = read.reshape(*read.shape[: dim + 1], count, local_taps, *read.shape[dim + 2 :])
        return read.masked_fill(mask(nowhere), EMPTY)

    far = beyond(probe[2:4]).amin(dim + 2)
    centre = middle(beyond(probe[5:]), [dim + 2]) if at is None else _interpolated(probe[5:], dim + 1, at)
    if count == 1 and len(set(local[(local >= 0) & (local < length)].tolist())) == length:
        # one window over everything is a global pooling: no place is left
        far, centre = torch.full_like(far, EMPTY), torch.full_like(centre, EMPTY)
    return torch.cat((near[:2], far, near[2:], centre))


def _interpolated(centres: Tensor, dim: int, at: Tensor) -> Tensor:
    """The centres at fractional positions along ``dim``, linear in between and continued beyond both ends."""
    below = at.floor()
    share = (at - below).reshape([len(at) if k == dim else 1 for k in range(centres.dim())])
    low, high = (extended(centres, dim, (below + k).long()) for k in (0, 1))
    between = torch.where(share > 0, low + share * (high - low), low)
    return torch.where(torch.isfinite(between), _rounded(between), EMPTY)


def reshaped(probe: Probe, old: Sequence[int], new: Sequence[int]) -> Probe:
    """The probe of a tensor whose shape goes from ``old`` to ``new`` in row-major order.

    Both shapes fall into blocks of equal products; only blocks along which something changes are written out.
    """
    wide: list[int] = []
    shape: list[int] = []
    touched: list[int] = []
    i = j = 0
    while i < len(old) or j < len(new):
        start, first, left, right = i, j, 1, 1
        if i < len(old):
            left, i = old[i], i + 1
        if j < len(new):
            right, j = new[j], j + 1
        while left != right:
            if left < right:
                left, i = left * old[i], i + 1
            else:
                right, j = right * new[j], j + 1
        if all(size == 1 for size in probe.shape[start + 1 : i + 1]):
            wide += [1] * (i - start)
            shape += [1] * (j - first)
        else:
            wide += old[start:i]
            shape += new[first:j]
            touched += range(first, j) if (i - start, j - first) != (1, 1) else ()
    return compress(probe.expand(PARTS, *wide).reshape(PARTS, *shape), touched)


def viewed(probe: Probe, shape: Sequence[int], view: Callable[[Tensor], Any]) -> list[Probe]:
    """The probes of a view's outputs: the view itself, of a stride-0 tensor of the operand's shape."""
    outputs = view(probe[0].expand(tuple(shape)))
    results = []
    for output in outputs if isinstance(outputs, (list, tuple)) else [outputs]:
        layout = zip(output.shape, output.stride(), strict=True)
        sizes = [1 if stride == 0 else size for size, stride in layout]
        strides = (probe.stride(0), *output.stride())
        results.append(probe.as_strided((PARTS, *sizes), strides, output.storage_offset()))
    return results


def rearranged(probe: Probe, shape: Sequence[int], move: Callable[[Tensor], Tensor]) -> Probe:
    """The probe after an operation that only moves elements, or fills with zeros, written out in full."""
    # zero is what such operations fill with, so the empty field must be zero while it is applied
    finite = probe.isfinite()
    shift = 1 + float(probe[finite].max()) if bool(finite.any()) else 1.0
    moved = []
    for part in probe:
        solid = torch.where(part.isfinite(), part - shift, 0.0)
        result = move(solid.expand(tuple(shape)))
        moved.append(torch.where(result == 0, EMPTY, result + shift))
    return compress(torch.stack(moved))


def concatenated(probes: Sequence[Probe], lengths: Sequence[int], dim: int) -> Probe:
    """The probe of a concatenation along ``dim`` of operands with these lengths."""
    first = probes[0]
    if all(p.shape[dim + 1] == 1 and p.shape == first.shape and torch.equal(p, first) for p in probes[1:]):
        return first if first.shape[dim + 1] == 1 else torch.cat(tuple(probes), dim + 1)
    sizes = [max(sizes) for sizes in zip(*(p.shape for p in probes), strict=True)]
    parts = []
    for probe, length in zip(probes, lengths, strict=True):
        sizes[dim + 1] = length
        parts.append(probe.expand(sizes))
    return torch.cat(parts, dim + 1)
