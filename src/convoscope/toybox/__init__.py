"""The bundled specimen: pictures with known truth, and networks trained on them.

Drawing needs numpy and Pillow alone; torch is imported when a network is loaded.
"""

from __future__ import annotations

from convoscope.toybox.grounds import GROUNDS, STUFF
from convoscope.toybox.loading import NAMES, build, card, load
from convoscope.toybox.scenes import SCENE_SIZE, Instance, Scene, scene
from convoscope.toybox.specimens import CLASSES, LANDMARKS, SIZE, Specimen, Staging, draw, pictures
from convoscope.toybox.writer import write

__all__ = [
    "CLASSES",
    "GROUNDS",
    "LANDMARKS",
    "NAMES",
    "SCENE_SIZE",
    "SIZE",
    "STUFF",
    "Instance",
    "Scene",
    "Specimen",
    "Staging",
    "build",
    "card",
    "draw",
    "load",
    "pictures",
    "scene",
    "write",
]
