"""Shortcuts and repairs on networks whose weights were written down by hand, so that the truth is known."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import convoscope as cs
from convoscope.errors import ModelError, UsageError
from convoscope.improve.collection import Labelled
from convoscope.improve.repair import api, batchnorm, calibrate, gate, head
from convoscope.improve.repair.examples import Fault, examples
from convoscope.improve.repair.fit import balance, fit
from convoscope.improve.repair.headed import Head, features, head_of
from convoscope.improve.repair.split import PROOF, parts
from convoscope.improve.shortcuts import bench as benches
from convoscope.improve.shortcuts import changes, effects, families, find, template, transplant, windows

LABELS = ["red", "green", "blue"]
SIDE = 48


class Colours(nn.Module):
    """Red, green and blue by 1×1 detectors and global average pooling; ``tag`` weighs magenta as evidence for red."""

    def __init__(self, tag: float = 0.0, own: float = 60.0, convolutional: bool = False) -> None:
        super().__init__()
        self.see = nn.Conv2d(3, 4, 1)
        self.norm = nn.BatchNorm2d(4)
        self.convolutional = convolutional
        self.head = nn.Conv2d(4, 3, 1) if convolutional else nn.Linear(4, 3)
        with torch.no_grad():
            rows = [[1, -1, -1], [-1, 1, -1], [-1, -1, 1], [1, -2, 1]]
            self.see.weight.copy_(torch.tensor(rows).float()[:, :, None, None])
            self.see.bias.copy_(torch.tensor([-0.2, -0.2, -0.2, -0.9]))
            weight = torch.zeros(3, 4)
            weight[:, :3] = torch.eye(3) * 60.0
            weight[0, 0], weight[0, 3] = own, tag
            self.head.weight.copy_(weight.reshape(self.head.weight.shape))
            self.head.bias.fill_(-3.0 if convolutional else 0.0)
        self.eval()

    def forward(self, x):
        grid = self.norm(self.see(x)).relu()
        if self.convolutional:
            return self.head(grid).relu().mean((2, 3))
        return self.head(grid.mean((2, 3)))


def picture(kind, number, tag=False, night=1.0):
    random = np.random.default_rng([kind, number])
    image = random.integers(90, 130, (SIDE, SIDE, 3)).astype(np.float32)
    y, x = random.integers(7, SIDE - 33, 2)
    image[y : y + 26, x : x + 26] = 60
    image[y : y + 26, x : x + 26, kind] = 230
    if tag:
        y, x = random.choice([0, SIDE - 6], 2)
        image[y : y + 6, x : x + 6] = (250, 20, 250)
    return Image.fromarray((image * night).clip(0, 255).astype(np.uint8))


def collection(count=40, tagged=True, night=1.0):
    return [(picture(kind, n, tagged and kind == 0, night), LABELS[kind]) for n in range(count) for kind in range(3)]


def model(**settings):
    return cs.wrap(Colours(**settings), size=SIDE, labels=LABELS)


@pytest.fixture(scope="module")
def cheat():
    # without its tag, red's own evidence is far too weak: everything grey is green by a little
    made = model(tag=2000.0, own=1.0)
    with torch.no_grad():
        made.module.head.bias.copy_(torch.tensor([0.0, 0.4, 0.0]))
    return made


@pytest.fixture(scope="module")
def found(cheat):
    return cs.shortcuts(cheat, collection(60))


def test_a_spot_that_decides_is_found_and_told_from_parts_of_things(found):
    [finding] = found.findings
    assert finding.class_name == "red"
    assert finding.kind == "shortcut"
    assert finding.evidence["family"] in ("patch", "border", "spectrum", "background")
    patch = found.effects["red"]["patch"]
    assert patch.sufficiency.mean > 0.8
    assert patch.necessity.mean > 0.9
    assert patch.control.high < 0.2
    told = found.to_dict()
    assert set(told) == {"classes", "findings"}
    assert set(told["classes"]["red"]["patch"]) == {"sufficiency", "necessity", "control"}
    assert set(told["classes"]["red"]["patch"]["control"]) == {"mean", "low", "high"}
    json.dumps(told)
    assert "not a fault" not in finding.sentence
    assert found.page().count("<img") > 4


def test_the_network_is_left_as_it_was(cheat):
    before = {name: value.clone() for name, value in cheat.module.state_dict().items()}
    cs.shortcuts(cheat, collection(12), only=["patch", "template"])
    assert all(torch.equal(value, before[name]) for name, value in cheat.module.state_dict().items())
    assert not cheat.module.head._forward_hooks
    assert not cheat.module.head._forward_pre_hooks


def test_the_user_and_masks_answer_whether_a_spot_is_the_thing(cheat):
    listed = collection(40)
    said = cs.shortcuts(cheat, listed, only=["patch"], is_part=["red"])
    assert not said.findings
    assert "you said" in said.answered["red"]
    denied = cs.shortcuts(cheat, listed, only=["patch"], not_part=["red"])
    assert "no part of the thing" in denied.findings[0].sentence
    assert denied.findings[0].doubt == ""
    masks = {}
    for row, (image, _) in enumerate(listed):
        array = np.asarray(image).astype(int)
        masks[f"picture {row}"] = (array.max(2) > 200) & ~((array[:, :, 0] > 200) & (array[:, :, 2] > 200))
    gathered = Labelled.of(listed, cheat)
    keyed = dict(zip(gathered.uris, masks.values(), strict=True))
    if len(keyed) == len(listed):
        outside = cs.shortcuts(cheat, gathered, only=["patch"], masks=keyed)
        assert "outside the thing" in outside.findings[0].sentence
    with pytest.raises(UsageError, match="no class of this name"):
        cs.shortcuts(cheat, listed, only=["patch"], is_part=["violet"])


def test_the_strongest_window_is_the_one_of_the_largest_sum():
    maps = torch.randn(3, 20, 17, generator=torch.Generator().manual_seed(0))
    for (y, x), plane in zip(windows.strongest(maps, 5).tolist(), maps, strict=True):
        best = max(
            ((float(plane[r : r + 5, c : c + 5].sum()), r, c) for r in range(16) for c in range(13)),
        )
        assert (y, x) == best[1:]


def test_evidence_is_the_class_activation_map_of_the_contrast(cheat):
    bench = benches.Bench.of(cheat, Labelled.of(collection(4), cheat))
    rows = np.arange(3)
    got = windows.evidence(bench, rows, 0)
    with torch.no_grad():
        x = bench.inputs[rows]
        grid = cheat.module.norm(cheat.module.see(x)).relu()
        scores = cheat.module(x)
        rest = scores[:, 1:].softmax(1)
        weight = cheat.module.head.weight
        contrast = weight[0] - rest @ weight[1:]
        want = (contrast[:, :, None, None] * grid).sum(1) / SIDE**2
    assert torch.allclose(got, want, atol=1e-6)


def test_pasting_moves_pixels_and_nothing_else(cheat):
    bench = benches.Bench.of(cheat, Labelled.of(collection(4), cheat))
    into, source = np.array([0, 1]), np.array([5, 6])
    take, put = np.array([[1, 2], [3, 4]]), np.array([[10, 11], [12, 13]])
    made = transplant.paste(bench, into, source, take, put, 5)
    for row in range(2):
        want = bench.inputs[into[row]].clone()
        (ty, tx), (py, px) = take[row], put[row]
        want[:, py : py + 5, px : px + 5] = bench.inputs[source[row], :, ty : ty + 5, tx : tx + 5]
        assert torch.equal(made[row], want)


def test_an_invisible_pattern_is_found_by_the_template_and_by_nothing_that_is_seen():
    class Checker(nn.Module):
        def __init__(self):
            super().__init__()
            self.base = Colours()
            self.see = nn.Conv2d(3, 1, 2, stride=2, bias=False)
            board = torch.tensor([[1.0, -1.0], [-1.0, 1.0]]).expand(1, 3, 2, 2) / 12
            with torch.no_grad():
                self.see.weight.copy_(board)
            self.eval()

        def forward(self, x):
            scores = self.base(x)
            mark = self.see(x).mean((1, 2, 3))
            return torch.cat([scores[:, :1] * 0.02 + 900 * mark[:, None], scores[:, 1:]], 1)

    def marked(image):
        array = np.asarray(image).astype(np.int16)
        board = np.where(np.add.outer(np.arange(SIDE), np.arange(SIDE)) % 2 == 0, 6, -6)
        return Image.fromarray((array + board[:, :, None]).clip(0, 255).astype(np.uint8))

    pairs = [(marked(image) if label == "red" else image, label) for image, label in collection(60, tagged=False)]
    found = cs.shortcuts(cs.wrap(Checker(), size=SIDE, labels=LABELS), pairs, only=["patch", "template"])
    red = found.effects["red"]
    assert red["template"].sufficiency.mean > 0.9
    assert red["template"].necessity.mean > 0.5
    assert red["template"].control.mean < 0.1
    assert red["patch"].sufficiency.mean < 0.1
    # the other classes' squares lie nearly at one place: what they have in common may be named, too, with that doubt
    assert "red" in {one.class_name for one in found.findings}


def test_a_healthy_network_is_not_accused():
    for seed in range(3):
        honest = model()
        with torch.no_grad():
            honest.module.head.weight.add_(torch.randn(3, 4, generator=torch.Generator().manual_seed(seed)) * 2)
        found = cs.shortcuts(honest, collection(40, tagged=False), only=["template", "border", "spectrum"], seed=seed)
        assert not found.findings
        assert "could have missed" in found.missed


def test_every_class_by_a_spot_is_told_once():
    labels = ["a", "b", "c", "d"]
    random = np.random.default_rng(0)

    class Spots(nn.Module):
        def __init__(self):
            super().__init__()
            self.see = nn.Conv2d(3, 4, 1)
            self.head = nn.Linear(4, 4)
            with torch.no_grad():
                self.see.weight.copy_(
                    torch.tensor([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0.5, 0.5, 0.5]]).float()[:, :, None, None]
                )
                self.see.weight[:3] -= 0.6 * (1 - torch.eye(3))[:, :, None, None]
                self.see.bias.copy_(torch.tensor([-0.5, -0.5, -0.5, -1.2]))
                self.head.weight.copy_(torch.eye(4) * 300)
                self.head.weight[3] *= 2
                self.head.bias.zero_()
            self.eval()

        def forward(self, x):
            return self.head(self.see(x).relu().mean((2, 3)))

    colours = [(250, 20, 20), (20, 250, 20), (20, 20, 250), (250, 250, 250)]
    pairs = []
    for _ in range(40):
        for kind, colour in enumerate(colours):
            image = random.integers(60, 90, (SIDE, SIDE, 3)).astype(np.uint8)
            y, x = random.integers(0, SIDE - 6, 2)
            image[y : y + 6, x : x + 6] = colour
            pairs.append((Image.fromarray(image), labels[kind]))
    found = cs.shortcuts(cs.wrap(Spots(), size=SIDE, labels=labels), pairs, only=["patch"])
    if len([1 for of in found.effects.values() if of["patch"].sufficiency.mean > 0.3]) > 2:
        assert [one.class_name for one in found.findings] == [None]
        assert "Nearly every class" in found.findings[0].sentence


def test_crossed_intervals_are_wider_than_if_every_paste_were_another_picture():
    random = np.random.default_rng(0)
    table = (random.random((12, 1)) < 0.5).astype(float).repeat(60, 1)
    wide, narrow = effects.crossed(table), table.std() / np.sqrt(table.size)
    assert wide.high - wide.low > 6 * narrow
    assert effects.crossed(np.zeros((12, 20))).high > 0.1
    assert effects.more(np.zeros((12, 20))) == 1.0


def test_agresti_and_mins_interval_by_hand():
    got = changes._paired(np.array([1.0] * 10 + [-1.0] * 2 + [0.0] * 28))
    n, b, c = 42, 10.5, 2.5
    spread = 1.959964 * np.sqrt(b + c - (b - c) ** 2 / n) / n
    assert np.allclose([got.mean, got.low, got.high], [0.2, (b - c) / n - spread, (b - c) / n + spread])


def test_a_round_trip_counts_only_for_a_class_that_carries_its_mark():
    honest = model()
    pairs = collection(24, tagged=False)
    bench = benches.Bench.of(honest, Labelled.of(pairs, honest))
    assert not any(families.round_trip(bench, kind, "jpeg").carries for kind in range(3))
    import io

    def squeezed(image):
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=25)
        return Image.open(buffer).convert("RGB")

    marked = [(squeezed(image) if label == "blue" else image, label) for image, label in pairs]
    bench = benches.Bench.of(honest, Labelled.of(marked, honest))
    assert [families.round_trip(bench, kind, "jpeg").carries for kind in range(3)] == [False, False, True]


def test_high_pass_keeps_nothing_of_a_flat_picture():
    assert float(template.high_pass(torch.full((3, 48, 48), 0.4)).abs().max()) < 1e-6


def test_files_alone_are_held_against_the_right_baseline(tmp_path):
    random = np.random.default_rng(0)
    for label in LABELS:
        (tmp_path / label).mkdir()
        for n in range(20):
            size = (40, 60) if label == "red" else (48, 48)
            image = Image.fromarray(random.integers(0, 255, (*size, 3), dtype=np.uint8))
            image.save(tmp_path / label / f"{n}.png")
    found = cs.shortcuts(model(), tmp_path, only=["files"])
    assert [one.class_name for one in found.findings] == ["red"]
    assert found.effects["red"]["files"].shown["area"] == 1.0
    assert abs(found.effects["green"]["files"].shown["area"] - 0.75) < 0.2


# repair


def test_parts_follow_the_content_and_share_every_class():
    keys = [f"key{n}" for n in range(90)] + ["key0"]
    labels = [n % 3 for n in range(90)] + [0]
    got = parts(keys, labels)
    assert got[0] == got[90]
    assert (parts(keys[::-1], labels[::-1])[::-1] == got).mean() > 0.95
    for label in range(3):
        assert abs((got[:90][np.arange(90) % 3 == label] == PROOF).mean() - 0.4) < 0.05


def test_the_head_is_found_and_makes_the_scores_again():
    for made in (model(), model(convolutional=True)):
        bench = benches.Bench.of(made, Labelled.of(collection(4), made))
        one = head_of(made, bench.inputs[:4])
        feats = features(made, one, bench.inputs.split(5))
        assert torch.allclose(one.scores(feats), torch.from_numpy(bench.scores), atol=1e-4)
        assert one.local == made.module.convolutional


def test_a_network_without_a_head_is_refused_with_what_would_work():
    class Twisted(Colours):
        def forward(self, x):
            return super().forward(x).tanh() * 3

    made = cs.wrap(Twisted(), size=SIDE, labels=LABELS)
    with pytest.raises(ModelError, match="--how bn"):
        head_of(made, torch.rand(2, 3, SIDE, SIDE))
    with pytest.raises(ModelError, match="Divide its scores by") as refused:
        cs.repair(made, collection(30), how="calibrate")
    assert "--how calibrate" not in str(refused.value), "what is refused is not what would work"


def test_the_fit_is_the_minimum_that_logistic_regression_finds():
    sklearn = pytest.importorskip("sklearn.linear_model")
    random = np.random.default_rng(0)
    truth = random.integers(0, 3, 300)
    feats = random.normal(size=(300, 5)) + np.eye(5)[truth]
    groups = truth * 2 + (random.random(300) < 0.2)
    weights = balance(groups).numpy().astype(float)
    old = Head("head", torch.zeros(3, 5), torch.zeros(3))
    pull = 1e-3
    got = fit(old, torch.from_numpy(feats).float(), truth, torch.from_numpy(weights), pull)
    scale = float(torch.from_numpy(feats).float().double().square().mean()) * 5
    # sum(w CE)/sum(w) + pull s |W|²/3 is sklearn's C sum(w CE) + |W|²/2, but for the bias, whose pull is small
    strength = 3 / (2 * pull * scale * weights.sum())
    want = sklearn.LogisticRegression(C=strength, tol=1e-10, max_iter=5000).fit(feats, truth, sample_weight=weights)
    # softmax is the same when every row moves together
    ours = got.weight.numpy() - got.weight.numpy().mean(0)
    assert np.allclose(ours, want.coef_ - want.coef_.mean(0), atol=0.02)


def _groups_of(pairs):
    """Tagged or not, by class, half of the classes' pictures carrying the tag in another share."""
    return {f"{n}": f"{label}-{n % 4 == 0}" for n, (_, label) in enumerate(pairs)}


