"""Thousands of pictures through ``explain``: a chunk at a time, each picture in its folder, resumable.

A picture is done when its ``explain.json`` is there, which is written last and at once; it holds a key of everything
that was asked, so that the same command goes on where it stopped and another one does its own work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import ConvoscopeError, NotInPicture
from ..interrupts import Interrupt, interruptible
from ..parallel import Task
from ..pipeline import Later, ahead
from ..progress import Bar
from .records import Place, is_done, places_of, write
from .request import Request

if TYPE_CHECKING:
    from ..models.model import Model
    from ..outcomes import Outcome as PictureOutcome
    from ..parallel import RayPool
    from ..pictures.picture import ModelInput
    from ..results import Explanation

#: pictures explained together at least, where their passes are few: the plan then counts whole batches
_TOGETHER = 32
#: the same on a CPU: larger batches leave its caches, and the drawing of the last pictures has nothing beside it
_TOGETHER_CPU = 8


@dataclass
class Outcome:
    """What became of a run: the records in the pictures' order, failures by path."""

    records: list[dict[str, Any]] = field(default_factory=list)
    failed: dict[Path, str] = field(default_factory=dict)
    skipped: int = 0
    stopped: bool = False


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
    from ..methods import method
    from ..pictures.picture import find_pictures

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
    places = places_of(paths, out)
    waiting = []
    for place in places:
        if is_done(place, key, request):
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
    model: Model, waiting: list[Place], request: Request, key: str, bar: Bar, interrupt: Interrupt,
    spread: RayPool | None,
) -> Iterator[tuple[Place, dict[str, Any] | str]]:  # fmt: skip
    """Every picture's record, its files written; or the sentence that says why there is none."""
    size = _chunk_size(model, request)
    if spread is None:
        yield from _overlapped(model, waiting, size, request, key, bar, interrupt)
        return

    def work(opened: Model, chunk: list[Place]) -> list[dict[str, Any] | str]:
        quiet = Bar("", None, quiet=True)
        no_interrupt = Interrupt()
        return [answer for _, answer in _overlapped(opened, chunk, len(chunk), request, key, quiet, no_interrupt)]

    # eight chunks at least, so that there is something to share out; workers may stand in another folder
    chunks = list(_chunks(waiting, min(size, max(1, len(waiting) // 8))))
    tasks = [
        Task(str(number), [Place(place.path.resolve(), place.folder.resolve()) for place in chunk])
        for number, chunk in enumerate(chunks)
    ]
    for done in spread.run(model, work, tasks):
        yield from zip(chunks[int(done.id)], done.value, strict=True)


def _overlapped(
    model: Model, waiting: list[Place], size: int, request: Request, key: str, bar: Bar, interrupt: Interrupt
) -> Iterator[tuple[Place, dict[str, Any] | str]]:
    """A chunk goes through the network while the next is read, and while what the last one gave is drawn and written.

    With ``size`` 1 (methods of many passes) every picture is written before the next begins.
    """
    chunks = list(_chunks(waiting, size))
    with (
        Later[tuple[Place, "dict[str, Any] | str"]](0 if size == 1 else size) as later,
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


def _told(place: Place, sentence: str) -> tuple[Place, dict[str, Any] | str]:
    return place, sentence


def _written(
    place: Place, explanation: Explanation, request: Request, key: str, whole: bool, more: dict[str, Any]
) -> tuple[Place, dict[str, Any] | str]:
    return place, write(place.folder, explanation, request, key, complete=whole, more=more)


def _chunk_size(model: Model, request: Request) -> int:
    if any(one.about.slow for one in request.methods):
        return 1  # hundreds of passes a picture fill the batches anyway, and little is lost when stopped
    together = _TOGETHER_CPU if model.device.type == "cpu" else _TOGETHER
    if model.batch_size < together:  # whole batches
        return -(-together // model.batch_size) * model.batch_size
    return together


def _chunks(places: list[Place], size: int) -> Iterator[list[Place]]:
    for start in range(0, len(places), size):
        yield places[start : start + size]


def _read_chunk(model: Model, chunk: list[Place]) -> list[ModelInput | str]:
    """Every picture as the network takes it, or the sentence that says why it cannot be."""
    from ..pictures.picture import Picture

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
    model: Model, chunk: list[Place], read: list[ModelInput | str], request: Request, bar: Bar
) -> Iterator[tuple[Place, Explanation | str]]:
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
    from ..explanation import outcomes

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


def trust(model: Model, explanation: Explanation, target: Any) -> dict[str, Any]:
    """A verdict on every map, as plain data."""
    from ..trust.verdict import verdicts

    return {name: verdict.to_dict() for name, verdict in verdicts(model, explanation, target).items()}
