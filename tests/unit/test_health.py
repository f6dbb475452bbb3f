"""Units: what is planted is found and nothing else; what is taken out leaves the outputs as they were."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

import convoscope as cs
from convoscope.improve.collection import Labelled
from convoscope.improve.units import prune
from convoscope.improve.units.border import border
from convoscope.improve.units.examine import never_trained
from convoscope.improve.units.measure import measure
from convoscope.improve.units.weights import first_filters, initial_layers, switched_off


class Plain(nn.Module):
    """Convolutions with batch norm, a flattened head of two layers."""

    def __init__(self, width):
        super().__init__()
        self.one = nn.Sequential(nn.Conv2d(3, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU())
        self.two = nn.Sequential(nn.Conv2d(width, width, 3, stride=2), nn.ReLU(inplace=True), nn.AvgPool2d(2))
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(width * 9, 12), nn.ReLU(), nn.Linear(12, 5))

    def forward(self, x):
        return self.head(self.two(self.one(x)))


class Residual(nn.Module):
    """A residual sum, whose units must stay, and a depthwise convolution."""

    def __init__(self, width):
        super().__init__()
        self.one = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.ReLU())
        self.a = nn.Conv2d(width, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(width)
        self.b = nn.Conv2d(width, width, 3, padding=1)
        self.deep = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.mix = nn.Conv2d(width, width, 1)
        self.fc = nn.Linear(width, 5)

    def forward(self, x):
        x = self.one(x)
        x = x + self.b(torch.relu(self.norm(self.a(x))))
        x = torch.relu(self.deep(torch.relu(self.mix(x))))
        return self.fc(x.mean((2, 3)))


class Branches(nn.Module):
    """Two branches side by side, as in SqueezeNet and DenseNet, batch norm behind them."""

    def __init__(self, width):
        super().__init__()
        self.squeeze = nn.Conv2d(3, width, 1)
        self.left, self.right = nn.Conv2d(width, width, 1), nn.Conv2d(width, width, 3, padding=1)
        self.norm = nn.BatchNorm2d(2 * width)
        self.last = nn.Conv2d(2 * width, 5, 1)

    def forward(self, x):
        x = torch.relu(self.squeeze(x))
        x = torch.cat([torch.relu(self.left(x)), torch.relu(self.right(x))], 1)
        return torch.relu(self.last(torch.relu(self.norm(x)))).mean((2, 3))


def lively(network, seed):
    """Biases and norms as after training, so that few units are dead by chance."""
    random = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.copy_(torch.randn(module.num_features, generator=random) * 0.1)
            module.weight.data.copy_(torch.rand(module.num_features, generator=random) + 0.5)
            module.bias.data.copy_(torch.randn(module.num_features, generator=random) * 0.1 + 0.3)
    return network.eval()


#: (family, the convolution that gets dead and duplicate units, the batch norm behind it)
FAMILIES = [(Plain, "one.0", "one.1"), (Plain, "two.0", None), (Residual, "a", "norm"), (Branches, "squeeze", None)]


def plant(network, layer, norm, random):
    """Two dead units, and one that is a copy of another; their numbers."""
    conv = network.get_submodule(layer)
    dead = sorted(int(i) for i in random.choice(conv.out_channels, 2, replace=False))
    rest = [i for i in range(conv.out_channels) if i not in dead]
    kept, gone = sorted(int(i) for i in random.choice(rest, 2, replace=False))
    with torch.no_grad():
        conv.weight[gone] = conv.weight[kept]
        if conv.bias is not None:
            conv.bias[gone] = conv.bias[kept]
        if norm is None:
            conv.weight[dead] = 0
            conv.bias[dead] = -1
        else:
            bn = network.get_submodule(norm)
            for values in (bn.weight, bn.bias, bn.running_mean, bn.running_var):
                values[gone] = values[kept]
            bn.weight[dead], bn.bias[dead] = 0, -1
    return dead, (kept, gone)


def pictures(count=10, side=16, seed=0):
    random = np.random.default_rng(seed)
    return [(random.integers(0, 255, (side, side, 3), dtype=np.uint8), None) for _ in range(count)]


def silent(network, model, given):
    """By hooks alone: the channels of every ReLU's input convolution that no picture wakes, by looking again."""
    inputs = torch.stack([model.prepare(one).tensor for one, _ in given])
    with torch.no_grad():
        return inputs, network(inputs)


