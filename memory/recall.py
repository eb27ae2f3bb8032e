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
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from operator import attrgetter
from pathlib import Path

import numpy as np
import numpy.typing as npt

from memedit.errors import IndexRebuilt, ReadOnlyStore
from memedit.memory.embedder import Embedder, SentenceEmbedder
from memedit.memory.index import CorruptIndex, VectorIndex
from memedit.memory.state import Record, State
from memedit.memory.store import Store, Vector

Progress = Callable[[int, int], None]
"""Is told how many are done, of how many."""

_CHUNK = 1024


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
        self._path = None if store.path is None else store.path.with_name(store.path.name + ".index")
        self._index: VectorIndex | None = None
        self._lock = threading.RLock()
        self._waiting: list[Record] = []
        """Records that the index lacks, in the order of ids. Guarded by the state's lock."""
        self._opened_with = 0
        self._saved = 0
        self._embeds = False

    def opened(self) -> None:
        """The log has been read for the first time: from here on, records are new."""
        self._opened_with = self._state.last_fact

    def note(self, records: Iterable[Record]) -> None:
        """Records were added to the state."""
        self._waiting.extend(records)

    def embed(self, texts: Iterable[str]) -> dict[str, Vector]:
        """Vectors of those texts that none is kept of yet."""
        self._embeds = True
        unique = list(dict.fromkeys(text for text in texts if text))
        known = self._store.known_texts(self.embedder.name, unique)
        missing = [text for text in unique if text not in known]
        if not missing:
            return {}
        return dict(zip(missing, self.embedder.encode(missing), strict=True))

    def index(self) -> VectorIndex:
        """The index, holding everything that the state holds; texts without a vector are embedded now."""
        if self._index is not None and not self._waiting:
            return self._index
        return self._refreshed(embed=True)

    def settle(self) -> None:
        """Bring the index up to date where it is loaded and no embedding is needed for it."""
        if self._index is not None and self._waiting:
            self._refreshed(embed=False)

    def embed_waiting(self, progress: Progress | None = None) -> int:
        """Embed what has no vector yet; returns how many facts the index has gained."""
        with self._lock:
            self._load()
            waiting = len(self._waiting)
            self._refreshed(embed=True, progress=progress)
        return waiting

    def rebuild(self) -> None:
        """Make the index anew from the kept vectors."""
        with self._lock:
            self._reset()
            self._refreshed(embed=True)
            self.save()

    def save(self) -> None:
        """Write a snapshot of all facts that have vectors, if the memory is a file.

        Raises:
            ReadOnlyStore: The folder cannot be written.
        """
        if self._path is None:
            return
        with self._lock:
            index = self._refreshed(embed=False)
            generation = self._waiting[0].id - 1 if self._waiting else self._state.last_fact
            try:
                index.save(self._path, generation=generation, fingerprint=self._fingerprint())
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
            if _lags(self._saved, self._state.last_fact):
                self.save()
            else:
                index.wait()

    def _fingerprint(self) -> str:
        return f"{self._store.memory_id}/{self.embedder.name}/{self.embedder.dimension}"

    def _refreshed(self, *, embed: bool, progress: Progress | None = None) -> VectorIndex:
        with self._lock:
            index = self._load()
            done, total = 0, len(self._waiting)
            start = 0
            while chunk := self._waiting[start : start + _CHUNK]:
                vectors = self._vectors(chunk, embed=embed)
                rows = [(number, vectors.get(text)) for record in chunk for number, text in _texts(record)]
                left = {number // 2 for number, vector in rows if vector is None}
                ready = [(number, vector) for number, vector in rows if vector is not None and number // 2 not in left]
                if ready:
                    numbers, matrix = zip(*ready, strict=True)
                    index.add(np.array(numbers, np.int64), np.stack(matrix))
                with self._state.lock:
                    self._waiting[start : start + len(chunk)] = [record for record in chunk if record.id in left]
                start += len(left)
                done += len(chunk)
                if progress is not None:
                    progress(done, total)
            return index

    def _vectors(self, records: Sequence[Record], *, embed: bool) -> dict[str, Vector]:
        texts = list(dict.fromkeys(text for record in records for _, text in _texts(record)))
        vectors = self._store.vectors(self.embedder.name, texts)
        missing = [text for text in texts if text not in vectors]
        if missing and embed:
            fresh = dict(zip(missing, self.embedder.encode(missing), strict=True))
            with self._store.transaction() as transaction:
                transaction.keep_vectors(self.embedder.name, fresh)
            vectors |= fresh
        return vectors

    def _load(self) -> VectorIndex:
        """The index, read from its snapshot the first time; what the snapshot lacks is left waiting."""
        if self._index is not None:
            return self._index
        index = VectorIndex(self.embedder.dimension)
        notice = ""
        try:
            if self._path is not None:
                index, notice = self._restored(self._path)
        except FileNotFoundError:
            notice = "is missing"
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
        if generation > self._state.last_fact:
            self._follow()
        if fingerprint != self._fingerprint() or generation > self._state.last_fact:
            return VectorIndex(self.embedder.dimension), "belongs to another memory or embedder"
        with self._state.lock:
            del self._waiting[: bisect_right(self._waiting, generation, key=attrgetter("id"))]
            missed = self._waiting[0].statement if self._waiting else ""
        self._saved = generation
        behind = _lags(generation, self._opened_with) and self._store.known_texts(self.embedder.name, [missed])
        return index, "is behind the log" if behind else ""

    def _reset(self) -> None:
        with self._state.lock:
            records = [record for space in self._state.namespaces.values() for record in space.facts.values()]
            self._waiting = sorted(records, key=attrgetter("id"))
            self._index = VectorIndex(self.embedder.dimension)


@cache
def default_embedder() -> Embedder:
    """The sentence encoder that memedit ships with; one for the whole process."""
    return SentenceEmbedder()


def vector_ids(facts: Iterable[int]) -> npt.NDArray[np.int64]:
    """The ids in the index of the vectors of facts, int64 [2 n]; some may not be in use."""
    statements = 2 * np.fromiter(facts, np.int64)
    return np.concatenate([statements, statements + 1])


def _lags(generation: int, last_fact: int) -> bool:
    """Whether a snapshot lacks so many facts that writing it anew costs less than making up for them at each opening."""
    return last_fact - generation > last_fact // 50


def _texts(record: Record) -> list[tuple[int, str]]:
    """The texts that a fact is found by, each with its id in the index."""
    texts = [(2 * record.id, record.statement)]
    if record.question:
        texts.append((2 * record.id + 1, record.question))
    return texts
