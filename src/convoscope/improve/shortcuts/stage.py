"""The stage of ``diagnose`` that looks for shortcuts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...errors import ConvoscopeError
from .bench import Bench
from .find import FAMILIES, search

if TYPE_CHECKING:
    from ..diagnose.stage import Case, StageResult

#: pictures of a class that the stage looks at; the command itself takes more
PER_CLASS = 60


class ShortcutsStage:
    """Evidence cut out and put elsewhere, for every class, as one stage of a diagnosis."""

    name = "shortcuts"
    tests = 0

    def run(self, case: Case) -> StageResult:
        """Look for shortcuts; p values are given back as they were before the correction."""
        from dataclasses import replace

        from ..diagnose.stage import StageResult

        try:
            bench = Bench.of(
                case.model, case.pictures, per_class=PER_CLASS, seed=case.seed, lean=True,
                progress=lambda done, total: case.progress("Reading pictures for shortcuts", done, total),
            )  # fmt: skip
            found = search(bench, only=FAMILIES, seed=case.seed, words=case.words, said=case.progress)
        except ConvoscopeError as refused:
            return StageResult(refused=str(refused))
        raw: dict[tuple[str | None, Any], float] = {
            (label, family): one.p for label, of in found.effects.items() for family, one in of.items()
        }
        findings = [
            replace(
                one,
                p=raw.get((one.class_name, one.evidence["family"]), one.p),
                next=case.command("shortcuts", "--out", "shortcuts"),
            )
            for one in found.findings
        ]
        return StageResult(
            findings, found.tests, could_miss="shortcuts that only a few of a class's pictures carry",
            evidence={"tables": [_table(found.effects)]},
        )  # fmt: skip


def _table(effects: Any) -> dict[str, Any]:
    rows = [
        [label, family, one.sufficiency.mean, one.necessity.mean, one.control.mean]
        for label, of in effects.items() for family, one in of.items() if one.sufficiency.mean >= 0.1
    ]  # fmt: skip
    return {
        "title": "Effects of at least 0.1",
        "header": ["class", "family", "makes", "loses", "control"],
        "rows": rows,
    }
