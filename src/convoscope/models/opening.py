"""``open_model``: from a spec (a name, a file) and weights to a :class:`~convoscope.models.model.Model`."""

from __future__ import annotations

import difflib
import importlib.util
import socket
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from ..errors import ConvoscopeError, MissingExtra, ModelError, UsageError
from ..pictures.picture import Preprocessing
from ..pictures.preprocessing import channel_values, read_size
from . import weights as weight_files
from .calling import Call, call_for, picking
from .labels import own_labels, read_labels
from .model import ASSUMED, Model, assumed, check_numbers, input_channels, refuse_lazy, wrap


class _Opened(NamedTuple):
    network: nn.Module
    preprocessing: Preprocessing
    labels: tuple[str, ...] | None
    name: str
    weights: str
    notes: tuple[str, ...] = ()
    call: Call | None = None


def open_model(
    spec: str | nn.Module | Model,
    *,
    weights: str | Path | None = None,
    labels: str | Path | Sequence[Any] | Mapping[Any, Any] | None = None,
    size: int | str | Sequence[int] | None = None,
    mean: float | Sequence[float] | None = None,
    std: float | Sequence[float] | None = None,
    fit: str | None = None,
    interpolation: str | None = None,
    device: str | torch.device | None = None,
    dtype: str | torch.dtype | None = None,
    batch_size: int = 32,
    seed: int = 0,
    trust_pickle: bool = False,
    output: int | str | None = None,
) -> Model:
    """Open a network by its spec.

    Args:
        spec: ``toybox``, ``toybox-cheat``, ...; a torchvision name (``resnet50`` or ``torchvision:resnet50``);
            ``timm:NAME``; ``hf:FOLDER`` (a checkpoint of transformers); ``path/net.py:callable``; or a module.
        weights: ``None`` for the pretrained ones, ``"none"`` for random ones (seeded), or a file.
        labels: Class names: a file with one name a line, a sequence, or a dictionary of class numbers.
        size, mean, std, fit, interpolation: Override the preprocessing that comes with the weights.
        device: ``None`` takes CUDA or MPS where present.
        dtype: ``float32``, ``float64``, ``float16`` or ``bfloat16``.
        batch_size: Pictures in one pass at most.
        seed: Of everything random.
        trust_pickle: Open weights that run code; only if you trust who made them.
        output: Which element is meant of a network that returns several: a key, a number, or a path of them.

    Returns:
        The network with its preprocessing and labels, ready for every function that takes a model.

    Raises:
        ModelError: The network or its weights cannot be had.
        UsageError: A setting does not fit, or the labels are not as many as the outputs.
    """
    if isinstance(spec, Model):
        return spec
    if str(spec).endswith(".card.json"):
        return _open_card(str(spec), {**locals(), "spec": None})
    check_numbers(batch_size, seed)
    if isinstance(spec, nn.Module):
        opened = wrap(spec)
    else:
        with _random_state(seed):
            found = _open(str(spec), None if weights is None else str(weights), trust_pickle)
        refuse_lazy(found.network, found.name)
        found.network.eval()
        opened = Model(
            found.network,
            found.preprocessing,
            found.labels or own_labels(found.network),
            found.name,
            str(spec),
            found.weights,
            notes=found.notes,
            call=found.call or call_for(found.network),
        )
    if mean is not None or std is not None:
        opened.notes = tuple(note for note in opened.notes if not note.startswith(ASSUMED))
    opened.preprocessing = _override(opened.preprocessing, size, mean, std, fit, interpolation)
    if labels is not None:
        opened.labels = read_labels(labels)
    opened.batch_size, opened.seed = batch_size, seed
    opened.call = picking(opened.call, output)
    if device is not None or dtype is not None or not isinstance(spec, nn.Module):
        # a module given by hand stays where it is unless told otherwise
        opened.module.to(device=choose_device(device), dtype=choose_dtype(dtype))
    if labels is not None and opened.preprocessing.size is not None:
        with suppress(ModelError):  # what the network cannot run on is told where it is run
            opened.check_labels()
    return opened


def _open_card(path: str, given: dict[str, Any]) -> Model:
    """The network of a card that ``convoscope repair`` wrote; what is given besides goes before what it says."""
    from .card import preprocessing_of, read_card

    card = read_card(path)
    told = {"weights": card.get("weights"), "labels": card.get("labels")}
    given = {name: value if value is not None else told.get(name) for name, value in given.items() if name != "spec"}
    geometry = {name: given.pop(name) for name in ("size", "mean", "std", "fit", "interpolation")}
    opened = open_model(str(card["spec"]), **given)
    opened.preprocessing = _override(preprocessing_of(card["preprocessing"]), *geometry.values())
    return opened


