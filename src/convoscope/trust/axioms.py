"""What a map promises by its definition: that its parts make up the score, and that it explains the function, not
the way it is written."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from ..engine.passes.untouched import innermost, lock_of
from ..errors import MethodRefused, ModelError
from ..explanation import MethodLike, explain
from ..methods import method as method_of
from ..methods.gradients import baseline
from ..models.model import Model
from ..session import forward, protected
from ..targets import TargetLike
from .scoring import scoring


@dataclass(frozen=True)
class Completeness:
    """``total`` is what the map sums to, ``owed`` what it should; ``residual`` their distance as a share of
    ``owed``."""

    total: float
    owed: float

    @property
    def residual(self) -> float:
        return abs(self.total - self.owed) / max(abs(self.owed), 1e-6)


def completeness(
    model: Model, picture: Any, methods: Sequence[MethodLike], *, target: TargetLike = None
) -> dict[str, Completeness]:
    """What each method's map sums to beside what its definition owes, for methods that promise a sum.

    Integrated gradients owe score(x) − score(baseline) (Sundararajan et al. 2017); CAM's mean and the class's bias
    owe the score (Zhou et al. 2016); input × gradient owes the score only where the network has no biases, and its
    residual says how far that is from true. Methods that promise nothing are left out.
    """
    listed = [method_of(one) for one in methods]
    found = explain(model, picture, listed, target=target)
    from .sanity import target_of

    wanted = target_of(model, found) if target is None else target
    result = {}
    with scoring(model, found.fitted, wanted, probability=False) as scored:
        for one in listed:
            name = one.about.name
            if name not in found:
                continue
            heatmap = found[name]
            total = float(np.asarray(heatmap.values, np.float64).sum())
            if name == "integrated-gradients":
                query: Any = _Start(model, scored.inputs)
                start = baseline(query, str(heatmap.provenance["settings"]["baseline"]))
                result[name] = Completeness(total, scored.whole - float(scored.at(start)[0]))
            elif name in ("input-x-gradient", "lrp"):
                result[name] = Completeness(total, scored.whole)
            elif name == "cam" and heatmap.grid is not None:
                bias = float(heatmap.facts.get("bias", 0.0))
                result[name] = Completeness(float(heatmap.grid.mean()) + bias, scored.whole)
    return result


@dataclass(frozen=True, eq=False)
class _Start:
    """What :func:`convoscope.methods.gradients.baseline` looks at."""

    model: Model
    inputs: Any


def rewritten(model: Model) -> Model:
    """The same function written differently: traced into a graph, batch norms folded into the convolutions.

    A copy; the user's network stays as it is. Raises :class:`~convoscope.errors.ModelError` where the network cannot
    be traced (its code branches on data).
    """
    from torch import fx
    from torch.nn.utils.fusion import fuse_conv_bn_eval

    with lock_of(model.module):
        try:
            traced = fx.symbolic_trace(copy.deepcopy(innermost(model.module)).eval())
        except Exception as error:
            said = str(error).strip().splitlines()[0][:160] if str(error).strip() else type(error).__name__
            raise ModelError(f"{model.name} cannot be rewritten as a graph ({said}).") from error
    modules = dict(traced.named_modules())
    for node in list(traced.graph.nodes):
        before = node.args[0] if node.args else None
        if node.op != "call_module" or not isinstance(modules[node.target], nn.BatchNorm2d):
            continue
        if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) > 1:
            continue
        convolution = modules[str(before.target)]
        if isinstance(convolution, nn.Conv2d):
            fused = fuse_conv_bn_eval(convolution, modules[node.target])
            modules[str(before.target)] = fused
            _put(traced, str(before.target), fused)
            node.replace_all_uses_with(before)
            traced.graph.erase_node(node)
    traced.delete_all_unused_submodules()
    traced.recompile()
    return replace(
        model,
        module=traced,
        call=model.call,
        _watched={},
        _graphs={},
        _fingerprint=None,
        name=f"{model.name}, rewritten",
    )


def _put(network: nn.Module, name: str, module: nn.Module) -> None:
    owner, _, leaf = name.rpartition(".")
    setattr(network.get_submodule(owner), leaf, module)


def implementation_invariance(
    model: Model,
    picture: Any,
    methods: Sequence[MethodLike],
    *,
    other: Model | None = None,
    target: TargetLike = None,
) -> dict[str, float]:
    """The largest difference between a method's maps of two networks that are the same function, as a share of the
    map's largest value; zero is invariance (Sundararajan et al. 2017).

    ``other`` is :func:`rewritten` unless given. Raises :class:`~convoscope.errors.MethodRefused` where the two do not
    give the same scores. Methods that look at layers may differ where folding moved the layer's boundary.
    """
    other = other or rewritten(model)
    fitted = model.prepare(picture)
    inputs = model.inputs([fitted])
    outputs = []
    for one in (model, other):
        with protected(one), torch.no_grad():
            outputs.append(torch.as_tensor(forward(one, inputs)).float())
    gap = float((outputs[0] - outputs[1]).abs().max()) / max(float(outputs[0].abs().max()), 1e-6)
    if gap > 1e-3:
        raise MethodRefused(
            f"{model.name} and {other.name} are not the same function: their outputs differ by {gap:.1%}."
        )
    from .sanity import target_of

    first = explain(model, picture, list(methods), target=target)
    wanted = target_of(model, first) if target is None else target
    second = explain(other, picture, list(methods), target=wanted)
    found = {}
    for name in first:
        if name in second:
            a, b = (np.nan_to_num(one[name].values.astype(np.float64)) for one in (first, second))
            found[name] = float(np.abs(a - b).max() / max(np.abs(a).max(), 1e-30))
    return found
