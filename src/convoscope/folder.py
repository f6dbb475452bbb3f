"""Thousands of pictures through ``explain``: a chunk at a time, each picture in its folder, resumable.

A picture is done when its ``explain.json`` is there, which is written last and at once; it holds a key of everything
that was asked, so that the same command goes on where it stopped and another one does its own work.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import tempfile
import threading
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import ConvoscopeError, NotInPicture, UsageError
from .files import digests, process_lives, sha256, write_arrays, write_image, write_whole
from .parallel import Task
from .pipeline import Later, ahead
from .plain import dump_json, plain
from .progress import Bar

if TYPE_CHECKING:
    from .methods import Method
    from .models.model import Model
    from .outcomes import Outcome as PictureOutcome
    from .parallel import RayPool
    from .pictures.picture import ModelInput
    from .results import Explanation

#: pictures explained together at least, where their passes are few: the plan then counts whole batches
_TOGETHER = 32
#: the same on a CPU: larger batches leave its caches, and the drawing of the last pictures has nothing beside it
_TOGETHER_CPU = 8
#: what may be drawn of each picture, from nothing to everything
PICTURES = ("none", "sheet", "all")
RECORD = "explain.json"


@dataclass
class Request:
    """What was asked of every picture."""

    methods: list[Method]
    targets: list[Any]
    against: Any = None
    layers: list[str] | None = None
    parts: int = 0
    resize: str = "exact"
    #: what is drawn: ``none``, the ``sheet`` alone, or ``all``; ``True`` is all, ``False`` none
    pictures: str | bool = "all"
    trust: bool = False
    fuse: Any = None
    aug_smooth: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.pictures, bool):
            self.pictures = "all" if self.pictures else "none"
        if self.pictures not in PICTURES:
            raise UsageError(f"pictures must be {', '.join(PICTURES)}, not {self.pictures!r}.")

    def asked(self, model: Model, path: Path | None) -> dict[str, Any]:
        """The question in words, so that it can be asked again (:mod:`convoscope.rerun`).

        ``targets`` is none where one of them is an object of Python, which no file can name.
        """
        from .surveys.store.recipe import absolute_spec

        named = all(one is None or isinstance(one, (str, int)) for one in (*self.targets, self.against))
        return {
            "methods": [[one.about.name, dict(vars(one))] for one in self.methods],
            "targets": list(self.targets) if named else None,
            "against": self.against if named else None,
            "layers": self.layers,
            "parts": self.parts,
            "resize": self.resize,
            "fuse": self.fuse,
            "aug_smooth": self.aug_smooth,
            "spec": absolute_spec(model.spec),
            "path": None if path is None else str(path.resolve()),
        }

    def key(self, model: Model) -> str:
        """A hash of everything that the maps depend on but the picture, the bytes of files that are named included.

        Raises :class:`TargetError` where a target is none.
        """
        from .pictures.picture import find_pictures
        from .targets import parse

        asked_for = [parse(target, model, self.against) for target in self.targets]
        files = [
            *(path for one in asked_for for path in one.files()),
            *(p for one in self.methods for p in one.files()),
        ]
        from .version import __version__

        asked = {
            "version": __version__,
            "model": model.fingerprint,
            "preprocessing": model.preprocessing.to_dict(),
            "labels": list(model.labels or ()),
            "dtype": str(model.dtype),
            "seed": model.seed,
            "methods": [[one.about.name, dict(vars(one))] for one in self.methods],
            "targets": [one.key() for one in asked_for],
            "files": digests(find_pictures(files)) if files else {},
            "layers": self.layers,
            "parts": self.parts,
            "resize": self.resize,
            "trust": self.trust,
            "fuse": self.fuse,
            "aug_smooth": self.aug_smooth,
        }
        return hashlib.sha256(json.dumps(plain(asked), sort_keys=True).encode()).hexdigest()


@dataclass
class Outcome:
    """What became of a run: the records in the pictures' order, failures by path."""

    records: list[dict[str, Any]] = field(default_factory=list)
    failed: dict[Path, str] = field(default_factory=dict)
    skipped: int = 0
    stopped: bool = False


@dataclass(eq=False)
class _Place:
    """One picture and the folder of its results."""

    path: Path
    folder: Path
    record: dict[str, Any] | None = None


