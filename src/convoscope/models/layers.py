"""The table of a network's layers, and the module behind a layer's name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from ..plain import html_table
from .model import Model

if TYPE_CHECKING:
    from ..engine.fields.trace import Layer


class Layers(list[dict[str, Any]]):
    """A row a layer; a notebook shows a table.

    ``input_shape`` is what the network was run on, (channels, rows, columns) of one picture; shapes and receptive
    fields hold for it. ``assumed`` is the sentence for a size that nobody gave, else empty.
    """

    input_shape: tuple[int, ...] = ()
    assumed: str = ""

    def _repr_html_(self) -> str:
        rows = []
        for row in self:
            field = row["rf"]
            size = "" if field is None else "picture" if field["size"] is None else "×".join(map(str, field["size"]))
            shape = "×".join(str(n) for n in row["shape"])
            mark = " ★" if row["default"] else ""
            rows.append(
                [row["name"] + mark, row["type"], shape, f"{row['parameters']:,}" if row["parameters"] else "", size]
            )
        title = f"for an input of {'×'.join(map(str, self.input_shape))}" if self.input_shape else ""
        title += f" ({self.assumed})" if self.assumed else ""
        return html_table(("layer", "type", "output", "parameters", "receptive field"), rows, title=title)


def layers(model: Model) -> Layers:
    """The rows of ``convoscope layers``: name, type, output shape, parameters, receptive field, in execution order.

    ``rf`` holds ``size`` (pixels, ``None``: the whole picture), ``stride`` and ``offset`` (centre of the first cell,
    in input pixels from the first pixel's centre), each (rows, columns); ``None`` where cells have no place.
    """
    watched = model.watched()
    found = Layers(
        {
            "name": layer.name,
            "type": layer.kind,
            "shape": list(layer.shape),
            "parameters": layer.parameters,
            "rf": layer.geometry.to_dict() if layer.geometry is not None else None,
            "default": layer.name in (watched.levels or (watched.last_grid,)),
        }
        for layer in watched.layers.values()
    )
    found.input_shape = tuple(watched.input_shape[1:])
    if model.preprocessing.size is None:
        size = "×".join(map(str, found.input_shape[-2:]))
        found.assumed = (
            f"nobody gave the network's size, so {size} is assumed here: pictures go in at their own size, and shapes "
            "follow it"
        )
    return found


def module_by_name(model: Model, layer: Layer | str) -> nn.Module | None:
    """The module behind a layer's name (repeats share it); ``None`` for a functional operation."""
    name = layer if isinstance(layer, str) else layer.name
    return dict(model.module.named_modules()).get(name.split("#")[0])
