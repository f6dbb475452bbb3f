"""The detector of wheels that test_concepts_wheel.py plants, and how ``wheel_detector.safetensors`` was made:

    python tests/unit/wheel_helpers.py [--minutes 6]

One channel that answers "is there a wheel here?" at every second pixel of a toybox picture. There is no way back up
in it, so each cell has an exact place; its targets are the exact part masks, blurred to the cells. It is trained on
pictures that no test draws. The last line tells its overlap on pictures that it has not seen.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from convoscope.toybox import CLASSES, draw, loading

FILE = Path(__file__).with_name("wheel_detector.safetensors")
WIDTH = 20


def detector() -> nn.Sequential:
    """Pictures ``[B, 3, 96, 96]`` to the logit of a wheel ``[B, 1, 48, 48]``: strided once, then dilated."""
    layers: list[nn.Module] = [nn.Conv2d(3, WIDTH, 5, 2, 2, bias=False), nn.BatchNorm2d(WIDTH), nn.ReLU()]
    for dilation in (1, 2, 4, 6, 2, 1):
        same = nn.Conv2d(WIDTH, WIDTH, 3, 1, dilation, dilation, bias=False)
        layers += [same, nn.BatchNorm2d(WIDTH), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(WIDTH, 1, 1))


class Wheels(nn.Module):
    """A planted detector: channel 0 of ``seen`` sees wheels, the others are early features of the same network."""

    def __init__(self) -> None:
        super().__init__()
        made = detector()
        made.load_state_dict(load_file(FILE))
        self.early, self.late = made[:6], made[6:]
        self.seen, self.fc = nn.Identity(), nn.Linear(1 + WIDTH, 2)

    def forward(self, x: Tensor) -> Tensor:
        early = self.early(x)
        return self.fc(self.seen(torch.cat([self.late(early), early], 1)).mean((2, 3)))


def shown(count: int, start: int) -> tuple[Tensor, Tensor]:
    """Pictures, every second one a car, and how much wheel lies around each cell ``[N, 1, 48, 48]``."""
    others = [label for label in CLASSES if label != "car"]
    drawn = [draw(start + k, label="car" if k % 2 else others[k // 2 % len(others)]) for k in range(count)]
    nothing = np.zeros((96, 96), bool)
    wheels = torch.from_numpy(np.stack([one.parts.get("wheel", nothing) for one in drawn]))[:, None].float()
    blur = torch.tensor([1.0, 2.0, 1.0]) / 4
    target = F.conv2d(wheels, (blur[:, None] * blur)[None, None], stride=2, padding=1)
    return loading.normalize([one.image for one in drawn]), target


def train(minutes: float) -> nn.Sequential:
    """Until the time is over, with a rate that falls to zero by then."""
    torch.manual_seed(0)
    pictures, targets = shown(2400, 43_000_000)
    net = detector()
    optimiser = torch.optim.AdamW(net.parameters(), 0.01, weight_decay=1e-3)
    start, step = time.monotonic(), 0
    while (gone := (time.monotonic() - start) / (60 * minutes)) < 1:
        optimiser.param_groups[0]["lr"] = 0.01 * min(1.0, step / 30 + 0.05) * (1 + np.cos(np.pi * gone)) / 2
        rows = torch.randperm(len(pictures))[:16]
        x, y = pictures[rows], targets[rows]
        if step % 2:
            x, y = x.flip(3), y.flip(3)
        raw = net(x)
        share = raw.sigmoid()
        missed = 1 - 2 * (share * y).sum() / (share.sum() + y.sum() + 1)
        loss = missed + F.binary_cross_entropy_with_logits(raw, y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        step += 1
        if step % 100 == 0:
            print(step, f"{gone:.0%}", loss.item(), flush=True)
    return net.eval()


def main() -> None:
    """Train, write, and tell the overlap on other pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=6.0)
    net = train(parser.parse_args().minutes)
    save_file({name: value.contiguous() for name, value in net.state_dict().items()}, FILE)
    pictures, targets = shown(360, 48_000_000)
    with torch.no_grad():
        found = torch.cat([net(part) for part in pictures.split(60)]) > 0
    truth = targets > 0.5
    print(f"overlap with wheels on other pictures: {float((found & truth).sum() / (found | truth).sum()):.3f}")


if __name__ == "__main__":
    main()
