"""``open_model``: from a spec (a name, a file) and weights to a :class:`~convoscope.models.model.Model`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import ModelError
from ..pictures.picture import Preprocessing
from ..pictures.preprocessing import channel_values, read_size
from .calling import call_for, picking
from .device import choose_device, choose_dtype
from .labels import own_labels, read_labels
from .model import ASSUMED, Model, check_numbers, refuse_lazy, wrap
from .sources import open_spec


def open_model(
    spec: str | nn.Module | Model,
    *,
    weights: str | Path | None = None,
    labels: str | Path | Sequence[Any] | Mapping[Any, Any] | None = None,
    size: int | str | Sequence[int] | None = None,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    fit: str | None = None,
    interpolation: str | None = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    batch_size: int = 32,
    seed: int = 0,
    trust_pickle: bool = False,
    output: int | str | None = None,
) -> Model:
    """Open a network by its spec.

    Args:
        spec: ``toybox``, ``toybox-cheat``, ...; a torchvision name (``resnet50`` or ``torchvision:resnet50``);
            ``timm:NAME``; ``hf:FOLDER`` (a checkpoint of transformers); ``path/net.py:callable``; or a module.
        weights: ``None`` for the pretrained ones, ``"none"`` for random ones (seeded), or a file.
        labels: Class names: a file with one name a line, a sequence, or a dictionary of class numbers.
        size, mean, std, fit, interpolation: Override the preprocessing that comes with the weights.
        device: ``None`` takes CUDA or MPS where present.
        dtype: ``float32``, ``float64``, ``float16`` or ``bfloat16``.
        batch_size: Pictures in one pass at most.
        seed: Of everything random.
        trust_pickle: Open weights that run code; only if you trust who made them.
        output: Which element is meant of a network that returns several: a key, a number, or a path of them.

    Returns:
        The network with its preprocessing and labels, ready for every function that takes a model.

    Raises:
        ModelError: The network or its weights cannot be had.
        UsageError: A setting does not fit, or the labels are not as many as the outputs.
    """
    if isinstance(spec, Model):
        return spec
    if str(spec).endswith(".card.json"):
        return _open_card(str(spec), {**locals(), "spec": None})
    check_numbers(batch_size, seed)
    if isinstance(spec, nn.Module):
        opened = wrap(spec)
    else:
        with _random_state(seed):
            found = open_spec(str(spec), None if weights is None else str(weights), trust_pickle)
        refuse_lazy(found.network, found.name)
        found.network.eval()
        opened = Model(
            found.network,
            found.preprocessing,
            found.labels or own_labels(found.network),
            found.name,
            str(spec),
            found.weights,
            notes=found.notes,
            call=found.call or call_for(found.network),
        )
    if mean is not None or std is not None:
        opened.notes = tuple(note for note in opened.notes if not note.startswith(ASSUMED))
    opened.preprocessing = override(opened.preprocessing, size, mean, std, fit, interpolation)
    if labels is not None:
        opened.labels = read_labels(labels)
    opened.batch_size, opened.seed = batch_size, seed
    opened.call = picking(opened.call, output)
    if device is not None or dtype is not None or not isinstance(spec, nn.Module):
        # a module given by hand stays where it is unless told otherwise
        opened.module.to(device=choose_device(device), dtype=choose_dtype(dtype))
    if labels is not None and opened.preprocessing.size is not None:
        with suppress(ModelError):  # what the network cannot run on is told where it is run
            opened.check_labels()
    return opened


def _open_card(path: str, given: dict[str, Any]) -> Model:
    """The network of a card that ``convoscope repair`` wrote; what is given besides goes before what it says."""
    from .card import preprocessing_of, read_card

    card = read_card(path)
    told = {"weights": card.get("weights"), "labels": card.get("labels")}
    given = {name: value if value is not None else told.get(name) for name, value in given.items() if name != "spec"}
    geometry = {name: given.pop(name) for name in ("size", "mean", "std", "fit", "interpolation")}
    opened = open_model(str(card["spec"]), **given)
    opened.preprocessing = override(preprocessing_of(card["preprocessing"]), *geometry.values())
    return opened


def override(
    preprocessing: Preprocessing, size: Any, mean: Any, std: Any, fit: str | None, interpolation: str | None = None
) -> Preprocessing:
    """The preprocessing with what was given in place of what came with the weights."""
    changes: dict[str, Any] = {}
    if size is not None:
        pair = read_size(size)
        assert pair is not None
        changes["size"] = pair
        if preprocessing.resize and preprocessing.size:
            # the same margin around the crop as before
            changes["resize"] = max(min(pair), round(min(pair) * preprocessing.resize / min(preprocessing.size)))
    for name, values in (("mean", mean), ("std", std)):
        if values is not None:
            found = channel_values(name, values)
            changes[name] = found * preprocessing.channels if len(found) == 1 else found
    if fit is not None:
        changes["fit"] = fit
    if interpolation is not None:
        changes["interpolation"] = interpolation
    return replace(preprocessing, **changes) if changes else preprocessing


@contextmanager
def _random_state(seed: int) -> Iterator[None]:
    """Seeded weights for ``--weights none``, without touching the caller's random state."""
    state = torch.get_rng_state()
    torch.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(state)
