"""The store of a survey: a folder of Lance tables, one writer, any number of readers.

=========  =====================================================================================
units      the ledger: a unit is done when its row is here (its schema holds the recipe)
pictures   a row a picture; rows of units that are not in the ledger do not count
states     what each unit gathered of every channel, until it is folded
folded     one row: the merged state of the units that it names
files      URI, content hash, size and time of change of every file seen, the latest row counting
plan       the units that were cut, so that running again cuts the same ones
maps       computed embedding maps
=========  =====================================================================================

A unit is committed by appending its pictures, then its state, then its ledger row. A crash in between leaves rows
without a ledger entry: readers pass them over, the next writer removes them.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import ConvoscopeError, StoreError, UsageError
from ...plain import html_table
from ..ask.views import Views
from .accumulators import State
from .arrow import pa
from .digests import COLUMN, row_digests, text_digest, with_digests
from .lance_table import Table, _clear_errors, damaged_head, mend, sync_file
from .ledger import _FILES, _PLAN, Lists
from .lock import Lease, Lock
from .recipe import FORMAT, Recipe, Span, reopen, same_network
from .rows import schema as pictures_schema

if TYPE_CHECKING:
    from ...models.model import Model
    from ..gather.work import ShardResult

_RECIPE = b"convoscope"
_RECIPE_DIGEST = b"convoscope.digest"
_UNITS = [("unit", pa.string()), ("pictures", pa.int64()), ("failed", pa.int64()), ("seconds", pa.float64()),
          ("forwards", pa.int64()), ("committed", pa.float64()), ("digest", pa.binary())]  # fmt: skip
_STATES = pa.schema([("unit", pa.string()), ("state", pa.large_binary()), ("digest", pa.binary())])
_FOLDED = pa.schema([("units", pa.large_list(pa.string())), ("state", pa.large_binary()), ("digest", pa.binary())])
#: a store's tables, the ledger first
TABLES = ("units", "pictures", "states", "folded", "files", "plan")
#: how often a commit to an object store is tried
ATTEMPTS = 6
#: states are merged into one after this many units
FOLD_AFTER = 16


class Store(Lists, Views):
    """An open store: ``Store(path)`` reads one; :func:`convoscope.survey` makes and fills one.

    ``notes`` are sentences about what had to be mended on opening.
    """

    def __init__(
        self,
        path: str | Path,
        tables: dict[str, Table] | None = None,
        recipe: Recipe | None = None,
        notes: Sequence[str] = (),
        lock: Lock | Lease | None = None,
    ):
        if tables is None or recipe is None:
            self.__dict__.update(self.open(path).__dict__)
            return
        self.path = str(path)
        self.recipe = recipe
        self.notes = list(notes)
        self._tables = tables
        self._lock = lock
        self._model: Model | None = None
        self._merged: tuple[frozenset[str], State] | None = None
        self._folded_units: set[str] | None = None
        self._done: set[str] | None = None
        self._other_names: dict[str, str] | None = None

    # opening

    @classmethod
    def open(cls, path: str | Path, *, write: bool = False) -> Store:
        """Open the store at ``path`` for reading; ``write`` takes the one writer's lock.

        Raises :class:`StoreError` where there is no store, it cannot be read, or another process writes it.
        """
        path = str(path)
        local = "://" not in path
        if local and not Path(path, "units.lance").is_dir():
            what = "is empty or no survey's store" if Path(path).is_dir() else "does not exist"
            raise StoreError(f"{path} {what}: make one with  convoscope survey MODEL FOLDER --out {path}")
        # readers take no lock, but where a crash has left something half written that could be mended
        torn = local and any(damaged_head(_table(path, name)) for name in TABLES)
        lock = Lock.take(path, wait=not write) if write or torn else None
        notes: list[str] = []
        try:
            if lock is not None and local:  # nobody writes now: what is half written was left by a crash
                for name in TABLES:
                    notes += mend(_table(path, name), Path(path, "set-aside"))
            elif write and lock is None:
                raise StoreError(Lock.refusal(path))
            tables = {name: Table.open(_table(path, name)) for name in TABLES}
            recipe = _recipe_of(tables["units"], path)
            store = cls(path, tables, recipe, notes, lock if write else None)
            if write:
                store._remove_orphans()
        except BaseException:
            if lock is not None:
                lock.release()
            raise
        if lock is not None and not write:
            lock.release()
        return store

    @classmethod
    def create(cls, path: str | Path, recipe: Recipe) -> Store:
        """A new, empty store, open for writing. Raises :class:`StoreError` where something else lies there."""
        path = str(path)
        local = "://" not in path
        if local:
            folder = Path(path)
            if folder.exists() and (not folder.is_dir() or any(not _is_ours(p.name) for p in folder.iterdir())):
                raise StoreError(f"{path} exists and is no survey's store: name a new folder.")
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                why = "it is a link that leads nowhere" if folder.is_symlink() else error.strerror
                raise StoreError(f"{path}: the folder cannot be made ({why}).") from None
        lock = Lock.take(path, wait=False)
        if lock is None:
            raise StoreError(Lock.refusal(path))
        try:
            if not local and _there(path):
                raise StoreError(f"{path} holds a store that cannot be opened: try again, or give another --out.")
            tables = {
                "pictures": Table.create(_table(path, "pictures"), pictures_schema(recipe)),
                "states": Table.create(_table(path, "states"), _STATES),
                "folded": Table.create(_table(path, "folded"), _FOLDED),
                "files": Table.create(_table(path, "files"), _FILES),
                "plan": Table.create(_table(path, "plan"), _PLAN),
            }
            # the ledger comes last: with it, the store is there
            text = json.dumps(recipe.to_dict())
            metadata = {_RECIPE: text.encode(), _RECIPE_DIGEST: text_digest(text).encode()}
            tables["units"] = Table.create(_table(path, "units"), pa.schema(_UNITS, metadata=metadata))
            if local:
                sync_file(path)
        except BaseException:
            lock.release()
            raise
        return cls(path, tables, recipe, [], lock)

    def close(self) -> None:
        """Let the lock go; reading goes on."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return sum(self._ledger()["pictures"].to_pylist())

    def __repr__(self) -> str:
        return f"Store({self.path}, {self.recipe.name}, {len(self)} pictures, {len(self.recipe.layers)} layers)"

    def _repr_html_(self) -> str:
        rows = [[span.name, str(span.end - span.start)] for span in self.recipe.layers]
        title = f"{self.recipe.name}: {len(self)} pictures, in {self.path}"
        return html_table(("layer", "units"), rows, title=title)

    def refresh(self) -> None:
        """See what other processes have committed since."""
        self._done = None
        for table in self._tables.values():
            table.refresh()

    # what is done

    def _ledger(self) -> Any:
        return self._tables["units"].read()

    @property
    def units_done(self) -> set[str]:
        """Ids of the committed units."""
        return set(self._tables["units"].read(["unit"])["unit"].to_pylist())

    def ledger(self) -> list[dict[str, Any]]:
        """The committed units: id, pictures, failed, seconds, forwards, time of the commit."""
        return self._tables["units"].read([name for name, _ in _UNITS if name != COLUMN]).to_pylist()  # type: ignore[no-any-return]

    def _where(self, condition: str | None = None) -> str | None:
        """``condition`` and, where there are orphaned rows, only committed units."""
        ledger = self._ledger()
        if self._tables["pictures"].count() == sum(ledger["pictures"].to_pylist()):
            return condition
        names = ", ".join(f"'{unit}'" for unit in ledger["unit"].to_pylist()) or "''"
        committed = f"unit IN ({names})"
        return f"({condition}) AND {committed}" if condition else committed

    def table(self, columns: Sequence[str] | None = None, where: str | None = None) -> Any:
        """Committed rows of the table of pictures, as a pyarrow table; ``where`` is an SQL condition."""
        return self._tables["pictures"].read(columns, self._where(where))

    def embeddings(self, layer: str | None = None) -> tuple[list[str], NDArray[np.float16]]:
        """Content hashes and float16 ``[N, D]`` of all pictures that have the embedding of ``layer``."""
        column = self.recipe.embedding(layer).column
        found = self.table(["sha256", column], f"{column} IS NOT NULL")
        vectors = found[column].combine_chunks()
        flat = vectors.flatten() if isinstance(vectors, pa.FixedSizeListArray) else pa.array([], pa.float16())
        array = flat.to_numpy(zero_copy_only=False).astype(np.float16, copy=False)
        return found["sha256"].to_pylist(), array.reshape(-1, self.recipe.embedding(layer).size)

    def pictures_dataset(self) -> Any:
        """The Lance dataset of pictures itself, at its newest version: for vector indexes."""
        self._tables["pictures"].refresh()
        return self._tables["pictures"].dataset

    def uri(self, sha256: str, otherwise: str) -> str:
        """The first URI that holds this content now; ``otherwise`` where none is known any more."""
        return self.uris.get(sha256, [otherwise])[0]

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
                self._tables["states"].append(_table_of(_STATES, states))
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
        names = [name for name, _ in _UNITS if name != COLUMN]
        columns = dict(zip(names, zip(*entries, strict=True), strict=True))
        self._tables["units"].append(_table_of(pa.schema(_UNITS), columns))

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
            self._tables["folded"].replace(_table_of(_FOLDED, {"units": [left], "state": [folded[0]["state"]]}))
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
        self._tables["folded"].replace(_table_of(_FOLDED, {"units": [done], "state": [state.to_bytes()]}))
        self._folded_units = set(done)
        self._tables["states"].replace(_STATES.empty_table())

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

    # the network

    def model(self, device: Any = None) -> Model:
        """The network that was surveyed, opened again and compared. Raises :class:`ModelError`."""
        if self._model is None:
            self._model = reopen(self.recipe, device)
        return self._model

    def span(self, layer: str) -> Span:
        """The channels of a surveyed layer, by any name of it: ``layer3`` where ``layer3.1.relu#2`` was surveyed.

        Raises:
            LayerError: it was not surveyed; the sentence names the nearest that were.
        """
        known = [span.name for span in self.recipe.layers]
        if layer in known:
            return self.recipe.span(layer)
        return self.recipe.span(self.other_names().get(layer, layer))

    def other_names(self) -> dict[str, str]:
        """The surveyed name by every other name of the same values; empty where the network cannot be opened."""
        if self._other_names is None:
            from ..gather.choose import other_names

            try:
                model = self.model()
                size = model.preprocessing.size or (224, 224)
                shape = (model.preprocessing.channels, *size)
                self._other_names = other_names(model, shape, [span.name for span in self.recipe.layers])
            except (ConvoscopeError, RuntimeError):
                self._other_names = {}
        return self._other_names

    def use_model(self, model: Model) -> Store:
        """Use this network instead of opening it anew. Raises :class:`ModelError` where it is another one."""
        same_network(self.recipe, model)
        self._model = model
        return self


