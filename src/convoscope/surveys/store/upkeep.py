"""Looking after a store: what is wrong with it, mending what can be mended, and making it small.

``verify`` reads and changes nothing; ``repair`` removes what is damaged, so that the next survey does it again, and
says what was lost; ``compact`` joins the many small files that units leave. None of them needs the network.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from ...errors import StoreError
from .arrow import lance, pa
from .digests import COLUMN, wrong_rows
from .lance_table import Table, _clear_errors, _damage, _version, mend
from .layout import FOLDED, STATES, TABLES, recipe_of, table_path
from .ledger import _FILES, _PLAN
from .lock import Lease, Lock
from .recipe import Recipe
from .rows import schema as pictures_schema
from .store import Store

Tell = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be. ``harmful``: something is lost or unreadable, not only untidy."""

    kind: str
    table: str | None
    count: int
    sentence: str
    harmful: bool = True

    def to_dict(self) -> dict[str, Any]:
        return dict(vars(self))


@dataclass
class Report:
    """What :func:`verify` found, or :func:`repair` did; ``facts`` are counts and bytes."""

    path: str
    findings: list[Finding] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    @property
    def whole(self) -> bool:
        """Whether nothing is lost or unreadable; untidiness does not count."""
        return not any(finding.harmful for finding in self.findings)

    def to_dict(self) -> dict[str, Any]:
        found = [finding.to_dict() for finding in self.findings]
        return {"store": self.path, "whole": self.whole, "findings": found, **self.facts}


# verify


def verify(path: str | Path, *, quick: bool = False, progress: Tell | None = None) -> Report:
    """What is wrong with the store at ``path``; nothing is changed, and a survey may go on meanwhile.

    Looks for damaged manifests, data files that are missing, cut off or unreadable (``quick`` leaves reading them
    all out), rows and ledger entries without each other, planned units that are not done, and files that no version
    names. Raises :class:`StoreError` where there is no store.
    """
    path = str(path)
    report = Report(path)
    tables: dict[str, Any] = {}
    if "://" not in path and not Path(path, "units.lance").is_dir():
        raise StoreError(f"{path} is no survey's store: there is no ledger (units.lance) in it.")
    for number, name in enumerate(TABLES):
        if progress is not None:
            progress(f"Reading {name}", number, len(TABLES))
        tables[name] = _look_at(report, name, quick)
    if tables["units"] is None:
        report.findings.append(Finding("unreadable", "units", 1, "The ledger cannot be read: it holds the recipe."))
        return report
    _cross_check(report, tables)
    return report


def _look_at(report: Report, name: str, quick: bool) -> Any:
    """The newest whole version of a table, after noting what is wrong with it and with the others."""
    path = table_path(report.path, name)
    local = "://" not in path
    add = report.findings.append
    if local and not Path(path).is_dir():
        add(Finding("missing table", name, 1, f"{name}.lance is not there."))
        return None
    dataset = None
    if local:
        for manifest in manifests(path):
            why = _damage(path, str(manifest), _version(manifest.name), data=False)
            head = dataset is None
            if why is not None:
                said = f"{name}.lance: version {_version(manifest.name)} {why}."
                add(Finding("damaged manifest", name, 1, said, harmful=head))
            elif dataset is None:
                dataset = lance.dataset(path, version=_version(manifest.name))
        if dataset is None:
            add(Finding("unreadable", name, 1, f"{name}.lance: no version of this table is whole."))
            return None
    else:
        with _clear_errors(path):
            dataset = Table.open(path).dataset
    bad = dict(bad_fragments(dataset, path if local else None, quick))
    for number, why in bad.items():
        add(Finding("damaged data", name, 1, f"{name}.lance: fragment {number} {why}."))
    if local:
        stray = orphaned_files(path)
        if stray:
            size = sum(file.stat().st_size for file in stray)
            said = f"{name}.lance: {len(stray)} files ({size:,} bytes) belong to no version; repair removes them."
            add(Finding("orphaned files", name, len(stray), said, harmful=False))
    report.facts.setdefault("rows", {})[name] = dataset.count_rows()
    return None if bad else dataset


def manifests(path: str) -> list[Path]:
    """The manifests of a local table, the newest first."""
    return sorted(Path(path, "_versions").glob("*.manifest"), key=lambda file: _version(file.name), reverse=True)


