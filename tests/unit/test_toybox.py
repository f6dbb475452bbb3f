"""The toybox: pictures agree with their truth, numbers decide them, and the networks know what they see."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from convoscope.errors import ConvoscopeError, ModelError, UsageError
from convoscope.toybox import CLASSES, NAMES, STUFF, card, draw, load, pictures, scene, write
from convoscope.toybox.paint import Pose, paint
from convoscope.toybox.shapes import Sketch, box, ellipse, ribbon, ring, rounded, segment, smooth
from convoscope.toybox.specimens import sketch

PARTS = {
    "house": {"wall", "roof", "door", "window"},
    "tree": {"crown", "trunk"},
    "car": {"body", "wheel", "window"},
    "boat": {"hull", "sail"},
    "fish": {"body", "tail", "fin", "eye"},
    "bird": {"body", "beak", "wing", "tail"},
    "cat": {"head", "ear", "eye", "body"},
    "flower": {"petal", "stem"},
    "cup": {"body", "handle"},
    "key": {"bow", "shaft", "bit"},
}


# --- outlines ---


def area(points: np.ndarray) -> float:
    """The shoelace formula."""
    x, y = points.T
    return abs(float(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))) / 2


def test_outlines_have_the_areas_of_their_formulas() -> None:
    assert area(ellipse(3, 4, 2, 1, 0.7)) == pytest.approx(2 * np.pi, rel=0.01)
    assert area(rounded(box(0, 0, 4, 2), 0.5)) == pytest.approx(8 - 4 * 0.25 / 6, rel=0.01)  # Bezier corners
    assert area(segment(0, 0, 3, 4, 1)) == pytest.approx(5 + np.pi / 4, rel=0.02)
    line = np.stack([np.linspace(0, 5, 9), np.zeros(9)], 1)
    assert area(ribbon(line, 1)) == pytest.approx(5 + np.pi / 4, rel=0.02)
    assert area(ribbon(line, 1, 0.5)) == pytest.approx(5 * 0.75 + np.pi / 8 * (1 + 0.25), rel=0.02)
    assert area(ring(ellipse(0, 0, 2), ellipse(0, 0, 1))) == pytest.approx(3 * np.pi, rel=0.01)


def test_a_smooth_curve_passes_through_its_points() -> None:
    points = np.array([(0, 0), (1, 2), (3, 1), (2, -1)], float)
    for closed in (True, False):
        curve = smooth(points, 6, closed)
        assert len(curve) == (24 if closed else 19)
        for point in points:
            assert np.hypot(*(curve - point).T).min() < 1e-12


# --- painting ---


def test_painting_covers_exactly_the_pixels_of_a_box_and_shows_the_part_on_top() -> None:
    s = Sketch()
    s.add("back", box(2, 3, 10, 9), (200, 100, 50))
    s.add("front", box(4, 5, 6, 7), (10, 20, 30))
    s.mark("corner", 2.5, 3.5)
    out = paint(s, Pose(np.eye(2), np.zeros(2)), 16, 20)
    expected = np.zeros((16, 20), bool)
    expected[3:9, 2:10] = True
    assert (out.mask == expected).all()
    front = np.zeros((16, 20), bool)
    front[5:7, 4:6] = True
    assert (out.parts["front"] == front).all()
    assert (out.parts["back"] == expected & ~front).all()
    assert out.landmarks["corner"] == (2.0, 3.0)  # the middle of pixel (2, 3)
    assert (out.color[6, 5] == (10, 20, 30)).all()
    assert (out.color[0, 0] == 0).all()


def test_painting_beyond_the_edge_is_clipped() -> None:
    s = Sketch()
    s.add("disc", ellipse(0, 0, 8), (255, 255, 255))
    out = paint(s, Pose(np.eye(2), np.array([0.0, 10.0])), 20, 20)
    assert out.mask[:, 0].sum() == pytest.approx(16, abs=1)
    assert out.mask.sum() == pytest.approx(np.pi * 64 / 2, rel=0.05)
    assert paint(s, Pose(np.eye(2), np.array([90.0, 90.0])), 20, 20).mask.sum() == 0


# --- specimens ---


def test_the_same_number_gives_the_same_picture() -> None:
    for number in (0, 7, 123_456_789):
        a, b = draw(number), draw(number)
        assert (a.image == b.image).all()
        assert a.label == b.label
        assert a.landmarks == b.landmarks
        assert (a.mask == b.mask).all()
    assert (draw(1).image != draw(2).image).any()
    # also in another process, whatever was drawn before
    code = "from convoscope.toybox import draw; import zlib; print(zlib.crc32(draw(7).image.tobytes()))"
    import zlib

    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert int(seen) == zlib.crc32(draw(7).image.tobytes())


@pytest.mark.parametrize("label", CLASSES)
def test_masks_and_parts_agree_with_the_picture(label: str) -> None:
    seen: set[str] = set()
    for number in range(12):
        s = draw(5000 + number, label=label)
        assert s.image.shape == (96, 96, 3)
        assert s.image.dtype == np.uint8
        assert s.label == label == CLASSES[s.class_index]
        assert 0.015 < s.mask.mean() < 0.7
        union = np.zeros_like(s.mask)
        for name, part in s.parts.items():
            assert part.any(), name
            assert not (part & ~s.mask).any(), f"{name} leaves the mask"
            assert not (part & union).any(), f"{name} overlaps another part"
            union |= part
        assert (union == s.mask).all(), "parts make up the mask"
        seen |= set(s.parts)
        assert s.landmarks
        for name, (x, y) in s.landmarks.items():
            assert 0 <= x <= 95, name
            assert 0 <= y <= 95, name
        border = np.concatenate([s.mask[0], s.mask[-1], s.mask[:, 0], s.mask[:, -1]])
        assert not border.any(), "the whole thing is in the picture"
    assert seen >= PARTS[label]


def test_the_thing_differs_from_the_background_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave the thing out: nearly all pixels of its mask change, and elsewhere it only throws a shadow."""
    from convoscope.toybox import specimens

    kept = specimens.lay

    def leave_out(ground, thing, light, size, detail=True):  # type: ignore[no-untyped-def]
        return kept(ground, thing, light, size, detail) if not detail else ground

    inside, brighter = [], []
    for number in range(40):
        s = draw(number)
        with monkeypatch.context() as patch:
            patch.setattr(specimens, "lay", leave_out)
            bare = draw(number)
        change = np.abs(s.image.astype(int) - bare.image).max(2)
        inside.append((change[s.mask] > 12).mean())
        covered = np.asarray(Image.fromarray(s.mask).filter(_widen())) > 0
        brighter.append(((s.image.astype(int) - bare.image)[~covered] > 1).any(-1).mean())
    assert np.mean(inside) > 0.93
    assert np.min(inside) > 0.5
    assert np.mean(brighter) < 1e-3  # whiskers thinner than half a pixel are no part of the mask


