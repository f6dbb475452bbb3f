"""Non-negative factors: activations as sums of parts, A ~ U W (scikit-learn's factorisation)."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from ..extras import need

Floats = NDArray[np.float64]


def factorise(samples: NDArray[Any], parts: int, seed: int = 0, steps: int = 400) -> tuple[Floats, float]:
    """Non-negative factorisation of ``[N, C]``: the parts ``[parts, C]`` at unit length, and the relative error."""
    library = need("sklearn.decomposition", "CRAFT")
    made = library.NMF(parts, init="random" if seed else "nndsvda", random_state=seed, max_iter=steps, tol=1e-4)
    with warnings.catch_warnings(action="ignore"):  # not converged: the stability tells
        weights = made.fit_transform(np.asarray(samples, np.float64))
    basis = np.asarray(made.components_, np.float64)
    left = np.linalg.norm(samples - weights @ basis) / max(float(np.linalg.norm(samples)), 1e-300)
    return basis / np.maximum(np.linalg.norm(basis, axis=1, keepdims=True), 1e-300), float(left)


def encode(cells: Floats, basis: Floats) -> Floats:
    """The non-negative weights ``[N, parts]`` of fixed parts: multiplicative updates (Lee & Seung 2001)."""
    cells = np.maximum(cells, 0)
    weights = np.maximum(cells @ basis.T, 1e-12)
    gram, goal = basis @ basis.T, cells @ basis.T
    for _ in range(200):
        weights *= goal / np.maximum(weights @ gram, 1e-12)
    return np.asarray(weights)


def matched(basis: Floats, other: Floats) -> Floats:
    """The cosine of each part to its match in another run, matched one to one."""
    cosine = basis @ other.T
    rows, cols = linear_sum_assignment(-cosine)
    return np.asarray(cosine[rows, cols])


def cell_rows(planes: Tensor) -> Floats:
    """Planes ``[B, C, h, w]`` as one row a cell, ``[B h w, C]``."""
    return np.asarray(planes.flatten(2).transpose(1, 2).flatten(0, 1).double().numpy())
