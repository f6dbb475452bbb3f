"""One shard's pictures on their way into a mergeable state: the busiest code of a survey."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..store.accumulators import BINS, F32, I32, I64, SAMPLE, U64, Classes, Moments, Sample, State, bin_of


@dataclass(eq=False)
class Places:
    """Where responses lie: parallel lists of the picture in the batch, the channel, and the cell's row and column."""

    pictures: I64
    channels: I64
    rows: I64
    cols: I64

    @classmethod
    def joined(cls, parts: Sequence[Places]) -> Places:
        """All of them, in order."""
        if not parts:
            nothing = np.zeros(0, np.int64)
            return cls(nothing, nothing, nothing, nothing)
        return cls(
            *(np.concatenate([getattr(p, n) for p in parts]) for n in ("pictures", "channels", "rows", "cols"))
        )


class Running:
    """Gathers one shard's pictures batch by batch. **Pictures must come in ascending order of their keys.**

    Then a later picture never wins a tie, and one number is enough to say whether it may enter: strictly above
    (below) the worst of the best so far. :meth:`wanted` answers that for one layer, while its activation is there and
    positions can still be looked up; :meth:`add` takes the responses of the whole batch with those positions.
    """

    def __init__(self, channels: int, k: int, sample: int = SAMPLE) -> None:
        self.channels, self.k, self.sample_size = channels, k, max(sample, 5 * k)
        self.keys: list[U64] = []
        self.seen = 0
        self.high = np.full(channels, -np.inf, np.float32)
        self.low = np.full(channels, np.inf, np.float32)
        # the k best: value and number of the offered response, packed: see _pack
        self._top = np.full((channels, k), _NONE, np.uint64)
        self._low = np.full((channels, k), _NONE, np.uint64)
        self._sample: list[tuple[F32, NDArray[np.uint16], NDArray[np.uint16]]] = []
        self._histogram = np.zeros(channels * BINS, np.int64)
        self._moments = Moments.empty(channels)
        self._classes = Classes()
        # of every offered response, by its number: the picture in the shard, and the position
        self._which: list[I64] = []
        self._rows: list[I32] = []
        self._cols: list[I32] = []
        self._stored = 0

    @property
    def whole(self) -> int:
        """Of how many pictures to come every position is wanted."""
        return max(0, self.sample_size - self.seen)

    def wanted(self, start: int, values: F32) -> NDArray[np.bool_]:
        """Which of the responses ``[B, c]`` of the channels from ``start`` need their position, ``[B, c]``."""
        end = start + values.shape[1]
        mask = (values > self.high[start:end]) | (values < self.low[start:end])
        if self.whole:
            mask[: self.whole] = True
        return mask

    def add(self, keys: U64, values: F32, places: Places, labels: Sequence[str | None]) -> None:
        """A batch: responses ``values`` ``[B, C]``, and the places of those that :meth:`wanted` asked for.

        Raises ``ValueError`` where keys do not ascend.
        """
        known = np.concatenate([*self.keys[-1:], keys])
        if len(known) > 1 and not bool((known[1:] >= known[:-1]).all()):
            raise ValueError("pictures of a shard must come in ascending order of their keys")
        values = values + np.float32(0)  # minus zero is zero, also when sorted by bits
        if self.whole:
            self._take_sample(values, places)
        self._offer(values, places)
        flat = bin_of(values) + np.arange(self.channels) * BINS
        self._histogram += np.bincount(flat[~np.isnan(values)], minlength=len(self._histogram))
        self._moments = self._moments.merged(Moments.of(values))
        if any(label is not None for label in labels):
            self._classes.add(labels, values)
        self.keys.append(keys)
        self.seen += len(keys)

    def _take_sample(self, values: F32, places: Places) -> None:
        count = min(self.whole, len(values))
        where = np.zeros((2, count, self.channels), np.uint16)
        mine = places.pictures < count
        where[0, places.pictures[mine], places.channels[mine]] = places.rows[mine]
        where[1, places.pictures[mine], places.channels[mine]] = places.cols[mine]
        self._sample.append((values[:count].copy(), where[0], where[1]))

    def _offer(self, values: F32, places: Places) -> None:
        order = np.argsort(places.channels, kind="stable")  # within a channel, pictures stay in order
        pictures, channels = places.pictures[order], places.channels[order]
        found = values[pictures, channels]
        number = np.arange(self._stored, self._stored + len(found), dtype=np.uint64)
        self._stored += len(found)
        self._rows.append(places.rows[order].astype(np.int32))
        self._cols.append(places.cols[order].astype(np.int32))
        self._which.append(pictures + self.seen)
        for largest in (True, False):
            limit = self.high if largest else self.low
            better = found > limit[channels] if largest else found < limit[channels]
            if better.any():
                best = self._top if largest else self._low
                keys = _pack(found[better], number[better], largest)
                _insert(best, channels[better], keys)
                worst = best[:, -1]
                full = worst != _NONE
                limit[full] = _value(worst[full], largest)

    def state(self) -> State:
        """What was gathered, as a mergeable state."""
        state = State.empty(self.channels, self.k, self.sample_size)
        state.pictures = self.seen
        if not self.seen:
            return state
        keys = np.concatenate(self.keys)
        rows, cols, which = (np.concatenate(parts) for parts in (self._rows, self._cols, self._which))
        for extremes, packed in ((state.top, self._top), (state.lowest, self._low)):
            there = packed != _NONE
            number = (packed & np.uint64(0xFFFFFFFF)).astype(np.int64)
            number[~there] = 0
            if len(which):
                extremes.values[there] = _value(packed[there], extremes.largest)
                extremes.keys[there] = keys[which[number[there]]]
                extremes.rows[there] = rows[number[there]]
                extremes.cols[there] = cols[number[there]]
        sampled, at_row, at_col = (np.concatenate(parts) for parts in zip(*self._sample, strict=True))
        state.sample = Sample(keys[: len(sampled)], sampled, at_row, at_col, self.sample_size)
        state.histogram = self._histogram.reshape(self.channels, BINS)
        state.moments, state.classes = self._moments, self._classes
        return state


_NONE = np.uint64(0xFFFFFFFFFFFFFFFF)
_SIGN = np.uint32(0x80000000)


def _pack(values: F32, numbers: U64, largest: bool) -> U64:
    """Sortable 64 bits: the best value first, then the smaller number."""
    bits = values.view(np.uint32)
    ascending = np.where(bits & _SIGN, ~bits, bits | _SIGN)
    high = ~ascending if largest else ascending
    return (high.astype(np.uint64) << np.uint64(32)) | numbers


def _value(packed: U64, largest: bool) -> F32:
    """The values in what :func:`_pack` packed."""
    high = (packed >> np.uint64(32)).astype(np.uint32)
    ascending = ~high if largest else high
    return np.where(ascending & _SIGN, ascending ^ _SIGN, ~ascending).view(np.float32)


def _insert(best: U64, channels: I64, keys: U64) -> None:
    """Put ``keys`` of ``channels`` (ascending) into ``best`` ``[C, k]``, in place, keeping the smallest ``k``."""
    k = best.shape[1]
    rows, first, counts = np.unique(channels, return_index=True, return_counts=True)
    column = np.arange(len(channels)) - np.repeat(first, counts)
    table = np.full((len(rows), k + int(counts.max())), _NONE, np.uint64)
    table[:, :k] = best[rows]
    table[np.repeat(np.arange(len(rows)), counts), k + column] = keys
    table.sort(axis=1)
    best[rows] = table[:, :k]
