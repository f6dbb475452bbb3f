"""Lance's vector index for stores too large for exact search, with its recall measured."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import StoreError
from .lance_table import write_json
from .neighbors import Metric, exact, read_index_record, unit_length

if TYPE_CHECKING:
    from .recipe import Embedding
    from .store import Store

#: how many times k candidates are compared exactly: without it, recall@10 of quantised vectors is poor
REFINE = 10
#: share of the partitions that are looked into
PROBES = 0.1
_MEASURED = 100


def search(
    store: Store, embedding: Embedding, vector: NDArray[np.float32], k: int, metric: Metric
) -> tuple[list[tuple[str, float]], float]:
    """The ``k`` nearest by the index, built where it is missing: (content hash, similarity), and its recall@10."""
    name = f"{embedding.column}-{metric}"
    record = read_index_record(store)
    dataset = store.pictures_dataset()
    rows = dataset.count_rows()
    if name not in record or record[name]["rows"] < 0.9 * rows:
        record = build(store, embedding, metric)
    found = _nearest(store.pictures_dataset(), embedding, vector, k, metric, record[name]["probes"])
    return found, float(record[name]["recall"])


def build(store: Store, embedding: Embedding, metric: Metric = "cosine") -> dict[str, Any]:
    """Build (or rebuild) the index of an embedding and measure recall@10 on pictures of the store against faiss.

    Returns the record of all indexes. Raises :class:`StoreError` where the store cannot be written.
    """
    dataset = store.pictures_dataset()
    rows = dataset.count_rows()
    partitions = int(np.clip(round(np.sqrt(rows)), 1, 4096))
    name = f"{embedding.column}-{metric}"
    record = read_index_record(store)
    with _readable():
        dataset.create_index(
            embedding.column,
            "IVF_HNSW_SQ",
            name=name,
            metric="cosine" if metric == "cosine" else "L2",
            num_partitions=partitions,
            replace=True,
        )
    probes = max(1, min(partitions, round(partitions * PROBES)))
    store.refresh()
    recall = measure(store, embedding, metric, probes)
    while recall < 0.98 and probes < partitions:
        probes = min(partitions, probes * 2)
        recall = measure(store, embedding, metric, probes)
    record[name] = {"rows": rows, "partitions": partitions, "probes": probes, "refine": REFINE, "recall": recall}
    write_json(store.path, "index.json", record)
    return record


def measure(store: Store, embedding: Embedding, metric: Metric, probes: int) -> float:
    """Recall@10 of the index on stored pictures, evenly chosen, against exact search."""
    ids, vectors = store.embeddings(embedding.layer)
    picked = np.linspace(0, len(ids) - 1, min(_MEASURED, len(ids))).astype(int)
    queries = vectors[picked].astype(np.float32)
    truth = _exact_in_parts(vectors, queries, 10, metric)
    hits = 0
    for query, wanted in zip(queries, truth, strict=True):
        found = _nearest(store.pictures_dataset(), embedding, query, 10, metric, probes)
        hits += len({sha for sha, _ in found} & {ids[i] for i in wanted if i >= 0})
    return hits / max(1, sum(int((row >= 0).sum()) for row in truth))


def _exact_in_parts(
    vectors: NDArray[np.float16], queries: NDArray[np.float32], k: int, metric: Metric, part: int = 100_000
) -> NDArray[np.int64]:
    """Exact search a part of the rows at a time: float32 of all would not fit."""
    best: list[tuple[NDArray[np.int64], NDArray[np.float32]]] = []
    for start in range(0, len(vectors), part):
        which, scores = exact(vectors[start : start + part], queries, k, metric)
        best.append((which + start, scores))
    which = np.concatenate([w for w, _ in best], 1)
    scores = np.concatenate([s for _, s in best], 1)
    order = np.argsort(-scores, 1, kind="stable")[:, :k]
    return np.take_along_axis(which, order, 1)


def _nearest(
    dataset: Any, embedding: Embedding, vector: NDArray[np.float32], k: int, metric: Metric, probes: int
) -> list[tuple[str, float]]:
    query = unit_length(vector[None])[0] if metric == "cosine" else vector
    with _readable():
        found = dataset.to_table(
            columns=["sha256", "_distance"],
            nearest={
                "column": embedding.column,
                "q": query.astype(np.float16),
                "k": k,
                "nprobes": probes,
                "refine_factor": REFINE,
                "metric": "cosine" if metric == "cosine" else "L2",
            },
        ).to_pylist()
    if metric == "cosine":
        return [(row["sha256"], 1.0 - float(row["_distance"])) for row in found]
    return [(row["sha256"], -float(np.sqrt(max(0.0, row["_distance"])))) for row in found]


@contextlib.contextmanager
def _readable() -> Any:
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        raise StoreError(f"The vector index failed: {' '.join(str(error).split())[:200]}") from error
