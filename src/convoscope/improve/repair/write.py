"""Writing a repaired network: weights, card, pages; each whole or not at all, and read back before it counts."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors.torch import load
from torch import Tensor

from ...errors import UsageError
from ...files import weights_as_bytes, write_whole
from ...plain import dump_json
from .copies import scores_of

if TYPE_CHECKING:
    from .result import Repaired


def write(result: Repaired, path: Path) -> Path:
    """Weights at ``path``, the card, the page and the diff beside it; returns the weights' path.

    Raises:
        UsageError: the gate refused, or the file must not be written.
    """
    if not result.holds or result.attempt is None:
        raise UsageError(f"Nothing is written: {result.why}")
    if path.suffix != ".safetensors":
        raise UsageError(f"--out {path}: weights are written as safetensors; name the file so (fixed.safetensors).")
    source = result.bench.model.weights
    if source and Path(source).exists() and path.exists() and path.samefile(source):
        raise UsageError(f"--out {path}: these are the original weights, which are never overwritten.")
    module = result.attempt.module
    state = {name: value for name, value in module.state_dict().items() if isinstance(value, Tensor)}
    card = {**result.card, "weights": path.name}
    told = {name: json.dumps(card[name]) for name in ("labels", "how", "why") if card.get(name) is not None}
    data = weights_as_bytes(state, {**told, **_normalisation(card)})
    _prove_readable(result, data)
    write_whole(path, data)
    result.written, result.card = path, card
    write_whole(path.with_suffix(".card.json"), dump_json(card) + "\n")
    if result.difference is not None:
        write_whole(path.with_suffix(".diff.html"), result.difference.page())
    write_whole(path.with_suffix(".html"), result.page())
    return path


def _normalisation(card: dict[str, object]) -> dict[str, str]:
    plain = card["preprocessing"]
    assert isinstance(plain, dict)
    return {"mean": json.dumps(plain["mean"]), "std": json.dumps(plain["std"])}


def _prove_readable(result: Repaired, data: bytes) -> None:
    """What was made into bytes gives the same scores when it is loaded into the user's own network."""
    assert result.attempt is not None
    fresh = copy.deepcopy(result.bench.model.module)
    fresh.load_state_dict(load(data), strict=True)
    few = result.held.take(np.arange(min(8, len(result.held.truth))))
    with torch.no_grad():
        a, b = scores_of(few, fresh), scores_of(few, result.attempt.module)
    if not np.array_equal(a, b):
        raise UsageError("The weights do not survive being written: they give other scores when they are read back.")
