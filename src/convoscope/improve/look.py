"""One pass of a network over labelled pictures: scores, chosen layers' pooled activations, and what failed."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..errors import ModelError, PictureError
from ..models.formats import laid_out
from ..models.model import Model
from ..pictures.picture import ModelInput, Picture
from ..session import forward, protected
from ..surveys.gather.work import class_scores
from .collection import Labelled

#: pictures decoded at a time, so that memory does not grow with the collection
DECODERS = 2

Change = Callable[[Picture, int], Picture]
Tell = Callable[[int, int], None]


@dataclass(eq=False)
class Looked:
    """What a network made of a collection: one row a picture that could be read, in the collection's order.

    Args:
        pictures: the collection without those that failed.
        scores: float32 ``[N, K]`` class scores (logits); None where the network gives none.
        layers: layer -> float32 ``[N, C]``, the mean of each channel over its grid.
        failed: URI -> why it could not be read.
        shares: float32 ``[N, K]`` probabilities; see :attr:`probability`.
    """

    pictures: Labelled
    scores: NDArray[np.float32] | None
    layers: dict[str, NDArray[np.float32]]
    failed: dict[str, str]
    shares: NDArray[np.float32] | None = None

    @property
    def probability(self) -> NDArray[np.float64]:
        """The classes' probabilities, float64 ``[N, K]``: the network's own where it returns them, else the softmax.

        Raises :class:`ModelError` where there are no class scores.
        """
        if self.shares is not None:
            return self.shares.astype(np.float64)
        scores = self._scores().astype(np.float64)
        raised = np.exp(scores - scores.max(1, keepdims=True))
        return np.asarray(raised / raised.sum(1, keepdims=True))

    @property
    def prediction(self) -> NDArray[np.int64]:
        """The class of the highest score, int64 ``[N]``."""
        return np.asarray(self._scores().argmax(1), np.int64)

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether the prediction is the truth; False where the truth is not known (see ``pictures.known``)."""
        return np.asarray((self.prediction == self.pictures.truth) & self.pictures.known)

    def _scores(self) -> NDArray[np.float32]:
        if self.scores is None:
            raise ModelError("This network gives no class scores: what needs them cannot be done for it.")
        return self.scores


def look(
    model: Model,
    pictures: Labelled,
    layers: Sequence[str] = (),
    *,
    change: Change | None = None,
    pool: Callable[[str, Tensor], Tensor] | None = None,
    progress: Tell | None = None,
) -> Looked:
    """Run ``model`` once over ``pictures``; memory does not grow with their number but for what is returned.

    Args:
        model: left bit for bit as it was.
        pictures: what to look at.
        layers: names of layers whose activations are kept, pooled.
        change: makes another picture of each before the preprocessing (a stress, a paste); gets its row, too.
        pool: ``(layer, activation [B, ...]) -> [B, C]``; default the mean over the grid.
        progress: called with the number of pictures done, and of all.

    Raises:
        ModelError: the network cannot run on these pictures, or a layer is not reached.
        PictureError: not one picture can be read.
    """
    failed: dict[str, str] = {}
    kept: list[int] = []
    scores: list[NDArray[np.float32]] = []
    shares: list[NDArray[np.float32]] = []
    found: dict[str, list[NDArray[np.float32]]] = {name: [] for name in layers}
    classless = False

    def visit(name: str, output: Tensor) -> None:
        found[name].append((pool or _mean)(name, output.detach()).float().cpu().numpy())

    for rows, inputs in batches(model, pictures, failed, change):
        with protected(model, visit, layers):
            output = forward(model, inputs)
        values = class_scores(model, output, len(rows))
        classless = classless or values is None
        if values is not None:
            scores.append(values[:, 0].numpy())
            shares.append(values[:, 1].numpy())
        kept.extend(rows)
        if progress is not None:
            progress(kept[-1] + 1, len(pictures))
    if not kept:
        reason = next(iter(failed.values()), "there is none")
        raise PictureError(f"None of the {len(pictures)} pictures can be used: {reason}")
    empty = next((name for name, parts in found.items() if not parts), None)
    if empty is not None:
        raise ModelError(
            f"Layer {empty!r} was not reached in this forward: `convoscope layers` lists those that are."
        )
    return Looked(
        pictures.take(kept) if len(kept) < len(pictures) else pictures,
        None if classless else np.concatenate(scores),
        {name: np.concatenate(parts) for name, parts in found.items()},
        failed,
        None if classless else np.concatenate(shares),
    )


def batches(
    model: Model, pictures: Labelled, failed: dict[str, str], change: Change | None = None
) -> Iterator[tuple[list[int], Tensor]]:
    """Batches of one input shape in the collection's order: rows, and the network's input ``[B, C, H, W]``.

    The next batch is decoded meanwhile. Pictures that cannot be read are written into ``failed``.
    """

    def read(row: int) -> ModelInput | str:
        try:
            picture = pictures.picture(row)
            return model.prepare(picture if change is None else change(picture, row))
        except (PictureError, OSError) as error:
            return str(error)

    size = max(1, model.batch_size)
    with ThreadPoolExecutor(DECODERS, "decode") as pool:
        for start, ready in _ahead(pool, read, len(pictures), size):
            group: list[int] = []
            fitted: list[ModelInput] = []
            for row, one in enumerate(ready, start):
                if isinstance(one, str):
                    failed[pictures.uris[row]] = one
                    continue
                if fitted and one.tensor.shape != fitted[0].tensor.shape:
                    yield group, laid_out(model, model.inputs(fitted))
                    group, fitted = [], []
                group.append(row)
                fitted.append(one)
            if fitted:
                yield group, laid_out(model, model.inputs(fitted))


def _ahead(
    pool: ThreadPoolExecutor, read: Callable[[int], ModelInput | str], count: int, size: int
) -> Iterator[tuple[int, list[ModelInput | str]]]:
    starts = list(range(0, count, size))

    def send(start: int) -> list[Any]:
        return [pool.submit(read, row) for row in range(start, min(start + size, count))]

    waiting = [send(start) for start in starts[:2]]
    try:
        for number, start in enumerate(starts):
            ready = [future.result() for future in waiting.pop(0)]
            if number + 2 < len(starts):
                waiting.append(send(starts[number + 2]))
            yield start, ready
    finally:
        for future in (future for batch in waiting for future in batch):
            future.cancel()


def _mean(name: str, activation: Tensor) -> Tensor:
    """The mean over whatever follows the channels; of tokens ``[B, T, C]`` the mean token."""
    if activation.ndim <= 2:
        return activation.clone()
    return activation.float().mean(1) if activation.ndim == 3 else activation.float().flatten(2).mean(2)


def accuracy(looked: Looked) -> float | None:
    """The share that is right of the pictures whose truth is known; None where none is."""
    known = looked.pictures.known
    return float(looked.right[known].mean()) if known.any() else None


def softmax(scores: Iterable[Any] | NDArray[Any] | Tensor) -> NDArray[np.float64]:
    """Softmax over the last axis in float64."""
    return torch.as_tensor(np.asarray(scores), dtype=torch.float64).softmax(-1).numpy()
