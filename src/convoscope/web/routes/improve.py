"""The room of the third question: findings, flips, spots, suspected labels, concepts; what a person says of them."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from ...errors import ConvoscopeError, UsageError
from ...improve.documents import FILES
from ...plain import plain
from ...targets.classes import instead
from ..cache import key_of
from ..material import Names, command, names_of, pictures_of, truth_folder
from ..schemas import REFUSALS
from ..serving import bench_of
from ..shelf import flags
from ..state import AppState

router = APIRouter(prefix="/api/improve", tags=["improve"], responses=REFUSALS)

Kind = Literal["diagnosis", "diff", "shortcuts", "audit", "dissection", "tcav", "craft"]
#: suspects that are sent at once
SUSPECTS = 500


@router.get("")
async def improve(request: Request) -> dict[str, Any]:
    """What was found and lies here, what can be asked, and what a person has said of the spots."""
    app_state = bench_of(request)

    def make() -> dict[str, Any]:
        why = None
        try:
            pictures_of(app_state)
        except ConvoscopeError as error:
            why = str(error)
        answers = app_state.shelf.answers()
        return {
            "there": {kind: app_state.shelf.read(kind) is not None for kind in FILES},
            "why_not": why,
            "against": None if app_state.rival is None else app_state.rival.model.name,
            "parts": truth_folder(app_state) is not None,
            "answers": answers,
            "tags": app_state.marks().tags(),
            "commands": {} if why is not None else _commands(app_state, answers),
        }

    return dict(await app_state.desk.now(make))


def _commands(app_state: AppState, answers: dict[str, bool]) -> dict[str, str]:
    return {
        "diagnose": command(app_state, "diagnose", "--out", "found"),
        "shortcuts": command(app_state, "shortcuts", "--out", "found", *flags(answers)),
        "audit": command(app_state, "audit", "--out", "found"),
        "repair": command(app_state, "repair", "--finding", "1", "--out", "fixed.safetensors", *flags(answers)),
    }


@router.get("/concepts")
async def concepts_of_unit(
    request: Request, unit: Annotated[str, Query(max_length=320, description="A unit: layer:channel.")]
) -> dict[str, Any]:
    """What dissection, CRAFT and TCAV say of one unit."""
    app_state = bench_of(request)
    return dict(await app_state.desk.now(lambda: _of_unit(app_state, unit)))


def _of_unit(app_state: AppState, unit: str) -> dict[str, Any]:
    layer, _, number = unit.rpartition(":")
    channel = int(number) if number.isdecimal() else -1
    names, shelf = names_of(app_state), app_state.shelf
    found: dict[str, Any] = {"unit": unit, "dissection": [], "craft": [], "tcav": [], "looked": False}
    wanted = {unit}
    if app_state.gathered is not None:
        # a block and its last activation are one layer: dissection names what was surveyed
        known = app_state.gathered.known_as(layer)
        if known is not None:
            wanted.add(f"{known}:{channel}")
    layers = {one.rpartition(":")[0] for one in wanted}
    document = shelf.read("dissection")
    if document is not None:
        found["looked"] = True
        rows = [row for row in document.get("rows", []) if row.get("unit") in wanted]
        found["dissection"] = [{**row, "pictures": names.all(row.get("pictures", [])[:6])} for row in rows[:6]]
    document = shelf.read("craft")
    if document is not None and document.get("layer") in layers:
        for part in document.get("parts", []):
            weight = next((value for at, value in part.get("channels", []) if at == channel), None)
            if weight is not None:
                found["craft"].append({"target": document["target"], "part": part["part"], "weight": weight})
    document = shelf.read("tcav")
    for row in [] if document is None else document.get("rows", []):
        weight = next((value for at, value in row.get("channels", []) if at == channel), None)
        if row.get("layer") in layers and weight is not None:
            found["tcav"].append(
                {**{name: row[name] for name in ("concept", "target", "score", "p")}, "weight": weight}
            )
    return dict(plain(found))


@router.get("/audit.csv", response_class=Response, responses={200: {"content": {"text/csv": {}}}})
async def audit_table(request: Request) -> Response:
    """The suspected labels with what a person decided: file, label, suggested, score, decision, new label."""
    app_state = bench_of(request)
    text = await app_state.desk.now(lambda: _audit_csv(app_state))
    headers = {"cache-control": "no-store", "content-disposition": 'attachment; filename="labels.csv"'}
    return Response(str(text).encode("utf-8", "backslashreplace"), media_type="text/csv", headers=headers)


def _audit_csv(app_state: AppState) -> str:
    document = app_state.shelf.read("audit")
    if document is None:
        raise UsageError("Labels were not examined yet.")
    names, marks = names_of(app_state), app_state.marks()
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(["file", "label", "suggested", "score", "decision", "new label", "note"])
    for one in document.get("suspects", []):
        mark = marks.of(names.id(one["uri"]) or "")
        decision = "removed" if mark.removed else "right" if mark.sure else "wrong" if mark.label else ""
        texts = (_relative(app_state, one["uri"]), one["label"], one["suggested"])
        row = [*map(safe, texts), f"{one['score']:.4f}", decision, safe(mark.label or ""), safe(mark.note)]
        writer.writerow(row)
    return buffer.getvalue()


def _relative(app_state: AppState, uri: str) -> str:
    """The file's place in the folder that is served; else its name alone, since paths are nobody's business here."""
    folder = app_state.album.folder
    if folder is not None and "://" not in uri and Path(uri).is_relative_to(folder):
        return str(Path(uri).relative_to(folder))
    return uri.replace("\\", "/").rsplit("/", 1)[-1]


def safe(text: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{text}" if text and text[0] in "=+-@\t\r" else text


class Answer(BaseModel):
    """Whether the spot of a class is a part of the thing; null takes it back."""

    model_config = ConfigDict(extra="forbid")

    label: Annotated[str, Field(min_length=1, max_length=200)]
    is_part: bool | None


@router.post("/answer")
async def answer(request: Request, given: Answer) -> dict[str, Any]:
    """Say of a class's spot whether it is a part of the thing: the next search and `repair` take it."""
    app_state = bench_of(request)
    labels = app_state.model.labels
    if labels is not None and given.label not in labels:
        raise UsageError(f"The network has no class {given.label!r}. {instead(given.label, labels)}")

    def make() -> dict[str, Any]:
        answers = app_state.shelf.answer(given.label, given.is_part)
        return {"answers": answers, "commands": _commands(app_state, answers)}

    return dict(await app_state.desk.now(make))


