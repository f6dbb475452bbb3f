"""What a stage of :func:`~convoscope.improve.diagnose.diagnose` is, and what it is given.

The agreement, in one place:

* A **stage** is a class that can be made without arguments, with ``name``, ``tests`` (how many tests it makes at
  most where that is known before, else 0) and ``run(case) -> StageResult``. :data:`STAGES` lists them by import path,
  in the order in which they run; one whose module is not there is passed over. The names are ``input``
  (``improve.input:InputStage``), ``data`` (``improve.data:DataStage``), ``units`` (``improve.units:UnitsStage``),
  ``slices`` (``improve.slices:SlicesStage``), ``stress`` (``improve.stress:StressStage``), ``depth``
  (``improve.depth:DepthStage``) and ``shortcuts`` (``improve.shortcuts:ShortcutsStage``).
* A **case** is one network with its pictures. ``case.looked`` is the one forward that all stages share: scores and
  the embedding (``case.layer``) of every picture that could be read. Rows everywhere are rows of
  ``case.looked.pictures``; ``case.half_a`` flags them: find on half A, test on the other. ``case.looked.layers``
  holds the pooled activations of ``case.depths``, too: a few layers evenly over the depth.
* A **result** holds findings with the *raw* p value of their test on the half that did not find them, in ``p``.
  ``tests`` counts every test that was made, those that found nothing included: Benjamini-Hochberg runs over the
  tests of all stages together, and a finding stays at 5 %. ``p = None`` says that no chance is involved (an exact
  copy, a unit that is 0 in every picture): such a finding stays as it is, so that a stage must be sure of it.
* ``Finding.won`` ranks: the share of all pictures whose outcome the finding is about, at the lower end of its
  interval where it has one. Nothing that costs less than :data:`LEAST` of the pictures is worth a sentence.
* A stage that cannot be done says why in ``refused`` and raises nothing (a :class:`ConvoscopeError` that it does raise
  is taken for that sentence).
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ...errors import ConvoscopeError, ModelError, PictureError
from ...parallel import Task
from ..collection import Labelled
from ..finding import Finding
from ..look import Looked, look
from ..statistics import halves
from .properties import Properties, measure

if TYPE_CHECKING:
    from ...models.model import Model
    from ...parallel import RayPool
    from ...pictures.picture import Picture
    from ...surveys.store.store import Store

#: (name, import path) in the order of the run
STAGES: tuple[tuple[str, str], ...] = (
    ("input", "convoscope.improve.input:InputStage"),
    ("data", "convoscope.improve.data:DataStage"),
    ("units", "convoscope.improve.units:UnitsStage"),
    ("slices", "convoscope.improve.slices:SlicesStage"),
    ("stress", "convoscope.improve.stress:StressStage"),
    ("depth", "convoscope.improve.depth:DepthStage"),
    ("shortcuts", "convoscope.improve.shortcuts:ShortcutsStage"),
)

#: share of all pictures below which nothing is reported, however sure it is
LEAST = 0.005

#: pictures below which nothing is tested: half of them would hold fewer than a claim can stand on
FEWEST = 30

#: layers whose pooled activations the one look keeps beside the embedding
DEPTHS = 6

#: pictures that a worker looks at in one task
PARCEL = 128

#: (what, done, of all) is told to whoever shows progress; done counts within one piece of work
Progress = Callable[[str, int, int], None]


def quiet(what: str, done: int, total: int) -> None:
    """Progress that nobody sees."""


@dataclass(frozen=True, eq=False)
class Case:
    """One network with its pictures, and what all stages share of it.

    Args:
        model: left bit for bit as it was by every stage.
        pictures: the pictures that the network disappoints on.
        train: what it was trained on, where that is known.
        store: the survey of ``pictures`` where they were given as one.
        seed: of everything random.
        progress: called with what is being done, how many are done, of how many.
        words: what follows ``convoscope COMMAND`` to name this network and these pictures, for ``next`` lines.
        flags: the command's model flags, as typed.
        train_words: the training pictures as typed.
        known: what a stage leaves for those after it: ``wrong labels``, rows of ``looked.pictures`` whose label the
            data stage has found wrong, beyond doubt.
        spread: processes that share the look at the pictures.
    """

    model: Model
    pictures: Labelled
    train: Labelled | None = None
    store: Store | None = None
    seed: int = 0
    progress: Progress = quiet
    words: tuple[str, ...] = ("MODEL", "PICTURES")
    flags: tuple[str, ...] = ()
    train_words: tuple[str, ...] = ()
    known: dict[str, Any] = field(default_factory=dict)
    spread: RayPool | None = None

    @cached_property
    def layer(self) -> str | None:
        """The layer whose pooled output the classifier gets; None where the network has none."""
        return self.model.watched(self._shape()).embedding

    @cached_property
    def depths(self) -> tuple[str, ...]:
        """At most :data:`DEPTHS` layers with a grid, evenly from the first to the last, kept in the one look, too."""
        from ...surveys.gather.choose import default_layers

        shape = self._shape() or tuple(self.model.watched().input_shape[-3:])
        try:
            names = default_layers(self.model, shape)
        except ConvoscopeError:
            return ()
        picked = np.linspace(0, len(names) - 1, min(DEPTHS, len(names))).round().astype(int)
        return tuple(names[at] for at in picked)

    def _shape(self) -> tuple[int, ...] | None:
        if self.model.preprocessing.size is not None or self.model.preprocessing.frames is not None:
            return None
        first = self.model.prepare(self.pictures.readable(range(len(self.pictures)), 1)[0]).tensor
        return tuple(first.shape)

    @cached_property
    def looked(self) -> Looked:
        """One forward over ``pictures``: scores and the embedding (see :attr:`embedding`)."""
        return self._look(self.pictures, "Looking at the pictures", self._measured)

    @cached_property
    def looked_train(self) -> Looked | None:
        """The same over the training pictures; None where none are given."""
        return (
            None
            if self.train is None
            else self._look(self.train, "Looking at the training pictures", self._measured_train)
        )

    @property
    def embedding(self) -> NDArray[np.float32]:
        """float32 ``[N, C]``, a row a row of ``looked.pictures``. Raises :class:`ModelError` where there is none."""
        return embedding_of(self.looked, self.layer)

    @property
    def embedding_train(self) -> NDArray[np.float32] | None:
        """The same of the training pictures; None where none are given."""
        return None if self.looked_train is None else embedding_of(self.looked_train, self.layer)

    @cached_property
    def properties(self) -> list[Properties]:
        """What each picture of ``looked.pictures`` looks like: its size, light, sharpness (see :class:`Properties`)."""
        return _of_readable(self._measured, self.pictures, self.looked)

    @property
    def properties_train(self) -> list[Properties] | None:
        """The same of the training pictures; None where none are given."""
        if self.train is None or self.looked_train is None:
            return None
        return _of_readable(self._measured_train, self.train, self.looked_train)

    @cached_property
    def half_a(self) -> NDArray[np.bool_]:
        """A flag a row of ``looked.pictures``: half A, where findings are made; the rest tests them."""
        held = self.looked.pictures
        return halves(held.keys, held.labels, self.seed)

    @cached_property
    def _measured(self) -> dict[int, Properties]:
        return {}

    @cached_property
    def _measured_train(self) -> dict[int, Properties]:
        return {}

    def _look(self, pictures: Labelled, what: str, measured: dict[int, Properties]) -> Looked:
        layers = list(dict.fromkeys([*([] if self.layer is None else [self.layer]), *self.depths]))
        if self.spread is None or pictures.sources is not None:
            looked, properties = _seen(
                self.model, pictures, layers, lambda done, total: self.progress(what, done, total)
            )
            measured.update(properties)
            return looked
        rows = [range(start, min(start + PARCEL, len(pictures))) for start in range(0, len(pictures), PARCEL)]
        tasks = [Task(str(number), (pictures.take(list(part)), layers)) for number, part in enumerate(rows)]
        made: dict[int, tuple[Looked | None, dict[int, Properties], dict[str, str]]] = {}
        for one in self.spread.run(self.model, _parcel, tasks):
            made[int(one.id)] = one.value
            self.progress(what, min(len(made) * PARCEL, len(pictures)), len(pictures))
        for number, part in enumerate(rows):
            measured.update({part[row]: one for row, one in made[number][1].items()})
        return _joined(pictures, layers, [made[number] for number in range(len(rows))])

    def command(self, name: str, *more: str, without: Sequence[str] = ()) -> str:
        """A command about this network and these pictures, to be pasted into a shell.

        Args:
            name: the command.
            more: what follows the pictures.
            without: model flags that are not repeated, since ``more`` has them.
        """
        kept: list[str] = []
        places = iter(self.flags)
        for word in places:
            if word in without:
                next(places, None)  # its value
                continue
            kept.append(word)
        given = [*self.words, *more, *kept]
        return " ".join(["convoscope", name, *(shlex.quote(str(word)) for word in given)])


@dataclass(frozen=True, eq=False)
class StageResult:
    """What one stage found.

    Args:
        findings: with raw p values; corrected and ranked by who runs the stages.
        tests: how many tests were made.
        refused: why the stage could not be done; None where it was.
        could_miss: one sentence, no "but": what this stage could not have seen ("slices of fewer than 12 pictures").
        evidence: plain data. What the page draws of it: ``tables``, a list of ``{"title", "header": [text], "rows":
            [[text or number]]}``, and ``drawings``, a list of ``{"title", "svg"}`` (SVG source that we made).
        stops: the other stages would measure nothing: the input is wrong.
    """

    findings: Sequence[Finding] = ()
    tests: int = 0
    refused: str | None = None
    could_miss: str = ""
    evidence: Mapping[str, Any] = field(default_factory=dict)
    stops: bool = False


class Stage(Protocol):
    """One suspicion, examined."""

    name: str
    tests: int

    def run(self, case: Case) -> StageResult:
        """Examine the case. Raises nothing for a network or pictures that the stage does not fit."""
        ...


def _seen(
    model: Model, pictures: Labelled, layers: Sequence[str], tell: Callable[[int, int], None] | None
) -> tuple[Looked, dict[int, Properties]]:
    properties: dict[int, Properties] = {}

    def see(picture: Picture, row: int) -> Picture:
        properties[row] = measure(picture)
        return picture

    return look(model, pictures, layers, change=see, progress=tell), properties


def _parcel(model: Model, what: Any) -> tuple[Looked | None, dict[int, Properties], dict[str, str]]:
    """A worker's share: a look at some pictures, their properties, and those that failed."""
    pictures, layers = what
    try:
        looked, properties = _seen(model, pictures, layers, None)
    except PictureError as error:  # not one of them can be read: the others' parcels go on
        return None, {}, dict.fromkeys(pictures.uris, str(error))
    return looked, properties, looked.failed


