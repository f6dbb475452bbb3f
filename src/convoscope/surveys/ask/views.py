"""The questions that a store answers; each is one function in a file of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from ..store.store import Store
    from .maps import EmbeddingMap
    from .neighbors import Depth, Neighbors
    from .patch import Patches
    from .tables import Mistakes, Units
    from .why import Why


def _store(views: Any) -> Store:
    return views  # type: ignore[no-any-return]


class Views:
    """What :class:`convoscope.surveys.Store` adds to the tables themselves."""

    def neighbors(
        self,
        image: Any = None,
        *,
        id: str | None = None,
        k: int = 10,
        layer: str | None = None,
        metric: Literal["cosine", "l2"] = "cosine",
        pixels: bool = False,
    ) -> Neighbors:
        """The pictures that the network finds most alike: :func:`convoscope.surveys.ask.neighbors.neighbors`."""
        from .neighbors import neighbors

        return neighbors(_store(self), image, id=id, k=k, layer=layer, metric=metric, pixels=pixels)

    def strongest(
        self, target: Any, k: int = 10, *, progress: Callable[[str, int, int], None] | None = None
    ) -> Neighbors:
        """The pictures with most of a target: :func:`convoscope.surveys.ask.strongest.strongest`."""
        from .strongest import strongest

        return strongest(_store(self), target, k, progress)

    def depth(self, image: Any = None, *, id: str | None = None, k: int = 10) -> Depth:
        """The neighbours of one picture layer by layer: :func:`convoscope.surveys.ask.neighbors.depth`."""
        from .neighbors import depth

        return depth(_store(self), image, id=id, k=k)

    def why(self, first: Any, second: Any, layer: str | None = None) -> Why:
        """Why two pictures are alike, by channels and places: :func:`convoscope.surveys.ask.why.why`."""
        from .why import why

        return why(_store(self), first, second, layer)

    def map(
        self,
        method: Literal["tsne", "umap", "pca"] = "tsne",
        layer: str | None = None,
        *,
        place: Sequence[Any] = (),
        seed: int = 0,
        fresh: bool = False,
        progress: Callable[[str, int, int], None] | None = None,
        **settings: Any,
    ) -> EmbeddingMap:
        """How the network arranges the whole collection: :func:`convoscope.surveys.ask.maps.make_map`."""
        from .maps import make_map

        return make_map(
            _store(self), method, layer, place=place, seed=seed, fresh=fresh, progress=progress, **settings
        )

    def patches(self, unit: str, k: int | None = None, *, guided: bool = True) -> Patches:
        """What a hidden unit fires for: :func:`convoscope.surveys.ask.patches.patches`."""
        from .patches import patches

        return patches(_store(self), unit, k, guided=guided)

    def units(self, layer: str | None = None) -> Units:
        """A table of the hidden units: :func:`convoscope.surveys.ask.tables.units`."""
        from .tables import units

        return units(_store(self), layer)

    def mistakes(self, k: int = 9) -> Mistakes:
        """Where the network is wrong: :func:`convoscope.surveys.ask.tables.mistakes`."""
        from .tables import mistakes

        return mistakes(_store(self), k)
