"""Class and unit visualisation: objective × parameterisation × transforms × recipe.

``objectives`` say what is maximised, ``images`` what a picture is made of, ``transforms`` from where it is seen,
``recipes`` put them together as published, ``optimise`` takes the steps. Importing this package imports no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .recipes import RECIPES, Dream, Fourier, Maco, Mahendran, Recipe, Santurkar, Simonyan, Smallest, Yosinski, recipe
from .result import Frame, Visualization, Visualizations

if TYPE_CHECKING:
    from .api import OBJECTIVES as OBJECTIVES
    from .api import visualize as visualize
    from .api import visualize_frames as visualize_frames

_LAZY = {"visualize": "api", "visualize_frames": "api", "OBJECTIVES": "api", "DEFAULT_RECIPES": "api"}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_LAZY[name]}", __name__), name)
    globals()[name] = value
    return value


__all__ = [
    "RECIPES", "Dream", "Fourier", "Frame", "Maco", "Mahendran", "Recipe", "Santurkar", "Simonyan", "Smallest",
    "Visualization", "Visualizations", "Yosinski", "recipe", "visualize", "visualize_frames",
]  # fmt: skip