def _joined(
    pictures: Labelled,
    layers: Sequence[str],
    parts: Sequence[tuple[Looked | None, dict[int, Properties], dict[str, str]]],
) -> Looked:
    failed = {uri: why for _, _, own in parts for uri, why in own.items()}
    seen = [looked for looked, _, _ in parts if looked is not None]
    if not seen:
        raise PictureError(f"None of the {len(pictures)} pictures can be used: {next(iter(failed.values()))}")
    kept = np.array([uri not in failed for uri in pictures.uris])
    scores = [one.scores for one in seen if one.scores is not None]
    return Looked(
        pictures.take(kept) if failed else pictures, np.concatenate(scores) if len(scores) == len(seen) else None,
        {name: np.concatenate([one.layers[name] for one in seen]) for name in layers}, failed,
    )  # fmt: skip


def _of_readable(measured: dict[int, Properties], pictures: Labelled, looked: Looked) -> list[Properties]:
    return [measured[row] for row, uri in enumerate(pictures.uris) if uri not in looked.failed]


def embedding_of(looked: Looked, layer: str | None) -> NDArray[np.float32]:
    """The embedding in ``looked``. Raises :class:`ModelError` where the network has none."""
    if layer is None:
        raise ModelError("This network has no layer before its classifier that could serve as an embedding.")
    return looked.layers[layer]
