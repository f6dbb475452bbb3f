"""What hidden units fire for: the pieces of real pictures at the true receptive field of a unit's neurons."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ...errors import LayerError, MethodRefused, PictureError, UsageError
from ...pictures.picture import ModelInput
from ...session import Session
from ..gather.collections import picture as open_picture
from ..store.accumulators import Extremes, State
from .patch import KINDS, Box, Patch, Patches

if TYPE_CHECKING:
    from ...engine.fields.geometry import Geometry
    from ..store.recipe import Span
    from ..store.store import Store

#: a recomputed neuron may differ by this share of the stored value (batch size and memory format move it by 1e-6)
TOLERANCE = 1e-3


def split_unit(store: Store, unit: str) -> tuple[Span, int | None]:
    """``LAYER:CHANNEL`` or ``LAYER``. Raises :class:`LayerError` for a layer or channel that was not surveyed."""
    names = {span.name for span in store.recipe.layers}
    if unit in names:
        return store.span(unit), None
    layer, colon, number = unit.rpartition(":")
    if not colon or not number.isdecimal():
        return store.span(unit), None
    span = store.span(layer)
    channel = int(number)
    if channel >= span.channels:
        raise LayerError(f"Layer {layer} has {span.channels} channels (0 to {span.channels - 1}): not {channel}.")
    return span, channel


def strongest(store: Store, layer: str) -> list[int]:
    """The channels of a layer that are not dead, those with the strongest response first."""
    span = store.span(layer)
    peaks = store.state().top.values[span.start : span.end, 0]
    return [int(c) for c in np.argsort(-np.nan_to_num(peaks, nan=-np.inf), kind="stable") if peaks[c] > 0]


def patches(
    store: Store,
    unit: str,
    k: int | None = None,
    *,
    guided: bool = True,
    channels: int | Sequence[int] = 16,
    check: bool = True,
) -> Patches:
    """The patches for which ``unit`` (``layer:channel``) fires most, typically and least; ``k`` of each.

    For a layer's name alone: the top patches of its ``channels`` units with the strongest response that are not dead
    (a list names the units). ``guided=False`` leaves out guided backpropagation (always left out for a layer). Every
    neuron is computed again on the photo, and a value that deviates from the stored one is in the notes; with
    ``check=False`` (and no guided backpropagation) the stored values are taken as they are, and no network runs.

    Raises :class:`LayerError`, :class:`UsageError`, :class:`ModelError`.
    """
    span, channel = split_unit(store, unit)
    most = store.recipe.top
    k = min(9, most) if k is None else k
    if not 1 <= k <= most:
        raise UsageError(f"The store keeps {most} pictures of each unit: k must be between 1 and {most}, not {k}.")
    state = store.state()
    if not state.pictures:
        raise UsageError(f"{store.path} holds no picture yet.")
    notes: list[str] = []
    single = channel is not None
    if channel is not None:
        chosen = [channel]
    else:
        if isinstance(channels, int):
            chosen = sorted(strongest(store, span.name)[:channels]) or list(range(min(channels, span.channels)))
        else:
            chosen = sorted(channels)
        notes.append(f"{len(chosen)} of {span.channels} units are shown: those with the strongest response.")
    extremes = {"top": state.top, "lowest": state.lowest, "typical": state.sample.typical(k)}
    items: list[Patch] = []
    for one in chosen:
        for kind in KINDS if single else ("top",):
            items += _listed(extremes[kind], kind, span, one, k)
    _identify(store, items)
    size = _cut(store, span, items, guided and single, notes, check)
    about = {one: describe(state, span.start + one) for one in chosen}
    return Patches(span.name, chosen, items, single, size, about, notes)


def describe(state: State, at: int) -> str:
    """A channel's figures in one line."""
    moments = state.moments
    count = int(moments.count[at])
    if not count:
        return "No picture gave this unit a finite value."
    share = moments.active[at] / max(1, state.pictures)
    std = math.sqrt(max(0.0, float(moments.variance[at])))
    dead = " Dead: 0 in every picture." if state.top.values[at, 0] == 0 and state.lowest.values[at, 0] == 0 else ""
    mean = f"Mean response {moments.mean[at]:.3g} ± {std:.2g}"
    return f"{mean}, active in {share:.0%} of {state.pictures:,} pictures.{dead}"


