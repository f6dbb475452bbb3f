"""The demo's last part: a real network on a real photo, where its weights are at hand."""

from __future__ import annotations

import tempfile
import time
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ModelError

if TYPE_CHECKING:
    from ..html.page import Section
    from . import Stage

ORDER = 90
#: seconds that a download of 5 MB may take before the demo goes on without it
PATIENCE = 8.0


def photo(stage: Stage) -> Section:
    """A photo, by a network of the world outside."""
    import numpy as np

    from ..explanation import explain
    from ..html.page import Item, Section

    title = "A photo, by a network of the world outside"
    try:
        from skimage import data
    except ImportError:
        return Section(title, "Not shown: the photo comes with scikit-image, which is not installed.")
    if not at_hand():
        return Section(
            title,
            "Not shown: SqueezeNet's weights are not in torch's cache and could not be fetched within a few seconds. "
            "With a connection, convoscope explain squeezenet1_0 PHOTO --out DIR fetches them.",
        )
    model = stage.open("squeezenet1_0")
    methods = ["grad-cam", "cam", "guided-grad-cam", "guided-backprop", "saliency"]
    cat = np.asarray(data.chelsea())  # type: ignore[no-untyped-call]
    result = explain(model, cat, methods, target=["top1", "top2"])
    return Section(
        title,
        f"SqueezeNet 1.0, trained on ImageNet, says {result.target} ({result.probability:.0%}), then "
        f"{result.rows[1].target}: one row each. The photo is Chelsea the cat, by Stéfan van der Walt, in the public "
        "domain, from scikit-image.",
        [Item(stage.save(result.sheet(), "photo.png"), "Maps are drawn where the network saw them: on its crop.")],
    )


def at_hand() -> bool:
    """Whether SqueezeNet's weights are in torch's cache, or could be put there in a few seconds."""
    import torch
    from torchvision.models import SqueezeNet1_0_Weights

    address = SqueezeNet1_0_Weights.DEFAULT.url
    place = Path(torch.hub.get_dir()) / "checkpoints" / address.rsplit("/", 1)[-1]
    if place.is_file():
        return True
    try:
        fetch(address, place)
    except (OSError, ModelError, ValueError):
        return False
    return True


def fetch(address: str, place: Path, patience: float = PATIENCE) -> None:
    """Download a file within ``patience`` seconds, or raise; nothing half done is left behind."""
    deadline = time.monotonic() + patience
    place.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=place.parent, prefix=".convoscope-", delete=False) as file:
        partial = Path(file.name)
        try:
            with urllib.request.urlopen(address, timeout=patience / 2) as answer:
                while block := answer.read(1 << 16):
                    file.write(block)
                    if time.monotonic() > deadline:
                        raise TimeoutError(f"more than {patience:.0f} seconds")
            file.close()
            partial.replace(place)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


PARTS = (photo,)
