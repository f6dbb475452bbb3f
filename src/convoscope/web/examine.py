"""Long work for the third question: each calls the library's function and keeps its document on the shelf."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from ..errors import UsageError
from .cache import key_of
from .jobs import Handle
from .material import pictures_of, truth_folder, words_of
from .schemas import JobRequest
from .shelf import flags
from .state import AppState

Work = Callable[[Handle], dict[str, Any]]
Prepared = tuple[str, str, Work]


class Telling:
    """Progress in the library's form: what, done, of how many; told ten times a second at most, stops the work."""

    def __init__(self, handle: Handle) -> None:
        self.handle = handle
        self.what, self.began, self.last = "", 0.0, 0.0

    def __call__(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        self.handle.check()
        if what != self.what:
            self.what, self.began, self.last = what, now, 0.0
        if now - self.last < 0.1 and done != total:
            return
        self.last = now
        left = (now - self.began) * (total - done) / done if done and total else None
        self.handle.progress(done, total, what, left)

    def counted(self, what: str) -> Callable[[int, int], None]:
        """For functions that tell numbers alone."""
        return lambda done, total: self(what, done, total)


def _key(app_state: AppState, kind: str, *more: Any) -> str:
    # the shelf's stamp makes it new: once the document is kept, who asks again wants it done again
    return key_of(kind, app_state.fingerprint, app_state.survey_stamp, app_state.shelf.stamp, *more)


def diagnose(app_state: AppState, asked: JobRequest) -> Prepared:
    """Everything that is known to go wrong; what was done before somebody stopped it is kept."""
    from ..improve.diagnose.run import stage_names

    what = pictures_of(app_state)
    chosen = stage_names(asked.only or None)

    def work(handle: Handle) -> dict[str, Any]:
        from ..improve.diagnose import diagnose as run

        found = run(
            app_state.twin(), what, only=chosen, seed=asked.seed, progress=Telling(handle), words=words_of(app_state),
            flags=app_state.flags,
        )  # fmt: skip
        before = app_state.shelf.read("diagnosis")
        # one that was stopped does not take the place of one that went to its end
        if not (found.interrupted and before is not None and not before.get("interrupted")):
            app_state.shelf.write("diagnosis", found.document())
        return {"kind": "diagnosis", "findings": len(found.findings), "interrupted": list(found.interrupted)}

    return _key(app_state, "diagnose", chosen), "Diagnosis", work


def shortcuts(app_state: AppState, asked: JobRequest) -> Prepared:
    """Evidence cut out and put elsewhere; what a person said of the spots counts."""
    from ..improve.shortcuts.find import FAMILIES

    what = pictures_of(app_state)
    only = asked.only or list(FAMILIES)
    told = app_state.shelf.answers()

    def work(handle: Handle) -> dict[str, Any]:
        from ..improve.shortcuts import shortcuts as run

        model = app_state.twin()
        known = [label for label in told if model.labels is None or label in model.labels]
        found = run(
            model, what, only=only, seed=asked.seed, progress=Telling(handle),
            is_part=[label for label in known if told[label]], not_part=[label for label in known if not told[label]],
            words=[*words_of(app_state), *app_state.flags, *flags({label: told[label] for label in known})],
        )  # fmt: skip
        app_state.shelf.write("shortcuts", found.record())
        return {"kind": "shortcuts", "findings": len(found.findings)}

    return _key(app_state, "shortcuts", only, sorted(told.items())), "Shortcuts", work


def audit(app_state: AppState, asked: JobRequest) -> Prepared:
    """Labels that do not fit, copies, outliers."""
    what = pictures_of(app_state)

    def work(handle: Handle) -> dict[str, Any]:
        from ..improve.audit import examine
        from ..improve.collection import Labelled
        from ..improve.diagnose import Case

        model = app_state.twin()
        found = examine(Case(model, Labelled.of(what, model), None, None, asked.seed, Telling(handle)))
        app_state.shelf.write("audit", found.to_dict())
        return {"kind": "audit", "suspects": 0 if found.wrong is None else found.wrong[1]}

    return _key(app_state, "audit"), "Audit", work


def diff(app_state: AppState, asked: JobRequest) -> Prepared:
    """This network and the one it is served against, on the same pictures."""
    if app_state.rival is None:
        raise UsageError("There is no second network here: start the page with --against MODEL2.")
    what, rival = pictures_of(app_state), app_state.rival

    def work(handle: Handle) -> dict[str, Any]:
        from ..improve.diff import diff as run

        found = run(
            app_state.twin(), rival.twin(), what, names=[app_state.model.name, rival.model.name], maps=24,
            progress=Telling(handle),
        )  # fmt: skip
        app_state.shelf.write("diff", found.to_dict())
        return {"kind": "diff", "findings": len(found.findings)}

    return _key(app_state, "diff", rival.fingerprint), "Comparison", work


def dissect(app_state: AppState, asked: JobRequest) -> Prepared:
    """Units against the labelled parts that lie beside the pictures."""
    parts = truth_folder(app_state)
    if parts is None:
        raise UsageError(
            "Units are held against labelled parts, and there are none beside these pictures (truth.json and parts/, "
            "as `convoscope toybox` writes them). Others, such as COCO: `convoscope concepts dissect`, then "
            "serve --diagnosis DIR."
        )
    gathered = app_state.gathered

    def work(handle: Handle) -> dict[str, Any]:
        from ..concepts.dissection import dissect as run

        told = Telling(handle).counted("Holding units against parts")
        layers = [asked.layer] if asked.layer else ()
        source: Any = app_state.twin() if gathered is None else gathered.store
        found = run(
            source, str(parts) if gathered is None else None, parts=str(parts), layers=layers, seed=asked.seed,
            progress=told,
        )  # fmt: skip
        app_state.shelf.write("dissection", found.record())
        return {"kind": "dissection", "rows": len(found.rows)}

    return _key(app_state, "dissect", asked.layer), "Dissection", work


def craft(app_state: AppState, asked: JobRequest) -> Prepared:
    """The parts that a class is made of."""
    what = pictures_of(app_state)
    if asked.target:
        app_state.ask_target(asked.target)

    def work(handle: Handle) -> dict[str, Any]:
        from ..concepts.craft import craft as run

        found = run(
            app_state.twin(), what, asked.target or None, layer=asked.layer or None, seed=asked.seed,
            progress=Telling(handle),
        )  # fmt: skip
        app_state.shelf.write("craft", found.record())
        return {"kind": "craft", "parts": len(found.parts)}

    return _key(app_state, "craft", asked.target, asked.layer), "Parts of a class", work


def tcav(app_state: AppState, asked: JobRequest) -> Prepared:
    """Whether a class depends on what a tag's pictures show; pictures without the tag are the random ones."""
    tags = list(dict.fromkeys(asked.tags))
    if not tags or not asked.target:
        raise UsageError("Name a tag whose pictures show the concept, and the class that might depend on it.")
    app_state.ask_target(asked.target)
    marks = app_state.marks()
    groups = {tag: marks.tagged(tag) for tag in tags}
    for tag, ids in groups.items():
        if len(ids) < 10:
            raise UsageError(f"The tag {tag!r} is on {len(ids)} pictures: a concept needs 10 at least.")

    def work(handle: Handle) -> dict[str, Any]:
        from ..concepts.directions import tcav as run

        tagged = {id for ids in groups.values() for id in ids}
        others = [id for id in every_id(app_state) if id not in tagged][:400]
        picture = app_state.album.picture
        found = run(
            app_state.twin(), {tag: [picture(id) for id in ids[:120]] for tag, ids in groups.items()}, asked.target,
            random=[picture(id) for id in others], layers=[asked.layer] if asked.layer else (), seed=asked.seed,
            progress=Telling(handle),
        )  # fmt: skip
        app_state.shelf.write("tcav", found.record())
        return {"kind": "tcav", "rows": len(found.rows)}

    return _key(app_state, "tcav", groups, asked.target, asked.layer), "Concepts", work


def every_id(app_state: AppState) -> Sequence[str]:
    """Ids of all pictures, the collection's or the folder's, always in the same order."""
    gathered = app_state.gathered
    return sorted(gathered.rows) if gathered is not None else [one.id for one in app_state.album.entries()]


KINDS: dict[str, Callable[[AppState, JobRequest], Prepared]] = {
    "diagnose": diagnose, "shortcuts": shortcuts, "audit": audit, "diff": diff, "dissect": dissect, "craft": craft,
    "tcav": tcav,
}  # fmt: skip
