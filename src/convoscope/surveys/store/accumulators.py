"""What is gathered of every unit of a network over a collection, in a form that merges in any order.

Everything is over the spatial maximum of a channel in a picture, its *response*. All layers lie side by side on one
channel axis of length ``C``, so that bookkeeping costs the same for one layer and for fifty.

Order never matters: extremes break ties by the picture's *key* (the first 64 bits of its sha256, smaller first),
samples are the pictures of the smallest keys, histograms have fixed bins, and moments are merged by Chan's formula
(Chan, Golub, LeVeque 1983). NaN responses are counted and enter nothing else but the sample; infinite ones are
counted, and enter neither moments nor class means.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I32 = NDArray[np.int32]
I64 = NDArray[np.int64]
U64 = NDArray[np.uint64]

#: bins of the histogram: half octaves of the magnitude from 2^-12 to 2^16, negative, zero, positive
HALF_OCTAVES = 56
LOWEST_OCTAVE = -12
BINS = 2 * HALF_OCTAVES + 1
#: the least number of pictures whose responses are kept whole, of which the typical ones are the middle
SAMPLE = 64


def bin_of(values: F32) -> NDArray[np.int64]:
    """The histogram's bin of each value: 0 holds the most negative, ``HALF_OCTAVES`` those below 2^-12 in
    magnitude.
    """
    magnitude = np.abs(values)
    small = magnitude < 2.0**LOWEST_OCTAVE
    with np.errstate(divide="ignore", invalid="ignore"):
        steps = np.floor(2 * (np.log2(np.where(small, 1.0, magnitude)) - LOWEST_OCTAVE))
    steps = np.clip(np.nan_to_num(steps, nan=0.0, posinf=HALF_OCTAVES - 1), 0, HALF_OCTAVES - 1).astype(np.int64)
    return np.where(small, HALF_OCTAVES, np.where(values > 0, HALF_OCTAVES + 1 + steps, HALF_OCTAVES - 1 - steps))


def bin_edges() -> F64:
    """The ``BINS + 1`` edges; the outermost bins also hold what lies beyond them."""
    positive = 2.0 ** (LOWEST_OCTAVE + np.arange(HALF_OCTAVES + 1) / 2)
    return np.concatenate([-positive[::-1], positive])


@dataclass(eq=False)
class Extremes:
    """The ``k`` best pictures of each channel, best first: responses, keys and positions, each ``[C, k]``.

    Places that no picture has taken hold NaN and the position -1. ``largest`` says what is best.
    """

    values: F32
    keys: U64
    rows: I32
    cols: I32
    largest: bool

    @classmethod
    def empty(cls, channels: int, k: int, *, largest: bool) -> Extremes:
        shape = (channels, k)
        return cls(
            np.full(shape, np.nan, np.float32),
            np.zeros(shape, np.uint64),
            np.full(shape, -1, np.int32),
            np.full(shape, -1, np.int32),
            largest,
        )

    def merged(self, other: Extremes) -> Extremes:
        """The best ``k`` of both."""
        k = self.values.shape[1]
        joined = {
            n: np.concatenate([getattr(self, n), getattr(other, n)], 1) for n in ("values", "keys", "rows", "cols")
        }
        # absent places sort to the end; equal values by the smaller key
        rank = -joined["values"] if self.largest else joined["values"]
        order = np.lexsort((joined["keys"], np.where(np.isnan(rank), np.inf, rank), np.isnan(rank)), axis=1)[:, :k]
        taken = {n: np.take_along_axis(a, order, 1) for n, a in joined.items()}
        return Extremes(taken["values"], taken["keys"], taken["rows"], taken["cols"], self.largest)


@dataclass(eq=False)
class Sample:
    """All responses of the pictures with the smallest keys: ``keys`` ``[S]`` ascending, the rest ``[S, C]``."""

    keys: U64
    values: F32
    rows: NDArray[np.uint16]
    cols: NDArray[np.uint16]
    size: int

    @classmethod
    def empty(cls, channels: int, size: int) -> Sample:
        return cls(
            np.zeros(0, np.uint64),
            np.zeros((0, channels), np.float32),
            np.zeros((0, channels), np.uint16),
            np.zeros((0, channels), np.uint16),
            size,
        )

    def merged(self, other: Sample) -> Sample:
        keys = np.concatenate([self.keys, other.keys])
        order = np.argsort(keys, kind="stable")[: self.size]
        values, rows, cols = (
            np.concatenate([getattr(self, n), getattr(other, n)])[order] for n in ("values", "rows", "cols")
        )
        return Sample(keys[order], values, rows, cols, self.size)

    def typical(self, k: int) -> Extremes:
        """The ``k`` pictures in the middle of the sample's responses, per channel, smallest first."""
        count, channels = self.values.shape
        found = Extremes.empty(channels, k, largest=False)
        if not count:
            return found
        order = np.argsort(
            self.values, axis=0, kind="stable"
        )  # the sample is sorted by key: ties are by key; NaN last
        known = (~np.isnan(self.values)).sum(0)
        start = np.maximum(0, (known - k) // 2)
        for place in range(min(k, count)):
            at = start + place
            which = np.take_along_axis(order, at[None], 0)[0]
            fits = at < known
            across = np.arange(channels)
            found.values[fits, place] = self.values[which, across][fits]
            found.keys[fits, place] = self.keys[which][fits]
            found.rows[fits, place] = self.rows[which, across][fits]
            found.cols[fits, place] = self.cols[which, across][fits]
        return found


@dataclass(eq=False)
class Moments:
    """Count, mean and sum of squared deviations over finite responses; how often active, NaN or infinite. All
    ``[C]``.
    """

    count: I64
    mean: F64
    deviation: F64
    active: I64
    nan: I64
    infinite: I64

    @classmethod
    def empty(cls, channels: int) -> Moments:
        whole = [np.zeros(channels, np.int64) for _ in range(4)]
        return cls(whole[0], np.zeros(channels), np.zeros(channels), *whole[1:])

    @classmethod
    def of(cls, values: F32) -> Moments:
        """Of responses ``[B, C]``."""
        nan, infinite = np.isnan(values), np.isinf(values)
        known = ~(nan | infinite)
        whole = bool(known.all())
        count = known.sum(0)
        wide = values.astype(np.float64) if whole else np.where(known, values, 0.0).astype(np.float64)
        mean = wide.sum(0) / np.maximum(count, 1)
        away = wide - mean
        if not whole:
            away[~known] = 0.0
        active = (values > 0).sum(0)
        return cls(count, mean, np.einsum("bc,bc->c", away, away), active, nan.sum(0), infinite.sum(0))

    def merged(self, other: Moments) -> Moments:
        count = self.count + other.count
        delta = other.mean - self.mean
        share = other.count / np.maximum(count, 1)
        return Moments(
            count,
            self.mean + delta * share,
            self.deviation + other.deviation + delta**2 * self.count * share,
            self.active + other.active,
            self.nan + other.nan,
            self.infinite + other.infinite,
        )

    @property
    def variance(self) -> F64:
        """Of the population."""
        return self.deviation / np.maximum(self.count, 1)


@dataclass(eq=False)
class Classes:
    """Sums of finite responses by label: ``counts[label]`` and ``sums[label]``, each ``[C]``."""

    counts: dict[str, I64] = field(default_factory=dict)
    sums: dict[str, F64] = field(default_factory=dict)

    def add(self, labels: Sequence[str | None], values: F32) -> None:
        """Responses ``[B, C]`` of pictures with these labels."""
        known = np.isfinite(values)
        wide = np.where(known, values, 0.0).astype(np.float64)
        for label in dict.fromkeys(labels):
            if label is None:
                continue
            rows = [i for i, other in enumerate(labels) if other == label]
            self._put(label, known[rows].sum(0), wide[rows].sum(0))

    def _put(self, label: str, count: I64, total: F64) -> None:
        if label in self.sums:
            self.counts[label] = self.counts[label] + count
            self.sums[label] = self.sums[label] + total
        else:
            self.counts[label], self.sums[label] = count, total

    def merged(self, other: Classes) -> Classes:
        result = Classes(dict(self.counts), dict(self.sums))
        for label, total in other.sums.items():
            result._put(label, other.counts[label], total)
        return result

    def means(self) -> tuple[list[str], F64]:
        """The labels in order, and the mean response of each, ``[labels, C]``."""
        labels = sorted(self.sums)
        if not labels:
            return [], np.zeros((0, 0))
        return labels, np.stack([self.sums[label] / np.maximum(self.counts[label], 1) for label in labels])


@dataclass(eq=False)
class State:
    """All that is known of ``C`` channels after some pictures. ``a.merged(b)`` is associative and commutative."""

    pictures: int
    top: Extremes
    lowest: Extremes
    sample: Sample
    histogram: I64
    moments: Moments
    classes: Classes

    @classmethod
    def empty(cls, channels: int, k: int, sample: int = SAMPLE) -> State:
        return cls(
            0,
            Extremes.empty(channels, k, largest=True),
            Extremes.empty(channels, k, largest=False),
            Sample.empty(channels, sample),
            np.zeros((channels, BINS), np.int64),
            Moments.empty(channels),
            Classes(),
        )

    @property
    def channels(self) -> int:
        return len(self.histogram)

    def merged(self, other: State) -> State:
        return State(
            self.pictures + other.pictures,
            self.top.merged(other.top),
            self.lowest.merged(other.lowest),
            self.sample.merged(other.sample),
            self.histogram + other.histogram,
            self.moments.merged(other.moments),
            self.classes.merged(other.classes),
        )

    def to_bytes(self) -> bytes:
        """As a compressed npz; :meth:`from_bytes` reads it."""
        labels = sorted(self.classes.sums)
        arrays: dict[str, Any] = {
            "pictures": np.int64(self.pictures),
            "histogram": self.histogram.astype(np.uint32) if self.pictures < 2**32 else self.histogram,
            "sample_size": np.int64(self.sample.size),
            "labels": np.array(labels, dtype=np.str_),
            "class_counts": np.array([self.classes.counts[label] for label in labels]).astype(np.uint32),
            "class_sums": np.array([self.classes.sums[label] for label in labels]),
        }
        for name in ("top", "lowest"):
            part = getattr(self, name)
            arrays |= {f"{name}_{n}": getattr(part, n) for n in ("values", "keys", "rows", "cols")}
        arrays |= {f"sample_{n}": getattr(self.sample, n) for n in ("keys", "values", "rows", "cols")}
        arrays |= {f"moments_{n}": v for n, v in vars(self.moments).items()}
        buffer = io.BytesIO()
        np.savez(buffer, **arrays)
        import pyarrow as pa

        raw = buffer.getvalue()
        packed: bytes = pa.Codec("zstd", compression_level=1).compress(raw, asbytes=True)
        return len(raw).to_bytes(8, "little") + packed

    @classmethod
    def from_bytes(cls, data: bytes) -> State:
        import pyarrow as pa

        raw = pa.Codec("zstd").decompress(data[8:], int.from_bytes(data[:8], "little"), asbytes=True)
        with np.load(io.BytesIO(raw), allow_pickle=False) as npz:
            a = {name: npz[name] for name in npz.files}
        labels = [str(label) for label in a["labels"]]

        def extremes(name: str, largest: bool) -> Extremes:
            return Extremes(a[f"{name}_values"], a[f"{name}_keys"], a[f"{name}_rows"], a[f"{name}_cols"], largest)

        return cls(
            int(a["pictures"]),
            extremes("top", True),
            extremes("lowest", False),
            Sample(a["sample_keys"], a["sample_values"], a["sample_rows"], a["sample_cols"], int(a["sample_size"])),
            a["histogram"].astype(np.int64),
            Moments(*(a[f"moments_{n}"] for n in ("count", "mean", "deviation", "active", "nan", "infinite"))),
            Classes(
                {label: a["class_counts"][i].astype(np.int64) for i, label in enumerate(labels)},
                {label: a["class_sums"][i] for i, label in enumerate(labels)},
            ),
        )