def bad_fragments(dataset: Any, path: str | None, quick: bool) -> Iterator[tuple[int, str]]:
    """Fragments of which a file is missing, cut off or unreadable: number and why, as the end of a sentence."""
    for fragment in dataset.get_fragments():
        why = None
        if path is not None:
            for file in fragment.metadata.files:
                data = Path(path, "data", file.path)
                if not data.exists():
                    why = f"names the data file {file.path}, which is missing"
                elif file.file_size_bytes and data.stat().st_size != file.file_size_bytes:
                    why = f"names the data file {file.path}, which is cut off"
        if why is None and not quick:
            try:
                wrong = 0
                for batch in fragment.to_batches(batch_size=1024):
                    wrong += len(wrong_rows(batch)) if COLUMN in batch.schema.names else 0
                if wrong:
                    why = f"holds {wrong} rows whose content is not what their checksum says"
            except (OSError, ValueError, RuntimeError, pa.ArrowException) as error:
                why = f"cannot be read ({' '.join(str(error).split())[:80]})"
        if why is not None:
            yield fragment.fragment_id, why


def orphaned_files(path: str) -> list[Path]:
    """Data files of a local table that none of its readable versions names."""
    named: set[str] = set()
    for manifest in manifests(path):
        try:
            version = lance.dataset(path, version=_version(manifest.name))
            named |= {file.path for fragment in version.get_fragments() for file in fragment.metadata.files}
        except (OSError, ValueError, RuntimeError):
            continue  # a damaged manifest is reported as such
    folder = Path(path, "data")
    return sorted(file for file in folder.glob("*.lance") if file.name not in named) if folder.is_dir() else []


def _cross_check(report: Report, tables: dict[str, Any]) -> None:
    """Whether ledger, rows, states and plan fit together."""
    add = report.findings.append
    ledger = {row["unit"]: row["pictures"] for row in tables["units"].to_table(["unit", "pictures"]).to_pylist()}
    report.facts |= {"units": len(ledger), "pictures": sum(ledger.values())}
    rows: dict[str, int] = {}
    if tables["pictures"] is not None:
        for batch in tables["pictures"].to_batches(columns=["unit"]):
            for entry in batch["unit"].value_counts().to_pylist():
                rows[entry["values"]] = rows.get(entry["values"], 0) + entry["counts"]
        stray = [unit for unit in rows if unit not in ledger]
        if stray:
            count = sum(rows[unit] for unit in stray)
            said = f"{count} rows of {len(stray)} units were not committed; repair, or the next survey, removes them."
            add(Finding("uncommitted rows", "pictures", count, said, harmful=False))
        lost = [unit for unit, count in ledger.items() if rows.get(unit, 0) != count]
        if lost:
            said = f"{len(lost)} committed units lack rows: repair removes them, and the next survey does them again."
            add(Finding("lost rows", "pictures", len(lost), said))
    if tables["states"] is not None and tables["folded"] is not None:
        have = set(tables["states"].to_table(["unit"])["unit"].to_pylist())
        for entry in tables["folded"].to_table(["units"]).to_pylist():
            have |= set(entry["units"])
        lost = [unit for unit in ledger if unit not in have]
        if lost:
            said = f"What {len(lost)} committed units gathered of the channels is lost: repair has them done again."
            add(Finding("lost states", "states", len(lost), said))
    if tables["plan"] is not None:
        planned: dict[str, int] = {}
        for entry in tables["plan"].to_table(["unit"])["unit"].value_counts().to_pylist():
            planned[entry["values"]] = entry["counts"]
        missing = [unit for unit in planned if unit not in ledger]
        report.facts["missing_units"] = len(missing)
        if missing:
            count = sum(planned[unit] for unit in missing)
            said = f"{len(missing)} planned units ({count} pictures) are not done yet: run the same survey again."
            add(Finding("missing units", "plan", len(missing), said, harmful=False))


# repair


def repair(path: str | Path) -> Report:
    """Mend the store at ``path``, and say what was lost: units whose rows or states are gone are taken out of the
    ledger, so that the next survey does them again.

    Raises :class:`StoreError` where the ledger (which holds the recipe) is beyond mending, or a survey is writing.
    """
    path = str(path)
    report = Report(path)
    lock = _writing(path)
    try:
        recipe = _mend_tables(path, report)
    finally:
        if lock is not None:
            lock.release()
    with Store.open(path, write=True) as store:
        before = len(store.ledger())
        report.facts |= {"units": before, "pictures": len(store)}
        for note in store.notes:
            report.findings.append(Finding("lost units", "units", 1, note))
        for name in TABLES:
            _clean(store._tables[name])
    if recipe is not None and "://" not in path:
        record = Path(path, "index.json")
        if record.exists() and not store.pictures_dataset().describe_indices():
            record.unlink()
            said = "The vector indexes were lost with the table: the next large search builds them again."
            report.findings.append(Finding("lost index", None, 1, said))
    return report


