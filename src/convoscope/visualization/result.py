"""What a visualisation gives back: a picture with what it scores, and what speaks against it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError
from ..files import write_arrays, write_image
from .canvas import Bands, to_image

if TYPE_CHECKING:
    from PIL import Image

    from ..draw.sheet import Sheet

FloatArray = NDArray[np.float32]


@dataclass(eq=False)
class Visualization:
    """One picture made for one target.

    ``pixels`` is the saved picture, uint8 ``H×W×C``; ``inputs`` float32 ``C×h×w`` is what was optimised, in the
    network's input space, before clipping and rounding. ``score`` (the target's unit), ``probability`` (of classes),
    ``rank`` (1: the network's first choice) and ``prediction`` are measured on the saved picture, read again.
    ``transparency`` ``H×W`` in 0..1 says where the gradients were (MACO). ``natural`` is the best score among real
    pictures, ``agreement`` compares the seeds, ``also`` other networks. ``history`` is the score at every step.
    """

    target: str
    pixels: Bands = field(repr=False)
    inputs: FloatArray = field(repr=False)
    recipe: str
    objective: str
    seed: int
    steps: int
    score: float
    probability: float | None = None
    rank: int | None = None
    prediction: list[dict[str, Any]] = field(default_factory=list)
    transparency: FloatArray | None = field(default=None, repr=False)
    original: Bands | None = field(default=None, repr=False)
    natural: dict[str, Any] | None = None
    agreement: dict[str, Any] | None = None
    also: list[dict[str, Any]] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    doubts: tuple[str, ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)
    history: list[float] = field(default_factory=list, repr=False)
    seconds: float = 0.0

    def __repr__(self) -> str:
        chance = "" if self.probability is None else f", p {self.probability:.3g}, rank {self.rank}"
        doubts = f"; {len(self.doubts)} doubts: {self.doubts[0][:90]}" if self.doubts else ""
        return (
            f"Visualization({self.target}, {self.recipe}, seed {self.seed}, {self.steps} steps: "
            f"score {self.score:.4g}{chance}{doubts})"
        )

    @property
    def image(self) -> Image.Image:
        """The picture as PIL: greyscale for networks of one channel, else RGB (of more bands the first three)."""
        return to_image(self.pixels)

    @property
    def transparent(self) -> Image.Image:
        """The picture as PIL RGBA, opaque where the gradients were; fully opaque where there is no such map."""
        image = self.image.convert("RGB")
        if self.transparency is not None:
            from PIL import Image

            image.putalpha(Image.fromarray(np.round(self.transparency * 255).astype(np.uint8)))
            return image
        return image.convert("RGBA")

    @property
    def difference(self) -> Image.Image:
        """What was changed in the original (fooling, DeepDream): around mid-grey, amplified as ``facts`` says."""
        if self.original is None:
            raise UsageError("This picture was not made from another: there is no difference to show.")
        change = self.pixels.astype(np.float32) - self.original
        return to_image(np.clip(np.round(128 + change * self.gain), 0, 255).astype(np.uint8))

    @property
    def gain(self) -> float:
        """By how much :attr:`difference` amplifies: its largest change is nearly black or white."""
        if self.original is None:
            return 1.0
        change = np.abs(self.pixels.astype(np.float32) - self.original)
        strong = float(np.quantile(change, 0.999)) if change.size else 0.0
        return float(np.clip(round(120 / strong), 1, 60)) if strong > 0 else 1.0

    def save(self, path: str | Path, *, transparent: bool = False) -> Path:
        """The picture. ``.png`` keeps every pixel, and the score with it; JPEG and lossy WebP do not.

        ``.npy`` holds all bands; ``transparent=True`` writes RGBA (the score is that of the opaque picture).
        """
        path = Path(path)
        if path.suffix == ".npy":
            return write_arrays(path, pixels=self.pixels)
        image = self.transparent if transparent else self.image
        return write_image(path, image, **({"lossless": True} if path.suffix.lower() == ".webp" else {}))

    def to_dict(self) -> dict[str, Any]:
        """Everything but the arrays, as plain data."""
        return {
            "target": self.target,
            "recipe": self.recipe,
            "objective": self.objective,
            "seed": self.seed,
            "steps": self.steps,
            "size": list(self.pixels.shape[:2]),
            "score": self.score,
            "probability": self.probability,
            "rank": self.rank,
            "prediction": self.prediction,
            "natural": self.natural,
            "agreement": self.agreement,
            "also": self.also,
            "facts": self.facts,
            "doubts": list(self.doubts),
            "seconds": self.seconds,
            "provenance": self.provenance,
        }

    @property
    def caption(self) -> str:
        """The target and what the picture reaches, in one line."""
        if self.probability is not None:
            place = f" · rank {self.rank}" if self.rank is not None and self.rank > 1 else ""
            return f"{self.target} · p {self.probability:.2f}{place}"
        return f"{self.target} · {self.score:.3g}"

    def _repr_png_(self) -> bytes:
        return _png(self.image)


class Visualizations(list[Visualization]):
    """Several pictures, in the order of their targets and seeds. ``stopped``: somebody stopped it before the end."""

    def __init__(self, items: Sequence[Visualization] = (), *, stopped: bool = False) -> None:
        super().__init__(items)
        self.stopped = stopped

    def sheet(self, *, columns: int | None = None, title: str = "", transparent: bool = False) -> Sheet:
        """All pictures on one sheet, each with its target and what it reaches; a row a target where seeds differ."""
        from .sheets import sheet_of

        return sheet_of(self, columns=columns, title=title, transparent=transparent)

    def to_dict(self) -> dict[str, Any]:
        return {"stopped": self.stopped, "visualizations": [one.to_dict() for one in self]}

    def _repr_png_(self) -> bytes:
        return self.sheet()._repr_png_()


@dataclass(eq=False)
class Frame:
    """A moment of an ascent: the pictures as they are at ``step`` of ``steps``.

    ``indices`` are their places among the results; ``scores`` the score at the last step. ``done`` of ``total``
    counts steps over all batches. The last frame of all carries the ``results``.
    """

    step: int
    steps: int
    indices: list[int]
    scores: list[float]
    done: int
    total: int
    pixels: list[Bands] = field(repr=False, default_factory=list)
    results: Visualizations | None = field(default=None, repr=False)

    @property
    def images(self) -> list[Image.Image]:
        """The pictures as they are now."""
        return [to_image(one) for one in self.pixels]

    def __repr__(self) -> str:
        return f"Frame(step {self.step} of {self.steps}, scores {', '.join(f'{one:.3g}' for one in self.scores[:8])})"

    def _repr_html_(self) -> str:
        from ..html.render import inline

        shown = "".join(f'<img src="{inline(one)}" style="margin:2px;width:128px">' for one in self.images[:12])
        return f"<p>{escape(repr(self))}</p>{shown}"


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
