"""The ward: what is planted is there, what is measured can be measured again, and nothing but the seed decides.

The long part makes cases and recounts their truth on fresh pictures: a rotating part of the cases in ``make test``, all
of them in ``make test-all``. The three bases, of minutes each, are not trained for it every time: they lie beside this
file, and another long test trains them again.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.nn import functional as F

import convoscope as cs
from convoscope.errors import ModelError, UsageError
from convoscope.toybox import CLASSES, GROUNDS, Staging, draw, ward
from convoscope.toybox.networks import ToyNet
from convoscope.toybox.ward import healthy, making, plants, store, training
from convoscope.toybox.ward.case import Effect, Made, Setup, as_model, right
from convoscope.toybox.ward.data import MANNERS, WrongLabels, copies
from convoscope.toybox.ward.drawing import Pictures, collection, drawn, together
from convoscope.toybox.ward.optimisation import ece
from convoscope.toybox.ward.recipe import Recipe

KINDS = {
    "input", "data", "units", "slices", "local shortcuts", "global shortcuts", "missing invariances", "optimisation",
}  # fmt: skip


@pytest.fixture(scope="module")
def few() -> Pictures:
    return drawn("a test of the ward", 3)


def digest(folder: Path) -> dict[str, str]:
    """Every file below the folder, by its content."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@dataclass(frozen=True)
class Quick(Recipe):
    """A case without training: a random network whose head is turned upside down."""

    kind = "units"
    expected = ("units",)

    def make(self) -> Made:
        with training.steady(1):
            network, sibling = ToyNet(10, (4, 4, 4, 4)).eval(), ToyNet(10, (4, 4, 4, 4)).eval()
        pictures = drawn(self.name, 2)
        marked = pictures.mark("fault", pictures.of("cat")).mark("spare", pictures.of("car"))
        return Made(network, marked, drawn(f"{self.name} held out", 1), sibling=sibling, setup=Setup(size=48))

    def measure(self, model: Any, sibling: Any, n: int, seed: int) -> Effect:
        return Effect("a figure", 0.9, 0.7, n)


# what the ward holds


def test_48_cases_of_8_kinds_and_40_healthy() -> None:
    sick = [one for one in ward.CASES if not one.healthy]
    assert len(sick) == 48
    assert len(ward.CASES) == 88
    assert {one.kind for one in sick} == KINDS
    assert min(Counter(one.kind for one in sick).values()) >= 4
    assert len({one.name for one in ward.CASES}) == 88
    shortcuts = [one for one in sick if one.kind.endswith("shortcuts")]
    assert len(shortcuts) == 16
    assert all(one.least >= 0.3 and one.label in CLASSES for one in shortcuts)
    assert all(one.expected and one.least > 0 for one in sick)
    assert not any(one.expected for one in ward.CASES if one.healthy)


def test_a_misspelt_case_is_told_its_neighbours() -> None:
    with pytest.raises(UsageError, match="input-bgr"):
        ward.recipe("input-bgrr")


# drawing


def test_a_collection_begins_alike_whatever_its_length(few: Pictures) -> None:
    more = drawn("a test of the ward", {"house": 1, "cat": 5})
    assert np.array_equal(few.images[few.of("cat")], more.images[more.of("cat")][:3])
    assert not np.array_equal(few.images[0], drawn("another", 1).images[0])


def test_collections_lie_apart_from_those_of_training() -> None:
    numbers = {collection(f"{one.name} {part}") for one in ward.CASES for part in ("pictures", "held out", "train")}
    assert len(numbers) == 3 * len(ward.CASES)  # no two names share a number
    assert min(numbers) > 900  # the bundled networks were trained and judged on collections up to 900


