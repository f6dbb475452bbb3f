"""``diff`` of two networks that others trained: ResNet-20 and ResNet-56 on CIFAR-10."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

import convoscope as cs

pytestmark = pytest.mark.real

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}


@pytest.mark.slow
def test_resnet20_against_resnet56(data_dir: Path) -> None:
    there = data_dir / "cifar"
    labels = (there / "labels.txt").read_text().split()
    models = [
        cs.open_model(
            f"{there / 'net.py'}:{name}", weights=there / f"{name}.safetensors", labels=labels, size=32, **IMAGENET
        )
        for name in ("resnet20", "resnet56")
    ]
    found = cs.diff(*models, str(there / "test"), maps=0, units=2)
    (pair,) = found.pairs
    whole = pair.compared.whole
    assert whole is not None
    small, large = found.accuracy
    assert small is not None
    assert large is not None
    # a decoder of JPEG that rounds otherwise moves a picture or two
    assert small.mean == pytest.approx(0.805, abs=0.005)
    assert large.mean == pytest.approx(0.835, abs=0.005)
    won, lost = len(whole.won), len(whole.lost)
    assert (won - lost) / 1000 == pytest.approx(large.mean - small.mean, abs=1e-12)
    assert abs(won - 92) <= 4
    assert abs(lost - 62) <= 4
    table = np.array([[0, won], [lost, 0]])
    assert whole.p == pytest.approx(stats.binomtest(int(table[0, 1]), int(table.sum())).pvalue, rel=1e-12)
    # better by 3 points, and by no class beyond the correction: an improvement is no finding
    assert not [one for one in pair.findings if one.kind == "regression"]
    assert pair.difference is not None
    assert pair.difference.low > 0
    # trained apart: the last layers are alike, not the same, and both have units that the other does not predict
    assert 0.6 < pair.cka[-1, -1] < 0.95
    assert pair.units.new
    assert pair.units.lost
    assert len(pair.new) == 2
    assert pair.new[0].crops
