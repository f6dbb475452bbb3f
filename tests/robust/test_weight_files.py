"""Whatever is given as weights: the tensors, or the sentence that says what the file is."""

from __future__ import annotations

import functools
import gzip
import io
import json
import os
import pickle
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

import convoscope as cs
from convoscope.files import weights_as_bytes
from convoscope.models import weights


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.LazyLinear(2))


def state() -> dict[str, Tensor]:
    net = network()
    net(torch.zeros(2, 3, 5, 5))
    return net.state_dict()


STATE = state()


def saved(value: Any, **settings: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer, **settings)
    return buffer.getvalue()


class Named:
    """What only its own code can bring back."""

    def __reduce__(self) -> Any:
        return os.path.join, ("a", "b")


GOOD: dict[str, bytes] = {
    "torch.save": saved(STATE),
    "in a wrapper": saved({"epoch": 3, "state_dict": STATE, "loss": 0.5, "betas": (0.9, 0.99)}),
    "parameters": saved({k: nn.Parameter(v) if v.is_floating_point() else v for k, v in STATE.items()}),
    "half": saved({k: v.half() if v.is_floating_point() else v for k, v in STATE.items()}),
    "bfloat16, protocol 4": saved(
        {k: v.bfloat16() if v.is_floating_point() else v for k, v in STATE.items()}, pickle_protocol=4
    ),
    "safetensors": save_tensors({k: v.contiguous() for k, v in STATE.items()}),
    "with numpy, protocol 4": saved(
        {"best": np.float64(0.5), "curve": np.arange(3.0), "model": STATE}, pickle_protocol=4
    ),
    "parameters, protocol 5": saved(
        {k: nn.Parameter(v) if v.is_floating_point() else v for k, v in STATE.items()}, pickle_protocol=5
    ),
    "transposed views, protocol 4": saved(
        {k: v.T.contiguous().T if v.ndim == 2 else v for k, v in STATE.items()}, pickle_protocol=4
    ),
    **{f"protocol {n}": saved(STATE, pickle_protocol=n) for n in (2, 3, 4, 5)},
    **{
        f"older format, protocol {n}": saved(STATE, pickle_protocol=n, _use_new_zipfile_serialization=False)
        for n in (2, 4, 5)
    },
    **{f"pickle.dump, protocol {n}": pickle.dumps(STATE, protocol=n) for n in (2, 3, 4, 5)},
    "a plain dictionary": pickle.dumps(
        {"model": OrderedDict((k, v) for k, v in STATE.items()), "epoch": 1}, protocol=5
    ),
}


@pytest.mark.parametrize(("name", "ending"), [*((name, "pth") for name in GOOD), ("safetensors", "safetensors")])
def test_tensors_are_read_whatever_the_file_is_called(tmp_path: Path, name: str, ending: str) -> None:
    path = tmp_path / f"w.{ending}"
    path.write_bytes(GOOD[name])
    found, _ = weights.read(path)
    assert found.keys() == STATE.keys()
    for key, value in STATE.items():
        torch.testing.assert_close(found[key].to(value.dtype), value, rtol=1e-2, atol=1e-2)
        if "half" not in name and "bfloat" not in name:
            assert torch.equal(found[key], value), key


@pytest.mark.parametrize("ending", ["", "é"])
def test_the_same_content_gives_the_same_bytes(tmp_path: Path, ending: str) -> None:
    about = {
        f"{name}{ending}": json.dumps({name: [1, ending]})
        for name in ("the", "order", "is", "the library", "own", "choice")
    }
    mixed = {
        **STATE,
        "whole": torch.arange(3),
        "half": torch.ones(3).half(),
        "transposed": torch.arange(6.0).view(2, 3).T,
    }
    made = {
        weights_as_bytes(mixed, dict(sorted(about.items(), key=lambda pair: hash((number, pair)))))
        for number in range(9)
    }
    assert len(made) == 1
    (data,) = made
    assert (8 + int.from_bytes(data[:8], "little")) % 8 == 0
    (tmp_path / "w.safetensors").write_bytes(data)
    found, told = weights.read(tmp_path / "w.safetensors")
    assert told == about
    assert found.keys() == mixed.keys()
    assert all(torch.equal(found[name], value) and found[name].dtype == value.dtype for name, value in mixed.items())
    (tmp_path / "w.safetensors").write_bytes(weights_as_bytes(STATE, {}))
    assert weights.read(tmp_path / "w.safetensors")[1] == {}


def zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@functools.cache
def bomb(size: int = 320 * 2**20) -> bytes:
    """A megabyte that unpacks to more than any honest archive of its size."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}, protocol=2))
        with archive.open("archive/data/0", "w", force_zip64=True) as member:
            piece = bytes(2**24)
            for _ in range(size // len(piece)):
                member.write(piece)
    return buffer.getvalue()


def tarred() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("weights.pth"))
    return buffer.getvalue()


def lying(count: int) -> bytes:
    """The older format, with a storage said to be larger than the file."""

    class Lie:
        pass

    class Pickler(pickle.Pickler):
        def persistent_id(self, one: Any) -> Any:
            return ("storage", torch.FloatStorage, "0", "cpu", count, None) if isinstance(one, Lie) else None

    class Held:
        def __reduce__(self) -> Any:
            return torch._utils._rebuild_tensor_v2, (Lie(), 0, (count,), (1,), False, OrderedDict())

    buffer = io.BytesIO()
    for part in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
        pickle.dump(part, buffer, protocol=2)
    Pickler(buffer, protocol=2).dump({"w": Held()})
    pickle.dump(["0"], buffer, protocol=2)
    return buffer.getvalue() + struct.pack("<q", count) + bytes(64)


def scripted() -> bytes:
    buffer = io.BytesIO()
    torch.jit.save(torch.jit.trace(nn.Conv2d(3, 2, 1), torch.zeros(1, 3, 4, 4)), buffer)
    return buffer.getvalue()


LONG_HEADER = struct.pack("<Q", 2**40) + b"{" + bytes(64)
BAD: dict[str, tuple[Any, str]] = {
    "empty": (b"", "empty"),
    "zeros": (bytes(100_000), "nothing but zeros"),
    "few zeros": (bytes(10), "nothing but zeros"),
    "git-lfs pointer": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
        "git-lfs pointer",
    ),
    "html page": (b"<!DOCTYPE html>\n<html><head><title>Sign in</title></head></html>" * 90, "web page"),
    "html page with spaces": (b"\n\n  <HTML><body>404</body></HTML>", "web page"),
    "xml error": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "web page"),
    "json error": (b'{"error": "Repository not found"}', "text, not weights"),
    "text": (b"Not Found", "text, not weights"),
    "csv": (b"a,b,c\n1,2,3\n" * 1000, "text, not weights"),
    "cut zip": (saved(STATE)[:-30], "cut off or damaged"),
    "cut zip in the middle": (saved(STATE)[:700], "cut off or damaged"),
    "two bytes of a zip": (b"PK", "cut off or damaged"),
    "cut older format": (GOOD["older format, protocol 2"][:-30], "cut off or damaged"),
    "older format cut in its pickle": (GOOD["older format, protocol 2"][:300], "cut off or damaged"),
    "older format of protocol 4 cut": (GOOD["older format, protocol 4"][:-30], "cut off or damaged"),
    "cut pickle": (pickle.dumps(STATE, protocol=4)[:-100], "cut off or damaged"),
    "cut safetensors": (GOOD["safetensors"][:-30], "safetensors"),
    "cut safetensors header": (GOOD["safetensors"][:40], "safetensors"),
    "safetensors of a long header": (LONG_HEADER, "not a weights file"),
    "zip bomb": (bomb, "unpack to 0.3 GB"),
    "another zip": (zipped({"a.txt": b"hello"}), "none of torch.save"),
    "npz": (zipped({"a.npy": b"hello"}), "none of torch.save"),
    "torchscript": (scripted, "TorchScript"),
    "gzip": (gzip.compress(saved(STATE)), "gzip"),
    "tar": (tarred(), "tar archive"),
    "hdf5": (b"\x89HDF\r\n\x1a\n" + bytes(100), "HDF5"),
    "gguf": (b"GGUF" + bytes(100), "GGUF"),
    "picture": (b"\x89PNG\r\n\x1a\n" + bytes(100), "picture"),
    "numpy": (b"\x93NUMPY" + bytes(100), "NumPy"),
    "random": (np.random.default_rng(0).bytes(5000), "not a weights file"),
    "a list": (saved([1, 2, 3]), "not a state dict"),
    "no tensors": (saved({"epoch": 3}), "no tensors"),
    "a pickled number, protocol 4": (pickle.dumps(3, protocol=4), "not a state dict"),
    "storage larger than the file": (lying(10**6), "cut off or damaged"),
    "storage far larger than any memory": (lying(10**14), "cut off or damaged"),
    "records missing": (
        zipped({"archive/data.pkl": zipfile.ZipFile(io.BytesIO(saved(STATE))).read("archive/data.pkl")}),
        "cut off or damaged",
    ),
}

CODE: dict[str, Any] = {
    "a whole module": lambda: saved(nn.Sequential(nn.Conv2d(3, 4, 3))),
    "a module of protocol 4": lambda: saved(nn.Sequential(nn.Conv2d(3, 4, 3)), pickle_protocol=4),
    "a function": lambda: saved({"w": STATE["0.weight"], "hp": Named()}),
    "a function in protocol 5": lambda: saved({"w": STATE["0.weight"], "hp": Named()}, pickle_protocol=5),
    "a function in pickle.dump": lambda: pickle.dumps({"w": STATE["0.weight"], "hp": Named()}, protocol=4),
    "os.system": lambda: b"\x80\x04cos\nsystem\n\x8c\x04echo\x85R.",
    "eval": lambda: b"\x80\x04cbuiltins\neval\n\x8c\x011\x85R.",
}  # fmt: skip


def content(made: Any) -> bytes:
    return made() if callable(made) else made


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("name", BAD)
def test_what_is_no_weights_is_said_and_nobody_is_taught_to_trust_it(tmp_path: Path, name: str) -> None:
    made, said = BAD[name]
    path = tmp_path / "w.pth"
    path.write_bytes(content(made))
    with pytest.raises(cs.ModelError, match=said) as caught:
        weights.read(path)
    assert "trust" not in str(caught.value)
    assert str(caught.value).startswith(str(path))
    assert len(str(caught.value)) < len(str(path)) + 300


@pytest.mark.parametrize("name", CODE)
def test_only_a_pickle_with_code_advises_to_trust_it(tmp_path: Path, name: str) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(content(CODE[name]))
    with pytest.raises(cs.ModelError, match="--trust-pickle"):
        weights.read(path)


def test_a_pickle_that_names_allowed_functions_cannot_change_them(tmp_path: Path) -> None:
    """BUILD sets attributes on whatever lies on the stack, the functions of torch, too."""
    path = tmp_path / "w.pth"
    before = dict(vars(torch._utils._rebuild_tensor_v2)), torch._utils._rebuild_tensor_v2.__defaults__
    path.write_bytes(b"\x80\x04ctorch._utils\n_rebuild_tensor_v2\nN}\x8c\x0c__defaults__)s\x86b.")
    with pytest.raises(cs.ModelError):
        weights.read(path)
    assert before == (dict(vars(torch._utils._rebuild_tensor_v2)), torch._utils._rebuild_tensor_v2.__defaults__)


def test_a_tensor_outside_its_storage_is_damage(tmp_path: Path) -> None:
    whole = zipfile.ZipFile(io.BytesIO(saved(STATE, pickle_protocol=4)))
    members = {name: whole.read(name)[: 8 if "/data/" in name else None] for name in whole.namelist()}
    path = tmp_path / "w.pth"
    path.write_bytes(zipped(members))
    with pytest.raises(cs.ModelError, match="damaged"):
        weights.read(path)


@pytest.mark.parametrize("kind", ["pipe", "folder", "missing", "device", "zero byte"])
def test_what_is_no_file(tmp_path: Path, kind: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    name = {
        "pipe": tmp_path / "pipe",
        "folder": tmp_path,
        "missing": tmp_path / "no",
        "device": Path("/dev/zero"),
    }.get(kind, Path("a\0b"))
    with pytest.raises(cs.ModelError, match=r"pipe or a device|folder|no such|cannot be read"):
        weights.read(name)


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of memory is counted in kB on Linux")
def test_the_memory_of_a_bomb_is_never_taken(tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(bomb())
    (tmp_path / "lie.pth").write_bytes(lying(10**9))
    script = (
        "import json, resource, sys\nfrom pathlib import Path\nfrom convoscope.models import weights\n"
        "from convoscope.errors import ModelError\nsaid = []\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024\nbefore = peak()\n"
        "for path in sys.argv[1:]:\n    try:\n        weights.read(Path(path))\n"
        "    except ModelError as error:\n        said.append(str(error))\n"
        "print(json.dumps([said, peak() - before]))\n"
    )
    files = [str(tmp_path / "w.pth"), str(tmp_path / "lie.pth")]
    done = subprocess.run([sys.executable, "-c", script, *files], capture_output=True, text=True, check=True)
    said, megabytes = json.loads(done.stdout)
    assert len(said) == 2
    assert megabytes < 150


def test_the_command_line_says_it_and_exits_with_2(tmp_path: Path, capfd: Any) -> None:
    from convoscope.cli import run

    (tmp_path / "w.pth").write_bytes(BAD["git-lfs pointer"][0])
    assert run(["layers", "toybox", "--weights", str(tmp_path / "w.pth")]) == 2
    assert "git-lfs" in capfd.readouterr().err