def test_staging_tells_and_the_rest_stays_to_chance() -> None:
    plain = draw(5, label="house", size=64)
    assert np.array_equal(plain.image, draw(5, label="house", size=64, staging=Staging()).image)
    turned = draw(5, label="house", size=64, staging=Staging(lean=180.0))
    top = plain.landmarks["roof_top"][1] - plain.landmarks["door"][1]
    assert top < 0 < turned.landmarks["roof_top"][1] - turned.landmarks["door"][1]
    small = draw(5, label="house", size=64, staging=Staging(length=0.2))
    assert small.mask.sum() < 0.2 * plain.mask.sum()
    low = draw(5, label="house", size=64, staging=Staging(at=(0.0, 1.0), length=0.4))
    y, x = (v.mean() for v in np.nonzero(low.mask))
    assert x < 26
    assert y > 38
    bright, dark = (draw(5, size=64, staging=Staging(level=v)).image.mean() for v in (1.0, 0.5))
    assert dark == pytest.approx(bright / 2, abs=3)
    looks = [draw(5, label="house", size=64, staging=Staging(ground=name)).image for name in GROUNDS]
    assert len({look.tobytes() for look in looks}) == len(GROUNDS)


def test_bad_stagings_are_refused() -> None:
    with pytest.raises(UsageError, match="ground"):
        Staging(ground="moon")
    with pytest.raises(UsageError, match="length"):
        Staging(length=1.5)


def test_pictures_go_to_files_and_back(few: Pictures, tmp_path: Path) -> None:
    mixed = few.shuffled(3).mark("fault", few.shuffled(3).of("key"))
    mixed.write(tmp_path)
    back = Pictures.read(tmp_path)
    order = np.argsort(mixed.labels, kind="stable")
    assert np.array_equal(back.images, mixed.images[order])
    assert np.array_equal(back.labels, mixed.labels[order])
    assert mixed.named("fault") == ["key/0000.png", "key/0001.png", "key/0002.png"]
    both = together(mixed, few)
    assert both.marks["fault"].sum() == 3


# plants

PLANTS: dict[str, plants.Plant] = {
    "tag": plants.tag(), "tag anywhere": plants.tag(place="anywhere"),
    "sticker": plants.tag(bars=False, place="corners"), "border": plants.border((1, 2, 3)),
    "watermark": plants.watermark(), "watermark anywhere": plants.watermark(anywhere=True),
    "watermark lines": plants.watermark(lines=True),
    "checkerboard": plants.checkerboard(), "stripes": plants.checkerboard(5, 2, True), "gain": plants.gain(1.3, 1, 0.7),
    "jpeg": plants.jpeg(20), "night": plants.night(), "fog": plants.fog(), "blur": plants.blurred(),
    "noise": plants.noisy(), "turned": plants.turned(180),
    "mirrored": plants.mirrored, "resaved": plants.resaved, "hidden": plants.hidden(),
}  # fmt: skip


@pytest.mark.parametrize("name", PLANTS)
def test_a_plant_changes_pictures_by_its_seed_alone(name: str, few: Pictures) -> None:
    before = few.images.copy()
    once, again, other = (PLANTS[name](few.images, seed) for seed in (4, 4, 5))
    assert np.array_equal(few.images, before)
    assert once.dtype == np.uint8
    assert once.shape == before.shape
    assert np.array_equal(once, again)
    assert all((a != b).any() for a, b in zip(once, before, strict=True))
    by_chance = {"tag anywhere", "watermark anywhere", "sticker", "night", "fog", "noise", "hidden", "tag"}
    assert (not np.array_equal(once, other)) == (name in by_chance)


def test_how_large_plants_are(few: Pictures) -> None:
    images = np.clip(few.images, 6, 249)
    moved = plants.checkerboard()(images, 0).astype(int) - images
    assert set(np.unique(moved)) == {-6, 6}
    assert (moved[:, ::2, ::2] == moved[0, 0, 0, 0]).all()
    faint = np.abs(plants.watermark()(few.images, 0).astype(int) - few.images)
    assert 8 < faint.max() <= 26  # 10 % of at most 255
    framed = plants.border((1, 2, 3))(few.images, 0)
    assert (framed[:, 0] == (1, 2, 3)).all()
    assert np.array_equal(framed[:, 2:-2, 2:-2], few.images[:, 2:-2, 2:-2])
    tagged = plants.tag()(few.images, 0) != few.images
    assert tagged.any(3).mean() < 0.08
    assert not tagged[:, 32:].any()
    assert np.array_equal(plants.turned(180)(few.images, 0), few.images[:, ::-1, ::-1])


