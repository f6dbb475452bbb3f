"""The concept methods against planted truth, and what they cost.

    python benchmarks/concepts.py [--part planted|random|speed|parts|units|cheat] [--thing cup] [--json FILE]

- *planted*: a network of the ward that decides fish by a green tint (verified by behaviour: without it, it finds 4 % of
  the fish). 20 seeds, each with pictures of its own: is the tint reported for fish, and are stripes, which it has never
  seen, not?
- *random*: 400 concepts that are random pictures: how many are reported at the corrected 5 % level?
- *speed*: TCAV with 500 random sets on 2,000 pictures.
- *parts*: CRAFT's parts of the toybox's ten things against the exact part masks, beside Xplique's published way (crops
  resized to the input, averaged activations, their factorisation; written anew here) on the same layer and pictures.
- *units*: does ablating a unit cost the thing whose part dissection says it sees?
- *cheat*: the parts of ``toybox-cheat``'s cup: is the tag the most important one?
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from torch.nn import functional as F

import convoscope as cs
from convoscope import toybox
from convoscope.concepts import directions
from convoscope.improve.collection import Labelled
from convoscope.improve.look import look
from convoscope.toybox import CLASSES, draw, ward
from convoscope.toybox.ward import plants

Row = dict[str, Any]


def drawn(count: int, seed: int, size: int = 96, label: str | None = None) -> list[Any]:
    """Pictures in memory, without labels."""
    return [draw(seed * 1_000_000 + k, size=size, label=label).image for k in range(count)]


def bare(images: Any) -> list[tuple[Any, None]]:
    """As TCAV takes them."""
    return [(one, None) for one in images]


def planted(seeds: int = 20) -> Row:
    """A tint that decides and stripes that do not."""
    case = ward.at_hand("shortcut-green")
    tint, stripes = plants.gain(0.75, 1.25, 0.75), plants.checkerboard(12, 2, stripes=True)
    told, rows = 0, []
    for seed in range(seeds):
        plain = np.stack(drawn(330, 6000 + seed, 64))
        every = np.ones(60, bool)
        concepts = {
            "tint": bare(plants.masked(plain[:60], every, tint, seed)),
            "stripes": bare(plants.masked(plain[60:120], every, stripes, seed)),
        }
        fish = drawn(30, 7000 + seed, 64, "fish")
        found = cs.tcav(
            case.model, concepts, "fish", random=bare(plain[120:]), pictures=bare(fish), layers=["layer3"], seed=seed
        )
        p = {row.concept: row.p for row in found.rows}
        told += p.get("tint", 1.0) <= 0.05 and p.get("stripes", 1.0) > 0.05
        rows.append({"tint": p.get("tint"), "stripes": p.get("stripes")})
    return {"seeds": seeds, "told_apart": told, "p": rows}


def random_concepts(tests: int = 400) -> Row:
    """Concepts that are none."""
    model = cs.open_model("toybox")
    pictures = bare(drawn(1500, 6100))
    names = directions.stages(model)
    labelled = Labelled.of(pictures, model)
    looked = look(model, labelled, names, pool=directions._pooled(model))
    scores = looked.scores
    assert scores is not None
    reported, separated, row = 0, 0, 0
    for index in range(10):
        best = np.argsort(-scores[:, index], kind="stable")[:40]
        gradients = directions._gradients(model, labelled.take(best), index, names, None, {})
        for seed in range(tests // 10):
            random = np.random.default_rng([index, seed])
            rows = random.permutation(len(labelled))
            layer = names[row % len(names)]
            row += 1
            got = directions.test(
                looked.layers[layer][rows[:50]], looked.layers[layer][rows[50:650]], gradients[layer], 200, random
            )
            assert got is not None
            separated += got.accuracy_low > 0.5
            reported += got.accuracy_low > 0.5 and got.p <= 0.05
    return {"tests": tests, "reported": reported, "separate_held_out_pictures": separated}


def speed(pictures: int = 2000, sets: int = 500) -> Row:
    """The whole of TCAV, from pictures to rows."""
    model = cs.open_model("toybox")
    drawn_ = drawn(pictures, 6200)
    concept = [draw(6_300_000_000 + k, tag=True).image for k in range(100)]
    clock, processor = time.perf_counter(), time.process_time()
    cs.tcav(model, {"tag": bare(concept)}, "cup", random=bare(drawn_), sets=sets)
    return {
        "pictures": pictures, "sets": sets, "layers": len(directions.stages(model)),
        "seconds": round(time.perf_counter() - clock, 1), "cpu_seconds": round(time.process_time() - processor, 1),
    }  # fmt: skip


def _iou(maps: NDArray[Any], truth: NDArray[Any], half: NDArray[np.bool_]) -> float:
    """IoU over the second half's pixels at the threshold that is best on the first: maps and truth ``[N, H, W]``."""
    best, level = 0.0, 0.0
    for share in (0.01, 0.02, 0.04, 0.08, 0.15, 0.3):
        at = float(np.quantile(maps[half], 1 - share))
        on = maps[half] > at
        union = (on | truth[half]).sum()
        got = float((on & truth[half]).sum() / union) if union else 0.0
        if got > best:
            best, level = got, at
    on = maps[~half] > level
    union = (on | truth[~half]).sum()
    return float((on & truth[~half]).sum() / union) if union else 0.0


