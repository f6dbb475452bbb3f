"""CAM: class activation mapping with the classifier's own weights (Zhou et al. 2016)."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..engine.passes.needs import Activation
from ..errors import MethodRefused
from .base import About, Method, Part, Query, setting

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..engine.fields.trace import Layer
    from .base import Steps


@dataclass(frozen=True)
class CAM(Method):
    """Features × classifier weights, for networks that end in global average pooling and one linear layer, or in a
    class convolution and global average pooling (Zhou et al. 2016).

    The head is not guessed from names: mean(CAM) + bias must equal the logit, or the method is refused. With a class
    convolution (SqueezeNet) CAM is the class map that is pooled, after its ReLU where there is one.
    """

    about: ClassVar[About] = About(
        name="cam",
        title="CAM",
        shows="each cell's share of the class score (their mean, plus the bias, is the logit)",
        paper="Zhou, Khosla, Lapedriza, Oliva, Torralba: Learning Deep Features. CVPR 2016",
        bibtex=(
            "@inproceedings{zhou2016learning, title={Learning Deep Features for Discriminative Localization}, "
            "author={Zhou, Bolei and Khosla, Aditya and Lapedriza, Agata and Oliva, Aude and Torralba, Antonio}, "
            "booktitle={CVPR}, year={2016}}"
        ),
        signed=True,
        unit="score",
        reduction="weighted sum over channels",
        cost="1 forward",
    )
    parts: int = setting(0, "keep this many of the strongest channel × weight maps", minimum=0)

    def steps(self, query: Query) -> Steps:
        import torch

        from ..targets.classes import ClassScorer

        if query.watched.levels:
            raise MethodRefused("CAM explains class scores: for detections use layercam or hirescam.")
        here = query.layer(None)
        maps_of_classes = list(_class_maps(query))
        needs = [Activation(here), *(Activation(name) for name in maps_of_classes)]
        got = yield tuple(needs)
        scorer = query.target
        if not isinstance(scorer, ClassScorer):
            raise MethodRefused("CAM explains class scores: for a unit or a function use grad-cam.")
        scores = scorer.reading.values(query.output, len(query.inputs)).detach().float().cpu()
        for name, need in zip(maps_of_classes, needs[1:], strict=True):
            planes = query.planes(name, got[need]).float().cpu()
            if planes.shape[1] == scores.shape[1] and _close(planes.mean((2, 3)), scores):
                grid = _of_class(planes, scorer.classes)
                if scorer.against is not None:
                    grid = grid - _of_class(planes, scorer.against)
                return query.heatmap(
                    grid, at=name, signed=True, unit=self.about.unit, reduction="the class map that is pooled"
                )
        a = query.planes(here, got[needs[0]]).float().cpu()
        for linear in _heads(query.model.module, a.shape[1], scores.shape[1]):
            weight = linear.weight.detach().float().cpu().flatten(1)
            bias = linear.bias.detach().float().cpu() if linear.bias is not None else torch.zeros(len(weight))
            if _close(a.mean((2, 3)) @ weight.T + bias, scores):
                chosen = weight[scorer.classes]
                if scorer.against is not None:
                    chosen = chosen - weight[scorer.against]
                products = chosen[:, :, None, None] * a
                maps = query.heatmap(
                    products.sum(1),
                    at=here,
                    signed=True,
                    unit=self.about.unit,
                    reduction=self.about.reduction,
                )
                maps.fact("bias", bias[scorer.classes].tolist())
                if self.parts:
                    maps.parts = _parts(products, chosen, self.parts)
                return maps
        if any(one.index > query.watched.layers[here].index for one in _single_cells(query)):
            raise MethodRefused(
                f"At {'×'.join(map(str, query.size))} pixels the last stage of {query.model.name} is a single cell, "
                "which tells no place from another, so it has no CAM: give a larger --size, or use grad-cam."
            )
        raise MethodRefused(
            f"{query.model.name} does not end in global average pooling and one linear layer (or a class "
            "convolution and pooling), so it has no CAM: use grad-cam, which fits any network."
        )


def _single_cells(query: Query) -> list[Layer]:
    """Convolutional stages that this input leaves one cell."""
    every = query.watched.layers.values()
    return [one for one in every if one.geometry is not None and one.grid == (1, 1) and one.relu]


def _class_maps(query: Query) -> Iterator[str]:
    """Late layers with a grid of one channel a class, last first."""
    # one cell is what pooling leaves: the class map is what went into it
    every = query.watched.layers.values()
    layers = [one for one in every if one.has_grid and one.single and math.prod(one.shape[2:]) > 1]
    for layer in reversed(layers[-6:]):
        yield layer.name


def _heads(network: nn.Module, channels: int, classes: int) -> Iterator[nn.Linear | nn.Conv2d]:
    from torch import nn

    for module in reversed(list(network.modules())):
        if isinstance(module, nn.Linear) and (module.in_features, module.out_features) == (channels, classes):
            yield module
        if (
            isinstance(module, nn.Conv2d)
            and module.kernel_size == (1, 1)
            and (module.in_channels, module.out_channels) == (channels, classes)
        ):
            yield module


def _close(a: Tensor, b: Tensor) -> bool:
    scale = float(b.abs().max().clamp(min=1e-6))
    return bool(((a - b).abs().max() / scale) < 1e-3)


def _of_class(planes: Tensor, classes: Tensor) -> Tensor:
    import torch

    return planes[torch.arange(len(planes)), classes]


def _parts(products: Tensor, weights: Tensor, count: int) -> list[list[Part]]:
    order = products.flatten(2).abs().sum(2).argsort(1, descending=True)[:, :count].tolist()
    return [
        [Part(c, float(weights[row, c]), products[row, c]) for c in channels] for row, channels in enumerate(order)
    ]
