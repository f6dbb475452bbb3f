"""The pictures' room: the strip, what is dropped in, photos and thumbnails."""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import unquote

from fastapi import APIRouter, Query, Request, Response

from ...heatmap import input_image
from ...names import upright
from .. import schemas
from ..cache import key_of
from ..picture_library import encoded
from ..schemas import REFUSALS, PicturePath
from ..serving import JPEG, PNG, bench_of, data, lasts, png

router = APIRouter(prefix="/api/pictures", tags=["pictures"], responses=REFUSALS)


@router.get("")
async def list_pictures(
    request: Request,
    offset: Annotated[int, Query(ge=0, le=1_000_000)] = 0,
    limit: Annotated[int, Query(ge=1, le=500)] = 200,
) -> schemas.Pictures:
    """The pictures of the strip: those dropped in first, then the folder's."""
    app_state = bench_of(request)
    album = app_state.album
    # pictures are known by their content: those that were not read yet are read now
    entries = await app_state.desk.now(lambda: album.entries(offset + limit))
    shown = [
        schemas.Picture(id=e.id, name=e.name, source=e.source, label=e.label)  # type: ignore[arg-type]
        for e in entries[offset : offset + limit]
    ]
    return schemas.Pictures(pictures=shown, total=album.size, refused=album.refused)


@router.post(
    "",
    status_code=201,
    openapi_extra={
        "requestBody": {
            "required": True,
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
)
async def add_picture(request: Request, name: Annotated[str, Query(max_length=300)] = "picture") -> schemas.Picture:
    """Drop a picture in: the file's bytes are the body. It is kept in memory while the server runs."""
    body = await request.body()
    app_state = bench_of(request)
    # control characters and folders have no place in a name that is shown
    clean = re.sub(r"[\x00-\x1f\x7f]", "", upright(unquote(name))).replace("\\", "/").rsplit("/", 1)[-1] or "picture"
    entry = await app_state.desk.now(lambda: app_state.album.add(body, clean))
    return schemas.Picture(id=entry.id, name=entry.name, source=entry.source, label=entry.label)


@router.get("/{id}")
async def picture(request: Request, id: PicturePath) -> schemas.PictureDetail:
    """One picture: its size, and the way from the network's input to the photo."""
    app_state = bench_of(request)

    def make() -> schemas.PictureDetail:
        entry, opened = app_state.album.entry(id), app_state.album.picture(id)
        fitted = app_state.model.prepare(opened)
        return schemas.PictureDetail(
            id=id, name=entry.name, source=entry.source, label=_label(app_state, entry.label, opened.sha256),  # type: ignore[arg-type]
            width=opened.size[1], height=opened.size[0], input=list(fitted.tensor.shape[-2:]),
            input_to_photo=fitted.input_to_photo.tolist(),
            in_collection=app_state.gathered is not None and app_state.gathered.holds(opened.sha256),
        )  # fmt: skip

    found: schemas.PictureDetail = await app_state.desk.now(make)
    return found


def _label(app_state: object, label: str | None, sha256: str) -> str | None:
    gathered = getattr(app_state, "gathered", None)
    known: str | None = gathered.label(sha256) if gathered is not None else None
    return known or label


@router.get("/{id}/photo", responses=PNG | JPEG, response_class=Response)
async def photo(request: Request, id: PicturePath, side: Annotated[int, Query(ge=16, le=2048)] = 1024) -> Response:
    """The photo, its longer side at most ``side`` pixels: PNG where it is small, JPEG where it is not."""
    app_state = bench_of(request)

    def make() -> tuple[bytes, str]:
        image = app_state.album.picture(id).image
        kind = "PNG" if max(image.size) <= 512 else "JPEG"
        return encoded(image, side, kind), kind.lower()

    content, kind = await app_state.desk.once(key_of("photo", id, side), make, "files")
    return data(content, f"image/{kind}")


@router.get("/{id}/thumbnail", responses=JPEG, response_class=Response)
async def thumbnail(request: Request, id: PicturePath) -> Response:
    """A small square of the photo's middle, 96 pixels a side."""
    app_state = bench_of(request)

    def make() -> bytes:
        image = app_state.album.picture(id).image
        side = min(image.size)
        left, top = (image.width - side) // 2, (image.height - side) // 2
        return encoded(image.crop((left, top, left + side, top + side)), 96, "JPEG")

    return data(await app_state.desk.once(key_of("thumb", id), make, "files"), "image/jpeg")


@router.get("/{id}/input", responses=PNG, response_class=Response)
async def network_input(request: Request, id: PicturePath) -> Response:
    """What the network sees of the photo, after resizing and cropping."""
    app_state = bench_of(request)

    def make() -> bytes:
        fitted = app_state.model.prepare(app_state.album.picture(id))
        return encoded(input_image(fitted, app_state.model.preprocessing.to_dict()))

    content = await app_state.desk.once(key_of("input", app_state.fingerprint, id), make, "files")
    return png(content, lasting=lasts(request))
