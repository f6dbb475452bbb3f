"""Tensors out of pickles, whatever their protocol, without running anything that a pickle names.

``torch.load(weights_only=True)`` reads protocols 2 and 3. State dicts saved with protocol 4 or 5, or by
``pickle.dump``, hold the same few instructions: they are followed here by functions of our own, and every other name
is refused.
"""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from torch import Tensor

#: how a file of torch.save's older format begins
MAGIC = 0x1950A86A20F9469CFC6C

_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
    "UntypedStorage": torch.uint8,
}


class NeedsCode(Exception):
    """The pickle names something that would have to be run; the message is its name."""


class _Storage:
    """Bytes that tensors are made of, with the type the pickle gives them."""

    def __init__(self, data: torch.UntypedStorage, dtype: torch.dtype) -> None:
        self.data, self.dtype = data, dtype


class _Safe:
    """A stand-in for a function that a pickle names: only what it does, none of what it is."""

    def __init__(self, run: Callable[..., Any]) -> None:
        self._run = run

    def __call__(self, *args: Any, **named: Any) -> Any:
        return self._run(*args, **named)


class _Dictionary(OrderedDict[Any, Any]):
    """A state dict: torch hangs its ``_metadata`` on it, which is left out."""

    def __setstate__(self, state: Any) -> None:
        pass


def _tensor(storage: Any, offset: int, size: Any, stride: Any, *_: Any) -> Tensor:
    if not isinstance(storage, _Storage):
        raise pickle.UnpicklingError("a tensor without a storage")
    return torch.empty(0, dtype=storage.dtype).set_(storage.data, int(offset), tuple(size), tuple(stride))


def _parameter(data: Any, *_: Any) -> Any:
    return data.detach() if isinstance(data, Tensor) else data


def _array(kind: Any, shape: Any, code: Any) -> Any:
    return np.ndarray((0,), np.uint8)


def _dtype(code: Any, *_: Any) -> np.dtype[Any]:
    found = np.dtype(code if isinstance(code, str) else "V")
    if found.hasobject:
        raise NeedsCode("numpy objects")
    return found


def _scalar(dtype: Any, data: Any) -> Any:
    return np.frombuffer(data, dtype)[0] if isinstance(data, bytes) else data


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> Any:
    return np.frombuffer(data, dtype).reshape(shape, order=order)


def _encode(text: Any, coding: Any = "latin1") -> bytes:
    return str(text).encode("latin1")


_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): _Dictionary,
    ("builtins", "set"): set,
    ("builtins", "frozenset"): frozenset,
    ("builtins", "bytearray"): bytearray,
    ("torch", "Size"): _Safe(lambda values=(): tuple(values)),
    ("torch", "device"): _Safe(lambda *args: str(args)),
    ("torch._utils", "_rebuild_tensor"): _Safe(_tensor),
    ("torch._utils", "_rebuild_tensor_v2"): _Safe(_tensor),
    ("torch._utils", "_rebuild_parameter"): _Safe(_parameter),
    ("torch._utils", "_rebuild_parameter_with_state"): _Safe(_parameter),
    ("torch._tensor", "_rebuild_from_type_v2"): _Safe(lambda run, kind, args, state: run(*args)),
    ("torch.storage", "_load_from_bytes"): _Safe(lambda data: _stored(data)),
    ("torch", "Tensor"): Tensor,
    ("torch.nn.parameter", "Parameter"): torch.nn.Parameter,
    ("_codecs", "encode"): _Safe(_encode),
    **{("torch", name): dtype for name, dtype in _DTYPES.items()},
    **{
        (f"numpy.{core}.multiarray", name): _Safe(run)
        for core in ("core", "_core")
        for name, run in (("_reconstruct", _array), ("scalar", _scalar))
    },
    **{(f"numpy.{core}.numeric", "_frombuffer"): _Safe(_from_buffer) for core in ("core", "_core")},
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): _Safe(_dtype),
}


