"""One side of a comparison: what a network made of pictures, from one pass over them or from a survey's store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ...errors import ModelError, PictureError, UsageError
from ...models.model import Model
from ...pictures.picture import ModelInput
from ...session import forward, protected
from ...surveys.gather.choose import default_layers
from ...surveys.gather.shards import class_of
from ...surveys.gather.work import class_scores
from ..collection import Labelled
from ..look import DECODERS, _ahead

if TYPE_CHECKING:
    from ...surveys.store.store import Store

#: layers of a network that are compared at most, spread evenly over its depth, the last one always among them
MOST_LAYERS = 16
F32 = NDArray[np.float32]
Tell = Callable[[int, int], None]


@dataclass(eq=False)
class Side:
    """What one network made of the pictures, a row a picture.

    Args:
        name: how tables call it.
        labels: its class names.
        pictures: the pictures, labelled as this network knows them.
        probability: the network's own where it returns them, else the softmax of its scores, float32 ``[N, K]``; of a
            store the five highest, zero elsewhere. None where the network gives no class scores.
        prediction: the class of the highest score, int64 ``[N]``; -1 where there is none.
        layers: layer -> float32 ``[N, C]``, the mean of each channel over its grid, in the forward's order.
        peaks: layer -> float32 ``[N, C]``, the maximum of each channel over its grid; empty for a store.
        unit_layer: the last layer with a grid before the class scores.
        model: the network; opened when first asked for where a store named it.
        failed: URI -> why it could not be read.
        notes: what was left out of it.
    """

    name: str
    labels: tuple[str, ...] | None
    pictures: Labelled
    probability: F32 | None
    prediction: NDArray[np.int64]
    layers: dict[str, F32]
    peaks: dict[str, F32] = field(default_factory=dict)
    unit_layer: str | None = None
    open: Callable[[], Model] | None = None
    failed: dict[str, str] = field(default_factory=dict)
    spec: str | None = None
    options: str = ""
    notes: list[str] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.pictures)

    @property
    def confidence(self) -> NDArray[np.float64]:
        """Probability of the predicted class, float64 ``[N]``."""
        if self.probability is None:
            raise ModelError(f"{self.name} gives no class scores: there are no predictions to compare.")
        return np.asarray(self.probability.max(1), np.float64)

    @property
    def known(self) -> NDArray[np.bool_]:
        """Whether the truth is known and one of this network's classes."""
        return self.pictures.known

    @property
    def right(self) -> NDArray[np.bool_]:
        """Whether the prediction is the truth; False where it is not known."""
        return np.asarray((self.prediction == self.pictures.truth) & self.known)

    @property
    def unscored(self) -> str:
        """Why accuracy cannot be counted, where it cannot."""
        if self.probability is None:
            return "no class scores"
        return "no labels" if all(one is None for one in self.pictures.labels) else "no labels of its classes"

    def label(self, index: int) -> str:
        """The name of a class; ``class 7`` where there are no names."""
        named = self.labels is not None and 0 <= index < len(self.labels)
        return self.labels[index] if named and self.labels is not None else f"class {index}"

    def predicted(self, row: int) -> str:
        """The name of the class that it takes a picture for."""
        return self.label(int(self.prediction[row]))

    def take(self, rows: NDArray[Any]) -> Side:
        """Only these rows."""
        return replace(
            self,
            pictures=self.pictures.take(rows),
            probability=None if self.probability is None else self.probability[rows],
            prediction=self.prediction[rows],
            layers={name: values[rows] for name, values in self.layers.items()},
            peaks={name: values[rows] for name, values in self.peaks.items()},
        )


