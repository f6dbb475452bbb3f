"""Class activation maps: a layer's channels, weighted by what the score makes of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..engine.passes.needs import Activation, Gradient
from .base import About, Maps, Method, Part, Query, setting

if TYPE_CHECKING:
    from torch import Tensor

    from .base import Steps

_LAYER = "layer whose grid is drawn (default: the last grid before the class scores)"


@dataclass(frozen=True)
class WeightedLayer(Method):
    """Base of the methods that weigh a layer's activations by their gradients: subclasses write ``weigh``."""

    #: one weight a channel, whatever the place: things of one kind cannot be told apart
    spreads: ClassVar[bool] = False
    layer: str | None = setting(None, _LAYER)
    parts: int = setting(0, "keep this many of the strongest channel × weight maps", minimum=0)

    def weigh(self, activation: Tensor, gradient: Tensor) -> Tensor:
        """The weights, ``[B, C, 1, 1]`` or ``[B, C, h, w]``."""
        raise NotImplementedError

    def steps(self, query: Query) -> Steps:
        here = query.layer(self.layer)
        activation, gradient = Activation(here), Gradient(here)
        got = yield activation, gradient
        a = query.planes(here, got[activation]).float()
        g = query.planes(here, got[gradient]).float()
        weights = self.weigh(a, g)
        grid = (weights * a).sum(1)
        signed = self.about.signed
        maps = query.heatmap(
            grid if signed else grid.clamp(min=0), at=here, signed=signed, unit=self.about.unit,
            reduction=self.about.reduction,
        )  # fmt: skip
        if not signed:
            doubt_blank(maps, grid, g)
        doubt_noise(maps, grid, a, g)
        if self.spreads and getattr(query.target, "one_place", False):
            for row in range(len(grid)):
                maps.doubt(
                    row,
                    f"{self.about.title} weighs a channel alike everywhere, so it shows all of a kind, not this one: "
                    "use layercam or hirescam.",
                )
        if self.parts:
            maps.parts = strongest(weights, a, self.parts)
        return maps


def doubt_blank(maps: Maps, grid: Tensor, gradient: Tensor | None = None) -> None:
    """Say why maps are blank after their ReLU: a classifier that weighs cells one by one is not seen by one weight a
    channel; ``gradient`` ``[B, C, h, w]``, where given, tells whether the score depends on the layer at all."""
    for row in range(len(grid)):
        if float(grid[row].max()) > 0:
            continue
        negative = bool((grid[row] < 0).any())
        if negative or (gradient is not None and bool(gradient[row].any())):
            how = "all is negative before it" if negative else "no positive weight is left"
            maps.doubt(
                row,
                f"Blank after its ReLU ({how}): the layer's evidence, summed so, speaks against the target. Where the "
                "classifier weighs cells one by one, see hirescam, which keeps both signs.",
            )


#: below this share of what was summed, a sum in float32 is rounding
_NOISE = 3e-6


def doubt_noise(maps: Maps, grid: Tensor, activation: Tensor, gradient: Tensor) -> None:
    """Say where all of a map lies at the level of rounding, beside what its layer's sums were made of."""
    scale = (gradient.abs().mean((2, 3), keepdim=True) * activation.abs()).sum(1).flatten(1).amax(1)
    for row, (most, size) in enumerate(zip(grid.abs().flatten(1).amax(1).tolist(), scale.tolist(), strict=True)):
        if 0 < most < _NOISE * size:
            maps.doubt(
                row,
                f"Noise: the map's largest value ({most:.1e}) is rounding beside what was summed ({size:.1e}): nothing "
                "is left of it. Choose another layer.",
            )


def strongest(weights: Tensor, activation: Tensor, count: int) -> list[list[Part]]:
    """The ``count`` channels with the largest |weight × activation| summed over the grid, for every picture."""
    products = (weights * activation).cpu()
    order = products.flatten(2).abs().sum(2).argsort(1, descending=True)[:, :count]
    factors = weights.expand_as(activation).flatten(2).mean(2).cpu()
    return [
        [Part(int(c), float(factors[row, c]), products[row, c]) for c in channels]
        for row, channels in enumerate(order.tolist())
    ]


@dataclass(frozen=True)
class GradCAM(WeightedLayer):
    """Channels weighted by the spatial mean of their gradient, then a ReLU (Selvaraju et al. 2017)."""

    about: ClassVar[About] = About(
        name="grad-cam",
        title="Grad-CAM",
        shows="where the layer holds evidence for the target",
        paper="Selvaraju et al.: Grad-CAM. ICCV 2017",
        bibtex=(
            "@inproceedings{selvaraju2017grad, title={Grad-CAM: Visual Explanations from Deep Networks via "
            "Gradient-based Localization}, author={Selvaraju, Ramprasaath R. and Cogswell, Michael and Das, Abhishek "
            "and Vedantam, Ramakrishna and Parikh, Devi and Batra, Dhruv}, booktitle={ICCV}, year={2017}}"
        ),
        signed=False,
        unit="score per cell",
        reduction="ReLU of the weighted sum over channels",
    )

    spreads: ClassVar[bool] = True

    def weigh(self, activation: Tensor, gradient: Tensor) -> Tensor:
        return gradient.mean((2, 3), keepdim=True)


