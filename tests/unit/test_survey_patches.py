"""Patches are the true receptive field: what lies outside does not change the neuron; the stored value is
computed again.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from convoscope import Picture, wrap
from convoscope.errors import LayerError, MethodRefused, ModelError, UsageError
from convoscope.models.model import Model
from convoscope.surveys import Store, survey
from convoscope.surveys.ask.patches import photo_box


def network() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.ReLU(inplace=True), nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(2), nn.Conv2d(8, 10, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(10, 3),
    ).eval()  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for number in range(12):
        name = found / "abc"[number % 3] / f"{number}.png"
        name.parent.mkdir(exist_ok=True)
        size = (70 + 7 * (number % 4), 90 - 5 * (number % 3))
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(name)
    return found


@pytest.fixture(scope="module")
def model() -> Model:
    return wrap(network(), size=48, resize=56, fit="crop", batch_size=4, labels=("a", "b", "c"))


@pytest.fixture(scope="module")
def store(folder: Path, model: Model, tmp_path_factory: pytest.TempPathFactory) -> Store:
    return survey(model, folder, tmp_path_factory.mktemp("out") / "store", embed=["3"], shard_size=5, top=4)


def test_patches_have_their_stored_value_place_and_box(store: Store, model: Model) -> None:
    found = store.patches("6:3", 4)
    assert [len(found.of(kind)) for kind in ("top", "typical", "lowest")] == [4, 4, 4]
    values = [patch.value for patch in found.of("top")]
    assert values == sorted(values, reverse=True)
    for patch in found.items:
        fitted = model.prepare(patch.uri)
        with torch.no_grad():
            grid = model.module[:7](fitted.tensor[None])[0, 3]
        assert float(grid[patch.row, patch.col]) == pytest.approx(patch.value, rel=1e-4, abs=1e-5)
        assert float(grid.max()) == pytest.approx(patch.value, rel=1e-4, abs=1e-5)
        assert patch.recomputed == pytest.approx(patch.value, rel=1e-4, abs=1e-5)
        x0, y0, x1, y1 = patch.box
        photo = Picture.of(patch.uri)
        assert 0 <= x0 < x1 <= photo.size[1]
        assert 0 <= y0 < y1 <= photo.size[0]
        np.testing.assert_array_equal(np.asarray(patch.crop), photo.bands[y0:y1, x0:x1])
        assert patch.guided is not None
        assert patch.guided.shape[1:] == (
            patch.input_box[3] - patch.input_box[1],
            patch.input_box[2] - patch.input_box[0],
        )
    assert "has its stored value" in " ".join(found.notes)
    assert found.to_dict()[0].keys() == {"kind", "uri", "value", "row", "col", "box"}


def test_only_the_box_matters_to_the_neuron(store: Store, model: Model) -> None:
    double = network().double()[:7]
    rng = torch.Generator().manual_seed(0)
    for patch in store.patches("6:2", 3, guided=False).items:
        inputs = model.prepare(patch.uri).tensor.double()[None]
        x0, y0, x1, y1 = patch.input_box
        with torch.no_grad():
            before = double(inputs)[0, 2, patch.row, patch.col]
            noise = torch.randn(inputs.shape, generator=rng, dtype=torch.float64) * 10
            noise[..., y0:y1, x0:x1] = 0
            assert torch.equal(double(inputs + noise)[0, 2, patch.row, patch.col], before)
            placed_back = noise.clone()
            placed_back[..., y0:y1, x0:x1] = inputs[..., y0:y1, x0:x1]
            assert torch.equal(double(placed_back)[0, 2, patch.row, patch.col], before)


def test_photo_pixels_outside_the_box_do_not_matter(store: Store, model: Model) -> None:
    """Through the resize, too: with antialiasing a resized pixel sees its neighbours, hence the small margin."""
    for patch in store.patches("1:0", 2, guided=False).items:
        photo = Picture.of(patch.uri)
        x0, y0, x1, y1 = patch.box
        margin = 3
        bands = 255 - photo.bands
        inside = np.s_[max(0, y0 - margin) : y1 + margin, max(0, x0 - margin) : x1 + margin]
        bands[inside] = photo.bands[inside]
        with torch.no_grad():
            value = model.module[:2](model.prepare(bands).tensor[None])[0, 0, patch.row, patch.col]
        assert float(value) == pytest.approx(patch.value, rel=1e-4, abs=1e-5)


def test_the_photo_box_of_the_whole_input_is_the_crop() -> None:
    picture = Picture.of(np.zeros((200, 300, 3), np.uint8))
    from convoscope import Preprocessing

    crop = picture.prepare(Preprocessing((100, 100), 100, "crop", (0, 0, 0), (1, 1, 1)))
    assert photo_box((0, 0, 100, 100), crop) == (50, 0, 250, 200)
    squash = picture.prepare(Preprocessing((50, 50), None, "squash", (0, 0, 0), (1, 1, 1)))
    assert photo_box((0, 0, 50, 50), squash) == (0, 0, 300, 200)
    assert photo_box((10, 20, 11, 21), squash) == (60, 80, 66, 84)
    pad = picture.prepare(Preprocessing((300, 300), None, "pad", (0, 0, 0), (1, 1, 1)))
    assert photo_box((0, 0, 300, 300), pad) == (0, 0, 300, 200)


def test_a_layer_shows_its_units(store: Store) -> None:
    found = store.patches("3", 3)
    assert {row["channel"] for row in found.to_dict()} == set(found.channels)
    assert all(patch.kind == "top" for patch in found.items)
    assert found.sheet().image.size[0] > 300


def test_a_changed_or_missing_photo_is_said(model: Model, folder: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    store = survey(model, copy, tmp_path / "store", ["1"], top=2)
    top = store.patches("1:1", 2, guided=False).of("top")
    Image.new("RGB", (80, 80), "red").save(top[0].uri)
    Path(top[1].uri).unlink()
    found = store.patches("1:1", 2, guided=False)
    again = found.of("top")
    assert "has changed since the survey" in str(again[0].error)
    assert "no such file" in str(again[1].error)
    assert again[0].value == top[0].value
    assert any("could not be shown" in note for note in found.notes)
    assert found.sheet().image.size[0] > 300


def test_a_neuron_that_deviates_is_reported(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from convoscope.surveys.ask import patches

    real = patches.neurons
    monkeypatch.setattr(patches, "neurons", lambda *given: real(*given) * 1.01)
    notes = " ".join(store.patches("6:3", 2, guided=False).notes)
    assert "recomputed neurons deviate from the stored value" in notes
    assert "has its stored value" not in notes


def test_wrong_units_are_named(store: Store) -> None:
    with pytest.raises(LayerError, match="was not surveyed"):
        store.patches("nothing:3")
    with pytest.raises(LayerError, match="has 10 channels"):
        store.patches("6:10")
    with pytest.raises(UsageError, match="keeps 4 pictures"):
        store.patches("6:1", 5)


def test_units_table_against_brute_force(store: Store, model: Model, folder: Path) -> None:
    paths = sorted(folder.rglob("*.png"))
    with torch.no_grad():
        values = model.module[:7](torch.stack([model.prepare(p).tensor for p in paths])).amax((2, 3)).numpy()
    labels = np.array([p.parent.name for p in paths])
    rows = store.units("6").rows
    assert len(rows) == 10
    means = np.stack([values[labels == name].mean(0) for name in "abc"])
    for row in rows:
        channel = row["channel"]
        mine = values[:, channel]
        assert row["mean"] == pytest.approx(mine.mean(), rel=1e-4, abs=1e-6)
        assert row["std"] == pytest.approx(mine.std(), rel=1e-3, abs=1e-5)
        assert row["active"] == pytest.approx((mine > 0).mean())
        assert row["dead"] == bool((mine == 0).all())
        assert row["always_on"] == bool((mine > 0).all())
        if not row["dead"]:
            assert row["top"] == str(paths[mine.argmax()])
            order = np.sort(means[:, channel])
            rest = order[:2].mean()
            assert row["class"] == "abc"[means[:, channel].argmax()]
            assert row["selectivity"] == pytest.approx((order[2] - rest) / (order[2] + rest), rel=1e-3)
            between = ((means[:, channel] - mine.mean()) ** 2).mean()
            assert row["class_share"] == pytest.approx(between / mine.var(), rel=1e-2, abs=1e-4)


def test_a_dead_unit_is_found(folder: Path, tmp_path: Path) -> None:
    net = network()
    with torch.no_grad():
        net[2].weight[5], net[2].bias[5] = 0, -1
    store = survey(wrap(net, size=48, batch_size=4), folder, tmp_path / "store", ["3"], top=2)
    assert [row["channel"] for row in store.units().rows if row["dead"]] == [5]
    assert "Dead" in store.patches("3:5", 1, guided=False).about[5]


def test_neighbors_depth_pixels_and_why(store: Store, folder: Path) -> None:
    one = sorted(folder.rglob("*.png"))[0]
    found = store.neighbors(one, k=5, pixels=True)
    assert len(found.rows) == 5
    assert str(one) not in [row["uri"] for row in found.rows]
    assert found.to_dict()[0].keys() == {"uri", "similarity", "label", "prediction"}
    by_id = store.neighbors(id=found.query["sha256"][:10], k=5)
    assert by_id.to_dict() == found.to_dict()
    assert store.neighbors(id=one.name, k=5).to_dict() == found.to_dict()
    assert found.pixels is not None
    assert len(found.pixels.rows) == 5
    deep = store.depth(one, k=4)
    assert [row["layer"] for row in deep.layers] == ["3", store.recipe.embeddings[0].layer]
    last = {row["uri"] for row in deep.layers[1]["neighbors"]}
    first = {row["uri"] for row in deep.layers[0]["neighbors"]}
    assert deep.layers[1]["overlap"] == pytest.approx(len(last & first) / len(last | first))
    pair = store.why(one, found.ids[0])
    assert pair.cosine == pytest.approx(found.rows[0]["similarity"], abs=2e-3)
    assert pair.maps[0].sum() == pytest.approx(pair.cosine, rel=1e-4)
    assert pair.maps[1].sum() == pytest.approx(pair.cosine, rel=1e-4)
    for sheet in (found.sheet(), deep.sheet(), pair.sheet(), store.mistakes().sheet()):
        assert sheet.image.size[0] > 300


def test_a_new_picture_has_the_neighbours_of_its_own_embedding(store: Store, folder: Path) -> None:
    path = sorted(folder.rglob("*.png"))[3]
    photo = np.array(Picture.of(path).bands)
    photo[0, 0] ^= 1  # other bytes, nearly the same picture
    assert store.neighbors(photo, k=1).rows[0]["uri"] == str(path)
    assert store.neighbors(photo, k=1).rows[0]["similarity"] > 0.999


def test_why_needs_a_mean_over_a_grid(folder: Path, tmp_path: Path) -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 22 * 22, 5), nn.ReLU(), nn.Linear(5, 3)
    )
    store = survey(wrap(net.eval(), size=24), folder, tmp_path / "store", top=2)
    ids = [row["sha256"] for row in store.table(["sha256"]).to_pylist()]
    with pytest.raises(MethodRefused, match="cosine has no places"):
        store.why(ids[0], ids[1])


def test_mistakes_are_the_networks_own(store: Store, model: Model, folder: Path) -> None:
    paths = sorted(folder.rglob("*.png"))
    with torch.no_grad():
        scores = model.module(torch.stack([model.prepare(p).tensor for p in paths]))
    truth = torch.tensor(["abc".index(p.parent.name) for p in paths])
    found = store.mistakes(3)
    assert found.pictures == 12
    assert found.wrong == int((scores.argmax(1) != truth).sum())
    losses = nn.functional.cross_entropy(scores, truth, reduction="none")
    assert found.worst[0]["uri"] == str(paths[int(losses.argmax())])
    assert sum(row["count"] for row in found.confusions) == found.wrong
    assert found.to_dict()["accuracy"] == pytest.approx(1 - found.wrong / 12)


def test_without_labels_there_are_no_mistakes(model: Model, folder: Path, tmp_path: Path) -> None:
    store = survey(model, folder, tmp_path / "store", ["1"], top=1, truth=False)
    with pytest.raises(UsageError, match="no picture has a label"):
        store.mistakes()


def test_a_store_of_a_python_object_needs_it_again(store: Store, model: Model) -> None:
    opened = Store.open(store.path)
    with pytest.raises(ModelError, match="was a Python object"):
        opened.patches("6:3")
    other = network()
    with torch.no_grad():
        other[0].weight.mul_(1.1)
    with pytest.raises(ModelError, match="not the surveyed network"):
        opened.use_model(wrap(other, size=48, resize=56, fit="crop"))
    with pytest.raises(ModelError, match="preprocessing is not the surveyed one: fit"):
        opened.use_model(wrap(network(), size=48, resize=56, fit="squash"))
    assert opened.use_model(model).patches("6:3", 1).items


def test_a_layer_is_known_by_every_name_of_its_values(tmp_path: Path) -> None:
    """A block's output is its last ReLU's: both names show the same units; another layer's name is refused."""
    torch.manual_seed(0)
    block = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
    network = nn.Sequential(block, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(4 * 8 * 8, 3)).eval()
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index in range(4):
        pixels = np.random.default_rng(index).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    store = survey(wrap(network, size=16), [folder], tmp_path / "store")
    names = {span.name for span in store.recipe.layers}
    surveyed = next(name for name in ("0", "0.1") if name in names)
    assert {"0", "0.1"} - names == {name for name, same in store.other_names().items() if same == surveyed}
    for name in ("0", "0.1"):
        found = store.patches(f"{name}:1").of("top")
        assert [one.value for one in found] == [one.value for one in store.patches(f"{surveyed}:1").of("top")]
        assert len(store.units(name).to_dict()) == 4
    with pytest.raises(LayerError, match="was not surveyed"):
        store.units("2")
