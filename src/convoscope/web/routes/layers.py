"""The layers' room: the list, the channels of a layer on a picture, the filters."""

from __future__ import annotations

import threading
from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Query, Request, Response

from ...draw import colour
from ...errors import LayerError
from ...methods.views import filter_weights, layer_activations
from ...models.model import Model
from ...targets.units import no_such_layer
from .. import schemas
from ..cache import key_of
from ..picture_library import encoded
from ..schemas import REFUSALS, LayerName, PictureId
from ..serving import NPY, PNG, address, bench_of, json, lasts
from ..serving import npy as send_npy
from ..serving import png as send_png
from ..state import AppState, npy, scale_dict

router = APIRouter(prefix="/api", tags=["layers"], responses=REFUSALS)

Order = Literal["strength", "index", "selectivity", "likeness"]
#: channels whose values are sent at once
TILES = 512


def rows_of(app_state: AppState) -> list[dict[str, Any]]:
    """The layers in order, with what the survey knows of them."""
    from ...models.layers import layers
    from ...surveys.gather.choose import default_layers

    watched = app_state.model.watched()
    dead = app_state.gathered.dead() if app_state.gathered is not None else {}
    size = app_state.model.preprocessing.size or (224, 224)
    main = set(dead) or set(default_layers(app_state.model, (app_state.model.preprocessing.channels, *size)))
    found = []
    for row in layers(app_state.model):
        layer = watched.layers[row["name"]]
        grid = list(layer.grid) if layer.has_grid and layer.grid is not None else None
        channels = layer.channels or None
        found.append(
            {**row, "channels": channels, "grid": grid, "main": row["name"] in main,
             "surveyed": app_state.gathered is not None and app_state.gathered.holds_layer(row["name"]),
             "dead": dead.get(row["name"]),
             "relu": layer.relu}
        )  # fmt: skip
    return found


@router.get("/layers", response_model=list[schemas.Layer])
async def layers(request: Request) -> Response:
    """The network's layers in the order of the forward: shape, receptive field, dead units."""
    app_state = bench_of(request)
    there = app_state.gathered.stamp if app_state.gathered is not None else ""
    key = key_of("layers", app_state.fingerprint, there)
    return await json(app_state, key, lambda: schemas.Layers([schemas.Layer(**row) for row in rows_of(app_state)]))


def activation_of(app_state: AppState, picture: str, layer: str) -> tuple[Any, str]:
    """A layer's output on a picture, float32 ``[C, h, w]``, from the cache where it is there."""
    key = key_of("activation", app_state.fingerprint, picture, layer)
    found = app_state.cache.get(key)
    if found is None:
        _, found, _ = layer_activations(app_state.model, app_state.album.picture(picture), layer)
        app_state.cache.put(key, found, found.nbytes)
    return found, key


