"""The collection's pictures one by one: a filtered list, the matrix of confusions, notes, tables to take along."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from typing import Annotated, Any, Literal, get_type_hints

import numpy as np
from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from ...errors import UsageError
from ...plain import plain
from ...surveys.ask.filter import Columns, Filter, Ints
from ..cache import key_of
from ..schemas import REFUSALS, PictureId
from ..serving import bench_of
from ..state import AppState
from .collection import Method, columns, gathered_of
from .improve import safe, suspects_of

router = APIRouter(prefix="/api/collection", tags=["collection"], responses=REFUSALS)

#: neighbours that "alike" gathers
ALIKE = 200
#: classes of one matrix of confusions
CLASSES = 40


class Wanted:
    """What is looked for, read from the address; the same for the list, the next picture and the table."""

    def __init__(
        self,
        search: Annotated[str, Query(max_length=200, description="Words of the name, label, tags, note.")] = "",
        label: Annotated[str, Query(max_length=200)] = "",
        prediction: Annotated[str, Query(max_length=200)] = "",
        state: Literal["", "right", "wrong", "unlabelled"] = "",
        low: Annotated[float, Query(ge=0, le=1, description="The least probability.")] = 0.0,
        high: Annotated[float, Query(ge=0, le=1)] = 1.0,
        suspected: Annotated[bool, Query(description="Labels that the audit suspects.")] = False,
        duplicate: bool = False,
        tag: Annotated[str, Query(max_length=60)] = "",
        noted: bool = False,
        removed: bool = False,
        finding: Annotated[
            int | None, Query(ge=1, le=99, description="Pictures of a finding of the diagnosis.")
        ] = None,
        alike: Annotated[str, Query(pattern="^([0-9a-f]{16})?$", description="A picture's neighbourhood.")] = "",
        lasso: Annotated[
            str, Query(max_length=6000, pattern=r"^[0-9eE+\-.,;]*$", description="x,y;x,y;... on the map.")
        ] = "",
        map: Annotated[Method, Query(description="The map on which the lasso was drawn.")] = "tsne",
        layer: Annotated[str, Query(max_length=300, description="The map's layer.")] = "",
        order: Literal["name", "confidence", "unsure", "loss", "suspicion", "label"] = "name",
    ) -> None:
        self.map, self.layer, self.finding, self.alike = map, layer, finding, alike
        try:
            corners = tuple(
                (float(x), float(y)) for x, _, y in (one.partition(",") for one in lasso.split(";") if one)
            )
        except ValueError:
            raise UsageError("A lasso is written x,y;x,y;x,y.") from None
        self.filter = Filter(
            search,
            label,
            prediction,
            state,
            low,
            high,
            suspected,
            duplicate,
            tag,
            noted,
            removed,
            None,
            corners,
            order,
        )

    def key(self) -> list[Any]:
        """What the answer depends on, besides the store and the notes."""
        return [str(self.filter), self.map, self.layer, self.finding, self.alike]


# FastAPI before 0.121 or so does not look up the names in a class's annotations
Wanted.__init__.__annotations__ = get_type_hints(Wanted.__init__, include_extras=True)
Wants = Annotated[Wanted, Depends()]


def columns_of(app_state: AppState) -> Columns:
    """The collection's columns, read once."""
    gathered = gathered_of(app_state)
    found: Columns = gathered._once(("columns", gathered.stamp), lambda: Columns.of(gathered.store))
    return found


def find(app_state: AppState, wanted: Wanted) -> Ints:
    """Rows of the pictures that are looked for; kept, since a list is asked for in pieces."""
    about = [app_state.survey_stamp, app_state.marks().stamp, app_state.shelf.stamp]
    key = key_of("found", app_state.fingerprint, about, wanted.key())
    kept = app_state.cache.get(key)
    if kept is None:
        from dataclasses import replace

        chosen = wanted.filter
        among = _among(app_state, wanted)
        if among is not None:
            chosen = replace(chosen, among=among)
        places = _places(app_state, wanted) if chosen.lasso else None
        kept = columns_of(app_state).find(chosen, app_state.marks().all(), suspects_of(app_state), places)
        app_state.cache.put(key, kept, kept.nbytes + 200)
    return kept  # type: ignore[no-any-return]


def _among(app_state: AppState, wanted: Wanted) -> frozenset[str] | None:
    found: frozenset[str] | None = None
    if wanted.finding is not None:
        from ..material import names_of

        document = app_state.shelf.read("diagnosis") or {}
        listed = [*document.get("findings", []), *document.get("further", [])]
        if wanted.finding > len(listed):
            raise UsageError(f"There is no finding {wanted.finding} here.")
        names = names_of(app_state)
        found = frozenset(filter(None, (names.id(uri) for uri in listed[wanted.finding - 1]["pictures"])))
    if wanted.alike:
        gathered = gathered_of(app_state)
        row = gathered.rows.get(wanted.alike)
        asked: dict[str, Any] = {"id": row["sha256"]} if row else {"image": app_state.album.picture(wanted.alike)}
        near = gathered.store.neighbors(k=min(ALIKE, max(1, len(gathered.rows) - 1)), **asked)
        close = frozenset([*(sha[:16] for sha in near.ids), *([wanted.alike] if row else [])])
        found = close if found is None else found & close
    return found


