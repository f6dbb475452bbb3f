"""Checksums of what a store keeps: every row carries one of its own content, and every state one of its bytes.

A disk that gives back another bit than it was given is noticed by nobody else: Lance checks no data page. ``verify``
recomputes them all.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .arrow import pa

COLUMN = "digest"


def with_digests(table: pa.Table) -> pa.Table:
    """The table with its column ``digest`` filled: 16 bytes a row, of all other columns in their order."""
    at = table.schema.get_field_index(COLUMN)
    values = pa.array(row_digests(table), pa.binary())
    return table.set_column(at, table.schema.field(at), values)


def row_digests(table: Any) -> list[bytes]:
    """The checksum of every row of a pyarrow table or record batch, as its content is now."""
    names = [name for name in table.schema.names if name != COLUMN]
    columns = [_bytes(table.column(name)) for name in names]
    found = []
    for row in range(table.num_rows):
        digest = hashlib.blake2b(digest_size=16)
        for column in columns:
            part = column[row]
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(part)
        found.append(digest.digest())
    return found


def wrong_rows(table: Any) -> list[int]:
    """The rows whose content is not what their checksum says."""
    kept = table.column(COLUMN).to_pylist()
    return [row for row, (was, now) in enumerate(zip(kept, row_digests(table), strict=True)) if was != now]


def text_digest(text: str | bytes) -> str:
    """The checksum of a text or of bytes, as hexadecimal digits."""
    data = text.encode() if isinstance(text, str) else text
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def _bytes(column: Any) -> Sequence[bytes]:
    """Each value as bytes; vectors by their memory, so that a wide embedding costs no Python list."""
    whole = column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column
    if isinstance(whole, pa.ChunkedArray):  # no chunk at all
        return []
    if isinstance(whole, pa.FixedSizeListArray):
        size = whole.type.list_size
        flat = whole.values.slice(whole.offset * size, len(whole) * size)
        valid = whole.is_valid().to_pylist()
        vectors = _without_gaps(flat).reshape(len(whole), size)
        return [row.tobytes() if there else b"" for row, there in zip(vectors, valid, strict=True)]
    if pa.types.is_binary(whole.type) or pa.types.is_large_binary(whole.type):
        return [b"\0" if value is None else b"\1" + value for value in whole.to_pylist()]
    return [repr(value).encode("utf-8", "surrogatepass") for value in whole.to_pylist()]


def _without_gaps(flat: Any) -> NDArray[Any]:
    """The values with 0 where there is none; older Arrow cannot fill half precision, so NumPy does it for floats."""
    if not pa.types.is_floating(flat.type):
        return np.asarray(flat.fill_null(0).to_numpy(zero_copy_only=False))
    values = np.asarray(flat.to_numpy(zero_copy_only=False))
    there = np.asarray(flat.is_valid().to_numpy(zero_copy_only=False), bool)
    return values if there.all() else np.where(there, values, values.dtype.type(0))
