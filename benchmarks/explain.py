"""Eleven maps of one picture: ours, captum + grad-cam, and the limit, side by side in one run.

The limit is what cannot be saved: one forward and three backward passes to the input (plain, deconvnet, guided).
Every round times all three, one after the other; medians and the ratios of medians are printed as a table.

    python benchmarks/explain.py [--rounds 9] [--device cpu] [--networks resnet50,squeezenet1_0]
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings
from collections.abc import Callable

import captum.attr
import pytorch_grad_cam
import torch
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn
from torchvision import models as zoo

import convoscope as cs
from convoscope.engine.passes.relu_rules import backward_rule, relu_nodes
from convoscope.pictures.picture import Picture, Preprocessing

METHODS = [
    "saliency", "input-x-gradient", "guided-backprop", "deconvnet", "guided-grad-cam", "grad-cam", "grad-cam++",
    "hirescam", "xgrad-cam", "layercam", "eigen-cam",
]  # fmt: skip
CAMS = ("GradCAM", "GradCAMPlusPlus", "HiResCAM", "XGradCAM", "LayerCAM", "EigenCAM")
LAYERS = {"resnet50": "layer4", "squeezenet1_0": "features.12"}


class ModuleReLUs(nn.Module):
    """captum refuses a ReLU module that is used twice, as ResNet's are: each call gets its own, for captum only."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        for block in network.modules():
            if isinstance(block, zoo.resnet.Bottleneck):
                block.relu = _Thrice()

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x)


class _Thrice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.each = nn.ModuleList(nn.ReLU() for _ in range(3))
        self.turn = 0

    def forward(self, x: Tensor) -> Tensor:
        self.turn = (self.turn + 1) % 3
        return self.each[self.turn](x)


def limit(network: nn.Module, x: Tensor, target: int) -> None:
    """One forward, three backwards to the input, nothing else."""
    leaf = x.clone().requires_grad_()
    score = network(leaf)[:, target].sum()
    nodes = relu_nodes([score.grad_fn])
    for rule in ("plain", "deconvnet", "guided"):
        with backward_rule(rule, nodes):
            torch.autograd.grad(score, leaf, retain_graph=True)


def peers(network: nn.Module, x: Tensor, target: int, layer: nn.Module) -> None:
    """The same eleven maps as their users get them: captum for the pixels, grad-cam for the CAMs."""
    captum.attr.Saliency(network).attribute(x.clone(), target=target)
    captum.attr.InputXGradient(network).attribute(x.clone(), target=target)
    captum.attr.GuidedBackprop(network).attribute(x.clone(), target=target)
    captum.attr.Deconvolution(network).attribute(x.clone(), target=target)
    captum.attr.GuidedGradCam(network, layer).attribute(x.clone(), target=target)
    for name in CAMS:
        with getattr(pytorch_grad_cam, name)(model=network, target_layers=[layer]) as cam:
            cam(input_tensor=x, targets=[ClassifierOutputTarget(target)])


def measure(network_name: str, rounds: int, device: torch.device) -> dict[str, float]:
    """Median seconds of limit, ours and peers."""
    torch.manual_seed(0)
    network = zoo.get_model(network_name, weights=None).eval().to(device)
    for_captum = ModuleReLUs(zoo.get_model(network_name, weights=None)).eval().to(device)
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(1, 3, 224, 224, generator=generator).to(device)
    model = cs.wrap(network, size=224, name=network_name)
    picture = Picture.from_input(x[0].cpu(), Preprocessing(mean=(0.0,) * 3, std=(1.0,) * 3))
    their_layer = for_captum.get_submodule("network." + LAYERS[network_name])
    contestants: dict[str, Callable[[], object]] = {
        "limit": lambda: limit(network, x, 7),
        "ours": lambda: cs.explain(model, picture, METHODS, target=7, layer=LAYERS[network_name]),
        "peers": lambda: peers(for_captum, x, 7, their_layer),
    }
    times: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds + 1):
        for name, run in contestants.items():
            start = time.perf_counter()
            run()
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            if number:  # the first round warms up
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--networks", default="resnet50,squeezenet1_0")
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    print(f"eleven maps of one 224×224 picture, {args.device}, {torch.get_num_threads()} threads, medians")
    print("\n| network | limit | ours | captum + grad-cam | ours / limit | peers / limit | peers / ours |")
    print("|---|---|---|---|---|---|---|")
    for name in args.networks.split(","):
        s = measure(name, args.rounds, torch.device(args.device))
        print(
            f"| {name} | {s['limit']:.3f} s | {s['ours']:.3f} s | {s['peers']:.3f} s | {s['ours'] / s['limit']:.2f} "
            f"| {s['peers'] / s['limit']:.2f} | {s['peers'] / s['ours']:.2f} |"
        )


if __name__ == "__main__":
    main()
