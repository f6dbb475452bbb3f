"""The site: every public name and command has a page, every page opens with a picture, no link leads nowhere."""

from __future__ import annotations

import importlib.util
import inspect
import re
import sys
from pathlib import Path
from urllib.parse import unquote

import pytest
from snippets import ROOT, pages

import convoscope as cs

DOCS = ROOT / "docs"
PICTURES = DOCS / "pictures"


@pytest.fixture(scope="module")
def hooks():
    spec = importlib.util.spec_from_file_location("site_hooks", DOCS / "site_hooks.py")
    module = importlib.util.module_from_spec(spec)
    before = list(sys.path)
    spec.loader.exec_module(module)
    sys.path[:] = before
    return module


def test_every_public_name_stands_in_the_reference_once(hooks):
    named = [name for names in hooks.API.values() for name in names]
    assert sorted(named) == sorted(name for name in cs.__all__ if name != "__version__")


@pytest.mark.parametrize("name", [name for name in cs.__all__ if name not in ("__version__", "METHODS")])
def test_every_public_name_is_documented(name):
    """A sentence at least; of functions also what they take and give."""
    one = getattr(cs, name)
    said = inspect.getdoc(one) if inspect.isfunction(one) else one.__doc__
    assert said
    assert not said.startswith(f"{name}("), "a dataclass's own signature is no documentation"
    assert re.search(r"[.:]$", said, re.M), f"{name}: no sentence"
    if inspect.isfunction(one) and len(inspect.signature(one).parameters) > 1:
        assert "Args:" in said, f"{name}: its arguments are not told"
        assert re.search(r"Returns|Yields|->", said), f"{name}: what it gives is not told"


def test_every_command_stands_in_the_reference(hooks):
    page = hooks.commands()
    paths = [path for path, _ in hooks.walk()]
    assert {"explain", "concepts tcav", "store verify", "rerun", "repair"} <= set(paths)
    for path, command in hooks.walk():
        assert f"\n## convoscope {path}\n" in page
        assert (command.help or "").strip(), f"{path} says nothing of itself"
        for one in command.params:
            if one.param_type_name == "option" and one.name != "help":
                assert getattr(one, "help", None), f"{path} {one.name} says nothing of itself"
                assert f"`{one.opts[0]}`" in page


@pytest.mark.parametrize("name", pages())
def test_every_page_opens_with_a_picture_that_is_there(name):
    lines = [line for line in pages()[name].read_text(encoding="utf-8").splitlines() if line.strip()]
    assert lines[0].startswith("# ")
    found = re.match(r"!\[([^\]]+)\]\(([^)]+)\)", lines[1])
    assert found, f"{name} opens with {lines[1][:60]!r}"
    if PICTURES.is_dir():  # the source package leaves them in the repository
        assert (pages()[name].parent / found[2]).is_file()


def _anchors(page: Path) -> set[str]:
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    found = set()
    for title in re.findall(r"^#+\s+(.*)$", text, re.M):
        plain = re.sub(r"[`*]", "", title).lower()
        found.add(re.sub(r"[\s]+", "-", re.sub(r"[^\w\s-]", "", plain)).strip("-"))
    return found


@pytest.mark.parametrize("name", pages())
def test_every_link_leads_somewhere(name):
    """Offline: files and headings of this repository."""
    page = pages()[name]
    text = re.sub(r"```.*?```|`[^`]*`", "", page.read_text(encoding="utf-8"), flags=re.S)
    made = {"reference/api.md", "reference/commands.md"}
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = unquote(target).partition("#")
        file = (page.parent / path).resolve() if path else page
        if file.is_relative_to(DOCS) and file.relative_to(DOCS).as_posix() in made:
            continue
        if file.is_relative_to(PICTURES) and not PICTURES.is_dir():
            continue
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in _anchors(file)):
            broken.append(target)
    assert broken == []


def test_every_page_is_in_the_navigation():
    text = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    named = set(re.findall(r"[\w/-]+\.md", text))
    there = {str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")}
    assert named - {"reference/api.md", "reference/commands.md"} == there


def test_ten_questions_have_a_page_each():
    rows = [
        line for line in (DOCS / "questions.md").read_text(encoding="utf-8").splitlines() if re.match(r"\| \d", line)
    ]
    assert len(rows) == 10
    assert all("](" in row for row in rows)


@pytest.mark.slow
def test_the_site_is_built_strictly(tmp_path):
    pytest.importorskip("material")
    pytest.importorskip("mkdocstrings")
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    config = load_config(str(ROOT / "mkdocs.yml"), site_dir=str(tmp_path / "site"), strict=True)
    config.plugins.on_startup(command="build", dirty=False)
    build(config)
    api = (tmp_path / "site" / "reference" / "api.html").read_text(encoding="utf-8")
    for name in cs.__all__:
        if name != "__version__":
            assert f'id="convoscope.{name}"' in api, name
    fetched = [
        one
        for page in (tmp_path / "site").rglob("*.html")
        for one in re.findall(r'<(?:script|img|link)[^>]+(?:src|href)="(https?:[^"]+)"', page.read_text("utf-8"))
        if 'rel="canonical"' not in one
    ]
    assert fetched == [], "the site fetches from elsewhere when it is read"
