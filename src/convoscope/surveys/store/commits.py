"""What is done in a store, and how it grows: units are committed, folded, forgotten, and half of one is undone."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...errors import StoreError, UsageError
from .accumulators import State
from .arrow import pa
from .digests import COLUMN, row_digests
from .layout import FOLDED, STATES, UNITS, table_of
from .ledger import Lists
from .lock import Lease, Lock

if TYPE_CHECKING:
    from ..gather.work import ShardResult

#: how often a commit to an object store is tried
ATTEMPTS = 6
#: states are merged into one after this many units
FOLD_AFTER = 16


class Commits(Lists):
    """The part of :class:`convoscope.surveys.Store` that reads and writes the ledger and the states."""

    path: str
    notes: list[str]
    _lock: Lock | Lease | None
    #: the merged state of those units that it names; what is folded; the committed units, read once
    _merged: tuple[frozenset[str], State] | None
    _folded_units: set[str] | None
    _done: set[str] | None

    def refresh(self) -> None:
        """See what other processes have committed since."""
        self._done = None
        for table in self._tables.values():
            table.refresh()

    def _ledger(self) -> Any:
        return self._tables["units"].read()

    @property
    def units_done(self) -> set[str]:
        """Ids of the committed units."""
        return set(self._tables["units"].read(["unit"])["unit"].to_pylist())

    def ledger(self) -> list[dict[str, Any]]:
        """The committed units: id, pictures, failed, seconds, forwards, time of the commit."""
        return self._tables["units"].read([name for name, _ in UNITS if name != COLUMN]).to_pylist()  # type: ignore[no-any-return]

    def _where(self, condition: str | None = None) -> str | None:
        """``condition`` and, where there are orphaned rows, only committed units."""
        ledger = self._ledger()
        if self._tables["pictures"].count() == sum(ledger["pictures"].to_pylist()):
            return condition
        names = ", ".join(f"'{unit}'" for unit in ledger["unit"].to_pylist()) or "''"
        committed = f"unit IN ({names})"
        return f"({condition}) AND {committed}" if condition else committed

    def state(self) -> State:
        """The merged state of all committed units."""
        done = frozenset(self.units_done if self._lock is None else self._committed())
        if self._merged is not None and self._merged[0] == done:
            return self._merged[1]
        folded = self._tables["folded"].read().to_pylist()
        have = set(folded[0]["units"]) if folded else set()
        state = (
            self._read_state(folded[0], folded[0])
            if folded
            else State.empty(self.recipe.channels, self.recipe.top, self.recipe.sample)
        )
        for row in self._tables["states"].read().to_pylist():
            if row["unit"] in done and row["unit"] not in have:
                state = state.merged(self._read_state(row, {"unit": row["unit"]}))
                have.add(row["unit"])
        self._merged = (done, state)
        return state

    def _read_state(self, row: dict[str, Any], what: dict[str, Any]) -> State:
        if row[COLUMN] != row_digests(pa.table({name: [row[name]] for name in row if name != COLUMN}))[0]:
            raise StoreError(
                f"{self.path}: what was gathered of the channels is damaged on the disk (its checksum does not fit): "
                f"`convoscope store repair {self.path}`, then the same survey again."
            )
        return State.from_bytes(row["state"])

    # committing

    def commit(self, result: ShardResult) -> bool:
        """Commit one unit; ``False`` where it was committed already. Only the writer may.

        Raises :class:`StoreError` where the disk is full; what was committed before stays.
        """
        return self.commit_all([result]) == 1

    def commit_all(self, results: Sequence[ShardResult]) -> int:
        """Commit some units at once, all or none, which costs hardly more than one; how many were new.

        What an object store refuses is tried again: first what is half done is removed.
        """
        self._must_write()
        if self._lock is not None and not self._lock.renew():
            raise StoreError(f"{self.path} was taken over by another survey: this one stops, nothing is lost.")
        for attempt in range(ATTEMPTS if "://" in self.path else 1):
            before = self._committed()
            if attempt and all(result.shard in before for result in results):
                return len(results)  # it was only the answer that got lost
            try:
                return self._commit_all(results)
            except StoreError:
                if attempt + 1 >= (ATTEMPTS if "://" in self.path else 1):
                    raise
                time.sleep(0.2 * 2**attempt)
                self.refresh()
                self._remove_orphans()
        return 0

    def _commit_all(self, results: Sequence[ShardResult]) -> int:
        done = self._committed()
        new = list({result.shard: result for result in results if result.shard not in done}.values())
        if not new:
            return 0
        state = self.state()
        folded = self._units_folded()
        fresh = [result for result in new if result.shard not in folded]
        try:
            self._tables["pictures"].append(pa.concat_tables([result.pictures for result in new]))
            if fresh:
                states = {"unit": [r.shard for r in fresh], "state": [r.state.to_bytes() for r in fresh]}
                self._tables["states"].append(table_of(STATES, states))
            entries = []
            for result in new:
                rows, good = result.pictures.num_rows, result.pictures["error"].null_count
                entries.append([result.shard, rows, rows - good, result.seconds, result.forwards, time.time()])
            self._append_ledger(entries)
        except BaseException:
            self._done = None
            with contextlib.suppress(Exception):
                self._remove_orphans()
            raise
        done.update(result.shard for result in new)
        for result in fresh:
            state = state.merged(result.state)
        self._merged = (frozenset(done), state)
        if self._tables["states"].count() >= FOLD_AFTER:
            self.fold()
        return len(new)

    def _append_ledger(self, entries: Sequence[Sequence[Any]]) -> None:
        names = [name for name, _ in UNITS if name != COLUMN]
        columns = dict(zip(names, zip(*entries, strict=True), strict=True))
        self._tables["units"].append(table_of(pa.schema(UNITS), columns))

    def forget_failures(self) -> int:
        """Take out the rows of pictures that could not be read, so that they are tried again; how many there were.

        A failure is not a result: the file may be back. What the network itself made of a picture (NaN) stays.
        """
        self._must_write()
        passing = "error IS NOT NULL AND width IS NULL"
        rows = self._tables["pictures"].read(["unit"], self._where(passing))["unit"].value_counts().to_pylist()
        counts = {entry["values"]: entry["counts"] for entry in rows}
        if not counts:
            return 0
        ledger = {row["unit"]: row for row in self.ledger()}
        self._tables["pictures"].delete(passing)
        self._delete("units", list(counts))
        kept = []
        for unit, count in counts.items():
            row = ledger[unit]
            if row["pictures"] > count:
                kept.append([unit, row["pictures"] - count, row["failed"] - count, row["seconds"], row["forwards"],
                             row["committed"]])  # fmt: skip
        if kept:
            self._append_ledger(kept)
        empty = [unit for unit in counts if ledger[unit]["pictures"] <= counts[unit]]
        self._forget_states(empty)
        self._merged = self._done = None
        return sum(counts.values())

    def _forget_states(self, units: Sequence[str]) -> None:
        """Take units that hold no picture any more out of what was gathered: their share of it is nothing."""
        self._delete("states", units)
        folded = self._tables["folded"].read().to_pylist()
        if folded and set(units) & set(folded[0]["units"]):
            left = sorted(set(folded[0]["units"]) - set(units))
            self._tables["folded"].replace(table_of(FOLDED, {"units": [left], "state": [folded[0]["state"]]}))
        self._folded_units = None

    def _committed(self) -> set[str]:
        """The ids of the committed units, read once: who holds the lock writes alone."""
        if self._done is None:
            self._done = self.units_done
        return self._done

    def fold(self) -> None:
        """Merge the units' states into one, which keeps the store small."""
        self._must_write()
        if not self._tables["states"].count():
            return
        state = self.state()
        done = sorted(self._committed() | self._units_folded())
        self._tables["folded"].replace(table_of(FOLDED, {"units": [done], "state": [state.to_bytes()]}))
        self._folded_units = set(done)
        self._tables["states"].replace(STATES.empty_table())

    def _units_folded(self) -> set[str]:
        if self._folded_units is None:
            rows = self._tables["folded"].read(["units"])["units"].to_pylist()
            self._folded_units = set(rows[0]) if rows else set()
        return self._folded_units

    def _remove_orphans(self) -> None:
        """Undo what a crash left half committed: rows without ledger entry, and entries without their rows."""
        ledger = {row["unit"]: row["pictures"] for row in self._ledger().to_pylist()}
        units = self._tables["pictures"].read(["unit"])["unit"].value_counts().to_pylist()
        rows = {entry["values"]: entry["counts"] for entry in units}
        bad = [unit for unit, count in rows.items() if ledger.get(unit) != count]
        lost = [unit for unit, count in ledger.items() if rows.get(unit, 0) != count]
        states = set(self._tables["states"].read(["unit"])["unit"].to_pylist())
        lost += [u for u in ledger if u not in states and u not in self._units_folded() and u not in lost]
        if bad or lost:
            self._delete("pictures", [*bad, *(u for u in lost if u in rows)])
        if lost:
            self._delete("units", lost)
            self.notes.append(f"{len(lost)} units had lost rows to a damaged disk: they will be done again.")
        self._delete("states", [unit for unit in states if unit not in ledger or unit in lost])
        self._merged = self._done = None

    def _delete(self, table: str, units: Sequence[str]) -> None:
        for start in range(0, len(units), 500):
            names = ", ".join(f"'{unit}'" for unit in units[start : start + 500])
            self._tables[table].delete(f"unit IN ({names})")

    def _must_write(self) -> None:
        if self._lock is None:
            raise UsageError(f"{self.path} is open for reading only: open it with Store.open(path, write=True).")
