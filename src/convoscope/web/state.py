"""What the rooms of the page share: the model, pictures, collection, cache, and the line before the network."""

from __future__ import annotations

import copy
import dataclasses
import io
import os
import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ConvoscopeError, MethodRefused, UsageError
from ..heatmap import Heatmap
from ..methods import METHODS, Method, method
from ..models.model import Model
from ..surveys.marks import Marks
from ..targets import parse
from .cache import Cache, key_of
from .picture_library import PictureLibrary
from .request_queue import RequestQueue
from .shelf import Shelf

if TYPE_CHECKING:
    from ..surveys.wanted import Wanted
    from .jobs import Jobs
    from .survey_view import SurveyView

#: bytes of results that are kept
CACHE = 512 << 20
#: networks of more parameters than this are not copied for long work; they share the lock instead
COPIED = 400_000_000


@dataclass(frozen=True)
class Ask:
    """One question: a picture, a target, and methods by the names of their maps."""

    picture: str
    target: str | None = None
    against: str | None = None
    methods: tuple[tuple[str, Method], ...] = field(default=(), compare=False)

    fingerprint: str = ""
    #: methods that could not be read, with the reason: the others are answered all the same
    unread: tuple[tuple[str, str], ...] = field(default=(), compare=False)

    def about(self) -> list[Any]:
        """What every answer depends on."""
        return [self.fingerprint, self.picture, self.target, self.against]

    def key(self, name: str) -> str:
        """The key of one map."""
        chosen = dict(self.methods)[name]
        return key_of("map", *self.about(), chosen.about.name, dict(vars(chosen)))


@dataclass(eq=False)
class Kept:
    """One map in the cache: what the page is told of it, and its values."""

    about: dict[str, Any]
    heatmap: Heatmap

    @property
    def nbytes(self) -> int:
        values = self.heatmap.values.nbytes
        return values + (self.heatmap.grid.nbytes if self.heatmap.grid is not None else 0) + 4096


