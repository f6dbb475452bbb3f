"""Filling in: the linear system is solved, and known pixels stay."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from convoscope.trust.inpaint import _Level, _neighbours, _prolong, _restrict, fill_in


def dense_solution(picture: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The same system written out and given to a direct solver."""
    height, width = mask.shape
    where = {tuple(p): k for k, p in enumerate(np.argwhere(mask))}
    a = np.zeros((len(where), len(where)))
    b = np.zeros((len(where), len(picture)))
    for (y, x), row in where.items():
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                at = (y + dy, x + dx)
                if (dy, dx) == (0, 0) or not (0 <= at[0] < height and 0 <= at[1] < width):
                    continue
                weight = 1 / 12 if dy and dx else 1 / 6
                a[row, row] += weight
                if at in where:
                    a[row, where[at]] -= weight
                else:
                    b[row] += weight * picture[:, at[0], at[1]]
    filled = picture.copy()
    for (y, x), values in zip(where, np.linalg.solve(a, b), strict=True):
        filled[:, y, x] = values
    return filled


@pytest.mark.parametrize("size", [(12, 12), (17, 23), (9, 30), (5, 5)])
@pytest.mark.parametrize("kind", ["scattered", "block", "border", "most"])
def test_it_solves_the_papers_equations(size: tuple[int, int], kind: str) -> None:
    rng = np.random.default_rng(0)
    picture = rng.random((3, *size)).astype(np.float32)
    mask = np.zeros(size, bool)
    if kind == "scattered":
        mask = rng.random(size) < 0.5
    elif kind == "block":
        mask[1:-1, 1:-1] = True
    elif kind == "border":
        mask[: size[0] // 2] = True
    else:
        mask[:] = True
        mask[size[0] // 3, size[1] // 2] = False
    expected = dense_solution(picture.astype(np.float64), mask)
    found = fill_in(torch.from_numpy(picture), torch.from_numpy(mask[None].astype(np.float32)), tolerance=1e-6)
    assert np.abs(found[0].numpy() - expected).max() < 2e-4


def test_known_pixels_stay_and_many_masks_are_as_one() -> None:
    generator = torch.Generator().manual_seed(0)
    picture = torch.rand((3, 20, 21), generator=generator)
    masks = (
        torch.rand((5, 20, 21), generator=generator) < torch.tensor([0, 0.1, 0.5, 0.9, 1]).view(-1, 1, 1)
    ).float()
    found = fill_in(picture, masks, noise=0.3)
    for mask, one in zip(masks, found, strict=True):
        kept = (mask == 0).expand_as(one)
        assert torch.equal(one[kept], picture[kept])
    together, alone = fill_in(picture, masks), [fill_in(picture, mask[None])[0] for mask in masks]
    assert torch.allclose(together, torch.stack(alone), atol=1e-4)


def test_noise_has_its_deviation_and_its_seed() -> None:
    picture = torch.zeros((1, 40, 40))
    mask = torch.zeros((1, 40, 40))
    mask[:, 4:36, 4:36] = 1
    one = fill_in(picture, mask, noise=0.2, seed=1)
    assert float(one[0, 0, 4:36, 4:36].std()) == pytest.approx(0.2, rel=0.1)
    assert torch.equal(one, fill_in(picture, mask, noise=0.2, seed=1))
    assert not torch.equal(one, fill_in(picture, mask, noise=0.2, seed=2))


def test_taking_everything_leaves_the_mean_colour() -> None:
    picture = torch.rand((3, 8, 8), generator=torch.Generator().manual_seed(0))
    found = fill_in(picture, torch.ones((1, 8, 8)))
    assert torch.allclose(found[0], picture.mean((1, 2), keepdim=True).expand_as(picture), atol=1e-6)


def test_a_linear_ramp_is_restored_inside() -> None:
    """The mean of symmetric neighbours of a ramp is the ramp."""
    ramp = torch.linspace(0, 1, 30)[None, None].repeat(1, 20, 1)
    mask = torch.zeros((1, 20, 30))
    mask[:, 5:15, 8:22] = 1
    assert torch.allclose(fill_in(ramp, mask, tolerance=1e-6)[0], ramp, atol=1e-4)


def test_the_shifted_sums_are_the_convolution() -> None:
    values = torch.rand((2, 3, 9, 11), generator=torch.Generator().manual_seed(0))
    kernel = torch.tensor([[1 / 12, 1 / 6, 1 / 12], [1 / 6, 0, 1 / 6], [1 / 12, 1 / 6, 1 / 12]]).view(1, 1, 3, 3)
    expected = torch.nn.functional.conv2d(values.view(-1, 1, 9, 11), kernel, padding=1).view_as(values)
    assert torch.allclose(_neighbours(values), expected, atol=1e-6)


@pytest.mark.parametrize("size", [(8, 8), (9, 13), (2, 5)])
def test_the_preconditioner_is_symmetric(size: tuple[int, int]) -> None:
    """Conjugate gradients need it: restriction is the transpose of prolongation, and so is the whole cycle."""
    generator = torch.Generator().manual_seed(0)
    height, width = size
    coarse = torch.rand((1, 1, (height + 1) // 2, (width + 1) // 2), generator=generator, dtype=torch.float64)
    fine = torch.rand((1, 1, height, width), generator=generator, dtype=torch.float64)
    left = (_prolong(coarse, height, width) * fine).sum()
    padded = torch.nn.functional.pad(fine, (0, width % 2, 0, height % 2))
    assert float(left) == pytest.approx(float((coarse * _restrict(padded)).sum()))
    missing = (torch.rand((1, 1, 20, 23), generator=generator) < 0.7).double()
    level = _Level.of(missing)
    a, b = (torch.rand((1, 1, 20, 23), generator=generator, dtype=torch.float64) * missing for _ in range(2))
    assert float((level.cycle(a) * b).sum()) == pytest.approx(float((a * level.cycle(b)).sum()), rel=1e-9)
