"""The toybox's classifier: a small residual network with global average pooling and one linear layer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Block(nn.Module):
    """A residual block of two 3x3 convolutions (He et al. 2016, https://arxiv.org/abs/1512.03385)."""

    def __init__(self, channels_in: int, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels_in != channels:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """[B, channels_in, h, w] to [B, channels, h / stride, w / stride]."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        out: Tensor = self.relu(y + self.shortcut(x))
        return out


class ToyNet(nn.Module):
    """stem (stride 2), layer1 (4), layer2 (8), layer3 (8), average pooling, fc.

    A 96 x 96 picture ends on a grid of 12 x 12 cells, fine enough for class activation maps to show parts.
    ``widths`` are the channels of the stem and of the three layers; ``kernel`` is the side of the stem's filters
    (an odd number; the stem's cells lie at the same pixels whatever it is).
    """

    def __init__(self, classes: int = 10, widths: Sequence[int] = (24, 32, 64, 64), kernel: int = 5) -> None:
        super().__init__()
        w0, w1, w2, w3 = widths
        self.stem = nn.Sequential(nn.Conv2d(3, w0, kernel, 2, kernel // 2, bias=False), nn.BatchNorm2d(w0), nn.ReLU())
        self.layer1 = nn.Sequential(Block(w0, w1, 2))
        self.layer2 = nn.Sequential(Block(w1, w2, 2), Block(w2, w2))
        self.layer3 = nn.Sequential(Block(w2, w3), Block(w3, w3))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(w3, classes)

    def features(self, x: Tensor) -> Tensor:
        """[B, 3, h, w] normalised pictures to the last grid [B, widths[-1], h / 8, w / 8]."""
        out: Tensor = self.layer3(self.layer2(self.layer1(self.stem(x))))
        return out

    def forward(self, x: Tensor) -> Tensor:
        """[B, 3, h, w] normalised pictures to logits [B, classes]."""
        out: Tensor = self.fc(torch.flatten(self.pool(self.features(x)), 1))
        return out
