"""Networks of a survey on Ray, as ``ray_network.py:build``: each writes down the process that runs it.

``CONVOSCOPE_TEST_LOG``: a folder; every forward adds a line to the file named after its process. A file ``slow`` in
it makes the first forward that takes it away last a minute; ``delay`` holds the seconds that every forward takes
longer.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn


class NetworkTrace(nn.Module):
    """A small convolutional network that tells of each of its forwards."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv1, self.conv2 = nn.Conv2d(3, 6, 3, stride=2), nn.Conv2d(6, 8, 3)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        log = Path(os.environ["CONVOSCOPE_TEST_LOG"])
        with open(log / str(os.getpid()), "a") as file:
            file.write(f"{len(x)}\n")
        try:
            (log / "slow").rename(log / "was slow")
            time.sleep(60)
        except FileNotFoundError:
            pass
        if (log / "delay").exists():
            time.sleep(float((log / "delay").read_text()))
        x = torch.relu(self.conv1(x))
        x = torch.relu(self.conv2(x))
        return self.head(x.mean((2, 3)))


def build() -> nn.Module:
    return NetworkTrace().eval()


@contextmanager
def local_ray(log: str) -> Iterator[Any]:
    """A Ray of this machine alone; its workers know the log's folder."""
    from convoscope import parallel

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        ray = parallel._ray()
        patch.setenv("CONVOSCOPE_TEST_LOG", log)
        ray.init(
            address="local", num_cpus=4, include_dashboard=False, object_store_memory=100 * 2**20,
            _node_ip_address="127.0.0.1", log_to_driver=False, logging_level="error",
        )  # fmt: skip
        yield ray
        ray.shutdown()


def main(folder: str, store: str) -> None:
    """A survey on Ray in a process of its own, to be killed."""
    from convoscope import open_model
    from convoscope.surveys.gather.driver import survey

    model = open_model(f"{__file__}:build", weights="none", size=24, batch_size=4)
    survey(model, folder, store, shard_size=6, memory_format="contiguous", top=3, ray="local", workers=2)


if __name__ == "__main__":
    import sys

    main(*sys.argv[1:3])