def explain_folder(
    model: Model,
    folder: str | Path | Sequence[str | Path],
    out: str | Path,
    methods: Any = ("grad-cam", "guided-grad-cam", "guided-backprop", "saliency"),
    *,
    target: Any = None,
    against: Any = None,
    layer: str | None = None,
    pictures: str | bool = "all",
) -> Outcome:
    """Explain every picture of a folder into ``out``, a folder each; what is done already is not done again.

    Args:
        model: an open model.
        folder: a folder, a glob, or files.
        out: where each picture gets ``explain.json``, ``maps.npz`` and its drawings.
        methods: names or instances.
        target: as :func:`convoscope.explain` takes it; a list gives a row each.
        against: a class to contrast with.
        layer: of all methods that have one.
        pictures: what is drawn: ``none`` (maps and records alone), ``sheet`` (one drawing a picture), or ``all``;
            ``True`` is all, ``False`` none.

    Returns:
        the records in the pictures' order, and the sentence for each picture that failed.

    Raises:
        ConvoscopeError: the request fits no picture, or there is none.
    """
    from .methods import method
    from .pictures.picture import find_pictures

    listed = [folder] if isinstance(folder, (str, Path)) else list(folder)
    asked = [methods] if isinstance(methods, str) or not isinstance(methods, Sequence) else list(methods)
    targets = list(target) if isinstance(target, (list, tuple)) else [target]
    request = Request(
        [method(one) for one in asked], targets, against, None if layer is None else [layer], pictures=pictures
    )
    bar = Bar("Explaining", None, quiet=True)
    return explain_files(model, find_pictures(listed), Path(out), request, bar=bar)


def explain_files(
    model: Model,
    paths: Sequence[Path],
    out: Path,
    request: Request,
    *,
    bar: Bar,
    told: Callable[[Path, dict[str, Any]], None] = lambda path, record: None,
    failed: Callable[[Path, str], None] = lambda path, sentence: None,
    spread: RayPool | None = None,
) -> Outcome:
    """Explain all pictures into ``out``; those done before with the same request are skipped.

    ``told`` hears of each picture done, ``failed`` of each that could not be. With ``spread`` the pictures are
    explained, and their files written, by workers of Ray. Raises :class:`ConvoscopeError` where
    the request fits no picture (an unknown target, a method that does not exist for the network).
    """
    key = request.key(model)
    outcome = Outcome()
    places = _places(paths, out)
    waiting = []
    for place in places:
        if _is_done(place, key, request):
            outcome.skipped += 1
        else:
            place.record = None
            waiting.append(place)
    bar.at(outcome.skipped, len(places))
    with interruptible() as interrupt:
        try:
            for place, answer in _answers(model, waiting, request, key, bar, interrupt, spread):
                if isinstance(answer, str):
                    outcome.failed[place.path] = answer
                    failed(place.path, answer)
                else:
                    place.record = answer
                    told(place.path, answer)
                bar.advance()
        except KeyboardInterrupt:
            pass
        outcome.stopped = interrupt.stopped
    outcome.records = [place.record for place in places if place.record is not None]
    return outcome


