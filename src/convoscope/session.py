"""One network, protected, on one batch: the one place where a network is run.

A :class:`Session` owns the module, its call, the lock, the runner with its counts, and the sentence for a network that
cannot run. Whoever asks something of a network opens one; afterwards the network is bit for bit as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .engine.passes.naming import first_tensor, observe
from .engine.passes.runner import Recorded, Runner, call_plainly
from .engine.passes.untouched import untouched
from .errors import ConvoscopeError, ModelError
from .targets.base import Scorer, Target
from .targets.defaults import Predictions, predictions

if TYPE_CHECKING:
    from .models.model import Model
    from .pictures.picture import ModelInput


class Session:
    """A network held for a while: ``with Session(model, pictures) as session: ...``.

    Args:
        model: the network.
        pictures: the batch, all of one input shape; none for a session that brings its own inputs.
        gradients: whether gradients can be asked for.
        numbers: the pictures' numbers in the whole call, for networks whose other inputs have a row a picture.
    """

    def __init__(
        self,
        model: Model,
        pictures: Sequence[ModelInput] = (),
        *,
        gradients: bool = True,
        numbers: Sequence[int] | None = None,
    ) -> None:
        self.model = model
        self.pictures = list(pictures)
        self.inputs: Tensor | None = model.inputs(self.pictures) if self.pictures else None
        self.gradients = gradients
        call = model.call
        if call is None:
            self.runner = Runner(model.module, model.batch_size, call_plainly, model.name)
        elif numbers is None:
            self.runner = Runner(model.module, model.batch_size, call, model.name)
        else:
            known, given = torch.tensor(numbers), call
            self.runner = Runner(
                model.module,
                model.batch_size,
                lambda network, inputs, rows: given(network, inputs, known[rows]),
                model.name,
            )
        self._held: ExitStack | None = None

    def __enter__(self) -> Session:
        self._held = ExitStack()
        self._held.enter_context(untouched(self.model.module, gradients=self.gradients))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._held is not None
        self._held.__exit__(kind, error, trace)

    @property
    def batch(self) -> Tensor:
        """The pictures' inputs ``[B, C, H, W]``."""
        assert self.inputs is not None, "this session has no pictures of its own"
        return self.inputs

    def record(
        self,
        inputs: Tensor | None = None,
        *,
        layers: Collection[str] = (),
        gradients: bool = False,
        rows: Tensor | None = None,
        replace: Mapping[str, Callable[[Tensor], Tensor]] | None = None,
    ) -> Recorded:
        """One forward of ``inputs`` (default: the pictures), keeping ``layers``.

        Raises :class:`ModelError` where the network cannot run on them, :class:`LayerError` for a layer that was not
        reached.
        """
        given = self.batch if inputs is None else inputs
        return self.runner.record(given, layers=layers, gradients=gradients, rows=rows, replace=replace)

    def resolve(self, target: Target, output: Any) -> Scorer:
        """The scorer of a target on the pictures; what it runs besides is counted."""
        return target.resolve(self.model, output, self.pictures, self.runner)

    def scored(self, scorer: Scorer, recorded: Recorded) -> tuple[Tensor, Tensor | None]:
        """Score and probability (``None``: there is none) of every row of a forward."""
        rows = torch.arange(len(recorded.leaf))
        layers = recorded.live()
        with torch.no_grad():
            score = scorer.score(recorded.output, layers, rows).detach().float().cpu().expand(len(rows))
            if not scorer.has_probability:
                return score, None
            return score, scorer.probability(recorded.output, layers, rows).float().cpu()

    def predictions(self, output: Any, best: int = 5) -> Predictions:
        """What the network says of every picture."""
        size = (int(self.batch.shape[-2]), int(self.batch.shape[-1]))
        return predictions(self.model, output, len(self.pictures), size, best)


__all__ = ["Session"]


@contextmanager
def protected(
    model: Model,
    visit: Callable[[str, Tensor], None] | None = None,
    layers: Collection[str] | None = None,
    *,
    gradients: bool = False,
) -> Iterator[None]:
    """The network held for plain forwards, as :class:`Session` holds it for questions.

    Args:
        model: the network.
        visit: called with the name and the output of every layer that a forward reaches; of a tuple or a dictionary
            with its first tensor, as :func:`~convoscope.engine.fields.watch.watch` takes it.
        layers: only these are visited; None: all.
        gradients: whether forwards record a graph.
    """
    with untouched(model.module, gradients=gradients):
        if visit is None:
            yield
        else:
            with observe(model.module, ours(visit), only=None if layers is None else set(layers)):
                yield


def ours(visit: Callable[[str, Tensor], None]) -> Callable[[str, Any], None]:
    """``visit``, whose own faults :func:`forward` does not put down to the network in whose forward they come."""

    def told(name: str, output: Any) -> None:
        tensor = first_tensor(output)
        if tensor is None:
            return
        try:
            visit(name, tensor)
        except Exception as error:
            error.__dict__["ours"] = True
            raise

    return told


def forward(model: Model, inputs: Tensor) -> Any:
    """One plain forward on ``inputs`` ``[B, C, H, W]``; the caller holds the network by :func:`protected`.

    Raises:
        ModelError: the network cannot run on these inputs; the sentence says of what shape they were.
    """
    from .models.model import forward_failed

    try:
        return model.run(inputs)
    except ConvoscopeError:
        raise
    except (RuntimeError, ValueError, TypeError, IndexError, AssertionError) as error:
        if error.__dict__.get("ours"):
            raise
        raise ModelError(forward_failed(model, inputs.shape[1:], error)) from error
