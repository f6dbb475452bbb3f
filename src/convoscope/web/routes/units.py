"""The units' room: the card of a unit, its patches, and a switch that turns it off."""

from __future__ import annotations

import io
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Path, Query, Request, Response
from PIL import Image

from ... import ask as probe
from ...errors import LayerError, UsageError
from ...plain import plain
from ...targets.units import layer_of, no_such_layer, parse_unit
from .. import schemas
from ..cache import key_of
from ..schemas import REFUSALS, Against, PictureId, Target, Unit
from ..serving import PNG, address, bench_of, lasts, png
from ..state import AppState
from .collection import gathered_of
from .layers import TILES, activation_of, geometry_of

#: top patches of a layer that are cut in one piece of work
TOGETHER = 8

router = APIRouter(prefix="/api", tags=["units"], responses=REFUSALS)


def split(app_state: AppState, unit: str) -> tuple[str, int]:
    """``layer:channel``, checked. Raises :class:`LayerError`."""
    found = parse_unit(unit, app_state.model)
    if found is None or found.place is not None:
        raise LayerError(f"{unit!r} is no unit: write layer:channel.")
    info = layer_of(app_state.model.watched(), found.layer)
    channels = info.channels
    if found.channel >= channels:
        raise LayerError(f"Layer {found.layer} has {channels} channels: there is no channel {found.channel}.")
    return found.layer, found.channel


@router.get("/unit")
async def unit_card(
    request: Request,
    unit: Unit,
    picture: Annotated[str | None, Query(pattern="^[0-9a-f]{16}$")] = None,
) -> schemas.UnitCard:
    """Everything known of one unit: where it looks, what it does on this picture, what it does on the collection."""
    app_state = bench_of(request)
    if picture is not None:
        app_state.album.entry(picture)

    def make() -> dict[str, Any]:
        layer, channel = split(app_state, unit)
        info = app_state.model.watched().layers[layer]
        found: dict[str, Any] = {
            "unit": unit,
            "layer": layer,
            "channel": channel,
            "kind": info.kind,
            "shape": list(info.shape),
            "field": info.geometry.to_dict() if info.geometry is not None else None,
            "why_no_field": info.why_no_geometry,
            "response": _response(app_state, picture, layer, channel) if picture and len(info.shape) == 4 else None,
            "survey": app_state.gathered.figures(layer, channel) if app_state.gathered is not None else None,
        }
        return dict(plain(found))

    key = key_of("unit", app_state.fingerprint, unit, picture, app_state.survey_stamp)
    card = await app_state.desk.once(key, make)
    # one may be made at any time: it is looked for each time
    return schemas.UnitCard(**card, wanted=_wanted(app_state, app_state.wanted(), unit))


@router.get("/wanted")
async def wanted(
    request: Request, layer: Annotated[str, Query(max_length=300, description="A layer.")]
) -> dict[str, dict[str, Any]]:
    """The units of a layer whose wanted pictures are kept: each with its picture's address and its caption."""
    app_state = bench_of(request)
    channels = app_state.model.watched().layers.get(layer)
    if channels is None:
        raise LayerError(no_such_layer(layer, list(app_state.model.watched().layers)))

    def make() -> dict[str, dict[str, Any]]:
        shelf, found = app_state.wanted(), {}
        if shelf.path is None or not shelf.path.is_dir():
            return {}
        for unit in (f"{layer}:{channel}" for channel in range(int(channels.shape[1]))):
            about = _wanted(app_state, shelf, unit)
            if about is not None:
                found[unit] = about
        return found

    return dict(await app_state.desk.now(make, "files"))


def _wanted(app_state: AppState, shelf: Any, unit: str) -> dict[str, Any] | None:
    """A block's output is its last activation's: what was made of one is known of the other."""
    layer, _, channel = unit.rpartition(":")
    known = app_state.gathered.known_as(layer) if app_state.gathered is not None else None
    for name in (unit, f"{known}:{channel}"):
        about = shelf.get(name)
        if about is not None:
            stamp = f"{about.get('steps')}-{about.get('seed')}"
            return {
                "image": address("/api/wanted.png", app_state, unit=name, s=stamp),
                "caption": about.get("caption"),
            }
    return None


