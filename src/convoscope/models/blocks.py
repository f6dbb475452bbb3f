"""A network as blocks with branches: convolutions with what belongs to them, pools, joins, the classifier."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..engine.passes.flow import Flow, flow
from ..engine.passes.naming import operation_of

if TYPE_CHECKING:
    from .model import Model

#: what is drawn as part of the block before it: it changes values, not what they are about
_PART = {"norm", "activation", "dropout", "same"}


@dataclass(eq=False)
class Block:
    """One block of the drawing.

    Args:
        name: the layer whose output it is.
        kind: ``convolution``, ``linear``, ``pool``, ``join`` or ``other``.
        layers: the names of all layers in it, in order, those that share their output included.
        inputs: numbers of the blocks that feed it.
        shape: of its output, without the batch.
        depth: the row it is drawn in; ``lane`` its column, 0 for the straight way.
    """

    name: str
    kind: str
    layers: list[str]
    inputs: list[int]
    shape: list[int]
    depth: int = 0
    lane: int = 0

    def to_dict(self) -> dict[str, Any]:
        return dict(vars(self))


@dataclass(eq=False)
class _Kinds:
    """What kind each layer is, by its module or its function's name."""

    modules: dict[str, Any] = field(default_factory=dict)

    def of(self, name: str) -> str:
        module = self.modules.get(name.split("#")[0])
        word = operation_of(name) or ("" if module is None else type(module).__name__.lower())
        if word in ("add", "mul", "cat"):
            return "join"
        if "norm" in word:
            return "norm"
        if "conv" in word:
            return "convolution"
        if "linear" in word:
            return "linear"
        if "pool" in word or word == "mean":
            return "pool"
        if "dropout" in word or "droppath" in word or "stochasticdepth" in word:
            return "dropout"
        if word in ("flatten", "identity"):
            return "same"
        if module is not None and module.__class__.__module__.endswith("modules.activation"):
            return "activation"
        return "activation" if operation_of(name) else "other"


def blocks(model: Model) -> list[Block]:
    """The network's blocks in the order of the forward, each with its place in a drawing.

    Raises :class:`ModelError` where the network cannot run on its input.
    """
    import torch

    size = model.preprocessing.size or (224, 224)
    shape = (1, model.preprocessing.channels, *model._depth(), *size)
    given = torch.rand(shape, generator=torch.Generator().manual_seed(0)).to(model.device, model.dtype)
    found = flow(model.module, given, model.run)
    kinds = _Kinds(dict(model.module.named_modules()))
    return _placed(_folded(found, kinds))


def _folded(found: list[Flow], kinds: _Kinds) -> list[Block]:
    """Norms and activations become part of what feeds them, where nothing else is fed by that."""
    readers: dict[str, int] = {}
    for one in found:
        for name in one.inputs:
            readers[name] = readers.get(name, 0) + 1
    made: list[Block] = []
    owner: dict[str, int] = {}
    for one in found:
        kind = kinds.of(one.name)
        names = [one.name, *one.also]
        if kind in _PART and len(one.inputs) == 1:
            before = one.inputs[0]
            block = made[owner[before]]
            if readers[before] == 1:
                block.layers += names
                block.name, block.shape = one.name, list(one.shape[1:])
                owner[one.name] = owner[before]
                continue
        inputs = list(dict.fromkeys(owner[name] for name in one.inputs))
        owner[one.name] = len(made)
        shown = "join" if len(inputs) > 1 else kind if kind not in _PART else "other"
        made.append(Block(one.name, shown, names, inputs, list(one.shape[1:])))
    return made


def _placed(made: list[Block]) -> list[Block]:
    """Rows by the longest way from the picture, lanes so that the longest branch goes straight on."""
    for block in made:
        block.depth = 1 + max((made[at].depth for at in block.inputs), default=-1)
    longest = [0] * len(made)  # blocks still to come on the longest way from here
    for at in range(len(made) - 1, -1, -1):
        for before in made[at].inputs:
            longest[before] = max(longest[before], longest[at] + 1)
    taken: dict[int, set[int]] = {}
    straight: set[int] = set()
    if made:
        at = max(range(len(made)), key=lambda one: made[one].depth)
        while True:
            straight.add(at)
            if not made[at].inputs:
                break
            at = max(made[at].inputs, key=lambda one: made[one].depth)
    for number, block in enumerate(made):
        rows = taken.setdefault(block.depth, set())
        wish = 0 if number in straight else max(1, *(made[at].lane for at in block.inputs), 1) if block.inputs else 1
        while wish in rows and number not in straight:
            wish += 1
        block.lane = wish
        rows.add(wish)
    return made
