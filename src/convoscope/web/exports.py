"""What leaves the page as files: the report of some pictures, sheets of maps, tables. Made as jobs, fetched once."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..errors import ConvoscopeError, UsageError
from ..improve.documents import FILES
from .cache import key_of
from .examine import Telling
from .jobs import Handle
from .material import names_of
from .schemas import JobRequest
from .state import AppState

Work = Callable[[Handle], dict[str, Any]]
Prepared = tuple[str, str, Work]

#: pictures of one report or one set of sheets
MOST = 64


def _asked(app_state: AppState, asked: JobRequest) -> list[str]:
    ids = list(dict.fromkeys(asked.pictures))
    if not ids:
        raise UsageError("Choose the pictures first.")
    if len(ids) > MOST:
        raise UsageError(
            f"{len(ids)} pictures at once: {MOST} are the limit here; the command line takes any number."
        )
    for id in ids:
        app_state.album.entry(id)
    return ids


def report(app_state: AppState, asked: JobRequest) -> Prepared:
    """The report of these pictures, with what was found on the collection."""
    ids = _asked(app_state, asked)

    def work(handle: Handle) -> dict[str, Any]:
        from ..reports.report import report as write

        told, names = Telling(handle), names_of(app_state)
        gathered = app_state.gathered
        found = write(
            app_state.twin(), [app_state.album.picture(id) for id in ids],
            store=None if gathered is None else gathered.store,
            found_before={kind: one for kind in FILES if (one := app_state.shelf.read(kind)) is not None},
            open_picture=lambda uri: app_state.album.picture(names.id(uri) or ""),
            progress=lambda what, done, total: told("Report", done, total),
        )  # fmt: skip
        handle.file("report.html", "text/html", found.html.encode("utf-8", "backslashreplace"))
        return {"file": "report.html", "pictures": len(found.records), "failed": list(found.failed.values())}

    return key_of("report", app_state.fingerprint, app_state.survey_stamp, ids), "Report", work


def sheets(app_state: AppState, asked: JobRequest) -> Prepared:
    """A sheet of maps for each picture, and the numbers of all, in one zip file."""
    ids = _asked(app_state, asked)
    methods = asked.methods or ["grad-cam"]
    read = app_state.ask(ids[0], asked.target, asked.against, methods, asked.layer, asked.settings).methods

    def work(handle: Handle) -> dict[str, Any]:
        from ..explanation import explain
        from ..plain import dump_json

        told, model = Telling(handle), app_state.twin()
        buffer, records, failed = io.BytesIO(), [], []
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
            for number, id in enumerate(ids):
                told("Explaining", number, len(ids))
                try:
                    found = explain(
                        model, app_state.album.picture(id), [one for _, one in read], target=asked.target,
                        against=asked.against,
                    )  # fmt: skip
                except ConvoscopeError as error:
                    failed.append(str(error))
                    continue
                records.append(found.to_dict())
                name = Path(app_state.album.entry(id).name).stem[:60] or id
                drawn = io.BytesIO()
                found.sheet().image.save(drawn, "PNG")
                archive.writestr(f"{number + 1:03d} {name}.png", drawn.getvalue())
            archive.writestr("explain.json", dump_json(records) + "\n")
        told("Explaining", len(ids), len(ids))
        handle.file("sheets.zip", "application/zip", buffer.getvalue())
        return {"file": "sheets.zip", "pictures": len(records), "failed": failed}

    key = key_of("sheets", app_state.fingerprint, ids, methods, asked.target, asked.against, asked.settings)
    return key, "Sheets", work


KINDS: dict[str, Callable[[AppState, JobRequest], Prepared]] = {"report": report, "sheets": sheets}