def _listed(extremes: Extremes, kind: str, span: Span, channel: int, k: int) -> list[Patch]:
    at = span.start + channel
    found = []
    for place in range(min(k, extremes.values.shape[1])):
        value = float(extremes.values[at, place])
        if math.isnan(value):
            continue
        key = int(extremes.keys[at, place])
        row, col = int(extremes.rows[at, place]), int(extremes.cols[at, place])
        found.append(Patch(kind, channel, f"{key:016x}", "", value, row, col, (0, 0, 0, 0), (0, 0, 0, 0)))
    return found


def _identify(store: Store, items: Sequence[Patch]) -> None:
    """Fill in which picture each key is."""
    keys = sorted({int(patch.sha256, 16) for patch in items})
    rows: dict[str, dict[str, Any]] = {}
    for start in range(0, len(keys), 1000):
        listed = ", ".join(map(str, keys[start : start + 1000]))
        columns = ["sha256", "uri", "label", "prediction"]
        for row in store.table(columns, f"key IN ({listed})").to_pylist():
            rows[row["sha256"][:16]] = row
    for patch in items:
        found = rows[patch.sha256]
        patch.sha256, patch.label, patch.prediction = found["sha256"], found["label"], found["prediction"]
        patch.uri = store.uri(found["sha256"], found["uri"])


def _cut(store: Store, span: Span, items: list[Patch], guided: bool, notes: list[str], check: bool = True) -> str:
    """Cut the patches, with the neurons recomputed (``check``); returns the receptive field's size in words."""
    model = store.model()
    size = "unknown"
    by_shape: dict[tuple[int, ...], list[tuple[Patch, ModelInput]]] = {}
    fitted: dict[str, ModelInput | str] = {}
    for patch in items:
        if patch.sha256 not in fitted:
            fitted[patch.sha256] = _reopen(store, patch.sha256, model)
        found = fitted[patch.sha256]
        if isinstance(found, str):
            patch.error = found
        else:
            by_shape.setdefault(tuple(found.tensor.shape), []).append((patch, found))
    for shape, pairs in by_shape.items():
        layer = model.watched(shape).layers[span.name]
        geometry, why = layer.geometry, layer.why_no_geometry
        size = _field(geometry)
        if geometry is None:
            notes.append(f"Whole pictures are shown: {span.name} has no geometry because {why}.")
        for patch, one in pairs:
            _place(patch, one, geometry)
        if guided:
            _guide(store, span, pairs, notes)
        elif check:
            _recompute(store, span, pairs)
    gone = [patch for patch in items if patch.error]
    if gone:
        notes.append(f"{len({p.sha256 for p in gone})} photos could not be shown: {gone[0].error}")
    checked = [p for p in items if p.recomputed is not None]
    off = [p for p in checked if not _agrees(p)]
    if off:
        worst = max(off, key=lambda p: abs((p.recomputed or 0.0) - p.value))
        notes.append(
            f"{len(off)} of {len(checked)} recomputed neurons deviate from the stored value, the most in "
            f"{Path(worst.uri).name}: {worst.recomputed:.5g} instead of {worst.value:.5g}."
        )
    elif checked:
        notes.append("Every neuron was computed again and has its stored value.")
    return size


def _agrees(patch: Patch) -> bool:
    assert patch.recomputed is not None
    return abs(patch.recomputed - patch.value) <= TOLERANCE * max(abs(patch.value), 1e-2)


def _reopen(store: Store, sha: str, model: Any) -> ModelInput | str:
    """The surveyed photo as input, or the sentence that says why it cannot be shown."""
    said = f"{sha[:12]}: no file is known to hold this picture any more."
    for uri in store.uris.get(sha, []):
        try:
            picture = open_picture(uri)
        except PictureError as error:
            said = str(error)
            continue
        if picture.sha256 == sha:
            fitted: ModelInput = model.prepare(picture)
            return fitted
        said = f"{uri}: the file has changed since the survey."
    return said


def _field(geometry: Geometry | None) -> str:
    if geometry is None or None in (geometry.rows.size, geometry.cols.size):
        return "the whole picture"
    return f"{geometry.cols.size} × {geometry.rows.size} pixels of the network's input"


def _place(patch: Patch, fitted: ModelInput, geometry: Geometry | None) -> None:
    """The boxes, and the crop."""
    height, width = fitted.tensor.shape[1:]
    inside = (0, 0, width, height) if geometry is None else geometry.box(patch.row, patch.col)
    patch.input_box = inside
    patch.box = photo_box(inside, fitted)
    x0, y0, x1, y1 = patch.box
    if x1 > x0 and y1 > y0:
        patch.crop = fitted.picture.image.crop(patch.box)


