"""One stage on its own: what ``convoscope health``, ``stress`` and ``depth`` give."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from ...files import write_whole
from ...html.render import render
from ...plain import plain
from ...version import __version__
from ..collection import Labelled
from ..finding import Finding, ranked
from .run import standing
from .stage import Case, Progress, StageResult, quiet

if TYPE_CHECKING:
    from ...draw.sheet import Sheet


@dataclass(frozen=True, eq=False)
class Examined:
    """What one stage found, with its figures.

    Args:
        name: of the files that are written: ``health``, ``stress``, ``depth``.
        title: of the page.
        sentence: the answer in one line.
        findings: what stands at 5 %, corrected over the tests of this stage, ranked.
        result: all that the stage gave.
        data: its figures as plain data, under fixed names.
        sheets: drawings by name.
        remarks: sentences that are no findings.
        case: the network and its pictures.
        failed: URI -> why it could not be read.
    """

    name: str
    title: str
    sentence: str
    findings: tuple[Finding, ...]
    result: StageResult
    data: Mapping[str, Any]
    sheets: Mapping[str, Sheet] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    case: Case | None = field(default=None, repr=False)
    failed: Mapping[str, str] = field(default_factory=dict)

    @property
    def missed(self) -> str:
        """What could have been missed."""
        return f"Could have been missed: {self.result.could_miss}." if self.result.could_miss else ""

    def to_dict(self) -> dict[str, Any]:
        """The JSON document: the findings, how many tests, what could be missed, and the stage's own figures."""
        return {
            "findings": [one.to_dict() for one in self.findings], "tests": self.result.tests, "missed": self.missed,
            "remarks": list(self.remarks), **self.data,
        }  # fmt: skip

    def page(self) -> str:
        """One self-contained HTML page."""
        from .page import thumbnails

        shown = [uri for one in self.findings for uri in one.pictures[:6]]
        drawings = [{**one, "svg": Markup(one["svg"])} for one in self.result.evidence.get("drawings", ())]
        return render(
            "examined.html", version=__version__, title=self.title, found=self, drawings=drawings,
            thumbnails=thumbnails(self.case, shown), tables=list(self.result.evidence.get("tables", ())),
            failed=dict(list(self.failed.items())[:20]), more_failed=max(0, len(self.failed) - 20),
        )  # fmt: skip

    def save(self, folder: str | Path) -> list[Path]:
        """Write the page, the JSON document and the drawings into ``folder``, each whole or not at all."""
        target = Path(folder)
        document = json.dumps(plain(self.to_dict()), indent=2, ensure_ascii=False)
        files = [
            write_whole(target / f"{self.name}.html", self.page()),
            write_whole(target / f"{self.name}.json", document + "\n"),
        ]
        for name, sheet in self.sheets.items():
            files.append(write_whole(target / f"{name}.png", sheet._repr_png_()))
        return files

    def __str__(self) -> str:
        lines = [f"{number}. {one.sentence}" for number, one in enumerate(self.findings, 1)]
        return "\n".join([self.sentence, *lines, *self.remarks, *([self.missed] if self.missed else [])])

    def _repr_html_(self) -> str:
        drawings = "".join(one["svg"] for one in self.result.evidence.get("drawings", ()))
        return f"<p><b>{Markup.escape(self.sentence)}</b></p>{drawings}"


def examined(
    name: str, title: str, sentence: str, case: Case, result: StageResult, data: Mapping[str, Any], *,
    sheets: Mapping[str, Sheet] | None = None, remarks: Sequence[str] = (), failed: Mapping[str, str] | None = None,
) -> Examined:  # fmt: skip
    """A stage's result as the answer of a command, its findings corrected over its own tests."""
    kept = tuple(ranked(standing([result])))
    said = f"{len(kept)} finding{'s' if len(kept) != 1 else ''}" if kept else "Nothing found"
    return Examined(
        name, title, f"{sentence} {said}: {result.tests} tests.", kept, result, data, sheets or {}, tuple(remarks),
        case, failed or {},
    )  # fmt: skip


def case_of(
    model: Any, pictures: Any, train: Any = None, *, truth: Any = None, seed: int = 0, progress: Progress | None = None,
    words: Sequence[str] = ("MODEL", "PICTURES"), flags: Sequence[str] = (), train_words: Sequence[str] = (),
) -> Case:  # fmt: skip
    """The case of a command: whatever names a network, and whatever are pictures.

    Raises:
        UsageError: no pictures.
        ModelError: the network cannot be opened.
    """
    from ...models.opening import open_model
    from .run import _store_of

    opened = open_model(model)
    return Case(
        opened, Labelled.of(pictures, opened, truth), None if train is None else Labelled.of(train, opened),
        _store_of(pictures), seed, progress or quiet, tuple(words), tuple(flags), tuple(train_words),
    )  # fmt: skip