def _open(spec: str, weights: str | None, trust_pickle: bool) -> _Opened:
    if not spec.strip():
        raise UsageError("No model given: try toybox, resnet50, timm:NAME or path/net.py:callable.")
    if spec.startswith("timm:"):
        return _open_timm(spec[5:], weights, trust_pickle)
    if spec.startswith("hf:"):
        from .hf import read_folder

        network, preprocessing, name = read_folder(spec[3:], weights)
        notes = (_random_note(name),) if weights == "none" else ()
        return _Opened(network, preprocessing, None, name, weights or spec[3:], notes)
    if spec.startswith("torchvision:"):
        return _open_torchvision(spec[12:], weights, trust_pickle)
    from .. import toybox

    if spec in toybox.NAMES:
        return _open_toybox(spec, weights, trust_pickle)
    if ".py" in spec:
        return _open_file(spec, weights, trust_pickle)
    return _open_torchvision(spec, weights, trust_pickle)


def _open_toybox(name: str, weights: str | None, trust_pickle: bool) -> _Opened:
    from .. import toybox

    card = toybox.card(name)
    network = toybox.load(name)
    notes: tuple[str, ...] = ()
    if weights is not None:
        if weights == "none":
            network = toybox.build(name, card.settings)
            notes = (_random_note(name),)
        else:
            state, _ = weight_files.read(Path(weights), trust_pickle=trust_pickle)
            network = weight_files.load(network, state, weights)
    preprocessing = Preprocessing((card.size, card.size), None, "squash", card.mean, card.std)
    return _Opened(network, preprocessing, card.labels or None, name, weights or "bundled", notes)


def _open_torchvision(name: str, weights: str | None, trust_pickle: bool) -> _Opened:
    from torchvision import models as zoo

    if name not in zoo.list_models():
        near = difflib.get_close_matches(name, [*zoo.list_models(), "toybox", "toybox-cheat"], 3)
        hint = f" Did you mean {', '.join(near)}?" if near else ""
        raise ModelError(
            f"No network named {name!r}.{hint} Specs are toybox, a torchvision name (resnet50), timm:NAME, or "
            "path/net.py:callable."
        )
    default = _default_weights(zoo, name)
    preprocessing = _torchvision_preprocessing(default)
    labels = tuple(default.meta["categories"]) if default is not None and "categories" in default.meta else None
    notes: tuple[str, ...] = ()

    def build(**settings: Any) -> nn.Module:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # GoogLeNet and Inception announce a change of initialisation
            try:
                return zoo.get_model(name, weights=None, weights_backbone=None, **settings)  # type: ignore[no-any-return]
            except (TypeError, ValueError):
                return zoo.get_model(name, weights=None, **settings)  # type: ignore[no-any-return]

    if weights is None:
        if default is None:
            raise ModelError(f"torchvision has no weights for {name}: give --weights FILE, or --weights none.")
        with downloading(f"{name}'s pretrained weights", default.url):
            network = zoo.get_model(name, weights=default)
        used = str(default)
    elif weights == "none":
        network, used, notes = build(), "none", (_random_note(name),)
    else:
        state, _ = weight_files.read(Path(weights), trust_pickle=trust_pickle)
        plain = build(aux_logits=False) if name in ("googlenet", "inception_v3") else build()
        aux = {"aux_logits": False} if name in ("googlenet", "inception_v3") else {}
        network = weight_files.load(plain, state, weights, lambda n: build(num_classes=n, **aux))
        used = weights
    return _Opened(network, preprocessing, _fitting(labels, network), name, used, notes)


def _default_weights(zoo: Any, name: str) -> Any:
    try:
        return zoo.get_model_weights(name).DEFAULT
    except (ValueError, AttributeError):
        return None


def _torchvision_preprocessing(default: Any) -> Preprocessing:
    if default is None:
        return Preprocessing()
    preset = default.transforms()
    mean: Any = getattr(preset, "mean", None)
    std: Any = getattr(preset, "std", None)
    crop, resize = getattr(preset, "crop_size", None), getattr(preset, "resize_size", None)
    mode = getattr(getattr(preset, "interpolation", None), "value", "bilinear")
    if mean is None:  # detectors normalise inside; segmenters only resize
        return Preprocessing(None, None, "squash", (0.0,) * 3, (1.0,) * 3)
    if crop is None:
        side = resize[0] if resize else 520
        return Preprocessing((side, side), None, "squash", tuple(mean), tuple(std), mode)
    size = (crop[0], crop[-1])
    return Preprocessing(size, resize[0] if resize else None, "crop", tuple(mean), tuple(std), mode)


