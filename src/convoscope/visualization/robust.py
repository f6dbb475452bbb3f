"""The recipe for networks that were trained on their worst pictures: few steps of one length, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..methods.settings import setting
from .recipe import Making, Recipe, RecipeAbout, Setup

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Santurkar(Recipe):
    """Projected gradient ascent in pixels, from a blurred natural texture, no further than ``radius`` from it.

    Nothing keeps the picture natural but the network itself: a robust one (adversarially trained) makes things that
    people recognise of it, an ordinary one makes noise. All lengths are root mean squares over the values of the
    picture, in 0..1. The paper starts from a Gaussian that is fitted to pictures of the class; this starts from a
    natural spectrum with random phases, which holds nothing of the class (``image=`` starts from a picture).
    """

    about = RecipeAbout(
        "santurkar", "Synthesis with a robust network", "the score's picture, where the network is a robust one",
        "Santurkar, Ilyas, Tsipras, Engstrom, Tran & Madry, Image Synthesis with a Single (Robust) Classifier, "
        "NeurIPS 2019",
        "@inproceedings{santurkar2019image, title={Image Synthesis with a Single (Robust) Classifier}, "
        "author={Santurkar, Shibani and Ilyas, Andrew and Tsipras, Dimitris and Engstrom, Logan and Tran, Brandon and "
        "Madry, Aleksander}, booktitle={NeurIPS}, year={2019}}",
    )  # fmt: skip

    steps: int = setting(120, "Steps of the ascent.", minimum=1)
    rate: float = setting(0.004, "Length of the first step; it falls to a fifth.", minimum=0)
    radius: float = setting(0.15, "How far the picture may go from where it starts.", minimum=0)
    contrast: float = setting(0.25, "Contrast of the first texture, as a share of a picture's.", minimum=0, maximum=1)
    blur: float = setting(3.0, "Deviation of its blur, in pixels.", minimum=0)
    jitter: int = setting(4, "Random shift of every step, in pixels.", minimum=0)
    settle: float = setting(1.0, "Share of the steps, at the end, in which a class that is not everywhere first "
                            "ascends its lead over the others.", minimum=0, maximum=1)  # fmt: skip

    def begin(self, setup: Setup) -> Making:
        from . import filters
        from .images import Phase, Values
        from .optimisers import Lengths
        from .transforms import Rolled

        preprocessing = setup.preprocessing
        start = setup.start
        if start is None:
            assert setup.spectrum is not None
            texture = Phase(setup.spectrum(setup.size), setup.size, preprocessing, setup.randoms).inputs().detach()
            start = filters.blur(texture, self.blur) if self.blur > 0 else texture
            start = self.contrast * start
        first: Tensor = preprocessing.denormalise(start).clamp(0, 1)
        return Making(
            Values(first, preprocessing), Lengths(first, self.rate, self.radius, setup.steps), Rolled(self.jitter)
        )
