"""A network with everything needed to show it pictures: preprocessing, labels, named layers, a fingerprint."""

from __future__ import annotations

import contextlib
import hashlib
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ..engine.fields.trace import NetworkTrace
from ..engine.fields.watch import trunk, watch
from ..engine.passes import runner
from ..engine.passes.untouched import is_scripted, untouched
from ..errors import ConvoscopeError, ModelError, UsageError
from ..pictures.picture import ModelInput, Picture, Preprocessing
from ..pictures.preprocessing import channel_values, is_whole, read_size
from .calling import Picked, call_for, picking
from .code import code_of
from .labels import outputs_of, own_labels, read_labels, without_background

if TYPE_CHECKING:
    pass


@dataclass(eq=False)
class Model:
    """What every function of Convoscope takes: open one with :func:`open_model`, or :func:`wrap` a module.

    ``module`` is the network itself, left as it is. ``labels`` are the class names, in the order of the outputs.
    ``spec`` and ``weights`` say how to open it again.
    """

    module: nn.Module
    preprocessing: Preprocessing
    labels: tuple[str, ...] | None = None
    name: str = "network"
    spec: str | None = None
    weights: str | None = None
    batch_size: int = 32
    seed: int = 0
    call: Callable[[nn.Module, Tensor, Tensor], Any] | None = None
    notes: tuple[str, ...] = ()
    _watched: dict[tuple[Any, ...], NetworkTrace] = field(default_factory=dict, repr=False)
    _graphs: dict[Any, Any] = field(default_factory=dict, repr=False)
    _fingerprint: tuple[str, Any] | None = field(default=None, repr=False)
    _code: tuple[nn.Module, Any, str] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        _ = self.code  # before any forward: some networks count theirs

    @property
    def output(self) -> str | None:
        """Which element of what the network returns is meant; ``None``: found by its size and its name."""
        return self.call.path if isinstance(self.call, Picked) else None

    @property
    def device(self) -> torch.device:
        """The device of the first parameter or buffer; CPU for a network without any."""
        return next((t.device for t in _tensors(self.module)), torch.device("cpu"))

    @property
    def dtype(self) -> torch.dtype:
        """The dtype of the first floating point parameter; inputs are cast to it."""
        return next((p.dtype for p in _tensors(self.module) if p.is_floating_point()), torch.float32)

    @property
    def fingerprint(self) -> str:
        """sha256 over names, dtypes, shapes and bytes of parameters and buffers; computed anew when they change.

        Whether they changed is told by a checksum of every byte, since ``weight.data.add_(1)`` is seen by no counter of
        torch: 0.5 ms per megabyte of weights on one core.
        """
        tensors = _named_tensors(self.module)
        if self._fingerprint is None:
            with ThreadPoolExecutor(1) as beside:  # both read every byte, and neither keeps Python's lock
                key = beside.submit(_checksums, tensors)
                self._fingerprint = (_sha256(tensors), key.result())
        elif (changed := _checksums(tensors)) != self._fingerprint[1]:
            self._fingerprint = (_sha256(tensors), changed)
        return self._fingerprint[0]

    @property
    def code(self) -> str:
        """What the network computes besides its weights (:func:`.code.code_of`), as it was when it was opened."""
        if self._code is None or self._code[0] is not self.module or self._code[1] is not self.call:
            self._code = (self.module, self.call, code_of(self.module, self.call))
        return self._code[2]

    def prepare(self, picture: Any) -> ModelInput:
        """A path, PIL image, array, tensor or :class:`Picture` as this network's input."""
        if self.preprocessing.frames is not None and isinstance(picture, Tensor):
            if picture.ndim == 5 and len(picture) == 1:
                picture = picture[0]
            if picture.ndim == 4:  # a volume of one channel is no batch of one
                from ..pictures.volume import Volume

                picture = Volume.of_slices(picture)
        return Picture.of(picture).prepare(self.preprocessing)

    def inputs(self, fitted: Sequence[ModelInput]) -> Tensor:
        """The batch ``[B, C, H, W]`` on the network's device, in its dtype."""
        dtype = self.dtype if self.dtype.is_floating_point else torch.float32
        return torch.stack([one.tensor for one in fitted]).to(self.device, dtype)

    def provenance(self) -> dict[str, Any]:
        """Which network this is, as every result says it: name, spec, weights, fingerprint, preprocessing, device."""
        return {
            "model": self.name,
            "spec": self.spec,
            "weights": self.weights,
            "fingerprint": self.fingerprint,
            "code": self.code,
            "preprocessing": self.preprocessing.to_dict(),
            "device": str(self.device),
        }

    def run(self, inputs: Tensor, rows: Tensor | None = None) -> Any:
        """One plain forward; the caller has protected the network (:mod:`convoscope.engine.passes.untouched`)."""
        if self.call is None:
            return self.module(inputs)
        return self.call(self.module, inputs, torch.arange(len(inputs)) if rows is None else rows)

    def watched(self, shape: Sequence[int] | None = None) -> NetworkTrace:
        """What one watched forward told of the network at input ``shape`` (C, H, W); cached.

        The network need not like a batch of one; it is watched with one picture as all explanations may come to it.
        """
        chw = tuple(shape) if shape is not None else (self.preprocessing.channels, *self._depth(), *self._side())
        key = (*chw, str(self.dtype), str(self.device))
        if key not in self._watched:
            if is_scripted(self.module):
                raise ModelError(
                    f"{self.name} is a scripted module, which takes no hooks and cannot be watched: give the original "
                    "module (a traced one works for pixel methods)."
                )
            dtype = self.dtype if self.dtype.is_floating_point else torch.float32
            # not zeros: a network that branches on its data should see data
            generator = torch.Generator().manual_seed(0)
            example = torch.randn((1, *chw), generator=generator).to(self.device, dtype)
            with untouched(self.module, gradients=False):  # sessions stand above models, and ask here
                try:
                    self._watched[key] = watch(self.module, example, call=self.run, until=trunk(self.module))
                except ConvoscopeError:
                    raise
                except Exception as error:
                    fits = "" if shape is not None or self.preprocessing.size is not None else self._fitting(example)
                    raise ModelError(forward_failed(self, chw, error) + fits) from error
            if trunk(self.module) is None:  # else the forward ends before the outputs
                self._check_labels(self._watched[key].output_shapes)
        return self._watched[key]

    def _fitting(self, example: Tensor) -> str:
        """Which of the usual sizes the network runs on, as a sentence; empty where it is none of them."""
        for side in _SIDES:
            try:
                with torch.no_grad():
                    self.run(example.new_zeros((*example.shape[:-2], side, side)))
            except Exception:  # whatever it says, this size is not the one
                continue
            return f" It does run on {side}×{side}: --size {side}."
        return ""

    def _check_labels(self, shapes: Sequence[tuple[int, ...]]) -> None:
        """A background's label that is one too many would put every name off by one; other misfits are doubts."""
        outputs = outputs_of(shapes)
        if self.labels is None or not outputs or len(self.labels) in outputs or outputs == {1}:
            return
        most = max(outputs)
        shorter = without_background(self.labels, most)
        if shorter is not None:
            self.notes = (
                *self.notes,
                f"The labels begin with {self.labels[0]!r} and are one more than the {most} outputs: it was left out.",
            )
            self.labels = shorter

    def check_labels(self) -> None:
        """Refuse names that are not as many as the outputs; who wraps a module by hand is told by a doubt instead.

        Raises :class:`UsageError` that names both numbers.
        """
        outputs = outputs_of(self.watched().output_shapes) if trunk(self.module) is None else set()
        if self.labels is None or not outputs or len(self.labels) in outputs or outputs == {1}:
            return
        had, most = len(self.labels), max(outputs)
        hint = " (its first output may be a background class: add a line for it)" if most == had + 1 else ""
        raise UsageError(
            f"There are {had} labels, and {self.name} has {most} outputs{hint}: give one name an output."
        )

    def with_module(self, module: nn.Module, name: str | None = None) -> Model:
        """This model with another network in it (a copy with other weights, a part): all else is kept.

        What was learnt by watching the old network is learnt anew.
        """
        return replace(self, module=module, name=name or self.name, _watched={}, _graphs={}, _fingerprint=None)

    def _depth(self) -> tuple[int, ...]:
        frames = self.preprocessing.frames
        return () if frames is None else (frames or 8,)

    def _side(self) -> tuple[int, int]:
        return self.preprocessing.size or (224, 224)

    def label(self, index: int) -> str:
        """The name of class ``index``; its number where there are no names."""
        if self.labels is not None and 0 <= index < len(self.labels):
            return self.labels[index]
        return f"class {index}"

    def __repr__(self) -> str:
        size = "×".join(map(str, self.preprocessing.size)) if self.preprocessing.size else "any size"
        classes = f"{len(self.labels)} labels" if self.labels else "no labels"
        return f"Model({self.name}, {size}, {classes}, {self.device})"