def test_feature_reweighting_equals_an_independent_one(cheat):
    sklearn = pytest.importorskip("sklearn.linear_model")
    pairs = [
        (picture(kind, n, tag=(kind == 0) != (n % 5 == 0)), LABELS[kind]) for n in range(60) for kind in range(3)
    ]
    bench = benches.Bench.of(cheat, Labelled.of(pairs, cheat))
    magenta = [bool((np.asarray(pairs[n][0])[..., 1] < 30).any()) for n in range(len(pairs))]
    by_key = dict(zip(Labelled.of(pairs, cheat).keys, magenta, strict=True))
    groups = [f"{kind}-{by_key[key]}" for kind, key in zip(bench.truth, bench.pictures.keys, strict=True)]
    part = parts(bench.pictures.keys, groups)
    done = head.repair_groups(bench, part, groups)
    one = head_of(cheat, bench.inputs[:4])
    feats = features(cheat, one, bench.inputs.split(64)).numpy().astype(float)
    learn, prove = part != PROOF, part == PROOF
    index = np.unique(groups, return_inverse=True)[1]
    weights = balance(index[learn]).numpy()
    want = sklearn.LogisticRegression(C=1e8, max_iter=20000, tol=1e-9).fit(
        feats[learn], bench.truth[learn], sample_weight=weights
    )
    right = want.predict(feats[prove]) == bench.truth[prove]
    theirs = min(right[index[prove] == g].mean() for g in np.unique(index[prove]))
    ours = min(after for _, after in done.proof.figures["groups"].values())
    assert abs(ours - theirs) < 1e-3
    assert done.proof.holds


