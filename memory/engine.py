"""One memory at work: the log, its fold and the index made from it, kept in step.

A write is drafted on the newest state while the write lock is held, made durable, and only then applied. What other
processes write comes in by the same `Engine.take`, so that a process's state is always that of some position of the
log. Knows nothing of what a caller may ask for.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from difflib import get_close_matches
from pathlib import Path
from threading import RLock
from typing import NamedTuple, TypeVar

from memedit.errors import PositionNotReached, StoreError, UnknownNamespace
from memedit.memory.catalogue import Catalogue
from memedit.memory.draft import Draft
from memedit.memory.embedder import Embedder
from memedit.memory.fact import Relation
from memedit.memory.intake import aware_microseconds, check_namespace
from memedit.memory.recall import Recall
from memedit.memory.state import NamespaceState, Record, State
from memedit.memory.state_file import Origin, load_state, save_state
from memedit.memory.store import Entry, Head, Kind, Link, Store, Transaction
from memedit.memory.tombstones import Compaction, delete_vectors, empty, keep_hashes

Result = TypeVar("Result")
Plan = Callable[[Draft, Transaction], Result]
Choice = Callable[[NamespaceState], tuple[Sequence[Record], Sequence[Entry]]]

_RECHECK_SECONDS = 0.5
"""How long news of a commit is relied on to come."""

_WORTH_SAVING = 20_000
"""Entries of the log that are folded in about half a second."""


class Erased(NamedTuple):
    """What `Engine.erase` erased.

    Attributes:
        position: Log position of the entry that tells of it.
        at: When, in microseconds.
        facts: Ids of the facts.
        entries: How many entries of the log were emptied.
        vectors: How many vectors were deleted.
        searched: How many vectors were deleted that the database itself searches.
    """

    position: int
    at: int
    facts: tuple[int, ...]
    entries: int
    vectors: int
    searched: int


class Purged(NamedTuple):
    """What `Engine.purge` did.

    Attributes:
        snapshot: The index's snapshot that was written anew, and its generation; None if there was none.
        state: The state's snapshot that was deleted; None if there was none.
        files: Whether the database's files were written anew.
        left: What still holds some of what was erased, and what to do about it; empty if nothing does.
    """

    snapshot: tuple[Path, int] | None = None
    state: Path | None = None
    files: bool = False
    left: str = ""


class Engine:
    """What `EditMemory` and `MemoryView` work with.

    Args:
        path: As `Store` takes it.
        catalogue: The relations; the log's are added to it.
        embedder: Makes vectors.
        namespace: The default namespace, which may be read before anything is written to it.
        clock: Tells the time.
        busy_timeout: Seconds to wait while another process writes.
        in_database: Namespaces whose vectors PostgreSQL searches.

    Attributes:
        catalogue: The relations.
        namespace: The default namespace.
        state: The fold of the log.
        recall: The index.
        place: What the database is called in messages.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        catalogue: Catalogue,
        embedder: Embedder,
        namespace: str,
        clock: Callable[[], datetime],
        busy_timeout: float,
        in_database: Collection[str] = (),
    ) -> None:
        self.catalogue = catalogue
        self.namespace = check_namespace(namespace)
        self._clock = clock
        self._shipped = {relation.id: relation for relation in Catalogue.default()}
        self._follow_lock = RLock()
        self._converse_cache: tuple[int, dict[str, tuple[str, ...]]] = (-1, {})
        self._behind = True
        self._untidy = False
        self._store = Store(path, busy_timeout=busy_timeout)
        self.place = self._store.place
        self._state_path = None if self._store.snapshot is None else self._store.snapshot.with_suffix(".state")
        self._state_saved = 0
        try:
            with _without_collector():
                self.state = self._restored()
                self.recall = Recall(self._store, self.state, embedder, self.follow)
                if in_database:
                    from memedit.memory.pgvector import PgVectors  # asks for the driver, which is an extra

                    self.recall.search_in_database(PgVectors(self._store, self.state, embedder, in_database))
                self.recall.note(self.state.records())
                self.follow()
        except BaseException:
            self._store.close()
            raise
        self.recall.opened()

    def write(self, namespace: str | None, plan: Plan[Result], *, existing: bool = False) -> Result:
        """Make a write durable and then visible.

        Args:
            namespace: Where to write; None for the default namespace.
            plan: Drafts the write on a state that is up to date with the log; an error in it writes nothing.
            existing: Whether the namespace must exist.

        Returns:
            What `plan` returned.

        Raises:
            StoreBusy: Another process held the database longer than the timeout.
            UnknownNamespace: With `existing`, nothing was ever written to the namespace.
        """
        name = check_namespace(self.namespace if namespace is None else namespace)
        with self._store.transaction() as transaction:
            for chunk in transaction.entries_after(self.state.position):
                self.take(chunk)
            transaction.confine(name)
            space = self.space(name) if existing else self.state.namespace(name)
            draft = Draft(space, transaction.head, self.now())
            result = plan(draft, transaction)
            if draft.entries:
                transaction.append(draft.entries, draft.head)
        self.take(draft.entries, draft.made)
        self.recall.settle()
        return result

    def erase(self, namespace: str | None, choose: Choice, horizon: int | None) -> Erased | None:
        """Erase facts and aliases of a namespace from the log, with the vectors of texts that no other fact has.

        Args:
            namespace: The namespace; the default one if None.
            choose: Chooses them, by a state that is up to date with the log and locked: the facts, ascending by id, and the
                entries of the aliases.
            horizon: The time before which the namespace's past is no longer whole; None if no such time can be told.

        Returns:
            What was erased; None if nothing was chosen.

        Raises:
            StoreBusy: Another process held the database longer than the timeout.
            UnknownNamespace: Nothing was ever written to the namespace.
        """
        with self._store.transaction() as transaction:
            for chunk in transaction.entries_after(self.state.position):
                self.take(chunk)
            space = self.space(namespace)
            with self.state.lock:
                facts, aliases = choose(space)
                texts = self._texts_of_only(facts)
            if not facts and not aliases:
                return None
            transaction.confine(space.name)
            ids, numbers = tuple(record.id for record in facts), tuple(entry.seq for entry in aliases)
            vectors = delete_vectors(transaction.connection, texts)
            searched = transaction.forget(ids)
            emptied = empty(transaction.connection, space.name, ids, numbers)
            told = Compaction(ids, numbers, horizon, emptied.through, emptied.digest)
            before = transaction.head
            head = Head(before.seq + 1, before.transaction + 1, before.fact, max(self.now(), before.at + 1))
            entry = Entry(head.seq, head.transaction, head.at, space.name, Kind.COMPACT.value, body=told.to_json())
            transaction.append([entry], head)
            keep_hashes(transaction.connection, entry.seq, emptied.hashes)
        self.take([entry])
        return Erased(entry.seq, entry.at, ids, emptied.entries, vectors, searched)

    def purge(self) -> Purged:
        """Free the index's snapshot and the database's files from what `erase` has left in them, now or earlier."""
        position = self.state.compacted
        if self._store.scrubbed_until() >= position:
            return Purged()
        state = self._state_path if self._state_path is not None and self._state_path.exists() else None
        self._drop_state()
        snapshot = None
        try:
            snapshot = self.recall.purge()
            left = self._store.scrub(position)
        except StoreError as error:  # the erasure itself stands, so its receipt must be given
            return Purged(snapshot, state, left=str(error))
        return Purged(snapshot, state, not left, left)

    def follow(self) -> None:
        """Take in what has been committed since, by this process or by others; cheap where there is nothing."""
        with self._follow_lock:
            self._behind = self._store.changed() or self._behind
            if self._behind:
                self._read_log()
        self._tidy()

    def reach(self, position: int, timeout: float) -> None:
        """Take in the log at least as far as `position`, waiting for it where it is not there yet.

        Args:
            position: A sequence number of the log, e.g. of a receipt.
            timeout: Seconds to wait at most.

        Raises:
            PositionNotReached: The log did not come that far in time.
        """
        self.follow()
        deadline = time.monotonic() + timeout
        while self.state.position < position:
            with self._follow_lock:
                self._read_log()  # whether there is news of it or not
            self._tidy()
            if self.state.position >= position:
                return
            left = deadline - time.monotonic()
            if left <= 0:
                raise PositionNotReached(
                    f"The log has come to position {self.state.position}, not {position}, within {timeout:g} s.",
                    "Check that the position is one of this memory's, or read again with more time.",
                    asked=position,
                    reached=self.state.position,
                )
            self._store.wait(min(left, _RECHECK_SECONDS))

    def take(self, entries: Iterable[Entry], made: Mapping[int, Record] | None = None) -> None:
        """Apply entries of the log to the state, and leave what they record to be indexed.

        Args:
            entries: The entries.
            made: Records of facts that they assert, where these were made already.
        """
        with self.state.lock:
            self.recall.note(self.state.apply(entries, made))
            if self.state.forgotten:
                self.recall.forget(self.state.forgotten)
                self.state.forgotten = []
                self._untidy = True

    def space(self, namespace: str | None) -> NamespaceState:
        """The state of a namespace that something was written to, or of the default one.

        Raises:
            UnknownNamespace: It is neither.
        """
        name = self.namespace if namespace is None else namespace
        with self.state.lock:
            if name not in self.state.namespaces and name != self.namespace:
                nearest = ", ".join(map(repr, get_close_matches(name, self.state.namespaces, n=3)))
                raise UnknownNamespace(
                    f"Nothing was ever written to the namespace {name!r}"
                    + (f"; nearest: {nearest}." if nearest else "."),
                    "Check its name; a namespace comes into being with its first fact.",
                )
            return self.state.namespace(name)

    def now(self) -> int:
        """The clock's time, in microseconds since 1970 in UTC."""
        return aware_microseconds(self._clock(), "the clock's time")

    def known_relations(self) -> dict[str, Relation]:
        """The relations that need no entry in the log: those that ship with memedit, and those that have one."""
        return self._shipped | self.state.relations

    def converses(self, relation: str) -> tuple[str, ...]:
        """The relations that imply `relation` from the other side, which are those that it implies."""
        version, converses = self._converse_cache
        if version != self.state.definitions:
            version, converses = self.state.definitions, _converses(self.catalogue)
            self._converse_cache = version, converses
        return converses.get(relation, ())

    def _texts_of_only(self, facts: Sequence[Record]) -> set[str]:
        """The texts of facts that no other fact has, in any namespace."""
        texts = {text for record in facts for text in (record.statement, record.question) if text}
        chosen = {record.id for record in facts}
        for space in self.state.namespaces.values() if texts else ():
            for record in space.facts.values():
                if record.id not in chosen:
                    texts.discard(record.statement)
                    texts.discard(record.question)
        return texts

    def _read_log(self) -> None:
        for chunk in self._store.entries_after(self.state.position):
            self.take(chunk)
        self._behind = False  # only now: where reading fails, the next read must try again

    def _tidy(self) -> None:
        """Do what others' erasures ask for; not while following, since saving a snapshot follows."""
        if self._untidy:
            self._untidy = False
            self._drop_state()
            self.recall.drop_snapshot()

    def save(self) -> None:
        """Write snapshots of the index and, where the log is long, of the state.

        Raises:
            ReadOnlyStore: The folder cannot be written.
        """
        self.follow()
        self.recall.save()
        self._save_state()

    def close(self) -> None:
        """Save index and state if they have grown enough to be worth it, and let go of the database."""
        try:
            self.recall.close()
            self._save_state()
        finally:
            self._store.close()

    def _restored(self) -> State:
        """The state as its snapshot has it; an empty one where that is of no use."""
        state = None
        if self._state_path is not None:
            state = load_state(self._state_path, self.catalogue, self._is_own)
        if state is None:
            self._drop_state()  # whatever else it holds may have been erased
            return State(self.catalogue)
        self._state_saved = state.position
        return state

    def _is_own(self, origin: Origin) -> bool:
        link = Link(origin.position, bytes.fromhex(origin.hash))
        return origin.memory == self._store.memory_id and self._store.link_at(origin.position) == link

    def _save_state(self) -> None:
        """Write a snapshot of the state if folding what the last one lacks would take long; it is only a cache."""
        if self._state_path is None or self.state.position - self._state_saved < _WORTH_SAVING:
            return
        with suppress(OSError, StoreError):
            self.follow()  # what was erased meanwhile must not come back with the snapshot
            last = self._store.link_at(self.state.position)
            if save_state(self._state_path, self.state, Origin(self._store.memory_id, last.seq, last.hash.hex())):
                self._state_saved = last.seq

    def _drop_state(self) -> None:
        self._state_saved = 0
        if self._state_path is not None:
            with suppress(OSError):
                self._state_path.unlink(missing_ok=True)


@contextmanager
def _without_collector() -> Iterator[None]:
    """Reading a log makes many objects and no garbage; the collector would walk them again and again."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _converses(catalogue: Catalogue) -> dict[str, tuple[str, ...]]:
    pairs: set[tuple[str, str]] = set()
    for relation in catalogue:
        if relation.symmetric:
            pairs.add((relation.id, relation.id))
        if relation.inverse is not None and relation.inverse in catalogue:
            pairs |= {(relation.id, relation.inverse), (relation.inverse, relation.id)}
    converses: dict[str, list[str]] = {}
    for one, other in sorted(pairs):
        converses.setdefault(one, []).append(other)
    return {relation: tuple(others) for relation, others in converses.items()}
