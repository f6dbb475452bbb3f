"""The same maps again, from the ``explain.json`` of a picture; and what differs since."""

from __future__ import annotations

import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .errors import ConvoscopeError, ModelError, PictureError, UsageError
from .files import read_regular, read_text
from .folder.records import RECORD
from .models.code import same_code
from .models.model import Model
from .models.opening import open_model
from .pictures.picture import Picture, Preprocessing

#: maps that differ by less than this share of their largest value are the same: another order of sums, another CPU
SAME = 1e-4


@dataclass(frozen=True)
class Again:
    """What came of it.

    Attributes:
        differences: map -> largest difference, as a share of the first map's largest absolute value; infinite where
            a map is missing or has another shape.
        changed: sentences: versions, weights, the picture, settings.
        tolerance: below this share a map is the same.
    """

    differences: dict[str, float]
    changed: tuple[str, ...]
    tolerance: float = SAME

    @property
    def same(self) -> bool:
        """Whether every map is the same."""
        return all(value <= self.tolerance for value in self.differences.values())

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {**asdict(self), "same": self.same}

    def __str__(self) -> str:
        lines = []
        for name, value in self.differences.items():
            how = "the same" if value <= self.tolerance else "other"
            far = (
                "no such map now"
                if not np.isfinite(value)
                else f"largest difference {value:.2g} of the largest value"
            )
            lines.append(f"{how:<8}  {name}  ({far})")
        lines += [f"changed   {sentence}" for sentence in self.changed]
        if not self.changed:
            lines.append("versions, weights and picture are those of the first time")
        return "\n".join(lines)


def rerun(
    record: str | Path, model: Model | None = None, *, device: str | None = None, tolerance: float = SAME
) -> Again:
    """Make the maps of an ``explain.json`` again and compare them with the ``maps.npz`` beside it.

    Args:
        record: ``explain.json``, or the folder that holds it.
        model: the network, where the file cannot open it (it was a Python object, or has moved).
        device: where to run.
        tolerance: below this share of a map's largest value it is the same.

    Returns:
        The differences of the maps, and what has changed since: versions, weights, the picture.

    Raises:
        UsageError: this is no such file, or it does not say what was asked.
        ModelError: the network cannot be opened.
        PictureError: the picture is not there any more.
    """
    path = Path(record)
    path = path / RECORD if path.is_dir() else path
    told = _read(path)
    asked = told.get("asked")
    if not isinstance(asked, dict) or asked.get("targets") is None:
        raise UsageError(f"{path} does not say what was asked: it was written by an older version, or from Python.")
    first = _maps(path.with_name("maps.npz"))
    picture = _picture(told, path)
    opened = model if model is not None else _open(told["provenance"], asked, device)
    changed = _changed(told, opened, picture)
    differences = _compare(first, _again(opened, picture, told, asked))
    return Again(differences, tuple(changed), tolerance)


def _read(path: Path) -> dict[str, Any]:
    try:
        told = json.loads(read_text(path))
    except (OSError, ValueError):
        raise UsageError(f"{path} is no {RECORD} of `convoscope explain`.") from None
    if not isinstance(told, dict) or "provenance" not in told or "maps" not in told:
        raise UsageError(f"{path} is no {RECORD} of `convoscope explain`.")
    return told


def _maps(path: Path) -> dict[str, NDArray[Any]]:
    try:
        with np.load(io.BytesIO(read_regular(path)), allow_pickle=False) as kept:
            return {name: kept[name] for name in kept}
    except (OSError, ValueError):
        raise UsageError(
            f"{path}: the maps of the first time are not there, so that nothing can be compared."
        ) from None


def _picture(told: dict[str, Any], path: Path) -> Picture:
    named = str(told.get("path") or told["picture"])
    for place in (Path(named), Path(told["asked"].get("path") or named), path.parent / Path(named).name):
        if place.is_file():
            return Picture.of(place)
    raise PictureError(f"{named}: the picture is not there any more; put it beside {path.name}.")


def _open(provenance: dict[str, Any], asked: dict[str, Any], device: str | None) -> Model:
    if not provenance.get("spec"):
        raise ModelError("The network was a Python object: give it again with --model, or rerun(..., model=...).")
    weights = provenance.get("weights")
    kept = weights if weights == "none" or (weights and Path(weights).is_file()) else None
    if kept is None and weights and Path(str(weights)).suffix:
        raise ModelError(
            f"The weights {weights} are no longer there: put the file back, or give --model and --weights."
        )
    model = open_model(
        asked.get("spec") or provenance["spec"], weights=kept, device=device, dtype=provenance.get("dtype"),
        seed=int(provenance.get("seed") or 0),
    )  # fmt: skip
    model.preprocessing = _preprocessing(provenance["preprocessing"])
    return model


def _preprocessing(told: dict[str, Any]) -> Preprocessing:
    settings: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in told.items()
    }
    return Preprocessing(**settings)


def _changed(told: dict[str, Any], model: Model, picture: Picture) -> list[str]:
    import torch

    from .version import __version__

    was = told["provenance"]
    sentences = []
    now = {"convoscope": __version__, "torch": torch.__version__, "numpy": np.__version__}
    for package, version in (was.get("versions") or {}).items():
        if str(now.get(package)) != str(version):
            sentences.append(f"{package} was {version}, and is {now.get(package, 'not installed')}")
    if model.fingerprint != was.get("fingerprint"):
        sentences.append(f"the weights: fingerprint {str(was.get('fingerprint'))[:12]}, now {model.fingerprint[:12]}")
    if not same_code(model.code, str(was.get("code") or "")):
        sentences.append("the network's code: its classes, or how it is put together")
    if picture.sha256 != told.get("sha256"):
        sentences.append(f"the picture {picture.name} has other bytes")
    if str(model.device) != was.get("device"):
        sentences.append(f"the device: {was.get('device')}, now {model.device}")
    return sentences


def _again(model: Model, picture: Picture, told: dict[str, Any], asked: dict[str, Any]) -> dict[str, NDArray[Any]]:
    from .explanation import explain
    from .methods import method

    methods = [method(name, settings) for name, settings in asked["methods"]]
    try:
        made = explain(
            model, picture, methods, target=asked["targets"], against=asked.get("against"), layer=asked.get("layers"),
            parts=int(asked.get("parts") or 0), resize=asked.get("resize") or "exact",
            fuse=asked.get("fuse"), aug_smooth=bool(asked.get("aug_smooth")),
        )  # fmt: skip
    except ConvoscopeError as error:
        raise UsageError(f"What was asked cannot be asked of this network: {error}") from None
    return dict(made.arrays())


def _compare(first: dict[str, NDArray[Any]], again: dict[str, NDArray[Any]]) -> dict[str, float]:
    found = {}
    for name, before in first.items():
        now = again.get(name)
        if now is None or now.shape != before.shape:
            found[name] = float("inf")
            continue
        same = np.array_equal(before, now, equal_nan=True)
        size = float(np.nanmax(np.abs(before), initial=0.0))
        gap = float(np.nanmax(np.abs(before.astype(np.float64) - now), initial=0.0))
        found[name] = 0.0 if same else gap / size if size > 0 else float("inf")
    return found
