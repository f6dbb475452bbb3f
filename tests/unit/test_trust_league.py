"""The league table: intervals, paired differences, and every form it is written in."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convoscope.errors import UsageError
from convoscope.trust.chart import chart
from convoscope.trust.cheat import holm
from convoscope.trust.league import League, interval, paired


def test_the_interval_is_the_normal_ones_for_many_values() -> None:
    values = np.random.default_rng(0).normal(3, 2, 400)
    found = interval(values)
    error = values.std() / 20
    assert found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - 1.96 * error, abs=0.25 * error)
    assert found.high == pytest.approx(values.mean() + 1.96 * error, abs=0.25 * error)


def test_the_interval_holds_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    held = 0
    for seed in range(200):
        found = interval(rng.random(60) < 0.3, draws=500, seed=seed)
        held += found.low <= 0.3 <= found.high
    assert 0.88 <= held / 200 <= 0.99


def test_undefined_values_do_not_count() -> None:
    found = interval([1.0, float("nan"), 3.0])
    assert (found.mean, found.n) == (2.0, 2)
    nothing = interval([float("nan")])
    assert nothing.n == 0
    assert nothing.to_dict() == {"mean": None, "low": None, "high": None, "n": 0}


def test_paired_differences_find_what_pairing_shows() -> None:
    rng = np.random.default_rng(2)
    hard = rng.normal(0, 10, 50)
    a, b = hard + 0.5 + rng.normal(0, 0.3, 50), hard
    found = paired(a, b)
    assert found.mean == pytest.approx((a - b).mean())
    assert found.low > 0
    assert found.p < 0.001
    assert paired(a, b).to_dict() == found.to_dict()
    same = paired(b, b)
    assert (same.mean, same.p) == (0, 1)


def test_the_sign_flip_test_is_exact_on_few_values() -> None:
    """Three positive differences: two of the eight flips are as far from zero."""
    assert paired([1.0, 2.0, 4.0], [0.0, 0.0, 0.0]).p == pytest.approx(0.25, abs=0.02)


def test_p_values_are_uniform_where_there_is_nothing() -> None:
    rng = np.random.default_rng(3)
    found = [paired(rng.normal(size=20), rng.normal(size=20), flips=500, seed=k).p for k in range(200)]
    assert 0.01 <= np.mean(np.array(found) < 0.05) <= 0.1


def test_holm_by_hand() -> None:
    found = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": 0.005})
    assert found == pytest.approx({"a": 0.03, "b": 0.06, "c": 0.06, "d": 0.02})


@pytest.fixture
def league() -> League:
    rng = np.random.default_rng(0)
    rows = {}
    for k in range(30):
        rows[f"p{k}"] = {
            "pointing": {"grad-cam": float(rng.random() < 0.9), "saliency": float(rng.random() < 0.6), "random": 0.2},
            "deletion": {"grad-cam": rng.random() * 0.3, "saliency": None if k == 3 else rng.random(), "random": 0.5},
        }
    return League.of(rows, model="net")


def test_the_json_form_is_the_contract(league: League) -> None:
    found = json.loads(json.dumps(league.to_dict(), allow_nan=False))
    cell = found["measures"]["deletion"]["saliency"]
    assert set(cell) == {"mean", "low", "high", "n"}
    assert cell["n"] == 29
    assert cell["low"] <= cell["mean"] <= cell["high"]
    assert found["better"] == {"pointing": "higher", "deletion": "lower"}
    assert found["baselines"] == ["random"]


def test_order_best_and_cells(league: League) -> None:
    assert league.measures == ["pointing", "deletion"]
    assert league.methods == ["grad-cam", "saliency", "random"]
    assert league.best("pointing") == "grad-cam"
    assert league.best("deletion") == "grad-cam"
    assert league.cell("pointing", "random") == "0.200 ±0.000"
    with pytest.raises(UsageError, match="pointing, deletion"):
        league.interval("iou", "random")
    with pytest.raises(UsageError, match="grad-cam, saliency, random"):
        league.interval("pointing", "lime")


def test_csv_markdown_table_and_picture(league: League, tmp_path: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(league.csv())))
    assert len(rows) == 6
    assert float(rows[0]["mean"]) == pytest.approx(league.interval("pointing", "grad-cam").mean, abs=1e-5)
    lines = league.markdown().splitlines()
    assert lines[0] == "| method | pointing ↑ | deletion ↓ |"
    assert "**" in lines[2]
    assert "*random*" in lines[4]
    table = league.table()
    assert table.row_count == 3
    files = league.save(tmp_path / "new")
    assert [file.name for file in files] == ["league.json", "league.csv", "league.md", "league.png"]
    with Image.open(files[3]) as picture:
        assert min(picture.size) > 200


def test_the_picture_names_every_method_and_measure(league: League) -> None:
    league.cases["road"] = {"grad-cam": np.full(30, np.nan)}
    drawing = chart(league).drawing
    texts = [text.text for text in drawing.texts()]
    for name in ("grad-cam", "saliency", "random", "pointing ↑", "deletion ↓", "road ↑"):
        assert name in texts
    for text in drawing.texts():
        left, top, right, bottom = text.bounds
        assert left >= 0
        assert top >= 0
        assert right <= drawing.width
        assert bottom <= drawing.height


def test_bold_only_where_the_paired_difference_says_so():
    rng = np.random.default_rng(0)
    hard = rng.random(60)
    near = {f"p{k}": {"iou": {"a": hard[k], "b": hard[k] + 0.02 * rng.normal(), "random": 1.0}} for k in range(60)}
    league = League.of(near)
    assert league.best("iou") in ("a", "b")
    assert league.leader("iou") is None
    assert "textbf" not in league.latex()
    assert "**" not in league.markdown()
    # pairing sees what the means' own intervals do not: a is always a little better
    far = {f"p{k}": {"iou": {"a": hard[k] + 0.02, "b": hard[k], "random": 1.0}} for k in range(60)}
    league = League.of(far)
    one, other = league.interval("iou", "a"), league.interval("iou", "b")
    assert one.low < other.high
    assert league.leader("iou") == "a"
    assert rf"\textbf{{{one.mean:.3f}}}" in league.latex()


def test_where_less_is_better_the_least_leads():
    league = League.of({f"p{k}": {"deletion": {"a": 0.1 + 0.001 * k, "b": 0.5}} for k in range(20)})
    assert league.leader("deletion") == "a"


def test_no_cell_reaches_above_one_or_below_zero():
    """39 of 40 hits: 0.975 ± 0.05 would say that 1.025 is possible."""
    values = [1.0] * 39 + [0.0]
    cell = League.of({f"p{k}": {"pointing": {"a": v}} for k, v in enumerate(values)}).cell("pointing", "a")
    found = re.fullmatch(r"0\.975 \[(0\.\d+), (\d\.\d+)\]", cell)
    assert found, cell
    assert float(found[2]) <= 1
