"""Neighbours, map metrics and t-SNE against scikit-learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.manifold import trustworthiness
from sklearn.metrics import silhouette_score
from sklearn.neighbors import KNeighborsClassifier, NearestNeighbors

from convoscope.surveys.ask import metrics, project
from convoscope.surveys.ask.metrics import local_trust, map_metrics
from convoscope.surveys.ask.neighbors import exact, without_self


@pytest.fixture(scope="module")
def digits() -> tuple[np.ndarray, list[str]]:
    pixels, truth = load_digits(return_X_y=True)
    return pixels.astype(np.float32), [str(t) for t in truth]


def test_tsne_passes_the_gate_on_digits(digits: tuple[np.ndarray, list[str]]) -> None:
    vectors, labels = digits
    told: list[tuple[int, int]] = []
    xy, kl = project.tsne(vectors, seed=0, progress=lambda done, total: told.append((done, total)))
    found = map_metrics(vectors, xy, labels)
    assert found["trustworthiness"] >= 0.990
    assert found["continuity"] >= 0.985
    assert found["accuracy_1nn"] >= 0.980
    assert 0.73 <= kl <= 0.77
    assert told[-1] == (750, 750)
    some = vectors[:200]
    assert np.array_equal(project.tsne(some, seed=0)[0], project.tsne(some, seed=0)[0])  # the same seed, the same map
    # new points come to lie among their own class
    vectors, labels = vectors[:900], labels[:900]
    kept = np.arange(len(vectors)) % 15 != 0
    base, _ = project.tsne(vectors[kept], seed=0)
    placed, how = project.place("tsne", vectors[kept], base, vectors[~kept])
    nearest = exact(base, placed, 1, "l2")[0][:, 0]
    names = np.array(labels)
    assert (names[kept][nearest] == names[~kept]).mean() >= 0.95
    assert "t-SNE" in how


def test_metrics_equal_sklearns(digits: tuple[np.ndarray, list[str]]) -> None:
    vectors, labels = digits[0][:700], digits[1][:700]
    for xy in (PCA(2, random_state=0).fit_transform(vectors), np.random.default_rng(0).standard_normal((700, 2))):
        xy = xy.astype(np.float32)
        found = map_metrics(vectors, xy, labels)
        assert found["trustworthiness"] == pytest.approx(trustworthiness(vectors, xy, n_neighbors=10), abs=2e-4)
        assert found["continuity"] == pytest.approx(trustworthiness(xy, vectors, n_neighbors=10), abs=2e-4)
        assert found["silhouette"] == pytest.approx(silhouette_score(xy, labels), abs=1e-5)
        near = NearestNeighbors(n_neighbors=2).fit(xy).kneighbors(return_distance=False)[:, 0]
        names = np.array(labels)
        assert found["accuracy_1nn"] == pytest.approx((names[near] == names).mean(), abs=3e-3)
        near = NearestNeighbors(n_neighbors=10).fit(xy).kneighbors(return_distance=False)
        assert found["purity_10nn"] == pytest.approx((names[near] == names[:, None]).mean(), abs=2e-3)
        true = NearestNeighbors(n_neighbors=10).fit(vectors).kneighbors(return_distance=False)
        both = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(true, near, strict=True)])
        assert found["knn_recall"] == pytest.approx(both, abs=3e-3)
        assert local_trust(vectors, xy).mean() == pytest.approx(both, abs=3e-3)


def test_measured_on_a_sample_the_metrics_are_nearly_the_same(
    digits: tuple[np.ndarray, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = digits[0]
    xy = PCA(2, random_state=0).fit_transform(vectors).astype(np.float32)
    whole = map_metrics(vectors, xy)
    monkeypatch.setattr(metrics, "RANKED", 500)
    part = map_metrics(vectors, xy)
    assert part["points_measured"] == 500
    for name in ("trustworthiness", "continuity", "knn_recall"):
        assert part[name] == pytest.approx(whole[name], abs=0.02)


@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_neighbours_equal_sklearns_brute_force(digits: tuple[np.ndarray, list[str]], metric: str) -> None:
    vectors = digits[0].astype(np.float16)
    oracle = NearestNeighbors(
        n_neighbors=10, algorithm="brute", metric="cosine" if metric == "cosine" else "euclidean"
    )
    distances, which = oracle.fit(vectors.astype(np.float64)).kneighbors(vectors[:200].astype(np.float64))
    found, scores = exact(vectors, vectors[:200], 10, metric)  # type: ignore[arg-type]
    expected = 1 - distances if metric == "cosine" else -distances
    np.testing.assert_allclose(scores, expected, atol=2e-2 if metric == "l2" else 1e-5)
    # ties may come in another order
    assert np.mean([len(set(a) & set(b)) / 10 for a, b in zip(found, which, strict=True)]) > 0.999


def test_pca_equals_sklearns(digits: tuple[np.ndarray, list[str]]) -> None:
    for vectors in (digits[0], digits[0][:30]):
        mean, axes, share = project.principal_axes(vectors)
        oracle = PCA(2, svd_solver="full").fit(vectors)
        np.testing.assert_allclose(np.abs(axes), np.abs(oracle.components_), atol=1e-4)
        assert share == pytest.approx(oracle.explained_variance_ratio_.sum(), rel=1e-4)
        placed, _ = project.place("pca", vectors, (vectors - mean) @ axes.T, vectors[:3] + 1)
        np.testing.assert_allclose(placed, (vectors[:3] + 1 - mean) @ axes.T, rtol=1e-4, atol=1e-3)


@pytest.mark.slow  # numba compiles umap anew in every process
def test_umap_keeps_the_classes(digits: tuple[np.ndarray, list[str]]) -> None:
    pytest.importorskip("umap")
    vectors, labels = digits[0][:400], digits[1][:400]
    xy = project.umap(vectors)
    assert map_metrics(vectors, xy, labels)["accuracy_1nn"] > 0.9
    placed, _ = project.place("umap", vectors, xy, vectors[:20])
    score = KNeighborsClassifier(5).fit(xy, labels).score(placed, labels[:20])
    assert score >= 0.9


def test_own_index_is_dropped_also_among_doubles() -> None:
    points = np.repeat(np.arange(4, dtype=np.float32)[:, None], 3, 0)  # every point three times
    near = without_self(exact(points, points, 3, "l2")[0], 2)
    assert not (near == np.arange(12)[:, None]).any()
    assert (near // 3 == np.arange(12)[:, None] // 3).all()


def test_the_index_finds_what_exact_search_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lance's index on 3,000 vectors, as it is used beyond 200,000: recall measured, and as measured."""
    import pyarrow as pa

    from convoscope.surveys import Store
    from convoscope.surveys.ask import neighbors
    from convoscope.surveys.store.recipe import Embedding, Recipe
    from convoscope.surveys.store.rows import schema

    rng = np.random.default_rng(0)
    centres = rng.standard_normal((30, 32))
    vectors = (centres[rng.integers(0, 30, 3000)] + 0.3 * rng.standard_normal((3000, 32))).astype(np.float16)
    recipe = Recipe("made", "0" * 64, {}, "float32", (), (Embedding("pool", "none", 32, "embedding_0"),), 9, 64, 32)
    store = Store.create(tmp_path / "s", recipe)
    shas = [f"{number:064x}" for number in range(3000)]
    columns = {
        "sha256": shas, "key": range(3000), "unit": ["u"] * 3000, "uri": shas,
        "embedding_0": pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel(), pa.float16()), 32),
    }  # fmt: skip
    shape = schema(recipe)
    table = pa.table(
        [pa.array(columns[f.name], f.type) if f.name in columns else pa.nulls(3000, f.type) for f in shape],
        schema=shape,
    )
    store._tables["pictures"].append(table)
    ledger = store._tables["units"].dataset.schema
    store._tables["units"].append(
        pa.table(
            [pa.array([v], f.type) for f, v in zip(ledger, ["u", 3000, 0, 1.0, 1, 0.0, None], strict=True)],
            schema=ledger,
        )
    )
    truth = store.neighbors(id=shas[7], k=10)
    assert truth.exact
    monkeypatch.setattr(neighbors, "EXACT", 1000)
    for metric in ("cosine", "l2"):
        hits = 0
        for number in range(0, 3000, 150):
            found = store.neighbors(id=shas[number], k=10, metric=metric)  # type: ignore[arg-type]
            assert not found.exact
            assert found.recall >= 0.98
            which, scores = exact(vectors, vectors[number : number + 1], 11, metric)  # type: ignore[arg-type]
            expected = {shas[i] for i in which[0] if i != number}
            hits += len(expected & set(found.ids))
            assert found.rows[0]["similarity"] == pytest.approx(float(scores[0][1]), abs=5e-3)
        assert hits / 200 >= 0.97
    store.close()
