"""Methods on the pixels: what the score's gradient, under one rule or another, says of the input."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..engine.passes.needs import Gradient, Scores
from .base import About, Maps, Method, Query, setting

if TYPE_CHECKING:
    from torch import Tensor

    from .base import Steps


@dataclass(frozen=True)
class Saliency(Method):
    """|∂score/∂pixel|, the maximum over channels (Simonyan et al. 2014)."""

    about: ClassVar[About] = About(
        name="saliency",
        title="Saliency",
        shows="the pixels to which the score is most sensitive",
        paper="Simonyan, Vedaldi, Zisserman: Deep Inside Convolutional Networks. ICLR workshop 2014",
        bibtex=(
            "@inproceedings{simonyan2014deep, title={Deep Inside Convolutional Networks: Visualising Image "
            "Classification Models and Saliency Maps}, author={Simonyan, Karen and Vedaldi, Andrea and Zisserman, "
            "Andrew}, booktitle={ICLR Workshop}, year={2014}}"
        ),
        signed=False,
        unit="score per input unit",
        reduction="max |·| over channels",
    )

    def steps(self, query: Query) -> Steps:
        need = Gradient()
        got = yield need
        return query.pixels(got[need], signed=False, unit=self.about.unit)


@dataclass(frozen=True)
class Deconvnet(Method):
    """The gradient with ReLU's backward pass replaced by a ReLU of the gradient (Zeiler & Fergus 2014)."""

    about: ClassVar[About] = About(
        name="deconvnet",
        title="Deconvnet",
        shows="the picture's structure that positive signals trace back to, whatever the forward ReLUs said",
        paper="Zeiler, Fergus: Visualizing and Understanding Convolutional Networks. ECCV 2014",
        bibtex=(
            "@inproceedings{zeiler2014visualizing, title={Visualizing and Understanding Convolutional Networks}, "
            "author={Zeiler, Matthew D. and Fergus, Rob}, booktitle={ECCV}, year={2014}}"
        ),
        signed=False,
        unit="score per input unit",
        reduction="max |·| over channels",
        rule="deconvnet",
    )

    def steps(self, query: Query) -> Steps:
        need = Gradient(rule="deconvnet")
        got = yield need
        return query.pixels(got[need], signed=False, unit=self.about.unit)


@dataclass(frozen=True)
class GuidedBackprop(Method):
    """The gradient, passed at a ReLU only where it and the activation are positive (Springenberg et al. 2015)."""

    about: ClassVar[About] = About(
        name="guided-backprop",
        title="Guided backprop",
        shows="fine structure that excites the score; nearly blind to the class and to the weights",
        paper="Springenberg, Dosovitskiy, Brox, Riedmiller: Striving for Simplicity. ICLR workshop 2015",
        bibtex=(
            "@inproceedings{springenberg2015striving, title={Striving for Simplicity: The All Convolutional Net}, "
            "author={Springenberg, Jost Tobias and Dosovitskiy, Alexey and Brox, Thomas and Riedmiller, Martin}, "
            "booktitle={ICLR Workshop}, year={2015}}"
        ),
        signed=False,
        unit="score per input unit",
        reduction="max |·| over channels",
        rule="guided",
    )

    def steps(self, query: Query) -> Steps:
        need = Gradient(rule="guided")
        got = yield need
        return query.pixels(got[need], signed=False, unit=self.about.unit)


@dataclass(frozen=True)
class InputXGradient(Method):
    """Input times gradient, summed over channels (Shrikumar et al. 2016)."""

    about: ClassVar[About] = About(
        name="input-x-gradient",
        title="Input × gradient",
        shows="each pixel's share of the score, were the network linear",
        paper="Shrikumar, Greenside, Shcherbina, Kundaje: Not Just a Black Box. arXiv:1605.01713, 2016",
        bibtex=(
            "@article{shrikumar2016not, title={Not Just a Black Box: Learning Important Features Through Propagating "
            "Activation Differences}, author={Shrikumar, Avanti and Greenside, Peyton and Shcherbina, Anna and "
            "Kundaje, Anshul}, journal={arXiv:1605.01713}, year={2016}}"
        ),
        signed=True,
        unit="score",
        reduction="sum over channels",
    )

    def steps(self, query: Query) -> Steps:
        need = Gradient()
        got = yield need
        return query.pixels(got[need] * query.inputs, signed=True, unit=self.about.unit)