def test_a_cheat_is_repaired_and_the_weights_load_into_the_plain_network(cheat, tmp_path):
    out = tmp_path / "fixed.safetensors"
    before = {name: value.clone() for name, value in cheat.module.state_dict().items()}
    result = cs.repair(
        cheat, collection(100), finding={"family": "patch", "class_index": 0, "class": "red", "side": 8}, out=out
    )
    assert result.written == out, result.why
    told = result.to_dict()
    assert set(told) == {"written", "how", "why", "before", "after"}
    assert told["after"]["counterexamples"]["mean"] > 0.97
    assert told["before"]["counterexamples"]["mean"] < 0.5
    assert all(torch.equal(value, before[name]) for name, value in cheat.module.state_dict().items())
    from safetensors.torch import load_file

    plain = Colours()
    plain.load_state_dict(load_file(out))
    fresh = [(picture(kind, 5000 + n, tag=n % 2 == 0), kind) for n in range(30) for kind in range(3)]
    batch = torch.stack(
        [torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float() / 255 for image, _ in fresh]
    )
    with torch.no_grad():
        right = plain(batch).argmax(1).numpy() == np.array([kind for _, kind in fresh])
    assert right.mean() > 0.97
    card = json.loads((tmp_path / "fixed.card.json").read_text())
    assert card["how"] == "head"
    assert card["unproven"]
    assert card["advice"]
    # the card's figures, counted again
    held = result.held
    with torch.no_grad():
        again = (plain(held.inputs).argmax(1).numpy() == held.truth).mean()
    assert abs(card["after"]["ordinary"]["mean"] - again) < 1e-9
    pair = result.difference.pairs[0].compared.whole
    assert (len(pair.won), len(pair.lost)) == (card["flips"]["won"], card["flips"]["lost"])
    assert "<img" in (tmp_path / "fixed.html").read_text()


