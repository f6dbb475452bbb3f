"""The store: adding pictures, doubles, refusing what does not belong together, reopening the network."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from convoscope import open_model, wrap
from convoscope.errors import LayerError, ModelError, PictureError, StoreError, UsageError
from convoscope.models.model import Model
from convoscope.surveys import Progress, Store, survey
from convoscope.surveys.gather import driver


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(6, 2),
    ).eval()  # fmt: skip


def model(seed: int = 0, **settings: object) -> Model:
    return wrap(network(seed), **{"size": 20, "batch_size": 4, **settings})  # type: ignore[arg-type]


def draw(folder: Path, numbers: range) -> Path:
    folder.mkdir(exist_ok=True)
    for number in numbers:
        pixels = np.random.default_rng(number).integers(0, 256, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:02}.png")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return draw(tmp_path / "pictures", range(9))


def test_added_pictures_alone_are_computed(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    survey(model(), folder, tmp_path / "s", shard_size=4)
    draw(folder, range(9, 14))
    worked: list[str] = []
    real = driver.compute
    monkeypatch.setattr(
        driver,
        "compute",
        lambda m, r, unit, *rest: worked.extend(i.uri for i in unit.items) or real(m, r, unit, *rest),
    )
    store = survey(model(), folder, tmp_path / "s", shard_size=4)
    assert sorted(Path(uri).stem for uri in worked) == ["09", "10", "11", "12", "13"]
    assert len(store) == 14
    whole = survey(model(), folder, tmp_path / "whole", shard_size=50)
    np.testing.assert_allclose(store.state().top.values, whole.state().top.values, rtol=1e-5)
    np.testing.assert_array_equal(store.state().top.keys, whole.state().top.keys)


def test_the_same_bytes_twice_are_one_row_with_two_uris(folder: Path, tmp_path: Path) -> None:
    shutil.copy(folder / "03.png", folder / "zz.png")
    store = survey(model(), folder, tmp_path / "s")
    assert len(store) == 9
    double = [uris for uris in store.uris.values() if len(uris) > 1]
    assert double == [[str(folder / "03.png"), str(folder / "zz.png")]]
    shutil.copy(folder / "04.png", folder / "yy.png")  # found later, without any computing
    store = survey(model(), folder, tmp_path / "s")
    assert len(store) == 9
    assert sum(len(uris) > 1 for uris in store.uris.values()) == 2


def test_a_picture_changed_in_place_is_a_new_picture(folder: Path, tmp_path: Path) -> None:
    survey(model(), folder, tmp_path / "s")
    Image.new("RGB", (20, 20), "red").save(folder / "03.png")
    store = survey(model(), folder, tmp_path / "s")
    assert len(store) == 10
    assert store.neighbors(folder / "03.png", k=9).rows


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        ({"seed": 1}, "the network's weights"),
        ({"mean": (0.1, 0, 0)}, "the preprocessing's mean"),
        ({"size": 22}, "the preprocessing's size"),
    ],
)
def test_another_network_or_preprocessing_is_refused(
    folder: Path, tmp_path: Path, other: dict[str, object], sentence: str
) -> None:
    survey(model(), folder, tmp_path / "s")
    with pytest.raises(UsageError, match=f"differs in .*{sentence}"):
        survey(model(**other), folder, tmp_path / "s")  # type: ignore[arg-type]
    assert len(Store.open(tmp_path / "s")) == 9  # and the lock is free again
    survey(model(), folder, tmp_path / "s")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"layers": ["1"]}, "the surveyed layers"),
        ({"embed": ["1"]}, "the embeddings"),
        ({"top": 3}, "how many pictures are kept"),
    ],
)
def test_other_layers_are_refused(folder: Path, tmp_path: Path, settings: dict[str, object], sentence: str) -> None:
    survey(model(), folder, tmp_path / "s")
    with pytest.raises(UsageError, match=sentence):
        survey(model(), folder, tmp_path / "s", **settings)  # type: ignore[arg-type]


def test_what_is_no_store_is_said(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="does not exist: make one with"):
        Store.open(tmp_path / "nothing")
    with pytest.raises(StoreError, match="no survey's store"):
        Store.open(folder)
    with pytest.raises(StoreError, match="name a new folder"):
        survey(model(), folder, folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(PictureError, match="holds no pictures"):
        survey(model(), tmp_path / "empty", tmp_path / "s")
    with pytest.raises(LayerError, match="no layer 'x'"):
        survey(model(), folder, tmp_path / "t", ["x"])


def test_none_readable_is_an_error_some_is_not(tmp_path: Path) -> None:
    folder = tmp_path / "p"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"")
    store = survey(model(), folder, tmp_path / "s")
    rows = store.table(["error", "embedding_0"]).to_pylist()
    assert "empty (zero bytes)" in rows[0]["error"]
    assert rows[0]["embedding_0"] is None
    assert store.state().pictures == 0
    with pytest.raises(UsageError, match="holds no picture"):
        store.units()


def test_labels_that_change_later_are_said(folder: Path, tmp_path: Path) -> None:
    survey(model(), folder, tmp_path / "s")
    truth = {path.name: "x" for path in folder.iterdir()}
    store = survey(model(), folder, tmp_path / "s", truth=truth)
    assert any("9 pictures were surveyed under another label" in note for note in store.notes)


def test_progress_tells_rate_and_rest(folder: Path, tmp_path: Path) -> None:
    seen: list[Progress] = []
    survey(model(), folder, tmp_path / "s", progress=seen.append, shard_size=4)
    assert [p.done for p in seen if p.stage == "listing"] == list(range(1, 10))
    work = [p for p in seen if p.stage == "surveying"]
    assert work[0].done == 0
    assert work[-1].done == work[-1].total == 9
    assert all(p.per_second is not None and p.seconds_left is not None for p in work[1:])


def test_the_store_alone_opens_the_network_again(toys: Path, tmp_path: Path) -> None:
    survey("toybox", toys, tmp_path / "s", ["stem.2"], top=2)
    store = Store.open(tmp_path / "s")
    patches = store.patches("stem.2:3", 2)
    assert all(patch.recomputed == pytest.approx(patch.value, rel=1e-4, abs=1e-5) for patch in patches.items)
    assert store.model().labels == open_model("toybox").labels


def test_changed_weights_on_disk_are_refused(toys: Path, tmp_path: Path) -> None:
    """A tampered space: the same dimension, other weights."""
    from safetensors.torch import save_file

    code = tmp_path / "net.py"
    code.write_text(
        "from torch import nn\ndef build():\n"
        "    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), "
        "nn.Flatten(), nn.Linear(4, 2))\n"
    )
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    weights = tmp_path / "w.safetensors"
    save_file(net.state_dict(), weights)
    survey(open_model(f"{code}:build", weights=weights, size=32), toys, tmp_path / "s", top=2)
    assert Store.open(tmp_path / "s").patches("1:0", 1).items
    with torch.no_grad():
        net[0].weight.add_(0.1)
    save_file(net.state_dict(), weights)
    with pytest.raises(ModelError, match="have changed since the survey"):
        Store.open(tmp_path / "s").patches("1:0", 1)
    with pytest.raises(UsageError, match="the network's weights"):
        survey(open_model(f"{code}:build", weights=weights, size=32), toys, tmp_path / "s", top=2)
    weights.unlink()
    with pytest.raises(ModelError, match="no longer there"):
        Store.open(tmp_path / "s").patches("1:0", 1)


def test_folding_keeps_the_content(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from convoscope.surveys.store import commits as module

    # one layout for both: "auto" takes the one that is faster at the moment, and the two differ in rounding
    plain = survey(model(), folder, tmp_path / "a", shard_size=2, memory_format="contiguous").state()
    monkeypatch.setattr(module, "FOLD_AFTER", 2)
    store = survey(model(), folder, tmp_path / "b", shard_size=2, memory_format="contiguous")
    folded = Store.open(tmp_path / "b").state()
    np.testing.assert_array_equal(plain.top.values, folded.top.values)
    np.testing.assert_array_equal(plain.top.keys, folded.top.keys)
    np.testing.assert_array_equal(plain.histogram, folded.histogram)
    assert folded.pictures == 9
    versions = len(list((tmp_path / "b" / "states.lance" / "_versions").glob("*.manifest")))
    assert versions <= 4  # what is folded does not pile up
    store.close()


def test_reading_does_not_write(folder: Path, tmp_path: Path) -> None:
    survey(model(), folder, tmp_path / "s")
    reader = Store.open(tmp_path / "s")
    with pytest.raises(UsageError, match="open for reading only"):
        reader.fold()
