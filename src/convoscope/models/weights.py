"""Weights from files: safetensors, or ``torch.load(weights_only=True)``; never a pickle that runs code unasked."""

from __future__ import annotations

import json
import os
import re
import stat
import struct
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ModelError
from . import pickles

#: keys under which training scripts keep the state dict
_WRAPPERS = (
    "state_dict",
    "model_state_dict",
    "model",
    "ema",
    "ema_state_dict",
    "module",
    "net",
    "network",
    "params",
)
_PREFIXES = (
    "module.",
    "_orig_mod.",
    "model.",
    "net.",
    "network.",
    "backbone.",
    "encoder.",
    "ema.module.",
    "ema.",
)


def read(path: Path, *, trust_pickle: bool = False) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The state dict in a file, out of the usual wrappers, and the file's metadata (safetensors).

    What a file is is told by its content, not by its name. Pickles of any protocol are read as long as they hold
    tensors and plain data; only one that names code is refused with the advice to trust it, or not.

    Raises :class:`ModelError`: missing, damaged, no weights, a pickle that needs code, no tensors inside.
    """
    size = _size(path)
    with path.open("rb") as file:
        head = file.read(4096)
    said = _no_weights(head, size, path)
    if said is not None:
        raise ModelError(f"{path}: {said}")
    if _looks_like_safetensors(head, size) or path.suffix == ".safetensors":
        return _read_safetensors(path)
    if head.startswith(b"PK"):
        _check_archive(path, size)
    elif not head.startswith(b"\x80"):
        raise ModelError(f"{path}: not a weights file: neither safetensors nor a file of torch.save.")
    if trust_pickle:
        try:
            loaded = torch.load(path, map_location="cpu", weights_only=False)
        except Exception as error:
            raise ModelError(f"{path}: not a weights file that can be read ({_line(error)}).") from None
    else:
        loaded = _read_pickle(path)
    if isinstance(loaded, nn.Module):
        loaded = loaded.state_dict()
    return unwrap(loaded, path), {}


def _size(path: Path) -> int:
    try:
        about = path.stat()
    except FileNotFoundError:
        raise ModelError(f"{path}: there is no such weights file.") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{str(path)!r}: the weights file cannot be read ({error}).") from None
    if stat.S_ISDIR(about.st_mode):
        raise ModelError(f"{path}: this is a folder, not a weights file.")
    if not stat.S_ISREG(about.st_mode):
        raise ModelError(f"{path}: this is a pipe or a device, not a weights file.")
    if not os.access(path, os.R_OK):
        raise ModelError(f"{path}: the weights file cannot be read (no permission).")
    return about.st_size


#: how files begin that are taken for weights, and what they are
_OTHERS: tuple[tuple[bytes, str], ...] = (
    (b"version https://git-lfs", "this is a git-lfs pointer of a few lines; the weights themselves were not fetched: "
                                 "run `git lfs pull` where it comes from."),
    (b"\x1f\x8b", "this is a gzip archive: unpack it first (gunzip)."),
    (b"BZh", "this is a bzip2 archive: unpack it first."),
    (b"\xfd7zXZ", "this is an xz archive: unpack it first."),
    (b"7z\xbc\xaf", "this is a 7z archive: unpack it first."),
    (b"Rar!", "this is a RAR archive: unpack it first."),
    (b"\x89HDF", "this is an HDF5 file (Keras?): only PyTorch's weights can be read."),
    (b"GGUF", "this is a GGUF file of a language model: only PyTorch's weights can be read."),
    (b"\x08\x03\x12", "this is an ONNX file: only PyTorch's weights can be read."),
    (b"\x93NUMPY", "this is a NumPy array, not a state dict."),
    (b"\x89PNG", "this is a picture."),
    (b"\xff\xd8\xff", "this is a picture."),
    (b"%PDF", "this is a PDF."),
)  # fmt: skip


def _no_weights(head: bytes, size: int, path: Path) -> str | None:
    """What a file is that is none of weights; ``None`` where it may be one."""
    if size == 0:
        return "the file is empty (zero bytes): the download or the copy broke off."
    for magic, said in _OTHERS:
        if head.startswith(magic):
            return said
    if not any(head):
        return "the file begins with nothing but zeros: the download or the copy broke off."
    if len(head) > 262 and head[257:262] == b"ustar":
        return "this is a tar archive: unpack it first."
    if _looks_like_safetensors(head, size) or head.startswith((b"PK", b"\x80")):
        return None
    try:
        text = head.decode("utf-8", "strict" if size <= len(head) else "ignore").lstrip("\ufeff \t\r\n")
    except UnicodeDecodeError:
        return None
    if "\0" in text or not text:
        return None
    if text[:200].casefold().startswith(("<!doctype", "<html", "<?xml", "<head", "<error")):
        return (
            "this is a web page, not weights: the link leads to a page (a login, an error); download the file itself."
        )
    return f"this is text, not weights (it begins {text[:40]!r})."


def _looks_like_safetensors(head: bytes, size: int) -> bool:
    return len(head) > 8 and head[8:9] == b"{" and 2 <= int.from_bytes(head[:8], "little") <= max(size, 100_000_000)


#: an archive may unpack to this many bytes at least, and to this many times its own size
_UNPACKED, _TIMES = 256 * 2**20, 20


def _check_archive(path: Path, size: int) -> None:
    """Raises :class:`ModelError` for a zip archive that is cut off, none of torch.save, or far larger than it looks."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            declared = sum(member.file_size for member in archive.infolist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, RuntimeError, struct.error):
        raise ModelError(f"{path}: the file is cut off or damaged: fetch it again.") from None
    if declared > max(_UNPACKED, _TIMES * size):
        raise ModelError(
            f"{path}: {size / 2**20:.1f} MB that unpack to {declared / 2**30:.1f} GB: torch does not compress weights, "
            "so this is no weights file, and is not opened."
        )
    if not any(name.endswith("/data.pkl") for name in names):
        some = ", ".join(names[:3]) or "nothing"
        raise ModelError(f"{path}: a zip archive, but none of torch.save (it holds {some}).")
    if any("/code/" in name for name in names) or any(name.endswith("/constants.pkl") for name in names):
        raise ModelError(
            f"{path}: this is a TorchScript archive (a program, not weights): save the state dict of the original "
            "module instead."
        )


