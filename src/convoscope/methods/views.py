"""Views of the network itself: the filters of a convolution, and what every channel of a layer makes of a picture.

They explain no score, so they are functions, not methods: what comes back is a sheet to look at.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any, Literal

from ..errors import LayerError, UsageError

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from ..draw.sheet import Sheet
    from ..models.model import Model


def filters(model: Model | torch.nn.Module | str, layer: str | None = None, *, limit: int | None = None) -> Sheet:
    """The weights of a convolution as pictures (Zeiler & Fergus 2014 show the first layer's so).

    Args:
        model: an open model, a module, or a spec.
        layer: a 2-D convolution; None is the first, whose filters on three input channels are drawn in colour. Deeper
            ones get a row each, a tile an input channel; 1×1 kernels one matrix.
        limit: filters shown at most; the sheet says how many it leaves out.

    Returns:
        A sheet on one scale, symmetrical about zero.

    Raises:
        LayerError: there is no such layer, or it is no 2-D convolution.
    """
    from ..draw import grid

    model = _opened(model)
    name, weights = filter_weights(model, layer)
    count, depth, height, width = weights.shape
    title = f"{model.name} · {name}: {count} filters of {depth}×{height}×{width}"
    return grid.filters(weights, title=title, limit=limit, footnote=" ".join(model.notes))


def filter_weights(model: Model, layer: str | None = None) -> tuple[str, NDArray[Any]]:
    """The name and the weights ``[outputs, inputs, rows, columns]`` of a convolution; the first for ``None``."""
    from torch import nn

    # nn.Module.named_modules names a shared module once, under its first name: enough to look at its weights
    found = {
        name or type(module).__name__: module
        for name, module in model.module.named_modules()
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d))
    }
    if not found:
        raise LayerError(f"{model.name} has no 2-D convolution, so there are no filters to show.")
    if layer is None:
        layer = next(iter(found))
    name = layer.split("#")[0]
    if name not in found:
        inside = [other for other in found if other.startswith(f"{name}.")]
        near = inside[:3] or difflib.get_close_matches(name, list(found), 3, 0.3) or list(found)[:3]
        known = any(other == name for other, _ in model.module.named_modules())
        what = "is not a convolution" if known else "does not exist"
        raise LayerError(f"Layer {layer!r} {what}. Convolutions nearest to it: {', '.join(near)}.")
    module = found[name]
    weights = module.weight.detach().float().cpu()
    if isinstance(module, nn.ConvTranspose2d):
        weights = weights.transpose(0, 1)
    return name, weights.numpy()


def activations(
    model: Model | torch.nn.Module | str,
    picture: Any,
    layer: str | None = None,
    *,
    scale: Literal["own", "shared"] = "own",
    limit: int = 64,
) -> Sheet:
    """What every channel of a layer responds to in one picture, strongest first.

    Args:
        model: an open model, a module, or a spec.
        picture: a path, PIL image, array, tensor or :class:`Picture`.
        layer: None is the last grid before the class scores.
        scale: ``own`` gives every channel its own colours, so that weak ones can be read; ``shared`` one scale for all,
            so that strengths compare.
        limit: channels shown at most.

    Returns:
        A sheet: a tile a channel, at the layer's own resolution; strength is the mean of |activation| over the map.

    Raises:
        LayerError: the layer is unknown, or has no rows and columns.
        PictureError: the picture cannot be read.
    """
    from ..draw import grid

    if scale not in ("own", "shared"):
        raise UsageError(f"scale must be own or shared, not {scale!r}.")
    model = _opened(model)
    name, values, title = layer_activations(model, picture, layer)
    order = abs(values).mean((1, 2)).argsort(kind="stable")[::-1]
    return grid.tiles(
        values[order],
        names=[str(channel) for channel in order],
        scale=scale,
        title=f"{model.name} · {name}: {len(values)} channels of {values.shape[1]}×{values.shape[2]} on {title}",
        unit="activation",
        limit=limit,
        footnote=" ".join(["Sorted by the mean of |activation|, strongest first.", *model.notes]),
    )


def layer_activations(model: Model, picture: Any, layer: str | None = None) -> tuple[str, NDArray[Any], str]:
    """The layer's name, its output on the picture as float32 ``[C, h, w]``, and the picture's name."""
    from ..session import Session
    from .base import Query

    fitted = model.prepare(picture)
    session = Session(model, [fitted], gradients=False)
    query = Query(model, session.batch, [fitted], model.watched(tuple(session.batch.shape[1:])))
    name = query.layer(layer)
    with session:
        recorded = session.record(layers=[name])
    values = query.planes(name, recorded.layers[name].value)
    return name, values[0].float().cpu().numpy(), fitted.picture.name


def _opened(model: Model | torch.nn.Module | str) -> Model:
    from ..models.model import Model as Opened
    from ..models.opening import open_model

    return model if isinstance(model, Opened) else open_model(model)
