"""``diff`` of SqueezeNet against itself at another resize, on photos."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import convoscope as cs

pytestmark = pytest.mark.real


@pytest.mark.slow
def test_squeezenet_against_itself_at_another_resize(data_dir: Path, squeezenet_weights: Path) -> None:
    photos = [str(file) for file in sorted((data_dir / "imagenette" / "val").glob("*/*"))[::10]]
    assert len(photos) >= 60
    models = [cs.open_model("squeezenet1_0", weights=squeezenet_weights, fit=fit) for fit in ("crop", "squash")]
    found = cs.diff(*models, photos, maps=0, units=0, names=["crop", "squash"])
    (pair,) = found.pairs
    assert pair.compared.churn is not None
    assert 0.1 < pair.compared.churn.mean < 0.6
    # one network, two views: every layer is most like itself, and its weights have not moved
    assert pair.cka[-1, -1] > 0.9
    assert all(one.drift == 0 for one in pair.units.matches if one.drift is not None)
    # a network against itself on the same pictures differs in nothing
    (same,) = cs.diff(models[0], models[0], photos[:32], maps=0, units=0).pairs
    assert same.compared.churn is not None
    assert same.compared.churn.mean == 0
    assert np.allclose(np.diag(same.cka), 1, atol=1e-6)
