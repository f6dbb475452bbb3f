"""What comes back: arrays with their provenance and their doubts, that can draw themselves."""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from .errors import PictureError, UsageError
from .files import write_arrays, write_image

if TYPE_CHECKING:
    from PIL import Image

    from .draw.colour import Scale
    from .draw.sheet import Sheet
    from .engine.fields.geometry import Geometry
    from .methods import Part
    from .pictures.picture import ModelInput

Array = NDArray[np.float32]


@dataclass(eq=False)
class Plan:
    """What was run: passes through the network, forward and backward, for how many pictures and targets."""

    forwards: int = 0
    backwards: int = 0
    pictures: int = 0

    def to_dict(self) -> dict[str, int]:
        return {"forwards": self.forwards, "backwards": self.backwards, "pictures": self.pictures}


@dataclass(eq=False, repr=False)
class Heatmap:
    """One map of one picture.

    ``values`` is float32 H×W at the network's input resolution, in the method's own ``unit``, signed where the method
    is. ``raw`` is C×H×W where the method has it; ``grid`` is the coarse map with its ``geometry``. ``doubts`` are
    sentences: what this map itself fails to satisfy.
    """

    values: Array
    method: str
    title: str
    target: str
    signed: bool
    unit: str
    reduction: str
    fitted: ModelInput = field(repr=False)
    grid: Array | None = None
    raw: Array | None = None
    layer: str | None = None
    geometry: Geometry | None = field(default=None, repr=False)
    parts: list[Part] = field(default_factory=list, repr=False)
    doubts: tuple[str, ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def input_to_photo(self) -> NDArray[np.float64]:
        """2×3 affine: (x, y) of an input pixel's centre to (x, y) in the photo."""
        return self.fitted.input_to_photo

    def __repr__(self) -> str:
        doubts = f", {len(self.doubts)} doubts" if self.doubts else ""
        low, high = (float(np.nanmin(self.values)), float(np.nanmax(self.values))) if self.values.size else (0, 0)
        at = f" at {self.layer}" if self.layer else ""
        size = "×".join(map(str, self.values.shape))
        return f"Heatmap({self.method}{at} for {self.target}, {size}, {low:.3g} to {high:.3g} {self.unit}{doubts})"

    def scale(self) -> Scale:
        """How values become colours when this map is drawn alone."""
        from .draw import scales

        made = scales.for_map(
            self.values, signed=self.signed, unit=self.unit, expected=self.facts.get("expected"),
            patches="superpixels" in self.facts,
        )  # fmt: skip
        # maps of single pixels are drawn alone, the others over the photo
        return replace(made, over=self.raw is None)

    def show(self) -> Image.Image:
        """The map over its photo, opened in the system's viewer (in a notebook the value shows itself)."""
        made = self.overlay()
        made.show(title=self.title)
        return made

    def overlay(
        self, *, on: str = "photo", scale: Scale | None = None, opacity: float | None = None, cmap: str | None = None
    ) -> Image.Image:
        """The map over the original ``photo``, or over the network's ``input``; ``cmap`` is a name of matplotlib's.

        Maps of single pixels are drawn alone, in the photo's frame, unless an ``opacity`` is given.
        """
        from .draw import overlay

        scale = scale or self.scale()
        if cmap is not None:
            scale = replace(scale, cmap=cmap)
        if self.values.ndim == 3:
            return self._slices(scale, on, {} if opacity is None else {"opacity": opacity})
        if self.raw is not None and opacity is None:
            # fine structure would drown in the photo: it is drawn alone, in the photo's frame
            whole = self.fitted.picture.image if on == "photo" else self.input_image()
            matrix = self.input_to_photo if on == "photo" else None
            return overlay.placed(whole, self.values, scale=scale, signed=self.signed, matrix=matrix)
        settings: dict[str, Any] = {} if opacity is None else {"opacity": opacity}
        if on == "input":
            return overlay.overlay(self.input_image(), self.values, scale=scale, signed=self.signed, **settings)
        if on != "photo":
            raise UsageError(f"A map is drawn on 'photo' or 'input', not {on!r}.")
        return overlay.overlay(
            self.fitted.picture.image, self.values, scale=scale, signed=self.signed, matrix=self.input_to_photo,
            **settings,
        )  # fmt: skip

    def _slices(self, scale: Scale, on: str, settings: dict[str, Any]) -> Image.Image:
        """A map ``[D, H, W]`` over its slices, as a sheet; all slices on one scale."""
        from .draw import montage, overlay

        picture: Any = self.fitted.picture
        if not hasattr(picture, "chosen"):
            raise PictureError("A map of several slices needs a volume to be drawn on.")
        drawn = []
        for one, values in montage.shown(list(zip(picture.chosen(len(self.values)), self.values, strict=True))):
            whole: Image.Image = one.image
            matrix: NDArray[np.float64] | None = self.input_to_photo
            if on == "input":
                whole, matrix = whole.resize((values.shape[1], values.shape[0])), None
            draw: Any = overlay.placed if self.raw is not None and not settings else overlay.overlay
            drawn.append(draw(whole, values, scale=scale, signed=self.signed, matrix=matrix, **settings))
        return montage.montage(drawn)

    def input_image(self) -> Image.Image:
        """The network's input as a picture: what it saw after resize and crop."""
        return input_image(self.fitted, self.provenance.get("preprocessing", {}))

    def image(self) -> Image.Image:
        """The map alone, in colours."""
        from .draw import overlay

        return overlay.heatmap_image(self.values, self.scale())

    def save(self, path: str | Path) -> Path:
        """``.npz``/``.npy``: the values; a picture's ending: the overlay."""
        path = Path(path)
        if path.suffix == ".npy":
            write_arrays(path, values=self.values)
        elif path.suffix == ".npz":
            write_arrays(path, **{self.method: self.values})
        else:
            write_image(path, self.overlay())
        return path

    def to_dict(self) -> dict[str, Any]:
        """Everything but the arrays, as plain data."""
        finite = self.values[np.isfinite(self.values)]
        return {
            "method": self.method,
            "target": self.target,
            "layer": self.layer,
            "signed": self.signed,
            "unit": self.unit,
            "reduction": self.reduction,
            "shape": list(self.values.shape),
            "min": float(finite.min()) if finite.size else None,
            "max": float(finite.max()) if finite.size else None,
            "sum": float(finite.sum()) if finite.size else None,
            "geometry": self.geometry.to_dict() if self.geometry is not None else None,
            "doubts": list(self.doubts),
            "facts": self.facts,
            "parts": [{"channel": part.channel, "weight": part.weight} for part in self.parts],
            "provenance": self.provenance,
        }

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.array(self.values, dtype=dtype) if dtype is not None or copy else self.values

    def _repr_png_(self) -> bytes:
        return _png(self.overlay())


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
    from .draw import colour, sheet

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
                    sheet.Cell(
                        None, named.get(name) or _title(name), None, "refused: " + row.refused.get(name, "no map")
                    )
                )
                continue
            heatmap = row[name]
            scale = scales.get(name) or heatmap.scale()
            note = heatmap.doubts[0] if heatmap.doubts else ""
            alt = f"{heatmap.title} for {row.target}"
            image = there.get(id(heatmap)) or heatmap.overlay(on=on, scale=scale)
            cells.append(sheet.Cell(image, named.get(name, heatmap.title), scale, note, alt))
        photo = (
            row.fitted.picture.image
            if on == "photo"
            else input_image(row.fitted, row.provenance.get("preprocessing", {}))
        )
        chance = f"p {row.probability:.2f} · " if row.probability is not None else ""
        under = f"{row.picture} · {chance}score {row.score:.3g}"
        lines.append(sheet.Row(photo, named.get(str(row.target), row.target), under, cells))
    scale_note = "One scale for all." if shared == "all" else "One scale per column." if shared else ""
    scale_note = scale_note or "Each map on its own scale."
    scale_note += " Over a photo, colours fade out towards zero; a legend shows them over white and over black."
    heading, about = _about(explanations)
    return sheet.contact_sheet(
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


def input_image(fitted: ModelInput, preprocessing: Mapping[str, Any]) -> Image.Image:
    """The network's input as PIL RGB."""
    import torch

    from .pictures.picture import Picture, Preprocessing

    tensor = fitted.tensor
    if tensor.ndim == 4:
        return fitted.picture.image  # the slices themselves: a sheet
    mean = tuple(preprocessing.get("mean", (0.0,) * len(tensor)))
    std = tuple(preprocessing.get("std", (1.0,) * len(tensor)))
    shown = Preprocessing(mean=mean, std=std).denormalise(tensor.float()).clamp(0, 1)
    return Picture.of(torch.as_tensor(shown)).image


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
