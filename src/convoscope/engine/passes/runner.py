"""One forward, one backward per rule: the only place where a network is run for an explanation.

A :class:`Runner` belongs to one batch of pictures. It counts what it runs; those counts are the plan that a result
reports. Callers hold :func:`convoscope.engine.passes.untouched.untouched`.
"""

from __future__ import annotations

import re
import traceback
import weakref
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge
from torch.utils._pytree import tree_leaves, tree_map

from ...errors import ConvoscopeError, LayerError, MethodRefused, ModelError
from .agreement import differ, rounding, rows_of, same
from .cuts import Cuts
from .memory_format import bears_backwards, counted, known, pays_backwards, worth_trying
from .naming import observe
from .needs import INPUT, Rule
from .relu_rules import backward_rule, relu_nodes
from .untouched import innermost

Call = Callable[[nn.Module, Tensor, Tensor], Any]


def call_plainly(network: nn.Module, inputs: Tensor, rows: Tensor) -> Any:
    """``network(inputs)``; models with further inputs bring their own."""
    return network(inputs)


@dataclass
class Captured:
    """A layer's output as it was when the layer returned it: a later in-place operation reaches neither of the two.

    ``value`` has no graph; ``live`` has, for scores that are made of the layer.
    """

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
    name: str = "The network"
    forwards: int = 0
    backwards: int = 0
    relus: int | None = None
    #: whether the network cuts the gradient graph (:mod:`.cuts`); found out in the first forward with gradients
    cut: bool | None = None
    #: each picture is run alone, because others in its batch would change its scores
    apart: bool = False
    #: the network prepared for variations of a picture, its row, and itself (:func:`.recompute.prepared`)
    prepared: tuple[Tensor, int, Any] | None = field(default=None, repr=False)
    #: what targets have found out at the cost of a forward, for others that ask the same
    memo: dict[Any, Any] = field(default_factory=dict, repr=False)
    _graph: tuple[int, list[Any]] | None = field(default=None, repr=False)

    def record(
        self,
        inputs: Tensor,
        *,
        layers: Collection[str] = (),
        gradients: bool = True,
        rows: Tensor | None = None,
        replace: Mapping[str, Callable[[Tensor], Tensor]] | None = None,
        followed: bool = False,
    ) -> Recorded:
        """One forward of ``inputs`` ``[B, ...]``, keeping ``layers``.

        ``followed``: somebody follows every operation (a mode of torch), and must see one forward and nothing else.
        Raises :class:`ModelError` where the network itself raised, :class:`LayerError` where a layer asked for was
        never reached (a traced or scripted inner module, an unused branch) or returned something other than a tensor.
        """
        rows = torch.arange(len(inputs)) if rows is None else rows
        leaf = inputs.detach()
        if gradients and (leaf.is_floating_point() or leaf.is_complex()):
            leaf = leaf.clone().requires_grad_()
        self.forwards += 1
        run = partial(self._record, leaf, rows, layers, gradients, replace or {})
        pays = worth_trying(self.network, leaf) and (not gradients or pays_backwards(self.network, leaf))
        if not followed and pays and (not replace or self.network in known):
            state = torch.get_rng_state()
            found = self._channels_last(run, leaf, rows, gradients)
            if found is not None:
                return found
            torch.set_rng_state(state)  # as if nothing had been tried
            usual = run(torch.preserve_format)
            known.setdefault(self.network, torch.contiguous_format)  # it runs, but not so
            return usual
        return run(torch.preserve_format)

    def _channels_last(
        self, run: Callable[[torch.memory_format], Recorded], leaf: Tensor, rows: Tensor, gradients: bool
    ) -> Recorded | None:
        """One forward with the channels last in memory; none where nothing is gained or the network minds, as noted."""
        network = self.network
        try:
            found = run(torch.channels_last)
        except ModelError:  # it minds, or it cannot run on these at all: then nothing is known
            return None
        if network not in known:
            state = torch.get_rng_state()
            try:
                with torch.no_grad(), counted(network, leaf[:1]):
                    usual = self.call(network, leaf[:1].detach().clone(), rows[:1])
            except Exception:  # whatever a network raises at one picture: it is asked as it is used to
                return None
            torch.set_rng_state(state)
            agree = same(usual, found.output, leaf.dtype, len(leaf))
            known[network] = torch.channels_last if agree else torch.contiguous_format
        if gradients and known[network] is torch.channels_last:
            bears_backwards(network, found.output)
        pays = known[network] is torch.channels_last and (not gradients or pays_backwards(network, leaf))
        return found if pays else None

    def _record(
        self,
        leaf: Tensor,
        rows: Tensor,
        layers: Collection[str],
        gradients: bool,
        replace: Mapping[str, Callable[[Tensor], Tensor]],
        memory_format: torch.memory_format,
    ) -> Recorded:
        """One forward in one memory format; whatever the network does inside, what it leaves lies as it is used to."""
        wanted = set(layers) | set(replace)
        captured: dict[str, Captured] = {}
        faults: list[Exception] = []  # of what was put in a layer's place, which are no fault of the network
        last = memory_format is torch.channels_last

        def visit(name: str, output: Any) -> Tensor | None:
            new = None
            if name in replace:
                try:
                    output = new = replace[name](output)
                except Exception as error:
                    faults.append(error)
                    raise
            if name in layers and isinstance(output, Tensor):
                captured[name] = _capture(output, gradients, last)
            return new

        # the network gets a copy: some write into their input, and a leaf cannot be written to
        given = leaf.clone(memory_format=memory_format) if gradients or last else leaf
        cuts = Cuts() if gradients and self.cut is None else None
        with torch.set_grad_enabled(gradients), cuts or nullcontext():
            try:
                if wanted:
                    with observe(self.network, visit, only=wanted):
                        output = self.call(self.network, given, rows)
                else:
                    output = self.call(self.network, given, rows)
            except ConvoscopeError:
                raise
            except Exception as error:
                if error in faults:
                    raise
                raise ModelError(forward_failed(self.name, tuple(leaf.shape[1:]), error, len(leaf))) from error
            if last:
                output = _contiguous(output)
        if cuts is not None:
            self.cut = cuts.cut(output)
        missing = [name for name in layers if name not in captured and name != INPUT]
        if missing:
            raise LayerError(_unreached(self.network, missing[0]))
        self._graph = None
        return Recorded(leaf, rows, output, captured, gradients)

    def keep_apart(self, inputs: Tensor, base: Recorded | None = None) -> bool:
        """Whether pictures of one batch influence each other; from then on each is run alone (``apart``).

        Found out once a network, by one picture alone and beside another. ``inputs`` are some pictures ``[B, ...]``;
        ``base`` is what they gave, where they have been run.
        """
        coupled = _apart.get(innermost(self.network))
        if coupled is None:
            alone = base.output if base is not None and len(inputs) == 1 else None
            coupled = _apart[innermost(self.network)] = self._influenced(inputs[:1].detach(), alone)
        if coupled:
            self.apart, self.batch_size = True, 1
        return self.apart

    def _influenced(self, picture: Tensor, output: Any = None) -> bool:
        row = torch.zeros(1, dtype=torch.long)
        # the other picture's spread and mean differ, whatever the first one shows
        pair = torch.cat([picture, picture.flip(-1) * 2 + 1])
        if output is not None and known.get(self.network) is torch.channels_last:
            pair = pair.contiguous(memory_format=torch.channels_last)
        try:
            with torch.no_grad():
                alone = rows_of(self.call(self.network, picture.clone(), row) if output is None else output, 1)
                beside = rows_of(self.call(self.network, pair, row.expand(2)), 2)
                if len(alone) != len(beside):
                    return False
                moved = [
                    differ(one, other, rounding(picture.dtype)) for one, other in zip(alone, beside, strict=True)
                ]
                if not any(moved):
                    return False
                if output is not None:  # it was made in another way: both as the network is used to
                    return self._influenced(picture)
                # a network that draws at random differs from itself
                again = rows_of(self.call(self.network, picture.clone(), row), 1)
        except Exception:  # what cannot be run so says so when it is asked
            return False
        return len(again) == len(alone) and any(
            other and torch.equal(one, twice) for other, one, twice in zip(moved, alone, again, strict=True)
        )

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
                raise MethodRefused(
                    f"Layer {name!r} runs under no_grad or is cut off by detach(), so the score has no gradient there: "
                    "use eigen-cam, score-cam, ablation-cam or occlusion."
                )
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
            answers[name] = gradient.detach().contiguous()
        return answers


