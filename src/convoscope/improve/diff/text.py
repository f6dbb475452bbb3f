"""A comparison on one screen."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .result import Diff, Pair

#: lines of each kind
SHOWN = 6


def text(diff: Diff) -> str:
    """At most one screen of plain text."""
    lines = [f"{len(diff):,} pictures" + (f", {len(diff.failed)} could not be read" if diff.failed else "")]
    width = max(len(side.name) for side in diff.sides)
    several = len(diff.sides) > 8
    for number, side in enumerate(diff.sides):
        if several and SHOWN <= number < len(diff.sides) - 2:
            if number == SHOWN:
                lines.append(f"  ... {len(diff.sides) - SHOWN - 2} more; --json has all")
            continue
        accuracy, one = diff.accuracy[number], diff.calibrations[number]
        said = side.unscored if accuracy is None else (
            f"{accuracy.mean:.1%} right [{accuracy.low:.1%}, {accuracy.high:.1%}]"
        )  # fmt: skip
        if one is not None:
            said += f", calibration error {one.error.mean:.3f} [{one.error.low:.3f}, {one.error.high:.3f}]"
        lines.append(f"  {side.name:<{width}}  {said}")
    shown = diff.pairs if len(diff.pairs) <= 2 else diff.pairs[-1:]
    for pair in shown:
        lines += ["", *_pair(diff, pair)]
    for note in diff.notes[:SHOWN]:
        lines.append(f"Note: {note}")
    return "\n".join(lines)


def _pair(diff: Diff, pair: Pair) -> list[str]:
    a, b = diff.sides[pair.a], diff.sides[pair.b]
    one = pair.compared
    lines = [f"{a.name} -> {b.name}"]
    if one.whole is not None and pair.difference is not None:
        change = pair.difference
        lines.append(
            f"  {len(one.whole.won)} won, {len(one.whole.lost)} lost, {len(one.both_wrong)} wrong in both; "
            f"{change.mean:+.1%} [{change.low:+.1%}, {change.high:+.1%}], p {one.whole.p:.2g} (McNemar)"
        )
    if one.churn is not None:
        lines.append(f"  {one.churn.mean:.1%} of the predictions differ.")
    if pair.drift is not None:
        lines.append(
            f"  confidence {pair.drift.confidence.mean:+.3f}, calibration error {pair.drift.error.mean:+.3f}"
        )
    if pair.cka.size:
        last = pair.cka[-1, -1]
        lines.append(f"  CKA of the last layers ({pair.layers[0][-1]}, {pair.layers[1][-1]}): {last:.3f}")
    units = pair.units
    judged = [len(listed) for listed in units.every]
    if any(judged):
        lines.append(
            f"  {len(units.new)} of {judged[0]} units of {b.name} follow to less than 90 % from {a.name}, "
            f"{len(units.lost)} of {judged[1]} the other way" + _named([one.unit.unit for one in pair.new[:4]])
        )
    if units.matches:
        last_match = units.matches[-1]
        lines.append(
            f"  {last_match.matched} of {last_match.alive} units of {last_match.layer} have a partner (r >= 0.9)."
        )
    if one.whole is None:
        pass
    elif not pair.findings:
        lines.append("  No regression was found that the correction for all tests leaves standing.")
    for finding in pair.findings[:SHOWN]:
        p = "" if finding.p is None else f" (p {finding.p:.2g})"
        lines += [f"  ! {finding.sentence}{p}", f"    {finding.next}"]
    if len(pair.findings) > SHOWN:
        lines.append(f"  ... and {len(pair.findings) - SHOWN} more findings: the page has all.")
    lines += [f"  Note: {note}" for note in [*one.notes, *units.notes][:3]]
    return lines


def _named(units: list[str]) -> str:
    return f" (least: {', '.join(units)})." if units else "."
