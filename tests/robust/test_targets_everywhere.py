"""Every kind of target × every entry point: a result, or one sentence that says what would work; never a traceback."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import convoscope as cs
from convoscope import ask
from convoscope.folder.request import Request
from convoscope.models.outputs import dense
from convoscope.targets import ClassTarget, Target, Unit, parse
from convoscope.trust.scoring import scoring
from convoscope.trust.verdict import verdicts

LABELS = ("boat", "tiger cat", "top2", "a - b", "16:9", "7", "crane", "crane")


@cache
def classifier() -> Any:
    torch.manual_seed(0)
    body = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.ReLU(inplace=True), torch.nn.MaxPool2d(2),
                               torch.nn.Conv2d(8, 8, 3, padding=1), torch.nn.ReLU())  # fmt: skip
    net = torch.nn.Sequential(
        body, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(8, len(LABELS))
    )
    return cs.wrap(net.eval(), size=24, labels=LABELS, mean=(0.0,), std=(1.0,))


@cache
def folder() -> Path:
    import tempfile

    from PIL import Image

    path = Path(tempfile.mkdtemp())
    for number, name in enumerate(("Photo - Copy.png", "other.png")):
        values = (picture(number + 5).permute(1, 2, 0) * 255).byte().numpy()
        Image.fromarray(values).save(path / name)
    np.save(path / "a - b.npy", np.arange(8, dtype=np.float32))
    return path


def picture(seed: int = 0, side: int = 24) -> Any:
    return torch.rand(3, side, side, generator=torch.Generator().manual_seed(seed))


def double(output: Any) -> Any:
    return 2 * output[:, 0]


#: what is asked of a classifier -> whether a map comes of it
ON_CLASSIFIER: dict[str, Any] = {
    "none": None, "top1": "top1", "rank": "top3", "number": 1, "name": "boat", "part": "tiger", "like a rank": "top2",
    "like a sum": "a - b", "like a unit": "16:9", "like a number": "7", "unit": "0.0:3", "largest": "0.3:2@max",
    "neuron": "0.0:3@4,6", "function": double, "difference": "boat - tiger cat", "sum of units": "0.0:1 + 0.5*0.3:2",
    "weighted": "2*boat", "unit and class": "boat - 0.1*0.0:3", "with a label in it": "boat - a - b",
    "similar": "similar:{}/Photo - Copy.png", "distance": "distance:{}/other.png@0.3", "mean of several": "similar:{}",
    "sum with a likeness": "boat - 3*similar:{}/Photo - Copy.png", "direction": "direction:0.0@{}/a - b.npy",
    "sum with a direction": "0.5*direction:0.0@{}/a - b.npy + boat", "one number": "output:.3",
    "several labels": "multilabel:boat+tiger cat", "objects": cs.Combination([(1, "boat"), (-2.5, "0.0:3")]),
    "vector": cs.Direction("0.0", np.ones(8)),
}  # fmt: skip
REFUSED = {
    "instance": "instance:0", "segment": "segment:boat", "landmark": "landmark:1", "unknown": "zebra",
    "pixel": "pixel:@3,4",
    "beyond": "99", "twice": "crane", "no channel": "0.0:99", "no layer": "nothing:3", "empty": "",
    "no file": "similar:/no",
    "no such output": "output:age", "empty part": "boat - 2*", "no neuron": "0.0:1@99,3",
    "truth": True, "list": object(),
}  # fmt: skip


def spelled(target: Any) -> Any:
    return target.format(folder()) if isinstance(target, str) else target


@pytest.mark.parametrize("kind", ON_CLASSIFIER)
def test_a_target_of_a_classifier_everywhere(kind: str) -> None:
    model, target = classifier(), spelled(ON_CLASSIFIER[kind])
    read = parse(target, model)
    assert isinstance(read, Target)
    assert parse(read, model).key() == read.key() == parse(target, model).key()
    assert bool(read.files()) == (isinstance(target, str) and str(folder()) in target)
    methods = ["saliency", "grad-cam", cs.Occlusion(8, 8)]
    explanation = cs.explain(model, picture(), methods, target=target)
    assert len(explanation) == 3, explanation.refused
    assert np.isfinite(explanation.score)
    # asked again by what it keeps, it is the same question
    again = cs.explain(model, picture(), "saliency", target=explanation.question)
    assert again.score == pytest.approx(explanation.score, rel=1e-5)
    assert ask.read(model, picture(), target).score == pytest.approx(explanation.score, rel=1e-4)
    changed = ask.cover(model, picture(), (0, 0, 8, 8), target)
    # occlusion's first window is the same box: one path scores both
    assert changed.before.score == pytest.approx(explanation.score, rel=1e-4)
    assert np.isfinite(ask.switch_off(model, picture(), ["0.3:2"], target).after.score)
    with scoring(model, model.prepare(picture()), target, probability=False) as scored:
        assert scored.whole == pytest.approx(explanation.score, rel=1e-4, abs=1e-6)
    judged = verdicts(model, cs.explain(model, picture(), "saliency", target=target), steps=3, variations=1)
    assert np.isfinite(judged["saliency"].insertion)
    rank = isinstance(target, str) and target in ("top1", "top3")
    if target is None or rank:
        with pytest.raises(cs.ConvoscopeError, match="visualise"):
            cs.visualize(model, target, steps=1, recipe="fourier")
    else:
        assert np.isfinite(cs.visualize(model, target, steps=1, recipe="fourier").score)
    assert len(Request([cs.Saliency()], [target]).key(model)) == 64


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_target_is_refused_in_one_sentence_everywhere(kind: str) -> None:
    model, target = classifier(), REFUSED[kind]
    for door in (
        lambda: cs.explain(model, picture(), ["saliency", "grad-cam"], target=target),
        lambda: ask.read(model, picture(), target),
        lambda: ask.cover(model, picture(), (0, 0, 8, 8), target),
        lambda: scoring(model, model.prepare(picture()), target).__enter__(),
        lambda: cs.visualize(model, target, steps=1, recipe="fourier"),
    ):
        with pytest.raises(cs.ConvoscopeError) as caught:
            door()
        assert 15 < len(str(caught.value)) < 500
        assert "\n" not in str(caught.value)


def test_the_value_of_a_combination_is_that_of_its_parts() -> None:
    model = classifier()

    def score(target: Any) -> float:
        return float(cs.explain(model, picture(), "saliency", target=spelled(target)).score)

    boat, cat, unit = score("boat"), score("tiger cat"), score("0.0:3")
    like, along = score("similar:{}/Photo - Copy.png"), score("direction:0.0@{}/a - b.npy")
    assert score("boat - tiger cat") == pytest.approx(boat - cat, rel=1e-4)
    assert score("boat - 0.1*0.0:3") == pytest.approx(boat - 0.1 * unit, rel=1e-4)
    assert score("boat - 3*similar:{}/Photo - Copy.png") == pytest.approx(boat - 3 * like, rel=1e-4)
    assert score("0.5*direction:0.0@{}/a - b.npy + boat") == pytest.approx(0.5 * along + boat, rel=1e-4)
    assert score("boat - a - b") == pytest.approx(boat - score("a - b"), rel=1e-4)
    layers = parse(spelled("boat - 0.1*0.0:3 + direction:0.3@{}/a - b.npy"), model).layers(model)
    assert layers == ("0.0", "0.3")


def test_a_unit_before_an_in_place_relu_is_what_the_convolution_gave() -> None:
    model, x = classifier(), picture()
    with torch.no_grad():
        plane = model.module[0][0](x[None])[0, 3]
    assert float(plane.min()) < 0
    assert cs.explain(model, x, "saliency", target="0.0:3").score == pytest.approx(float(plane.mean()), rel=1e-4)
    assert cs.explain(model, x, "saliency", target="0.0:3@4,6").score == pytest.approx(float(plane[4, 6]), rel=1e-4)
    slope = cs.explain(model, x, "input-x-gradient", target="0.0:3@4,6")["input-x-gradient"]
    bias = float(model.module[0][0].bias[3])
    assert slope.values.sum() == pytest.approx(float(plane[4, 6]) - bias, rel=1e-3), "a convolution is linear"


def test_a_class_is_what_was_asked_for_also_where_labels_repeat() -> None:
    model = classifier()
    found = cs.explain(model, picture(), "saliency", target=7)
    assert (found.target, found.class_index, found.question) == ("crane", 7, ClassTarget(7))
    other = cs.explain(model, picture(), "saliency", target=6)
    assert found.score != pytest.approx(other.score)
    right, wrong = (verdicts(model, one, steps=3, variations=1)["saliency"] for one in (found, other))
    with scoring(model, found.fitted, 7) as scored:
        whole = scored.whole
    assert right.insertion != pytest.approx(wrong.insertion)
    assert abs(right.insertion - whole) < abs(wrong.insertion - whole)
    contrast = cs.explain(model, picture(), "saliency", target=7, against=6)
    assert contrast.question == ClassTarget(7, 6)
    with pytest.raises(cs.TargetError, match="contrasted"):
        cs.explain(model, picture(), "saliency", target="0.0:3", against="boat")


def test_all_passes_are_counted_and_a_likeness_is_embedded_once() -> None:
    model = classifier()
    one = cs.explain(model, picture(), "saliency", target=spelled("similar:{}/other.png@0.3"))
    assert (one.plan.forwards, one.plan.backwards) == (2, 1)
    both = cs.explain(model, picture(), ["saliency", "grad-cam"], target=spelled("similar:{}/other.png@0.3"))
    assert both.plan.forwards <= 3, "the default layer is found by one forward more"


def test_a_replaced_file_is_another_question(tmp_path: Path) -> None:
    from PIL import Image

    model, file = classifier(), tmp_path / "ref.png"
    keys = []
    for seed in (1, 2):
        Image.fromarray((picture(seed).permute(1, 2, 0) * 255).byte().numpy()).save(file)
        keys.append(Request([cs.Saliency()], [f"2*similar:{file}"]).key(model))
        keys.append(Request([cs.GradientSHAP(background=str(file))], [None]).key(model))
        keys.append(Request([cs.Saliency()], [f"similar:{tmp_path}"]).key(model))
    assert len(set(keys)) == 6
    assert keys[3] == Request([cs.Saliency()], [f"2*similar:{file}"]).key(model)


STRUCTURED = {
    "toybox-detector": ("instance:0", "boat", "instance:@40,40", "instance:0@left", "instance:0 - instance:1"),
    "toybox-segmenter": ("segment:boat", "segment:@40,40", "pixel:boat@40,40", "boat", "segment:boat - segment:car"),
    "toybox-landmarks": ("landmark:left_eye", "landmark:0", "landmark:0 - landmark:1", "left_eye"),
    "toybox-panoptic": ("segment:boat", "segment:@40,40", "segment:sky", "instance:0"),
}  # fmt: skip


@pytest.mark.parametrize("name", STRUCTURED)
def test_targets_of_structured_networks_everywhere(name: str) -> None:
    model = cs.open_model(name)
    side = model.preprocessing.size[0]
    scene = picture(3, side)
    for target in (None, *STRUCTURED[name]):
        results, said = [], []
        for door in (
            lambda t=target: cs.explain(model, scene, ["saliency", cs.Occlusion(side // 3, side // 3)], target=t),
            lambda t=target: ask.read(model, scene, t),
            lambda t=target: ask.cover(model, scene, (0, 0, 20, 20), t),
            lambda t=target: cs.visualize(model, t, steps=1, recipe="fourier"),
            lambda t=target: cs.visualize(model, t, image=scene, steps=1, recipe="fourier"),
        ):
            try:
                door()
                results.append(True)
            except cs.ConvoscopeError as error:
                results.append(False)
                said.append(str(error))
        assert results[0] == results[1] == results[2], (target, results, said)
        assert all(15 < len(sentence) < 700 for sentence in said), said


def test_a_target_that_one_picture_does_not_hold_is_refused_there_only() -> None:
    model = cs.open_model("toybox-segmenter")
    side = model.preprocessing.size[0]
    scenes = [picture(seed, side) for seed in range(3)]
    half = scenes[0].clone()
    half[:, : side // 2] = 0
    scenes.append(half)
    seen = []
    for one in scenes:
        with torch.no_grad():
            maps = dense(model.module(model.inputs([model.prepare(one)])))
        assert maps is not None
        seen.append({model.label(int(c)) for c in maps[0].argmax(0).unique()})
    label = next(x for s in seen for x in sorted(s) if not all(x in other for other in seen))
    found = cs.explain(model, scenes, ["saliency", "grad-cam"], target=[f"segment:{label}", None])
    for one, own in zip(found, seen, strict=True):
        assert bool(one.heatmaps) == (label in own)
        assert len(one.rows[1]) == 2, "the other target is explained all the same"
        if label not in own:
            assert f"sees no {label}" in one.refused["saliency"]


def test_units_are_read_at_the_picture_s_own_size() -> None:
    torch.manual_seed(0)
    pool, flat = torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
    model = cs.wrap(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), pool, flat, torch.nn.Linear(4, 2)).eval())
    assert parse("0:3@30,2", model) == Unit("0", 3, "mean", (30, 2))
    assert cs.explain(model, picture(0, 40), "saliency", target="0:3@30,2")["saliency"].values.max() > 0
    with pytest.raises(cs.TargetError, match="no neuron"):
        cs.explain(model, picture(0, 20), "saliency", target="0:3@30,2")
