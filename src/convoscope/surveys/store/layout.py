"""How a store's folder is laid out: its tables, their columns, and the recipe in the ledger."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ...errors import StoreError
from .arrow import pa
from .digests import COLUMN, text_digest, with_digests
from .lance_table import Table, _clear_errors
from .recipe import FORMAT, Recipe

RECIPE = b"convoscope"
RECIPE_DIGEST = b"convoscope.digest"
UNITS = [("unit", pa.string()), ("pictures", pa.int64()), ("failed", pa.int64()), ("seconds", pa.float64()),
          ("forwards", pa.int64()), ("committed", pa.float64()), ("digest", pa.binary())]  # fmt: skip
STATES = pa.schema([("unit", pa.string()), ("state", pa.large_binary()), ("digest", pa.binary())])
FOLDED = pa.schema([("units", pa.large_list(pa.string())), ("state", pa.large_binary()), ("digest", pa.binary())])
#: a store's tables, the ledger first
TABLES = ("units", "pictures", "states", "folded", "files", "plan")
_OURS = frozenset(
    {"units.lance", "pictures.lance", "states.lance", "folded.lance", "files.lance", "plan.lance", "maps",
    "set-aside",
     "lock", "writer.json", "index.json", "annotations.json", "marks.jsonl"}
)  # fmt: skip


def is_ours(name: str) -> bool:
    return name in _OURS or name.endswith(".lance.making")


def table_of(schema: pa.Schema, columns: dict[str, Any]) -> pa.Table:
    """Rows with their checksums."""
    count = len(next(iter(columns.values())))
    return with_digests(pa.table({**columns, COLUMN: [None] * count}, schema=schema))


def table_path(path: str, name: str) -> str:
    return f"{path.rstrip('/')}/{name}.lance"


def begun(path: str | Path) -> bool:
    """Whether a local store has begun: its ledger, which is made last, has a version, or pictures lie beside it.

    A folder that a failed creation left (the disk was full) has not, and is made anew.
    """
    versions = Path(path, "units.lance", "_versions")
    if versions.is_dir() and any(file.stat().st_size for file in versions.glob("*.manifest")):
        return True
    return any(Path(path, "pictures.lance", "data").glob("*.lance"))


def there(path: str) -> bool:
    """Whether an object store holds a ledger at ``path``."""
    from ..addresses import filesystem

    fs, where = filesystem(f"{table_path(path, 'units')}/_versions")
    with _clear_errors(path):
        return bool(fs.exists(where))


def recipe_of(units: Table, path: str) -> Recipe:
    metadata = units.dataset.schema.metadata or {}
    if RECIPE not in metadata:
        raise StoreError(f"{path} is no survey's store: its ledger holds no recipe.")
    if (
        metadata.get(RECIPE_DIGEST) != text_digest(metadata[RECIPE]).encode()
        and b'"format": 1,' not in metadata[RECIPE]
    ):
        raise StoreError(f"{path}: the recipe in the ledger is damaged (its checksum does not fit): survey again.")
    data = json.loads(metadata[RECIPE])
    made = data.get("format")
    if made != FORMAT:
        newer = isinstance(made, int) and made > FORMAT
        advice = "it was made by a newer one, so update, or survey into another folder" if newer else "survey again"
        raise StoreError(f"{path} has format {made}, this version of convoscope reads format {FORMAT}: {advice}.")
    return Recipe.from_dict(data)
