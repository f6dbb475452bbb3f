"""The frame of ``diagnose`` and its stages input, data and slices, on small truths."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from scipy import stats

import convoscope as cs
from convoscope.cli import run
from convoscope.improve import attempts, batch_norm, labels, pipelines
from convoscope.improve.collection import Labelled
from convoscope.improve.compression import quality
from convoscope.improve.copies import groups, pairs, signature
from convoscope.improve.diagnose import Case, StageResult, diagnose
from convoscope.improve.diagnose.properties import measure
from convoscope.improve.diagnose.run import LEAST, examine, stage_names, standing
from convoscope.improve.finding import Finding
from convoscope.improve.input import InputStage
from convoscope.improve.slices import SlicesStage
from convoscope.pictures.picture import Picture, Preprocessing
from convoscope.toybox.specimens import CLASSES, draw

SIDE = 96


def _found(won: float, p: float | None, sentence: str = "Something.") -> Finding:
    return Finding("data", sentence, 0.1, 0.05, 0.2, won=won, p=p)


@pytest.fixture(scope="module")
def drawn() -> list[tuple[Image.Image, str]]:
    return [
        (Image.fromarray(draw(660_000 + at, label=CLASSES[at % 10], size=SIDE).image), CLASSES[at % 10])
        for at in range(80)
    ]


@pytest.fixture(scope="module")
def toybox() -> cs.Model:
    return cs.open_model("toybox")


# the frame


def test_all_tests_of_all_stages_are_corrected_together() -> None:
    results = [
        StageResult([_found(0.1, 0.004), _found(0.1, 0.03)], tests=6),
        StageResult([_found(0.2, 0.001), _found(0.2, None, "A fact.")], tests=4),
    ]
    raw = np.array([0.004, 0.03, 0.001, *[1.0] * 7])
    adjusted = stats.false_discovery_control(raw)
    kept = standing(results)
    assert sorted(one.p for one in kept if one.p is not None) == pytest.approx(sorted(adjusted[adjusted <= 0.05]))
    assert any(one.sentence == "A fact." for one in kept)


def test_what_costs_next_to_nothing_is_not_told() -> None:
    assert standing([StageResult([_found(LEAST / 2, 1e-9), _found(LEAST / 2, None)], tests=1)]) == []


def test_stages_by_name() -> None:
    assert stage_names("slices,input") == ("input", "slices")
    assert len(stage_names(None)) == 7
    for bad in ("nonsense", "", "input,nonsense"):
        with pytest.raises(cs.UsageError, match="--only takes input"):
            stage_names(bad)


def test_who_stops_it_keeps_what_is_done(
    toybox: cs.Model, drawn: list[tuple[Image.Image, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(self: SlicesStage, case: Case) -> StageResult:
        raise KeyboardInterrupt

    monkeypatch.setattr(SlicesStage, "run", stopped)
    found = examine(Case(toybox, Labelled.of(drawn[:30], toybox)), ("data", "slices"))
    assert list(found.stages) == ["data"]
    assert found.interrupted == ("slices",)
    assert "Stopped before: slices" in found.missed


def test_the_network_and_its_pictures_are_named_in_the_next_command(toybox: cs.Model) -> None:
    case = Case(
        toybox, Labelled((), (), (), np.zeros(0, np.int64)), words=("net.py:f", "a b"), flags=("--size", "32")
    )
    assert case.command("audit", "--out", "x") == "convoscope audit net.py:f 'a b' --out x --size 32"
    assert (
        case.command("diagnose", "--size", "64", without=["--size"]) == "convoscope diagnose net.py:f 'a b' --size 64"
    )


# input


def test_divergence_is_that_of_two_gaussians() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(0.3, 1.7, (50, 4, 1000))
    moments = np.stack([x.mean(2), (x**2).mean(2)], 1)
    mean, variance = rng.normal(size=4), rng.uniform(0.5, 3, 4)
    observed = x.transpose(1, 0, 2).reshape(4, -1)
    own = torch.distributions.Normal(torch.tensor(observed.mean(1)), torch.tensor(observed.std(1)))
    kept = torch.distributions.Normal(torch.tensor(mean), torch.tensor(np.sqrt(variance)))
    expected = float(torch.distributions.kl_divergence(own, kept).mean())
    assert batch_norm.layer_divergence(moments, mean, variance) == pytest.approx(expected, rel=1e-4)
    # many drawings at once are what each gives by itself
    way = pipelines.Pipeline("", Preprocessing((8, 8)))
    memory = [(mean, variance), (mean[:2], variance[:2])]
    rows = rng.integers(0, 50, (3, 50))
    weights = np.stack([np.bincount(row, minlength=50) for row in rows]) / 50
    layers = (moments, moments[:, :, :2])
    together = batch_norm.divergences(attempts.Tried(way, None, layers, np.arange(50)), memory, weights)
    drawn = [attempts.Tried(way, None, tuple(one[row] for one in layers), row) for row in rows]
    apart = [batch_norm.divergence(one, memory) for one in drawn]
    np.testing.assert_allclose(together, apart, rtol=1e-10)


def test_batch_norm_gives_the_mean_and_std_back(drawn: list[tuple[Image.Image, str]]) -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 24, 5, 2, 2), torch.nn.BatchNorm2d(24, momentum=None))
    mean, std = (0.6, 0.4, 0.5), (0.2, 0.3, 0.25)
    true = cs.wrap(network, mean=mean, std=std, size=48)
    network.train()
    with torch.no_grad():
        network(true.inputs([true.prepare(image) for image, _ in drawn[:40]]))
    network.eval()
    given = cs.wrap(network, mean=(0, 0, 0), std=(1, 1, 1), size=48)
    held = Labelled.of(drawn[:40], given)
    found = batch_norm.fitted(given, held, given.preprocessing, np.arange(40))
    assert found is not None
    assert found.preprocessing.mean == pytest.approx(mean, abs=0.02)
    assert found.preprocessing.std == pytest.approx(std, rel=0.03)


def test_a_pipeline_is_tried_on_what_can_be_read(
    toybox: cs.Model, drawn: list[tuple[Image.Image, str]], tmp_path: Path
) -> None:
    """Pictures that go between two readings cost themselves and nothing else; each score stays with its picture."""
    for number, (image, label) in enumerate(drawn[:40]):
        (tmp_path / label).mkdir(exist_ok=True)
        image.save(tmp_path / label / f"{number:02d}.png")
    held = Labelled.of(tmp_path, toybox)
    given = pipelines.Pipeline("as given", toybox.preprocessing)
    rows = np.arange(3, 37)
    whole = attempts.attempt(toybox, held, given, rows)
    assert whole.rows.tolist() == rows.tolist()
    for row in (3, 17, 36, 39):
        Path(held.uris[row]).unlink()
    Path(held.uris[20]).write_bytes(Path(held.uris[20]).read_bytes()[:900])
    again = attempts.attempt(toybox, held, given, rows)
    assert again.rows.tolist() == [row for row in rows if row not in (3, 17, 20, 36)]
    assert whole.scores is not None
    assert again.scores is not None
    kept = np.isin(rows, again.rows)
    assert np.allclose(again.scores, whole.scores[kept], atol=1e-4)
    assert all(np.allclose(a, b[kept], atol=1e-4) for a, b in zip(again.moments, whole.moments, strict=True))
    with pytest.raises(cs.PictureError, match="None of the 2 pictures"):
        attempts.attempt(toybox, held, given, np.array([3, 20]))


@pytest.mark.parametrize("labelled", [True, False])
def test_the_input_is_judged_without_a_picture_that_went(
    toybox: cs.Model, drawn: list[tuple[Image.Image, str]], tmp_path: Path, labelled: bool
) -> None:
    files = []
    for number, (image, label) in enumerate(drawn):
        image.save(tmp_path / f"{number:02d}.png")
        files.append((str(tmp_path / f"{number:02d}.png"), label if labelled else None))
    wrong = replace(toybox, preprocessing=replace(toybox.preprocessing, mean=(0.0,) * 3, std=(1 / 255,) * 3))
    held = Labelled.of([name for name, _ in files], wrong, dict(files) if labelled else None)
    case = Case(wrong, held)
    assert len(case.looked.pictures) == len(case.properties) == 80
    for row in (5, 40, 41, 77):
        Path(held.uris[row]).unlink()
    found = InputStage().run(case)
    assert [one.kind for one in found.findings][:1] == ["input"]


def test_a_wrong_normalisation_stops_everything_else(toybox: cs.Model, drawn: list[tuple[Image.Image, str]]) -> None:
    wrong = replace(toybox, preprocessing=replace(toybox.preprocessing, mean=(0.0,) * 3, std=(1 / 255,) * 3))
    before = toybox.fingerprint
    found = diagnose(wrong, drawn, only="input,slices")
    assert found.stopped == "input"
    assert [one.kind for one in found.findings][:1] == ["input"]
    assert "--mean" in found.findings[0].next
    assert list(found.stages) == ["input"]
    assert toybox.fingerprint == before
    document = json.loads(json.dumps(found.to_dict()))
    assert set(document) == {"findings", "tests", "stopped", "missed"}
    assert set(document["findings"][0]) == {
        "kind", "class", "sentence", "size", "low", "high", "pictures", "doubt", "next",
    }  # fmt: skip


def test_nothing_is_wrong_with_the_right_input(toybox: cs.Model, drawn: list[tuple[Image.Image, str]]) -> None:
    found = diagnose(toybox, drawn, only="input")
    assert found.findings == ()
    assert found.stopped is None
    assert found.sentence.startswith("Nothing found")


def test_labels_in_another_order(toybox: cs.Model, drawn: list[tuple[Image.Image, str]]) -> None:
    assert toybox.labels is not None
    turned = replace(toybox, labels=(*toybox.labels[1:], toybox.labels[0]))
    found = diagnose(turned, drawn, only="input")
    assert "order of the labels" in found.findings[0].sentence


def test_the_quality_of_a_file_is_the_one_it_was_written_with(
    tmp_path: Path, drawn: list[tuple[Image.Image, str]]
) -> None:
    for written in (30, 60, 75, 90):
        drawn[0][0].save(tmp_path / "a.jpg", quality=written)
        assert quality(str(tmp_path / "a.jpg")) == pytest.approx(written, abs=1.5)
    drawn[0][0].save(tmp_path / "a.png")
    assert quality(str(tmp_path / "a.png")) is None


def test_noise_is_measured_whatever_the_picture() -> None:
    rng = np.random.default_rng(1)
    slope = np.add.outer(np.linspace(60, 120, 96), np.linspace(0, 60, 96))
    for sigma in (4.0, 12.0):
        grey = np.clip(slope + rng.normal(0, sigma, slope.shape), 0, 255).astype(np.uint8)
        assert measure(Picture.of(np.repeat(grey[..., None], 3, 2))).noise == pytest.approx(sigma / 255, rel=0.15)


# data


def _blobs(count: int, apart: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    truth = np.repeat(np.arange(4), count)
    centres = rng.normal(size=(4, 16)) * apart
    return (centres[truth] + rng.normal(size=(len(truth), 16))).astype(np.float32), truth


def test_wrong_labels_are_ranked_and_counted() -> None:
    points, truth = _blobs(100, 2.0)
    rng = np.random.default_rng(5)
    given = truth.copy()
    bad = rng.permutation(len(truth))[:32]
    given[bad] = (given[bad] + rng.integers(1, 4, len(bad))) % 4
    found = labels.suspects(points, given)
    assert set(found.rows[found.order[:32]]) == set(bad)
    assert found.wrong.low <= 0.08 <= found.wrong.high
    assert found.p < 1e-6
    assert labels.suspects(points, truth).p == 1.0


def test_classes_that_overlap_are_no_wrong_labels() -> None:
    points, truth = _blobs(100, 0.5)
    found = labels.suspects(points, truth)
    assert (found.suggested != found.given).mean() > 0.1
    assert found.p > 0.01


def test_labels_of_two_classes_exchanged() -> None:
    points, truth = _blobs(100, 2.0)
    given = truth.copy()
    given[:15], given[100:115] = 1, 0
    found = labels.suspects(points, given)
    rate, p, misfits = found.between(0, 1)
    assert rate.low <= 0.15 <= rate.high
    assert p < 1e-6
    assert misfits.sum() > 5
    assert found.between(2, 3)[1] == 1.0


def test_self_confidence_is_the_probability_of_the_label_given() -> None:
    chance = np.random.default_rng(0).dirichlet(np.ones(5), 20)
    given = np.arange(20) % 5
    expected = [chance[row, label] for row, label in enumerate(given)]
    assert labels.self_confidence(chance, given) == pytest.approx(expected, abs=1e-12)


def test_pictures_in_memory_have_names_of_their_own(toybox: cs.Model, drawn: list[tuple[Image.Image, str]]) -> None:
    held = Labelled.of(drawn[:5], toybox)
    assert len(set(held.uris)) == 5


def test_copies_are_found_and_nothing_else(drawn: list[tuple[Image.Image, str]]) -> None:
    images = [image for image, _ in drawn]

    def compressed(image: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=60)
        return Image.open(buffer).convert("RGB")

    changed = [
        images[0].resize((48, 48)),
        compressed(images[1]),
        ImageOps.mirror(images[2]),
        images[3].resize((72, 72)),
    ]
    every = np.stack([signature(one) for one in [*images, *changed]])
    keys = [str(at) for at in range(len(every))]
    found = pairs(every, keys)
    assert {(one.a, one.b) for one in found} == {(at, len(images) + at) for at in range(4)}
    assert [one.mirrored for one in sorted(found, key=lambda one: one.a)] == [False, False, True, False]
    assert len(groups(found, len(every))) == 4
    assert pairs(every[:5], keys[:5], every[5:10], keys[5:10]) == []


def test_audit_names_the_leaks_and_the_accuracy_without(
    toybox: cs.Model, drawn: list[tuple[Image.Image, str]]
) -> None:
    found = cs.audit(toybox, drawn[:40], [*drawn[36:40], *drawn[40:60]])
    assert found.leaked == [36, 37, 38, 39]
    assert all(one.exact for one in found.across)
    without = found.accuracy_without(found.leaked)
    assert without is not None
    assert "copy of the training picture" in found.table()
    assert "Among the training pictures" in found.page()


# slices


def test_a_planted_slice_is_found_and_its_pictures_are_shown(toybox: cs.Model) -> None:
    night, plain = [], []
    for at in range(160):
        label = CLASSES[at % 10]
        image = draw(880_000 + at, label=label, size=64).image
        if label in ("car", "boat", "cup", "key") and at % 3 == 0:
            night.append((Image.fromarray((image * 0.06).astype(np.uint8)), label))
        else:
            plain.append((Image.fromarray(image), label))
    held = Labelled.of([*plain, *night], toybox)
    case = Case(toybox, held)
    wrong = ~case.looked.right
    dark = np.arange(len(held)) >= len(plain)
    assert wrong[dark].mean() > wrong[~dark].mean() + 0.3, "the plant must cost the network something"
    result = SlicesStage().run(case)
    best = min((one for one in result.findings), key=lambda one: one.p or 0.0)
    members = [held.uris.index(uri) for uri in best.pictures]
    assert np.mean(dark[members]) >= 0.8
    assert result.tests >= len(result.findings)


# bad input


def test_without_labels_the_stages_that_need_none_still_run(
    toybox: cs.Model, drawn: list[tuple[Image.Image, str]]
) -> None:
    found = diagnose(toybox, [image for image, _ in drawn[:40]], only="input,data,slices")
    assert found.right is None
    assert "slices" in found.refused
    assert "input" not in found.refused
    assert found.findings == ()


@pytest.mark.parametrize("some", ["one class", "ten pictures", "foreign labels"])
def test_too_little_is_said_in_a_sentence(toybox: cs.Model, drawn: list[tuple[Image.Image, str]], some: str) -> None:
    chosen = {
        "one class": [one for one in drawn if one[1] == CLASSES[0]],
        "ten pictures": drawn[:10],
        "foreign labels": [(image, f"strange {label}") for image, label in drawn[:40]],
    }[some]
    found = diagnose(toybox, chosen, only="input,data,slices")
    assert found.findings == ()
    assert found.missed
    assert ("does not know: strange" in found.missed) == (some == "foreign labels")
    assert "<html" in found.page()


def test_the_command(
    tmp_path: Path, drawn: list[tuple[Image.Image, str]], capsys: pytest.CaptureFixture[str]
) -> None:
    for at, (image, label) in enumerate(drawn[:30]):
        (tmp_path / "pictures" / label).mkdir(parents=True, exist_ok=True)
        image.save(tmp_path / "pictures" / label / f"{at}.png")
    (tmp_path / "pictures" / "cup" / "broken.png").write_bytes(b"no picture")
    out = tmp_path / "out"
    code = run(["diagnose", "toybox", str(tmp_path / "pictures"), "--only", "data", "--out", str(out), "--json"])
    told = capsys.readouterr()
    assert code == 1
    assert "broken.png" in told.err
    document = json.loads(told.out)
    written = json.loads((out / "diagnosis.json").read_text())
    assert {name: written[name] for name in document} == document
    assert "What was asked" in (out / "diagnosis.html").read_text()
    assert run(["diagnose", "toybox", str(tmp_path / "pictures"), "--only", "nonsense", "--out", str(out)]) == 2
    assert run(["audit", "toybox", str(tmp_path / "pictures"), "--out", str(out)]) == 1
    assert (out / "audit.csv").read_text().startswith("file,label,suggested,score,reason")


def test_input_stage_refuses_nothing_but_says_when_it_cannot_tell(
    toybox: cs.Model, drawn: list[tuple[Image.Image, str]]
) -> None:
    result = InputStage().run(Case(toybox, Labelled.of(drawn[:8], toybox)))
    assert result.findings == []
    assert "fewer than" in result.could_miss


def test_next_commands_say_where_to_write() -> None:
    """Of the commands that findings name, all but `repair` are refused without --out."""
    source = Path(cs.__file__).parent / "improve"
    called = [
        found
        for file in source.rglob("*.py")
        for found in re.findall(r'case\.command\(\s*"(\w+)"([^)]*)\)', file.read_text(encoding="utf-8"))
    ]
    assert {"stress", "health", "depth", "repair"} <= {name for name, _ in called}
    assert [name for name, rest in called if name != "repair" and '"--out"' not in rest] == []