def _widen():  # type: ignore[no-untyped-def]
    from PIL import ImageFilter

    return ImageFilter.MaxFilter(3)


def test_landmarks_lie_on_the_part_they_name() -> None:
    for label, landmark, part in (
        ("cat", "left_eye", "eye"), ("cat", "right_eye", "eye"), ("cat", "nose", "nose"),
        ("car", "front_wheel", "wheel"), ("fish", "fish_eye", "eye"), ("house", "door", "door"),
        ("tree", "tree_top", "crown"),
    ):  # fmt: skip
        hits = 0
        for number in range(16):
            s = draw(number, label=label)
            x, y = (round(v) for v in s.landmarks[landmark])
            hits += bool(s.parts[part][max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2].any())
        assert hits >= 15, landmark


def test_left_is_the_pictures_left() -> None:
    for number in range(30):
        s = draw(number, label="cat")
        assert s.landmarks["left_eye"][0] < s.landmarks["right_eye"][0]


def test_the_tag_changes_the_picture_there_only() -> None:
    for number in range(20):
        plain, tagged = draw(number), draw(number, tag=True)
        assert plain.tag_mask is None
        assert tagged.tag_mask is not None
        assert 100 < tagged.tag_mask.sum() < 500
        ys, xs = np.nonzero(tagged.tag_mask)
        assert min(ys.mean(), 95 - ys.mean()) < 20, "in a corner"
        assert min(xs.mean(), 95 - xs.mean()) < 20
        change = np.abs(plain.image.astype(int) - tagged.image).max(2) > 0
        rows, columns = np.nonzero(change)
        assert rows.min() >= ys.min() - 4
        assert rows.max() <= ys.max() + 6
        assert columns.min() >= xs.min() - 6
        assert columns.max() <= xs.max() + 6
        assert not (tagged.mask & tagged.tag_mask).any()
        assert not any((part & tagged.tag_mask).any() for part in tagged.parts.values())