def layers_of(model: Model, most: int = MOST_LAYERS) -> list[str]:
    """The layers that are compared: every activation once (as a survey has them), at most ``most`` of them."""
    size = model.preprocessing.size or (224, 224)
    shape = (model.preprocessing.channels, *model._depth(), *size)
    found = default_layers(model, shape)
    watched = model.watched(shape)
    last = watched.embedding
    if last is not None and last not in found and not watched.layers[last].has_grid and _flat(watched, last, found):
        found.append(last)
    if len(found) <= most:
        return found
    places = np.unique(np.round(np.linspace(0, len(found) - 1, most)).astype(int))
    chosen = [found[int(place)] for place in places]
    grid = watched.last_grid
    if grid in found and grid not in chosen:
        nearest = min(range(len(places) - 1), key=lambda i: abs(int(places[i]) - found.index(grid)))
        chosen[nearest] = grid
    return chosen


def _flat(watched: Any, embedding: str, found: Sequence[str]) -> bool:
    """Whether the embedding shows other units than the last grid, whose mean is kept anyhow."""
    grid = watched.last_grid
    if grid is None:
        return True
    kind = watched.layers[embedding].kind.lower()
    return not any(word in kind for word in ("pool", "flatten", "mean", "dropout", "identity"))


def look_all(
    models: Sequence[Model],
    pictures: Labelled,
    layers: Sequence[Sequence[str]],
    names: Sequence[str],
    progress: Tell | None = None,
) -> list[Side]:
    """Every model once over the pictures, each of which is read once for all of them.

    A picture that one of the models cannot take is left out for all.

    Args:
        models: left bit for bit as they were.
        pictures: what to look at; labels are read anew by each model's own class names.
        layers: for each model the layers whose activations are kept.
        names: for each model how tables call it.
        progress: called with the number of pictures done, and of all.

    Raises:
        ModelError: a network cannot run on these pictures.
        PictureError: not one picture can be read.
    """
    failed: dict[str, str] = {}
    parts = [_Part(model, list(chosen)) for model, chosen in zip(models, layers, strict=True)]
    kinds = {id(model): str(model.preprocessing) for model in models}
    first_of = {kinds[id(model)]: model for model in reversed(models)}

    def read(row: int) -> dict[str, ModelInput] | str:
        try:
            picture = pictures.picture(row)
            return {kind: model.prepare(picture) for kind, model in first_of.items()}
        except (PictureError, OSError) as error:
            return str(error)

    kept: list[int] = []
    size = max(1, max(model.batch_size for model in models))
    with ThreadPoolExecutor(DECODERS, "decode") as pool:
        for start, ready in _ahead(pool, read, len(pictures), size):  # type: ignore[arg-type]
            good: list[int] = []
            fitted: list[dict[str, ModelInput]] = []
            for row, one in enumerate(ready, start):
                if isinstance(one, str):
                    failed[pictures.uris[row]] = one
                else:
                    good.append(row)
                    fitted.append(one)  # type: ignore[arg-type]
            for part in parts:
                kind = kinds[id(part.model)]
                part.run([one[kind] for one in fitted])
            kept += good
            if progress is not None:
                progress(start + len(ready), len(pictures))
    if not kept:
        reason = next(iter(failed.values()), "there is none")
        raise PictureError(f"None of the {len(pictures)} pictures can be used: {reason}")
    seen = pictures.take(kept) if len(kept) < len(pictures) else pictures
    return [part.side(seen, name, failed) for part, name in zip(parts, names, strict=True)]