class _Unpickler(pickle.Unpickler):
    """Follows a pickle by the table above. ``stored`` gives the bytes of a storage by its key."""

    def __init__(self, file: BinaryIO, stored: Callable[[Any], _Storage]) -> None:
        super().__init__(file)
        self._stored = stored

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ALLOWED:
            return _ALLOWED[module, name]
        found = getattr(torch, name, None) if module == "torch" else None
        if isinstance(found, torch.dtype):
            return found
        raise NeedsCode(f"{module}.{name}")

    def persistent_load(self, key: Any) -> _Storage:
        if not isinstance(key, tuple) or len(key) < 5 or key[0] != "storage":
            raise pickle.UnpicklingError("an unknown kind of storage")
        return self._stored(key)


def read(path: Path) -> Any:
    """What the pickle in a file holds: of torch.save's two formats, or of ``pickle.dump``.

    Raises :class:`NeedsCode` where it names anything but tensors and plain data; whatever pickle, zipfile and torch
    raise where the file is damaged.
    """
    if zipfile.is_zipfile(path):
        return _read_zip(path)
    with path.open("rb") as file:
        return _read_stream(file, path.stat().st_size)


def _read_zip(path: Path) -> Any:
    with zipfile.ZipFile(path) as archive:
        inside = next((name for name in archive.namelist() if name.endswith("/data.pkl")), None)
        if inside is None:
            raise pickle.UnpicklingError("the archive holds no data.pkl")
        folder = inside.removesuffix("data.pkl")
        known: dict[str, torch.UntypedStorage] = {}

        def stored(key: Any) -> _Storage:
            dtype, name = key[1], str(key[2])
            if name not in known:
                known[name] = _untyped(archive.read(f"{folder}data/{name}"))
            return _Storage(known[name], _checked(dtype))

        return _Unpickler(io.BytesIO(archive.read(inside)), stored).load()


def _read_stream(file: BinaryIO, size: int) -> Any:
    storages: dict[Any, tuple[torch.UntypedStorage, torch.dtype]] = {}

    def stored(key: Any) -> _Storage:
        _, dtype, name, _, count = key[:5]
        dtype = _checked(dtype)
        if int(count) * dtype.itemsize > size:
            raise pickle.UnpicklingError("it declares more values than the file holds")
        if name not in storages:
            storages[name] = (torch.empty(int(count) * dtype.itemsize, dtype=torch.uint8).untyped_storage(), dtype)
        return _Storage(storages[name][0], dtype)

    def load() -> Any:
        return _Unpickler(file, stored).load()

    first = load()
    if not isinstance(first, int) or first != MAGIC:
        return first
    load()  # the protocol
    load()  # of the machine that saved it
    found = load()
    for name in load():
        data, dtype = storages[name]
        head = file.read(8)
        (count,) = struct.unpack("<q", head)
        values = file.read(count * dtype.itemsize)
        if count * dtype.itemsize != data.nbytes() or len(values) != data.nbytes():
            raise pickle.UnpicklingError("the file ends within its values")
        data.copy_(_untyped(values))
    return found


def _stored(data: Any) -> _Storage:
    """A storage that ``pickle.dump`` has put into bytes: torch.save's older format inside the pickle."""
    found = _read_stream(io.BytesIO(bytes(data)), len(data))
    if not isinstance(found, _Storage):
        raise pickle.UnpicklingError("no storage where one was expected")
    return found


def _untyped(data: bytes) -> torch.UntypedStorage:
    if not data:
        return torch.empty(0, dtype=torch.uint8).untyped_storage()
    return torch.frombuffer(bytearray(data), dtype=torch.uint8).untyped_storage()


def _checked(dtype: Any) -> torch.dtype:
    if not isinstance(dtype, torch.dtype):
        raise pickle.UnpicklingError("a storage without a type")
    return dtype