def _places(app_state: AppState, wanted: Wanted) -> tuple[list[str], Any]:
    key = key_of("map of all", app_state.fingerprint, app_state.survey_stamp, wanted.map, wanted.layer or None)
    made = app_state.cache.get(key)
    if made is None:
        made = columns(gathered_of(app_state), wanted.map, None, wanted.layer or None)
        app_state.cache.put(key, made, 200 * len(made["ids"]))
    points = made.get("points")
    if points is None:
        points = made["points"] = np.stack([made["x"], made["y"]], 1)
    return made["ids"], points


def rows_of(app_state: AppState, places: Iterable[Any]) -> list[dict[str, Any]]:
    """Pictures of the list. What the rows are made of is looked up once for all: each look asks the disk."""
    held, marks, suspects = columns_of(app_state), app_state.marks(), suspects_of(app_state)
    found = []
    for at in map(int, places):
        id, wrong = held.ids[at], int(held.wrong[at])
        mark = marks.of(id)
        found.append({
            "id": id, "name": held.names[at], "label": held.labels[at], "prediction": held.predictions[at],
            "probability": float(held.probability[at]), "wrong": None if wrong < 0 else bool(wrong),
            "suspected": id in suspects, "duplicate": bool(held.duplicate[at]), "tags": mark.tags,
            "note": mark.note, "removed": mark.removed, "new_label": mark.label,
        })  # fmt: skip
    return found


@router.get("/pictures")
async def pictures(
    request: Request,
    wanted: Wants,
    offset: Annotated[int, Query(ge=0, le=10_000_000)] = 0,
    limit: Annotated[int, Query(ge=1, le=500)] = 120,
) -> dict[str, Any]:
    """The pictures that are looked for, a piece of the list at a time, with how many there are in all."""
    app_state = bench_of(request)

    def make() -> dict[str, Any]:
        rows = find(app_state, wanted)
        shown = rows_of(app_state, rows[offset : offset + limit])
        return {"total": len(rows), "of": len(columns_of(app_state)), "offset": offset, "pictures": plain(shown)}

    return dict(await app_state.desk.now(make))


@router.get("/ids")
async def ids(
    request: Request, wanted: Wants, limit: Annotated[int, Query(ge=1, le=200_000)] = 100_000
) -> dict[str, Any]:
    """The ids alone of the pictures that are looked for: what is marked on the map."""
    app_state = bench_of(request)

    def make() -> dict[str, Any]:
        rows, held = find(app_state, wanted), columns_of(app_state)
        return {"total": len(rows), "ids": [held.ids[int(at)] for at in rows[:limit]]}

    return dict(await app_state.desk.now(make))


@router.get("/next")
async def next_picture(
    request: Request, wanted: Wants, picture: Annotated[str, Query(pattern="^([0-9a-f]{16})?$")] = "",
    step: Annotated[int, Query(ge=-1, le=1)] = 1,
) -> dict[str, Any]:  # fmt: skip
    """The next picture of the list after ``picture`` (or the one before it): the next mistake, the next suspect."""
    app_state = bench_of(request)

    def make() -> dict[str, Any]:
        rows, held = find(app_state, wanted), columns_of(app_state)
        if not len(rows):
            return {"picture": None, "place": None, "total": 0}
        here = held.row.get(picture)
        found = np.flatnonzero(rows == here) if here is not None else np.zeros(0, np.int64)
        place = (int(found[0]) + step) % len(rows) if len(found) else 0 if step >= 0 else len(rows) - 1
        return {"picture": plain(rows_of(app_state, [rows[place]])[0]), "place": place, "total": len(rows)}

    return dict(await app_state.desk.now(make))


@router.get("/confusion")
async def confusion(request: Request, wanted: Wants) -> dict[str, Any]:
    """How often each label is taken for each class, of the pictures that are looked for."""
    app_state = bench_of(request)

    def make() -> dict[str, Any]:
        names, counts = columns_of(app_state).confusion(find(app_state, wanted))
        every = len(names)
        if every > CLASSES:  # those that are confused most
            off = counts - np.diag(np.diag(counts))
            chosen = np.sort(np.argsort(-(off.sum(0) + off.sum(1)), kind="stable")[:CLASSES])
            names, counts = [names[i] for i in chosen], counts[np.ix_(chosen, chosen)]
        return {"labels": names, "counts": counts.tolist(), "classes": every, "pictures": int(counts.sum())}

    return dict(await app_state.desk.now(make))


