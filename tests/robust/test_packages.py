"""The wheel and the source package hold what they should and nothing else; the package page's links are whole."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from email.parser import Parser
from pathlib import Path

import pytest

from convoscope.version import __version__

ROOT = Path(__file__).resolve().parents[2]
LARGEST = 12_000_000  # the toybox's seven networks are 9 MB and do not shrink


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The wheel and the source package, built from a copy of the tracked files."""
    pytest.importorskip("build")
    pytest.importorskip("hatch_fancy_pypi_readme")
    there = tmp_path_factory.mktemp("build")
    tracked = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, text=True)
    if tracked.returncode:
        pytest.skip("no checkout")
    for name in filter(None, tracked.stdout.split("\0")):
        if (ROOT / name).is_file():
            (there / "src" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, there / "src" / name)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(there / "dist"), str(there / "src")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-1500:]
    return there / "dist"


def test_the_wheel_holds_the_program_and_nothing_else(built):
    (wheel,) = built.glob("*.whl")
    assert wheel.stat().st_size < LARGEST
    names = zipfile.ZipFile(wheel).namelist()
    info = f"convoscope-{__version__}.dist-info/"
    assert {name.partition("/")[0] for name in names} == {"convoscope", info.rstrip("/")}
    there = {str(f.relative_to(ROOT / "src")) for f in (ROOT / "src").rglob("*") if f.is_file()}
    there = {name for name in there if "__pycache__" not in name}
    assert {name for name in names if not name.startswith(info)} == there
    assert {"convoscope/py.typed", "convoscope/web/static/index.html"} <= set(names)
    assert {info + "licenses/LICENSE", info + "licenses/THIRD_PARTY.md", info + "entry_points.txt"} <= set(names)


def test_the_source_package_is_small_and_whole(built):
    (source,) = built.glob("*.tar.gz")
    assert source.stat().st_size < LARGEST
    with tarfile.open(source) as packed:
        names = {name.partition("/")[2] for name in packed.getnames()}
    assert {"pyproject.toml", "README.md", "CHANGELOG.md", "LICENSE", "Makefile", "constraints.txt"} <= names
    assert {"src/convoscope/__init__.py", "tests/conftest.py", "docs/architecture.md"} <= names
    assert not [name for name in names if name.endswith((".png", ".jpg")) and not name.startswith("src/")]


def test_the_package_page_has_whole_addresses_only(built):
    (wheel,) = built.glob("*.whl")
    metadata = zipfile.ZipFile(wheel).read(f"convoscope-{__version__}.dist-info/METADATA").decode()
    said = Parser().parsestr(metadata)
    page = said.get_payload()
    targets = re.findall(r"\]\(([^)\s]+)\)", page)
    assert len(targets) > 10
    assert [target for target in targets if not target.startswith(("https://", "#"))] == []
    assert said["Version"] == __version__
    urls = dict(one.split(", ") for one in said.get_all("Project-URL"))
    assert {"Homepage", "Documentation", "Source", "Issues", "Changelog"} == set(urls)
    # each of ours is a file of this repository
    for target in targets:
        found = re.match(rf"{re.escape(urls['Source'])}/blob/main/([^#]+)", target)
        if found:
            assert (ROOT / found[1]).exists(), target


def test_the_version_stands_in_one_place():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert "version" in project["dynamic"]
    cited = re.search(r"^version: (\S+)$", (ROOT / "CITATION.cff").read_text(encoding="utf-8"), re.M)
    assert cited is not None
    assert cited[1] == __version__
    assert re.search(
        rf"^## \[(Unreleased|{re.escape(__version__)})\]", (ROOT / "CHANGELOG.md").read_text("utf-8"), re.M
    )


def _bounds(requirement: str) -> tuple[str, str] | None:
    from packaging.requirements import Requirement

    one = Requirement(requirement)
    lowest = [part.version for part in one.specifier if part.operator in (">=", "==")]
    return (one.name.lower().replace("_", "-"), lowest[0]) if lowest else None


def test_the_oldest_versions_are_those_that_pyproject_allows():
    from packaging.version import Version

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    named = [
        *project["dependencies"],
        *(one for e, several in extras.items() if e not in ("dev", "docs") for one in several),
    ]
    pinned = dict(
        line.lower().split("==")
        for line in (ROOT / "constraints-oldest.txt").read_text("utf-8").splitlines()
        if "==" in line
    )
    for bound in filter(None, map(_bounds, named)):
        package, lowest = bound
        if package not in pinned:
            continue
        # the first release at or above the bound: nothing between them was ever published
        assert Version(pinned[package]) >= Version(lowest), package
        same = [(*Version(one).release, 0)[:2] for one in (pinned[package], lowest)]
        assert same[0] == same[1], package


def test_third_parties_are_all_named():
    from convoscope.extras import EXTRAS

    text = (ROOT / "THIRD_PARTY.md").read_text(encoding="utf-8").lower()
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    packages = [re.match(r"[\w-]+", one)[0] for one in project["dependencies"]]
    packages += [package for needed in EXTRAS.values() for package in needed.values()]
    assert [package for package in packages if package.lower() not in text] == []


def test_doctor_knows_every_extra():
    from convoscope.extras import EXTRAS

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    users = {name for name in extras if name not in ("all", "test", "dev", "docs", "notebook")}
    assert users == set(EXTRAS)
    for name in users:
        asked = {re.match(r"[\w.-]+", one)[0].lower() for one in extras[name]}
        assert asked == {package.lower() for package in EXTRAS[name].values()}


def test_no_two_files_of_tests_have_one_name() -> None:
    """Tests import their helpers by name: of two such modules the first one met would stand for both."""
    names = [path.name for path in (ROOT / "tests").rglob("*.py") if path.name != "conftest.py"]
    assert sorted(names) == sorted(set(names))