_OURS = frozenset(
    {"units.lance", "pictures.lance", "states.lance", "folded.lance", "files.lance", "plan.lance", "maps",
    "set-aside",
     "lock", "writer.json", "index.json", "annotations.json", "marks.jsonl"}
)  # fmt: skip


def _is_ours(name: str) -> bool:
    return name in _OURS or name.endswith(".lance.making")


def _table_of(schema: pa.Schema, columns: dict[str, Any]) -> pa.Table:
    """Rows with their checksums."""
    count = len(next(iter(columns.values())))
    return with_digests(pa.table({**columns, COLUMN: [None] * count}, schema=schema))


def _table(path: str, name: str) -> str:
    return f"{path.rstrip('/')}/{name}.lance"


def begun(path: str | Path) -> bool:
    """Whether a local store has begun: its ledger, which is made last, has a version, or pictures lie beside it.

    A folder that a failed creation left (the disk was full) has not, and is made anew.
    """
    versions = Path(path, "units.lance", "_versions")
    if versions.is_dir() and any(file.stat().st_size for file in versions.glob("*.manifest")):
        return True
    return any(Path(path, "pictures.lance", "data").glob("*.lance"))


def _there(path: str) -> bool:
    """Whether an object store holds a ledger at ``path``."""
    from ..gather.collections import filesystem

    fs, where = filesystem(f"{_table(path, 'units')}/_versions")
    with _clear_errors(path):
        return bool(fs.exists(where))


def _recipe_of(units: Table, path: str) -> Recipe:
    metadata = units.dataset.schema.metadata or {}
    if _RECIPE not in metadata:
        raise StoreError(f"{path} is no survey's store: its ledger holds no recipe.")
    if (
        metadata.get(_RECIPE_DIGEST) != text_digest(metadata[_RECIPE]).encode()
        and b'"format": 1,' not in metadata[_RECIPE]
    ):
        raise StoreError(f"{path}: the recipe in the ledger is damaged (its checksum does not fit): survey again.")
    data = json.loads(metadata[_RECIPE])
    made = data.get("format")
    if made != FORMAT:
        newer = isinstance(made, int) and made > FORMAT
        advice = "it was made by a newer one, so update, or survey into another folder" if newer else "survey again"
        raise StoreError(f"{path} has format {made}, this version of convoscope reads format {FORMAT}: {advice}.")
    return Recipe.from_dict(data)