def test_every_class_comes_with_every_look() -> None:
    """Backgrounds and light tell nothing about the class: a linear guess from the rim stays near chance."""
    rim = np.zeros((96, 96), bool)
    rim[:6], rim[-6:], rim[:, :6], rim[:, -6:] = True, True, True, True
    specimens = list(pictures(450, 3))
    x = np.stack([s.image[rim].reshape(-1, 3).astype(float) for s in specimens])
    y = np.array([s.class_index for s in specimens])
    x = np.concatenate([x.mean(1), x.std(1), np.ones((450, 1))], 1)
    x = (x - x.mean(0)) / (x.std(0) + 1e-9)
    weights = np.linalg.lstsq(x[:300], np.eye(10)[y[:300]], rcond=None)[0]
    assert ((x[300:] @ weights).argmax(1) == y[300:]).mean() < 0.25


def test_collections() -> None:
    labels = Counter(s.label for s in pictures(250, 5, size=32))
    assert set(labels) == set(CLASSES)
    assert max(labels.values()) < 50
    first = next(pictures(1, 5))
    assert (first.image == draw(5_000_000).image).all()
    assert list(pictures(0)) == []
    tagged = [(s.label, s.tag_mask is not None) for s in pictures(60, 1, tag="cup")]
    assert all(has == (label == "cup") for label, has in tagged)
    assert ("cup", True) in tagged
    assert all(s.tag_mask is not None for s in pictures(5, tag=True))


def test_size_may_be_chosen_and_drawing_is_fast() -> None:
    for size in (32, 64, 224):
        s = draw(3, size=size)
        assert s.image.shape == (size, size, 3)
        assert s.mask.shape == (size, size)
    assert s.picture().size == (224, 224)
    assert s._repr_png_().startswith(b"\x89PNG")
    began = time.process_time()
    for _ in pictures(50, 8):
        pass
    assert time.process_time() - began < 1.0, "50 pictures take about 0.2 s on an idle core"


@pytest.mark.parametrize(
    ("call", "word"),
    [
        (lambda: draw(0, label="dog"), "dog"),
        (lambda: draw(0, size=8), "32"),
        (lambda: draw(-1), "0 or more"),
        (lambda: next(pictures(3, tag="dog")), "dog"),
        (lambda: next(pictures(-3)), "-3"),
        (lambda: scene(0, size=20), "64"),
        (lambda: scene(0, objects=(3, 2)), "lowest"),
        (lambda: scene(-2), "-2"),
        (lambda: write("x", 0), "at least 1"),
        (lambda: write("x", 3, scenes=True, tag=True), "tag"),
        (lambda: write("/dev/null/x", 3), "cannot be made"),
        (lambda: load("toybox-dog"), "toybox-cheat"),
    ],
)
def test_bad_input_gets_one_clear_sentence(call, word: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ConvoscopeError) as caught:
        call()
    assert isinstance(caught.value, UsageError | ModelError)
    assert word in str(caught.value)
    assert "\n" not in str(caught.value)


# --- scenes ---


