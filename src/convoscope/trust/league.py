"""The league table: measures × methods, each the mean over pictures with its bootstrap interval."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError
from ..files import write_whole
from .terms import BASELINES, LOWER, arrow

if TYPE_CHECKING:
    from rich.table import Table

Floats = NDArray[np.float64]
#: the columns' order
ORDER = (
    "pointing", "energy-inside", "iou", "auc", "insertion", "deletion", "road", "sensitivity-n", "infidelity",
    "tag-energy",
)  # fmt: skip


@dataclass(frozen=True)
class Interval:
    """A mean over ``n`` pictures and the bootstrap's interval around it."""

    mean: float
    low: float
    high: float
    n: int

    def to_dict(self) -> dict[str, float | int | None]:
        return {"mean": _known(self.mean), "low": _known(self.low), "high": _known(self.high), "n": self.n}


def _known(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None


def interval(values: Iterable[float], *, level: float = 0.95, draws: int = 2000, seed: int = 0) -> Interval:
    """Mean and percentile bootstrap over pictures; NaN values (a measure undefined on a picture) are left out.

    Efron 1979. ``n`` is the number of pictures that count; without any, all is NaN.
    """
    found = np.asarray(list(values), np.float64)
    found = found[np.isfinite(found)]
    if not len(found):
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    picks = np.random.default_rng(seed).integers(0, len(found), (draws, len(found)))
    means = found[picks].mean(1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(found.mean()), float(low), float(high), len(found))


@dataclass(frozen=True)
class Difference:
    """The mean of paired differences with its bootstrap interval, and the p-value of a sign-flip test (two-sided)."""

    mean: float
    low: float
    high: float
    n: int
    p: float

    def to_dict(self) -> dict[str, float | int | None]:
        return {**Interval(self.mean, self.low, self.high, self.n).to_dict(), "p": _known(self.p)}


def paired(a: Iterable[float], b: Iterable[float], *, flips: int = 20_000, seed: int = 0) -> Difference:
    """``a − b`` on the same pictures: what pairing removes is the pictures' own difficulty.

    The p-value is the share of random sign flips of the differences whose mean is at least as far from zero
    (Fisher's randomisation test); at least 1/(flips + 1).
    """
    x, y = np.asarray(list(a), np.float64), np.asarray(list(b), np.float64)
    if x.shape != y.shape:
        raise UsageError(f"Paired values must be of the same pictures, not {len(x)} and {len(y)}.")
    gaps = (x - y)[np.isfinite(x - y)]
    around = interval(gaps, seed=seed)
    if not len(gaps):
        return Difference(float("nan"), float("nan"), float("nan"), 0, float("nan"))
    rng = np.random.default_rng(seed)
    far = 0
    for start in range(0, flips, 2000):
        signs = rng.integers(0, 2, (min(2000, flips - start), len(gaps))) * 2 - 1
        far += int((np.abs((signs * gaps).mean(1)) >= abs(around.mean) - 1e-12).sum())
    return Difference(around.mean, around.low, around.high, around.n, (far + 1) / (flips + 1))


@dataclass(eq=False)
class League:
    """``cases[measure][method]`` holds one value a case, in the order of ``keys``; NaN where there is none."""

    keys: list[str]
    cases: dict[str, dict[str, Floats]]
    model: str = ""
    settings: dict[str, Any] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    _leaders: dict[str, str | None] = field(default_factory=dict, init=False, repr=False)

    @staticmethod
    def of(rows: Mapping[str, Mapping[str, Mapping[str, float | None]]], **facts: Any) -> League:
        """From ``rows[key][measure][method]``."""
        keys = list(rows)
        measures = _ordered({measure for row in rows.values() for measure in row})
        found: dict[str, dict[str, Floats]] = {}
        for measure in measures:
            methods = dict.fromkeys(m for row in rows.values() for m in row.get(measure, {}))
            found[measure] = {
                method: np.array([_value(rows[key].get(measure, {}).get(method)) for key in keys])
                for method in methods
            }
        return League(keys, found, **facts)

    @property
    def measures(self) -> list[str]:
        return list(self.cases)

    @property
    def methods(self) -> list[str]:
        """Methods as they were asked for, the baselines last."""
        names = dict.fromkeys(name for row in self.cases.values() for name in row)
        return [n for n in names if n not in BASELINES] + [n for n in BASELINES if n in names]

    def interval(self, measure: str, method: str) -> Interval:
        """One cell of the table."""
        return interval(self._values(measure, method))

    def difference(self, measure: str, a: str, b: str) -> Difference:
        """Method ``a`` minus method ``b`` on the same pictures."""
        return paired(self._values(measure, a), self._values(measure, b))

    def _values(self, measure: str, method: str) -> Floats:
        if measure not in self.cases:
            raise UsageError(f"There is no measure {measure!r} here; there are {', '.join(self.cases)}.")
        if method not in self.cases[measure]:
            raise UsageError(f"There is no {measure} of {method!r}; there is of {', '.join(self.cases[measure])}.")
        return self.cases[measure][method]

    def to_dict(self) -> dict[str, Any]:
        """``{"measures": {MEASURE: {METHOD: {"mean", "low", "high", "n"}}}, ...}``: plain data, no NaN."""
        return {
            "model": self.model,
            "pictures": len(self.keys),
            "measures": {
                measure: {method: self.interval(measure, method).to_dict() for method in self._of(measure)}
                for measure in self.cases
            },
            "better": {measure: "lower" if measure in LOWER else "higher" for measure in self.cases},
            "baselines": [name for name in BASELINES if name in self.methods],
            "refused": self.refused,
            "failed": self.failed,
            "settings": self.settings,
        }

    def _of(self, measure: str) -> list[str]:
        return [method for method in self.methods if method in self.cases[measure]]

    def csv(self) -> str:
        """One line a measure and method: measure, method, mean, low, high, n."""
        text = io.StringIO()
        table = csv.writer(text)
        table.writerow(["measure", "method", "mean", "low", "high", "n"])
        for measure in self.cases:
            for method in self._of(measure):
                cell = self.interval(measure, method)
                figures = ["" if not np.isfinite(v) else f"{v:.6g}" for v in (cell.mean, cell.low, cell.high)]
                table.writerow([measure, method, *figures, cell.n])
        return text.getvalue()

    def markdown(self) -> str:
        """The table for documents; in bold is what is better than each other method, paired (:meth:`leader`)."""
        lines = ["| method | " + " | ".join(f"{m} {arrow(m)}" for m in self.cases) + " |"]
        lines.append("|---|" + "---|" * len(self.cases))
        for method in self.methods:
            cells = [self.cell(measure, method, bold="**") for measure in self.cases]
            name = f"*{method}*" if method in BASELINES else method
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
        return "\n".join(lines)

    def best(self, measure: str) -> str | None:
        """The method with the best mean that is no baseline."""
        means = {m: self.interval(measure, m).mean for m in self._of(measure) if m not in BASELINES}
        means = {m: v for m, v in means.items() if np.isfinite(v)}
        if not means:
            return None
        return (min if measure in LOWER else max)(means, key=lambda m: means[m])

    def leader(self, measure: str) -> str | None:
        """The best method, if it is better than each other one on the same pictures; else None.

        Better: the bootstrap's interval of the paired difference excludes 0. Baselines are not held against it.
        """
        if measure in self._leaders:
            return self._leaders[measure]
        first = self.best(measure)
        others = [one for one in self._of(measure) if one != first and one not in BASELINES]
        if first is not None:
            sign = -1.0 if measure in LOWER else 1.0
            own = self._values(measure, first)
            for other in others:
                gaps = sign * (own - self._values(measure, other))
                if np.isfinite(gaps).any() and not interval(gaps).low > 0:
                    first = None
                    break
        self._leaders[measure] = first
        return first

    def latex(self) -> str:
        """The table for a paper (booktabs)."""
        from .latex import latex

        return latex(self)

    def bibtex(self) -> str:
        """BibTeX of the papers of all methods of the table."""
        from ..methods import bibtex

        return bibtex(self.methods)

    def cell(self, measure: str, method: str, *, bold: str = "") -> str:
        """``0.912 ±0.031``: the mean and half the interval's width; a dash where there is none.

        ``0.975 [0.925, 1.000]`` where ± would go beyond what the interval reaches.
        """
        if method not in self.cases[measure]:
            return "–"
        found = self.interval(measure, method)
        if not np.isfinite(found.mean):
            return "–"
        half = (found.high - found.low) / 2
        text = f"{found.mean:.3f} ±{half:.3f}"
        if found.mean + half > 1 >= found.high or found.mean - half < 0 <= found.low:
            text = f"{found.mean:.3f} [{found.low:.3f}, {found.high:.3f}]"
        return f"{bold}{text}{bold}" if bold and self.leader(measure) == method else text

    def table(self) -> Table:
        """The terminal's table (rich)."""
        from rich.table import Table

        cases = "case" if len(self.keys) == 1 else "cases"
        table = Table(
            title=f"{self.model}: {len(self.keys)} {cases}, mean ± half of the 95 % interval", title_justify="left"
        )
        table.add_column("method", no_wrap=True)
        for measure in self.cases:
            table.add_column(f"{measure} {arrow(measure)}", justify="right", no_wrap=True)
        methods = self.methods
        for number, method in enumerate(methods):
            cells = []
            for measure in self.cases:
                text = self.cell(measure, method)
                text = text.replace("[", "\\[")  # an interval is no markup
                cells.append(f"[bold]{text}[/bold]" if self.leader(measure) == method else text)
            last = number + 1 < len(methods) and methods[number + 1] in BASELINES and method not in BASELINES
            table.add_row(method, *cells, end_section=last, style="dim" if method in BASELINES else None)
        return table

    def save(self, folder: str | Path) -> list[Path]:
        """``league.json``, ``league.csv``, ``league.md`` and ``league.png`` into ``folder``."""
        import json

        from .chart import chart

        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        files = [folder / f"league.{ending}" for ending in ("json", "csv", "md", "png")]
        write_whole(files[0], json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n")
        write_whole(files[1], self.csv())
        write_whole(files[2], self.markdown() + "\n")
        chart(self).save(files[3])
        return files


def _ordered(measures: set[str]) -> Sequence[str]:
    return [m for m in ORDER if m in measures] + sorted(measures - set(ORDER))


def _value(found: float | None) -> float:
    return float("nan") if found is None else float(found)
