"""Makes the tables of docs/trust.md: the toybox, its cheat, and real photos with boxes.

    python examples/league_tables.py --out tables                        # the toybox alone: nothing is needed
    python examples/league_tables.py --out tables --data FOLDER          # and photos, with SqueezeNet
    python examples/league_tables.py --out tables --data FOLDER --write docs/trust.md

FOLDER holds ``weights/squeezenet1_0.safetensors`` and ``boxes/boxes.json`` with its pictures. Everything is written
down case by case: a stopped run goes on where it was. ``--write`` puts the tables between the marks
``<!-- table NAME -->`` and ``<!-- end -->`` of a document. About an hour on two cores.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import convoscope as cs
from convoscope.methods import METHODS, IntegratedGradients, Method, SmoothGrad
from convoscope.trust import cheat, datasets
from convoscope.trust.evaluate import Settings, evaluate_cases, measures
from convoscope.trust.league import League

#: fewer passes than the defaults: the tables' two costly methods, stated in the document
COSTLY: dict[str, Method] = {
    "integrated-gradients": IntegratedGradients(nodes=16),
    "smoothgrad": SmoothGrad(samples=10),
}
COARSE = ("grad-cam", "hirescam", "layercam", "eigen-cam")
NAMES = ("toybox", "cheat", "boxes", "boxes-faithfulness", "resize")


def methods() -> list[Method]:
    """All methods that do not need hundreds of passes."""
    return [COSTLY.get(name, kind()) for name, kind in METHODS.items() if not kind.about.slow]


def told(what: str) -> Callable[[int, int], None]:
    """Progress on standard error."""

    def tell(done: int, total: int) -> None:
        print(f"\r{what}: {done} of {total}", end="\n" if done == total else "", file=sys.stderr, flush=True)

    return tell


def toybox(out: Path, count: int) -> str:
    model = cs.open_model("toybox")
    settings = Settings(measures=measures("all"))
    league = evaluate_cases(
        model, datasets.toybox_cases(count), methods(), settings=settings, out=out / "toybox", progress=told("toybox")
    )
    return finished(league, out / "toybox")


def cheats(out: Path, count: int) -> str:
    pair = cs.open_model("toybox-cheat"), cs.open_model("toybox")
    found = cheat.reveals(*pair, cheat.tagged_cases(count), methods(), out=out / "cheat", progress=told("the cheat"))
    (out / "cheat" / "cheat.json").write_text(json.dumps({n: r.to_dict() for n, r in found.items()}, indent=2) + "\n")
    return cheat.markdown(found)


def squeezenet(data: Path) -> cs.Model:
    weights = data / "weights" / "squeezenet1_0.safetensors"
    # the boxes are those of photos squashed to the network's input
    return cs.open_model("squeezenet1_0", weights=weights, fit="squash")


def some(cases: list[datasets.Case], count: int) -> list[datasets.Case]:
    """``count`` of the cases, evenly: the photos stand in the order of their classes."""
    return [cases[len(cases) * k // count] for k in range(min(count, len(cases)))] if count < len(cases) else cases


def boxes(out: Path, data: Path, count: int) -> str:
    cases = some(datasets.boxes_json(data / "boxes" / "boxes.json"), count)
    league = evaluate_cases(
        squeezenet(data), cases, methods(), settings=Settings(measures=measures("localisation")), out=out / "boxes",
        progress=told("boxes"),
    )  # fmt: skip
    return finished(league, out / "boxes")


def boxes_faithfulness(out: Path, data: Path, count: int) -> str:
    cases = datasets.boxes_json(data / "boxes" / "boxes.json")
    settings = Settings(measures=measures(["insertion", "deletion", "sensitivity-n", "infidelity"]), steps=8)
    league = evaluate_cases(
        squeezenet(data), some(cases, count), methods(), settings=settings, out=out / "boxes-faithfulness",
        progress=told("boxes, faithfulness"),
    )  # fmt: skip
    return finished(league, out / "boxes-faithfulness")


def resize(out: Path, data: Path) -> str:
    """Exact geometry against the plain resize: the same maps, drawn twice, compared photo by photo."""
    cases = datasets.boxes_json(data / "boxes" / "boxes.json")
    leagues = {}
    for how in ("exact", "plain"):
        settings = Settings(measures=measures("localisation"), resize=how)
        leagues[how] = evaluate_cases(
            squeezenet(data), cases, list(COARSE), settings=settings, out=out / f"resize-{how}",
            progress=told(f"resize, {how}"),
        )  # fmt: skip
    return resize_table(leagues["exact"], leagues["plain"])


def resize_table(exact: League, plain: League) -> str:
    from convoscope.trust.league import paired

    lines = ["| method | measure | exact | plain | exact − plain (95 %) | p |", "|---|---|---|---|---|---|"]
    for method in COARSE:
        for measure in ("energy-inside", "pointing"):
            a, b = exact.cases[measure][method], plain.cases[measure][method]
            gap = paired(a, b)
            p = f"{gap.p:.4f}" if gap.p >= 0.0001 else "< 0.0001"
            lines.append(
                f"| {method} | {measure} | {a.mean():.4f} | {b.mean():.4f} "
                f"| {gap.mean:+.4f} ({gap.low:+.4f} to {gap.high:+.4f}) | {p} |"
            )
    return "\n".join(lines)


def finished(league: League, folder: Path) -> str:
    league.save(folder)
    return league.markdown()


def write(document: Path, tables: dict[str, str]) -> None:
    """Put each table between its marks."""
    text = document.read_text(encoding="utf-8")
    for name, table in tables.items():
        pattern = rf"(<!-- table {re.escape(name)} -->\n).*?(<!-- end -->)"
        text, found = re.subn(pattern, lambda m, t=table: f"{m[1]}\n{t}\n\n{m[2]}", text, flags=re.DOTALL)
        if not found:
            sys.exit(f"{document} has no place for the table {name} (<!-- table {name} --> ... <!-- end -->).")
    document.write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the figures")
    parser.add_argument("--data", type=Path, help="folder with weights and boxes")
    parser.add_argument("--write", type=Path, help="document to put the tables into")
    parser.add_argument("--only", choices=NAMES, nargs="+", default=list(NAMES))
    parser.add_argument("--toybox", type=int, default=60, help="toybox pictures")
    parser.add_argument("--cheat", type=int, default=40, help="tagged pictures")
    parser.add_argument("--photos", type=int, default=250, help="photos of the localisation table")
    parser.add_argument("--faithfulness", type=int, default=24, help="photos of the faithfulness table")
    given = parser.parse_args()
    made: dict[str, Callable[[], str]] = {
        "toybox": lambda: toybox(given.out, given.toybox),
        "cheat": lambda: cheats(given.out, given.cheat),
    }
    if given.data is not None:
        made |= {
            "boxes": lambda: boxes(given.out, given.data, given.photos),
            "boxes-faithfulness": lambda: boxes_faithfulness(given.out, given.data, given.faithfulness),
            "resize": lambda: resize(given.out, given.data),
        }
    tables = {name: make() for name, make in made.items() if name in given.only}
    for name, table in tables.items():
        print(f"\n## {name}\n\n{table}")
    if given.write is not None:
        write(given.write, tables)


if __name__ == "__main__":
    main()
