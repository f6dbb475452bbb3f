"""Errors that come after the first forward: whatever breaks, what is finished stays, and the break is a refusal.

Twenty ways to break late × methods. Each network runs on the picture itself; then one thing is done to it that it
cannot bear: a batch, a masked picture, a backward pass, a mode.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

import convoscope as cs
from convoscope.folder.request import Request
from convoscope.folder.run import explain_files
from convoscope.plain import plain
from convoscope.progress import Bar

SIZE = 24
METHODS: tuple[Any, ...] = (
    "eigen-cam", "saliency", "grad-cam", "guided-backprop", cs.IntegratedGradients(nodes=6), cs.SmoothGrad(samples=3),
    cs.Occlusion(8, 8), cs.RISE(24, cells=3), "ablation-cam", cs.ScoreCAM(), "lrp", "deep-shap",
    cs.GradientSHAP(samples=6),
)  # fmt: skip


class Base(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3, padding=1), nn.ReLU()
        )
        self.head = nn.Linear(8, 4)
        self.calls = 0

    def forward(self, x: Tensor) -> Any:
        return self.head(self.body(x).mean((2, 3)))


class FixedView(Base):
    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).mean((2, 3)).view(1, -1))


class FixedAssert(Base):
    def forward(self, x: Tensor) -> Any:
        assert len(x) == 1, "one picture at a time"
        return super().forward(x)


class FixedIndex(Base):
    def forward(self, x: Tensor) -> Tensor:
        if len(x) > 1:
            raise IndexError("too many")
        return self.head(self.body(x).mean((2, 3)))


class NoSecond(Base):
    """Raises at its second forward and after."""

    def forward(self, x: Tensor) -> Any:
        self.calls += 1
        if self.calls > 4:
            raise OSError("the camera is gone")
        return super().forward(x)


class Limit(Base):
    """Refuses what is black: masked pictures are, and photos of the night."""

    def forward(self, x: Tensor) -> Any:
        if bool((x == 0).any()):
            raise ValueError("a black pixel")
        return super().forward(x)


class KeyMissing(Base):
    def forward(self, x: Tensor) -> Any:
        if len(x) > 1:
            return {}["scores"]
        return super().forward(x)


class NoneForMany(Base):
    def forward(self, x: Tensor) -> Any:
        return None if len(x) > 1 else super().forward(x)


class OtherShape(Base):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x)[:1]


class OtherWidth(Base):
    def forward(self, x: Tensor) -> Any:
        found = super().forward(x)
        return found if len(x) == 1 else found[:, :2]


class NonReentrant(Base):
    def forward(self, x: Tensor) -> Any:
        return self.head(checkpoint(self.body, x, use_reentrant=False).mean((2, 3)))


class Reentrant(Base):
    def forward(self, x: Tensor) -> Any:
        return self.head(checkpoint(self.body, x, use_reentrant=True).mean((2, 3)))


class Autocast(Base):
    def forward(self, x: Tensor) -> Any:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return super().forward(x)


class _Broken(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:  # type: ignore[override]
        raise RuntimeError("no way back")


class NoBackward(Base):
    def forward(self, x: Tensor) -> Any:
        return self.head(_Broken.apply(self.body(x)).mean((2, 3)))


class OnceBackward(Base):
    """Its saved tensors are overwritten after they were saved."""

    def forward(self, x: Tensor) -> Any:
        a = self.body(x)
        b = a.exp()
        c = (b * b).mean((2, 3))
        b.mul_(0.5)
        return self.head(c)


class Detached(Base):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x).detach()


class NanForDark(Base):
    def forward(self, x: Tensor) -> Any:
        dark = (x == 0).flatten(1).any(1)[:, None]
        return torch.where(dark, torch.full_like(super().forward(x), float("nan")), super().forward(x))


class TypeErrorWithoutGradient(Base):
    def forward(self, x: Tensor) -> Any:
        if not torch.is_grad_enabled() and len(x) > 1:
            raise TypeError("gradients, please")
        return super().forward(x)


class OutOfMemory(Base):
    def forward(self, x: Tensor) -> Any:
        if len(x) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")
        return super().forward(x)


class MemoryGone(Base):
    def forward(self, x: Tensor) -> Any:
        if len(x) > 1:
            raise MemoryError
        return super().forward(x)


class StrangeModule(Base):
    """An operation of which no rule is known, called by keyword."""

    def forward(self, x: Tensor) -> Any:
        return self.head(torch.special.bessel_j0(input=self.body(x)).mean((2, 3)))


class Complex(Base):
    def forward(self, x: Tensor) -> Any:
        return self.head(torch.fft.fft2(self.body(x)).abs().mean((2, 3)))


def exported() -> nn.Module:
    return torch.export.export(Base().eval(), (torch.rand(1, 3, SIZE, SIZE),)).module()


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    kind.__name__: kind
    for kind in (
        FixedView, FixedAssert, FixedIndex, NoSecond, Limit, KeyMissing, NoneForMany, OtherShape, OtherWidth,
        NonReentrant, Reentrant, Autocast, NoBackward, OnceBackward, Detached, NanForDark, TypeErrorWithoutGradient,
        OutOfMemory, MemoryGone, StrangeModule, Complex,
    )
}  # fmt: skip
NETWORKS["exported"] = exported


def picture(seed: int = 0) -> np.ndarray[Any, Any]:
    values = torch.rand(SIZE, SIZE, 3, generator=torch.Generator().manual_seed(seed)) * 0.5 + 0.3
    return (values * 255).byte().numpy()


@pytest.mark.parametrize("kind", NETWORKS)
def test_what_is_finished_stays(kind: str) -> None:
    network = NETWORKS[kind]()
    if kind != "exported":
        network.eval()
    # occlusion and its kin cover with black, which is the mean of networks without a normalisation
    explanation = cs.explain(cs.wrap(network, size=SIZE), picture(), list(METHODS))
    names = {m if isinstance(m, str) else m.about.name for m in METHODS}
    assert set(explanation) | set(explanation.refused) == names
    first = "saliency" if kind == "exported" else "eigen-cam"
    assert first in explanation, "it needs no more than the first forward"
    for name, why in explanation.refused.items():
        assert 20 < len(why) < 700, name
        assert why.endswith((".", ")", ":")) or ":" in why
        assert "\n" not in why
    json.dumps(plain(explanation.to_dict()), allow_nan=False)
    assert min(explanation.sheet().image.size) > 100


def test_a_network_for_one_picture_at_a_time_has_every_map_that_others_have() -> None:
    """Pieces of one row are tried where a batch fails; what comes of it is what an ordinary network gives."""
    truth = cs.explain(cs.wrap(Base().eval(), size=SIZE), [picture(0), picture(1)], list(METHODS), target=1)
    for kind in ("FixedView", "FixedAssert", "FixedIndex", "KeyMissing", "OutOfMemory", "exported"):
        network = NETWORKS[kind]()
        found = cs.explain(cs.wrap(network, size=SIZE), [picture(0), picture(1)], list(METHODS), target=1)
        for one, right in zip(found, truth, strict=True):
            wanted = {"saliency", "integrated-gradients", "smoothgrad", "occlusion", "rise", "gradient-shap"}
            assert wanted <= set(one), kind
            # an exported graph has no modules by which LRP knows the first layer
            for name in set(one) - {"deep-shap", *(["lrp"] if kind == "exported" else [])}:
                size = float(np.abs(right[name].values).max())
                np.testing.assert_allclose(
                    one[name].values, right[name].values, atol=2e-4 * size, err_msg=kind + name
                )


def test_one_bad_picture_takes_no_other_along() -> None:
    dark = np.zeros((SIZE, SIZE, 3), np.uint8)
    found = cs.explain(cs.wrap(Limit().eval(), size=SIZE), [picture(0), dark, picture(1)], ["saliency", "grad-cam"])
    assert [len(one) for one in found] == [2, 0, 2]
    assert "a black pixel" in found[1].refused["saliency"]
    assert json.loads(json.dumps(found[1].to_dict()))["score"] is None
    with pytest.raises(cs.ModelError, match="a black pixel"):
        cs.explain(cs.wrap(Limit().eval(), size=SIZE), [dark, dark], ["saliency", "grad-cam"])


def test_one_bad_picture_of_a_folder_is_named_and_the_rest_done(tmp_path: Path) -> None:
    from PIL import Image

    for name, values in (("a", picture(0)), ("b", np.zeros((SIZE, SIZE, 3), np.uint8)), ("c", picture(1))):
        Image.fromarray(values).save(tmp_path / f"{name}.png")
    paths = sorted(tmp_path.glob("*.png"))
    model = cs.wrap(Limit().eval(), size=SIZE)
    request = Request([cs.Saliency(), cs.GradCAM()], [None], pictures=False)
    outcome = explain_files(model, paths, tmp_path / "out", request, bar=Bar("", None, quiet=True))
    assert len(outcome.records) == 2
    assert list(outcome.failed) == [tmp_path / "b.png"]
    assert "a black pixel" in outcome.failed[tmp_path / "b.png"]
    # the same again does nothing but the one that failed; a file that was cut off is made anew
    again = explain_files(model, paths, tmp_path / "out", request, bar=Bar("", None, quiet=True))
    assert again.skipped == 2
    (tmp_path / "out" / "a" / "maps.npz").write_bytes(b"")
    last = explain_files(model, paths, tmp_path / "out", request, bar=Bar("", None, quiet=True))
    assert last.skipped == 1
    assert len(np.load(tmp_path / "out" / "a" / "maps.npz").files) == 2


def test_a_users_own_classes_are_taken_as_they_are() -> None:
    from dataclasses import dataclass

    @dataclass(frozen=True)
    class Mine(cs.Method):
        about = cs.Saliency.about
        strength: float = 1.0

        def steps(self, query: Any) -> Any:
            progress = 3  # a local of this name means nothing to anybody
            from convoscope.engine.passes.needs import Gradient

            need = Gradient()
            got = yield need
            return query.pixels(got[need] * self.strength * progress / 3, signed=False, unit="score per pixel")

    @dataclass
    class Scores:  # a plain dataclass: it compares by value, and cannot be hashed
        labels: tuple[str, ...]

        def score(self, output: Tensor, layers: Any, rows: Tensor) -> Tensor:
            return output[:, 2]

    class Wanted:
        def resolve(self, model: Any, output: Any, pictures: Any) -> Scores:
            return Scores(("my score",) * len(pictures))

    model, told = cs.wrap(Base().eval(), size=SIZE), []
    mine = cs.explain(model, picture(), [Mine(), cs.Occlusion(8, 8), "integrated-gradients"], target=Wanted(),
                      progress=lambda *one: told.append(one))  # fmt: skip
    truth = cs.explain(model, picture(), ["saliency", cs.Occlusion(8, 8)], target=2)
    np.testing.assert_allclose(mine["saliency"].values, truth["saliency"].values, rtol=1e-5)
    np.testing.assert_allclose(mine["occlusion"].values, truth["occlusion"].values, atol=1e-6)
    assert mine.target == "my score"
    ends = {name: (done, total) for name, done, total in told}
    assert set(ends) == {"saliency", "occlusion", "integrated-gradients"}
    assert all(done == total > 0 for done, total in ends.values())
    assert all(total > 0 and 0 <= done <= total for _, done, total in told)
