"""The methods: one small file per technique family. Importing this package imports no torch."""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import UsageError
from .attention import AttentionGradient, AttentionRollout
from .base import About, Maps, Method, Part, Query
from .cam import CAM
from .cams import EigenCAM, GradCAM, GradCAMPlusPlus, GuidedGradCAM, HiResCAM, LayerCAM, XGradCAM
from .extremal import ExtremalPerturbation
from .fullgrad import FullGrad
from .gradients import Deconvnet, GuidedBackprop, InputXGradient, IntegratedGradients, Saliency, SmoothGrad
from .lrp import LRP
from .occlusion import Occlusion
from .random_masks import LIME, RISE
from .score_cams import AblationCAM, ScoreCAM
from .settings import parse_settings
from .shap import DeepSHAP, GradientSHAP
from .vargrad import VarGrad

#: every method by its name, from the model to the data
METHODS: dict[str, type[Method]] = {
    kind.about.name: kind
    for kind in (
        Saliency, InputXGradient, IntegratedGradients, SmoothGrad, VarGrad, Deconvnet, GuidedBackprop, CAM, GradCAM,
        GradCAMPlusPlus, HiResCAM, XGradCAM, LayerCAM, EigenCAM, FullGrad, GuidedGradCAM, Occlusion,
        GradientSHAP, DeepSHAP, LRP, AttentionRollout, AttentionGradient, RISE, LIME, ScoreCAM,
        AblationCAM, ExtremalPerturbation,
    )
}  # fmt: skip


def method(name: str | Method | type[Method], settings: Mapping[str, Any] | None = None) -> Method:
    """A method by name, class or instance, with settings (strings are read as the field's type).

    Raises :class:`UsageError` that names the nearest method or the field's choices.
    """
    if isinstance(name, Method):
        return dataclasses.replace(name, **parse_settings(type(name), settings)) if settings else name
    kind = name if isinstance(name, type) else METHODS.get(str(name).strip().lower())
    if kind is None:
        near = difflib.get_close_matches(str(name).lower(), METHODS, 3, 0.4)
        hint = f" Did you mean {', '.join(near)}?" if near else ""
        raise UsageError(f"There is no method {name!r}.{hint} `convoscope methods` lists all.")
    if not issubclass(kind, Method):
        raise UsageError(f"{kind.__name__} is no method: derive it from convoscope.Method.")
    return kind(**parse_settings(kind, settings or {}))


def bibtex(names: Iterable[str]) -> str:
    """BibTeX of the methods' papers, each entry once, in the order of ``names``.

    ``grad-cam@layer2`` is Grad-CAM; names that are no method are passed over.
    """
    entries = dict.fromkeys(
        METHODS[name.partition("@")[0]].about.bibtex.strip() for name in names if name.partition("@")[0] in METHODS
    )
    return "\n\n".join(entry for entry in entries if entry) + "\n"


def describe() -> list[dict[str, Any]]:
    """All methods as plain data: what they show, cost, sign, reduction, paper, BibTeX, settings."""
    rows = []
    for name, kind in METHODS.items():
        about = dataclasses.asdict(kind.about)
        hints = typing.get_type_hints(kind)
        about["settings"] = [
            {
                "name": f.name,
                "type": str(getattr(hints[f.name], "__name__", hints[f.name])),
                "default": f.default,
                **{k: (list(v) if isinstance(v, tuple) else v) for k, v in f.metadata.items() if not callable(v)},
            }
            for f in dataclasses.fields(kind)
        ]
        rows.append({**about, "name": name})
    return rows


__all__ = [
    "CAM",
    "LIME",
    "LRP",
    "METHODS",
    "RISE",
    "AblationCAM",
    "About",
    "AttentionGradient",
    "AttentionRollout",
    "Deconvnet",
    "DeepSHAP",
    "EigenCAM",
    "ExtremalPerturbation",
    "FullGrad",
    "GradCAM",
    "GradCAMPlusPlus",
    "GradientSHAP",
    "GuidedBackprop",
    "GuidedGradCAM",
    "HiResCAM",
    "InputXGradient",
    "IntegratedGradients",
    "LayerCAM",
    "Maps",
    "Method",
    "Occlusion",
    "Part",
    "Query",
    "Saliency",
    "ScoreCAM",
    "SmoothGrad",
    "VarGrad",
    "XGradCAM",
    "checked",
    "describe",
    "method",
]  # fmt: skip
