"""One watched forward: every named output, where its cells look, and how many ReLUs there are.

The network's real forward runs once, without gradients, while index probes are carried beside every tensor
(:mod:`convoscope.engine.fields.tracking`). So whatever the network does with Python, views, slices or in-place
writes is followed as it happens, and nothing has to be exported or traced.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

from convoscope.engine.fields.aliasing import Track
from convoscope.engine.fields.geometry import Geometry
from convoscope.engine.fields.layout import Layout
from convoscope.engine.fields.placing import Placed, place, place_tokens
from convoscope.engine.fields.tracking import Tracker, standing_tensors, tensors_in
from convoscope.engine.passes.naming import module_paths, observe, operation_of, split_name
from convoscope.engine.passes.untouched import innermost

#: modules whose channels are the last axis of a sequence
_ON_THE_LAST_AXIS = frozenset({"Linear", "LayerNorm", "RMSNorm", "MultiheadAttention"})


@dataclass(frozen=True)
class Layer:
    """One named output of the forward."""

    name: str
    kind: str
    """The module's type, or the functional operation."""
    shape: tuple[int, ...]
    """Of the first tensor of the output, batch included; empty if there is none."""
    parameters: int
    """Elements of all parameters of the module and its members."""
    functional: bool
    geometry: Geometry | None
    why_no_geometry: str | None
    """What to tell a person, as the end of the sentence "... has no geometry because"."""
    index: int
    """The position in the order of the forward."""
    relu: bool
    """Whether the values come straight from a ReLU-like operation."""
    relus: int
    """How many ReLU-like operations lie between the picture and this output."""
    channels_last: bool
    """Whether a grid is ``[batch, rows, columns, channels]``."""
    single: bool = True
    """Whether the output is one tensor, which can be kept and has a gradient; not a tuple or a dictionary of some."""
    prefix_tokens: int | None = None
    """Of a sequence of tokens ``[batch, tokens, channels]`` that holds a grid: the class and register tokens before
    it. None for everything else."""

    @property
    def has_grid(self) -> bool:
        """Whether the output is a grid of more than one cell for each channel."""
        if self.prefix_tokens is not None:
            return True
        if len(self.shape) != 4:
            return False
        rows, cols = self.shape[1:3] if self.channels_last else self.shape[2:]
        return self.geometry is not None or rows * cols > 1

    @property
    def layout(self) -> Layout:
        """Where the channels and the cells of the output lie."""
        # a linear layer and its norm work on the last axis, whatever the other axes mean
        last = self.channels_last or (len(self.shape) == 3 and self.kind in _ON_THE_LAST_AXIS)
        return Layout(last, self.prefix_tokens, self.geometry.cells if self.geometry is not None else None)

    @property
    def grid(self) -> tuple[int, int] | None:
        """Rows and columns of the output's grid; ``None`` where it has none."""
        if self.prefix_tokens is not None and self.geometry is not None:
            return self.geometry.cells
        if len(self.shape) != 4:
            return None
        rows, cols = self.shape[1:3] if self.channels_last else self.shape[2:]
        return rows, cols

    @property
    def channels(self) -> int:
        """How many channels the output has; 0 where it has none."""
        return self.layout.channels(self.shape)


@dataclass(frozen=True)
class NetworkTrace:
    """What one watched forward has shown of a network, for one shape of input."""

    layers: dict[str, Layer]
    """All named outputs, in the order produced."""
    relus: int
    """ReLU-like operations executed on what depends on the picture."""
    output_relus: int
    """Those of them that the network's output depends on."""
    other_activations: int
    """Activations that no ReLU rule applies to: leaky, smooth, and bounded ones."""
    doubts: tuple[str, ...]
    last_grid: str | None
    """The last layer whose cells still have a place, before the class scores."""
    embedding: str | None
    """The layer whose output, pooled, is what the classifier gets."""
    classifier: str | None
    """The layer that makes the scores; its input is the embedding exactly."""
    input_shape: tuple[int, ...]
    output_shapes: tuple[tuple[int, ...], ...]
    levels: tuple[str, ...] = ()
    """Of a detector: the layers that its heads get, a feature pyramid's levels."""
    handmade: int = 0
    """Gates by a value's own sign that the output depends on, spelt by hand: no rule can be put on them."""
    other_grids: tuple[str, ...] = ()
    """Where no grid is crossed by every path: the last grids of the other paths, beside ``last_grid``."""


@dataclass
class _Visit:
    """What is kept of an output while the forward runs; the rest waits until it is over."""

    name: str
    shape: tuple[int, ...] | None
    """None if the output holds no tensor."""
    track: Track | None
    single: bool


@dataclass
class _Seen:
    """A layer that depends on the picture, and how it came about."""

    name: str
    layer: Layer
    track: Track


