"""``diff`` of every broken network of the ward against its sibling: are the class and the pictures named?

    python benchmarks/diff_ward.py WARD [--limit N] [--case NAME] [--own]

WARD is a folder of made cases (``convoscope toybox WARD --ward``). Behaviour differs where the networks' answers or
confidence differ at all. A case is named where a finding (regression or calibration) is announced and, of a fault that
belongs to a class, one is of that class; of a fault that concerns certain pictures, at least half of the first six
pictures of a finding are among them or of their class.

Two collections are tried. *Own*: what a person would bring. In the own world of a network with a shortcut every picture
of the class carries the shortcut, so that the network is as right there as its sibling, and a class that is rare in
training is rare in the collection, too. So, where nothing is named, *wider*: the own pictures and as many of the
class without the planted thing (of a rare class the sibling's collection), as they come in from elsewhere one day.
Both counts are printed, and beside each row whether accuracy differs beyond its interval, over all pictures and in the
class: what does not, no comparison of answers can name. ``--own`` leaves the wider collections out.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import convoscope as cs
from convoscope.improve.diff.compare import Group
from convoscope.toybox import ward
from convoscope.toybox.ward.case import Case

#: pictures of the class that the wider collection adds
MORE = 40


def wider(case: Case, folder: Path) -> Path | None:
    """The own pictures and more of the class, in ``folder``; None for a fault that shows in the own pictures."""
    if case.label is None or ("shortcut" not in case.expected and case.name != "data-rare"):
        return None
    shutil.copytree(case.pictures, folder)
    if case.sibling_pictures is not None:
        for file in sorted((case.sibling_pictures / case.label).iterdir()):
            shutil.copy(file, folder / case.label / f"more-{file.name}")
    else:
        case.render(False, MORE, 11, case.label).write(folder / "more")
        for file in sorted((folder / "more" / case.label).iterdir()):
            shutil.copy(file, folder / case.label / f"more-{file.name}")
        shutil.rmtree(folder / "more")
    return folder


def beyond(group: Group) -> dict[str, Any]:
    """Accuracy of the broken network less its sibling's, and whether 0 lies outside the interval."""
    told = group.difference()
    return {"mean": told.mean, "low": told.low, "high": told.high, "differs": told.low > 0 or told.high < 0}


def judged(case: Case, pictures: Path) -> dict[str, Any]:
    """The row of a case on some pictures."""
    found = cs.diff(case.sibling, case.model, str(pictures), maps=0, units=0, names=["sibling", "broken"])
    pair = found.pairs[0]
    whole = pair.compared.whole
    assert whole is not None
    moved = float(np.abs(found.sides[0].confidence - found.sides[1].confidence).max())
    concerned = {Path(name).name for name in case.concerned()}
    named = [one for one in pair.findings if case.label is None or one.class_name == case.label]
    shown = [uri for one in named for uri in one.pictures[:6]]
    hits = [Path(uri).name in concerned or Path(uri).parent.name == case.label for uri in shown]
    own = next((one for one in pair.compared.classes if one.class_name == case.label), None)
    right = not concerned or (bool(hits) and sum(hits) * 2 >= len(hits))
    return {
        "case": case.name, "kind": case.kind, "class": case.label, "won": len(whole.won), "lost": len(whole.lost),
        "p": whole.p, "all": beyond(whole), "own": None if own is None else beyond(own),
        "announced": [(one.kind, one.class_name) for one in pair.findings],
        "differs": bool(len(whole.won) or len(whole.lost) or moved > 1e-3), "named": bool(named) and right,
    }  # fmt: skip


def rows_of(case: Case, widened: bool = True) -> list[dict[str, Any]]:
    """On the own pictures, and where nothing is named there on the wider ones."""
    if case.sibling is None:
        return []
    rows = [{**judged(case, case.pictures), "on": "own"}]
    if widened and not rows[0]["named"]:
        with tempfile.TemporaryDirectory() as there:
            more = wider(case, Path(there, "pictures"))
            if more is not None:
                rows.append({**judged(case, more), "on": "wider"})
    return rows


def main() -> None:
    """Print a row a case, and the count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ward", type=Path)
    parser.add_argument("--limit", type=int, default=None)
    parser.add_argument("--case", default="", help="only cases whose name holds this")
    parser.add_argument("--own", action="store_true", help="own pictures alone")
    given = parser.parse_args()
    folders = sorted(one for one in given.ward.iterdir() if (one / "truth.json").is_file() and given.case in one.name)
    named: dict[str, str] = {}
    broken: set[str] = set()
    silent: list[dict[str, Any]] = []
    for folder in folders[: given.limit]:
        case = ward.load(folder)
        if case.healthy:
            continue
        for row in rows_of(case, not given.own):
            print(json.dumps(row), flush=True)
            broken |= {case.name} if row["differs"] else set()
            silent += [row] if row["on"] == "own" and not row["named"] else []
            if row["named"]:
                named.setdefault(case.name, row["on"])
    own = sum(where == "own" for where in named.values())
    print(
        f"not named on their own pictures: {len(silent)}; of these accuracy differs beyond its interval in "
        f"{sum(row['all']['differs'] for row in silent)}, recall of the class in "
        f"{sum(bool(row['own']) and row['own']['differs'] for row in silent)}"
    )
    print(
        f"of {len(broken)} cases whose behaviour differs {own} are named on their own pictures, {len(named)} with "
        f"wider ones; missed: {', '.join(sorted(broken - set(named))) or 'none'}"
    )


if __name__ == "__main__":
    main()
