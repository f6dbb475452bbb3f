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
    "explain": "explanation",
    "Explanation": "results", "Explanations": "results", "Heatmap": "heatmap", "Plan": "heatmap",
    "open_model": "models.opening",
    "wrap": "models.model", "Model": "models.model", "layers": "models.layers",
    "Picture": "pictures.picture", "Preprocessing": "pictures.picture",
    "filters": "methods.views", "activations": "methods.views",
    "METHODS": "methods", "Method": "methods", "Saliency": "methods", "InputXGradient": "methods",
    "IntegratedGradients": "methods", "SmoothGrad": "methods", "VarGrad": "methods", "Deconvnet": "methods",
    "GuidedBackprop": "methods", "CAM": "methods", "GradCAM": "methods", "GradCAMPlusPlus": "methods",
    "HiResCAM": "methods", "XGradCAM": "methods", "LayerCAM": "methods", "EigenCAM": "methods",
    "FullGrad": "methods", "GuidedGradCAM": "methods", "Occlusion": "methods", "RISE": "methods",
    "LIME": "methods", "ScoreCAM": "methods", "AblationCAM": "methods", "ExtremalPerturbation": "methods",
    "AttentionRollout": "methods", "AttentionGradient": "methods", "LRP": "methods", "GradientSHAP": "methods",
    "DeepSHAP": "methods",
    "visualize": "visualization", "visualize_frames": "visualization", "Visualization": "visualization",
    "Visualizations": "visualization",
    "Direction": "targets.combinations", "Combination": "targets.combinations",
    "survey": "surveys.gather.driver",
    "Store": "surveys.store.store",
    "audit": "improve.audit",
    "diagnose": "improve.diagnose", "Diagnosis": "improve.diagnose",
    "shortcuts": "improve.shortcuts.find",
    "Shortcuts": "improve.shortcuts.result",
    "repair": "improve.repair.api",
    "Repaired": "improve.repair.result",
    "health": "improve.units",
    "stress": "improve.stress",
    "depth": "improve.depth",
    "diff": "improve.diff", "Diff": "improve.diff",
    "Watch": "improve.watch",
    "ConvoscopeError": "errors", "UsageError": "errors", "ModelError": "errors", "PictureError": "errors",
    "TargetError": "errors", "LayerError": "errors", "MethodRefused": "errors",
    "dissect": "concepts.dissection", "Dissection": "concepts.dissection",
    "tcav": "concepts.directions",
    "craft": "concepts.craft", "Craft": "concepts.craft",
    "name_units": "concepts.words", "Words": "concepts.words",
    "Finding": "improve.finding",
    "evaluate": "trust.evaluate",
    "report": "reports.report",
    "serve": "web.inline", "Served": "web.inline",
    "explain_folder": "folder.run",
    "tune_allocator": "allocator",
    "Instance": "targets", "Segment": "targets", "Likeness": "targets", "Target": "targets",
}  # fmt: skip

if TYPE_CHECKING:
    from .allocator import tune_allocator as tune_allocator
    from .concepts.craft import Craft as Craft
    from .concepts.craft import craft as craft
    from .concepts.directions import tcav as tcav
    from .concepts.dissection import Dissection as Dissection
    from .concepts.dissection import dissect as dissect
    from .concepts.words import Words as Words
    from .concepts.words import name_units as name_units
    from .errors import ConvoscopeError as ConvoscopeError
    from .errors import LayerError as LayerError
    from .errors import MethodRefused as MethodRefused
    from .errors import ModelError as ModelError
    from .errors import PictureError as PictureError
    from .errors import TargetError as TargetError
    from .errors import UsageError as UsageError
    from .explanation import explain as explain
    from .folder.run import explain_folder as explain_folder
    from .heatmap import Heatmap as Heatmap
    from .heatmap import Plan as Plan
    from .improve.audit import audit as audit
    from .improve.depth import depth as depth
    from .improve.diagnose import Diagnosis as Diagnosis
    from .improve.diagnose import diagnose as diagnose
    from .improve.diff import Diff as Diff
    from .improve.diff import diff as diff
    from .improve.finding import Finding as Finding
    from .improve.repair.api import repair as repair
    from .improve.repair.result import Repaired as Repaired
    from .improve.shortcuts.find import shortcuts as shortcuts
    from .improve.shortcuts.result import Shortcuts as Shortcuts
    from .improve.stress import stress as stress
    from .improve.units import health as health
    from .improve.watch import Watch as Watch
    from .methods import CAM as CAM
    from .methods import LIME as LIME
    from .methods import LRP as LRP
    from .methods import METHODS as METHODS
    from .methods import RISE as RISE
    from .methods import AblationCAM as AblationCAM
    from .methods import AttentionGradient as AttentionGradient
    from .methods import AttentionRollout as AttentionRollout
    from .methods import Deconvnet as Deconvnet
    from .methods import DeepSHAP as DeepSHAP
    from .methods import EigenCAM as EigenCAM
    from .methods import ExtremalPerturbation as ExtremalPerturbation
    from .methods import FullGrad as FullGrad
    from .methods import GradCAM as GradCAM
    from .methods import GradCAMPlusPlus as GradCAMPlusPlus
    from .methods import GradientSHAP as GradientSHAP
    from .methods import GuidedBackprop as GuidedBackprop
    from .methods import GuidedGradCAM as GuidedGradCAM
    from .methods import HiResCAM as HiResCAM
    from .methods import InputXGradient as InputXGradient
    from .methods import IntegratedGradients as IntegratedGradients
    from .methods import LayerCAM as LayerCAM
    from .methods import Method as Method
    from .methods import Occlusion as Occlusion
    from .methods import Saliency as Saliency
    from .methods import ScoreCAM as ScoreCAM
    from .methods import SmoothGrad as SmoothGrad
    from .methods import VarGrad as VarGrad
    from .methods import XGradCAM as XGradCAM
    from .methods.views import activations as activations
    from .methods.views import filters as filters
    from .models.layers import layers as layers
    from .models.model import Model as Model
    from .models.model import wrap as wrap
    from .models.opening import open_model as open_model
    from .pictures.picture import Picture as Picture
    from .pictures.picture import Preprocessing as Preprocessing
    from .reports.report import report as report
    from .results import Explanation as Explanation
    from .results import Explanations as Explanations
    from .surveys.gather.driver import survey as survey
    from .surveys.store.store import Store as Store
    from .targets import Instance as Instance
    from .targets import Likeness as Likeness
    from .targets import Segment as Segment
    from .targets import Target as Target
    from .targets.combinations import Combination as Combination
    from .targets.combinations import Direction as Direction
    from .trust.evaluate import evaluate as evaluate
    from .visualization import Visualization as Visualization
    from .visualization import Visualizations as Visualizations
    from .visualization import visualize as visualize
    from .visualization import visualize_frames as visualize_frames
    from .web.inline import Served as Served
    from .web.inline import serve as serve


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'convoscope' has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_PUBLIC[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*_PUBLIC, "__version__"})


__all__ = sorted([*_PUBLIC, "__version__"])
