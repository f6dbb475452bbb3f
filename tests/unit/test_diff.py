"""Two networks side by side: permuted channels, a network against itself, independent formulas, bad input."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from sklearn.linear_model import Ridge
from torch import nn

import convoscope as cs
from convoscope.cli import run as command
from convoscope.errors import ModelError, UsageError
from convoscope.improve.diff import api, calibration, compare, run, sides, similarity, units
from convoscope.improve.diff.maps import correlation
from convoscope.improve.statistics import halves

CLASSES = ["cat", "dog", "eel"]


def network(seed=0, classes=3, width=6):
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
        nn.Conv2d(width, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, classes),
    )  # fmt: skip
    with torch.no_grad():
        net[1].running_mean.normal_(0, 0.1)
        # classes that a random network tells apart: its head is centred on what it sees
        net[7].weight.mul_(6)
    return net.eval()


def wrapped(net, labels=CLASSES, size=16, name="net"):
    return cs.wrap(net, size=size, labels=labels, name=name)


@pytest.fixture(scope="module")
def pictures():
    random = np.random.default_rng(0)
    made = []
    for number in range(67):
        colour = random.integers(0, 255, 3)
        noise = random.integers(-60, 60, (20, 24, 3))
        pixels = np.clip(colour + noise, 0, 255).astype(np.uint8)
        made.append((Image.fromarray(pixels), CLASSES[number % 3]))
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory, pictures):
    where = tmp_path_factory.mktemp("pictures")
    for number, (image, label) in enumerate(pictures):
        (where / label).mkdir(exist_ok=True)
        image.save(where / label / f"{number:02}.png")
    return where


def permuted(net, seed=1):
    """The same function with its channels in another order, and the two orders."""
    other = network()
    other.load_state_dict(net.state_dict())
    generator = torch.Generator().manual_seed(seed)
    first, second = torch.randperm(6, generator=generator), torch.randperm(8, generator=generator)
    with torch.no_grad():
        other[0].weight.copy_(net[0].weight[first])
        other[0].bias.copy_(net[0].bias[first])
        for name in ("weight", "bias", "running_mean", "running_var"):
            getattr(other[1], name).copy_(getattr(net[1], name)[first])
        other[3].weight.copy_(net[3].weight[second][:, first])
        other[3].bias.copy_(net[3].bias[second])
        other[7].weight.copy_(net[7].weight[:, second])
    return other, first, second


# similarity


def gram_cka(x, y):
    """Debiased CKA from the definition: U-centred Gram matrices (Székely & Rizzo 2014), element by element."""

    def centred(features):
        gram = features.astype(np.float64) @ features.astype(np.float64).T
        np.fill_diagonal(gram, 0)
        n = len(gram)
        row = gram.sum(1) / (n - 2)
        made = gram - row[:, None] - row[None, :] + gram.sum() / ((n - 1) * (n - 2))
        np.fill_diagonal(made, 0)
        return made

    k, l = centred(x), centred(y)  # noqa: E741
    return (k * l).sum() / np.sqrt((k * k).sum() * (l * l).sum())


@pytest.mark.parametrize("wide", [(3, 5), (40, 90), (300, 200)])
def test_cka_is_the_u_centred_formula(wide):
    random = np.random.default_rng(0)
    base = random.normal(size=(67, 4))
    a = [(base @ random.normal(size=(4, w)) + random.normal(size=(67, w)) + 3).astype(np.float32) for w in wide]
    b = [(base @ random.normal(size=(4, w)) + random.normal(size=(67, w)) * 2).astype(np.float32) for w in wide]
    got = similarity.cka(a, b)
    want = [[gram_cka(x, y) for y in b] for x in a]
    assert np.abs(got - want).max() < 1e-6


def test_cka_of_the_whole_set_does_not_know_batches(pictures):
    nets = [wrapped(network(0)), wrapped(network(1))]
    for one in nets:
        one.batch_size = 16  # 67 = 4 x 16 + 3: a last batch of three
    found = cs.diff(*nets, pictures, maps=0, units=0)
    inputs = torch.stack([nets[0].prepare(image).tensor for image, _ in pictures])
    with torch.no_grad():
        features = [[net.module[:end](inputs).mean((2, 3)).numpy() for end in (3, 5)] for net in nets]
    want = [[gram_cka(x, y) for y in features[1]] for x in features[0]]
    assert found.pairs[0].cka.shape == (2, 2)
    assert np.abs(found.pairs[0].cka - want).max() < 1e-6
    assert np.isfinite(found.pairs[0].cka).all()


def test_cka_of_unrelated_features_is_about_zero_and_of_constant_ones_unknown():
    random = np.random.default_rng(0)
    a, b = random.normal(size=(60, 500)), random.normal(size=(60, 500))
    assert abs(similarity.cka([a], [b])[0, 0]) < 0.05  # the biased estimator says 0.9 here
    assert np.isnan(similarity.cka([np.full((60, 4), 7.3, np.float32)], [b])[0, 0])
    with pytest.raises(ValueError, match="at least 4"):
        similarity.cka([a[:3]], [b[:3]])


# units


def test_permuted_channels_are_all_matched_and_nothing_is_new(pictures):
    net = network()
    other, first, second = permuted(net)
    inputs = torch.randn(4, 3, 16, 16)
    with torch.no_grad():
        assert torch.allclose(net(inputs), other(inputs), atol=1e-5)
    pair = cs.diff(wrapped(net), wrapped(other), pictures, maps=0).pairs[0]
    assert not pair.units.new
    assert not pair.units.lost
    assert len(pair.compared.whole.won) == len(pair.compared.whole.lost) == 0
    assert pair.compared.churn.mean == 0
    for match, order in zip(pair.units.matches, (first, second), strict=True):
        assert match.matched == match.alive
        alive = np.isfinite(match.correlation)
        # unit i of A stands where `order` put it
        assert (order.numpy()[match.to][alive] == np.arange(len(order))[alive]).all()
    assert pair.units.matches[0].drift > 0.1
    assert np.allclose(np.diag(pair.cka), 1, atol=1e-6)


def test_a_network_against_itself(pictures):
    net = wrapped(network())
    found = cs.diff(net, net, pictures, maps=0)
    pair = found.pairs[0]
    assert np.abs(np.diag(pair.cka) - 1).max() < 1e-6
    assert pair.compared.whole.p == 1
    assert not pair.findings
    assert all(unit.r2 > 1 - 1e-6 for listed in pair.units.every for unit in listed)
    assert all(
        (match.to == np.arange(len(match.to)))[np.isfinite(match.correlation)].all() for match in pair.units.matches
    )
    assert all(match.drift in (0, None) for match in pair.units.matches)
    assert len({side.name for side in found.sides}) == 2


def test_ridge_is_scikit_learns_on_held_out_pictures():
    random = np.random.default_rng(0)
    x = random.normal(size=(120, 9)).astype(np.float32)
    y = np.stack([x @ random.normal(size=9) + random.normal(size=120) * s for s in (0, 0.5, 3)], 1).astype(np.float32)
    y = np.concatenate([y, random.normal(size=(120, 1)), np.ones((120, 1))], 1).astype(np.float32)
    half = halves([str(i) for i in range(120)])
    got = units.ridge_r2(x, y, half)
    best = np.full(4, -np.inf)
    for power in np.arange(-10, 2.5, 0.5):  # one of the penalties of the grid, whichever GCV took
        rest, total = np.zeros(4), np.zeros(4)
        for train in (half, ~half):
            scaled = (x - x[train].mean(0)) / x[train].std(0)
            size = np.linalg.svd(scaled[train], compute_uv=False)
            fit = Ridge(alpha=10.0**power * (size**2).mean()).fit(scaled[train], y[train, :4])
            rest += ((y[~train, :4] - fit.predict(scaled[~train])) ** 2).sum(0)
            total += ((y[~train, :4] - y[train, :4].mean(0)) ** 2).sum(0)
        best = np.maximum(best, 1 - rest / total)
    assert got[0] > 1 - 1e-6
    # chosen inside the fitted half: never better than the best penalty in hindsight, and hardly worse
    assert (got[:4] <= best + 0.02).all()
    assert (got[:4] >= best - 0.1).all()
    assert abs(got[3]) < 0.3
    assert np.isnan(got[4])


def test_a_unit_that_nobody_had_is_new():
    random = np.random.default_rng(0)
    x = random.normal(size=(200, 6)).astype(np.float32)
    y = np.concatenate([x @ random.normal(size=(6, 5)), random.normal(size=(200, 1))], 1).astype(np.float32)
    r2 = units.ridge_r2(x, y, halves([str(i) for i in range(200)]))
    assert (r2[:5] > 0.99).all()
    assert r2[5] < 0.1


# predictions


def test_won_lost_and_classes_by_hand(pictures):
    a, b = wrapped(network(0)), wrapped(network(3))
    found = cs.diff(a, b, pictures, maps=0, units=0)
    inputs = torch.stack([a.prepare(image).tensor for image, _ in pictures])
    truth = np.array([CLASSES.index(label) for _, label in pictures])
    with torch.no_grad():
        right = [(net.module(inputs).argmax(1).numpy() == truth) for net in (a, b)]
    won, lost = int((right[1] & ~right[0]).sum()), int((right[0] & ~right[1]).sum())
    pair = found.to_dict()["pairs"][0]
    assert (len(pair["won"]), len(pair["lost"])) == (won, lost)
    assert len(pair["both_wrong"]) == int((~right[0] & ~right[1]).sum())
    assert abs(pair["p"] - stats.binomtest(won, won + lost, 0.5).pvalue) < 1e-12
    for index, label in enumerate(CLASSES):
        mine = truth == index
        assert pair["classes"][label]["won"] == int((right[1] & ~right[0])[mine].sum())
        assert pair["classes"][label]["lost"] == int((right[0] & ~right[1])[mine].sum())
    model = found.to_dict()["models"][1]
    assert abs(model["accuracy"]["mean"] - right[1].mean()) < 1e-12
    json.dumps(found.to_dict())


def side(probability, truth, name="x"):
    from convoscope.improve.collection import Labelled
    from convoscope.improve.diff.sides import Side

    count = len(truth)
    names = tuple(f"{i}.png" for i in range(count))
    labelled = Labelled(names, names, tuple(str(t) for t in truth), np.asarray(truth, np.int64))
    return Side(name, None, labelled, probability.astype(np.float32), probability.argmax(1).astype(np.int64), {})


def answers(random, truth, accuracy, classes=5):
    """Probabilities of a network that is right with these chances."""
    right = random.random(len(truth)) < accuracy
    wrong = (truth + random.integers(1, classes, len(truth))) % classes
    sure = random.uniform(0.5, 1, len(truth))
    made = np.repeat((1 - sure)[:, None] / (classes - 1), classes, 1)
    made[np.arange(len(truth)), np.where(right, truth, wrong)] = sure
    return made


def test_a_class_that_got_worse_is_named_with_its_pictures():
    random = np.random.default_rng(0)
    truth = np.arange(500) % 5
    a = side(answers(random, truth, 0.95), truth, "old")
    b = side(answers(random, truth, np.where(truth == 3, 0.55, 0.95)), truth, "new")
    compared = compare.compare(a, b)
    from convoscope.improve.diff.announce import findings

    found = findings(a, b, compared, None)
    assert {one.class_name for one in found} == {None, "class 3"}
    assert all(truth[int(uri.split(".")[0])] == 3 for one in found if one.class_name for uri in one.pictures)
    assert all(one.next and one.low <= one.size <= one.high for one in found)


def test_slices_do_not_favour_either_network():
    random = np.random.default_rng(0)
    truth = np.arange(400) % 2
    a, b = side(answers(random, truth, 0.8), truth), side(answers(random, truth, 0.8), truth)
    one, other = compare.compare(a, b), compare.compare(b, a)
    assert one.slices
    assert sorted(len(g.rows) for g in one.slices) == sorted(len(g.rows) for g in other.slices)
    assert [len(g.won) for g in one.slices] == [len(g.lost) for g in other.slices]


def test_two_hundred_equal_pairs_raise_at_most_ten_alarms():
    """Random halves of one ensemble: the two are of equal quality, by construction exchangeable."""
    from convoscope.improve.diff.announce import findings

    random = np.random.default_rng(1)
    truth = np.arange(300) % 5
    hard = random.beta(8, 1.5, 300)  # pictures differ in how hard they are, for all members alike
    members = [answers(random, truth, hard) for _ in range(20)]
    alarms = {"regression": 0, "calibration": 0}
    for _ in range(200):
        order = random.permutation(20)
        a, b = (side(np.mean([members[i] for i in part], 0), truth) for part in (order[:10], order[10:]))
        compared = compare.compare(a, b)
        drift = calibration.drift((a.confidence, a.right), (b.confidence, b.right))
        for kind in {one.kind for one in findings(a, b, compared, drift)}:
            alarms[kind] += 1
    assert alarms["regression"] <= 10
    assert alarms["calibration"] <= 10


def test_calibration_against_an_independent_rewrite():
    random = np.random.default_rng(0)
    chance = random.uniform(0.2, 1, 400)
    right = random.random(400) < chance**2
    got = calibration.calibration(chance, right)
    want = 0.0
    for low in np.arange(15) / 15:
        inside = (chance > low) & (chance <= low + 1 / 15)
        if inside.any():
            want += inside.mean() * abs(right[inside].mean() - chance[inside].mean())
    assert abs(got.error.mean - want) < 1e-12
    assert got.error.low <= want <= got.error.high
    assert sum(row["pictures"] for row in got.curve) == 400
    worse = calibration.drift((chance, right), (np.minimum(1, chance + 0.2), right))
    assert worse.p <= 0.002
    assert worse.confidence.mean > 0.1
    assert calibration.drift((chance, right), (chance, right)).p == 1


def test_forgetting_by_hand():
    got = run.forgetting(np.array([[0, 1, 0, 0], [1, 0, 0, 1], [0, 1, 0, 1], [1, 1, 0, 1]], bool))
    assert got.learnt.tolist() == [1, 0, -1, 1]
    assert got.forgotten.tolist() == [1, 1, 0, 0]


# bad input and other input


def test_few_pictures_are_refused_with_the_reason(pictures):
    with pytest.raises(UsageError, match="29 pictures are too few"):
        cs.diff(wrapped(network()), wrapped(network(1)), pictures[:29])


def test_other_labels_are_matched_by_name_and_the_rest_told(pictures):
    a = wrapped(network(0), ["cat", "dog", "eel"], name="old")
    b = wrapped(network(1, classes=4), ["Dog", "cat", "fox", "gnu"], name="new")
    found = cs.diff(a, b, pictures, maps=0, units=0)
    pair = found.to_dict()["pairs"][0]
    assert set(pair["classes"]) == {"cat", "dog"}
    said = " ".join(pair["notes"])
    assert "Only old has the classes eel" in said
    assert "fox" in said
    assert "are not compared" in said
    inputs = torch.stack([a.prepare(image).tensor for image, _ in pictures])
    with torch.no_grad():
        names = [[m.labels[i].lower() for i in m.module(inputs).argmax(1)] for m in (a, b)]
    assert abs(pair["churn"]["mean"] - np.mean([x != y for x, y in zip(*names, strict=True)])) < 1e-12


def test_without_labels_churn_cka_units_and_maps_still_work(pictures):
    found = cs.diff(wrapped(network(0)), wrapped(network(3)), [image for image, _ in pictures], maps=2)
    document = found.to_dict()
    pair = document["pairs"][0]
    assert document["models"][0]["accuracy"] is None
    assert document["models"][0]["ece"] is None
    assert pair["p"] is None
    assert pair["churn"]["mean"] > 0
    assert pair["cka"]["values"]
    assert {flip["kind"] for flip in pair["maps"]} == {"changed"}
    assert "not known" in " ".join(document["notes"])
    assert "taken for another class" in found.page()


def test_networks_of_other_input_sizes(pictures):
    a, b = wrapped(network(), size=16, name="small"), wrapped(network(), size=24, name="large")
    found = cs.diff(a, b, pictures, maps=3)
    assert all(flip.maps is not None for flip in found.pairs[0].flips)
    assert all(flip.correlation is None or -1 <= flip.correlation <= 1 for flip in found.pairs[0].flips)


def test_the_maps_of_one_picture_correlate_with_themselves_across_sizes(pictures):
    net = network()
    one = cs.explain(wrapped(net, size=16), pictures[0][0], "grad-cam", target=0)["grad-cam"]
    two = cs.explain(wrapped(net, size=16), pictures[0][0], "grad-cam", target=0)["grad-cam"]
    got = correlation(one, two)
    assert got is None or abs(got - 1) < 1e-9


def test_arguments_that_make_no_sense(pictures):
    net = wrapped(network())
    with pytest.raises(UsageError, match="two networks"):
        cs.diff(net, pictures)
    with pytest.raises(UsageError, match="pictures, not a network"):
        cs.diff(net, net, net)
    with pytest.raises(UsageError, match="names"):
        cs.diff(net, net, pictures, names=["one"])


def test_the_networks_are_left_as_they_were(pictures):
    net = wrapped(network())
    net.module.train()
    before = {name: value.clone() for name, value in net.module.state_dict().items()}
    cs.diff(net, wrapped(network(3)), pictures, maps=1, units=1)
    assert net.module.training
    assert all(torch.equal(value, before[name]) for name, value in net.module.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in net.module.modules())


# the command


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    where = tmp_path_factory.mktemp("nets")
    (where / "net.py").write_text(
        "from torch import nn\n"
        "def build():\n"
        "    return nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 3, 2), "
        "nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))\n"
    )
    (where / "labels.txt").write_text("\n".join(CLASSES))
    (where / "run").mkdir()
    for epoch in (2, 10, 1):
        torch.save(network(epoch).state_dict(), where / "run" / f"epoch-{epoch}.pt")
    return where


def flags(spec):
    return ["--size", "16", "--labels", str(spec / "labels.txt")]


def test_the_command_writes_page_and_document(spec, folder, tmp_path, capsys):
    runs = [str(spec / "run" / f"epoch-{e}.pt") for e in (1, 2)]
    net = f"{spec}/net.py:build"
    weights = ["--weights", runs[0], "--weights", runs[1]]
    code = command(["diff", net, net, str(folder), *weights, *flags(spec), "--out", str(tmp_path), "--json"])
    out = capsys.readouterr().out
    assert code == 0
    document = json.loads(out)
    assert document["pictures"] == 67
    assert [model["name"] for model in document["models"]] == ["epoch-1", "epoch-2"]
    assert set(document["pairs"][0]) >= {"a", "b", "won", "lost", "p", "classes", "cka", "units", "findings"}
    assert json.loads((tmp_path / "diff.json").read_text()) == document
    page = (tmp_path / "index.html").read_text()
    assert "http://" not in page.replace("http://www.w3.org", "")
    assert "<script" not in page


def test_a_folder_of_checkpoints_is_a_run_in_the_order_of_its_numbers(spec, folder, tmp_path, capsys):
    film = tmp_path / "run.webp"
    code = command([
        "diff", f"{spec}/net.py:build", str(folder), "--weights", str(spec / "run"), *flags(spec),
        "--out", str(tmp_path), "--film", str(film), "--maps", "0", "--json",
    ])  # fmt: skip
    document = json.loads(capsys.readouterr().out)
    assert code == 0
    assert document["run"]["checkpoints"] == ["epoch-1", "epoch-2", "epoch-10"]
    assert [(pair["a"], pair["b"]) for pair in document["pairs"]] == [(0, 1), (1, 2), (0, 2)]
    assert np.allclose(document["run"]["cka_to_last"]["values"][-1], 1, atol=1e-6)
    with Image.open(film) as opened:
        assert opened.n_frames == 3
        opened.seek(2)
        opened.load()


def test_options_are_given_once_or_once_for_each(spec, folder, tmp_path, capsys):
    net = f"{spec}/net.py:build"
    weights = [part for e in (1, 2, 10) for part in ("--weights", str(spec / "run" / f"epoch-{e}.pt"))]
    assert command(["diff", net, net, str(folder), *weights, "--out", str(tmp_path)]) == 2
    assert "--weights was given 3 times for 2 models" in capsys.readouterr().err
    assert command(["diff", net, str(folder), "--out", str(tmp_path)]) == 2
    assert command(["diff", net, net, "nowhere", "--out", str(tmp_path)]) == 2
    assert "No pictures" in capsys.readouterr().err


def test_stores_are_joined_by_what_the_files_hold(spec, folder, tmp_path, capsys):
    pytest.importorskip("lance")
    moved = tmp_path / "moved"
    for path in sorted(folder.rglob("*.png")):
        (moved / path.parent.name).mkdir(parents=True, exist_ok=True)
        if path.name != "00.png":
            (moved / path.parent.name / f"x{path.name}").write_bytes(path.read_bytes())
    nets = [cs.open_model(f"{spec}/net.py:build", weights=spec / "run" / f"epoch-{e}.pt", size=16, labels=CLASSES)
            for e in (1, 2)]  # fmt: skip
    for model, source, name in zip(nets, (folder, moved), "ab", strict=True):
        cs.survey(model, str(source), str(tmp_path / name), embed=["2"]).close()
    stores = [str(tmp_path / name) for name in "ab"]
    assert command(["diff", *stores, "--out", str(tmp_path / "out"), "--json"]) == 0
    got = json.loads(capsys.readouterr().out)
    want = cs.diff(*nets, str(moved), maps=0, units=0).to_dict()
    assert got["pictures"] == 66
    for key in ("won", "lost"):
        assert len(got["pairs"][0][key]) == len(want["pairs"][0][key])
    assert abs(got["pairs"][0]["p"] - want["pairs"][0]["p"]) < 1e-12
    # embeddings are kept in half precision
    assert abs(got["pairs"][0]["cka"]["values"][0][0] - want["pairs"][0]["cka"]["values"][0][0]) < 5e-3
    assert command(["diff", *stores, "--size", "8", "--out", str(tmp_path / "out")]) == 2


def test_a_broken_picture_is_told_and_the_rest_done(spec, folder, tmp_path, capsys):
    import shutil

    here = tmp_path / "with"
    shutil.copytree(folder, here)
    (here / "cat" / "broken.png").write_bytes(b"no picture")
    net = f"{spec}/net.py:build"
    weights = [part for e in (1, 2) for part in ("--weights", str(spec / "run" / f"epoch-{e}.pt"))]
    args = [
        "diff",
        net,
        net,
        str(here),
        *weights,
        *flags(spec),
        "--out",
        str(tmp_path / "o"),
        "--maps",
        "0",
        "--json",
    ]
    assert command(args) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["pictures"] == 67
    assert "broken.png" in document["failed"][0]["uri"]


def test_names_of_checkpoints():
    net = wrapped(network())
    assert api.called([net, net]) == ["net A", "net B"]


class Wrapping(nn.Module):
    """A stage that returns its tensor in a dictionary, as transformers' encoders do."""

    def __init__(self, stage):
        super().__init__()
        self.stage = stage

    def forward(self, x):
        return {"last_hidden_state": self.stage(x), "hidden_states": None}


