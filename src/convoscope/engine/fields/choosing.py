"""Which of a network's layers stand out: its last grid, its embedding, its classifier, the last tokens that matter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

from convoscope.engine.fields.aliasing import Track
from convoscope.engine.fields.trace import Layer
from convoscope.engine.fields.tracking import Tracker, tensors_in
from convoscope.engine.passes.naming import module_paths, observe, split_name


@dataclass
class Seen:
    """A layer that depends on the picture, and how it came about."""

    name: str
    layer: Layer
    track: Track


def _within(inner: str, outer: str) -> bool:
    """Whether the output ``inner`` was made inside the module of the output ``outer``, or is its own."""
    inner, outer = split_name(inner)[0], split_name(outer)[0]
    return inner == outer or inner.startswith(f"{outer}.")


def _best_name(carriers: list[Seen], stem: str | None) -> str | None:
    """The name for one tensor that several layers carry: the outermost that does not take the network's
    input.

    What only passes the tensor on, such as a dropout in eval mode, is no candidate: all candidates contain
    the place where the tensor was made. ``stem`` is the network's first weighted layer.
    """
    if not carriers:
        return None
    first = carriers[0].name
    made = [c.name for c in carriers if c.name == first or (_within(first, c.name) and c.name != first)]
    inner = [name for name in made if stem is None or not _within(stem, name)]
    candidates = inner or made[:1]
    return min(candidates, key=lambda name: (name.count("."), -candidates.index(name)))


def choose(
    seen: list[Seen], tracker: Tracker, output: Track | None
) -> tuple[str | None, str | None, str | None, tuple[str, ...]]:
    """The last grid, the embedding, the classifier, and the last grids that evidence flows past."""
    first_weights = min(tracker.weighted, default=None)
    stem = next((s.name for s in seen if first_weights is not None and s.track.past >> first_weights & 1), None)
    head = output.head if output is not None else None
    classifier = embedding = None
    end = output.past if output is not None else -1
    through = output.through if output is not None else -1
    if head is not None:
        source = tracker.weighted[head]
        classifier = next((s.name for s in seen if s.track.serial == head), None)
        embedding = _best_name([s for s in seen if s.track.serial == source.serial], stem)
        end, through = source.past, source.through
    grids = [s for s in seen if s.layer.geometry is not None and s.layer.single]
    # one cell tells no place from another: LeNet's last convolution, a ResNet's last stage on 32 pixels
    grids = [s for s in grids if (s.layer.grid or (1, 1)) != (1, 1)] or grids
    before = [s for s in grids if s.track.serial and end >> s.track.serial & 1] or grids
    if not before:
        return None, embedding, classifier, ()

    def name_of(serial: int) -> str | None:
        carriers = [s for s in before if s.track.serial == serial]
        carriers = [s for s in carriers if not s.layer.channels_last] or carriers
        return _best_name(carriers, stem)

    crossed = [s.track.serial for s in before if through >> s.track.serial & 1 and s.track.serial]
    if crossed:
        return name_of(max(crossed)), embedding, classifier, ()
    last = max(s.track.serial for s in before)
    # a grid is the last of its path where it lies in no other grid's past
    ends = {s.track.serial for s in before if s.track.serial}
    for other in before:
        ends = {serial for serial in ends if serial == other.track.serial or not other.track.past >> serial & 1}
    others = [name_of(serial) for serial in sorted(ends - {last})]
    return name_of(last), embedding, classifier, tuple(name for name in others if name is not None)


def last_tokens(
    network: nn.Module,
    inputs: Any,
    call: Callable[[Any], Any] | None,
    layers: list[Layer],
    classifier: str | None,
    last: Layer,
) -> str:
    """The last layer of tokens whose grid the output depends on: ``last`` itself, else the last norm.

    A class token alone feeds the scores of a plain ViT, so that the other tokens of the last block, although they
    have a place, go nowhere: the last ones that matter are what the last attention reads.
    """
    edges: dict[str, Any] = {}
    tokens = {layer.name: layer for layer in layers if layer.prefix_tokens is not None}

    def visit(name: str, output: Any) -> None:
        if isinstance(output, Tensor) and output.requires_grad:
            edges[name] = get_gradient_edge(output)

    given = tuple(inputs) if isinstance(inputs, tuple) else (inputs,)
    first = given[0].detach().clone().requires_grad_()
    head = module_paths(network).get(classifier or "")
    read: list[Any] = []
    # what the classifier reads, not what it says: a fresh head may be all zeros
    handle = head.register_forward_pre_hook(lambda module, args: read.extend(args)) if head is not None else None
    try:
        with torch.enable_grad(), observe(network, visit, only=set(tokens)):
            output = call(first) if call is not None else network(first * 1, *given[1:])
    finally:
        if handle is not None:
            handle.remove()
    with torch.enable_grad():
        output = read or output
        floats = [tensor for tensor in tensors_in(output) if tensor.requires_grad]
        if not floats or not edges:
            return last.name
        # random weights: the plain sum of what a norm gives is constant
        generator = torch.Generator().manual_seed(0)
        weighted = [(t * torch.randn(t.shape, generator=generator).to(t)).sum() for t in floats]
        total = torch.stack([one.float() for one in weighted]).sum()
    found = torch.autograd.grad(total, list(edges.values()), allow_unused=True)
    alive = [
        tokens[name]
        for name, gradient in zip(edges, found, strict=True)
        if gradient is not None and bool(gradient[:, tokens[name].prefix_tokens :].any())
    ]
    alive.sort(key=lambda layer: layer.index)
    if not alive or (last in alive and last.kind != "Linear"):
        return last.name
    norms = [layer for layer in alive if "norm" in layer.kind.casefold()]
    return (norms or alive)[-1].name


def levels_of(seen: list[tuple[str, Tensor]], handed: list[Tensor], layers: dict[str, Layer]) -> tuple[str, ...]:
    """The layers whose outputs are, tensor for tensor, what is handed on; only those whose cells have a place."""
    names = []
    for level in handed if seen else []:
        carriers = [name for name, tensor in seen if tensor is level and layers[name].geometry is not None]
        if carriers:
            names.append(min(carriers, key=lambda name: name.count(".")))
    return tuple(dict.fromkeys(names))
