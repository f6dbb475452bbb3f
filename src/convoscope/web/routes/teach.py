"""For a class: a piece pasted by hand, how a convolution computes, the network as blocks, the camera as a stream."""

from __future__ import annotations

import json as text
import time
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Path, Query, Request, Response

from ... import ask as probe
from ...errors import UsageError
from ...heatmap import input_image
from ...pictures.picture import Picture
from ...plain import plain
from ..cache import key_of
from ..picture_library import check, encoded
from ..schemas import REFUSALS, PictureId, Target
from ..serving import NPY, PNG, bench_of, lasts
from ..serving import png as send_png
from ..state import AppState, npy, scale_dict

router = APIRouter(prefix="/api", tags=["teach"], responses=REFUSALS)

Pixel = Annotated[int, Query(ge=-100_000, le=100_000)]


@router.get("/paste")
async def paste(
    request: Request,
    source: PictureId,
    onto: PictureId,
    x: Pixel,
    y: Pixel,
    to_x: Pixel,
    to_y: Pixel,
    side: Annotated[int, Query(ge=1, le=4096)],
    target: Target = None,
) -> dict[str, Any]:
    """What a square of one picture's input does on another's, held against an equal square from elsewhere in it."""
    app_state = bench_of(request)
    ask = app_state.ask(source, target, None)
    app_state.album.entry(onto)

    def make() -> dict[str, Any]:
        picture = app_state.album.picture
        found = probe.paste(
            app_state.model, picture(source), picture(onto), (x, y), (to_x, to_y), side, target=ask.target
        )
        return dict(plain(found.to_dict()))

    key = key_of("paste", app_state.fingerprint, source, onto, x, y, to_x, to_y, side, target)
    return dict(await app_state.desk.once(key, make))


@router.get("/piece", responses=PNG, response_class=Response)
async def piece(
    request: Request,
    picture: PictureId,
    box: Annotated[str, Query(pattern=r"^-?\d{1,6}(,-?\d{1,6}){3}$", description="x0,y0,x1,y1 in input pixels.")],
) -> Response:
    """A piece of the network's input as a picture."""
    app_state = bench_of(request)
    x0, y0, x1, y1 = map(int, box.split(","))

    def make() -> bytes:
        fitted = app_state.model.prepare(app_state.album.picture(picture))
        whole = input_image(fitted, app_state.model.preprocessing.to_dict())
        left, top, right, bottom = max(0, x0), max(0, y0), min(whole.width, x1), min(whole.height, y1)
        if left >= right or top >= bottom:
            raise UsageError("This piece lies outside the network's input.")
        return encoded(whole.crop((left, top, right, bottom)), 256)

    content = await app_state.desk.once(key_of("piece", app_state.fingerprint, picture, box), make, "files")
    return send_png(content, lasting=lasts(request))


# how a convolution computes


def _convolution(app_state: AppState, picture: str, layer: str | None) -> Any:
    from ...methods.numbers import convolution

    key = key_of("convolution", app_state.fingerprint, picture, layer)
    found = app_state.cache.get(key)
    if found is None:
        found = convolution(app_state.model, app_state.album.picture(picture), layer or None)
        app_state.cache.put(key, found, found.nbytes)
    return found


@router.get("/convolution")
async def convolution(
    request: Request, picture: PictureId, layer: Annotated[str | None, Query(max_length=300)] = None
) -> dict[str, Any]:
    """A convolution on a picture: its sizes, what follows it, its strongest channels."""
    app_state = bench_of(request)
    app_state.album.entry(picture)

    def make() -> dict[str, Any]:
        found = _convolution(app_state, picture, layer)
        strength = np.abs(found.output).mean((1, 2))
        return dict(plain({
            "layer": found.name, "kind": found.kind, "input": list(found.input.shape),
            "output": list(found.output.shape), "kernel": list(found.weight.shape), "stride": found.stride,
            "before": found.before, "dilation": found.dilation, "groups": found.groups, "bias": found.bias is not None,
            "steps": [{"name": one.name, "kind": one.kind, "shape": list(one.values.shape)} for one in found.steps],
            "channels": np.argsort(-strength, kind="stable")[:64].tolist(),
        }))  # fmt: skip

    return dict(await app_state.desk.once(key_of("how", app_state.fingerprint, picture, layer), make))


