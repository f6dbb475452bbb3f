"""Which probes belong to a tensor, through views, in-place operations and writes into views.

Tensors are known by their storage and their layout in it, so that two views of one region always agree. A
view gets its probes when it is made; after an in-place write all of that storage's layouts are stale but
the written one, and the others are read anew from probes written out flat over the storage.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef

from convoscope.engine.fields.probes import EMPTY, PARTS, Probe, compress, empty

Layout = tuple[int, torch.Size, tuple[int, ...]]


@dataclass(frozen=True, eq=False)
class Track:
    """What is known of one tensor: where its elements look, and what it was computed from."""

    rows: Probe
    cols: Probe
    past: int
    """The serial numbers of all operations it depends on, as the bits of an integer."""
    serial: int
    """The operation that made its values; views and copies keep it."""
    head: int | None = None
    """The last weighted operation, if nothing but unary operations and pooling came after it."""
    relu: bool = False
    """Whether the values come straight from a ReLU."""
    through: int = 1
    """The operations that every path from the picture crosses, as bits (a picture's own is 1)."""
    tested: tuple[str, int] | None = None
    """Of a mask or an absolute value: how it was made (``sign`` or ``abs``), and the operation it tells of."""

    def probe(self, axis: int) -> Probe:
        """The probe of the rows (0) or the columns (1)."""
        return self.cols if axis else self.rows

    def places(self, rows: Probe, cols: Probe) -> Track:
        """The same values in another arrangement."""
        return replace(self, rows=rows, cols=cols)


@dataclass
class _Flat:
    """Probes written out over every element of a storage."""

    probes: tuple[Tensor, Tensor]
    past: int
    serial: int
    through: int = -1
    """Of all that was written; -1 (all bits) while everything is constant."""


class _Record:
    """All that is known of one storage."""

    def __init__(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        self.weak = StorageWeakRef(storage)  # type: ignore[no-untyped-call]  # keeps the address from being given to another storage
        self.tracks: dict[Layout, Track | None] = {}
        self.owner: tuple[Layout, Track | None] | None = None
        self.flat: _Flat | None = None


def _layout(tensor: Tensor) -> Layout:
    return int(tensor.storage_offset()), tensor.shape, tensor.stride()


def _elements(tensor: Tensor) -> int:
    return tensor.untyped_storage().nbytes() // tensor.element_size()


def _written_out(tensor: Tensor, layout: Layout, track: Track | None) -> _Flat:
    """``track`` of a layout, flat over the tensor's storage; what is not of the layout is constant."""
    count = _elements(tensor)
    flat = _Flat(
        (
            torch.full((PARTS, count), EMPTY, dtype=torch.float64, device="cpu"),
            torch.full((PARTS, count), EMPTY, dtype=torch.float64, device="cpu"),
        ),
        track.past if track else 0,
        track.serial if track else 0,
        track.through if track else -1,
    )
    if track:
        _write(flat, layout, track)
    return flat


def _region(probe: Tensor, layout: Layout) -> Tensor:
    offset, shape, stride = layout
    return probe.as_strided((PARTS, *shape), (probe.shape[1], *stride), offset)


def _write(flat: _Flat, layout: Layout, track: Track | None) -> None:
    for axis, probe in enumerate(flat.probes):
        region = _region(probe, layout)
        region.copy_((track.probe(axis) if track else empty(region.dim() - 1)).expand(region.shape))


class Memory:
    """The tracks of all tensors alive. None stands for a constant: values that no picture changes."""

    def __init__(self) -> None:
        self.records: dict[int, _Record] = {}
        self.since_sweep = 0

    def knows(self, tensor: Tensor) -> bool:
        """Whether the tensor's storage has been seen before."""
        return tensor.untyped_storage()._cdata in self.records

    def read(self, tensor: Tensor) -> Track | None:
        """The track of a tensor whose storage is known."""
        record = self.records[tensor.untyped_storage()._cdata]
        layout = _layout(tensor)
        if layout in record.tracks:
            return record.tracks[layout]
        if record.flat is None:
            if record.owner is None or record.owner[1] is None:
                return None
            record.flat = _written_out(tensor, *record.owner)
        flat = record.flat
        rows, cols = (compress(_region(probe, layout)) for probe in flat.probes)
        track = Track(rows, cols, flat.past, flat.serial, through=flat.through)
        record.tracks[layout] = track
        return track

    def define(self, tensor: Tensor, track: Track | None) -> None:
        """A new tensor in a storage of its own."""
        self._sweep()
        record = _Record(tensor)
        layout = _layout(tensor)
        record.tracks[layout] = track
        record.owner = (layout, track)
        self.records[tensor.untyped_storage()._cdata] = record

    def alias(self, tensor: Tensor, track: Track | None) -> None:
        """A new view of a known storage."""
        self.records[tensor.untyped_storage()._cdata].tracks[_layout(tensor)] = track

    def write(self, tensor: Tensor, track: Track | None) -> None:
        """New values in a tensor's place; every other layout of the storage becomes stale."""
        record = self.records[tensor.untyped_storage()._cdata]
        layout = _layout(tensor)
        if tensor.numel() == _elements(tensor) or (record.owner is not None and record.owner[0] == layout):
            record.owner, record.flat = (layout, track), None
        else:
            if record.flat is None:
                owner = record.owner or (layout, None)
                record.flat = _written_out(tensor, *owner)
            _write(record.flat, layout, track)
            if track:
                record.flat.past |= track.past
                record.flat.serial = track.serial
                record.flat.through &= track.through
            record.owner = None
        record.tracks = {layout: track}

    def constants(self, tensors: Sequence[Tensor]) -> None:
        """Tensors that were there before the forward."""
        for tensor in tensors:
            if not self.knows(tensor):
                self.define(tensor, None)

    def _sweep(self) -> None:
        self.since_sweep += 1
        if self.since_sweep > 256:
            self.since_sweep = 0
            alive = {k: r for k, r in self.records.items() if not r.weak.expired()}  # type: ignore[no-untyped-call]
            self.records = alive
