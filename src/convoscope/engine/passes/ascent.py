"""Gradients of scores with respect to what a picture is made of: one forward and one backward for a whole batch.

Everything that changes pictures by gradient (class and unit visualisation, inversion, DeepDream, fooling) takes its
steps here. Items of a batch are independent of each other: the gradient of the summed score is each item's own.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import LayerError, MethodRefused
from .memory_format import bears_backwards
from .naming import observe
from .relu_rules import relu_nodes
from .runner import Call, call_plainly

#: what is scored: the network's output (``None`` where the forward was cut short) and the layers asked for
Scoring = Callable[[Any, dict[str, Tensor]], Tensor]


class _Enough(BaseException):
    """Every layer that is scored has been computed: the rest of the forward would be thrown away.

    Not an ``Exception``: a network that catches those must not catch this.
    """


@dataclass(eq=False)
class Ascent:
    """One step's answer: ``scores`` ``[B]``, the gradient of each parameter, and whose gradient is zero.

    ``inputs`` is the gradient at the picture ``[B, C, H, W]``, where it was asked for.
    """

    scores: Tensor
    gradients: list[Tensor]
    dead: Tensor
    redirected: Tensor
    inputs: Tensor | None = None


@dataclass(eq=False)
class GradientAscent:
    """Runs ``network`` for ascents; the caller holds :func:`~.untouched.untouched` around every step.

    ``layers`` are kept for the score. Where ``output`` is false the forward ends once it has them all: visualising an
    early layer costs only the way there.
    """

    network: nn.Module
    layers: Collection[str] = ()
    output: bool = True
    call: Call = call_plainly
    #: the network's own, where it is not float32
    dtype: torch.dtype = torch.float32
    #: in which the network is quickest
    memory_format: torch.memory_format = torch.contiguous_format
    forwards: int = 0
    backwards: int = 0
    #: items ``[B]`` whose silent channels are to be woken, beside those that have no gradient at all
    waking: Tensor | None = None
    _watchful: bool = True

    def prepare(self) -> None:
        """Parameters need no gradient of their own: their share of the memory and of the time is saved."""
        for parameter in self.network.parameters():
            if parameter.requires_grad and parameter.is_leaf:
                parameter.requires_grad_(False)

    def forward(self, inputs: Tensor) -> tuple[Any, dict[str, Tensor]]:
        """The network's output (``None`` where it was not asked for) and the layers, with their graph."""
        rows = torch.arange(len(inputs))
        inputs = inputs.to(self.dtype)
        if inputs.ndim == 4:
            inputs = inputs.contiguous(memory_format=self.memory_format)
        self.forwards += 1
        if not self.layers:
            return self.call(self.network, inputs, rows), {}
        wanted = set(self.layers)
        found: dict[str, Tensor] = {}

        def visit(name: str, output: Any) -> None:
            if not isinstance(output, Tensor):
                raise LayerError(f"Layer {name!r} returns a {type(output).__name__}, not one tensor: choose another.")
            last = not self.output and len(found) + 1 == len(wanted)
            # an in-place operation may overwrite it a moment later, unless there is no later
            found[name] = output if last else output.clone()
            if last:
                raise _Enough

        output: Any = None
        try:
            with observe(self.network, visit, only=wanted):
                output = self.call(self.network, inputs, rows)
        except _Enough:
            pass
        missing = sorted(wanted - set(found))
        if missing:
            raise LayerError(f"Layer {missing[0]!r} was not reached in this forward: choose another layer.")
        return output, found

    def step(
        self,
        parameters: Sequence[Tensor],
        picture: Tensor,
        views: Callable[[Tensor], Tensor] | None,
        scoring: Scoring,
        *,
        keep_inputs: bool = False,
    ) -> Ascent:
        """The scores of ``views(picture)`` and their gradients at ``parameters``, of which ``picture`` is made.

        A ReLU network can start dead: no unit on the way to the score is active for this picture, and the plain
        gradient is zero. For such items, and for those that ``waking`` names, channels that are silent over the
        whole picture pass on what would raise them (Lucid's redirected gradient, channel by channel). Raises
        :class:`MethodRefused` where the score has no gradient at all.
        """
        shown = picture if views is None else views(picture)
        output, layers = self.forward(shown)
        last = self.memory_format is torch.channels_last
        if last and not bears_backwards(self.network, [output, *layers.values()]):
            self.memory_format = torch.contiguous_format
            output, layers = self.forward(shown)
        scores = scoring(output, layers)
        if scores.grad_fn is None or not scores.requires_grad:
            raise MethodRefused(
                "The score has no gradient: the network (or the target) runs under no_grad, in integers, or cuts the "
                "graph with detach(); a picture cannot be found by gradient ascent there."
            )
        total = scores.sum()
        wanted = [*parameters, picture]
        # the graph is kept only as long as some item was dead a step ago: keeping it costs memory
        watchful = self._watchful or (self.waking is not None and bool(self.waking.any()))
        self.backwards += 1
        found = list(torch.autograd.grad(total, wanted, retain_graph=watchful, allow_unused=True))
        filled = [torch.zeros_like(w) if g is None else g for w, g in zip(wanted, found, strict=True)]
        at_picture = filled[-1].detach()
        dead = at_picture.flatten(1).abs().amax(1) == 0
        redirected = torch.zeros_like(dead)
        waking = self.waking.to(dead.device) if self.waking is not None else torch.zeros_like(dead)
        wanting = dead | waking
        if watchful and bool(wanting.any()):
            again = self._redirected(total, wanted)
            moved = again[-1].flatten(1).abs().amax(1) != 0
            redirected = wanting & moved & (again[-1] != filled[-1]).flatten(1).any(1)
            # what wakes may be far steeper than the score: a step of its own length would throw the picture away
            plain = filled[-1].flatten(1).norm(dim=1)
            scale = torch.where(plain > 0, plain / again[-1].flatten(1).norm(dim=1).clamp(min=1e-30), 1.0)
            for kept, other in zip(filled, again, strict=True):
                mine = scale.to(other).view(-1, *[1] * (other.ndim - 1)) * other
                kept[redirected] = mine[redirected]
            dead = dead & ~moved
        self._watchful = bool(wanting.any())
        return Ascent(
            scores.detach(),
            [g.detach() for g in filled[:-1]],
            dead,
            redirected,
            at_picture if keep_inputs else None,
        )

    def _redirected(self, total: Tensor, wanted: Sequence[Tensor]) -> list[Tensor]:
        def hook(grad_inputs: tuple[Tensor | None, ...], grad_outputs: tuple[Tensor | None, ...]) -> Any:
            passed, blocked = grad_outputs[0], grad_inputs[0]
            if passed is None or blocked is None:
                return grad_inputs
            if blocked.ndim < 2:
                return grad_inputs
            silent = blocked == 0 if blocked.ndim == 2 else blocked.flatten(2).abs().amax(2) == 0
            silent = silent.view(*silent.shape, *[1] * (blocked.ndim - 2))
            return (torch.where(silent, passed.clamp(min=0), blocked), *grad_inputs[1:])

        handles = [node.register_hook(hook) for node in relu_nodes([total.grad_fn])]
        try:
            self.backwards += 1
            found = torch.autograd.grad(total, list(wanted), allow_unused=True)
        finally:
            for handle in handles:
                handle.remove()
        return [torch.zeros_like(w) if g is None else g for w, g in zip(wanted, found, strict=True)]


def penalised(penalty: Callable[[Tensor], Tensor], picture: Tensor, taken: Ascent) -> Ascent:
    """``taken`` less a penalty ``[B]`` on the picture, which is its own only parameter (pixels).

    Kept apart from the score's own gradient, so that a dead score is seen as dead, whatever the penalty pulls.
    """
    with torch.enable_grad():
        paid = penalty(picture)
        (gradient,) = torch.autograd.grad(paid.sum(), [picture])
    taken.gradients = [taken.gradients[0] - gradient]
    taken.scores = taken.scores - paid.detach()
    return taken
