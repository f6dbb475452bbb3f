"""Lance and Arrow for everything that touches a store; where they are missing, the sentence that names the extra."""

from __future__ import annotations

from ...errors import MissingExtra

try:
    import lance
    import pyarrow as pa
    from lance.fragment import write_fragments
except ImportError as _error:
    raise MissingExtra("pylance", "survey", "A survey's store") from _error

__all__ = ["lance", "pa", "write_fragments"]
