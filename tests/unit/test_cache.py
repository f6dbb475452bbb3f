"""Where what can be made again is kept, and that `off` is a word and no folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from convoscope.cache import cache_folder, working_folder
from convoscope.toybox.ward import store
from convoscope.web.build_survey import store_for


@pytest.mark.parametrize("word", ["off", "OFF", "0", "none", ""])
def test_off_is_no_folder(word: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CONVOSCOPE_CACHE", word)
    assert cache_folder() is None
    assert working_folder().is_absolute()
    assert store.cache_folder().is_relative_to(working_folder())
    store.kept_arrays("nothing", dict)
    assert not list(tmp_path.iterdir())


def test_a_survey_of_the_page_lies_there_too(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from convoscope import open_model

    model = open_model("toybox")
    monkeypatch.setenv("CONVOSCOPE_CACHE", "off")
    assert Path(store_for(model, tmp_path)).is_relative_to(working_folder())
    monkeypatch.setenv("CONVOSCOPE_CACHE", str(tmp_path / "mine"))
    assert Path(store_for(model, tmp_path)).is_relative_to(tmp_path / "mine")


def test_what_may_not_be_kept_ends_with_its_process() -> None:
    code = "from convoscope.cache import working_folder; f = working_folder(); (f / 'x').write_text('x'); print(f)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True,
        env={**os.environ, "CONVOSCOPE_CACHE": "off"},
    )  # fmt: skip
    assert not Path(done.stdout.strip()).exists()


def test_without_a_home_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def homeless() -> Path:
        raise RuntimeError("no home")

    for name in ("CONVOSCOPE_CACHE", "XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    assert cache_folder() is None
    assert working_folder().is_dir()