class _Visitor:
    """Notes the outputs as they are produced."""

    def __init__(self, tracker: Tracker) -> None:
        self.tracker = tracker
        self.visits: list[_Visit] = []
        self.kept: list[tuple[str, Tensor]] | None = None
        """The outputs themselves, where somebody has to know them again."""

    def __call__(self, name: str, output: Any) -> None:
        self.tracker.paused = True
        try:
            with torch._C.DisableTorchFunction():
                tensor = next(iter(tensors_in(output)), None)
                track = None if tensor is None else self.tracker.track(tensor)
            if self.kept is not None and isinstance(output, Tensor):
                self.kept.append((name, output))
            shape = None if tensor is None else tuple(tensor.shape)
            self.visits.append(_Visit(name, shape, track, isinstance(output, Tensor)))
        finally:
            self.tracker.paused = False


def _layers(network: nn.Module, tracker: Tracker, visits: list[_Visit]) -> list[tuple[Layer, Track | None]]:
    """The layers of what was visited."""
    paths = module_paths(network)
    places: dict[tuple[int, int, tuple[int, ...]], Placed] = {}
    tokens: dict[int, tuple[Geometry, int] | None] = {}
    layers: list[tuple[Layer, Track | None]] = []
    for visit in visits:
        track, shape = visit.track, visit.shape or ()
        if visit.shape is None:
            found: Placed = (None, False, "its output holds no tensor")
        elif track is None:
            found = (None, False, "its output does not depend on the picture")
        else:
            key = (id(track.rows), id(track.cols), shape)  # norms and activations share their input's probes
            if key not in places:
                places[key] = place(track, shape, tracker.size, tracker.unknown_in(track.past))
            found = places[key]
        module = paths.get(visit.name) or paths.get(split_name(visit.name)[0])
        leaf = module is None or next(module.children(), None) is None
        before = None
        if found[0] is None and track is not None and len(shape) == 3:
            if id(track) not in tokens:
                tokens[id(track)] = place_tokens(track, shape, tracker.size, tracker.batch)
            if (sequence := tokens[id(track)]) is not None:
                found, before = (sequence[0], False, None), sequence[1]
        layer = Layer(
            name=visit.name,
            kind=type(module).__name__ if module is not None else operation_of(visit.name) or "",
            shape=shape,
            parameters=sum(p.numel() for p in module.parameters()) if module is not None else 0,
            functional=module is None,
            geometry=found[0],
            channels_last=found[1],
            why_no_geometry=found[2],
            index=len(layers),
            relu=track is not None and track.relu and leaf,
            relus=tracker.relus_in(track.past) if track is not None else 0,
            prefix_tokens=before,
            single=visit.single,
        )
        layers.append((layer, track))
    return layers


def _within(inner: str, outer: str) -> bool:
    """Whether the output ``inner`` was made inside the module of the output ``outer``, or is its own."""
    inner, outer = split_name(inner)[0], split_name(outer)[0]
    return inner == outer or inner.startswith(f"{outer}.")


def _best_name(carriers: list[_Seen], stem: str | None) -> str | None:
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