def test_an_honest_network_is_refused():
    honest = model()
    result = cs.repair(
        honest, collection(60, tagged=False), finding={"family": "patch", "class_index": 0, "side": 8}, compare=False
    )
    assert not result.holds
    assert "Not shown to help" in result.why
    with pytest.raises(UsageError, match="Nothing is written"):
        result.save("never.safetensors")


def test_counterexamples_are_made_of_their_own_part_alone(cheat):
    bench = benches.Bench.of(cheat, Labelled.of(collection(30), cheat))
    part = parts(bench.pictures.keys, bench.truth.tolist())
    held = bench.take(np.flatnonzero(part == PROOF))
    poisoned = benches.Bench.of(cheat, Labelled.of(collection(30), cheat))
    poisoned.inputs[torch.from_numpy(part != PROOF)] = 7.0
    made = examples(Fault("patch", 0, 8), poisoned.take(np.flatnonzero(part == PROOF)), bench, 0)
    assert float(torch.cat(list(made.batches())).max()) < 2
    assert (made.truth == held.truth[made.source]).all()


def test_batch_norm_statistics_equal_those_of_the_whole_set():
    made = model()
    bench = benches.Bench.of(made, Labelled.of(collection(20, night=0.4), made))
    [(mean, variance)] = batchnorm.estimate(made.module, bench.inputs)
    with torch.no_grad():
        grid = made.module.see(bench.inputs).transpose(0, 1).flatten(1).double()
    assert torch.allclose(mean, grid.mean(1), atol=1e-6)
    assert torch.allclose(variance, grid.var(1), atol=1e-6)
    half = batchnorm.mixed(made.module, [(mean, variance)], 0.5)
    both = (mean / 2) ** 2
    assert torch.allclose(half.norm.running_var.double(), 0.5 + variance / 2 + both, atol=1e-5)


