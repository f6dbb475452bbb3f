"""A dispatch mode that carries index probes beside every tensor of a real forward."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from convoscope.engine.fields import aten_mixing, aten_windows  # noqa: F401 (they register their rules)
from convoscope.engine.fields.aliasing import Memory, Track
from convoscope.engine.fields.aten import RULES, Call, pointwise
from convoscope.engine.fields.probes import PARTS, Probe, everywhere, seed

Pair = tuple[list[Probe], list[Probe]]

_WEIGHTED = {
    "convolution", "_convolution", "conv2d", "mm", "addmm", "bmm", "baddbmm", "linear", "_addmm_activation",
}  # fmt: skip
_KEEPS_VALUES = {"clone", "_to_copy", "contiguous", "lift_fresh", "lift", "detach", "alias", "copy"}
_KEEPS_HEAD = {
    "mean", "sum", "amax", "max", "logsumexp", "_softmax", "_log_softmax", "softmax", "log_softmax",
    "dropout", "constant_pad_nd",
}  # fmt: skip
_PICKS = {"index", "gather", "index_select", "take"}
_NEW_LAYOUT = {f"aten::{name}_" for name in ("as_strided", "t", "transpose", "squeeze", "unsqueeze", "swapaxes")}
"""They change how a tensor lies in its storage, not what is there: it is read from the storage afterwards."""
_POOL_WORDS = ("_pool1d", "_pool2d", "_pool3d", "upsample_")
_OTHER_ACTIVATIONS = {
    "leaky_relu", "elu", "gelu", "silu", "hardswish", "mish", "prelu", "_prelu_kernel", "rrelu_with_noise",
    "softplus", "tanh", "hardtanh", "threshold",
}  # fmt: skip


def tensors_in(value: Any) -> list[Tensor]:
    """All tensors of a nested structure of tuples, lists and dictionaries, in order."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return [tensor for item in value for tensor in tensors_in(item)]
    return []


def standing_tensors(network: nn.Module) -> list[Tensor]:
    """The tensors that a network has before any forward: parameters, buffers, plain attributes."""
    found: list[Tensor] = [*network.parameters(), *network.buffers()]
    for module in network.modules():
        for name, value in vars(module).items():
            if not name.startswith("_") or name not in ("_parameters", "_buffers", "_modules"):
                found += tensors_in(value)
    return [tensor for tensor in found if tensor.layout == torch.strided and not tensor.is_meta]


def is_relu(name: str, call: Call) -> bool:
    """Whether an ATen operation is ReLU-like: zero below zero, the identity above, perhaps up to a limit."""
    named = call.named
    if name == "relu":
        return True
    if name == "threshold":
        return bool(named["threshold"] == 0 and named["value"] == 0)
    if name == "hardtanh":
        return bool(named["min_val"] == 0)
    if name in ("clamp", "clamp_min"):
        return isinstance(named["min"], (int, float)) and named["min"] == 0
    return False


def _zero(value: Any) -> bool:
    """Whether a number or a tensor is zero throughout."""
    if isinstance(value, Tensor):
        return value.numel() > 0 and not bool(value.any())
    return isinstance(value, (int, float)) and value == 0


def _operands(call: Call) -> list[Any]:
    found: list[Any] = []
    for value in call.args:
        found.extend(value if isinstance(value, (list, tuple)) else [value])
    return found


def _tested(name: str, call: Call, source: Track) -> tuple[str, int] | None:
    """What a mask or an absolute value tells of: the operation whose result's sign it is."""
    if name in ("gt", "ge", "lt", "le") and len(call.known) == 1 and any(_zero(v) for v in _operands(call)):
        return "sign", source.serial
    if name in ("sign", "sgn", "heaviside", "signbit"):
        return "sign", source.serial
    if name == "abs":
        return "abs", source.serial
    if name in ("logical_not", "bitwise_not", "clamp", "clamp_min", "relu") and source.tested is not None:
        return source.tested
    return None


def _is_handmade(name: str, call: Call) -> bool:
    """Whether a value is let through by its own sign, spelt by hand: no node of the graph tells of it.

    ``x * (x > 0)``, ``where(x > 0, x, ...)``, ``masked_fill(x, x < 0, 0)``, ``x[x < 0] = 0``, ``maximum(x, zeros)`` and
    ``x + x.abs()``.
    """
    tracks = list(call.known.values())
    if name in ("maximum", "fmax", "max") and len(tracks) == 1:
        tensors = [value for value in _operands(call) if isinstance(value, Tensor)]
        return len(tensors) == 2 and any(id(value) not in call.known and _zero(value) for value in tensors)
    kind = {"mul": "sign", "where": "sign", "masked_fill": "sign", "index_put": "sign", "_index_put_impl": "sign",
            "masked_scatter": "sign", "add": "abs"}.get(name)  # fmt: skip
    if kind is None:
        return False
    gated = {track.tested[1] for track in tracks if track.tested is not None and track.tested[0] == kind}
    return any(track.serial in gated and track.tested is None for track in tracks)


