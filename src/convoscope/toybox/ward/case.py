"""A case of the ward: a folder with a network, its pictures, the truth about them, and a sibling without the fault."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from convoscope.errors import ModelError, UsageError
from convoscope.toybox.loading import MEAN, STD
from convoscope.toybox.networks import ToyNet
from convoscope.toybox.specimens import CLASSES
from convoscope.toybox.ward.drawing import SIDE, Images, Pictures
from convoscope.toybox.ward.store import VERSION, aside

if TYPE_CHECKING:
    from convoscope import Model as Model
    from convoscope.toybox.ward.recipe import Recipe

TRUTH = "truth.json"
_NET = '''"""A network of the ward: open it as net.py:network. What it expects of a picture stands in model.json."""

from pathlib import Path

from convoscope.toybox.ward.case import opened


def network():
    """The network with its weights, preprocessing and labels, as a convoscope.Model."""
    return opened(Path(__file__).parent)
'''


@dataclass(frozen=True)
class Setup:
    """What a case's network is opened with: preprocessing as in ``convoscope.Preprocessing``."""

    size: int = SIDE
    resize: int | None = None
    fit: str = "squash"
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD
    interpolation: str = "bilinear"


@dataclass(frozen=True)
class Effect:
    """What a fault does, on pictures that nobody was trained or chosen on.

    ``healthy`` and ``faulty`` are the same figure (told by ``what``, most often a share in 0..1) without and with the
    fault; ``n`` is the number of pictures behind each.
    """

    what: str
    healthy: float
    faulty: float
    n: int

    @property
    def size(self) -> float:
        """How much is lost by the fault, or gained where faults add (an error, a share of wrong labels)."""
        return abs(self.healthy - self.faulty)

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "what": self.what, "healthy": round(self.healthy, 4), "faulty": round(self.faulty, 4),
            "size": round(self.size, 4), "n": self.n,
        }  # fmt: skip


@dataclass(eq=False)
class Made:
    """What a recipe makes, before it is written: networks with their setups, and pictures.

    ``sibling`` is None where the collection carries the fault; then ``clean`` (and ``clean_train``) are the same
    collections without it.
    """

    network: ToyNet
    pictures: Pictures
    held_out: Pictures
    setup: Setup = field(default_factory=Setup)
    sibling: ToyNet | None = None
    sibling_setup: Setup = field(default_factory=Setup)
    train: Pictures | None = None
    clean: Pictures | None = None
    clean_train: Pictures | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


def as_model(network: nn.Module, setup: Setup, name: str = "network") -> Model:
    """The network as a :class:`convoscope.Model`."""
    import convoscope  # by its front door, and late: the toybox itself stands below the models

    model: Model = convoscope.wrap(
        network, mean=setup.mean, std=setup.std, size=setup.size, resize=setup.resize, fit=setup.fit,
        interpolation=setup.interpolation, labels=CLASSES, name=name,
    )  # fmt: skip
    return model


def opened(folder: Path) -> Model:
    """The network of a folder with ``model.json`` and ``weights.safetensors``."""
    about = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    network = ToyNet(len(CLASSES), about.pop("widths"))
    network.load_state_dict(load_file(folder / "weights.safetensors"))
    about["mean"], about["std"] = tuple(about["mean"]), tuple(about["std"])
    return as_model(network.eval(), Setup(**about), f"{folder.parent.name}/{folder.name}")


def answers(model: Model, images: Images) -> Tensor:
    """Logits [N, classes] for uint8 images [N, H, W, 3], through the model's own preprocessing."""
    model.module.eval()
    out = []
    with torch.no_grad():
        for k in range(0, len(images), 100):
            out.append(model.module(model.inputs([model.prepare(image) for image in images[k : k + 100]])))
    return torch.cat(out)


def right(model: Model, pictures: Pictures) -> NDArray[np.bool_]:
    """Which pictures get the class of their label, bool [N]."""
    found: NDArray[np.bool_] = answers(model, pictures.images).argmax(1).numpy() == pictures.labels
    return found


