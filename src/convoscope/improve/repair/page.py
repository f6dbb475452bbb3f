"""The repair's page: before and after, the counterexamples, what stays unproven."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image
from torch import Tensor

from ...version import __version__
from ..shortcuts.bench import Bench, Ints
from .copies import with_module
from .examples import Examples, Fault, examples
from .split import PROOF, parts

if TYPE_CHECKING:
    from .result import Repaired

#: counterexamples shown of each kind
SHOWN = 6


def page(result: Repaired) -> str:
    """The page as HTML."""
    from ...html.render import render

    return render(
        "repair.html", title=f"{result.bench.model.name}{', repaired' if result.holds else ': not repaired'}",
        version=__version__, result=result, proof=None if result.attempt is None else result.attempt.proof,
        card=result.card, shown=result.shown,
    )  # fmt: skip


def examples_shown(result: Repaired, faults: Sequence[Fault], seed: int) -> dict[str, list[dict[str, str]]]:
    """Counterexamples of the pictures that prove, with what both networks say, those first that were won."""
    from ...html.render import inline

    assert result.attempt is not None
    held = result.held
    label = held.model.label
    found: dict[str, list[dict[str, str]]] = {}
    for fault in faults:
        learnt = _learnt(result.bench, seed)
        made = examples(fault, held, learnt, seed)
        for code, title in (
            (2, f"{label(fault.kind)} without the mark"),
            (1, f"Others with the mark of {label(fault.kind)}"),
        ):
            numbers = np.flatnonzero(made.group == code)[:60]
            if not len(numbers):
                continue
            before = held.ask(len(numbers), _some(made, numbers))
            other = with_module(held, result.attempt.module)
            after = other.ask(len(numbers), _some(made, numbers))
            truth = made.truth[numbers]
            order = np.argsort(-((after == truth).astype(int) - (before == truth)), kind="stable")[:SHOWN]
            images = held.shown(made.make(numbers[order]))
            found[title] = [
                {
                    "src": inline(_large(Image.fromarray(image)), 224),
                    "caption": f"{label(int(before[at]))} → {label(int(after[at]))}",
                }
                for image, at in zip(images, order, strict=True)
            ]
    return found


def _some(made: Examples, numbers: Ints) -> Callable[[Ints], Tensor]:
    return lambda rows: made.make(numbers[rows])


def _learnt(bench: Bench, seed: int) -> Bench:
    part = parts(bench.pictures.keys, [str(one) for one in bench.truth], seed)
    return bench.take(np.flatnonzero(part != PROOF))


def _large(image: Image.Image) -> Image.Image:
    scale = max(1, round(192 / min(image.size)))
    return image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)


def rows(result: Repaired) -> list[dict[str, Any]]:
    """The table of before and after."""
    plain = result.to_dict()
    return [{"name": name, "before": plain["before"][key], "after": plain["after"][key]}
            for name, key in (("counterexamples", "counterexamples"), ("ordinary pictures", "ordinary"))]  # fmt: skip