def _read_pickle(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of protocols other than 2, which are read below
            return torch.load(path, map_location="cpu", weights_only=True)
    except MemoryError:
        raise ModelError(f"{path}: the weights do not fit the memory.") from None
    except Exception as error:
        first = error  # Python forgets `error` after the block
    # protocols 4 and 5, or pickle.dump: torch refuses them whole, though most hold tensors alone
    try:
        return pickles.read(path)
    except pickles.NeedsCode as error:
        named: str | None = str(error)
    except MemoryError:
        raise ModelError(f"{path}: it declares more than the memory holds: it is damaged, or no weights.") from None
    except Exception as error:
        named = _named_by(first)
        if named is None:
            raise ModelError(f"{path}: the file is cut off or damaged ({_line(error)}): fetch it again.") from None
    raise ModelError(
        f"{path}: this file is a pickle that wants to run code when it is opened ({named}). Save the state dict alone "
        "(torch.save(model.state_dict(), ...)), or, if you trust whoever made it, add --trust-pickle."
    )


def _named_by(error: Exception) -> str | None:
    """The name that torch would not follow, where that was the reason."""
    found = re.search(r"Unsupported global: GLOBAL (\S+)|Unsupported class (\S+)", str(error))
    return next((name for name in found.groups() if name), None) if found else None


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    from safetensors import safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
    except Exception as error:
        raise ModelError(
            f"{path}: not a safetensors file that can be read ({_line(error)}): it is cut off or damaged."
        ) from None
    return unwrap(state, path), metadata


def unwrap(loaded: Any, path: Path | str) -> dict[str, Tensor]:
    """The mapping name -> tensor inside what a training script saved."""
    for _ in range(4):
        if not isinstance(loaded, Mapping):
            break
        inner = next((loaded[key] for key in _WRAPPERS if isinstance(loaded.get(key), (Mapping, nn.Module))), None)
        if inner is None:
            break
        loaded = inner.state_dict() if isinstance(inner, nn.Module) else inner
    if not isinstance(loaded, Mapping):
        raise ModelError(f"{path}: holds a {type(loaded).__name__}, not a state dict.")
    state = {str(key): value for key, value in loaded.items() if isinstance(value, Tensor)}
    if not state:
        keys = ", ".join(map(str, list(loaded)[:5])) or "nothing"
        raise ModelError(f"{path}: no tensors found in it (it holds: {keys}).")
    return state


def match(state: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """``state`` with prefixes taken off or put on so that its keys fit the network best."""
    wanted = set(network.state_dict())
    candidates = [state]
    for prefix in _PREFIXES:
        if any(key.startswith(prefix) for key in state):
            inner = {key[len(prefix) :]: value for key, value in state.items() if key.startswith(prefix)}
            candidates.append(inner)
            for second in _PREFIXES:
                if any(key.startswith(second) for key in inner):
                    candidates.append({k[len(second) :]: v for k, v in inner.items() if k.startswith(second)})
    for prefix in ("model.", "module.", "network.", "net.", "backbone."):
        if any(key.startswith(prefix) for key in wanted):
            candidates.append({prefix + key: value for key, value in state.items()})
    return max(candidates, key=lambda candidate: len(wanted & set(candidate)))


def load(
    network: nn.Module,
    state: dict[str, Tensor],
    path: Path | str,
    rebuild: Callable[[int], nn.Module] | None = None,
) -> nn.Module:
    """The network with ``state`` in it; ``rebuild(classes)`` makes one with another head where only that differs.

    Raises :class:`ModelError` that names the first differing keys and shapes.
    """
    state = _without_auxiliary(match(state, network), network)
    have = network.state_dict()
    differing = [key for key in have if key in state and state[key].shape != have[key].shape]
    if differing and rebuild is not None and set(state) == set(have):
        heads = {tuple(state[key].shape)[:1] for key in differing}
        if len(heads) == 1 and all(state[k].shape[1:] == have[k].shape[1:] for k in differing):
            network = rebuild(next(iter(heads))[0])
            have = network.state_dict()
            differing = [key for key in have if key in state and state[key].shape != have[key].shape]
    # counters of batches matter to training only: old checkpoints lack them
    missing = [key for key in have if key not in state and not key.endswith("num_batches_tracked")]
    extra = [key for key in state if key not in have]
    if differing or missing or extra:
        raise ModelError(_mismatch(path, have, state, differing, missing, extra))
    network.load_state_dict(state, strict=False)
    return network


def _without_auxiliary(state: dict[str, Tensor], network: nn.Module) -> dict[str, Tensor]:
    """Drop auxiliary heads (GoogLeNet, Inception) that the network was built without."""
    have = network.state_dict()
    return {k: v for k, v in state.items() if k in have or not k.split(".")[0].lower().startswith("aux")}


def _mismatch(
    path: Path | str,
    have: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    differing: list[str],
    missing: list[str],
    extra: list[str],
) -> str:
    parts = []
    if differing:
        shown = "; ".join(f"{k}: file {tuple(state[k].shape)}, network {tuple(have[k].shape)}" for k in differing[:3])
        parts.append(f"{len(differing)} differing shapes ({shown})")
    if missing:
        parts.append(f"{len(missing)} missing in the file ({', '.join(missing[:3])}{', ...' * (len(missing) > 3)})")
    if extra:
        parts.append(f"{len(extra)} unknown to the network ({', '.join(extra[:3])}{', ...' * (len(extra) > 3)})")
    return f"{path}: these weights do not fit the network: {'; '.join(parts)}."


def metadata_list(metadata: Mapping[str, str], key: str) -> list[Any] | None:
    """A JSON list from a safetensors file's metadata; ``None`` where it is absent or no list."""
    try:
        value = json.loads(metadata[key])
    except (KeyError, ValueError):
        return None
    return value if isinstance(value, list) else None


def _line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:160].rstrip(".") if lines else type(error).__name__
