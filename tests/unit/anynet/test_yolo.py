"""Decoded candidates of one-stage detectors are detections: classes, boxes, and each thing once."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

import convoscope as cs
from convoscope.models.detected import decoded, detections

SIDE = 64
CELLS = 8 * 8 + 4 * 4 + 2 * 2


class Candidates(nn.Module):
    """Says of 84 places what a bright picture holds: two things at ``found``, each seen three times."""

    found = ((10, 2, (20.0, 24.0, 16.0, 12.0)), (40, 0, (44.0, 40.0, 10.0, 20.0)))

    def __init__(self, layout: str, classes: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body, self.layout, self.classes = nn.Conv2d(3, 4, 3, padding=1), layout, classes

    def forward(self, x: Tensor) -> Any:
        level = (10 * self.body(x).relu().mean((1, 2, 3))).tanh()
        rows = x.new_full((len(x), CELLS, 4 + self.classes), 0.01)
        rows[..., :4] = torch.tensor([5.0, 5.0, 4.0, 4.0])
        for place, label, box in self.found:
            for beside in range(3):
                rows[:, place + beside, :4] = torch.tensor(box) + 0.2 * beside
                rows[:, place + beside, 4 + label] = (0.9 - 0.1 * beside) * level
        if self.layout == "v5":
            sure = torch.full_like(rows[..., :1], 0.5)
            return torch.cat([rows[..., :4], sure, rows[..., 4:]], 2).repeat(1, 3, 1)
        rows = rows.transpose(1, 2)
        if self.layout == "masks":
            rows = torch.cat([rows, torch.linspace(-1, 1, CELLS).expand(len(x), 5, -1)], 1)
            return (rows, torch.zeros(len(x), 5, 16, 16)), {"scores": rows[:, 4 : 4 + self.classes].logit()}
        return rows if self.layout == "alone" else (rows, [torch.zeros(len(x), 67, 8, 8)])


@pytest.mark.parametrize("layout", ["tuple", "alone", "masks", "v5"])
def test_each_thing_is_found_once_with_its_box_and_its_gradient(layout: str) -> None:
    net, picture = Candidates(layout).eval(), torch.rand(3, SIDE, SIDE)
    model = cs.wrap(net, size=SIDE, labels=["ant", "bee", "cow"], mean=0.0, std=1.0)
    items = detections(net(picture[None]), (SIDE, SIDE))
    assert items is not None
    best = items[0]["scores"].detach().argsort(descending=True)[:2]
    assert sorted(items[0]["labels"][best].tolist()) == [0, 2]
    assert int((items[0]["scores"] > 0.05).sum()) == 2, "each once"
    corners = {int(items[0]["labels"][k]): items[0]["boxes"][k].tolist() for k in best.tolist()}
    assert corners[2] == pytest.approx([12, 18, 28, 30])
    assert corners[0] == pytest.approx([39, 30, 49, 50])
    found = cs.explain(model, picture, ["saliency", cs.Occlusion(16, 16)], target="cow")
    assert found.target in ("instance 0: cow", "instance 1: cow")
    assert found["saliency"].values.max() > 0
    assert found.prediction[0]["label"] in ("cow", "ant")
    assert "box" in found.prediction[0]
    assert not any("segment" in doubt for doubt in found.doubts)


def test_other_tensors_of_three_dimensions_are_no_candidates() -> None:
    assert decoded(torch.rand(1, 7, CELLS + 1), (SIDE, SIDE)) is None
    assert decoded(torch.rand(1, 4, CELLS), (SIDE, SIDE)) is None
    assert decoded(torch.randn(1, 5, CELLS) - 9, (SIDE, SIDE)) is None
    assert decoded(torch.rand(1, 3, 5), (SIDE, SIDE)) is None