class _Part:
    """What one model has given so far, in the pictures' order."""

    def __init__(self, model: Model, layers: list[str]) -> None:
        self.model, self.layers = model, layers
        self.scores: list[NDArray[np.float32] | None] = []
        self.means: dict[str, list[F32]] = {name: [] for name in layers}
        self.peaks: dict[str, list[F32]] = {name: [] for name in layers}
        self.last: dict[str, bool] | None = None

    def run(self, fitted: Sequence[ModelInput]) -> None:
        """Runs of one input shape, in order, so that rows stay where they are."""
        size, start = max(1, self.model.batch_size), 0
        while start < len(fitted):
            shape = fitted[start].tensor.shape
            end = start + 1
            while end < len(fitted) and end - start < size and fitted[end].tensor.shape == shape:
                end += 1
            self._forward(fitted[start:end])
            start = end

    def _forward(self, fitted: Sequence[ModelInput]) -> None:
        inputs = self.model.inputs(fitted)
        if self.last is None:
            watched = self.model.watched(tuple(inputs.shape[1:]))
            self.last = {name: watched.layers[name].channels_last for name in self.layers if name in watched.layers}
        found: set[str] = set()

        def visit(name: str, output: Tensor) -> None:
            if name not in found:
                found.add(name)
                mean, peak = pooled(output.detach(), bool(self.last and self.last.get(name)))
                self.means[name].append(mean)
                self.peaks[name].append(peak)

        with protected(self.model, visit, self.layers):
            output = forward(self.model, inputs)
        lost = next((name for name in self.layers if name not in found), None)
        if lost is not None:
            raise ModelError(
                f"Layer {lost!r} was not reached in this forward: `convoscope layers` lists those that are."
            )
        values = class_scores(self.model, output, len(fitted))
        self.scores.append(None if values is None else values.numpy())

    def side(self, pictures: Labelled, name: str, failed: dict[str, str]) -> Side:
        whole = all(one is not None for one in self.scores)
        means = {layer: np.concatenate(values) for layer, values in self.means.items()}
        unsound = [layer for layer, values in means.items() if not np.isfinite(values).all()]
        # scores and probabilities of every picture, [N, 2, K]
        scores = np.concatenate([one for one in self.scores if one is not None]) if whole else None
        if scores is not None and not np.isfinite(scores).all():
            rows = np.flatnonzero(~np.isfinite(scores).all((1, 2)))
            where = f" from layer {unsound[0]!r} on" if unsound else ""
            raise ModelError(
                f"{name} gives NaN or infinity for {len(rows)} of {len(pictures)} pictures{where} (first: "
                f"{pictures.uris[int(rows[0])]}): there is nothing to compare. Leave it out, or look at its weights "
                "with `convoscope health`."
            )
        notes = [f"{name}: {layer} holds NaN or infinity and is not compared." for layer in unsound]
        prediction = (
            np.full(len(pictures), -1, np.int64) if scores is None else scores[:, 0].argmax(1).astype(np.int64)
        )
        size = self.model.preprocessing.size or (224, 224)
        watched = self.model.watched((self.model.preprocessing.channels, *self.model._depth(), *size))
        classes = None if scores is None else scores.shape[2]
        sound = [layer for layer in self.layers if layer not in unsound]
        return Side(
            name, self.model.labels, relabelled(pictures, self.model.labels, classes),
            None if scores is None else scores[:, 1], prediction,
            {layer: means[layer] for layer in sound},
            {layer: np.concatenate(self.peaks[layer]) for layer in sound},
            watched.last_grid if watched.last_grid in sound else sound[-1] if sound else None,
            lambda: self.model, failed, self.model.spec, notes=notes,
        )  # fmt: skip


def pooled(activation: Tensor, channels_last: bool = False) -> tuple[F32, F32]:
    """Mean and maximum of each channel over whatever grid it has, float32 ``[B, C]`` each; tokens are a grid, too."""
    values = activation.float()
    if values.ndim <= 2:
        flat = values.reshape(len(values), -1).cpu().numpy()
        return flat, flat
    if values.ndim == 3 or channels_last:
        values = values.movedim(-1, 1)
    axes = tuple(range(2, values.ndim))
    return values.mean(axes).cpu().numpy(), values.amax(axes).cpu().numpy()


def relabelled(pictures: Labelled, labels: Sequence[str] | None, classes: int | None) -> Labelled:
    """The same pictures with the truth as a network with these class names knows it."""
    found = [class_of(label, labels, classes)[1] for label in pictures.labels]
    truth = np.array([-1 if index is None else index for index in found], np.int64)
    return replace(pictures, truth=truth)


