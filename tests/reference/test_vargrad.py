"""VarGrad against truths that can be written down and gradients taken one by one."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

import convoscope as cs


class Quadratic(nn.Module):
    """score = Σ w·x², whose gradient 2·w·x varies by 4·w²·σ² under noise of deviation σ."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.linspace(0.5, 2.0, 3 * 6 * 6).view(3, 6, 6))

    def forward(self, x: Tensor) -> Tensor:
        score = (self.weight * x.square()).flatten(1).sum(1)
        return torch.stack([score, -score], 1)


def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (6, 6, 3), np.uint8)


def test_the_variance_of_a_quadratic_score_is_known() -> None:
    model = cs.wrap(Quadratic())
    result = cs.explain(model, picture(), cs.VarGrad(samples=3000, noise=0.1), target=0)
    fitted = model.prepare(picture())
    sigma = 0.1 * float(fitted.tensor.max() - fitted.tensor.min())
    want = 4 * model.module.weight.detach().square() * sigma**2
    found = torch.as_tensor(result["vargrad"].raw)
    # the variance of 3000 normal samples has a relative error of √(2/2999) = 2.6 %; four of those
    assert ((found / want - 1).abs() < 0.11).all()


def test_a_linear_score_has_a_steady_gradient() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(108, 4))
    result = cs.explain(cs.wrap(net), picture(), cs.VarGrad(samples=5), target=1)
    assert float(np.abs(result["vargrad"].values).max()) < 1e-12
    assert result["vargrad"].doubts


def test_it_is_the_variance_of_the_very_gradients() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(64, 5)).double()
    model, method = cs.wrap(net), cs.VarGrad(samples=7)
    result = cs.explain(model, picture(), method, target=2)
    x = model.inputs([model.prepare(picture())])
    spread = (x.max() - x.min()) * method.noise
    gradients = []
    for sample in range(7):
        noise = torch.randn(x.shape[1:], generator=torch.Generator().manual_seed(sample))
        noisy = (x + noise.to(x) * spread).requires_grad_()
        gradients.append(torch.autograd.grad(net(noisy)[0, 2], noisy)[0][0])
    want = torch.stack(gradients).var(0).float()
    assert torch.allclose(torch.as_tensor(result["vargrad"].raw), want, rtol=1e-4, atol=1e-10)