def _is_empty(probe: Probe) -> bool:
    return probe.numel() == PARTS and not bool(torch.isfinite(probe).any())


class Tracker(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows every operation inside the block: see :class:`~convoscope.engine.fields.aliasing.Track`."""

    def __init__(
        self,
        size: tuple[int, int],
        standing: Iterable[Tensor],
        batch: int = 1,
        fixed: frozenset[int] = frozenset(),
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.size = size
        self.batch = batch
        self.memory = Memory()
        self.memory.constants(list(standing))
        self.paused = False
        self.serial = 0
        self.relu_serials = 0
        """The operations that are ReLU-like, as the bits of an integer."""
        self.relus = 0
        self.other_activations = 0
        self.unknown: dict[int, str] = {}
        """The operations that no rule knows, by serial number."""
        self.lost = False
        """Whether values came in that torch did not make."""
        self.strangers: list[Tensor] = []
        """Tensors that came in from nowhere, in order; those numbered in ``fixed`` are known to be constants."""
        self.fixed = fixed
        self.handmade_serials = 0
        """The operations that gate a value by its own sign (x * (x > 0), where, maximum with zero), as bits."""
        self.weighted: dict[int, Track] = {}
        """What went into each convolution and linear layer, by serial number."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # torch would load the compiler (more than a second) to keep it away from this class; it is away already, since
        # networks are watched as they were written
        return False

    def picture(self, tensor: Tensor) -> None:
        """Give the network's input its probes; its last two dimensions are rows and columns."""
        if tensor.dim() >= 3 and tuple(tensor.shape[-2:]) == self.size:
            rows, cols = seed(tensor.shape, tensor.dim() - 2), seed(tensor.shape, tensor.dim() - 1)
        else:
            rows, cols = (everywhere(length, tensor.dim()) for length in self.size)
        self.memory.define(tensor, Track(rows, cols, past=1, serial=0))

    def track(self, tensor: Tensor) -> Track | None:
        """What is known of a tensor; None if no picture changes it."""
        if tensor.layout != torch.strided:
            return None
        if not self.memory.knows(tensor):
            self.memory.define(tensor, self._foreign(tensor))
        return self.memory.read(tensor)

    def _foreign(self, tensor: Tensor) -> Track | None:
        """A tensor from nowhere: a small literal is a constant, the rest came through NumPy or the like."""
        if (
            isinstance(tensor, nn.Parameter)
            or not tensor.is_floating_point()
            or tensor.dim() < 2
            or tensor.numel() <= 16
        ):
            return None
        self.strangers.append(tensor.detach())
        if len(self.strangers) - 1 in self.fixed:
            return None
        self.lost = True
        rows, cols = (everywhere(length, tensor.dim()) for length in self.size)
        return Track(rows, cols, past=1, serial=0)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if not self.paused and torch.is_inference_mode_enabled() and self._is_unknown(func):
            # in inference mode composite operations arrive whole: their parts are known where they are not
            with self:
                out = func.decompose(*args, **kwargs)
            if out is not NotImplemented:
                return out
        out = func(*args, **kwargs)
        if not self.paused:
            with torch._C.DisableTorchFunction():
                self._follow(func, args, kwargs, out)
        return out

    @staticmethod
    def _is_unknown(func: Any) -> bool:
        name = func._schema.name.rpartition("::")[2]
        return name not in RULES and torch.Tag.pointwise not in func.tags and hasattr(func, "decompose")

    def _follow(self, func: Any, args: Sequence[Any], kwargs: dict[str, Any], out: Any) -> None:
        outputs = tensors_in(out)
        if not outputs or func._schema.name in _NEW_LAYOUT:
            return
        known: dict[int, Track] = {}
        first: Track | None = None
        for tensor in (*tensors_in(args), *tensors_in(kwargs)):
            track = self.track(tensor)
            if track is not None:
                known[id(tensor)] = track
                first = first or track
        aliases = [result.alias_info for result in func._schema.returns]
        if len(aliases) != len(outputs):  # a list of tensors is one result
            aliases = [aliases[0]] * len(outputs)
        kinds = ["fresh" if a is None else "write" if a.is_write else "view" for a in aliases]
        if first is None:
            for tensor, kind in zip(outputs, kinds, strict=True):
                self._store(tensor, kind, None)
            return
        call = Call(func, args, kwargs, outputs, known)
        name = func._schema.name.rpartition("::")[2]
        if kinds[0] == "write" and name.endswith("_") and name not in RULES:
            name = name[:-1]
        probes = self._probes(name, call)
        if probes is None and kinds[0] == "view":
            return  # an unusual view is read from its storage when it is needed
        self._keep(name, call, kinds, probes)

    def _probes(self, name: str, call: Call) -> Pair | None:
        """The outputs' probes along both axes; None where no rule can tell."""
        apply = RULES.get(name)
        if apply is None:
            if torch.Tag.pointwise not in call.func.tags:
                return None
            apply = pointwise
        results = []
        try:
            for axis in (0, 1):
                call.axis = axis
                result = apply(call)
                probes = result if isinstance(result, list) else [result] * len(call.outputs)
                for probe, output in zip(probes, call.outputs, strict=True):
                    sizes = zip(probe.shape[1:], output.shape, strict=True)
                    if any(short not in (1, full) for short, full in sizes):
                        raise NotImplementedError(f"{name}: {tuple(probe.shape)} for {tuple(output.shape)}")
                results.append(probes)
        except (
            ArithmeticError,
            AttributeError,
            LookupError,
            NotImplementedError,
            RuntimeError,
            TypeError,
            ValueError,
        ):
            return None  # a spelling that the rule was not written for must not stop the network
        return results[0], results[1]

    def _keep(self, name: str, call: Call, kinds: list[str], probes: Pair | None) -> None:
        """Store the outputs' tracks."""
        tracks = list(call.known.values())
        source = tracks[0]
        same = name in _KEEPS_VALUES or kinds[0] == "view" or self._changes_nothing(name, call)
        if same:
            source = call.known.get(id(call.named.get("src")), source)
            past, serial, head, relu = source.past, source.serial, source.head, source.relu
            through, tested = source.through, source.tested
        else:
            self.serial += 1
            past, serial, relu = 1 << self.serial, self.serial, False
            through = -1
            for track in tracks:
                past |= track.past
                through &= track.through
            through |= 1 << serial
            tested = _tested(name, call, source)
            if _is_handmade(name, call):
                self.handmade_serials |= 1 << serial
            head = self._head(name, call, source)
            if is_relu(name, call):
                self.relus, relu = self.relus + 1, True
                self.relu_serials |= 1 << serial
            elif name in _OTHER_ACTIVATIONS:
                self.other_activations += 1
            if probes is None:
                self.unknown[serial] = name
        for i, (tensor, kind) in enumerate(zip(call.outputs, kinds, strict=True)):
            if probes is None:
                rows, cols = (everywhere(length, tensor.dim()) for length in self.size)
            else:
                rows, cols = probes[0][i], probes[1][i]
            constant = _is_empty(rows) and _is_empty(cols)
            track = Track(rows, cols, past, serial, head, relu, through, tested)
            self._store(tensor, kind, None if constant else track)

    def _head(self, name: str, call: Call, source: Track) -> int | None:
        """The weighted operation whose result this still is, up to unary operations and pooling."""
        if name in _PICKS:
            picked = call.known.get(id(call.first))
            return picked.head if picked is not None else None
        if len(call.known) > 1:
            return None
        if name in _WEIGHTED:
            self.weighted[self.serial] = source
            return self.serial
        pointwise_op = torch.Tag.pointwise in call.func.tags
        if pointwise_op or name in _KEEPS_HEAD or any(word in name for word in _POOL_WORDS):
            return source.head
        return None

    @staticmethod
    def _changes_nothing(name: str, call: Call) -> bool:
        """An adaptive pooling to the size that is already there."""
        return "adaptive" in name and call.first.shape == call.outputs[0].shape

    def _store(self, tensor: Tensor, kind: str, track: Track | None) -> None:
        if tensor.layout != torch.strided:
            return
        if kind == "fresh" or not self.memory.knows(tensor):
            self.memory.define(tensor, track)
        elif kind == "view":
            self.memory.alias(tensor, track)
        else:
            self.memory.write(tensor, track)

    def relus_in(self, past: int) -> int:
        """How many ReLU-like operations are among those in ``past``."""
        return (past & self.relu_serials).bit_count()

    def handmade_in(self, past: int) -> int:
        """How many hand-written gates by sign are among those in ``past``."""
        return (past & self.handmade_serials).bit_count()

    def unknown_in(self, past: int) -> list[str]:
        """The names of the operations in ``past`` that no rule knows."""
        return sorted({name for serial, name in self.unknown.items() if past >> serial & 1})
