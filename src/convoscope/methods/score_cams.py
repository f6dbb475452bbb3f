"""Score-CAM and Ablation-CAM: channels weighted by what showing or removing them does to the score."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from ..engine.passes.needs import MANY, Activation, Perturbed, Replaced, Scores
from .base import About, Method, Query, setting
from .cams import _LAYER, doubt_blank, strongest
from .fills import fill_for

if TYPE_CHECKING:
    from torch import Tensor

    from .base import Maps, Steps


@dataclass(frozen=True)
class ScoreCAM(Method):
    """Each channel, scaled to 0..1 and raised to the picture's size, masks the picture; the softmax over channels of
    the scores that it leaves weighs the channels (Wang et al. 2020).

    ``resize="plain"`` masks by the usual half-pixel resize, as published; ``exact`` at the cells' centres.
    """

    about: ClassVar[About] = About(
        name="score-cam",
        title="Score-CAM",
        shows="where the layer holds evidence, by forward passes alone",
        paper="Wang, Wang, Du, Yang, Zhang, Ding, Mardziel, Hu: Score-CAM. CVPR workshops 2020",
        bibtex=(
            "@inproceedings{wang2020score, title={Score-CAM: Score-Weighted Visual Explanations for Convolutional "
            "Neural Networks}, author={Wang, Haofan and Wang, Zifan and Du, Mengnan and Yang, Fan and Zhang, Zijian "
            "and Ding, Sirui and Mardziel, Piotr and Hu, Xia}, booktitle={CVPR Workshops}, year={2020}}"
        ),
        signed=False,
        unit="activation",
        reduction="ReLU of the weighted sum over channels",
        cost="one forward a channel",
        slow=True,
    )
    layer: str | None = setting(None, _LAYER)
    resize: str = setting(
        "plain", "how channels become masks: plain (published) or exact", choices=("plain", "exact")
    )
    parts: int = setting(0, "keep this many of the strongest channel × weight maps", minimum=0)

    def steps(self, query: Query) -> Steps:
        import torch

        from ..engine.fields.geometry import Geometry

        here = query.layer(self.layer)
        activation = Activation(here)
        got = yield activation
        a = query.planes(here, got[activation]).float().cpu()
        fill = fill_for(query, "mean")
        weights = []
        for row in range(len(a)):
            if self.resize == "plain":
                raised = Geometry.plain(a[row], query.size)
            else:
                raised, _ = query.resample(a[row], here)
            low, high = raised.amin((1, 2), keepdim=True), raised.amax((1, 2), keepdim=True)
            masks = torch.where(high > low, (raised - low) / (high - low), torch.zeros_like(raised))
            often = len(masks) * len(query.inputs) >= MANY
            told = query.counter(len(masks) * len(a), len(masks) * row)
            need = Perturbed(1 - masks, fill, False, None, told, row, many_more_follow=often)
            got = yield need
            weights.append(got[need][0].softmax(0))
        return _weighted(self, query, here, torch.stack(weights)[:, :, None, None], a, self.parts)


@dataclass(frozen=True)
class AblationCAM(Method):
    """Channels weighted by the share of the score lost when they are set to zero (Desai & Ramaswamy 2020)."""

    about: ClassVar[About] = About(
        name="ablation-cam",
        title="Ablation-CAM",
        shows="where the layer holds evidence, by switching its channels off one at a time",
        paper="Desai, Ramaswamy: Ablation-CAM. WACV 2020",
        bibtex=(
            "@inproceedings{desai2020ablation, title={Ablation-CAM: Visual Explanations for Deep Convolutional "
            "Network via Gradient-free Localization}, author={Desai, Saurabh and Ramaswamy, Harish G.}, "
            "booktitle={WACV}, year={2020}}"
        ),
        signed=False,
        unit="activation × share of the score",
        reduction="ReLU of the weighted sum over channels",
        cost="one forward a channel",
        slow=True,
    )
    layer: str | None = setting(None, _LAYER)
    parts: int = setting(0, "keep this many of the strongest channel × weight maps", minimum=0)

    def steps(self, query: Query) -> Steps:
        here = query.layer(self.layer)
        activation, score = Activation(here), Scores()
        got = yield activation, score
        a = query.planes(here, got[activation]).float().cpu()
        info = query.watched.layers[here]
        last = info.layout.axis(len(info.shape)) > 1
        ablations = Replaced(here, [partial(without_channel, c, last) for c in range(a.shape[1])])
        base = got[score].cpu()
        got = yield ablations
        lost = (base[:, None] - got[ablations]) / base[:, None]
        maps = _weighted(self, query, here, lost[:, :, None, None], a, self.parts)
        for row, value in enumerate(base.tolist()):
            if abs(value) < 1e-3:
                maps.doubt(row, f"The score is nearly zero ({value:.2g}): shares of it mean little.")
            elif value < 0:
                maps.doubt(
                    row,
                    f"The score is below zero ({value:.3g}): the published weights are shares of it and turn their "
                    "sign, so that this map shows what speaks against the target.",
                )
        return maps


def without_channel(channel: int, channels_last: bool, output: Tensor) -> Tensor:
    """A layer's output with one channel set to zero."""
    output = output.clone()
    if channels_last:
        output[..., channel] = 0
    else:
        output[:, channel] = 0
    return output


def _weighted(one: ScoreCAM | AblationCAM, query: Query, here: str, weights: Tensor, a: Tensor, parts: int) -> Maps:
    grid = (weights * a).sum(1)
    maps = query.heatmap(grid.clamp(min=0), at=here, signed=False, unit=one.about.unit, reduction=one.about.reduction)
    doubt_blank(maps, grid)
    if parts:
        maps.parts = strongest(weights, a, parts)
    return maps
