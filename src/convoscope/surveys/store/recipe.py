"""What fixes the numbers of a survey: which network, how its input is made, which layers, how many of each.

A recipe is plain data. It lies in the store, so that later commands (and other machines) can open the same network
again, and two recipes tell in words how they differ.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from ...engine.fields.layout import Layout
from ...errors import LayerError, ModelError, UsageError
from ...files import sha256
from ...models.code import same_code
from ...models.model import Model
from ...models.opening import open_model
from ...pictures.picture import Preprocessing
from ...version import __version__
from .accumulators import SAMPLE

#: version of what a store holds; a store of another one is refused
FORMAT = 2


@dataclass(frozen=True)
class Span:
    """A layer's channels on the one long channel axis of a survey."""

    name: str
    start: int
    channels: int
    channels_last: bool = False
    grid: bool = True
    kind: str = ""
    prefix_tokens: int | None = None
    """Of a transformer's tokens: the class and register tokens before the grid."""
    cells: tuple[int, int] | None = None
    """Rows and columns of that grid."""

    def __post_init__(self) -> None:
        if self.cells is not None:  # JSON gives a list
            object.__setattr__(self, "cells", tuple(self.cells))

    @property
    def layout(self) -> Layout:
        """Where the channels and the cells of the layer's output lie."""
        return Layout(self.channels_last, self.prefix_tokens, self.cells)

    @property
    def end(self) -> int:
        return self.start + self.channels


@dataclass(frozen=True)
class Embedding:
    """One vector a picture: the output of ``layer``, averaged over its grid where it has one."""

    layer: str
    pooling: str
    size: int
    column: str
    channels_last: bool = False

    def describe(self) -> str:
        return self.layer if self.pooling == "none" else f"{self.layer}, {self.pooling} over the grid"


@dataclass(frozen=True)
class Recipe:
    """All that a unit's result depends on, besides its pictures."""

    name: str
    fingerprint: str
    preprocessing: dict[str, Any]
    dtype: str
    layers: tuple[Span, ...]
    embeddings: tuple[Embedding, ...]
    top: int
    sample: int
    batch_size: int
    memory_format: str = "contiguous"
    spec: str | None = None
    weights: str | None = None
    weights_sha256: str | None = None
    seed: int = 0
    labels: tuple[str, ...] | None = None
    format: int = FORMAT
    versions: dict[str, str] = field(default_factory=dict)
    output: str | None = None
    #: what the network computes besides its weights (:func:`...models.code.code_of`); "" in older stores
    code: str = ""

    @property
    def channels(self) -> int:
        return self.layers[-1].end if self.layers else 0

    @property
    def space(self) -> str:
        """16 hex digits: equal where results may stand side by side."""
        parts = {name: value for name, value in self.to_dict().items() if name in _SPACE}
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]

    def span(self, layer: str) -> Span:
        """The channels of a layer. Raises :class:`LayerError` for one that was not surveyed."""
        for span in self.layers:
            if span.name == layer:
                return span
        import difflib

        names = [span.name for span in self.layers]
        near = difflib.get_close_matches(layer, names, 3, 0.4) or names[-3:]
        raise LayerError(
            f"Layer {layer!r} was not surveyed. Nearest that were: {', '.join(near)} ({len(names)} in all). "
            "Survey into a new store with --layer to add it."
        )

    def embedding(self, layer: str | None) -> Embedding:
        """The embedding of a layer; the one before the classifier for ``None``."""
        if not self.embeddings:
            raise UsageError(
                f"This store holds no embeddings: {self.name} has no layer before a classifier. "
                "Survey into a new store with --embed LAYER."
            )
        if layer is None:
            return self.embeddings[0]
        for one in self.embeddings:
            if one.layer == layer:
                return one
        names = ", ".join(one.layer for one in self.embeddings)
        raise LayerError(
            f"This store holds no embedding of layer {layer!r}; it has {names}. "
            f"Survey into a new store with --embed {layer} to add it."
        )

    def to_dict(self) -> dict[str, Any]:
        made: dict[str, Any] = json.loads(json.dumps(asdict(self)))
        for span in made["layers"]:
            if span["prefix_tokens"] is None:  # so that a survey of grids alone has the ids that it always had
                del span["prefix_tokens"], span["cells"]
        return made

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Recipe:
        known = {f.name for f in fields(cls)}
        given = {name: value for name, value in data.items() if name in known}
        given["layers"] = tuple(Span(**span) for span in given["layers"])
        given["embeddings"] = tuple(Embedding(**one) for one in given["embeddings"])
        given["labels"] = tuple(given["labels"]) if given.get("labels") is not None else None
        return cls(**given)

    def refuse_other(self, other: Recipe, where: str) -> None:
        """Raise :class:`UsageError` that names what differs, where ``other`` cannot go into this recipe's store."""
        said = []
        if self.fingerprint != other.fingerprint:
            said.append(
                f"the network's weights (stored: {self.name} {self.fingerprint[:12]}, now: {other.name} "
                f"{other.fingerprint[:12]})"
            )
        if not same_code(self.code, other.code):
            said.append("the network's code (its classes, or how it is put together)")
        for name in sorted({*self.preprocessing, *other.preprocessing}):
            old, new = self.preprocessing.get(name), other.preprocessing.get(name)
            if old != new:
                said.append(f"the preprocessing's {name} (stored: {old}, now: {new})")
        if self.dtype != other.dtype:
            said.append(f"the dtype (stored: {self.dtype}, now: {other.dtype})")
        mine, theirs = [s.name for s in self.layers], [s.name for s in other.layers]
        if mine != theirs:
            said.append(f"the surveyed layers ({_list_difference(mine, theirs)})")
        mine, theirs = [e.describe() for e in self.embeddings], [e.describe() for e in other.embeddings]
        if mine != theirs:
            said.append(f"the embeddings ({_list_difference(mine, theirs)})")
        if self.top != other.top:
            said.append(f"how many pictures are kept of each unit (stored: {self.top}, now: {other.top})")
        if said:
            raise UsageError(f"{where} holds another survey; it differs in {'; '.join(said)}. Give another --out.")


