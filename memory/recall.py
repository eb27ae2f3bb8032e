"""Finding facts by similarity: texts to vectors, the vectors kept in SQL, and the index made from them.

The index holds two vectors for every fact ever recorded, live or not (reads at past moments and masked reads need
the ended ones too): that of its statement under twice its id, that of its question under one more. So it only grows,
and a snapshot of it lacks exactly the facts beyond some id, which is its generation. It is a cache: whatever is wrong
with the snapshot, the index is made again from the vectors in SQL, and from the texts where those are missing.

Knows nothing of namespaces or of which facts are live; `memedit.memory.view` sorts that out.
"""

from __future__ import annotations

import threading
import warnings
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cache, partial
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from memedit.errors import IndexRebuilt, ReadOnlyStore, StoreError
from memedit.memory.embedder import Embedder, SentenceEmbedder
from memedit.memory.index import CorruptIndex, VectorIndex
from memedit.memory.provenance import Provenance
from memedit.memory.state import Record, State
from memedit.memory.store import Link, Store, Vector

if TYPE_CHECKING:
    from memedit.memory.pgvector import PgVectors

Progress = Callable[[int, int], None]
"""Is told how many are done, of how many."""

_CHUNK = 1024


class Searched(Protocol):
    """What finds vectors: see `VectorIndex`."""

    def __len__(self) -> int: ...

    def search(
        self, queries: npt.NDArray[np.float32], k: int, *, within: npt.NDArray[np.int64] | None = None
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
        """The nearest vectors of each query, best first."""
        ...


class Recall:
    """The similarity search of one memory. Nothing is loaded before the first search.

    Args:
        store: Where vectors are kept.
        state: What there is to index.
        embedder: Makes vectors.
        follow: Brings `state` up to date with the log.
    """

    def __init__(self, store: Store, state: State, embedder: Embedder, follow: Callable[[], None]) -> None:
        self.embedder = embedder
        self._store = store
        self._state = state
        self._follow = follow
        self._path = store.snapshot
        self._index: VectorIndex | None = None
        self._lock = threading.RLock()
        self._waiting: list[Record] = []
        """Records that the index lacks, in the order of ids. Guarded by the state's lock."""
        self._gone: list[int] = []
        """Ids of facts that were erased, which the index may still hold. Guarded by the state's lock."""
        self._opened_with = 0
        self._saved = 0
        self._embeds = False
        self._database: PgVectors | None = None

    def search_in_database(self, vectors: PgVectors) -> None:
        """Leave some namespaces to the database; called before the log is read."""
        self._database = vectors

    def opened(self) -> None:
        """The log has been read for the first time: from here on, records are new."""
        self._opened_with = self._state.last_fact

    def note(self, records: Iterable[Record]) -> None:
        """Records were added to the state."""
        self._waiting.extend(records if self._database is None else self._database.note(records))

    def forget(self, facts: Sequence[int]) -> None:
        """Facts were erased, and are no longer in the state."""
        self._gone.extend(facts)
        if self._database is not None:
            self._database.forget(facts)

    def drop_snapshot(self) -> None:
        """Do away with a snapshot that may hold what has been erased; it is written again when it is worth it."""
        with self._lock:
            if self._path is not None and _may_hold_erased(self._path, self._state.compacted):
                self._path.unlink(missing_ok=True)
                self._saved = 0

    def purge(self) -> tuple[Path, int] | None:
        """Free the index, and a snapshot that is there, from what has been erased.

        Returns:
            The snapshot, written anew, and its generation; None if there is none.

        Raises:
            ReadOnlyStore: The folder cannot be written.
        """
        with self._lock:
            if self._path is not None and self._path.exists():
                self._path.unlink()
                self._reset()  # clusters, too, were made from what was there
                self.save()
                return self._path, self._saved
            self.settle()
            return None

    def embed(self, texts: Iterable[str], progress: Progress | None = None) -> dict[str, Vector]:
        """Vectors of those texts that none is kept of yet; `progress` is told how many of them are done."""
        self._embeds = True
        unique = list(dict.fromkeys(text for text in texts if text))
        known = self._store.known_texts(self.embedder.name, unique)
        missing = [text for text in unique if text not in known]
        vectors: dict[str, Vector] = {}
        for start in range(0, len(missing), _CHUNK):
            chunk = missing[start : start + _CHUNK]
            vectors.update(zip(chunk, self.embedder.encode(chunk).astype(np.float16), strict=True))
            if progress is not None:
                progress(len(vectors), len(missing))
        return vectors

    def index(self, namespace: str) -> Searched:
        """What finds a namespace's facts, holding all that the state holds; texts without a vector are embedded now."""
        if self._database is not None and self._database.holds(namespace):
            if self._database.unsettled:
                self._settle_database(embed=True)
            return self._database.index(namespace)
        if self._index is not None and not self._waiting and not self._gone:
            return self._index
        return self._refreshed(embed=True)

    def settle(self) -> None:
        """Bring the index up to date where it is loaded and no embedding is needed for it."""
        if self._index is not None and (self._waiting or self._gone):
            self._refreshed(embed=False)
        if self._database is not None and self._database.unsettled:
            self._settle_database(embed=False)

    def embed_waiting(self, progress: Progress | None = None) -> int:
        """Embed what has no vector yet; returns how many facts the index has gained."""
        with self._lock:
            self._load()
            waiting = len(self._waiting)
            self._refreshed(embed=True, progress=progress)
            if self._database is not None:
                self._settle_database(embed=True)
            if self._store.path is None and _lags(self._saved, self._state.last_fact):
                self._save_cache()  # a replica may be killed at any time, and opens more quickly with it
        return waiting

    def rebuild(self) -> None:
        """Make the index anew from the kept vectors."""
        with self._lock:
            self._reset()
            self._refreshed(embed=True)
            self.save()

    def save(self) -> None:
        """Write a snapshot of all facts that have vectors, unless the memory is one in memory.

        Raises:
            ReadOnlyStore: The folder cannot be written.
        """
        if self._path is None:
            return
        with self._lock:
            index = self._refreshed(embed=False)
            generation = self._waiting[0].id - 1 if self._waiting else self._state.last_fact
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                index.save(self._path, generation=generation, fingerprint=self._provenance().to_text())
            except OSError as error:
                raise ReadOnlyStore(
                    f"The index {self._path} cannot be written: {error.strerror}.",
                    "Nothing is lost, it can be rebuilt; give write permission on the folder, or free some space.",
                ) from error
            self._saved = generation

    def close(self) -> None:
        """Leave a snapshot that lacks little of what this session has embedded."""
        with self._lock:
            grown = self._embeds and self._state.last_fact > self._opened_with
            if self._index is None and not grown:
                return
            index = self._load()
            if not _lags(self._saved, self._state.last_fact):
                index.wait()
            elif self._store.path is None:
                self._save_cache()
            else:
                self._follow()  # what was erased meanwhile must not come back with the snapshot
                self.save()

    def _save_cache(self) -> None:
        """Save what another machine's process does not need: where it cannot be saved it is made again."""
        with suppress(StoreError):
            self._follow()
            self.save()

    def _provenance(self) -> Provenance:
        with self._state.lock:
            position, compacted = self._state.position, self._state.compacted
        last = self._store.link_at(position)
        return Provenance(
            memory=self._store.memory_id,
            embedder=self.embedder.name,
            dimension=self.embedder.dimension,
            position=last.seq,
            hash=last.hash.hex(),
            compacted=compacted,
            left_out=() if self._database is None else self._database.namespaces,
        )

    def _belongs(self, made: Provenance | None) -> bool:
        """Whether a snapshot was made from the log as it is now, or as it was before later entries."""
        now = self._provenance()
        if made is None or made[:3] != now[:3] or made.left_out != now.left_out:
            return False
        return self._store.link_at(made.position) == Link(made.position, bytes.fromhex(made.hash))

    def _drop_forgotten(self, index: VectorIndex) -> None:
        with self._state.lock:
            gone = frozenset(self._gone)
            self._gone.clear()
            self._waiting[:] = [record for record in self._waiting if record.id not in gone]
        index.remove(vector_ids(gone))

    def _settle_database(self, *, embed: bool) -> None:
        assert self._database is not None
        self._database.settle(partial(self._vectors, embed=embed))

    def _refreshed(self, *, embed: bool, progress: Progress | None = None) -> VectorIndex:
        with self._lock:
            index = self._load()
            if self._gone:
                self._drop_forgotten(index)
            if 2 * len(self._waiting) > max(index.exact_limit, len(index)):
                index.fill(self._ready(embed=embed, progress=progress))
            else:
                for numbers, vectors in self._ready(embed=embed, progress=progress):
                    index.add(numbers, vectors)
            return index

    def _ready(
        self, *, embed: bool, progress: Progress | None
    ) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]]:
        """What is waiting and has its vectors, in parts: ids in the index, and vectors.

        When the next part is asked for, the last one is no longer waiting.
        """
        done, total = 0, len(self._waiting)
        start = 0
        while chunk := self._waiting[start : start + _CHUNK]:
            vectors = self._vectors(chunk, embed=embed)
            rows = [(number, vectors.get(text)) for record in chunk for number, text in texts_of(record)]
            left = {number // 2 for number, vector in rows if vector is None}
            ready = [(number, vector) for number, vector in rows if vector is not None and number // 2 not in left]
            if ready:
                numbers, matrix = zip(*ready, strict=True)
                yield np.array(numbers, np.int64), np.stack(matrix).astype(np.float32)
            with self._state.lock:
                self._waiting[start : start + len(chunk)] = [record for record in chunk if record.id in left]
            start += len(left)
            done += len(chunk)
            if progress is not None:
                progress(done, total)

    def _vectors(self, records: Sequence[Record], *, embed: bool) -> dict[str, Vector]:
        texts = list(dict.fromkeys(text for record in records for _, text in texts_of(record)))
        vectors = self._store.vectors(self.embedder.name, texts)
        missing = [text for text in texts if text not in vectors]
        if missing and embed:
            fresh: dict[str, Vector] = dict(zip(missing, self.embedder.encode(missing).astype(np.float16), strict=True))
            with self._store.transaction() as transaction:
                transaction.keep_vectors(self.embedder.name, fresh)
            vectors |= fresh
        return vectors

    def _load(self) -> VectorIndex:
        """The index, read from its snapshot the first time; what the snapshot lacks is left waiting."""
        if self._index is not None:
            return self._index
        index = self._empty()
        notice = ""
        try:
            if self._path is not None:
                index, notice = self._restored(self._path)
        except FileNotFoundError:
            notice = "is missing" if self._store.path is not None else ""  # a new replica has none yet
        except (CorruptIndex, OSError):
            notice = "is damaged"
        # Facts that were never embedded are no loss: a memory may be written to without an embedder.
        if notice and self._opened_with and self._store.has_vectors(self.embedder.name):
            warnings.warn(
                IndexRebuilt(f"The vector index {self._path} {notice}; it is being rebuilt from the log."), stacklevel=2
            )
        self._index = index
        return index

    def _restored(self, path: Path) -> tuple[VectorIndex, str]:
        """The index of a snapshot, and what is the matter with it."""
        index, generation, fingerprint = VectorIndex.load(path)
        self._follow()
        made = Provenance.from_text(fingerprint)
        if not self._belongs(made) or generation > self._state.last_fact:
            return self._empty(), "belongs to another memory or embedder"
        if made is not None and made.compacted != self._state.compacted:
            path.unlink(missing_ok=True)
            return self._empty(), "is from before facts were erased"
        with self._state.lock:
            del self._waiting[: bisect_right(self._waiting, generation, key=attrgetter("id"))]
            missed = self._waiting[0].statement if self._waiting else ""
        self._saved = generation
        behind = _lags(generation, self._opened_with) and self._store.known_texts(self.embedder.name, [missed])
        return index, "is behind the log" if behind else ""

    def _empty(self) -> VectorIndex:
        folder = None if self._path is None or not self._path.parent.is_dir() else self._path.parent
        return VectorIndex(self.embedder.dimension, half=True, folder=folder)

    def _reset(self) -> None:
        with self._state.lock:
            self._waiting = self._state.records()
            self._gone.clear()
            self._index = self._empty()


@cache
def default_embedder() -> Embedder:
    """The sentence encoder that memedit ships with; one for the whole process."""
    return SentenceEmbedder()


def vector_ids(facts: Iterable[int] | npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The ids in the index of the vectors of facts, int64 [2 n]; some may not be in use."""
    statements = 2 * (facts if isinstance(facts, np.ndarray) else np.fromiter(facts, np.int64))
    return np.concatenate([statements, statements + 1])


def _may_hold_erased(path: Path, compacted: int) -> bool:
    """Whether there is a snapshot, and not one that is known to be from after compaction `compacted`."""
    try:
        made = Provenance.from_text(VectorIndex.fingerprint_of(path))
    except FileNotFoundError:
        return False
    except (CorruptIndex, OSError):
        return True
    return made is None or made.compacted < compacted


def _lags(generation: int, last_fact: int) -> bool:
    """Whether a snapshot lacks so many facts that writing it anew costs less than making up for them at each opening."""
    return last_fact - generation > last_fact // 50


def texts_of(record: Record) -> list[tuple[int, str]]:
    """The texts that a fact is found by, each with its id in the index."""
    texts = [(2 * record.id, record.statement)]
    if record.question:
        texts.append((2 * record.id + 1, record.question))
    return texts
