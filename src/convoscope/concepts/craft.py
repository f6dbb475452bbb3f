"""CRAFT: the parts that a class is made of, found without labels.

Fel, Picard, Bethune, Boissin, Vigouroux, Colin, Cadene, Serre 2023, "CRAFT: Concept Recursive Activation
FacTorization for Explainability"; Zhang et al. 2021, "Invertible Concept-based Explanations" (ICE). A layer's
activations over the class's pictures are factorised into parts, A ~ U W, all non-negative; how much the class score
needs each part is told twice: by total Sobol indices (Jansen's estimator) and by deletion, with intervals. Every cell
of the layer is one sample, and the patch that stands for it is its true receptive field.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..errors import LayerError, MethodRefused, UsageError
from ..improve.collection import Labelled
from ..improve.look import look
from ..improve.statistics import Interval, paired
from ..pictures.picture import Picture
from ..targets.classes import class_index
from ..targets.combinations import Direction
from .directions import write_direction
from .dissection import grids_of, left_out
from .factors import Floats, cell_rows, encode, factorise, matched
from .importance import Tell, measure

if TYPE_CHECKING:
    from PIL import Image

    from ..draw.sheet import Sheet
    from ..models.model import Model
    from ..surveys.store.store import Store

#: parts that are looked for when nobody says how many
PARTS = 8
#: runs with other seeds, against which a part's stability is told
RUNS = 3
#: a part whose best match in other runs is below this is called unstable
STABLE = 0.8
#: cells that the factorisation sees
CELLS = 20_000


@dataclass(frozen=True, eq=False)
class ConceptPart:
    """One part of a class.

    Args:
        number: 0 is the most important; what people read counts from 1, as ``part 1``.
        importance: the logit lost where the part is deleted, as a share of what all parts carry; over pictures.
        sobol: its total Sobol index: the share of the logit's variance that goes with it; over pictures.
        stability: the mean cosine to its match in runs with other seeds (0..1).
        pictures: where it is strongest, the best first.
        places: row and column of the strongest cell in each of ``pictures``.
        vector: the part in the layer's channels, at unit length.
    """

    number: int
    importance: Interval
    sobol: Interval
    stability: float
    pictures: tuple[str, ...]
    places: tuple[tuple[int, int], ...]
    vector: Floats = field(repr=False)

    @property
    def unstable(self) -> bool:
        """Whether other seeds do not find it again."""
        return self.stability < STABLE

    def to_dict(self) -> dict[str, Any]:
        """The row as ``--json`` prints it."""
        return {
            "part": self.number, "importance": self.importance.to_dict(), "stability": self.stability,
            "pictures": list(self.pictures),
        }  # fmt: skip


@dataclass(eq=False)
class Craft:
    """The parts of a class, the most important first.

    Args:
        target: the class.
        layer: where it was factorised.
        parts: what was found.
        completeness: the share of the logit, above that of an empty layer, that all parts together give back.
        error: what the factorisation leaves, relative to the activations (Frobenius norm).
        doubts: what this cannot tell.
        model: the network.
        source: the class's pictures.
        failed: URI -> why a picture could not be read; it is left out.
    """

    target: str
    layer: str
    parts: list[ConceptPart]
    completeness: Interval
    error: float
    doubts: list[str]
    model: Model = field(repr=False)
    source: Labelled = field(repr=False)
    failed: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> list[dict[str, Any]]:
        """The parts as plain data."""
        return [part.to_dict() for part in self.parts]

    def record(self, channels: int = 12) -> dict[str, Any]:
        """What the page reads: the parts with their places, boxes in input pixels, and strongest channels."""
        parts = []
        for part in self.parts:
            strongest = np.argsort(-part.vector, kind="stable")[:channels]
            parts.append({
                **part.to_dict(), "sobol": part.sobol.to_dict(), "unstable": part.unstable,
                "boxes": [self._box(uri, *place) for uri, place in zip(part.pictures, part.places, strict=True)],
                "channels": [[int(at), float(part.vector[at])] for at in strongest if part.vector[at] > 0],
            })  # fmt: skip
        return {"target": self.target, "layer": self.layer, "completeness": self.completeness.to_dict(),
                "error": self.error, "doubts": list(self.doubts), "parts": parts}  # fmt: skip

    def _box(self, picture: Any, row: int, col: int) -> list[int] | None:
        tensor = self.model.prepare(picture).tensor
        layer = self.model.watched(tuple(tensor.shape)).layers.get(self.layer)
        return None if layer is None or layer.geometry is None else [int(v) for v in layer.geometry.box(row, col)]

    def direction(self, number: int) -> Direction:
        """A part as a target: every map and visualisation takes it."""
        return Direction(self.layer, self.parts[number].vector, f"{self.target}, part {number + 1}")

    def save(self, folder: str | Path) -> list[Path]:
        """Write each part as ``part-N.npy``, counted from 1; ``direction:LAYER@FILE`` is then a target."""
        return [write_direction(folder, f"part-{part.number + 1}", part.vector) for part in self.parts]

    def wanted(self, count: int = 4, **settings: Any) -> list[Image.Image]:
        """The pictures that want the first parts, by optimisation; ``settings`` as :func:`convoscope.visualize`'s."""
        from ..visualization.api import visualize

        made = visualize(self.model, [self.direction(part.number) for part in self.parts[:count]], **settings)
        return [one.image for one in made]

    def maps(self, picture: Any) -> NDArray[np.float32]:
        """How much of each part lies where in a picture: float32 ``[parts, H, W]`` at the input's resolution."""
        listed = Labelled.of([(picture, None)], self.model)
        grids, query = next(grids_of(self.model, self.layer, listed))[1:]
        basis = np.stack([part.vector for part in self.parts])
        shares = encode(cell_rows(grids), basis)
        height, width = grids.shape[-2:]
        grid = torch.from_numpy(shares.T.reshape(len(basis), height, width).astype(np.float32))
        return np.asarray(query.resample(grid, self.layer)[0].numpy())

    def patches(self, number: int, count: int = 9) -> list[Image.Image]:
        """The strongest patches of a part, cut at the cells' true receptive fields from the network's input."""
        part = self.parts[number]
        found = []
        for uri, (row, col) in list(zip(part.pictures, part.places, strict=True))[:count]:
            fitted = self.model.prepare(self._picture(uri))
            watched = self.model.watched(tuple(fitted.tensor.shape))
            geometry = watched.layers[self.layer].geometry
            shown = self.model.preprocessing.denormalise(fitted.tensor).clamp(0, 1)
            box = (0, 0, shown.shape[2], shown.shape[1]) if geometry is None else geometry.box(row, col)
            from PIL import Image

            whole = Image.fromarray((shown.movedim(0, -1).numpy() * 255).round().astype(np.uint8).squeeze())
            found.append(whole.crop(box))
        return found

    def _picture(self, uri: str) -> Picture:
        return self.source.picture(self.source.uris.index(uri))

    def overlays(self, number: int, count: int = 3) -> list[Image.Image]:
        """Where a part lies in the pictures that have most of it, drawn on the network's input."""
        from ..draw import colour, overlay

        drawn = []
        for uri in self.parts[number].pictures[:count]:
            picture = self._picture(uri)
            values = self.maps(picture)[number]
            fitted = self.model.prepare(picture)
            shown = self.model.preprocessing.denormalise(fitted.tensor).clamp(0, 1).movedim(0, -1).numpy()
            whole = Picture.of(np.ascontiguousarray(shown, np.float32)).image
            scale = colour.scale_for([values], signed=False, unit="share of the part")
            drawn.append(overlay.overlay(np.asarray(whole), values, scale=scale))
        return drawn

    def sheet(self, count: int = 4, wanted: Sequence[Image.Image] = ()) -> Sheet:
        """The most important parts, a row each: strongest patches at true receptive fields, maps, what it wants."""
        from ..draw import grid

        rows = []
        for part in self.parts[:count]:
            cells = [(one, "") for one in [*self.patches(part.number, 5), *self.overlays(part.number, 3)]]
            cells += [(one, "wants") for one in wanted[part.number : part.number + 1]]
            mark = ", unstable" if part.unstable else ""
            low, high = part.importance.low, part.importance.high
            share = f"{part.importance.mean:.0%} of the logit [{low:.0%}, {high:.0%}]"
            rows.append((f"part {part.number + 1}: {share}{mark}", cells))
        return grid.patches(
            rows, f"What {self.target} is made of", columns=9 if wanted else 8, size=96.0,
            footnote=f"{self.model.name}, {self.layer}: five patches and three maps of each part.",
        )  # fmt: skip