def forward_failed(model: Model, shape: Sequence[int], error: Exception) -> str:
    """The sentence for a network that does not take this input."""
    return runner.forward_failed(model.name, shape, error)


def wrap(
    module: nn.Module,
    *,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    size: int | str | Sequence[int] | None = None,
    labels: str | Path | Sequence[Any] | Mapping[Any, Any] | None = None,
    fit: str = "squash",
    resize: int | None = None,
    interpolation: str = "bilinear",
    name: str | None = None,
    batch_size: int = 32,
    seed: int = 0,
    call: Callable[[nn.Module, Tensor, Tensor], Any] | None = None,
    rgb: tuple[int, int, int] | None = None,
    frames: int | None = None,
    output: int | str | None = None,
) -> Model:
    """Your own network as a :class:`Model`, used as it is: nothing is copied, moved or changed.

    Args:
        module: The network. Networks of transformers, torchvision (detectors, too), segmentation-models-pytorch and
            ultralytics (``YOLO(...).model``) are understood.
        mean, std: One value for each input channel, or one for all, for pictures in 0..1. Default: 0 and 1, which the
            result says; the number of channels is that of the first convolution.
        size: Pixels of the input: 224, ``(height, width)`` or ``"224x320"``. Without it each picture keeps its own.
        labels: Class names, as :func:`~convoscope.models.labels.read_labels` takes them; default: those in the
            network's own configuration (``config.id2label``).
        fit, resize, interpolation: See :class:`Preprocessing`.
        call: ``call(module, inputs, rows)`` runs networks of several inputs: row ``i`` belongs to picture
            ``rows[i]``.
        rgb: Which bands of a picture of more than three are drawn as red, green and blue.
        frames: Slices or frames that a network of volumes or videos takes (0, the default where its first convolution
            is 3-D: as many as there are).
        output: Which element is meant of a network that returns several: a key, a number, or a path of them
            (``heads.0``).
        name: What results call it; default: its class.
        batch_size: Pictures in one pass at most.
        seed: Of everything random.

    Returns:
        The network with its preprocessing and labels.

    Raises:
        UsageError: A setting does not fit.
        ModelError: The network has layers whose shapes are not known yet (lazy modules).
    """
    if isinstance(module, Model):
        raise UsageError("This is a Model already; wrap() takes the torch.nn.Module itself.")
    if not isinstance(module, nn.Module):
        inner = getattr(module, "model", None)
        hint = f": give its .model (a {type(inner).__name__})" if isinstance(inner, nn.Module) else ""
        raise UsageError(f"wrap() takes a torch.nn.Module, not {type(module).__name__}{hint}.")
    called = name or type(module).__name__
    refuse_lazy(module, called)
    check_numbers(batch_size, seed)
    if call is None:
        call = call_for(module)
    given = [channel_values(what, values) for what, values in (("mean", mean), ("std", std)) if values is not None]
    longest = max(map(len, given), default=1)
    channels = longest if longest > 1 else input_channels(module)
    preprocessing = Preprocessing(
        size=read_size(size),
        resize=resize,
        fit=fit,  # type: ignore[arg-type]
        mean=_for_all("mean", 0.0 if mean is None else mean, channels),
        std=_for_all("std", 1.0 if std is None else std, channels),
        interpolation=interpolation,
        rgb=rgb,
        frames=0 if frames is None and takes_volumes(module) else frames,
    )
    return Model(
        module,
        preprocessing,
        read_labels(labels) if labels is not None else own_labels(module),
        called,
        batch_size=batch_size,
        seed=seed,
        call=picking(call, output),
        notes=_half(mean, std) if given else assumed(module, preprocessing),
    )


