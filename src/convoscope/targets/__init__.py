"""What is being explained: parsed once, at the door; then only :class:`Target` objects.

``parse`` reads whatever a person gave. Each target finds, once, what is meant in the network's answer on the pictures
themselves (:meth:`Target.resolve`), and returns a :class:`Scorer` that finds it again in every later answer.
"""

from ..models.calling import call_for, is_torchvision_detector
from .base import Scorer, Target, TargetLike
from .classes import ClassTarget
from .combinations import Combination, Direction
from .defaults import default, note
from .instances import Instance
from .landmarks import Landmark
from .likeness import Likeness
from .outputs import MultiLabel, Output
from .panoptic import AnySegment, Merged, PanopticSegment
from .parsing import KINDS, parse
from .scores import FunctionTarget
from .segments import Segment
from .units import Unit

__all__ = [
    "KINDS", "AnySegment", "ClassTarget", "Combination", "Direction", "FunctionTarget", "Instance", "Landmark",
    "Likeness", "Merged", "MultiLabel", "Output", "PanopticSegment", "Scorer", "Segment", "Target", "TargetLike",
    "Unit", "call_for", "default", "is_torchvision_detector", "note", "parse",
]  # fmt: skip
