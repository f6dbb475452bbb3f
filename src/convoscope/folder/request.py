"""What was asked of every picture of a folder, and the key of the asking."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UsageError
from ..files import digests
from ..plain import plain

if TYPE_CHECKING:
    from ..methods import Method
    from ..models.model import Model


#: what may be drawn of each picture, from nothing to everything
PICTURES = ("none", "sheet", "all")


@dataclass
class Request:
    """What was asked of every picture."""

    methods: list[Method]
    targets: list[Any]
    against: Any = None
    layers: list[str] | None = None
    parts: int = 0
    resize: str = "exact"
    #: what is drawn: ``none``, the ``sheet`` alone, or ``all``; ``True`` is all, ``False`` none
    pictures: str | bool = "all"
    trust: bool = False
    fuse: Any = None
    aug_smooth: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.pictures, bool):
            self.pictures = "all" if self.pictures else "none"
        if self.pictures not in PICTURES:
            raise UsageError(f"pictures must be {', '.join(PICTURES)}, not {self.pictures!r}.")

    def asked(self, model: Model, path: Path | None) -> dict[str, Any]:
        """The question in words, so that it can be asked again (:mod:`convoscope.rerun`).

        ``targets`` is none where one of them is an object of Python, which no file can name.
        """
        from ..surveys.store.recipe import absolute_spec

        named = all(one is None or isinstance(one, (str, int)) for one in (*self.targets, self.against))
        return {
            "methods": [[one.about.name, dict(vars(one))] for one in self.methods],
            "targets": list(self.targets) if named else None,
            "against": self.against if named else None,
            "layers": self.layers,
            "parts": self.parts,
            "resize": self.resize,
            "fuse": self.fuse,
            "aug_smooth": self.aug_smooth,
            "spec": absolute_spec(model.spec),
            "path": None if path is None else str(path.resolve()),
        }

    def key(self, model: Model) -> str:
        """A hash of everything that the maps depend on but the picture, the bytes of files that are named included.

        Raises :class:`TargetError` where a target is none.
        """
        from ..pictures.picture import find_pictures
        from ..targets import parse

        asked_for = [parse(target, model, self.against) for target in self.targets]
        files = [
            *(path for one in asked_for for path in one.files()),
            *(p for one in self.methods for p in one.files()),
        ]
        from ..version import __version__

        asked = {
            "version": __version__,
            "model": model.fingerprint,
            "code": model.code,
            "preprocessing": model.preprocessing.to_dict(),
            "labels": list(model.labels or ()),
            "dtype": str(model.dtype),
            "seed": model.seed,
            "methods": [[one.about.name, dict(vars(one))] for one in self.methods],
            "targets": [one.key() for one in asked_for],
            "files": digests(find_pictures(files)) if files else {},
            "layers": self.layers,
            "parts": self.parts,
            "resize": self.resize,
            "trust": self.trust,
            "fuse": self.fuse,
            "aug_smooth": self.aug_smooth,
        }
        return hashlib.sha256(json.dumps(plain(asked), sort_keys=True).encode()).hexdigest()
