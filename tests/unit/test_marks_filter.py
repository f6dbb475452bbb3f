"""Notes that can be undone, and the filter of a large collection against plain loops."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from convoscope.errors import StoreError, UsageError
from convoscope.surveys.ask.filter import Columns, Filter, within
from convoscope.surveys.marks import Marks

LABELS = ("ant", "bee", "cat")


def test_notes_are_kept_and_undone_one_by_one(tmp_path: Path) -> None:
    marks = Marks(tmp_path / "marks.jsonl")
    marks.add("tag", ["a", "b"], "  night ")
    marks.add("note", ["a"], "blurred")
    marks.add("label", ["b"], "cat")
    marks.add("remove", ["c"])
    assert marks.tags() == {"night": 2}
    assert marks.tagged("night") == ["a", "b"]
    again = Marks(tmp_path / "marks.jsonl")
    assert again.of("a").to_dict() == {
        "tags": ["night"],
        "note": "blurred",
        "removed": False,
        "label": None,
        "sure": False,
    }
    assert again.of("c").removed
    assert again.undo()["kind"] == "remove"
    assert not again.of("c")
    # the other one sees it, and what both wrote stands in one file
    assert not marks.of("c")
    marks.undo()
    marks.undo()
    marks.undo()
    assert again.all() == {}
    with pytest.raises(UsageError, match="nothing to undo"):
        marks.undo()


def test_bad_notes_and_damaged_files(tmp_path: Path) -> None:
    marks = Marks(tmp_path / "marks.jsonl")
    for kind, about, value in (
        ("tag", ["a"], " "),
        ("tag", [], "x"),
        ("tag", ["a"], "x" * 61),
        ("note", ["a"], "x" * 2001),
    ):
        with pytest.raises(UsageError):
            marks.add(kind, about, value)  # type: ignore[arg-type]
    marks.add("tag", ["a"], "good")
    with (tmp_path / "marks.jsonl").open("a") as file:
        file.write('{"kind": "tag"}\nnonsense\n{"kind": "tag", "about": ["b"], "value": "half')
    assert marks.tags() == {"good": 1}
    assert marks.damaged == 2
    with pytest.raises(StoreError, match="object store"):
        Marks("s3://bucket/marks.jsonl")
    with pytest.raises(StoreError, match="cannot be kept"):
        Marks(tmp_path / "gone" / "marks.jsonl").add("tag", ["a"], "x")
    lines = [json.loads(line) for line in (tmp_path / "marks.jsonl").read_text().splitlines()[:1]]
    assert lines[0]["about"] == ["a"]


def rows(count: int) -> list[dict[str, Any]]:
    random = np.random.default_rng(3)
    made = []
    for number in range(count):
        label = int(random.integers(3)) if random.random() < 0.9 else None
        said = int(random.integers(3)) if random.random() < 0.3 or label is None else label
        made.append({
            "sha256": f"{number:064x}"[::-1], "uri": f"/some/{LABELS[label or 0]}/img-{number:05d}.png",
            "label": None if label is None else LABELS[label], "prediction": LABELS[said],
            "probability": float(np.float32(random.random())), "loss": float(random.random()),
            "phash": number // 2 if number % 10 == 1 else number + 10**6,
            "error": "broken" if number % 500 == 499 else None, "label_index": label, "prediction_index": said,
        })  # fmt: skip
    return made


@pytest.fixture(scope="module")
def held() -> tuple[Columns, dict[str, dict[str, Any]]]:
    made = rows(5000)
    store = SimpleNamespace(table=lambda columns: pa.table({name: [row[name] for row in made] for name in columns}))
    return Columns.of(store), {row["sha256"][:16]: row for row in made}  # type: ignore[arg-type]


def ids(columns: Columns, wanted: Filter, **more: Any) -> list[str]:
    return [columns.ids[int(at)] for at in columns.find(wanted, **more)]


def test_filters_find_what_a_plain_loop_finds(held: Any) -> None:
    columns, plain = held
    good = {id: row for id, row in plain.items() if row["error"] is None}
    known = {id: row for id, row in good.items() if row["label"] is not None}
    assert set(ids(columns, Filter())) == set(good)
    assert set(ids(columns, Filter(state="wrong"))) == {i for i, r in known.items() if r["label"] != r["prediction"]}
    assert set(ids(columns, Filter(state="right", label="bee"))) == {
        i for i, r in known.items() if r["label"] == r["prediction"] == "bee"
    }
    assert set(ids(columns, Filter(state="unlabelled"))) == set(good) - set(known)
    assert set(ids(columns, Filter(low=0.2, high=0.7))) == {
        i for i, r in good.items() if 0.2 <= r["probability"] <= 0.7
    }
    assert set(ids(columns, Filter(search="img-0004 CAT"))) == {
        i for i, r in good.items()
        if "img-0004" in r["uri"] and "cat" in f"{r['uri'].rsplit('/', 1)[1]} {r['label']} {r['prediction']}"
    }  # fmt: skip
    counts: dict[int, int] = {}
    for row in plain.values():
        counts[row["phash"]] = counts.get(row["phash"], 0) + 1
    assert set(ids(columns, Filter(duplicate=True))) == {i for i, r in good.items() if counts[r["phash"]] > 1}
    surest = ids(columns, Filter(state="wrong", order="confidence"))
    chances = [plain[id]["probability"] for id in surest]
    assert chances == sorted(chances, reverse=True)
    first, second = list(good)[:2]
    assert ids(columns, Filter(suspected=True, order="suspicion"), suspects={first: 0.5, second: 0.1}) == [
        second,
        first,
    ]
    assert set(ids(columns, Filter(among=frozenset([first, "nobody"])))) == {first}


def test_notes_count_in_the_filter(held: Any, tmp_path: Path) -> None:
    columns, plain = held
    marks = Marks(None)
    first, second, third = sorted(id for id, row in plain.items() if row["error"] is None)[:3]
    marks.add("tag", [first], "odd")
    marks.add("note", [second], "a ZEBRA crossing")
    marks.add("remove", [third])
    noted = marks.all()
    assert ids(columns, Filter(tag="odd"), marks=noted) == [first]
    assert ids(columns, Filter(search="zebra"), marks=noted) == [second]
    assert ids(columns, Filter(noted=True), marks=noted) == [second]
    assert third not in ids(columns, Filter(), marks=noted)
    assert ids(columns, Filter(removed=True), marks=noted) == [third]


def test_the_lasso_holds_what_the_even_odd_rule_holds(held: Any) -> None:
    columns, plain = held
    points = np.random.default_rng(5).normal(size=(len(columns), 2)).astype(np.float32)
    polygon = ((-1.0, -1.0), (1.5, -0.5), (0.2, 0.1), (1.0, 1.2), (-0.7, 0.9))

    def inside(x: float, y: float) -> bool:
        hit = False
        for (ax, ay), (bx, by) in zip(polygon, (*polygon[1:], polygon[0]), strict=True):
            if (ay > y) != (by > y) and x < (bx - ax) * (y - ay) / (by - ay) + ax:
                hit = not hit
        return hit

    want = np.array([inside(float(x), float(y)) for x, y in points])
    assert (within(points, polygon) == want).all()
    found = set(ids(columns, Filter(lasso=polygon), places=(columns.ids, points)))
    assert found == {columns.ids[i] for i in np.flatnonzero(want) if plain[columns.ids[i]]["error"] is None}


def test_the_matrix_of_confusions(held: Any) -> None:
    columns, plain = held
    names, counts = columns.confusion(columns.find(Filter()))
    assert names == list(LABELS)
    for a, label in enumerate(LABELS):
        for b, said in enumerate(LABELS):
            want = sum(r["label"] == label and r["prediction"] == said and r["error"] is None for r in plain.values())
            assert counts[a, b] == want


def test_bad_filters_are_refused() -> None:
    for bad in ({"state": "odd"}, {"order": "up"}, {"lasso": ((0.0, 0.0), (1.0, 1.0))}):
        with pytest.raises(UsageError):
            Filter(**bad)  # type: ignore[arg-type]
