"""``convoscope explain``: its files, its JSON, going on where it stopped, and pictures that cannot be read."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import convoscope as cs
from convoscope.cli.explain import read_targets

SOURCE = Path(__file__).resolve().parents[2] / "src"


@pytest.fixture
def pictures(toys, tmp_path) -> Path:
    """Three pictures of one's own."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for path in sorted(toys.glob("*.png"))[:3]:
        shutil.copy(path, folder)
    return folder


def times(folder: Path) -> dict[str, int]:
    return {str(p.relative_to(folder)): p.stat().st_mtime_ns for p in sorted(folder.rglob("*")) if p.is_file()}


def test_what_is_written(cli, pictures, tmp_path):
    out = tmp_path / "out"
    answer = cli("explain", "toybox", pictures, "--method", "grad-cam,saliency", "--out", out)
    assert answer.code == 0, answer.err
    paths = sorted(pictures.iterdir())
    assert sorted(p.name for p in out.iterdir()) == [p.stem for p in paths]
    model = cs.open_model("toybox")
    for path in paths:
        folder = out / path.stem
        names = {p.name for p in folder.iterdir()}
        assert names == {"maps.npz", "grad-cam.png", "saliency.png", "sheet.png", "explain.json"}
        maps = np.load(folder / "maps.npz")
        result = cs.explain(model, path, ["grad-cam", "saliency"])
        assert set(maps.files) == {"grad-cam", "saliency"}
        for name in maps.files:
            assert maps[name].dtype == np.float32
            assert maps[name].shape == (96, 96)
            assert np.allclose(maps[name], result[name].values, rtol=1e-4, atol=1e-6)
        record = json.loads((folder / "explain.json").read_text())
        assert record["target"] == result.target
        assert record["score"] == pytest.approx(result.score, rel=1e-4)
        assert (record["plan"]["forwards"], record["plan"]["backwards"]) == (1, 1)
        assert np.allclose(record["input_to_photo"], result.fitted.input_to_photo)
        assert record["seconds"] > 0
        assert record["provenance"]["fingerprint"] == model.fingerprint
        assert isinstance(record["doubts"], list)


def test_json_is_the_records_and_nothing_else(cli, pictures, tmp_path):
    out = tmp_path / "out"
    answer = cli("explain", "toybox", pictures, "--method", "cam", "--out", out, "--json")
    records = answer.json
    assert answer.err == ""
    assert [Path(r["path"]).name for r in records] == [p.name for p in sorted(pictures.iterdir())]
    for record in records:
        assert record == json.loads((out / Path(record["path"]).stem / "explain.json").read_text())


def test_pictures_are_explained_in_chunks_of_whole_batches(cli, toys, tmp_path):
    """On a CPU eight at a time, so that the drawing of one chunk goes on beside the network's next."""
    folder = tmp_path / "many"
    folder.mkdir()
    originals = sorted(toys.glob("*.png"))
    for number in range(10):
        shutil.copy(originals[number % len(originals)], folder / f"p{number:02}.png")
    records = cli(
        "explain", "toybox", folder, "-m", "grad-cam", "--batch-size", 4, "-o", tmp_path / "o", "--json"
    ).json
    assert len(records) == 10
    assert [record["plan"]["forwards"] for record in records] == [2] * 8 + [1] * 2


def test_the_same_command_again_does_nothing_again(cli, pictures, tmp_path):
    out = tmp_path / "out"
    command = ("explain", "toybox", pictures, "--method", "grad-cam", "--out", out)
    first = cli(*command, "--json")
    before = times(out)
    again = cli(*command, "--json")
    assert times(out) == before
    assert again.json == first.json
    told = cli(*command)
    assert "3 were done already" in told.out


def test_only_what_is_missing_is_done(cli, pictures, tmp_path):
    out = tmp_path / "out"
    command = ("explain", "toybox", pictures, "--method", "grad-cam", "--out", out)
    cli(*command)
    stems = sorted(p.stem for p in pictures.iterdir())
    (out / stems[0] / "explain.json").unlink()  # killed before it was done
    (out / stems[1] / "maps.npz").unlink()  # lost since
    before = times(out)
    assert "1 were done already" in cli(*command).out
    after = times(out)
    changed = {Path(name).parts[0] for name in after if after[name] != before.get(name)}
    assert changed == set(stems[:2])


