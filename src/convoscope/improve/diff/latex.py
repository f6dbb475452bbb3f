"""A comparison as a LaTeX table (booktabs)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ...plain import latex_text

if TYPE_CHECKING:
    from .result import Diff


def latex(diff: Diff) -> str:
    r"""A row a network, then what was won and lost; needs ``\usepackage{booktabs}``.

    Bold is the last network's accuracy, where the paired difference to the first excludes 0.
    """
    last = diff.pairs[-1]
    change, whole = last.difference, last.compared.whole
    better = None
    if change is not None:
        better = last.b if change.low > 0 else last.a if change.high < 0 else None
    lines = [
        f"% {len(diff)} pictures; 95 % intervals (Wilson's; of the difference a paired bootstrap); p: McNemar, exact",
        r"\begin{tabular}{lcc}",
        r"\toprule",
        r"network & accuracy (\%) & calibration error \\",
        r"\midrule",
    ]
    for number, side in enumerate(diff.sides):
        accuracy, one = diff.accuracy[number], diff.calibrations[number]
        right = "--"
        if accuracy is not None:
            mean = f"{100 * accuracy.mean:.1f}"
            mean = rf"\textbf{{{mean}}}" if number == better else mean
            right = f"{mean} [{100 * accuracy.low:.1f}, {100 * accuracy.high:.1f}]"
        error = "--" if one is None else f"{one.error.mean:.3f} [{one.error.low:.3f}, {one.error.high:.3f}]"
        lines.append(rf"{latex_text(side.name)} & {right} & {error} \\")
    if change is not None and whole is not None:
        lines += [
            r"\midrule",
            rf"\multicolumn{{3}}{{l}}{{{len(whole.won)} won, {len(whole.lost)} lost: "
            rf"${100 * change.mean:+.1f}$ points [${100 * change.low:+.1f}$, ${100 * change.high:+.1f}$], "
            rf"$p = {whole.p:.2g}$}} \\",
        ]
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", ""])
