"""Opens the bundled networks by name, and tells what they expect of a picture."""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib import resources
from typing import TYPE_CHECKING, Any

from convoscope.errors import ModelError

if TYPE_CHECKING:
    from torch import Tensor, nn

MEAN: tuple[float, float, float] = (0.58, 0.57, 0.54)
STD: tuple[float, float, float] = (0.22, 0.21, 0.23)
"""Normalisation of all the toybox's networks, for pictures in 0..1; also in each weight file's metadata."""

NAMES: tuple[str, ...] = (
    "toybox",
    "toybox-cheat",
    "toybox-twin",
    "toybox-robust",
    "toybox-detector",
    "toybox-segmenter",
    "toybox-panoptic",
    "toybox-landmarks",
)
"""The bundled networks."""


@dataclass(frozen=True)
class Card:
    """What a weight file says of itself.

    ``kind`` is classifier, detector, segmenter, panoptic or landmarks; ``labels`` name the classes (for
    segmenter and panoptic the things, then the stuff; for landmarks the points); ``size`` is the side of the
    pictures in training; ``settings`` rebuild the network; ``notes`` hold what was measured on unseen
    pictures.
    """

    name: str
    kind: str
    labels: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    size: int
    settings: dict[str, Any]
    notes: dict[str, Any]


def path(name: str) -> Any:
    """The weight file of a bundled network (a Traversable). Raises ModelError for an unknown name."""
    if name not in NAMES:
        raise ModelError(f"The toybox has no network {name!r}: it has {', '.join(NAMES)}.")
    file = resources.files("convoscope.toybox") / "weights" / f"{name}.safetensors"
    if not file.is_file():
        raise ModelError(f"The weights of {name} are missing: make them with  python -m convoscope.toybox.train")
    return file


def card(name: str) -> Card:
    """Labels, normalisation, input size and settings of a bundled network (read without torch)."""
    data = path(name).read_bytes()
    head = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
    return Card(
        name,
        head.get("kind", "classifier"),
        tuple(json.loads(head["labels"])),
        tuple(json.loads(head["mean"])),
        tuple(json.loads(head["std"])),
        int(head["size"]),
        json.loads(head["settings"]),
        json.loads(head["notes"]),
    )


def build(name: str, settings: dict[str, Any]) -> nn.Module:
    """The architecture of a bundled network, its weights random."""
    from convoscope.toybox import networks, scene_networks

    builders: dict[str, type[nn.Module]] = {
        "toybox-detector": scene_networks.ToyDetector,
        "toybox-segmenter": scene_networks.ToySegmenter,
        "toybox-panoptic": scene_networks.ToyPanoptic,
        "toybox-landmarks": scene_networks.ToyLandmarks,
    }
    return builders.get(name, networks.ToyNet)(**settings)


def load(name: str = "toybox") -> nn.Module:
    """Open a bundled network, in eval mode and on the CPU. Raises ModelError for an unknown name."""
    from safetensors.torch import load as read

    network = build(name, card(name).settings)
    network.load_state_dict(read(path(name).read_bytes()))
    return network.eval()


def normalize(images: Any) -> Tensor:
    """uint8 pictures [B, H, W, 3] (or a list of [H, W, 3]) to the networks' input, float32 [B, 3, H, W]."""
    import numpy as np
    import torch

    batch = torch.from_numpy(np.ascontiguousarray(np.stack(list(images)))).permute(0, 3, 1, 2).float() / 255
    return (batch - torch.tensor(MEAN)[:, None, None]) / torch.tensor(STD)[:, None, None]
