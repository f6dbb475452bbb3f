"""Accumulators against brute force: ties, NaN, all negative, fewer pictures than k, any order of merging."""

from __future__ import annotations

import random

import numpy as np
import pytest

from convoscope.surveys.gather.running import Places, Running
from convoscope.surveys.store.accumulators import BINS, Extremes, Moments, State, bin_edges, bin_of

CHANNELS = 7
SIDE = 3


def keys(count: int, seed: int = 0) -> np.ndarray:
    return np.sort(np.random.default_rng(seed).integers(0, 2**64, count, dtype=np.uint64))


def gather(maps: np.ndarray, of: np.ndarray, batch: int, labels: list[str | None], k: int, sample: int = 4) -> State:
    """Maps ``[N, C, H, W]`` through :class:`Running`, as the work on a unit does."""
    running = Running(maps.shape[1], k, sample)
    for start in range(0, len(maps), batch):
        part = maps[start : start + batch]
        flat = part.reshape(*part.shape[:2], -1)
        values = flat.max(2)
        pictures, channels = np.nonzero(running.wanted(0, values))
        at = flat[pictures, channels].argmax(1) if len(pictures) else np.zeros(0, np.int64)
        places = Places(pictures, channels, at // SIDE, at % SIDE)
        running.add(of[start : start + batch], values, places, labels[start : start + batch])
    return running.state()


def brute(maps: np.ndarray, of: np.ndarray, k: int, largest: bool) -> list[list[tuple[float, int, int, int]]]:
    """For each channel the k best (value, key, row, column), by a full sort."""
    found = []
    for channel in range(maps.shape[1]):
        rows = []
        for number in range(len(maps)):
            flat = maps[number, channel].ravel()
            if not np.isnan(flat).any():
                at = int(flat.argmax())
                rows.append((float(flat[at]), int(of[number]), at // SIDE, at % SIDE))
        rows.sort(key=lambda row: (-row[0] if largest else row[0], row[1]))
        found.append(rows[:k])
    return found


def listed(extremes: Extremes) -> list[list[tuple[float, int, int, int]]]:
    return [
        [
            (float(v), int(key), int(r), int(c))
            for v, key, r, c in zip(
                *(getattr(extremes, n)[ch] for n in ("values", "keys", "rows", "cols")), strict=True
            )
            if not np.isnan(v)
        ]
        for ch in range(len(extremes.values))
    ]


def example(kind: str, count: int = 40) -> np.ndarray:
    rng = np.random.default_rng(1)
    maps = rng.standard_normal((count, CHANNELS, SIDE, SIDE)).astype(np.float32)
    if kind == "ties":
        maps = np.round(maps)
    elif kind == "relu":
        maps = np.maximum(maps - 2.2, 0)
        maps[:, 2] = 0
    elif kind == "negative":
        maps = -np.abs(maps) - 1
    elif kind == "nan":
        maps[::3, 1, 0, 0] = np.nan
        maps[:, 4] = np.nan
    elif kind == "signed zero":
        maps = np.where(rng.random(maps.shape) < 0.5, np.float32(-0.0), np.float32(0.0))
    return maps


KINDS = ("plain", "ties", "relu", "negative", "nan", "signed zero")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch", [1, 7, 13, 39, 40])  # 13: a last batch of one
@pytest.mark.parametrize("k", [1, 5])
def test_extremes_equal_brute_force(kind: str, batch: int, k: int) -> None:
    maps, of = example(kind), keys(40)
    state = gather(maps, of, batch, [None] * 40, k)
    assert listed(state.top) == brute(maps, of, k, True)
    assert listed(state.lowest) == brute(maps, of, k, False)


@pytest.mark.parametrize("kind", KINDS)
def test_k_larger_than_the_set(kind: str) -> None:
    maps, of = example(kind, 4), keys(4)
    state = gather(maps, of, 3, [None] * 4, 9)
    assert listed(state.top) == brute(maps, of, 9, True)
    assert listed(state.lowest) == brute(maps, of, 9, False)


def arrays(state: State) -> dict[str, np.ndarray]:
    found = {f"top.{n}": v for n, v in vars(state.top).items() if isinstance(v, np.ndarray)}
    found |= {f"lowest.{n}": v for n, v in vars(state.lowest).items() if isinstance(v, np.ndarray)}
    found |= {f"sample.{n}": v for n, v in vars(state.sample).items() if isinstance(v, np.ndarray)}
    found |= {n: getattr(state.moments, n) for n in ("count", "active", "nan", "infinite")}
    return found | {"histogram": state.histogram, "pictures": np.array(state.pictures)}


@pytest.mark.parametrize("kind", KINDS)
def test_any_cut_and_any_order_of_merging_give_the_same(kind: str) -> None:
    maps, of = example(kind), keys(40)
    labels: list[str | None] = [[None, "a", "b"][i % 3] for i in range(40)]
    whole = gather(maps, of, 8, labels, 5)
    for seed in range(6):
        draw = random.Random(seed)
        owner = [draw.randrange(4) for _ in range(40)]
        parts = []
        for part in range(4):
            mine = [i for i in range(40) if owner[i] == part]
            state = gather(maps[mine], of[mine], draw.randrange(1, 9), [labels[i] for i in mine], 5)
            parts.append(State.from_bytes(state.to_bytes()))
        draw.shuffle(parts)
        while len(parts) > 1:  # a random tree
            a, b = parts.pop(draw.randrange(len(parts))), parts.pop(draw.randrange(len(parts)))
            parts.append(a.merged(b))
        for name, value in arrays(whole).items():
            np.testing.assert_array_equal(value, arrays(parts[0])[name], err_msg=name)
        np.testing.assert_allclose(parts[0].moments.mean, whole.moments.mean, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(parts[0].moments.variance, whole.moments.variance, rtol=1e-9, atol=1e-9)
        names, means = parts[0].classes.means()
        assert names == ["a", "b"]
        np.testing.assert_allclose(means, whole.classes.means()[1], rtol=1e-9)


def test_moments_and_class_means_equal_numpy() -> None:
    maps, of = example("plain"), keys(40)
    labels: list[str | None] = [["x", "y"][i % 2] for i in range(40)]
    state = gather(maps, of, 16, labels, 3)
    values = maps.reshape(40, CHANNELS, -1).max(2).astype(np.float64)
    np.testing.assert_allclose(state.moments.mean, values.mean(0), rtol=1e-6)
    np.testing.assert_allclose(state.moments.variance, values.var(0), rtol=1e-6)
    np.testing.assert_array_equal(state.moments.active, (values > 0).sum(0))
    np.testing.assert_allclose(state.classes.means()[1], [values[::2].mean(0), values[1::2].mean(0)], rtol=1e-6)


def test_nan_and_infinite_are_counted_and_left_out() -> None:
    values = np.array([[1, np.nan], [3, np.inf], [5, 2]], np.float32)
    moments = Moments.of(values)
    assert moments.nan.tolist() == [0, 1]
    assert moments.infinite.tolist() == [0, 1]
    assert moments.mean.tolist() == [3.0, 2.0]


def test_histogram_equals_numpy_on_its_own_edges() -> None:
    rng = np.random.default_rng(0)
    values = (rng.standard_normal(5000) * 10.0 ** rng.uniform(-5, 6, 5000)).astype(np.float32)
    edges = bin_edges()
    inside = values[np.abs(values) < edges[-1]]
    expected, _ = np.histogram(inside.astype(np.float64), edges)
    found = np.bincount(bin_of(inside), minlength=BINS)
    # a value within rounding of an edge may fall on either side
    assert np.abs(expected - found).sum() <= 4
    assert bin_of(np.array([1e9, -1e9, 0, np.inf, -np.inf], np.float32)).tolist() == [BINS - 1, 0, 56, BINS - 1, 0]


def test_typical_is_the_middle_of_the_sample_of_smallest_keys() -> None:
    maps, of = example("plain"), keys(40)
    state = gather(maps, of, 8, [None] * 40, 3, sample=15)
    values = maps[:15].reshape(15, CHANNELS, -1).max(2)
    typical = state.sample.typical(3)
    np.testing.assert_array_equal(typical.values, np.sort(values, 0)[6:9].T)
    for channel in range(CHANNELS):
        for place in range(3):
            number = int(np.flatnonzero(of == typical.keys[channel, place])[0])
            row, col = typical.rows[channel, place], typical.cols[channel, place]
            assert maps[number, channel, row, col] == typical.values[channel, place]


def test_typical_leaves_nan_out() -> None:
    maps, of = example("nan"), keys(40)
    typical = gather(maps, of, 8, [None] * 40, 3, sample=15).sample.typical(3)
    assert np.isnan(typical.values[4]).all()
    known = np.sort(np.nanmax(maps[:15, 1].reshape(15, -1)[[i for i in range(15) if i % 3]], 1))
    start = (len(known) - 3) // 2
    np.testing.assert_array_equal(typical.values[1], known[start : start + 3])


def test_keys_must_ascend() -> None:
    running = Running(1, 2)
    one = np.ones((1, 1), np.float32)
    running.add(np.array([5], np.uint64), one, Places.joined([]), [None])
    with pytest.raises(ValueError, match="ascending"):
        running.add(np.array([4], np.uint64), one, Places.joined([]), [None])


def test_an_empty_state_is_neutral() -> None:
    maps, of = example("plain"), keys(40)
    state = gather(maps, of, 8, ["a"] * 40, 5)
    for merged in (state.merged(State.empty(CHANNELS, 5, 25)), State.empty(CHANNELS, 5, 25).merged(state)):
        for name, value in arrays(state).items():
            np.testing.assert_array_equal(value, arrays(merged)[name], err_msg=name)


def test_the_outermost_bins_hold_what_lies_beyond_them() -> None:
    from convoscope.surveys.store.accumulators import BINS, HALF_OCTAVES, bin_of

    large = np.array([2.0**15.99, 2.0**16, 1e30, np.inf], np.float32)
    assert bin_of(large).tolist() == [BINS - 1] * 4
    assert bin_of(-large).tolist() == [0] * 4
    assert bin_of(np.array([2.0**15.49, 2.0**-12, 0.0, 2.0**-13], np.float32)).tolist() == [
        BINS - 2, HALF_OCTAVES + 1, HALF_OCTAVES, HALF_OCTAVES,
    ]  # fmt: skip
    assert bin_of(np.array([-(2.0**-12), -(2.0**-11)], np.float32)).tolist() == [HALF_OCTAVES - 1, HALF_OCTAVES - 3]
