"""Which pictures the network finds alike: nearest neighbours among embeddings.

Exact by faiss up to :data:`EXACT` rows; beyond that by Lance's index with refinement, whose recall is measured
against the exact answer when it is built, and stands beside every answer.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...errors import MissingExtra, PictureError, UsageError
from ...pictures.picture import Picture
from ...session import protected
from ..gather.collections import read_text
from ..gather.decode import open_thumbnail
from ..gather.work import Watch

if TYPE_CHECKING:
    from PIL import Image

    from ...draw.sheet import Sheet
    from ..store.recipe import Recipe
    from ..store.store import Store

Metric = Literal["cosine", "l2"]
#: rows up to which every neighbour is computed exactly
EXACT = 200_000
#: side of the thumbnails that pixel distances are taken on
PIXELS = 32
_COLUMNS = ["sha256", "uri", "label", "prediction", "thumbnail"]


@dataclass(eq=False)
class Neighbors:
    """The neighbours of one picture, nearest first.

    ``rows`` are plain data: ``uri``, ``similarity``, ``label``, ``prediction``. ``similarity`` is the cosine, minus the
    Euclidean distance, or the score of a target. ``recall`` is the index's measured recall@10, 1.0 where the search is
    exact.
    """

    query: dict[str, Any]
    rows: list[dict[str, Any]]
    layer: str
    metric: str
    recall: float
    exact: bool
    thumbnails: list[Image.Image] = field(default_factory=list, repr=False)
    query_image: Image.Image | None = field(default=None, repr=False)
    ids: list[str] = field(default_factory=list, repr=False)
    pixels: Neighbors | None = None

    def to_dict(self) -> list[dict[str, Any]]:
        """The JSON document."""
        return [{name: row[name] for name in ("uri", "similarity", "label", "prediction")} for row in self.rows]

    def sheet(self) -> Sheet:
        """The picture and its neighbours, captioned; pixel neighbours in a row below where they were asked for."""
        from ...draw import grid

        if self.metric == "score":
            title = f"Pictures with most of {self.query['uri']}"
            return grid.patches([(f"Highest scores at {self.layer}", self._cells())], title, columns=10)
        how = "cosine" if self.metric == "cosine" else "Euclidean distance"
        name = Path(self.query["uri"]).name
        found = "Exact search" if self.exact else f"By index, recall@10 {self.recall:.3f}"
        rows = [
            ("The picture", [(self.query_image, _caption(self.query, None))]),
            (f"Nearest at {self.layer} ({how})", self._cells()),
        ]
        if self.pixels is not None:
            rows.append((f"Nearest in pixels ({PIXELS}×{PIXELS}, Euclidean distance)", self.pixels._cells()))
        return grid.patches(rows, f"Neighbours of {name}", columns=10, footnote=f"{found}.")

    def _cells(self) -> list[tuple[Any, str]]:
        return [
            (image, _caption(row, abs(row["similarity"]) if self.metric == "l2" else row["similarity"]))
            for row, image in zip(self.rows, self.thumbnails, strict=True)
        ]

    def _repr_png_(self) -> bytes:
        return self.sheet()._repr_png_()


def _caption(row: dict[str, Any], similarity: float | None) -> str:
    parts = [] if similarity is None else [f"{similarity:.3f}"]
    if row.get("label"):
        wrong = row.get("prediction") not in (None, row["label"])
        parts.append(f"{row['label']}" + (f" (predicted {row['prediction']})" if wrong else ""))
    elif row.get("prediction"):
        parts.append(f"predicted {row['prediction']}")
    return " · ".join(parts) or Path(row["uri"]).name


def faiss() -> Any:
    """The faiss module, or the sentence that names the extra."""
    try:
        import faiss as module
    except ImportError:
        raise MissingExtra("faiss-cpu", "survey", "Finding neighbours") from None
    return module


def neighbors(
    store: Store,
    image: Any = None,
    *,
    id: str | None = None,
    k: int = 10,
    layer: str | None = None,
    metric: Metric = "cosine",
    pixels: bool = False,
) -> Neighbors:
    """The ``k`` pictures of the store nearest to ``image`` (path, array, PIL) or to the stored picture ``id``.

    ``id`` is the beginning of a content hash, or a URI. A picture is never its own neighbour. ``layer``: one of the
    store's embeddings; the one before the classifier by default. ``pixels`` adds the neighbours in pixel space.

    Raises :class:`UsageError`, :class:`PictureError`, :class:`ModelError` (the network cannot be opened again).
    """
    if k < 1:
        raise UsageError(f"k must be at least 1 neighbour, not {k}.")
    if metric not in ("cosine", "l2"):
        raise UsageError(f"The metric must be cosine or l2, not {metric!r}.")
    embedding = store.recipe.embedding(layer)
    query, vector, shown = _query(store, image, id, embedding.layer)
    count = sum(unit["pictures"] - unit["failed"] for unit in store.ledger())
    if not count:
        raise UsageError(f"{store.path} holds no picture yet.")
    recall = 1.0
    if count <= EXACT:
        ids, vectors = store.embeddings(embedding.layer)
        found = exact(vectors, vector[None], k + 1, metric)
        pairs = [(ids[i], float(s)) for i, s in zip(found[0][0], found[1][0], strict=True) if i >= 0]
    else:
        from ..store.index import search

        pairs, recall = search(store, embedding, vector, k + 1, metric)
    pairs = [(sha, score) for sha, score in pairs if sha != query["sha256"]][:k]
    result = _result(store, query, shown, pairs, embedding.layer, metric)
    result.recall, result.exact = recall, count <= EXACT
    if pixels:
        result.pixels = in_pixels(store, query, shown, k)
    return result


def exact(
    vectors: NDArray[Any], queries: NDArray[Any], k: int, metric: Metric = "cosine"
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Indices and similarities ``[Q, k]`` of the nearest rows; -1 where there are fewer. Cosine, or minus
    distance.
    """
    library = faiss()
    data, asked = np.ascontiguousarray(vectors, np.float32), np.ascontiguousarray(queries, np.float32)
    if metric == "cosine":
        index = library.IndexFlatIP(data.shape[1])
        data, asked = unit_length(data), unit_length(asked)
    else:
        index = library.IndexFlatL2(data.shape[1])
    index.add(data)
    scores, which = index.search(asked, min(k, len(data)))
    if metric == "l2":
        scores = -np.sqrt(np.maximum(scores, 0))
    return which, scores