def _open_timm(name: str, weights: str | None, trust_pickle: bool) -> _Opened:
    try:
        import timm
        from timm.data import resolve_model_data_config  # type: ignore[attr-defined]
    except ImportError:
        raise MissingExtra("timm", "timm", f"timm:{name}") from None
    if not timm.is_model(name.split(".")[0].removeprefix("hf_hub:")) and not name.startswith("hf"):
        near = difflib.get_close_matches(name, timm.list_models(), 3)
        raise ModelError(f"timm has no network {name!r}.{' Did you mean ' + ', '.join(near) + '?' if near else ''}")

    def build(**settings: Any) -> nn.Module:
        return timm.create_model(name, pretrained=False, **settings)  # type: ignore[no-any-return]

    notes: tuple[str, ...] = ()
    if weights is None:
        with downloading(f"timm:{name}'s pretrained weights", "its hub"):
            network = timm.create_model(name, pretrained=True)
        used = "pretrained"
    elif weights == "none":
        network, used, notes = build(), "none", (_random_note(name),)
    else:
        state, _ = weight_files.read(Path(weights), trust_pickle=trust_pickle)
        network = weight_files.load(build(), state, weights, lambda n: build(num_classes=n))
        used = weights
    config = resolve_model_data_config(network)  # type: ignore[no-untyped-call]
    _, height, width = config["input_size"]
    resize = int(min(height, width) / config["crop_pct"])
    squash = config.get("crop_mode") == "squash"
    preprocessing = Preprocessing(
        (height, width),
        None if squash else resize,
        "squash" if squash else "crop",
        tuple(config["mean"]),
        tuple(config["std"]),
        config["interpolation"] if config["interpolation"] in ("bilinear", "bicubic", "nearest") else "bicubic",
    )
    labels = None
    if getattr(network, "num_classes", 0) == 1000:
        from torchvision.models import ResNet50_Weights

        labels = tuple(ResNet50_Weights.DEFAULT.meta["categories"])
    return _Opened(network, preprocessing, labels, f"timm:{name}", used, notes)


def _open_file(spec: str, weights: str | None, trust_pickle: bool) -> _Opened:
    """A user's own Python file: it is run, as the user's own code."""
    file, _, attribute = spec.rpartition(":")
    if not file or not attribute or attribute.endswith(".py"):
        raise UsageError(f"{spec}: name the function that returns the network: path/net.py:build.")
    path = Path(file)
    if not path.is_file():
        raise ModelError(f"{path}: there is no such file.")
    built = _call_file(path, attribute)
    if isinstance(built, Model):
        if weights not in (None, "none"):
            state, _ = weight_files.read(Path(str(weights)), trust_pickle=trust_pickle)
            built.module = weight_files.load(built.module, state, str(weights))
        return _Opened(
            built.module,
            built.preprocessing,
            built.labels,
            built.name,
            weights or "as built",
            built.notes,
            built.call,
        )
    if not isinstance(built, nn.Module):
        raise ModelError(f"{spec}: returned a {type(built).__name__}, not a torch.nn.Module.")
    labels: list[Any] | None = None
    settings: dict[str, list[Any] | None] = {}
    if weights not in (None, "none"):
        state, about = weight_files.read(Path(str(weights)), trust_pickle=trust_pickle)

        def rebuild(classes: int) -> nn.Module:
            return _call_file(path, attribute, num_classes=classes)  # type: ignore[no-any-return]

        built = weight_files.load(built, state, str(weights), rebuild)
        settings = {key: weight_files.metadata_list(about, key) for key in ("mean", "std")}
        labels = weight_files.metadata_list(about, "labels")
    channels = input_channels(built)
    mean, std = settings.get("mean"), settings.get("std")
    preprocessing = Preprocessing(
        None,
        None,
        "squash",
        tuple(mean) if mean else (0.0,) * channels,
        tuple(std) if std else (1.0,) * channels,
    )
    notes = () if mean or std else assumed(built, preprocessing)
    names = tuple(map(str, labels)) if labels else None
    return _Opened(built, preprocessing, names, path.stem, weights or "as built", notes)


