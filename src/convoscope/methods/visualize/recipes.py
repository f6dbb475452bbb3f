"""Recipes: how pictures are made, kept natural and climbed, each with its paper and its settings.

A recipe is a frozen dataclass of plain settings; ``begin`` builds what the loop needs. No torch at the top: listing
recipes is instant.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ...errors import UsageError
from .. import _read
from ..base import setting

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ...pictures import Preprocessing
    from .images import Image, Randoms
    from .optimisers import Optimiser
    from .transforms import Views


@dataclass(frozen=True)
class RecipeAbout:
    """What a person is told of a recipe."""

    name: str
    title: str
    shows: str
    paper: str
    bibtex: str


@dataclass(eq=False)
class Setup:
    """What a recipe starts from. ``start`` ``[B, C, H, W]`` is normalised; ``None``: a recipe's own beginning."""

    preprocessing: Preprocessing
    size: tuple[int, int]
    count: int
    randoms: Randoms
    steps: int
    device: torch.device
    start: Tensor | None = None
    spectrum: Callable[[tuple[int, int]], Tensor] | None = None


@dataclass(eq=False)
class Making:
    """What the loop runs: the image, how a step is taken, the views it is seen from, what it pays for."""

    image: Image
    optimiser: Optimiser
    views: Views | None = None
    #: subtracted from each item's score: ``[B]`` of the network's input (of :class:`.images.Pixels` only)
    penalty: Callable[[Tensor], Tensor] | None = None
    #: called after each step with the step's number and the gradients at the parameters
    after: Callable[[int, list[Tensor]], None] | None = None
    #: called before each step (DeepDream grows the picture here)
    before: Callable[[int], None] | None = None
    #: keep the gradients at the picture, for the transparency map
    transparency: bool = False
    #: what an item's result is to state beside the settings
    facts: Callable[[], list[dict[str, Any]]] | None = None
    #: steps in which a class that hardly beats chance is woken by the redirected gradient
    wake: int = 64
    #: called with the items that are being woken
    rouse: Callable[[Tensor], None] | None = None


@dataclass(frozen=True)
class Recipe:
    """Base of all recipes."""

    about: ClassVar[RecipeAbout]

    steps: int = setting(256, "Steps of the ascent.", minimum=1)

    def begin(self, setup: Setup) -> Making:
        """The parts for one batch."""
        raise NotImplementedError


@dataclass(frozen=True)
class Simonyan(Recipe):
    """``I* = argmax f(I) - λ‖I‖²`` in the network's input space, by gradient ascent from faint noise.

    The paper gives no numbers. With ``l2=None`` λ follows the gradient's size in the first half of the steps, such
    that the optimum has a deviation of 0.7 (never below 0.001): the picture then fits into 0..255 whatever the scale
    of the network's scores. For the second half λ stands, and the result states it. A ``l2`` given is kept.
    """

    about = RecipeAbout(
        "simonyan", "Class model visualisation", "the picture that the score wants, by the formula alone",
        "Simonyan, Vedaldi & Zisserman, Deep Inside Convolutional Networks, ICLR Workshop 2014",
        "@inproceedings{simonyan2014deep, title={Deep Inside Convolutional Networks: Visualising Image Classification "
        "Models and Saliency Maps}, author={Simonyan, Karen and Vedaldi, Andrea and Zisserman, Andrew}, "
        "booktitle={ICLR Workshop}, year={2014}}",
    )  # fmt: skip

    steps: int = setting(200, "Steps of the ascent.", minimum=1)
    l2: float | None = setting(None, "λ, the weight of the squared norm; none: found (see above).", minimum=0)
    pull: float = setting(0.05, "Share of the picture that λ takes away in a step: the step size times 2λ.", minimum=0,
                          maximum=1)  # fmt: skip
    noise: float = setting(0.01, "Deviation of the first noise (at exact zero some classes have no gradient).", minimum=0)

    def begin(self, setup: Setup) -> Making:
        import torch

        from .images import Pixels
        from .optimisers import Ascent

        start = setup.start
        if start is None:
            start = setup.randoms.normal(setup.preprocessing.channels, *setup.size) * self.noise
        image = Pixels(start)
        least = 1e-3
        weights = torch.full((setup.count,), least if self.l2 is None else self.l2, device=setup.device)
        # without a penalty there is no scale for a step but the one it has at its least
        ascent = Ascent(self.pull / (2 * weights.clamp(min=least if not self.l2 else 0.0)))

        def penalty(inputs: Tensor) -> Tensor:
            return weights * inputs.double().flatten(1).pow(2).sum(1)

        def after(step: int, gradients: list[Tensor]) -> None:
            if self.l2 is None and step % 5 == 4 and step < setup.steps // 2:
                # where the score's gradient g stays as it is the optimum is g / 2λ: its deviation is set to 0.7
                (pixels,) = image.parameters
                slope = gradients[0] + 2 * weights.to(pixels).view(-1, 1, 1, 1) * pixels.detach()
                size = slope.flatten(1).pow(2).mean(1).sqrt()
                weights.copy_((size / (2 * 0.7)).clamp(min=least))
                ascent.restart(self.pull / (2 * weights))

        def facts() -> list[dict[str, Any]]:
            return [{"l2": weight} for weight in weights.tolist()]

        return Making(image, ascent, penalty=penalty, after=after, facts=facts)


