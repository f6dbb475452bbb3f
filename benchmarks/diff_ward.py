"""``diff`` of every broken network of the ward against its sibling: are the class and the pictures named?

    python benchmarks/diff_ward.py WARD [--limit N]

WARD is a folder of made cases (``convoscope toybox WARD --ward``). A case counts where behaviour differs: where the
networks' answers or confidence on the case's pictures differ at all. It is named where a finding (regression or
calibration) is announced and, of a fault that belongs to a class, one is of that class; of a fault that concerns
certain pictures, at least half of the first six pictures of a finding are among them or of their class.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

import convoscope as cs
from convoscope.toybox import ward


def judged(folder: Path) -> dict[str, Any] | None:
    """The row of a case; None where its fault lies in the collection and there is no other network."""
    case = ward.load(folder)
    if case.sibling is None:
        return None
    found = cs.diff(case.sibling, case.model, str(case.pictures), maps=0, units=0, names=["sibling", "broken"])
    pair = found.pairs[0]
    whole = pair.compared.whole
    assert whole is not None
    moved = float(np.abs(found.sides[0].confidence - found.sides[1].confidence).max())
    concerned = {Path(name).name for name in case.concerned()}
    named = [one for one in pair.findings if case.label is None or one.class_name == case.label]
    shown = [uri for one in named for uri in one.pictures[:6]]
    hits = [Path(uri).name in concerned or Path(uri).parent.name == case.label for uri in shown]
    pictures = not concerned or (bool(hits) and sum(hits) * 2 >= len(hits))
    return {
        "case": case.name, "kind": case.kind, "class": case.label, "won": len(whole.won), "lost": len(whole.lost),
        "p": whole.p, "announced": [(one.kind, one.class_name) for one in pair.findings],
        "differs": bool(len(whole.won) or len(whole.lost) or moved > 1e-3), "named": bool(named) and pictures,
    }  # fmt: skip


def main() -> None:
    """Print a row a case, and the count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ward", type=Path)
    parser.add_argument("--limit", type=int, default=None)
    given = parser.parse_args()
    folders = sorted(one for one in given.ward.iterdir() if (one / "truth.json").is_file())
    rows = []
    for folder in folders[: given.limit]:
        row = judged(folder)
        if row is not None:
            rows.append(row)
            print(json.dumps(row), flush=True)
    broken = [row for row in rows if row["differs"] and row["kind"] != "healthy"]
    print(f"{sum(row['named'] for row in broken)} of {len(broken)} cases whose behaviour differs are named")


if __name__ == "__main__":
    main()
