"""What comes back: all maps of a picture with their question, their provenance and their doubts, as one sheet."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import UsageError
from .heatmap import Array, Heatmap, Plan, input_image

if TYPE_CHECKING:
    from PIL import Image

    from .draw.colour import Scale
    from .draw.sheet import Sheet
    from .pictures.picture import ModelInput


@dataclass(eq=False)
class Explanation(Mapping[str, Heatmap]):
    """All maps of one picture for one target, by method name.

    Several targets make several ``rows``: the first is this explanation itself. ``refused`` tells which methods do
    not exist for this network, and why. ``plan`` counts the passes of the whole call.
    """

    fitted: ModelInput = field(repr=False)
    target: str
    score: float
    probability: float | None
    prediction: list[dict[str, Any]]
    heatmaps: dict[str, Heatmap]
    plan: Plan
    refused: dict[str, str] = field(default_factory=dict)
    doubts: tuple[str, ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    rows: list[Explanation] = field(default_factory=list, repr=False)
    #: the :class:`~convoscope.targets.Target` to ask again for the same, and its class where it is one
    question: Any = field(default=None, repr=False)
    class_index: int | None = None

    def __getitem__(self, name: str) -> Heatmap:
        if name not in self.heatmaps:
            if name in self.refused:
                raise KeyError(f"{name}: {self.refused[name]}")
            raise KeyError(f"{name}: not asked for; this result has {', '.join(self.heatmaps)}")
        return self.heatmaps[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.heatmaps)

    def __len__(self) -> int:
        return len(self.heatmaps)

    def __repr__(self) -> str:
        chance = f", probability {self.probability:.3f}" if self.probability is not None else ""
        refused = f"; refused: {', '.join(self.refused)}" if self.refused else ""
        doubts = f"{len(self.doubts)} doubts: {self.doubts[0][:90]}" if self.doubts else "no doubts"
        return (
            f"Explanation of {self.picture} for {self.target} (score {self.score:.4g}{chance})\n"
            f"  maps: {', '.join(self.heatmaps) or 'none'}{refused}\n"
            f"  {doubts}"
        )

    @property
    def general_doubts(self) -> tuple[str, ...]:
        """The doubts that are of no single map."""
        own = {f"{name}: {doubt}" for name, heatmap in self.items() for doubt in heatmap.doubts}
        return tuple(doubt for doubt in self.doubts if doubt not in own)

    @property
    def picture(self) -> str:
        return self.fitted.picture.name

    def sheet(
        self,
        *,
        shared: bool | str = False,
        on: str = "photo",
        drawn: Mapping[int, Image.Image] | None = None,
        **how: Any,
    ) -> Sheet:
        """The photo and all maps side by side, a row a target.

        Args:
            shared: puts each method's rows on one scale; ``"all"`` puts all maps on one.
            on: draw on the ``photo``, or on the model's ``input``.
            drawn: overlays that are there already (:meth:`Heatmap.overlay` as it comes), by the maps' ``id()``.
            how: what a figure for a paper needs: ``width`` in millimetres, ``columns``, ``title`` (None: none),
                ``titles`` (other headings, by method or target) and ``caption``; see :func:`contact_sheet`.

        Returns:
            The sheet: ``.save("figure.pdf")``; a notebook shows it.
        """
        return contact_sheet([self], shared=shared, on=on, drawn=drawn, **how)

    def parts_sheet(self, name: str) -> Sheet:
        """The strongest channel × weight maps of a CAM (asked for with ``parts``)."""
        from .draw import grid

        heatmap = self[name]
        if not heatmap.parts:
            raise UsageError(f"{name} kept no parts: ask for them with parts=8 (--parts 8).")
        tiles = np.stack([np.asarray(part.grid, np.float32) for part in heatmap.parts])
        names = [f"{part.channel}  w {part.weight:+.3g}" for part in heatmap.parts]
        title = f"{heatmap.title}: the strongest channel × weight maps for {self.target}"
        return grid.tiles(tiles, names=names, scale="shared", columns=min(8, len(names)), signed=True, title=title)

    def arrays(self) -> dict[str, Array]:
        """float32 H×W by method name; of further targets by ``method@target``, with ``#2`` where names repeat."""
        found = {name: heatmap.values for name, heatmap in self.items()}
        for row in self.rows[1:]:
            for name, heatmap in row.items():
                key, number = f"{name}@{row.target}", 1
                while key in found:
                    number += 1
                    key = f"{name}@{row.target}#{number}"
                found[key] = heatmap.values
        return found

    def to_dict(self) -> dict[str, Any]:
        """What ``explain.json`` holds."""
        found: dict[str, Any] = {
            "picture": self.picture,
            "path": str(self.fitted.picture.path) if self.fitted.picture.path else None,
            "target": self.target,
            "class_index": self.class_index,
            "score": _known(self.score),
            "probability": self.probability,
            "prediction": self.prediction,
            "plan": self.plan.to_dict(),
            "input_to_photo": self.fitted.input_to_photo.tolist(),
            "seconds": self.seconds,
            "maps": {name: heatmap.to_dict() for name, heatmap in self.items()},
            "refused": self.refused,
            "doubts": list(self.doubts),
            "provenance": self.provenance,
        }
        if len(self.rows) > 1:
            found["further_targets"] = [
                {
                    "target": row.target,
                    "class_index": row.class_index,
                    "score": _known(row.score),
                    "probability": row.probability,
                    "maps": {name: heatmap.to_dict() for name, heatmap in row.items()},
                    "refused": row.refused,
                    "doubts": list(row.doubts),
                }
                for row in self.rows[1:]
            ]
        return found

    def _repr_png_(self) -> bytes:
        return self.sheet()._repr_png_()


