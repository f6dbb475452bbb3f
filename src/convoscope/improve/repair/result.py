"""What a repair gives back: whether anything was written, why, and the proof."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..shortcuts.bench import Bench
from .attempt import Attempt

if TYPE_CHECKING:
    from ...models.model import Model
    from ..diff.result import Diff


@dataclass(eq=False)
class Repaired:
    """The outcome of :func:`repair`.

    Args:
        how: head, bn, prune, calibrate or input.
        why: one sentence: the proof, or the reason of the refusal.
        bench: the original network and the pictures.
        held: those that prove.
        attempt: the repaired network and its proof; None where there was nothing to try.
        card: what the card says; empty where there is nothing to write.
        written: the weights' file; None where nothing was written.
        difference: before against after on ordinary held-out pictures.
        finding: what was repaired, plain data.
        shown: pictures for the page: title -> (picture, caption).
        seconds: of each step.
    """

    how: str
    why: str
    bench: Bench
    held: Bench
    attempt: Attempt | None = None
    card: Mapping[str, Any] = field(default_factory=dict)
    written: Path | None = None
    difference: Diff | None = None
    finding: Mapping[str, Any] | None = None
    shown: Mapping[str, Any] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def holds(self) -> bool:
        """Whether the gate lets it pass."""
        return self.attempt is not None and self.attempt.proof.holds

    @property
    def model(self) -> Model | None:
        """The repaired network; None where there is none. Whether it holds is another matter: see :attr:`holds`."""
        if self.attempt is None:
            return None
        from dataclasses import replace

        from .copies import model_with

        made = model_with(self.bench.model, self.attempt.module)
        name = f"{made.name}, repaired"
        return replace(made, name=name, preprocessing=self.attempt.preprocessing or made.preprocessing)

    def to_dict(self) -> dict[str, Any]:
        """``{"written", "how", "why", "before", "after"}``."""
        from ..statistics import share

        if self.attempt is None:
            right = self.held.prediction == self.held.truth
            plain = {"ordinary": share(int(right.sum()), len(right)).to_dict(), "counterexamples": None}
            before, after = plain, {"ordinary": None, "counterexamples": None}
        else:
            before, after = self.attempt.proof.side(False), self.attempt.proof.side(True)
        written = None if self.written is None else str(self.written)
        return {"written": written, "how": self.how, "why": self.why, "before": before, "after": after}

    def save(self, path: str | Path) -> Path:
        """Write the weights, the card and the pages; only what the gate lets pass.

        Raises:
            UsageError: the gate refused.
        """
        from .write import write

        return write(self, Path(path))

    def page(self) -> str:
        """One self-contained HTML page."""
        from .page import page

        return page(self)

    def __repr__(self) -> str:
        return f"Repaired({self.bench.model.name}, {self.how}: {'passes' if self.holds else 'refused'}. {self.why})"

    def _repr_html_(self) -> str:
        return f"<p>{escape(repr(self))}</p>"
