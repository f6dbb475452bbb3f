"""Names of files that are not UTF-8 (from old archives, from other systems): kept as they are, shown escaped.

Python holds the bytes that are no UTF-8 as lone surrogates. They can be neither printed nor written as UTF-8: a person
sees them as ``\\xfc``, JSON holds them as its own escape ``\\udcfc``, from which the name comes back as it was.

Names that turn the direction of text (Unicode's overrides, embeddings, isolates and marks) read as other names than
they are: ``gpj.exe`` for ``exe.jpg``. A person sees a mark in their place; JSON holds them as its own escapes.
"""

from __future__ import annotations

import os
import re
from urllib.parse import quote_from_bytes, unquote_to_bytes

_LONE = re.compile("[\ud800-\udfff]")
#: what turns the direction of text, or hides that it does
_TURNING = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def upright(text: str) -> str:
    """``text`` for people, with a mark (U+FFFD) in place of every character that turns its direction."""
    return _TURNING.sub("\ufffd", text)


def shown(text: str) -> str:
    """``text`` for people: bytes that are not UTF-8 are shown escaped, and nothing turns the direction of text."""
    text = upright(text)
    if _LONE.search(text) is None:
        return text
    return text.encode("utf-8", "surrogateescape" if _from_bytes(text) else "backslashreplace").decode(
        "utf-8", "backslashreplace"
    )


def _from_bytes(text: str) -> bool:
    return all("\udc80" <= lone <= "\udcff" for lone in _LONE.findall(text))


def uri_of(path: str) -> str:
    """What a store keeps of a local path: the path itself; of one that is not UTF-8 a ``file://`` URI (RFC 8089)."""
    if _LONE.search(path) is None:
        return path
    return "file://" + quote_from_bytes(os.fsencode(path))


def path_of(uri: str) -> str:
    """The local path that :func:`uri_of` has made a ``file://`` URI of; anything else as it is."""
    if not uri.startswith("file://"):
        return uri
    return os.fsdecode(unquote_to_bytes(uri.removeprefix("file://")))


def in_json(document: str) -> str:
    """A JSON document that can be written as UTF-8: what is no text, or turns it, stands as JSON's own escape."""

    def escaped(found: re.Match[str]) -> str:
        return f"\\u{ord(found[0]):04x}"

    return _TURNING.sub(escaped, _LONE.sub(escaped, document))
