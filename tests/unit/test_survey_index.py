"""The vector index: its recall is what is measured, new rows are found at once, a refresh runs beside the answers."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from convoscope import wrap
from convoscope.errors import StoreError
from convoscope.surveys import Store
from convoscope.surveys.ask import neighbors
from convoscope.surveys.gather.work import ShardResult
from convoscope.surveys.store import index
from convoscope.surveys.store.accumulators import State
from convoscope.surveys.store.index import build, exact_in_parts, search, stale, wait
from convoscope.surveys.store.recipe import make_recipe
from convoscope.surveys.store.rows import schema

pa = pytest.importorskip("pyarrow")
WIDTH = 32


def fill(path: Path, rows: int, first: int = 0) -> Store:
    """A store of ``rows`` made-up vectors around 20 centres, written as a survey would; more are added to it."""
    import torch
    from torch import nn

    if (path / "units.lance").exists():
        store = Store.open(path, write=True)
    else:
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(3, WIDTH, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(WIDTH, 3)
        )
        store = Store.create(path, replace(make_recipe(wrap(net.eval(), size=16)), top=2))
    draw = np.random.default_rng(first)
    centres = np.random.default_rng(99).normal(size=(20, WIDTH))
    vectors = (centres[draw.integers(0, 20, rows)] + 0.5 * draw.normal(size=(rows, WIDTH))).astype(np.float16)
    names = [hashlib.sha256(str(first + n).encode()).hexdigest() for n in range(rows)]
    unit = hashlib.sha256(str(first).encode()).hexdigest()[:32]
    embedding = store.recipe.embedding(None)
    kinds = schema(store.recipe)
    columns = {field.name: pa.nulls(rows, field.type) for field in kinds}
    columns |= {"sha256": pa.array(names), "unit": pa.array([unit] * rows), "uri": pa.array(names)}
    columns[embedding.column] = pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), WIDTH)
    state = State.empty(store.recipe.channels, 2, store.recipe.sample)
    store.commit(ShardResult(unit, pa.table(columns, schema=kinds), state, 1.0, 1))
    store.close()
    return store


@pytest.mark.parametrize("kind", ["IVF_HNSW_SQ", "IVF_PQ"])
@pytest.mark.parametrize("metric", ["cosine", "l2"])
def test_the_recall_that_is_told_is_the_true_one(tmp_path: Path, kind: str, metric: str) -> None:
    store = fill(tmp_path / "store", 4000)
    embedding = store.recipe.embedding(None)
    about = build(store, embedding, metric, kind)[f"{embedding.column}-{metric}"]  # type: ignore[arg-type]
    assert about["recall"] >= 0.98
    assert about["kind"] == kind
    ids, vectors = store.embeddings()
    queries = vectors[5:4000:19].astype(np.float32)  # others than those it was measured on
    truth = exact_in_parts(vectors, queries, 10, metric, part=700)  # type: ignore[arg-type]
    whole = neighbors.exact(vectors, queries, 10, metric)[0]  # type: ignore[arg-type]
    assert (truth == whole).mean() > 0.995  # in parts as in one, but for ties
    hits = 0
    for query, wanted in zip(queries, whole, strict=True):
        found, told = search(store, embedding, query, 10, metric)  # type: ignore[arg-type]
        hits += len({sha for sha, _ in found} & {ids[i] for i in wanted})
    assert told == about["recall"]
    assert abs(hits / whole.size - told) < 0.03


def test_new_rows_are_found_at_once_and_a_tenth_of_them_refreshes_the_index(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = fill(tmp_path / "store", 2000)
    embedding = store.recipe.embedding(None)
    build(store, embedding)
    builds: list[int] = []
    real = index.build
    monkeypatch.setattr(index, "build", lambda s, *rest: builds.append(1) or real(s, *rest))

    def nearest_is_itself(last: int) -> None:
        ids, vectors = Store.open(tmp_path / "store").embeddings()
        found, _ = search(store, embedding, vectors[last].astype(np.float32), 1, "cosine")
        assert found[0][0] == ids[last]

    fill(tmp_path / "store", 150, first=2000)
    nearest_is_itself(2100)  # not in the index, found all the same
    assert not builds
    fill(tmp_path / "store", 150, first=2150)
    nearest_is_itself(2250)
    assert wait(60)
    assert len(builds) == 1
    assert neighbors.read_index_record(store)[f"{embedding.column}-cosine"]["rows"] == 2300
    nearest_is_itself(2299)
    assert len(builds) == 1


def test_a_refresh_that_fails_is_noted_and_the_old_index_answers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = fill(tmp_path / "store", 600)
    embedding = store.recipe.embedding(None)
    build(store, embedding)
    fill(tmp_path / "store", 200, first=600)

    def fail(*_: object) -> None:
        raise StoreError("no room")

    monkeypatch.setattr(index, "build", fail)
    vector = store.embeddings()[1][3].astype(np.float32)
    assert search(store, embedding, vector, 5, "cosine")[0]
    wait(60)
    assert any("could not be refreshed: no room" in note for note in store.notes)


def test_the_recall_stands_beside_the_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = fill(tmp_path / "store", 600)
    monkeypatch.setattr(neighbors, "EXACT", 100)
    found = store.neighbors(id=store.embeddings()[0][7], k=5)
    assert not found.exact
    assert 0.9 < found.recall <= 1.0
    about = neighbors.read_index_record(store)[f"{store.recipe.embedding(None).column}-cosine"]
    assert found.recall == about["recall"]
    assert len(found.rows) == 5


def test_stale_is_more_than_a_tenth() -> None:
    assert not stale({"rows": 90}, 100)
    assert stale({"rows": 89}, 100)
    assert stale({"rows": 120}, 100)
