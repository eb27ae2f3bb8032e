"""The vector index: unit vectors by 64-bit id, searched by cosine. It chooses its structure by its size.

Few vectors are compared with the query one by one; more are clustered (IVF), and of millions compressed codes give a
shortlist that the vectors themselves put in order. Which clusters are looked into, and how long the shortlist is, is
measured when a structure is made. Structures are made in a thread of their own, on rows that never change
(`memedit.memory.index_rows`), while reads and writes go on, and swapped in when ready.

Knows nothing of facts, namespaces or texts, and is only a cache of the log: a file that is missing, torn or behind
is rebuilt by its owner. FAISS must not search an index while it is changed, so writers are alone and readers are
together. FAISS's threads do not survive a fork: start worker processes with "spawn".
"""

from __future__ import annotations

import json
import threading
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple, Self

import numpy as np

from memedit.memory.backends import Backend, Clustered, Exact, Mask, nearest_of
from memedit.memory.cores import at_most
from memedit.memory.index_compressed import Compressed
from memedit.memory.index_rows import Ids, Rows, Vectors
from memedit.memory.locks import ReadWriteLock
from memedit.memory.snapshot import CorruptIndex as CorruptIndex
from memedit.memory.snapshot import Sink, first_line, read_snapshot, write_snapshot

EXACT_LIMIT = 50_000
"""Most vectors that are searched exhaustively: about 4 ms a query at 384 dimensions on one core."""

WHOLE_LIMIT = 400_000
"""Most vectors that clusters hold whole: 300 MB at 384 dimensions as float16."""

_FORMAT = 2
_STEP = 256
_PIECE = 1 << 24


