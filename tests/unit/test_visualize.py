"""Visualisation: optima that are known, independence of items, the saved picture, and the network left alone."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from torch import nn

import convoscope as cs
from convoscope.errors import LayerError, TargetError, UsageError
from convoscope.pictures.picture import Picture, Preprocessing
from convoscope.visualization import Fourier, Maco, Santurkar, Simonyan, Yosinski, visualize, visualize_frames
from convoscope.visualization.canvas import Canvas

SIDE = 12


class Linear(nn.Module):
    def __init__(self, classes=4, channels=3):
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.weight = nn.Parameter(torch.randn(classes, channels * SIDE * SIDE, generator=generator))

    def forward(self, x):
        return x.flatten(1) @ self.weight.T


class Quadratic(nn.Module):
    """-½ Σ d (x - a)²: with a penalty λ the optimum is d a / (d + 2 λ)."""

    def __init__(self):
        super().__init__()
        generator = torch.Generator().manual_seed(2)
        self.a = nn.Parameter(torch.randn(3, SIDE, SIDE, generator=generator))
        self.d = nn.Parameter(torch.rand(3, SIDE, SIDE, generator=generator) + 0.5)

    def forward(self, x):
        return (-0.5 * self.d * (x - self.a) ** 2).flatten(1).sum(1, keepdim=True)


class Small(nn.Module):
    def __init__(self, channels=3):
        super().__init__()
        self.conv = nn.Conv2d(channels, 8, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(8, 12, 3, stride=2, padding=1)
        self.fc = nn.Linear(12, 5)

    def forward(self, x):
        return self.fc(torch.relu(self.conv2(self.relu(self.conv(x)))).mean((2, 3)))


def small(channels=3, **preprocessing):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = Small(channels)
    settings = {"mean": (0.4,) * channels, "std": (0.25,) * channels, "size": 24, **preprocessing}
    return cs.wrap(module, **settings, labels=["ant", "bee", "cat", "dog", "elk"])


def distance(found, wanted):
    return np.linalg.norm(found - wanted) / np.linalg.norm(wanted)


# optima


@pytest.mark.parametrize("l2", [1e-3, 0.05, 1.0])
def test_simonyan_reaches_the_linear_optimum(l2):
    module = Linear()
    result = visualize(cs.wrap(module, size=SIDE), 2, recipe=Simonyan(l2=l2))
    wanted = (module.weight[2].detach() / (2 * l2)).view(3, SIDE, SIDE).numpy()
    assert distance(result.inputs, wanted) < 1e-3


@pytest.mark.parametrize("l2", [1e-3, 0.1, 2.0])
def test_simonyan_reaches_a_quadratic_optimum_that_its_first_step_overshoots(l2):
    module = Quadratic()
    result = visualize(cs.wrap(module, size=SIDE), 0, recipe=Simonyan(l2=l2))
    a, d = module.a.detach().numpy(), module.d.detach().numpy()
    assert distance(result.inputs, d * a / (d + 2 * l2)) < 1e-3


def test_lambda_is_found_where_none_is_given_and_keeps_the_picture_in_its_range():
    module = Linear()
    result = visualize(cs.wrap(module, size=SIDE, mean=(0.5,) * 3, std=(0.25,) * 3), 1, recipe="simonyan")
    assert result.facts["l2"] > 1e-3
    assert 0.4 < float(np.sqrt((result.inputs**2).mean())) < 1.2
    wanted = module.weight[1].detach().view(3, SIDE, SIDE).numpy() / (2 * result.facts["l2"])
    assert distance(result.inputs, wanted) < 1e-2


@pytest.mark.parametrize(("rate", "radius"), [(0.001, 1.0), (0.004, 0.02)])
def test_santurkar_goes_along_a_linear_gradient_by_its_steps_or_to_its_radius(rate, radius):
    """Steps that fall evenly from rate to a fifth of it add up to 0.6 rate each."""
    module = Linear()
    std = (0.2, 0.25, 0.3)
    model = cs.wrap(module, size=SIDE, mean=(0.5,) * 3, std=std)
    grey = np.full((SIDE, SIDE, 3), 128, np.uint8)
    recipe = Santurkar(steps=11, rate=rate, radius=radius, jitter=0, settle=0.0)
    result = visualize(model, 2, recipe=recipe, image=Picture.of(grey, "grey"))
    moved = result.inputs * np.array(std)[:, None, None] + 0.5 - 128 / 255  # in 0..1
    slope = module.weight[2].detach().numpy().reshape(3, SIDE, SIDE) / np.array(std)[:, None, None]
    length = min(radius, 11 * 0.6 * rate)
    assert distance(moved, slope * length / np.sqrt((slope**2).mean())) < 1e-3


def test_santurkar_stays_in_its_ball_and_in_a_pictures_range():
    model = small()
    first = visualize(model, "cat", recipe=Santurkar(steps=1, rate=0.0), seed=2).inputs * 0.25 + 0.4
    far = visualize(model, "cat", recipe=Santurkar(steps=60, rate=0.1, radius=0.3), seed=2).inputs * 0.25 + 0.4
    assert np.sqrt(((far - first) ** 2).mean()) <= 0.3 + 1e-5
    assert far.min() >= -1e-6
    assert far.max() <= 1 + 1e-6


def test_a_silent_unit_is_woken():
    class Silent(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(2, 3, 3, 3, generator=torch.Generator().manual_seed(0)))

        def forward(self, x):  # at faint noise the bias keeps every unit below zero
            return torch.relu(nn.functional.conv2d(x, self.weight) - 1.0).mean((2, 3))

    result = visualize(cs.wrap(Silent(), size=16), 0, recipe=Simonyan(l2=1e-4, steps=60))
    assert result.history[0] == 0
    assert result.history[-1] > 0.5
    assert any("target was silent" in doubt for doubt in result.doubts)


def test_a_unit_that_nothing_can_wake_is_doubted():
    class Dead(nn.Module):
        def forward(self, x):
            return (x * 0).mean((2, 3)) + torch.zeros(1, 3)

    result = visualize(cs.wrap(Dead(), size=16), 1, recipe=Fourier(steps=3))
    assert any("no gradient" in doubt for doubt in result.doubts)


def test_a_lively_unit_is_not_doubted_for_being_silent():
    result = visualize(small(), "conv2:3", recipe=Fourier(steps=20))
    assert not any("silent" in doubt or "no gradient" in doubt for doubt in result.doubts)


# seeds and batches


@pytest.mark.parametrize("recipe", ["simonyan", "yosinski", "fourier", "maco", "santurkar"])
def test_same_seed_same_picture_and_another_seed_another(recipe):
    model = small()
    one, again, other = (visualize(model, "cat", recipe=recipe, steps=4, seed=seed) for seed in (3, 3, 4))
    assert np.array_equal(one.inputs, again.inputs)
    assert not np.array_equal(one.inputs, other.inputs)


@pytest.mark.parametrize(
    "recipe",
    [Simonyan(steps=12), Yosinski(steps=12), Fourier(steps=12), Maco(steps=6, crops=2), Santurkar(steps=12)],
)
def test_an_item_does_not_depend_on_its_batch(recipe):
    model = small()
    targets = ["ant", "conv2:3", "bee - cat", "conv:1@2,3", "elk"]
    together = visualize(model, targets, recipe=recipe, seed=1)
    for target, one in zip(targets, together, strict=True):
        alone = visualize(model, target, recipe=recipe, seed=1)
        assert alone.target == one.target
        assert np.abs(alone.inputs - one.inputs).max() < 1e-3
        assert abs(alone.score - one.score) < 1e-3 * max(1, abs(one.score))


def test_one_batch_is_one_forward_and_one_backward_a_step():
    results = visualize(small(), None, layer="conv2", recipe=Fourier(steps=10), seed=0)
    assert len(results) == 12
    assert results[0].provenance["passes"] == {"forwards": 10, "backwards": 10, "pictures": 12}


def test_an_early_layer_does_not_run_what_comes_after_it():
    ran = []

    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Conv2d(3, 4, 3)
            self.second = nn.Conv2d(4, 4, 3)
            self.second.register_forward_hook(lambda *_: ran.append(1))

        def forward(self, x):
            return self.second(self.first(x)).mean((2, 3))

    model = cs.wrap(Two(), size=16)
    list(visualize_frames(model, "first:0", recipe=Fourier(steps=2)))
    few = len(ran)
    ran.clear()
    list(visualize_frames(model, "first:0", recipe=Fourier(steps=12)))
    assert len(ran) <= few


# what is saved


CASES = [
    {"size": 24, "fit": "crop", "resize": 28},
    {"size": (24, 40), "fit": "crop", "resize": 30},
    {"size": 32, "fit": "squash"},
    {"size": (20, 32), "fit": "pad"},
    {"size": 24, "fit": "crop", "resize": 20},
    {"size": 33, "fit": "crop", "resize": 36, "channels": 1},
]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("recipe", ["maco", "yosinski"])
def test_the_saved_png_read_again_has_the_stated_score(case, recipe, tmp_path):
    model = small(**case)
    result = visualize(model, "dog", recipe=recipe, steps=5)
    path = result.save(tmp_path / "dog.png")
    inputs = model.inputs([model.prepare(path)])
    with torch.no_grad():
        scores = model.module(inputs)[0]
    assert abs(float(scores[3]) - result.score) < 1e-5
    assert abs(float(scores.softmax(0)[3]) - result.probability) < 1e-6
    assert result.rank == 1 + int((scores > scores[3]).sum())
    assert result.pixels.dtype == np.uint8


@pytest.mark.parametrize("case", CASES[:4])
def test_the_canvas_inverts_the_preprocessing(case):
    settings = {key: value for key, value in case.items() if key != "channels"}
    size = settings.pop("size")
    size = (size, size) if isinstance(size, int) else size
    preprocessing = Preprocessing(size, settings.get("resize"), settings["fit"])
    values = torch.rand(3, *size, generator=torch.Generator().manual_seed(0))
    wanted = preprocessing.normalise((values * 255).round() / 255)
    saved = Canvas.blank(preprocessing, size).picture(wanted)
    assert torch.allclose(Picture.of(saved).prepare(preprocessing).tensor, wanted, atol=1e-6)


def test_a_changed_photo_keeps_its_own_margin():
    preprocessing = Preprocessing((24, 24), 28, "crop")
    photo = np.random.default_rng(0).integers(0, 255, (60, 90, 3), dtype=np.uint8)
    picture = Picture.of(photo)
    canvas = Canvas.around(picture, preprocessing, (24, 24))
    saved = canvas.picture(picture.prepare(preprocessing).tensor)
    assert saved.shape == (28, 42, 3)
    assert torch.allclose(
        Picture.of(saved).prepare(preprocessing).tensor, picture.prepare(preprocessing).tensor, atol=1e-6
    )


def test_transparency_is_the_pictures_size_and_in_range(tmp_path):
    result = visualize(small(fit="crop", resize=28), "ant", recipe=Maco(steps=4, crops=2))
    assert result.transparency.shape == result.pixels.shape[:2]
    assert result.transparency.min() >= 0
    assert 0.5 < result.transparency.max() <= 1
    assert result.transparent.mode == "RGBA"


def test_to_dict_is_plain_json():
    result = visualize(small(), "ant", recipe=Fourier(steps=2), count=2)
    document = json.loads(json.dumps(result.to_dict()))
    assert len(document["visualizations"]) == 2
    assert document["visualizations"][0]["agreement"]["seeds"] == 2


# objectives


def test_a_direction_and_a_sum_of_targets_score_as_defined():
    model = small()
    vector = np.linspace(-1, 1, 12, dtype=np.float32)
    first, second = visualize(
        model, [cs.Direction("conv2", vector), cs.Combination([(1, "ant"), (-0.5, "bee")])], recipe=Fourier(steps=3)
    )
    for result in (first, second):
        inputs = model.inputs([model.prepare(result.pixels)])
        kept = {}
        handle = model.module.conv2.register_forward_hook(lambda m, i, o, kept=kept: kept.update(x=o))
        with torch.no_grad():
            scores = model.module(inputs)[0]
        handle.remove()
        if result is first:
            wanted = float((kept["x"].mean((2, 3))[0] * torch.from_numpy(vector / np.linalg.norm(vector))).sum())
        else:
            wanted = float(scores[0] - 0.5 * scores[1])
        assert abs(result.score - wanted) < 1e-4
    assert second.target == "ant - 0.5*bee"


def test_a_direction_can_come_from_a_file(tmp_path):
    np.save(tmp_path / "v.npy", np.ones(12, np.float32))
    result = visualize(small(), f"direction:conv2@{tmp_path / 'v.npy'}", recipe=Fourier(steps=2))
    assert result.target == "direction:conv2@v.npy"


def test_pictures_of_a_diverse_group_differ_more_than_those_of_seeds_alone():
    model = small()
    plain = visualize(model, "conv2:3", recipe=Fourier(steps=60), count=3)
    diverse = visualize(model, "conv2:3", recipe=Fourier(steps=60), diverse=3, weight=5.0)

    def alike(results):
        kept = []
        handle = model.module.conv2.register_forward_hook(lambda m, i, o: kept.append(o))
        with torch.no_grad():
            model.module(model.inputs([model.prepare(one.pixels) for one in results]))
        handle.remove()
        flat = kept[0].flatten(2)
        grams = nn.functional.normalize((flat @ flat.transpose(1, 2)).flatten(1), dim=1)
        return float((grams @ grams.T - torch.eye(3)).sum() / 6)

    assert alike(diverse) < alike(plain) - 0.02


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_networks_of_another_precision_are_maximised(dtype):
    model = small()
    model.module.to(dtype)
    for recipe in (
        Fourier(steps=3),
        Maco(steps=3, crops=2),
        Simonyan(steps=3),
        Yosinski(steps=3),
        Santurkar(steps=3),
    ):
        assert np.isfinite(visualize(model, "ant", recipe=recipe).score)
    assert all(p.dtype == dtype for p in model.module.parameters())


def test_diverse_classes_differ_at_the_last_grid_and_a_flat_layer_is_refused():
    assert len(visualize(small(), "ant", recipe=Fourier(steps=2), diverse=2)) == 2
    with pytest.raises(LayerError, match="no grid"):
        visualize(small(), "ant", recipe=Fourier(steps=2), diverse=2, layer="fc")


def test_inversion_comes_close_to_the_features():
    photo = np.random.default_rng(0).integers(0, 255, (24, 24, 3), dtype=np.uint8)
    result = visualize(small(), objective="invert", image=photo, layer="conv", steps=300, settings={"variation": 0.0})
    assert result.facts["feature_error"] < 0.1
    assert result.facts["pixel_error"] < 0.3


def test_fooling_reaches_its_class_by_a_small_change_and_says_what_it_was():
    photo = np.random.default_rng(1).integers(0, 255, (24, 24, 3), dtype=np.uint8)
    model = small()
    before = int(model.module(model.inputs([model.prepare(photo)])).argmax())
    wanted = (before + 1) % 5
    result = visualize(model, wanted, objective="fool", image=photo, steps=200)
    assert result.facts["was"] == model.label(before)
    assert result.facts["fooled"]
    assert result.rank == 1
    again = model.module(model.inputs([model.prepare(result.pixels)]))
    assert int(again.argmax()) == wanted
    assert result.facts["change"]["largest"] < 128
    assert result.difference.size == result.image.size


def test_dreaming_amplifies_the_layer_and_caricature_runs():
    photo = np.random.default_rng(1).integers(0, 255, (24, 24, 3), dtype=np.uint8)
    dream = visualize(small(), objective="dream", image=photo, layer="conv2", settings={"jitter": 2})
    assert dream.history[-1] > dream.history[0]
    assert dream.facts["change"]["mean"] > 1
    assert visualize(small(), objective="caricature", image=photo, layer="conv2", steps=4).score != 0


# frames, stopping, bad input


def test_frames_come_one_after_another_and_closing_them_leaves_no_trace():
    model = small()
    before = {name: value.clone() for name, value in model.module.state_dict().items()}
    model.module.train()
    frames = visualize_frames(model, ["ant", "bee"], recipe=Fourier(steps=50), every=10)
    first, second = next(frames), next(frames)
    assert (first.step, second.step, second.total) == (10, 20, 50)
    assert first.images[0].size == (24, 24)
    assert model.module.training  # given back between frames
    frames.close()
    assert model.module.training
    assert all(m.training for m in model.module.modules())
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in model.module.modules())
    assert all(p.requires_grad and p.grad is None for p in model.module.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.module.state_dict().items())


def test_the_random_state_and_a_raising_network_are_left_alone():
    class Raises(Small):
        calls = 0

        def forward(self, x):
            Raises.calls += 1
            if Raises.calls > 8:
                raise RuntimeError("no more")
            return super().forward(x)

    model = cs.wrap(Raises(), size=24)
    state = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="no more"):
        visualize(model, 1, recipe=Fourier(steps=50))
    assert torch.equal(state, torch.get_rng_state())
    assert all(p.requires_grad for p in model.module.parameters())
    assert all(not m._forward_hooks for m in model.module.modules())


def test_ctrl_c_keeps_what_was_reached():
    class Stops(Small):
        calls = 0

        def forward(self, x):
            Stops.calls += 1
            if Stops.calls == 25:
                raise KeyboardInterrupt
            return super().forward(x)

    results = visualize(cs.wrap(Stops(), size=24), [1, 2], recipe=Fourier(steps=50))
    assert results.stopped
    assert len(results) == 2
    assert 10 < results[0].steps < 25
    assert any("Stopped after" in doubt for doubt in results[0].doubts)


def test_natural_pictures_and_another_network_stand_beside_the_result():
    model = small()
    photos = [np.random.default_rng(k).integers(0, 255, (24, 24, 3), dtype=np.uint8) for k in range(5)]
    result = visualize(model, "ant", recipe=Fourier(steps=1), pictures=photos, also=small(mean=(0.3,) * 3))
    with torch.no_grad():
        wanted = float(model.module(model.inputs([model.prepare(photo) for photo in photos]))[:, 0].max())
    assert abs(result.natural["score"] - wanted) < 1e-5
    assert result.natural["pictures"] == 5
    assert result.also[0]["rank"] >= 1
    if wanted > result.score:
        assert any("natural picture scores more" in doubt for doubt in result.doubts)


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        ({}, UsageError, "Say what to visualise"),
        ({"targets": "ant", "recipe": "lucid"}, UsageError, "no recipe 'lucid'"),
        ({"targets": "ant", "settings": {"speed": 3}}, UsageError, "no setting 'speed'"),
        ({"targets": "ant", "objective": "guess"}, UsageError, "objective must be one of"),
        ({"targets": "ant", "steps": 0}, UsageError, "steps must be"),
        ({"targets": "ant", "count": 0}, UsageError, "count must be"),
        ({"targets": "conv2:99"}, TargetError, "no channel 99"),
        ({"targets": "conv9:1"}, LayerError, "no layer 'conv9'"),
        ({"targets": "top1"}, UsageError, "name the class"),
        ({"targets": "whale"}, TargetError, "no class named"),
        ({"objective": "invert"}, UsageError, "needs a picture"),
        ({"targets": []}, UsageError, "No targets"),
        ({"targets": "direction:conv2"}, TargetError, "direction:LAYER@FILE"),
        ({"targets": "ant - "}, TargetError, "no class named"),
    ],
)
def test_bad_input_gets_one_sentence(call, error, says):
    with pytest.raises(error, match=says):
        visualize(small(), **call)


# the command


def test_the_command_writes_one_bare_picture_and_says_what_it_reaches(cli, tmp_path):
    answer = cli("visualize", "toybox", "--target", "fish", "--recipe", "fourier", "--steps", "3", "--json",
                 "--out", tmp_path / "fish.png")  # fmt: skip
    assert answer.code == 0, answer.err
    assert answer.json["target"] == "fish"
    assert answer.json["file"].endswith("fish.png")
    model = cs.open_model("toybox")
    with torch.no_grad():
        scores = model.module(model.inputs([model.prepare(tmp_path / "fish.png")]))[0]
    assert abs(float(scores[model.labels.index("fish")]) - answer.json["score"]) < 1e-4


def test_the_command_draws_a_sheet_a_video_and_difference(cli, tmp_path):
    answer = cli("visualize", "toybox", "-t", "fish", "-t", "cup", "--recipe", "fourier", "--steps", "4",
                 "--out", tmp_path / "two.png", "--video", tmp_path / "two.gif")  # fmt: skip
    assert answer.code == 0, answer.err
    assert sorted(p.name for p in (tmp_path / "two").iterdir()) == ["cup.png", "fish.png"]
    from PIL import Image

    assert Image.open(tmp_path / "two.gif").n_frames >= 1


def test_the_command_refuses_in_one_sentence(cli, tmp_path):
    answer = cli("visualize", "toybox", "-t", "whale", "--out", tmp_path / "x.png")
    assert answer.code == 2
    assert "whale" in answer.err
    assert "Traceback" not in answer.err


def test_toybox_pictures_are_classified_right_and_transfer_to_the_twin():
    """A short ascent; the full ones, of all classes and recipes, are in the docs."""
    model = cs.open_model("toybox")
    twin = cs.open_model("toybox-twin")
    results = visualize(model, ["fish", "house", "flower"], recipe=Fourier(steps=48), also=twin)
    assert [one.rank for one in results] == [1, 1, 1]
    assert sum(one.also[0]["rank"] == 1 for one in results) >= 2


def test_a_class_that_comes_second_ascends_its_lead_once_it_settles():
    from convoscope.session import Session
    from convoscope.targets import ClassTarget
    from convoscope.visualization.objectives import Scores

    model, output = small(), torch.tensor([[3.0, 1.0, 0.0], [3.0, 1.0, 0.0], [0.0, 4.0, 1.0]]).requires_grad_()
    with torch.no_grad():
        scorer = ClassTarget(1).resolve(model, torch.zeros(1, output.shape[1]), [None], Session(model).runner)
    objective = Scores([scorer, scorer])
    items = torch.tensor([0, 0, 1])

    def gradient():
        scores = objective(output, {}, items)
        assert torch.equal(scores.detach(), output.detach()[:, 1])  # the history is of logits all the way
        return torch.autograd.grad(scores.sum(), output)[0]

    plain = torch.tensor([[0.0, 1.0, 0.0]]).expand(3, -1)
    assert torch.equal(gradient(), plain)
    objective.settling = True
    rivals = output.detach()[:2, [0, 2]].softmax(1)
    lead = torch.stack([torch.tensor([-float(a), 1.0, -float(b)]) for a, b in rivals])
    assert torch.allclose(gradient(), torch.cat([lead, plain[2:]]))  # the second item is first everywhere
    assert objective.settled == {0}
    with torch.no_grad():
        output[:2, 1] = 9.0
    assert not torch.equal(gradient()[:2], plain[:2])  # who has begun to settle goes on


def test_settling_is_stated_and_can_be_left_out():
    model = cs.open_model("toybox")
    settings = {"steps": 12, "crops": 2}
    kept = visualize(model, "car", recipe=Maco(settle=0.0, **settings))
    made = visualize(model, "car", recipe=Maco(settle=0.5, **settings))
    assert "settled" not in kept.facts
    assert made.facts.get("settled") is True
    assert kept.history[:6] == made.history[:6]
    assert kept.history[7:] != made.history[7:]


def test_frames_abandoned_at_the_end_of_a_program_do_not_crash_it():
    program = (
        "import convoscope as cs\n"
        "frames = cs.visualize_frames(cs.open_model('toybox'), ['fish'], recipe='maco', every=2, pixels=False)\n"
        "next(frames)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