_SPACE = ("fingerprint", "preprocessing", "dtype", "layers", "embeddings", "top", "sample", "format")


def _list_difference(stored: Sequence[str], now: Sequence[str]) -> str:
    gone = [name for name in stored if name not in now]
    new = [name for name in now if name not in stored]
    parts = []
    if gone:
        parts.append(f"only stored: {', '.join(gone[:3])}{f' and {len(gone) - 3} more' if len(gone) > 3 else ''}")
    if new:
        parts.append(f"only now: {', '.join(new[:3])}{f' and {len(new) - 3} more' if len(new) > 3 else ''}")
    return "; ".join(parts) or "another order"


def make_recipe(model: Model, layers: Sequence[str] | None = None, embed: Sequence[str] = (), top: int = 9) -> Recipe:
    """The recipe of a survey of ``model``. Raises :class:`LayerError`, :class:`UsageError`."""
    import torch

    from ..gather.choose import default_layers, named_layers

    if top < 1 or top > 1000:
        raise UsageError(f"top must be between 1 and 1000 pictures of each unit, not {top}.")
    size = model.preprocessing.size or (224, 224)
    shape = (model.preprocessing.channels, *size)
    watched = model.watched(shape)
    names = named_layers(model, layers, shape) if layers else default_layers(model, shape)
    spans: list[Span] = []
    for name in names:
        layer = watched.layers[name]
        start = spans[-1].end if spans else 0
        tokens, layout = layer.prefix_tokens, layer.layout
        spans.append(
            Span(
                name, start, layer.channels, layout.channels_last, layer.grid is not None, layer.kind,
                tokens, layout.cells if tokens is not None else None,
            )
        )  # fmt: skip
    embeddings: list[Embedding] = []
    wanted = [name for name in (watched.embedding or watched.last_grid, *embed) if name is not None]
    for name in dict.fromkeys(wanted):
        if name not in watched.layers:
            named_layers(model, [name], shape)
        layer = watched.layers[name]
        where, last = layer.shape, layer.channels_last
        if len(where) not in (2, 3, 4):
            raise LayerError(f"Layer {name!r} returns {'×'.join(map(str, where))}: it cannot be an embedding.")
        flat = len(where) == 2 or (len(where) == 4 and where[1 if last else 2] * where[2 if last else 3] == 1)
        pooling = "none" if flat else "mean" if len(where) == 4 else "mean of tokens"
        width = where[-1] if last or len(where) == 3 else where[1]
        embeddings.append(Embedding(name, pooling, width, f"embedding_{len(embeddings)}", last))
    weights = model.weights
    file = Path(weights) if weights and not weights.startswith("none") else None
    return Recipe(
        name=model.name,
        fingerprint=model.fingerprint,
        preprocessing=model.preprocessing.to_dict(),
        dtype=str(model.dtype).removeprefix("torch."),
        layers=tuple(spans),
        embeddings=tuple(embeddings),
        top=top,
        sample=max(SAMPLE, 5 * top),
        batch_size=model.batch_size,
        spec=absolute_spec(model.spec),
        weights=str(file.resolve()) if file is not None and file.is_file() else weights,
        weights_sha256=file_sha256(file) if file is not None and file.is_file() else None,
        seed=model.seed,
        labels=model.labels,
        output=model.output,
        code=model.code,
        versions={"convoscope": __version__, "torch": str(torch.__version__)},
    )


