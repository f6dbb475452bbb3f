"""The small grammar of structured targets: ``kind:rest``, where a kind is registered by whoever scores it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .models import Model
    from .targets import Target

Parser = Callable[[str, "Model"], "Target"]
#: kind -> the function that reads what follows the colon
PARSERS: dict[str, Parser] = {}


def parse(text: str, model: Model) -> Target | None:
    """The structured target in ``text``; ``None`` where its kind is not one (a class, a unit).

    A class name or a layer of the network that happens to begin alike wins.
    """
    from .combine import parse as combination  # sums, differences and directions are made of other targets

    if (combined := combination(text, model)) is not None:
        return combined
    kind, colon, rest = text.partition(":")
    if not colon or kind not in PARSERS or (model.labels is not None and text in model.labels):
        return None
    return PARSERS[kind](rest, model)