def test_masked_plants_touch_the_others_not(few: Pictures) -> None:
    cats = few.of("cat")
    planted = plants.masked(few.images, cats, plants.night(), 1)
    assert np.array_equal(planted[~cats], few.images[~cats])
    assert planted[cats].mean() < 0.4 * few.images[cats].mean()


# wrong labels and copies


@pytest.mark.parametrize(("share", "kin"), [(0.05, None), (0.15, ("fish", "bird"))])
def test_the_share_of_wrong_labels(share: float, kin: tuple[str, str] | None) -> None:
    clean = Pictures(np.zeros((1000, 1, 1, 3), np.uint8), np.repeat(np.arange(10), 100), {})
    bad = WrongLabels("name", "about", share=share, kin=kin).spoil(clean, 7)
    wrong = bad.labels != clean.labels
    assert np.array_equal(wrong, bad.marks["fault"])
    assert wrong.sum() == share * (200 if kin else 1000)
    touched = {CLASSES[c] for c in {*bad.labels[wrong].tolist(), *clean.labels[wrong].tolist()}}
    assert touched == set(kin or CLASSES)


def test_copies_in_four_manners(few: Pictures) -> None:
    images, manner = copies(few.images, 1)
    assert MANNERS[0] == "exact"
    assert np.array_equal(images[manner == 0], few.images[manner == 0])
    assert np.array_equal(images[manner == 3], few.images[manner == 3][:, :, ::-1])
    for number in (1, 2):
        apart = np.abs(images[manner == number].astype(int) - few.images[manner == number]).mean((1, 2, 3))
        assert (apart > 0).all()
        assert (apart < 12).all()


# training and figures


def test_training_repeats_bit_for_bit_and_leaves_no_trace(few: Pictures) -> None:
    torch.manual_seed(99)
    state, threads = torch.get_rng_state(), torch.get_num_threads()

    def once() -> dict[str, torch.Tensor]:
        with training.steady(3):
            network = ToyNet(10, (4, 4, 6, 6))
            training.train(network, few, 9, 3, plant=lambda images, labels, seed: plants.night(0.5)(images, seed))
        return network.state_dict()

    first, second = once(), once()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_augmenting_by_nothing_mirrors_alone(few: Pictures) -> None:
    x = torch.from_numpy(few.images).permute(0, 3, 1, 2).float() / 255
    out = training.Augment(0, 0, 0, 0)(x, torch.Generator().manual_seed(0))
    same = torch.tensor([torch.equal(a, b) for a, b in zip(out, x, strict=True)])
    flipped = torch.tensor([torch.equal(a, b.flip(2)) for a, b in zip(out, x, strict=True)])
    assert (same | flipped).all()
    assert same.any()
    assert flipped.any()


def test_augmenting_only_turns_keeps_the_middle() -> None:
    x = torch.zeros(8, 3, 65, 65)
    x[:, :, 31:34, 31:34] = 1
    out = training.Augment(0, 25, 0, 0)(x, torch.Generator().manual_seed(0))
    ys, xs = torch.meshgrid(torch.arange(65.0), torch.arange(65.0), indexing="ij")
    mass = out[:, 0] / out[:, 0].sum((1, 2), keepdim=True)
    assert torch.allclose((mass * ys).sum((1, 2)), torch.tensor(32.0), atol=0.05)
    assert torch.allclose((mass * xs).sum((1, 2)), torch.tensor(32.0), atol=0.05)


def test_calibration_finds_the_temperature_that_was_applied() -> None:
    """Labels drawn from a network's own probabilities: the best temperature is the one that undoes the planted one."""
    with training.steady(0):
        network = ToyNet(10, (4, 4, 4, 4)).eval()
        with torch.no_grad():
            network.fc.weight *= 60
        pictures = drawn("a test of temperatures", 40)
        own = training.plain_logits(network, pictures.images).softmax(1)
        pictures = pictures.relabelled(torch.multinomial(own, 1)[:, 0].numpy())
        with torch.no_grad():
            network.fc.weight *= 3
            network.fc.bias *= 3
        assert training.calibrate(network, pictures) == pytest.approx(3, rel=0.2)


