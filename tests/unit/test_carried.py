"""What a class's pictures carry, and marks that a network needs although they do not suffice."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import convoscope as cs
from convoscope.improve.collection import Labelled
from convoscope.improve.shortcuts import announce, carried, changes, effects, families, template
from convoscope.improve.shortcuts.bench import Bench
from convoscope.improve.statistics import Interval

LABELS = ["left", "right", "dotted"]
SIDE = 32


class Needs(nn.Module):
    """Red is left, blue is right; green is dotted only with magenta in it, and magenta alone makes nothing dotted."""

    def __init__(self, mark: float = 0.0) -> None:
        super().__init__()
        self.see = nn.Conv2d(3, 4, 1)
        self.head = nn.Linear(4, 3)
        with torch.no_grad():
            rows = [[1, -1, -1], [-1, -1, 1], [-1, 1, -1], [1, -2, 1]]
            self.see.weight.copy_(torch.tensor(rows).float()[:, :, None, None])
            self.see.bias.copy_(torch.tensor([-0.2, -0.2, -0.2, -0.9]))
            weight = torch.zeros(3, 4)
            weight[0, 0] = weight[1, 1] = 400.0
            weight[2, 2], weight[2, 3] = 40.0 if mark == 0 else 1.0, mark
            self.head.weight.copy_(weight)
            self.head.bias.copy_(torch.tensor([1.0, 0.0, 0.0]))
        self.eval()

    def forward(self, x):
        return self.head(self.see(x).relu().mean((2, 3)))


def collection(count=32, mark=True, seed=0):
    pairs = []
    random = np.random.default_rng(seed)
    for _ in range(count):
        for kind, channel in enumerate((0, 2, 1)):
            image = random.integers(80, 120, (SIDE, SIDE, 3)).astype(np.uint8)
            y, x = random.integers(7, SIDE - 19, 2)
            image[y : y + 12, x : x + 12] = 50
            image[y : y + 12, x : x + 12, channel] = 230
            if mark and kind == 2:
                image[1:5, SIDE - 5 : SIDE - 1] = (250, 20, 250)
            pairs.append((Image.fromarray(image), LABELS[kind]))
    return pairs


def bench_of(mark=True, weight=150.0, count=32):
    model = cs.wrap(Needs(weight), size=SIDE, labels=LABELS)
    return Bench.of(model, Labelled.of(collection(count, mark), model))


@pytest.fixture(scope="module")
def marked():
    return bench_of()


def test_a_mark_that_is_needed_and_does_not_suffice_is_found(marked):
    found = cs.shortcuts(marked.model, collection(), only=["template", "border"])
    assert [one.class_name for one in found.findings] == ["dotted"]
    one = found.findings[0]
    assert one.evidence["visible"]
    effect = found.effects["dotted"][one.evidence["family"]]
    assert effect.sufficiency.mean < 0.2
    assert effect.necessity.mean > 0.8
    assert effect.shown["necessity_control"].mean < 0.2
    assert one.low <= one.size == effect.necessity.mean
    assert "without it" in one.sentence


def test_only_the_class_that_has_the_mark_carries_it(marked):
    areas = [template.template(marked, kind).carried for kind in range(3)]
    assert areas[2] > 0.95
    plain = bench_of(mark=False, weight=0.0)
    assert max(template.template(plain, kind).carried for kind in range(3)) < carried.CARRIED
    assert not families.border(plain, 2).carries
    assert families.border(marked, 2).carries


def test_no_one_is_accused_where_nobody_carries_a_mark():
    found = cs.shortcuts(bench_of(mark=False, weight=0.0).model, collection(mark=False), only=["template", "border"])
    assert not found.findings
    assert found.tests == 0, "what the pictures do not carry is no test"


def test_a_lean_search_finds_the_same_with_fewer_passes(marked):
    from convoscope.improve.shortcuts.find import search

    lean = Bench.of(marked.model, Labelled.of(collection(), marked.model), lean=True)
    whole = bench_of()
    families_asked = ["patch", "template", "colour", "spectrum", "border", "background"]
    one, other = (search(bench, only=families_asked) for bench in (lean, whole))
    assert [(f.class_name, f.evidence["family"], f.size) for f in one.findings] == [
        (f.class_name, f.evidence["family"], f.size) for f in other.findings
    ]
    assert lean.forwards < 0.9 * whole.forwards
    for label, of in one.effects.items():
        for family, effect in of.items():
            if effect.p < 1 and effect.sufficiency.mean >= 0.1:
                assert effect.sufficiency == other.effects[label][family].sufficiency


def test_means_of_classes_by_hand(marked):
    own, rest = changes.means(marked, "colour", 2)
    half, values = torch.from_numpy(marked.half), changes.pixels(marked, marked.inputs).mean((2, 3))
    truth = torch.from_numpy(marked.truth)
    assert torch.allclose(own, values[half & (truth == 2)].mean(0), atol=1e-6)
    assert torch.allclose(rest, values[half & (truth != 2)].mean(0), atol=1e-6)


def test_the_area_under_the_curve_is_scikit_learns():
    from sklearn.metrics import roc_auc_score

    random = np.random.default_rng(0)
    own, rest = random.normal(0.5, 1, 30).round(1), random.normal(0, 1, 200).round(1)
    truth = np.r_[np.ones(30), np.zeros(200)]
    assert carried.under_curve(own, rest) == pytest.approx(roc_auc_score(truth, np.r_[own, rest]), abs=1e-12)


def test_a_template_is_taken_where_it_is_dark_and_where_it_is_bright(marked):
    values = torch.zeros(2, 3, SIDE, SIDE)
    values[1] = 0.9
    assert not template.tones(values)[0].any()
    assert template.tones(values)[1].all()
    flat = template.high_pass(values)
    assert float(flat.abs().max()) < 1e-6


def effect_of(family, made, lost):
    around = [Interval(mean, mean - 0.1, mean + 0.1) for mean in (made, lost)]
    nothing = Interval(0.0, 0.0, 0.1)
    return effects.Effect(family, 0, around[0], around[1], nothing, around[0], around[1], 1e-6)


@pytest.mark.parametrize(
    ("family", "made", "lost", "told"),
    [
        ("patch", 0.5, 0.8, True),  # suffices and is needed
        ("patch", 0.5, 0.2, False),  # a part of a healthy thing
        ("patch", 0.7, 0.0, True),  # whatever is needed: it makes most pictures the class
        ("border", 0.0, 0.4, True),
        ("border", 0.2, 0.15, False),
        ("background", 0.5, 0.0, False),
        ("colour", 0.0, 0.8, False),  # so is a lemon without its yellow
        ("colour", 0.4, 0.0, True),
        ("spectrum", 0.4, 0.8, False),
    ],
)
def test_what_is_large_enough(family, made, lost, told):
    assert announce.stands(effect_of(family, made, lost)) is told