@dataclass(frozen=True)
class GradCAMPlusPlus(WeightedLayer):
    """Positive gradients weighted by second-order shares (Chattopadhyay et al. 2018).

    The closed form for an exponential of the score: α = g² / (2g² + Σ A · g³), computed as 1 / (2 + Σ A · g): the
    squares of small gradients (1e-7 and less on common networks) would drown in any constant added to them.
    """

    about: ClassVar[About] = About(
        name="grad-cam++",
        title="Grad-CAM++",
        shows="Grad-CAM that covers several instances and whole objects better",
        paper="Chattopadhyay, Sarkar, Howlader, Balasubramanian: Grad-CAM++. WACV 2018",
        bibtex=(
            "@inproceedings{chattopadhyay2018grad, title={Grad-CAM++: Generalized Gradient-Based Visual Explanations "
            "for Deep Convolutional Networks}, author={Chattopadhyay, Aditya and Sarkar, Anirban and Howlader, "
            "Prantik and Balasubramanian, Vineeth N.}, booktitle={WACV}, year={2018}}"
        ),
        signed=False,
        unit="score per cell",
        reduction="ReLU of the weighted sum over channels",
    )

    spreads: ClassVar[bool] = True

    def weigh(self, activation: Tensor, gradient: Tensor) -> Tensor:
        import torch

        denominator = 2 + activation.sum((2, 3), keepdim=True) * gradient
        # only an exact zero is guarded
        share = torch.where(denominator == 0, torch.zeros_like(denominator), 1 / denominator)
        return (gradient.clamp(min=0) * share).sum((2, 3), keepdim=True)


@dataclass(frozen=True)
class HiResCAM(WeightedLayer):
    """Activation times gradient, cell by cell, signed (Draelos & Carin 2020): faithful on one linear head."""

    about: ClassVar[About] = About(
        name="hirescam",
        title="HiResCAM",
        shows="what each cell adds to or takes from the score",
        paper="Draelos, Carin: Use HiResCAM instead of Grad-CAM. arXiv:2011.08891, 2020",
        bibtex=(
            "@article{draelos2020hirescam, title={Use HiResCAM Instead of Grad-CAM for Faithful Explanations of "
            "Convolutional Neural Networks}, author={Draelos, Rachel Lea and Carin, Lawrence}, "
            "journal={arXiv:2011.08891}, year={2020}}"
        ),
        signed=True,
        unit="score per cell",
        reduction="sum over channels",
    )

    def weigh(self, activation: Tensor, gradient: Tensor) -> Tensor:
        return gradient


@dataclass(frozen=True)
class XGradCAM(WeightedLayer):
    """Gradients weighted by each channel's share of its own activation (Fu et al. 2020)."""

    about: ClassVar[About] = About(
        name="xgrad-cam",
        title="XGrad-CAM",
        shows="Grad-CAM with weights chosen for sensitivity and conservation",
        paper="Fu, Hu, Dong, Guo, Gao, Li: Axiom-based Grad-CAM. BMVC 2020",
        bibtex=(
            "@inproceedings{fu2020axiom, title={Axiom-based Grad-CAM: Towards Accurate Visualization and Explanation "
            "of CNNs}, author={Fu, Ruigang and Hu, Qingyong and Dong, Xiaohu and Guo, Yulan and Gao, Yinghui and Li, "
            "Biao}, booktitle={BMVC}, year={2020}}"
        ),
        signed=False,
        unit="score per cell",
        reduction="ReLU of the weighted sum over channels",
    )

    spreads: ClassVar[bool] = True

    def weigh(self, activation: Tensor, gradient: Tensor) -> Tensor:
        import torch

        total = activation.sum((2, 3), keepdim=True)
        share = (gradient * activation).sum((2, 3), keepdim=True) / total
        # only an exact zero is guarded: a channel that is silent everywhere says nothing
        return torch.where(total == 0, torch.zeros_like(share), share)


