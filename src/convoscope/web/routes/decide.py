"""The room where the network decides: predictions, maps, a mask by hand."""

from __future__ import annotations

import contextlib
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request, Response

from ... import ask as probe
from ...errors import MethodRefused, UsageError
from ...explanation import DEFAULT_METHODS
from ...methods import METHODS
from ...plain import plain
from .. import schemas
from ..cache import key_of
from ..picture_library import encoded
from ..schemas import REFUSALS, Against, Methods, PictureId, Settings, Target
from ..serving import NPY, PNG, address, bench_of, json, lasts
from ..serving import npy as send_npy
from ..serving import png as send_png
from ..state import AppState, Ask, Kept, npy
from .units import split

router = APIRouter(prefix="/api", tags=["decide"], responses=REFUSALS)

#: maps in one request
MOST = 24
#: classes or instances that are compared before and after a mask: as many as the page can show
COUNTED = 50
_DEFAULT = ",".join(DEFAULT_METHODS)


@router.get("/predict", response_model=schemas.Reading)
async def predict(
    request: Request,
    picture: PictureId,
    target: Target = None,
    against: Against = None,
    count: Annotated[int, Query(ge=1, le=1000)] = 10,
) -> Response:
    """What the network makes of a picture: its best classes (or boxes, segments, landmarks)."""
    app_state = bench_of(request)
    ask = app_state.ask(picture, target, against)

    def make() -> schemas.Reading:
        reading = probe.read(app_state.model, app_state.album.picture(picture), ask.target, ask.against, count=count)
        return schemas.Reading(**plain(reading.to_dict()))

    return await json(app_state, key_of("predict", *ask.about(), count), make)


@router.get("/explain", response_model=schemas.Explanation)
async def explain(
    request: Request,
    picture: PictureId,
    target: Target = None,
    against: Against = None,
    methods: Methods = _DEFAULT,
    layer: Annotated[str | None, Query(max_length=300)] = None,
    settings: Settings = None,
) -> Response:
    """Maps of a picture by several methods, in as few passes as they can share.

    Methods that need hundreds of passes are listed in ``slow`` unless they were made before: ask for them with a job.
    """
    app_state = bench_of(request)
    ask = _ask(app_state, picture, target, against, methods, layer, settings, lenient=True)
    if ask.unread and not ask.methods:
        raise UsageError(ask.unread[0][1])
    known = [name for name, one in ask.methods if not one.about.slow or _there(app_state, ask, name)]
    slow = [name for name, _ in ask.methods if name not in known]

    def make() -> schemas.Explanation:
        found = app_state.explain(ask, known)
        fitted = app_state.model.prepare(app_state.album.picture(picture))
        return schemas.Explanation(
            picture=picture, **plain(found["decision"]), input_to_photo=fitted.input_to_photo.tolist(),
            input=list(fitted.tensor.shape[-2:]), refused=found["refused"] | dict(ask.unread), slow=slow,
            maps=[_map(app_state, ask, name, kept) for name, kept in found["maps"].items()],
        )  # fmt: skip

    asked = [(name, ask.key(name)) for name in known]
    return await json(app_state, key_of("explain", *ask.about(), asked, slow, ask.unread), make)


def _ask(
    app_state: AppState,
    picture: str,
    target: str | None,
    against: str | None,
    methods: str,
    layer: str | None,
    settings: list[str] | None,
    *,
    lenient: bool = False,
) -> Ask:
    names = list(dict.fromkeys(part.strip() for part in methods.split(",") if part.strip()))
    if len(names) > MOST:
        raise UsageError(f"{len(names)} methods at once: {MOST} are the limit.")
    return app_state.ask(picture, target, against, names, layer, settings or (), lenient=lenient)


def _there(app_state: AppState, ask: Ask, name: str) -> bool:
    return app_state.cache.get(ask.key(name)) is not None


def map_query(ask: Ask, name: str) -> dict[str, Any]:
    """The query that names one map of a question."""
    chosen = dict(ask.methods)[name]
    settings = [
        f"{name}.{field}={value}"
        for field, value in vars(chosen).items()
        if value is not None and value != type(chosen).__dataclass_fields__[field].default
    ]
    return {"picture": ask.picture, "target": ask.target, "against": ask.against, "set": settings}


