"""Occlusion: how the score falls as a mask moves over the picture (Zeiler & Fergus 2014)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..engine.passes.needs import Perturbed, Scores
from ..errors import MethodRefused, UsageError
from .base import About, Maps, Method, Query, setting
from .fills import FILLS, fill_for

if TYPE_CHECKING:
    from torch import Tensor

    from ..engine.recompute.choose import Report
    from .base import Steps

Box = tuple[int, int, int, int]

ONE_WINDOW = "One window covers the whole picture, so the map shows no place; a smaller window does."


@dataclass(frozen=True)
class Occlusion(Method):
    """Score drop per masked pixel, averaged over the windows that hold a pixel (Zeiler & Fergus 2014).

    Windows lie inside the picture, the last one flush with the edge, so every pixel is covered. On an additive score
    with ``stride = window`` the map's sum over a window is that patch's own share. ``sizes`` moves windows of several
    sizes, each with a stride in proportion; ``regions="superpixels"`` covers one superpixel at a time instead.
    """

    about: ClassVar[About] = About(
        name="occlusion",
        title="Occlusion",
        shows="how much the score falls when that part of the picture is covered",
        paper="Zeiler, Fergus: Visualizing and Understanding Convolutional Networks. ECCV 2014",
        bibtex=(
            "@inproceedings{zeiler2014visualizing, title={Visualizing and Understanding Convolutional Networks}, "
            "author={Zeiler, Matthew D. and Fergus, Rob}, booktitle={ECCV}, year={2014}}"
        ),
        signed=True,
        unit="score drop per pixel",
        reduction="mean over the windows that hold the pixel",
        cost="one forward a window (only what the window changed is computed)",
        slow=True,
    )
    window: int | tuple[int, int] | None = setting(
        None,
        "side of the mask in input pixels, or rows x columns as 8x16 (default: a seventh of the input's shorter side)",
        minimum=1,
        pair=True,
    )
    stride: int | tuple[int, int] | None = setting(
        None, "step between masks in input pixels, or down x across (default: half the window)", minimum=1, pair=True
    )
    sizes: str = setting("", "several window sizes, as 16,32,64 (instead of window)")
    regions: str = setting("squares", "squares or superpixels", choices=("squares", "superpixels"))
    segments: int = setting(60, "superpixels wanted", minimum=2, maximum=2000)
    fill: str = setting("mean", f"what covers: {FILLS}")
    score: str = setting("logit", "logit or probability", choices=("logit", "probability"))
    engine: str = setting("auto", "auto (incremental where it pays) or dense", choices=("auto", "dense"))
    fast: float = setting(
        0.0, "cap of the influence boxes as a share of the map (0: exact)", minimum=0.0, maximum=1.0
    )

    def steps(self, query: Query) -> Steps:
        if self.regions == "superpixels":
            return (yield from self._superpixels(query))
        import numpy as np

        from ..engine.recompute.incremental import Boxes

        height, width = query.size
        boxes = self.boxes(height, width)
        edges = np.array(boxes, dtype=np.int64).T
        masks = Boxes(edges[0], edges[2], edges[1], edges[3])
        base = Scores(probability=self.score == "probability")
        fill = fill_for(query, self.fill)
        told = query.counter(len(boxes) * len(query.inputs))
        varied = Perturbed(masks, fill, base.probability, self.fast or None, told, engine=self.engine)
        got = yield base, varied
        drops = got[base].cpu()[:, None] - got[varied].cpu()
        maps = self._maps(
            query, spread(drops, boxes, height, width), [query.reports[varied]] * len(drops), len(boxes)
        )
        if len(boxes) == 1:
            for row in range(len(drops)):
                maps.doubt(row, ONE_WINDOW)
        return maps

    def boxes(self, height: int, width: int) -> list[Box]:
        """The windows y0, x0, y1, x1 for a picture of this size, of all sizes."""
        if not self.sizes:
            return windows(height, width, *self.measures(height, width))
        try:
            sides = [int(part) for part in self.sizes.split(",") if part.strip()]
        except ValueError:
            sides = []
        if not sides or min(sides) < 1:
            raise UsageError(f"occlusion.sizes must be whole numbers as 16,32,64, not {self.sizes!r}.")
        window, stride = self.measures(height, width)
        found = []
        for side in sides:
            down, across = (max(1, round(step * side / whole)) for step, whole in zip(stride, window, strict=True))
            found += windows(height, width, side, (down, across))
        return found

    def measures(self, height: int, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Window and stride, rows and columns, in pixels for an input of this size.

        By default 32 and 16 at 224 pixels, 4 and 2 at 28, both ways.
        """
        window = _both(max(1, round(min(height, width) / 7)) if self.window is None else self.window)
        half = (max(1, window[0] // 2), max(1, window[1] // 2))
        return window, half if self.stride is None else _both(self.stride)

    def _superpixels(self, query: Query) -> Steps:
        import torch

        from .random_masks import NO_SUPERPIXELS, superpixels

        base = Scores(probability=self.score == "probability")
        fill = fill_for(query, self.fill)
        values, reports = [], []
        squares: list[int] = []
        for row in range(len(query.inputs)):
            pieces, even = superpixels(query, row, self.segments)
            if even:
                squares.append(row)
            labels = torch.from_numpy(pieces)
            masks = labels == torch.arange(int(labels.max()) + 1)[:, None, None]
            told = query.counter(len(masks) * len(query.inputs), len(masks) * row)
            varied = Perturbed(masks, fill, base.probability, self.fast or None, told, row, self.engine)
            got = yield base, varied
            shares = (got[base].cpu()[row] - got[varied].cpu()[0]) / masks.sum((1, 2))
            values.append(shares[labels])
            reports.append(query.reports[varied])
        maps = self._maps(query, torch.stack(values).float(), reports)
        for row in squares:
            maps.doubt(row, NO_SUPERPIXELS)
        return maps

    def _maps(self, query: Query, values: Tensor, reports: list[Report], parts: int = 2) -> Maps:
        unit = "probability drop per pixel" if self.score == "probability" else self.about.unit
        flat = values.flatten(1)
        # one window alone was asked for: its map is constant by construction, and its value is the answer
        if parts > 1 and bool(flat.isfinite().all()) and bool((flat.amax(1) == flat.amin(1)).all()):
            hint = " Probabilities near 1 hardly move: score=logit may." if self.score == "probability" else ""
            raise MethodRefused(
                f"Covering any part changes the score by the same {float(flat[0, 0]):.3g} per pixel: there is no place "
                f"to show.{hint}"
            )
        maps = Maps(values, True, unit, self.about.reduction)
        for name in reports[0].to_dict():
            if name != "doubt":
                maps.fact(name, [getattr(report, name) for report in reports])
        for row, report in enumerate(reports):
            if report.doubt:
                maps.doubt(row, report.doubt)
        return maps


def _both(value: int | tuple[int, int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def windows(height: int, width: int, window: int | tuple[int, int], stride: int | tuple[int, int]) -> list[Box]:
    """Boxes y0, x0, y1, x1 (half open), inside the picture, the last row and column flush with its edge.

    ``window`` and ``stride`` are the same both ways, or (rows, columns).
    """
    (window_y, window_x), (stride_y, stride_x) = _both(window), _both(stride)
    window_y, window_x = min(window_y, height), min(window_x, width)
    return [
        (y, x, y + window_y, x + window_x)
        for y in _starts(height, window_y, stride_y)
        for x in _starts(width, window_x, stride_x)
    ]


def _starts(length: int, window: int, stride: int) -> list[int]:
    starts = list(range(0, length - window + 1, stride))
    if starts[-1] + window < length:
        starts.append(length - window)
    return starts


def spread(drops: Tensor, boxes: list[Box], height: int, width: int) -> Tensor:
    """``[B, M]`` drops of ``M`` boxes to ``[B, H, W]``: each pixel's mean of drop / area over the boxes that hold it.

    A drop that is NaN (stopped before it was computed) counts for nothing; a pixel that no box covered is NaN.
    """
    import torch

    total = torch.zeros((len(drops), height, width), dtype=torch.float64)
    count = torch.zeros_like(total)
    known = drops.isfinite()
    values = torch.where(known, drops, torch.zeros_like(drops)).double()
    for number, (y0, x0, y1, x1) in enumerate(boxes):
        total[:, y0:y1, x0:x1] += (values[:, number] / ((y1 - y0) * (x1 - x0)))[:, None, None]
        count[:, y0:y1, x0:x1] += known[:, number, None, None]
    return (total / count).float()