class Modern(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.encoder, self.head = Wrapping(net[:5]), net[5:]

    def forward(self, x):
        return self.head(self.encoder(x)["last_hidden_state"])


def test_layers_that_return_dictionaries(pictures, monkeypatch):
    monkeypatch.setattr(api, "layers_of", lambda model, *_: ["encoder"])
    made = api.diff(wrapped(Modern(network()).eval()), wrapped(Modern(network()).eval()), pictures, maps=0)
    (pair,) = made.pairs
    assert pair.compared.churn.mean == 0
    assert pair.cka[-1, -1] == pytest.approx(1, abs=1e-6)


def test_a_dictionary_of_a_known_tensor_is_no_layer_of_its_own():
    chosen = sides.layers_of(wrapped(Modern(network()).eval()))
    assert "encoder" not in chosen
    assert "encoder.stage.4" in chosen


def test_a_checkpoint_that_diverged_is_named(pictures):
    broken = network()
    with torch.no_grad():
        broken[1].running_var[0] = -1.0  # its square root is NaN
    with pytest.raises(ModelError, match=r"net B gives NaN .* for 67 of 67 pictures from layer '\d' on"):
        api.diff(wrapped(network()), wrapped(broken), pictures, maps=0)


class Masked(nn.Module):
    """Its scores are sound, but a layer on the way holds minus infinity, as masks do."""

    def __init__(self, net):
        super().__init__()
        self.net, self.mask = net, nn.Identity()

    def forward(self, x):
        inner = self.net[:5](x)
        away = self.mask(torch.full_like(inner, float("-inf")))
        return self.net[5:](torch.maximum(inner, away))


def test_a_layer_of_infinities_is_left_out_and_said(pictures, monkeypatch):
    monkeypatch.setattr(api, "layers_of", lambda model, *_: ["net.4", "mask"])
    made = api.diff(wrapped(Masked(network()).eval()), wrapped(Masked(network()).eval()), pictures, maps=0)
    assert [list(side.layers) for side in made.sides] == [["net.4"], ["net.4"]]
    assert any("mask holds NaN or infinity" in note for note in made.notes)
    assert made.pairs[0].cka == pytest.approx(np.ones((1, 1)), abs=1e-6)
