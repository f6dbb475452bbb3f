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

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...errors import ConvoscopeError, StoreError
from ...plain import html_table
from ..ask.views import Views
from .accumulators import State
from .arrow import pa
from .commits import Commits
from .digests import text_digest
from .lance_table import Table, damaged_head, mend, sync_file
from .layout import FOLDED, RECIPE, RECIPE_DIGEST, STATES, TABLES, UNITS, is_ours, recipe_of, table_path, there
from .ledger import _FILES, _PLAN
from .lock import Lease, Lock
from .recipe import Recipe, Span, reopen, same_network
from .rows import schema as pictures_schema

if TYPE_CHECKING:
    from ...models.model import Model


class Store(Commits, Views):
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
        torn = local and any(damaged_head(table_path(path, name)) for name in TABLES)
        lock = Lock.take(path, wait=not write) if write or torn else None
        notes: list[str] = []
        try:
            if lock is not None and local:  # nobody writes now: what is half written was left by a crash
                for name in TABLES:
                    notes += mend(table_path(path, name), Path(path, "set-aside"))
            elif write and lock is None:
                raise StoreError(Lock.refusal(path))
            tables = {name: Table.open(table_path(path, name)) for name in TABLES}
            recipe = recipe_of(tables["units"], path)
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
            if folder.exists() and (not folder.is_dir() or any(not is_ours(p.name) for p in folder.iterdir())):
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
            if not local and there(path):
                raise StoreError(f"{path} holds a store that cannot be opened: try again, or give another --out.")
            tables = {
                "pictures": Table.create(table_path(path, "pictures"), pictures_schema(recipe)),
                "states": Table.create(table_path(path, "states"), STATES),
                "folded": Table.create(table_path(path, "folded"), FOLDED),
                "files": Table.create(table_path(path, "files"), _FILES),
                "plan": Table.create(table_path(path, "plan"), _PLAN),
            }
            # the ledger comes last: with it, the store is there
            text = json.dumps(recipe.to_dict())
            metadata = {RECIPE: text.encode(), RECIPE_DIGEST: text_digest(text).encode()}
            tables["units"] = Table.create(table_path(path, "units"), pa.schema(UNITS, metadata=metadata))
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

    # the pictures

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
