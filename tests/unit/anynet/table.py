"""The table of docs/networks.md as data, and what a cell of it turns out to be."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

import convoscope as cs
from convoscope.methods import METHODS, method

from .families import FAMILIES, SETTINGS

DOCUMENT = Path(__file__).parents[3] / "docs" / "networks.md"
MAP, LOGIT, REFUSED = "map", "logit", "–"


def written() -> dict[tuple[str, str], str]:
    """(method, family) -> what the document says."""
    lines = [line for line in DOCUMENT.read_text().splitlines() if line.startswith("|")]
    start = next(n for n, line in enumerate(lines) if line.startswith("| method |"))
    head = [cell.strip() for cell in lines[start].strip("|").split("|")]
    found = {}
    for line in lines[start + 2 :]:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        name = cells[0].strip("`")
        if len(cells) != len(head) or name not in METHODS:
            break
        found |= {(name, family): cell for family, cell in zip(head[1:], cells[1:], strict=True)}
    return found


@cache
def explained(family: str, score: str | None = None) -> cs.Explanation:
    """Every method (those with a ``score`` setting, where one is given) on a family's network."""
    made = FAMILIES[family]()
    chosen = []
    for name, kind in METHODS.items():
        settings = dict(SETTINGS.get(name, {}))
        if score is not None:
            if "score" not in kind.__dataclass_fields__:
                continue
            settings["score"] = score
        chosen.append(method(name, settings))
    found: cs.Explanation = cs.explain(made.model, made.picture, chosen, target=made.target)
    return found


def cell(name: str, family: str) -> str:
    """What a method gives on a family: a map, a map of logits alone, or a refusal."""
    found = explained(family)
    if name in found:
        heatmap = found[name]
        assert np.isfinite(heatmap.values).all(), f"{name} on {family} is not finite"
        assert heatmap.values.any() or heatmap.doubts, f"{name} on {family} is empty and does not say so"
        return MAP
    sentence = found.refused[name]
    assert len(sentence) > 20
    assert sentence[-1] == ".", sentence
    if "score=logit" in sentence and name in explained(family, "logit"):
        return LOGIT
    return REFUSED
