"""The device and the number type that a network is run with."""

from __future__ import annotations

import torch

from ..errors import UsageError


def choose_device(device: str | torch.device | None) -> torch.device:
    """The device asked for, or CUDA, or MPS, or the CPU; an absent one is refused with a sentence."""
    if device is None or device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise UsageError(f"Unknown device {device!r}: use cpu, cuda, cuda:1 or mps.") from None
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise UsageError("No CUDA device here: use --device cpu.")
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise UsageError("No MPS device here: use --device cpu.")
    if chosen.type not in ("cpu", "cuda", "mps"):
        raise UsageError(f"Device {device!r} is not supported: use cpu, cuda or mps.")
    return chosen


def choose_dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    """``float32``, ``float64``, ``float16``, ``bfloat16`` or a torch dtype; ``None`` keeps the network's own."""
    if dtype is None or isinstance(dtype, torch.dtype):
        return dtype
    chosen = {
        "float32": torch.float32,
        "float64": torch.float64,
        "float16": torch.float16,
        "bfloat16": torch.bfloat16,
    }
    if dtype not in chosen:
        raise UsageError(f"dtype must be one of {', '.join(chosen)}, not {dtype!r}.")
    return chosen[dtype]
