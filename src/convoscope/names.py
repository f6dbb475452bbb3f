"""Names of files that are not UTF-8 (from old archives, from other systems): kept as they are, shown escaped.

Python holds the bytes that are no UTF-8 as lone surrogates. They can be neither printed nor written as UTF-8: a person
sees them as ``\\xfc``, JSON holds them as its own escape ``\\udcfc``, from which the name comes back as it was.
"""

from __future__ import annotations

import re

_LONE = re.compile("[\ud800-\udfff]")


def shown(text: str) -> str:
    """``text`` for people: bytes that are not UTF-8 are shown escaped."""
    if _LONE.search(text) is None:
        return text
    return text.encode("utf-8", "surrogateescape" if _from_bytes(text) else "backslashreplace").decode(
        "utf-8", "backslashreplace"
    )


def _from_bytes(text: str) -> bool:
    return all("\udc80" <= lone <= "\udcff" for lone in _LONE.findall(text))


def in_json(document: str) -> str:
    """A JSON document that can be written as UTF-8: what is no text stands as JSON's own escape."""
    return _LONE.sub(lambda found: f"\\u{ord(found[0]):04x}", document)
