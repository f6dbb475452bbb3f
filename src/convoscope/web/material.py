"""The pictures that the third question is asked of, and how the page names them: by the beginning of their content."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import UsageError

if TYPE_CHECKING:
    from .state import AppState


class Names:
    """URI -> picture id, for documents that know pictures by where they lie.

    A URI is looked up as it stands, then as a path of this machine, then by folder and name, where that is unique.
    """

    def __init__(self, known: Mapping[str, str]) -> None:
        self._known = dict(known)
        self._paths = {_path(uri): id for uri, id in known.items()}
        self._tails: dict[str, str | None] = {}
        for uri, id in known.items():
            tail = _tail(uri)
            self._tails[tail] = id if self._tails.get(tail, id) == id else None

    def id(self, uri: str) -> str | None:
        """The id; None for a picture that the page does not show."""
        return self._known.get(uri) or self._paths.get(_path(uri)) or self._tails.get(_tail(uri))

    def one(self, uri: str) -> dict[str, Any]:
        """The picture as the page knows it: its id and its file's name."""
        return {"id": self.id(uri), "name": uri.replace("\\", "/").rsplit("/", 1)[-1]}

    def all(self, uris: Iterable[str]) -> list[dict[str, Any]]:
        """Several of them; those that the page does not show have no id."""
        return [self.one(str(uri)) for uri in uris]


def _path(uri: str) -> str:
    return uri if "://" in uri else os.path.normpath(os.path.abspath(uri))


def _tail(uri: str) -> str:
    return "/".join(uri.replace("\\", "/").split("/")[-2:])


def names_of(app_state: AppState) -> Names:
    """The names of all pictures of the folder and of the collection."""
    key = f"names-{app_state.survey_stamp}-{len(app_state.album.entries())}"
    found = app_state.cache.get(key)
    if found is None:
        known = {str(one.path): one.id for one in app_state.album.entries() if one.path is not None}
        gathered = app_state.gathered
        if gathered is not None:
            for id, row in gathered.rows.items():
                known[gathered.store.uri(row["sha256"], row["uri"])] = id
                known[str(row["uri"])] = id
        found = Names(known)
        app_state.cache.put(key, found, 400 * len(known) + 1000)
    return found  # type: ignore[no-any-return]


def pictures_of(app_state: AppState) -> Any:
    """What the third question is asked of: the surveyed collection where it has labels, else the folder.

    Raises :class:`UsageError` where there is neither.
    """
    gathered = app_state.gathered
    if gathered is not None and any(row["label"] is not None for row in gathered.rows.values()):
        return gathered.store
    if app_state.album.folder is not None:
        return str(app_state.album.folder)
    if gathered is not None:
        return gathered.store
    raise UsageError("There are no pictures to examine: start the page with --images FOLDER or --survey STORE.")


def words_of(app_state: AppState) -> tuple[str, str]:
    """How the next commands name the network and the pictures."""
    found = pictures_of(app_state)
    place = str(found if isinstance(found, str) else found.path)
    near = os.path.relpath(place) if "://" not in place else place
    return app_state.title or app_state.model.name, place if near.startswith("..") else near


def command(app_state: AppState, name: str, *more: str) -> str:
    """A command about this network and these pictures, to be pasted into a shell."""
    words = [*words_of(app_state), *more, *app_state.flags]
    return " ".join(["convoscope", name, *(shlex.quote(word) for word in words)])


def truth_folder(app_state: AppState) -> Path | None:
    """The folder of labelled parts beside the pictures (as ``convoscope toybox`` writes them); None without one."""
    folder = app_state.album.folder
    if folder is not None and (folder / "truth.json").is_file() and (folder / "parts").is_dir():
        return folder
    return None