def _map(app_state: AppState, ask: Ask, name: str, kept: Kept) -> schemas.Map:
    query = map_query(ask, name)
    return schemas.Map(
        **{**plain(kept.about), "name": name},
        values=address(f"/api/maps/{name}.npy", app_state, **query),
        image=address(f"/api/maps/{name}.png", app_state, **query),
    )


async def _kept(
    request: Request,
    method: str,
    picture: str,
    target: str | None,
    against: str | None,
    settings: list[str] | None,
) -> Kept:
    app_state = bench_of(request)
    ask = _ask(app_state, picture, target, against, method, None, settings)
    if not ask.methods:
        raise UsageError("Name a method.")
    name, chosen = ask.methods[0]
    found = app_state.cache.get(ask.key(name))
    if found is None:
        if chosen.about.slow:
            raise UsageError(f"{name} needs hundreds of passes: ask for it with a job (POST /api/jobs).")
        answer = await app_state.desk.once(key_of("one map", ask.key(name)), lambda: app_state.explain(ask, [name]))
        if name in answer["refused"]:
            raise MethodRefused(answer["refused"][name])
        found = answer["maps"][name]
    return found  # type: ignore[no-any-return]


@router.get("/maps/{method}.npy", responses=NPY, response_class=Response)
async def map_values(
    request: Request,
    method: str,
    picture: PictureId,
    target: Target = None,
    against: Against = None,
    settings: Settings = None,
) -> Response:
    """A map's values, float32 H×W at the network's input resolution, in the method's own unit."""
    kept = await _kept(request, method, picture, target, against, settings)
    return send_npy(npy(kept.heatmap.values), lasting=lasts(request))


@router.get("/maps/{method}.png", responses=PNG, response_class=Response)
async def map_image(
    request: Request,
    method: str,
    picture: PictureId,
    target: Target = None,
    against: Against = None,
    settings: Settings = None,
    on: Annotated[str, Query(pattern="^(photo|input)$")] = "photo",
) -> Response:
    """The map drawn over the photo (or over the network's input), as the library draws it."""
    app_state = bench_of(request)
    kept = await _kept(request, method, picture, target, against, settings)
    key = key_of("drawn", app_state.fingerprint, picture, target, against, method, settings, on)
    return send_png(
        await app_state.desk.once(key, lambda: encoded(kept.heatmap.overlay(on=on)), "files"), lasting=lasts(request)
    )


@router.get("/cover")
async def cover(
    request: Request,
    picture: PictureId,
    x0: Annotated[int, Query(ge=-100_000, le=100_000)],
    y0: Annotated[int, Query(ge=-100_000, le=100_000)],
    x1: Annotated[int, Query(ge=-100_000, le=100_000)],
    y1: Annotated[int, Query(ge=-100_000, le=100_000)],
    target: Target = None,
    against: Against = None,
    fill: Annotated[str, Query(max_length=20)] = "mean",
    off: Annotated[
        list[str] | None, Query(max_length=256, description="Units that are switched off meanwhile: layer:channel.")
    ] = None,
) -> schemas.Change:
    """What covering a box of the network's input changes: one window of occlusion, by hand."""
    app_state = bench_of(request)
    ask = app_state.ask(picture, target, against)
    box = (x0, y0, x1, y1)
    units = sorted(off or ())

    def make() -> dict[str, Any]:
        for unit in units:
            split(app_state, unit.partition("@")[0])
        found = probe.cover(
            app_state.model, app_state.album.picture(picture), box, ask.target, ask.against, fill=fill, off=units,
            count=COUNTED,
        )  # fmt: skip
        return dict(plain(found.to_dict()))

    return schemas.Change(**await app_state.desk.once(key_of("cover", *ask.about(), box, fill, units), make))


@router.get("/methods")
async def methods() -> list[dict[str, Any]]:
    """All methods: what they show, formula, paper, cost, settings."""
    from ...methods import describe
    from ...methods.formulas import FORMULAS

    return [{**row, "formula": FORMULAS.get(row["name"], ""), **_kind(row["name"])} for row in plain(describe())]


def _kind(name: str) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    with contextlib.suppress(KeyError):
        fields["has_layer"] = "layer" in METHODS[name].__dataclass_fields__
    return fields
