"""Lance's vector index for stores too large for exact search, with its recall measured.

IVF partitions with an HNSW graph over scalar-quantised vectors, or product-quantised ones, and exact comparison of
the best candidates (Jégou et al. 2011; Malkov and Yashunin 2020). Rows that came after the index was built are
searched exactly beside it, so answers are never stale; once they are more than a tenth, the index is refreshed in
the background while the old one goes on answering.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...errors import ConvoscopeError, StoreError
from ..ask.neighbors import Metric, exact, read_index_record, unit_length
from .lance_table import write_json

if TYPE_CHECKING:
    from .recipe import Embedding
    from .store import Store

Kind = Literal["IVF_HNSW_SQ", "IVF_PQ"]

#: how many times k candidates are compared exactly: without it, recall@10 of quantised vectors is poor
REFINE = 10
#: the most that is tried where the quantiser alone costs recall
REFINE_MOST = 80
#: recall@10 that is asked of an index on the store's own pictures; as few partitions are read as reach it
RECALL = 0.99
#: share of new rows at which an index is refreshed
STALE = 0.1
#: rows above which product quantisation is taken: its index is a sixth of the size
LARGE = 20_000_000
_MEASURED = 200
_building: dict[tuple[str, str], threading.Thread] = {}
_guard = threading.Lock()


def search(
    store: Store, embedding: Embedding, vector: NDArray[np.float32], k: int, metric: Metric
) -> tuple[list[tuple[str, float]], float]:
    """The ``k`` nearest by the index: (content hash, similarity), and its measured recall@10.

    A missing index is built first; one of which more than a tenth of the rows are new goes on answering while it is
    refreshed in the background (:func:`wait` waits for that).
    """
    name = f"{embedding.column}-{metric}"
    record = read_index_record(store)
    dataset = store.pictures_dataset()
    if name not in record:
        record = build(store, embedding, metric)
        dataset = store.pictures_dataset()
    elif stale(record[name], dataset.count_rows()):
        _in_background(store, embedding, metric)
    about = record[name]
    found = _nearest(dataset, embedding, vector, k, metric, about["probes"], about["refine"])
    return found, float(about["recall"])


def stale(about: dict[str, Any], rows: int) -> bool:
    """Whether more than a tenth of ``rows`` came after the index was built, or as many were removed."""
    return abs(rows - int(about["rows"])) > STALE * rows


def _in_background(store: Store, embedding: Embedding, metric: Metric) -> None:
    key = (store.path, f"{embedding.column}-{metric}")

    def work() -> None:
        from .store import Store as Opened

        try:
            # another view of the store: this one's version must not move while it answers
            build(Opened.open(store.path), embedding, metric)
        except ConvoscopeError as error:  # the old index goes on answering
            store.notes.append(f"The vector index could not be refreshed: {error}")
        finally:
            with _guard:
                _building.pop(key, None)

    with _guard:
        if key not in _building:
            _building[key] = threading.Thread(target=work, name="index", daemon=True)
            _building[key].start()


def wait(seconds: float | None = None) -> bool:
    """Wait for the indexes that are being refreshed; whether all are done."""
    until = None if seconds is None else time.monotonic() + seconds
    with _guard:
        threads = list(_building.values())
    for thread in threads:
        thread.join(None if until is None else max(0.0, until - time.monotonic()))
    return not any(thread.is_alive() for thread in threads)


def build(store: Store, embedding: Embedding, metric: Metric = "cosine", kind: Kind | None = None) -> dict[str, Any]:
    """Build (or rebuild) the index of an embedding and measure recall@10 on pictures of the store against faiss.

    Returns the record of all indexes. Raises :class:`StoreError` where the store cannot be written.
    """
    dataset = store.pictures_dataset()
    rows = dataset.count_rows()
    name = f"{embedding.column}-{metric}"
    started = time.perf_counter()
    with _readable():
        # the rows of an answer are then found by their hash, not by reading the whole column
        dataset.create_scalar_index("sha256", "BTREE", replace=True)
        about = create(dataset, embedding.column, metric, kind or ("IVF_PQ" if rows > LARGE else "IVF_HNSW_SQ"), name)
    seconds = time.perf_counter() - started
    store.refresh()
    partitions = about["partitions"]
    measured = Measured.of(store, embedding, metric)
    probes, refine = 1, REFINE
    recall = measured.recall(store, embedding, metric, probes)
    while recall < RECALL and (probes < partitions or refine < REFINE_MOST):
        # first more partitions; where all are read, what is lost is the quantiser's, and more candidates mend it
        if probes < partitions:
            probes = min(partitions, probes * 2)
        else:
            refine *= 2
        recall = measured.recall(store, embedding, metric, probes, refine)
    about |= {"rows": rows, "probes": probes, "refine": refine, "recall": recall, "seconds": seconds}
    record = read_index_record(store) | {name: about}
    write_json(store.path, "index.json", record)
    return record


def create(dataset: Any, column: str, metric: Metric, kind: Kind, name: str) -> dict[str, Any]:
    """Build Lance's index over ``column`` of a dataset; its kind and number of partitions."""
    rows = dataset.count_rows()
    partitions = int(np.clip(round(np.sqrt(rows)), 1, 4096))
    settings: dict[str, Any] = {}
    if kind == "IVF_HNSW_SQ":
        partitions = max(1, partitions // 4)  # the graph within a partition makes large ones cheap
    else:
        width = dataset.schema.field(column).type.list_size
        settings["num_sub_vectors"] = next(n for n in range(max(1, width // 8), 0, -1) if width % n == 0)
    dataset.create_index(
        column, kind, name=name, metric="cosine" if metric == "cosine" else "L2", num_partitions=partitions,
        replace=True, **settings,
    )  # fmt: skip
    return {"kind": kind, "partitions": partitions}


@dataclass(frozen=True, eq=False)
class Measured:
    """Stored pictures, evenly chosen, and their true neighbours: what an index is measured on."""

    queries: NDArray[np.float32]
    truth: list[set[str]]

    @classmethod
    def of(cls, store: Store, embedding: Embedding, metric: Metric) -> Measured:
        ids, vectors = store.embeddings(embedding.layer)
        picked = np.linspace(0, len(ids) - 1, min(_MEASURED, len(ids))).astype(int)
        queries = vectors[picked].astype(np.float32)
        rows = exact_in_parts(vectors, queries, 10, metric)
        return cls(queries, [{ids[i] for i in row if i >= 0} for row in rows])

    def recall(self, store: Store, embedding: Embedding, metric: Metric, probes: int, refine: int = REFINE) -> float:
        """Recall@10 with so many partitions read and candidates compared."""
        dataset = store.pictures_dataset()
        hits = 0
        for query, wanted in zip(self.queries, self.truth, strict=True):
            found = _nearest(dataset, embedding, query, 10, metric, probes, refine)
            hits += len({sha for sha, _ in found} & wanted)
        return hits / max(1, sum(map(len, self.truth)))


def exact_in_parts(
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
    dataset: Any, embedding: Embedding, vector: NDArray[np.float32], k: int, metric: Metric, probes: int,
    refine: int = REFINE,
) -> list[tuple[str, float]]:  # fmt: skip
    query = unit_length(vector[None])[0] if metric == "cosine" else vector
    with _readable():
        found = dataset.to_table(
            columns=["sha256", "_distance"],
            nearest={
                "column": embedding.column,
                "q": query.astype(np.float16),
                "k": k,
                "nprobes": probes,
                "refine_factor": refine,
                "metric": "cosine" if metric == "cosine" else "L2",
            },
        ).to_pylist()
    if metric == "cosine":
        return [(row["sha256"], 1.0 - float(row["_distance"])) for row in found]
    return [(row["sha256"], -float(np.sqrt(max(0.0, row["_distance"])))) for row in found]


@contextlib.contextmanager
def _readable() -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        raise StoreError(f"The vector index failed: {' '.join(str(error).split())[:200]}") from error
