"""One shard of a survey: a pure function from a recipe, its network and some pictures to a mergeable result.

One forward a picture. While a layer's activation is there, its spatial maxima are taken (one cheap pass over memory);
the place of a maximum is looked up only for those that enter the best so far, or belong to the sample.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...engine.passes.naming import observe
from ...errors import LayerError, TargetError
from ...models.model import Model
from ...models.outputs import scores_of
from ...pictures.picture import Preprocessing
from ...session import forward, ours, protected
from ..store import rows
from ..store.accumulators import State
from ..store.recipe import Embedding, Recipe, Span, reopen
from .decode import Decoded, decode, header_shape
from .running import Places, Running
from .shards import Item, Shard, key_of

if TYPE_CHECKING:
    import pyarrow as pa

Tell = Callable[[int], None]


@dataclass(eq=False)
class ShardResult:
    """What one shard gives: a row a picture, and the state of all channels."""

    shard: str
    pictures: pa.Table
    state: State
    seconds: float
    forwards: int

    def __getstate__(self) -> dict[str, Any]:
        # Ray before 2.60 reads tables with pandas, which need not be there: the rows travel as Arrow's own bytes
        import pyarrow as pa

        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self.pictures.schema) as stream:
            stream.write(self.pictures)
        return {**vars(self), "pictures": sink.getvalue().to_pybytes()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        import pyarrow as pa

        vars(self).update(state, pictures=pa.ipc.open_stream(state["pictures"]).read_all())


_open_models: dict[str, Model] = {}


def run_shard(recipe: Recipe, shard: Shard) -> ShardResult:
    """The shard's result, with the network opened from the recipe (once in a process): what another machine runs."""
    key = f"{recipe.spec}|{recipe.fingerprint}|{recipe.preprocessing}"
    if key not in _open_models:
        _open_models.clear()
        _open_models[key] = reopen(recipe)
    return compute(_open_models[key], recipe, shard)


def compute(model: Model, recipe: Recipe, shard: Shard, tell: Tell | None = None, decoders: int = 2) -> ShardResult:
    """The result of one shard. ``tell(n)`` is called after ``n`` more pictures; the network is left as it was.

    The same shard gives the same numbers: batches are cut from the shard's own list, whatever else runs. Raises
    :class:`ModelError` where the network cannot run on the pictures at all.
    """
    started = time.perf_counter()
    gathered = _Gathered(recipe)
    forwards = 0
    groups: dict[tuple[int, int], list[Item]] = {}
    for item in shard.items:
        groups.setdefault(header_shape(item, model.preprocessing), []).append(item)
    pool = _decoders(decoders, os.getpid())
    with protected(model):
        for items in groups.values():
            batches = [items[i : i + recipe.batch_size] for i in range(0, len(items), recipe.batch_size)]
            for batch in _decoded(pool, batches, model.preprocessing):
                bad = [one for one in batch if one.fitted is None]
                gathered.failed(bad)
                for part in _same_shape([one for one in batch if one.fitted is not None]):
                    gathered.forward(model, part)
                    forwards += 1
                if tell is not None:
                    tell(len(batch))
    state = gathered.state()
    table = rows.table(recipe, shard.id, gathered.rows)
    return ShardResult(shard.id, table, state, time.perf_counter() - started, forwards)


@cache
def _decoders(count: int, process: int) -> ThreadPoolExecutor:
    """The threads that decode, the same ones for every shard of this process (a fork has none of its parent's).

    glibc gives a new thread any of its 8 arenas a core, and what a batch of pictures took stays in the arena: with
    threads of their own, shards would fill one arena after the other (400 MB on two cores).
    """
    return ThreadPoolExecutor(count, "decode")