def _for_all(name: str, values: Any, channels: int) -> tuple[float, ...]:
    found = channel_values(name, values)
    return found * channels if len(found) == 1 else found


def _half(mean: Any, std: Any) -> tuple[str, ...]:
    """The sentence where only one half of the normalisation was given."""
    if (mean is None) == (std is None):
        return ()
    given, other, value = ("mean", "std", 1) if std is None else ("std", "mean", 0)
    return (f"Only the {given} was given: {other} {value} is taken for the other half of the normalisation.",)


def assumed(module: nn.Module, preprocessing: Preprocessing) -> tuple[str, ...]:
    """The sentence for a network of which nobody has said how its pictures are normalised."""
    from .calling import normalises_itself

    if normalises_itself(module):
        return ()
    where = "at their own size, " if preprocessing.size is None else ""
    return (
        f"{ASSUMED} pictures go in {where}with values in 0..1 (mean 0, std 1). Give the mean, std and size that the "
        "network was trained with.",
    )


#: the sides of the inputs that networks are trained on, tried where nobody gave one and 224 is none
_SIDES = (28, 32, 48, 64, 96, 112, 128, 160, 192, 240, 256, 260, 288, 299, 300, 320, 331, 380, 384, 448, 480, 512)
#: how the note on assumed preprocessing begins
ASSUMED = "Nobody gave the preprocessing:"


