"""Published protocols, so that published figures can be had again: TorchRay's pointing game, RISE's two areas.

Every trap of the protocols is a parameter with a name. TorchRay (Fong, Patrick, Vedaldi 2019; the protocol of Zhang
et al. 2016): pictures go in at their own aspect with the short side at 224; the network is made fully convolutional
and the score is a soft maximum over its places; maps are drawn at the original photo's size by the plain resize;
gradient maps are then blurred with a deviation of 2 % of the longer side; a hit may miss by less than 15 pixels;
accuracy is the mean over classes, not over pictures. RISE (Petsiuk et al. 2018): the predicted class's probability,
224 pixels a step, black-in-the-mean deletion and insertion into a blur of 5 pixels.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..errors import ModelError, PictureError
from ..explanation import MethodLike, explain
from ..methods.fills import blurred
from ..models.model import Model
from ..pictures.picture import Picture, Preprocessing
from ..targets import Target, TargetLike
from . import faithfulness, localisation
from .datasets import Case
from .evaluate import methods_for
from .scoring import scoring

if TYPE_CHECKING:
    from ..engine.passes.runner import Runner

#: TorchRay's published accuracies on VOC07 test, per cent, all pictures (Fong et al. 2019, table 1)
POINTING_VOC07: dict[str, dict[str, float]] = {
    "resnet50": {
        "centre": 69.6, "saliency": 72.3, "deconvnet": 68.6, "guided-backprop": 77.2, "rise": 86.4, "grad-cam": 90.4,
    },
}  # fmt: skip


@dataclass(frozen=True)
class PointingProtocol:
    """TorchRay's protocol; other values are other games.

    ``short_side``: pixels of the photo's shorter side at the network's input (``None``: the model's own
    preprocessing). ``tolerance``: pixels of the original photo. ``smooth``: deviation of the blur, a share of the
    photo's longer side. ``smoothed``: the methods whose maps are blurred. ``fully_convolutional``: evaluate at every
    place that fits. ``resize``: how coarse maps are drawn. ``difficult``: small objects among other classes only.
    """

    short_side: int | None = 224
    tolerance: float = 15.0
    smooth: float = 0.02
    smoothed: tuple[str, ...] = ("saliency", "deconvnet", "guided-backprop")
    fully_convolutional: bool = True
    resize: str = "plain"
    difficult: bool = False


@dataclass(eq=False)
class Pointing:
    """Hits by method, class and case; ``accuracy`` is the mean of the classes' accuracies."""

    hits: dict[str, dict[str, list[float]]] = field(default_factory=dict)

    def add(self, method: str, label: str, hit: float) -> None:
        """Count one case."""
        self.hits.setdefault(method, {}).setdefault(label, []).append(hit)

    def accuracy(self, method: str) -> float:
        """The mean over classes of the share of hits, 0..1."""
        return float(np.mean([np.mean(hits) for hits in self.hits[method].values()]))

    def to_dict(self) -> dict[str, Any]:
        """Accuracy, number of cases and accuracy per class of every method."""
        return {
            method: {
                "accuracy": self.accuracy(method),
                "n": sum(map(len, classes.values())),
                "classes": {label: float(np.mean(hits)) for label, hits in classes.items()},
            }
            for method, classes in self.hits.items()
        }


