"""The measures' speed beside Quantus: the same measures of the same maps, equal figures.

    python benchmarks/trust.py [--pictures 8] [--methods grad-cam saliency ...] [--json FILE]

The maps of all methods that ``evaluate`` takes by itself, of a few toybox pictures. Quantus measures one method after
the other; here all methods of a picture share their endpoints, subsets and batches. Times are processor time of one
thread, so that a busy machine does not change them; each pair is run in turn, and the fastest of --repeat counts.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

import convoscope as cs
from convoscope.engine.passes.untouched import untouched
from convoscope.trust import datasets, faithfulness, localisation
from convoscope.trust.inpaint import fill_in
from convoscope.trust.scoring import Kept, scoring

STEPS, SHARES, SUBSETS = 18, (0.1, 0.3, 0.5, 0.7, 0.9), 64
COMMON = {"abs": False, "normalise": False, "disable_warnings": True}


class Bench:
    """Pictures, maps and masks, and each measure on both sides."""

    def __init__(self, pictures: int, methods: Sequence[str]) -> None:
        import quantus

        self.quantus = quantus
        self.model = cs.open_model("toybox")
        cases = datasets.toybox_cases(pictures, seed=5)
        found = cs.explain(self.model, [case.source for case in cases], list(methods))
        methods = [name for name in methods if not any(name in one.refused for one in found)]
        self.methods = len(methods)
        rng = np.random.default_rng(0)
        maps = np.stack([[one[m].values for m in methods] for one in found])
        # a whisper of noise: equal values would be ordered at each side's own will
        self.maps = maps + rng.random(maps.shape, dtype=np.float32) * 1e-4 * np.abs(maps).max((2, 3), keepdims=True)
        self.fitted = [one.fitted for one in found]
        self.x = np.stack([one.fitted.tensor.numpy() for one in found])
        self.y = np.array([one.prediction[0]["index"] for one in found])
        self.masks = np.stack(
            [case.region.on_input(f) for case, f in zip(cases, self.fitted, strict=True) if case.region is not None]
        )

    # ours ----------------------------------------------------------------------------------------------------------

    def each(self, measure: Callable[[Any, np.ndarray, int], Any]) -> np.ndarray:
        """``measure(scored, maps of one picture, its number)`` for every picture: ``[pictures, methods]``."""
        rows = []
        for k, fitted in enumerate(self.fitted):
            with scoring(self.model, fitted, int(self.y[k]), many_more_follow=True) as scored:
                rows.append(measure(scored, self.maps[k], k))
        return np.array(rows)

    def ours_localisation(self, name: str) -> np.ndarray:
        measure: Any = localisation.MEASURES[name]
        return np.stack([measure(m, s) for m, s in zip(self.maps, self.masks, strict=True)])

    def deletion(self, scored: Any, maps: np.ndarray, k: int) -> list[float]:
        return [c.scores[1:].mean() for c in faithfulness.deletion(maps, scored.filled("mean"), steps=STEPS)]

    def road(self, scored: Any, maps: np.ndarray, k: int) -> np.ndarray:
        """The most relevant first: probability after imputation, mean over the shares."""
        place = torch.from_numpy(faithfulness.ranks(maps)).view(self.methods, 1, 96, 96)
        gone = torch.tensor([int(9216 * s) for s in SHARES]).view(1, -1, 1, 1)
        scores = scored.filled("inpaint", 0.0)((place < gone).float().flatten(0, 1))
        return np.asarray(scores.view(self.methods, -1).mean(1).numpy())

    def correlation(self, scored: Any, maps: np.ndarray, k: int) -> np.ndarray:
        masks = faithfulness.subsets((96, 96), SUBSETS, 0.2, 1)
        return faithfulness.sensitivity_n(maps, masks, scored.whole - scored.filled("mean")(masks))

    def ours_together(self) -> np.ndarray:
        """All measures as ``evaluate`` takes them: a picture is opened once, and the network prepared once."""
        for name in ("pointing", "energy-inside", "auc"):
            self.ours_localisation(name)
        self.ours_imputation()
        kept = Kept()
        for k, fitted in enumerate(self.fitted):
            with scoring(self.model, fitted, int(self.y[k]), many_more_follow=True, kept=kept) as scored:
                for measure in (self.deletion, self.road, self.correlation):
                    measure(scored, self.maps[k], k)
        return np.zeros(0)

    def ours_imputation(self) -> np.ndarray:
        order = np.argsort(-self.maps[0, 0].ravel())
        masks = torch.zeros((len(SHARES), 96 * 96))
        for row, share in enumerate(SHARES):
            masks[row, order[: int(9216 * share)].copy()] = 1
        return fill_in(torch.from_numpy(self.x[0]), masks.view(-1, 96, 96), tolerance=1e-4).flatten(1).mean(1).numpy()

    # theirs --------------------------------------------------------------------------------------------------------

    def theirs(self, metric: Any, **given: Any) -> np.ndarray:
        found = []
        for number in range(self.methods):
            with warnings.catch_warnings(), untouched(self.model.module):
                warnings.simplefilter("ignore")
                found.append(
                    metric(
                        model=self.model.module, x_batch=self.x, y_batch=self.y, a_batch=self.maps[:, number, None],
                        device="cpu", **given,
                    )
                )  # fmt: skip
        return np.array(found, float)

    def theirs_localisation(self, name: str) -> np.ndarray:
        kind: Any = {
            "pointing": lambda: self.quantus.PointingGame(**COMMON),
            "energy-inside": lambda: self.quantus.AttributionLocalisation(positive_attributions=True, **COMMON),
            "auc": lambda: self.quantus.AUC(**COMMON),
        }[name]
        return self.theirs(kind(), s_batch=self.masks[:, None]).T

    def theirs_deletion(self) -> np.ndarray:
        metric = self.quantus.PixelFlipping(features_in_step=3 * 9216 // STEPS, perturb_baseline=0.0, **COMMON)
        return self.theirs(metric).mean(2).T

    def theirs_road(self) -> np.ndarray:
        """Their imputation and a batched forward: their metric itself gives hits, and is made for one channel."""
        from quantus.functions.perturb_func import noisy_linear_imputation

        rows = np.zeros((len(self.x), self.methods))
        for k in range(len(self.x)):
            for m in range(self.methods):
                order = np.argsort(-self.maps[k, m].ravel())
                filled = [noisy_linear_imputation(self.x[k], order[: int(9216 * s)], noise=0.0) for s in SHARES]
                with untouched(self.model.module, gradients=False):
                    x = torch.from_numpy(np.stack(filled).reshape(-1, 3, 96, 96).astype(np.float32))
                    rows[k, m] = float(self.model.module(x).softmax(1)[:, self.y[k]].mean())
        return rows

    def theirs_imputation(self) -> np.ndarray:
        from quantus.functions.perturb_func import noisy_linear_imputation

        order = np.argsort(-self.maps[0, 0].ravel())
        filled = [noisy_linear_imputation(self.x[0], order[: int(9216 * s)], noise=0.0) for s in SHARES]
        return np.stack(filled).reshape(len(SHARES), -1).mean(1)

    def theirs_correlation(self) -> np.ndarray:
        np.random.seed(0)
        metric = self.quantus.FaithfulnessCorrelation(
            nr_runs=SUBSETS, subset_size=int(0.2 * 9216 * 3), perturb_baseline=0.0, return_aggregate=False, **COMMON
        )
        return self.theirs(metric).T


def fastest(call: Callable[[], np.ndarray], repeat: int) -> tuple[float, np.ndarray]:
    """The least processor time of ``repeat`` runs, and the figures."""
    best, found = float("inf"), np.zeros(0)
    for _ in range(repeat):
        start = time.process_time()
        found = call()
        best = min(best, time.process_time() - start)
    return best, found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=8)
    parser.add_argument("--methods", nargs="*", help="default: all that are not slow")
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    torch.set_num_threads(1)
    methods = given.methods or [name for name, kind in cs.methods.METHODS.items() if not kind.about.slow]
    bench = Bench(given.pictures, methods)
    pairs: dict[str, tuple[Callable[[], np.ndarray], Callable[[], np.ndarray], float | None]] = {
        name: (
            lambda name=name: bench.ours_localisation(name),
            lambda name=name: bench.theirs_localisation(name),
            1e-4,
        )
        for name in ("pointing", "energy-inside", "auc")
    }
    pairs["deletion"] = (lambda: bench.each(bench.deletion), bench.theirs_deletion, 1e-3)
    pairs["road"] = (lambda: bench.each(bench.road), bench.theirs_road, 0.02)
    pairs["road's imputation"] = (bench.ours_imputation, bench.theirs_imputation, 1e-3)
    # random subsets: each side draws its own, so figures agree in the mean only
    pairs["sensitivity-n"] = (lambda: bench.each(bench.correlation), bench.theirs_correlation, None)
    table, total = {}, np.zeros(2)
    print(f"{given.pictures} pictures, {bench.methods} methods; seconds of processor time, one thread")
    print(f"{'measure':20} {'ours':>9} {'Quantus':>9} {'times':>7}   largest difference")
    failed = False
    for name, (ours, theirs, tolerance) in pairs.items():
        (mine, a), (other, b) = fastest(ours, given.repeat), fastest(theirs, given.repeat)
        gap = float(np.nanmax(np.abs(a - b))) if tolerance is not None else float(abs(np.nanmean(a) - np.nanmean(b)))
        table[name] = {"ours": mine, "quantus": other, "times": other / mine, "difference": gap}
        total += (mine, other)
        wrong = tolerance is not None and gap > tolerance
        failed |= wrong
        what = ("of the means" if tolerance is None else "") + ("  NOT EQUAL" if wrong else "")
        print(f"{name:20} {mine:9.3f} {other:9.3f} {other / mine:7.1f}   {gap:.2g} {what}")
    # each line opens the pictures anew; together, as evaluate does, they are opened once
    total[0], _ = fastest(bench.ours_together, given.repeat)
    print(f"{'all together':20} {total[0]:9.3f} {total[1]:9.3f} {total[1] / total[0]:7.1f}")
    table["all"] = {"ours": total[0], "quantus": total[1], "times": total[1] / total[0]}
    if given.json is not None:
        given.json.write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