#: whether the pictures of a batch influence each other, by network
_apart: weakref.WeakKeyDictionary[nn.Module, bool] = weakref.WeakKeyDictionary()


def _contiguous(output: Any) -> Any:
    """Outputs ``[B, C, H, W]``, alone or among others, laid out as their readers take them to be."""
    if isinstance(output, Tensor):
        return output.contiguous() if output.ndim == 4 else output
    leaves = tree_leaves(output)
    if not any(isinstance(leaf, Tensor) and leaf.ndim == 4 and not leaf.is_contiguous() for leaf in leaves):
        return output
    return tree_map(lambda leaf: _contiguous(leaf) if isinstance(leaf, Tensor) else leaf, output)


def _capture(output: Tensor, gradients: bool, last: bool) -> Captured:
    if output.is_quantized:  # methods compute in floats
        output = output.dequantize()
    edge = get_gradient_edge(output) if gradients and output.requires_grad else None
    # the clone carries the graph: an in-place ReLU that follows overwrites the output, not this
    live = output.clone(memory_format=torch.contiguous_format if last else torch.preserve_format)
    return Captured(live.detach(), live, edge)


def forward_failed(name: str, shape: Sequence[int], error: BaseException, count: int = 1) -> str:
    """The sentence for a network that does not take this input (``count`` pictures of ``shape``)."""
    said = str(error).strip().splitlines()[0][:200] if str(error).strip() else _where(error)
    size = "×".join(map(str, shape))
    if isinstance(error, MemoryError) or "out of memory" in said.lower():
        return f"{name}: out of memory on {count} of {size}: use a smaller --batch-size or --size ({said})."
    together = f" ({count} pictures at once)" if count > 1 else ""
    advice = "Set --size, --mean and --std (size, mean, std in Python) to what the network was trained with."
    if isinstance(error, TypeError) and "required positional argument" in said:
        advice = (
            "It takes more than one batch of pictures: in Python, call=lambda network, pictures, rows: "
            "network(pictures, ...) gives the others."
        )
    elif isinstance(error, AttributeError) or (isinstance(error, TypeError) and "argument" in said):
        advice = "In Python, call=lambda network, pictures, rows: ... says how it is run on a batch [B, C, H, W]."
    elif "Inference tensors" in said:
        advice = "Its weights were made under torch.inference_mode(): load the network outside of it."
    elif "BackwardHookFunction" in said:
        advice = "A full backward hook of yours stands before an in-place operation: remove it, or set inplace=False."
    elif "cannot register a hook on a tensor that doesn't require gradient" in said:
        advice = (
            "A hook that is left on it (another tool's, perhaps) wants gradients where none are computed: remove it "
            "(handle.remove())."
        )
    elif not _OF_SIZES.search(said):
        advice = ""
    return f"{name} cannot run on an input of {size} (channels×height×width){together}: {said} {advice}".strip()


#: what errors say that come of a picture's size or channels
_OF_SIZES = re.compile(
    r"size|shape|dim|channel|expected|expand|index|mat1|stride|view|broadcast|pad|length|match|divisib|factor|dtype|type|"
    r"Assert|rows|columns|tokens|patch|\d",
    re.IGNORECASE,
)


def _where(error: BaseException) -> str:
    """For an error without a message: its kind, and the line of the network that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    line = f" at {Path(frames[-1].filename).name}:{frames[-1].lineno} ({frames[-1].line})" if frames else ""
    return f"{type(error).__name__}{line}."


def _unreached(network: nn.Module, name: str) -> str:
    inner = dict(network.named_modules())
    scripted = any(isinstance(module, torch.jit.ScriptModule) for module in inner.values())
    if scripted:
        return (
            f"Layer {name!r} lies inside a traced or scripted module, where layers cannot be watched: "
            "give the original module, or use a method that needs no layer (saliency, guided-backprop, occlusion)."
        )
    return f"Layer {name!r} was not reached in this forward, or does not return one tensor: choose another layer."