#: θ_decay, θ_b_width, θ_b_every, θ_n_pct, θ_c_pct of the four styles in Table 1 of the paper
STYLES = {
    "sparse": (0.0, 0.5, 4, 50.0, 0.0),
    "decayed": (0.3, 0.0, 0, 20.0, 0.0),
    "smooth": (0.0001, 1.0, 4, 0.0, 0.0),
    "contributing": (0.0, 0.5, 4, 0.0, 90.0),
}


@dataclass(frozen=True)
class Yosinski(Recipe):
    """Decay, blur every few steps, and pixels of small norm or small contribution set to nought.

    ``style`` is a row of the paper's Table 1; each number can be set by itself. Every step is clipped to 0..255.
    """

    about = RecipeAbout(
        "yosinski", "Regularised class visualisation", "the score's picture, kept natural by decay, blur and clipping",
        "Yosinski, Clune, Nguyen, Fuchs & Lipson, Understanding Neural Networks Through Deep Visualization, "
        "ICML DL Workshop 2015",
        "@inproceedings{yosinski2015understanding, title={Understanding Neural Networks Through Deep Visualization}, "
        "author={Yosinski, Jason and Clune, Jeff and Nguyen, Anh and Fuchs, Thomas and Lipson, Hod}, "
        "booktitle={ICML Deep Learning Workshop}, year={2015}}",
    )  # fmt: skip

    steps: int = setting(300, "Steps of the ascent.", minimum=1)
    style: str = setting("smooth", "Row of the paper's Table 1.", choices=tuple(STYLES))
    decay: float | None = setting(None, "θ_decay: share that every pixel loses a step.", minimum=0, maximum=1)
    blur: float | None = setting(None, "θ_b_width: deviation of the Gaussian blur, in pixels.", minimum=0)
    every: int | None = setting(None, "θ_b_every: blur every n steps; 0 never.", minimum=0)
    norm: float | None = setting(None, "θ_n_pct: percentile of pixel norm below which pixels are nought.", minimum=0,
                                 maximum=100)  # fmt: skip
    contribution: float | None = setting(None, "θ_c_pct: the same for |contribution|.", minimum=0, maximum=100)
    gain: float = setting(2.0, "Gain of the score that a step is to promise.", minimum=0)
    limit: float = setting(100.0, "Largest step size.", minimum=0)
    noise: float = setting(10.0, "Deviation of the first noise, in levels of 255.", minimum=0)

    def begin(self, setup: Setup) -> Making:
        import torch

        from . import filters
        from .images import Pixels
        from .optimisers import Progress

        row = STYLES[self.style]
        given = (self.decay, self.blur, self.every, self.norm, self.contribution)
        decay, width, every, norm, contribution = (r if g is None else g for r, g in zip(row, given, strict=True))
        low, high = (filters.bound(setup.preprocessing, edge, setup.device) for edge in (0.0, 1.0))
        start = setup.start
        if start is None:
            levels = self.noise / 255 / torch.tensor(setup.preprocessing.std).view(-1, 1, 1).to(setup.device)
            start = setup.randoms.normal(setup.preprocessing.channels, *setup.size) * levels
        image = Pixels(start)

        def after(step: int, gradients: list[Tensor]) -> None:
            (pixels,), (gradient,) = image.parameters, gradients
            with torch.no_grad():
                values = pixels * (1 - decay)
                if every and width > 0 and step % int(every) == 0:
                    values = filters.blur(values, width)
                if norm > 0:
                    values = filters.drop(values, values.norm(dim=1), norm)
                if contribution > 0:
                    values = filters.drop(values, (gradient * values).sum(1).abs(), contribution)
                pixels.copy_(torch.minimum(torch.maximum(values, low), high))

        return Making(image, Progress(self.gain, self.limit), after=after)