def _decoded(
    pool: ThreadPoolExecutor, batches: Sequence[list[Item]], preprocessing: Preprocessing
) -> Iterator[list[Decoded]]:
    """The batches in order, the next one being decoded meanwhile."""
    ahead = [[pool.submit(decode, item, preprocessing) for item in batch] for batch in batches[:2]]
    try:
        for number in range(len(batches)):
            ready = [future.result() for future in ahead.pop(0)]
            if number + 2 < len(batches):
                ahead.append([pool.submit(decode, item, preprocessing) for item in batches[number + 2]])
            yield ready
    finally:
        for futures in ahead:
            for future in futures:
                future.cancel()


def _same_shape(batch: list[Decoded]) -> list[list[Decoded]]:
    """Parts of one input shape, in order: a header may have told wrong."""
    parts: dict[tuple[int, ...], list[Decoded]] = {}
    for one in batch:
        assert one.fitted is not None
        parts.setdefault(tuple(one.fitted.tensor.shape), []).append(one)
    return list(parts.values())


class _Gathered:
    """What the forwards of a shard have given so far."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.rows: list[dict[str, Any]] = []
        self.done: list[State] = []
        self.running: dict[tuple[int, ...], tuple[int, Running]] = {}

    def failed(self, batch: Sequence[Decoded]) -> None:
        for one in batch:
            self.rows.append(rows.failed(one))

    def forward(self, model: Model, batch: list[Decoded]) -> None:
        fitted = [one.fitted for one in batch if one.fitted is not None]
        inputs = model.inputs(fitted)
        keys = np.array([key_of(one.item.sha256) for one in batch], np.uint64)
        running = self._running(tuple(inputs.shape[1:]), keys)
        watch = Watch(self.recipe, running)
        output = watch.forward(model, inputs)
        labels = [one.item.label for one in batch]
        if self.recipe.layers:
            running.add(keys, watch.values(), Places.joined(watch.found), labels)
        scores = class_scores(model, output, len(batch))
        embeddings = watch.embeddings(len(batch))
        for index, one in enumerate(batch):
            vectors = [vector[index] for vector in embeddings]
            row = rows.computed(one, None if scores is None else scores[index], vectors, self.recipe, model)
            self.rows.append(row)

    def _running(self, shape: tuple[int, ...], keys: NDArray[np.uint64]) -> Running:
        last, running = self.running.get(shape, (-1, None))
        if running is None or (len(keys) and int(keys[0]) < last):
            if running is not None:
                self.done.append(running.state())
            running = Running(self.recipe.channels, self.recipe.top, self.recipe.sample)
        self.running[shape] = (int(keys[-1]), running)
        return running

    def state(self) -> State:
        state = State.empty(self.recipe.channels, self.recipe.top, self.recipe.sample)
        for part in [*self.done, *(running.state() for _, running in self.running.values())]:
            state = state.merged(part)
        return state


def class_scores(model: Model, output: Any, count: int) -> Tensor | None:
    """The class scores and their probabilities, float32 ``[B, 2, K]`` on the CPU; ``None`` where there are none.

    One number that is no class (a regression) is none.
    """
    try:
        reading, values = scores_of(model, output, count)
    except TargetError:
        return None
    values = values.detach().float().cpu()
    return None if reading.is_value else torch.stack([values, reading.shares(values)], 1)


class Watch:
    """Looks at one forward: maxima, places and embeddings, while each activation is there."""

    def __init__(self, recipe: Recipe, running: Running | None) -> None:
        self.recipe, self.running = recipe, running
        self.spans = {span.name: span for span in recipe.layers} if running is not None else {}
        self.vectors: dict[str, Tensor] = {}
        self.wanted = {e.layer: e for e in recipe.embeddings}
        self.maxima: dict[str, Any] = {}
        self.found: list[Places] = []

    def forward(self, model: Model, inputs: Tensor) -> Any:
        """Run the network on ``inputs``; the caller protects it. Raises :class:`ModelError`."""
        if self.recipe.memory_format == "channels_last" and inputs.ndim == 4:
            inputs = inputs.contiguous(memory_format=torch.channels_last)
        names = {*self.spans, *self.wanted}
        with observe(model.module, ours(self.visit), only=names):
            output = forward(model, inputs)
        missing = names - {*self.maxima, *self.vectors}
        if missing:
            raise LayerError(
                f"Layer {sorted(missing)[0]!r} was not reached in this forward: leave it out of the survey."
            )
        return output

    def visit(self, name: str, tensor: Tensor) -> None:
        if name in self.wanted:
            self.vectors[name] = pooled(tensor, self.wanted[name])
        if name in self.spans:
            self._look(self.spans[name], tensor.detach())

    def _look(self, span: Span, tensor: Tensor) -> None:
        assert self.running is not None
        shape, tensor = tuple(tensor.shape), span.layout.planes(tensor)
        if tensor.ndim == 2:
            tensor = tensor[:, :, None, None]
        if tensor.ndim != 4 or tensor.shape[1] != span.channels:
            raise LayerError(
                f"Layer {span.name!r} gave {shape} here and {span.channels} channels before: "
                "leave it out of the survey."
            )
        running, start = self.running, span.start
        values, places = responses(tensor, lambda found: running.wanted(start, found))
        places.channels = places.channels + start
        self.maxima[span.name] = values
        self.found.append(places)

    def values(self) -> NDArray[np.float32]:
        """The responses of all layers, ``[B, C]``."""
        return np.concatenate([self.maxima[span.name] for span in self.recipe.layers], 1)

    def embeddings(self, count: int) -> list[NDArray[np.float32]]:
        return [self.vectors[e.layer].float().cpu().numpy()[:count] for e in self.recipe.embeddings]


def responses(
    tensor: Tensor, wanted: Callable[[NDArray[np.float32]], NDArray[np.bool_]]
) -> tuple[NDArray[np.float32], Places]:
    """Spatial maxima ``[B, C]`` of an activation ``[B, C, H, W]``, and the places of those that ``wanted`` selects.

    Of several cells that hold the maximum, the first in row-major order. A channel with any NaN has the response NaN.
    """
    width = tensor.shape[3]
    if tensor.device.type != "cpu":
        best, flat_at = tensor.flatten(2).max(2)
        values = best.float().cpu().numpy()
        pictures, channels = np.nonzero(wanted(values))
        at = flat_at.cpu().numpy()[pictures, channels]
        return values, Places(pictures, channels, at // width, at % width)
    if tensor.dtype != torch.float32:
        tensor = tensor.float()
    if tensor.stride(1) == 1 and tensor.shape[1] > 1:  # channels lie side by side: reduce over rows of pixels
        # as rows × columns × channels, so that the result keeps that layout: the other way round is ten times slower
        cells = tensor.permute(0, 2, 3, 1)
        by_rows = cells.amax(2)
        values = by_rows.amax(1).numpy()
        pictures, channels = np.nonzero(wanted(values))
        row = _first_best(by_rows.numpy()[pictures, :, channels])
        line = cells.numpy()[pictures, row, :, channels]
        return values, Places(pictures, channels, row, _first_best(line))
    flat = tensor.flatten(2)
    values = flat.amax(2).numpy()
    pictures, channels = np.nonzero(wanted(values))
    array = flat.numpy()
    # gathering copies: where most are wanted, look at them where they lie
    at = (
        array.argmax(2)[pictures, channels]
        if 2 * len(pictures) > values.size
        else _first_best(array[pictures, channels])
    )
    return values, Places(pictures, channels, at // width, at % width)


def _first_best(lines: NDArray[np.float32]) -> NDArray[np.int64]:
    """The index of the first maximum of each line."""
    found: NDArray[np.int64] = np.ascontiguousarray(lines).argmax(1) if len(lines) else np.zeros(0, np.int64)
    return found


def pooled(tensor: Tensor, embedding: Embedding) -> Tensor:
    """The embedding ``[B, D]`` in an activation: the mean over its grid where it has one."""
    tensor = tensor.detach()
    if tensor.ndim == 2:
        return tensor.clone()
    if tensor.ndim == 3:
        return tensor.float().mean(1)
    return tensor.float().mean((1, 2) if embedding.channels_last else (2, 3))