@router.get("/wanted.png", responses=PNG, response_class=Response)
async def wanted_image(request: Request, unit: Unit) -> Response:
    """The picture that a unit wants, where it was made."""
    app_state = bench_of(request)
    content = await app_state.desk.now(lambda: app_state.wanted().image(unit), "files")
    if content is None:
        raise UsageError(f"What {unit} wants was not made yet.")
    return png(content, lasting=lasts(request))


def _response(app_state: AppState, picture: str, layer: str, channel: int) -> dict[str, Any]:
    """The unit's strongest cell on a picture, and what that cell sees of the input."""
    values, _ = activation_of(app_state, picture, layer)
    own = np.nan_to_num(values[channel], nan=-np.inf)
    row, col = divmod(int(own.argmax()), own.shape[1])
    found: dict[str, Any] = {
        "max": float(own[row, col]),
        "mean": float(np.nanmean(values[channel])),
        "row": row,
        "col": col,
        "box": None,
        "whole": True,
    }
    geometry = geometry_of(app_state.model, app_state.album, picture, layer)
    if geometry is not None:
        found["box"] = list(geometry.box(row, col))
        found["whole"] = None in (geometry.rows.size, geometry.cols.size)
        found["centre"] = list(geometry.centre(row, col))
    return found


def _patches(app_state: AppState, unit: str, quick: bool) -> Any:
    from ...surveys.ask.patches import patches as cut

    gathered = gathered_of(app_state)
    layer, channel = split(app_state, unit)
    return cut(gathered.store, f"{gathered.surveyed(layer)}:{channel}", guided=not quick, check=not quick)


Quick = Annotated[
    bool, Query(description="The pieces alone, at once: neither computed again nor with what in them counts.")
]


@router.get("/patches")
async def patches(request: Request, unit: Unit, quick: Quick = False) -> schemas.Patches:
    """The pieces of real pictures for which a unit fires most, typically and least, at its true receptive field."""
    app_state = bench_of(request)
    key = key_of("patches", app_state.fingerprint, app_state.survey_stamp, unit, quick)
    asked = {"unit": unit, "quick": "true" if quick else None, "s": app_state.survey_stamp}

    def make() -> dict[str, Any]:
        found = _patches(app_state, unit, quick)
        rows, pictures = [], {}
        for number, patch in enumerate(found.items):
            rows.append(
                {
                    "kind": patch.kind, "id": patch.sha256[:16], "value": patch.value, "recomputed": patch.recomputed,
                    "label": patch.label, "prediction": patch.prediction, "row": patch.row, "col": patch.col,
                    "box": list(patch.box), "input_box": list(patch.input_box), "error": patch.error,
                    "there": patch.crop is not None, "guided": patch.guided is not None,
                }
            )  # fmt: skip
            if patch.crop is not None:
                pictures[f"{number}"] = _small(patch.crop)
            if patch.guided is not None and patch.guided.size:
                pictures[f"{number}-guided"] = _small(_relief(patch.guided))
        return {
            "about": next(iter(found.about.values()), ""),
            "field": found.field_size,
            "rows": plain(rows),
            "notes": found.notes,
            "pictures": pictures,
        }

    made = await app_state.desk.once(key, make)
    listed = []
    for number, row in enumerate(made["rows"]):
        links: dict[str, Any] = {"image": None, "guided_image": None}
        if row["there"]:
            links["image"] = address(f"/api/patches/{number}.png", app_state, **asked)
        if f"{number}-guided" in made["pictures"]:
            links["guided_image"] = address(f"/api/patches/{number}-guided.png", app_state, **asked)
        listed.append({**row, **links})
    return schemas.Patches(unit=unit, about=made["about"], field=made["field"], patches=listed, notes=made["notes"])


