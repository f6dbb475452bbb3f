"""Which pictures of a collection have most of a target: a direction of a concept, a unit, a class."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from ...errors import MethodRefused, PictureError, UsageError
from ...session import Session
from ...targets.parsing import parse
from ..gather.collections import picture as open_picture
from .neighbors import Neighbors, _result

if TYPE_CHECKING:
    from ...pictures.picture import ModelInput
    from ..store.store import Store

Tell = Callable[[str, int, int], None]


def strongest(store: Store, target: Any, k: int = 10, progress: Tell | None = None) -> Neighbors:
    """The ``k`` pictures of the store with the highest score of ``target``, the highest first.

    The network runs once over all pictures, since a target may ask of any layer; ``similarity`` of the rows is the
    target's score.

    Args:
        store: a survey's store.
        target: anything that is a target, such as ``direction:layer3@concept.npy``, ``layer3:17``, a class.
        k: how many.
        progress: called with what is done, how much, and of how much.

    Raises:
        UsageError: ``k`` below 1, no picture can be read, or the target is one of the picture's own (the predicted
            class).
        TargetError: no such target.
    """
    if k < 1:
        raise UsageError(f"k must be at least 1 picture, not {k}.")
    model = store.model()
    asked = parse(target, model)
    listed = store.table(["sha256", "uri"], "error IS NULL").to_pylist()
    scores: list[tuple[str, float]] = []
    gone = 0
    label = str(target)

    def run(batch: list[tuple[str, ModelInput]]) -> str:
        with Session(model, [fitted for _, fitted in batch], gradients=False) as session:
            recorded = session.record(layers=asked.layers(model))
            scorer = session.resolve(asked, recorded.output)
            if len(set(scorer.labels)) > 1:
                raise UsageError(f"{target} means another class on each picture: name one.")
            found, _ = session.scored(scorer, recorded)
        scores.extend((sha, float(score)) for (sha, _), score in zip(batch, found, strict=True))
        return scorer.labels[0]

    batch: list[tuple[str, ModelInput]] = []
    for done, row in enumerate(listed, 1):
        try:
            fitted = model.prepare(open_picture(store.uri(row["sha256"], row["uri"])))
        except (PictureError, OSError):
            gone += 1
            continue
        if batch and (len(batch) == model.batch_size or fitted.tensor.shape != batch[0][1].tensor.shape):
            label, batch = run(batch), []
        batch.append((row["sha256"], fitted))
        if progress is not None:
            progress("scores", done, len(listed))
    if batch:
        label = run(batch)
    if not scores:
        raise UsageError(f"None of the {len(listed)} pictures of {store.path} can be read any more.")
    values = np.array([score for _, score in scores])
    if not np.isfinite(values).all():
        raise MethodRefused(f"{label} has a score that is not finite on some of the pictures.")
    order = np.argsort(-values, kind="stable")[:k]
    query = {"uri": label, "sha256": "", "label": None, "prediction": None, "unreadable": gone}
    where = ", ".join(asked.layers(model)) or "the output"
    return _result(store, query, None, [scores[int(at)] for at in order], where, "score")
