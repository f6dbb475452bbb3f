"""One piece of a picture that a hidden unit fires for, and many of them as a sheet."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

if TYPE_CHECKING:
    from ...draw.sheet import Sheet

KINDS = ("top", "typical", "lowest")
Box = tuple[int, int, int, int]


@dataclass(eq=False)
class Patch:
    """One piece of a picture, with the neuron that fired for it.

    ``box`` is x0, y0, x1, y1 in the original photo's pixels, half-open, and ``input_box`` the same on the network's
    input. ``recomputed`` is the neuron's value when the patch was cut; ``guided`` the guided backpropagation of that
    one neuron, float32 ``[C, h, w]`` over the input box. ``crop`` is ``None`` where the photo is gone.
    """

    kind: str
    channel: int
    sha256: str
    uri: str
    value: float
    row: int
    col: int
    box: Box
    input_box: Box
    label: str | None = None
    prediction: str | None = None
    recomputed: float | None = None
    crop: Image.Image | None = field(default=None, repr=False)
    guided: NDArray[np.float32] | None = field(default=None, repr=False)
    error: str | None = None

    def to_dict(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "uri": self.uri,
            "value": self.value,
            "row": self.row,
            "col": self.col,
            "box": list(self.box),
        }


@dataclass(eq=False)
class Patches:
    """The patches of one unit, or the top patches of a layer's units. ``notes`` are what a person must know of
    them.
    """

    layer: str
    channels: list[int]
    items: list[Patch]
    single: bool
    field_size: str
    about: dict[int, str]
    notes: list[str] = field(default_factory=list)

    def of(self, kind: str, channel: int | None = None) -> list[Patch]:
        """The patches of one kind, strongest first (lowest first for the lowest, middle ones ascending)."""
        return [p for p in self.items if p.kind == kind and channel in (None, p.channel)]

    def to_dict(self) -> list[dict[str, Any]]:
        """The JSON document: a row a patch; for a whole layer each with its ``channel``."""
        if self.single:
            return [patch.to_dict() for patch in self.items]
        return [{"channel": patch.channel, **patch.to_dict()} for patch in self.items]

    def sheet(self) -> Sheet:
        """Rows of patches; under each row of a single unit, guided backpropagation of the same neurons."""
        from ...draw import grid

        rows: list[tuple[str, list[tuple[Any, str]]]] = []
        for channel in self.channels:
            for kind in KINDS:
                items = self.of(kind, channel)
                if not items:
                    continue
                name = f"{kind.capitalize()}" if self.single else f"{self.layer}:{channel}  {self.about[channel]}"
                rows.append((name, [(_shown(p), _caption(p)) for p in items]))
                if self.single and any(p.guided is not None and bool(p.guided.any()) for p in items):
                    rows.append(
                        (
                            f"{kind.capitalize()}: guided backpropagation of that neuron",
                            [(_relief(p), "") for p in items],
                        )
                    )
        title = f"{self.layer}:{self.channels[0]}" if self.single else f"{self.layer}: what its units fire for most"
        foot = [
            self.about[self.channels[0]] if self.single else "",
            f"Receptive field {self.field_size}.",
            *self.notes,
        ]
        columns = max((len(items) for _, items in rows), default=1)
        return grid.patches(rows, title, columns=min(columns, 12), footnote=" ".join(part for part in foot if part))

    def _repr_png_(self) -> bytes:
        return self.sheet()._repr_png_()


def _caption(patch: Patch) -> str:
    name = patch.label or patch.prediction or Path(patch.uri).stem
    return f"{patch.value:.3g} · {name}" + (" · photo gone" if patch.error else "")


def _shown(patch: Patch) -> Image.Image:
    if patch.crop is not None:
        return patch.crop
    return Image.new("RGB", (48, 48), (225, 225, 225))


def _relief(patch: Patch) -> Image.Image:
    """Guided backpropagation as a picture around mid-grey, on its own scale, as wide and high as the patch."""
    if patch.guided is None or patch.crop is None or not patch.guided.size:
        return Image.new("RGB", (48, 48), (225, 225, 225))
    values = patch.guided if len(patch.guided) == 3 else np.repeat(patch.guided.mean(0, keepdims=True), 3, 0)
    peak = float(np.percentile(np.abs(values), 99.5)) or float(np.abs(values).max())
    shown = np.full_like(values, 0.5) if peak == 0 else np.clip(0.5 + values / (2 * peak), 0, 1)
    image = Image.fromarray(np.round(shown * 255).astype(np.uint8).transpose(1, 2, 0))
    return image.resize(patch.crop.size, Image.Resampling.BILINEAR) if image.size != patch.crop.size else image