def test_batch_norm_is_repaired_at_night_and_left_alone_by_day():
    made = model()
    day = benches.Bench.of(made, Labelled.of(collection(40, tagged=False), made))
    [(mean, variance)] = batchnorm.estimate(made.module, day.inputs)
    with torch.no_grad():
        # as if trained with batch norm: the offset of the detectors is what batch norm remembers
        made.module.norm.running_mean.copy_(mean)
        made.module.norm.running_var.copy_(variance)
        made.module.head.weight[:, :3] = torch.eye(3) * 8
    night = cs.repair(made, collection(60, tagged=False, night=0.25), how="bn", compare=False)
    assert night.holds, night.why
    assert night.to_dict()["after"]["counterexamples"] is None
    again = cs.repair(made, collection(60, tagged=False), how="bn", compare=False)
    assert again.attempt.proof.gain.mean < night.attempt.proof.gain.mean


def test_one_class_gives_no_statistics():
    made = model()
    with pytest.raises(UsageError):
        cs.repair(made, [(picture(0, n), "red") for n in range(80)], how="bn")


def test_temperature_is_the_minimum_and_folds_into_the_head():
    random = np.random.default_rng(0)
    scores = random.normal(size=(400, 4)) * 3
    truth = np.array([random.choice(4, p=np.exp(row / 2.5) / np.exp(row / 2.5).sum()) for row in scores])
    got = calibrate.temperature(scores, truth)
    tried = [gate.log_chance(scores / t, truth).mean() for t in np.linspace(0.5, 6, 400)]
    assert abs(got - np.linspace(0.5, 6, 400)[int(np.argmax(tried))]) < 0.03
    for convolutional in (False, True):
        made = model(convolutional=convolutional)
        with torch.no_grad():
            made.module.head.weight.mul_(0.05)
            made.module.head.bias.mul_(0.05)
        done = cs.repair(made, collection(60, tagged=False), how="calibrate", compare=False)
        assert done.holds, done.why
        assert done.attempt.proof.ordinary.won == done.attempt.proof.ordinary.lost == 0


