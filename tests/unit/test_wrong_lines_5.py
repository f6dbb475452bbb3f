"""Lines of the engine, methods and targets that could be wrong and nobody noticed: each held against its truth."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
import torchvision
from test_wrong_lines_3 import Own, Volumes, noise, toy, wrapped
from torch import Tensor, nn

import convoscope as cs
from convoscope.engine.fields.geometry import Axis
from convoscope.engine.passes import memory_format
from convoscope.engine.passes.agreement import rows_of
from convoscope.engine.passes.naming import first_tensor
from convoscope.engine.passes.needs import Gradient
from convoscope.engine.passes.runner import forward_failed
from convoscope.errors import TargetError, UsageError
from convoscope.improve.statistics import paired
from convoscope.methods.base import About, Method, Query
from convoscope.methods.random_masks import LIME
from convoscope.pictures.door import sources_of
from convoscope.pictures.picture import Picture
from convoscope.pictures.preprocessing import Preprocessing
from convoscope.pictures.volume import Volume
from convoscope.surveys.store.accumulators import State
from convoscope.trust.league import League
from convoscope.trust.similarity import rank_correlation

SCORES = ("probability", "logit")

# engine


@dataclass(frozen=True)
class InTwoRounds(Method):
    """The guided gradient, asked for after the plain one has come."""

    about: ClassVar[About] = About("in-two-rounds", "In two rounds", "", "", "", False, "")

    def steps(self, query: Query) -> Any:
        first = Gradient()
        got = yield first
        plain = got[first]
        then = Gradient(rule="guided")
        got = yield then
        return query.pixels(got[then] + 0 * plain, signed=False, unit="")


def test_gradients_may_be_asked_for_in_two_rounds() -> None:
    """One forward serves both: its graph lives until the last round is over."""
    model = wrapped(Own(nn.Identity()))
    found = cs.explain(model, toy(), [InTwoRounds(), "guided-backprop"])
    assert not found.refused
    np.testing.assert_array_equal(found["in-two-rounds"].values, found["guided-backprop"].values)


def test_centres_are_whole_and_half_pixels_where_they_nearly_are() -> None:
    low = np.array([0, 2, 4])
    summed = np.array([0.5 + 4e-6, 2.5 - 4e-6, 4.5])
    axis = Axis.from_fields(6, low, low + 1, low, low + 1, centres=summed)
    np.testing.assert_array_equal(axis.centres, [0.5, 2.5, 4.5])
    assert (axis.stride, axis.offset) == (2.0, 0.5)


def test_a_field_beyond_the_picture_has_no_part_in_it() -> None:
    """Fields of cells that also see elsewhere: what is left of them inside is empty, on either side."""
    low, high = np.array([-4, 2, 9]), np.array([-2, 4, 11])
    axis = Axis.from_fields(8, low, high, np.zeros(3, int), np.full(3, 7), local=False)
    assert axis.size is None
    assert [axis.span(cell, clip=True) for cell in range(3)] == [(0, 0), (2, 5), (8, 8)]
    assert [axis.span(cell, clip=False) for cell in range(3)] == [(-4, -1), (2, 5), (9, 12)]


@pytest.mark.parametrize(("name", "pays"), [("resnet18", False), ("densenet121", True)])
def test_one_pictures_gradients_keep_the_format_that_is_faster(name: str, pays: bool) -> None:
    """Measured: in a ResNet-18 putting the weights in order costs more than a picture's gradients gain by it."""
    network = getattr(torchvision.models, name)(weights=None).eval()
    picture = torch.rand(1, 3, 224, 224)
    with torch.no_grad(), memory_format.counted(network, picture):
        network(picture)
    assert memory_format.pays_backwards(network, picture) == pays


# methods


def test_a_convolution_after_the_pooling_is_a_linear_head() -> None:
    """SqueezeNet's kind has it before, MobileNetV3's kind after the pooling: the class's weights are the same ones."""
    net = Own(nn.Identity())
    net.head = nn.Sequential(nn.Unflatten(1, (4, 1, 1)), nn.Conv2d(4, 3, 1), nn.Flatten())  # type: ignore[assignment]
    model = wrapped(net)
    found = cs.explain(model, toy(), ["cam", "hirescam"], target=1)
    assert not found.refused
    # the gradient of a linear head on the mean is its weights, divided by the cells
    cells = found["hirescam"].grid.size
    np.testing.assert_allclose(found["cam"].grid, found["hirescam"].grid * cells, rtol=1e-4, atol=1e-6)


