"""Visualisation's parts against independent implementations: optimisers, images, transforms, objectives."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

import convoscope as cs
from convoscope.pictures.picture import Preprocessing
from convoscope.visualization import filters, images, optimisers, transforms
from convoscope.visualization.objectives import Caricatured, Inverted

PLAIN = Preprocessing((16, 20), None, "squash", (0.0,) * 3, (1.0,) * 3)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (optimisers.Adam(0.05), lambda p: torch.optim.Adam(p, lr=0.05, maximize=True)),
        (
            optimisers.Adam(0.3, epsilon=1e-7, nesterov=True),
            lambda p: torch.optim.NAdam(p, lr=0.3, eps=1e-7, momentum_decay=0.004, maximize=True),
        ),
    ],
)
def test_adam_and_nadam_equal_torchs(ours, theirs):
    generator = torch.Generator().manual_seed(0)
    start = torch.randn(3, 5, 7, generator=generator)
    mine, other = start.clone().requires_grad_(), start.clone().requires_grad_()
    optimiser = theirs([other])
    for _ in range(25):
        gradient = torch.randn(3, 5, 7, generator=generator) * 3
        ours.update([mine], [gradient], torch.zeros(3))
        other.grad = gradient.clone()
        optimiser.step()
    assert torch.allclose(mine, other, atol=1e-5)


@pytest.mark.parametrize("size", [(16, 20), (15, 21)])
def test_the_fourier_image_is_lucids_formula(size):
    preprocessing = Preprocessing(size, None, "squash", (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
    image = images.Fourier(size, preprocessing, images.Randoms([1], torch.device("cpu")), decay=1.0, deviation=0.5)
    height, width = size
    coefficients = image.parameters[0].detach().numpy().astype(np.float64)
    spectrum = coefficients[0, ..., 0] + 1j * coefficients[0, ..., 1]
    frequency = np.sqrt(np.fft.fftfreq(height)[:, None] ** 2 + np.fft.rfftfreq(width)[None] ** 2)
    scale = math.sqrt(height * width) / np.maximum(frequency, 1 / max(size))
    spatial = np.fft.irfft2(spectrum * scale, s=size) / 4
    matrix = np.array([[0.26, 0.09, 0.02], [0.27, 0.00, -0.05], [0.27, -0.09, 0.03]])
    matrix = matrix / np.linalg.norm(matrix, axis=0).max()
    coloured = np.einsum("ij,jhw->ihw", matrix, spatial)
    wanted = 1 / (1 + np.exp(-coloured))
    found = preprocessing.denormalise(image.inputs().detach())[0].numpy()
    assert np.abs(found - wanted).max() < 1e-5


def test_a_fourier_image_can_start_from_a_picture():
    picture = torch.rand(1, 3, 16, 20, generator=torch.Generator().manual_seed(0)) * 0.9 + 0.05
    image = images.Fourier((16, 20), PLAIN, images.Randoms([1], torch.device("cpu")), decay=1.0, deviation=0.01)
    image.start_from(picture)
    assert torch.allclose(image.inputs(), picture, atol=1e-4)


def test_the_phase_image_keeps_its_magnitudes_whatever_the_phases():
    generator = torch.Generator().manual_seed(0)
    magnitude = torch.rand(3, 16, 11, generator=generator) + 0.1
    magnitude[:, 0, 0] = 0
    image = images.Phase(magnitude, (16, 20), PLAIN, images.Randoms([4], torch.device("cpu")))
    logits = image.inputs().detach()[0].logit()
    colours = torch.tensor(images.COLOURS)
    spatial = (torch.linalg.inv(colours) @ logits.flatten(1)).view_as(logits)
    spectrum = torch.fft.rfft2(spatial).abs()
    # columns 0 and 10 hold conjugate pairs, which random phases do not respect: a real picture averages them
    inner = slice(1, 10)
    ratio = spectrum[:, :, inner] / magnitude[:, :, inner]
    assert float(ratio.std() / ratio.mean()) < 1e-3
    before = image.inputs().detach().clone()
    with torch.no_grad():
        image.parameters[0].mul_(7.0)
    assert torch.allclose(before, image.inputs(), atol=1e-4)


def test_no_spot_lies_in_the_corners_of_a_phase_image():
    """Phases that lie close together add up at pixel (0, 0), which is a corner, and by the torus all four."""
    from convoscope.visualization.natural import spectrum

    size = (64, 64)
    magnitude = spectrum([], Preprocessing(size), size)
    for seed in range(4):
        image = images.Phase(magnitude, size, PLAIN, images.Randoms([seed], torch.device("cpu")))
        picture = image.inputs().detach()[0].logit()
        picture = (picture - picture.mean((1, 2), keepdim=True)) / picture.std((1, 2), keepdim=True)
        corners = picture[:, [0, 0, -1, -1], [0, -1, 0, -1]].abs().max()
        assert float(corners) < 5, seed


def test_the_spectrum_of_pictures_is_numpys():
    pictures = torch.rand(4, 1, 12, 12, generator=torch.Generator().manual_seed(0))
    window = np.outer(np.hanning(12), np.hanning(12))
    values = pictures[:, 0].numpy().astype(np.float64)
    values = (values - values.mean((1, 2), keepdims=True)) * window
    wanted = np.abs(np.fft.rfft2(values)).mean(0)
    wanted[0, 0] = 0
    assert np.abs(images.magnitudes(pictures)[0].numpy() - wanted).max() < 1e-5


def test_one_resampling_does_what_scipy_does_with_the_composed_map():
    picture = ndimage.gaussian_filter(np.random.default_rng(0).random((40, 40)), 2).astype(np.float32)
    preprocessing = Preprocessing((40, 40), None, "squash", (0.5,), (1.0,))
    angle, scale = math.radians(8), 1.06
    matrix = torch.tensor([[math.cos(angle), math.sin(angle)], [-math.sin(angle), math.cos(angle)]])[None] / scale
    shift = torch.tensor([[2.0, -1.0]])
    found = transforms.resample(torch.from_numpy(picture)[None, None] - 0.5, matrix, shift, (40, 40), preprocessing)
    centre = 19.5
    m = matrix[0].numpy()
    swap = np.array([[m[1, 1], m[1, 0]], [m[0, 1], m[0, 0]]])  # SciPy counts (row, column)
    offset = np.array([centre - 1.0, centre + 2.0]) - swap @ np.array([centre, centre])
    wanted = ndimage.affine_transform(picture, swap, offset, order=1, mode="constant", cval=0.5)
    inside = (slice(8, 32), slice(8, 32))
    assert np.abs(found[0, 0].numpy() + 0.5 - wanted)[inside].max() < 1e-4


def test_crops_show_what_torchvisions_resized_crop_shows():
    from torchvision.ops import roi_align

    generator = torch.Generator().manual_seed(0)
    picture = torch.nn.functional.interpolate(torch.rand(1, 3, 8, 8, generator=generator), 32, mode="bicubic")
    preprocessing = Preprocessing((32, 32), None, "squash", (0.0,) * 3, (1.0,) * 3)
    crops = transforms.Crops(preprocessing, (32, 32), 0.5, 0.5, 0.0, 0.0, per_item=3)
    found = crops(picture, images.Randoms([5], torch.device("cpu")), 0, 1)
    draw = images.Randoms([5], torch.device("cpu")).normal(3, 3)[0]
    boxes = []
    for k in range(3):
        x, y = 0.5 + 0.15 * float(draw[1, k]), 0.5 + 0.15 * float(draw[2, k])
        boxes.append([0, (x - 0.25) * 32, (y - 0.25) * 32, (x + 0.25) * 32, (y + 0.25) * 32])
    wanted = roi_align(picture, torch.tensor(boxes), (32, 32), sampling_ratio=1, aligned=True)
    for k, box in enumerate(boxes):
        if min(box[1:]) > 1 and max(box[1:]) < 31:
            assert (found[k] - wanted[k]).abs().max() < 1e-3


def test_the_shake_has_the_published_distribution():
    preprocessing = Preprocessing((32, 32), None, "squash", (0.5,), (1.0,))
    shaken = transforms.Shaken(preprocessing, (32, 32), 8, 0.1, 10, 4)
    seen = []
    original = transforms.resample
    try:
        transforms.resample = lambda inputs, matrix, shift, *rest: seen.append((matrix, shift)) or inputs
        randoms = images.Randoms(range(2000), torch.device("cpu"))
        shaken(torch.zeros(2000, 1, 32, 32), randoms, 0, 1)
    finally:
        transforms.resample = original
    matrix = seen[0][0]
    scale = 1 / torch.linalg.det(matrix).sqrt()
    degrees = torch.rad2deg(torch.atan2(matrix[:, 0, 1], matrix[:, 0, 0]))
    assert sorted({round(float(s), 2) for s in scale}) == [round(0.9 + 0.02 * k, 2) for k in range(11)]
    assert sorted({round(float(d)) for d in degrees}) == list(range(-10, 11))
    still = float((degrees.abs() < 0.5).float().mean())
    assert abs(still - 6 / 26) < 0.04  # zero stands once in the list, and five times more


def test_blur_is_scipys_and_drop_keeps_the_percentile():
    values = torch.rand(1, 2, 30, 30, generator=torch.Generator().manual_seed(0))
    wanted = np.stack([ndimage.gaussian_filter(v, 1.0, mode="mirror") for v in values[0].numpy()])
    assert np.abs(filters.blur(values, 1.0)[0].numpy() - wanted).max() < 1e-4
    kept = filters.drop(values, values.norm(dim=1), 40.0)
    share = float((kept[0, 0] != 0).float().mean())
    assert abs(share - 0.6) < 0.01


def test_inversion_and_caricature_are_their_formulas():
    generator = torch.Generator().manual_seed(0)
    reference, features = torch.randn(2, 4, 3, 3, generator=generator), torch.randn(2, 4, 3, 3, generator=generator)
    items = torch.tensor([1, 0])
    found = Inverted("x", reference)(None, {"x": features}, items)
    for n, item in enumerate([1, 0]):
        wanted = -float(((features[n] - reference[item]) ** 2).sum() / (reference[item] ** 2).sum())
        assert abs(float(found[n]) - wanted) < 1e-5
    found = Caricatured("x", reference, 2.0)(None, {"x": features}, items)
    a, b = features[0].flatten().numpy(), reference[1].flatten().numpy()
    cosine = max(0.1, float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)))
    assert abs(float(found[0]) - float(a @ b) / a.size * cosine**2) < 1e-5


def test_the_smallest_change_comes_near_the_distance_to_a_linear_boundary():
    """For a linear network the distance to the class boundary is known: |f_t - f_0| / ‖w_t - w_0‖."""

    class Linear(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.randn(3, 3 * 24 * 24, generator=torch.Generator().manual_seed(3)))

        def forward(self, x):
            return x.flatten(1) @ self.weight.T

    module = Linear()
    model = cs.wrap(module, size=24)
    photo = np.random.default_rng(0).integers(60, 190, (24, 24, 3), dtype=np.uint8)
    with torch.no_grad():
        scores = module(model.inputs([model.prepare(photo)]))[0]
    first, wanted = int(scores.argmax()), int(scores.argmin())
    result = cs.visualize(model, wanted, objective="fool", image=photo, steps=300)
    weights = module.weight.detach()
    distance = float((scores[first] - scores[wanted]) / (weights[first] - weights[wanted]).norm())
    assert result.facts["fooled"]
    assert distance * 0.95 < result.facts["change"]["l2"] < distance * 1.25
