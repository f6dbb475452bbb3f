"""Targets for networks that return more than class scores.

Each target has ``resolve(model, output, pictures)`` (:class:`~.classes.Target`): it finds, once, what is meant
in the network's answer on the pictures themselves, and returns a scorer that finds it again in every later answer.
"""

from ..models.calling import call_for, is_torchvision_detector
from .defaults import default, found, note
from .instances import Instance
from .landmarks import Landmark
from .likeness import Likeness
from .outputs import MultiLabel, Output
from .panoptic import Merged, PanopticSegment
from .segments import Segment

__all__ = [
    "Instance", "Landmark", "Likeness", "Merged", "MultiLabel", "Output", "PanopticSegment", "Segment", "call_for",
    "default", "found", "is_torchvision_detector", "note",
]  # fmt: skip