def photo_box(box: Box, fitted: ModelInput) -> Box:
    """Input pixels x0, y0, x1, y1 (half-open) as the smallest box of whole photo pixels that holds them, clipped."""
    matrix = fitted.input_to_photo
    height, width = fitted.picture.size

    def edge(axis: int, value: int) -> float:
        # centres are whole numbers on both sides, so a pixel's edges lie half a pixel beside
        return float(matrix[axis, axis] * (value - 0.5) + matrix[axis, 2] + 0.5)

    rounding = 1e-6
    x0, x1 = math.floor(edge(0, box[0]) + rounding), math.ceil(edge(0, box[2]) - rounding)
    y0, y1 = math.floor(edge(1, box[1]) + rounding), math.ceil(edge(1, box[3]) - rounding)
    x0, x1 = min(max(x0, 0), width), min(max(x1, 0), width)
    y0, y1 = min(max(y0, 0), height), min(max(y1, 0), height)
    return x0, y0, x1, y1


def _recompute(store: Store, span: Span, pairs: Sequence[tuple[Patch, ModelInput]]) -> None:
    """The neurons' values now: one forward a picture, however many of its neurons are asked for."""
    model = store.model()
    pictures = list({id(fitted): fitted for _, fitted in pairs}.values())
    with Session(model, gradients=False) as session:
        for start in range(0, len(pictures), model.batch_size):
            batch = pictures[start : start + model.batch_size]
            recorded = session.record(model.inputs(batch), layers=[span.name])
            value = recorded.layers[span.name].value
            where = {id(fitted): number for number, fitted in enumerate(batch)}
            mine = [(patch, where[id(fitted)]) for patch, fitted in pairs if id(fitted) in where]
            found = neurons(value, span, [patch for patch, _ in mine], [row for _, row in mine])
            for (patch, _), one in zip(mine, found.float().cpu().tolist(), strict=True):
                patch.recomputed = one


def _guide(store: Store, span: Span, pairs: Sequence[tuple[Patch, ModelInput]], notes: list[str]) -> None:
    """The neurons' values now, and guided backpropagation of each: one forward and one backward a batch."""
    model = store.model()
    with Session(model) as session:
        for start in range(0, len(pairs), model.batch_size):
            part = pairs[start : start + model.batch_size]
            inputs = model.inputs([fitted for _, fitted in part])
            recorded = session.record(inputs, layers=[span.name], gradients=True)
            score = neurons(recorded.layers[span.name].live, span, [patch for patch, _ in part], range(len(part)))
            for (patch, _), one in zip(part, score.detach().float().cpu().tolist(), strict=True):
                patch.recomputed = one
            try:
                answer = session.runner.gradients(recorded, score, "guided", ["input"], keep=False)
            except MethodRefused as error:
                notes.append(f"Without guided backpropagation: {error}")
                continue
            for (patch, _), one in zip(part, answer["input"].float().cpu().numpy(), strict=True):
                x0, y0, x1, y1 = patch.input_box
                patch.guided = one[:, y0:y1, x0:x1]


def neurons(activation: Tensor, span: Span, items: Sequence[Patch], pictures: Sequence[int]) -> Tensor:
    """The value of each patch's neuron in the activation's row ``pictures``."""
    activation = span.layout.planes(activation)
    if activation.ndim == 2:
        activation = activation[:, :, None, None]
    index = torch.tensor(list(pictures), device=activation.device)
    channel, row, col = (
        torch.tensor([getattr(p, name) for p in items], device=activation.device)
        for name in ("channel", "row", "col")
    )
    return activation[index, channel, row, col]


def strongest_pictures(store: Store, extremes: Extremes, channels: Sequence[int]) -> dict[int, dict[str, Any]]:
    """The row of the first picture in ``extremes`` for each channel of the long axis that has one."""
    keys = {c: int(extremes.keys[c, 0]) for c in channels if not math.isnan(float(extremes.values[c, 0]))}
    unique = sorted(set(keys.values()))
    rows: dict[int, dict[str, Any]] = {}
    for start in range(0, len(unique), 1000):
        listed = ", ".join(map(str, unique[start : start + 1000]))
        for row in store.table(["key", "sha256", "uri", "label", "thumbnail"], f"key IN ({listed})").to_pylist():
            row["uri"] = store.uri(row["sha256"], row["uri"])
            rows[row["key"]] = row
    return {c: rows[key] for c, key in keys.items() if key in rows}
