"""One watched forward: layers, ReLUs, the last grid, the embedding, and what is doubted."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from convoscope.engine.fields.trace import NetworkTrace
from convoscope.engine.fields.watch import watch

X = torch.randn(1, 3, 32, 24)


class Lambda(nn.Module):
    """A network of one function after a convolution."""

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, stride=2, padding=1)
        self.function = function
        self.end = nn.Identity()

    def forward(self, x: Tensor) -> Any:
        return self.end(self.function(self.conv(x)))


def end_of(function: Callable[..., Any], x: Tensor = X) -> Any:
    return watch(Lambda(function).eval(), x).layers["end"]


def head(channels: int = 4) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 5))


def test_layers_are_described() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace=True), nn.Dropout(), *head()).eval()
    watched = watch(network, X)
    conv, relu, pool = (watched.layers[n] for n in ("0", "1", "3"))
    assert (conv.kind, conv.shape, conv.parameters, conv.index) == ("Conv2d", (1, 4, 32, 24), 4 * 27 + 4, 0)
    assert (conv.relu, relu.relu, watched.layers["2"].relu) == (False, True, True)
    assert (conv.relus, relu.relus, watched.layers["5"].relus) == (0, 1, 1)
    assert not conv.functional
    assert conv.has_grid
    assert not pool.has_grid
    assert pool.geometry is None
    assert pool.why_no_geometry == "every cell looks at the whole picture"
    assert watched.layers["5"].why_no_geometry == "its output is not a grid of cells"
    assert (watched.input_shape, watched.output_shapes) == ((1, 3, 32, 24), ((1, 5),))
    assert (watched.last_grid, watched.embedding, watched.classifier) == ("1", "3", "5")
    assert watched.doubts == ()


def test_the_functional_and_the_module_spelling_are_seen_alike() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Linear(4, 5)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(F.adaptive_avg_pool2d(F.relu(self.conv(x)), 1).flatten(1))

    watched = watch(Functional(), X)
    assert (watched.last_grid, watched.embedding, watched.classifier) == ("relu", "adaptive_avg_pool2d", "fc")
    layer = watched.layers["relu"]
    assert (layer.kind, layer.functional, layer.relu, layer.parameters) == ("relu", True, True, 0)


@pytest.mark.parametrize(
    ("function", "relus", "others"),
    [
        (F.relu, 1, 0),
        (torch.relu, 1, 0),
        (lambda x: x.relu(), 1, 0),
        (lambda x: x.relu_(), 1, 0),
        (lambda x: x.clamp(min=0), 1, 0),
        (lambda x: torch.clamp_min(x, 0), 1, 0),
        (F.relu6, 1, 0),
        (lambda x: F.hardtanh(x, 0, 3, inplace=True), 1, 0),
        (lambda x: F.threshold(x, 0, 0), 1, 0),
        (lambda x: F.threshold(x, 0.1, 0), 0, 1),
        (lambda x: x.clamp(min=-1), 0, 0),
        (F.leaky_relu, 0, 1),
        (F.gelu, 0, 1),
        (F.silu, 0, 1),
        (F.hardswish, 0, 1),
        (F.elu, 0, 1),
        (F.hardtanh, 0, 1),
        (lambda x: x * torch.ones(3).clamp(min=0).sum(), 0, 0),  # not of the picture
    ],
)
def test_relus_are_counted_in_every_spelling(function: Callable[..., Any], relus: int, others: int) -> None:
    watched = watch(Lambda(function), X)
    assert (watched.relus, watched.other_activations) == (relus, others)


def test_relus_that_do_not_reach_the_output_are_told_apart() -> None:
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            F.relu(y)
            return F.relu(y).mean((2, 3))

    watched = watch(Unused(), X)
    assert (watched.relus, watched.output_relus) == (2, 1)


def torchvision(name: str, size: int, **kwargs: Any) -> NetworkTrace:
    import torchvision as tv

    return watch(tv.models.get_model(name, weights=None, **kwargs).eval(), torch.randn(1, 3, size, size))


@pytest.mark.parametrize(
    ("name", "size", "grid", "embedding", "classifier"),
    [
        ("resnet18", 64, "layer4", "avgpool", "fc"),
        ("squeezenet1_0", 96, "features.12", "features.12", "classifier.1"),
        ("densenet121", 64, "relu", "adaptive_avg_pool2d", "classifier"),
        ("vgg11", 224, "features.20", "classifier.4", "classifier.6"),
        ("vgg11", 96, "avgpool", "classifier.4", "classifier.6"),
        ("mnasnet0_5", 64, "layers.16", "mean", "classifier.1"),
        ("mobilenet_v3_small", 64, "features.12", "classifier.1", "classifier.3"),
        ("shufflenet_v2_x0_5", 64, "conv5", "mean", "fc"),
        ("convnext_tiny", 64, "features.7", "classifier.0", "classifier.2"),
        ("vit_b_32", 224, "encoder.layers.encoder_layer_11.ln_1", "encoder", "heads.head"),
        ("swin_t", 64, "permute", "avgpool", "head"),
    ],
)
def test_the_last_grid_and_the_embedding(name: str, size: int, grid: str, embedding: str, classifier: str) -> None:
    watched = torchvision(name, size)
    assert (watched.last_grid, watched.embedding, watched.classifier) == (grid, embedding, classifier)
    assert watched.layers[grid].geometry is not None
    assert watched.doubts == ()


def test_a_network_without_a_classifier_ends_at_its_last_grid() -> None:
    import torchvision as tv

    network = tv.models.resnet18(weights=None).eval()
    network.fc = nn.Identity()
    watched = watch(network, torch.randn(1, 3, 64, 64))
    assert (watched.last_grid, watched.classifier, watched.embedding) == ("layer4", None, None)
    assert watch(nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 24, 4)), X).last_grid is None
    assert watch(nn.Sequential(nn.Conv2d(3, 4, 3), *head()[:2]), X).last_grid == "0"


def test_places_survive_gates_and_norms_but_extents_do_not() -> None:
    def gate(x: Tensor) -> Tensor:
        return x * torch.sigmoid(F.adaptive_avg_pool2d(x, 1))

    def norm(x: Tensor) -> Tensor:
        return F.group_norm(x, 2)

    def attention(x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        mixed = F.scaled_dot_product_attention(tokens, tokens, tokens)
        return (tokens + mixed).transpose(1, 2).reshape_as(x)

    def explicit(x: Tensor) -> Tensor:
        tokens = x.flatten(2).transpose(1, 2)
        mixed = (tokens @ tokens.transpose(1, 2)).softmax(-1) @ tokens
        return (tokens + mixed).transpose(1, 2).reshape_as(x)

    for function in (gate, norm, attention, explicit, lambda x: x - x.mean((2, 3), keepdim=True)):
        layer = end_of(function)
        assert layer.geometry is not None
        assert layer.geometry.to_dict() == {"size": None, "stride": [2, 2], "offset": [0, 0]}
        assert int(layer.geometry.rows.reach_high[0]) == 31


def test_without_a_gate_the_extent_is_local() -> None:
    for function in (
        lambda x: x * 2 + 1,
        lambda x: F.layer_norm(x.permute(0, 2, 3, 1), (4,)).permute(0, 3, 1, 2),
    ):
        assert end_of(function).geometry.to_dict()["size"] == [3, 3]


def test_channels_last_grids_are_marked() -> None:
    layer = end_of(lambda x: x.permute(0, 2, 3, 1))
    assert layer.channels_last
    assert layer.has_grid
    assert layer.geometry.cells == layer.shape[1:3]
    assert not end_of(lambda x: x).channels_last


def test_what_has_no_place_says_why() -> None:
    mixing = nn.Linear(12, 12)
    layer = end_of(lambda x: mixing(x))  # rows keep their place, columns are mixed
    assert layer.why_no_geometry == "its cells have no place in the picture"
    assert end_of(lambda x: x.flatten(1)[:, :64].reshape(1, 4, 4, 4)).geometry is None
    assert end_of(lambda x: x.flip(2).flip(2)).geometry.to_dict()["stride"] == [2, 2]
    layer = end_of(lambda x: torch.fft.fft2(x).real)
    assert layer.geometry is None
    assert layer.why_no_geometry is not None
    assert "fft" in layer.why_no_geometry


def test_an_unknown_operation_is_a_doubt_and_sees_the_whole_picture() -> None:
    def sample(x: Tensor) -> Tensor:
        return F.grid_sample(x, torch.zeros(1, 5, 5, 2), align_corners=False)

    watched = watch(Lambda(sample), X)
    assert any("grid_sampler" in doubt for doubt in watched.doubts)
    assert watched.layers["end"].geometry is None
    assert watched.last_grid == "conv"


def test_numpy_inside_the_network_is_a_doubt() -> None:
    watched = watch(Lambda(lambda x: torch.from_numpy(x.detach().numpy() * 2)), X)
    assert any("NumPy" in doubt for doubt in watched.doubts)
    inside = watch(Lambda(lambda x: x + torch.from_numpy(x.detach().numpy() * 2)), X)
    assert any("NumPy" in doubt for doubt in inside.doubts)
    lost = watch(Lambda(lambda x: torch.tensor([float(x.detach().sum())])), X)
    assert any("lost its track" in doubt for doubt in lost.doubts)


def test_constants_of_the_network_are_no_doubt() -> None:
    network = Lambda(lambda x: x * network.mask + network.table["a"][0])  # type: ignore[index, operator]
    network.mask = torch.ones(1, 4, 16, 12)  # type: ignore[assignment]
    network.table = {"a": [torch.ones(1, 4, 16, 12)]}  # type: ignore[assignment]
    watched = watch(network, X)
    assert watched.doubts == ()
    assert watched.layers["end"].geometry is not None


def test_outputs_may_be_anything() -> None:
    class Many(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Lambda(lambda x: {"a": [x, (x.relu(),)], "n": 3})
            self.none = Lambda(lambda x: None)

        def forward(self, x: Tensor, scale: float) -> dict[str, Any]:
            self.none(x)
            return {"scores": self.inner(x)["a"][0] * scale, "rest": (torch.zeros(2), "text")}

    watched = watch(Many(), (X, 2.0))
    assert watched.output_shapes == ((1, 4, 16, 12), (2,))
    assert watched.layers["inner"].shape == (1, 4, 16, 12)
    assert watched.layers["none"].shape == ()
    assert watched.layers["none"].why_no_geometry == "its output holds no tensor"


def test_any_channel_count_size_and_shape() -> None:
    for shape in ((1, 1, 28, 28), (2, 7, 9, 31), (4, 20, 20)):
        channels = shape[-3]
        network = nn.Sequential(nn.Conv2d(channels, 2, 3), nn.ReLU(), nn.MaxPool2d(2))
        watched = watch(network, torch.randn(shape))
        if len(shape) == 4:
            geometry = watched.layers["2"].geometry
            assert geometry is not None
            assert geometry.input == shape[-2:]
            assert geometry.to_dict() == {"size": [4, 4], "stride": [2, 2], "offset": [1.5, 1.5]}
    assert watch(nn.Linear(8, 2), torch.randn(3, 8)).layers == {}


def column_fields(function: Callable[[Tensor], Tensor]) -> list[tuple[int, int]]:
    axis = end_of(function).geometry.cols
    return list(zip(axis.reach_low.tolist(), axis.reach_high.tolist(), strict=True))


def test_writes_into_views_and_stale_views() -> None:
    plain = column_fields(lambda x: x)

    def shifted(x: Tensor) -> Tensor:
        y = torch.zeros_like(x)
        y[..., 1:] = x[..., :-1]
        y[..., :1] = x[..., :1]
        return y

    assert column_fields(shifted) == [plain[0], *plain[:-1]]

    def through_a_view(x: Tensor) -> Tensor:
        view = x.view(1, 4, -1)  # made before the write, read after it
        x[..., :-1] += x[..., 1:].clone()
        return view.view_as(x) * 1

    joined = [(a[0], b[1]) for a, b in zip(plain, plain[1:] + plain[-1:], strict=True)]
    assert column_fields(through_a_view) == joined

    def into_a_part(x: Tensor) -> Tensor:
        left, right = x.chunk(2, 1)
        right.copy_(left.roll(1, 3))
        return torch.cat((right, right), 1)

    with_wrap = end_of(into_a_part)
    assert with_wrap.geometry is None
    assert with_wrap.why_no_geometry == "its cells are not in the picture's order"

    def indexed(x: Tensor) -> Tensor:
        y = torch.zeros(1, 4, 16, 12)
        y[:, :, :, torch.tensor([0, 2, 1, 3, 4, 5, 6, 7, 8, 9, 10, 11])] = x
        return y[:, :, :, [0, 2, 1, 3, 4, 5, 6, 7, 8, 9, 10, 11]]

    assert column_fields(indexed) == plain


def test_watching_leaves_nothing_behind() -> None:
    network = Lambda(F.relu)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    x = X.clone()
    with pytest.raises(ZeroDivisionError):
        watch(Lambda(lambda t: 1 / 0), X)
    watch(network, x)
    assert torch.equal(x, X)
    assert not x.requires_grad
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in network.modules())


def test_traced_networks_give_their_output_but_no_layers() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tracing is deprecated in the newest torch
        traced = torch.jit.trace(network, X)
    watched = watch(traced, X)
    assert watched.layers == {}
    assert watched.relus == 1
    assert watched.doubts == ()


@pytest.mark.parametrize("name", ["hardtanh", "leaky_relu", "elu", "selu", "celu", "hardsigmoid"])
def test_activations_need_no_tag_of_torch(name: str) -> None:
    """Torch 2.6 does not call these pointwise, so that a MobileNet's geometry was lost there."""
    from convoscope.engine.fields.aten import RULES, pointwise

    assert RULES[name] is pointwise