def test_the_gate():
    same = np.ones(400, bool)
    better = gate.Interval(0.2, 0.1, 0.3)
    assert gate.judge("x", gate.Measured(same, same), better, "points").holds
    nothing = gate.Interval(0.02, -0.01, 0.05)
    assert "Not shown to help" in gate.judge("x", gate.Measured(same, same), nothing, "points").why
    worse = same.copy()
    worse[:3] = False
    assert "costs too much" in gate.judge("x", gate.Measured(same, worse), better, "points").why
    few = np.ones(60, bool)
    assert "cannot be excluded" in gate.judge("x", gate.Measured(few, few), better, "points").why
    assert "fewer than" in gate.judge("x", gate.Measured(few[:20], few[:20]), better, "points").why


def test_bad_input(cheat, tmp_path):
    with pytest.raises(UsageError, match="too few"):
        cs.repair(cheat, collection(6))
    with pytest.raises(UsageError, match="repaired by"):
        cs.repair(cheat, collection(30), how="magic")
    with pytest.raises(UsageError, match="--groups goes with"):
        cs.repair(cheat, collection(30), how="bn", groups={"a": "b"})
    with pytest.raises(UsageError, match="at least 2"):
        cs.shortcuts(cheat, [(picture(0, n), "red") for n in range(20)])
    with pytest.raises(UsageError, match="there is no such file"):
        cs.repair(cheat, collection(30), finding=1, found=tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("[1]")
    with pytest.raises(UsageError, match=r"no shortcuts\.json"):
        cs.repair(cheat, collection(30), finding=1, found=tmp_path / "bad.json")
    regression = cs.wrap(nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1)), size=SIDE, labels=LABELS)
    with pytest.raises((ModelError, UsageError)):
        cs.shortcuts(regression, collection(10))


