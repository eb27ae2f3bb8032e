"""One memory at work: the log, its fold and the index made from it, kept in step.

A write is drafted on the newest state while the write lock is held, made durable, and only then applied. What other
processes write comes in by the same `Engine.take`, so that a process's state is always that of some position of the
log. Knows nothing of what a caller may ask for.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from difflib import get_close_matches
from pathlib import Path
from threading import RLock
from typing import TypeVar

from memedit.errors import PositionNotReached, UnknownNamespace
from memedit.memory.catalogue import Catalogue
from memedit.memory.draft import Draft
from memedit.memory.embedder import Embedder
from memedit.memory.fact import Relation
from memedit.memory.intake import aware_microseconds, check_namespace
from memedit.memory.recall import Recall
from memedit.memory.state import NamespaceState, State
from memedit.memory.store import Entry, Store, Transaction

Result = TypeVar("Result")
Plan = Callable[[Draft, Transaction], Result]

_RECHECK_SECONDS = 0.5
"""How long news of a commit is relied on to come."""


class Engine:
    """What `EditMemory` and `MemoryView` work with.

    Args:
        path: As `Store` takes it.
        catalogue: The relations; the log's are added to it.
        embedder: Makes vectors.
        namespace: The default namespace, which may be read before anything is written to it.
        clock: Tells the time.
        busy_timeout: Seconds to wait while another process writes.

    Attributes:
        catalogue: The relations.
        namespace: The default namespace.
        state: The fold of the log.
        recall: The index.
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
    ) -> None:
        self.catalogue = catalogue
        self.namespace = check_namespace(namespace)
        self._clock = clock
        self._shipped = {relation.id: relation for relation in Catalogue.default()}
        self._follow_lock = RLock()
        self._converse_cache: tuple[int, dict[str, tuple[str, ...]]] = (-1, {})
        self._behind = True
        self._store = Store(path, busy_timeout=busy_timeout)
        self.state = State(catalogue)
        self.recall = Recall(self._store, self.state, embedder, self.follow)
        try:
            with _without_collector():
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
        self.take(draft.entries)
        self.recall.settle()
        return result

    def follow(self) -> None:
        """Take in what has been committed since, by this process or by others; cheap where there is nothing."""
        with self._follow_lock:
            self._behind = self._store.changed() or self._behind
            if self._behind:
                self._read_log()

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

    def take(self, entries: Iterable[Entry]) -> None:
        """Apply entries of the log to the state, and leave what they record to be indexed."""
        with self.state.lock:
            self.recall.note(self.state.apply(entries))

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

    def _read_log(self) -> None:
        for chunk in self._store.entries_after(self.state.position):
            self.take(chunk)
        self._behind = False  # only now: where reading fails, the next read must try again

    def close(self) -> None:
        """Save the index if it has grown enough to be worth it, and let go of the database."""
        try:
            self.recall.close()
        finally:
            self._store.close()


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
