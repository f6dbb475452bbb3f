"""Which methods reveal the shortcut? The toybox's cheat reads a tag in the corner instead of the cup.

Tagged pictures are shown to the network that learnt the shortcut and to an honest one that did not. A method reveals
the cheat when it puts more of its map on the tag for the one than for the other: paired by picture, so that a map
that lights up at the tag's edges whatever the network learnt (an edge detector does) reveals nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..explanation import MethodLike
from ..models.model import Model
from .datasets import Case, toybox_cases
from .evaluate import Settings, evaluate_cases
from .league import Difference, League, interval


@dataclass(frozen=True)
class Reveal:
    """One method: the share of its map on the tag for the cheat and for the honest network, and their difference.

    ``p`` is the paired sign-flip test's, corrected for the number of methods (Holm 1979).
    """

    method: str
    cheat: float
    honest: float
    difference: Difference
    p: float

    @property
    def reveals(self) -> bool:
        """Whether the map leans to the tag where, and only where, the network does (p < 0.01)."""
        return self.difference.mean > 0 and self.p < 0.01

    def to_dict(self) -> dict[str, Any]:
        return {
            "tag_energy_cheat": self.cheat,
            "tag_energy_honest": self.honest,
            "difference": {**self.difference.to_dict(), "p": self.p},
            "reveals": self.reveals,
        }


def tagged_class() -> str:
    """The class whose pictures carried the tag when the cheat was trained."""
    from ..toybox import card

    return str(card("toybox-cheat").notes["tagged"])


def tagged_cases(count: int = 40, *, seed: int = 11) -> list[Case]:
    """Pictures of the tagged class with the tag, none of which the networks were trained on."""
    return toybox_cases(count, seed=seed, tag=True, label=tagged_class())


def reveals(
    cheat: Model,
    honest: Model,
    cases: Sequence[Case],
    methods: str | Sequence[MethodLike] | None = None,
    *,
    out: str | Path | None = None,
    slow: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, Reveal]:
    """A :class:`Reveal` for every method and baseline; ``cases`` need a ``tag``. Resumable in ``out``."""
    settings = Settings(measures=("energy-inside",))
    leagues: list[League] = []
    for number, (name, model) in enumerate((("cheat", cheat), ("honest", honest))):
        place = None if out is None else Path(out) / name

        def told(done: int, total: int, before: int = number * len(cases)) -> None:
            if progress is not None:
                progress(before + done, 2 * total)

        leagues.append(evaluate_cases(model, cases, methods, settings=settings, out=place, slow=slow, progress=told))
    return compare(leagues[0], leagues[1])


def compare(cheat: League, honest: League) -> dict[str, Reveal]:
    """The paired comparison of two leagues' ``tag-energy`` on the same cases."""
    from .league import paired

    both = [name for name in cheat.methods if name in honest.methods]
    a, b = cheat.cases["tag-energy"], honest.cases["tag-energy"]
    gaps = {name: paired(a[name], b[name]) for name in both}
    corrected = holm({name: gap.p for name, gap in gaps.items()})
    return {
        name: Reveal(name, interval(a[name]).mean, interval(b[name]).mean, gaps[name], corrected[name])
        for name in both
    }


def holm(p: dict[str, float]) -> dict[str, float]:
    """Holm's step-down correction: the smallest p times the number of tests, and so on, never falling."""
    found: dict[str, float] = {}
    highest = 0.0
    for number, name in enumerate(sorted(p, key=lambda n: p[n])):
        highest = max(highest, min(1.0, p[name] * (len(p) - number)))
        found[name] = highest
    return {name: found[name] for name in p}


def markdown(found: dict[str, Reveal]) -> str:
    """The table for documents."""
    lines = [
        "| method | on the tag, cheat | on the tag, honest | difference (95 %) | p | reveals |",
        "|---|---|---|---|---|---|",
    ]
    for r in sorted(found.values(), key=lambda r: -r.difference.mean):
        d = r.difference
        p = f"{r.p:.4f}" if r.p >= 0.0001 else "< 0.0001"
        lines.append(
            f"| {r.method} | {r.cheat:.3f} | {r.honest:.3f} | {d.mean:+.3f} ({d.low:+.3f} to {d.high:+.3f}) | {p} "
            f"| {'**yes**' if r.reveals else 'no'} |"
        )
    return "\n".join(lines)