@router.get("/{kind}")
async def document(request: Request, kind: Kind) -> dict[str, Any]:
    """One result as its command writes it, with pictures by the page's ids."""
    app_state = bench_of(request)

    def make() -> dict[str, Any]:
        found = app_state.shelf.read(kind)
        if found is None:
            return {"there": False}
        try:
            return {"there": True, **plain(VIEWS[kind](app_state, found, names_of(app_state)))}
        except (KeyError, TypeError, AttributeError, ValueError):
            raise UsageError(f"{FILES[kind]} is not of this version of Convoscope: make it anew.") from None

    key = key_of("third", kind, app_state.shelf.stamp, app_state.survey_stamp, app_state.marks().stamp)
    return dict(await app_state.desk.once(key, make, "files"))


def findings(listed: list[dict[str, Any]], settings: list[dict[str, Any]], names: Names) -> list[dict[str, Any]]:
    """Findings with their pictures and what was measured: numbers and short texts of the evidence."""
    made = []
    for number, one in enumerate(listed):
        evidence = settings[number] if number < len(settings) else {}
        facts = {
            name: value for name, value in evidence.items() if isinstance(value, (str, int, float, bool)) or
            (isinstance(value, dict) and set(value) == {"mean", "low", "high"})
        }  # fmt: skip
        made.append(
            {**one, "pictures": names.all(one["pictures"][:60]), "count": len(one["pictures"]), "facts": facts}
        )
    return made


def _diagnosis(app_state: AppState, found: dict[str, Any], names: Names) -> dict[str, Any]:
    return {
        **found,
        "findings": findings(found["findings"], found.get("settings", []), names),
        "further": findings(found.get("further", []), [], names),
        "settings": None,
    }