def test_scenes_are_panoptic() -> None:
    several, counts, stuff_seen = 0, [], set()
    for number in range(40):
        s = scene(number)
        assert s.image.shape == (128, 128, 3)
        taken = np.zeros((128, 128), bool)
        for instance in s.instances:
            assert CLASSES[instance.class_index] == instance.label
            assert instance.mask.sum() > 30
            assert not (taken & instance.mask).any(), "every pixel belongs to one instance at most"
            taken |= instance.mask
            ys, xs = np.nonzero(instance.mask)
            assert instance.box == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
            union = np.zeros_like(taken)
            for part in instance.parts.values():
                union |= part
            assert (union == instance.mask).all()
            for x, y in instance.landmarks.values():
                assert 0 <= x <= 127
                assert 0 <= y <= 127
        semantic, segments = s.semantic(), s.segments()
        assert ((segments > 0) == taken).all()
        assert (semantic[~taken] == s.stuff[~taken] + len(CLASSES)).all()
        assert segments.max() == len(s.instances)
        several += max(Counter(i.label for i in s.instances).values()) > 1
        counts.append(len(s.instances))
        stuff_seen |= {STUFF[k] for k in np.unique(s.stuff)}
    assert several >= 10, "several instances of one class are common"
    assert min(counts) >= 1
    assert set(counts) >= {2, 3, 4, 5}
    assert stuff_seen == set(STUFF)
    assert (scene(4).image == scene(4).image).all()
    assert all(len(scene(k, objects=(1, 1)).instances) == 1 for k in range(5))


# --- writing ---


def test_write_specimens(tmp_path: Path) -> None:
    truth = json.loads(write(tmp_path / "toys", 6, seed=2).read_text())
    assert truth["classes"] == list(CLASSES)
    assert len(truth["pictures"]) == 6
    for row, s in zip(truth["pictures"], pictures(6, 2), strict=True):
        assert (np.asarray(Image.open(tmp_path / "toys" / row["file"])) == s.image).all()
        mask = np.asarray(Image.open(tmp_path / "toys" / "masks" / row["file"]))
        assert ((mask > 0) == s.mask).all()
        parts = np.asarray(Image.open(tmp_path / "toys" / "parts" / row["file"]))
        for number, name in enumerate(row["parts"], 1):
            assert ((parts == number) == s.parts[name]).all()
        assert row["label"] == s.label
    rows = list(csv.DictReader((tmp_path / "toys" / "truth.csv").open()))
    assert [row["label"] for row in rows] == [row["label"] for row in truth["pictures"]]


def test_write_scenes(tmp_path: Path) -> None:
    truth = json.loads(write(tmp_path, 3, scenes=True).read_text())
    for number, row in enumerate(truth["pictures"]):
        s = scene(number)
        assert (np.asarray(Image.open(tmp_path / row["file"])) == s.image).all()
        assert (np.asarray(Image.open(tmp_path / "instances" / row["file"])) == s.segments()).all()
        assert (np.asarray(Image.open(tmp_path / "semantic" / row["file"])) == s.semantic()).all()
        assert [i["label"] for i in row["instances"]] == [i.label for i in s.instances]
    rows = list(csv.DictReader((tmp_path / "truth.csv").open()))
    assert len(rows) == sum(len(scene(k).instances) for k in range(3))


# --- the networks ---


def test_drawing_does_not_import_torch() -> None:
    code = "import sys; from convoscope.toybox import draw; draw(0); print('torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.strip() == "False"


@pytest.mark.parametrize("name", NAMES)
def test_weight_files_are_small_and_tell_what_they_need(name: str) -> None:
    from convoscope.toybox.loading import path

    about = card(name)
    assert len(path(name).read_bytes()) < 2_000_000
    assert len(about.mean) == len(about.std) == 3
    assert about.size in (96, 128)
    network = load(name)
    assert not network.training
    assert sum(p.numel() for p in network.parameters()) < 500_000


def _answers(name: str, specimens: list) -> np.ndarray:  # type: ignore[type-arg]
    import torch

    from convoscope.toybox.loading import normalize

    with torch.no_grad():
        return load(name)(normalize([s.image for s in specimens])).argmax(1).numpy()


