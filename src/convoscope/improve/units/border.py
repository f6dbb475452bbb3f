"""From which layer on the field is larger than the picture, or than the things in it.

A layer whose inputs already see everything can add no context (Richter et al. 2021, "(Input) Size Matters for CNN
Classifiers"): the first such convolution is the *border layer*. The theoretical field comes from the exact geometry;
the effective one (Luo et al. 2016) is measured: where the gradient of a middle cell's units lies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ...engine.passes.untouched import constant_parameters
from ...models.layers import module_by_name
from ...models.model import Model
from ...session import forward, protected

#: layers whose effective field is measured
MEASURED = 8
#: share of the gradient's squares that the effective field holds
HELD = 0.95


@dataclass(frozen=True)
class Field:
    """One layer's field, in input pixels along the side. ``effective`` is None where it was not measured."""

    layer: str
    theoretical: int | None
    effective: float | None

    def to_dict(self) -> dict[str, Any]:
        return {"layer": self.layer, "theoretical": self.theoretical, "effective": self.effective}


@dataclass(frozen=True)
class Border:
    """The border layer of a network on pictures of one size.

    Args:
        side: the input's shorter side.
        layer: the first convolution over space whose input already sees ``side``; None where there is none.
        beyond: the convolutions over space from there on.
        of: all convolutions over space.
        fields: field by layer.
        objects: median side of the things in the pictures, in input pixels; None where that is not known.
    """

    side: int
    layer: str | None
    beyond: tuple[str, ...]
    of: int
    fields: tuple[Field, ...]
    objects: float | None = None

    @property
    def sentence(self) -> str:
        if self.layer is None:
            return f"No layer sees more than the picture's {self.side} pixels before it: none is beyond the border."
        return (
            f"From {self.layer} on {len(self.beyond)} of {self.of} convolutions look at inputs that already see all "
            f"{self.side} pixels: they add depth, and no context (larger pictures would use them)."
        )

    def to_dict(self) -> dict[str, Any]:
        return {
            "side": self.side, "layer": self.layer, "beyond": list(self.beyond), "of": self.of,
            "objects": self.objects, "fields": [one.to_dict() for one in self.fields],
        }  # fmt: skip


def border(model: Model, inputs: Tensor | None, layers: Sequence[str], objects: float | None = None) -> Border | None:
    """The border layer, and the fields of ``layers``.

    Args:
        model: left bit for bit as it was.
        inputs: ``[B, C, H, W]`` for the effective fields; None measures none.
        layers: whose fields are told.
        objects: median side of the things in the pictures, in input pixels.

    Returns:
        None where no layer has a place in the picture.
    """
    watched = model.watched(None if inputs is None else tuple(inputs.shape[1:]))
    placed = [one for one in watched.layers.values() if one.geometry is not None]
    if not placed:
        return None
    side = min(placed[0].geometry.input)  # type: ignore[union-attr]
    before: int | None = 1
    spatial: list[tuple[str, int | None]] = []
    for one in placed:
        kernel = getattr(module_by_name(model, one.name), "kernel_size", None)
        size = _size(one)
        if one.parameters and isinstance(kernel, tuple) and max(kernel) > 1:
            spatial.append((one.name, before))
        if one.kind and one.geometry is not None and next(iter(_children(model, one.name)), None) is None:
            before = size
    beyond = [name for name, seen in spatial if seen is None or seen >= side]
    chosen = [watched.layers[name] for name in layers if name in watched.layers and watched.layers[name].geometry]
    at = np.linspace(0, max(0, len(chosen) - 1), min(MEASURED, len(chosen))).round().astype(int).tolist()
    measured = {} if inputs is None else _effective(model, inputs, [chosen[i] for i in dict.fromkeys(at)])
    fields = tuple(Field(one.name, _size(one), measured.get(one.name)) for one in chosen)
    return Border(side, beyond[0] if beyond else None, tuple(beyond), len(spatial), fields, objects)


def _children(model: Model, name: str) -> Any:
    module = module_by_name(model, name)
    return module.children() if module is not None else iter(())


def _size(layer: Any) -> int | None:
    sizes = (layer.geometry.rows.size, layer.geometry.cols.size)
    return None if None in sizes else max(sizes)


def _effective(model: Model, inputs: Tensor, layers: Sequence[Any]) -> dict[str, float]:
    """Side of the centred square that holds 95 % of the squared gradient of the middle cell, by layer."""
    named = {one.name: one for one in layers if len(one.shape) == 4}
    sums: dict[str, Tensor] = {}
    generator = torch.Generator().manual_seed(0)

    def visit(name: str, output: Tensor) -> None:
        if output.requires_grad and output.dim() == 4:
            value = named[name].layout.planes(output)
            middle = value[:, :, value.shape[2] // 2, value.shape[3] // 2]
            signs = torch.randn(middle.shape[1], generator=generator).to(middle)
            sums[name] = (middle * signs).sum()

    found: dict[str, float] = {}
    with protected(model, visit, set(named), gradients=True), constant_parameters(model.module):
        given = inputs.detach().clone().requires_grad_()
        forward(model, given)
        for name, total in sums.items():
            gradient = torch.autograd.grad(total, given, retain_graph=True, allow_unused=True)[0]
            if gradient is None or not bool(gradient.any()):
                continue
            energy = gradient.double().pow(2).sum((0, 1)).cpu().numpy()
            geometry = named[name].geometry
            row, column = (axis.centres[axis.length // 2] for axis in (geometry.rows, geometry.cols))
            away = np.maximum(
                np.abs(np.arange(energy.shape[0]) - row)[:, None], np.abs(np.arange(energy.shape[1]) - column)[None]
            )
            order = np.argsort(away.ravel(), kind="stable")
            share = np.cumsum(energy.ravel()[order]) / energy.sum()
            found[name] = float(2 * away.ravel()[order][int(np.searchsorted(share, HELD))] + 1)
    return found