def _answers(
    model: Model, waiting: list[_Place], request: Request, key: str, bar: Bar, interrupt: Interrupt,
    spread: RayPool | None,
) -> Iterator[tuple[_Place, dict[str, Any] | str]]:  # fmt: skip
    """Every picture's record, its files written; or the sentence that says why there is none."""
    size = _chunk_size(model, request)
    if spread is None:
        yield from _overlapped(model, waiting, size, request, key, bar, interrupt)
        return

    def work(opened: Model, chunk: list[_Place]) -> list[dict[str, Any] | str]:
        quiet = Bar("", None, quiet=True)
        no_interrupt = Interrupt()
        return [answer for _, answer in _overlapped(opened, chunk, len(chunk), request, key, quiet, no_interrupt)]

    # eight chunks at least, so that there is something to share out; workers may stand in another folder
    chunks = list(_chunks(waiting, min(size, max(1, len(waiting) // 8))))
    tasks = [
        Task(str(number), [_Place(place.path.resolve(), place.folder.resolve()) for place in chunk])
        for number, chunk in enumerate(chunks)
    ]
    for done in spread.run(model, work, tasks):
        yield from zip(chunks[int(done.id)], done.value, strict=True)


def _overlapped(
    model: Model, waiting: list[_Place], size: int, request: Request, key: str, bar: Bar, interrupt: Interrupt
) -> Iterator[tuple[_Place, dict[str, Any] | str]]:
    """A chunk goes through the network while the next is read, and while what the last one gave is drawn and written.

    With ``size`` 1 (methods of many passes) every picture is written before the next begins.
    """
    chunks = list(_chunks(waiting, size))
    with (
        Later[tuple[_Place, "dict[str, Any] | str"]](0 if size == 1 else size) as later,
        closing(ahead(lambda chunk: _read_chunk(model, chunk), chunks)) as reads,
    ):
        for chunk, read in zip(chunks, reads, strict=True):
            for place, answer in _explain_chunk(model, chunk, read, request, bar):
                if isinstance(answer, str):
                    later.put(partial(_told, place, answer))
                    continue
                # the verdicts run the network, which belongs to this thread
                source = answer.fitted.picture.path
                more = {"asked": request.asked(model, None if source is None else Path(source))}
                if request.trust:
                    more["trust"] = trust(model, answer, request.targets[0])
                later.put(partial(_written, place, answer, request, key, not interrupt.stopped, more))
            yield from later.ready()
            if interrupt.stopped:
                break
        yield from later.rest()


def _told(place: _Place, sentence: str) -> tuple[_Place, dict[str, Any] | str]:
    return place, sentence


def _written(
    place: _Place, explanation: Explanation, request: Request, key: str, whole: bool, more: dict[str, Any]
) -> tuple[_Place, dict[str, Any] | str]:
    return place, write(place.folder, explanation, request, key, complete=whole, more=more)


def _places(paths: Sequence[Path], out: Path) -> list[_Place]:
    """A folder for each picture: its stem, ``-2`` and so on where that is another picture's."""
    taken: set[str] = set()
    places = []
    for path in paths:
        stem = path.stem or "picture"
        number = 1
        while True:
            name = stem if number == 1 else f"{stem}-{number}"
            number += 1
            if name.lower() in taken:
                continue
            record = _read(out / name / RECORD)
            if record is None or _same_picture(record, path):
                break
        taken.add(name.lower())
        places.append(_Place(path, out / name, record))
    return places


def _read(path: Path) -> dict[str, Any] | None:
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) else None


def _same_picture(record: dict[str, Any], path: Path) -> bool:
    known = record.get("path")
    return known is None or Path(str(known)).resolve() == path.resolve() or record.get("sha256") == _digest(path)


def _digest(path: Path) -> str | None:
    try:
        return sha256(path)
    except OSError:
        return None


def _is_done(place: _Place, key: str, request: Request) -> bool:
    record = place.record
    if record is None or record.get("key") != key or not record.get("complete", False):
        return False
    files = record.get("files", [])
    if PICTURES.index(str(request.pictures)) > PICTURES.index(_drawn(files)):
        return False
    # a file that was cut off, never finished, or that the disk gives back with another bit, is no result
    if record.get("digest") != _seal(record):
        return False
    digests = record.get("digests", {})
    if not all(digests.get(name) and _digest(place.folder / str(name)) == digests[name] for name in files):
        return False
    return record.get("sha256") == _digest(place.path)


def _seal(record: dict[str, Any]) -> str:
    """A hash of all that a record says, as it is read back."""
    said = {name: value for name, value in record.items() if name != "digest"}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _drawn(files: Sequence[str]) -> str:
    """How much of a picture was drawn, by its files."""
    drawings = [name for name in files if name.endswith(".png")]
    if "sheet.png" not in drawings:
        return "none"
    return "all" if len(drawings) > 1 else "sheet"


def _chunk_size(model: Model, request: Request) -> int:
    if any(one.about.slow for one in request.methods):
        return 1  # hundreds of passes a picture fill the batches anyway, and little is lost when stopped
    together = _TOGETHER_CPU if model.device.type == "cpu" else _TOGETHER
    if model.batch_size < together:  # whole batches
        return -(-together // model.batch_size) * model.batch_size
    return together


def _chunks(places: list[_Place], size: int) -> Iterator[list[_Place]]:
    for start in range(0, len(places), size):
        yield places[start : start + size]


def _read_chunk(model: Model, chunk: list[_Place]) -> list[ModelInput | str]:
    """Every picture as the network takes it, or the sentence that says why it cannot be."""
    from .pictures.picture import Picture

    found: list[ModelInput | str] = []
    for place in chunk:
        try:
            # what does not fit the network must not take its neighbours along
            found.append(Picture.of(place.path).prepare(model.preprocessing))
        except ConvoscopeError as error:
            found.append(str(error))
        except MemoryError:
            found.append(f"{place.path}: too large for the memory.")
    return found


def _explain_chunk(
    model: Model, chunk: list[_Place], read: list[ModelInput | str], request: Request, bar: Bar
) -> Iterator[tuple[_Place, Explanation | str]]:
    """Every picture of the chunk with its explanation, or with the sentence that says why there is none."""
    pictures = {index: one for index, one in enumerate(read) if not isinstance(one, str)}
    found: dict[int, Explanation | str] = {index: one for index, one in enumerate(read) if isinstance(one, str)}
    if pictures:
        found.update(_explain_together(model, pictures, request, bar))
    for index, place in enumerate(chunk):
        if index in found:
            yield place, found[index]


def _explain_together(
    model: Model, pictures: dict[int, ModelInput], request: Request, bar: Bar
) -> dict[int, Explanation | str]:
    from .explanation import outcomes

    before = bar.what

    def told(name: str, done: int, total: int) -> None:
        bar.at(bar.done, what=f"{before} · {name} {done} of {total}")

    try:
        made = outcomes(
            model,
            list(pictures.values()),
            request.methods,
            target=request.targets,
            against=request.against,
            layer=request.layers,
            parts=request.parts,
            resize=request.resize,
            fuse=request.fuse,
            aug_smooth=request.aug_smooth,
            progress=told,
        )
    finally:
        bar.what = before
    if not bar.done and all(_is_no_pictures_fault(one) for one in made):
        raise made[0].errors[0]  # the first pictures already: the network or the method, not the pictures
    return {
        index: f"{pictures[index].picture.path}: {one.reason}" if one.without_maps else one.explanation
        for index, one in zip(pictures, made, strict=True)
    }


def _is_no_pictures_fault(one: PictureOutcome) -> bool:
    """Whether nothing can be made, for a reason that another picture would have, too."""
    if not one.without_maps or not (one.lost or len(one.explanation.refused) == 1):
        return False
    first = one.errors[0]
    if isinstance(first, NotInPicture) or "out of memory" in str(first).lower():
        return False
    # an error with a cause broke a method on this picture; one without refuses the kind of network
    return one.lost or first.__cause__ is None


def _swept(folder: Path) -> None:
    """Take away what a killed process of this machine left half made."""
    for left in folder.glob(".making-*-*"):
        process = left.name.split("-")[1]
        if process.isdigit() and int(process) != os.getpid() and not process_lives(int(process)):
            shutil.rmtree(left, ignore_errors=True)


def write(
    folder: Path, explanation: Explanation, request: Request, key: str, *, complete: bool, more: dict[str, Any]
) -> dict[str, Any]:
    """All files of one picture; ``explain.json`` last, with ``more`` in it. Returns what it holds."""
    from .draw import png

    folder.mkdir(parents=True, exist_ok=True)
    # on Ray two workers may be at one picture: each file comes into its place whole
    _swept(folder)
    making = Path(tempfile.mkdtemp(prefix=f".making-{os.getpid()}-", dir=folder))
    try:
        write_arrays(making / "maps.npz", **explanation.arrays())
        files = ["maps.npz"]
        drawn: dict[int, Any] = {}
        if request.pictures == "all":
            for name, heatmap in explanation.items():
                files.append(f"{file_name(name)}.png")
                drawn[id(heatmap)] = heatmap.overlay()
                write_image(making / files[-1], drawn[id(heatmap)], **png.SETTINGS)
                if heatmap.parts:
                    files.append(f"{file_name(name)}-parts.png")
                    explanation.parts_sheet(name).save(making / files[-1])
        if request.pictures != "none" and any(explanation.rows):
            files.append("sheet.png")
            explanation.sheet(drawn=drawn).save(making / files[-1])
        # only now what was there before gives way
        (folder / RECORD).unlink(missing_ok=True)
        for name in files:
            (making / name).replace(folder / name)
    finally:
        shutil.rmtree(making, ignore_errors=True)
    record = explanation.to_dict()
    record.update(more)
    made = {name: _digest(folder / name) for name in files}
    record.update(sha256=explanation.fitted.picture.sha256, files=files, digests=made, key=key, complete=complete)
    record = dict(plain(record))
    record["digest"] = _seal(json.loads(dump_json(record)))
    write_whole(folder / RECORD, dump_json(record) + "\n")
    return record


def file_name(name: str) -> str:
    """A method's name (with a layer in it, perhaps) as a file's name."""
    return "".join("-" if c in '/\\:*?"<>|' else c for c in name)


def trust(model: Model, explanation: Explanation, target: Any) -> dict[str, Any]:
    """A verdict on every map, as plain data."""
    from .trust.verdict import verdicts

    return {name: verdict.to_dict() for name, verdict in verdicts(model, explanation, target).items()}


class Interrupt:
    """Whether the user has asked to stop."""

    stopped = False


@contextmanager
def interruptible() -> Iterator[Interrupt]:
    """Ctrl-C raises ``KeyboardInterrupt`` as ever, and is remembered.

    Work of many passes keeps what it has done when it is interrupted, and returns: whoever called it must stop, too.
    """
    interrupt = Interrupt()
    if threading.current_thread() is not threading.main_thread():
        yield interrupt
        return

    def handle(number: int, frame: types.FrameType | None) -> None:
        interrupt.stopped = True
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, before)
