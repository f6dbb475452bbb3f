"""What the kinds of long work do; each returns plain data, and tells its progress on the way."""

from __future__ import annotations

import base64
import dataclasses
import io
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from ..errors import UsageError
from ..plain import plain
from . import examine, exports
from .cache import key_of
from .jobs import Handle
from .picture_library import encoded
from .routes.decide import map_query
from .schemas import JobRequest
from .serving import address
from .state import AppState, Ask, keep

Work = Callable[[Handle], dict[str, Any]]


def prepare(app_state: AppState, asked: JobRequest) -> tuple[str, str, Work]:
    """The key, the title and the work of a request. Raises :class:`ConvoscopeError` for what cannot be done."""
    return _KINDS[asked.kind](app_state, asked)


def _ask(app_state: AppState, asked: JobRequest) -> Ask:
    if asked.picture is None:
        raise UsageError("Say on which picture.")
    return app_state.ask(asked.picture, asked.target, asked.against, asked.methods, asked.layer, asked.settings)


def _data_uri(content: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


# one slow map


def _map(app_state: AppState, asked: JobRequest) -> tuple[str, str, Work]:
    ask = _ask(app_state, asked)
    if len(ask.methods) != 1:
        raise UsageError("A job makes one map: name one method.")
    name, chosen = ask.methods[0]
    key = ask.key(name)

    def work(handle: Handle) -> dict[str, Any]:
        total = _windows(app_state, ask, chosen)
        if name == "occlusion":
            _preview(app_state, ask, name, chosen, handle)
        told = _Teller(handle, total, chosen.about.title)
        found = app_state.explain(ask, [name], model=app_state.twin(), progress=told)
        if name in found["refused"]:
            return {"refused": found["refused"][name]}
        kept = found["maps"][name]
        if handle.stopped:  # what is done of it is shown, but is not the answer to the question
            app_state.cache.put(key, None, 0)
        query = map_query(ask, name)
        about = dict(plain(kept.about)) | {
            "values": address(f"/api/maps/{name}.npy", app_state, **query),
            "image": address(f"/api/maps/{name}.png", app_state, **query),
        }
        return {"map": about}

    return key_of("job", key), f"{chosen.about.title}", work


class _Teller:
    """Progress of passes, at most ten times a second."""

    def __init__(self, handle: Handle, total: int | None, what: str) -> None:
        self.handle, self.total, self.what = handle, total, what
        self.last = 0.0

    def __call__(self, name: str, done: int, total: int) -> None:
        now = time.monotonic()
        self.handle.check()
        if now - self.last < 0.1:
            return
        self.last = now
        self.handle.progress(done, total or self.total, self.what)


def _windows(app_state: AppState, ask: Ask, chosen: Any) -> int | None:
    if hasattr(chosen, "boxes"):
        height, width = app_state.model.prepare(app_state.album.picture(ask.picture)).tensor.shape[-2:]
        return len(chosen.boxes(int(height), int(width)))
    return getattr(chosen, "samples", None)


def _preview(app_state: AppState, ask: Ask, name: str, chosen: Any, handle: Handle) -> None:
    """A coarse map first, in a sixteenth of the time: windows that do not overlap, twice as far apart."""
    from ..explanation import explain

    if getattr(chosen, "sizes", "") or getattr(chosen, "regions", "") != "squares":
        return
    handle.progress(0, None, "a first, coarse map")
    picture = app_state.album.picture(ask.picture)
    window, stride = chosen.measures(*app_state.model.prepare(picture).tensor.shape[-2:])
    apart = (max(window[0], 4 * stride[0]), max(window[1], 4 * stride[1]))
    coarse = dataclasses.replace(chosen, stride=apart, engine="dense")
    found = explain(app_state.twin(), picture, [coarse], target=ask.target, against=ask.against)
    handle.check()
    kept = keep(found[name], name, coarse)
    small = io.BytesIO()
    np.save(small, np.ascontiguousarray(kept.heatmap.values))
    about = dict(plain(kept.about)) | {
        "data": _data_uri(small.getvalue(), "application/x-npy"),
        "stride": max(apart),
    }
    handle.frame({"map": about})


# the picture that a target wants


def _visualize(app_state: AppState, asked: JobRequest) -> tuple[str, str, Work]:
    targets: list[str] = [*([asked.target] if asked.target else []), *asked.targets]
    if not targets and asked.objective in ("score", "fool"):
        raise UsageError("Say what to visualise: a class or a unit (layer:channel).")
    for text in targets:
        app_state.ask_target(text)
    image = None
    if asked.objective != "score":
        if asked.picture is None:
            raise UsageError(f"The objective {asked.objective} starts from a picture: name one.")
        image = asked.picture
        app_state.album.entry(image)
    steps = asked.steps
    usual = asked.objective == "score" and asked.recipe is None and asked.seed == 0 and asked.layer is None
    key = key_of(
        "visualize",
        app_state.fingerprint,
        targets,
        asked.recipe,
        asked.objective,
        image,
        asked.layer,
        steps,
        asked.seed,
    )

    def work(handle: Handle) -> dict[str, Any]:
        from ..surveys.wanted import keep
        from ..visualization import visualize_frames

        shelf = app_state.wanted()
        if usual and targets and not shelf.missing(targets, steps):
            return {"visualizations": [_kept(shelf, unit) for unit in targets], "targets": targets}
        frames = visualize_frames(
            app_state.twin(), targets or None, recipe=asked.recipe, objective=asked.objective,
            image=None if image is None else app_state.album.picture(image), layer=asked.layer, steps=steps,
            seed=asked.seed,
        )  # fmt: skip
        results = None
        try:
            for frame in frames:
                results = frame.results or results
                pictures = {str(i): _small(p) for i, p in zip(frame.indices, frame.images, strict=False)}
                handle.frame({"pictures": pictures, "scores": plain(frame.scores), "step": frame.step})
                handle.progress(frame.done, frame.total, "ascent")
        finally:
            frames.close()
        assert results is not None
        if usual and not handle.stopped and not results.stopped:
            for text, one in zip(targets, results, strict=False):
                if ":" in text:
                    keep(shelf, text, one)
        made = []
        for one in results:
            row = dict(plain(one.to_dict()))
            row.pop("provenance", None)
            made.append({**row, "picture": _data_uri(encoded(one.image)), "caption": one.caption})
        return {"visualizations": made, "targets": targets}

    title = targets[0] if len(targets) == 1 else f"{len(targets)} targets"
    return key, f"{asked.objective}: {title}", work


def _kept(shelf: Any, unit: str) -> dict[str, Any]:
    """A picture that was made before, as one that is made now is told."""
    return {**(shelf.get(unit) or {}), "picture": _data_uri(shelf.image(unit) or b"")}


def _small(image: Image.Image) -> str:
    return _data_uri(encoded(image, 224, "JPEG"), "image/jpeg")


# a verdict on maps


def _trust(app_state: AppState, asked: JobRequest) -> tuple[str, str, Work]:
    ask = _ask(app_state, asked)
    names = [name for name, one in ask.methods]
    key = key_of("trust", *ask.about(), [ask.key(n) for n in names])

    def work(handle: Handle) -> dict[str, Any]:
        from ..explanation import explain
        from ..trust.verdict import verdicts

        handle.progress(0, 4, "the maps")
        found = explain(
            app_state.twin(), app_state.album.picture(ask.picture),
            [one for _, one in ask.methods if not one.about.slow],
            target=ask.target, against=ask.against,
        )  # fmt: skip

        def told(what: str, done: int, total: int) -> None:
            handle.check()
            handle.progress(done + 1, total + 1, what)

        judged = verdicts(app_state.twin(), found, ask.target, progress=told)
        return {"trust": plain({name: verdict.to_dict() for name, verdict in judged.items()})}

    if not names:
        raise UsageError("Name the methods whose maps are to be judged.")
    return key, "Trust", work


# the collection


def _survey(app_state: AppState, asked: JobRequest) -> tuple[str, str, Work]:
    from .routes.collection import why_not

    reason = why_not(app_state)
    if reason is not None:
        raise UsageError(reason)
    key = key_of("survey", app_state.fingerprint, str(app_state.album.folder), app_state.survey_into)

    def work(handle: Handle) -> dict[str, Any]:
        from .build_survey import collect

        def told(stage: str, done: int, total: int, left: float | None) -> None:
            handle.progress(done, total, stage, left)

        app_state.take(collect(app_state.twin(), str(app_state.album.folder), str(app_state.survey_into), told))
        return {"pictures": len(app_state.gathered.rows) if app_state.gathered is not None else 0}

    return key, "Survey", work


def _embedding(app_state: AppState, asked: JobRequest) -> tuple[str, str, Work]:
    from .routes.collection import columns, gathered_of

    gathered = gathered_of(app_state)
    key = key_of("map of all", app_state.fingerprint, app_state.survey_stamp, asked.method, asked.layer or None)

    def work(handle: Handle) -> dict[str, Any]:
        def told(what: str, done: int, total: int) -> None:
            handle.progress(done, total, what)

        found = columns(gathered, asked.method, told, asked.layer or None)
        app_state.cache.put(key, found, 200 * len(found["ids"]))
        return {"method": asked.method, "pictures": len(found["ids"])}

    return key_of("job", key), f"Map by {asked.method}", work


_KINDS: dict[str, Callable[[AppState, JobRequest], tuple[str, str, Work]]] = {
    "map": _map,
    "visualize": _visualize,
    "trust": _trust,
    "survey": _survey,
    "embedding": _embedding,
    **examine.KINDS,
    **exports.KINDS,
}

__all__ = ["prepare"]
