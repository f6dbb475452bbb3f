"""A survey of real photos by SqueezeNet."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from convoscope import open_model
from convoscope.surveys import Store, survey

pytestmark = pytest.mark.real


@pytest.fixture(scope="module")
def store(data_dir: Path, squeezenet_weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    model = open_model("squeezenet1_0", weights=squeezenet_weights)
    photos = sorted((data_dir / "photos").glob("*.jpg"))[:36]
    path = tmp_path_factory.mktemp("real") / "store"
    survey(model, photos, path, truth=data_dir / "photos" / "photos.csv", shard_size=16, embed=["features.5"], top=4)
    return Store.open(path)


def test_every_relu_is_surveyed_and_the_embedding_is_pooled_features(store: Store) -> None:
    (default,) = [span for span in store.recipe.layers if span.kind != "ReLU"]
    relus = [span for span in store.recipe.layers if span.kind == "ReLU"]
    assert len(relus) == 26
    assert sum(span.channels for span in relus) == 3976
    # what `explain` looks at when nobody names a layer is asked for by that name, too
    assert (default.name, default.channels) == ("features.12", 512)
    assert store.recipe.embeddings[0].layer == "features.12"
    assert store.recipe.embeddings[0].size == 512


def test_predictions_are_torchvisions(store: Store, data_dir: Path) -> None:
    from torchvision.models import SqueezeNet1_0_Weights

    transform = SqueezeNet1_0_Weights.DEFAULT.transforms()
    from PIL import Image

    rows = store.table(["uri", "prediction_index", "score", "label_index", "loss"]).to_pylist()[:8]
    batch = torch.stack([transform(Image.open(row["uri"]).convert("RGB")) for row in rows])
    network = store.model().module
    with torch.no_grad():
        scores = network(batch)
    assert [row["prediction_index"] for row in rows] == scores.argmax(1).tolist()
    np.testing.assert_allclose([row["score"] for row in rows], scores.max(1).values, rtol=1e-3)
    truth = torch.tensor([row["label_index"] for row in rows])
    losses = torch.nn.functional.cross_entropy(scores, truth, reduction="none")
    np.testing.assert_allclose([row["loss"] for row in rows], losses, rtol=1e-2, atol=1e-3)


def test_top_patches_are_the_largest_of_all_activations(store: Store) -> None:
    model = store.model()
    rows = store.table(["uri"]).to_pylist()
    inputs = torch.stack([model.prepare(row["uri"]).tensor for row in rows])
    with torch.no_grad():
        grid = model.module.features[:6](inputs)  # to the third fire module
    values = grid.amax((2, 3)).numpy()
    for channel in (0, 70, 200):  # expand1x1 makes the first half, expand3x3 the second
        layer = "features.5.expand1x1_activation" if channel < 128 else "features.5.expand3x3_activation"
        found = store.patches(f"{layer}:{channel % 128}", 3)
        best = np.argsort(-values[:, channel], kind="stable")[:3]
        np.testing.assert_allclose([p.value for p in found.of("top")], values[best, channel], rtol=1e-3)
        assert [p.uri for p in found.of("top")] == [rows[i]["uri"] for i in best]
        assert "has its stored value" in " ".join(found.notes)


def test_neighbours_and_their_reason(store: Store) -> None:
    uri = store.table(["uri"])["uri"][0].as_py()
    found = store.neighbors(uri, k=3, pixels=True)
    pair = store.why(uri, found.ids[0])
    assert pair.cosine == pytest.approx(found.rows[0]["similarity"], abs=1e-3)
    assert pair.maps[0].sum() == pytest.approx(pair.cosine, rel=1e-4)
    early = store.why(uri, found.ids[0], "features.5")
    assert early.layer == "features.5"