def craft(
    model: Model | Store,
    pictures: Any = None,
    target: Any = None,
    *,
    layer: str | None = None,
    parts: int = PARTS,
    seed: int = 0,
    progress: Tell | None = None,
) -> Craft:
    """Find the parts that the class ``target`` is made of.

    Args:
        model: the network, or a survey's store.
        pictures: labelled pictures, or pictures of the class alone; default the store's. Of labelled ones those of the
            class are taken, of others those that the network predicts to be it.
        target: a class; default what most pictures are predicted to be.
        layer: default the last grid before the class scores.
        parts: how many to look for.
        seed: of the factorisation and the designs.
        progress: called with what is done, how much, and of how much.

    Returns:
        The parts with their pictures, how much of the score each carries, and what they leave out.

    Raises:
        UsageError: fewer than ten pictures of the class, or a setting that does not fit.
        MethodRefused: the layer has no grid.
    """
    if not 2 <= parts <= 64:
        raise UsageError(f"parts must be between 2 and 64, not {parts}.")
    from ..surveys.store.store import Store

    if isinstance(model, Store):
        pictures = model if pictures is None else pictures
        model = model.model()
    opened = model
    if pictures is None:
        raise UsageError("Give pictures of the class, or the store of a survey.")
    index, chosen, failed = _of_class(opened, Labelled.of(pictures, opened), target)
    where = layer or opened.watched().last_grid
    if where is None:
        raise MethodRefused(
            f"{opened.name} has no layer whose cells keep a place in the picture: nothing to factorise."
        )
    doubts = left_out(failed)
    samples, owners, places = _samples(opened, where, chosen, seed, doubts)
    basis, error = factorise(samples, parts, seed)
    others = [factorise(samples, parts, seed + 1 + run)[0] for run in range(RUNS)]
    stability = np.mean([matched(basis, other) for other in others], axis=0)
    measured = measure(opened, where, chosen, index, basis, seed, progress)
    shares = encode(samples, basis)
    order = np.argsort(-measured.deletion.mean(0), kind="stable")
    found = []
    for number, at in enumerate(order):
        best = _best_places(shares[:, at], owners, places)
        found.append(
            ConceptPart(
                number, paired(measured.deletion[:, at], seed=seed), paired(measured.sobol[:, at], seed=seed),
                float(stability[at]), tuple(chosen.uris[row] for row, _ in best), tuple(place for _, place in best),
                basis[at],
            )
        )  # fmt: skip
    if any(part.unstable for part in found):
        doubts.append("Parts marked unstable are not found again with another seed: read nothing into them.")
    return Craft(
        opened.label(index), where, found, paired(measured.complete, seed=seed), error, doubts, opened, chosen,
        failed,
    )  # fmt: skip


