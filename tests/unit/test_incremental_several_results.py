"""Operations with several results inside a network whose masked pictures are recomputed in part: equal to dense."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import convoscope as cs

MIDDLES: dict[str, Callable[[Tensor], Tensor]] = {
    "adaptive max pooling": lambda x: F.adaptive_max_pool2d(x, 5),
    "adaptive max pooling with its places": lambda x: F.adaptive_max_pool2d(x, 5, return_indices=True)[0],
    "max pooling, unpooled": lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2),
    "maxout": lambda x: x.unflatten(1, (-1, 2)).max(2)[0].repeat_interleave(2, 1),
    "least along channels": lambda x: x - x.min(1, keepdim=True).values,
    "greatest along columns": lambda x: x - x.max(-1, keepdim=True)[0],
    "median": lambda x: x - x.median(2, keepdim=True)[0],
    "top of each row": lambda x: x.topk(8, -1)[0],
    "kth of each row": lambda x: x - x.kthvalue(3, -1, keepdim=True)[0],
    "sorted": lambda x: x.sort(1)[0],
    "order and values": lambda x: torch.stack([v.float() for v in x.sort(1)], 2).flatten(1, 2)[:, ::2],
    "unbound": lambda x: torch.stack(x.unbind(1)[::-1], 1),
    "pieces": lambda x: torch.cat(torch.tensor_split(x, 3, 1)[::-1], 1),
    "variance and mean": lambda x: x * torch.var_mean(x, (2, 3), keepdim=True)[0],
    "standard deviation and mean": lambda x: x / (1 + torch.std_mean(x, 1, keepdim=True)[0]),
    "running maximum": lambda x: x.cummax(3)[0],
    "a range's ends": lambda x: x - sum(torch.aminmax(x.flatten(2), dim=2))[:, :, None, None],
}


class Middle(nn.Module):
    def __init__(self, middle: Callable[[Tensor], Tensor], late: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2))
        self.last = nn.Conv2d(8, 8, 3, 2, 1)
        self.head = nn.Linear(8, 4)
        self.middle, self.late = middle, late

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x = self.last(x if self.late else self.middle(x)).relu()
        if self.late:
            x = self.middle(x)
        return self.head(x.mean((2, 3)))


@pytest.mark.parametrize("late", [False, True], ids=["early", "late"])
@pytest.mark.parametrize("name", MIDDLES)
def test_equal_to_dense(name: str, late: bool) -> None:
    net = Middle(MIDDLES[name], late).eval()
    picture = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(1))
    model = cs.wrap(net, size=64)
    found = [
        cs.explain(model, picture, cs.Occlusion(window=9, stride=9, engine=engine), target=1)["occlusion"].values
        for engine in ("auto", "dense")
    ]
    scale = abs(found[1]).max()
    assert scale > 0
    assert abs(found[0] - found[1]).max() <= 1e-4 * scale + 1e-9
