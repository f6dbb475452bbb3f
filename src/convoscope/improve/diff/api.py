"""``diff``: two or more networks on the same pictures."""

from __future__ import annotations

import string
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from ...errors import UsageError
from ...models.model import Model
from ...models.opening import open_model
from ..collection import Labelled
from ..statistics import share
from .announce import findings
from .calibration import calibration, drift
from .compare import Comparison, compare
from .maps import flips, unit_patches
from .result import Diff, Pair
from .run import along
from .sides import Side, joined, layers_of, look_all, of_store
from .similarity import cka
from .units import compare_units, leading

#: fewer pictures tell nothing: of 30, a difference of 20 points is still likely to be chance
FEWEST = 30
Tell = Callable[[str, int, int], None]


def diff(
    a: Any,
    b: Any,
    *more: Any,
    truth: Any = None,
    names: Sequence[str] | None = None,
    options: Sequence[str] | None = None,
    maps: int = 8,
    units: int = 6,
    layers: int | None = None,
    film: str | Path | None = None,
    progress: Tell | None = None,
    seed: int = 0,
) -> Diff:
    """Compare networks on the same pictures: ``diff(before, after, pictures)``.

    Args:
        a: a network (a spec, an ``nn.Module``, a :class:`~convoscope.Model`), or the :class:`~convoscope.Store` of a
            survey.
        b: another.
        more: further networks, then the pictures: a folder, files, pairs of a picture and a label, a store. Where all
            are stores, they hold the pictures themselves and are joined by what the files contain.
        truth: a CSV file or a mapping of file to label, where folder names are not the labels.
        names: what to call the networks.
        options: for each network the flags that open it, for the commands that findings name.
        maps: flipped pictures shown with both networks' maps.
        units: new and lost units shown with their top patches.
        layers: layers of each network that are compared at most.
        film: a ``.webp`` file for the course of several checkpoints.
        progress: called with what is done, how much, and of how much.
        seed: of everything random (bootstrap, clusters).

    Returns:
        the comparison: accuracy with intervals, flips, McNemar's test in all, by class and by slice, corrected
        (Benjamini & Hochberg 1995), calibration, debiased CKA (Nguyen et al. 2021), new and lost units, findings.

    Raises:
        UsageError: fewer than two networks, fewer than 30 pictures, or surveys without a picture in common.
        ModelError: a network that cannot run on these pictures.
        PictureError: no picture that can be read.
    """
    networks, pictures = _sorted([a, b, *more])
    sides = _sides(networks, pictures, truth, names, layers, progress)
    for side, flags in zip(sides, options or [""] * len(sides), strict=True):
        side.options = flags
    if len(sides[0]) < FEWEST:
        raise UsageError(
            f"{len(sides[0])} pictures are too few to compare networks: with fewer than {FEWEST} hardly any "
            "difference could be told from chance. Give more pictures."
        )
    _unique(sides)
    notes = [note for side in sides for note in side.notes]
    known = [np.flatnonzero(side.known) for side in sides]
    accuracy = [
        share(int(side.right[rows].sum()), len(rows)) if len(rows) and side.probability is not None else None
        for side, rows in zip(sides, known, strict=True)
    ]
    calibrations = [
        calibration(side.confidence[rows], side.right[rows], seed)
        if len(rows) and side.probability is not None
        else None
        for side, rows in zip(sides, known, strict=True)
    ]
    if not any(len(rows) for rows in known):
        notes.append("No label of these pictures is a class of the networks: what is right and wrong is not known.")
        if all(side.labels is None for side in sides) and any(any(side.pictures.labels) for side in sides):
            notes.append("They have no class names: add --labels FILE, a name a line in the order of the outputs.")
    chosen = [(i, i + 1) for i in range(len(sides) - 1)]
    if len(sides) > 2:
        chosen.append((0, len(sides) - 1))
    pairs = []
    for number, (i, j) in enumerate(chosen):
        if progress is not None:
            progress("Comparing", number, len(chosen))
        # of a long run only the way from the first to the last is shown in pictures
        shown = len(sides) <= 3 or number == len(chosen) - 1
        pairs.append(
            _pair(sides, i, j, _where(pictures, networks), maps if shown else 0, units if shown else 0, seed)
        )
    failed = {uri: why for side in sides for uri, why in side.failed.items()}
    run = along(sides) if len(sides) > 2 else None
    made = Diff(sides, calibrations, accuracy, pairs, run, failed, notes)
    if film is not None:
        from .film import film_of

        made.film = str(film_of(made, film, progress))
    return made


def _sorted(given: list[Any]) -> tuple[list[Any], Any]:
    """The networks or stores, and the pictures (None where the stores hold them)."""
    if all(_is_store(one) for one in given):
        if len(given) < 2:
            raise UsageError("Two surveys at least are compared.")
        return given, None
    if len(given) < 3:
        raise UsageError("Give two networks and the pictures: diff(a, b, pictures); only surveys hold their own.")
    if isinstance(given[-1], (Model, nn.Module)):
        raise UsageError("The last argument is the pictures, not a network: diff(a, b, pictures).")
    return given[:-1], given[-1]


