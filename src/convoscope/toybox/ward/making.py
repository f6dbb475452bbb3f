"""Makes the ward: what is dear first and once, then case by case, in one process or in several."""

from __future__ import annotations

import json
import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from pathlib import Path

from convoscope.errors import ConvoscopeError
from convoscope.toybox.ward.case import TRUTH, Case, as_model, load, write
from convoscope.toybox.ward.recipe import Recipe
from convoscope.toybox.ward.registry import CASES, recipe
from convoscope.toybox.ward.store import VERSION, cache_folder

N = 300
"""Pictures on which an effect is measured."""


class NotTaken(ConvoscopeError):
    """A fault whose effect on the network is too small: no case."""


def is_made(folder: Path) -> bool:
    """Whether the folder holds a whole case of this version."""
    try:
        return bool(json.loads((folder / TRUTH).read_text(encoding="utf-8"))["version"] == VERSION)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def make(folder: str | Path, name: str, *, again: bool = False) -> Case:
    """One case, in the folder of its name below ``folder``; one that is there already is read.

    Raises UsageError for an unknown name, NotTaken where the planted fault has too small an effect.
    """
    chosen, place = recipe(name), Path(folder) / name
    return load(place) if is_made(place) and not again else carry_out(chosen, place)


def at_hand(name: str) -> Case:
    """The case of this name from the cache folder, made there where it is not yet: for tests and benchmarks."""
    return make(cache_folder() / "cases", name)


def carry_out(chosen: Recipe, place: Path) -> Case:
    """Make a recipe's case, measure its effect, and write it to ``place``. Raises NotTaken."""
    made = chosen.make()
    model = as_model(made.network, made.setup)
    sibling = as_model(made.sibling, made.sibling_setup) if made.sibling is not None else None
    effect = chosen.measure(model, sibling, N, 0)
    if effect is not None and effect.size < chosen.least:
        raise NotTaken(
            f"{chosen.name}: the fault did not take. {effect.what}: {effect.healthy:.3f} and {effect.faulty:.3f}, "
            f"which is less apart than {chosen.least}."
        )
    return write(place, chosen, made, effect)


def _dear(which: str) -> None:
    """Draw the pool or train a base, into the cache."""
    from convoscope.toybox.ward import training

    if which == "pool":
        training.pool()
    else:
        training.base_states(training.KINDS[int(which)])


def _one(folder: str, name: str) -> str | None:
    """Make a case in a worker: None, or the sentence that says why not."""
    try:
        make(folder, name)
    except ConvoscopeError as error:
        return str(error)
    return None


def make_all(
    folder: str | Path,
    names: Sequence[str] | None = None,
    *,
    workers: int = 1,
    done: Callable[[str, str | None], None] | None = None,
) -> list[str]:
    """Make all cases (or those named) below ``folder``; those that are there already stay.

    Args:
        folder: where the cases' folders are to lie.
        names: cases; None makes the whole ward.
        workers: processes, of one thread each.
        done: called with a case's name and None, or with why it could not be made.

    Returns:
        the sentences about cases that could not be made.

    Raises:
        UsageError: an unknown name.
    """
    from convoscope.toybox.ward.training import KINDS

    chosen: list[Recipe] = [recipe(name) for name in names] if names else list(CASES)
    failed: list[str] = []

    def finish(name: str, why: str | None) -> None:
        if why:
            failed.append(why)
        if done is not None:
            done(name, why)

    todo = []
    for one in chosen:
        if is_made(Path(folder) / one.name):
            finish(one.name, None)
        else:
            todo.append(one.name)
    if workers <= 1 or len(todo) <= 1:
        for name in todo:
            finish(name, _one(str(folder), name))
        return failed
    # spawned, so that no thread of this process is copied in the middle of something
    with ProcessPoolExecutor(workers, mp_context=multiprocessing.get_context("spawn")) as processes:
        try:
            processes.submit(_dear, "pool").result()
            for base in [processes.submit(_dear, str(number)) for number in range(len(KINDS))]:
                base.result()
            waiting = {processes.submit(_one, str(folder), name): name for name in todo}
            while waiting:
                ready, _ = wait(waiting, return_when=FIRST_COMPLETED)
                for future in ready:
                    finish(waiting.pop(future), future.result())
        except BaseException:
            processes.shutdown(wait=False, cancel_futures=True)
            raise
    return failed