@router.get("/pictures.csv", response_class=Response, responses={200: {"content": {"text/csv": {}}}})
async def table(request: Request, wanted: Wants) -> Response:
    """The pictures that are looked for as a table, with tags and notes."""
    app_state = bench_of(request)

    def make() -> str:
        buffer = io.StringIO()
        writer = csv.writer(buffer, lineterminator="\n")
        writer.writerow(
            ["sha256", "file", "label", "prediction", "probability", "wrong", "tags", "note", "new label"]
        )
        for one in rows_of(app_state, find(app_state, wanted)):
            wrong = "" if one["wrong"] is None else str(one["wrong"]).lower()
            cells = (one["name"], one["label"] or "", one["prediction"] or "")
            writer.writerow([one["id"], *map(safe, cells), f"{one['probability']:.5f}", wrong,
                             safe(" ".join(one["tags"])), safe(one["note"]), safe(one["new_label"] or "")])  # fmt: skip
        return buffer.getvalue()

    text = str(await app_state.desk.now(make))
    headers = {"cache-control": "no-store", "content-disposition": 'attachment; filename="pictures.csv"'}
    return Response(text.encode("utf-8", "backslashreplace"), media_type="text/csv", headers=headers)


@router.get("/near")
async def near(
    request: Request, picture: PictureId, k: Annotated[int, Query(ge=1, le=50)] = 10, layer: str = ""
) -> dict[str, Any]:
    """The true neighbours of a picture in the layer's own space, for the lines on the map."""
    app_state = bench_of(request)
    gathered = gathered_of(app_state)

    def make() -> dict[str, Any]:
        row = gathered.rows.get(picture)
        if row is None:
            raise UsageError(
                "This picture is not of the collection: its neighbours are under /api/collection/neighbors."
            )
        found = gathered.store.neighbors(id=row["sha256"], k=k, layer=layer[:300] or None)
        return {"ids": [sha[:16] for sha in found.ids], "layer": found.layer}

    key = key_of("near", app_state.fingerprint, app_state.survey_stamp, picture, k, layer)
    return dict(await app_state.desk.once(key, make, "files"))


# what people note


class Note(BaseModel):
    """A tag, a note, a removal or a corrected label of some pictures (by id) or units (layer:channel)."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["tag", "untag", "note", "remove", "label", "sure"]
    about: Annotated[list[Annotated[str, Field(max_length=320)]], Field(max_length=5000)] = []
    value: Annotated[str, Field(max_length=2000)] = ""
    query: Annotated[str, Field(max_length=8000)] = ""


def _marks(app_state: AppState, about: str = "") -> dict[str, Any]:
    marks = app_state.marks()
    last = marks.last
    return {
        "tags": marks.tags(), "of": marks.of(about).to_dict() if about else None,
        "undo": None if last is None else {"kind": last["kind"], "value": last["value"], "count": len(last["about"])},
        "kept": marks.path is not None,
    }  # fmt: skip


@router.get("/marks", response_model=None)
async def marks(request: Request, about: Annotated[str, Query(max_length=320)] = "") -> dict[str, Any]:
    """All tags, what is noted of one picture or unit, and what undoing would take back."""
    app_state = bench_of(request)
    return dict(await app_state.desk.now(lambda: _marks(app_state, about)))


@router.post("/marks")
async def note(request: Request, given: Note) -> dict[str, Any]:
    """Note something. ``query`` (the address of a list) notes it of all the list's pictures."""
    app_state = bench_of(request)

    def make() -> dict[str, Any]:
        about = list(given.about)
        if given.query:
            about += [columns_of(app_state).ids[int(at)] for at in find(app_state, _from_query(given.query))]
        app_state.marks().add(given.kind, about, given.value)
        return _marks(app_state, about[0] if about else "")

    return dict(await app_state.desk.now(make))


def _from_query(text: str) -> Wanted:
    """A list's address as the page has it, read as the list itself reads it."""
    from urllib.parse import parse_qsl

    from pydantic import TypeAdapter, ValidationError

    kinds: dict[str, Any] = {"low": float, "high": float, "suspected": bool, "duplicate": bool, "noted": bool,
                             "removed": bool, "finding": int}  # fmt: skip
    known = ("search", "label", "prediction", "state", "tag", "alike", "lasso", "map", "layer", "order", *kinds)
    given: dict[str, Any] = {}
    try:
        for name, value in parse_qsl(text, strict_parsing=False):
            if name in known:
                given[name] = TypeAdapter(kinds.get(name, str)).validate_python(value)
    except ValidationError:
        raise UsageError("The list's address cannot be read.") from None
    return Wanted(**given)


@router.post("/undo")
async def undo(request: Request) -> dict[str, Any]:
    """Take the last note back."""
    app_state = bench_of(request)

    def make() -> dict[str, Any]:
        last = app_state.marks().undo()
        return {**_marks(app_state, last["about"][0]), "undone": {"kind": last["kind"], "count": len(last["about"])}}

    return dict(await app_state.desk.now(make))


__all__ = ["columns_of", "find", "router"]
