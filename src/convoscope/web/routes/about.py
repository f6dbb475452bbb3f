"""What the page is told of the network when it opens."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..state import AppState


def about(app_state: AppState) -> dict[str, Any]:
    """The network, its layers and classes, the collection, and which optional parts are there."""
    from ...explanation import DEFAULT_METHODS
    from ...plain import plain
    from ...version import __version__

    model = app_state.model
    watched = model.watched()
    return {
        "name": model.name,
        "spec": app_state.title or model.name,
        "weights": None if model.weights is None else str(model.weights).replace("\\", "/").rsplit("/", 1)[-1],
        "fingerprint": model.fingerprint,
        "kind": kind(app_state),
        "device": str(model.device),
        "dtype": str(model.dtype).removeprefix("torch."),
        "parameters": sum(p.numel() for p in model.module.parameters()),
        "layers": len(watched.layers),
        "classes": list(model.labels) if model.labels is not None else None,
        "input": list(model.preprocessing.size) if model.preprocessing.size else None,
        "preprocessing": plain(model.preprocessing.to_dict()),
        "last_grid": watched.last_grid,
        "notes": list(model.notes),
        "default_methods": list(DEFAULT_METHODS),
        "survey": None if app_state.gathered is None else plain(app_state.gathered.summary()),
        "can": {
            "survey": _has("lance") and _has("faiss"),
            "tsne": _has("openTSNE"),
            "umap": _has("umap"),
            "plot": _has("plotly"),
        },
        "against": None if app_state.rival is None else app_state.rival.model.name,
        "version": __version__,
        "stamp": app_state.version + app_state.survey_stamp,
    }


def kind(app_state: AppState) -> str:
    """What kind of answer the network gives, seen on a blank picture."""
    import numpy as np

    from ... import ask as probe

    size = app_state.model.preprocessing.size or (224, 224)
    blank = np.full((*size, app_state.model.preprocessing.channels), 128, np.uint8)
    try:
        return probe.read(app_state.model, blank, count=1).kind
    except Exception:
        # a detector that finds nothing in a blank picture has no target to score
        return "other"


def _has(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
