"""Rank correlation and SSIM, against scipy and scikit-image."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from skimage.metrics import structural_similarity

from convoscope.errors import UsageError
from convoscope.trust.similarity import agreement, average_ranks, rank_correlation, ssim


@pytest.mark.parametrize("seed", range(5))
def test_rank_correlation_is_spearmans(seed: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.integers(0, 30, (2, 20, 25)) / 7  # many ties
    assert rank_correlation(a, b + 0.3 * a) == pytest.approx(stats.spearmanr(a.ravel(), (b + 0.3 * a).ravel())[0])
    assert np.array_equal(average_ranks(a), stats.rankdata(a.ravel()))


def test_rank_correlation_of_known_pairs() -> None:
    a = np.arange(12.0).reshape(3, 4)
    assert rank_correlation(a, np.exp(a)) == pytest.approx(1)
    assert rank_correlation(a, -a) == pytest.approx(-1)
    assert np.isnan(rank_correlation(a, np.ones((3, 4))))


@pytest.mark.parametrize("signed", [False, True])
def test_ssim_is_scikit_images(signed: bool) -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=(40, 53)) if signed else rng.random((40, 53))
    b = a + 0.2 * rng.random((40, 53))
    a, b = a / np.abs(a).max(), b / np.abs(b).max()
    settings = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    _, full = structural_similarity(a, b, data_range=2.0 if signed else 1.0, full=True, **settings)
    assert ssim(a * 7, b * 0.1) == pytest.approx(full[5:-5, 5:-5].mean(), abs=1e-10)


def test_ssim_of_known_pairs() -> None:
    a = np.random.default_rng(0).random((30, 30))
    assert ssim(a, 3 * a) == pytest.approx(1)
    assert ssim(a, 1 - a) < 0
    assert np.isnan(ssim(a, np.zeros((30, 30))))
    assert np.isfinite(ssim(a[:4, :4], a[4:8, :4]))


def test_agreement_is_symmetric_and_names_its_rows() -> None:
    a = np.random.default_rng(0).random((9, 9))
    names, found = agreement({"a": a, "same": a**3, "opposite": -a, "flat": np.ones((9, 9))})
    assert names == ["a", "same", "opposite", "flat"]
    assert found[0, :3] == pytest.approx([1, 1, -1])
    assert np.isnan(found[3, 0])
    assert np.array_equal(found, found.T, equal_nan=True)


def test_maps_of_different_shapes_are_refused() -> None:
    with pytest.raises(UsageError, match="cannot be compared"):
        rank_correlation(np.zeros((3, 3)), np.zeros((4, 3)))
