"""What a recipe is: plain settings, and the parts that it gives to the loop. No torch at the top."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ..methods.settings import setting

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ..pictures.picture import Preprocessing
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