@dataclass(eq=False)
class AppState:
    """Everything that the rooms work on. ``gathered`` is the survey's store, where there is one."""

    model: Model
    album: PictureLibrary
    gathered: SurveyView | None = None
    survey_into: str | None = None
    title: str = ""
    cache: Cache = field(default_factory=lambda: Cache(CACHE))
    jobs: Jobs = field(init=False)
    desk: RequestQueue = field(init=False)
    fingerprint: str = field(init=False)
    #: the network that it is compared with, on the same pictures; None where there is only one
    rival: AppState | None = None
    #: documents of the third question
    shelf: Shelf = field(default_factory=lambda: Shelf())
    #: model flags that next commands repeat
    flags: tuple[str, ...] = ()
    _marks: Marks | None = field(default=None, init=False)
    _twin: Model | None = field(default=None, init=False)
    #: another one for each server
    run: str = field(default_factory=lambda: secrets.token_hex(4), init=False)
    _twin_lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def __post_init__(self) -> None:
        self.desk = RequestQueue(self.cache)
        # once: looking whether the weights have changed takes longer than a kept answer
        self.fingerprint = self.model.fingerprint

    @property
    def survey_stamp(self) -> str:
        """Changes when the collection does: part of the key of all that is read from it."""
        return "" if self.gathered is None else self.gathered.stamp

    @property
    def version(self) -> str:
        """What stands in addresses of answers that the browser may keep: the network, and this run of the server.

        The run, since the same weights may be served with another size, another mean, another version the next time.
        """
        return f"{self.fingerprint[:8]}-{self.run}"

    def marks(self) -> Marks:
        """What people note of pictures and units: kept in the store where it lies here, else beside its findings."""
        from ..surveys.marks import FILE

        place = None
        if self.gathered is not None and "://" not in str(self.gathered.store.path):
            place = Path(str(self.gathered.store.path)) / FILE
            if not os.access(place if place.exists() else place.parent, os.W_OK):
                place = None
        if self._marks is None or self._marks.path != place:
            kept = self._marks
            self._marks = Marks(place)
            if kept is not None and kept.path is None and place is not None:  # noted before there was a store
                for about, mark in kept.all().items():
                    for tag in mark.tags:
                        self._marks.add("tag", [about], tag)
                    if mark.note:
                        self._marks.add("note", [about], mark.note)
        return self._marks

    def wanted(self) -> Wanted:
        """The pictures that units want, kept in the store where it lies here."""
        from ..surveys.wanted import Wanted

        return Wanted(None) if self.gathered is None else Wanted.of(self.gathered.store)

    def twin(self) -> Model:
        """A copy of the network for long work, so that a click is answered while an occlusion map is made.

        Falls back on the network itself where it is too large or cannot be copied.
        """
        with self._twin_lock:
            if self._twin is None:
                self._twin = self.model
                if sum(p.numel() for p in self.model.module.parameters()) <= COPIED:
                    try:
                        module = copy.deepcopy(self.model.module)
                        self._twin = dataclasses.replace(
                            self.model,
                            module=module,
                            _watched=dict(self.model._watched),
                            _graphs={},
                            _fingerprint=None,
                        )
                    except Exception:
                        self._twin = self.model
            return self._twin

    def take(self, gathered: SurveyView) -> None:
        """Show this collection from now on."""
        self.gathered = gathered
        self.album.elsewhere = gathered.entry

    def ask_target(self, text: str | None, against: str | None = None) -> None:
        """Refuse a target that is none, or that would read files of this machine: nothing of it is looked at."""
        if parse(text, self.model).files() or (against is not None and parse(against, self.model).files()):
            raise UsageError("Targets that name files are for the command line, not for the page.")
        parse(text, self.model, against)

    def ask(
        self,
        picture: str,
        target: str | None,
        against: str | None,
        methods: Sequence[str] = (),
        layer: str | None = None,
        settings: Sequence[str] = (),
        *,
        lenient: bool = False,
    ) -> Ask:
        """Read a question. Raises :class:`ConvoscopeError` subclasses for what is none.

        ``lenient``: a method that is unknown, or has a setting that it does not take, is put aside with its reason.
        """
        self.album.entry(picture)
        self.ask_target(target or None, against or None)
        found, unread = _read_methods(methods, layer, settings, lenient)
        read = tuple(found.items())
        if any(chosen.files() for _, chosen in read):
            raise UsageError("Settings that name files are for the command line, not for the page.")
        return Ask(picture, target or None, against or None, read, self.fingerprint, tuple(unread.items()))

    def explain(
        self,
        ask: Ask,
        names: Sequence[str] | None = None,
        *,
        model: Model | None = None,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> dict[str, Any]:
        """Score, prediction and the maps ``names`` (default: all of the ask); each goes into the cache.

        ``model`` is the twin for long work. A map that does not exist for this network is in ``refused``.
        """
        from ..explanation import explain

        asked = dict(ask.methods)
        names = list(asked) if names is None else list(names)
        missing = {n: asked[n] for n in names if self.cache.get(ask.key(n)) is None}
        decision_key = key_of("decision", *ask.about())
        decision = self.cache.get(decision_key)
        refused: dict[str, str] = {}
        if missing:
            picture = self.album.picture(ask.picture)
            try:
                found = explain(
                    model or self.model, picture, missing, target=ask.target, against=ask.against,
                    progress=progress,
                )  # fmt: skip
            except MethodRefused as error:
                refused = dict.fromkeys(missing, str(error))
            else:
                decision = _decision(found)
                self.cache.put(decision_key, decision, 4096)
                for name in missing:
                    if name in found.heatmaps:
                        kept = keep(found.heatmaps[name], name, missing[name])
                        self.cache.put(ask.key(name), kept, kept.nbytes)
                    else:
                        refused[name] = found.refused.get(name, "There is no map.")
        if decision is None:
            decision = self._decide(ask)
            self.cache.put(decision_key, decision, 4096)
        maps = {n: self.cache.get(ask.key(n)) for n in names if n not in refused}
        return {"decision": decision, "maps": {n: k for n, k in maps.items() if k is not None}, "refused": refused}

    def _decide(self, ask: Ask) -> dict[str, Any]:
        from .. import ask as probe

        reading = probe.read(self.model, self.album.picture(ask.picture), ask.target, ask.against, count=5)
        return {
            "target": reading.target,
            "score": reading.score,
            "probability": reading.probability,
            "prediction": reading.classes,
            "doubts": list(self.model.notes),
            "plan": {"forwards": 1, "backwards": 0, "pictures": 1},
            "seconds": 0.0,
        }

    def close(self) -> None:
        """End all work."""
        if self.rival is not None:
            self.rival.close()
        self.jobs.close()
        self.desk.close()


def _read_methods(
    names: Sequence[str], layer: str | None, settings: Sequence[str], lenient: bool
) -> tuple[dict[str, Method], dict[str, str]]:
    """The methods by the names of their maps, and, where that is ``lenient``, what is wrong with the others."""
    given: dict[str, dict[str, Any]] = {}
    for name in names:
        base, _, where = name.partition("@")
        given[name] = {"layer": where} if where else {}
    for text in settings:
        left, equals, value = text.partition("=")
        owner, dot, field_name = left.strip().rpartition(".")
        if not (equals and dot and owner):
            raise UsageError(f"A setting must be METHOD.NAME=VALUE, such as occlusion.window=32, not {text!r}.")
        if owner not in given:
            if lenient:
                continue
            raise UsageError(f"{text}: {owner} is not among the methods asked for.")
        given[owner][field_name.strip()] = value.strip()
    found: dict[str, Method] = {}
    unread: dict[str, str] = {}
    for name, own in given.items():
        base = name.partition("@")[0]
        fields = {f.name for f in dataclasses.fields(METHODS[base])} if base in METHODS else set()
        if layer and "layer" in fields and "layer" not in own:
            own["layer"] = layer
        try:
            found[name] = method(base, own)
        except ConvoscopeError as error:
            if not lenient:
                raise
            unread[name] = str(error)
    return found, unread


def _decision(found: Any) -> dict[str, Any]:
    return {
        "target": found.target,
        "score": found.score,
        "probability": found.probability,
        "prediction": found.prediction,
        "doubts": list(found.general_doubts),
        "plan": found.plan.to_dict(),
        "seconds": found.seconds,
    }


def keep(heatmap: Heatmap, name: str, chosen: Method) -> Kept:
    """The map as it is kept: without its channels (only that it had them), with what the page is told."""
    scale = heatmap.scale()
    about = heatmap.to_dict()
    about.pop("provenance")
    about |= {
        "name": name,
        "title": heatmap.title,
        "pixels": heatmap.raw is not None,
        "settings": dict(vars(chosen)),
        "rule": chosen.about.rule,
        "scale": scale_dict(scale),
    }
    light = dataclasses.replace(
        heatmap, raw=None if heatmap.raw is None else np.zeros((1, 1, 1), np.float32), parts=[]
    )
    return Kept(about, light)


def scale_dict(scale: Any) -> dict[str, Any]:
    """A colour scale as the page's canvas needs it."""
    return {
        "low": scale.low,
        "high": scale.high,
        "signed": scale.signed,
        "centre": scale.centre,
        "cmap": scale.cmap,
        "percentile": scale.clip_percentile,
        "note": scale.note,
        "unit": scale.unit,
        "sentence": scale.sentence(),
    }


def npy(array: Any) -> bytes:
    """The array as the bytes of a ``.npy`` file, C order."""
    buffer = io.BytesIO()
    np.save(buffer, np.ascontiguousarray(array), allow_pickle=False)
    return buffer.getvalue()


def sentence(error: Exception) -> str:
    """What a person is told."""
    return str(error) if isinstance(error, ConvoscopeError) else f"{type(error).__name__}: {error}"


__all__ = ["AppState", "Ask", "Kept", "keep", "npy", "scale_dict", "sentence"]
