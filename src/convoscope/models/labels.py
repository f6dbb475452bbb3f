"""Class names: from sequences, dictionaries, files of lines or JSON, and from the network's own configuration."""

from __future__ import annotations

import enum
import json
import re
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from ..errors import UsageError

#: more bytes, or names, than any list of classes has
_MOST_BYTES = 32 * 2**20
_MOST_NAMES = 1_000_000
#: what a class zero that means "nothing" is called
_BACKGROUND = frozenset({"background", "__background__", "_background_", "bg", "dummy", "nothing", "unlabeled"})


def read_labels(labels: str | Path | Sequence[Any] | Mapping[Any, Any]) -> tuple[str, ...]:
    """Class names in the order of the outputs.

    Args:
        labels: A sequence of names, a dictionary from class number to name (``config.id2label``; one from name to
            number is turned round), or a file: one name a line, or JSON of either kind.

    Raises:
        UsageError: The file is not there, no text, too long or empty; a dictionary's keys are no class numbers.
    """
    if isinstance(labels, (str, Path)):
        return _from_file(Path(labels))
    if isinstance(labels, Mapping):
        return _from_mapping(labels, "labels")
    if isinstance(labels, type) and issubclass(labels, enum.Enum):
        return tuple(one.name for one in labels)
    try:
        names = tuple(f"class {k}" if name is None else str(name) for k, name in enumerate(labels))
    except TypeError:
        raise UsageError(
            f"labels must be class names (a list, a dictionary, a file), not {type(labels).__name__}."
        ) from None
    if not names:
        raise UsageError("labels is empty: it needs one class name for each output.")
    return names


def _from_mapping(labels: Mapping[Any, Any], what: str) -> tuple[str, ...]:
    try:
        numbered = {_number(key): value for key, value in labels.items()}
    except (TypeError, ValueError):
        try:
            numbered = {_number(value): key for key, value in labels.items()}
        except (TypeError, ValueError):
            raise UsageError(f"{what}: the keys must be class numbers (0: 'cat', 1: 'dog').") from None
    if not numbered or min(numbered) < 0 or max(numbered) >= max(1000, 100 * len(numbered)):
        raise UsageError(f"{what}: the keys must be class numbers from 0 upwards, one for each output.")
    # DETR's 91 numbers of COCO have gaps
    return tuple(_name(numbered.get(number, f"class {number}")) for number in range(max(numbered) + 1))


def _number(key: Any) -> int:
    number = int(key)
    if isinstance(key, float) and key != number:
        raise ValueError
    return number


def _name(value: Any) -> str:
    # Keras writes {"0": ["n01440764", "tench"]}
    if isinstance(value, (list, tuple)) and value:
        value = value[-1]
    return str(value)


def _from_file(path: Path) -> tuple[str, ...]:
    try:
        about = path.stat()
    except FileNotFoundError:
        raise UsageError(f"{path}: there is no such labels file.") from None
    except (OSError, ValueError) as error:
        raise UsageError(f"{str(path)[:200]!r}: the labels file cannot be read ({error}).") from None
    if not stat.S_ISREG(about.st_mode):
        kind = "a folder" if stat.S_ISDIR(about.st_mode) else "a pipe or a device"
        raise UsageError(f"{path}: this is {kind}, not a labels file.")
    if about.st_size > _MOST_BYTES:
        raise UsageError(
            f"{path}: {about.st_size / 2**20:,.0f} MB are no list of class names: a labels file has one name a line."
        )
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path}: the labels file cannot be read ({error.strerror}).") from None
    if b"\0" in data[:4096]:
        raise UsageError(f"{path}: this is a binary file; a labels file is text with one class name a line (UTF-8).")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise UsageError(f"{path}: line {line} is not UTF-8 text: save the labels file as UTF-8.") from None
    names = _from_json(text, path) if text.lstrip()[:1] in ("{", "[") else None
    if names is None:
        names = tuple(line.strip() for line in text.splitlines() if line.strip())
    if not names:
        raise UsageError(f"{path}: the labels file is empty; it needs one class name a line.")
    if len(names) > _MOST_NAMES:
        raise UsageError(f"{path}: {len(names):,} lines are no list of class names.")
    return names


def _from_json(text: str, path: Path) -> tuple[str, ...] | None:
    """Names in JSON; ``None`` where this is a list of lines of which the first only begins like JSON."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        if re.match(r"\s*[{\[]\s*[\"\[{]", text):
            raise UsageError(f"{path}: this begins like JSON, but is not whole.") from None
        return None
    if isinstance(found, dict):
        found = found.get("id2label", found.get("labels", found.get("names", found)))
    if isinstance(found, dict):
        return _from_mapping(found, str(path))
    if isinstance(found, list):
        return tuple(_name(one.get("name", one) if isinstance(one, dict) else one) for one in found)
    raise UsageError(f"{path}: the JSON file holds no list of class names.")


def own_labels(network: nn.Module) -> tuple[str, ...] | None:
    """The names in the network's own configuration: transformers' ``id2label``, ultralytics' ``names``."""
    from ..engine.passes.untouched import innermost

    inner = innermost(network)
    found = getattr(getattr(inner, "config", None), "id2label", None) or getattr(inner, "names", None)
    if not isinstance(found, Mapping) or not found:
        return None
    try:
        names = _from_mapping(found, "id2label")
    except UsageError:
        return None
    # LABEL_0, LABEL_1: nobody has given names
    return None if all(re.fullmatch(r"(LABEL_|class )?\d+", name) for name in names) else names


def without_background(labels: tuple[str, ...], outputs: int) -> tuple[str, ...] | None:
    """The labels without a leading name for "nothing", where the network has just one output less; else ``None``."""
    if len(labels) == outputs + 1 and labels[0].strip().casefold() in _BACKGROUND:
        return labels[1:]
    return None


def outputs_of(shapes: Sequence[tuple[int, ...]]) -> set[int]:
    """How many classes the network may have, by what one forward of one picture returned; empty: it is not known.

    Class scores are ``[1, K]``, maps of classes ``[1, K, h, w]``; anything else among the outputs (boxes and scores of
    a detector, grids of a YOLO, numbers of samples) says nothing certain of classes.
    """
    if len(shapes) == 1 and shapes[0] == (1,):
        return {1}
    if not shapes or any(len(shape) not in (2, 4) or shape[0] != 1 for shape in shapes):
        return set()
    return {shape[1] for shape in shapes}