@router.get("/patches/{name}.png", responses=PNG, response_class=Response)
async def patch_image(
    request: Request,
    unit: Unit,
    name: Annotated[str, Path(pattern=r"^\d{1,4}(-guided)?$")],
    quick: Quick = False,
) -> Response:
    """One patch, or the guided backpropagation of its neuron."""
    app_state = bench_of(request)
    key = key_of("patches", app_state.fingerprint, app_state.survey_stamp, unit, quick)
    if app_state.cache.get(key) is None:
        await patches(request, unit, quick)
    made = app_state.cache.get(key)
    if made is None or name not in made["pictures"]:
        raise UsageError(f"The unit {unit} has no patch {name}.")
    return png(made["pictures"][name], lasting=lasts(request))


@router.get("/top-patch", responses=PNG, response_class=Response)
async def top_patch(request: Request, unit: Unit) -> Response:
    """The piece of a real picture for which a unit fires most; some of a layer's are cut together, strongest first."""
    app_state = bench_of(request)
    layer, channel = split(app_state, unit)
    gathered = gathered_of(app_state)
    surveyed = gathered.surveyed(layer)

    def shown() -> list[int]:
        from ...surveys.ask.patches import strongest

        return strongest(gathered.store, surveyed)[:TILES]

    order = await app_state.desk.once(
        key_of("strongest", app_state.fingerprint, app_state.survey_stamp, layer), shown
    )
    if channel not in order:
        raise UsageError(f"The unit {unit} fires for no picture of the collection, or is not among the strongest.")
    # so many at a time that the first are seen at once, and a picture that several fire for is still read once
    part = order.index(channel) // TOGETHER
    key = key_of("top patches", app_state.fingerprint, app_state.survey_stamp, layer, part)

    def make() -> dict[int, bytes]:
        from ...surveys.ask.patches import patches as cut

        some = order[part * TOGETHER : (part + 1) * TOGETHER]
        found = cut(gathered.store, surveyed, 1, guided=False, channels=some, check=False)
        return {patch.channel: _small(patch.crop, 128) for patch in found.items if patch.crop is not None}

    made = await app_state.desk.once(key, make)
    if channel not in made:
        raise UsageError(f"The unit {unit} fires for no picture of the collection.")
    return png(made[channel], lasting=lasts(request))


def _small(image: Image.Image, side: int = 192) -> bytes:
    image = image.convert("RGB")
    if max(image.size) > side:
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _relief(guided: Any) -> Image.Image:
    """Guided backpropagation around mid-grey, on its own scale."""
    values = guided if len(guided) == 3 else np.repeat(guided.mean(0, keepdims=True), 3, 0)
    peak = float(np.percentile(np.abs(values), 99.5)) or float(np.abs(values).max())
    shown = np.full_like(values, 0.5) if peak == 0 else np.clip(0.5 + values / (2 * peak), 0, 1)
    return Image.fromarray(np.round(shown * 255).astype(np.uint8).transpose(1, 2, 0))


@router.get("/ablate")
async def ablate(
    request: Request,
    picture: PictureId,
    units: Annotated[
        list[str], Query(min_length=1, max_length=256, description="Units to switch off: layer:channel.")
    ],
    target: Target = None,
    against: Against = None,
) -> schemas.Change:
    """What the prediction becomes with units set to zero."""
    app_state = bench_of(request)
    ask = app_state.ask(picture, target, against)

    def make() -> dict[str, Any]:
        for unit in units:
            split(app_state, unit.partition("@")[0])
        found = probe.switch_off(
            app_state.model, app_state.album.picture(picture), units, ask.target, ask.against, count=10
        )
        return dict(plain(found.to_dict()))

    return schemas.Change(**await app_state.desk.once(key_of("ablate", *ask.about(), sorted(units)), make))
