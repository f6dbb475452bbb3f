"""The measures on the toybox's networks: evaluation, resuming, randomisation, stability, axioms, verdicts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import convoscope as cs
from convoscope.engine.passes.untouched import untouched
from convoscope.errors import MethodRefused, ModelError, UsageError
from convoscope.methods import RISE, GradCAM, IntegratedGradients
from convoscope.trust import axioms, datasets, faithfulness, sanity, stability
from convoscope.trust.datasets import Case
from convoscope.trust.evaluate import Settings, evaluate_cases, measures, methods_for
from convoscope.trust.scoring import scoring
from convoscope.trust.verdict import verdicts

QUICK = ["grad-cam", "saliency"]


@pytest.fixture(scope="module")
def toybox() -> cs.Model:
    return cs.open_model("toybox")


@pytest.fixture(scope="module")
def cases() -> list[Case]:
    return datasets.toybox_cases(4)


def state(model: cs.Model) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.module.state_dict().items()}


def same(before: dict[str, torch.Tensor], model: cs.Model) -> bool:
    after = model.module.state_dict()
    return list(before) == list(after) and all(torch.equal(before[name], after[name]) for name in before)


# scoring ---------------------------------------------------------------------------------------------------------


def test_scores_are_those_of_the_pictures_written_out(toybox: cs.Model, cases: list[Case]) -> None:
    fitted = toybox.prepare(cases[0].source)
    masks = faithfulness.subsets((96, 96), 5, 0.3, 8)
    with scoring(toybox, fitted, 3, probability=False) as scored:
        found = scored.filled("mean")(masks)
        black = scored.filled("black")(masks)
    x = toybox.inputs([fitted])
    dark = toybox.preprocessing.normalise(torch.zeros_like(x))
    for fill, scores in ((torch.zeros_like(x), found), (dark, black)):
        with untouched(toybox.module, gradients=False):
            by_hand = toybox.run(x * (1 - masks[:, None]) + fill * masks[:, None])[:, 3]
        assert torch.allclose(scores, by_hand, atol=1e-4)


def test_the_fill_and_the_target_must_fit(toybox: cs.Model, cases: list[Case]) -> None:
    with scoring(toybox, toybox.prepare(cases[0].source)) as scored:
        assert scored.probability
        assert 0 < scored.whole <= 1
        with pytest.raises(UsageError, match="inpaint"):
            scored.filled("grass")
    with scoring(toybox, toybox.prepare(cases[0].source), "layer3.1:5") as scored:
        assert not scored.probability  # a unit has none


# evaluation ------------------------------------------------------------------------------------------------------


def test_evaluation_gives_every_method_and_baseline(toybox: cs.Model, cases: list[Case]) -> None:
    before = state(toybox)
    league = evaluate_cases(toybox, cases[:1], QUICK, settings=Settings(measures=measures("all"), steps=4, subsets=8))
    assert same(before, toybox)
    assert league.measures == list(measures("all"))
    for measure in league.measures:
        assert set(league.cases[measure]) == {*QUICK, "centre", "edges", "random", "random-smooth"}
        for values in league.cases[measure].values():
            assert np.isfinite(values).all()
    assert league.settings["predicted_right"] == 1
    json.dumps(league.to_dict(), allow_nan=False)


def test_a_stopped_evaluation_goes_on_and_gives_the_same(toybox: cs.Model, cases: list[Case], tmp_path: Path) -> None:
    settings = Settings(measures=measures(["pointing", "deletion"]), steps=4)
    whole = evaluate_cases(toybox, cases, QUICK, settings=settings)

    class Stop(Exception):
        pass

    def stop(done: int, total: int) -> None:
        if done == 2:
            raise Stop

    small = replace(toybox, batch_size=2)
    with pytest.raises(Stop):
        evaluate_cases(small, cases, QUICK, settings=settings, out=tmp_path, progress=stop)
    # a kill in the middle of a line
    with (tmp_path / "cases.jsonl").open("a") as file:
        file.write('{"case": "00002-')
    seen: list[int] = []
    again = evaluate_cases(
        small, cases, QUICK, settings=settings, out=tmp_path, progress=lambda done, total: seen.append(done)
    )
    assert seen == [2, 3, 4]
    for measure in whole.measures:
        for method, values in whole.cases[measure].items():
            assert np.allclose(values, again.cases[measure][method], atol=1e-4), (measure, method)
    assert len((tmp_path / "cases.jsonl").read_text().splitlines()) == 4
    with pytest.raises(UsageError, match="another evaluation"):
        evaluate_cases(toybox, cases, ["saliency"], settings=settings, out=tmp_path)


def test_a_picture_that_cannot_be_read_is_named_and_the_rest_done(toybox: cs.Model, cases: list[Case]) -> None:
    broken = Case("broken", Path("nowhere.png"), 1)
    settings = Settings(measures=measures("pointing"))
    league = evaluate_cases(toybox, [broken, *cases[:2]], QUICK, settings=settings)
    assert list(league.failed) == ["broken"]
    assert len(league.keys) == 2


def test_methods_that_do_not_fit_are_named(cases: list[Case]) -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * 96 * 96, 10))
    league = evaluate_cases(
        cs.wrap(network, size=96), cases[:1], QUICK, settings=Settings(measures=measures("pointing"))
    )
    assert list(league.refused) == ["grad-cam"]
    assert "saliency" in league.cases["pointing"]


def test_each_case_is_explained_for_its_own_class(toybox: cs.Model, cases: list[Case]) -> None:
    settings = Settings(measures=measures("deletion"), steps=4)
    other = replace(cases[0], key="other", target=(int(cases[0].target or 0) + 1) % 10)
    league = evaluate_cases(toybox, [cases[0], other], ["grad-cam"], settings=settings)
    right, wrong = league.cases["deletion"]["grad-cam"]
    assert right > 5 * wrong


def test_measures_and_methods_by_name() -> None:
    assert measures(["localisation", "deletion"]) == ("pointing", "energy-inside", "iou", "auc", "deletion")
    with pytest.raises(UsageError, match="beauty"):
        measures("beauty")
    names = methods_for("all")
    assert "occlusion" not in names
    assert "occlusion" in methods_for("all", slow=True)
    assert list(methods_for([GradCAM(), GradCAM(layer="layer2")])) == ["grad-cam", "grad-cam@layer2"]


@pytest.mark.parametrize("bad", [{"steps": 0}, {"tolerance": -1}, {"deletion_fill": "sky"}, {"share": 1.0}])
def test_settings_are_checked(bad: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Settings(**bad)


# sanity ----------------------------------------------------------------------------------------------------------


def test_randomising_takes_a_copy(toybox: cs.Model) -> None:
    before = state(toybox)
    modules = sanity.learnt_modules(toybox)
    assert modules[0] == "stem.0"
    assert modules[-1] == sanity.classifier(toybox) == "fc"
    random_state = torch.get_rng_state()
    for how in ("shuffle", "reset"):
        other = sanity.randomised(toybox, ["fc"], how=how)
        assert same(before, toybox)
        after = other.module.state_dict()
        assert {name for name in before if not torch.equal(before[name], after[name])} == {"fc.weight", "fc.bias"}
    shuffled = sanity.randomised(toybox, ["fc"]).module.state_dict()
    assert torch.equal(shuffled["fc.weight"].flatten().sort()[0], before["fc.weight"].flatten().sort()[0])
    assert torch.equal(random_state, torch.get_rng_state())
    with pytest.raises(UsageError, match="nowhere"):
        sanity.randomised(toybox, ["nowhere"])


def test_a_network_that_cannot_be_copied_is_refused() -> None:
    class Stuck(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def __deepcopy__(self, memo: Any) -> Any:
            raise RuntimeError("no copies")

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(x).mean((2, 3))

    with pytest.raises(ModelError, match="no copies"):
        sanity.randomised(cs.wrap(Stuck(), size=32), ["conv"])


def test_cascading_and_independent_randomisation(toybox: cs.Model, cases: list[Case]) -> None:
    before = state(toybox)
    methods = ["grad-cam", "eigen-cam"]
    down = sanity.randomisation(toybox, cases[0].source, methods, stages=3)
    assert [len(stage.randomised) for stage in down] == sorted(len(stage.randomised) for stage in down)
    assert down[0].randomised == ("fc",)
    assert set(down[-1].randomised) == set(sanity.learnt_modules(toybox))
    # eigen-cam never looks at the classifier; grad-cam does
    assert down[0].rank["eigen-cam"] == pytest.approx(1)
    assert down[0].ssim["eigen-cam"] == pytest.approx(1)
    assert down[0].rank["grad-cam"] < 0.9
    assert down[-1].rank["eigen-cam"] < 0.9
    alone = sanity.randomisation(toybox, cases[0].source, methods, cascading=False, stages=2)
    assert [stage.randomised for stage in alone] == [("fc",), ("stem.0",)]
    assert down[-1].stage == "stem.0"
    assert same(before, toybox)


# stability -------------------------------------------------------------------------------------------------------


def test_max_sensitivity_of_known_changes() -> None:
    base = np.random.default_rng(0).random((10, 10))
    found = stability.max_sensitivity(base, [base, 1.5 * base, 0.9 * base])
    assert found.change == pytest.approx(0.5)
    assert found.rank == pytest.approx(1)
    assert np.isnan(stability.max_sensitivity(np.zeros((4, 4)), [base]).change)


def test_shifting_moves_and_comes_back() -> None:
    values = torch.arange(30.0).view(1, 5, 6)
    moved = stability.shifted(values, 1, -2)
    assert torch.equal(moved[0, 1:, :4], values[0, :4, 2:])
    back = stability.shifted(moved, -1, 2)
    assert torch.equal(back[0, :4, 2:], values[0, :4, 2:])


def test_noise_keeps_its_bound_and_its_seed() -> None:
    x = torch.rand((3, 8, 8), generator=torch.Generator().manual_seed(0)) * 4
    copies = stability.noisy(x, noise=0.05, count=3)
    radius = 0.05 * float(x.max() - x.min())
    for one in copies:
        assert 0.8 * radius < float((one - x).abs().max()) <= radius * 1.0001
    assert torch.equal(copies[1], stability.noisy(x, noise=0.05, count=3)[1])


def test_a_linear_network_is_perfectly_stable(cases: list[Case]) -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 1, bias=False), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    found = stability.stability(cs.wrap(network, size=48), cases[0].source, ["saliency"], count=2, shift=3)
    assert found["saliency"]["noise"].change == pytest.approx(0, abs=1e-5)
    assert found["saliency"]["shift"].change == pytest.approx(0, abs=1e-5)


def test_coarse_maps_move_less_than_gradients(toybox: cs.Model, cases: list[Case]) -> None:
    found = stability.stability(toybox, cases[1].source, QUICK, count=2, shift=0)
    assert found["grad-cam"]["noise"].change < found["saliency"]["noise"].change
    assert found["grad-cam"]["noise"].rank > 0.9


# axioms ----------------------------------------------------------------------------------------------------------


def test_completeness_of_those_who_promise_it(toybox: cs.Model, cases: list[Case]) -> None:
    chosen = ["cam", "input-x-gradient", IntegratedGradients(nodes=100), "grad-cam"]
    found = axioms.completeness(toybox, cases[0].source, chosen)
    assert set(found) == {"cam", "input-x-gradient", "integrated-gradients"}
    assert found["cam"].residual < 1e-3
    assert found["integrated-gradients"].residual < 0.05
    # the toybox has biases and batch norms: its input × gradient does not sum to the score
    assert found["input-x-gradient"].residual > 0.05


def test_input_x_gradient_is_complete_without_biases(cases: list[Case]) -> None:
    torch.manual_seed(1)
    layers: list[nn.Module] = [nn.Conv2d(3, 6, 3, bias=False), nn.ReLU(), nn.Conv2d(6, 4, 3, bias=False), nn.ReLU()]
    network = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    found = axioms.completeness(cs.wrap(network, size=32), cases[0].source, ["input-x-gradient"])
    assert found["input-x-gradient"].residual < 1e-4


def test_maps_are_of_the_function_not_of_its_spelling(toybox: cs.Model, cases: list[Case]) -> None:
    before = state(toybox)
    other = axioms.rewritten(toybox)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in other.module.modules())
    found = axioms.implementation_invariance(
        toybox, cases[0].source, ["saliency", "guided-backprop", "grad-cam", "integrated-gradients"], other=other
    )
    assert same(before, toybox)
    assert set(found) == {"saliency", "guided-backprop", "grad-cam", "integrated-gradients"}
    assert max(found.values()) < 1e-2, found


def test_different_functions_are_not_compared(toybox: cs.Model, cases: list[Case]) -> None:
    other = sanity.randomised(toybox, ["fc"])
    with pytest.raises(MethodRefused, match="not the same function"):
        axioms.implementation_invariance(toybox, cases[0].source, ["saliency"], other=other)


# verdicts --------------------------------------------------------------------------------------------------------


def test_a_verdict_on_every_map(toybox: cs.Model, cases: list[Case]) -> None:
    before = state(toybox)
    explanation = cs.explain(toybox, cases[1].source, ["grad-cam", "eigen-cam", "saliency"])
    found = verdicts(toybox, explanation)
    assert same(before, toybox)
    assert list(found) == list(explanation)
    assert found["eigen-cam"].survives == pytest.approx(1)
    assert "hardly shows" in found["eigen-cam"].sentence
    assert found["grad-cam"].survives is not None
    assert found["grad-cam"].survives < 0.9
    assert found["grad-cam"].better
    assert found["grad-cam"].stable
    for verdict in found.values():
        assert verdict.sentence.endswith(".")
        assert verdict.sentence[0].isupper()
        record = json.loads(json.dumps(verdict.to_dict(), allow_nan=False))
        assert {"gain", "survives_randomised_classifier", "stable", "sentence"} <= set(record)


def test_a_map_that_knows_nothing_is_called_so(toybox: cs.Model, cases: list[Case]) -> None:
    explanation = cs.explain(toybox, cases[1].source, ["grad-cam", "saliency"])
    explanation["grad-cam"].values[:] = -explanation["grad-cam"].values
    explanation["saliency"].values[:] = 0
    found = verdicts(toybox, explanation)
    assert not found["grad-cam"].better
    assert found["grad-cam"].gain is not None
    assert found["grad-cam"].gain < 0
    assert found["grad-cam"].sentence.startswith("No better than random")
    assert found["saliency"].survives is None
    assert found["saliency"].stable is None


@pytest.mark.parametrize("target", ["layer2.1:4", "car", 5])
def test_verdicts_for_other_targets(toybox: cs.Model, cases: list[Case], target: Any) -> None:
    explanation = cs.explain(toybox, cases[0].source, ["grad-cam", "saliency"], target=target, layer=None)
    found = verdicts(toybox, explanation, target)
    assert -1 <= found["saliency"].survives < 0.99
    assert np.isfinite(found["saliency"].gain)


def test_verdicts_for_a_contrast_and_for_several_layers(toybox: cs.Model, cases: list[Case]) -> None:
    explanation = cs.explain(
        toybox, cases[0].source, ["grad-cam"], target="cat", against="cup", layer=["layer2", "layer3"]
    )
    found = verdicts(toybox, explanation, "cat")
    assert set(found) == {"grad-cam@layer2", "grad-cam@layer3"}
    assert all(-1 <= verdict.survives < 0.99 and verdict.stable in (True, False) for verdict in found.values())


def test_slow_methods_are_not_run_again(toybox: cs.Model, cases: list[Case]) -> None:
    explanation = cs.explain(toybox, cases[0].source, RISE(samples=16))
    found = verdicts(toybox, explanation)
    assert np.isfinite(found["rise"].gain)
    assert found["rise"].survives is None
    assert "Slow method" in found["rise"].notes[0]
