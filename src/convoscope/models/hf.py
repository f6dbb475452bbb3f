"""A checkpoint of Hugging Face's transformers that lies in a folder: the network, its preprocessing, its labels."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

from torch import nn

from ..errors import MissingExtra, ModelError
from ..files import read_text
from ..pictures.preprocessing import Preprocessing

#: classes of transformers that open a network by what it is for, the commonest first
_KINDS = ("ImageClassification", "SemanticSegmentation", "ObjectDetection", "ImageFeatureExtraction")


def read_folder(folder: str, weights: str | None = None) -> tuple[nn.Module, Preprocessing, str]:
    """Open ``hf:FOLDER``; nothing is fetched, and no code of the folder is run.

    Args:
        folder: what ``save_pretrained`` wrote: ``config.json``, weights, and ``preprocessor_config.json``.
        weights: ``"none"`` for random ones.

    Returns:
        the network, the preprocessing of its processor, and a name.

    Raises:
        ModelError: there is no such folder, or it cannot be opened.
        MissingExtra: transformers is not installed.
    """
    place = Path(folder).expanduser()
    if not (place / "config.json").is_file():
        raise ModelError(
            f"hf:{folder}: there is no config.json in this folder: name a folder that save_pretrained wrote "
            "(nothing is fetched from a hub)."
        )
    try:
        import transformers
    except ImportError:
        raise MissingExtra("transformers", "hf", f"hf:{folder}") from None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = _network(transformers, place, weights)
    return network.eval(), _preprocessing(place, network), f"hf:{place.name}"


def _network(transformers: Any, place: Path, weights: str | None) -> nn.Module:
    try:
        config = transformers.AutoConfig.from_pretrained(place, local_files_only=True, trust_remote_code=False)
    except Exception as error:
        raise ModelError(f"hf:{place}: its config.json cannot be read ({_first(error)}).") from None
    named = [str(one) for one in (getattr(config, "architectures", None) or [])]
    kinds = sorted(_KINDS, key=lambda kind: not any(kind in one or f"For{kind}" in one for one in named))
    last: Exception | None = None
    for kind in kinds:
        auto = getattr(transformers, f"AutoModelFor{kind}", None) or getattr(transformers, "AutoModel", None)
        if auto is None:
            continue
        try:
            if weights == "none":
                made: nn.Module = auto.from_config(config)
            else:
                made = auto.from_pretrained(
                    place, local_files_only=True, trust_remote_code=False, use_safetensors=None
                )
            return made
        except Exception as error:  # another kind may fit
            last = error
    raise ModelError(f"hf:{place}: transformers cannot open it as a network of pictures ({_first(last)}).")


def _preprocessing(place: Path, network: nn.Module) -> Preprocessing:
    file = place / "preprocessor_config.json"
    said: dict[str, Any] = {}
    if file.is_file():
        try:
            said = json.loads(read_text(file))
        except (OSError, ValueError) as error:
            raise ModelError(f"{file}: cannot be read as JSON ({_first(error)}).") from None
    config: Any = getattr(network, "config", None)
    crop = said.get("crop_size") if said.get("do_center_crop") else None
    size = _size(crop) or _size(said.get("size")) or _size(getattr(config, "image_size", None)) or (224, 224)
    shortest = said.get("size", {}).get("shortest_edge") if isinstance(said.get("size"), dict) else None
    resize = int(shortest) if shortest is not None and crop is not None else None
    channels = int(getattr(config, "num_channels", 3) or 3)
    normal = said.get("do_normalize", bool(said))
    mean = tuple(map(float, said.get("image_mean") or [0.0] * channels)) if normal else (0.0,) * channels
    std = tuple(map(float, said.get("image_std") or [1.0] * channels)) if normal else (1.0,) * channels
    fit = "crop" if resize is not None else "squash"
    way = {0: "nearest", 2: "bilinear", 3: "bicubic"}.get(int(said.get("resample", 2) or 2), "bilinear")
    return Preprocessing(size, resize, fit, mean, std, interpolation=way)  # type: ignore[arg-type]


def _size(said: Any) -> tuple[int, int] | None:
    if isinstance(said, dict):
        if "height" in said and "width" in said:
            return int(said["height"]), int(said["width"])
        edge = said.get("shortest_edge")
        return (int(edge), int(edge)) if edge is not None else None
    if isinstance(said, (list, tuple)) and len(said) == 2:
        return int(said[0]), int(said[1])
    return (int(said), int(said)) if isinstance(said, (int, float)) and said else None


def _first(error: Exception | None) -> str:
    return " ".join(str(error).split())[:160]