@dataclass(frozen=True)
class IntegratedGradients(Method):
    """Gradients summed along the straight path from a baseline, times the way gone (Sundararajan et al. 2017).

    Gauss-Legendre quadrature. The completeness residual, the share of score(x) − score(baseline) that the map's sum
    misses, stands in the result; above 5 % it is a doubt.
    """

    about: ClassVar[About] = About(
        name="integrated-gradients",
        title="Integrated gradients",
        shows="each pixel's share of the score's difference from a baseline picture",
        paper="Sundararajan, Taly, Yan: Axiomatic Attribution for Deep Networks. ICML 2017",
        bibtex=(
            "@inproceedings{sundararajan2017axiomatic, title={Axiomatic Attribution for Deep Networks}, "
            "author={Sundararajan, Mukund and Taly, Ankur and Yan, Qiqi}, booktitle={ICML}, year={2017}}"
        ),
        signed=True,
        unit="score",
        reduction="sum over channels",
        cost="one forward and backward a step",
    )
    nodes: int = setting(50, "steps of the quadrature", minimum=1, maximum=5000)
    baseline: str = setting(
        "mean", "where the path starts: mean (of the data set, zero in the input), black, white, blur",
        choices=("mean", "black", "white", "blur"),
    )  # fmt: skip

    def steps(self, query: Query) -> Steps:
        import numpy as np
        import torch

        start = baseline(query, self.baseline)
        ends = Scores()
        begins = Scores(start)
        got = yield ends, begins
        difference = got[ends].cpu() - got[begins].cpu()
        at, weights = np.polynomial.legendre.leggauss(self.nodes)
        way = query.inputs - start
        total = torch.zeros_like(query.inputs, dtype=torch.float32)
        # as many steps at once as the batch size allows: memory stays bounded, passes stay full
        group = max(1, query.model.batch_size // len(query.inputs))
        for first in range(0, self.nodes, group):
            places = at[first : first + group]
            inputs = torch.cat([start + way * float((1 + x) / 2) for x in places])
            need = Gradient(inputs=inputs)
            got = yield need
            parts = got[need].float().view(len(places), *query.inputs.shape)
            share = torch.tensor(weights[first : first + group] / 2, dtype=torch.float32, device=parts.device)
            total += torch.einsum("k,k...->...", share, parts)
            query.progress(first + len(places), self.nodes)
        maps = query.pixels(total * way, signed=True, unit=self.about.unit)
        _completeness(maps, maps.values.flatten(1).sum(1), difference)
        return maps


def _completeness(maps: Maps, total: Tensor, difference: Tensor) -> None:
    residual = ((total - difference).abs() / difference.abs().clamp(min=1e-6)).tolist()
    maps.fact("completeness_residual", residual)
    for row, share in enumerate(residual):
        if share > 0.05:
            maps.doubt(row, f"Completeness: the map's sum misses {share:.0%} of the score's difference; add steps.")


def baseline(query: Query, kind: str) -> Tensor:
    """A baseline picture for every input, in the input space: ``mean``, ``black``, ``white`` or ``blur``."""
    import torch

    inputs = query.inputs
    if kind == "mean":
        return torch.zeros_like(inputs)
    if kind == "blur":
        from .fills import blurred

        return blurred(inputs)
    level = torch.full_like(inputs, 0.0 if kind == "black" else 1.0)
    return query.model.preprocessing.normalise(level)


@dataclass(frozen=True)
class SmoothGrad(Method):
    """The mean gradient over noisy copies of the picture (Smilkov et al. 2017).

    ``of`` averages another map over the same noise: input × gradient, or integrated gradients of each noisy copy, as
    captum's noise tunnel does; these keep their sign and are summed over channels.
    """

    about: ClassVar[About] = About(
        name="smoothgrad",
        title="SmoothGrad",
        shows="saliency with the gradient's shot noise averaged out",
        paper="Smilkov, Thorat, Kim, Viégas, Wattenberg: SmoothGrad. arXiv:1706.03825, 2017",
        bibtex=(
            "@article{smilkov2017smoothgrad, title={SmoothGrad: Removing Noise by Adding Noise}, author={Smilkov, "
            "Daniel and Thorat, Nikhil and Kim, Been and Vi{\\'e}gas, Fernanda and Wattenberg, Martin}, "
            "journal={arXiv:1706.03825}, year={2017}}"
        ),
        signed=False,
        unit="score per input unit",
        reduction="max |·| over channels",
        cost="one forward and backward a sample",
    )
    samples: int = setting(25, "noisy copies", minimum=1, maximum=5000)
    noise: float = setting(0.15, "standard deviation as a share of the picture's range", minimum=0.0, maximum=10.0)
    squared: bool = setting(False, "average the squares instead")
    of: str = setting(
        "gradient", "what is averaged", choices=("gradient", "input-x-gradient", "integrated-gradients")
    )
    nodes: int = setting(20, "steps of each integrated gradient", minimum=1, maximum=5000)

    def steps(self, query: Query) -> Steps:
        import torch

        if self.of == "integrated-gradients":
            return (yield from self._of_paths(query))
        inputs = query.inputs
        flat = inputs.flatten(1).float()
        spread = ((flat.amax(1) - flat.amin(1)) * self.noise).view(-1, *[1] * (inputs.ndim - 1))
        total = torch.zeros_like(inputs, dtype=torch.float32)
        group = max(1, query.model.batch_size // len(inputs))
        for first in range(0, self.samples, group):
            count = min(group, self.samples - first)
            noisy = [inputs + self._noise(query, first + k).to(inputs) * spread.to(inputs) for k in range(count)]
            need = Gradient(inputs=torch.cat(noisy))
            got = yield need
            parts = got[need].float().view(count, *inputs.shape)
            if self.of == "input-x-gradient":
                parts = parts * torch.stack(noisy).float()
            total += (parts.square() if self.squared else parts).sum(0)
            query.progress(first + count, self.samples)
        return self._drawn(query, total / self.samples)

    def _of_paths(self, query: Query) -> Steps:
        """Integrated gradients of every noisy copy, from the data's mean, averaged."""
        import numpy as np
        import torch

        inputs = query.inputs
        flat = inputs.flatten(1).float()
        spread = ((flat.amax(1) - flat.amin(1)) * self.noise).view(-1, *[1] * (inputs.ndim - 1)).to(inputs)
        at, weights = np.polynomial.legendre.leggauss(self.nodes)
        group = max(1, query.model.batch_size // len(inputs))
        total = torch.zeros_like(inputs, dtype=torch.float32)
        for sample in range(self.samples):
            way = inputs + self._noise(query, sample).to(inputs) * spread  # the data's mean is zero in the input
            mean = torch.zeros_like(total)
            for first in range(0, self.nodes, group):
                places = at[first : first + group]
                need = Gradient(inputs=torch.cat([way * float((1 + x) / 2) for x in places]))
                got = yield need
                parts = got[need].float().view(len(places), *inputs.shape)
                share = torch.tensor(weights[first : first + group] / 2, dtype=torch.float32, device=parts.device)
                mean += torch.einsum("k,k...->...", share, parts)
            one = mean * way
            total += one.square() if self.squared else one
            query.progress(sample + 1, self.samples)
        return self._drawn(query, total / self.samples)

    def _drawn(self, query: Query, values: Tensor) -> Maps:
        if self.of == "gradient":
            return query.pixels(values, signed=False, unit=self.about.unit)
        return query.pixels(values, signed=not self.squared, unit="score²" if self.squared else "score")

    def _noise(self, query: Query, sample: int) -> Tensor:
        """The same noise for every picture of a batch: a picture's map must not depend on its neighbours."""
        import torch

        generator = torch.Generator().manual_seed(query.seed * 1_000_003 + sample)
        return torch.randn(query.inputs.shape[1:], generator=generator)
