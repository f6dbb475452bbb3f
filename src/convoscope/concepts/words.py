"""Units by likeness to words, where a user brings a model with a tower for pictures and one for texts (CLIP).

Two questions. *Which word names a unit?* CLIP-Dissect (Oikarinen & Weng 2023): a word fits where the pictures for which
the unit fires most are those that the text model takes for the word, and other units' pictures are not (soft weighted
pointwise mutual information). *Which unit answers a text?* SemanticLens (Dreyer et al. 2025): the pictures for which a
unit fires most, placed in the text model's space, beside the text. Both are held against as many random pictures, since
some word is always the best one: a unit whose best word random pictures reach as well is not labelled.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import LayerError, PictureError, UsageError
from ..improve.collection import Labelled
from ..improve.look import look
from ..improve.statistics import LEVEL, corrected
from .dissection import left_out

if TYPE_CHECKING:
    from ..models.model import Model
    from ..models.two_towers import TwoTowers
    from ..surveys.store.store import Store

#: pictures that stand for a unit; at most a tenth of all
TOP = 50
FEWEST = 40
#: random sets of pictures that a unit is compared with
DRAWS = 1000
#: as in the paper: how surely a unit's first and last picture belong to it, and how sharply words are told apart
FIRST, LAST, SHARP = 0.998, 0.97, 10.0

Floats = NDArray[np.float64]
Tell = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Named:
    """A unit and the word that fits it best.

    Args:
        unit: ``layer:channel``.
        word: of those given.
        score: soft weighted pointwise mutual information, above what random pictures have for the word on average.
        p: that as many random pictures have a best word that fits as well; corrected over units.
        pictures: for which the unit fires most, the best first.
    """

    unit: str
    word: str
    score: float
    p: float
    pictures: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The row as ``--json`` prints it."""
        return {"unit": self.unit, "word": self.word, "score": self.score, "p": self.p}


@dataclass(frozen=True)
class Likened:
    """A unit beside a text.

    Args:
        unit: ``layer:channel``.
        text: what was asked for.
        likeness: mean cosine of the unit's pictures to the text, above that of all pictures.
        p: that as many random pictures are as like; corrected over units.
        pictures: for which the unit fires most, the best first.
    """

    unit: str
    text: str
    likeness: float
    p: float
    pictures: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """The row as ``--json`` prints it."""
        return {"unit": self.unit, "likeness": self.likeness, "p": self.p, "pictures": list(self.pictures)}


@dataclass(eq=False)
class Words:
    """What a text model says of units: the words that name them, and for each text the units that answer it.

    Args:
        named: units whose word random pictures do not reach, the surest first.
        ranked: text -> units, the most like first, all of them.
        units: how many were looked at.
        text_model: what likeness was measured with.
        doubts: what this cannot tell.
        failed: URI -> why a picture could not be read; it is left out.
    """

    named: list[Named]
    ranked: dict[str, list[Likened]]
    units: int
    text_model: str
    doubts: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """All rows as plain data."""
        return {
            "named": [row.to_dict() for row in self.named],
            "texts": {text: [row.to_dict() for row in rows] for text, rows in self.ranked.items()},
        }

    def record(self) -> dict[str, Any]:
        """What the page reads: the rows with their pictures, how many units were looked at, and with what."""
        named = [{**row.to_dict(), "pictures": list(row.pictures)} for row in self.named]
        return {**self.to_dict(), "named": named, "units": self.units, "text_model": self.text_model,
                "doubts": list(self.doubts)}  # fmt: skip

    def __repr__(self) -> str:
        return f"Words({len(self.named)} of {self.units} units named, {len(self.ranked)} texts, {self.text_model})"


