"""Exact recomputation, for occlusion, of only what a mask changed."""

from convoscope.engine.recompute.incremental.dense import dense_outputs
from convoscope.engine.recompute.incremental.graph import ExportedGraph, NotIncremental, export
from convoscope.engine.recompute.incremental.run import Incremental
from convoscope.engine.recompute.incremental.stages import Estimate
from convoscope.engine.recompute.incremental.windows import Boxes, FreeMasks, grid

__all__ = [
    "Boxes", "Estimate", "ExportedGraph", "FreeMasks", "Incremental", "NotIncremental", "dense_outputs", "export",
    "grid",
]  # fmt: skip
