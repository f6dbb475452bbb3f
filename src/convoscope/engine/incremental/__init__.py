"""Exact recomputation, for occlusion, of only what a mask changed."""

from convoscope.engine.incremental.dense import dense_outputs
from convoscope.engine.incremental.graph import ExportedGraph, NotIncremental, export
from convoscope.engine.incremental.run import Incremental
from convoscope.engine.incremental.stages import Estimate
from convoscope.engine.incremental.windows import Boxes, FreeMasks, grid

__all__ = [
    "Boxes", "Estimate", "ExportedGraph", "FreeMasks", "Incremental", "NotIncremental", "dense_outputs", "export",
    "grid",
]  # fmt: skip
