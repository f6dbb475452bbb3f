"""Watch a network while it learns: filters, dead units, gradient norms and maps of fixed pictures, as a film.

Nothing is left in the network between two records: no hook, no buffer, no changed flag, and the random state is put
back, so that training is bit for bit what it is without a watch.
"""

from __future__ import annotations

import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from ..errors import ConvoscopeError, UsageError
from ..explanation import explain
from ..files import write_whole
from ..methods.views import filter_weights
from ..models.model import Model, wrap
from .collection import Labelled
from .diff.run import forgetting
from .diff.sides import Side, layers_of, look_all
from .film import Film
from .frames import filter_sheet, frame

#: steps between two records inside an epoch
EVERY = 200
#: wrappers of parallel training, whose forward would wait for other processes
_PARALLEL = ("DistributedDataParallel", "DataParallel", "FullyShardedDataParallel")


class Watch:
    """Records of a network that is being trained, from any loop::

        with Watch(model, pictures) as watch:
            for epoch in range(epochs):
                for batch in batches:
                    ...backward, optimiser.step()...
                    watch.step(epoch)

    Args:
        model: the network that is trained: a ``Model`` (``convoscope.wrap(net, size=32, mean=..., std=...)``), or the
            module itself where pictures go in as they are.
        pictures: a fixed set, labelled or not: a folder, files, pairs of a picture and a label. Some dozens are
            enough; each record runs all of them once.
        every: calls of :meth:`step` between two records; the first call of an epoch is always recorded.
        out: folder of ``watch.jsonl`` (a line a record), ``film.webp`` and ``index.html``; None keeps records only.
        maps: pictures of which Grad-CAM is drawn in each frame.
        truth: a CSV file or a mapping of file to label, where folder names are not the labels.
        writer: a TensorBoard ``SummaryWriter``, or anything with its ``add_scalar`` and ``add_image``.

    Raises:
        UsageError: ``every`` below 1, or no picture.
        ModelError: the network cannot run on these pictures.

    A record that fails later on warns once and lets the training go on.
    """

    def __init__(
        self,
        model: Model | nn.Module,
        pictures: Any,
        every: int = EVERY,
        *,
        out: str | Path | None = "watch",
        maps: int = 4,
        truth: Any = None,
        writer: Any = None,
    ) -> None:
        if every < 1:
            raise UsageError(f"every must be at least 1 step, not {every}.")
        if maps < 0:
            raise UsageError(f"maps must be at least 0 pictures, not {maps}.")
        self.every, self.maps, self.writer = every, maps, writer
        self.model: Model | None = _opened(model)
        self.pictures: Labelled | None = Labelled.of(pictures, self.model, truth)
        self.out = None if out is None else Path(out)
        self.records: list[dict[str, Any]] = []
        self.notes: list[str] = []
        self.steps = 0
        self._epoch: int | None = None
        self._since = 0
        self._right: list[np.ndarray[Any, Any]] = []
        self._top: float | None = None
        self._film: Film | None = None
        self._layers = layers_of(self.model)
        # what cannot run is refused now, not in the middle of the night
        self._side(self.pictures.take(range(min(2, len(self.pictures)))))
        if self.out is not None:
            self.out.mkdir(parents=True, exist_ok=True)
            write_whole(self.out / "watch.jsonl", "")
            self._film = Film(self.out / "film.webp")

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def step(self, epoch: int, loss: float | None = None) -> dict[str, Any] | None:
        """Tell that a step of training (or an epoch) is done.

        Call it while the gradients of the step are still there, if their norms are wanted: before ``zero_grad``.

        Args:
            epoch: the number of the epoch; its first call is recorded.
            loss: to be written into the record.

        Returns:
            the record, where one was made now.
        """
        if self.model is None:
            return None
        self.steps += 1
        self._since += 1
        if epoch == self._epoch and self._since < self.every:
            return None
        self._epoch, self._since = epoch, 0
        return self.record(epoch, loss)

    def record(self, epoch: int | None = None, loss: float | None = None) -> dict[str, Any] | None:
        """Make a record now."""
        if self.model is None or self.pictures is None:
            return None
        started = time.perf_counter()
        try:
            found = self._look(epoch, loss)
        except (ConvoscopeError, RuntimeError, ValueError, OSError) as error:
            self._could_not("make a record", error)
            return None
        found["seconds"] = time.perf_counter() - started
        self.records.append(found)
        try:
            self._write(found)
        except OSError as error:  # a full disk is no reason to lose a night's training
            self._could_not("write its record", error)
        return found

    def _could_not(self, what: str, error: Exception) -> None:
        """The training goes on; the first time it is said at once, and all stands in ``notes``."""
        if not self.notes:
            warnings.warn(f"The watch could not {what}: {error}", RuntimeWarning, stacklevel=4)
        self.notes.append(str(error))

    def close(self) -> None:
        """Write the page and let go of network and pictures. A second call does nothing."""
        if self.model is None:
            return
        if self.out is not None and self.records:
            try:
                write_whole(self.out / "index.html", self.page())
            except OSError as error:
                self._could_not("write its page", error)
        self.model = self.pictures = self.writer = self._film = None

    def page(self) -> str:
        """The course so far as one HTML document."""
        from ..html.render import render
        from ..version import __version__
        from .watch_page import course

        return render("watch.html", title="A network that learns", version=__version__, **course(self))

    @property
    def memory(self) -> dict[str, Any] | None:
        """When each picture was learnt and how often forgotten (Toneva et al. 2019); None without labels."""
        if not self._right:
            return None
        found = forgetting(np.stack(self._right))
        return {"learnt": found.learnt.tolist(), "forgotten": found.forgotten.tolist()}

    # one record

    def _side(self, pictures: Labelled) -> Side:
        assert self.model is not None
        return look_all([self.model], pictures, [self._layers], [self.model.name])[0]

    def _look(self, epoch: int | None, loss: float | None) -> dict[str, Any]:
        assert self.model is not None
        assert self.pictures is not None
        gradients = gradient_norms(self.model.module)
        side = self._side(self.pictures)
        known = side.known
        if known.any():
            self._right.append(side.right[known])
        dead = {name: int((np.ptp(values, axis=0) == 0).sum()) for name, values in side.peaks.items()}
        found: dict[str, Any] = {
            "step": self.steps,
            "epoch": epoch,
            "loss": None if loss is None else float(loss),
            "accuracy": float(side.right[known].mean()) if known.any() else None,
            "confidence": float(side.confidence.mean()) if side.probability is not None else None,
            "dead": dead,
            "units": {name: int(values.shape[1]) for name, values in side.peaks.items()},
            "gradients": gradients,
            "predictions": side.prediction.tolist(),
        }
        image = self._frame(found, side)
        if image is not None and self._film is not None:
            self._film.add(image)
        self._tell(found, image)
        return found

    def _frame(self, found: dict[str, Any], side: Side) -> Image.Image | None:
        if self._film is None and self.writer is None:
            return None
        assert self.model is not None
        assert self.pictures is not None
        sheet = None
        try:
            _, weights = filter_weights(self.model)
            if weights.shape[1] in (1, 3):
                if self._top is None:
                    self._top = 1.5 * float(np.abs(weights).max()) or 1.0
                sheet = filter_sheet(weights[:64], self._top)
        except ConvoscopeError:
            pass
        shown: list[tuple[Image.Image, str]] = []
        rows = range(min(self.maps, len(side)))
        if rows:
            pictures = [side.pictures.picture(row) for row in rows]
            targets = [int(side.pictures.truth[row]) if side.known[row] else None for row in rows]
            try:
                for row, picture, target in zip(rows, pictures, targets, strict=True):
                    heatmap = explain(self.model, picture, "grad-cam", target=target)["grad-cam"]
                    shown.append((heatmap.overlay(), side.predicted(row)))
            except ConvoscopeError as error:
                if str(error) not in self.notes:
                    self.notes.append(str(error))
                shown = [(picture.image, "") for picture in pictures]
        accuracy = "" if found["accuracy"] is None else f"{found['accuracy']:.1%} of {int(side.known.sum())} right, "
        norm = (
            ""
            if not found["gradients"]
            else f", gradient {sum(v**2 for v in found['gradients'].values()) ** 0.5:.3g}"
        )
        dead = sum(found["dead"].values())
        line = f"{accuracy}{dead} unit{'' if dead == 1 else 's'} dead{norm}"
        # the map is for the label where there is one; the caption is what the network says
        title = "Grad-CAM for the label; below it the prediction" if side.known.any() else "Grad-CAM"
        return frame(f"epoch {found['epoch']}, step {found['step']}", [line], sheet, [(title, shown)])

    def _write(self, found: dict[str, Any]) -> None:
        if self.out is None:
            return
        with open(self.out / "watch.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps(found) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def _tell(self, found: dict[str, Any], image: Image.Image | None) -> None:
        if self.writer is None:
            return
        step = found["step"]
        for name in ("accuracy", "confidence"):
            if found[name] is not None:
                self.writer.add_scalar(f"watch/{name}", found[name], step)
        self.writer.add_scalar("watch/dead", sum(found["dead"].values()), step)
        for name, value in found["gradients"].items():
            self.writer.add_scalar(f"gradients/{name}", value, step)
        if image is not None:
            self.writer.add_image("watch/frame", np.asarray(image), step, dataformats="HWC")

    # ready callbacks

    def lightning(self) -> Any:
        """A callback for Lightning's ``Trainer(callbacks=[...])``."""
        return lightning_callback(self)

    def trainer(self) -> TrainerWatch:
        """A callback for Hugging Face's ``Trainer(callbacks=[...])``."""
        return TrainerWatch(self)


def _opened(model: Model | nn.Module) -> Model:
    module = model.module if isinstance(model, Model) else model
    while type(module).__name__ in _PARALLEL and isinstance(getattr(module, "module", None), nn.Module):
        module = module.module  # type: ignore[assignment]
    if not isinstance(model, Model):
        return wrap(module)
    if module is not model.module:
        from dataclasses import replace

        return replace(model, module=module)
    return model


def gradient_norms(network: nn.Module) -> dict[str, float]:
    """The Euclidean norm of the gradient of each module's own parameters; without those that have none now."""
    names, squares = [], []
    with torch.no_grad():
        for name, module in network.named_modules():
            own = [p.grad for p in module.parameters(recurse=False) if p.grad is not None]
            if own:
                names.append(name or type(module).__name__)
                squares.append(sum((one.detach().float() ** 2).sum() for one in own))
    # one transfer from the device for all
    values = torch.stack([torch.as_tensor(one) for one in squares]).sqrt().cpu().tolist() if squares else []
    return dict(zip(names, values, strict=True))


class LightningWatch:
    """Lightning's hooks on a :class:`Watch`; :func:`lightning_callback` makes one that Lightning accepts."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch

    def on_train_batch_end(self, trainer: Any, module: Any, outputs: Any, batch: Any, index: int) -> None:
        """A step is done; Lightning keeps its gradients until the next one begins."""
        if getattr(trainer, "is_global_zero", True):
            loss = outputs.get("loss") if isinstance(outputs, dict) else outputs
            due = int(trainer.current_epoch) != self.watch._epoch or self.watch._since + 1 >= self.watch.every
            # reading a loss waits for the device: only where it is written down
            self.watch.step(
                int(trainer.current_epoch), float(loss) if due and isinstance(loss, torch.Tensor) else None
            )

    def on_fit_end(self, trainer: Any, module: Any) -> None:
        """Training is over."""
        self.watch.close()

    def on_exception(self, trainer: Any, module: Any, error: BaseException) -> None:
        """Training was stopped."""
        self.watch.close()


def lightning_callback(watch: Watch) -> Any:
    """A :class:`LightningWatch` that is also a ``Callback`` of whichever Lightning the program has imported."""
    for name in ("lightning.pytorch", "pytorch_lightning"):
        base = getattr(sys.modules.get(name), "Callback", None)
        if isinstance(base, type):
            return type("LightningWatch", (LightningWatch, base), {})(watch)
    return LightningWatch(watch)


class TrainerWatch:
    """The hooks of Hugging Face's ``Trainer`` on a :class:`Watch`; every event that it does not need is passed over."""

    def __init__(self, watch: Watch) -> None:
        self.watch = watch
        self._early = False

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """The gradients are there now, and gone at the end of the step."""
        self._early = True
        self._step(state)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """For versions of the trainer without the event above."""
        if not self._early:
            self._step(state)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Training is over."""
        if getattr(state, "is_world_process_zero", True):
            self.watch.record(int(state.epoch or 0))
        self.watch.close()

    def _step(self, state: Any) -> None:
        if getattr(state, "is_world_process_zero", True):
            self.watch.step(int(state.epoch or 0))

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name.startswith("on_"):
            return _nothing
        raise AttributeError(name)


def _nothing(*_: Any, **__: Any) -> None:
    return None