class VectorIndex:
    """Unit vectors by id, for inner-product search; safe to use from several threads.

    Up to `exact_limit` vectors are searched exhaustively, up to `whole_limit` by clusters of whole vectors, more by
    clusters of codes and re-ranking. When vectors have outgrown a structure, or have doubled since it was made, the next
    one is made in the background.

    Args:
        dimension: Length of a vector.
        exact_limit: Most vectors that are searched exhaustively.
        whole_limit: Most vectors that clusters hold whole.
        half: Whether vectors are kept as float16, which takes half the space and moves a score by about 0.0001.
        folder: Where a file for many vectors may be made; None for the system's temporary folder.

    Attributes:
        dimension: As given.
        swap_seconds: How long readers were kept out by the last swap; 0 before the first.

    Example:
        >>> index = VectorIndex(2)
        >>> index.add(np.array([7, 8]), np.array([[1, 0], [0, 1]], dtype=np.float32))
        >>> scores, ids = index.search(np.array([[0.6, 0.8]], dtype=np.float32), 3)
        >>> ids.tolist()
        [[8, 7, -1]]
    """

    def __init__(
        self,
        dimension: int,
        *,
        exact_limit: int = EXACT_LIMIT,
        whole_limit: int = WHOLE_LIMIT,
        half: bool = False,
        folder: Path | None = None,
    ) -> None:
        self.dimension = dimension
        self.exact_limit = exact_limit
        self.whole_limit = whole_limit
        self.swap_seconds = 0.0
        self._rows = Rows(dimension, half=half, folder=folder)
        self._backend: Backend = Exact(dimension)
        self._gate = threading.RLock()
        """Held by whoever changes the index, so that one who only reads what writers change need not keep readers out."""
        self._lock = ReadWriteLock()
        self._building = threading.Lock()
        self._builder: threading.Thread | None = None
        self._missed: deque[_Change] | None = None
        """Changes that what is being built has yet to see; None while nothing is."""

    def __len__(self) -> int:
        return self._rows.live

    @property
    def exact(self) -> bool:
        """Whether an unmasked search compares the query with every vector."""
        return isinstance(self._backend, Exact)

    @property
    def structure(self) -> str:
        """How it is searched, in words: for logs and benchmarks."""
        backend = self._backend
        probes = f", {backend.nprobe} clusters looked into" if backend.nprobe else ""
        return backend.kind + probes + (f", {backend.width} re-ranked" if backend.width else "")

    def add(self, ids: Ids, vectors: Vectors) -> None:
        """Put vectors in; an id that is there already gets the new vector.

        Args:
            ids: int64 [n], not negative, each one once.
            vectors: float32 [n, dimension], rows of length 1.

        Raises:
            ValueError: The shapes do not match, or an id is negative or given twice.
            OSError: There is no room left for a file of many vectors.
        """
        ids, vectors = self._checked(ids, vectors)
        with self._gate:
            for start in range(0, len(ids), _STEP):  # a few at a time: readers wait for each
                self._put(ids[start : start + _STEP], vectors[start : start + _STEP])
            self._grown()

    def fill(self, chunks: Iterable[tuple[Ids, Vectors]]) -> None:
        """Put a great many vectors in and make the structure for all of them once, before this returns.

        Until then searches find what was there before.

        Args:
            chunks: What `add` takes, in parts.

        Raises:
            ValueError, OSError: As `add` does; what came before is put in.
        """
        with self._building:
            try:
                for ids, vectors in chunks:
                    some = self._checked(ids, vectors)
                    with self._gate, self._lock.write():
                        dead = self._rows.rows_of(some[0])
                        self._backend.remove(dead[dead >= 0])
                        self._rows.append(*some)
            finally:
                self._build()

    def remove(self, ids: Ids) -> None:
        """Take vectors out; ids that are not there are passed over.

        Args:
            ids: int64 [n].
        """
        ids = np.unique(np.asarray(ids, dtype=np.int64))
        with self._gate, self._lock.write():
            dead = self._rows.remove(ids)
            self._backend.remove(dead)
            if self._missed is not None and len(ids):
                self._missed.append(_Change(ids, None, dead))
        with self._gate:
            self._grown()

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
        scores, ids = np.full((len(queries), k), -np.inf, np.float32), np.full((len(queries), k), -1, np.int64)
        numbered, mask = self._masked(within)
        with self._lock.read():
            if numbered is not self._rows:  # a swap has come between
                _, mask = self._masked(within)
            if len(queries) and (mask is None or len(mask.rows)):
                scores, rows = self._backend.search(queries, k, mask)
                ids = self._rows.ids_of(rows)
        scores[ids < 0] = -np.inf
        order = np.lexsort((ids, -scores))
        return np.take_along_axis(scores, order, axis=1), np.take_along_axis(ids, order, axis=1)

    def exhaustive(self, queries: Vectors, k: int) -> tuple[Vectors, Ids]:
        """As `search`, by comparing every vector with the query whatever the size: slow, to measure recall by."""
        queries = self._matrix(queries)
        with self._gate:
            rows = self._rows
            live = rows.live_rows()
            numbers = rows.ids_of(live)
        scores, ids = np.full((len(queries), k), -np.inf, np.float32), np.full((len(queries), k), -1, np.int64)
        if len(live):
            best, places = nearest_of(rows, queries, k, live)
            scores[:, : best.shape[1]], ids[:, : best.shape[1]] = best, numbers[places]
        return scores, ids

    def retrain(self) -> None:
        """Start making the structure anew in the background, as happens by itself when the vectors have doubled."""
        with self._gate:
            self._start_building()

    def wait(self) -> None:
        """Return when no structure is being made in the background."""
        while (builder := self._running()) is not None:
            builder.join()

    def save(self, path: str | Path, *, generation: int, fingerprint: str) -> None:
        """Write a snapshot that is there whole or not at all, on disk before this returns.

        Waits for a structure that is being made. Readers are not kept waiting; writers are, while codes are copied.

        Args:
            path: The file; it is replaced in one step.
            generation: The log position the index stands at.
            fingerprint: What the vectors were made from (embedder, database); `load` hands it back.

        Raises:
            OSError: The folder cannot be written.
        """
        self.wait()
        with self._building, self._gate:
            rows, backend = self._rows, self._backend
            ids = rows.ids_of(np.arange(rows.count))
            structure = backend.structure()
        head = {"generation": generation, "fingerprint": fingerprint, "dimension": self.dimension, "half": rows.half}
        head |= {"rows": len(ids), "kind": backend.kind, "nprobe": backend.nprobe, "width": backend.width}
        line = json.dumps(head | {"outgrown_above": backend.outgrown_above}).encode()

        def write(sink: Sink) -> None:
            sink.write(line + b" " * (-(len(line) + 1) % 8) + b"\n")  # what follows lies at a multiple of 8
            rows.write(sink, ids)
            for start in range(0, len(structure), _PIECE):
                sink.write(structure[start : start + _PIECE].tobytes())

        write_snapshot(Path(path), _FORMAT, write)

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        exact_limit: int = EXACT_LIMIT,
        whole_limit: int = WHOLE_LIMIT,
    ) -> tuple[Self, int, str]:
        """Read a snapshot. Its vectors stay in the file, and come to memory as they are needed.

        Returns:
            The index, and the generation and fingerprint that it was saved with.

        Raises:
            FileNotFoundError: There is no such file.
            CorruptIndex: The file is not a whole snapshot of this version.
        """
        import faiss

        path = Path(path)
        with read_snapshot(path, _FORMAT) as file:
            head = json.loads(file.readline())
            index = cls(
                head["dimension"],
                exact_limit=exact_limit,
                whole_limit=whole_limit,
                half=head["half"],
                folder=path.parent,
            )
            rows = Rows.mapped(file, head["rows"], head["dimension"], half=head["half"], folder=path.parent)
            found = None if head["kind"] == Exact.kind else faiss.read_index(faiss.PyCallbackIOReader(file.read))
        index._rows = rows
        measured = {"nprobe": head["nprobe"], "outgrown_above": head["outgrown_above"]}
        if found is None:
            index._backend = Exact.build(rows, rows.live_rows())
        elif head["kind"] == Clustered.kind:
            index._backend = Clustered(found, rows, **measured)
        else:
            index._backend = Compressed(found, rows, width=head["width"], **measured).with_gpu()
        with index._gate:
            index._grown()
        return index, head["generation"], head["fingerprint"]

    @staticmethod
    def fingerprint_of(path: str | Path) -> str:
        """The fingerprint that a snapshot was saved with, without reading all of it or seeing whether it is whole.

        Raises:
            FileNotFoundError: There is no such file.
            CorruptIndex: The file is no snapshot of this version.
        """
        try:
            fingerprint: str = json.loads(first_line(Path(path), _FORMAT))["fingerprint"]
        except (ValueError, LookupError, TypeError) as error:
            raise CorruptIndex(f"{path} is no index of memedit's.", "Delete it; it is rebuilt from the log.") from error
        return fingerprint

    def _checked(self, ids: Ids, vectors: Vectors) -> tuple[Ids, Vectors]:
        """Copies of what is to be put in, as it will be found again."""
        ids = np.array(ids, dtype=np.int64)
        vectors = self._matrix(vectors)
        if ids.shape != (len(vectors),):
            raise ValueError(f"{len(vectors)} vectors need as many ids, but the ids have the shape {ids.shape}.")
        if len(ids) and (ids.min() < 0 or len(np.unique(ids)) < len(ids)):
            raise ValueError("Ids must not be negative and each must be given once.")
        if self._rows.half:
            vectors = vectors.astype(np.float16).astype(np.float32)  # so that a score is the same after reopening
        return ids, vectors

    def _matrix(self, rows: Vectors) -> Vectors:
        matrix = np.ascontiguousarray(rows, dtype=np.float32)
        if matrix.ndim != 2 or matrix.shape[1] != self.dimension:
            raise ValueError(f"Vectors must have the shape [n, {self.dimension}], not {list(matrix.shape)}.")
        return matrix

    def _masked(self, within: Ids | None) -> tuple[Rows, Mask | None]:
        """A mask, and the rows that it names by number."""
        rows = self._rows
        return rows, None if within is None else Mask.of(rows.rows_of(np.asarray(within, dtype=np.int64)))

    def _running(self) -> threading.Thread | None:
        with self._gate:  # held from making a builder to starting it
            return self._builder

    def _put(self, ids: Ids, vectors: Vectors) -> None:
        """Add a few. The caller holds the gate."""
        prepared = self._backend.prepare(vectors)
        with self._lock.write():
            before = self._rows.rows_of(ids)
            rows = self._rows.append(ids, vectors)
            dead = before[before >= 0]
            self._backend.remove(dead)
            self._backend.add(rows, vectors, prepared)
            if self._missed is not None:
                self._missed.append(_Change(ids, rows, dead))

    def _grown(self) -> None:
        """Start building what the present size asks for, if that is not what there is. The caller holds the gate."""
        rows = self._rows
        full = len(self._backend) > max(self.exact_limit, self._backend.outgrown_above)
        idle = rows.count - rows.live > max(self.exact_limit, rows.live)  # more dead rows than live ones
        if full or idle:
            self._start_building()

    def _start_building(self) -> None:
        if self._builder is None:
            self._builder = threading.Thread(target=self._build_beside, name="memedit-index")
            self._builder.start()

    def _build_beside(self) -> None:
        import faiss

        built = False
        try:
            with self._building, at_most(max(1, faiss.omp_get_max_threads() // 2)):  # the other half is the readers'
                self._build()
            built = True
        finally:
            with self._gate:
                self._builder = None
                if built:
                    self._grown()

    def _build(self) -> None:
        """Make the structure for the rows that there are, and swap it in with all that has changed meanwhile."""
        with self._gate:
            rows = self._rows
            live = rows.live_rows()
            ids = rows.ids_of(live)
            missed = self._missed = deque()
        try:
            if rows.count - len(live) > len(live) // 4:
                rows, live = rows.copy(ids, live), np.arange(len(live))
            kind = self._kind_for(len(live))
            built = kind.build(rows, live)
            while len(missed) > 2:
                self._make_up(rows, built, missed.popleft())
            with self._gate:  # no more changes now; readers go on until all is ready
                while missed:
                    self._make_up(rows, built, missed.popleft())
                before = self._rows, self._backend
                with self._lock.write():
                    start = time.perf_counter()
                    self._rows, self._backend = rows, built
                    self.swap_seconds = time.perf_counter() - start
            del before  # only now: it takes a while
        finally:
            self._missed = None

    def _kind_for(self, count: int) -> type[Exact] | type[Clustered]:
        if count <= self.exact_limit:
            return Exact
        return Clustered if count <= self.whole_limit else Compressed

    def _make_up(self, rows: Rows, built: Backend, change: _Change) -> None:
        """Have what was built see a change that was made meanwhile to the present rows."""
        dead, added = change.dead, change.rows
        vectors = None if added is None else self._rows.take(added)
        if rows is not self._rows:  # a copy: numbered anew
            before = rows.rows_of(change.ids)
            dead = before[before >= 0]
            added = rows.remove(change.ids) if vectors is None else rows.append(change.ids, vectors)
        built.remove(dead)
        if vectors is not None and added is not None:
            built.add(added, vectors, None)


class _Change(NamedTuple):
    """A change of the index: ids that were put in as `rows`, or taken out (None), and the rows that died of it."""

    ids: Ids
    rows: Ids | None
    dead: Ids
