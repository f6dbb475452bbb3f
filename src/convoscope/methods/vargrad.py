"""VarGrad: how much the gradient varies over noisy copies of the picture (Adebayo et al. 2018)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..engine.passes.needs import Gradient
from .base import About, Method, Query, setting

if TYPE_CHECKING:
    from torch import Tensor

    from .base import Steps


@dataclass(frozen=True)
class VarGrad(Method):
    """The variance of ∂score/∂pixel over noisy copies of a picture, the maximum over channels (Adebayo et al. 2018).

    What SmoothGrad averages away is what this shows: where the gradient depends on the exact pixels. The variance is
    the unbiased one, so two samples are the least.
    """

    about: ClassVar[About] = About(
        name="vargrad",
        title="VarGrad",
        shows="where the gradient is unsteady under noise: edges of the decision",
        paper="Adebayo, Gilmer, Goodfellow, Kim: Local Explanation Methods. ICLR workshop 2018",
        bibtex=(
            "@inproceedings{adebayo2018local, title={Local Explanation Methods for Deep Neural Networks Lack "
            "Sensitivity to Parameter Values}, author={Adebayo, Julius and Gilmer, Justin and Goodfellow, Ian and "
            "Kim, Been}, booktitle={ICLR Workshop}, year={2018}}"
        ),
        signed=False,
        unit="(score per input unit)²",
        reduction="max |·| over channels",
        cost="one forward and backward a sample",
    )
    samples: int = setting(25, "noisy copies", minimum=2, maximum=5000)
    noise: float = setting(0.15, "standard deviation as a share of the picture's range", minimum=0.0, maximum=10.0)

    def steps(self, query: Query) -> Steps:
        import torch

        inputs = query.inputs
        flat = inputs.flatten(1).float()
        spread = ((flat.amax(1) - flat.amin(1)) * self.noise).view(-1, *[1] * (inputs.ndim - 1))
        mean = torch.zeros_like(inputs, dtype=torch.float32)
        squares = torch.zeros_like(mean)
        # as many copies at once as the batch size allows, as SmoothGrad does
        group = max(1, query.model.batch_size // len(inputs))
        for first in range(0, self.samples, group):
            count = min(group, self.samples - first)
            noisy = [inputs + self.drawn(query, first + k).to(inputs) * spread.to(inputs) for k in range(count)]
            need = Gradient(inputs=torch.cat(noisy))
            got = yield need
            for number, gradient in enumerate(got[need].float().view(count, *inputs.shape), start=first + 1):
                # Welford's update: no difference of two large sums, so no cancellation
                away = gradient - mean
                mean += away / number
                squares += away * (gradient - mean)
            query.progress(first + count, self.samples)
        return query.pixels(squares / (self.samples - 1), signed=False, unit=self.about.unit)

    def drawn(self, query: Query, sample: int) -> Tensor:
        """Standard normal noise ``[C, H, W]``, the same for every picture of a batch."""
        import torch

        generator = torch.Generator().manual_seed(query.seed * 1_000_003 + sample)
        return torch.randn(query.inputs.shape[1:], generator=generator)
