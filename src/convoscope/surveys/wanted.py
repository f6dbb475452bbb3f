"""Pictures that units want (gradient ascent), kept beside a store's tables: made once, by a survey or by the page.

Each is a PNG and what is known of it (``wanted/*.png``, ``*.json``), named by the unit; a picture that is made again
takes the place of the old one.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from ..files import write_whole
from ..plain import dump_json

if TYPE_CHECKING:
    from ..models.model import Model
    from .store.store import Store

#: the folder's name in the folder of a store
FOLDER = "wanted"
#: units whose pictures are made together: as many as a batch of the usual size holds
TOGETHER = 16


class Wanted:
    """The pictures of one store, or of none (``path`` None: nothing is kept).

    Args:
        path: the folder; it is made when something is kept.
    """

    def __init__(self, path: str | Path | None) -> None:
        self.path = None if path is None else Path(path)

    @classmethod
    def of(cls, store: Store) -> Wanted:
        """Those of a store; of one in an object store none is kept."""
        place = str(store.path)
        return cls(None if "://" in place else Path(place) / FOLDER)

    def _file(self, unit: str, ending: str) -> Path | None:
        return None if self.path is None else self.path / f"{hashlib.sha256(unit.encode()).hexdigest()[:24]}{ending}"

    def get(self, unit: str) -> dict[str, Any] | None:
        """What is known of the picture of ``unit`` (``layer:channel``): caption, steps, score; None without one."""
        about, image = self._file(unit, ".json"), self._file(unit, ".png")
        if about is None or image is None or not (about.is_file() and image.is_file()):
            return None
        try:
            found = json.loads(about.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) and found.get("unit") == unit else None

    def image(self, unit: str) -> bytes | None:
        """The picture of ``unit`` as a PNG's bytes."""
        file = self._file(unit, ".png")
        return file.read_bytes() if file is not None and self.get(unit) is not None else None

    def put(self, unit: str, image: bytes, about: dict[str, Any]) -> None:
        """Keep a picture. A disk that is full or read-only keeps none, and nothing else is lost by it."""
        kept, drawn = self._file(unit, ".json"), self._file(unit, ".png")
        if kept is None or drawn is None:
            return
        try:
            write_whole(drawn, image)
            write_whole(kept, dump_json({**about, "unit": unit}) + "\n")
        except OSError:
            return

    def missing(self, units: list[str], steps: int | None = None) -> list[str]:
        """Those of ``units`` of which there is no picture, or one of fewer steps than are asked for."""
        known = {unit: self.get(unit) for unit in units}
        return [unit for unit, one in known.items() if one is None or int(one.get("steps") or 0) < (steps or 0)]


def make_wanted(
    store: Store,
    model: Model,
    count: int,
    steps: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> int:
    """Make and keep what the strongest units of each surveyed layer want; what is kept already is not made again.

    Args:
        store: the survey's store; it must lie on this machine.
        model: its network.
        count: units of each layer, those with the strongest responses first.
        steps: of gradient ascent; None for the recipe's own.
        progress: ``(done, of all)``, in units.

    Returns:
        How many pictures were made.

    Raises:
        UsageError: a count below 1, or a store in an object store.
    """
    from ..visualization import visualize
    from .ask.patches import strongest

    if count < 1:
        raise UsageError(f"Pictures are made of 1 unit of each layer at least, not {count}.")
    kept = Wanted.of(store)
    if kept.path is None:
        raise UsageError(
            f"{store.path}: what units want is kept beside stores on this machine, not in an object store."
        )
    units = [
        f"{span.name}:{channel}"
        for span in store.recipe.layers for channel in strongest(store, span.name)[:count]
    ]  # fmt: skip
    todo = kept.missing(units, steps)
    for at in range(0, len(todo), TOGETHER):
        if progress is not None:
            progress(at, len(todo))
        some = todo[at : at + TOGETHER]
        for unit, one in zip(some, visualize(model, some, steps=steps), strict=True):
            keep(kept, unit, one)
    if progress is not None:
        progress(len(todo), len(todo))
    return len(todo)


def keep(kept: Wanted, unit: str, one: Any) -> None:
    """Keep one :class:`~convoscope.Visualization` of a unit."""
    buffer = io.BytesIO()
    one.image.save(buffer, "PNG")
    about = {name: one.to_dict().get(name) for name in ("recipe", "steps", "seed", "score")}
    kept.put(unit, buffer.getvalue(), {**about, "caption": one.caption})


__all__ = ["Wanted", "keep", "make_wanted"]