def _widths(network: ToyNet) -> list[int]:
    first: Any = network.stem[0]
    stages: list[Any] = [network.layer1[0], network.layer2[0], network.layer3[0]]
    return [int(first.out_channels), *(int(block.conv1.out_channels) for block in stages)]


def _write_model(folder: Path, network: ToyNet, setup: Setup) -> None:
    folder.mkdir(parents=True)
    (folder / "net.py").write_text(_NET, encoding="utf-8")
    about = {"widths": _widths(network), **asdict(setup)}
    (folder / "model.json").write_text(json.dumps(about, indent=1), encoding="utf-8")
    state = {key: value.detach().contiguous().clone() for key, value in network.state_dict().items()}
    save_file(state, folder / "weights.safetensors")
    (folder / "weights.safetensors").chmod(0o644)  # safetensors writes for the owner alone


@dataclass(frozen=True, eq=False)
class Case:
    """A made case: its paths, its networks, its truth. Made by :func:`convoscope.toybox.ward.load`.

    ``truth`` holds ``case``, ``kind``, ``healthy``, ``class`` (a label or None), ``about`` (a sentence), ``expected``
    (finding kinds that name the fault, the best first), ``effect``, ``concerned`` (file names by folder), ``sibling``
    (``network``, ``collection`` or None) and ``details``.
    """

    folder: Path
    truth: Mapping[str, Any]

    @property
    def name(self) -> str:
        """The case's name."""
        return str(self.truth["case"])

    @property
    def kind(self) -> str:
        """One of the ward's kinds, ``healthy`` for a healthy network."""
        return str(self.truth["kind"])

    @property
    def healthy(self) -> bool:
        """Whether nothing is wrong with it."""
        return bool(self.truth["healthy"])

    @property
    def label(self) -> str | None:
        """The class concerned, None where it is no class's own."""
        found: str | None = self.truth["class"]
        return found

    @property
    def expected(self) -> tuple[str, ...]:
        """Kinds of findings that name the fault, the best first; empty for a healthy network."""
        return tuple(self.truth["expected"])

    @property
    def effect(self) -> Effect | None:
        """What the fault does; None for a healthy network."""
        found = self.truth["effect"]
        return Effect(found["what"], found["healthy"], found["faulty"], found["n"]) if found else None

    @property
    def spec(self) -> str:
        """What ``open_model`` and every command take for the network."""
        return f"{self.folder / 'model' / 'net.py'}:network"

    @property
    def sibling_spec(self) -> str | None:
        """The same for the network without the fault; None where the collection carries it."""
        folder = self.folder / "sibling"
        return f"{folder / 'net.py'}:network" if folder.is_dir() else None

    @cached_property
    def model(self) -> Model:
        """The network."""
        return opened(self.folder / "model")

    @cached_property
    def sibling(self) -> Model | None:
        """The network without the fault; None where the collection carries it (see ``sibling_pictures``)."""
        return opened(self.folder / "sibling") if self.sibling_spec else None

    def _there(self, name: str) -> Path | None:
        return self.folder / name if (self.folder / name).is_dir() else None

    @property
    def pictures(self) -> Path:
        """The collection that a person would bring: one folder a class."""
        return self.folder / "pictures"

    @property
    def held_out(self) -> Path:
        """Another drawing of the same world, its labels right, without copies: to judge by, never to be shown."""
        return self.folder / "held_out"

    @property
    def train(self) -> Path | None:
        """The training folder, where the case has one."""
        return self._there("train")

    @property
    def sibling_pictures(self) -> Path | None:
        """``pictures`` without the fault, where the collection carries it."""
        return self._there("sibling_pictures")

    @property
    def sibling_train(self) -> Path | None:
        """``train`` without the fault, where the collection carries it."""
        return self._there("sibling_train")

    def concerned(self, folder: str = "pictures") -> tuple[str, ...]:
        """File names (``cup/0003.png``) in ``pictures``, ``train`` or ``held_out`` that the fault concerns."""
        return tuple(self.truth["concerned"].get(folder, ()))

    @cached_property
    def recipe(self) -> Recipe:
        """How it was made: measures the effect anew."""
        from convoscope.toybox.ward.registry import recipe

        return recipe(self.name)

    def measure(self, n: int = 100, seed: int = 1) -> Effect | None:
        """The effect on fresh pictures: another ``seed``, other pictures. None for a healthy network."""
        return self.recipe.measure(self.model, self.sibling, n, seed)

    def render(self, with_shortcut: bool, n: int, seed: int, label: str | None = None) -> Pictures:
        """Fresh pictures with or without the planted thing.

        Args:
            with_shortcut: whether every picture carries it (for a slice: lies in it), or none.
            n: pictures a class.
            seed: which drawing; never that of the case's own folders.
            label: this class alone; else all ten.

        Returns:
            ``n`` pictures of each class wanted. The worst group of a shortcut is the least recall over classes, with
            and without.

        Raises:
            UsageError: a case that has nothing planted in its pictures, or an unknown class.
        """
        if label is not None and label not in CLASSES:
            raise UsageError(f"The toybox has no class {label!r}: it has {', '.join(CLASSES)}.")
        wanted = dict.fromkeys((label,) if label else CLASSES, n)
        return self.recipe.render(with_shortcut, wanted, f"render {self.name} {seed}")