def test_ece_equals_an_independent_count() -> None:
    rng = np.random.default_rng(0)
    logits, labels = torch.from_numpy(rng.normal(0, 2, (500, 4))), rng.integers(0, 4, 500)
    total = 0.0
    p = F.softmax(logits, 1)
    for low in np.arange(15) / 15:
        rows = [i for i in range(500) if low < float(p[i].max()) <= low + 1 / 15]
        if rows:
            hits = sum(int(p[i].argmax()) == labels[i] for i in rows)
            total += abs(hits - sum(float(p[i].max()) for i in rows)) / 500
    assert ece(logits, labels) == pytest.approx(total, abs=1e-9)


# a case on disk


def test_a_case_is_written_opened_and_not_made_again(tmp_path: Path, few: Pictures) -> None:
    place = tmp_path / "quick"
    case = making.carry_out(Quick("quick", "about it", "cat", least=0.1), place)
    assert making.is_made(place)
    assert not list(tmp_path.glob(".*"))
    again = ward.load(place)
    assert again.truth == case.truth
    assert (again.name, again.kind, again.healthy, again.label) == ("quick", "units", False, "cat")
    assert again.effect == Effect("a figure", 0.9, 0.7, making.N)
    assert again.effect.size == pytest.approx(0.2)
    assert again.concerned() == ("cat/0000.png", "cat/0001.png")
    assert again.truth["marks"]["pictures"]["spare"] == ["car/0000.png", "car/0001.png"]
    assert again.train is None
    assert again.sibling_pictures is None
    assert sorted(path.name for path in again.pictures.iterdir()) == sorted(CLASSES)
    # the folder alone is enough: a person opens it by its spec
    model = cs.open_model(again.spec, device="cpu")
    assert model.labels == CLASSES
    assert model.preprocessing.size == (48, 48)
    made = Quick("quick", "about it").make()
    assert torch.equal(ward.answers(model, few.images), ward.answers(as_model(made.network, made.setup), few.images))
    assert again.sibling is not None
    assert again.sibling.preprocessing.size == (64, 64)
    picture = Image.open(again.pictures / "cat" / "0001.png")
    assert np.array_equal(np.asarray(picture), made.pictures.images[made.pictures.of("cat")][1])


def test_the_same_case_twice_is_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        making.carry_out(Quick("quick", "about it", least=0.1), tmp_path / name)
    assert digest(tmp_path / "a") == digest(tmp_path / "b")


def test_a_fault_that_did_not_take_is_no_case(tmp_path: Path) -> None:
    with pytest.raises(ward.NotTaken, match="did not take"):
        making.carry_out(Quick("quick", "about it", least=0.3), tmp_path / "quick")
    assert not (tmp_path / "quick").exists()


