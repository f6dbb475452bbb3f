"""What files and arrays become: every value in 0..1 and where it was, or one sentence."""

from __future__ import annotations

import io
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import convoscope as cs
from convoscope.pictures.picture import find_pictures


def network(channels: int) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(channels, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)
    ).eval()


def noise(*shape: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def through_file(tmp_path: Path, image: Image.Image, ending: str, **settings: Any) -> Path:
    path = tmp_path / f"picture.{ending}"
    image.save(path, **settings)
    return path


def test_floats_in_zero_to_one_are_read_as_they_are(tmp_path: Path) -> None:
    values = np.random.default_rng(0).random((9, 7)).astype(np.float32)
    path = through_file(tmp_path, Image.fromarray(values), "tif")
    np.testing.assert_array_equal(cs.Picture.of(path).bands[:, :, 0], values)
    np.testing.assert_array_equal(cs.Picture.of(Image.fromarray(values)).bands[:, :, 0], values)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (np.linspace(-1000, 1000, 64).reshape(8, 8).astype(np.float32), "0..1, not -1e"),
        (np.linspace(0, 255, 64).reshape(8, 8).astype(np.float32), "0..1, not 0..255"),
        (np.full((8, 8), np.nan, np.float32), "NaN"),
        (np.arange(64, dtype=np.int32).reshape(8, 8), r"32-bit integers \(0..63\)"),
        (np.arange(64, dtype=np.int32).reshape(8, 8) * 2000 - 50000, "32-bit integers"),
    ],
)
@pytest.mark.parametrize("way", ["file", "pil"])
def test_values_without_a_range_are_refused(tmp_path: Path, values: Any, said: str, way: str) -> None:
    image = Image.fromarray(values)
    source: Any = image if way == "pil" else through_file(tmp_path, image, "tif")
    with pytest.raises(cs.PictureError, match=said):
        cs.Picture.of(source)


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_sixteen_bits_are_read_over_their_whole_range(tmp_path: Path, ending: str) -> None:
    values = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    got = cs.Picture.of(through_file(tmp_path, Image.fromarray(values), ending))
    np.testing.assert_allclose(got.bands[:, :, 0], values / 65535, atol=1e-7)
    assert got.notes == ()
    np.testing.assert_array_equal(cs.Picture.of(values).bands, got.bands)


@pytest.mark.parametrize(("top", "bits"), [(255, 8), (1023, 10), (4095, 12), (4000, 12)])
def test_sixteen_bits_that_hold_fewer_are_doubted_in_the_result(tmp_path: Path, top: int, bits: int) -> None:
    values = np.linspace(0, top, 256).astype(np.uint16).reshape(16, 16)
    path = through_file(tmp_path, Image.fromarray(values), "png")
    found = cs.explain(cs.wrap(network(1), mean=0.5, std=0.5), path, ["saliency"])
    assert any(f"only {top} of 65,535 (data of {bits} bits?)" in doubt for doubt in found.doubts)


@pytest.mark.parametrize("way", ["png", "tif", "webp", "pil", "bytes"])
def test_four_bands_reach_a_network_of_four_channels_as_they_are(tmp_path: Path, way: str) -> None:
    values = noise(12, 10, 4)
    image = Image.fromarray(values, "RGBA")
    path = through_file(
        tmp_path,
        image,
        "png" if way in ("pil", "bytes") else way,
        **({"lossless": True, "exact": True} if way == "webp" else {}),
    )
    source: Any = {"pil": image, "bytes": path.read_bytes()}.get(way, path)
    fitted = cs.wrap(network(4), mean=0, std=1).prepare(source)
    np.testing.assert_allclose(fitted.tensor.movedim(0, -1).numpy(), values / 255, atol=1e-6)
    assert fitted.picture.image.size == (10, 12)  # it can be drawn
    cs.explain(cs.wrap(network(4)), source, ["saliency"])
    three = cs.wrap(network(3), mean=0, std=1).prepare(source).tensor.movedim(0, -1).numpy()
    share = values[:, :, 3:] / 255
    np.testing.assert_allclose(three, values[:, :, :3] / 255 * share + (1 - share), atol=2 / 255)  # laid on white


@pytest.mark.parametrize(("mode", "channels"), [("LA", 2), ("CMYK", 4)])
def test_other_kinds_of_extra_bands(tmp_path: Path, mode: str, channels: int) -> None:
    values = noise(8, 8, channels)
    image = Image.fromarray(values, mode)
    path = through_file(tmp_path, image, "tif" if mode == "CMYK" else "png")
    got = cs.wrap(network(channels), mean=0, std=1).prepare(path).tensor.movedim(0, -1).numpy()
    np.testing.assert_allclose(got, values / 255, atol=1e-6)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pil_images_follow_exif_as_paths_do(tmp_path: Path, orientation: int) -> None:
    image = Image.fromarray(noise(8, 12, 3))
    exif = image.getexif()
    exif[0x0112] = orientation
    path = through_file(tmp_path, image, "png", exif=exif)
    from_path, from_pil = cs.Picture.of(path), cs.Picture.of(Image.open(path))
    assert from_path.size == ((8, 12) if orientation < 5 else (12, 8))
    np.testing.assert_array_equal(from_path.bands, from_pil.bands)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32, np.float64, np.bool_])