def test_a_head_that_explains_one_class_only_is_no_head() -> None:
    class Bent(Own):
        def forward(self, x: Tensor) -> Tensor:
            scores = super().forward(x)
            return torch.cat([scores[:, :1], scores[:, 1:] ** 2], 1)

    with pytest.raises(cs.ConvoscopeError, match="does not end in global average pooling"):
        cs.explain(wrapped(Bent(nn.Identity())), toy(), "cam")


def test_units_of_lime_are_those_of_what_it_scored() -> None:
    units = {score: cs.explain("toybox", toy(), LIME(samples=20, score=score))["lime"].unit for score in SCORES}
    assert units["logit"] == "score"
    assert units["probability"] == LIME.about.unit != "score"


def test_two_volumes_are_two_maps() -> None:
    slices = [noise(6, 16, 12, 1, seed=seed).numpy() for seed in range(2)]
    model = cs.wrap(Volumes().eval(), size=(16, 12))
    both = cs.explain(model, slices, "hirescam", layer="relu", target=1)
    for one, found in zip(slices, both, strict=True):
        alone = cs.explain(model, one, "hirescam", layer="relu", target=1)["hirescam"]
        np.testing.assert_allclose(found["hirescam"].values, alone.values, atol=1e-6)


@pytest.mark.parametrize("target", ["cat", lambda output: output[:, 0]], ids=["class", "own"])
def test_of_a_whole_pictures_score_no_other_place_is_doubted(target: Any) -> None:
    found = cs.explain("toybox", toy(), "grad-cam", target=target)["grad-cam"]
    assert not [doubt for doubt in found.doubts if "alike everywhere" in doubt]


# targets


@pytest.mark.parametrize("index", [3, 4])
def test_an_index_one_beyond_an_output_is_beyond_it(index: int) -> None:
    class Named(Own):
        def forward(self, x: Tensor) -> Any:
            return {"scores": super().forward(x), "other": x.mean((2, 3))}

    model = wrapped(Named(nn.Identity()))
    assert cs.explain(model, toy(), "saliency", target="output:scores.2").target == "output scores.2"
    with pytest.raises(TargetError, match="beyond"):
        cs.explain(model, toy(), "saliency", target=f"output:scores.{index}")


def test_a_sum_of_units_is_explained_at_or_before_its_first() -> None:
    model = cs.open_model("toybox")
    layers = model.watched((3, 96, 96)).layers
    for target in ("layer1:3 + layer3:5", "layer3:5 + layer1:3"):
        where = cs.explain(model, toy(), "grad-cam", target=target)["grad-cam"].layer
        assert where is not None
        assert layers[where].index <= layers["layer1"].index


# pictures, accumulators


@pytest.mark.parametrize(
    "source", [np.zeros((5, 8, 6, 1), np.float32), torch.zeros(3, 5, 8, 6)], ids=["array", "tensor"]
)
def test_four_axes_are_slices(source: Any) -> None:
    volume = Picture.of(source)
    assert isinstance(volume, Volume)
    assert len(volume.slices) == 5


def test_a_tensor_of_one_picture_in_a_batch_is_the_picture() -> None:
    batch = noise(1, 3, 8, 6)
    np.testing.assert_array_equal(Picture.of(batch).bands, Picture.of(batch[0]).bands)


def test_a_state_knows_how_many_channels_it_has() -> None:
    assert State.empty(7, 3).channels == 7


# trust and statistics


def test_two_pixels_have_an_order() -> None:
    assert rank_correlation(np.array([[0.0, 2.0]]), np.array([[3.0, 9.0]])) == pytest.approx(1)
    assert rank_correlation(np.array([[0.0, 2.0]]), np.array([[9.0, 3.0]])) == pytest.approx(-1)


# contrasts


class ClassMaps(Own):
    """The class convolution before the pooling, as in SqueezeNet."""

    def __init__(self) -> None:
        super().__init__(nn.Identity())
        self.classes = nn.Conv2d(4, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.classes(self.after(self.conv(x).relu())).mean((2, 3))


@pytest.mark.parametrize("network", [lambda: Own(nn.Identity()), ClassMaps], ids=["linear head", "class maps"])
def test_a_contrast_of_cams_is_their_difference(network: Any) -> None:
    model = wrapped(network())
    one, other = (cs.explain(model, toy(), "cam", target=k)["cam"].grid for k in (1, 2))
    both = cs.explain(model, toy(), "cam", target=1, against=2)["cam"].grid
    np.testing.assert_allclose(both, one - other, atol=1e-5)
    assert np.abs(both - one).max() > 1e-3


def test_a_network_without_a_place_has_no_cam_and_is_told_why() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 5), nn.ReLU(), nn.Linear(5, 3)).eval()
    with pytest.raises(cs.ConvoscopeError, match="no layer whose cells keep a place"):
        cs.explain(cs.wrap(net, size=8), toy(), "grad-cam")


