"""Weights from files: safetensors, or ``torch.load(weights_only=True)``; never a pickle that runs code unasked."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ModelError

#: keys under which training scripts keep the state dict
_WRAPPERS = (
    "state_dict",
    "model_state_dict",
    "model",
    "ema",
    "ema_state_dict",
    "module",
    "net",
    "network",
    "params",
)
_PREFIXES = (
    "module.",
    "_orig_mod.",
    "model.",
    "net.",
    "network.",
    "backbone.",
    "encoder.",
    "ema.module.",
    "ema.",
)


def read(path: Path, *, trust_pickle: bool = False) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The state dict in a file, out of the usual wrappers, and the file's metadata (safetensors).

    Raises :class:`ModelError`: missing file, damaged file, a pickle that needs code, no tensors inside.
    """
    if not path.exists():
        raise ModelError(f"{path}: there is no such weights file.")
    if path.is_dir():
        raise ModelError(f"{path}: this is a folder, not a weights file.")
    if path.suffix == ".safetensors":
        return _read_safetensors(path)
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=not trust_pickle)
    except Exception as error:
        text = str(error)
        if "weights_only" in text or "Unsupported global" in text or "WeightsUnpickler" in text:
            raise ModelError(
                f"{path}: this file is a pickle that wants to run code when it is opened. Save the state dict alone "
                "(torch.save(model.state_dict(), ...)), or, if you trust whoever made it, add --trust-pickle."
            ) from None
        raise ModelError(f"{path}: not a weights file that can be read ({_line(text)}).") from None
    if isinstance(loaded, nn.Module):
        loaded = loaded.state_dict()
    return unwrap(loaded, path), {}


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    from safetensors import safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except Exception as error:
        raise ModelError(f"{path}: not a safetensors file that can be read ({_line(str(error))}).") from None
    return unwrap(state, path), metadata


def unwrap(loaded: Any, path: Path | str) -> dict[str, Tensor]:
    """The mapping name -> tensor inside what a training script saved."""
    for _ in range(4):
        if not isinstance(loaded, Mapping):
            break
        inner = next((loaded[key] for key in _WRAPPERS if isinstance(loaded.get(key), (Mapping, nn.Module))), None)
        if inner is None:
            break
        loaded = inner.state_dict() if isinstance(inner, nn.Module) else inner
    if not isinstance(loaded, Mapping):
        raise ModelError(f"{path}: holds a {type(loaded).__name__}, not a state dict.")
    state = {str(key): value for key, value in loaded.items() if isinstance(value, Tensor)}
    if not state:
        keys = ", ".join(map(str, list(loaded)[:5])) or "nothing"
        raise ModelError(f"{path}: no tensors found in it (it holds: {keys}).")
    return state


def match(state: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """``state`` with prefixes taken off or put on so that its keys fit the network best."""
    wanted = set(network.state_dict())
    candidates = [state]
    for prefix in _PREFIXES:
        if any(key.startswith(prefix) for key in state):
            inner = {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}
            candidates.append(inner)
            for second in _PREFIXES:
                if any(key.startswith(second) for key in inner):
                    candidates.append({k[len(second) :]: v for k, v in inner.items() if k.startswith(second)})
    for prefix in ("model.", "module.", "network.", "net.", "backbone."):
        if any(key.startswith(prefix) for key in wanted):
            candidates.append({prefix + key: value for key, value in state.items()})
    return max(candidates, key=lambda candidate: len(wanted & set(candidate)))


def load(
    network: nn.Module,
    state: dict[str, Tensor],
    path: Path | str,
    rebuild: Callable[[int], nn.Module] | None = None,
) -> nn.Module:
    """The network with ``state`` in it; ``rebuild(classes)`` makes one with another head where only that differs.

    Raises :class:`ModelError` that names the first differing keys and shapes.
    """
    state = _without_auxiliary(match(state, network), network)
    have = network.state_dict()
    differing = [key for key in have if key in state and state[key].shape != have[key].shape]
    if differing and rebuild is not None and set(state) == set(have):
        heads = {tuple(state[key].shape)[:1] for key in differing}
        if len(heads) == 1 and all(state[k].shape[1:] == have[k].shape[1:] for k in differing):
            network = rebuild(next(iter(heads))[0])
            have = network.state_dict()
            differing = [key for key in have if key in state and state[key].shape != have[key].shape]
    # counters of batches matter to training only: old checkpoints lack them
    missing = [key for key in have if key not in state and not key.endswith("num_batches_tracked")]
    extra = [key for key in state if key not in have]
    if differing or missing or extra:
        raise ModelError(_mismatch(path, have, state, differing, missing, extra))
    network.load_state_dict(state, strict=False)
    return network


def _without_auxiliary(state: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Drop auxiliary heads (GoogLeNet, Inception) that the network was built without."""
    have = network.state_dict()
    return {k: v for k, v in state.items() if k in have or not k.split(".")[0].lower().startswith("aux")}


def _mismatch(
    path: Path | str,
    have: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    differing: list[str],
    missing: list[str],
    extra: list[str],
) -> str:
    parts = []
    if differing:
        shown = "; ".join(f"{k}: file {tuple(state[k].shape)}, network {tuple(have[k].shape)}" for k in differing[:3])
        parts.append(f"{len(differing)} differing shapes ({shown})")
    if missing:
        parts.append(f"{len(missing)} missing in the file ({', '.join(missing[:3])}{', ...' * (len(missing) > 3)})")
    if extra:
        parts.append(f"{len(extra)} unknown to the network ({', '.join(extra[:3])}{', ...' * (len(extra) > 3)})")
    return f"{path}: these weights do not fit the network: {'; '.join(parts)}."


def metadata_list(metadata: Mapping[str, str], key: str) -> list[Any] | None:
    """A JSON list from a safetensors file's metadata; ``None`` where it is absent or no list."""
    try:
        value = json.loads(metadata[key])
    except (KeyError, ValueError):
        return None
    return value if isinstance(value, list) else None


def _line(text: str) -> str:
    lines = text.strip().splitlines()
    return lines[0][:160] if lines else "no reason given"
