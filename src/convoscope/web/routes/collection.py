"""The collection's room: the map, neighbours, mistakes, thumbnails."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response

from ...errors import ConvoscopeError, UsageError
from ...plain import plain
from .. import schemas
from ..cache import key_of
from ..schemas import REFUSALS, PictureId
from ..serving import JPEG, bench_of, data, json, lasts
from ..state import AppState
from ..survey_view import SurveyView

router = APIRouter(prefix="/api/collection", tags=["collection"], responses=REFUSALS)

Method = Literal["tsne", "umap", "pca"]


def gathered_of(app_state: AppState) -> SurveyView:
    """The store, or the sentence that says how to get one."""
    if app_state.gathered is None:
        raise UsageError("There is no survey of a collection here: make one with the button, or serve with --survey.")
    return app_state.gathered


def why_not(app_state: AppState) -> str | None:
    """Why no survey can be made here; ``None`` where it can."""
    if app_state.survey_into is None or app_state.album.folder is None:
        return "A survey needs a folder of pictures: start the page with --images FOLDER."
    try:
        import faiss  # noqa: F401
        import lance  # noqa: F401
    except ImportError:
        return "A survey needs an extra: pip install 'convoscope[survey]'."
    return None


@router.get("")
async def collection(request: Request) -> schemas.Collection:
    """What was surveyed, and how well the network does on it."""
    app_state = bench_of(request)
    reason = why_not(app_state)
    if app_state.gathered is None:
        return schemas.Collection(there=False, can_survey=reason is None, why_not=reason, pictures=0)
    gathered = app_state.gathered
    key = key_of("collection", app_state.fingerprint, app_state.survey_stamp)
    found = await app_state.desk.once(key, lambda: plain(gathered.summary()), "files")
    return schemas.Collection(there=True, can_survey=reason is None, why_not=reason, **found)


@router.get("/map", response_model=schemas.CollectionMap)
async def collection_map(
    request: Request,
    method: Method = "tsne",
    picture: Annotated[str | None, Query(pattern="^[0-9a-f]{16}$")] = None,
    layer: Annotated[str | None, Query(max_length=300)] = None,
) -> Response:
    """Every picture of the collection on the plane. ``picture`` is placed on it where it is not of the collection.

    A map that is not made yet takes its time: ask for it with a job of kind ``embedding`` to see progress.
    """
    app_state = bench_of(request)
    gathered = gathered_of(app_state)
    key = key_of("map of all", app_state.fingerprint, app_state.survey_stamp, method, layer or None)
    if picture is not None:
        app_state.album.entry(picture)
    found = await app_state.desk.once(key, lambda: columns(gathered, method, None, layer or None), "files")

    def make() -> schemas.CollectionMap:
        placed = None if picture is None else _placed(app_state, gathered, method, picture, layer or None)
        return schemas.CollectionMap(**found, placed=placed)

    return await json(app_state, key_of(key, picture), make)


def columns(gathered: SurveyView, method: Method, progress: Any = None, layer: str | None = None) -> dict[str, Any]:
    """The map in columns."""
    made = gathered.map(method, progress, layer)
    rows = made.rows
    wrong = [
        None if row["label"] is None or row["prediction"] is None else row["label"] != row["prediction"]
        for row in rows
    ]
    return dict(
        plain(
            {
                "method": made.method,
                "layer": made.layer,
                "title": made.title,
                "ids": [sha[:16] for sha in made.ids],
                "x": made.xy[:, 0].tolist(),
                "y": made.xy[:, 1].tolist(),
                "label": [row["label"] for row in rows],
                "prediction": [row["prediction"] for row in rows],
                "probability": [row["probability"] for row in rows],
                "wrong": wrong,
                "trust": made.trust.tolist(),
                "metrics": made.metrics,
                "notes": made.notes,
            }
        )
    )


def _placed(
    app_state: AppState, gathered: SurveyView, method: Method, picture: str, layer: str | None = None
) -> dict[str, Any]:
    opened = app_state.album.picture(picture)
    try:
        made = gathered.store.map(method, layer, place=[opened])
    except ConvoscopeError as error:
        return {"x": None, "y": None, "how": str(error)}
    one = made.placed[0]
    near = [made.ids[i][:16] for i in one.get("near", [])]
    return dict(plain({"x": one["x"], "y": one["y"], "how": one["how"], "near": near}))


@router.get("/neighbors")
async def neighbors(
    request: Request,
    picture: PictureId,
    k: Annotated[int, Query(ge=1, le=100)] = 9,
    metric: Literal["cosine", "l2"] = "cosine",
) -> schemas.Neighbors:
    """The pictures of the collection that the network finds most like this one."""
    app_state = bench_of(request)
    gathered = gathered_of(app_state)
    app_state.album.entry(picture)

    def make() -> dict[str, Any]:
        row = gathered.rows.get(picture)
        if row is not None:
            found = gathered.store.neighbors(id=row["sha256"], k=k, metric=metric)
        else:
            found = gathered.store.neighbors(app_state.album.picture(picture), k=k, metric=metric)
        listed = []
        for sha, one in zip(found.ids, found.rows, strict=True):
            listed.append(
                {
                    "id": sha[:16],
                    "name": gathered.name_of(one),
                    "similarity": one["similarity"],
                    "label": one["label"],
                    "prediction": one["prediction"],
                }
            )
        return dict(
            plain(
                {"layer": found.layer, "metric": found.metric, "recall": found.recall, "exact": found.exact,
                 "neighbors": listed}
            )
        )  # fmt: skip

    key = key_of("neighbors", app_state.fingerprint, app_state.survey_stamp, picture, k, metric)
    return schemas.Neighbors(**await app_state.desk.once(key, make))


@router.get("/mistakes")
async def mistakes(request: Request) -> schemas.Mistakes:
    """Where the network is wrong: confusions, the worst losses, the most confident errors."""
    app_state = bench_of(request)
    gathered = gathered_of(app_state)

    def make() -> dict[str, Any]:
        found = gathered.mistakes()
        if isinstance(found, str):
            raise UsageError(found)
        about = found.to_dict()
        for name, rows in (("worst", found.worst), ("confident", found.confident)):
            about[name] = [_row(gathered, row) for row in rows]
        for row in about["confusions"]:
            row["examples"] = [
                {"id": sha[:16], "name": uri.rsplit("/", 1)[-1]} for sha, uri in row["examples"].items()
            ]
        return dict(plain(about))

    key = key_of("mistakes", app_state.fingerprint, app_state.survey_stamp)
    return schemas.Mistakes(**await app_state.desk.once(key, make, "files"))


def _row(gathered: SurveyView, row: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": row["sha256"][:16],
        "name": gathered.name_of(row),
        **{name: row[name] for name in ("label", "prediction", "probability", "loss")},
    }


@router.get("/thumbnail", responses=JPEG, response_class=Response)
async def thumbnail(request: Request, picture: PictureId) -> Response:
    """The stored thumbnail of a picture of the collection."""
    app_state = bench_of(request)
    gathered = gathered_of(app_state)

    def make() -> bytes:
        found = gathered.thumbnails([picture]).get(picture)
        if found is None:
            raise UsageError(f"The collection holds no thumbnail of {picture}.")
        return found

    content = await app_state.desk.once(key_of("stored thumb", app_state.survey_stamp, picture), make, "files")
    return data(content, "image/jpeg" if content[:2] == b"\xff\xd8" else "image/webp")


@router.get("/atlas/{number}", responses=JPEG, response_class=Response)
async def atlas(request: Request, number: int) -> Response:
    """A sheet of 400 thumbnails, 20 a row, 48 pixels a side, in the order of the ids."""
    app_state = bench_of(request)
    gathered = gathered_of(app_state)
    if not 0 <= number <= len(gathered.rows) // 400:
        raise UsageError(f"There is no sheet {number} of thumbnails.")
    key = key_of("atlas", app_state.fingerprint, app_state.survey_stamp, number)
    return data(
        await app_state.desk.once(key, lambda: gathered.atlas(number), "files"), "image/jpeg", lasting=lasts(request)
    )
