"""What ``diff`` gives back: tables as plain records, findings, and a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..finding import Finding
from ..statistics import Interval
from .calibration import Calibration, Drift
from .compare import Comparison
from .maps import Flip, Shown
from .run import Run
from .sides import Side
from .similarity import best_path
from .units import Units


@dataclass(eq=False)
class Pair:
    """Two of the networks, ``a`` before and ``b`` after (their places in :attr:`Diff.sides`)."""

    a: int
    b: int
    compared: Comparison
    drift: Drift | None
    layers: tuple[list[str], list[str]]
    cka: NDArray[np.float64]
    units: Units
    findings: list[Finding]
    flips: list[Flip] = field(default_factory=list)
    new: list[Shown] = field(default_factory=list)
    lost: list[Shown] = field(default_factory=list)
    difference: Interval | None = None

    def to_dict(self, uris: Sequence[str]) -> dict[str, Any]:
        """The pair as ``convoscope diff --json`` prints it."""
        one = self.compared
        whole = one.whole
        return {
            "a": self.a,
            "b": self.b,
            "won": [] if whole is None else [uris[row] for row in whole.won],
            "lost": [] if whole is None else [uris[row] for row in whole.lost],
            "both_wrong": [uris[row] for row in one.both_wrong],
            "p": None if whole is None else whole.p,
            "difference": None if self.difference is None else self.difference.to_dict(),
            "churn": None if one.churn is None else one.churn.to_dict(),
            "classes": {group.name: group.to_dict() for group in one.classes},
            "slices": [{"slice": group.name, "class": group.class_name, **group.to_dict()} for group in one.slices],
            "calibration": None if self.drift is None else self.drift.to_dict(),
            "cka": {"a": self.layers[0], "b": self.layers[1], "values": self.cka.tolist(), "path": self.path},
            "units": self.units.to_dict(),
            "maps": [flip.to_dict() for flip in self.flips],
            "findings": [finding.to_dict() for finding in self.findings],
            "notes": [*one.notes, *self.units.notes],
        }

    @property
    def path(self) -> list[list[str]]:
        """For each layer of A the best-matching layer of B."""
        return [[self.layers[0][i], self.layers[1][j]] for i, j in best_path(self.cka)]


@dataclass(eq=False)
class Diff:
    """Two or more networks on the same pictures.

    Args:
        sides: what each network made of the pictures, a row a picture.
        calibrations: of each network; None without truth.
        pairs: neighbours in the given order, and the first with the last.
        run: the course of several checkpoints; None for two networks.
        failed: URI -> why a picture could not be read.
        notes: what a person must know of it.
        film: where the film was written.
    """

    sides: list[Side]
    calibrations: list[Calibration | None]
    accuracy: list[Interval | None]
    pairs: list[Pair]
    run: Run | None = None
    failed: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    film: str | None = None

    def __len__(self) -> int:
        return len(self.sides[0])

    @property
    def uris(self) -> tuple[str, ...]:
        """Where each picture lies."""
        return self.sides[0].pictures.uris

    @property
    def findings(self) -> list[Finding]:
        """The findings of all pairs, in order."""
        return [finding for pair in self.pairs for finding in pair.findings]

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as ``convoscope diff --json`` prints it."""
        models = []
        for side, accuracy, one in zip(self.sides, self.accuracy, self.calibrations, strict=True):
            models.append(
                {
                    "name": side.name,
                    "spec": side.spec,
                    "accuracy": None if accuracy is None else accuracy.to_dict(),
                    "ece": None if one is None else one.error.mean,
                    "calibration": None if one is None else one.to_dict(),
                }
            )
        return {
            "pictures": len(self),
            "models": models,
            "pairs": [pair.to_dict(self.uris) for pair in self.pairs],
            "run": None if self.run is None else self.run.to_dict(self.uris),
            "failed": [{"uri": uri, "error": error} for uri, error in self.failed.items()],
            "notes": self.notes,
            "film": self.film,
        }

    def latex(self) -> str:
        """The comparison as a LaTeX table (booktabs)."""
        from .latex import latex

        return latex(self)

    def bibtex(self) -> str:
        """BibTeX of the papers behind what the comparison holds."""
        from .papers import bibtex

        return bibtex(self)

    def page(self) -> str:
        """The page: one HTML document that needs nothing from outside."""
        from .page import page

        return page(self)

    def save(self, path: str | Path) -> Path:
        """Write the page to a file, whole or not at all."""
        from ...files import write_whole

        return write_whole(path, self.page())

    def _repr_html_(self) -> str:
        return f'<iframe srcdoc="{escape(self.page())}" style="width:100%;height:50rem;border:0"></iframe>'

    def __str__(self) -> str:
        from .text import text

        return text(self)

    def __repr__(self) -> str:
        names = ", ".join(side.name for side in self.sides)
        return f"Diff({names}; {len(self):,} pictures, {len(self.findings)} findings)"