def _diff(app_state: AppState, found: dict[str, Any], names: Names) -> dict[str, Any]:
    pairs = []
    for pair in found["pairs"]:
        pairs.append({
            "a": pair["a"], "b": pair["b"], "p": pair["p"], "difference": pair["difference"], "churn": pair["churn"],
            "won": names.all(pair["won"][:200]), "lost": names.all(pair["lost"][:200]),
            "won_count": len(pair["won"]), "lost_count": len(pair["lost"]), "both_wrong": len(pair["both_wrong"]),
            "findings": findings(pair["findings"], [], names), "classes": pair["classes"],
            "flips": [{**one, "picture": names.one(one["picture"])} for one in pair["maps"]],
            "path": pair["cka"]["path"], "notes": pair["notes"],
        })  # fmt: skip
    return {"pictures": found["pictures"], "models": found["models"], "pairs": pairs, "notes": found["notes"]}


def _shortcuts(app_state: AppState, found: dict[str, Any], names: Names) -> dict[str, Any]:
    spots = {
        label: {
            "side": one["side"], "into": names.all(one["into"]),
            "places": [{**place, "picture": names.one(place["picture"])} for place in one["places"]],
        }
        for label, one in found.get("spots", {}).items()
    }  # fmt: skip
    return {
        **{name: found.get(name) for name in ("tests", "notes", "answered", "missed", "pictures", "input")},
        "findings": findings(found["findings"], found.get("settings", []), names),
        "classes": found["classes"], "spots": spots, "answers": app_state.shelf.answers(),
    }  # fmt: skip


def _audit(app_state: AppState, found: dict[str, Any], names: Names) -> dict[str, Any]:
    marks = app_state.marks()
    # the label that the network would give, too, is nobody's suspect
    listed = [one for one in found["suspects"] if one["label"] != one["suggested"]][:SUSPECTS]
    suspects = []
    for one in listed:
        picture = names.one(one["uri"])
        mark = marks.of(picture["id"] or "")
        row = {**one, **picture, "decision": {"label": mark.label, "sure": mark.sure, "removed": mark.removed}}
        row.pop("uri")
        suspects.append(row)
    return {
        "pictures": found["pictures"], "labels": found["labels"], "unlabelled": found["unlabelled"],
        "suspects": suspects,
        "copies": [{**one, "a": names.one(one["a"]), "b": names.one(one["b"])} for one in found["copies"][:60]],
        "leaks": len(found["leaks"]), "classes": found["classes"], "kin": found["kin"],
        "outliers": [{**names.one(one["uri"]), "distance": one["distance"]} for one in found["outliers"][:24]],
    }  # fmt: skip


def _dissection(app_state: AppState, found: dict[str, Any], names: Names) -> dict[str, Any]:
    rows = [{**row, "pictures": names.all(row.get("pictures", [])[:6])} for row in found["rows"][:400]]
    return {**found, "rows": rows}


def _craft(app_state: AppState, found: dict[str, Any], names: Names) -> dict[str, Any]:
    parts = [{**part, "pictures": names.all(part["pictures"])} for part in found["parts"]]
    return {**found, "parts": parts}


def _tcav(app_state: AppState, found: dict[str, Any], names: Names) -> dict[str, Any]:
    return found


VIEWS: dict[str, Callable[[AppState, dict[str, Any], Names], dict[str, Any]]] = {
    "diagnosis": _diagnosis, "diff": _diff, "shortcuts": _shortcuts, "audit": _audit, "dissection": _dissection,
    "craft": _craft, "tcav": _tcav,
}  # fmt: skip


def suspects_of(app_state: AppState) -> dict[str, float]:
    """Picture -> score of its label, of those that the audit thinks wrong (its estimated number, twenty at least)."""
    found = app_state.shelf.read("audit")
    if found is None or not found.get("labels"):
        return {}
    key = key_of("suspects", app_state.shelf.stamp, app_state.survey_stamp)
    kept = app_state.cache.get(key)
    if kept is None:
        names = names_of(app_state)
        most = max(20, int(found["labels"].get("count") or 0))
        listed = [one for one in found["suspects"][:most] if one["label"] != one["suggested"]]
        kept = {id: float(one["score"]) for one in listed if (id := names.id(one["uri"])) is not None}
        app_state.cache.put(key, kept, 200 * len(kept) + 200)
    return kept  # type: ignore[no-any-return]


__all__ = ["router", "safe", "suspects_of"]