def _call_file(path: Path, attribute: str, **settings: Any) -> Any:
    module_name = f"convoscope_user_{path.stem}"
    specification = importlib.util.spec_from_file_location(module_name, path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[module_name] = module
    added = str(path.parent.resolve())
    sys.path.insert(0, added)  # the file may import its neighbours
    try:
        specification.loader.exec_module(module)
        if not hasattr(module, attribute):
            names = ", ".join(n for n in vars(module) if not n.startswith("_") and callable(getattr(module, n)))
            raise ModelError(f"{path} has no {attribute!r}; it has: {names or 'no functions'}.")
        build = getattr(module, attribute)
        return build(**settings) if callable(build) and not isinstance(build, nn.Module) else build
    except ConvoscopeError:
        raise
    except Exception as error:
        said = " ".join(str(error).split())[:300].rstrip(".")
        raise ModelError(f"{path}:{attribute} raised {type(error).__name__}: {said}.") from error
    except SystemExit as stop:
        raise ModelError(
            f"{path}:{attribute} ended the program (sys.exit({'' if stop.code is None else repr(stop.code)})) and gave "
            "no network. A script's own work belongs under `if __name__ == '__main__':`."
        ) from None
    finally:
        sys.path.remove(added)


@contextmanager
def downloading(what: str, where: str) -> Iterator[None]:
    """Turn whatever a download raises into one sentence that tells how to do without it."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(20)
    try:
        yield
    except Exception as error:
        said = str(error).strip().splitlines()[0][:120] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"Could not download {what} from {where} ({said}). Fetch the file on another machine and give it with "
            "--weights FILE, or use --weights none for random weights."
        ) from None
    finally:
        socket.setdefaulttimeout(before)


def _random_note(name: str) -> str:
    return f"{name} has RANDOM weights (--weights none): its maps show an untrained network."


def _fitting(labels: tuple[str, ...] | None, network: nn.Module) -> tuple[str, ...] | None:
    """Labels only where their number is the network's number of classes."""
    if labels is None:
        return None
    heads = [m for m in network.modules() if isinstance(m, (nn.Linear, nn.Conv2d))]
    sizes = {int(getattr(m, "out_features", 0) or getattr(m, "out_channels", 0)) for m in heads[-6:]}
    return labels if not heads or len(labels) in sizes or not hasattr(network, "forward") else None


def _override(
    preprocessing: Preprocessing, size: Any, mean: Any, std: Any, fit: str | None, interpolation: str | None = None
) -> Preprocessing:
    changes: dict[str, Any] = {}
    if size is not None:
        pair = read_size(size)
        assert pair is not None
        changes["size"] = pair
        if preprocessing.resize and preprocessing.size:
            # the same margin around the crop as before
            changes["resize"] = max(min(pair), round(min(pair) * preprocessing.resize / min(preprocessing.size)))
    for name, values in (("mean", mean), ("std", std)):
        if values is not None:
            found = channel_values(name, values)
            changes[name] = found * preprocessing.channels if len(found) == 1 else found
    if fit is not None:
        changes["fit"] = fit
    if interpolation is not None:
        changes["interpolation"] = interpolation
    return replace(preprocessing, **changes) if changes else preprocessing


def choose_device(device: str | torch.device | None) -> torch.device:
    """The device asked for, or CUDA, or MPS, or the CPU; an absent one is refused with a sentence."""
    if device is None or device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        chosen = torch.device(device)
    except RuntimeError:
        raise UsageError(f"Unknown device {device!r}: use cpu, cuda, cuda:1 or mps.") from None
    if chosen.type == "cuda" and not torch.cuda.is_available():
        raise UsageError("No CUDA device here: use --device cpu.")
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise UsageError("No MPS device here: use --device cpu.")
    if chosen.type not in ("cpu", "cuda", "mps"):
        raise UsageError(f"Device {device!r} is not supported: use cpu, cuda or mps.")
    return chosen


def choose_dtype(dtype: str | torch.dtype | None) -> torch.dtype | None:
    """``float32``, ``float64``, ``float16``, ``bfloat16`` or a torch dtype; ``None`` keeps the network's own."""
    if dtype is None or isinstance(dtype, torch.dtype):
        return dtype
    chosen = {
        "float32": torch.float32,
        "float64": torch.float64,
        "float16": torch.float16,
        "bfloat16": torch.bfloat16,
    }
    if dtype not in chosen:
        raise UsageError(f"dtype must be one of {', '.join(chosen)}, not {dtype!r}.")
    return chosen[dtype]


@contextmanager
def _random_state(seed: int) -> Iterator[None]:
    """Seeded weights for ``--weights none``, without touching the caller's random state."""
    state = torch.get_rng_state()
    torch.manual_seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(state)
