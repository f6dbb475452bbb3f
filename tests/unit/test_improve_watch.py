"""Watching a network that learns: training is bit for bit the same, nothing is left behind, the film survives."""

import gc
import io
import json
import os
import signal
import struct
import subprocess
import sys
import textwrap
import warnings
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import convoscope as cs
from convoscope.errors import UsageError
from convoscope.improve.film import Film
from convoscope.improve.watch import LightningWatch, TrainerWatch, gradient_norms, lightning_callback

sys.path.insert(0, str(Path(__file__).parents[1] / "robust"))
from faults import Disk, Fault

CLASSES = ["cat", "dog", "eel"]


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout2d(0.2),
        nn.Conv2d(6, 8, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3),
    )  # fmt: skip


@pytest.fixture(scope="module")
def pictures():
    random = np.random.default_rng(0)
    return [(Image.fromarray(random.integers(0, 255, (16, 16, 3), dtype=np.uint8)), CLASSES[i % 3]) for i in range(9)]


def train(net, watch=None, steps=12, epochs=3):
    """A loop with dropout, batch norm, momentum and a shuffled loader; its losses."""
    torch.manual_seed(1)
    np.random.seed(1)
    data = torch.utils.data.TensorDataset(torch.rand(48, 3, 16, 16), torch.randint(0, 3, (48,)))
    optimiser = torch.optim.SGD(net.parameters(), 0.1, momentum=0.9)
    losses = []
    net.train()
    for epoch in range(epochs):
        for inputs, truth in torch.utils.data.DataLoader(data, 4, shuffle=True):
            optimiser.zero_grad()
            loss = nn.functional.cross_entropy(net(inputs + 0.01 * torch.randn_like(inputs)), truth)
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
            if watch is not None:
                watch.step(epoch, losses[-1])
    return losses


