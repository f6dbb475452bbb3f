"""The approximate mode: what is given up for speed, and how much of the map survives.

Two things, both only when asked for. Boxes of influence are cut to a share of each map about their middles: in deep
layers a window reaches nearly everything in theory and little beyond its surroundings in effect. (Cutting by the
measured loss at each layer, which also trims the early layers, was worse at every speed: losses add up along the
network.) And where the processor multiplies bfloat16 natively, the layers before the last grid run in it; pooling
and the head stay in float32, since that is where small differences between windows are told apart.
"""

from __future__ import annotations

import torch


def low_precision(device: torch.device) -> torch.dtype | None:
    """bfloat16 where the device has instructions for it (anything else would be slower), else None."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else None
    if device.type != "cpu":
        return None
    names = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    native = any(getattr(torch.cpu, name, bool)() for name in names)
    return torch.bfloat16 if native and torch.backends.mkldnn.is_available() else None  # type: ignore[no-untyped-call]