@dataclass(frozen=True)
class LayerCAM(WeightedLayer):
    """Activation times the positive part of the gradient, cell by cell (Jiang et al. 2021)."""

    about: ClassVar[About] = About(
        name="layercam",
        title="LayerCAM",
        shows="evidence for the target with fine detail, also in early layers",
        paper="Jiang, Zhang, Hou, Cheng, Wei: LayerCAM. IEEE TIP 2021",
        bibtex=(
            "@article{jiang2021layercam, title={LayerCAM: Exploring Hierarchical Class Activation Maps for "
            "Localization}, author={Jiang, Peng-Tao and Zhang, Chang-Bin and Hou, Qibin and Cheng, Ming-Ming and "
            "Wei, Yunchao}, journal={IEEE Transactions on Image Processing}, year={2021}}"
        ),
        signed=False,
        unit="score per cell",
        reduction="ReLU of the weighted sum over channels",
    )

    def weigh(self, activation: Tensor, gradient: Tensor) -> Tensor:
        return gradient.clamp(min=0)


@dataclass(frozen=True)
class EigenCAM(Method):
    """The layer's activations projected on their first principal component (Muhammad & Yeasin 2020); no class."""

    about: ClassVar[About] = About(
        name="eigen-cam",
        title="Eigen-CAM",
        shows="what dominates the layer, whatever the target",
        paper="Muhammad, Yeasin: Eigen-CAM. IJCNN 2020",
        bibtex=(
            "@inproceedings{muhammad2020eigen, title={Eigen-CAM: Class Activation Map Using Principal Components}, "
            "author={Muhammad, Mohammed Bany and Yeasin, Mohammed}, booktitle={IJCNN}, year={2020}}"
        ),
        signed=True,
        unit="activation",
        reduction="projection on the first principal component, its sign towards the stronger activation",
        cost="1 forward",
    )
    layer: str | None = setting(None, _LAYER)

    def steps(self, query: Query) -> Steps:
        import torch

        here = query.layer(self.layer)
        need = Activation(here)
        got = yield need
        a = query.planes(here, got[need]).float().cpu()
        size, _, height, width = a.shape
        cells = a.flatten(2).transpose(1, 2)
        # a layer that overflowed on one picture takes no other along
        lost = ~cells.flatten(1).isfinite().all(1)
        cells = torch.where(lost[:, None, None], torch.zeros_like(cells), cells)
        centred = cells - cells.mean(1, keepdim=True)
        grid = _first_component(centred)
        # a principal component has no sign of its own: bright is where the layer is more active
        energy = cells.sum(2)
        sign = torch.sign((grid * (energy - energy.mean(1, keepdim=True))).sum(1, keepdim=True))
        grid = grid * torch.where(sign == 0, torch.ones_like(sign), sign)
        grid = torch.where(lost[:, None], torch.full_like(grid, torch.nan), grid)
        return query.heatmap(
            grid.view(size, height, width),
            at=here,
            signed=True,
            unit=self.about.unit,
            reduction=self.about.reduction,
        )


@dataclass(frozen=True)
class GuidedGradCAM(Method):
    """Guided backpropagation times Grad-CAM, raised to the input's resolution (Selvaraju et al. 2017)."""

    about: ClassVar[About] = About(
        name="guided-grad-cam",
        title="Guided Grad-CAM",
        shows="fine structure inside the regions that speak for the target",
        paper="Selvaraju et al.: Grad-CAM. ICCV 2017",
        bibtex=GradCAM.about.bibtex,
        signed=False,
        unit="(score per input unit) × (score per cell)",
        reduction="max |·| over channels",
        cost="1 forward, 2 backwards",
        rule="guided",
    )
    layer: str | None = setting(None, _LAYER)

    def steps(self, query: Query) -> Steps:
        here = query.layer(self.layer)
        activation, gradient, guided = Activation(here), Gradient(here), Gradient(rule="guided")
        got = yield activation, gradient, guided
        a = query.planes(here, got[activation]).float()
        g = query.planes(here, got[gradient]).float()
        grid = (g.mean((2, 3), keepdim=True) * a).sum(1).clamp(min=0).cpu()
        cam = query.heatmap(grid, at=here, signed=False, unit="")
        doubt_blank(cam, (g.mean((2, 3), keepdim=True) * a).sum(1))
        maps = query.pixels(got[guided].float().cpu() * cam.values[:, None], signed=False, unit=self.about.unit)
        return Maps(
            maps.values,
            False,
            self.about.unit,
            maps.reduction,
            None,
            maps.raw,
            here,
            cam.geometry,
            cam.doubts,
        )


def _first_component(centred: Tensor) -> Tensor:
    """Each cell's share of the first principal component, ``[B, cells, channels]`` to ``[B, cells]``.

    By the smaller of the two products of the matrix with itself, in double precision: a tenth of the time of a
    singular value decomposition, of which all other components would be thrown away.
    """
    import torch

    x = centred.double()
    if x.shape[1] <= x.shape[2]:
        values, vectors = torch.linalg.eigh(x @ x.mT)
        first: Tensor = vectors[:, :, -1] * values[:, -1:].clamp(min=0).sqrt()
    else:
        first = (x @ torch.linalg.eigh(x.mT @ x)[1][:, :, -1:]).squeeze(2)
    return first.float()