def pointing_game(
    model: Model,
    cases: Sequence[Case],
    methods: str | Sequence[MethodLike],
    protocol: PointingProtocol | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> Pointing:
    """The pointing game by ``protocol`` over ``cases`` (:func:`convoscope.trust.datasets.voc`), and its centre row.

    The model is left as it is: a fully convolutional copy is explained.
    """
    protocol = protocol or PointingProtocol()
    chosen = list(methods_for(methods, slow=True).values())
    network = fully_convolutional(model) if protocol.fully_convolutional else model
    found = Pointing()
    for number, case in enumerate(cases):
        photo = case.picture()
        height, width = photo.size
        if case.region is None:
            raise PictureError(f"{case.key}: the pointing game needs to know where the object is.")
        mask = case.region.on_photo((height, width))
        if not protocol.difficult or localisation.difficult(mask, case.others):
            one = _explain(network, photo, chosen, case.target, protocol)
            for name, heatmap in one.items():
                values = on_photo(heatmap.values, heatmap.input_to_photo, (height, width))
                if heatmap.method in protocol.smoothed and protocol.smooth > 0:
                    values = smoothed(values, protocol.smooth * max(height, width))
                found.add(name, case.label, float(localisation.pointing(values, mask, protocol.tolerance)))
            middle = localisation.centre((height, width))
            found.add("centre", case.label, float(localisation.pointing(middle, mask, protocol.tolerance)))
        if progress is not None:
            progress(number + 1, len(cases))
    return found


def _explain(model: Model, photo: Picture, methods: list[Any], target: int | None, protocol: PointingProtocol) -> Any:
    if protocol.short_side is not None:
        height, width = photo.size
        scale = protocol.short_side / min(height, width)
        size = (
            (protocol.short_side, int(width * scale))
            if height <= width
            else (int(height * scale), protocol.short_side)
        )
        model = replace(model, preprocessing=_squashed(model.preprocessing, size))
    wanted: TargetLike = target if target is None else SoftPlaces(target)
    return explain(model, photo, methods, target=wanted, resize=protocol.resize)


def _squashed(preprocessing: Preprocessing, size: tuple[int, int]) -> Preprocessing:
    # both sides are set by the photo's own aspect: nothing is distorted or cut off
    return replace(preprocessing, size=size, resize=None, fit="squash")


@dataclass(frozen=True)
class SoftPlaces(Target):
    """The class's score over all places of a fully convolutional network: log Σ exp.

    Its gradient gives each place its softmax share, as TorchRay's pointing gradient does. On an ordinary ``[B, K]``
    output it is the logit.
    """

    index: int

    def layers(self, model: Model) -> tuple[str, ...]:
        return ()

    def files(self) -> tuple[Path, ...]:
        return ()

    def key(self) -> str:
        return f"class {self.index} over all places"

    def resolve(self, model: Model, output: Any, pictures: Any, runner: Runner) -> Any:
        from ..targets.scores import CallableScorer

        label = model.label(self.index)

        def score(values: Any) -> Tensor:
            found: Tensor = values[:, self.index]
            return found if found.ndim == 1 else found.flatten(1).logsumexp(1)

        return CallableScorer(score, (label,) * len(pictures))


def fully_convolutional(model: Model) -> Model:
    """A copy that scores every place of a larger picture: ``[B, K]`` becomes ``[B, K, rows, columns]``.

    Linear layers become convolutions with the same weights, global or adaptive average pooling to n×n becomes average
    pooling of the grid that it saw at the model's own input size, with stride 1 (n = 1), or nothing (n > 1, the first
    linear layer sees n×n). For networks of the shape features → pooling → flatten → linear layers: torchvision's
    ResNets and VGGs, and their like. Raises :class:`~convoscope.errors.ModelError` for others. At the model's own
    input size the scores are the same.
    """
    try:
        network = copy.deepcopy(model.module)
    except Exception as error:
        raise ModelError(f"{model.name} cannot be copied: {error}") from error
    head = _Head.of(model, network)
    return replace(model, module=head, _watched={}, _graphs={}, _fingerprint=None, call=None)


class _Head(nn.Module):
    """The network with its flattening taken out."""

    def __init__(self, features: nn.Module, pool: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.features, self.pool, self.head = features, pool, head

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head(self.pool(self.features(x)))
        return found

    @staticmethod
    def of(model: Model, network: nn.Module) -> _Head:
        children = dict(network.named_children())
        linear = [name for name, child in children.items() if any(isinstance(m, nn.Linear) for m in child.modules())]
        pools = [name for name, child in children.items() if isinstance(child, nn.AdaptiveAvgPool2d)]
        names = list(children)
        fits = len(linear) == 1 and len(pools) == 1 and names[-1] == linear[0] and names[-2] == pools[0]
        if not fits:
            raise ModelError(
                f"{model.name} is not features, adaptive pooling and one linear head, so it cannot be made fully "
                "convolutional: evaluate it with fully_convolutional=False."
            )
        features = nn.Sequential(*(children[name] for name in names[:-2]))
        side: Any = children[pools[0]].output_size
        n = int(side[0] if isinstance(side, (tuple, list)) else side)
        size = model.preprocessing.size or (224, 224)
        example = torch.zeros((1, model.preprocessing.channels, *size), device=model.device, dtype=model.dtype)
        network.eval()
        with torch.no_grad():
            grid, before = features(example.clone()), network(example.clone())
        pool: nn.Module = nn.Identity() if n > 1 else nn.AvgPool2d(tuple(grid.shape[-2:]), stride=1)
        head = _convolved(children[linear[0]], int(grid.shape[1]), n)
        found = _Head(features, pool, head).eval()
        with torch.no_grad():
            after = found(example.clone())
        if after.shape[-2:] != (1, 1) or not torch.allclose(after.flatten(1), before, rtol=1e-3, atol=1e-4):
            raise ModelError(
                f"{model.name} gives other scores when made fully convolutional: its forward does more than "
                "features, pooling and a linear head. Evaluate it with fully_convolutional=False."
            )
        return found


def _convolved(head: nn.Module, channels: int, side: int) -> nn.Module:
    """The linear layers of a head as convolutions; the first sees ``side × side`` cells, the others one."""
    if isinstance(head, nn.Linear):
        return _as_convolution(head, channels, side)
    layers: list[nn.Module] = []
    first = True
    for layer in head.children():
        if isinstance(layer, nn.Linear):
            layers.append(_as_convolution(layer, channels if first else layer.in_features, side if first else 1))
            first = False
        elif not isinstance(layer, nn.Flatten):
            layers.append(layer)
    return nn.Sequential(*layers)


def _as_convolution(linear: nn.Linear, channels: int, side: int) -> nn.Conv2d:
    convolution = nn.Conv2d(channels, linear.out_features, side, bias=linear.bias is not None)
    with torch.no_grad():
        convolution.weight.copy_(linear.weight.view_as(convolution.weight))
        if linear.bias is not None and convolution.bias is not None:
            convolution.bias.copy_(linear.bias)
    return convolution.to(linear.weight)


def on_photo(values: Any, matrix: Any, size: tuple[int, int]) -> np.ndarray[Any, Any]:
    """A map ``[h, w]`` of the network's input drawn at the photo's ``size``; what the input did not hold is −inf."""
    y = torch.from_numpy((np.arange(size[0]) - matrix[1, 2]) / matrix[1, 1]).float()
    x = torch.from_numpy((np.arange(size[1]) - matrix[0, 2]) / matrix[0, 0]).float()
    height, width = values.shape
    across = (2 * (x + 0.5) / width - 1)[None].expand(size)
    down = (2 * (y + 0.5) / height - 1)[:, None].expand(size)
    grid = torch.stack([across, down], -1)
    source = torch.from_numpy(np.nan_to_num(np.asarray(values, np.float32)))[None, None]
    drawn = F.grid_sample(source, grid[None], mode="bilinear", padding_mode="border", align_corners=False)[
        0, 0
    ].numpy()
    outside = ((y < -0.5) | (y > height - 0.5))[:, None] | ((x < -0.5) | (x > width - 0.5))[None]
    drawn[outside.numpy()] = -np.inf
    return np.asarray(drawn)


def smoothed(values: np.ndarray[Any, Any], sigma: float) -> np.ndarray[Any, Any]:
    """A Gaussian blur of a map ``[H, W]``, its edge repeated outside; ``sigma`` in pixels."""
    radius = max(1, int(np.ceil(2 * sigma)))
    at = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (at / sigma) ** 2)
    kernel = torch.from_numpy(weights / weights.sum()).float()
    known = np.where(np.isfinite(values), values, 0).astype(np.float32)
    padded = F.pad(torch.from_numpy(known)[None, None], (radius,) * 4, mode="replicate")
    rows = F.conv2d(padded, kernel.view(1, 1, -1, 1))
    found = F.conv2d(rows, kernel.view(1, 1, 1, -1))[0, 0].numpy()
    return np.where(np.isneginf(values), -np.inf, found)


@dataclass(frozen=True)
class CausalProtocol:
    """RISE's: ``pixels`` a step (224: one row's worth at 224×224), ``blur`` the deviation of insertion's start."""

    pixels: int = 224
    blur: float = 5.0


def causal_areas(
    model: Model,
    pictures: Sequence[Any],
    methods: str | Sequence[MethodLike],
    protocol: CausalProtocol | None = None,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, dict[str, list[float]]]:
    """RISE's deletion and insertion of the predicted class, ``{measure: {method: [area of each picture]}}``."""
    protocol = protocol or CausalProtocol()
    chosen = list(methods_for(methods, slow=True).values())
    found: dict[str, dict[str, list[float]]] = {"deletion": {}, "insertion": {}}
    for number, source in enumerate(pictures):
        one = explain(model, source, chosen, resize="plain")
        names, values = list(one), np.stack([heatmap.values for heatmap in one.values()])
        steps = -(-values[0].size // protocol.pixels)
        target = one.prediction[0]["index"]
        with scoring(model, one.fitted, target, many_more_follow=True) as scored:
            scored.fills["blur"] = blurred(scored.inputs, protocol.blur)
            areas: Mapping[str, list[faithfulness.Curve]] = {
                "deletion": faithfulness.deletion(values, scored.filled("mean"), steps=steps),
                "insertion": faithfulness.insertion(values, scored.filled("blur"), steps=steps),
            }
        for measure, curves in areas.items():
            for name, curve in zip(names, curves, strict=True):
                found[measure].setdefault(name, []).append(curve.area)
        if progress is not None:
            progress(number + 1, len(pictures))
    return found
