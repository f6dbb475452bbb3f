"""One unit's work against a brute-force pass over all activations."""

from __future__ import annotations

import pickle
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from convoscope import Picture, Preprocessing, wrap
from convoscope.errors import LayerError
from convoscope.surveys.gather.choose import default_layers
from convoscope.surveys.gather.decode import Decoded, decode, encode, open_thumbnail, phash, thumbnail
from convoscope.surveys.gather.shards import Item, key_of, make_shard
from convoscope.surveys.gather.work import compute, responses
from convoscope.surveys.store.recipe import make_recipe


class Net(nn.Module):
    """A residual block with in-place and functional ReLUs, pooling, and a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, stride=2, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(6, 6, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(6)
        self.pool = nn.MaxPool2d(2)
        self.conv3 = nn.Conv2d(6, 8, 3)
        self.head = nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.relu(self.conv1(x))
        x = torch.relu(x + self.bn2(self.conv2(x)))
        x = self.conv3(self.pool(x))
        return self.head(x.mean((2, 3)))


def network() -> Net:
    torch.manual_seed(0)
    return Net().eval()


def pictures(folder: Path, count: int, side: int = 24) -> list[Item]:
    rng = np.random.default_rng(0)
    items = []
    for number in range(count):
        path = folder / f"{number:03}.png"
        Image.fromarray(rng.integers(0, 256, (side, side + number % 3, 3), dtype=np.uint8)).save(path)
        items.append(Item(Picture.of(path).sha256, str(path), "ab"[number % 2], number % 2))
    return items


def test_default_layers_are_each_units_end_once() -> None:
    # conv1 is seen after its ReLU, bn2 as the sum's ReLU, conv3 has none; pooling shows the same units again
    assert default_layers(wrap(network(), size=24), (3, 24, 24)) == ["relu", "functional_relu", "conv3"]


def test_a_network_without_grid_is_refused() -> None:
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 5)).eval()
    with pytest.raises(LayerError, match="no layer with a grid"):
        default_layers(wrap(flat, size=8, mean=(0, 0, 0), std=(1, 1, 1)), (3, 8, 8))


@pytest.mark.parametrize("memory", ["contiguous", "channels_last", "strided"])
@pytest.mark.parametrize("share", [0.0, 0.1, 0.9])
def test_responses_are_maxima_with_the_first_place(memory: str, share: float) -> None:
    rng = np.random.default_rng(0)
    array = rng.integers(-3, 3, (4, 5, 6, 7)).astype(np.float32)  # many ties
    tensor = torch.from_numpy(array)
    if memory == "channels_last":
        tensor = tensor.contiguous(memory_format=torch.channels_last)
    elif memory == "strided":
        tensor = torch.from_numpy(np.repeat(array, 2, 3))[..., ::2]
    chosen = rng.random((4, 5)) < share
    values, places = responses(tensor, lambda v: chosen)
    np.testing.assert_array_equal(values, array.max((2, 3)))
    assert {(p, c) for p, c in zip(places.pictures, places.channels, strict=True)} == set(
        zip(*np.nonzero(chosen), strict=True)
    )
    for p, c, row, col in zip(places.pictures, places.channels, places.rows, places.cols, strict=True):
        assert row * 7 + col == array[p, c].ravel().argmax()


@pytest.mark.parametrize("memory_format", ["contiguous", "channels_last"])
def test_a_unit_equals_a_brute_force_pass(tmp_path: Path, memory_format: str) -> None:
    from dataclasses import replace

    model = wrap(network(), size=24, batch_size=5)
    items = pictures(tmp_path, 21)  # batches of 5: a last batch of one
    recipe = replace(make_recipe(model, ["conv1", "conv2", "relu", "conv3"], top=3), memory_format=memory_format)
    result = compute(model, recipe, make_shard(recipe.space, items))
    ordered = sorted(items, key=lambda item: item.sha256)
    inputs = torch.stack([model.prepare(item.uri).tensor for item in ordered])
    kept: dict[str, np.ndarray] = {}
    net = model.module
    hooks = [
        getattr(net, name).register_forward_hook(lambda m, a, o, name=name: kept.update({name: o.clone().numpy()}))
        for name in ("conv1", "conv2", "conv3")
    ]
    with torch.no_grad():
        scores = net(inputs)
    for hook in hooks:
        hook.remove()
    kept["relu"] = np.maximum(kept["conv1"], 0)
    for span in recipe.layers:
        values = kept[span.name].max((2, 3))
        for channel in range(span.channels):
            at = span.start + channel
            np.testing.assert_allclose(
                result.state.top.values[at], np.sort(values[:, channel])[::-1][:3], rtol=1e-4, atol=1e-5
            )
            np.testing.assert_allclose(
                result.state.lowest.values[at], np.sort(values[:, channel])[:3], rtol=1e-4, atol=1e-5
            )
            number = next(
                i for i, item in enumerate(ordered) if key_of(item.sha256) == int(result.state.top.keys[at, 0])
            )
            row, col = result.state.top.rows[at, 0], result.state.top.cols[at, 0]
            assert kept[span.name][number, channel, row, col] == pytest.approx(values[:, channel].max(), rel=1e-4)
    rows = result.pictures.to_pylist()
    assert [row["sha256"] for row in rows] == [item.sha256 for item in ordered]
    np.testing.assert_allclose([row["score"] for row in rows], scores.max(1).values, rtol=1e-3, atol=1e-4)
    truth = torch.tensor([item.label_index for item in ordered])
    losses = nn.functional.cross_entropy(scores, truth, reduction="none")
    np.testing.assert_allclose([row["loss"] for row in rows], losses, rtol=1e-3, atol=1e-4)
    embedded = np.array([row["embedding_0"] for row in rows], np.float32)
    np.testing.assert_allclose(embedded, kept["conv3"].mean((2, 3)), rtol=2e-3, atol=1e-3)


def test_another_cut_gives_the_same_to_rounding(tmp_path: Path) -> None:
    model = wrap(network(), size=24, batch_size=4)
    items = pictures(tmp_path, 14)
    recipe = make_recipe(model, top=3)
    whole = compute(model, recipe, make_shard(recipe.space, items)).state
    parts = [compute(model, recipe, make_shard(recipe.space, items[i::3])).state for i in range(3)]
    merged = parts[2].merged(parts[0]).merged(parts[1])
    np.testing.assert_allclose(merged.top.values, whole.top.values, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(merged.top.keys, whole.top.keys)
    np.testing.assert_array_equal(merged.top.rows, whole.top.rows)
    np.testing.assert_allclose(merged.moments.mean, whole.moments.mean, rtol=1e-5, atol=1e-6)


def test_pictures_of_their_own_size(tmp_path: Path) -> None:
    model = wrap(network(), batch_size=4)  # no size: each picture keeps its own, of three widths here
    items = pictures(tmp_path, 10)
    recipe = make_recipe(model, ["relu"], top=2)
    result = compute(model, recipe, make_shard(recipe.space, items))
    assert result.state.pictures == 10
    assert result.pictures["error"].null_count == 10


def test_a_corrupt_picture_is_a_row_with_its_error(tmp_path: Path) -> None:
    model = wrap(network(), size=24, batch_size=4)
    items = pictures(tmp_path, 5)
    bad = tmp_path / "bad.png"
    bad.write_bytes(b"not a picture")
    gone = Item("0" * 64, str(tmp_path / "gone.png"))
    recipe = make_recipe(model, top=2)
    unit = make_shard(recipe.space, [*items, gone, Item("f" * 64, str(bad))])
    rows = {row["sha256"]: row for row in compute(model, recipe, unit).pictures.to_pylist()}
    assert "no such file" in rows["0" * 64]["error"]
    assert "not a picture" in rows["f" * 64]["error"]
    for sha in ("0" * 64, "f" * 64):
        assert rows[sha]["embedding_0"] is None
        assert rows[sha]["prediction"] is None
    changed = Item("e" * 64, items[0].uri)  # another content under the name than was listed
    assert "changed after it was listed" in str(decode(changed, model.preprocessing).error)


def test_a_picture_that_gives_nan_is_an_error_not_a_vector(tmp_path: Path) -> None:
    class Fragile(Net):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(torch.where(x.mean((1, 2, 3), keepdim=True) > 0.9, x * float("nan"), x))

    torch.manual_seed(0)
    model = wrap(Fragile().eval(), size=24, batch_size=4)
    items = pictures(tmp_path, 4)
    white = tmp_path / "white.png"
    Image.new("RGB", (24, 24), "white").save(white)
    sha = Picture.of(white).sha256
    recipe = make_recipe(model, top=3)
    result = compute(model, recipe, make_shard(recipe.space, [*items, Item(sha, str(white))]))
    row = next(row for row in result.pictures.to_pylist() if row["sha256"] == sha)
    assert "NaN" in row["error"]
    assert row["embedding_0"] is None
    assert (result.state.moments.nan == 1).all()
    assert np.isfinite(result.state.top.values).all()


def test_the_network_is_left_as_it_was(tmp_path: Path) -> None:
    net = network()
    net.train()
    net.bn2.eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = torch.get_rng_state()
    model = wrap(net, size=24, batch_size=4)
    recipe = make_recipe(model, top=2)
    compute(model, recipe, make_shard(recipe.space, pictures(tmp_path, 5)))
    assert net.training
    assert not net.bn2.training
    assert all(torch.equal(before[name], value) for name, value in net.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in net.modules())
    assert torch.equal(state, torch.get_rng_state())


def test_layers_that_do_not_exist_or_fit_are_named() -> None:
    model = wrap(network(), size=24)
    with pytest.raises(LayerError, match="no layer 'conv9'"):
        make_recipe(model, ["conv9"])


def test_perceptual_hash_sees_the_same_picture_and_tells_others_apart() -> None:
    rng = np.random.default_rng(0)
    smooth = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize(
        (80, 60), Image.Resampling.BICUBIC
    )
    other = Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize(
        (80, 60), Image.Resampling.BICUBIC
    )
    again = open_thumbnail(encode(thumbnail(smooth.resize((160, 120)))))
    assert (phash(smooth) ^ phash(again)).bit_count() <= 4
    assert (phash(smooth) ^ phash(other)).bit_count() >= 16
    assert max(thumbnail(Image.new("RGB", (500, 200))).size) == 96


def test_units_are_decoded_by_the_same_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # a thread for each unit would leave a batch's memory in one of the allocator's arenas after the other
    items = pictures(tmp_path, 12)
    model = wrap(network(), size=24)
    recipe = make_recipe(model)
    seen: set[int] = set()

    def noted(item: Item, preprocessing: Preprocessing) -> Decoded:
        seen.add(threading.get_native_id())
        return decode(item, preprocessing)

    monkeypatch.setattr("convoscope.surveys.gather.work.decode", noted)
    for start in range(0, 12, 3):
        compute(model, recipe, make_shard(recipe.space, items[start : start + 3]))
    assert 1 <= len(seen) <= 2


def test_a_result_travels_between_processes_as_it_is(tmp_path: Path) -> None:
    """Its rows as Arrow's bytes: older versions of Ray read tables with pandas, which is not asked for."""
    model = wrap(network(), size=24)
    recipe = make_recipe(model, top=3)
    made = compute(model, recipe, make_shard(recipe.space, pictures(tmp_path, 3)))
    sent = pickle.dumps(made)
    assert b"pyarrow" not in sent
    again = pickle.loads(sent)
    assert again.pictures.equals(made.pictures)
    assert (again.shard, again.seconds, again.forwards) == (made.shard, made.seconds, made.forwards)
    assert made.pictures.num_rows == 3
