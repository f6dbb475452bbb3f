"""From many dimensions to two: t-SNE (openTSNE), UMAP, PCA; and placing new points into what is there."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from ...errors import MissingExtra, UsageError
from .neighbors import exact

Points = NDArray[np.float32]
Projection = Literal["tsne", "umap", "pca"]
Tell = Callable[[int, int], None]
#: fewest points that make a map
FEWEST = 5


def check(method: str, count: int) -> None:
    """Raise :class:`UsageError` where there is no such projection, or too few points."""
    if method not in ("tsne", "umap", "pca"):
        raise UsageError(f"The map's method must be tsne, umap or pca, not {method!r}.")
    if count < FEWEST:
        raise UsageError(f"A map needs at least {FEWEST} pictures; there are {count}.")


def tsne(
    vectors: Points, *, perplexity: float = 30.0, seed: int = 0, progress: Tell | None = None
) -> tuple[Points, float]:
    """t-SNE (van der Maaten & Hinton 2008) by openTSNE (Poličar et al. 2024): points ``[N, 2]`` and the KL
    divergence.

    Exact neighbours (faiss), PCA initialisation, 250 iterations of early exaggeration and 500 after: deterministic
    for one seed and one number of threads.
    """
    library = _open_tsne()
    total = 750
    done = [0]

    def tell(_iteration: int, _error: float, _embedding: Any) -> bool:
        done[0] += 50
        if progress is not None:
            progress(min(done[0], total), total)
        return False

    affinities = _affinities(vectors, perplexity, seed)
    from openTSNE import initialization

    start = initialization.pca(vectors, random_state=seed)
    settings = library.TSNE(
        perplexity=perplexity, random_state=seed, n_jobs=jobs(len(vectors)), callbacks=tell, callbacks_every_iters=50
    )
    embedding = settings.fit(affinities=affinities, initialization=start)
    return np.asarray(embedding, np.float32), float(embedding.kl_divergence)


def jobs(count: int) -> int:
    """Threads for so many points: one where starting others costs more than they save."""
    import torch

    return 1 if count <= 2000 else torch.get_num_threads()


def _open_tsne() -> Any:
    try:
        import openTSNE
    except ImportError:
        raise MissingExtra("openTSNE", "survey", "A t-SNE map") from None
    return openTSNE


def _affinities(vectors: Points, perplexity: float, seed: int) -> Any:
    from openTSNE.affinity import PerplexityBasedNN

    perplexity = min(perplexity, (len(vectors) - 1) / 3)
    k = min(len(vectors) - 1, int(3 * perplexity))
    return PerplexityBasedNN(
        perplexity=perplexity,
        knn_index=_faiss_index(vectors, k),
        random_state=seed,
        n_jobs=jobs(len(vectors)),
        k_neighbors=k,
    )


def _faiss_index(vectors: Points, k: int) -> Any:
    """openTSNE's neighbour index, answered exactly by faiss."""
    from openTSNE.nearest_neighbors import KNNIndex

    class Exact(KNNIndex):  # type: ignore[misc]
        VALID_METRICS = ["euclidean"]  # noqa: RUF012 (the name is openTSNE's)

        def build(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
            which, scores = exact(vectors, vectors, self.k + 1, "l2")
            own = which == np.arange(len(which))[:, None]
            own[~own.any(1), -1] = True
            keep = ~own
            return (
                which[keep].reshape(len(which), -1),
                -scores[keep].reshape(len(which), -1).astype(np.float64),
            )

        def query(self, query: Points, k: int) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
            which, scores = exact(vectors, query, k, "l2")
            return which, -scores.astype(np.float64)

    return Exact(vectors, k, metric="euclidean")


def umap(vectors: Points, *, neighbors: int = 15, seed: int = 0) -> Points:
    """UMAP (McInnes et al. 2018) by umap-learn: points ``[N, 2]``."""
    try:
        from umap import UMAP
    except ImportError:
        raise MissingExtra("umap-learn", "umap", "A UMAP map") from None
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a fixed seed means one thread, and umap says so every time
        reducer = UMAP(n_neighbors=min(neighbors, len(vectors) - 1), random_state=seed, init="pca")
        return np.asarray(reducer.fit_transform(vectors), np.float32)


def principal_axes(vectors: Points) -> tuple[Points, Points, float]:
    """The mean, the two principal axes ``[2, D]`` and their share of the variance. The larger side of an axis
    is plus.
    """
    mean = vectors.mean(0)
    wide = (vectors - mean).astype(np.float64)
    if len(wide) > wide.shape[1]:
        values, axes = np.linalg.eigh(wide.T @ wide)
        order = np.argsort(values)[::-1][:2]
        chosen, total = axes[:, order].T, values.sum()
        share = values[order].sum() / total if total > 0 else 1.0
    else:
        _, scales, rows = np.linalg.svd(wide, full_matrices=False)
        chosen, total = rows[:2], (scales**2).sum()
        share = (scales[:2] ** 2).sum() / total if total > 0 else 1.0
    if len(chosen) < 2:
        chosen = np.concatenate([chosen, np.zeros((2 - len(chosen), wide.shape[1]))])
    signs = np.sign(chosen[np.arange(2), np.abs(chosen).argmax(1)])
    chosen = chosen * np.where(signs == 0, 1, signs)[:, None]
    return mean, chosen.astype(np.float32), float(share)


def place(method: str, vectors: Points, points: Points, new: Points, seed: int = 0) -> tuple[Points, str]:
    """Where ``new`` ``[M, D]`` lies on the map ``points`` of ``vectors``, and a sentence on how it was placed."""
    if method == "pca":
        mean, axes, _ = principal_axes(vectors)
        return np.asarray((new - mean) @ axes.T, np.float32), "projected on the same two axes"
    if method == "tsne":
        library = _open_tsne()
        affinities = _affinities(vectors, 30.0, seed)
        embedding = library.TSNEEmbedding(
            points.astype(np.float64), affinities, random_state=seed, n_jobs=jobs(len(vectors))
        )
        # not embedding.transform(), which on an embedding put together again moves points away from their neighbours
        partial = embedding.prepare_partial(
            new, initialization="median", k=min(10, len(vectors) - 1), perplexity=min(5.0, (len(vectors) - 1) / 3)
        )
        placed = partial.optimize(250, learning_rate=0.1, exaggeration=1.5, momentum=0.8)
        return np.asarray(placed, np.float32), "moved by t-SNE among the fixed points of the map"
    which, scores = exact(vectors, new, min(10, len(vectors)), "l2")
    weights = 1.0 / np.maximum(-scores, 1e-6)
    weights /= weights.sum(1, keepdims=True)
    return (points[which] * weights[:, :, None]).sum(1).astype(np.float32), (
        "at the mean of its ten nearest neighbours, weighted by nearness"
    )
