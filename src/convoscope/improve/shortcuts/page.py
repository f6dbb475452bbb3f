"""``shortcuts.html``: what was cut out and put elsewhere, to be looked at."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ...version import __version__
from .bench import Bench, Ints
from .effects import Effect
from .transplant import paste

if TYPE_CHECKING:
    from .result import Shortcuts

#: sources shown, and pictures each is pasted into
SHOWN = 5


def page(found: Shortcuts) -> str:
    """The page as HTML."""
    from ...html.render import render

    bench = found.bench
    named = {one.class_name for one in found.findings if one.class_name} | set(found.answered)
    every = [one for one in found.findings if one.class_name is None]
    spots = {label for one in every for label in one.evidence["classes"]}
    blocks = []
    for label, of in found.effects.items():
        families = [one.evidence["family"] for one in found.findings if one.class_name == label]
        families += ["patch"] if label in spots or label in found.answered else []
        for family in dict.fromkeys(families):
            if family in of and family != "files":
                blocks.append({"label": label, "family": family, **drawn(bench, of[family])})
    return render(
        "shortcuts.html", title=f"Shortcuts of {bench.model.name}", version=__version__, found=found, drawn=blocks,
        named=named, rows=_rows(found), pictures=len(bench.truth), half=int((~bench.half).sum()),
        families=list(dict.fromkeys(family for of in found.effects.values() for family in of)),
    )  # fmt: skip


def _rows(found: Shortcuts) -> list[dict[str, Any]]:
    standing = {(one.class_name, one.evidence.get("family")) for one in found.findings}
    return [
        {
            "label": label,
            "cells": [
                {"one": one, "bad": (label, family) in standing, "family": family} for family, one in of.items()
            ],
        }
        for label, of in found.effects.items()
    ]


def drawn(bench: Bench, one: Effect) -> dict[str, Any]:
    """Figures of one effect, as data URIs with captions: ``marked`` are its own pictures, ``pasted`` the others."""
    return _patch(bench, one) if one.family == "patch" else _change(bench, one)


def _patch(bench: Bench, one: Effect) -> dict[str, Any]:
    side, label = one.shown["side"], bench.model.label
    sources, corners, became, targets = (one.shown[name] for name in ("sources", "corners", "became", "targets"))
    order = np.argsort(-became.mean(1), kind="stable")[:SHOWN]
    rows = [int(sources[at]) for at in order]
    marked = [
        _figure(_boxed(_image(bench, row), corners[at], side), label(int(bench.truth[row])))
        for row, at in zip(rows, order, strict=True)
    ]
    pasted = []
    for place, at in enumerate(order):
        target = _one_of(became[at], place)
        into = np.array([targets[target]], np.int64)
        made = paste(bench, into, sources[at : at + 1], corners[at : at + 1], corners[at : at + 1], side)
        said = int(bench.ask(1, _given(made))[0])
        before = label(int(bench.prediction[into[0]]))
        pasted.append(
            _figure(_boxed(Image.fromarray(bench.shown(made)[0]), corners[at], side), f"{before} → {label(said)}")
        )
    return {
        "title": "The spot, in its own pictures",
        "marked": marked,
        "pasted": pasted,
        "other": "The same spot, pasted",
    }


def _given(made: Tensor) -> Callable[[Ints], Tensor]:
    """The same pictures, whatever rows are asked for."""
    return lambda numbers: made


def _change(bench: Bench, one: Effect) -> dict[str, Any]:
    change, label = one.shown["change"], bench.model.label
    marked: list[dict[str, str]] = []
    pasted: list[dict[str, str]] = []
    for rows, make, into in ((one.shown["own"], change.take, marked), (one.shown["targets"], change.add, pasted)):
        if make is None:
            continue
        flags = one.shown["lost"] if into is marked else one.shown["became"]
        order = np.argsort(-np.asarray(flags), kind="stable")[:SHOWN]
        for row in rows[order]:
            picked = np.array([row], np.int64)
            made = bench.clip(make(bench.inputs[picked], picked))
            said = int(bench.ask(1, _given(made))[0])
            into.append(
                _figure(Image.fromarray(bench.shown(made)[0]), f"{label(int(bench.prediction[row]))} → {label(said)}")
            )
    if one.family == "template":
        found = one.shown["template"]
        scaled = (0.5 + 0.5 * found / found.abs().max().clamp(min=1e-9)).clamp(0, 1)
        scaled = scaled[:3] if len(scaled) >= 3 else scaled[:1].expand(3, -1, -1)
        image = Image.fromarray((scaled.permute(1, 2, 0) * 255).round().to(torch.uint8).numpy())
        marked.insert(0, _figure(image, f"the pattern, drawn {0.5 / float(found.abs().max()):.0f} times as strong"))
    return {"title": f"Its own pictures without the {one.family}", "marked": marked, "pasted": pasted,
            "other": f"Other pictures with the {one.family}"}  # fmt: skip


def _one_of(flags: np.ndarray, place: int) -> int:
    """Another target for each place, one that became the class where there is one."""
    hits = np.flatnonzero(flags)
    return int(hits[place % len(hits)]) if len(hits) else place % len(flags)


def _image(bench: Bench, row: int) -> Image.Image:
    return Image.fromarray(bench.shown(bench.inputs[row : row + 1])[0])


def _boxed(image: Image.Image, corner: Any, side: int) -> Image.Image:
    from PIL import ImageDraw

    scale = max(1, round(192 / min(image.size)))
    large = image.resize((image.width * scale, image.height * scale), Image.Resampling.NEAREST)
    y, x = (int(value) * scale for value in corner)
    pen = ImageDraw.Draw(large)
    for width, colour in ((3, "#ffffff"), (1, "#d1232a")):
        pen.rectangle((x, y, x + side * scale - 1, y + side * scale - 1), outline=colour, width=width)
    return large


def _figure(image: Image.Image, caption: str) -> dict[str, str]:
    from ...html.render import inline

    return {"src": inline(image, 224), "caption": caption}