def published(
    model: cs.Model, layer: str, images: list[Any], parts: int
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Xplique's Craft: crops of a third, 80 % apart, resized, averaged, factorised.

    Returns:
        maps ``[N, parts, H, W]``, the bank of parts ``[parts, C]``, all cells ``[N h w, C]``.
    """
    from sklearn.decomposition import NMF

    x = model.inputs([model.prepare(one) for one in images])
    side = x.shape[-1]
    patch = round(side * 80 / 224)
    step = int(patch * 0.8)
    crops = x.unfold(2, patch, step).unfold(3, patch, step)
    crops = crops.permute(0, 2, 3, 1, 4, 5).reshape(-1, 3, patch, patch)
    kept: list[torch.Tensor] = []
    hook = model.module.get_submodule(layer).register_forward_hook(lambda _m, _i, out: kept.append(out.detach()))
    try:
        with torch.no_grad():
            for start in range(0, len(crops), 64):
                model.module(F.interpolate(crops[start : start + 64], (side, side), mode="bilinear"))
            seen = torch.cat([one.mean((2, 3)) for one in kept]).clamp(min=0).double().numpy()
            kept.clear()
            model.module(x)
            grid = kept[0].clamp(min=0).double()
    finally:
        hook.remove()
    made = NMF(parts, alpha_W=1e-2, max_iter=500, random_state=0)
    made.fit(seen)
    count, channels, height, width = grid.shape
    flat = grid.permute(0, 2, 3, 1).reshape(-1, channels).numpy()
    shares = torch.from_numpy(made.transform(flat)).reshape(count, height, width, parts).permute(0, 3, 1, 2)
    maps = F.interpolate(shares, (side, side), mode="bicubic", align_corners=False).numpy()
    return np.asarray(maps), np.asarray(made.components_), flat


def reconstruction(found: cs.Craft, bank: NDArray[Any], cells: NDArray[Any]) -> Row:
    """What the factors leave of the activations: ours as told, scikit-learn's own figure, the published bank's."""
    import warnings

    from scipy.optimize import nnls
    from sklearn.decomposition import NMF

    norm = float(np.linalg.norm(cells))
    with warnings.catch_warnings(action="ignore"):
        theirs = NMF(len(bank), init="nndsvda", random_state=0, max_iter=400, tol=1e-4).fit(cells)
    some = cells[np.random.default_rng(0).permutation(len(cells))[:2000]]
    left = np.sqrt(sum(nnls(bank.T, one)[1] ** 2 for one in some)) / np.linalg.norm(some)
    return {
        "error": round(found.error, 6), "error_of_scikit_learn": round(float(theirs.reconstruction_err_ / norm), 6),
        "error_of_the_published_bank": round(float(left), 4),
    }  # fmt: skip


def parts_of_things(count: int = 40, parts: int = 8, only: tuple[str, ...] = ()) -> Row:
    """For each thing the best overlap of a part that was found with one that was drawn."""
    model = cs.open_model("toybox")
    rows = []
    for label in only or CLASSES:
        things = [draw(6_400_000_000 + k, label=label) for k in range(count)]
        images = [one.image for one in things]
        found = cs.craft(model, bare(images), label, parts=parts)
        ours = np.stack([found.maps(one) for one in images])
        theirs, bank, cells = published(model, found.layer, images, parts)
        errors = reconstruction(found, bank, cells)
        half = np.arange(count) % 2 == 0
        names = sorted({name for one in things for name in one.parts})
        nothing = np.zeros(things[0].mask.shape, bool)
        truth = {name: np.stack([one.parts.get(name, nothing) for one in things]) for name in names}
        best = {
            way: {name: max(_iou(maps[:, k], there, half) for k in range(parts)) for name, there in truth.items()}
            for way, maps in (("ours", ours), ("published", theirs))
        }
        rows.append({
            "thing": label, "unstable": sum(part.unstable for part in found.parts),
            "completeness": round(found.completeness.mean, 3), **errors,
            **{way: round(max(values.values()), 3) for way, values in best.items()},
            **{f"{way}_mean": round(float(np.mean(list(values.values()))), 3) for way, values in best.items()},
            "part": max(best["ours"], key=lambda part: best["ours"][part]),
        })  # fmt: skip
        print(json.dumps(rows[-1]), flush=True)
    keys = ("ours", "published", "ours_mean", "published_mean", "error", "error_of_the_published_bank")
    return {"things": rows, **{key: round(float(np.mean([row[key] for row in rows])), 3) for key in keys}}


def units_by_ablation(count: int = 300) -> Row:
    """Of each unit of the last layer: the overlap with a thing's parts, and what its ablation costs that thing.

    What a unit gives a thing is exact here: behind the last layer are the average and one linear layer, so that without
    unit u the margin of the true class falls by what u adds to it. The chance of a correlation is told by giving each
    unit the overlaps of another, since a unit's ten figures are no ten independent ones.
    """
    import tempfile

    model = cs.open_model("toybox")
    with tempfile.TemporaryDirectory() as there:
        toybox.write(Path(there), count, seed=65)
        found = cs.dissect(model, there, parts=there)
    network: Any = model.module
    things = list(toybox.pictures(400, 66))
    y = np.array([one.class_index for one in things])
    with torch.no_grad():
        pooled = network.features(toybox.loading.normalize([one.image for one in things])).mean((2, 3)).numpy()
    weight, bias = network.fc.weight.detach().numpy(), network.fc.bias.detach().numpy()
    cost = np.stack(
        [((weight[k] - (weight.sum(0) - weight[k]) / 9) * pooled[y == k]).mean(0) for k in range(len(CLASSES))], 1
    )  # [C, K]
    seen = np.zeros_like(cost)
    for row in found.rows:
        label = row.concept.split(":")[0]
        unit = int(row.unit.rsplit(":", 1)[1])
        seen[unit, CLASSES.index(label)] = max(seen[unit, CLASSES.index(label)], row.iou)
    named = seen.max(1) > 0
    hit = sum(seen[u].argmax() == cost[u].argmax() for u in np.flatnonzero(named))
    rank = float(stats.spearmanr(seen.ravel(), cost.ravel()).statistic)
    random = np.random.default_rng(0)
    chance = [
        stats.spearmanr(seen[random.permutation(len(seen))].ravel(), cost.ravel()).statistic for _ in range(2000)
    ]
    # the units whose removal costs a thing most: are they those that dissection names for it?
    first = [seen[cost[:, k].argmax(), k] > 0 for k in range(len(CLASSES))]
    area = [
        stats.mannwhitneyu(cost[seen[:, k] > 0, k], cost[seen[:, k] == 0, k]).statistic
        / ((seen[:, k] > 0).sum() * (seen[:, k] == 0).sum())
        for k in range(len(CLASSES)) if (seen[:, k] > 0).any()
    ]  # fmt: skip
    recall = {}
    for way in ("named", "others"):
        falls = []
        for k in range(len(CLASSES)):
            mine = np.flatnonzero(seen[:, k] > 0)
            if way == "others":  # as many units, drawn of the rest, twenty times
                rest = np.setdiff1d(np.arange(len(cost)), mine)
                drawn_units = [random.choice(rest, min(len(mine), len(rest)), replace=False) for _ in range(20)]
            else:
                drawn_units = [mine]
            shown, before = pooled[y == k], (pooled[y == k] @ weight.T + bias).argmax(1) == k
            for units in drawn_units:
                without = shown.copy()
                without[:, units] = 0
                falls.append(before.mean() - ((without @ weight.T + bias).argmax(1) == k).mean())
        recall[way] = round(float(np.mean(falls)), 3)
    return {
        "units": len(cost), "named": int(named.sum()), "thing_that_loses_most_is_the_one_named": int(hit),
        "rank_correlation": round(rank, 3),
        "among_named_units": round(float(stats.spearmanr(seen[named].ravel(), cost[named].ravel()).statistic), 3),
        "chance_reaches": round(float(np.quantile(chance, 0.95)), 3),
        "p": (1 + sum(one >= rank for one in chance)) / 2001,
        "things_whose_costliest_unit_is_named_for_them": int(sum(first)),
        "area_of_the_ranking": round(float(np.mean(area)), 3), "recall_lost_without_them": recall,
    }  # fmt: skip


def the_cheat(seeds: int = 5, count: int = 40) -> Row:
    """The tag among the parts of the cheat's cup, at default settings: where the most important part is strongest."""
    from scipy.ndimage import binary_dilation

    rows: dict[str, list[Row]] = {}
    for seed in range(seeds):
        things = [draw(6_600_000_000 + 1000 * seed + k, label="cup", tag=True) for k in range(count)]
        tags = np.stack([one.tag_mask for one in things if one.tag_mask is not None])
        wide = np.stack([binary_dilation(one, iterations=8) for one in tags])  # one cell of the layer around it
        for name in ("toybox-cheat", "toybox"):
            found = cs.craft(cs.open_model(name), bare([one.image for one in things]), "cup", seed=seed)
            maps = np.stack([found.maps(one.image)[0] for one in things])
            peaks = maps.reshape(count, -1).argmax(1)
            most = found.parts[0]
            rows.setdefault(name, []).append({
                "importance": round(most.importance.mean, 3), "sobol": round(most.sobol.mean, 3),
                "sobol_agrees": bool(max(found.parts, key=lambda part: part.sobol.mean) is most),
                "strongest_on_the_tag": round(float(np.mean(wide.reshape(count, -1)[np.arange(count), peaks])), 3),
                "share_on_the_tag": round(float((maps * wide).sum() / maps.sum()), 3),
                "stability": round(most.stability, 2),
            })  # fmt: skip
            print(name, json.dumps(rows[name][-1]), flush=True)
    return {"area_of_the_tag_and_a_cell_around_it": round(float(wide.mean()), 3), **rows}


PARTS = {
    "planted": planted, "random": random_concepts, "speed": speed, "parts": parts_of_things,
    "units": units_by_ablation, "cheat": the_cheat,
}  # fmt: skip


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=list(PARTS))
    parser.add_argument("--thing", action="append", choices=list(CLASSES), help="of parts: only these things")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    found = {}
    for name in given.part or PARTS:
        found[name] = parts_of_things(only=tuple(given.thing or ())) if name == "parts" else PARTS[name]()
        print(name, json.dumps(found[name]), flush=True)
    if given.json:
        given.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