def test_other_settings_or_pictures_are_done_anew(cli, pictures, tmp_path):
    out = tmp_path / "out"
    command = ("explain", "toybox", pictures, "--method", "smoothgrad", "--samples", 2, "--out", out)
    cli(*command)
    before = times(out)
    cli(*command[:-3], 3, "--out", out)
    after = times(out)
    assert all(after[name] != before[name] for name in after)
    first = sorted(pictures.iterdir())[0]
    Image.open(first).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(first)
    cli(*command[:-3], 3, "--out", out)
    latest = times(out)
    changed = {Path(name).parts[0] for name in latest if latest[name] != after[name]}
    assert changed == {first.stem}


def test_killed_in_the_middle_and_run_again(toys, tmp_path):
    folder, out = tmp_path / "many", tmp_path / "out"
    folder.mkdir()
    originals = sorted(toys.glob("*.png"))
    for number in range(40):
        shutil.copy(originals[number % len(originals)], folder / f"p{number:02}.png")
    command = [sys.executable, "-m", "convoscope", "explain", "toybox", str(folder), "-m", "occlusion"]
    command += ["--stride", "24", "--out", str(out), "--json"]
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment)
    deadline = time.monotonic() + 90
    while len(list(out.glob("*/explain.json"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    printed, said = running.communicate(timeout=60)
    assert running.returncode == 130, said
    done = json.loads(printed)
    assert 3 <= len(done) < 40
    assert b"The same command goes on" in said
    assert b"Traceback" not in said
    before = {path: path.stat().st_mtime_ns for path in out.glob("*/explain.json")}
    finished = subprocess.run(command, capture_output=True, env=environment, timeout=300)
    assert finished.returncode == 0, finished.stderr
    assert len(json.loads(finished.stdout)) == 40
    complete = [path for path in before if path.stat().st_mtime_ns == before[path]]
    assert len(complete) >= len(before) - 1  # the one that was interrupted may be done anew


def test_stems_that_repeat(cli, toys, tmp_path):
    one, two = sorted(toys.glob("*.png"))[:2]
    for name, source in (("a", one), ("b", two)):
        (tmp_path / name).mkdir()
        shutil.copy(source, tmp_path / name / "photo.png")
    out = tmp_path / "out"
    both = [tmp_path / "a" / "photo.png", tmp_path / "b" / "photo.png"]
    records = cli("explain", "toybox", *both, "-m", "cam", "-o", out, "--json").json
    assert sorted(p.name for p in out.iterdir()) == ["photo", "photo-2"]
    assert [record["path"] for record in records] == [str(path) for path in both]
    # in another order, or alone, each keeps its folder: nothing is overwritten
    before = times(out)
    assert cli("explain", "toybox", both[1], "-m", "cam", "-o", out).code == 0
    assert cli("explain", "toybox", *reversed(both), "-m", "cam", "-o", out).code == 0
    assert times(out) == before


def test_bad_pictures_are_named_and_the_rest_is_done(cli, pictures, tmp_path):
    (pictures / "a-empty.png").write_bytes(b"")
    (pictures / "b-text.jpg").write_text("this is no picture")
    out = tmp_path / "out"
    missing = tmp_path / "missing.png"
    answer = cli("explain", "toybox", pictures, missing, "-m", "cam", "-o", out, "--json")
    assert answer.code == 1
    assert len(answer.json) == 3
    lines = answer.err.strip().splitlines()
    assert len(lines) == 3
    for name in ("a-empty.png", "b-text.jpg", "missing.png"):
        assert sum(name in line for line in lines) == 1


def test_only_bad_pictures_is_a_failure_of_pictures(cli, tmp_path):
    (tmp_path / "x.png").write_bytes(b"no")
    answer = cli("explain", "toybox", tmp_path / "x.png", "-m", "cam", "-o", tmp_path / "out", "--json")
    assert (answer.code, answer.json) == (1, [])


def test_several_targets_are_rows(cli, pictures, tmp_path):
    picture = sorted(pictures.iterdir())[0]
    out = tmp_path / "out"
    command = (
        "explain",
        "toybox",
        picture,
        "-m",
        "cam",
        "--target",
        "top1..top3",
        "-t",
        "house",
        "-o",
        out,
        "--json",
    )
    (record,) = cli(*command).json
    assert len(record["further_targets"]) == 3
    assert record["further_targets"][-1]["target"] == "house"
    maps = np.load(out / picture.stem / "maps.npz")
    assert len(maps.files) == 4
    assert maps.files[0] == "cam"


def test_against(cli, pictures, tmp_path):
    picture = sorted(pictures.iterdir())[0]
    command = ("explain", "toybox", picture, "-m", "grad-cam", "-t", "car", "--against", "boat", "--json")
    (record,) = cli(*command, "-o", tmp_path / "out").json
    assert record["target"] == "car rather than boat"


def test_several_layers(cli, pictures, tmp_path):
    picture = sorted(pictures.iterdir())[0]
    out = tmp_path / "out"
    cli("explain", "toybox", picture, "-m", "grad-cam,saliency", "--layer", "layer[12]", "-o", out)
    assert set(np.load(out / picture.stem / "maps.npz").files) == {"grad-cam@layer1", "grad-cam@layer2", "saliency"}
    assert (out / picture.stem / "grad-cam@layer1.png").is_file()


def test_parts(cli, pictures, tmp_path):
    picture = sorted(pictures.iterdir())[0]
    out = tmp_path / "out"
    (record,) = cli("explain", "toybox", picture, "-m", "cam,grad-cam", "--parts", 4, "-o", out, "--json").json
    assert len(record["maps"]["cam"]["parts"]) == 4
    assert (out / picture.stem / "grad-cam-parts.png").is_file()


def test_a_method_the_network_refuses_is_named_and_the_rest_is_done(cli, pictures, tmp_path):
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "def build(num_classes=4):\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(3600, 4))\n"
    )
    spec = f"{tmp_path / 'net.py'}:build"
    picture = sorted(pictures.iterdir())[0]
    answer = cli("explain", spec, picture, "--size", 32, "-m", "cam,saliency", "-o", tmp_path / "out", "--json")
    assert answer.code == 0, answer.err
    assert "cam: no map." in answer.err
    assert list(answer.json[0]["maps"]) == ["saliency"]
    alone = cli("explain", spec, picture, "--size", 32, "-m", "cam", "-o", tmp_path / "out2")
    assert alone.code == 2
    assert "grad-cam" in alone.err  # the sentence names another method


def test_all_says_what_it_leaves_out(cli, pictures, tmp_path):
    picture = sorted(pictures.iterdir())[0]
    answer = cli(
        "explain", "toybox", picture, "-m", "all", "--nodes", 2, "--samples", 2, "-o", tmp_path / "o", "--json"
    )
    assert "all leaves out occlusion" in answer.err
    assert "occlusion" not in answer.json[0]["maps"]
    assert "fullgrad" in answer.json[0]["maps"]


def test_no_pictures(cli, pictures, tmp_path):
    out = tmp_path / "out"
    cli("explain", "toybox", pictures, "-m", "cam", "--no-pictures", "-o", out)
    assert {p.name for p in out.rglob("*") if p.is_file()} == {"maps.npz", "explain.json"}
    # pictures are then wanted after all
    cli("explain", "toybox", pictures, "-m", "cam", "-o", out)
    assert len(list(out.rglob("sheet.png"))) == 3


def test_results_inside_the_folder_are_not_explained(cli, pictures):
    out = pictures / "out"
    for _ in range(2):
        assert len(cli("explain", "toybox", pictures, "-m", "cam", "-o", out, "--json").json) == 3


def test_the_truth_of_toybox_pictures_is_not_explained(cli, toys, tmp_path):
    assert len(cli("explain", "toybox", toys, "-m", "cam", "--no-pictures", "-o", tmp_path, "--json").json) == 6


def test_globs(cli, pictures, tmp_path):
    records = cli("explain", "toybox", f"{pictures}/*.png", "-m", "cam", "-o", tmp_path / "o", "--json").json
    assert len(records) == 3


def test_pictures_of_their_own_sizes(cli, tmp_path):
    """One that is too small for the network does not take the others along."""
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "def build():\n"
        "    body = nn.Conv2d(3, 4, 9), nn.ReLU(), nn.AdaptiveAvgPool2d(1)\n"
        "    return nn.Sequential(*body, nn.Flatten(), nn.Linear(4, 3))\n"
    )
    rng = np.random.default_rng(0)
    for name, size in (("a", (20, 30)), ("b", (4, 4)), ("c", (40, 24))):
        Image.fromarray(rng.integers(0, 255, (*size, 3), np.uint8)).save(tmp_path / f"{name}.png")
    spec = f"{tmp_path / 'net.py'}:build"
    files = [tmp_path / f"{name}.png" for name in "abc"]
    answer = cli("explain", spec, *files, "-m", "saliency", "-o", tmp_path / "out", "--json")
    assert answer.code == 1
    assert [record["maps"]["saliency"]["shape"] for record in answer.json] == [[20, 30], [40, 24]]
    assert "b.png" in answer.err


def test_estimates_are_said_before_slow_methods_start(cli, pictures, tmp_path, monkeypatch):
    from convoscope.cli import estimate

    monkeypatch.setattr(estimate, "seconds_a_pass", lambda *_: 1.0)
    picture = sorted(pictures.iterdir())[0]
    answer = cli(
        "explain", "toybox", picture, "-m", "occlusion", "--window", 48, "--stride", 48, "-o", tmp_path / "o"
    )
    assert answer.code == 0
    assert "occlusion: 4 passes a picture, up to 4 seconds" in answer.err


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (None, [None]),
        (["cat"], ["cat"]),
        (["top1..top3"], ["top1", "top2", "top3"]),
        (["top1,top2"], ["top1", "top2"]),
        (["a, b"], ["a, b"]),
        (["cat", "cat"], ["cat"]),
    ],
)
def test_targets(given, read):
    assert read_targets(given) == read


