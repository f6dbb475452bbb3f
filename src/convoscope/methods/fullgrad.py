"""FullGrad: the input's and every bias's share of the score (Srinivas & Fleuret 2019)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ..engine.passes.needs import Gradient, Scores
from ..errors import MethodRefused
from .base import About, Method, Query, setting

if TYPE_CHECKING:
    from torch import Tensor, nn

    from .base import Steps


@dataclass(frozen=True)
class FullGrad(Method):
    """Input × gradient plus bias × gradient of every layer, each as a map (Srinivas & Fleuret 2019).

    On piecewise-linear networks the parts sum to the score; the residual stands in the result. Biases are paired with
    the layers that use them by name, in whatever order they were registered. Batch norm's effective bias is
    β − γ·μ/√(σ² + ε). ``rescale`` is the paper's ψ: |·| of each part scaled to 0..1 before summing.
    """

    about: ClassVar[About] = About(
        name="fullgrad",
        title="FullGrad",
        shows="every place, at every layer, that the score came through",
        paper="Srinivas, Fleuret: Full-Gradient Representation. NeurIPS 2019",
        bibtex=(
            "@inproceedings{srinivas2019full, title={Full-Gradient Representation for Neural Network Visualization}, "
            "author={Srinivas, Suraj and Fleuret, Fran{\\c c}ois}, booktitle={NeurIPS}, year={2019}}"
        ),
        signed=False,
        unit="sum of rescaled parts",
        reduction="sum of |part| over the input and all channels of all layers",
    )
    rescale: bool = setting(True, "scale each channel's |part| to 0..1, as the paper does")

    def steps(self, query: Query) -> Steps:
        if query.inputs.ndim != 4:
            raise MethodRefused("FullGrad draws maps of single pictures, not of volumes: use integrated-gradients.")
        biases = {name: bias for name, bias in _biases(query).items() if bias is not None}
        if not query.watched.layers:
            raise MethodRefused(f"{query.model.name} has no named layers: FullGrad needs its biases.")
        at_input, score = Gradient(), Scores()
        at_layers = {name: Gradient(name) for name in biases}
        got = yield (at_input, score, *at_layers.values())
        part = (got[at_input] * query.inputs).float().cpu()
        total = part.flatten(1).sum(1)
        values = self._shown(part).sum(1)
        for name, need in at_layers.items():
            gradient = got[need].float().cpu()
            layer = query.watched.layers[name]
            # a linear layer's channels come last, whatever its output's shape; a convolution's second
            channel_axis = -1 if layer.kind == "Linear" or layer.channels_last else 1
            bias = biases[name].float().cpu()
            shape = [1] * gradient.ndim
            shape[channel_axis] = -1
            part = gradient * bias.view(shape)
            # windows and heads may stand in the batch, behind the picture they belong to
            total = total + part.reshape(len(query.inputs), -1).sum(1)
            if gradient.ndim == 4 and layer.has_grid and len(gradient) == len(query.inputs):
                planes = query.planes(name, part)
                drawn, _ = query.resample(self._shown(planes).sum(1), name)
                values = values + drawn
        unit = self.about.unit if self.rescale else "score"
        maps = query.pixels(values[:, None], signed=False, unit=unit)
        maps.raw, maps.reduction = None, self.about.reduction
        want = got[score].cpu()
        residual = ((total - want).abs() / want.abs().clamp(min=1e-6)).tolist()
        maps.fact("completeness_residual", residual)
        for row, share in enumerate(residual):
            if share > 0.05:
                maps.doubt(
                    row,
                    f"Completeness: input and biases miss {share:.0%} of the score: the network is not piecewise "
                    "linear, or holds biases that no module owns.",
                )
        return maps

    def _shown(self, part: Tensor) -> Tensor:
        """ψ of the paper on ``[B, C, h, w]``: |·|, each channel scaled to 0..1."""
        part = part.abs()
        if not self.rescale:
            return part
        flat = part.flatten(2)
        low, high = flat.amin(2)[:, :, None, None], flat.amax(2)[:, :, None, None]
        return (part - low) / (high - low).clamp(min=1e-12)


def _biases(query: Query) -> dict[str, Tensor | None]:
    """The effective bias of every layer that was run, by layer name."""
    from ..engine.passes.naming import module_paths

    # by the names of the watched forward, which are the same for a compiled network
    modules = module_paths(query.model.module)
    found: dict[str, Tensor | None] = {}
    for layer in query.watched.layers.values():
        module = None if layer.functional else modules.get(layer.name.partition("#")[0])
        if module is not None:
            found[_norm_inside(layer.name, query)] = effective_bias(module)
    return found


def _norm_inside(name: str, query: Query) -> str:
    """Where the bias is added: a norm that holds its own activation (timm's BatchNormAct2d) adds it before that."""
    module, _, repeat = name.partition("#")
    inner = f"{module}.batch_norm" + (f"#{repeat}" if repeat else "")
    return inner if inner in query.watched.layers else name


def effective_bias(module: nn.Module) -> Tensor | None:
    """What a module adds whatever its input: a convolution's or linear layer's bias, batch norm's shift."""
    from torch import nn

    if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
        return None if module.bias is None else module.bias.detach()
    # by class name: torchvision's frozen batch norm and timm's norm-and-activation layers are not nn.BatchNorm2d
    is_norm = isinstance(module, nn.BatchNorm2d) or type(module).__name__ == "FrozenBatchNorm2d"
    mean, variance = getattr(module, "running_mean", None), getattr(module, "running_var", None)
    if is_norm and mean is not None and variance is not None:
        norm: Any = module
        bias = 0 if norm.bias is None else norm.bias.detach()
        weight = 1 if norm.weight is None else norm.weight.detach()
        return bias - weight * mean / (variance + norm.eps).sqrt()  # type: ignore[no-any-return]
    return None
