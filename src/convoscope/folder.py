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
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import ConvoscopeError, NotInPicture
from .files import digests, read_regular
from .parallel import Task
from .plain import dump_json, plain
from .progress import Bar

if TYPE_CHECKING:
    from .explanation import Outcome as PictureOutcome
    from .methods import Method
    from .models.model import Model
    from .parallel import RayPool
    from .results import Explanation

#: pictures explained together at least, where their passes are few: the plan then counts whole batches
_TOGETHER = 32
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
    pictures: bool = True
    trust: bool = False
    fuse: Any = None
    aug_smooth: bool = False

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
    pictures: bool = True,
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
        pictures: whether maps are drawn.

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
        for chunk in _chunks(waiting, size):
            for place, answer in _explain_chunk(model, chunk, request, bar):
                if isinstance(answer, str):
                    yield place, answer
                else:
                    whole = not interrupt.stopped
                    yield place, write(model, place.folder, answer, request, key, complete=whole)
            if interrupt.stopped:
                return
        return

    def work(opened: Model, chunk: list[_Place]) -> list[dict[str, Any] | str]:
        quiet = Bar("", None, quiet=True)
        return [
            answer if isinstance(answer, str) else write(opened, place.folder, answer, request, key, complete=True)
            for place, answer in _explain_chunk(opened, chunk, request, quiet)
        ]

    # eight chunks at least, so that there is something to share out; workers may stand in another folder
    chunks = list(_chunks(waiting, min(size, max(1, len(waiting) // 8))))
    tasks = [
        Task(str(number), [_Place(place.path.resolve(), place.folder.resolve()) for place in chunk])
        for number, chunk in enumerate(chunks)
    ]
    for done in spread.run(model, work, tasks):
        yield from zip(chunks[int(done.id)], done.value, strict=True)


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
        return hashlib.sha256(read_regular(path)).hexdigest()
    except OSError:
        return None


def _is_done(place: _Place, key: str, request: Request) -> bool:
    record = place.record
    if record is None or record.get("key") != key or not record.get("complete", False):
        return False
    files = record.get("files", [])
    if request.pictures and "sheet.png" not in files:
        return False
    # a file that was cut off, or never finished, is no result
    sizes = record.get("sizes", {})
    if not all(_size(place.folder / str(name)) == sizes.get(name) for name in files):
        return False
    return record.get("sha256") == _digest(place.path)


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _chunk_size(model: Model, request: Request) -> int:
    if any(one.about.slow for one in request.methods):
        return 1  # hundreds of passes a picture fill the batches anyway, and little is lost when stopped
    return -(-_TOGETHER // model.batch_size) * model.batch_size


def _chunks(places: list[_Place], size: int) -> Iterator[list[_Place]]:
    for start in range(0, len(places), size):
        yield places[start : start + size]


def _explain_chunk(
    model: Model, chunk: list[_Place], request: Request, bar: Bar
) -> Iterator[tuple[_Place, Explanation | str]]:
    """Every picture of the chunk with its explanation, or with the sentence that says why there is none."""
    from .pictures.picture import Picture

    pictures: dict[int, Any] = {}
    failed: dict[int, str] = {}
    for index, place in enumerate(chunk):
        try:
            picture = Picture.of(place.path)
            picture.prepare(model.preprocessing)  # what does not fit the network must not take its neighbours along
            pictures[index] = picture
        except ConvoscopeError as error:
            failed[index] = str(error)
        except MemoryError:
            failed[index] = f"{place.path}: too large for the memory."
    found: dict[int, Explanation | str] = dict(failed)
    if pictures:
        found.update(_explain_together(model, pictures, request, bar))
    for index, place in enumerate(chunk):
        if index in found:
            yield place, found[index]


def _explain_together(
    model: Model, pictures: dict[int, Any], request: Request, bar: Bar
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
        index: f"{pictures[index].path}: {one.reason}" if one.without_maps else one.explanation
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


def write(
    model: Model, folder: Path, explanation: Explanation, request: Request, key: str, *, complete: bool
) -> dict[str, Any]:
    """All files of one picture; ``explain.json`` last. Returns what it holds."""
    import numpy as np

    folder.mkdir(parents=True, exist_ok=True)
    (folder / RECORD).unlink(missing_ok=True)
    # on Ray two workers may be at one picture: each file comes into its place whole
    making = Path(tempfile.mkdtemp(prefix=".making-", dir=folder))
    try:
        np.savez_compressed(making / "maps.npz", **explanation.arrays())  # type: ignore[arg-type]
        files = ["maps.npz"]
        if request.pictures:
            for name, heatmap in explanation.items():
                files.append(f"{file_name(name)}.png")
                heatmap.overlay().save(making / files[-1], compress_level=4)
                if heatmap.parts:
                    files.append(f"{file_name(name)}-parts.png")
                    explanation.parts_sheet(name).save(making / files[-1])
            if any(explanation.rows):
                files.append("sheet.png")
                explanation.sheet().save(making / files[-1])
        for name in files:
            (making / name).replace(folder / name)
    finally:
        shutil.rmtree(making, ignore_errors=True)
    record = explanation.to_dict()
    if request.trust:
        record["trust"] = trust(model, explanation, request.targets[0])
    sizes = {name: _size(folder / name) for name in files}
    source = explanation.fitted.picture.path
    record["asked"] = request.asked(model, None if source is None else Path(source))
    record.update(sha256=explanation.fitted.picture.sha256, files=files, sizes=sizes, key=key, complete=complete)
    record = dict(plain(record))
    partial = folder / f".{RECORD}.{os.getpid()}"
    partial.write_text(dump_json(record) + "\n", encoding="utf-8")
    partial.replace(folder / RECORD)
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
