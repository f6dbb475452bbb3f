"""TCAV's scores against captum's, on the same separators, pictures and layer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

import convoscope as cs
from convoscope.concepts import directions
from convoscope.improve.collection import Labelled
from convoscope.toybox import CLASSES, draw
from convoscope.toybox.loading import normalize

SETS, LAYER = 6, "layer3.0"


def test_scores_are_captums_on_the_same_separators(tmp_path: Path) -> None:
    from captum.concept import TCAV, Classifier, Concept

    model = cs.open_model("toybox-twin")
    cups = [draw(41_000_000 + k, label="cup").image for k in range(20)]
    tagged = [draw(42_000_000 + k, tag=True).image for k in range(24)]
    plain = [draw(43_000_000 + k).image for k in range(60)]
    index = CLASSES.index("cup")

    def pooled(images: list[np.ndarray]) -> np.ndarray:
        with torch.no_grad():
            network = model.module
            grid = network.layer3[0](network.layer2(network.layer1(network.stem(normalize(images)))))
        return grid.mean((2, 3)).double().numpy()

    gradients = directions._gradients(
        model, Labelled.of([(one, None) for one in cups], model), index, [LAYER], None, {}
    )
    ours = directions.test(pooled(tagged), pooled(plain), gradients[LAYER], SETS, np.random.default_rng(0))
    assert ours is not None

    side, channels = 12, ours.vectors.shape[1]
    # a direction is added at every cell alike: captum's separators live on the flattened grid
    spread = torch.from_numpy(ours.vectors).float()[:, :, None].expand(SETS, channels, side * side).flatten(1)
    waiting = list(spread)

    class Given(Classifier):
        """Answers with our separators, one for each experiment."""

        def __init__(self) -> None:
            self.own = torch.zeros(0)

        def train_and_eval(self, dataloader, test_split_ratio=0.33, random_state=None, **kwargs):  # type: ignore[no-untyped-def]
            self.own = waiting.pop(0)
            self.seen = sorted({int(one) for _, labels in dataloader for one in labels})
            return {"accs": torch.tensor(1.0)}

        def weights(self) -> torch.Tensor:
            return torch.stack([self.own, -self.own])

        def classes(self) -> list[int]:
            return self.seen

    def concept(number: int, images: list[np.ndarray]) -> Concept:
        loader = torch.utils.data.DataLoader(list(normalize(images)), batch_size=8)
        return Concept(number, f"concept-{number}", loader)

    own = concept(0, tagged[:8])  # what captum would learn from does not matter: the separators are given
    experiments = [[own, concept(1 + k, plain[8 * k : 8 * k + 8])] for k in range(SETS)]
    captum = TCAV(model.module, [LAYER], classifier=Given(), save_path=str(tmp_path))
    found = captum.interpret(normalize(cups), experiments, target=index)
    counts = np.array([float(found[f"0-{1 + k}"][LAYER]["sign_count"][0]) for k in range(SETS)])
    sizes = np.array([float(found[f"0-{1 + k}"][LAYER]["magnitude"][0]) for k in range(SETS)])
    slopes = gradients[LAYER] @ ours.vectors.T  # [pictures, sets]
    assert np.abs((slopes > 0).mean(0) - counts).max() < 1e-6
    assert np.abs(slopes.mean(0) - sizes).max() < 1e-6 * max(1.0, np.abs(sizes).max())
    assert abs(ours.score - counts.mean()) < 1e-6
