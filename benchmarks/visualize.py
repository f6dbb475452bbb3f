"""Time of a visualisation's step against its limit, many units at once, and the loop that lucent's users write.

The limit of a step is one forward and one backward to the input, at the same batch. Every round times all rivals one
after another; medians are printed. The rival is our own minimal port of lucent's loop (lucent itself no longer
imports with the current kornia): hooks, ``loss.backward()``, Adam, and its standard transforms one by one.

    python benchmarks/visualize.py [--rounds 7] [--device cpu] [--weights squeezenet1_0.safetensors] [--steps 8]
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import random
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

import convoscope as cs
from convoscope.visualization import Fourier, Maco, Recipe, Simonyan, Yosinski, optimise

LAYER = "features.5"
CHANNELS = 64


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def timed(work: Callable[[], object], device: torch.device) -> float:
    synchronise(device)
    began = time.perf_counter()
    work()
    synchronise(device)
    return time.perf_counter() - began


def limit(network: nn.Module, inputs: Tensor, steps: int) -> None:
    """What every step must do: a forward, and a backward to the input, in the memory format of ``inputs``."""
    for _ in range(steps):
        leaf = inputs.clone().requires_grad_()
        torch.autograd.grad(network(leaf)[:, 281].sum(), leaf)


def lucent(network: nn.Module, layer: str, channel: int, size: int, steps: int) -> Tensor:
    """The loop that lucent's users write, for one channel."""
    kept: dict[str, Tensor] = {}
    handle = dict(network.named_modules())[layer].register_forward_hook(lambda m, i, o: kept.update(x=o))
    frequencies = torch.sqrt(torch.fft.fftfreq(size)[:, None] ** 2 + torch.fft.rfftfreq(size)[None] ** 2)
    scale = size / frequencies.clamp(min=1 / size)
    spectrum = (torch.randn(1, 3, size, size // 2 + 1, 2) * 0.01).requires_grad_()
    colours = torch.tensor([[0.5628, 0.1948, 0.0433], [0.5845, 0.0, -0.1082], [0.5845, -0.1948, 0.0649]])
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    optimiser = torch.optim.Adam([spectrum], lr=0.05)
    for _ in range(steps):
        spatial = torch.fft.irfft2(torch.view_as_complex(spectrum * scale[..., None]), s=(size, size)) / 4
        image = torch.sigmoid((colours @ spatial.flatten(2)).view_as(spatial))
        shown = functional.pad(image, (12,) * 4, value=0.5)
        shown = shown.roll((random.randrange(-8, 9), random.randrange(-8, 9)), (2, 3))
        factor = 0.9 + 0.02 * random.randrange(11)
        shown = functional.interpolate(shown, scale_factor=factor, mode="bilinear", align_corners=False)
        angle = math.radians(random.randrange(-10, 11))
        theta = torch.tensor([[[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0]]])
        grid = functional.affine_grid(theta, list(shown.shape), align_corners=False)
        shown = functional.grid_sample(shown, grid, align_corners=False)
        shown = functional.interpolate(shown, (size, size), mode="bilinear", align_corners=False)
        optimiser.zero_grad()
        network((shown - mean) / std)
        (-kept["x"][:, channel].mean()).backward()
        optimiser.step()
    handle.remove()
    return image.detach()


class Rounds:
    """Medians of rivals that take turns."""

    def __init__(self, rounds: int, device: torch.device) -> None:
        self.rounds, self.device = rounds, device

    def __call__(self, rivals: dict[str, Callable[[], object]]) -> dict[str, float]:
        seconds: dict[str, list[float]] = {name: [] for name in rivals}
        for number in range(self.rounds + 1):
            for name, work in rivals.items():
                taken = timed(work, self.device)
                if number:  # the first round warms up
                    seconds[name].append(taken)
        return {name: statistics.median(values) for name, values in seconds.items()}


class Stepper:
    """One recipe's loop, set up once: what is timed are its steps alone."""

    def __init__(self, model: cs.Model, recipe: Recipe, classes: list[int], steps: int) -> None:
        self.frames = cs.visualize_frames(
            model,
            classes,
            recipe=dataclasses.replace(recipe, steps=10**6),
            every=steps,
            pixels=False,
        )
        next(self.frames)

    def __call__(self) -> None:
        next(self.frames)


def row(name: str, batch: int, ours: float, plain: float, last: float) -> str:
    """A line of the table, in milliseconds a step and picture."""
    return f"| {name} | {batch} | {ours:.1f} | {plain:.1f} | {ours / plain:.2f} | {last:.1f} | {ours / last:.2f} |"


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--weights", default="none")
    parser.add_argument("--channels", type=int, default=CHANNELS)
    options = parser.parse_args()
    device = torch.device(options.device)
    measure = Rounds(options.rounds, device)
    model = cs.open_model("squeezenet1_0", weights=options.weights, device=options.device, batch_size=CHANNELS)
    network = model.module.eval()
    for parameter in network.parameters():
        parameter.requires_grad_(False)  # as ours does: the limit saves what can be saved
    print(f"torch {torch.__version__}, {device}, {torch.get_num_threads()} threads, SqueezeNet 1.0 at 224\n")

    print("| recipe | batch | ms a step and picture | limit | ratio | limit, channels last | ratio |")
    print("|---|---|---|---|---|---|---|")
    recipes = {"simonyan": Simonyan(), "yosinski": Yosinski(), "fourier": Fourier(), "maco": Maco(crops=1)}
    optimise.FIRST_WAKING = 10**9  # waking a silent class takes a second backward a step: told apart
    classes = list(range(281, 1000, 90))
    for batch in (1, 8):
        inputs = torch.randn(batch, 3, 224, 224, device=device)
        last = inputs.contiguous(memory_format=torch.channels_last)
        rivals: dict[str, Callable[[], object]] = {
            "limit": lambda inputs=inputs: limit(network, inputs, options.steps),
            "last": lambda inputs=last: limit(network, inputs, options.steps),
        }
        rivals |= {name: Stepper(model, recipe, classes[:batch], options.steps) for name, recipe in recipes.items()}
        found = measure(rivals)
        for name in recipes:
            ours, plain, last_ms = (1000 * found[key] / options.steps / batch for key in (name, "limit", "last"))
            print(row(name, batch, ours, plain, last_ms), flush=True)
    own = Maco()
    views = torch.randn(own.crops, 3, 224, 224, device=device)
    stepper = Stepper(model, own, classes[:1], options.steps)
    views_last = views.contiguous(memory_format=torch.channels_last)
    found = measure({
        "limit": lambda: limit(network, views, options.steps),
        "last": lambda: limit(network, views_last, options.steps),
        "maco": stepper,
    })  # fmt: skip
    ours, plain, last_ms = (1000 * found[key] / options.steps for key in ("maco", "limit", "last"))
    print(row(f"maco, {own.crops} crops", 1, ours, plain, last_ms), flush=True)

    targets = [f"{LAYER}:{c}" for c in range(options.channels)]
    recipe = Fourier(steps=options.steps)
    together = measure({"together": lambda: cs.visualize(model, targets, recipe=recipe)})["together"]
    apart = timed(lambda: [cs.visualize(model, target, recipe=recipe) for target in targets], device)
    print(f"\n{options.channels} channels of {LAYER}, {options.steps} steps, fourier, measured pictures included:")
    print(f"one batch {together:.1f} s, separate runs {apart:.1f} s: {apart / together:.2f} times")
    if device.type == "cpu":
        for parameter in network.parameters():
            parameter.requires_grad_(True)  # as lucent's users leave it
        port = [lambda c=c: lucent(network, LAYER, c, 224, options.steps) for c in range(options.channels)]
        rival = timed(lambda: [one() for one in port], device)
        print(f"the loop of lucent's users {rival:.1f} s: {rival / together:.2f} times ours")


if __name__ == "__main__":
    main()
