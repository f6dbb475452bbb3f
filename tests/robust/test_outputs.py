"""What a network returns: the same five scores in every wrapping, and every wrapping that is not scores, × commands."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import convoscope as cs
from convoscope import ask
from convoscope.models.outputs import class_scores, dense
from convoscope.trust.scoring import scoring

LABELS = ("ant", "bee", "cow", "dog", "eel")
Pair = namedtuple("Pair", "logits aux")


@dataclass
class Answer:
    loss: Tensor | None
    logits: Tensor


class Small(nn.Module):
    """Five scores, and sixteen features before them; ``wrap`` makes of (features, scores) what is returned."""

    def __init__(self, wrap: Callable[[Tensor, Tensor], Any], classes: int = 5) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.head = nn.Linear(16, classes)
        with torch.no_grad():
            self.head.weight.mul_(8)
        self.wrap = wrap

    def forward(self, x: Tensor) -> Any:
        features = self.body(x).mean((2, 3))
        return self.wrap(features, self.head(features))


def picture(seed: int = 0) -> Tensor:
    return torch.rand(3, 20, 20, generator=torch.Generator().manual_seed(seed))


def truth(classes: int = 5, seed: int = 0) -> Tensor:
    with torch.no_grad():
        return Small(lambda f, s: s, classes).eval()(picture(seed)[None])[0]


def model(wrap: Callable[[Tensor, Tensor], Any], labels: Any = LABELS, classes: int = 5, **settings: Any) -> Any:
    return cs.wrap(Small(wrap, classes).eval(), size=20, labels=labels, **settings)


#: wrappings in which the five logits can be found by size, by name, or by five labels
SAME: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "rows": lambda f, s: s,
    "1x1 map": lambda f, s: s[:, :, None, None],
    "squeezed": lambda f, s: s.squeeze(0),
    "list": lambda f, s: [s],
    "features first": lambda f, s: (f, s),
    "features last": lambda f, s: (s, f),
    "unnamed dictionary": lambda f, s: {"feature": f, "cls": s},
    "named": lambda f, s: {"hidden": f, "logits": s},
    "dataclass": lambda f, s: Answer(None, s),
    "loss and logits": lambda f, s: {"loss": s.sum(), "logits": s},
    "named tuple": lambda f, s: Pair(s, f),
    "with its softmax": lambda f, s: (s.softmax(1), s),
    "with its argmax": lambda f, s: (s.argmax(1), s),
    "nested": lambda f, s: {"out": {"scores": s}, "extra": [f, f]},
}


@pytest.mark.parametrize("kind", SAME)
def test_the_scores_are_found_in_every_wrapping(kind: str) -> None:
    one, scores = model(SAME[kind]), truth()
    best = int(scores.argmax())
    explanation = cs.explain(one, picture(), ["saliency", "occlusion", "grad-cam", "lrp"])
    assert explanation.target == LABELS[best]
    assert explanation.class_index == best
    assert explanation.score == pytest.approx(float(scores[best]), rel=1e-4)
    assert explanation.probability == pytest.approx(float(scores.softmax(0)[best]), rel=1e-3)
    assert not explanation.refused
    plain = cs.explain(model(SAME["rows"]), picture(), ["saliency", "occlusion", "grad-cam", "lrp"])
    for name, heatmap in plain.items():
        size = float(np.abs(heatmap.values).max())
        np.testing.assert_allclose(explanation[name].values, heatmap.values, atol=2e-4 * size + 1e-9)
    reading = ask.read(one, picture(), "cow")
    assert reading.kind == "classifier"
    assert reading.score == pytest.approx(float(scores[2]), rel=1e-4)
    with scoring(one, one.prepare(picture()), "cow") as scored:
        assert scored.whole == pytest.approx(float(scores.softmax(0)[2]), rel=1e-3)
    made = cs.visualize(one, "cow", steps=1, recipe="fourier")
    assert 0 < made.probability <= 1
    assert 1 <= made.rank <= len(LABELS)
    # several pictures at once, each with its own scores
    if kind not in ("loss and logits",):
        both = cs.explain(one, [picture(0), picture(1)], "saliency", target="dog")
        assert [round(e.score, 3) for e in both] == [round(float(truth(seed=seed)[3]), 3) for seed in (0, 1)]


def test_probabilities_are_told_and_no_softmax_is_added() -> None:
    shares = truth().softmax(0)
    explanation = cs.explain(model(lambda f, s: s.softmax(1)), picture(), "saliency", target="bee")
    assert explanation.probability == pytest.approx(float(shares[1]), rel=1e-4)
    assert explanation.score == pytest.approx(float(shares[1]), rel=1e-4)
    assert any("probabilities" in doubt for doubt in explanation.doubts)
    assert sum(row["probability"] for row in explanation.prediction) == pytest.approx(1, abs=1e-3)
    sigmoids = cs.explain(model(lambda f, s: s.sigmoid()), picture(), "saliency", target="bee")
    assert sigmoids.probability == pytest.approx(float(truth().sigmoid()[1]), rel=1e-4)
    assert any("sigmoids" in doubt for doubt in sigmoids.doubts)
    logits = cs.explain(model(lambda f, s: s), picture(), "saliency", target="bee")
    assert not any("probabilities" in doubt or "sigmoid" in doubt for doubt in logits.doubts)
    # logarithms of probabilities are logits: their softmax is what they are the logarithms of
    logs = cs.explain(model(lambda f, s: s.log_softmax(1)), picture(), "saliency", target="bee")
    assert logs.probability == pytest.approx(float(shares[1]), rel=1e-4)


def test_one_number_is_a_value() -> None:
    methods = ["saliency", "grad-cam", cs.RISE(40, cells=4), cs.LIME(40, segments=9), cs.Occlusion(5, 5)]
    for wrap in (lambda f, s: s, lambda f, s: s[:, 0], lambda f, s: s.squeeze()):
        one = model(wrap, None, 1)
        explanation = cs.explain(one, picture(), methods)
        assert explanation.target == "output"
        assert explanation.probability is None
        assert explanation.score == pytest.approx(float(truth(1)[0]), rel=1e-4)
        assert not explanation.refused
        assert explanation.prediction[0]["probability"] is None
        assert ask.read(one, picture()).kind == "value"
        with scoring(one, one.prepare(picture())) as scored:
            assert not scored.probability
            assert scored.whole == pytest.approx(float(truth(1)[0]), rel=1e-4)
        with pytest.raises(cs.TargetError):
            cs.explain(one, picture(), "saliency", target=1)
    named = cs.explain(model(lambda f, s: s, ["age"], 1), picture(), "saliency")
    assert named.target == "age"
    assert named.probability is None
    sure = cs.explain(model(lambda f, s: s.sigmoid(), None, 1), picture(), "saliency")
    assert sure.probability == pytest.approx(float(truth(1)[0].sigmoid()), rel=1e-4)


def test_one_number_for_two_labels_decides_between_them() -> None:
    value = float(truth(1)[0])
    for wrap, chance in ((lambda f, s: s, 1 / (1 + np.exp(-value))), (lambda f, s: s.sigmoid(), None)):
        one = model(wrap, ["no", "yes"], 1)
        chance = 1 / (1 + np.exp(-value)) if chance is None else chance
        yes, no = (cs.explain(one, picture(), "saliency", target=name) for name in ("yes", "no"))
        assert yes.probability == pytest.approx(chance, rel=1e-4)
        assert no.probability == pytest.approx(1 - chance, rel=1e-4)
        np.testing.assert_allclose(yes["saliency"].values, no["saliency"].values, rtol=1e-4, atol=1e-9)
        assert any("two labels" in doubt for doubt in yes.doubts)


@pytest.mark.parametrize(
    ("wrap", "labels", "said"),
    [
        (lambda f, s: (s, s * 2), LABELS, "--output"),
        (lambda f, s: {"age": s[:, :3], "sex": s[:, 3:]}, None, "--output"),
        (lambda f, s: (f, s), None, "--output"),
        (lambda f, s: s.argmax(1), LABELS, "argmax"),
        (lambda f, s: {"class": s.argmax(1)}, LABELS, "argmax"),
        (lambda f, s: f[:, :, None].expand(-1, -1, 24), LABELS, "not one row"),
        (lambda f, s: [{"note": s}], LABELS, "without class scores"),
        (lambda f, s: (f[:, :, None].expand(-1, -1, 16), [s[:, :, None, None].expand(-1, -1, 4, 4)]), LABELS,
         "without class scores"),
    ],
)  # fmt: skip
def test_what_cannot_be_decided_is_asked_for(wrap: Any, labels: Any, said: str) -> None:
    one = model(wrap, labels)
    with pytest.raises(cs.TargetError, match=said):
        cs.explain(one, picture(), ["saliency", "grad-cam"])
    with pytest.raises(cs.TargetError, match=said):
        ask.read(one, picture())
    with pytest.raises(cs.ConvoscopeError), scoring(one, one.prepare(picture())):
        pass
    with pytest.raises(cs.ConvoscopeError):
        cs.visualize(one, 1, steps=1, recipe="fourier")
    # a unit of the network itself can be explained all the same
    assert cs.explain(one, picture(), "saliency", target="body.0:3")["saliency"].values.max() > 0


@pytest.mark.parametrize("output", [1, "1"])
def test_what_is_asked_for_is_told_by_output(output: Any) -> None:
    scores = truth()
    one = model(lambda f, s: (s, s * 2), output=output)
    explanation = cs.explain(one, picture(), ["saliency", "occlusion"], target="cow")
    assert explanation.score == pytest.approx(2 * float(scores[2]), rel=1e-4)
    assert one.output == "1"
    named = model(lambda f, s: {"heads": {"age": s[:, :1], "kind": s}}, output="heads.kind")
    assert cs.explain(named, picture(), "saliency", target="cow").score == pytest.approx(float(scores[2]), rel=1e-4)
    column = model(lambda f, s: s, None, output="2")
    with pytest.raises(cs.ConvoscopeError):
        cs.explain(column, picture(), "saliency", target="cow")
    with pytest.raises(cs.TargetError, match="it holds"):
        cs.explain(model(lambda f, s: {"a": s}, output="b"), picture(), "saliency")


def test_labels_that_do_not_fit_are_a_doubt() -> None:
    few = cs.explain(model(lambda f, s: s, ["ant", "bee"]), picture(), "saliency")
    assert any("2 labels" in doubt and "5 scores" in doubt for doubt in few.doubts)
    many = model(lambda f, s: s, [*LABELS, "fox"])
    assert any("6 labels" in doubt for doubt in cs.explain(many, picture(), "saliency").doubts)
    with pytest.raises(cs.TargetError, match="'fox' is label 5"):
        cs.explain(many, picture(), "saliency", target="fox")
    assert not any("labels" in doubt for doubt in cs.explain(model(lambda f, s: s), picture(), "saliency").doubts)


def test_nan_has_no_rank() -> None:
    def broken(f: Tensor, s: Tensor) -> Tensor:
        return torch.cat([s[:, :2], s[:, 2:3] * float("nan"), s[:, 3:]], 1)

    scores = truth()
    scores[2] = -torch.inf
    explanation = cs.explain(model(broken), picture(), ["saliency", "occlusion"])
    assert explanation.class_index == int(scores.argmax())
    assert [row["label"] for row in explanation.prediction] == [
        LABELS[int(c)] for c in scores.argsort(descending=True)[:4]
    ]
    assert explanation.probability is None
    assert any("NaN for cow" in doubt for doubt in explanation.doubts)
    with pytest.raises(cs.TargetError, match="NaN for every class"):
        cs.explain(model(lambda f, s: s * float("nan")), picture(), "saliency")


def test_a_single_map_a_picture_counts_where_it_is_all_there_is() -> None:
    maps, scores = torch.rand(1, 8, 8), torch.rand(1, 5)
    for found in (dense(maps), dense({"out": maps})):
        assert found is not None
        assert torch.equal(found, maps[:, None])  # one channel
    assert dense((maps, [maps])) is None
    assert dense(maps.long()) is None
    reading = class_scores((scores * 4, maps), 1)
    assert (reading.path, reading.kind) == ("0", "logits")


class Together(nn.Module):
    """Scores that are taken less their mean over the batch: a picture's own depend on its neighbours'."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Small(lambda f, s: s)

    def forward(self, x: Tensor) -> Tensor:
        scores: Tensor = self.inner(x)
        return scores - 0.5 * scores.mean(0, keepdim=True)