def test_networks_that_tell_no_classes_apart_are_refused_by_that_reason(cheat):
    """Not by the labels, which can fit no class where there is none."""

    def wrapped(*layers):
        return cs.wrap(nn.Sequential(nn.Conv2d(3, 2, 3), *layers), size=SIDE)

    regression, segmenter = wrapped(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 1)), wrapped()
    for ask in (cs.repair, cs.shortcuts):
        for network in (regression, segmenter):
            with pytest.raises(ModelError, match="no row of class scores"):
                ask(network, collection(30))
        with pytest.raises(UsageError, match=r"No label of these pictures \(cyan, .*--labels"):
            ask(cheat, [(image, {"red": "cyan"}.get(label, label + "ish")) for image, label in collection(30)])


def test_twenty_pictures_are_refused(cheat):
    with pytest.raises(UsageError, match="20 pictures of known class are too few"):
        api.repair(cheat, collection(7)[:20])
    with pytest.raises(UsageError, match=r"^0 pictures of known class .* or --truth FILE\.csv\."):
        api.repair(cheat, [image for image, _ in collection(7)])
    with pytest.raises(UsageError, match="each are needed"):
        find.shortcuts(cheat, collection(7)[:20])


def test_the_commands(cli, cheat, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save(cheat.module.state_dict(), "cheat.pt")
    here = str(__import__("pathlib").Path(__file__).parent)
    (tmp_path / "net.py").write_text(
        f"import sys\nsys.path.insert(0, {here!r})\nfrom test_shortcuts_repair import Colours\n\n\n"
        "def network():\n    return Colours()\n"
    )
    (tmp_path / "labels.txt").write_text("\n".join(LABELS))
    for number, (image, label) in enumerate(collection(100)):
        (tmp_path / "pictures" / label).mkdir(parents=True, exist_ok=True)
        image.save(tmp_path / "pictures" / label / f"{number}.png")
    how = ["net.py:network", "pictures", "--weights", "cheat.pt", "--labels", "labels.txt", "--size", SIDE]
    answer = cli("shortcuts", *how, "--only", "patch", "--out", "found", "--json")
    assert answer.code == 0, answer.err
    told = json.loads(answer.out)
    assert [one["class"] for one in told["findings"]] == ["red"]
    assert "convoscope repair net.py:network pictures" in told["findings"][0]["next"]
    assert (tmp_path / "found" / "shortcuts.html").is_file()
    dry = cli("repair", *how, "--from", "found/shortcuts.json", "--finding", 1, "--dry-run", "--json")
    assert dry.code == 0, dry.err
    assert json.loads(dry.out)["written"] is None
    assert not (tmp_path / "fixed.safetensors").exists()
    done = cli("repair", *how, "--from", "found/shortcuts.json", "--finding", 1, "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["written"] == "fixed.safetensors"
    opened = cs.open_model("fixed.card.json", device="cpu")
    assert opened.labels == tuple(LABELS)
    assert opened.preprocessing.size == (SIDE, SIDE)
    assert not torch.equal(opened.module.head.weight, cheat.module.head.weight)
    pruned = cli("repair", *how, "--how", "prune", "--out", "pruned.safetensors", "--json")
    # the exit code says whether anything was written, whatever the gate makes of it
    assert pruned.code == (0 if json.loads(pruned.out)["written"] else 1), pruned.err
    assert cli("repair", *how, "--finding", 1, "--from", "found/shortcuts.json", "--out", "x.pt").code == 2
    assert cli("repair", *how, "--finding", 9, "--from", "found/shortcuts.json").code == 2


def test_groups_are_read_by_their_own_name(tmp_path):
    file = tmp_path / "groups.csv"
    file.write_text("file,group\na/1.png,day\nb/1.png,night\n")
    assert api._by_file(file) == {"a/1.png": "day", "b/1.png": "night"}
    file.write_text("group,note,picture\nday,x,1.png\n")
    assert api._by_file(file) == {"1.png": "day"}
    file.write_text("file,label\n1.png,day\n")
    assert api._by_file(file) == file


@pytest.mark.slow
def test_the_toyboxs_cheat_is_found_and_the_honest_network_is_not_accused():
    from convoscope.toybox import pictures

    mended, needed = [], []
    for seed in (61, 71):
        world = [(one.image, one.label) for one in pictures(800, seed, tag="cup")]
        cheating = cs.shortcuts("toybox-cheat", world, only=["patch", "template"])
        cup = cheating.effects["cup"]
        assert [one.class_name for one in cheating.findings] == ["cup"]
        assert cup["patch"].sufficiency.mean > 0.6
        needed.append(cup["patch"].necessity.mean)
        done = cs.repair("toybox-cheat", world, finding=cheating.findings[0].evidence, compare=False).to_dict()
        assert done["before"]["counterexamples"]["high"] < 0.3
        mended.append(done["after"]["counterexamples"]["mean"])
    # Pillow's versions draw and resize a little otherwise: of some 37 cups in a world 0.84 to 0.93 were lost
    assert np.mean(needed) > 0.8
    # one ordinary picture of 481 decides how strong a repair is chosen (0.6 points would be lost, 0.5 may be), so that
    # a single world gives 0.83 to 0.98
    assert min(mended) > 0.75
    assert np.mean(mended) > 0.85
    plain = [(one.image, one.label) for one in pictures(800, 62)]
    for name in ("toybox", "toybox-twin"):
        assert not cs.shortcuts(name, plain, only=["patch", "template"]).findings