def _is_store(one: Any) -> bool:
    if hasattr(one, "ledger") and hasattr(one, "recipe"):
        return True
    return isinstance(one, (str, Path)) and Path(one, "units.lance").is_dir()


def _sides(
    networks: list[Any],
    pictures: Any,
    truth: Any,
    names: Sequence[str] | None,
    layers: int | None,
    progress: Tell | None,
) -> list[Side]:
    if names is not None and len(names) != len(networks):
        raise UsageError(f"There are {len(networks)} networks and {len(names)} names.")
    if pictures is None:
        from ...surveys.store.store import Store

        opened = [one if hasattr(one, "ledger") else Store.open(one) for one in networks]
        given: list[str | None] = list(names) if names else [None] * len(opened)
        return joined([of_store(one, truth, name) for one, name in zip(opened, given, strict=True)])
    wrong = next((one for one in networks if _is_store(one)), None)
    if wrong is not None:
        raise UsageError("Surveys and networks cannot be mixed: give two networks and the pictures, or two surveys.")
    models = [one if isinstance(one, Model) else open_model(one) for one in networks]
    labelled = Labelled.of(pictures, models[0], truth)
    if len(labelled) < FEWEST:
        raise UsageError(
            f"{len(labelled)} pictures are too few to compare networks: with fewer than {FEWEST} hardly any "
            "difference could be told from chance. Give more pictures."
        )
    asked = [layers_of(model) if layers is None else layers_of(model, layers) for model in models]
    tell = None if progress is None else lambda done, total: progress("Looking at pictures", done, total)
    return look_all(models, labelled, asked, list(names) if names else called(models), tell)


def called(models: Sequence[Model]) -> list[str]:
    """A name for each network that tells it from the others: by its weights' file, else by a letter."""
    names = [model.name for model in models]
    if len(set(names)) == len(names):
        return names
    stems = [Path(model.weights).stem if model.weights else "" for model in models]
    if len(set(stems)) == len(stems) and all(stems):
        return stems if len(set(names)) == 1 else [f"{a} {b}" for a, b in zip(names, stems, strict=True)]
    letters = string.ascii_uppercase
    return [f"{name} {letters[i % 26]}{i // 26 or ''}" for i, name in enumerate(names)]


def _unique(sides: list[Side]) -> None:
    names = [side.name for side in sides]
    for place, side in enumerate(sides):
        if names.count(side.name) > 1:
            side.name = f"{names[place]} {string.ascii_uppercase[place % 26]}{place // 26 or ''}"


def _where(pictures: Any, networks: list[Any]) -> str:
    """How a command line names the pictures."""
    if pictures is None:
        one = networks[-1]
        return str(getattr(one, "path", one))
    return str(pictures) if isinstance(pictures, (str, Path)) else "PICTURES"


def _pair(sides: list[Side], i: int, j: int, where: str, maps: int, units: int, seed: int) -> Pair:
    a, b = sides[i], sides[j]
    compared = compare(a, b, seed)
    moved = None
    if len(compared.known):
        rows = compared.known
        moved = drift((a.confidence[rows], a.right[rows]), (b.confidence[rows], b.right[rows]), seed)
    names = (list(a.layers), list(b.layers))
    alike = cka(list(a.layers.values()), list(b.layers.values())) if all(names) else np.zeros((0, 0))
    found = compare_units(a, b, alike)
    pair = Pair(
        i, j, compared, moved, names, alike, found, findings(a, b, compared, moved, where),
        difference=None if compared.whole is None else compared.whole.difference(seed),
    )  # fmt: skip
    pair.flips, said = flips(a, b, _shown(compared, a, b, maps))
    compared.notes += said
    pair.new = unit_patches(b, leading(found.new, units))
    pair.lost = unit_patches(a, leading(found.lost, units))
    return pair


def _shown(compared: Comparison, a: Side, b: Side, most: int) -> list[tuple[int, str]]:
    """The flipped pictures that are shown: more lost than won, the surest first; without truth the changed ones."""
    if most < 1:
        return []
    if compared.whole is None:
        if compared.churn is None:
            return []
        sure = np.minimum(a.confidence, b.confidence)[compared.churned]
        return [(int(compared.churned[i]), "changed") for i in np.argsort(-sure, kind="stable")[:most]]
    lost, won = (
        [(int(rows[i]), kind) for i in np.argsort(-side.confidence[rows], kind="stable")]
        for rows, kind, side in ((compared.whole.lost, "lost", b), (compared.whole.won, "won", a))
    )
    few = min(len(won), max(most - len(lost), most // 3))
    return [*lost[: most - few], *won[:few]]