@router.get("/convolution/cell")
async def cell(
    request: Request,
    picture: PictureId,
    channel: Annotated[int, Query(ge=0, le=100_000)],
    row: Annotated[int, Query(ge=0, le=100_000)],
    col: Annotated[int, Query(ge=0, le=100_000)],
    layer: Annotated[str | None, Query(max_length=300)] = None,
    most: Annotated[int, Query(ge=1, le=32)] = 6,
) -> dict[str, Any]:
    """How one cell's value came about: patch × weights, their sum, the bias, and what followed."""
    app_state = bench_of(request)
    app_state.album.entry(picture)

    def make() -> dict[str, Any]:
        return dict(plain(_convolution(app_state, picture, layer).at(channel, row, col, most)))

    return dict(
        await app_state.desk.once(
            key_of("cell", app_state.fingerprint, picture, layer, channel, row, col, most), make
        )
    )


@router.get("/convolution/{what}.npy", responses=NPY, response_class=Response)
async def planes(
    request: Request,
    what: Annotated[str, Path(pattern="^(input|output|step[0-9])$")],
    picture: PictureId,
    channels: Annotated[str, Query(max_length=400, pattern=r"^\d{1,6}(,\d{1,6})*$")],
    layer: Annotated[str | None, Query(max_length=300)] = None,
) -> Response:
    """Channels of what came in, went out, or followed, float32 N×h×w."""
    app_state = bench_of(request)
    app_state.album.entry(picture)

    def make() -> bytes:
        found = _convolution(app_state, picture, layer)
        number = int(what[4:]) if what.startswith("step") else 0
        if what.startswith("step") and number >= len(found.steps):
            raise UsageError(f"Only {len(found.steps)} steps follow {found.name}.")
        held = found.input if what == "input" else found.output if what == "output" else found.steps[number].values
        wanted = [int(one) for one in channels.split(",")][:32]
        if max(wanted) >= len(held):
            raise UsageError(f"There are {len(held)} channels: not {max(wanted)}.")
        return npy(held[wanted])

    from ..serving import npy as send

    return send(await app_state.desk.now(make, "network"), lasting=lasts(request))


# the network as blocks


@router.get("/blocks")
async def blocks(request: Request) -> list[dict[str, Any]]:
    """The network as blocks with branches: what feeds what, and where each is drawn."""
    app_state = bench_of(request)

    def make() -> list[dict[str, Any]]:
        from ...models.blocks import blocks as find

        return [dict(plain(one.to_dict())) for one in find(app_state.model)]

    return list(await app_state.desk.once(key_of("blocks", app_state.fingerprint), make))


# the camera


@router.post(
    "/live",
    response_class=Response,
    responses=NPY,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def live(
    request: Request,
    target: Target = None,
    method: Annotated[str, Query(pattern="^(grad-cam|hirescam)$")] = "grad-cam",
) -> Response:
    """One frame of a camera: its map (npy, float32 H×W) in the body, what the network says in ``x-reading`` (JSON).

    Nothing of it is kept.
    """
    body = await request.body()
    app_state = bench_of(request)
    app_state.ask_target(target or None)

    def make() -> tuple[bytes, str]:
        from ...explanation import explain

        check(body, "the camera's frame")
        began = time.perf_counter()
        found = explain(app_state.model, Picture.of(body, "camera"), method, target=target or None)
        heatmap = found[method]
        said = {
            "target": found.target, "prediction": found.prediction[:5], "scale": scale_dict(heatmap.scale()),
            "input_to_photo": found.fitted.input_to_photo.tolist(), "size": list(found.fitted.picture.size),
            "ms": round(1000 * (time.perf_counter() - began), 1),
        }  # fmt: skip
        # ASCII alone may stand in a header
        return npy(heatmap.values), text.dumps(plain(said), ensure_ascii=True)

    content, said = await app_state.desk.now(make, "network")
    return Response(content, media_type="application/x-npy", headers={"cache-control": "no-store", "x-reading": said})


__all__ = ["router"]
