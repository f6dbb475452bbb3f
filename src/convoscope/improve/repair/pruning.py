"""Repair of the size: dead units taken out, duplicate ones merged, the same outputs."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..shortcuts.bench import Bench
from ..statistics import Interval
from ..units.prune import prune
from .attempt import Attempt
from .copies import scores_of
from .gate import Measured, Proof, judge
from .split import PROOF

#: scores may differ by so much of the largest, and no more
EXACT = 1e-5


def repair_units(bench: Bench, part: NDArray[np.int64], seed: int = 0, proof: Bench | None = None) -> Attempt:
    """Zero what does nothing: found on the pictures of the folds, held against pictures that it did not see.

    Shapes stay as they are, so that the weights load into the network they came from. Raises nothing: what cannot be
    done is in the proof.
    """
    learn = bench.take(np.flatnonzero(part != PROOF))
    held = proof if proof is not None else bench.take(np.flatnonzero(part == PROOF))
    done = prune(bench.model, learn.pictures, masked=True)
    after = scores_of(held, done.module)
    right = Measured(held.scores.argmax(1) == held.truth, after.argmax(1) == held.truth)
    error = float(np.abs(after - held.scores).max() / max(1.0, float(np.abs(held.scores).max())))
    facts = {**done.to_dict(), "error_held_out": error}
    nothing = Interval(0.0, 0.0, 0.0)
    gone = len(done.removed) + len(done.merged)
    if done.refused is not None or gone == 0:
        why = (
            f"Nothing to prune: {done.refused}."
            if done.refused
            else "Nothing to prune: no unit is dead or a duplicate."
        )
        if done.pinned:
            why += f" {len(done.pinned)} must stay: what they are added to or gated by needs their place."
        return Attempt("prune", done.module, Proof("outputs", right, None, nothing, False, why, (), facts))
    if error > EXACT:
        why = (
            f"Not exact on held-out pictures: {gone} units do nothing in the pictures given, but outputs move by "
            f"{error:.1e} of the largest on others (at most {EXACT:.0e} may be)."
        )
        return Attempt("prune", done.module, Proof("outputs", right, None, nothing, False, why, (), facts))
    proved = judge("outputs", right, nothing, "points", None, facts, (
        "A unit that is dead in all these pictures may answer to others.",
        "Shapes are as before, so that the weights load anywhere; a program that skips zeros saves the work.",
    ), nothing=True)  # fmt: skip
    saved = 1 - done.madds_after / max(1, done.madds_before)
    error = max(error, done.error)
    why = (
        f"{len(done.removed)} dead units removed, {len(done.merged)} duplicates merged: {saved:.1%} of the "
        f"multiply-adds, outputs equal to {error:.0e} on {len(held.truth)} held-out pictures. {proved.why}"
    )
    from dataclasses import replace

    return Attempt("prune", done.module, replace(proved, why=why), {"saved": saved, "units": gone})