@pytest.mark.parametrize("number", [*range(4), *(pytest.param(n, marks=pytest.mark.slow) for n in range(4, 30))])
def test_what_is_taken_out_leaves_the_outputs_as_they_were(number):
    family, layer, norm = FAMILIES[number % len(FAMILIES)]
    torch.manual_seed(number)
    random = np.random.default_rng(number)
    network = lively(family(8 + number % 5), number)
    natural = cs.wrap(copy.deepcopy(network), size=16)
    given = pictures()
    before = prune(natural, given)
    dead, (kept, gone) = plant(network, layer, norm, random)
    model = cs.wrap(network, size=16)
    state = {name: value.clone() for name, value in network.state_dict().items()}
    small, masked = prune(model, given), prune(model, given, masked=True)
    inputs, want = silent(network, model, given)
    for one in (small, masked):
        with torch.no_grad():
            assert torch.allclose(one.module(inputs), want, atol=1e-5 * max(1, float(want.abs().max())))
        assert {f"{layer}:{unit}" for unit in dead} <= set(one.removed)
        # a unit that is dead in all pictures may be a duplicate's partner, never the other way round
        # (other units that are multiples of each other in all pictures may be merged beside the planted ones)
        assert (f"{layer}:{gone}", f"{layer}:{kept}") in one.merged or {f"{layer}:{gone}"} <= set(one.removed)
        assert set(one.module.state_dict()) == set(state)
    # none false: what else is removed was silent before anything was planted, or is read by nothing but the planted
    mine = {f"{layer}:{unit}" for unit in [*dead, kept, gone]}
    same_layer = {name for name in small.removed if name.startswith(f"{layer}:")} - mine
    assert same_layer <= {name for name in before.removed if name.startswith(f"{layer}:")}
    assert small.madds_after < small.madds_before == masked.madds_before
    assert small.madds_after == masked.madds_after
    assert all(masked.module.state_dict()[name].shape == value.shape for name, value in state.items())
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


def test_multiply_adds_by_hand():
    network = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 64, 2)).eval()
    with torch.no_grad():
        network[0].weight[1], network[0].bias[1] = 0, -1
    found = prune(cs.wrap(network, size=8), pictures(6, 8))
    assert found.removed == ("0:1",)
    assert (found.madds_before, found.madds_after) == (64 * 27 * 4 + 512, 64 * 27 * 3 + 384)
    assert (found.module[0].out_channels, found.module[3].in_features) == (3, 192)


def test_what_is_added_or_returned_stays_with_its_reason():
    network = Residual(6).eval()
    with torch.no_grad():
        network.one[0].weight[2], network.one[0].bias[2] = 0, -1
    found = prune(cs.wrap(network, size=16), pictures())
    assert "one.0:2" not in found.removed
    assert found.pinned.get("one.0:2") == "it is added to another channel"


def test_a_network_whose_graph_cannot_be_had_is_told_and_copied():
    class Branching(nn.Module):
        def forward(self, x):
            return x.mean((2, 3)) if float(x.sum()) > 0 else x.amax((2, 3))

    found = prune(cs.wrap(Branching(), size=8), pictures(3, 8))
    assert found.refused
    assert not found.removed


def test_initial_weights_are_told_from_trained_ones():
    torch.manual_seed(3)
    fresh = nn.Sequential(nn.Conv2d(8, 40, 3), nn.Conv2d(40, 40, 3), nn.Linear(60, 50))
    rows = initial_layers(fresh)
    assert [row.untrained for row in rows] == [True] * 3
    assert never_trained(rows)[0][0] == ""
    toybox = cs.open_model("toybox").module
    assert never_trained(initial_layers(toybox)) == ()
    for one in toybox.layer3.modules():
        if hasattr(one, "reset_parameters"):
            one.reset_parameters()
    assert [name for name, _ in never_trained(initial_layers(toybox))] == ["layer3"]


def test_correlation_dead_and_constant_units_equal_numpys():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()).eval()
    with torch.no_grad():
        network[0].weight[1], network[0].bias[1] = 0, -1
        network[0].weight[2], network[0].bias[2] = 0, 2
        network[0].weight[5] = network[0].weight[4] * 3
        network[0].bias[5] = network[0].bias[4] * 3
    model = cs.wrap(network, size=9)
    given = pictures(12, 9)
    seen = measure(model, Labelled.of(given, model)).layers[0]
    values = network(torch.stack([model.prepare(one).tensor for one, _ in given])).detach().double()
    flat = values.transpose(0, 1).flatten(1).numpy()
    assert np.flatnonzero(seen.dead).tolist() == np.flatnonzero((flat == 0).all(1)).tolist()
    assert np.flatnonzero(seen.constant).tolist() == [2]
    assert np.allclose(seen.mean, flat.mean(1))
    assert np.allclose(seen.variance, flat.var(1))
    with np.errstate(invalid="ignore"):
        want = np.corrcoef(flat)
    live = [i for i in range(8) if not seen.dead[i] and i != 2]
    assert np.allclose(seen.correlation[np.ix_(live, live)], want[np.ix_(live, live)], atol=1e-9)
    assert (5, 4) in [(a, b) for a, b, _ in seen.alike(0.9999)]


