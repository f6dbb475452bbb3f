"""Model cards that open: a JSON file beside weights that says which network they are of, and how it wants pictures."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import ModelError
from ..files import read_text
from ..pictures.picture import Preprocessing

#: what a card of ours has
FORMAT = "convoscope-card/1"


def read_card(path: str | Path) -> dict[str, Any]:
    """The card in a file; its ``weights`` are made absolute.

    Raises:
        ModelError: no such file, or no card of Convoscope's.
    """
    file = Path(path)
    try:
        card = json.loads(read_text(file))
    except FileNotFoundError:
        raise ModelError(f"{file}: there is no such model card.") from None
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ModelError(f"{file}: this is no model card that can be read ({error}).") from None
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        raise ModelError(f"{file}: this is no model card of Convoscope's (`convoscope repair` writes one).")
    if not card.get("spec"):
        raise ModelError(
            f"{file}: the network came from Python, and the card cannot build it. Build it yourself, load "
            f"{card.get('weights')} into it with load_state_dict, and give it to wrap()."
        )
    if card.get("weights"):
        card["weights"] = str(file.resolve().parent / str(card["weights"]))
    return card


def preprocessing_of(plain: Mapping[str, Any]) -> Preprocessing:
    """A preprocessing from plain data, as :meth:`Preprocessing.to_dict` writes it.

    Raises:
        ModelError: something is missing or of another kind.
    """
    try:
        size, rgb = plain["size"], plain.get("rgb")
        return Preprocessing(
            None if size is None else (int(size[0]), int(size[1])), plain["resize"], plain["fit"],
            tuple(map(float, plain["mean"])), tuple(map(float, plain["std"])), str(plain["interpolation"]),
            None if rgb is None else (int(rgb[0]), int(rgb[1]), int(rgb[2])), plain.get("frames"),
        )  # fmt: skip
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ModelError(
            f"The preprocessing in this card cannot be read ({type(error).__name__}: {error})."
        ) from None