@dataclass(frozen=True)
class Fourier(Recipe):
    """Decorrelated Fourier and colour space, Adam, and robustness to jitter, scale and rotation."""

    about = RecipeAbout(
        "fourier", "Feature visualisation", "the score's picture in a space where all frequencies are as easy to reach",
        "Olah, Mordvintsev & Schubert, Feature Visualization, Distill 2017",
        "@article{olah2017feature, title={Feature Visualization}, author={Olah, Chris and Mordvintsev, Alexander and "
        "Schubert, Ludwig}, journal={Distill}, year={2017}, doi={10.23915/distill.00007}}",
    )  # fmt: skip

    steps: int = setting(512, "Steps of the ascent.", minimum=1)
    rate: float = setting(0.05, "Adam's step size.", minimum=0)
    decay: float = setting(1.0, "Power of 1/f by which frequencies are weighted.", minimum=0)
    deviation: float = setting(0.01, "Deviation of the first coefficients.", minimum=0)
    jitter: int = setting(8, "Random shift before scaling, in pixels.", minimum=0)
    scale: float = setting(0.1, "Random scale: 1 ± this.", minimum=0, maximum=0.9)
    rotate: int = setting(10, "Random rotation: ± degrees.", minimum=0, maximum=180)
    jitter_after: int = setting(4, "Random shift after rotating, in pixels.", minimum=0)

    def begin(self, setup: Setup) -> Making:
        from .images import Fourier as Coefficients
        from .optimisers import Adam
        from .transforms import Shaken

        image = Coefficients(
            setup.size, setup.preprocessing, setup.randoms, decay=self.decay, deviation=self.deviation
        )
        if setup.start is not None:
            image.start_from(setup.start)
        views = Shaken(setup.preprocessing, setup.size, self.jitter, self.scale, self.rotate, self.jitter_after)
        return Making(image, Adam(self.rate), views)


