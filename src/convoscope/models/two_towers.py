"""A model with two towers, one for pictures and one for texts (CLIP and its kin), from a folder of transformers."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import MissingExtra, ModelError, UsageError
from ..pictures.picture import Picture
from .hf import _first, _preprocessing

#: pictures or texts that go through a tower at a time
BATCH = 32

F32 = NDArray[np.float32]


class TwoTowers:
    """Pictures and texts in one space, where likeness is the cosine (Radford et al. 2021, CLIP).

    Args:
        folder: ``hf:FOLDER`` or the folder: what ``save_pretrained`` wrote of model and tokenizer. Nothing is
            fetched, and no code of the folder is run.

    Raises:
        ModelError: there is no such folder, or it holds no model with two towers and a tokenizer.
        MissingExtra: transformers is not installed.
    """

    def __init__(self, folder: str) -> None:
        place = Path(folder.removeprefix("hf:")).expanduser()
        if not (place / "config.json").is_file():
            raise ModelError(
                f"hf:{place}: there is no config.json in this folder: name a folder that save_pretrained wrote of a "
                "model with a tower for pictures and one for texts (nothing is fetched from a hub)."
            )
        try:
            import transformers
        except ImportError:
            raise MissingExtra("transformers", "hf", f"hf:{place}") from None
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                model = transformers.AutoModel.from_pretrained(place, local_files_only=True, trust_remote_code=False)
        except Exception as error:
            raise ModelError(f"hf:{place}: transformers cannot open it ({_first(error)}).") from None
        if not hasattr(model, "get_text_features") or not hasattr(model, "get_image_features"):
            raise ModelError(
                f"hf:{place}: a {type(model).__name__} has no tower for pictures and one for texts: bring a model such "
                "as CLIP or SigLIP."
            )
        try:
            self.tokenizer = transformers.AutoTokenizer.from_pretrained(
                place, local_files_only=True, trust_remote_code=False
            )
        except Exception as error:
            raise ModelError(f"hf:{place}: its tokenizer cannot be opened ({_first(error)}).") from None
        self.name = place.name
        self.model = model.eval().requires_grad_(False)
        vision = getattr(model, "vision_model", model)
        self.preprocessing = _preprocessing(place, vision if hasattr(vision, "config") else model)

    def texts(self, texts: Sequence[str]) -> F32:
        """Each text's place, at unit length, float32 ``[T, D]``."""
        if not texts or any(not text.strip() for text in texts):
            raise UsageError("A text to look for has at least one word.")
        found = []
        most = getattr(getattr(self.model.config, "text_config", None), "max_position_embeddings", None)
        padding: Any = "max_length" if "siglip" in type(self.model).__name__.lower() else True
        for start in range(0, len(texts), BATCH):
            encoded = self.tokenizer(
                list(texts[start : start + BATCH]), padding=padding, truncation=True, max_length=most,
                return_tensors="pt",
            )  # fmt: skip
            encoded.pop("token_type_ids", None)
            found.append(self._run(self.model.get_text_features, **encoded))
        return np.concatenate(found)

    def pictures(self, pictures: Sequence[Any]) -> F32:
        """Each picture's place, at unit length, float32 ``[N, D]``."""
        found = []
        for start in range(0, len(pictures), BATCH):
            fitted = [Picture.of(one).prepare(self.preprocessing).tensor for one in pictures[start : start + BATCH]]
            found.append(self._run(self.model.get_image_features, pixel_values=torch.stack(fitted)))
        return np.concatenate(found)

    def _run(self, tower: Any, **inputs: Any) -> F32:
        with torch.no_grad():
            answer = tower(**inputs)
        values = answer if isinstance(answer, torch.Tensor) else answer.pooler_output
        return np.asarray(torch.nn.functional.normalize(values.float(), dim=1).numpy(), np.float32)
