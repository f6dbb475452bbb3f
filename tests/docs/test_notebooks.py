"""The notebooks run from the first cell to the last, on the toybox; and what a notebook shows of results and errors."""

from __future__ import annotations

import re

import pytest
from snippets import ROOT

import convoscope as cs

FOLDER = ROOT / "examples" / "notebooks"
#: seconds on one thread; the figure's runs every time
LONG = {"tour", "mend_a_checkpoint"}


@pytest.fixture(autouse=True)
def this_checkout(monkeypatch):
    """The kernel, which stands in another folder, imports the program that is tested."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT / "src"))


def executed(notebook, cwd):
    nbclient = pytest.importorskip("nbclient")
    client = nbclient.NotebookClient(
        notebook, timeout=500, kernel_name="python3", resources={"metadata": {"path": cwd}}
    )
    client.execute()
    return notebook


def names():
    return [
        pytest.param(file, id=file.stem, marks=[pytest.mark.slow] if file.stem in LONG else [])
        for file in sorted(FOLDER.glob("*.ipynb"))
    ]


@pytest.mark.parametrize("file", names())
def test_a_notebook_runs_to_its_end_and_shows_pictures(file, tmp_path):
    nbformat = pytest.importorskip("nbformat")
    notebook = executed(nbformat.read(file, as_version=4), tmp_path)
    shown = [
        kind
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        for kind in output.get("data", {})
        if kind in ("image/png", "text/html")
    ]
    assert len(shown) >= 2


@pytest.mark.parametrize("file", [pytest.param(file, id=file.stem) for file in sorted(FOLDER.glob("*.ipynb"))])
def test_a_notebook_is_kept_without_outputs(file):
    nbformat = pytest.importorskip("nbformat")
    notebook = nbformat.read(file, as_version=4)
    nbformat.validate(notebook)
    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in notebook.cells)
    assert notebook.cells[0].cell_type == "markdown"


def test_in_a_notebook_an_error_is_one_sentence_and_long_work_one_bar(tmp_path):
    nbformat = pytest.importorskip("nbformat")
    cells = [
        "import convoscope as cs\nfrom convoscope.toybox import draw\n"
        "model, cat = cs.open_model('toybox'), draw(1).image",
        "cs.explain(model, cat, 'grad-cam', target='unicorn')",
        "from convoscope import notebook\nnotebook.PATIENCE = notebook.STEP = 0\n"
        "found = cs.visualize(model, 'cup', steps=6)\nfound",
        "import urllib.request\nwith cs.serve(model) as page:\n"
        "    policy = urllib.request.urlopen(page.url).headers['content-security-policy']\n"
        "    display(page)\nprint(policy)",
    ]
    made = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(text) for text in cells])
    made.cells[1].metadata["tags"] = ["raises-exception"]
    outputs = [cell.get("outputs", []) for cell in executed(made, tmp_path).cells]
    (error,) = outputs[1]
    assert error["output_type"] == "error"
    assert len(error["traceback"]) == 1
    assert error["traceback"][0].startswith("TargetError: ")
    bars = [
        one
        for one in outputs[2]
        if "<pre>Visualizing" in str(one.get("data", {})) or one.get("data", {}).get("text/html") == ""
    ]
    assert len({one.get("transient", {}).get("display_id", "") for one in bars}) <= 1
    assert any("image/png" in one.get("data", {}) for one in outputs[2])
    assert not any(one["output_type"] == "stream" and "█" in one["text"] for one in outputs[2])
    frame = next(one["data"]["text/html"] for one in outputs[3] if "text/html" in one.get("data", {}))
    assert re.search(r'<iframe src="http://127\.0\.0\.1:\d+/"', frame)
    said = next(one["text"] for one in outputs[3] if one["output_type"] == "stream")
    assert "frame-ancestors http://localhost:*" in said


def test_the_bar_says_what_and_how_much(monkeypatch):
    from convoscope import notebook

    line = notebook.Line("Work")
    assert re.fullmatch(r"Work: grad-cam  █{15}░{15}  5 of 10, \d+ s", line.text("grad-cam", 5, 10))
    assert "3 of 4" in line.text(3, 4)
    assert "2 of 8" in line.text(type("Progress", (), {"done": 2, "total": 8})())
    assert "0 of 0" in line.text("reading", 0, 0)


def test_only_the_outermost_work_shows_a_bar(monkeypatch):
    from convoscope import notebook

    seen = []
    monkeypatch.setattr(notebook, "in_notebook", lambda: True)

    @notebook.shows_progress("inner")
    def inner(progress=None):
        seen.append(progress)

    @notebook.shows_progress("outer")
    def outer(progress=None):
        seen.append(progress)
        inner()

    outer()
    assert seen[0].what == "outer"
    assert seen[1] is None
    own = lambda *said: None  # noqa: E731
    inner(progress=own)
    assert seen[2] is own
    inner(own)
    assert seen[3] is own


def test_outside_a_notebook_nothing_is_shown():
    from convoscope import notebook

    assert notebook.in_notebook() is False


def test_tables_show_themselves(tmp_path):
    from convoscope.toybox import write

    model = cs.open_model("toybox")
    listed = cs.layers(model)
    assert isinstance(listed, list)
    html = listed._repr_html_()
    assert html.count("<tr>") == len(listed) + 1
    assert "★" in html
    write(tmp_path / "pictures", 4, seed=1)
    store = cs.survey(model, tmp_path / "pictures", tmp_path / "store", layers=["layer3"])
    assert "4 pictures" in store._repr_html_()
    units = store.units()
    assert units._repr_html_().count("<tr>") == min(60, len(units.rows)) + 1
    assert "more rows" in units._repr_html_() or len(units.rows) <= 60
    assert len(repr(units)) < 600
    frame = next(cs.visualize_frames(model, "cup", steps=2, every=1))
    assert '<img src="data:image/png' in frame._repr_html_()
    assert len(repr(frame)) < 300
    made = cs.visualize(model, "layer3:5", steps=1, recipe="fourier")
    assert repr(made).startswith("Visualization(layer3:5, fourier, seed 0, 1 steps: score ")
    assert len(repr(made)) < 300


def test_the_whole_traceback_is_there_for_who_asks(monkeypatch):
    error = cs.TargetError("No such class.")
    assert error._render_traceback_() == ["TargetError: No such class."]
    monkeypatch.setenv("CONVOSCOPE_TRACEBACK", "1")
    with pytest.raises(cs.TargetError) as caught:
        raise error
    assert "Traceback" in "".join(caught.value._render_traceback_())


def test_serve_refuses_in_one_sentence(tmp_path):
    with pytest.raises(cs.UsageError, match="no such folder"):
        cs.serve("toybox", tmp_path / "nothing")
    with pytest.raises(cs.UsageError, match="height"):
        cs.serve("toybox", tmp_path, height=5)


def test_a_served_page_begins_and_ends(tmp_path):
    import urllib.request

    from convoscope.toybox import write

    write(tmp_path, 2, seed=1)
    page = cs.serve("toybox", tmp_path)
    assert page.running
    with urllib.request.urlopen(f"{page.url}/api/model") as answer:
        assert answer.status == 200
        assert "X-Frame-Options" not in answer.headers
    assert "iframe" in page._repr_html_()
    with pytest.raises(cs.UsageError, match="Cannot listen"):
        cs.serve("toybox", tmp_path, port=int(page.url.rpartition(":")[2]))
    page.stop()
    assert not page.running
    assert "stopped" in repr(page)
    assert "stopped" in page._repr_html_()
