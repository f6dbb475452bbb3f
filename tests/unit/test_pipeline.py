"""Stages that overlap look as if they came one after the other."""

from __future__ import annotations

import threading
import time
from functools import partial

import numpy as np
import pytest

import convoscope as cs
from convoscope.folder import records
from convoscope.pipeline import Later, ahead


def test_ahead_is_map_and_never_more_than_so_many_ahead():
    made: list[int] = []

    def make(item: int) -> int:
        made.append(item)
        return item * item

    taken = []
    for number, square in enumerate(ahead(make, range(20), most=2)):
        time.sleep(0.002)
        taken.append(square)
        assert len(made) <= number + 1 + 2 + 1
    assert taken == [n * n for n in range(20)]


def test_an_error_comes_where_it_would_have_come():
    def make(item: int) -> int:
        if item == 3:
            raise ValueError("three")
        return item

    taken: list[int] = []
    with pytest.raises(ValueError, match="three"):
        taken.extend(ahead(make, range(9)))
    assert taken == [0, 1, 2]
    assert not [t for t in threading.enumerate() if t.name.startswith("convoscope-read")]


def test_later_keeps_the_order_and_bounds_what_waits():
    done = []
    with Later[int](most=3) as later:
        for number in range(20):
            later.put(partial(lambda n: n, number))
            done += later.ready()
            assert number + 1 - len(done) <= 3
        done += later.rest()
    assert done == list(range(20))


def test_who_would_wait_for_later_helps():
    """The thread is held at the first piece: the others are done by who waits, and come in their order."""
    go = threading.Event()
    by: dict[int, str] = {}

    def work(number: int) -> int:
        by[number] = threading.current_thread().name
        if number == 0:
            assert go.wait(30)
        if number == 3:
            go.set()
        return number

    with Later[int](most=9) as later:
        later.put(partial(work, 0))
        while 0 not in by:
            time.sleep(0.001)
        for number in range(1, 4):
            later.put(partial(work, number))
        assert list(later.rest()) == [0, 1, 2, 3]
    here = threading.current_thread().name
    assert by[0].startswith("convoscope-write")
    assert {by[1], by[2], by[3]} == {here}


def test_an_error_of_a_helper_comes_in_its_place():
    go = threading.Event()
    begun = []

    def work(number: int) -> int:
        begun.append(number)
        if number == 0:
            assert go.wait(30)
        if number == 1:
            raise ValueError("one")
        return number

    def released() -> None:
        while not later._failed:
            time.sleep(0.001)
        go.set()

    with Later[int](most=9) as later:
        threading.Thread(target=released, daemon=True).start()
        later.put(partial(work, 0))
        while not begun:
            time.sleep(0.001)
        for number in range(1, 4):
            later.put(partial(work, number))
        rest = later.rest()
        assert next(rest) == 0
        with pytest.raises(ValueError, match="one"):
            next(rest)
    # what was put after it had not begun
    assert begun == [0, 1]


def test_later_gives_up_what_has_not_begun():
    begun = []
    entered = threading.Event()
    go = threading.Event()

    def work(number: int) -> None:
        begun.append(number)
        entered.set()
        go.wait(10)

    def stopped() -> None:
        with Later[None](most=9) as later:
            for number in range(5):
                later.put(partial(work, number))
            entered.wait(10)
            threading.Timer(0.05, go.set).start()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert begun == [0]
    assert not [t for t in threading.enumerate() if t.name.startswith("convoscope-write")]


@pytest.fixture
def many(tmp_path):
    from convoscope.toybox import draw

    place = tmp_path / "many"
    place.mkdir()
    for seed in range(19):
        draw(seed).picture().save(place / f"p{seed:02}.png")
    (place / "p05.png").write_bytes(b"no picture")
    return place


def test_a_folder_gives_the_maps_of_single_calls(many, tmp_path):
    model = cs.open_model("toybox", device="cpu")
    outcome = cs.explain_folder(model, many, tmp_path / "out", ["grad-cam", "saliency"], pictures="none")
    assert [str(p) for p in outcome.failed] == [str(many / "p05.png")]
    assert [record["path"] for record in outcome.records] == [
        str(p) for p in sorted(many.iterdir()) if p.name != "p05.png"
    ]
    for number in (0, 7, 8, 18):
        alone = cs.explain(model, many / f"p{number:02}.png", ["grad-cam", "saliency"])
        with np.load(tmp_path / "out" / f"p{number:02}" / "maps.npz") as maps:
            for name in alone:
                np.testing.assert_allclose(maps[name], alone[name].values, rtol=1e-4, atol=1e-6)


def test_an_error_while_writing_ends_the_run_and_nothing_half_written_counts(many, tmp_path, monkeypatch):
    """The disk is full at the eleventh picture: those before it are done, and the next run does the rest."""
    model = cs.open_model("toybox", device="cpu")
    real, written = records.write_whole, []

    def full(path, content):
        written.append(path)
        if len(written) == 11:
            raise OSError(28, "No space left on device")
        return real(path, content)

    monkeypatch.setattr(records, "write_whole", full)
    with pytest.raises(OSError, match="No space"):
        cs.explain_folder(model, many, tmp_path / "out", "saliency", pictures="none")
    # two pictures are written at once: the other of the two may have been done after it
    done = len(list((tmp_path / "out").glob("*/explain.json")))
    assert done in (10, 11)
    assert not list((tmp_path / "out").glob("*/.making-*"))
    monkeypatch.setattr(records, "write_whole", real)
    again = cs.explain_folder(model, many, tmp_path / "out", "saliency", pictures="none")
    assert again.skipped == done
    assert len(again.records) == 18
    # a page that another test serves in this process has a thread, too
    ours = ("convoscope-read", "convoscope-write")
    assert not [t for t in threading.enumerate() if t.name.startswith(ours)]


def test_maps_made_under_autocast_are_maps():
    import torch

    from convoscope.toybox import draw

    model, image = cs.open_model("toybox", device="cpu"), draw(7, label="car").image
    with torch.autocast("cpu", dtype=torch.bfloat16):
        low = cs.explain(model, image, ["grad-cam", "saliency"])
    whole = cs.explain(model, image, ["grad-cam", "saliency"])
    assert low["grad-cam"].values.dtype == np.float32
    assert np.corrcoef(low["grad-cam"].values.ravel(), whole["grad-cam"].values.ravel())[0, 1] > 0.95
