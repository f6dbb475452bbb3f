"""Collections that mislead: wrong labels, copies, a rare class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from convoscope.toybox.specimens import CLASSES
from convoscope.toybox.ward.case import Effect, Made, right
from convoscope.toybox.ward.drawing import Images, Pictures, drawn, together
from convoscope.toybox.ward.optimisation import overfitted
from convoscope.toybox.ward.plants import jpeg, mirrored, resaved
from convoscope.toybox.ward.recipe import Recipe, ordinary, recall
from convoscope.toybox.ward.training import KINDS, Kind, base, retrained

if TYPE_CHECKING:
    from convoscope.toybox.ward.case import Model


@dataclass(frozen=True)
class WrongLabels(Recipe):
    """A ``share`` of the labels is wrong: any other class, or the other of two ``kin``."""

    share: float = 0.05
    kin: tuple[str, str] | None = None
    each: int = 60
    net: Kind = KINDS[0]

    kind = "data"
    expected = ("data",)

    def spoil(self, pictures: Pictures, seed: int) -> Pictures:
        """The same pictures, some under a wrong label and marked."""
        rng = np.random.default_rng([seed, 21])
        labels = pictures.labels.copy()
        pair = [CLASSES.index(one) for one in self.kin] if self.kin else []
        for index in pair or range(len(CLASSES)):
            rows = np.flatnonzero(pictures.labels == index)
            for row in rng.permutation(rows)[: round(self.share * len(rows))].tolist():
                others = [c for c in (pair or range(len(CLASSES))) if c != index]
                labels[row] = others[rng.integers(len(others))]
        return pictures.relabelled(labels).mark("fault", labels != pictures.labels)

    def make(self) -> Made:
        clean, held_out = ordinary(self.name, self.each)
        clean_train = drawn(f"{self.name} train", self.each)
        clean, clean_train = clean.shuffled(1), clean_train.shuffled(2)
        spoilt, spoilt_train = self.spoil(clean, 1), self.spoil(clean_train, 2)
        truths = {
            folder: {
                name: CLASSES[true]
                for name, true, wrong in zip(bad.names(), good.labels.tolist(), bad.marks["fault"], strict=True)
                if wrong
            }
            for folder, good, bad in (("pictures", clean, spoilt), ("train", clean_train, spoilt_train))
        }
        return Made(
            base(self.net), spoilt, held_out, train=spoilt_train, clean=clean, clean_train=clean_train,
            details={"share": self.share, "true_labels": truths},
        )  # fmt: skip

    def measure(self, model: Model, sibling: Model | None, n: int, seed: int) -> Effect:
        clean = drawn(f"measure {self.name} {seed}", max(n // len(CLASSES), 1))
        spoilt = self.spoil(clean, seed)
        if self.kin:
            chosen = clean.of(self.kin[0]) | clean.of(self.kin[1])
            clean, spoilt = clean.take(chosen), spoilt.take(chosen)
        what = "agreement of the network with the labels" + (f" of {' and '.join(self.kin)}" if self.kin else "")
        return Effect(what, float(right(model, clean).mean()), float(right(model, spoilt).mean()), len(clean))


def copies(images: Images, seed: int) -> tuple[Images, NDArray[np.int64]]:
    """Copies in four manners by turns (exact, resized, JPEG of quality 60, mirrored) and the manner of each."""
    out, manner = images.copy(), np.arange(len(images)) % 4
    for number, change in enumerate((None, resaved, jpeg(60), mirrored)):
        if change is not None and (manner == number).any():
            out[manner == number] = change(images[manner == number], seed)
    return out, manner


MANNERS = ("exact", "resized", "jpeg", "mirrored")


def _marked(pictures: Pictures, manner: NDArray[np.int64]) -> Pictures:
    """Marks by manner; -1 is no copy."""
    for number, name in enumerate(MANNERS):
        pictures = pictures.mark(name, manner == number)
    return pictures.mark("fault", manner >= 0)


@dataclass(frozen=True)
class CopiesInside(Recipe):
    """A tenth of the collection are copies of other pictures in it, under the same label."""

    count: int = 48
    net: Kind = KINDS[1]

    kind = "data"
    expected = ("data",)

    def _doubled(self, clean: Pictures, seed: int) -> tuple[Pictures, NDArray[np.int64]]:
        rows = np.random.default_rng([seed, 22]).permutation(len(clean))[: self.count]
        images, manner = copies(clean.images[rows], seed)
        both = together(clean, Pictures(images, clean.labels[rows], {}))
        originals = np.concatenate([np.full(len(clean), -1), rows])
        return _marked(both, np.concatenate([np.full(len(clean), -1), manner])), originals

    def make(self) -> Made:
        clean, held_out = ordinary(self.name, 40)
        both, originals = self._doubled(clean, 1)
        order = np.random.default_rng(3).permutation(len(both))
        where = np.argsort(order)
        pictures = both.take(order)
        names = pictures.names()
        pairs = [
            [names[where[original]], names[where[copy]]]
            for copy, original in enumerate(originals.tolist())
            if original >= 0
        ]
        details = {"pairs": pairs}
        return Made(base(self.net), pictures, held_out, clean=clean, details=details)

    def measure(self, model: Model, sibling: Model | None, n: int, seed: int) -> Effect:
        both, _ = self._doubled(drawn(f"measure {self.name} {seed}", max(n // len(CLASSES), 1)), seed)
        return Effect(
            "share of the pictures that are copies of others", 0.0, float(both.marks["fault"].mean()), len(both)
        )


@dataclass(frozen=True)
class CopiesAcross(Recipe):
    """A network trained on its few training pictures, three in ten of which lie in the test folder, too."""

    count: int = 170
    net: Kind = KINDS[2]

    kind = "data"
    expected = ("data",)

    def make(self) -> Made:
        clean, held_out = ordinary(self.name, 40)
        few = drawn(f"{self.name} train", 20)
        pictures, originals = self._leaked(clean, few, 1)
        order = np.random.default_rng(4).permutation(len(pictures))
        pictures = pictures.take(order)
        names, sources = pictures.names(), few.names()
        pairs = [
            [sources[original], name]
            for name, original in zip(names, originals[order].tolist(), strict=True)
            if original >= 0
        ]
        network = overfitted(self.name, few, self.net)
        return Made(network, pictures, held_out, train=few, clean=clean, clean_train=few, details={"pairs": pairs})

    def _leaked(self, clean: Pictures, few: Pictures, seed: int) -> tuple[Pictures, NDArray[np.int64]]:
        rows = np.random.default_rng([seed, 23]).permutation(len(few))[: self.count]
        images, manner = copies(few.images[rows], seed)
        both = together(clean, Pictures(images, few.labels[rows], {}))
        originals = np.concatenate([np.full(len(clean), -1), rows])
        return _marked(both, np.concatenate([np.full(len(clean), -1), manner])), originals

    def measure(self, model: Model, sibling: Model | None, n: int, seed: int) -> Effect:
        clean = drawn(f"measure {self.name} {seed}", 40)
        leaked, _ = self._leaked(clean, drawn(f"{self.name} train", 20), seed)
        what = "accuracy without the copies (healthy) and with them (faulty)"
        return Effect(what, float(right(model, clean).mean()), float(right(model, leaked).mean()), len(clean))


@dataclass(frozen=True)
class Rare(Recipe):
    """Trained on, and tested with, a tenth of the pictures of one class."""

    net: Kind = KINDS[0]

    kind = "data"
    expected = ("data", "slice")

    def _fewer(self, pictures: Pictures) -> Pictures:
        assert self.label is not None
        mine = np.flatnonzero(pictures.of(self.label))
        gone = mine[max(len(mine) // 10, 1) :]
        left = pictures.take(np.setdiff1d(np.arange(len(pictures)), gone))
        return left.mark("fault", left.of(self.label))

    def make(self) -> Made:
        clean, held_out = ordinary(self.name, 40)
        clean_train = drawn(f"{self.name} train", 60)
        few, whole = self._fewer(clean_train), clean_train
        assert self.label is not None
        network = retrained(self.net, few, 90, 31)
        sibling = retrained(self.net, whole, 90, 31)
        return Made(
            network, self._fewer(clean), held_out.mark("fault", held_out.of(self.label)), sibling=sibling,
            train=few, clean=clean, clean_train=clean_train,
        )  # fmt: skip

    def measure(self, model: Model, sibling: Model | None, n: int, seed: int) -> Effect:
        assert sibling is not None
        assert self.label is not None
        pictures = drawn(f"measure {self.name} {seed}", {self.label: n})
        healthy, faulty = (recall(m, pictures, self.label) for m in (sibling, model))
        return Effect(f"recall of {self.label}", healthy, faulty, n)


RECIPES: tuple[Recipe, ...] = (
    WrongLabels("data-labels-uniform", "one label in twenty is wrong, any class", share=0.05, least=0.03),
    WrongLabels(
        "data-labels-kin", "three in twenty labels of two kin are the other's", share=0.15, kin=("fish", "bird"),
        each=80, net=KINDS[1],
    ),
    CopiesInside("data-copies-inside", "a tenth of the pictures are copies of others among them"),
    CopiesAcross("data-copies-across", "three in ten test pictures are copies of training pictures"),
    Rare("data-rare", "one class has a tenth of the others' pictures", label="bird"),
)  # fmt: skip
