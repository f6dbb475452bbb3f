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

from convoscope.engine.fields.aliasing import Track
from convoscope.engine.fields.choosing import Seen, choose, last_tokens, levels_of
from convoscope.engine.fields.geometry import Geometry
from convoscope.engine.fields.placing import Placed, place, place_tokens
from convoscope.engine.fields.trace import Layer, NetworkTrace
from convoscope.engine.fields.tracking import Tracker, standing_tensors, tensors_in
from convoscope.engine.passes.naming import module_paths, observe, operation_of, split_name
from convoscope.engine.passes.untouched import innermost


@dataclass
class _Visit:
    """What is kept of an output while the forward runs; the rest waits until it is over."""

    name: str
    shape: tuple[int, ...] | None
    """None if the output holds no tensor."""
    track: Track | None
    single: bool


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
    seen = [Seen(layer.name, layer, track) for layer, track in layers if track is not None]
    last_grid, embedding, classifier, other_grids = choose(seen, tracker, scores)
    by_name = {layer.name: layer for layer, _ in layers}
    if last_grid is not None and by_name[last_grid].prefix_tokens is not None:
        last_grid = last_tokens(network, inputs, call, list(by_name.values()), classifier, by_name[last_grid])
    past = 0
    for track in tracks:
        past |= track.past
    levels = levels_of(visitor.kept or [], outputs, by_name)
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
