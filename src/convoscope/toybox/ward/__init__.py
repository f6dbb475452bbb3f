"""The ward: networks and collections with planted faults of known size, and healthy ones.

48 cases of 8 kinds (``input``, ``data``, ``units``, ``slices``, ``local shortcuts``, ``global shortcuts``, ``missing
invariances``, ``optimisation``) and 40 healthy networks, all made by seeds. Truth is behaviour: every fault's effect
is measured on pictures of its own, and a fault without an effect is no case.

A case is a folder. ``pictures`` is the labelled collection that a person would bring: 40 pictures a class (400), 60 to
80 where labels are wrong, 80 of the class that a slice lies in; enough to find something on one half and to test it on
the other. ``held_out`` is another drawing of the same world with right labels, to judge by. ``train`` is there where
the fault concerns training pictures (200 to 800). Pictures are PNG files of 64 x 64 pixels, one folder a class; for
``input-resize`` 160 x 160. ``model`` and ``sibling`` (the network without the fault) open as ``model/net.py:network``.
"""

from __future__ import annotations

from convoscope.toybox.ward.case import Case, Effect, answers, load
from convoscope.toybox.ward.drawing import Pictures
from convoscope.toybox.ward.making import NotTaken, at_hand, is_made, make, make_all
from convoscope.toybox.ward.registry import CASES, recipe

__all__ = [
    "CASES",
    "Case",
    "Effect",
    "NotTaken",
    "Pictures",
    "answers",
    "at_hand",
    "is_made",
    "load",
    "make",
    "make_all",
    "recipe",
]
