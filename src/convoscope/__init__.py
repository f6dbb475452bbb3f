"""Convoscope: a microscope for convolutional networks.

The public names are imported lazily, so that ``import convoscope`` (and ``convoscope --help``) needs no torch.
Rooms are nouns (``explanation``, ``surveys``, ``visualization``), functions are verbs: no module hides a function.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .version import __version__ as __version__

#: public name -> the module it lives in
_PUBLIC = {
    "explain": "explanation", "Explanation": "results", "Explanations": "results",
    "Heatmap": "results", "Plan": "results",
    "open_model": "models.opening", "wrap": "models.model", "Model": "models.model", "layers": "models.model",
    "Picture": "pictures.picture", "Preprocessing": "pictures.picture",
    "filters": "methods.views", "activations": "methods.views",
    "METHODS": "methods", "Method": "methods", "Saliency": "methods", "InputXGradient": "methods",
    "IntegratedGradients": "methods", "SmoothGrad": "methods", "VarGrad": "methods",
    "Deconvnet": "methods", "GuidedBackprop": "methods",
    "CAM": "methods", "GradCAM": "methods", "GradCAMPlusPlus": "methods", "HiResCAM": "methods",
    "XGradCAM": "methods", "LayerCAM": "methods", "EigenCAM": "methods", "FullGrad": "methods",
    "GuidedGradCAM": "methods", "Occlusion": "methods", "RISE": "methods", "LIME": "methods", "ScoreCAM": "methods",
    "AblationCAM": "methods", "ExtremalPerturbation": "methods",
    "visualize": "visualization", "visualize_frames": "visualization",
    "Visualization": "visualization", "Visualizations": "visualization",
    "Direction": "targets.combinations", "Combination": "targets.combinations",
    "AttentionRollout": "methods", "AttentionGradient": "methods",
    "survey": "surveys.gather.driver", "Store": "surveys.store.store",
    "audit": "improve.audit", "diagnose": "improve.diagnose", "Diagnosis": "improve.diagnose",
    "shortcuts": "improve.shortcuts.find", "Shortcuts": "improve.shortcuts.result",
    "repair": "improve.repair.api", "Repaired": "improve.repair.result",
    "health": "improve.units", "stress": "improve.stress", "depth": "improve.depth",
    "diff": "improve.diff", "Diff": "improve.diff", "Watch": "improve.watch",
    "LRP": "methods", "GradientSHAP": "methods", "DeepSHAP": "methods",
    "ConvoscopeError": "errors", "UsageError": "errors", "ModelError": "errors", "PictureError": "errors",
    "TargetError": "errors", "LayerError": "errors", "MethodRefused": "errors",
}  # fmt: skip

if TYPE_CHECKING:
    from .explanation import explain as explain
    from .improve.audit import audit as audit
    from .improve.depth import depth as depth
    from .improve.diagnose import diagnose as diagnose
    from .improve.diff import diff as diff
    from .improve.repair.api import repair as repair
    from .improve.repair.result import Repaired as Repaired
    from .improve.shortcuts.find import shortcuts as shortcuts
    from .improve.shortcuts.result import Shortcuts as Shortcuts
    from .improve.stress import stress as stress
    from .improve.units import health as health
    from .improve.watch import Watch as Watch
    from .methods.views import activations as activations
    from .methods.views import filters as filters
    from .models.model import Model as Model
    from .models.model import layers as layers
    from .models.model import wrap as wrap
    from .models.opening import open_model as open_model
    from .surveys.gather.driver import survey as survey
    from .surveys.store.store import Store as Store
    from .visualization import visualize as visualize
    from .visualization import visualize_frames as visualize_frames


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'convoscope' has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_PUBLIC[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*_PUBLIC, "__version__"})


__all__ = sorted([*_PUBLIC, "__version__"])
