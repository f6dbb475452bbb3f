"""The concept methods against planted truth, and what they cost.

    python benchmarks/concepts.py [--part planted|random|speed|parts|units|cheat] [--json FILE]

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
    labelled = directions.Labelled.of(pictures, model)
    looked = look(model, labelled, names, pool=directions._pooled(model))
    scores = looked.scores
    assert scores is not None
    reported, separated, row = 0, 0, 0
    for index in range(10):
        best = np.argsort(-scores[:, index], kind="stable")[:40]
        gradients = directions._gradients(model, labelled.take(best), index, names, None)
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


def published(model: cs.Model, layer: str, images: list[Any], parts: int) -> NDArray[np.float64]:
    """Xplique's Craft: crops of a third, 80 % apart, resized, averaged, factorised; maps ``[N, parts, H, W]``."""
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
    return np.asarray(F.interpolate(shares, (side, side), mode="bicubic", align_corners=False).numpy())


def parts_of_things(count: int = 40, parts: int = 8) -> Row:
    """For each thing the best overlap of a part that was found with one that was drawn."""
    model = cs.open_model("toybox")
    rows = []
    for label in CLASSES:
        things = [draw(6_400_000_000 + k, label=label) for k in range(count)]
        images = [one.image for one in things]
        found = cs.craft(model, bare(images), label, parts=parts)
        ours = np.stack([found.maps(one) for one in images])
        theirs = published(model, found.layer, images, parts)
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
            "completeness": round(found.completeness.mean, 3),
            **{way: round(max(values.values()), 3) for way, values in best.items()},
            **{f"{way}_mean": round(float(np.mean(list(values.values()))), 3) for way, values in best.items()},
            "part": max(best["ours"], key=best["ours"].get),
        })  # fmt: skip
        print(json.dumps(rows[-1]), flush=True)
    keys = ("ours", "published", "ours_mean", "published_mean")
    return {"things": rows, **{key: round(float(np.mean([row[key] for row in rows])), 3) for key in keys}}


def units_by_ablation(count: int = 300) -> Row:
    """Of each unit of the last layer: the overlap with a thing's parts, and what its ablation costs that thing."""
    import tempfile

    model = cs.open_model("toybox")
    with tempfile.TemporaryDirectory() as there:
        toybox.write(Path(there), count, seed=65)
        found = cs.dissect(model, there, parts=there)
    network = model.module
    x, y = toybox.loading.normalize([one.image for one in toybox.pictures(400, 66)]), None
    y = np.array([one.class_index for one in toybox.pictures(400, 66)])
    with torch.no_grad():
        pooled = network.features(x).mean((2, 3)).numpy()
    weight = network.fc.weight.detach().numpy()
    # without unit u, the margin of the true class over the mean of the others falls by what u gives it
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
    rank = stats.spearmanr(seen[named].ravel(), cost[named].ravel())
    return {
        "units": len(cost), "named": int(named.sum()), "thing_that_loses_most_is_the_one_named": int(hit),
        "rank_correlation": round(float(rank.statistic), 3), "p": float(rank.pvalue),
    }  # fmt: skip


def the_cheat(count: int = 40) -> Row:
    """The tag among the parts of the cheat's cup."""
    things = [draw(6_600_000_000 + k, label="cup", tag=True) for k in range(count)]
    rows = {}
    for name in ("toybox-cheat", "toybox"):
        found = cs.craft(cs.open_model(name), bare([one.image for one in things]), "cup")
        maps = np.stack([found.maps(one.image) for one in things])
        tags = np.stack([one.tag_mask for one in things])
        share = [(maps[:, k] * tags).sum() / max(maps[:, k].sum(), 1e-9) for k in range(len(found.parts))]
        rows[name] = {
            "share_of_each_part_on_the_tag": [round(float(one), 3) for one in share],
            "importance": [round(part.importance.mean, 3) for part in found.parts],
        }
    return {"area_of_the_tag": round(float(tags.mean()), 3), **rows}


PARTS = {
    "planted": planted, "random": random_concepts, "speed": speed, "parts": parts_of_things,
    "units": units_by_ablation, "cheat": the_cheat,
}  # fmt: skip


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", action="append", choices=list(PARTS))
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    found = {}
    for name in given.part or PARTS:
        found[name] = PARTS[name]()
        print(name, json.dumps(found[name]), flush=True)
    if given.json:
        given.json.write_text(json.dumps(found, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
