"""The demo's last part: everything about a few pictures in one file."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..html.page import Section
    from . import Stage

ORDER = 95


def report(stage: Stage) -> Section:
    """A report to send"""
    from ..errors import MissingExtra
    from ..html.page import Item, Section
    from ..reports.report import report as write
    from .collection import store as surveyed

    try:
        store = surveyed(stage)
    except MissingExtra:  # without the survey's packages the report has no units and no neighbours
        store = None
    pictures = [stage.picture(label) for label in ("bird", "car", "cup")]
    found = write(stage.model, pictures, store=store, trust=True, title="Three pictures of the toybox")
    found.save(stage.out / "report.html")
    return Section(
        "A report to send",
        "The same views for three pictures, frozen into one file that needs no network. `convoscope serve toybox` "
        "shows them alive: covering parts by hand, switching units off, walking through the collection.",
        [Item("report.html", "The report: predictions, maps with verdicts, layers, units.")],
    )


PARTS = (report,)