def write(folder: Path, recipe: Recipe, made: Made, effect: Effect | None) -> Case:
    """Write a case into ``folder`` (aside first, renamed when it is whole)."""
    part = aside(folder)
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    _write_model(part / "model", made.network, made.setup)
    if made.sibling is not None:
        _write_model(part / "sibling", made.sibling, made.sibling_setup)
    folders = {
        "pictures": made.pictures, "held_out": made.held_out, "train": made.train,
        "sibling_pictures": made.clean, "sibling_train": made.clean_train,
    }  # fmt: skip
    concerned: dict[str, list[str]] = {}
    marks: dict[str, dict[str, list[str]]] = {}
    for name, pictures in folders.items():
        if pictures is None:
            continue
        pictures.write(part / name)
        if "fault" in pictures.marks and pictures.marks["fault"].any():
            concerned[name] = pictures.named("fault")
        rest = {mark: pictures.named(mark) for mark in pictures.marks if mark != "fault"}
        if rest:
            marks[name] = rest
    truth = {
        "case": recipe.name, "kind": recipe.kind, "healthy": recipe.healthy, "class": recipe.label,
        "about": recipe.about, "expected": list(recipe.expected),
        "effect": effect.to_dict() if effect else None,
        "sibling": "network" if made.sibling is not None else "collection" if made.clean is not None else None,
        "classes": list(CLASSES), "concerned": concerned, "marks": marks, "details": dict(made.details),
        "version": VERSION,
    }  # fmt: skip
    (part / TRUTH).write_text(json.dumps(truth, indent=1), encoding="utf-8")
    shutil.rmtree(folder, ignore_errors=True)
    try:
        part.replace(folder)
    except OSError:  # another process was faster: what it made is the same
        if not (folder / TRUTH).is_file():
            raise
        shutil.rmtree(part, ignore_errors=True)
    return Case(folder, truth)


def load(folder: str | Path) -> Case:
    """A case that was made before. Raises ModelError where the folder holds none."""
    path = Path(folder)
    try:
        truth = json.loads((path / TRUTH).read_text(encoding="utf-8"))
        assert truth["case"]
    except (OSError, ValueError, KeyError, TypeError, AssertionError):
        raise ModelError(
            f"{path}: there is no case of the ward here; make one with  convoscope toybox DIR --ward --case NAME"
        ) from None
    return Case(path, truth)