@dataclass(frozen=True)
class Maco(Recipe):
    """Only the phases are climbed, the magnitudes are those of natural pictures; crops and noise; Nadam."""

    about = RecipeAbout(
        "maco", "MACO", "the score's picture among those with a natural spectrum, with what mattered made opaque",
        "Fel et al., Unlocking Feature Visualization for Deeper Networks with MAgnitude Constrained Optimization, "
        "NeurIPS 2023",
        "@inproceedings{fel2023unlocking, title={Unlocking Feature Visualization for Deeper Networks with MAgnitude "
        "Constrained Optimization}, author={Fel, Thomas and Boissin, Thibaut and Boutin, Victor and Picard, Agustin "
        "and Novello, Paul and Colin, Julien and Linsley, Drew and Rousseau, Tom and Cad{\\`e}ne, R{\\'e}mi and "
        "Goetschalckx, Lore and others}, booktitle={NeurIPS}, year={2023}}",
    )  # fmt: skip

    steps: int = setting(256, "Steps of the ascent.", minimum=1)
    rate: float = setting(1.0, "Nadam's step size.", minimum=0)
    crops: int = setting(6, "Random crops a step.", minimum=1)
    first: float = setting(1.0, "Mean side of a crop at the first step, as a share of the picture.", minimum=0.05,
                           maximum=1)  # fmt: skip
    last: float = setting(0.8, "The same at the last step.", minimum=0.05, maximum=1)
    spread: float = setting(0.05, "Deviation of the side.", minimum=0)
    noise: float = setting(0.08, "Noise added to the crops, for values in -1..1.", minimum=0)

    def begin(self, setup: Setup) -> Making:
        from .images import Phase
        from .optimisers import Adam
        from .transforms import Crops

        assert setup.spectrum is not None
        image = Phase(setup.spectrum(setup.size), setup.size, setup.preprocessing, setup.randoms)
        views = Crops(setup.preprocessing, setup.size, self.first, self.last, self.spread, self.noise, self.crops)
        return Making(image, Adam(self.rate, epsilon=1e-7, nesterov=True), views, transparency=True,
                      rouse=image.rouse)  # fmt: skip


@dataclass(frozen=True)
class Mahendran(Recipe):
    """Pixels, with a penalty on their size (α-norm) and on their roughness (total variation); for inversion.

    λs are relative: to the mean of |x|^α and of the squared differences of neighbours of a picture that fills the
    range of values, as the paper normalises them.
    """

    about = RecipeAbout(
        "mahendran", "Regularised inversion", "a natural picture with given features",
        "Mahendran & Vedaldi, Understanding Deep Image Representations by Inverting Them, CVPR 2015",
        "@inproceedings{mahendran2015understanding, title={Understanding Deep Image Representations by Inverting Them}, "
        "author={Mahendran, Aravindh and Vedaldi, Andrea}, booktitle={CVPR}, year={2015}}",
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
        "Rony et al., Decoupling Direction and Norm for Efficient Gradient-Based L2 Adversarial Attacks and Defenses, "
        "CVPR 2019",
        "@inproceedings{rony2019decoupling, title={Decoupling Direction and Norm for Efficient Gradient-Based L2 "
        "Adversarial Attacks and Defenses}, author={Rony, J{\\'e}r{\\^o}me and Hafemann, Luiz G. and Oliveira, Luiz S. "
        "and Ben Ayed, Ismail and Sabourin, Robert and Granger, Eric}, booktitle={CVPR}, year={2019}}",
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


RECIPES: dict[str, type[Recipe]] = {
    kind.about.name: kind for kind in (Simonyan, Yosinski, Fourier, Maco, Mahendran, Dream, Smallest)
}


def recipe(name: str | Recipe | type[Recipe], settings: Mapping[str, Any] | None = None) -> Recipe:
    """A recipe by name, class or instance, with settings (strings are read as the field's type).

    Raises :class:`UsageError` that names the nearest recipe, or the settings there are.
    """
    if isinstance(name, Recipe):
        return dataclasses.replace(name, **_checked(type(name), settings or {}))
    kind = name if isinstance(name, type) else RECIPES.get(str(name).strip().lower())
    if kind is None:
        near = difflib.get_close_matches(str(name).lower(), RECIPES, 1, 0.4)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise UsageError(f"There is no recipe {name!r}.{hint} Recipes are {', '.join(RECIPES)}.")
    return kind(**_checked(kind, settings or {}))


def _checked(kind: type[Recipe], settings: Mapping[str, Any]) -> dict[str, Any]:
    import typing

    fields = {f.name: f for f in dataclasses.fields(kind)}
    hints = typing.get_type_hints(kind)
    read = {}
    for name, value in settings.items():
        found = fields.get(name.replace("-", "_"))
        if found is None:
            raise UsageError(f"The recipe {kind.about.name} has no setting {name!r}; it has: {', '.join(fields)}.")
        read[found.name] = _read(kind.about.name, found, hints[found.name], value)
    return read
