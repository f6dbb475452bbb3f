"""The table of pictures: one row a picture, computed or failed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from ..gather.decode import Decoded
from ..gather.shards import key_of
from .recipe import Recipe

if TYPE_CHECKING:
    import pyarrow as pa

    from ...models.model import Model

#: the largest magnitude that float16 holds
_LARGEST = 65504.0


def schema(recipe: Recipe) -> pa.Schema:
    """Columns of the table of pictures. Embeddings are float16, null where the picture failed."""
    import pyarrow as pa

    fields = [
        ("sha256", pa.string()),
        ("key", pa.uint64()),
        ("unit", pa.string()),
        ("uri", pa.string()),
        ("label", pa.string()),
        ("label_index", pa.int32()),
        ("prediction", pa.string()),
        ("prediction_index", pa.int32()),
        ("score", pa.float32()),
        ("probability", pa.float32()),
        ("top5_index", pa.list_(pa.int32())),
        ("top5_probability", pa.list_(pa.float32())),
        ("loss", pa.float32()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("bytes", pa.int64()),
        ("phash", pa.uint64()),
        ("thumbnail", pa.binary()),
        ("error", pa.string()),
        ("digest", pa.binary()),
    ]
    fields += [(e.column, pa.list_(pa.float16(), e.size)) for e in recipe.embeddings]
    return pa.schema(fields)


def _identity(one: Decoded) -> dict[str, Any]:
    item = one.item
    return {
        "sha256": item.sha256,
        "key": key_of(item.sha256),
        "uri": item.uri,
        "label": item.label,
        "label_index": item.label_index,
    }


def failed(one: Decoded) -> dict[str, Any]:
    """The row of a picture that could not be read: its error, and no vector."""
    return {**_identity(one), "error": one.error}


def computed(
    one: Decoded, scores: Tensor | None, vectors: Sequence[NDArray[np.float32]], recipe: Recipe, model: Model
) -> dict[str, Any]:
    """The row of a picture that went through the network."""
    row = _identity(one)
    row |= {
        "width": one.width,
        "height": one.height,
        "bytes": one.size,
        "phash": one.phash,
        "thumbnail": one.thumbnail,
        "error": None,
    }
    broken = [e.layer for e, v in zip(recipe.embeddings, vectors, strict=True) if not np.isfinite(v).all()]
    if broken:
        row["error"] = f"{one.item.uri}: the network gives NaN or infinite values at {broken[0]} for this picture."
        return row
    for embedding, vector in zip(recipe.embeddings, vectors, strict=True):
        # beyond float16's range the largest value it holds stands, which keeps the direction nearly
        row[embedding.column] = np.clip(vector, -_LARGEST, _LARGEST).astype(np.float16)
    if scores is not None:
        row |= _prediction(scores, one.item.label_index, model)
    return row


def _prediction(scores: Tensor, truth: int | None, model: Model) -> dict[str, Any]:
    scores, shares = scores
    classes = len(scores)
    best = shares.topk(min(5, classes))
    first = int(best.indices[0])
    loss = None
    if truth is not None and truth < classes and classes > 1:
        loss = float(-shares[truth].clamp(min=1e-30).log())
    return {
        "prediction": model.label(first),
        "prediction_index": first,
        "score": float(scores[first]),
        "probability": float(best.values[0]),
        "top5_index": best.indices.tolist(),
        "top5_probability": best.values.tolist(),
        "loss": loss,
    }


def table(recipe: Recipe, unit: str, rows: Sequence[dict[str, Any]]) -> pa.Table:
    """The rows of a unit, in the order of their content."""
    import pyarrow as pa

    shape = schema(recipe)
    ordered = sorted(rows, key=lambda row: str(row["sha256"]))
    columns = []
    for field in shape:
        if field.name == "unit":
            columns.append(pa.array([unit] * len(ordered), field.type))
        elif field.name.startswith("embedding_"):
            columns.append(_vectors([row.get(field.name) for row in ordered], field.type))
        else:
            columns.append(pa.array([row.get(field.name) for row in ordered], field.type))
    from .digests import with_digests

    return with_digests(pa.Table.from_arrays(columns, schema=shape))


def _vectors(vectors: Sequence[Any], kind: Any) -> Any:
    import pyarrow as pa

    size = kind.list_size
    flat = np.zeros((len(vectors), size), np.float16)
    missing = np.zeros(len(vectors), bool)
    for index, vector in enumerate(vectors):
        if vector is None:
            missing[index] = True
        else:
            flat[index] = vector
    values = pa.array(flat.reshape(-1), pa.float16())
    return pa.FixedSizeListArray.from_arrays(values, size, mask=pa.array(missing))