def without_self(found: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """Drop each row's own index; of exact doubles it may not be the first."""
    own = found == np.arange(len(found))[:, None]
    own[~own.any(1), -1] = True
    others: NDArray[np.int64] = found[~own].reshape(len(found), -1)[:, :k]
    return others


def unit_length(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    """Rows scaled to length 1; rows of zero stay zero."""
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    scaled: NDArray[np.float32] = np.ascontiguousarray(vectors / np.where(length > 0, length, 1), np.float32)
    return scaled


def find(store: Store, id: str) -> dict[str, Any]:
    """The stored picture of which ``id`` is a URI, a file's name, or the beginning of its content hash."""
    columns = ["sha256", "uri", "label", "prediction", "thumbnail", "error", "width", "height"]
    text = id.replace("'", "''")
    rows: list[dict[str, Any]] = []
    if len(id) >= 4 and all(c in "0123456789abcdef" for c in id.lower()):
        low = text.lower()  # as a range, which an index on the column serves; g follows the hexadecimal digits
        rows = store.table(columns, f"sha256 >= '{low}' AND sha256 < '{low}g'").to_pylist()
    if not rows:
        shas = [sha for sha, uris in store.uris.items() if any(u == id or Path(u).name == id for u in uris)]
        rows = store.table(columns, f"sha256 IN ({_quoted(shas)})").to_pylist() if shas else []
    if not rows:
        raise UsageError(f"No picture {id!r} in {store.path}: give a URI, a file's name, or the start of its sha256.")
    if len(rows) > 1:
        shown = ", ".join(row["sha256"][:12] for row in rows[:4])
        raise UsageError(f"{id!r} could be {len(rows)} pictures ({shown}, ...): give more of it.")
    return rows[0]


def _quoted(values: Sequence[str]) -> str:
    return ", ".join(f"'{value}'" for value in values)


def _query(
    store: Store, image: Any, id: str | None, layer: str
) -> tuple[dict[str, Any], NDArray[np.float32], Image.Image]:
    """The picture asked about: its row, its embedding, and how it looks."""
    if (image is None) == (id is None):
        raise UsageError("Give either a picture or --id.")
    column = store.recipe.embedding(layer).column
    row: dict[str, Any] | None = None
    picture = None
    if id is not None:
        row = find(store, id)
    else:
        picture = Picture.of(image)
        stored = store.table([*_COLUMNS, "error"], f"sha256 = '{picture.sha256}'").to_pylist()
        row = stored[0] if stored else None
    if row is not None:
        if row["error"]:
            raise PictureError(f"This picture has no embedding: {row['error']}")
        vector = store.table([column], f"sha256 = '{row['sha256']}'")[column].to_pylist()[0]
        shown = picture.image if picture is not None else open_thumbnail(row["thumbnail"])
        row["uri"] = store.uri(row["sha256"], row["uri"])
        return row, np.asarray(vector, np.float32), shown
    assert picture is not None
    vectors, prediction = embed(store, picture)
    query = {
        "sha256": picture.sha256,
        "uri": str(picture.path or picture.name),
        "label": None,
        "prediction": prediction,
    }
    return query, vectors[layer], picture.image


def embed(store: Store, picture: Picture) -> tuple[dict[str, NDArray[np.float32]], str | None]:
    """A new picture's embeddings by layer, as the survey would have stored them, and its prediction."""
    from ..gather.work import class_scores

    model = store.model()
    recipe: Recipe = store.recipe
    inputs = model.inputs([model.prepare(picture)])
    watch = Watch(recipe, None)
    with protected(model):
        output = watch.forward(model, inputs)
    vectors = watch.embeddings(1)
    found = {}
    for embedding, vector in zip(recipe.embeddings, vectors, strict=True):
        if not np.isfinite(vector).all():
            raise PictureError(f"{picture.name}: the network gives NaN or infinite values for this picture.")
        found[embedding.layer] = vector[0].astype(np.float16).astype(np.float32)
    scores = class_scores(model, output, 1)
    return found, None if scores is None else model.label(int(scores[0, 0].argmax()))


def _result(
    store: Store,
    query: dict[str, Any],
    shown: Image.Image | None,
    pairs: Sequence[tuple[str, float]],
    layer: str,
    metric: str,
) -> Neighbors:
    rows: dict[str, dict[str, Any]] = {}
    if pairs:
        table = store.table(_COLUMNS, f"sha256 IN ({_quoted([sha for sha, _ in pairs])})")
        rows = {row["sha256"]: row for row in table.to_pylist()}
    found, images, ids = [], [], []
    for sha, score in pairs:
        row = rows[sha]
        found.append(
            {
                "uri": store.uri(sha, row["uri"]),
                "similarity": score,
                "label": row["label"],
                "prediction": row["prediction"],
            }
        )
        images.append(open_thumbnail(row["thumbnail"]))
        ids.append(sha)
    return Neighbors(query, found, layer, metric, 1.0, True, images, shown, ids)


def in_pixels(store: Store, query: dict[str, Any], shown: Image.Image, k: int = 10) -> Neighbors:
    """The neighbours by Euclidean distance of 32×32 RGB thumbnails: what similarity is without a network."""
    table = store.table(["sha256", "thumbnail"], "thumbnail IS NOT NULL")
    ids = table["sha256"].to_pylist()
    pixels = np.stack([_pixels(open_thumbnail(data)) for data in table["thumbnail"].to_pylist()])
    own = _pixels(open_thumbnail(_thumbnail_of(shown)))
    which, scores = exact(pixels, own[None], k + 1, "l2")
    pairs = [(ids[i], float(s)) for i, s in zip(which[0], scores[0], strict=True) if ids[i] != query["sha256"]][:k]
    return _result(store, query, shown, pairs, "pixels", "l2")


def _thumbnail_of(image: Image.Image) -> bytes:
    from ..gather.decode import encode, thumbnail

    return encode(thumbnail(image))


def _pixels(image: Image.Image) -> NDArray[np.float32]:
    values: NDArray[np.float32] = np.asarray(image.resize((PIXELS, PIXELS)), np.float32).ravel() / np.float32(255)
    return values


@dataclass(eq=False)
class Depth:
    """The neighbours of one picture, layer by layer.

    ``layers`` are plain data, in the order of the network: ``layer``, ``neighbors`` (as :class:`Neighbors` gives
    them),
    ``overlap`` (shared part of the neighbours with the layer before: intersection over union), ``agreement`` (share
    of neighbours with the picture's own label, or prediction where it has none).
    """

    found: list[Neighbors]
    layers: list[dict[str, Any]]
    agrees_from: str | None

    def to_dict(self) -> dict[str, Any]:
        return {"layers": self.layers, "agrees_from": self.agrees_from}

    def sheet(self) -> Sheet:
        from ...draw import grid

        first = self.found[0]
        rows: list[tuple[str, list[tuple[Any, str]]]] = [
            ("The picture", [(first.query_image, _caption(first.query, None))])
        ]
        for one, row in zip(self.found, self.layers, strict=True):
            shared = "" if row["overlap"] is None else f", {row['overlap']:.0%} shared with the layer above"
            same = "" if row["agreement"] is None else f": {row['agreement']:.0%} of the same class"
            rows.append((f"{one.layer}{same}{shared}", one._cells()))
        note = f"From {self.agrees_from} on, most neighbours are of the same class." if self.agrees_from else ""
        return grid.patches(
            rows, f"Neighbours of {Path(first.query['uri']).name}, layer by layer", columns=10, footnote=note
        )

    def _repr_png_(self) -> bytes:
        return self.sheet()._repr_png_()


def depth(store: Store, image: Any = None, *, id: str | None = None, k: int = 10, metric: Metric = "cosine") -> Depth:
    """The neighbours at every embedded layer, with their overlap and where the class begins to agree."""
    if len(store.recipe.embeddings) < 2:
        raise UsageError(
            "Neighbours layer by layer need several embeddings: survey into a new store with --embed "
            "LAYER, more than "
            "once, from early to late."
        )
    # the one before the classifier is stored first, and comes last in the network
    layers = [*(e.layer for e in store.recipe.embeddings[1:]), store.recipe.embeddings[0].layer]
    found = [neighbors(store, image, id=id, k=k, layer=layer, metric=metric) for layer in layers]
    table: list[dict[str, Any]] = []
    before: set[str] | None = None
    for one in found:
        own = one.query.get("label") or one.query.get("prediction")
        names = [row["label"] or row["prediction"] for row in one.rows]
        now = set(one.ids)
        table.append(
            {
                "layer": one.layer,
                "overlap": None if before is None else len(now & before) / max(1, len(now | before)),
                "agreement": sum(n == own for n in names) / len(names) if own and names else None,
                "neighbors": one.to_dict(),
            }
        )
        before = now
    late: str | None = None
    for row in reversed(table):
        if row["agreement"] is None or row["agreement"] <= 0.5:
            break
        late = row["layer"]
    return Depth(found, table, late)


def read_index_record(store: Store) -> dict[str, Any]:
    """What is known of the store's indexes; empty where there is none."""
    if "://" in store.path:
        text = read_text(f"{store.path.rstrip('/')}/index.json")
        return json.loads(text) if text is not None else {}
    path = Path(store.path, "index.json")
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
