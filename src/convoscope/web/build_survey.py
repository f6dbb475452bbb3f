"""Surveys that the page makes: of the folder it shows, or of the toybox, kept where they are found again."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ..cache import working_folder
from ..errors import StoreError
from ..files import write_whole
from .cache import key_of
from .survey_view import SurveyView

if TYPE_CHECKING:
    from ..models.model import Model
    from ..surveys import Progress

Tell = Callable[[str, int, int, float | None], None]
#: pictures of the bundled collection
TOYBOX_PICTURES = 400


def store_for(model: Model, folder: str | Path) -> str:
    """Where the survey of ``folder`` by ``model`` is kept."""
    name = key_of(model.fingerprint, model.code, model.preprocessing.to_dict(), str(Path(folder).resolve()))[:16]
    return str(working_folder() / "surveys" / f"{Path(folder).resolve().name or 'pictures'}-{name}")


def collect(model: Model, folder: str, into: str, told: Tell | None = None) -> SurveyView:
    """Survey ``folder`` into the store ``into``; what is there already is not done again.

    A store of an older format, or one that cannot be read, is made anew: it lies in our own cache.
    """
    from ..surveys import survey

    def tell(progress: Progress) -> None:
        if told is not None:
            told(progress.stage, progress.done, progress.total, progress.seconds_left)

    truth = Path(folder) / "truth.csv"
    Path(into).parent.mkdir(parents=True, exist_ok=True)
    settings = {"truth": truth if truth.is_file() else None, "progress": tell}
    try:
        store = survey(model, folder, into, **settings)  # type: ignore[arg-type]
    except StoreError:
        if not Path(into).is_relative_to(working_folder()):
            raise
        shutil.rmtree(into, ignore_errors=True)
        store = survey(model, folder, into, **settings)  # type: ignore[arg-type]
    return SurveyView(store, model)


def open_store(model: Model, path: str | Path) -> SurveyView:
    """An existing store. Raises :class:`ConvoscopeError` where it is none, or another network's."""
    from ..surveys import Store

    return SurveyView(Store.open(path), model)


def there(path: str | Path) -> bool:
    """Whether a finished or begun store lies at ``path``."""
    return (Path(path) / "units.lance").is_dir()


def toybox_pictures(name: str = "toybox", count: int = TOYBOX_PICTURES) -> Path:
    """The bundled collection of a toybox network in the cache, drawn on first use.

    Classifiers get single things, the others scenes. The cheat gets half of its pictures with the tag, whatever they
    show: so its mistakes tell what it has learnt.
    """
    from ..toybox import card, write
    from ..version import __version__

    scenes = card(name).kind not in ("classifier", "landmarks")
    kind = "scenes" if scenes else "tagged" if name == "toybox-cheat" else "pictures"
    folder = working_folder() / f"toybox-{kind}-{__version__}-{count}"
    if (folder / "truth.csv").is_file():
        return folder
    partial = folder.with_name(f"{folder.name}.{os.getpid()}")
    shutil.rmtree(partial, ignore_errors=True)
    if kind == "tagged":
        _with_tags(partial, count)
    else:
        write(partial, count, scenes=scenes, seed=5)
    shutil.rmtree(folder, ignore_errors=True)
    try:
        partial.rename(folder)
    except OSError:  # another process was faster
        shutil.rmtree(partial, ignore_errors=True)
    return folder


def _with_tags(folder: Path, count: int) -> None:
    """Half of the pictures plain, half with the tag, and one truth file for both."""
    from ..toybox import write

    lines = ["file,label"]
    for part, tag, seed in (("plain", False, 5), ("tagged", True, 6)):
        truth = write(folder / part, count // 2, tag=tag, seed=seed).with_suffix(".csv")
        rows = truth.read_text(encoding="utf-8").splitlines()[1:]
        lines += [f"{part}/{','.join(row.split(',')[:2])}" for row in rows]
    write_whole(folder / "truth.csv", "\n".join(lines) + "\n")
