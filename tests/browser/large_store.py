"""A survey's store of any size, made in seconds: rows are written as a survey writes them, without a network's pass."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def large_store(model: Any, folder: Path, path: Path, count: int, files: bool = True) -> Any:
    """``count`` tiny pictures of known classes, a tenth of them taken for another class.

    ``files`` writes the pictures, so that each can be opened; else only their thumbnails are there.
    """
    from convoscope.surveys.gather.decode import encode
    from convoscope.surveys.gather.shards import key_of
    from convoscope.surveys.gather.work import ShardResult
    from convoscope.surveys.store.accumulators import State
    from convoscope.surveys.store.recipe import make_recipe
    from convoscope.surveys.store.rows import table
    from convoscope.surveys.store.store import Store

    random = np.random.default_rng(7)
    recipe = make_recipe(model, ["layer3.1.relu#2"])
    labels = model.labels
    folder.mkdir(parents=True, exist_ok=True)
    embedding = recipe.embeddings[0]
    centres = random.normal(size=(len(labels), embedding.size))
    thumbnail = encode(Image.new("RGB", (16, 16), (120, 140, 160)))
    rows = []
    for number in range(count):
        label = number % len(labels)
        said = (label + 1) % len(labels) if number % 10 == 3 else label
        name = folder / f"img-{number:06d}.png"
        if files:
            pixels = np.full((12, 12, 3), (number % 256, number // 256 % 256, 40 * label % 256), np.uint8)
            buffer = io.BytesIO()
            Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
            name.write_bytes(buffer.getvalue())
            sha = hashlib.sha256(buffer.getvalue()).hexdigest()
            thumbnail = encode(Image.fromarray(pixels))
        else:
            sha = hashlib.sha256(str(number).encode()).hexdigest()
        chance = float(0.5 + 0.5 * random.random())
        rows.append({
            "sha256": sha, "key": key_of(sha), "uri": str(name), "label": labels[label], "label_index": label,
            "prediction": labels[said], "prediction_index": said, "score": 1.0, "probability": chance,
            "top5_index": [said], "top5_probability": [chance], "loss": float(random.random()), "width": 12,
            "height": 12, "bytes": 100, "phash": number, "thumbnail": thumbnail, "error": None,
            embedding.column: (centres[label] + random.normal(size=embedding.size)).astype(np.float16),
        })  # fmt: skip
    store = Store.create(path, recipe)
    state = State.empty(recipe.channels, recipe.top)
    state.pictures = count
    store.commit(ShardResult("0" * 16, table(recipe, "0" * 16, rows), state, 1.0, 1))
    store.close()
    return Store.open(path)
