"""The optional packages: which extra brings each, and the one sentence where it is missing."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType

from .errors import MissingExtra

#: extra -> {module: package that brings it}
EXTRAS: dict[str, dict[str, str]] = {
    "timm": {"timm": "timm"},
    "hf": {"transformers": "transformers"},
    "survey": {
        "lance": "pylance",
        "pyarrow": "pyarrow",
        "filelock": "filelock",
        "faiss": "faiss-cpu",
        "openTSNE": "openTSNE",
        "sklearn": "scikit-learn",
        "plotly": "plotly",
    },
    "superpixels": {"skimage": "scikit-image"},
    "tiff": {"tifffile": "tifffile"},
    "umap": {"umap": "umap-learn"},
    "web": {"fastapi": "fastapi", "uvicorn": "uvicorn", "multipart": "python-multipart", "plotly": "plotly"},
    "ray": {"ray": "ray", "fsspec": "fsspec", "s3fs": "s3fs"},
}


def need(module: str, why: str) -> ModuleType:
    """The optional module, imported.

    Args:
        module: the module's name, ``sklearn.cluster``.
        why: what needs it, as a sentence begins: ``"A survey's store"``.

    Raises:
        MissingExtra: it is not installed; the sentence names the package and the extra.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise (missing(error, why) or error) from None


def missing(error: ImportError, why: str = "This") -> MissingExtra | None:
    """The sentence for an import that failed because an extra is not installed; ``None`` for any other import."""
    root = (error.name or "").partition(".")[0]
    for extra, needed in EXTRAS.items():
        if root in needed and not installed(root):
            return MissingExtra(needed[root], extra, why)
    return None


def installed(module: str) -> bool:
    """Whether a module can be imported, without importing it."""
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False
