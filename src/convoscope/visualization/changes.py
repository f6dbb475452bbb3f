"""Recipes for the objectives that hold on to a picture: inversion, DeepDream, fooling."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..errors import UsageError
from ..methods.settings import setting
from .recipe import Making, Recipe, RecipeAbout, Setup

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Mahendran(Recipe):
    """Pixels, with a penalty on their size (α-norm) and on their roughness (total variation); for inversion.

    λs are relative: to the mean of |x|^α and of the squared differences of neighbours of a picture that fills the
    range of values, as the paper normalises them.
    """

    about = RecipeAbout(
        "mahendran", "Regularised inversion", "a natural picture with given features",
        "Mahendran & Vedaldi, Understanding Deep Image Representations by Inverting Them, CVPR 2015",
        "@inproceedings{mahendran2015understanding, title={Understanding Deep Image Representations by Inverting "
        "Them}, author={Mahendran, Aravindh and Vedaldi, Andrea}, booktitle={CVPR}, year={2015}}",
    )  # fmt: skip

    steps: int = setting(400, "Steps of the ascent.", minimum=1)
    rate: float = setting(0.05, "Adam's first step size; it falls to a twentieth.", minimum=0)
    alpha: float = setting(6.0, "Power of the norm that bounds the pixels.", minimum=1)
    size_weight: float = setting(0.001, "λα, the weight of the norm.", minimum=0)
    variation: float = setting(0.05, "λ of the total variation (β = 2).", minimum=0)
    noise: float = setting(0.1, "Deviation of the first noise.", minimum=0)

    def begin(self, setup: Setup) -> Making:
        from .images import Pixels
        from .optimisers import Adam

        start = setup.start
        if start is None:
            start = setup.randoms.normal(setup.preprocessing.channels, *setup.size) * self.noise

        def penalty(inputs: Tensor) -> Tensor:
            down = inputs[:, :, 1:] - inputs[:, :, :-1]
            across = inputs[:, :, :, 1:] - inputs[:, :, :, :-1]
            rough = down.flatten(1).pow(2).mean(1) + across.flatten(1).pow(2).mean(1)
            return self.size_weight * inputs.flatten(1).abs().pow(self.alpha).mean(1) + self.variation * rough

        return Making(Pixels(start), Adam(self.rate, final=0.05, steps=setup.steps), penalty=penalty)


@dataclass(frozen=True)
class Dream(Recipe):
    """DeepDream: octaves from coarse to fine, steps of one mean size, random shifts; starts from a picture."""

    about = RecipeAbout(
        "dream", "DeepDream", "what a layer sees in a picture, amplified at every scale",
        "Mordvintsev, Olah & Tyka, Inceptionism: Going Deeper into Neural Networks, Google Research Blog 2015",
        "@misc{mordvintsev2015inceptionism, title={Inceptionism: Going Deeper into Neural Networks}, "
        "author={Mordvintsev, Alexander and Olah, Christopher and Tyka, Mike}, year={2015}}",
    )  # fmt: skip

    steps: int = setting(40, "Steps, over all octaves.", minimum=1)
    octaves: int = setting(4, "Sizes from coarse to fine.", minimum=1, maximum=16)
    ratio: float = setting(1.4, "From one octave's size to the next.", minimum=1.01)
    rate: float = setting(1.5, "Mean change of a pixel a step, in levels of 255.", minimum=0)
    jitter: int = setting(32, "Random shift of every step, in pixels.", minimum=0)

    def begin(self, setup: Setup) -> Making:
        from .octaves import Octaves
        from .optimisers import Mean
        from .transforms import Rolled

        if setup.start is None:
            raise UsageError("The recipe dream starts from a picture: give one with image= (--image FILE).")
        image = Octaves(setup.start, setup.preprocessing, self.octaves, self.ratio)

        def before(step: int) -> None:
            image.at(step * self.octaves // max(1, setup.steps))

        deviation = sum(setup.preprocessing.std) / setup.preprocessing.channels
        return Making(image, Mean(self.rate / 255 / deviation), Rolled(self.jitter), before=before)


@dataclass(frozen=True)
class Smallest(Recipe):
    """The smallest change of a picture that makes the network say a class: decoupled direction and norm (DDN)."""

    about = RecipeAbout(
        "ddn", "Fooling picture", "the smallest change that makes the network say something else",
        "Rony et al., Decoupling Direction and Norm for Efficient Gradient-Based L2 Adversarial Attacks and "
        "Defenses, CVPR 2019",
        "@inproceedings{rony2019decoupling, title={Decoupling Direction and Norm for Efficient Gradient-Based L2 "
        "Adversarial Attacks and Defenses}, author={Rony, J{\\'e}r{\\^o}me and Hafemann, Luiz G. and Oliveira, "
        "Luiz S. and Ben Ayed, Ismail and Sabourin, Robert and Granger, Eric}, booktitle={CVPR}, year={2019}}",
    )  # fmt: skip

    steps: int = setting(100, "Steps; the paper uses 100, 300 and 1000.", minimum=1)
    norm: float = setting(1.0, "First norm of the change, for values in 0..1.", minimum=0)
    gamma: float = setting(0.05, "By how much the norm shrinks or grows a step.", minimum=0, maximum=1)

    def begin(self, setup: Setup) -> Making:
        from .images import Values
        from .optimisers import Smallest as Ddn

        if setup.start is None:
            raise UsageError("Fooling changes a picture: give one with image= (--image FILE).")
        values = (setup.preprocessing.denormalise(setup.start) * 255).round().clamp(0, 255) / 255
        image = Values(values, setup.preprocessing)
        return Making(image, Ddn(values.clone(), setup.steps, self.norm, self.gamma))