def test_trust(cli, pictures, tmp_path):
    picture = sorted(pictures.iterdir())[0]
    command = ("explain", "toybox", picture, "-m", "grad-cam,saliency", "--trust", "-o", tmp_path / "out")
    (record,) = cli(*command, "--json").json
    assert set(record["trust"]) == {"grad-cam", "saliency"}
    assert all(verdict["sentence"].endswith(".") for verdict in record["trust"].values())
    plain = cli("explain", "toybox", picture, "-m", "grad-cam", "--trust", "-o", tmp_path / "other")
    assert record["trust"]["grad-cam"]["sentence"] in plain.out


def test_pictures_says_how_much_is_drawn(cli, pictures, tmp_path):
    """And asked for more than is there, the picture is done again; for less, it is not."""
    out = tmp_path / "out"

    def asked(*how):
        return cli("explain", "toybox", pictures, "-m", "cam,saliency", "-o", out, *how, "--json").json

    def drawn():
        return [sorted(p.name for p in folder.glob("*.png")) for folder in sorted(out.iterdir())]

    count = len(list(pictures.iterdir()))
    none = asked("--pictures", "none")
    assert drawn() == [[]] * count
    assert asked("--no-pictures") == none
    sheets = asked("--pictures", "sheet")
    assert drawn() == [["sheet.png"]] * count
    assert [r["maps"] for r in sheets] == [r["maps"] for r in none]
    sheet = {p.parent.name: p.read_bytes() for p in out.glob("*/sheet.png")}
    everything = asked()
    assert drawn() == [["cam.png", "saliency.png", "sheet.png"]] * count
    assert sheet == {p.parent.name: p.read_bytes() for p in out.glob("*/sheet.png")}, "drawn once or twice, the same"
    assert asked("--pictures", "sheet") == everything  # what is there is enough
    assert cli("explain", "toybox", pictures, "-o", out, "--pictures", "some").code == 2
    assert cli("explain", "toybox", pictures, "-o", out, "--pictures", "all", "--no-pictures").code == 2
