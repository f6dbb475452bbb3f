"""Convoscope: a microscope for convolutional networks.

The public names are imported lazily, so that ``import convoscope`` (and ``convoscope --help``) needs no torch.
"""

from __future__ import annotations

import importlib
import sys
import types
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

#: public name -> the module it lives in
_PUBLIC = {
    "explain": "explain", "Explanation": "results", "Explanations": "results",
    "Heatmap": "results", "Plan": "results",
    "open_model": "opening", "wrap": "models", "Model": "models", "layers": "models",
    "Picture": "pictures", "Preprocessing": "pictures", "filters": "methods.views", "activations": "methods.views",
    "METHODS": "methods", "Method": "methods", "Saliency": "methods", "InputXGradient": "methods",
    "IntegratedGradients": "methods", "SmoothGrad": "methods", "VarGrad": "methods",
    "Deconvnet": "methods", "GuidedBackprop": "methods",
    "CAM": "methods", "GradCAM": "methods", "GradCAMPlusPlus": "methods", "HiResCAM": "methods",
    "XGradCAM": "methods", "LayerCAM": "methods", "EigenCAM": "methods", "FullGrad": "methods",
    "GuidedGradCAM": "methods", "Occlusion": "methods", "RISE": "methods", "LIME": "methods", "ScoreCAM": "methods",
    "AblationCAM": "methods", "ExtremalPerturbation": "methods",
    "visualize": "methods.visualize", "visualize_frames": "methods.visualize",
    "Visualization": "methods.visualize", "Visualizations": "methods.visualize",
    "Direction": "combine", "Combination": "combine",
    "AttentionRollout": "methods", "AttentionGradient": "methods",
    "survey": "survey", "Store": "survey.store",
    "LRP": "methods", "GradientSHAP": "methods", "DeepSHAP": "methods",
    "ConvoscopeError": "errors", "UsageError": "errors", "ModelError": "errors", "PictureError": "errors",
    "TargetError": "errors", "LayerError": "errors", "MethodRefused": "errors",
}  # fmt: skip

if TYPE_CHECKING:
    from .explain import explain as explain
    from .methods.views import activations as activations
    from .methods.views import filters as filters
    from .methods.visualize import visualize as visualize
    from .methods.visualize import visualize_frames as visualize_frames
    from .models import Model as Model
    from .models import layers as layers
    from .models import wrap as wrap
    from .opening import open_model as open_model
    from .survey.driver import survey as survey
    from .survey.store import Store as Store


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'convoscope' has no attribute {name!r}")
    module = importlib.import_module(f".{_PUBLIC[name]}", __name__)
    # the package of surveys is itself callable: it is the function, and holds Store and the rest
    value = module if name == "survey" else getattr(module, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*_PUBLIC, "__version__"})


class _Package(types.ModuleType):
    """Some public functions are named as the module they live in (``explain``): the name is the function's.

    Importing a submodule binds it in its package, which would hide the function from then on.
    """

    def __setattr__(self, name: str, value: Any) -> None:
        if not (isinstance(value, types.ModuleType) and name in _PUBLIC):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package

__all__ = sorted([*_PUBLIC, "__version__"])