def _ordered(app_state: AppState, values: Any, layer: str, order: Order, like: int | None) -> list[dict[str, Any]]:
    strength = np.abs(np.nan_to_num(values)).mean((1, 2))
    figures = app_state.gathered.units(layer) if app_state.gathered is not None else {}
    rows: list[dict[str, Any]] = []
    for c in range(len(values)):
        flat = values[c]
        peak = int(np.nan_to_num(flat, nan=-np.inf).argmax())
        known = figures.get(c, {})
        rows.append(
            {
                "channel": c,
                "strength": float(strength[c]),
                "max": float(flat.flat[peak]),
                "at": [peak // flat.shape[1], peak % flat.shape[1]],
                "selectivity": known.get("selectivity"),
                "class": known.get("class"),
                "dead": bool(known.get("dead", False)),
            }
        )
    if order == "strength":
        rows.sort(key=lambda r: -r["strength"])
    elif order == "selectivity":
        rows.sort(key=lambda r: (r["selectivity"] is None, -(r["selectivity"] or 0), -r["strength"]))
    elif order == "likeness":
        by_channel = {r["channel"]: r for r in rows}
        rows = [by_channel[c] for c in _by_likeness(values, like)]
    return rows


def _by_likeness(values: Any, like: int | None) -> list[int]:
    """Channels by the cosine of their maps: to channel ``like``, or each next to its nearest not yet shown."""
    flat = np.nan_to_num(values).reshape(len(values), -1).astype(np.float64)
    flat -= flat.mean(1, keepdims=True)
    length = np.linalg.norm(flat, axis=1)
    flat /= np.where(length > 0, length, 1)[:, None]
    cosine = flat @ flat.T
    if like is not None and like < len(values):
        return [int(c) for c in np.argsort(-cosine[like], kind="stable")]
    at = int(length.argmax())
    left = np.ones(len(values), bool)
    order = []
    for _ in range(len(values)):
        order.append(at)
        left[at] = False
        if left.any():
            at = int(np.where(left, cosine[at], -np.inf).argmax())
    return order


@router.get("/activations")
async def activations(
    request: Request,
    picture: PictureId,
    layer: LayerName,
    order: Order = "strength",
    like: Annotated[int | None, Query(ge=0, le=100_000)] = None,
    limit: Annotated[int, Query(ge=1, le=TILES)] = 64,
    offset: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
) -> schemas.Tiles:
    """What every channel of a layer makes of a picture, in an order; the values come as one array."""
    app_state = bench_of(request)
    key = key_of("tiles", app_state.fingerprint, picture, layer, order, like, app_state.survey_stamp)

    def make() -> dict[str, Any]:
        values, _ = activation_of(app_state, picture, layer)
        rows = _ordered(app_state, values, layer, order, like)
        scale = colour.scale_for([values], signed=bool(np.nanmin(values) < 0), unit="activation")
        return {"rows": rows, "scale": scale_dict(scale), "shape": list(values.shape)}

    found = await app_state.desk.once(key, make)
    shown = found["rows"][offset : offset + limit]
    geometry = geometry_of(app_state.model, app_state.album, picture, layer)
    numbers = ",".join(str(row["channel"]) for row in shown)
    return schemas.Tiles(
        layer=layer, picture=picture, total=len(found["rows"]), shape=found["shape"], channels=_finite(shown),
        order=order, scale=found["scale"],
        values=address("/api/activations.npy", app_state, picture=picture, layer=layer, channels=numbers),
        geometry=None if geometry is None else geometry.to_dict(),
        centres=None if geometry is None else {
            "x": geometry.cols.centres.tolist(), "y": geometry.rows.centres.tolist(),
        },
    )  # fmt: skip


def _finite(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    from ...plain import plain

    return [dict(plain(row)) for row in rows]


def geometry_of(model: Model, album: Any, picture: str, layer: str) -> Any:
    """Where the cells of a layer look, for the picture's input size; ``None`` where that is not known."""
    shape = tuple(model.prepare(album.picture(picture)).tensor.shape)
    watched = model.watched(shape)
    if layer not in watched.layers:
        raise LayerError(no_such_layer(layer, list(watched.layers)))
    return watched.layers[layer].geometry


@router.get("/activations.npy", responses=NPY, response_class=Response)
async def activation_values(
    request: Request,
    picture: PictureId,
    layer: LayerName,
    channels: Annotated[str, Query(max_length=8000, pattern=r"^\d{1,6}(,\d{1,6})*$")],
) -> Response:
    """The values of some channels of a layer on a picture, float32 N×h×w, in the order asked for."""
    app_state = bench_of(request)
    wanted = [int(c) for c in channels.split(",")][:TILES]
    key = key_of("activation bytes", app_state.fingerprint, picture, layer, wanted)

    def make() -> bytes:
        values, _ = activation_of(app_state, picture, layer)
        if max(wanted) >= len(values):
            raise LayerError(f"Layer {layer} has {len(values)} channels (0 to {len(values) - 1}): not {max(wanted)}.")
        return npy(values[wanted])

    return send_npy(await app_state.desk.once(key, make), lasting=lasts(request))


@router.get("/filters.png", responses=PNG, response_class=Response)
async def filters(request: Request, layer: Annotated[str | None, Query(max_length=300)] = None) -> Response:
    """The weights of a convolution as pictures; default: the first convolution; of others: the one that feeds them."""
    from ...methods.views import filters as draw

    app_state = bench_of(request)

    def make() -> bytes:
        with _drawing:
            name = layer if layer is None else feeding(app_state.model, layer)
            return encoded(draw(app_state.model, name, limit=256).image, 2000)

    return send_png(
        await app_state.desk.once(key_of("filters", app_state.fingerprint, layer), make, "files"),
        lasting=lasts(request),
    )


_drawing = threading.Lock()


@router.get("/filters")
async def filter_layers(request: Request, layer: LayerName) -> dict[str, Any]:
    """The convolution whose filters are shown for a layer (itself, or the one that feeds it), and their shape."""
    app_state = bench_of(request)
    try:
        name, weights = await app_state.desk.now(
            lambda: filter_weights(app_state.model, feeding(app_state.model, layer))
        )
    except LayerError as error:
        return {"layer": layer, "there": False, "why": str(error)}
    return {"layer": name, "there": True, "shape": list(weights.shape), "feeds": name != layer.split("#")[0]}


def feeding(model: Model, layer: str) -> str:
    """The convolution whose filters a layer's channels come from: itself, or the last one run before it.

    Raises :class:`LayerError` where there is no such layer, or no convolution before it.
    """
    from torch import nn

    names = list(model.watched().layers)
    if layer not in names:
        raise LayerError(no_such_layer(layer, names))
    kinds = dict(model.module.named_modules())
    for name in reversed(names[: names.index(layer) + 1]):
        if isinstance(kinds.get(name.split("#")[0]), (nn.Conv2d, nn.ConvTranspose2d)):
            return name
    raise LayerError(f"No convolution comes before {layer}: it has no filters.")


__all__ = ["activation_of", "feeding", "geometry_of", "router", "rows_of"]