class Statistics(nn.Module):
    """Batch norm without running statistics."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        norm = nn.BatchNorm2d(8, track_running_stats=False)
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), norm, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(self.body(x))
        return found


@pytest.mark.parametrize("kind", [Together, Statistics])
def test_pictures_that_influence_each_other_are_run_alone(kind: type[nn.Module]) -> None:
    one = cs.wrap(kind().eval(), size=20, labels=LABELS)
    methods = ["saliency", "integrated-gradients", cs.Occlusion(5, 5)]
    both = cs.explain(one, [picture(0), picture(1)], methods, target=1)
    for seed, found in enumerate(both):
        alone = cs.explain(cs.wrap(one.module, size=20, batch_size=1), picture(seed), methods, target=1)
        assert found.score == pytest.approx(alone.score, rel=1e-5)
        for name in alone:
            size = float(np.abs(alone[name].values).max())
            np.testing.assert_allclose(found[name].values, alone[name].values, atol=1e-4 * size)
        assert any("influence each other" in doubt for doubt in found.doubts)
    # also where no method runs a picture beside another of its own
    for found in cs.explain(one, [picture(0), picture(1), picture(2)], "saliency", target=1):
        assert any("influence each other" in doubt for doubt in found.doubts)
    ordinary = cs.explain(model(lambda f, s: s), [picture(0), picture(1)], methods, target=1)
    assert not any("influence" in doubt for found in ordinary for doubt in found.doubts)


class Maps(nn.Module):
    """A small segmenter whose maps end as ``act`` says."""

    def __init__(self, classes: int, act: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.body, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, classes, 1)
        self.act = act

    def forward(self, x: Tensor) -> Tensor:
        maps = self.head(self.body(x).tanh())
        return self.act(8 * (maps - maps.mean((2, 3), keepdim=True)))


@pytest.mark.parametrize(
    ("classes", "act"), [(3, nn.Softmax(1)), (1, nn.Sigmoid()), (3, nn.Identity()), (1, nn.Identity())]
)
def test_maps_that_are_probabilities_get_no_second_softmax(classes: int, act: nn.Module) -> None:
    net = Maps(classes, act).eval()
    one = cs.wrap(net, size=20, labels=list(LABELS[:classes]), mean=0.0, std=1.0)
    with torch.no_grad():
        maps = net(picture()[None])[0]
    ended = not isinstance(act, nn.Identity)
    shares = maps if ended else maps.softmax(0) if classes > 1 else maps.sigmoid()
    here = shares.argmax(0) == 0 if classes > 1 else shares[0] > 0.5
    assert 0 < int(here.sum()) < here.numel()
    found = cs.explain(one, picture(), "saliency", target="ant")
    assert found.score == pytest.approx(float(maps[0][here].mean()), rel=1e-4)
    assert found.probability == pytest.approx(float(shares[0][here].mean()), rel=1e-4)
    assert any("probabilities already" in doubt for doubt in found.doubts) == ended
    # without labels it is a guess, which is told
    unnamed = cs.explain(cs.wrap(net, size=20, mean=0.0, std=1.0), picture(), "saliency")
    assert any("taken for a segmenter's" in doubt for doubt in unnamed.doubts)
    assert not any("taken for a segmenter's" in doubt for doubt in found.doubts)


def test_percentages_embeddings_and_infinity_are_told() -> None:
    shares = truth().softmax(0)
    percent = cs.explain(model(lambda f, s: 100 * s.softmax(1)), picture(), "saliency", target="bee")
    assert percent.probability == pytest.approx(float(shares[1]), rel=1e-4)
    assert any("percentages" in doubt for doubt in percent.doubts)
    embedded = cs.explain(model(lambda f, s: nn.functional.normalize(f), None), picture(), "saliency")
    assert any("embedding" in doubt for doubt in embedded.doubts)
    endless = cs.explain(model(lambda f, s: s / torch.tensor([1.0, 0, 1, 1, 1])), picture(), "saliency", target="cow")
    assert any("infinity for bee" in doubt for doubt in endless.doubts)


def test_sentences_for_forwards_of_another_shape() -> None:
    class Two(Small):
        def forward(self, x: Tensor, age: Tensor) -> Any:  # type: ignore[override]
            return super().forward(x) + age

    class Last(Small):
        def forward(self, x: Tensor) -> Any:
            if x.shape[-1] != 3:
                raise AssertionError
            return super().forward(x.movedim(-1, 1))

    with pytest.raises(cs.ModelError, match=r"more than one batch of pictures.*call="):
        cs.explain(cs.wrap(Two(lambda f, s: s).eval(), size=20), picture(), "saliency")
    with pytest.raises(cs.ModelError, match=r"AssertionError at test_outputs.py:\d+ \(raise AssertionError\)"):
        cs.explain(cs.wrap(Last(lambda f, s: s).eval(), size=20), picture(), "saliency")
