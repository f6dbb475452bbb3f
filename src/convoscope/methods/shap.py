"""SHAP values of pixels against a background set: by gradients, and by DeepLIFT's multipliers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ..engine.passes.needs import Gradient, Scores
from ..errors import MethodRefused, UsageError
from .base import About, Maps, Method, Query, setting

if TYPE_CHECKING:
    from torch import Tensor

    from .base import Steps

_BACKGROUND = (
    "pictures that stand for nothing in particular: a file, a folder or a pattern (default: black, grey, white)"
)


@dataclass(frozen=True)
class GradientSHAP(Method):
    """The mean of gradient × (x − x₀) over backgrounds x₀ and places on the way from x₀ to x (Erion et al. 2021).

    Places are stratified: sample s of n lies at a random place of the s-th n-th of the way. The map's sum is the
    score's difference from the background's mean; the residual stands in the result.
    """

    about: ClassVar[About] = About(
        name="gradient-shap",
        title="Gradient SHAP",
        shows="each pixel's share of the score's difference from a background set",
        paper="Erion, Janizek, Sturmfels, Lundberg, Lee: Improving Performance of Deep Learning Models with Axiomatic "
        "Attribution Priors and Expected Gradients. Nature Machine Intelligence 2021",
        bibtex=(
            "@article{erion2021improving, title={Improving Performance of Deep Learning Models with Axiomatic "
            "Attribution Priors and Expected Gradients}, author={Erion, Gabriel and Janizek, Joseph D. and Sturmfels, "
            "Pascal and Lundberg, Scott M. and Lee, Su-In}, journal={Nature Machine Intelligence}, year={2021}}"
        ),
        signed=True,
        unit="score",
        reduction="sum over channels",
        cost="one forward and backward a sample",
    )
    samples: int = setting(48, "gradients taken, shared out among the backgrounds", minimum=1, maximum=100_000)
    background: str | None = setting(None, _BACKGROUND, files=True)

    def steps(self, query: Query) -> Steps:
        import torch

        references = background(query, self.background)
        inputs = query.inputs
        ends = Scores()
        scores_there = [Scores(one[None].expand_as(inputs).contiguous()) for one in references]
        got = yield (ends, *scores_there)
        there = torch.stack([got[need].cpu() for need in scores_there]).mean(0)
        difference = got[ends].cpu() - there
        each = max(1, -(-self.samples // len(references)))
        generator = torch.Generator().manual_seed(query.seed)
        places = (torch.arange(each) + torch.rand((len(references), each), generator=generator)) / each
        total = torch.zeros_like(inputs, dtype=torch.float32)
        group = max(1, query.model.batch_size // len(inputs))
        pairs = [(k, float(places[k, s])) for k in range(len(references)) for s in range(each)]
        for first in range(0, len(pairs), group):
            part = pairs[first : first + group]
            need = Gradient(inputs=torch.cat([references[k] + (inputs - references[k]) * at for k, at in part]))
            got = yield need
            for (k, _), gradient in zip(part, got[need].float().view(len(part), *inputs.shape), strict=True):
                total += gradient * (inputs - references[k])
            query.progress(first + len(part), len(pairs))
        maps = query.pixels(total / len(pairs), signed=True, unit=self.about.unit)
        account(maps, difference, "add samples")
        return maps


@dataclass(frozen=True)
class DeepSHAP(Method):
    """DeepLIFT's contributions, averaged over a background set (Lundberg & Lee 2017).

    The map's sum is the score's difference from the background's mean: exactly so, but for functions of several
    inputs at once (softmax, norms), which are integrated with ``nodes`` points.
    """

    about: ClassVar[About] = About(
        name="deep-shap",
        title="Deep SHAP",
        shows="each pixel's share of the score's difference from a background set, layer by layer",
        paper="Lundberg, Lee: A Unified Approach to Interpreting Model Predictions. NeurIPS 2017",
        bibtex=(
            "@inproceedings{lundberg2017unified, title={A Unified Approach to Interpreting Model Predictions}, "
            "author={Lundberg, Scott M. and Lee, Su-In}, booktitle={NeurIPS}, year={2017}}"
        ),
        signed=True,
        unit="score",
        reduction="sum over channels",
        cost="one forward and backward a background",
    )
    background: str | None = setting(None, _BACKGROUND, files=True)
    nodes: int = setting(8, "quadrature points for functions of several inputs", minimum=1, maximum=256)

    def steps(self, query: Query) -> Steps:
        from ..engine.propagation.deeplift import Multipliers
        from ..models.calling import holds_detector

        if holds_detector(query.model.module):
            raise MethodRefused(
                "Deep SHAP has no rules for boxes that are proposed, cut out and thinned out: for detectors use "
                "gradient-shap."
            )
        need = Multipliers(background(query, self.background), self.nodes)
        got = yield need
        maps = query.pixels(got[need], signed=True, unit=self.about.unit)
        account(maps, need.differences[-1], "add nodes")
        return maps


def background(query: Query, given: Any) -> Tensor:
    """The background ``[K, C, H, W]`` in the input space: pictures by path, or black, mid-grey and white.

    Raises :class:`UsageError` where pictures have another size than the input and the network fixes none.
    """
    import torch

    inputs = query.inputs
    if given is None:
        levels = [torch.full_like(inputs[0], level) for level in (0.0, 0.5, 1.0)]
        return torch.stack([query.model.preprocessing.normalise(level) for level in levels])
    from ..pictures.picture import find_pictures

    sources: Sequence[Any] = find_pictures([given]) if isinstance(given, str) else list(given)
    fitted = query.model.inputs([query.model.prepare(source) for source in sources])
    if fitted.shape[1:] != inputs.shape[1:]:
        raise UsageError(
            f"The background's pictures become {tuple(fitted.shape[1:])}, the explained one {tuple(inputs.shape[1:])}: "
            "set a size (--size), or give a background of the same size."
        )
    return fitted


def account(maps: Maps, difference: Tensor, cure: str) -> None:
    """The share of the score's difference that the map's sum misses, as a figure, and above 5 % as a doubt."""
    total = maps.values.flatten(1).sum(1)
    missed = (total - difference).abs()
    residual = (missed / difference.abs().clamp(min=1e-6)).tolist()
    # what the sum was made of: below a millionth of it a rest is rounding, which no setting cures
    size = maps.values.abs().flatten(1).sum(1)
    maps.fact("difference_from_background", difference.tolist())
    maps.fact("completeness_residual", residual)
    for row, share in enumerate(residual):
        if share > 0.05 and float(missed[row]) < 1e-5 * float(size[row]):
            maps.doubt(
                row,
                f"Completeness: the map's sum misses {share:.0%} of the score's difference "
                f"({float(difference[row]):.1e}): rounding "
                "beside the values summed; the score hardly differs from the background's.",
            )
        elif share > 0.05:
            maps.doubt(row, f"Completeness: the map's sum misses {share:.0%} of the score's difference; {cure}.")
