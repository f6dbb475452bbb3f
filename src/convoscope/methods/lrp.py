"""Layer-wise relevance propagation: the score handed back, layer by layer, to the pixels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..errors import MethodRefused
from .base import About, Maps, Method, Query, setting

if TYPE_CHECKING:
    from ..engine.propagation.relevance_steps import Ledger
    from .base import Steps

#: composite -> rule of convolutions, of linear layers, of the first layer
COMPOSITES: dict[str, tuple[str, str, str | None]] = {
    "epsilon": ("epsilon", "epsilon", None),
    "z-plus": ("z-plus", "z-plus", None),
    "gamma": ("gamma", "gamma", None),
    "epsilon-plus": ("z-plus", "epsilon", None),
    "epsilon-plus-flat": ("z-plus", "epsilon", "flat"),
    "epsilon-gamma-box": ("gamma", "epsilon", "z-box"),
}


@dataclass(frozen=True)
class LRP(Method):
    """The score, redistributed from layer to layer to what it was made of (Bach et al. 2015).

    Composites as in Montavon et al. (2019) and Kohlbrenner et al. (2020). A batch norm is merged into the convolution
    before it, sums share by contribution, attention is a gate. What biases and stabilisers absorbed stands in the
    result, with the share of the score that is not accounted for.
    """

    about: ClassVar[About] = About(
        name="lrp",
        title="LRP",
        shows="each pixel's share of the score, handed back layer by layer",
        paper="Bach, Binder, Montavon, Klauschen, Müller, Samek: On Pixel-Wise Explanations. PLoS ONE 2015",
        bibtex=(
            "@article{bach2015pixel, title={On Pixel-Wise Explanations for Non-Linear Classifier Decisions by "
            "Layer-Wise Relevance Propagation}, author={Bach, Sebastian and Binder, Alexander and Montavon, "
            "Gr{\\'e}goire and Klauschen, Frederick and M{\\\"u}ller, Klaus-Robert and Samek, Wojciech}, "
            "journal={PLoS ONE}, year={2015}}"
        ),
        signed=True,
        unit="score",
        reduction="sum over channels",
        cost="2 forwards, 1 backward",
    )
    composite: str = setting(
        "epsilon-plus-flat", "the rules of convolutions, linear layers and the first layer",
        choices=tuple(COMPOSITES),
    )  # fmt: skip
    first: str = setting(
        "composite", "the rule of the first layer: the composite's own, or another",
        choices=("composite", "epsilon", "z-plus", "gamma", "z-box", "flat"),
    )  # fmt: skip
    epsilon: float = setting(1e-6, "ε of the epsilon rule (the other rules take at most 1e-6)", minimum=0.0)
    gamma: float = setting(0.25, "γ of the gamma rule", minimum=0.0)

    def steps(self, query: Query) -> Steps:
        import torch

        from ..engine.propagation.relevance import Relevance
        from ..engine.propagation.relevance_steps import Settings
        from ..models.calling import holds_detector

        if holds_detector(query.model.module):
            raise MethodRefused(
                "LRP has no rules for boxes that are proposed, cut out and thinned out: for detectors use grad-cam, "
                "integrated-gradients or rise."
            )
        convolutions, linears, first = COMPOSITES[self.composite]
        bounds = [query.model.preprocessing.normalise(torch.full_like(query.inputs[:1], v)) for v in (0.0, 1.0)]
        settings = Settings(
            convolutions,  # type: ignore[arg-type]
            linears,  # type: ignore[arg-type]
            first if self.first == "composite" else self.first,  # type: ignore[arg-type]
            self.epsilon, self.gamma, min(1e-6, self.epsilon), low=bounds[0], high=bounds[1],
        )  # fmt: skip
        need = Relevance(settings)
        got = yield need
        maps = query.pixels(got[need], signed=True, unit=self.about.unit)
        _account(maps, need.ledger)
        return maps


def _account(maps: Maps, ledger: Ledger) -> None:
    """Where the score went, as figures of the result, and a doubt where some of it is lost."""
    maps.fact("score", ledger.score.tolist())
    maps.fact("relevance_at_input", ledger.arrived.tolist())
    maps.fact("relevance_of_biases", ledger.biases.tolist())
    maps.fact("relevance_of_stabilisers", ledger.stabilisers.tolist())
    maps.fact("conservation_residual", ledger.residual.tolist())
    for row, share in enumerate(ledger.residual.tolist()):
        if ledger.unknown:
            names = ", ".join(sorted(ledger.unknown))
            maps.doubt(row, f"LRP has no rule for {names}: there the gradient was passed on.")
        if share > 0.01:
            maps.doubt(row, f"Conservation: {share:.0%} of the score reached neither the input nor a bias.")
