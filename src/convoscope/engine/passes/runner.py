"""One forward, one backward per rule: the only place where a network is run for an explanation.

A :class:`Runner` belongs to one batch of pictures. It counts what it runs; those counts are the plan that a result
reports. Callers hold :func:`convoscope.engine.passes.untouched.untouched`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from ...errors import LayerError, MethodRefused
from .naming import observe
from .needs import INPUT, Rule
from .relu_rules import backward_rule, relu_nodes

Call = Callable[[nn.Module, Tensor, Tensor], Any]


def call_plainly(network: nn.Module, inputs: Tensor, rows: Tensor) -> Any:
    """``network(inputs)``; models with further inputs bring their own."""
    return network(inputs)


@dataclass
class Captured:
    """A layer's output as it was when the layer returned it (a later in-place operation does not reach it)."""

    value: Tensor
    live: Tensor
    edge: GradientEdge | None


@dataclass
class Recorded:
    """One forward: its output, the layers asked for, and, where gradients were recorded, the graph."""

    leaf: Tensor
    rows: Tensor
    output: Any
    layers: dict[str, Captured]
    gradients: bool

    def live(self) -> dict[str, Tensor]:
        """The layers' outputs with their graph, for targets that are scores of a layer."""
        return {name: captured.live for name, captured in self.layers.items()}


@dataclass
class Runner:
    """Runs ``network``; ``forwards`` and ``backwards`` count, ``relus`` holds the nodes matched in the last graph."""

    network: nn.Module
    batch_size: int = 32
    call: Call = call_plainly
    forwards: int = 0
    backwards: int = 0
    relus: int | None = None
    #: the network prepared for variations of a picture, its row, and itself (:func:`.recompute.prepared`)
    prepared: tuple[Tensor, int, Any] | None = field(default=None, repr=False)
    _graph: tuple[int, list[Any]] | None = field(default=None, repr=False)

    def record(
        self,
        inputs: Tensor,
        *,
        layers: Collection[str] = (),
        gradients: bool = True,
        rows: Tensor | None = None,
        replace: Mapping[str, Callable[[Tensor], Tensor]] | None = None,
    ) -> Recorded:
        """One forward of ``inputs`` ``[B, ...]``, keeping ``layers``.

        Raises :class:`LayerError` where a layer asked for was never reached (a traced or scripted inner module, an
        unused branch) or returned something other than a tensor.
        """
        rows = torch.arange(len(inputs)) if rows is None else rows
        leaf = inputs.detach()
        if gradients and (leaf.is_floating_point() or leaf.is_complex()):
            leaf = leaf.clone().requires_grad_()
        wanted = set(layers) | set(replace or ())
        captured: dict[str, Captured] = {}

        def visit(name: str, output: Any) -> Tensor | None:
            new = None
            if replace and name in replace:
                output = new = replace[name](output)
            if name in layers and isinstance(output, Tensor):
                captured[name] = _capture(output, gradients)
            return new

        self.forwards += 1
        # the network gets a copy: some write into their input, and a leaf cannot be written to
        given = leaf.clone() if gradients else leaf
        with torch.set_grad_enabled(gradients):
            if wanted:
                with observe(self.network, visit, only=wanted):
                    output = self.call(self.network, given, rows)
            else:
                output = self.call(self.network, given, rows)
        missing = [name for name in layers if name not in captured and name != INPUT]
        if missing:
            raise LayerError(_unreached(self.network, missing[0]))
        self._graph = None
        return Recorded(leaf, rows, output, captured, gradients)

    def gradients(
        self, recorded: Recorded, score: Tensor, rule: Rule, at: Sequence[str], *, keep: bool
    ) -> dict[str, Tensor]:
        """The gradient of ``score.sum()`` at every name in ``at`` under one backward rule: one backward pass."""
        if not score.requires_grad or score.grad_fn is None:
            raise MethodRefused(
                "The score has no gradient: the network (or the target) runs under no_grad, in integers, or cuts the "
                "graph with detach(). Methods without gradients still work: occlusion, eigen-cam, rise."
            )
        edges: list[Any] = []
        for name in at:
            if name == INPUT:
                edges.append(recorded.leaf)
                continue
            edge = recorded.layers[name].edge
            if edge is None:
                raise MethodRefused(f"The output of layer {name!r} is not part of the gradient graph.")
            edges.append(edge)
        nodes: list[Any] = []
        if rule != "plain":
            if self._graph is None or self._graph[0] != id(score.grad_fn):
                self._graph = (id(score.grad_fn), relu_nodes([score.grad_fn]))
            nodes = self._graph[1]
            self.relus = len(nodes)
        self.backwards += 1
        with backward_rule(rule, nodes):
            found = torch.autograd.grad(score.sum(), edges, retain_graph=keep, allow_unused=True)
        answers = {}
        for name, gradient in zip(at, found, strict=True):
            if gradient is None:  # the score does not depend on it: the gradient is zero, and the map says so
                like = recorded.leaf if name == INPUT else recorded.layers[name].value
                gradient = torch.zeros_like(like)
            answers[name] = gradient.detach()
        return answers


def _capture(output: Tensor, gradients: bool) -> Captured:
    edge = get_gradient_edge(output) if gradients and output.requires_grad else None
    return Captured(output.detach().clone(), output, edge)


def _unreached(network: nn.Module, name: str) -> str:
    inner = dict(network.named_modules())
    scripted = any(isinstance(module, torch.jit.ScriptModule) for module in inner.values())
    if scripted:
        return (
            f"Layer {name!r} lies inside a traced or scripted module, where layers cannot be watched: "
            "give the original module, or use a method that needs no layer (saliency, guided-backprop, occlusion)."
        )
    return f"Layer {name!r} was not reached in this forward, or does not return one tensor: choose another layer."