def of_store(store: Store, truth: Any = None, name: str | None = None) -> Side:
    """What a survey's store knows of its pictures: predictions, probabilities, and the layers it embedded.

    Raises:
        UsageError: a store without class predictions or without embeddings.
    """
    recipe = store.recipe
    columns = ["sha256", "uri", "label", "prediction_index", "probability", "top5_index", "top5_probability"]
    columns += [one.column for one in recipe.embeddings]
    rows = store.table(columns, "error IS NULL")
    if rows.num_rows == 0:
        raise UsageError(f"{store.path} holds no picture that could be surveyed.")
    shas = rows["sha256"].to_pylist()
    uris = [store.uri(sha, uri) for sha, uri in zip(shas, rows["uri"].to_pylist(), strict=True)]
    given = rows["label"].to_pylist()
    if truth is not None:
        from ...surveys.gather.shards import truth_labels

        told = truth_labels(truth, uris)
        given = [told.get(uri) for uri in uris]
    predicted = rows["prediction_index"].to_pylist()
    classless = any(one is None for one in predicted)
    prediction = np.array([-1 if one is None else one for one in predicted], np.int64)
    count = len(recipe.labels) if recipe.labels else None
    probability = None if classless else _five(rows, count)
    layers: dict[str, F32] = {}
    for one in recipe.embeddings:
        column = rows[one.column].combine_chunks()
        if column.null_count:
            continue
        layers[one.layer] = column.flatten().to_numpy(zero_copy_only=False).astype(np.float32).reshape(-1, one.size)
    pictures = relabelled(
        Labelled(tuple(uris), tuple(shas), tuple(given), np.full(len(uris), -1)), recipe.labels, count
    )
    order = [span.name for span in recipe.layers]
    known = sorted(layers, key=lambda layer: order.index(layer) if layer in order else len(order))
    return Side(
        name or recipe.name, recipe.labels, pictures, probability, prediction, {key: layers[key] for key in known},
        unit_layer=known[-1] if known else None, open=store.model, spec=recipe.spec,
    )  # fmt: skip


def _five(rows: Any, count: int | None) -> F32:
    index, share = rows["top5_index"].to_pylist(), rows["top5_probability"].to_pylist()
    width = count or 1 + max(max(one) for one in index)
    made = np.zeros((len(index), width), np.float32)
    for row, (at, chance) in enumerate(zip(index, share, strict=True)):
        made[row, at] = chance
    return made


def joined(sides: Sequence[Side]) -> list[Side]:
    """The sides on the pictures that all of them have, joined by content hash, in the first one's order.

    Raises:
        UsageError: no picture in common.
    """
    first = sides[0].pictures.keys
    if all(side.pictures.keys == first for side in sides[1:]):
        return list(sides)
    places = [{key: row for row, key in reversed(list(enumerate(side.pictures.keys)))} for side in sides]
    common = [key for key in dict.fromkeys(first) if all(key in place for place in places)]
    if not common:
        raise UsageError(
            "These surveys have no picture in common: they are joined by what the files hold, not by their names."
        )
    made = [side.take(np.array([place[key] for key in common])) for side, place in zip(sides, places, strict=True)]
    # one may know labels that another does not
    given = [next((side.pictures.labels[i] for side in made if side.pictures.labels[i] is not None), None)
             for i in range(len(common))]  # fmt: skip
    for side in made:
        classes = None if side.probability is None else side.probability.shape[1]
        side.pictures = relabelled(replace(side.pictures, labels=tuple(given)), side.labels, classes)
    return made


def common_classes(a: Side, b: Side) -> dict[int, int]:
    """Class index of ``a`` -> class index of ``b`` for the classes that both have, matched by name.

    Names differ in case and underscores only; where one network has no names, classes are matched by number.
    """
    counts = [0 if side.probability is None else side.probability.shape[1] for side in (a, b)]
    if a.labels is None or b.labels is None:
        return {index: index for index in range(min(counts))}
    found: dict[int, int] = {}
    for index, label in enumerate(a.labels):
        other = class_of(label, b.labels, None)[1]
        if other is not None and not label.strip().isdecimal():
            found[index] = other
        elif label in b.labels:
            found[index] = b.labels.index(label)
    return found