def test_stripes_have_their_frequency_and_orientation():
    network = nn.Sequential(nn.Conv2d(1, 2, 8, stride=4))
    at = torch.arange(8.0)
    with torch.no_grad():
        network[0].weight[0, 0] = torch.cos(2 * np.pi * at / 4)[None].expand(8, 8)  # 0.25 cycles a pixel, vertical
        network[0].weight[1, 0] = torch.cos(2 * np.pi * at / 8)[:, None].expand(8, 8)  # 0.125, horizontal
    found = first_filters(network)
    assert np.allclose(found.frequency, [0.25, 0.125], atol=1 / 32)
    assert abs(found.orientation[0]) < 1
    assert abs(abs(found.orientation[1]) - 90) < 1
    # 0.25 lies above the stride's 0.125: nearly all of that filter's energy aliases
    assert found.alias > 0.3


def test_the_border_layer_is_the_first_whose_input_sees_the_picture():
    # fields 3, 5, 7, 9, 11 on 8 pixels: the fifth convolution's input sees 9
    network = nn.Sequential(*[nn.Conv2d(3, 3, 3, padding=1) for _ in range(6)]).eval()
    found = border(cs.wrap(network, size=8), torch.randn(2, 3, 8, 8), ["0", "2"])
    assert found.layer == "4"
    assert found.beyond == ("4", "5")
    assert [one.theoretical for one in found.fields] == [3, 7]
    assert all(one.effective is not None and one.effective <= one.theoretical for one in found.fields)


def test_gamma_next_to_zero_is_seen():
    network = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6))
    network[1].weight.data[4] = 1e-9
    assert [(one.layer, one.channels) for one in switched_off(network)] == [("1", (4,))]


@pytest.fixture(scope="module")
def drawn():
    from convoscope.toybox.specimens import CLASSES
    from convoscope.toybox.specimens import pictures as specimens

    return [(one.image, CLASSES[one.class_index]) for one in specimens(70, 955)]


def test_a_healthy_network_is_called_healthy_and_left_alone(drawn):
    model = cs.open_model("toybox")
    before = {name: value.clone() for name, value in model.module.state_dict().items()}
    hooks = sum(len(one._forward_pre_hooks) + len(one._forward_hooks) for one in model.module.modules())
    found = cs.health(model, drawn)
    assert found.findings == ()
    assert "Nothing found" in found.sentence
    assert all(torch.equal(value, before[name]) for name, value in model.module.state_dict().items())
    assert hooks == sum(len(one._forward_pre_hooks) + len(one._forward_hooks) for one in model.module.modules())
    assert "<h1>" in found.page()


def test_planted_faults_are_named(drawn):
    model = cs.open_model("toybox")
    block = model.module.layer2[1]
    with torch.no_grad():
        block.bn1.weight[[1, 5, 9]], block.bn1.bias[[1, 5, 9]] = 0, -1
        block.conv1.weight[30] = block.conv1.weight[40]
        for values in (block.bn1.weight, block.bn1.bias, block.bn1.running_mean, block.bn1.running_var):
            values[30] = values[40]
        model.module.layer3[0].bn1.running_var.mul_(60)
        model.module.layer3[0].bn1.running_mean.add_(2)
    found = cs.health(model, drawn)
    what = {one.evidence["what"]: one for one in found.findings}
    assert {"dead", "duplicates"} <= set(what)
    assert what["dead"].evidence["units"] == {"layer2.1.relu": [1, 5, 9]}
    assert what["duplicates"].evidence["units"]["layer2.1.relu"] == [40]
    # the planted stale layer may silence units of its own, too; in the planted layer nothing else is removed
    removed = {name for name in found.data["prune"]["removed"] if name.startswith("layer2.1.")}
    assert removed == {f"layer2.1.conv1:{unit}" for unit in (1, 5, 9)}
    medians = {row["layer"]: row["kl_median"] for row in found.data["batch_norm"]}
    assert medians["layer3.0.bn1"] > 0.2 > 0.02 > medians["layer2.1.bn2"]


def test_without_pictures_the_weights_alone_are_looked_at():
    found = cs.health("toybox")
    assert found.data["layers"] == []
    assert found.data["first_filters"]["layer"] == "stem.0"
