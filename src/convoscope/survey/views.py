"""The questions that a store answers; each is one function in its own file."""

from __future__ import annotations
from typing import Any

class Views:
    pass