def check_numbers(batch_size: Any, seed: Any) -> None:
    """Raises :class:`UsageError` for a batch size or a seed that is none."""
    if not is_whole(batch_size) or batch_size < 1:
        raise UsageError(f"batch-size must be a whole number of at least 1, not {batch_size!r}.")
    if not is_whole(seed) or not 0 <= seed < 2**63:
        raise UsageError(f"seed must be a whole number from 0 to 2^63 - 1, not {seed!r}.")


def refuse_lazy(module: nn.Module, name: str) -> None:
    """Raises :class:`ModelError` where layers do not know their shapes yet."""
    for where, inner in module.named_modules():
        if any(isinstance(p, nn.parameter.UninitializedParameter) for p in inner.parameters(recurse=False)):
            raise ModelError(
                f"{name} has lazy layers whose shapes are not known yet ({where or type(inner).__name__}): run it once "
                "on a batch of its inputs before it is given to Convoscope."
            )


def input_channels(module: nn.Module) -> int:
    """The channels that the first convolution takes; 3 where there is none."""
    for inner in module.modules():
        if isinstance(inner, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            return int(inner.in_channels)
    return 3


def takes_volumes(module: nn.Module) -> bool:
    """Whether the first convolution is 3-D: the network then takes volumes or videos ``[B, C, D, H, W]``."""
    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
    return isinstance(next((one for one in module.modules() if isinstance(one, kinds)), None), nn.Conv3d)


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


def _named_tensors(module: nn.Module) -> list[tuple[str, Tensor]]:
    """What the state dict holds, by name; of quantised layers also the weights that they keep packed in a tuple."""
    found: list[tuple[str, Tensor]] = []
    for name, value in module.state_dict(keep_vars=True).items():
        if isinstance(value, Tensor):
            found.append((name, value))
        elif isinstance(value, (tuple, list)):
            found.extend((f"{name}.{i}", one) for i, one in enumerate(value) if isinstance(one, Tensor))
    return sorted(found, key=lambda pair: pair[0])


def _checksums(tensors: list[tuple[str, Tensor]]) -> tuple[Any, ...]:
    return tuple((name, str(t.dtype), tuple(t.shape), zlib.crc32(_bytes_of(t))) for name, t in tensors)


def _sha256(tensors: list[tuple[str, Tensor]]) -> str:
    digest = hashlib.sha256()
    for name, tensor in tensors:
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(_bytes_of(tensor))
    return digest.hexdigest()


def _bytes_of(tensor: Tensor) -> memoryview:
    """The tensor's values as bytes, copied only where they do not lie in the CPU's memory in one piece."""
    tensor = tensor.detach()
    with contextlib.suppress(Exception):
        tensor = tensor.dequantize() if tensor.is_quantized else tensor
    return tensor.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
