"""The surveyed collection as the page reads it: one open store, what was read of it kept, one reader at a time."""

from __future__ import annotations

import io
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import ConvoscopeError, LayerError, UsageError
from ..names import path_of, shown
from .picture_library import Entry

if TYPE_CHECKING:
    from ..models.model import Model
    from ..surveys import Store

#: thumbnails of one sheet, each of this many pixels a side
ATLAS, THUMB = 400, 48


class SurveyView:
    """A store, with answers kept for as long as no further unit is committed."""

    def __init__(self, store: Store, model: Model) -> None:
        self.store = store.use_model(model)
        self.name = Path(str(store.path).rstrip("/")).name
        self._lock = threading.RLock()
        self._kept: dict[Any, Any] = {}
        self._stamp: Any = None

    @property
    def stamp(self) -> str:
        """Changes when the store has more in it."""
        return f"{self.store.recipe.space}-{len(self._once('ids', self._ids))}"

    def _once(self, key: Any, make: Any) -> Any:
        with self._lock:
            if key not in self._kept:
                self._kept[key] = make()
            return self._kept[key]

    def _ids(self) -> dict[str, dict[str, Any]]:
        columns = ["sha256", "uri", "label", "prediction", "probability", "loss", "error"]
        rows = self.store.table(columns).to_pylist()
        return {row["sha256"][:16]: row for row in rows}

    @property
    def rows(self) -> dict[str, dict[str, Any]]:
        """Every picture of the store by the first 16 digits of its content hash."""
        found: dict[str, dict[str, Any]] = self._once("ids", self._ids)
        return found

    def holds(self, sha256: str) -> bool:
        return sha256[:16] in self.rows

    def label(self, sha256: str) -> str | None:
        row = self.rows.get(sha256[:16])
        return None if row is None else row["label"]

    def entry(self, id: str) -> Entry | None:
        """The album's entry of a picture of the store; its content is compared when it is read."""
        row = self.rows.get(id)
        if row is None:
            return None
        uri = self.store.uri(row["sha256"], row["uri"])
        path = Path(path_of(uri))
        return Entry(id, shown(path.name), "collection", row["label"], path)

    def name_of(self, row: dict[str, Any]) -> str:
        """A file's name without its folder: paths of this machine are nobody's business on the page."""
        return shown(Path(path_of(str(row.get("uri") or ""))).name)

    def surveyed(self, layer: str) -> str:
        """The surveyed layer that holds the same numbers as ``layer``: itself, or one of the same values.

        A block's output is its last activation's, so ``layer3`` is known where ``layer3.1.relu`` was surveyed. Raises
        :class:`LayerError` where there is none.
        """
        found = self.known_as(layer)
        if found is None:
            raise LayerError(
                f"Layer {layer} was not surveyed; these were: {', '.join(s.name for s in self.store.recipe.layers)}."
            )
        return found

    def known_as(self, layer: str) -> str | None:
        """The surveyed layer that holds the same numbers, by its name; None where there is none."""
        names = {span.name for span in self.store.recipe.layers}
        return layer if layer in names else self.store.other_names().get(layer)

    def holds_layer(self, layer: str) -> bool:
        """Whether the survey knows a layer, by its own name or by another of the same numbers."""
        return self.known_as(layer) is not None

    def units(self, layer: str) -> dict[int, dict[str, Any]]:
        """Figures of a surveyed layer's units by channel; empty for a layer that was not surveyed."""
        known = self.known_as(layer)
        if known is None:
            return {}

        def make() -> dict[int, dict[str, Any]]:
            return {row["channel"]: row for row in self.store.units(known).rows}

        found: dict[int, dict[str, Any]] = self._once(("units", known), make)
        return found

    def dead(self) -> dict[str, int]:
        """Dead units by layer: zero in every picture."""

        def make() -> dict[str, int]:
            state = self.store.state()
            dead = (state.top.values[:, 0] == 0) & (state.lowest.values[:, 0] == 0)
            return {span.name: int(dead[span.start : span.end].sum()) for span in self.store.recipe.layers}

        found: dict[str, int] = self._once("dead", make)
        return found

    def figures(self, layer: str, channel: int) -> dict[str, Any] | None:
        """What the survey knows of a unit: figures, histogram, classes it favours, units that answer alike."""
        spans = {span.name: span for span in self.store.recipe.layers}
        known = self.known_as(layer)
        if known is None or channel >= spans[known].channels:
            return None
        layer = known
        with self._lock:
            state = self.store.state()
            at = spans[layer].start + channel
            row = dict(self.units(layer)[channel])
            row.pop("top", None)
            return {
                **row,
                "surveyed_as": layer,
                "pictures": state.pictures,
                "histogram": _histogram(state, at),
                "classes": _classes(state, at),
                "alike": self._alike(layer, channel),
            }

    def _alike(self, layer: str, channel: int, count: int = 5) -> list[dict[str, Any]]:
        """The units of the same layer whose responses over the sampled pictures correlate most."""
        span = self.store.span(layer)

        def make() -> Any:
            values = np.nan_to_num(self.store.state().sample.values[:, span.start : span.end]).astype(np.float64)
            centred = values - values.mean(0)
            length = np.linalg.norm(centred, axis=0)
            return centred / np.where(length > 0, length, 1)

        unit = self._once(("sample", layer), make)
        if len(unit) < 3:
            return []
        correlation = unit.T @ unit[:, channel]
        order = [int(c) for c in np.argsort(-correlation, kind="stable") if c != channel][:count]
        return [{"channel": c, "correlation": float(correlation[c])} for c in order if correlation[c] > 0.1]

    def mistakes(self) -> Any:
        """Where the network is wrong, or the sentence that says why that is not known."""

        def make() -> Any:
            try:
                return self.store.mistakes(24)
            except ConvoscopeError as error:
                return str(error)

        return self._once("mistakes", make)

    def summary(self) -> dict[str, Any]:
        """What the top of the page and the collection's tab say of it."""
        mistakes = self.mistakes()
        known = not isinstance(mistakes, str)
        recipe = self.store.recipe
        return {
            "pictures": len(self.rows),
            "name": self.name,
            "layers": [span.name for span in recipe.layers],
            "embeddings": [e.layer for e in recipe.embeddings],
            "accuracy": mistakes.accuracy if known else None,
            "wrong": mistakes.wrong if known else None,
            "labelled": mistakes.pictures if known else None,
            "units": self._once("summary", lambda: self.store.units().summary()),
            "notes": [*self.store.notes, *(mistakes.notes if known else [mistakes])],
        }

    def map(self, method: str, progress: Any = None, layer: str | None = None) -> Any:
        """The embedding map of a layer (None: the survey's own), made once and kept in the store."""
        key = ("map", method, layer)
        with self._lock:
            if key in self._kept:
                return self._kept[key]
        made = self.store.map(method, layer, progress=progress)  # type: ignore[arg-type]
        with self._lock:
            self._kept[key] = made
        return made

    def thumbnails(self, ids: list[str]) -> dict[str, bytes]:
        """JPEG bytes of the thumbnails of pictures by id."""
        shas = [self.rows[id]["sha256"] for id in ids if id in self.rows]
        if not shas:
            return {}
        listed = ", ".join(f"'{sha}'" for sha in shas)
        with self._lock:
            table = self.store.table(["sha256", "thumbnail"], f"sha256 IN ({listed})")
        return {row["sha256"][:16]: row["thumbnail"] for row in table.to_pylist() if row["thumbnail"]}

    def atlas(self, number: int) -> bytes:
        """A sheet of thumbnails, 20 a row, in the order of the ids; number 0 holds the first 400."""
        from PIL import Image

        from ..surveys.gather.decode import open_thumbnail

        ids = sorted(self.rows)[number * ATLAS : (number + 1) * ATLAS]
        if not ids:
            raise UsageError(f"There is no sheet {number} of thumbnails.")
        thumbs = self.thumbnails(ids)
        sheet = Image.new("RGB", (20 * THUMB, -(-len(ids) // 20) * THUMB), (128, 128, 128))
        for place, id in enumerate(ids):
            if id in thumbs:
                small = open_thumbnail(thumbs[id])
                small.thumbnail((THUMB, THUMB))
                x, y = place % 20 * THUMB, place // 20 * THUMB
                sheet.paste(small, (x + (THUMB - small.width) // 2, y + (THUMB - small.height) // 2))
        buffer = io.BytesIO()
        sheet.save(buffer, "JPEG", quality=82)
        return buffer.getvalue()


def _histogram(state: Any, at: int) -> dict[str, Any]:
    """The occupied bins of a unit's responses: edges and counts."""
    from ..surveys.store.accumulators import bin_edges

    counts = state.histogram[at]
    edges = bin_edges()
    filled = np.flatnonzero(counts)
    if not len(filled):
        return {"edges": [], "counts": []}
    low, high = int(filled[0]), int(filled[-1]) + 1
    return {"edges": edges[low : high + 1].tolist(), "counts": counts[low:high].tolist()}


def _classes(state: Any, at: int, count: int = 5) -> list[dict[str, Any]]:
    """The classes whose pictures a unit answers most, by the mean of its response."""
    labels, means = state.classes.means()
    if not labels:
        return []
    order = np.argsort(-np.nan_to_num(means[:, at], nan=-np.inf), kind="stable")[:count]
    return [{"label": labels[i], "mean": float(means[i, at])} for i in order if np.isfinite(means[i, at])]
