"""Fitting a head: group-balanced cross-entropy and a pull towards the old weights, by L-BFGS on cached features."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from .headed import Head

#: strengths of the pull that are tried, in units of the features' mean square
PULLS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
STEPS = 120


@dataclass(frozen=True, eq=False)
class Fitted:
    """A head's new weights.

    Args:
        weight: float32 ``[K, C]``.
        bias: float32 ``[K]``, or None.
        pull: the strength of the pull towards the old ones.
        loss: the last value of what was minimised.
    """

    weight: Tensor
    bias: Tensor | None
    pull: float
    loss: float


def balance(groups: NDArray[np.int64]) -> Tensor:
    """Weights that give every group the same sum, of mean 1 (as Kirichenko et al. 2023 balance by sampling)."""
    _, place, counts = np.unique(groups, return_inverse=True, return_counts=True)
    weights = 1.0 / counts[place]
    return torch.from_numpy(weights / weights.mean()).float()


def fit(
    head: Head, features: Tensor, truth: NDArray[np.int64], weights: Tensor, pull: float, *,
    rows: Sequence[int] | None = None, towards: bool = True, exact: bool = True,
) -> Fitted:  # fmt: skip
    """Minimise sum(w · CE) / sum(w) + pull · s · ‖W − W0‖², with s the features' mean square.

    Args:
        head: the old weights W0, and where to start.
        features: ``[N, C]``, or ``[N, C, h, w]`` for scores made in each place.
        truth: the class of each, int64 ``[N]``.
        weights: of each, ``[N]``.
        pull: the strength.
        rows: only these classes' weights are fitted, the others stay; None fits all.
        towards: pull towards the old weights; else towards 0.
        exact: go on until nothing changes; else stop where a step lowers the loss by less than 1e-5, which is enough to
            compare strengths by, in less than half of the time.

    Returns:
        the new weights, in float32; the fit itself runs in float64 for linear features.
    """
    kind = torch.float64 if features.ndim == 2 else torch.float32
    feats, target = features.to(kind), torch.from_numpy(np.asarray(truth, np.int64))
    share = (weights / weights.sum()).to(kind)
    scale = float(feats.square().mean()) * feats.shape[1]
    picked = torch.arange(len(head.weight)) if rows is None else torch.as_tensor(sorted(rows))
    old = head.weight[picked].to(kind)
    old_bias = torch.zeros(len(picked), dtype=kind) if head.bias is None else head.bias[picked].to(kind)
    anchor, anchor_bias = (old, old_bias) if towards else (torch.zeros_like(old), torch.zeros_like(old_bias))
    change = torch.zeros_like(old, requires_grad=True)
    change_bias = torch.zeros_like(old_bias, requires_grad=head.bias is not None)
    fixed = _fixed(head, feats, picked)
    variables = [change, change_bias] if head.bias is not None else [change]
    search = torch.optim.LBFGS(
        variables, lr=1.0, max_iter=STEPS, history_size=20, tolerance_grad=1e-9,
        tolerance_change=1e-12 if exact else 1e-5,
        line_search_fn="strong_wolfe",
    )  # fmt: skip

    def loss() -> Tensor:
        scores = head.scores(feats, old + change, old_bias + change_bias)
        if fixed is not None:
            whole = fixed.clone()
            whole[:, picked] = scores
            scores = whole
        error = (F.cross_entropy(scores, target, reduction="none") * share).sum()
        away = (old + change - anchor).square().sum()
        if towards:
            away = away + (old_bias + change_bias - anchor_bias).square().sum() / feats.shape[1]
        return error + pull * scale * away / len(picked)

    def closure() -> Tensor:
        search.zero_grad()
        value = loss()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    with torch.enable_grad():
        search.step(closure)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        weight, bias = head.weight.clone(), None if head.bias is None else head.bias.clone()
        weight[picked] = (old + change).float()
        if bias is not None:
            bias[picked] = (old_bias + change_bias).float()
        return Fitted(weight, bias, pull, float(loss()))


def _fixed(head: Head, features: Tensor, picked: Tensor) -> Tensor | None:
    """The scores of the classes whose weights stay."""
    if len(picked) == len(head.weight):
        return None
    with torch.no_grad():
        parts = [head.scores(part.float()) for part in torch.split(features, 64)]
    return torch.cat(parts).to(features.dtype)


def worst(right: NDArray[np.bool_], groups: NDArray[np.int64]) -> float:
    """The accuracy of the group of the lowest."""
    return min(float(right[groups == one].mean()) for one in np.unique(groups))