def test_what_a_layer_gives_is_found_in_what_it_returns() -> None:
    inner = torch.ones(2)
    for output in (inner, [inner], (None, inner), {"a": None, "b": [inner]}):
        assert first_tensor(output) is inner
    for nothing in ("text", [], {}, None, {"a": 3}):
        assert first_tensor(nothing) is None


def test_of_an_output_what_has_a_row_a_picture_counts() -> None:
    whole, rows = torch.tensor(3.0), torch.rand(2, 3)
    found = rows_of({"loss": whole, "scores": rows, "kinds": torch.ones(2, dtype=torch.long), "other": rows[:1]}, 2)
    assert len(found) == 1
    assert torch.equal(found[0], rows)


@pytest.mark.parametrize(("count", "said"), [(1, False), (2, True)])
def test_several_pictures_at_once_are_named_where_the_network_failed_on_them(count: int, said: bool) -> None:
    sentence = forward_failed("net", (3, 8, 8), ValueError("no"), count)
    assert ("(2 pictures at once)" in sentence) == said
    assert "at once" not in sentence or said


# what pictures come as


@pytest.mark.parametrize(
    ("mean", "std"), [((0.0, 0.0, 120.0), (1.0, 1.0, 1.0)), ((0.5, 0.5, 0.5), (0.2, 0.2, 4.5))], ids=["mean", "std"]
)
def test_one_channel_in_the_other_convention_is_enough_to_refuse(mean: Any, std: Any) -> None:
    with pytest.raises(UsageError, match="divide both by 255"):
        Preprocessing((8, 8), mean=mean, std=std)


def test_videos_are_normalised_channel_by_channel() -> None:
    way = Preprocessing((8, 8), mean=(0.1, 0.2, 0.3), std=(0.5, 0.5, 0.25), frames=4)
    video = noise(3, 4, 8, 8)
    found = way.normalise(video)
    assert found.shape == video.shape
    for channel, (mean, std) in enumerate(zip((0.1, 0.2, 0.3), (0.5, 0.5, 0.25), strict=True)):
        torch.testing.assert_close(found[channel], (video[channel] - mean) / std)


@pytest.mark.parametrize("beside", ["cat", 3, torch.tensor(3)], ids=["name", "number", "tensor"])
def test_a_picture_with_its_label_is_the_picture(beside: Any) -> None:
    picture = noise(3, 8, 6)
    found, alone = sources_of([(picture, beside)])
    assert found[0] is picture
    assert not alone


def test_two_tensors_of_pictures_are_two_pictures() -> None:
    with pytest.raises(UsageError, match="lists of several pictures"):
        sources_of([(noise(3, 8, 6), noise(3, 8, 6, seed=1))])


class Planted:
    """What a pickle could do: it names a file when it is opened."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)


def test_a_strangers_store_runs_no_code(tmp_path: Path) -> None:
    """States lie in stores that people send each other: an array with a pickle in it is refused, unopened."""
    import pyarrow as pa

    file = tmp_path / "ran"
    buffer = io.BytesIO()
    np.savez(buffer, pictures=np.array([Planted(file)], dtype=object), labels=np.array([], np.str_))
    raw = buffer.getvalue()
    packed = pa.Codec("zstd").compress(raw, asbytes=True)
    with pytest.raises(ValueError, match="allow_pickle"):
        State.from_bytes(len(raw).to_bytes(8, "little") + packed)
    assert not file.exists()


def test_a_method_without_a_value_on_one_picture_is_compared_on_the_others() -> None:
    """The first is ahead in the mean of all its pictures, and behind where both have a value."""
    rows = {f"p{k}": {"iou": {"a": 0.5 if k else 9.0, "b": 0.6 if k else None}} for k in range(12)}
    league = League.of(rows)
    assert league.best("iou") == "a"
    assert league.leader("iou") is None


def test_the_interval_of_paired_differences_is_what_theory_gives() -> None:
    values = np.random.default_rng(3).normal(0.2, 1.0, 400)
    found = paired(values)
    error = values.std() / np.sqrt(len(values))
    assert found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - 1.96 * error, abs=0.2 * error)
    assert found.high == pytest.approx(values.mean() + 1.96 * error, abs=0.2 * error)
