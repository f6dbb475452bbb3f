"""How long methods of many passes will take, said before they start."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ..errors import ModelError

if TYPE_CHECKING:
    from ..methods import Method
    from ..models.model import Model


def passes(method: Method, model: Model, size: tuple[int, int]) -> int | None:
    """Forward passes for one picture of ``size``; ``None`` where the method does not tell."""
    from ..methods import Occlusion

    if isinstance(method, Occlusion):
        return len(method.boxes(*size))
    for name in ("samples", "masks", "steps_", "iterations"):
        if isinstance(getattr(method, name, None), int):
            return int(getattr(method, name))
    if hasattr(method, "layer"):
        watched = model.watched()
        layer = method.layer or watched.last_grid
        if layer in watched.layers and len(watched.layers[layer].shape) > 1:
            info = watched.layers[layer]
            return info.channels
    return None


def estimate(model: Model, methods: list[Method], pictures: int) -> list[str]:
    """A sentence for each slow method: passes, and seconds for all pictures by a timed forward."""
    size = model.preprocessing.size or (224, 224)
    counted = [(one, passes(one, model, size)) for one in methods if one.about.slow]
    known = [(one, count) for one, count in counted if count]
    if not known:
        return []
    batch = max(1, min(model.batch_size, max(count for _, count in known)))
    try:
        seconds = seconds_a_pass(model, size, batch)
    except ModelError:  # a network for one picture at a time, or of another size: whoever runs it says so
        return []
    found = []
    for one, count in known:
        total = seconds * count * pictures
        if total >= 2:
            many = f" for {pictures} pictures" if pictures > 1 else ""
            found.append(
                f"{one.about.name}: {count} passes a picture, up to {spoken(total)}{many}.{_first(one, model, size)}"
            )
    return found


def _first(method: Method, model: Model, size: tuple[int, int]) -> str:
    """What the first map of an unusual network takes besides: its graph is exported once, and kept on disk."""
    import torch

    from ..engine.recompute.choose import is_quick
    from ..methods import Occlusion

    if not isinstance(method, Occlusion):
        return ""
    example = torch.empty((1, model.preprocessing.channels, *size), dtype=model.dtype, device=model.device)
    if is_quick(model.module, example):
        return ""
    return " The network is prepared first, once: some seconds, which later runs on it are spared."


def seconds_a_pass(model: Model, size: tuple[int, int], batch: int) -> float:
    """Seconds for one picture in a forward pass of ``batch``."""
    import torch

    from ..session import Session

    shape = (batch, model.preprocessing.channels, *size)
    dtype = model.dtype if model.dtype.is_floating_point else torch.float32
    inputs = torch.zeros(shape, device=model.device, dtype=dtype)
    best = float("inf")
    with Session(model, gradients=False) as session:
        for _ in range(2):  # the first one warms up
            started = time.perf_counter()
            session.record(inputs)
            if model.device.type == "cuda":
                torch.cuda.synchronize(model.device)
            best = min(best, time.perf_counter() - started)
    return best / batch


def spoken(seconds: float) -> str:
    """``90`` as "2 minutes", as people say it."""
    if seconds < 90:
        return f"{max(1, round(seconds))} seconds"
    if seconds < 5400:
        return f"{round(seconds / 60)} minutes"
    return f"{seconds / 3600:.1f} hours"
