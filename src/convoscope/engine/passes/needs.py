"""What a method may ask of the engine: frozen requests, answered by the runner.

A need says *what* is wanted, never how to get it. The planner merges equal needs of many methods.
``inputs=None`` means the pictures of the query; a tensor of ``K·B`` rows (row ``i`` belongs to picture
``i % B``) asks for the same at other inputs, as integrated gradients and SmoothGrad do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from torch import Tensor

    from ..recompute.incremental.windows import Masks
    from .runner import Runner

Rule = Literal["plain", "deconvnet", "guided"]
#: the name under which the network's own input stands beside the layers
INPUT = "input"
#: masked pictures from which on preparing a network pays for itself (exporting its graph takes 1 to 5 seconds)
MANY = 256


@dataclass(frozen=True, eq=False)
class _At:
    """Needs compare by their fields, tensors by identity: two methods that hold the same tensor share."""

    def _key(self) -> tuple[object, ...]:
        values = (getattr(self, name) for name in self.__dataclass_fields__)
        return (
            type(self),
            *(v if isinstance(v, (str, int, float, bool, type(None))) else id(v) for v in values),
        )

    def __hash__(self) -> int:
        return hash(self._key())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _At) and self._key() == other._key()


@dataclass(frozen=True, eq=False)
class Activation(_At):
    """The output of ``layer``: a tensor with the batch first."""

    layer: str
    inputs: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Gradient(_At):
    """The gradient of the target's score with respect to ``at`` (``"input"`` or a layer's output)."""

    at: str = INPUT
    rule: Rule = "plain"
    inputs: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Scores(_At):
    """The target's score, float32 of one value a row; ``probability`` asks for the softmax share instead."""

    inputs: Tensor | None = None
    probability: bool = False


@dataclass(frozen=True, eq=False)
class Perturbed(_At):
    """The target's score on pictures of which a part is replaced: float32 ``[B, M]``.

    Picture ``b`` under mask ``m`` is ``x·(1 − mask) + fill·mask``; masks are ``[M, H, W]`` in 0..1 (1: replaced) and
    ``fill`` is ``[B, C, H, W]``, both in the network's input space. The engine may recompute only what changed.
    Rectangles are better given as :class:`convoscope.engine.recompute.incremental.Boxes`, which hold no pixel.
    ``fast`` caps the boxes of influence (approximate); ``engine="dense"`` forbids incremental recomputation.
    ``row`` asks for that picture only (``[1, M]``). ``progress`` is called with the number of masks done so far;
    what was not done when the user stopped it is NaN. ``many_more_follow`` says that hundreds like these
    follow on the same network: it is then worth preparing (:func:`convoscope.engine.recompute.choose.prepared`),
    even where masks cover all.
    """

    masks: Tensor | Masks
    fill: Tensor
    probability: bool = False
    fast: float | None = None
    progress: Callable[[int], None] | None = None
    row: int | None = None
    engine: str = "auto"
    many_more_follow: bool = False


@dataclass(frozen=True, eq=False)
class Replaced(_At):
    """The target's score with a layer's output replaced: float32 ``[B, M]``.

    ``values[m]`` maps the layer's output ``[B, ...]`` to what stands there instead. Switching a unit off and
    Ablation-CAM are both this.
    """

    layer: str
    values: Sequence[Callable[[Tensor], Tensor]]
    probability: bool = False


class Scorer(Protocol):
    """A resolved target: turns what the network returned into one score for each row."""

    @property
    def layers(self) -> tuple[str, ...]: ...

    @property
    def as_value(self) -> bool: ...

    def score(self, output: Any, layers: Mapping[str, Tensor], rows: Tensor) -> Tensor: ...

    def probability(self, output: Any, layers: Mapping[str, Tensor], rows: Tensor) -> Tensor: ...


class Dedicated(_At):
    """A need that takes a forward of its own, because the forward itself runs otherwise (attention, relevance).

    Subclasses are frozen dataclasses in the engine; :meth:`answer` is called by the planner, inside ``untouched``.
    """

    def answer(self, runner: Runner, inputs: Tensor, target: Scorer) -> Tensor:
        """Run what is needed on ``inputs`` ``[B, ...]`` and return the answer.

        Raises :class:`MethodRefused` where the network cannot be seen through.
        """
        raise NotImplementedError


Need = Activation | Gradient | Scores | Perturbed | Replaced | Dedicated