@pytest.mark.parametrize("shape", [(10, 12), (10, 12, 3), (10, 12, 6)])
def test_npy_files_are_arrays(tmp_path: Path, dtype: Any, shape: tuple[int, ...]) -> None:
    values = np.random.default_rng(0).random(shape)
    array = (
        (values * np.iinfo(dtype).max).astype(dtype)
        if np.dtype(dtype).kind == "u"
        else (values > 0.5 if dtype is np.bool_ else values.astype(dtype))
    )
    np.save(tmp_path / "a.npy", array)
    got, same = cs.Picture.of(tmp_path / "a.npy"), cs.Picture.of(array)
    np.testing.assert_array_equal(got.bands, same.bands)
    assert got.path == tmp_path / "a.npy"
    assert got.name == "a.npy"


def _pickled() -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.array([{"a": 1}], dtype=object), allow_pickle=True)
    return buffer.getvalue()


def _npy(array: Any) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        _pickled(), _npy(noise(4, 4, 3))[:60], _npy(noise(4, 4, 3))[:-9], _npy(np.zeros(5)), b"\x93NUMPY",
        _npy(np.zeros((2, 2, 2, 2, 2))), _npy(np.array(["a", "b"])), _npy(np.full((4, 4), np.nan)),
        _npy(noise(4, 4).astype(np.int32) * 9999), _npy(np.zeros((0, 4))), _npy(np.zeros((4, 4), complex)),
    ],
)  # fmt: skip
def test_npy_files_that_are_no_pictures_get_a_sentence(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(cs.PictureError):
        cs.Picture.of(tmp_path / "a.npy")


def test_a_folder_of_arrays_is_walked_and_one_of_pictures_keeps_its_arrays_out(tmp_path: Path) -> None:
    np.save(tmp_path / "b.npy", noise(4, 4, 3))
    np.save(tmp_path / "a.npy", noise(4, 4, 3))
    assert [p.name for p in find_pictures([tmp_path])] == ["a.npy", "b.npy"]
    Image.fromarray(noise(4, 4, 3)).save(tmp_path / "c.png")
    assert [p.name for p in find_pictures([tmp_path])] == ["c.png"]


@pytest.mark.parametrize("planar", ["contig", "separate"])
@pytest.mark.parametrize(
    ("dtype", "bands"),
    [(np.uint8, 5), (np.uint8, 13), (np.uint16, 4), (np.float32, 6), (np.uint8, 2), (np.float32, 3)],
)
def test_tiff_files_of_many_bands(tmp_path: Path, planar: str, dtype: Any, bands: int) -> None:
    tifffile = pytest.importorskip("tifffile", reason="tifffile is not installed")
    values = np.random.default_rng(0).random((9, 11, bands))
    array = (values * np.iinfo(dtype).max).astype(dtype) if np.dtype(dtype).kind == "u" else values.astype(dtype)
    stored = array if planar == "contig" else np.moveaxis(array, -1, 0)
    tifffile.imwrite(tmp_path / "m.tif", stored, planarconfig=planar, photometric="minisblack")
    fitted = cs.wrap(network(bands), mean=0, std=1).prepare(tmp_path / "m.tif")
    np.testing.assert_allclose(
        fitted.tensor.movedim(0, -1).numpy(),
        cs.Picture.of(array).bands / (255 if dtype is np.uint8 else 1),
        atol=1e-6,
    )


@pytest.mark.parametrize("length", [8, 60, 200])
@pytest.mark.filterwarnings("ignore:Corrupt EXIF:UserWarning", "ignore:Truncated File:UserWarning")
def test_a_cut_tiff_file_gets_a_sentence(tmp_path: Path, length: int) -> None:
    tifffile = pytest.importorskip("tifffile", reason="tifffile is not installed")
    tifffile.imwrite(tmp_path / "m.tif", noise(40, 40, 7), photometric="minisblack", planarconfig="contig")
    (tmp_path / "cut.tif").write_bytes((tmp_path / "m.tif").read_bytes()[:length])
    with pytest.raises(cs.PictureError):
        cs.Picture.of(tmp_path / "cut.tif")


def test_a_pipe_named_as_a_picture_does_not_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    said: list[str] = []

    def read() -> None:
        try:
            cs.Picture.of(tmp_path / "pipe.png")
        except cs.PictureError as error:
            said.append(str(error))

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(30)
    assert "pipe or a device" in said[0]


@pytest.mark.parametrize("name", ["/dev/zero", "/dev/null", "a\0b.png", "x" * 5000 + ".png"])
def test_devices_and_names_that_cannot_be(name: str) -> None:
    with pytest.raises(cs.PictureError):
        cs.Picture.of(name)


def test_npy_and_tiff_on_the_command_line(tmp_path: Path) -> None:
    tifffile = pytest.importorskip("tifffile", reason="tifffile is not installed")
    from convoscope.cli import run

    (tmp_path / "net.py").write_text(
        "import torch\nfrom torch import nn\ndef build():\n    torch.manual_seed(0)\n"
        "    return nn.Sequential(nn.Conv2d(6, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),\n"
        "                         nn.Linear(4, 2))\n"
    )
    np.save(tmp_path / "a.npy", noise(16, 16, 6))
    tifffile.imwrite(tmp_path / "b.tif", noise(16, 16, 6), photometric="minisblack", planarconfig="contig")
    pictures = [str(tmp_path / "a.npy"), str(tmp_path / "b.tif")]
    code = run(["explain", f"{tmp_path}/net.py:build", *pictures, "-m", "saliency", "--out", str(tmp_path / "out")])
    assert code == 0
    for name in "ab":
        assert (tmp_path / "out" / name / "sheet.png").is_file()
