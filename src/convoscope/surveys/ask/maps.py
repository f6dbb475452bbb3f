"""Maps of a collection: how the network arranges it, with figures on how far the map can be trusted."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import ConvoscopeError, UsageError
from ...files import aside, write_image, write_whole
from ...pictures.picture import Picture
from ..gather.decode import encode, thumbnail
from ..store.arrow import pa
from ..store.lance_table import Table
from . import project
from .metrics import local_trust, map_metrics
from .neighbors import embed, exact, unit_length, without_self

if TYPE_CHECKING:
    from PIL import Image

    from ..store.store import Store

Points = NDArray[np.float32]
Tell = Callable[[str, int, int], None]
_COLUMNS = ["sha256", "uri", "label", "prediction", "probability", "loss", "thumbnail"]
SUFFIXES = (".html", ".png", ".parquet")


@dataclass(eq=False)
class EmbeddingMap:
    """Every picture of a store on the plane.

    ``xy`` is float32 ``[N, 2]``, in no unit; ``ids`` are content hashes; ``rows`` hold ``uri``, ``label``,
    ``prediction``, ``probability``, ``loss`` and ``thumbnail``. ``near`` ``[N, 10]`` are the true neighbours in the
    embedding, by index; ``trust`` ``[N]`` is the share of them that the map keeps near. ``placed`` are pictures that
    were put in afterwards. ``metrics``: see :func:`convoscope.surveys.ask.metrics.map_metrics`, with ``kl`` for t-SNE.
    """

    method: str
    layer: str
    ids: list[str]
    xy: Points
    rows: list[dict[str, Any]]
    near: NDArray[np.int64] = field(repr=False)
    trust: Points = field(repr=False)
    metrics: dict[str, Any] = field(default_factory=dict)
    placed: list[dict[str, Any]] = field(default_factory=list)
    title: str = ""
    notes: list[str] = field(default_factory=list)

    def points(self) -> list[dict[str, Any]]:
        """A row a picture, as plain data."""
        found = []
        for row, (x, y), trust in zip(self.rows, self.xy, self.trust, strict=True):
            names = ("uri", "label", "prediction", "probability", "loss")
            found.append({**{n: row[n] for n in names}, "x": float(x), "y": float(y), "trust": float(trust)})
        return found

    def to_dict(self) -> dict[str, Any]:
        """The JSON document."""
        placed = [{n: p[n] for n in ("uri", "x", "y", "prediction", "how")} for p in self.placed]
        return {
            "method": self.method,
            "layer": self.layer,
            "metrics": self.metrics,
            "points": self.points(),
            "placed": placed,
            "notes": self.notes,
        }

    def save(self, path: str | Path) -> Path:
        """Write it by the file's ending: ``.html`` (one file, works offline), ``.png`` (thumbnails), ``.parquet``.

        Raises :class:`UsageError` for another ending.
        """
        path = Path(path)
        if path.suffix == ".html":
            from .map_html import html

            write_whole(path, html(self))
        elif path.suffix == ".png":
            write_image(path, self.image(), dpi=(220, 220))
        elif path.suffix == ".parquet":
            import pyarrow.parquet as pq

            with aside(path) as part:
                pq.write_table(self._arrow(), part)
        else:
            raise UsageError(f"{path}: a map is written as {', '.join(SUFFIXES)}.")
        return path

    def _arrow(self) -> Any:
        points = self.points()
        columns = {name: [point[name] for point in points] for name in points[0]}
        table = pa.table({"sha256": self.ids, **columns})
        about = {"method": self.method, "layer": self.layer, "metrics": self.metrics}
        return table.replace_schema_metadata({"convoscope": json.dumps(about)})

    def image(self, cell: int = 64) -> Image.Image:
        """Thumbnails on a grid without overlap, for print."""
        from .map_png import draw

        return draw(self, cell)

    def _repr_png_(self) -> bytes:
        import io

        buffer = io.BytesIO()
        self.image(40).save(buffer, "PNG")
        return buffer.getvalue()


def make_map(
    store: Store,
    method: project.Projection = "tsne",
    layer: str | None = None,
    *,
    place: Sequence[Any] = (),
    seed: int = 0,
    perplexity: float = 30.0,
    metric: str = "cosine",
    fresh: bool = False,
    progress: Tell | None = None,
) -> EmbeddingMap:
    """The map of all pictures of a store that have an embedding of ``layer``.

    All are computed, however many there are. The map is kept in the store and used again while the pictures are the
    same (``fresh`` computes anew); with ``place``, pictures that are put into it, an existing map is used as it is.
    ``metric``: ``cosine`` (vectors of length 1) or ``l2``.

    Raises :class:`UsageError` for a method or layer that does not exist, or fewer than 5 pictures.
    """
    if metric not in ("cosine", "l2"):
        raise UsageError(f"The metric must be cosine or l2, not {metric!r}.")
    embedding = store.recipe.embedding(layer)
    ids, raw = store.embeddings(embedding.layer)
    project.check(method, len(ids))
    order = np.argsort(np.array(ids))  # a map must not depend on the order of committing
    ids, vectors = [ids[i] for i in order], _prepared(raw[order], metric)
    settings = {"method": method, "layer": embedding.layer, "seed": seed, "perplexity": perplexity, "metric": metric}
    path = f"{store.path.rstrip('/')}/maps/{method}-{embedding.column}-{metric}.lance"
    known = None if fresh else _read(path)
    notes: list[str] = []
    if known is not None and (known["settings"] != settings or (known["ids"] != ids and not place)):
        known = None
    if known is not None and known["ids"] != ids:
        where = {sha: i for i, sha in enumerate(ids)}
        if all(sha in where for sha in known["ids"]):
            notes.append(
                f"The map was made when the store held {len(known['ids'])} of its {len(ids)} "
                f"pictures; it is used as it "
                "is for placing."
            )
            vectors = vectors[[where[sha] for sha in known["ids"]]]
            ids = known["ids"]
        else:
            known = None
    if known is None:
        known = _compute(vectors, ids, settings, store, progress)
        _write(path, known, store)
    result = _assemble(store, known, vectors, embedding.layer, notes)
    if place:
        result.placed = _placed(store, result, vectors, place, metric, seed)
    return result


def _prepared(vectors: NDArray[np.float16], metric: str) -> Points:
    wide = vectors.astype(np.float32)
    return unit_length(wide) if metric == "cosine" else wide


def _compute(
    vectors: Points, ids: list[str], settings: dict[str, Any], store: Store, progress: Tell | None
) -> dict[str, Any]:
    """The points and their metrics."""
    method, extra = settings["method"], {}

    def tell(done: int, total: int) -> None:
        if progress is not None:
            progress(f"map of {len(ids)} pictures by {method}", done, total)

    tell(0, 1)
    if method == "tsne":
        xy, extra["kl"] = project.tsne(
            vectors, perplexity=settings["perplexity"], seed=settings["seed"], progress=tell
        )
    elif method == "umap":
        xy = project.umap(vectors, seed=settings["seed"])
    else:
        mean, axes, extra["variance"] = project.principal_axes(vectors)
        xy = np.asarray((vectors - mean) @ axes.T, np.float32)
    tell(1, 1)
    labels = {row["sha256"]: row["label"] for row in store.table(["sha256", "label"]).to_pylist()}
    metrics = map_metrics(vectors, xy, [labels[sha] for sha in ids]) | extra
    return {"ids": ids, "xy": xy, "settings": settings, "metrics": metrics}


def _read(path: str) -> dict[str, Any] | None:
    if "://" not in path and not Path(path).is_dir():
        return None
    try:
        table = Table.open(path).read()
    except ConvoscopeError:
        return None
    about = json.loads((table.schema.metadata or {}).get(b"convoscope", b"{}"))
    if not about or not table.num_rows:
        return None
    xy = np.stack([table["x"].to_numpy(), table["y"].to_numpy()], 1).astype(np.float32)
    return {"ids": table["sha256"].to_pylist(), "xy": xy, **about}


def _write(path: str, known: dict[str, Any], store: Store) -> None:
    about = json.dumps({"settings": known["settings"], "metrics": known["metrics"]})
    schema = pa.schema(
        [("sha256", pa.string()), ("x", pa.float32()), ("y", pa.float32())], metadata={"convoscope": about}
    )
    columns = {"sha256": known["ids"], "x": known["xy"][:, 0], "y": known["xy"][:, 1]}
    try:
        if "://" not in path:
            Path(path).parent.mkdir(exist_ok=True)
        Table.create(path, schema).append(pa.table(columns, schema=schema))
    except (ConvoscopeError, OSError) as error:
        store.notes.append(f"The map could not be kept in the store: {error}")


def _assemble(store: Store, known: dict[str, Any], vectors: Points, layer: str, notes: list[str]) -> EmbeddingMap:
    ids, xy = known["ids"], known["xy"]
    by_id = {row["sha256"]: row for row in store.table(_COLUMNS).to_pylist()}
    rows = []
    for sha in ids:
        row = by_id[sha]
        row["uri"] = store.uri(sha, row["uri"])
        rows.append(row)
    k = min(10, len(ids) - 1)
    near = without_self(exact(vectors, vectors, k + 1, "l2")[0], k)
    method = known["settings"]["method"]
    name = {"tsne": "t-SNE", "umap": "UMAP", "pca": "PCA"}[method]
    title = f"{name} of {len(ids):,} pictures at {layer} of {store.recipe.name}"
    trust = local_trust(vectors, xy, near=near)
    return EmbeddingMap(method, layer, ids, xy, rows, near, trust, known["metrics"], [], title, notes)


def _placed(
    store: Store, made: EmbeddingMap, vectors: Points, pictures: Sequence[Any], metric: str, seed: int
) -> list[dict[str, Any]]:
    """New pictures on the map, each with its row."""
    where = {sha: i for i, sha in enumerate(made.ids)}
    found: list[dict[str, Any]] = []
    new: list[tuple[int, Points]] = []
    for source in pictures:
        picture = Picture.of(source)
        row: dict[str, Any] = {
            "uri": str(picture.path or picture.name),
            "sha256": picture.sha256,
            "prediction": None,
            "thumbnail": encode(thumbnail(picture.image)),
        }
        if picture.sha256 in where:
            at = where[picture.sha256]
            row |= {"x": float(made.xy[at, 0]), "y": float(made.xy[at, 1]), "how": "is on the map already"}
            row |= {"prediction": made.rows[at]["prediction"], "near": made.near[at].tolist()}
        else:
            both, row["prediction"] = embed(store, picture)
            vector = both[made.layer][None]
            new.append((len(found), unit_length(vector) if metric == "cosine" else vector))
        found.append(row)
    if new:
        stacked = np.concatenate([vector for _, vector in new])
        xy, how = project.place(made.method, vectors, made.xy, stacked, seed)
        near = exact(vectors, stacked, min(10, len(vectors)), "l2")[0]
        for (at, _), point, close in zip(new, xy, near, strict=True):
            found[at] |= {"x": float(point[0]), "y": float(point[1]), "how": how, "near": close.tolist()}
    return found