def _known(score: float) -> float | None:
    """JSON has no word for what is not a number."""
    return score if np.isfinite(score) else None


class Explanations(list[Explanation]):
    """The explanations of several pictures, in their order; ``plan`` counts all passes."""

    def __init__(self, items: Sequence[Explanation] = (), plan: Plan | None = None) -> None:
        super().__init__(items)
        self.plan = plan or Plan()

    def sheet(self, *, shared: bool | str = False, on: str = "photo", **how: Any) -> Sheet:
        """All pictures and targets, a row each; as :meth:`Explanation.sheet`."""
        return contact_sheet(self, shared=shared, on=on, **how)

    def _repr_png_(self) -> bytes:
        return self.sheet()._repr_png_()


def contact_sheet(
    explanations: Sequence[Explanation],
    *,
    shared: bool | str = False,
    on: str = "photo",
    drawn: Mapping[int, Image.Image] | None = None,
    title: str | None = "",
    titles: Mapping[str, str] | None = None,
    columns: int | None = None,
    width: float | None = None,
    caption: str = "",
) -> Sheet:
    """Pictures or targets × methods, titled, with legends, the target and its score, and the scale stated.

    Args:
        explanations: a row each, and one for each further target.
        shared: True puts each method's rows on one scale, ``"all"`` all maps, which must have one unit.
        on: ``photo`` or ``input``.
        drawn: overlays that are there already, by the maps' ``id()``.
        title: heading; "" names the picture and the network, None is none.
        titles: other headings, by the name of a method (``grad-cam``) or target (``cat``).
        columns: maps in one line before the next line starts.
        width: of the figure in millimetres: 84 is one column of a paper.
        caption: text under the figure, in place of what is said of the scales.

    Raises:
        UsageError: a width or number of columns that cannot be, or one scale for maps of several units.
    """
    from .draw import colour, contact

    named = dict(titles or {})

    rows = [row for explanation in explanations for row in (explanation.rows or [explanation])]
    names = list(dict.fromkeys(name for row in rows for name in (*row, *row.refused)))
    scales: dict[str, Scale] = {}
    if shared == "all":
        every = [row[name] for row in rows for name in names if name in row]
        if len({one.unit for one in every}) > 1:
            units = ", ".join(dict.fromkeys(one.unit for one in every))
            raise UsageError(f"Maps on one scale must have one unit; these have {units}.")
        if every:
            signed = any(one.signed for one in every)
            one_scale = colour.scale_for([one.values for one in every], signed=signed, unit=every[0].unit)
            scales = dict.fromkeys(names, one_scale)
    elif shared:
        for name in names:
            maps = [row[name] for row in rows if name in row]
            made = colour.scale_for([m.values for m in maps], signed=maps[0].signed, unit=maps[0].unit)
            scales[name] = replace(made, over=maps[0].raw is None)
    there = {} if drawn is None or shared or on != "photo" else drawn
    lines = []
    for row in rows:
        cells = []
        for name in names:
            if name not in row:
                cells.append(
                    contact.Cell(
                        None, named.get(name) or _title(name), None, "refused: " + row.refused.get(name, "no map")
                    )
                )
                continue
            heatmap = row[name]
            scale = scales.get(name) or heatmap.scale()
            note = heatmap.doubts[0] if heatmap.doubts else ""
            alt = f"{heatmap.title} for {row.target}"
            image = there.get(id(heatmap)) or heatmap.overlay(on=on, scale=scale)
            cells.append(contact.Cell(image, named.get(name, heatmap.title), scale, note, alt))
        photo = (
            row.fitted.picture.image
            if on == "photo"
            else input_image(row.fitted, row.provenance.get("preprocessing", {}))
        )
        chance = f"p {row.probability:.2f} · " if row.probability is not None else ""
        under = f"{row.picture} · {chance}score {row.score:.3g}"
        lines.append(contact.Row(photo, named.get(str(row.target), row.target), under, cells))
    scale_note = "One scale for all." if shared == "all" else "One scale per column." if shared else ""
    scale_note = scale_note or "Each map on its own scale."
    scale_note += " Over a photo, colours fade out towards zero; a legend shows them over white and over black."
    heading, about = _about(explanations)
    return contact.contact_sheet(
        lines, title=heading if title == "" else title or "", footnote=f"{about} {scale_note}", columns=columns,
        width=width, caption=caption,
    )  # fmt: skip


def _title(name: str) -> str:
    """What stands over a method's map, also where it gave none."""
    from .methods import METHODS

    kind = METHODS.get(name)
    return name if kind is None else kind.about.title


def _about(explanations: Sequence[Explanation]) -> tuple[str, str]:
    """A sheet's title (the picture and the network), and the sentence that names the network's weights."""
    first = explanations[0].provenance
    model, spec = str(first.get("model", "")), str(first.get("spec") or "")
    names = list(dict.fromkeys(one.picture for one in explanations))
    title = f"{names[0] if len(names) == 1 else f'{len(names)} pictures'} · {model}"
    weights = str(first.get("weights") or "not named").replace("\\", "/").rsplit("/", 1)[-1]
    network = model if spec in ("", model) else f"{model} ({spec.rsplit('/', 1)[-1]})"
    digest = str(first.get("fingerprint", ""))[:12]
    return title, f"Network {network}, weights {weights}" + (f" ({digest})." if digest else ".")
