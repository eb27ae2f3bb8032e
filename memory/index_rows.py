"""The vectors behind the index: rows that are only ever appended, and the id that each one stands under.

A row's number never changes, so whatever is made of rows (clusters, codes, a copy on a GPU) names them by number, and may
be made beside readers and writers: what it reads stays as it is. An id that is given a new vector gets a new row; the old
one is dead, and is left out when rows are copied. Rows lie in memory while they are few, then in an unnamed
file that the system keeps in memory as far as it can; those of a snapshot stay in the snapshot's file.

Not safe by itself while it is changed; reading beside one that appends is safe. Knows nothing of searching.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from io import BufferedRandom
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt

from memedit.memory.snapshot import Sink

Ids = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]
Kept = npt.NDArray[np.float16 | np.float32]

IN_MEMORY_BYTES = 64 << 20
"""With more than this, appended rows move to a file."""

BLOCK = 32_768
"""Rows that are looked at together where all are."""

_ROOM = 1_024


class Rows:
    """Vectors by row number.

    Args:
        dimension: Length of a vector.
        half: Whether vectors are kept as float16, which takes half the space and moves a cosine by about 0.0001.
        folder: Where a file for many rows may be made; None for the system's temporary folder.

    Attributes:
        dimension: Length of a vector.
        half: As given.
        count: How many rows there are, dead ones included.
        live: How many ids there are.
    """

    def __init__(self, dimension: int, *, half: bool = False, folder: Path | None = None) -> None:
        self.dimension = dimension
        self.half = half
        self.count = 0
        self.live = 0
        self._dtype = np.dtype("<f2" if half else "<f4")
        self._folder = folder
        self._base: Kept = np.empty((0, dimension), self._dtype)
        """The rows of a snapshot, which nothing changes."""
        self._tail: Kept = np.empty((0, dimension), self._dtype)
        """Those appended since, with room for more."""
        self._file: BufferedRandom | None = None
        self._ids: Ids = np.empty(0, np.int64)
        self._places = _Places()

    def rows_of(self, ids: Ids) -> Ids:
        """The row of each id; -1 where there is none."""
        return self._places.get(ids)

    def ids_of(self, rows: Ids) -> Ids:
        """The id of each row; -1 for a dead row, and for row -1."""
        if not self.count:
            return np.full(rows.shape, -1, np.int64)
        return np.where(rows >= 0, self._ids[rows], -1)

    def live_rows(self) -> Ids:
        """The rows that are not dead, ascending."""
        return np.flatnonzero(self._ids[: self.count] >= 0)

    def append(self, ids: Ids, vectors: Vectors) -> Ids:
        """Put vectors in under ids, each one once; what was there under them dies.

        Returns:
            Their rows.

        Raises:
            OSError: There is no room on the disk; nothing was put in.
        """
        rows = np.arange(self.count, self.count + len(ids))
        self._write(vectors.astype(self._dtype))
        if self.count + len(ids) > len(self._ids):
            room = max(_ROOM, len(ids), len(self._ids) // 2)
            self._ids = np.concatenate([self._ids[: self.count], np.full(room, -1, np.int64)])
        self.remove(ids)
        self._ids[rows] = ids
        self._places.set(ids, rows)
        self.count += len(ids)
        self.live += len(ids)
        return rows

    def remove(self, ids: Ids) -> Ids:
        """Take ids out; returns the rows that have died."""
        rows = self._places.get(ids)
        dead = np.unique(rows[rows >= 0])
        self._places.set(ids, np.full(len(ids), -1, np.int64))
        self._ids[dead] = -1
        self.live -= len(dead)
        return dead

    def take(self, rows: Ids) -> Vectors:
        """A copy of rows: float32 [len(rows), dimension]."""
        base, tail = self._base, self._tail
        if not len(base):
            return tail[rows].astype(np.float32)
        if not len(tail):
            return base[rows].astype(np.float32)
        taken = np.empty((len(rows), self.dimension), np.float32)
        old = rows < len(base)
        taken[old] = base[rows[old]]
        taken[~old] = tail[rows[~old] - len(base)]
        return taken

    def blocks(self, rows: Ids) -> Iterator[tuple[Ids, Vectors]]:
        """Rows, and copies of them, a block at a time."""
        for start in range(0, len(rows), BLOCK):
            some = rows[start : start + BLOCK]
            yield some, self.take(some)

    def copy(self, ids: Ids, rows: Ids) -> Rows:
        """Rows of their own that hold `rows` of these, numbered anew, under `ids`."""
        made = Rows(self.dimension, half=self.half, folder=self._folder)
        for start, (some, vectors) in zip(range(0, len(rows), BLOCK), self.blocks(rows), strict=True):
            made.append(ids[start : start + len(some)], vectors)
        return made

    def write(self, sink: Sink, ids: Ids) -> None:
        """Write the first len(ids) rows, ids first, for `mapped` to find again; of dead ones only that they are dead.

        Args:
            sink: Where they are written, to a place that is a multiple of 8.
            ids: What `ids_of` said of them at the moment that is to be written.
        """
        sink.write(ids.astype("<i8").tobytes())
        for rows, vectors in self.blocks(np.arange(len(ids))):
            vectors[ids[rows] < 0] = 0  # what was taken out may have been erased for good
            sink.write(vectors.astype(self._dtype).tobytes())

    @classmethod
    def mapped(cls, file: BinaryIO, count: int, dimension: int, *, half: bool, folder: Path | None) -> Rows:
        """Rows that were written to a file, numbered from 0; their vectors stay in the file, mapped into memory.

        Args:
            file: Stands where `write` began to write, and then behind it. It may be closed later, and another file may
                take its name.
            count: How many rows.
            dimension: Length of a vector.
            half: Whether they were written from float16 rows.
            folder: As `Rows` takes it.
        """
        made = cls(dimension, half=half, folder=folder)
        made._ids = np.frombuffer(file.read(8 * count), "<i8").astype(np.int64)
        start = file.tell()
        if count:
            made._base = np.memmap(file, made._dtype, "r", offset=start, shape=(count, dimension))
        file.seek(start + made._dtype.itemsize * count * dimension)
        live = np.flatnonzero(made._ids >= 0)
        made._places.set(made._ids[live], live)
        made.count, made.live = count, len(live)
        return made

    def _write(self, vectors: Kept) -> None:
        start = self.count - len(self._base)
        end = start + len(vectors)
        width = self.dimension * self._dtype.itemsize
        if self._file is None and end * width > IN_MEMORY_BYTES:
            self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115
            self._file.write(self._tail[:start].tobytes())
            self._tail = self._tail[:0]
        if self._file is not None:
            # Written, not mapped for writing: where the disk is full this raises, and touching a page would kill.
            self._file.seek(start * width)
            self._file.write(vectors.tobytes())
            self._file.flush()
            if end > len(self._tail):
                room = end + end // 4
                self._file.truncate(room * width)
                self._tail = np.memmap(self._file, self._dtype, "r", shape=(room, self.dimension))
            return
        if end > len(self._tail):
            grown = np.empty((max(_ROOM, end + end // 2), self.dimension), self._dtype)
            grown[:start] = self._tail[:start]
            self._tail = grown
        self._tail[start:end] = vectors


class _Places:
    """From ids to rows: an array where ids are dense, as a memory's are, and a dict for those far beyond."""

    def __init__(self) -> None:
        self._near: Ids = np.full(_ROOM, -1, np.int64)
        self._far: dict[int, int] = {}
        self._count = 0

    def get(self, ids: Ids) -> Ids:
        near = ids < len(self._near)
        rows = np.where(near & (ids >= 0), self._near[np.where(near & (ids >= 0), ids, 0)], -1)
        if self._far and len(ids):
            for place in np.flatnonzero(rows < 0):
                rows[place] = self._far.get(int(ids[place]), -1)
        return rows

    def set(self, ids: Ids, rows: Ids) -> None:
        if not len(ids):
            return
        self._count += len(ids)
        top = int(ids.max())
        if len(self._near) <= top < 8 * (self._count + _ROOM):
            grown = np.full(top + 1 + top // 4, -1, np.int64)
            grown[: len(self._near)] = self._near
            self._near = grown
        near = (ids >= 0) & (ids < len(self._near))
        self._near[ids[near]] = rows[near]
        for number, row in zip(ids[~near].tolist(), rows[~near].tolist(), strict=True):
            if row >= 0:
                self._far[number] = row
            else:
                self._far.pop(number, None)
        if self._far:
            for number in ids[near].tolist():
                self._far.pop(number, None)
