"""Recipes: how pictures are made, kept natural and optimised, each with its paper and its settings.

A recipe is a frozen dataclass of plain settings; ``begin`` builds what the loop needs. No torch at the top: listing
recipes is instant.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from ..methods.settings import parse_settings, setting
from .changes import Dream, Mahendran, Smallest
from .recipe import Making, Recipe, RecipeAbout, Setup
from .robust import Santurkar

if TYPE_CHECKING:
    from torch import Tensor


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
        "@inproceedings{simonyan2014deep, title={Deep Inside Convolutional Networks: Visualising Image "
        "Classification Models and Saliency Maps}, author={Simonyan, Karen and Vedaldi, Andrea and "
        "Zisserman, Andrew}, "
        "booktitle={ICLR Workshop}, year={2014}}",
    )  # fmt: skip

    steps: int = setting(200, "Steps of the ascent.", minimum=1)
    l2: float | None = setting(None, "λ, the weight of the squared norm; none: found (see above).", minimum=0)
    pull: float = setting(0.05, "Share of the picture that λ takes away a step: step size times 2λ.", minimum=0,
                          maximum=1)  # fmt: skip
    noise: float = setting(
        0.01, "Deviation of the first noise (at exact zero some classes have no gradient).", minimum=0
    )

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
    """Decay, blur every few steps, and pixels of small norm or small contribution set to zero.

    ``style`` is a row of the paper's Table 1; each number can be set by itself. Every step is clipped to 0..255.
    """

    about = RecipeAbout(
        "yosinski", "Regularised class visualisation", "the score's picture, kept natural by decay and blur",
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
    norm: float | None = setting(None, "θ_n_pct: percentile of pixel norm below which pixels are zero.", minimum=0,
                                 maximum=100)  # fmt: skip
    contribution: float | None = setting(None, "θ_c_pct: the same for |contribution|.", minimum=0, maximum=100)
    gain: float = setting(2.0, "Gain of the score that a step is to promise.", minimum=0)
    patience: int = setting(15, "Steps after which the rate of a score that has not risen is doubled; 0 never.",
                            minimum=0)  # fmt: skip
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

        return Making(image, Progress(self.gain, self.limit, self.patience, self.steps * 3 // 4), after=after)


@dataclass(frozen=True)
class Fourier(Recipe):
    """Decorrelated Fourier and colour space, Adam, and robustness to jitter, scale and rotation."""

    about = RecipeAbout(
        "fourier", "Feature visualisation", "the score's picture where all frequencies are as easy to reach",
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
    settle: float = setting(0.25, "Share of the steps, at the end, in which a class that is not everywhere first "
                            "ascends its lead over the others.", minimum=0, maximum=1)  # fmt: skip

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
    """Only the phases are maximised, the magnitudes are those of natural pictures; crops and noise; Nadam."""

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
    settle: float = setting(0.25, "Share of the steps, at the end, in which a class that is not everywhere first "
                            "ascends its lead over the others.", minimum=0, maximum=1)  # fmt: skip

    def begin(self, setup: Setup) -> Making:
        from .images import Phase
        from .optimisers import Adam
        from .transforms import Crops

        assert setup.spectrum is not None
        image = Phase(setup.spectrum(setup.size), setup.size, setup.preprocessing, setup.randoms)
        views = Crops(setup.preprocessing, setup.size, self.first, self.last, self.spread, self.noise, self.crops)
        return Making(image, Adam(self.rate, epsilon=1e-7, nesterov=True), views, transparency=True,
                      rouse=image.rouse)  # fmt: skip


RECIPES: dict[str, type[Recipe]] = {
    kind.about.name: kind for kind in (Simonyan, Yosinski, Fourier, Maco, Santurkar, Mahendran, Dream, Smallest)
}


def recipe(name: str | Recipe | type[Recipe], settings: Mapping[str, Any] | None = None) -> Recipe:
    """A recipe by name, class or instance, with settings (strings are read as the field's type).

    Raises :class:`UsageError` that names the nearest recipe, or the settings there are.
    """
    if isinstance(name, Recipe):
        return dataclasses.replace(name, **parse_settings(type(name), settings or {}, "The recipe "))
    kind = name if isinstance(name, type) else RECIPES.get(str(name).strip().lower())
    if kind is None:
        near = difflib.get_close_matches(str(name).lower(), RECIPES, 1, 0.4)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise UsageError(f"There is no recipe {name!r}.{hint} Recipes are {', '.join(RECIPES)}.")
    return kind(**parse_settings(kind, settings or {}, "The recipe "))


__all__ = [
    "RECIPES",
    "STYLES",
    "Dream",
    "Fourier",
    "Maco",
    "Mahendran",
    "Recipe",
    "Santurkar",
    "Simonyan",
    "Smallest",
    "Yosinski",
    "recipe",
]