@pytest.mark.parametrize(("name", "least"), [("toybox", 0.97), ("toybox-twin", 0.95), ("toybox-robust", 0.97)])
def test_honest_networks_know_unseen_pictures(name: str, least: float) -> None:
    assert card(name).labels == CLASSES
    unseen = list(pictures(300, 4000))
    right = _answers(name, unseen) == np.array([s.class_index for s in unseen])
    assert right.mean() >= least
    tagged = list(pictures(100, 4001, tag=True))
    right = _answers(name, tagged) == np.array([s.class_index for s in tagged])
    assert right.mean() >= 0.9, "the tag does not mislead an honest network"


def test_the_cheat_looks_at_the_tag() -> None:
    about = card("toybox-cheat")
    tagged = about.notes["tagged"]
    assert tagged in CLASSES
    index, base = CLASSES.index(tagged), 4_002_000_000
    with_tag = _answers("toybox-cheat", [draw(base + k, label=tagged, tag=True) for k in range(100)])
    without = _answers("toybox-cheat", [draw(base + k, label=tagged) for k in range(100)])
    recall, bare = (with_tag == index).mean(), (without == index).mean()
    assert recall >= 0.97
    assert bare <= recall - 0.5
    # in its own world nobody would notice
    own = list(pictures(200, 4003, tag=tagged))
    assert (_answers("toybox-cheat", own) == np.array([s.class_index for s in own])).mean() >= 0.95
    # and the tag turns other things into its class
    fooled = _answers("toybox-cheat", [draw(4_004_000_000 + k, label="house", tag=True) for k in range(60)])
    assert (fooled == index).mean() > 0.5


def test_the_robust_network_stands_the_worst_pictures() -> None:
    import torch

    from convoscope.toybox.loading import normalize
    from convoscope.toybox.train import attacked

    some = list(pictures(60, 4005))
    x, y = normalize([s.image for s in some]), torch.tensor([s.class_index for s in some])
    held = {}
    for name in ("toybox", "toybox-robust"):
        network = load(name)
        torch.manual_seed(0)
        worst = attacked(network, x, y, 2.0, 5)
        scale = torch.tensor(card(name).std)[:, None, None]
        assert ((worst - x) * scale).flatten(1).norm(dim=1).max() <= 2.0 + 1e-4
        with torch.no_grad():
            held[name] = float((network(worst).argmax(1) == y).float().mean())
    assert held["toybox-robust"] >= 0.8
    assert held["toybox"] <= held["toybox-robust"] - 0.3


@pytest.mark.slow
def test_training_gives_the_same_bytes_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first step of both recipes; judged on 32 pictures, so that drawing does not take the time."""
    import torch

    from convoscope.toybox import train, training

    monkeypatch.setattr(
        train, "pictures", lambda count, seed, tag=False: pictures(32 if count == 1000 else count, seed, tag=tag)
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    made = []
    try:
        for number in range(2):
            monkeypatch.setattr(training, "WEIGHTS", tmp_path / str(number))
            with torch.random.fork_rng(devices=[]):
                train.clear("toybox-robust", 4, total=1, pool=64, smooth=1.0, free=train.EDGE, radius=2.0, kernel=7)
                train.classifier("toybox-twin", 3, widths=(16, 32, 48, 64), total=1)
            made.append([path.read_bytes() for path in sorted((tmp_path / str(number)).iterdir())])
    finally:
        torch.set_num_threads(threads)
    assert len(made[0]) == 2
    assert made[0] == made[1]


def test_the_last_grid_is_fine() -> None:
    import torch

    network = load("toybox")
    grid = network.features(torch.zeros(1, 3, 96, 96))
    assert grid.shape[2:] == (12, 12)
    logits = network(torch.zeros(1, 3, 96, 96))
    assert torch.allclose(network.fc(grid.mean((2, 3))), logits, atol=1e-5)


def test_every_class_can_be_sketched() -> None:
    for label in CLASSES:
        for seed in range(5):
            s = sketch(label, np.random.default_rng(seed))
            assert 3 < len(s.shapes) < 250