def _writing(path: str) -> Lock | Lease | None:
    if "://" in path:
        return None
    if not Path(path, "units.lance").exists():
        what = (
            "is no survey's store: there is no ledger (units.lance) in it"
            if Path(path).is_dir()
            else "does not exist"
        )
        raise StoreError(f"{path} {what}.")
    lock = Lock.take(path, wait=False)
    if lock is None:
        raise StoreError(Lock.refusal(path))
    return lock


def _mend_tables(path: str, report: Report) -> Recipe | None:
    """Every table brought to a state in which it can be opened and all its fragments read."""
    recipe = None
    for name in TABLES:
        table = table_path(path, name)
        try:
            if "://" not in path:
                if not Path(table, "_versions").is_dir():
                    raise StoreError(f"{name}.lance is not there.")
                for said in mend(table, Path(path, "set-aside"), data=False):
                    report.findings.append(Finding("damaged manifest", name, 1, said))
            opened = Table.open(table)
        except StoreError as error:
            if name == "units":
                raise StoreError(
                    f"{path}: the ledger, which holds the recipe, is beyond mending: survey again. {error}"
                ) from None
            assert recipe is not None  # the ledger is the first of the tables
            _start_anew(path, name, recipe, report)
            continue
        if name == "units":
            recipe = recipe_of(opened, path)
        bad = dict(bad_fragments(opened.dataset, None if "://" in path else table, quick=False))
        if bad:
            with _clear_errors(table):
                operation = lance.LanceOperation.Delete([], list(bad), "true")
                dataset = opened.dataset
                lance.LanceDataset.commit(dataset, operation, read_version=dataset.version)
            for number, why in bad.items():
                said = f"{name}.lance: fragment {number} {why}; what it held is lost."
                report.findings.append(Finding("damaged data", name, 1, said))
    return recipe


def _start_anew(path: str, name: str, recipe: Recipe, report: Report) -> None:
    schemas = {"states": STATES, "folded": FOLDED, "files": _FILES, "plan": _PLAN}
    schema = schemas.get(name) or pictures_schema(recipe)
    table = table_path(path, name)
    if "://" not in path and Path(table).exists():
        aside = Path(path, "set-aside")
        aside.mkdir(exist_ok=True)
        number = sum(1 for _ in aside.iterdir())
        Path(table).rename(aside / f"{name}-{number}.lance")
    Table.create(table, schema)
    said = f"{name}.lance was beyond mending: it lies in set-aside, and an empty one is in its place."
    report.findings.append(Finding("unreadable", name, 1, said))


# compact


def compact(path: str | Path, progress: Tell | None = None) -> Report:
    """Join small files, drop rows that were deleted and all older versions; a reader that has one open goes on with
    the newest. Raises :class:`StoreError` where a survey is writing.
    """
    path = str(path)
    report = Report(path)
    before = size_of(path)
    with Store.open(path, write=True) as store:
        store.fold()
        for number, name in enumerate(TABLES):
            if progress is not None:
                progress(f"Compacting {name}", number, len(TABLES))
            table = store._tables[name]
            table.refresh()
            with _clear_errors(table.path):
                table.dataset.optimize.compact_files(num_threads=1)
                if name == "pictures" and table.dataset.describe_indices():
                    table.dataset.optimize.optimize_indices()
            _clean(table)
        report.facts |= {"units": len(store.ledger()), "pictures": len(store)}
    report.facts |= {"before": before, "after": size_of(path)}
    return report


def _clean(table: Table) -> None:
    table.refresh()
    with contextlib.suppress(OSError, ValueError, RuntimeError):  # what stays behind costs room, not truth
        table.dataset.cleanup_old_versions(retain_versions=1, older_than=timedelta(0), delete_unverified=True)


def size_of(path: str) -> dict[str, int]:
    """Bytes and files of a local store; nothing of a remote one."""
    if "://" in path:
        return {}
    files = [file for file in Path(path).rglob("*") if file.is_file()]
    return {"files": len(files), "bytes": sum(file.stat().st_size for file in files)}