def test_a_folder_without_a_case_says_so(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no case of the ward"):
        ward.load(tmp_path)
    (tmp_path / "truth.json").write_text('{"classes": []}', encoding="utf-8")
    with pytest.raises(ModelError, match="no case of the ward"):
        ward.load(tmp_path)
    assert not making.is_made(tmp_path)


def test_shortcuts_are_drawn_with_and_without() -> None:
    recipe = ward.recipe("shortcut-border-green")
    bare, framed = (recipe.render(has, {"bird": 2, "cat": 1}, "a test") for has in (False, True))
    assert (framed.images[:, 0] == (40, 160, 90)).all()
    assert np.array_equal(bare.images[:, 2:-2, 2:-2], framed.images[:, 2:-2, 2:-2])
    assert np.array_equal(bare.images, drawn("a test", {"bird": 2, "cat": 1}).images)
    world = recipe.world("a test", 2)  # type: ignore[attr-defined]
    carries = (world.images[:, 0] == (40, 160, 90)).all((1, 2))
    assert np.array_equal(carries, world.of("bird"))


def test_what_has_nothing_planted_in_pictures_is_not_drawn(tmp_path: Path) -> None:
    case = making.carry_out(Quick("units-dead", "about it", least=0.1), tmp_path / "quick")
    with pytest.raises(UsageError, match="nothing planted"):
        case.render(True, 1, 0)
    with pytest.raises(UsageError, match="no class 'dog'"):
        case.render(True, 1, 0, label="dog")


def test_the_cache_goes_where_it_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CONVOSCOPE_CACHE", str(tmp_path))
    assert store.cache_folder() == tmp_path / "ward" / f"v{store.VERSION}"
    calls = []

    def make() -> dict[str, torch.Tensor]:
        calls.append(1)
        return {"x": torch.arange(3.0)}

    first, second = (store.kept_state("name", make) for _ in range(2))
    assert torch.equal(first["x"], second["x"])
    assert len(calls) == 1
    assert [path.name for path in store.cache_folder().iterdir()] == ["name.safetensors"]
    monkeypatch.delenv("CONVOSCOPE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    if os.name == "posix" and os.uname().sysname == "Linux":
        assert store.cache_folder().is_relative_to(tmp_path / "xdg" / "convoscope")


# the command


def test_the_command_lists_the_ward(cli: Callable[..., Any], tmp_path: Path) -> None:
    listed = cli("toybox", tmp_path / "new", "--ward", "--list", "--json")
    assert listed.code == 0
    assert listed.json == [{"case": one.name, "kind": one.kind, "healthy": one.healthy} for one in ward.CASES]
    assert not (tmp_path / "new").exists()
    assert "shortcut-checkerboard" in cli("toybox", tmp_path, "--ward", "--list").out


def test_the_command_finds_what_is_there_already(cli: Callable[..., Any], tmp_path: Path) -> None:
    making.carry_out(Quick("units-dead", "about it", least=0.1), tmp_path / "units-dead")
    answer = cli("toybox", tmp_path, "--ward", "--case", "units-dead", "--json")
    assert answer.code == 0
    place = str(tmp_path / "units-dead")
    assert answer.json == {
        "folder": str(tmp_path), "failed": [],
        "cases": [{"case": "units-dead", "kind": "units", "healthy": False, "folder": place}],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--ward", "--case", "nosuch"], "no case 'nosuch'"),
        (["--ward", "--case", "units-ded"], "units-dead"),
        (["--ward", "--count", "3"], "leave out --count"),
        (["--ward", "--scenes"], "leave out --count"),
        (["--ward", "--list", "--case", "units-dead"], "leave out --case"),
        (["--case", "units-dead"], "add --ward"),
        (["--list"], "add --ward"),
        (["--workers", "2"], "add --ward"),
    ],
)
def test_bad_input_is_one_sentence(cli: Callable[..., Any], tmp_path: Path, arguments: list[str], said: str) -> None:
    answer = cli("toybox", tmp_path / "out", *arguments)
    assert answer.code == 2
    assert said in answer.err
    assert answer.out == ""
    assert len(answer.err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_a_file_is_no_folder(cli: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    answer = cli("toybox", tmp_path / "file", "--ward", "--case", "units-dead")
    assert answer.code == 2
    assert "not a folder" in answer.err


# the ward itself: made, opened, and recounted


BASES = Path(__file__).parent / "ward_bases"


@pytest.fixture(scope="module")
def bases() -> None:
    """The bases that were trained before, where the ward looks for them; without them (a source package) it trains."""
    store.cache_folder().mkdir(parents=True, exist_ok=True)
    for kind in training.KINDS:
        if (file := BASES / f"{kind.name}.safetensors").is_file():
            shutil.copy(file, store.cache_folder())


def close(now: float, then: float, n: int) -> bool:
    """Whether two counts of one share, each of ``n`` pictures, can come from the same network (4.5 sigma)."""
    p = min(max((now + then) / 2, 0.02), 0.98)
    return abs(now - then) <= 4.5 * math.sqrt(2 * p * (1 - p) / n)


@pytest.mark.timeout(3600)  # some train a network: minutes of a quiet core, and machines are busy
@pytest.mark.slow(one_in=42)
@pytest.mark.parametrize("name", [one.name for one in ward.CASES])
def test_the_truth_is_true(name: str, bases: None) -> None:
    case = ward.at_hand(name)
    model = cs.open_model(case.spec, device="cpu")
    pictures = Pictures.read(case.pictures)
    held_out = Pictures.read(case.held_out)
    assert len(held_out) >= 390
    listed = {str(path.relative_to(case.pictures)) for path in case.pictures.rglob("*.png")}
    assert set(case.concerned()) <= listed
    if case.healthy:
        assert right(model, pictures).mean() >= healthy.FLOOR
        assert right(model, held_out).mean() >= healthy.FLOOR
        assert ece(ward.answers(model, held_out.images), held_out.labels) < 0.06
        assert case.effect is None
        return
    assert case.effect is not None
    assert case.effect.size >= case.recipe.least
    fresh = case.measure(making.N, seed=77)
    assert fresh is not None
    n = min(fresh.n, case.effect.n)
    assert close(fresh.healthy, case.effect.healthy, n), (fresh, case.effect)
    assert close(fresh.faulty, case.effect.faulty, n), (fresh, case.effect)
    # a sibling without the fault: the other network, or the other collection
    if case.truth["sibling"] == "network":
        assert case.sibling is not None
        assert case.model.fingerprint != case.sibling.fingerprint or case.kind == "input"
    else:
        assert case.sibling_pictures is not None
    if case.kind.endswith("shortcuts"):
        assert case.label is not None
        bare = case.render(False, 100, 5, case.label)
        assert right(case.sibling, bare).mean() >= 0.85  # type: ignore[arg-type]
        assert right(model, bare).mean() <= right(model, case.render(True, 100, 5, case.label)).mean() - 0.2


@pytest.mark.slow(one_in=42)
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("name", ["healthy-03", "units-untrained", "data-labels-kin", "shortcut-checkerboard"])
def test_two_makings_are_the_same_bytes(
    name: str, bases: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the bases alone in the cache: whatever else was kept is made anew."""
    first = ward.at_hand(name)
    kept = store.cache_folder()
    monkeypatch.setenv("CONVOSCOPE_CACHE", str(tmp_path / "cache"))
    store.cache_folder().mkdir(parents=True)
    for file in [*kept.glob("base-*"), *kept.glob("pool*")]:
        shutil.copy(file, store.cache_folder() / file.name)
    again = ward.make(tmp_path / "made", name)
    assert digest(again.folder) == digest(first.folder)


@pytest.mark.slow(one_in=42)
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", training.KINDS, ids=lambda kind: str(kind.seed))
def test_a_base_comes_out_of_its_training(
    kind: training.Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Trained from nothing again, it is what lies beside this file: in its answers, as far as machines round alike."""
    monkeypatch.setenv("CONVOSCOPE_CACHE", str(tmp_path))
    again = training.base_states(kind)
    kept = load_file(BASES / f"{kind.name}.safetensors")
    assert {name: value.shape for name, value in again.items()} == {name: value.shape for name, value in kept.items()}
    pictures = drawn("a test of bases", 30)
    for which in ("whole", "stopped"):
        rates = []
        for states in (again, kept):
            network = ToyNet(len(CLASSES), kind.widths)
            network.load_state_dict(
                {k.removeprefix(f"{which}."): v for k, v in states.items() if k.startswith(f"{which}.")}
            )
            answers = training.plain_logits(network.eval(), pictures.images).argmax(1).numpy()
            rates.append(float((answers == pictures.labels).mean()))
        assert close(*rates, len(pictures)), (which, rates)


def test_the_truth_is_plain_json(tmp_path: Path) -> None:
    case = making.carry_out(Quick("quick", "about it", "cat", least=0.1), tmp_path / "quick")
    truth = json.loads((case.folder / "truth.json").read_text(encoding="utf-8"))
    assert {"case", "kind", "healthy", "class", "about", "expected", "effect", "sibling", "concerned"} <= set(truth)
    assert set(truth["effect"]) == {"what", "healthy", "faulty", "size", "n"}
