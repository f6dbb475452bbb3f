"""The methods: one small file per technique family. Importing this package imports no torch."""

from __future__ import annotations

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
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
        return dataclasses.replace(name, **checked(type(name), settings or {})) if settings else name
    kind = name if isinstance(name, type) else METHODS.get(str(name).strip().lower())
    if kind is None:
        near = difflib.get_close_matches(str(name).lower(), METHODS, 3, 0.4)
        hint = f" Did you mean {', '.join(near)}?" if near else ""
        raise UsageError(f"There is no method {name!r}.{hint} `convoscope methods` lists all.")
    return kind(**checked(kind, settings or {}))


def checked(kind: type[Method], settings: Mapping[str, Any]) -> dict[str, Any]:
    """``settings`` with every value read as its field's type and held to its limits."""
    fields = {f.name: f for f in dataclasses.fields(kind)}
    hints = typing.get_type_hints(kind)
    read = {}
    for name, value in settings.items():
        field = fields.get(name.replace("-", "_"))
        if field is None:
            known = ", ".join(fields) or "no settings"
            raise UsageError(f"{kind.about.name} has no setting {name!r}; it has: {known}.")
        read[field.name] = _read(kind.about.name, field, hints[field.name], value)
    return read


def _read(owner: str, field: dataclasses.Field[Any], hint: Any, value: Any) -> Any:
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    label = f"{owner}.{field.name}"
    if value is None or (isinstance(value, str) and value.lower() == "none" and type(None) in kinds):
        if type(None) in kinds:
            return None
        raise UsageError(f"{label} needs a value.")
    kind = next(k for k in kinds if k is not type(None))
    try:
        if kind is bool and isinstance(value, str):
            value = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False,
                     "off": False}[value.lower()]  # fmt: skip
        elif typing.get_origin(kind) is None and not isinstance(value, kind):
            value = kind(value)
    except (KeyError, TypeError, ValueError):
        raise UsageError(f"{label} must be {getattr(kind, '__name__', kind)}, not {value!r}.") from None
    limits = field.metadata
    choices = limits.get("choices")
    if choices and value not in choices:
        raise UsageError(f"{label} must be {' or '.join(map(str, choices))}, not {value!r}.")
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        low, high = limits.get("minimum"), limits.get("maximum")
        if (low is not None and not value >= low) or (high is not None and not value <= high):
            above = f"at least {low}" if high is None else f"in {low}..{high}"
            raise UsageError(f"{label} must be {above}, not {value}.")
    return value


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
                **{k: (list(v) if isinstance(v, tuple) else v) for k, v in f.metadata.items()},
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
    "XGradCAM",
    "checked",
    "describe",
    "method",
]  # fmt: skip