def _of_class(model: Model, pictures: Labelled, target: Any) -> tuple[int, Labelled, dict[str, str]]:
    looked = look(model, pictures)
    classes = looked.probability.shape[1]
    index = (
        int(np.bincount(looked.prediction).argmax()) if target is None else class_index(target, model.labels, classes)
    )
    own = looked.pictures.truth == index
    how = "by their labels"
    if not own.any():
        own, how = looked.prediction == index, "by what the network says"
    if own.sum() < 10:
        raise UsageError(
            f"{int(own.sum())} of {len(own)} pictures are of the class {model.label(index)} ({how}); at least 10 are "
            "needed to find its parts."
        )
    return index, looked.pictures.take(own), looked.failed


def _samples(
    model: Model, layer: str, pictures: Labelled, seed: int, doubts: list[str]
) -> tuple[Floats, NDArray[np.int64], NDArray[np.int64]]:
    """Cells ``[N, C]``, the picture of each, and its row and column ``[N, 2]``."""
    random = np.random.default_rng([seed, 3])
    kept, owners, places = [], [], []
    most = max(8, CELLS // len(pictures))
    lowest = 0.0
    for rows, planes, _ in grids_of(model, layer, pictures):
        width = planes.shape[-1]
        for row, one in zip(rows, planes, strict=True):
            cells = cell_rows(one[None])
            lowest = min(lowest, float(cells.min()))
            at = np.sort(random.permutation(len(cells))[:most])
            kept.append(cells[at])
            owners.append(np.full(len(at), row))
            places.append(np.stack([at // width, at % width], 1))
    samples = np.concatenate(kept)
    if not np.isfinite(samples).all():
        raise LayerError(f"Layer {layer!r} holds values that are not finite: nothing can be factorised.")
    if lowest < 0:
        lost = float(np.linalg.norm(np.minimum(samples, 0))) / max(float(np.linalg.norm(samples)), 1e-300)
        doubts.append(
            f"{layer} has negative activations, which a non-negative factorisation cannot hold: they count as zero "
            f"({lost:.0%} of the norm)."
        )
        samples = np.maximum(samples, 0)
    return samples, np.concatenate(owners), np.concatenate(places)


def _best_places(
    share: Floats, owners: NDArray[np.int64], places: NDArray[np.int64], count: int = 9
) -> list[tuple[int, tuple[int, int]]]:
    """The strongest cell of the pictures that have the part most, one a picture."""
    found: dict[int, tuple[int, int]] = {}
    for at in np.argsort(-share, kind="stable"):
        if share[at] <= 0 or len(found) == count:
            break
        found.setdefault(int(owners[at]), (int(places[at, 0]), int(places[at, 1])))
    return list(found.items())
