"""Rules for a ReLU's backward pass, put on the nodes of the recorded autograd graph.

The forward pass is the same for all of them, so one forward serves plain gradients, the deconvnet (Zeiler & Fergus
2014) and guided backpropagation (Springenberg et al. 2015). Nodes are matched, not modules: a module, functional,
method, in-place or shared ReLU all record the same node.

=========  ==========================================
plain      ``g · [x > 0]``
deconvnet  ``g · [g > 0]``
guided     ``g · [x > 0] · [g > 0]``
=========  ==========================================
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from .needs import Rule


def is_relu_node(node: Any) -> bool:
    """Whether an autograd node is that of a ReLU, of a threshold at 0, or of a clamp from 0 such as ReLU6's."""
    name = node.name()
    if name == "ReluBackward0":
        return True
    if name == "ThresholdBackward0":
        return float(node._saved_threshold) == 0.0
    if name == "HardtanhBackward0":
        return float(node._saved_min_val) == 0.0
    if name in ("ClampBackward1", "ClampMinBackward0"):
        low = node._saved_min
        return low is not None and float(low) == 0.0
    return False


def nodes_of(roots: Iterable[Any]) -> Iterator[Any]:
    """Every node of the graphs that end in ``roots``, each once."""
    waiting = [node for node in roots if node is not None]
    seen = set(waiting)
    while waiting:
        node = waiting.pop()
        yield node
        for following, _ in node.next_functions:
            if following is not None and following not in seen:
                seen.add(following)
                waiting.append(following)


def relu_nodes(roots: Iterable[Any]) -> list[Any]:
    """The ReLU-like nodes below ``roots``."""
    return [node for node in nodes_of(roots) if is_relu_node(node)]


def _guided(grad_inputs: tuple[Tensor | None, ...], _: Any) -> tuple[Tensor | None, ...]:
    return tuple(None if g is None else g.clamp(min=0) for g in grad_inputs)


def _deconvnet(grad_inputs: tuple[Tensor | None, ...], grad_outputs: tuple[Tensor | None, ...]) -> Any:
    passed = grad_outputs[0]
    if passed is None:
        return grad_inputs
    return (passed.clamp(min=0), *grad_inputs[1:])


_HOOK = {"guided": _guided, "deconvnet": _deconvnet}


@contextmanager
def backward_rule(rule: Rule, nodes: Iterable[Any]) -> Iterator[None]:
    """Inside the block a backward pass through ``nodes`` (from :func:`relu_nodes`) follows ``rule``."""
    handles: list[torch.utils.hooks.RemovableHandle] = []
    try:
        if rule != "plain":
            handles.extend(node.register_hook(_HOOK[rule]) for node in nodes)
        yield
    finally:
        for handle in handles:
            handle.remove()
