"""Forty and more kinds of bad input: one clear sentence each, the right exit code, and never a traceback."""

from __future__ import annotations

import io
import pickle
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from convoscope.errors import ConvoscopeError

# --- pictures: exit code 1, the others are done -------------------------------------------------------------------


def png(size: tuple[int, int] = (32, 32)) -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def jpeg() -> bytes:
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, "JPEG")
    return buffer.getvalue()


def bomb() -> bytes:
    """A PNG of 40000×40000 pixels in a few bytes."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 40_000, 40_000, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


PICTURES: dict[str, tuple[bytes, str]] = {
    "empty.png": (b"", "empty"),
    "text.jpg": (b"Dear Sir, I am no picture.", "not a picture"),
    "page.png": (b"<!doctype html><html><body>404</body></html>", "not a picture"),
    "cut.png": (png()[:400], "damaged or cut off"),
    "cut.jpg": (jpeg()[:500], "damaged or cut off"),
    "head.png": (png()[:20], "damaged or cut off|not a picture|cannot be decoded"),
    "garbage.png": (png()[:60] + b"\xff" * 500, "damaged or cut off|cannot be decoded"),
    "bomb.png": (bomb(), "too large"),
    "zeros.bmp": (b"\0" * 5000, "not a picture"),
    "random.webp": (np.random.default_rng(1).bytes(3000), "not a picture"),
    "riff.webp": (b"RIFF\x10\x00\x00\x00WEBPVP8 ", "damaged|not a picture|cannot be decoded"),
    "archive.jpg": (b"PK\x03\x04" + b"\0" * 100, "not a picture"),
    "sound.png": (b"ID3\x03\x00" + b"\0" * 200, "not a picture"),
    "head.gif": (b"GIF89a\x20\x00\x20\x00", "damaged|not a picture|cannot be decoded"),
    "head.tiff": (b"II*\x00\x08\x00\x00\x00\x01\x00", "damaged|not a picture|cannot be decoded"),
}


def one_sentence(said: str) -> str:
    """What was said, which must be one line that ends as a sentence does, without a traceback."""
    lines = said.strip().splitlines()
    assert len(lines) == 1, said
    line = lines[0]
    assert "Traceback" not in line
    assert "Something went wrong" not in line, line
    assert line.endswith((".", "?", ")", "all.", "'")), line
    assert len(line) > 15
    assert line[0] != " "
    return line


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("good") / "good.png"
    path.write_bytes(png((96, 96)))
    return path


@pytest.mark.parametrize("name", PICTURES)
def test_a_bad_picture(cli, tmp_path, good, name):
    data, said = PICTURES[name]
    path = tmp_path / name
    path.write_bytes(data)
    answer = cli("explain", "toybox", path, good, "-m", "cam", "--no-pictures", "-o", tmp_path / "out", "--json")
    assert answer.code == 1
    assert [Path(record["path"]).name for record in answer.json] == ["good.png"]
    sentence = one_sentence(answer.err)
    assert name in sentence
    assert re.search(said, sentence), sentence


def test_a_folder_of_that_name(cli, tmp_path, good):
    """A folder ending like a picture is a folder: empty, it holds none."""
    (tmp_path / "folder.png").mkdir()
    answer = cli("explain", "toybox", tmp_path / "folder.png", good, "-m", "cam", "-o", tmp_path / "out")
    assert answer.code == 2
    assert "holds no pictures" in one_sentence(answer.err)


def test_a_missing_picture(cli, tmp_path, good):
    answer = cli("explain", "toybox", tmp_path / "nowhere.png", good, "-m", "cam", "-o", tmp_path / "out", "--json")
    assert answer.code == 1
    assert "there is no such file" in one_sentence(answer.err)
    assert len(answer.json) == 1


# --- everything else: exit code 2, nothing is started -------------------------------------------------------------

Write = Callable[[Path], None]


def explain(*flags: str) -> list[str]:
    """The command that explains one good picture, with flags."""
    return ["explain", "toybox", "GOOD", "-o", "out", *flags]


def text(content: str) -> Write:
    return lambda path: path.write_text(content) and None


def evil(path: Path) -> None:
    class Evil:
        def __reduce__(self):
            return (print, ("this code must not run",))

    with path.open("wb") as file:
        pickle.dump({"state_dict": Evil()}, file)


def state(path: Path, **tensors: torch.Tensor) -> None:
    save_file(tensors or {"conv.weight": torch.zeros(1)}, path)


#: name -> (arguments, what must be said, files to write first)
USAGE: dict[str, tuple[list[str], str, dict[str, Write]]] = {
    "no such command": (["explian"], "No such command", {}),
    "no model": (["explain"], "Missing argument|required", {}),
    "no picture": (["explain", "toybox", "-o", "out"], "Missing argument|required", {}),
    "no out": (["explain", "toybox", "GOOD"], "--out", {}),
    "unknown flag": (explain("--methd", "cam"), "--methd", {}),
    "flag without value": (["explain", "toybox", "GOOD", "--out"], "requires an argument|--out", {}),
    "batch size no number": (["layers", "toybox", "--batch-size", "many"], "--batch-size", {}),
    "unknown model": (["layers", "resnet51"], "resnet50", {}),
    "empty model": (["layers", " "], "No model given", {}),
    "unknown timm model": (["layers", "timm:convnext_tinny"], "convnext_tiny", {}),
    "missing python file": (["layers", "net.py:build"], "no such file", {}),
    "python file without function": (["layers", "net.py"], "name the function", {}),
    "function not in the file": (
        ["layers", "net.py:buidl"], "it has: build", {"net.py": text("def build(): pass\n")},
    ),
    "python file that raises": (
        ["layers", "net.py:build"], "ZeroDivisionError", {"net.py": text("def build():\n  1/0\n")},
    ),
    "python file with a syntax error": (
        ["layers", "net.py:build"], "SyntaxError", {"net.py": text("def build(:\n")},
    ),
    "function that returns no network": (
        ["layers", "net.py:build"], "not a torch.nn.Module", {"net.py": text("def build(): return 3\n")},
    ),
    "missing weights": (["layers", "toybox", "--weights", "w.pth"], "no such weights file", {}),
    "weights are a folder": (["layers", "toybox", "--weights", "w"], "folder", {"w": lambda p: p.mkdir()}),
    "weights are text": (
        ["layers", "toybox", "--weights", "w.pth"], "this is text, not weights", {"w.pth": text("hello")},
    ),
    "safetensors are garbage": (
        ["layers", "toybox", "--weights", "w.safetensors"], "w.safetensors: ",
        {"w.safetensors": lambda p: p.write_bytes(b"\1" * 100)},
    ),
    "weights run code": (["layers", "toybox", "--weights", "w.pth"], "--trust-pickle", {"w.pth": evil}),
    "weights of another network": (
        ["layers", "toybox", "--weights", "w.safetensors"], "do not fit", {"w.safetensors": state},
    ),
    "weights without tensors": (
        ["layers", "toybox", "--weights", "w.pth"], "no tensors", {"w.pth": lambda p: torch.save({"epoch": 3}, p)},
    ),
    "missing labels": (["layers", "toybox", "--labels", "l.txt"], "no such labels file", {}),
    "empty labels": (["layers", "toybox", "--labels", "l.txt"], "empty", {"l.txt": text("\n\n")}),
    "labels in no text": (
        ["layers", "toybox", "--labels", "l.txt"], "binary file", {"l.txt": lambda p: p.write_bytes(b"\xff\xfe\0")},
    ),
    "size no number": (["layers", "toybox", "--size", "big"], "--size must be", {}),
    "size of nothing": (["layers", "toybox", "--size", "0"], "--size must be", {}),
    "size too small": (["layers", "squeezenet1_0", "--weights", "none", "--size", "4"], "cannot run on an input", {}),
    "mean no number": (["layers", "toybox", "--mean", "a,b,c"], "--mean must be", {}),
    "mean of other length": (["layers", "toybox", "--mean", "0.5,0.5"], "mean has 2 values and std 3", {}),
    "std of zero": (["layers", "toybox", "--std", "0,1,1"], "above 0", {}),
    "channels that do not fit": (
        ["layers", "toybox", "--mean", "0.5,0.5", "--std", "1,1"], "cannot run on an input of 2×", {},
    ),
    "unknown fit": (["layers", "toybox", "--fit", "stretch"], "crop, squash or pad", {}),
    "unknown device": (["layers", "toybox", "--device", "gpu"], "Unknown device", {}),
    "absent device": (["layers", "toybox", "--device", "mps"], "No MPS device", {}),
    "unknown dtype": (["layers", "toybox", "--dtype", "int3"], "dtype must be", {}),
    "batch of nothing": (["layers", "toybox", "--batch-size", "0"], "at least 1", {}),
    "unknown method": (explain("-m", "gradcam"), "grad-cam", {}),
    "no method": (explain("-m", ","), "--method is empty", {}),
    "unknown class": (explain("-t", "catt"), "Did you mean cat", {}),
    "class like no other": (explain("-t", "zebra"), "The names are house, tree, car", {}),
    "class out of range": (explain("-t", "10"), "0 to 9", {}),
    "negative class": (explain("-t", "-1"), "no class -1", {}),
    "rank out of range": (explain("-t", "top11"), "only 10 classes", {}),
    "empty target": (explain("-t", ""), "target is empty", {}),
    "ambiguous class": (explain("-t", "c"), "could be", {}),
    "against itself": (
        explain("-t", "cat", "--against", "cat"), "same class", {},
    ),
    "unknown class against": (explain("--against", "dgo"), "no class named", {}),
    "unit of an unknown layer": (explain("-t", "layerx:3"), "no layer 'layerx'", {}),
    "unit out of range": (explain("-t", "layer2:9999"), "no channel 9999", {}),
    "neuron out of range": (explain("-t", "layer2:1@99,0"), "no neuron", {}),
    "unknown layer": (explain("--layer", "layer9"), "Nearest", {}),
    "layer without a grid": (
        explain("-m", "grad-cam", "--layer", "fc"), "not a grid|no layer", {},
    ),
    "set without equals": (explain("--set", "grad-cam.layer"), "METHOD.NAME=VALUE", {}),
    "set of an unknown setting": (
        explain("-m", "occlusion", "--set", "occlusion.windw=3"), "it has: window", {},
    ),
    "set of a method not chosen": (
        explain("-m", "cam", "--set", "occlusion.window=3"), "not among the methods", {},
    ),
    "setting no number": (
        explain("-m", "occlusion", "--window", "x"), "occlusion.window must be", {},
    ),
    "setting out of range": (
        explain("-m", "smoothgrad", "--samples", "0"), "at least 1|in 1..", {},
    ),
    "unknown fill": (explain("-m", "occlusion", "--fill", "pink"), "fill must be", {}),
    "flag of a method not chosen": (
        explain("-m", "cam", "--window", "3"), "--window is a setting of", {},
    ),
    "unknown resize": (explain("--resize", "soft"), "exact or plain", {}),
    "negative parts": (explain("--parts", "-1"), "--parts|-1", {}),
    "ray of no cluster": (explain("--ray", "127.0.0.1:1"), "nothing answers there.*--ray local", {}),
    "ray of no cluster, folder deep": (
        ["diagnose", "toybox", "GOOD", "-o", "out/deep", "--ray", "ray://127.0.0.1:1"], "nothing answers there", {}
    ),
    "ray of no cluster, measured": (
        ["evaluate", "toybox", "--measure", "pointing", "-o", "out", "--ray", "127.0.0.1:1"], "nothing answers", {}
    ),
    "ray of no cluster, surveyed": (
        ["survey", "toybox", "GOOD", "-o", "out/s", "--ray", "127.0.0.1:1"], "nothing answers", {}
    ),
    "survey of no folder": (["survey", "toybox", "nowhere", "-o", "out/s"], "no such folder", {}),
    "survey of an empty folder": (
        ["survey", "toybox", "dir", "-o", "out/s"], "holds no pictures|No pictures", {"dir": lambda p: p.mkdir()}
    ),
    "out is a file": (["explain", "toybox", "GOOD", "-o", "o"], "this is a file", {"o": text("")}),
    "out inside a file": (["explain", "toybox", "GOOD", "-o", "o/p"], "file", {"o": text("")}),
    "glob of nothing": (["explain", "toybox", "none/*.jpg", "-o", "out"], "no file matches", {}),
    "empty folder": (["explain", "toybox", "dir", "-o", "out"], "holds no pictures", {"dir": lambda p: p.mkdir()}),
    "out without an ending": (["filters", "toybox", "--out", "picture"], "must end in", {}),
    "out with an unknown ending": (["filters", "toybox", "--out", "a.xyz"], "must end in", {}),
    "out is a folder": (["filters", "toybox", "--out", "dir"], "this is a folder", {"dir": lambda p: p.mkdir()}),
    "filters of no convolution": (["filters", "toybox", "--layer", "fc", "--out", "a.png"], "Convolutions", {}),
    "activations of a missing picture": (
        ["activations", "toybox", "nowhere.png", "--out", "a.png"], "no such file", {},
    ),
    "activations on an unknown scale": (
        ["activations", "toybox", "GOOD", "--out", "a.png", "--scale", "log"], "own or shared", {},
    ),
    "unknown method told": (["methods", "occlusoin"], "occlusion", {}),
    "no toybox pictures": (["toybox", "dir", "--count", "0"], "at least 1", {}),
    "negative seed": (["toybox", "dir", "--seed", "-1"], "0 or more", {}),
    "toybox into a file": (["toybox", "f"], "this is a file", {"f": text("")}),
    "unknown tag": (["toybox", "dir", "--tag", "dragon"], "dragon", {}),
    "demo into a file": (["demo", "--out", "f"], "this is a file", {"f": text("")}),
}  # fmt: skip


@pytest.mark.parametrize("name", USAGE)
def test_bad_usage(cli, tmp_path, monkeypatch, good, name):
    arguments, said, files = USAGE[name]
    monkeypatch.chdir(tmp_path)
    for file, write in files.items():
        write(tmp_path / file)
    answer = cli(*[str(good) if argument == "GOOD" else argument for argument in arguments])
    assert answer.code == 2, (answer.out, answer.err)
    last = answer.err.strip().splitlines()[-1] if answer.err.strip() else ""
    for note in answer.err.strip().splitlines()[:-1]:
        # how long it will take is said before, where the machine is slow
        assert note.startswith(("Note: ", "all leaves out")) or "passes a picture" in note, answer.err
    sentence = one_sentence(last)
    assert re.search(said, sentence), sentence
    assert answer.out == ""
    assert "this code must not run" not in answer.out + answer.err
    assert not (tmp_path / "out").exists(), "a command that is refused leaves no folder"


def test_there_are_forty_kinds():
    assert len(PICTURES) + len(USAGE) >= 40


# --- Python users get the same sentences --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda cs, m: cs.explain(m, []), "No pictures"),
        (lambda cs, m: cs.explain(m, np.zeros((8, 8, 3), np.uint8), []), "No methods"),
        (lambda cs, m: cs.explain(m, np.full((8, 8, 3), np.nan)), "NaN"),
        (lambda cs, m: cs.explain(m, np.full((8, 8, 3), 200.0)), "0..1"),
        (lambda cs, m: cs.explain(m, np.zeros((3, 8, 8, 2))), "H×W"),
        (lambda cs, m: cs.explain(m, object()), "path, PIL image, array or tensor"),
        (lambda cs, m: cs.explain(m, torch.zeros(2, 3, 8, 8, 1)), "C×H×W"),
        (lambda cs, m: cs.explain(m, np.zeros((96, 96, 3), np.uint8), target=3.7j), "class number, a name"),
        (lambda cs, m: cs.explain(m, np.zeros((96, 96, 3), np.uint8), target=lambda out: 3.0), "not a tensor"),
        (lambda cs, m: cs.explain(m, np.zeros((96, 96, 3), np.uint8), target=lambda out: out), "one score per"),
        (lambda cs, m: cs.wrap("resnet50"), "torch.nn.Module"),
        (lambda cs, m: cs.wrap(m), "Model already"),
        (lambda cs, m: cs.open_model(torch.nn.LazyLinear(3)), "lazy"),
    ],
)  # fmt: skip
def test_bad_calls(call, said):
    import convoscope as cs

    with pytest.raises(ConvoscopeError, match=said) as raised:
        call(cs, cs.open_model("toybox"))
    one_sentence(str(raised.value))
