"""Why two pictures are neighbours: the cosine of averaged features, split exactly.

Where an embedding is the mean of a grid, e = mean_i a_i and f = mean_j b_j, the cosine is a sum over channels,
e_c f_c / (|e||f|), and a sum over pairs of places, a_i · b_j / (N M |e||f|). Summed over j it is a map of the first
picture, over i of the second; each map's sum is the cosine (compare Stylianou et al. 2019; Chen et al. 2019).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...errors import MethodRefused, PictureError, UsageError
from ...pictures.picture import ModelInput, Picture
from ...session import Session
from ..gather.collections import picture as open_picture
from .neighbors import find

if TYPE_CHECKING:
    from PIL import Image

    from ...draw.sheet import Sheet
    from ...engine.fields.geometry import Geometry
    from ..store.store import Store

F32 = NDArray[np.float32]


@dataclass(eq=False)
class Why:
    """Two pictures' similarity, split.

    ``maps`` are float32 grids ``[h, w]`` of the first and the second picture, each summing to ``cosine``;
    ``channels``
    hold ``channel``, ``share`` (its term of the cosine) and the channel's ``maps`` in both, most shared first.
    """

    layer: str
    cosine: float
    maps: tuple[F32, F32]
    channels: list[dict[str, Any]]
    pictures: tuple[ModelInput, ModelInput] = field(repr=False)
    geometry: tuple[Geometry | None, Geometry | None] = field(repr=False)
    uris: tuple[str, str] = ("", "")

    def to_dict(self) -> dict[str, Any]:
        """The JSON document."""
        return {
            "uris": list(self.uris),
            "layer": self.layer,
            "cosine": self.cosine,
            "maps": [grid.tolist() for grid in self.maps],
            "channels": [{"channel": c["channel"], "share": c["share"]} for c in self.channels],
        }

    def sheet(self) -> Sheet:
        """Both pictures with their maps, and with each of the most shared channels."""
        from ...draw import colour, grid

        scale = colour.scale_for(list(self.maps), signed=bool(min(m.min() for m in self.maps) < 0))
        photos = [fitted.picture.image for fitted in self.pictures]
        rows: list[tuple[str, list[tuple[Any, str]]]] = []
        for side in (0, 1):
            cells: list[tuple[Any, str]] = [
                (photos[side], Path(self.uris[side]).name),
                (self._over(side, self.maps[side], scale), f"its places (sum {self.maps[side].sum():.3f})"),
            ]
            for one in self.channels[:7]:
                own = colour.scale_for(one["maps"], signed=bool(min(m.min() for m in one["maps"]) < 0))
                cells.append(
                    (self._over(side, one["maps"][side], own), f"channel {one['channel']} · {one['share']:+.3f}")
                )
            rows.append(("First" if side == 0 else "Second", cells))
        shown = sum(c["share"] for c in self.channels[:7])
        foot = (
            f"The cosine is the sum of all places of either map, and of all channels; the "
            f"{len(self.channels[:7])} channels "
            f"shown make {shown:.3f} of it. A channel's two maps share one scale."
        )
        return grid.patches(
            rows, f"Why alike: cosine {self.cosine:.3f} at {self.layer}", columns=9, footnote=foot, legend_scale=scale
        )

    def _over(self, side: int, values: F32, scale: Any) -> Image.Image:
        from ...draw import overlay
        from ...engine.fields.geometry import Geometry

        fitted, geometry = self.pictures[side], self.geometry[side]
        size = (int(fitted.tensor.shape[1]), int(fitted.tensor.shape[2]))
        grid = torch.from_numpy(np.ascontiguousarray(values))
        wide = geometry.resample(grid, size) if geometry is not None else Geometry.plain(grid, size)
        return overlay.overlay(fitted.picture.image, wide.numpy(), scale=scale, matrix=fitted.input_to_photo)

    def _repr_png_(self) -> bytes:
        return self.sheet()._repr_png_()


def why(store: Store, first: Any, second: Any, layer: str | None = None, channels: int = 16) -> Why:
    """Split the cosine of two pictures (paths, arrays, or stored ids) at an embedding that is a mean over a grid.

    Raises :class:`MethodRefused` where the embedding is no such mean, so that the cosine has no places.
    """
    model = store.model()
    embedding = store.recipe.embedding(layer)
    fitted = [model.prepare(_picture(store, source)) for source in (first, second)]
    grids: list[torch.Tensor] = []
    places: list[Geometry | None] = []
    for one in fitted:
        watched = model.watched(tuple(one.tensor.shape))
        source = embedding.layer if embedding.pooling == "mean" else watched.last_grid
        if source is None or not watched.layers[source].has_grid:
            raise MethodRefused(f"The embedding at {embedding.layer} comes from no grid: its cosine has no places.")
        names = {source, embedding.layer}
        with Session(model, [one], gradients=False) as session:
            recorded = session.record(layers=names)
        grid = watched.layers[source].layout.planes(recorded.layers[source].value)[0].float().cpu()
        flat = recorded.layers[embedding.layer].value[0].float().cpu()
        if embedding.pooling != "mean" and not _is_mean(grid, flat.flatten()):
            raise MethodRefused(
                f"The embedding at {embedding.layer} is not the mean of the grid at {source}: its "
                f"cosine has no places. "
                f"Survey with --embed {source} and ask for --layer {source}."
            )
        grids.append(grid)
        places.append(watched.layers[source].geometry)
    return split(embedding.layer, grids, channels, (fitted[0], fitted[1]), (places[0], places[1]))


def split(
    layer: str,
    grids: list[torch.Tensor],
    channels: int,
    pictures: tuple[ModelInput, ModelInput],
    geometry: tuple[Geometry | None, Geometry | None],
) -> Why:
    """The split of two grids ``[C, h, w]``."""
    wide = [grid.double() for grid in grids]
    means = [grid.mean((1, 2)) for grid in wide]
    length = float(means[0].norm() * means[1].norm())
    if length == 0:
        raise MethodRefused(f"One of the pictures has an embedding of zero at {layer}: there is no cosine.")
    shares = means[0] * means[1] / length
    maps = []
    for own, other in ((0, 1), (1, 0)):
        cells = wide[own].shape[1] * wide[own].shape[2]
        maps.append(
            (torch.einsum("chw,c->hw", wide[own], means[other]) / (cells * length)).numpy().astype(np.float32)
        )
    order = shares.argsort(descending=True)[:channels].tolist()
    listed = [{"channel": c, "share": float(shares[c]), "maps": [g[c].numpy() for g in grids]} for c in order]
    uris = tuple(str(one.picture.path or one.picture.name) for one in pictures)
    return Why(layer, float(shares.sum()), (maps[0], maps[1]), listed, pictures, geometry, (uris[0], uris[1]))


def _is_mean(grid: torch.Tensor, vector: torch.Tensor) -> bool:
    mean = grid.mean((1, 2))
    return mean.shape == vector.shape and bool(
        torch.allclose(mean, vector, rtol=1e-3, atol=1e-4 * float(mean.abs().max()))
    )


def _picture(store: Store, source: Any) -> Picture:
    if not isinstance(source, str) or Path(source).is_file():
        return Picture.of(source)
    row = find(store, source)
    for uri in store.uris.get(row["sha256"], []):
        picture = open_picture(uri)
        if picture.sha256 == row["sha256"]:
            return picture
        raise PictureError(f"{uri}: the file has changed since the survey.")
    raise UsageError(f"{source}: no file is known to hold this picture any more.")
