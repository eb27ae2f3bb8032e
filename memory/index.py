"""The vector index: unit vectors by 64-bit id, searched by cosine. Exact while small, clustered (IVF) as it grows.

Knows nothing of facts, namespaces or texts, and is only a cache of the log: a file that is missing, torn or behind
is rebuilt by its owner. FAISS must not search an index while it is changed, so writers are alone and readers are
together. FAISS's threads do not survive a fork: start worker processes with "spawn".
"""

from __future__ import annotations

import json
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import numpy as np

from memedit.memory.backends import Backend, Change, Clustered, Exact, Ids, Mask, Vectors
from memedit.memory.snapshot import CorruptIndex as CorruptIndex
from memedit.memory.snapshot import Sink, read_snapshot, write_snapshot

EXACT_LIMIT = 50_000
"""Most vectors that are searched exhaustively: about 4 ms a query at 384 dimensions on one core."""

_FORMAT = 1


class VectorIndex:
    """Unit vectors by id, for inner-product search; safe to use from several threads.

    Above `exact_limit` vectors, and again whenever they have doubled since, clusters are trained in a thread
    of their own while reads and writes go on, and swapped in when ready.

    Args:
        dimension: Length of a vector.
        exact_limit: Most vectors that are searched exhaustively.

    Example:
        >>> index = VectorIndex(2)
        >>> index.add(np.array([7, 8]), np.array([[1, 0], [0, 1]], dtype=np.float32))
        >>> scores, ids = index.search(np.array([[0.6, 0.8]], dtype=np.float32), 3)
        >>> ids.tolist()
        [[8, 7, -1]]
    """

    def __init__(self, dimension: int, *, exact_limit: int = EXACT_LIMIT) -> None:
        self.dimension = dimension
        self.exact_limit = exact_limit
        self._lock = _ReadWriteLock()
        self._backend: Backend = Exact.empty(dimension)
        self._builder: threading.Thread | None = None
        self._missed: deque[Change] = deque()
        """Changes made since the builder was started, which what it builds has yet to see."""

    def __len__(self) -> int:
        return len(self._backend)

    @property
    def exact(self) -> bool:
        """Whether an unmasked search compares the query with every vector."""
        return isinstance(self._backend, Exact)

    def add(self, ids: Ids, vectors: Vectors) -> None:
        """Put vectors in; an id that is there already gets the new vector.

        Args:
            ids: int64 [n], not negative, each one once.
            vectors: float32 [n, dimension], rows of length 1.

        Raises:
            ValueError: The shapes do not match, or an id is negative or given twice.
        """
        ids = np.ascontiguousarray(ids, dtype=np.int64)
        vectors = self._matrix(vectors)
        if ids.shape != (len(vectors),):
            raise ValueError(f"{len(vectors)} vectors need as many ids, but the ids have the shape {ids.shape}.")
        if len(ids) and (ids.min() < 0 or len(np.unique(ids)) < len(ids)):
            raise ValueError("Ids must not be negative and each must be given once.")
        self._change(Change(ids, vectors))

    def remove(self, ids: Ids) -> None:
        """Take vectors out; ids that are not there are passed over.

        Args:
            ids: int64 [n].
        """
        self._change(Change(np.ascontiguousarray(ids, dtype=np.int64), None))

    def search(self, queries: Vectors, k: int, *, within: Ids | None = None) -> tuple[Vectors, Ids]:
        """The nearest vectors of each query, best first; equal scores by ascending id.

        Args:
            queries: float32 [q, dimension], rows of length 1.
            k: How many to find for each, at least 1.
            within: int64 [m]; only these ids are considered. A mask of up to 10,000 ids is searched exhaustively
                whatever the size of the index.

        Returns:
            Scores (inner products) float32 [q, k] and ids int64 [q, k]. Where there are fewer than k, the rest is
            padded with -inf and -1.

        Raises:
            ValueError: The shape of `queries` is wrong, or k is less than 1.
        """
        queries = self._matrix(queries)
        if k < 1:
            raise ValueError(f"k must be at least 1, not {k}.")
        mask = None if within is None else Mask.of(np.asarray(within, dtype=np.int64))
        if not len(queries) or (mask is not None and not mask.size):
            return np.full((len(queries), k), -np.inf, np.float32), np.full((len(queries), k), -1, np.int64)
        with self._lock.read():
            scores, ids = self._backend.search(queries, k, mask)
        scores[ids < 0] = -np.inf
        order = np.lexsort((ids, -scores))
        return np.take_along_axis(scores, order, axis=1), np.take_along_axis(ids, order, axis=1)

    def wait(self) -> None:
        """Return when no clusters are being built."""
        while (builder := self._running()) is not None:
            builder.join()

    def save(self, path: str | Path, *, generation: int, fingerprint: str) -> None:
        """Write a snapshot that is there whole or not at all, on disk before this returns.

        Waits for clusters that are being built; writers wait while the vectors are copied out.

        Args:
            path: The file; it is replaced in one step.
            generation: The log position the index stands at.
            fingerprint: What the vectors were made from (embedder, database); `load` hands it back.

        Raises:
            OSError: The folder cannot be written.
        """
        import faiss

        def fill(sink: Sink) -> None:
            with self._lock.read():
                backend = self._backend
                head = {"generation": generation, "fingerprint": fingerprint}
                head |= {"nprobe": backend.nprobe, "outgrown_above": backend.outgrown_above}
                sink.write(json.dumps(head).encode() + b"\n")
                faiss.write_index(backend.index, faiss.PyCallbackIOWriter(sink.write))

        self.wait()
        write_snapshot(Path(path), _FORMAT, fill)

    @classmethod
    def load(cls, path: str | Path, *, exact_limit: int = EXACT_LIMIT) -> tuple[Self, int, str]:
        """Read a snapshot.

        Returns:
            The index, and the generation and fingerprint that it was saved with.

        Raises:
            FileNotFoundError: There is no such file.
            CorruptIndex: The file is not a whole snapshot of this version.
        """
        import faiss

        with read_snapshot(Path(path), _FORMAT) as file:
            head = json.loads(file.readline())
            stored = faiss.read_index(faiss.PyCallbackIOReader(file.read))
        index = cls(int(stored.d), exact_limit=exact_limit)
        probes, limit = head["nprobe"], head["outgrown_above"]
        index._backend = Clustered(stored, nprobe=probes, outgrown_above=limit) if probes else Exact(stored)
        with index._lock.write():
            index._outgrown()
        return index, head["generation"], head["fingerprint"]

    def _matrix(self, rows: Vectors) -> Vectors:
        matrix = np.ascontiguousarray(rows, dtype=np.float32)
        if matrix.ndim != 2 or matrix.shape[1] != self.dimension:
            raise ValueError(f"Vectors must have the shape [n, {self.dimension}], not {list(matrix.shape)}.")
        return matrix

    def _change(self, change: Change) -> None:
        if not len(change.ids):
            return
        with self._lock.write():
            self._backend.apply(change)
            if self._builder is not None:
                self._missed.append(
                    Change(change.ids.copy(), None if change.vectors is None else change.vectors.copy())
                )
            self._outgrown()

    def _running(self) -> threading.Thread | None:
        with self._lock.read():  # a writer holds the lock from making a builder to starting it
            return self._builder

    def _outgrown(self) -> None:
        """Start building clusters if there are too many vectors for what there is. The caller holds the write lock."""
        if self._builder is None and len(self._backend) > max(self.exact_limit, self._backend.outgrown_above):
            self._builder = threading.Thread(target=self._build, name="memedit-index")
            self._builder.start()

    def _build(self) -> None:
        built = None
        try:
            with self._lock.read():
                ids, vectors = self._backend.export()
            # A change made between the builder's start and this copy is in both; making it again changes nothing.
            built = Clustered.build(ids, vectors)
            del ids, vectors
            while len(self._missed) > 16:  # catch up outside the lock first, so that it is held for a moment only
                built.apply(self._missed.popleft())
        finally:
            with self._lock.write():
                if built is not None:
                    for change in self._missed:
                        built.apply(change)
                    self._backend = built
                self._missed.clear()
                self._builder = None
                if built is not None:
                    self._outgrown()


class _ReadWriteLock:
    """Readers together, writers alone; a waiting writer goes before new readers. Not reentrant."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._readers = 0
        self._waiting = 0
        self._writing = False

    @contextmanager
    def read(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._writing and not self._waiting)
            self._readers += 1
        try:
            yield
        finally:
            with self._changed:
                self._readers -= 1
                self._changed.notify_all()

    @contextmanager
    def write(self) -> Iterator[None]:
        with self._changed:
            self._waiting += 1
            try:
                self._changed.wait_for(lambda: not self._writing and not self._readers)
            finally:
                self._waiting -= 1
            self._writing = True
        try:
            yield
        finally:
            with self._changed:
                self._writing = False
                self._changed.notify_all()
