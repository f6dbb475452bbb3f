"""What a store knows of files and of units that are still to be done."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

from ..gather.shards import Found, Item, Shard, make_shard
from .arrow import pa
from .digests import COLUMN, with_digests
from .lance_table import Table
from .recipe import Recipe

_FILES = pa.schema(
    [("uri", pa.string()), ("sha256", pa.string()), ("bytes", pa.int64()), ("changed", pa.int64()),
     ("label", pa.string()), ("error", pa.string()), ("digest", pa.binary())]
)  # fmt: skip
_PLAN = pa.schema(
    [("unit", pa.string()), ("sha256", pa.string()), ("uri", pa.string()), ("label", pa.string()),
     ("label_index", pa.int32()), ("error", pa.string()), ("digest", pa.binary())]
)  # fmt: skip


class Lists:
    """The part of :class:`convoscope.surveys.Store` that keeps the tables ``files`` and ``plan``."""

    recipe: Recipe
    _tables: dict[str, Table]

    def _must_write(self) -> None:
        raise NotImplementedError

    def files(self) -> dict[str, Found]:
        """The files seen, by URI, as they were last."""
        rows = self._tables["files"].read([name for name in _FILES.names if name != COLUMN]).to_pylist()
        return {row["uri"]: Found(**row) for row in rows}

    def record_files(self, found: Sequence[Found]) -> None:
        """Note files that are new or have changed."""
        self._must_write()
        columns = {name: [getattr(one, name, None) for one in found] for name in _FILES.names}
        self._tables["files"].append(with_digests(pa.table(columns, schema=_FILES)))
        self.__dict__.pop("uris", None)

    @cached_property
    def uris(self) -> dict[str, list[str]]:
        """The URIs of every content hash."""
        found: dict[str, list[str]] = {}
        for uri, one in self.files().items():
            found.setdefault(one.sha256, []).append(uri)
        return {sha: sorted(listed) for sha, listed in found.items()}

    def plan(self) -> list[Shard]:
        """The units that were cut, in order."""
        units: dict[str, list[Item]] = {}
        for row in self._tables["plan"].read().to_pylist():
            unit = row.pop("unit")
            del row[COLUMN]
            units.setdefault(unit, []).append(Item(**row))
        return [Shard(unit, tuple(items)) for unit, items in units.items()]

    def set_plan(self, shards: Sequence[Shard]) -> None:
        """Note how the pictures still to be done are cut."""
        self._must_write()
        columns: dict[str, list[Any]] = {name: [] for name in _PLAN.names}
        for shard in shards:
            for item in shard.items:
                columns["unit"].append(shard.id)
                for name in _PLAN.names[1:]:
                    columns[name].append(getattr(item, name, None))
        self._tables["plan"].replace(with_digests(pa.table(columns, schema=_PLAN)))

    def check_plan(self, shards: Sequence[Shard]) -> bool:
        """Whether every shard's id is that of its content: a plan that was tampered with is not followed."""
        return all(make_shard(self.recipe.space, shard.items).id == shard.id for shard in shards)