def _choose(
    seen: list[_Seen], tracker: Tracker, output: Track | None
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


class _Enough(BaseException):
    """Ends a watched forward where nothing that follows has a place in the picture."""

    def __init__(self, output: Any) -> None:
        super().__init__()
        self.output = output


def trunk(network: nn.Module) -> nn.Module | None:
    """The part of a detector whose cells have a place: torchvision's ``backbone``; ``None`` for other networks.

    What follows cuts, sorts and thins out thousands of boxes, class by class, which would take a minute to follow.
    """
    inner = innermost(network)
    if any(kind.__module__.startswith("torchvision.models.detection.") for kind in type(inner).__mro__):
        backbone = getattr(inner, "backbone", None)
        return backbone if isinstance(backbone, nn.Module) else None
    return None


def _principal(output: Any) -> Any:
    """What of an output the scores are: of detections their scores, else all of it."""
    if isinstance(output, (list, tuple)) and output and isinstance(output[0], dict) and "scores" in output[0]:
        return output[0]["scores"]
    return output


def watch(
    network: nn.Module,
    inputs: Tensor | tuple[Any, ...],
    *,
    call: Callable[[Any], Any] | None = None,
    until: nn.Module | None = None,
) -> NetworkTrace:
    """Run one forward without gradients and say what is in the network.

    The caller has put the network into eval mode and protects its state. About half a second for a network of
    the usual size at 224 x 224 pixels; the result depends on the shape of the input alone, so it can be kept.

    Args:
        network: any module.
        inputs: its input, or a tuple of positional arguments. The first tensor is the picture, its last two
            dimensions are rows and columns.
        call: how the network is run on ``inputs``, where it is not just called with them.
        until: the member after which the forward may end (see :func:`trunk`).

    Raises:
        Whatever the network's own forward raises.
    """
    trace, strangers = _watch(network, inputs, call, until, frozenset())
    if strangers:
        # what came from nowhere: made of the picture (by NumPy), or the same whatever the picture?
        again = _watch(network, _otherwise(inputs), call, until, frozenset())[1]
        fixed = frozenset(
            number
            for number, (one, other) in enumerate(zip(strangers, again, strict=False))
            if one.shape == other.shape and torch.equal(one, other)
        )
        if fixed:
            trace = _watch(network, inputs, call, until, fixed)[0]
    return trace


def _otherwise(inputs: Any) -> Any:
    """The same inputs with another picture: turned, dimmed, and uneven."""
    if isinstance(inputs, tuple):
        return (_otherwise(inputs[0]), *inputs[1:])
    if not isinstance(inputs, Tensor) or not inputs.is_floating_point():
        return inputs
    ramp = torch.linspace(0.5, 1.5, inputs.shape[-1], device=inputs.device, dtype=inputs.dtype)
    return (inputs.flip(-1) * 0.7 + 0.3) * ramp


def _watch(
    network: nn.Module,
    inputs: Tensor | tuple[Any, ...],
    call: Callable[[Any], Any] | None,
    until: nn.Module | None,
    fixed: frozenset[int],
) -> tuple[NetworkTrace, list[Tensor]]:
    """One watched forward, and the tensors that came in from nowhere."""
    pictures = tensors_in(inputs)
    size = (int(pictures[0].shape[-2]), int(pictures[0].shape[-1])) if pictures[0].dim() >= 3 else (1, 1)
    tracker = Tracker(size, standing_tensors(network), int(pictures[0].shape[0]), fixed)
    for picture in pictures:
        tracker.picture(picture)
    visitor = _Visitor(tracker)
    visitor.kept = None if until is None else []

    def stop(module: nn.Module, args: Any, output: Any) -> None:
        raise _Enough(output)

    with torch.no_grad(), observe(network, visitor), tracker:
        handle = until.register_forward_hook(stop) if until is not None else None
        try:
            if call is not None:
                output = call(inputs)
            else:
                output = network(*inputs) if isinstance(inputs, tuple) else network(inputs)
        except _Enough as enough:
            output = enough.output
        finally:
            if handle is not None:
                handle.remove()
    outputs = tensors_in(output)
    principal = [track for track in map(tracker.track, tensors_in(_principal(output))) if track is not None]
    tracks = [track for track in map(tracker.track, outputs) if track is not None]
    scores = next((track for track in principal if track.head is not None), tracks[0] if tracks else None)
    layers = _layers(network, tracker, visitor.visits)
    seen = [_Seen(layer.name, layer, track) for layer, track in layers if track is not None]
    last_grid, embedding, classifier, other_grids = _choose(seen, tracker, scores)
    by_name = {layer.name: layer for layer, _ in layers}
    if last_grid is not None and by_name[last_grid].prefix_tokens is not None:
        last_grid = last_tokens(network, inputs, call, list(by_name.values()), classifier, by_name[last_grid])
    past = 0
    for track in tracks:
        past |= track.past
    levels = _levels(visitor.kept or [], outputs, by_name)
    if levels:
        last_grid = levels[0]  # the finest; which of them fed a detection depends on the detection
    trace = NetworkTrace(
        layers=by_name,
        relus=tracker.relus,
        output_relus=tracker.relus_in(past),
        other_activations=tracker.other_activations,
        doubts=_doubts(tracker, past, bool(outputs), bool(tracks)),
        last_grid=last_grid,
        embedding=embedding,
        classifier=classifier,
        input_shape=tuple(pictures[0].shape),
        output_shapes=tuple(tuple(tensor.shape) for tensor in outputs),
        levels=levels,
        handmade=tracker.handmade_in(past),
        other_grids=() if levels else other_grids,
    )
    return trace, tracker.strangers


def _levels(seen: list[tuple[str, Tensor]], handed: list[Tensor], layers: dict[str, Layer]) -> tuple[str, ...]:
    """The layers whose outputs are, tensor for tensor, what is handed on; only those whose cells have a place."""
    names = []
    for level in handed if seen else []:
        carriers = [name for name, tensor in seen if tensor is level and layers[name].geometry is not None]
        if carriers:
            names.append(min(carriers, key=lambda name: name.count(".")))
    return tuple(dict.fromkeys(names))


def _doubts(tracker: Tracker, past: int, any_output: bool, tracked: bool) -> tuple[str, ...]:
    doubts = []
    unknown = tracker.unknown_in(past)
    if unknown:
        doubts.append(
            f"the geometry does not know the operation {', '.join(unknown)}: "
            "what comes after it is taken to see the whole picture"
        )
    if tracker.lost:
        doubts.append(
            "values entered the forward that torch did not compute (NumPy inside the network?): "
            "where they come from in the picture is not known"
        )
    if any_output and not tracked:
        doubts.append("the output lost its track: nothing that torch computed leads from the picture to it")
    return tuple(doubts)