def name_units(
    store: Store | Model,
    pictures: Any = None,
    *,
    text_model: str | TwoTowers,
    texts: Sequence[str] = (),
    words: Sequence[str] = (),
    layers: Sequence[str] = (),
    top: int = TOP,
    seed: int = 0,
    progress: Tell | None = None,
) -> Words:
    """Name units by words, and rank them by texts.

    Args:
        store: a survey's store (its pictures are used), or a model.
        pictures: with a model, what to look at.
        text_model: ``hf:FOLDER`` of a model with two towers, or an opened one.
        texts: rank the units by each of these.
        words: names that a unit may get, three at least; default the network's class names and ``texts``.
        layers: default, with a store, all that were surveyed; with a model the last grid.
        top: pictures that stand for a unit; a tenth of all at most.
        seed: of the random pictures.
        progress: called with what is done, how much, and of how much.

    Returns:
        The named units, the surest first, and for each text all units, the most like first.

    Raises:
        UsageError: too few pictures or words, or a setting that does not fit.
        ModelError: the text model cannot be opened.
    """
    from ..models.two_towers import TwoTowers

    if top < 3:
        raise UsageError(f"top must be at least 3 pictures, not {top}.")
    towers = TwoTowers(text_model) if isinstance(text_model, str) else text_model
    model, listed, names = _what(store, pictures, layers)
    if len(listed) < FEWEST:
        raise UsageError(
            f"{len(listed)} pictures are too few to name units: give at least {FEWEST}, better some hundreds."
        )
    vocabulary = list(dict.fromkeys([*words] or [*(model.labels or ()), *texts]))
    if len(vocabulary) < 3 and (words or not texts):
        raise UsageError(f"{len(vocabulary)} words are too few to choose a unit's name from: give at least three.")
    looked = look(model, listed, names, progress=None if progress is None else lambda d, n: progress("units", d, n))
    failed = dict(looked.failed)
    placed, read = _placed(towers, looked.pictures, failed, progress)
    listed = looked.pictures.take(read)
    if len(listed) < FEWEST:
        raise UsageError(f"{len(listed)} pictures can be read: too few to name units; at least {FEWEST} are needed.")
    values = {name: looked.layers[name][read].astype(np.float64) for name in names}
    units = [f"{name}:{channel}" for name in names for channel in range(values[name].shape[1])]
    activations = np.concatenate([values[name] for name in names], 1)
    live = np.ptp(activations, axis=0) > 0
    count = min(top, max(3, len(listed) // 10))
    best = np.argsort(-activations, axis=0, kind="stable")[:count]  # [top, U]
    random = np.random.default_rng([seed, 6])
    chance = np.stack([random.permutation(len(listed))[:count] for _ in range(DRAWS)], 1)  # [top, DRAWS]
    shown = [tuple(listed.uris[row] for row in best[:9, unit]) for unit in range(len(units))]
    result = Words([], {}, len(units), towers.name, left_out(failed), failed)
    if len(listed) < 300:
        result.doubts.append(f"Only {len(listed)} pictures: a few of them stand for each unit.")
    if len(vocabulary) >= 3:
        likeness = placed @ towers.texts(vocabulary).T
        score, word, p = named(likeness, best, chance)
        p = np.where(live, p, 1.0)
        adjusted = corrected(p)
        result.named = [
            Named(units[u], vocabulary[word[u]], float(score[u]), float(adjusted[u]), shown[u])
            for u in np.lexsort((-score, adjusted)) if adjusted[u] <= LEVEL
        ]  # fmt: skip
    for text in dict.fromkeys(texts):
        likeness = placed @ towers.texts([text])[0]
        gain, p = likened(likeness, best, chance)
        adjusted = corrected(np.where(live, p, 1.0))
        result.ranked[text] = [
            Likened(units[u], text, float(gain[u]), float(adjusted[u]), shown[u])
            for u in np.argsort(-np.where(live, gain, -np.inf), kind="stable")
        ]
    return result


def named(
    likeness: NDArray[Any], best: NDArray[np.intp], chance: NDArray[np.intp]
) -> tuple[Floats, NDArray[np.intp], Floats]:
    """The best word of each unit, and how often random pictures have one that fits as well.

    Args:
        likeness: cosine of each picture to each word, ``[N, W]``.
        best: rows of the pictures for which each unit fires most, the strongest first, ``[top, U]``.
        chance: the same for random sets, ``[top, R]``.

    Returns:
        score ``[U]``, word ``[U]``, p ``[U]``.
    """
    raised = np.exp(SHARP * (np.asarray(likeness, np.float64) - np.max(likeness, axis=1, keepdims=True)))
    share = raised / raised.sum(1, keepdims=True)  # p(word | picture)
    belongs = np.linspace(FIRST, LAST, len(best))[:, None, None]

    def fits(rows: NDArray[np.intp]) -> Floats:
        return np.asarray(
            np.log1p(belongs * (share[rows] - 1)).sum(0)
        )  # log p(word | the unit's pictures), [sets, W]

    of_units, of_chance = fits(best), fits(chance)
    # a word's prior is what random pictures give it: independent of which other units are looked at
    prior = np.logaddexp.reduce(of_chance, axis=0) - np.log(len(of_chance))
    units, null = of_units - prior, of_chance - prior
    word = units.argmax(1)
    score = units.max(1)
    highest = np.sort(null.max(1))
    reached = len(highest) - np.searchsorted(highest, score, side="left")
    return score, word, (1 + reached) / (1 + len(highest))


def likened(likeness: NDArray[Any], best: NDArray[np.intp], chance: NDArray[np.intp]) -> tuple[Floats, Floats]:
    """How much more each unit's pictures are like a text than all pictures are, and how often random ones are, too.

    Args:
        likeness: cosine of each picture to the text, ``[N]``.
        best: as in :func:`named`.
        chance: as in :func:`named`.

    Returns:
        gain ``[U]``, p ``[U]``.
    """
    values = np.asarray(likeness, np.float64)
    gain = values[best].mean(0) - values.mean()
    null = np.sort(values[chance].mean(0) - values.mean())
    reached = len(null) - np.searchsorted(null, gain, side="left")
    return np.asarray(gain), np.asarray((1 + reached) / (1 + len(null)))


def _what(store: Any, pictures: Any, layers: Sequence[str]) -> tuple[Model, Labelled, list[str]]:
    from ..surveys.store.store import Store

    if isinstance(store, Store):
        model = store.model()
        surveyed = [span.name for span in store.recipe.layers if span.grid]
        return model, Labelled.of(store if pictures is None else pictures, model), list(layers) or surveyed
    if pictures is None:
        raise UsageError("Give pictures to look at, or the store of a survey.")
    last = store.watched().last_grid
    if not layers and last is None:
        raise LayerError(f"{store.name} has no layer whose cells keep a place in the picture: name one with --layer.")
    return store, Labelled.of(pictures, store), list(layers) or [str(last)]


def _placed(
    towers: TwoTowers, listed: Labelled, failed: dict[str, str], progress: Tell | None
) -> tuple[NDArray[np.float32], list[int]]:
    """The pictures' places in the text model's space ``[N, D]``, and the rows of those that can be read.

    A few are read at a time. What the network could read may be gone meanwhile, or be none for the other model: it is
    written into ``failed``.
    """
    found: list[NDArray[np.float32]] = []
    kept: list[int] = []

    def place(rows: Sequence[int]) -> None:
        try:
            found.append(towers.pictures([listed.picture(row) for row in rows]))
            kept.extend(rows)
        except (PictureError, OSError) as error:
            if len(rows) == 1:
                failed[listed.uris[rows[0]]] = str(error)
            for row in rows if len(rows) > 1 else ():  # one of them: each by itself
                place([row])

    for start in range(0, len(listed), 32):
        rows = range(start, min(start + 32, len(listed)))
        place(rows)
        if progress is not None:
            progress("pictures", rows[-1] + 1, len(listed))
    if not kept:
        raise PictureError(f"None of the {len(listed)} pictures can be used: {next(iter(failed.values()))}")
    return np.concatenate(found), kept
