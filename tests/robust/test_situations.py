"""Small situations that users of this field meet: what they bring to the door, and what they are told."""

from __future__ import annotations

import enum
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

import convoscope as cs

SIDE = 24


def network(channels: int = 3) -> nn.Module:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(channels, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU())
    return nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)).eval()


def model(**settings: Any) -> cs.Model:
    return cs.wrap(network(), **{"size": SIDE, "mean": 0.0, "std": 1.0, **settings})


def photo(seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


def tensor(seed: int = 0) -> Tensor:
    return torch.from_numpy(photo(seed)).permute(2, 0, 1).float() / 255


def values(pictures: Any, **settings: Any) -> Any:
    return cs.explain(model(**settings), pictures, "saliency", target=1)["saliency"].values


def test_a_picture_in_whatever_it_comes() -> None:
    truth, file = values(Image.fromarray(photo())), io.BytesIO()
    Image.fromarray(photo()).save(file, "PNG")  # its place is at the end now
    for source in (file, file.getvalue(), photo(), photo() / 255.0, tensor(), tensor().double(), tensor()[None]):
        np.testing.assert_allclose(values(source), truth, atol=1e-5 * truth.max())
    grey = torch.rand(SIDE, SIDE)
    np.testing.assert_array_equal(values(grey), values(grey[None]))
    with pytest.raises(cs.PictureError, match="permute"):
        values(tensor().permute(1, 2, 0))
    with pytest.raises(cs.PictureError, match="not fetched"):
        values("https://example.com/cat.png")


@pytest.mark.parametrize("kind", ["tif", "gif"])
def test_of_several_pages_the_first_is_seen_and_that_is_told(kind: str, tmp_path: Path) -> None:
    file = tmp_path / f"pages.{kind}"
    pages = [Image.fromarray(photo(seed)) for seed in range(3)]
    pages[0].save(file, save_all=True, append_images=pages[1:])
    found = cs.explain(model(), file, "saliency")
    assert sum("its 3 pages" in doubt for doubt in found.doubts) == 1
    pages[0].save(file)
    assert not any("pages" in doubt for doubt in cs.explain(model(), file, "saliency").doubts)


class Pictures(Dataset[Any]):
    def __init__(self, give: Any) -> None:
        self.give = give

    def __len__(self) -> int:
        return 4

    def __getitem__(self, number: int) -> Any:
        return self.give(number)


GIVEN = {
    "pair": lambda n: (tensor(n), n),
    "triple": lambda n: (tensor(n), n, f"name {n}"),
    "dictionary": lambda n: {"image": tensor(n), "label": n},
    "one-hot": lambda n: (tensor(n), F.one_hot(torch.tensor(n), 5)),
    "alone": tensor,
}


@pytest.mark.parametrize("kind", GIVEN)
def test_data_sets_and_loaders_give_pictures(kind: str) -> None:
    data = Pictures(GIVEN[kind])
    for pictures in (data, DataLoader(data, batch_size=3), (data[n] for n in range(4))):
        found = cs.explain(model(), pictures, "saliency", target=1)
        assert len(found) == 4
        np.testing.assert_allclose(found[2]["saliency"].values, values(tensor(2)), rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("pictures", "said"),
    [([[tensor(), tensor(1)]], "one list"), ([{"a": 1}], "under image"), ([[]], "one list"), ([], "No pictures")],
)
def test_what_holds_no_picture_is_refused_in_a_sentence(pictures: Any, said: str) -> None:
    with pytest.raises(cs.UsageError, match=said):
        cs.explain(model(), pictures, "saliency")


class Kind(enum.Enum):
    ant, bee, cow, dog, eel = range(5)


def test_labels_and_targets() -> None:
    names = ["ant", "bee", "cow", "dog", "eel"]
    for labels in (
        Kind,
        np.array(names),
        {name: k for k, name in enumerate(names)},
        {str(k): n for k, n in enumerate(names)},
    ):
        assert cs.explain(model(labels=labels), tensor(), "saliency", target="bee").class_index == 1
    unnamed = model(labels=["ant", None, "cow", "dog", "eel"])
    assert cs.explain(unnamed, tensor(), "saliency", target=1).target == "class 1"
    with pytest.raises(cs.TargetError, match="class called '20' is 1"):
        cs.explain(model(labels=[10, 20, 30, 40, 50]), tensor(), "saliency", target=20)
    for target in (np.int64(1), torch.tensor(1), torch.tensor([1]), " bee "):
        assert cs.explain(model(labels=names), tensor(), "saliency", target=target).class_index == 1


def test_one_half_of_a_normalisation_is_told() -> None:
    found = cs.explain(cs.wrap(network(), size=SIDE, mean=0.5), tensor(), "saliency")
    assert any("Only the mean was given" in doubt for doubt in found.doubts)
    assert not any("Only" in doubt for doubt in cs.explain(model(), tensor(), "saliency").doubts)


def test_layers_are_names_or_modules() -> None:
    net = network()
    one = cs.wrap(net, size=SIDE)
    named = cs.explain(one, tensor(), "grad-cam", target=1, layer="0.2")["grad-cam"]
    for layer in (net[0][2], "_orig_mod.0.2"):
        again = cs.explain(one, tensor(), "grad-cam", target=1, layer=layer)["grad-cam"]
        np.testing.assert_array_equal(named.values, again.values)
    for layer in (-1, 3.5, {"a": 1}):
        with pytest.raises(cs.LayerError, match="is named"):
            cs.explain(one, tensor(), "grad-cam", layer=layer)
    assert named.overlay(cmap="viridis").size == named.overlay().size
    with pytest.raises(cs.UsageError, match="cmap must be"):
        named.overlay(cmap=3)  # type: ignore[arg-type]


def test_results_are_short_to_read() -> None:
    found = cs.explain(model(), [tensor(), tensor(1)], ["saliency", "grad-cam"])
    picture = cs.Picture.of(photo())
    for thing in (found, found[0], found[0]["saliency"], found[0].fitted, picture, found[0].sheet(), model()):
        assert len(repr(thing)) < 1000


def test_advice_on_sizes_is_given_where_a_size_is_the_matter() -> None:
    def broken(*_: Any) -> None:
        raise RuntimeError("the licence server is gone")

    net = network()
    net[0][0].register_forward_hook(broken)
    with pytest.raises(cs.ModelError, match=r"licence server is gone$"):
        cs.explain(cs.wrap(net, size=SIDE), tensor(), "saliency")
    with pytest.raises(cs.ModelError, match="Set --size"):
        cs.explain(cs.wrap(nn.Sequential(nn.Flatten(), nn.Linear(12, 2)).eval(), size=SIDE), tensor(), "saliency")
    with torch.inference_mode():
        made = network()
    with pytest.raises(cs.ModelError, match="load the network outside"):
        cs.explain(cs.wrap(made, size=SIDE), tensor(), "saliency")


def test_a_volume_of_one_channel_is_no_batch_of_one() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv3d(1, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 3)
    )
    scan = torch.rand(1, 8, 16, 16)
    one = cs.explain(cs.wrap(net.eval(), size=16), scan, "saliency", target=1)["saliency"]
    again = cs.explain(cs.wrap(net, size=16), scan[None], "saliency", target=1)["saliency"]
    assert one.values.shape == (8, 16, 16)
    np.testing.assert_array_equal(one.values, again.values)


def test_a_tensor_taken_for_its_type_alone_is_no_cut() -> None:
    class Grid(nn.Module):
        def __init__(self, cut: bool) -> None:
            super().__init__()
            self.inner, self.cut = network(), cut

        def forward(self, x: Tensor) -> Tensor:
            places = torch.arange(5.0).type_as(x).expand_as(self.inner(x))
            return self.inner(x.detach() if self.cut else x) + 0.01 * places + 0 * x.mean()

    for cut in (False, True):
        found = cs.explain(cs.wrap(Grid(cut).eval(), size=SIDE), tensor(), "saliency", target=1)
        assert any("cuts the gradient graph" in doubt for doubt in found.doubts) == cut
