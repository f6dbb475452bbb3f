"""``convoscope demo``: everything the program does, shown on the bundled toybox, without a network connection.

A part is a function that takes the :class:`Stage`, writes pictures into its folder and returns one section of the
page. Every module of this package that has ``PARTS`` adds its parts, in the order of ``ORDER``.
"""

from __future__ import annotations

import importlib
import pkgutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from ..errors import ConvoscopeError
from ..files import write_image

if TYPE_CHECKING:
    from ..html.page import Section
    from ..models.model import Model
    from ..pictures.picture import Picture
    from ..toybox import Specimen

Part = Callable[["Stage"], "Section"]


@dataclass(eq=False)
class Stage:
    """What every part of the demo works with: the folder, the networks, and some pictures."""

    out: Path
    options: dict[str, Any] = field(default_factory=dict)
    #: what one part makes and others use
    kept: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def model(self) -> Model:
        """The honest network."""
        return self.open("toybox")

    @cached_property
    def cheat(self) -> Model:
        """The network that learnt the tag instead of the cup."""
        return self.open("toybox-cheat")

    @cached_property
    def robust(self) -> Model:
        """The network that was trained adversarially: what it wants can be recognised."""
        return self.open("toybox-robust")

    def open(self, spec: str) -> Model:
        """A network with the demo's device, batch size and seed."""
        from ..models.opening import open_model

        return open_model(spec, **self.options)

    def picture(self, label: str) -> Picture:
        """The picture of a class, with its name."""
        from ..pictures.picture import Picture

        return Picture.of(self.specimens[label].image, f"a {label}")

    @cached_property
    def specimens(self) -> dict[str, Specimen]:
        """One picture of each class, the same in every run."""
        from ..toybox import CLASSES, draw

        return {label: draw(7_000_000 + number, label=label) for number, label in enumerate(CLASSES)}

    def save(self, sheet: Any, name: str) -> str:
        """Write a sheet or picture as ``name``; returns the path relative to the page."""
        if isinstance(sheet, Image.Image):
            write_image(self.out / name, sheet)
        else:
            sheet.save(self.out / name)
        return name


@dataclass
class Told:
    """What became of one part."""

    title: str
    seconds: float
    error: str | None = None


def parts() -> list[Part]:
    """All parts, in the order of their modules' ``ORDER``."""
    modules = [importlib.import_module(f".{found.name}", __name__) for found in pkgutil.iter_modules(__path__)]
    having = [module for module in modules if hasattr(module, "PARTS")]
    return [part for module in sorted(having, key=lambda m: (m.ORDER, m.__name__)) for part in module.PARTS]


def run(
    out: str | Path,
    *,
    told: Callable[[Told], None] = lambda told: None,
    only: list[Part] | None = None,
    **options: Any,
) -> Path:
    """Run every part and write the page; returns the path of ``index.html``.

    A part that fails is named on the page, with the reason, and the others go on; ``told`` hears of each. ``options``
    go to :func:`convoscope.open_model` (device, batch_size, seed).
    """
    from ..html import page
    from ..version import __version__

    started = time.perf_counter()
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    stage = Stage(folder, options)
    with _one_thread():
        sections = [_section(stage, part, told) for part in (only if only is not None else parts())]
    return page.write(
        folder,
        "Convoscope: a look inside a convolutional network",
        "Every picture on this page was made just now, on this computer, by the program itself. The network is the "
        "bundled toybox: a small residual network that tells ten drawn things apart. Because the pictures are drawn, "
        "the truth about each is known to the pixel.\n\n"
        "Click a picture to enlarge it. The same commands work on your own networks and photos: "
        "convoscope explain MODEL PHOTO --out DIR.",
        sections,
        footer=f"convoscope {__version__}, {time.perf_counter() - started:.0f} seconds.",
    )


def _section(stage: Stage, part: Part, told: Callable[[Told], None]) -> Section:
    """What a part shows, or why it cannot be shown."""
    from ..html.page import Section

    title = (part.__doc__ or part.__name__).strip().splitlines()[0].rstrip(".")
    began = time.perf_counter()
    error = None
    try:
        section = part(stage)
    except ConvoscopeError as refused:
        error = str(refused)
    except Exception as failure:  # one part that breaks must not hide the others
        error = f"{type(failure).__name__}: {failure}"
    if error is not None:
        section = Section(title, f"Not shown: {error}")
    told(Told(title, time.perf_counter() - began, error))
    return section


@contextmanager
def _one_thread() -> Iterator[None]:
    """The toybox is small: a second thread gains nothing, and on a busy machine the two wait for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
