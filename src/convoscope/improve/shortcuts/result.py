"""What a search for shortcuts gives back: effects of every class and family, findings, and a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

from ..finding import Finding
from .bench import Bench
from .effects import Effect


@dataclass(eq=False)
class Shortcuts:
    """Every effect that was measured, and the findings that stand.

    Args:
        bench: the network and the pictures that were used.
        effects: label -> family -> effect.
        findings: what stands after the correction for all tests, the largest first.
        tests: how many tests were made.
        answered: label -> why its spot is no shortcut (it is the thing itself).
        notes: what could not be done, in plain sentences.
        seconds: how long it took.
    """

    bench: Bench
    effects: dict[str, dict[str, Effect]]
    findings: list[Finding]
    tests: int
    answered: dict[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """``{"classes": {label: {family: {"sufficiency", "necessity", "control"}}}, "findings": [...]}``."""
        return {
            "classes": {
                label: {family: effect.to_dict() for family, effect in families.items()}
                for label, families in self.effects.items()
            },
            "findings": [one.to_dict() for one in self.findings],
        }

    def settings(self) -> list[dict[str, Any]]:
        """What ``repair`` needs of each finding, in their order: plain data."""
        return [dict(one.evidence) for one in self.findings]

    def record(self, most: int = 6) -> dict[str, Any]:
        """What stands in ``shortcuts.json``: :meth:`to_dict`, what ``repair`` needs, and where the spots lie.

        ``spots`` has, for each class whose strongest windows were tried, their side and at most ``most`` pictures
        with the window's first pixel (x, y), in pixels of the network's input.
        """
        return {
            **self.to_dict(), "tests": self.tests, "notes": list(self.notes), "settings": self.settings(),
            "answered": dict(self.answered), "missed": self.missed, "pictures": len(self.bench.truth),
            "model": self.bench.model.name, "input": list(self.bench.size), "spots": self._spots(most),
        }  # fmt: skip

    def _spots(self, most: int) -> dict[str, Any]:
        found = {}
        for label, families in self.effects.items():
            shown = families["patch"].shown if "patch" in families else {}
            if "side" not in shown:
                continue
            # those that convince the most come first
            order = sorted(range(len(shown["sources"])), key=lambda at: -float(shown["rates"][at]))[:most]
            places = [
                {
                    "picture": self.bench.pictures.uris[int(shown["sources"][at])],
                    "x": int(shown["corners"][at][1]), "y": int(shown["corners"][at][0]),
                    "rate": float(shown["rates"][at]),
                }
                for at in order
            ]  # fmt: skip
            moved = shown["became"].mean(0)
            best = sorted(range(len(shown["targets"])), key=lambda at: -float(moved[at]))[: 2 * most]
            into = [self.bench.pictures.uris[int(shown["targets"][at])] for at in best]
            found[label] = {"side": int(shown["side"]), "places": places, "into": into}
        return found

    @property
    def missed(self) -> str:
        """What a search that found nothing could have missed."""
        return (
            f"{self.tests} tests on {len(self.bench.truth)} pictures. It could have missed: a mark that moves a class "
            "only together with others, one that fewer than a few in a hundred of the class's pictures carry, evidence "
            "larger than a quarter of the picture's side, and whatever these pictures do not hold."
        )

    def page(self) -> str:
        """One self-contained HTML page."""
        from .page import page

        return page(self)

    def save(self, folder: str | Path) -> Path:
        """Write ``shortcuts.html`` and ``shortcuts.json`` (with what ``repair`` needs) into ``folder``."""
        from ...files import write_whole
        from ...plain import dump_json

        target = Path(folder)
        write_whole(target / "shortcuts.json", dump_json(self.record()) + "\n")
        return write_whole(target / "shortcuts.html", self.page())

    def __repr__(self) -> str:
        found = "nothing found" if not self.findings else f"{len(self.findings)} found"
        return f"Shortcuts({self.bench.model.name}, {len(self.effects)} classes, {self.tests} tests: {found})"

    def _repr_html_(self) -> str:
        listed = "".join(f"<li>{escape(one.sentence)}</li>" for one in self.findings)
        return f"<p>{escape(repr(self))}</p><ul>{listed}</ul>"
