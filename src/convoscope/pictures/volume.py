"""3-D volumes and short videos: several slices or frames as one picture, drawn as a sheet."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ..draw.montage import montage, shown
from ..errors import PictureError
from .picture import ModelInput, Picture, Preprocessing
from .reading import array_digest


@dataclass(frozen=True, eq=False)
class Volume(Picture):
    """Slices or frames of one size as one picture; ``bands`` is the middle one, ``slices`` are all of them.

    A network gets them as ``[C, D, H, W]``.
    """

    slices: tuple[Picture, ...] = field(default=(), repr=False)

    @staticmethod
    def of_slices(source: Any, name: str | None = None, *, path: Path | None = None, digest: str = "") -> Volume:
        """From an array D×H×W or D×H×W×C, a tensor C×D×H×W (both as pictures are), or a sequence of pictures.

        Raises :class:`PictureError` where slices have different sizes, or none are given.
        """
        if isinstance(source, Tensor):
            if source.ndim != 4:
                raise PictureError(f"A tensor volume must be C×D×H×W, not {tuple(source.shape)}.")
            source = source.detach().cpu().movedim(0, -1).numpy()
        if isinstance(source, np.ndarray) and source.ndim not in (3, 4):
            raise PictureError(f"An array volume must be D×H×W or D×H×W×C, not {source.shape}.")
        slices = tuple(Picture.of(one, name or "volume") for one in source)
        if not slices:
            raise PictureError("A volume needs at least one slice.")
        if len({one.bands.shape for one in slices}) > 1:
            raise PictureError("The slices of a volume must have one size and one number of bands.")
        middle = slices[len(slices) // 2]
        label = name or (middle.name if not isinstance(source, np.ndarray) else "volume")
        known = digest or array_digest(np.stack([one.bands for one in slices]))
        notes = tuple(dict.fromkeys(note for one in slices for note in one.notes))
        return Volume(middle.bands, label, path or middle.path, known, notes=notes, slices=slices)

    def prepare(self, to: Preprocessing) -> ModelInput:
        """Every slice as the network's input, ``[C, D, H, W]``; evenly chosen where the network fixes their number."""
        if to.frames is None:
            raise PictureError(
                f"{self.name} is a volume of {len(self.slices)} slices: the network takes one picture, an array H×W or "
                "H×W×C, or a tensor C×H×W."
            )
        fitted = [one.prepare(to.flat()) for one in self.chosen(to.frames)]
        return ModelInput(self, torch.stack([one.tensor for one in fitted], 1), fitted[0].input_to_photo)

    def chosen(self, count: int) -> list[Picture]:
        """``count`` slices, evenly spaced (with repeats where there are fewer); 0 takes all."""
        if count in (0, len(self.slices)):
            return list(self.slices)
        places = np.linspace(0, len(self.slices) - 1, count).round().astype(int)
        return [self.slices[k] for k in places]

    @cached_property
    def image(self) -> Image.Image:
        """The slices as one sheet, for drawing."""
        return montage([one.image for one in shown(self.slices)])