def absolute_spec(spec: str | None) -> str | None:
    """A file's spec with its whole path, so that it opens from another folder too."""
    if spec is None or ".py" not in spec:
        return spec
    file, colon, attribute = spec.rpartition(":")
    return f"{Path(file).resolve()}{colon}{attribute}" if colon and Path(file).is_file() else spec


def file_sha256(path: str | Path) -> str:
    """The sha256 of a file's bytes, 64 hex digits."""
    return sha256(path)


def reopen(recipe: Recipe, device: Any = None) -> Model:
    """The network that a store was made with.

    Raises :class:`ModelError` where it cannot be had again, or is not the same: weights changed on disk, or other
    code.
    """
    if recipe.spec is None:
        raise ModelError(
            f"The surveyed network ({recipe.name}) was a Python object: give it again with model=... "
            "On the command line, survey with a spec such as net.py:build."
        )
    weights = recipe.weights if recipe.weights_sha256 or recipe.weights == "none" else None
    if recipe.weights_sha256 and weights is not None:
        if not Path(weights).is_file():
            raise ModelError(f"The surveyed weights {weights} are no longer there: put the file back.")
        now = file_sha256(weights)
        if now != recipe.weights_sha256:
            raise ModelError(
                f"The weights {weights} have changed since the survey (sha256 {recipe.weights_sha256[:12]} then, "
                f"{now[:12]} now): survey again into a new store."
            )
    settings = dict(recipe.preprocessing)
    dtype = None if recipe.dtype == "float32" else recipe.dtype
    model = open_model(
        recipe.spec,
        weights=weights,
        device=device,
        dtype=dtype,
        batch_size=recipe.batch_size,
        seed=recipe.seed,
        output=recipe.output,
    )
    settings["size"] = tuple(settings["size"]) if settings["size"] else None
    settings["mean"], settings["std"] = tuple(settings["mean"]), tuple(settings["std"])
    model.preprocessing = Preprocessing(**settings)
    model.labels = recipe.labels
    same_network(recipe, model)
    return model


def same_network(recipe: Recipe, model: Model) -> None:
    """Raise :class:`ModelError` that names what differs, where ``model`` is not the one that was surveyed."""
    if model.fingerprint != recipe.fingerprint:
        raise ModelError(
            f"This is not the surveyed network: its weights have the fingerprint "
            f"{model.fingerprint[:12]}, the store's "
            f"({recipe.name}) {recipe.fingerprint[:12]}."
        )
    if not same_code(model.code, recipe.code):
        raise ModelError(
            f"This is not the surveyed network: it has the weights of the store's ({recipe.name}), and its code (its "
            "classes, or how it is put together) was changed since. Survey again, into another --out."
        )
    theirs = model.preprocessing.to_dict()
    for name, value in recipe.preprocessing.items():
        if theirs.get(name) != value:
            raise ModelError(
                f"This network's preprocessing is not the surveyed one: {name} is {theirs.get(name)}, "
                f"the store's {value}."
            )
