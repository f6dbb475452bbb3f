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


def lenet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 6, 5), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.AvgPool2d(2),
        nn.Conv2d(16, 20, 5), nn.ReLU(), nn.Flatten(), nn.Linear(20, 10),
    ).eval()  # fmt: skip


def test_the_default_layer_has_more_than_one_cell() -> None:
    """LeNet's last convolution and a ResNet's last stage on 32 pixels are one cell: a map there tells nothing."""
    from torchvision.models import resnet18

    torch.manual_seed(0)
    digits = cs.wrap(lenet(), size=32, mean=0.0, std=1.0)
    found = cs.explain(digits, torch.rand(1, 32, 32), "hirescam")["hirescam"]
    assert found.layer == "5"
    assert found.grid is not None
    assert found.grid.shape == (5, 5)
    assert np.ptp(found.values) > 0
    small = cs.wrap(resnet18(num_classes=5).eval(), size=32, mean=0.0, std=1.0)
    both = cs.explain(small, torch.rand(3, 32, 32), ["hirescam", "cam"])
    assert both["hirescam"].layer == "layer3"
    assert "last stage of ResNet is a single cell" in both.refused["cam"]
    assert "larger --size" in both.refused["cam"]
    # asked for by name, the single cell is what was asked for
    asked = cs.explain(small, torch.rand(3, 32, 32), "hirescam", layer="layer4")["hirescam"]
    assert any("constant" in doubt for doubt in asked.doubts)


def test_a_signal_one_pixel_wide_in_eleven_channels() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(11, 8, (3, 1), padding=(1, 0)), nn.ReLU(), nn.MaxPool2d((2, 1)), nn.Conv2d(8, 8, (3, 1)), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    ).eval()  # fmt: skip
    found = cs.explain(cs.wrap(net, size=(60, 1)), torch.rand(11, 60, 1), ["hirescam", "saliency", "occlusion"])
    assert found["hirescam"].layer == "4", "not the pooling's one cell"
    for one in found.values():
        assert one.values.shape == (60, 1)
        assert np.ptp(one.values) > 0
    assert found.sheet().image.width > 10


class Stages(nn.Module):
    """A backbone that hands out its stages, as timm's ``features_only`` does; ``classes``: a map a class at each."""

    def __init__(self, classes: int | None = None) -> None:
        super().__init__()
        torch.manual_seed(0)
        widths = (4, 6, 8)
        self.stages = nn.ModuleList(nn.Conv2d(a, b, 3, 2, 1) for a, b in zip((3, *widths), widths, strict=False))
        self.heads = nn.ModuleList(nn.Conv2d(w, classes, 1) for w in widths) if classes else None

    def forward(self, x: Tensor) -> list[Tensor]:
        found = []
        for stage in self.stages:
            x = stage(x).relu()
            found.append(x)
        return found if self.heads is None else [head(one) for head, one in zip(self.heads, found, strict=True)]


def test_the_stages_of_a_backbone_are_no_segmenter() -> None:
    backbone = cs.wrap(Stages().eval(), size=SIDE, mean=0.0, std=1.0)
    with pytest.raises(cs.TargetError, match="without class scores: name one of its outputs"):
        cs.explain(backbone, photo(), "saliency")
    named = cs.explain(backbone, photo(), "saliency", target="stages.2:3")
    assert np.ptp(named["saliency"].values) > 0
    # deep supervision: a map a class at every size
    several = cs.wrap(Stages(5).eval(), size=SIDE, mean=0.0, std=1.0)
    assert cs.explain(several, photo(), "saliency").target.startswith("segment:")


def test_a_hook_that_another_tool_left_is_named() -> None:
    net = network()
    handle = net[0][2].register_forward_hook(
        lambda module, args, output: output.register_hook(lambda g: None) and None
    )
    with pytest.raises(cs.ModelError, match=r"handle\.remove\(\)"):
        cs.explain(cs.wrap(net, size=SIDE), photo(), "grad-cam")
    handle.remove()
    assert "grad-cam" in cs.explain(cs.wrap(net, size=SIDE), photo(), "grad-cam")


@pytest.mark.filterwarnings("ignore")
def test_layers_that_hand_back_no_gradient_are_a_cut() -> None:
    quantised = torch.ao.quantization.quantize_dynamic(network(), {nn.Linear}, dtype=torch.qint8)
    found = cs.explain(cs.wrap(quantised, size=SIDE), photo(), ["saliency", "occlusion"], target=1)
    assert any("cuts the gradient graph" in doubt for doubt in found["saliency"].doubts)
    assert not any("no place of the picture changes the score" in doubt for doubt in found["saliency"].doubts)
    assert np.ptp(found["occlusion"].values) > 0


def test_decisions_beside_scores_and_a_loss_that_is_none() -> None:
    from typing import NamedTuple

    class Output(NamedTuple):
        loss: Tensor | None
        logits: Tensor
        hidden: Tensor

    class Wrapped(nn.Module):
        def __init__(self, how: str) -> None:
            super().__init__()
            self.net, self.how = network(), how

        def forward(self, x: Tensor) -> Any:
            logits = self.net(x)
            if self.how == "tuple":
                return Output(None, logits, self.net[0](x))
            return {"classes": logits.argmax(1, keepdim=True), "probabilities": logits.softmax(1), "logits": logits}

    plain = cs.explain(model(), photo(), "saliency")
    for how in ("tuple", "dictionary"):
        found = cs.explain(cs.wrap(Wrapped(how).eval(), size=SIDE, mean=0.0, std=1.0), photo(), "saliency")
        assert found.class_index == plain.class_index
        assert found.score == pytest.approx(plain.score, rel=1e-5), "the logits, not the decision or the probability"
        np.testing.assert_allclose(found["saliency"].values, plain["saliency"].values, rtol=1e-4, atol=1e-7)
