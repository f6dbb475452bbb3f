"""League tables as LaTeX (booktabs)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..plain import latex_text
from .terms import BASELINES, LOWER

if TYPE_CHECKING:
    from .league import League


def latex(league: League) -> str:
    r"""The table for a paper: needs ``\usepackage{booktabs}``.

    Every cell is the mean over pictures with its 95 % interval. Bold is a method that is better than each other one on
    the same pictures: the interval of every paired difference excludes 0. Where none is, nothing is bold.
    """

    measures = league.measures
    arrows = [rf"{latex_text(one)} $\{'downarrow' if one in LOWER else 'uparrow'}$" for one in measures]
    lines = [
        f"% {league.model}: {len(league.keys)} pictures; mean [95 % bootstrap interval]; bold: better than each other "
        "method, paired",
        rf"\begin{{tabular}}{{l{'c' * len(measures)}}}",
        r"\toprule",
        "method & " + " & ".join(arrows) + r" \\",
        r"\midrule",
    ]
    leaders = {measure: league.leader(measure) for measure in measures}
    for number, method in enumerate(league.methods):
        if method in BASELINES and (not number or league.methods[number - 1] not in BASELINES):
            lines.append(r"\midrule")
        cells = [_cell(league, measure, method, leaders[measure] == method) for measure in measures]
        name = rf"\emph{{{latex_text(method)}}}" if method in BASELINES else latex_text(method)
        lines.append(" & ".join([name, *cells]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])


def _cell(league: League, measure: str, method: str, bold: bool) -> str:
    if method not in league.cases[measure]:
        return "--"
    found = league.interval(measure, method)
    if not np.isfinite(found.mean):
        return "--"
    mean = rf"\textbf{{{found.mean:.3f}}}" if bold else f"{found.mean:.3f}"
    return f"{mean} [{found.low:.3f}, {found.high:.3f}]"
