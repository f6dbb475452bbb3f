"""Where a network comes from: the toybox, torchvision, timm, a checkpoint of transformers, a user's own file."""

from __future__ import annotations

import difflib
import importlib.util
import socket
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from ..errors import ConvoscopeError, MissingExtra, ModelError, UsageError
from ..pictures.picture import Preprocessing
from . import weights as weight_files
from .calling import Call
from .model import Model, assumed, input_channels


class Opened(NamedTuple):
    """A network with what its source knows of it."""

    network: nn.Module
    preprocessing: Preprocessing
    labels: tuple[str, ...] | None
    name: str
    weights: str
    notes: tuple[str, ...] = ()
    call: Call | None = None


def open_spec(spec: str, weights: str | None, trust_pickle: bool) -> Opened:
    """The network that a spec names, before what the user wants otherwise. Raises :class:`ModelError`."""
    if not spec.strip():
        raise UsageError("No model given: try toybox, resnet50, timm:NAME or path/net.py:callable.")
    if spec.startswith("timm:"):
        return _open_timm(spec[5:], weights, trust_pickle)
    if spec.startswith("hf:"):
        from .hf import read_folder

        network, preprocessing, name = read_folder(spec[3:], weights)
        notes = (_random_note(name),) if weights == "none" else ()
        return Opened(network, preprocessing, None, name, weights or spec[3:], notes)
    if spec.startswith("torchvision:"):
        return _open_torchvision(spec[12:], weights, trust_pickle)
    from .. import toybox

    if spec in toybox.NAMES:
        return _open_toybox(spec, weights, trust_pickle)
    if ".py" in spec:
        return _open_file(spec, weights, trust_pickle)
    return _open_torchvision(spec, weights, trust_pickle)


def _open_toybox(name: str, weights: str | None, trust_pickle: bool) -> Opened:
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
    return Opened(network, preprocessing, card.labels or None, name, weights or "bundled", notes)


def _open_torchvision(name: str, weights: str | None, trust_pickle: bool) -> Opened:
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
    return Opened(network, preprocessing, _fitting(labels, network), name, used, notes)


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


def _open_timm(name: str, weights: str | None, trust_pickle: bool) -> Opened:
    try:
        import timm
        from timm.data import resolve_model_data_config  # type: ignore[attr-defined]
    except ImportError:
        raise MissingExtra("timm", "timm", f"timm:{name}") from None
    if not timm.is_model(name.split(".")[0].removeprefix("hf_hub:")) and not name.startswith("hf"):
        near = difflib.get_close_matches(name, timm.list_models(), 3)
        hint = f"Did you mean {', '.join(near)}?" if near else "timm.list_models() lists its names."
        raise ModelError(f"timm has no network {name!r}. {hint}")

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
    return Opened(network, preprocessing, labels, f"timm:{name}", used, notes)


def _open_file(spec: str, weights: str | None, trust_pickle: bool) -> Opened:
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
        return Opened(
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
    return Opened(built, preprocessing, names, path.stem, weights or "as built", notes)


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