def test_training_is_bit_for_bit_the_same(pictures, tmp_path):
    plain, watched = network(), network()
    want = train(plain)
    with cs.Watch(cs.wrap(watched, size=16, labels=CLASSES), pictures, every=3, out=tmp_path) as watch:
        got = train(watched, watch)
    assert got == want
    assert all(
        torch.equal(a, b) for a, b in zip(plain.state_dict().values(), watched.state_dict().values(), strict=True)
    )
    assert watched.training
    assert len(watch.records) == 3 * 4
    assert not watch.notes
    record = watch.records[-1]
    assert record["epoch"] == 2
    assert record["loss"] == got[record["step"] - 1]
    assert set(record["gradients"]) == {"0", "1", "4", "8"}
    lines = (tmp_path / "watch.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [one["step"] for one in watch.records]
    with Image.open(tmp_path / "film.webp") as film:
        assert film.n_frames == len(watch.records)
    page = (tmp_path / "index.html").read_text()
    assert "Accuracy on the watched pictures" in page
    assert "<script" not in page
    assert watch.memory is not None


def test_nothing_is_left_after_close(pictures):
    net = network()
    model = cs.wrap(net, size=16, labels=CLASSES)
    watch = cs.Watch(model, pictures, out=None)
    train(net, watch, epochs=1)
    watch.close()
    watch.close()
    assert watch.step(5) is None
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    assert not any(getattr(module, name) for module in net.modules() for name in hooks)
    gone = weakref.ref(net)
    del net, model
    gc.collect()
    assert gone() is None


def test_what_is_recorded(pictures):
    net = network()
    with torch.no_grad():
        net[4].weight[2] = 0
        net[4].bias[2] = -1
    watch = cs.Watch(cs.wrap(net, size=16, labels=CLASSES), pictures, every=2, out=None)
    record = watch.record(0)
    assert record["gradients"] == {}
    inputs = torch.stack([watch.model.prepare(image).tensor for image, _ in pictures])
    net.eval()
    with torch.no_grad():
        assert record["predictions"] == net(inputs).argmax(1).tolist()
        silent = net[:6](inputs).amax((2, 3)).numpy().max(0) == 0
    assert silent[2]
    assert record["dead"]["5"] == silent.sum()
    # once an epoch, and every second step inside it
    made = [watch.step(epoch) is not None for epoch in (0, 0, 0, 1, 1, 1, 1)]
    assert made == [True, False, True, True, False, True, False]


def test_gradient_norms_by_hand():
    net = network()
    assert gradient_norms(net) == {}
    net(torch.rand(4, 3, 16, 16)).sum().backward()
    got = gradient_norms(net)
    want = torch.cat([net[8].weight.grad.flatten(), net[8].bias.grad]).norm().item()
    assert abs(got["8"] - want) < 1e-4


def test_a_failing_record_does_not_end_the_training(pictures, tmp_path):
    net = network()
    watch = cs.Watch(cs.wrap(net, size=16, labels=CLASSES), pictures, out=None)
    net[8] = nn.Linear(9, 3)
    with pytest.warns(RuntimeWarning, match="could not make a record"):
        assert watch.step(0) is None
    assert watch.notes
    assert watch.step(1) is None


@pytest.mark.skipif(sys.platform != "linux", reason="the harness is for Linux")
@pytest.mark.parametrize("at", [1, 2, 4, 7])
def test_a_full_disk_does_not_end_the_training(pictures, tmp_path, at):
    alone, net = network(), network()
    losses = train(alone)
    watch = cs.Watch(net, pictures, every=6, out=tmp_path / "w")
    with Disk(Fault("full", at), under=tmp_path), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        assert train(net, watch) == losses
        watch.close()
    assert any("No space left" in note for note in watch.notes)
    assert all(torch.equal(a, b) for a, b in zip(alone.state_dict().values(), net.state_dict().values(), strict=True))


def test_bad_settings(pictures):
    model = cs.wrap(network(), size=16)
    with pytest.raises(UsageError, match="every"):
        cs.Watch(model, pictures, every=0)
    with pytest.raises(UsageError, match="pictures"):
        cs.Watch(model, [])
    with pytest.raises(UsageError, match="webp"):
        Film("film.gif")


class Writer:
    def __init__(self):
        self.scalars, self.images = [], []

    def add_scalar(self, name, value, step):
        self.scalars.append((name, value, step))

    def add_image(self, name, image, step, dataformats):
        self.images.append((name, image.shape, step, dataformats))


def test_a_writer_is_told(pictures):
    net, writer = network(), Writer()
    with cs.Watch(cs.wrap(net, size=16, labels=CLASSES), pictures, out=None, writer=writer) as watch:
        train(net, watch, epochs=1)
    assert {name for name, _, _ in writer.scalars} >= {"watch/accuracy", "watch/dead", "gradients/0"}
    assert writer.images[0][3] == "HWC"


def test_lightning_hooks(pictures):
    net = network()
    watch = cs.Watch(cs.wrap(net, size=16, labels=CLASSES), pictures, every=2, out=None)
    callback = lightning_callback(watch)
    assert isinstance(callback, LightningWatch)
    trainer = type("Trainer", (), {"current_epoch": 0, "is_global_zero": True})()
    for index in range(4):
        callback.on_train_batch_end(trainer, net, {"loss": torch.tensor(1.5)}, None, index)
    assert [one["loss"] for one in watch.records] == [1.5, 1.5]
    trainer.is_global_zero = False
    callback.on_train_batch_end(trainer, net, {}, None, 5)
    assert watch.steps == 4
    callback.on_fit_end(trainer, net)
    assert watch.model is None


def test_the_lightning_callback_is_one_of_the_lightning_that_is_loaded(pictures, monkeypatch):
    module = type(sys)("pytorch_lightning")
    module.Callback = type("Callback", (), {"state_dict": lambda self: {}})
    monkeypatch.setitem(sys.modules, "pytorch_lightning", module)
    watch = cs.Watch(cs.wrap(network(), size=16, labels=CLASSES), pictures, out=None)
    assert isinstance(watch.lightning(), module.Callback)


def test_hugging_faces_own_handler_takes_the_callback(pictures):
    callbacks = pytest.importorskip("transformers.trainer_callback")
    net = network()
    watch = cs.Watch(cs.wrap(net, size=16, labels=CLASSES), pictures, every=2, out=None)
    handler = callbacks.CallbackHandler([watch.trainer()], net, None, None, None)
    state, control = callbacks.TrainerState(epoch=0.0), callbacks.TrainerControl()
    args = type("Args", (), {})()
    handler.on_train_begin(args, state, control)
    for step in range(4):
        state.epoch = step / 2
        net(torch.rand(4, 3, 16, 16)).sum().backward()
        handler.on_pre_optimizer_step(args, state, control)
        net.zero_grad()
        handler.on_step_end(args, state, control)
    assert [one["epoch"] for one in watch.records] == [0, 1]
    assert all(one["gradients"] for one in watch.records)
    handler.on_train_end(args, state, control)
    assert watch.model is None
    assert isinstance(watch.trainer(), TrainerWatch)


def test_a_film_can_be_read_after_every_frame_and_with_half_a_frame_at_its_end(tmp_path):
    film = Film(tmp_path / "a.webp", 100)
    colours = [(200, 30, 30), (30, 200, 30), (30, 30, 200)]
    for count, colour in enumerate(colours, 1):
        film.add(Image.new("RGB", (41, 30), colour))
        with Image.open(film.path) as opened:
            assert getattr(opened, "n_frames", 1) == count
            for place in range(count):
                opened.seek(place)
                shown = np.asarray(opened.convert("RGB"), int).mean((0, 1))
                assert np.abs(shown - colours[place]).max() < 12
    # killed between the frame and the head that counts it
    data = film.path.read_bytes()
    assert struct.unpack("<I", data[4:8])[0] == len(data) - 8
    with Image.open(io.BytesIO(data + b"ANMF\xff\xff\x00\x00half a frame")) as opened:
        assert opened.n_frames == 3
        opened.seek(2)
        opened.load()


def test_killed_training_leaves_a_readable_film(tmp_path):
    program = textwrap.dedent(
        """
        import sys, numpy as np, torch
        from PIL import Image
        from torch import nn
        import convoscope as cs
        net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 2))
        pictures = [(Image.new("RGB", (16, 16), (40 * i, 10, 90)), str(i % 2)) for i in range(4)]
        watch = cs.Watch(cs.wrap(net, size=16, labels=["0", "1"]), pictures, every=1, out=sys.argv[1], maps=1)
        print("ready", flush=True)
        epoch = 0
        while True:
            watch.step(epoch)
            epoch += 1
            print(epoch, flush=True)
        """
    )
    child = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        for line in child.stdout:
            if line.strip() == "3":
                break
    finally:
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
    with Image.open(tmp_path / "film.webp") as film:
        assert film.n_frames >= 3
        film.seek(film.n_frames - 1)
        film.load()
    whole = (tmp_path / "watch.jsonl").read_text().splitlines()
    assert json.loads(whole[2])["epoch"] == 2
