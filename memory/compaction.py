"""Erasing facts for good: which ones, and the receipt that says what was erased where, what is left, and what was not touched.

Facts go from the log (`memedit.memory.tombstones`), from the vectors kept with it, from the index and its snapshot, and from
the free space of the database's files. Knows nothing of how each of these is done.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple

from memedit.errors import InvalidFact, UnknownEntity
from memedit.memory.engine import Engine
from memedit.memory.entities import normalise
from memedit.memory.mentions import find_names
from memedit.memory.state import NamespaceState, Record, in_order, moment_of
from memedit.memory.store import Entry

_BATCH = 20_000
"""Most facts that are erased while other writers wait."""

NOT_TOUCHED = (
    "Backups, exports, and databases made by restore.",
    "What PostgreSQL's write-ahead log, its archive and standby servers hold until they have moved on.",
    "What gateways log or keep of conversations, and the prompt cache of the model's server.",
    "Snapshots of the index at other processes, until they have followed the log to this position.",
    "The number, time and hash of each entry. What an entry held cannot be told from them.",
)
"""What a receipt says was not touched."""


class Erasure(NamedTuple):
    """One place that something was erased from.

    Attributes:
        place: The table or file.
        what: What was done there.
        amount: To how many rows or vectors.
    """

    place: str
    what: str
    amount: int


class DeletionReceipt(NamedTuple):
    """What a compaction erased.

    Attributes:
        namespaces: The namespaces that something was erased of, by name.
        facts: Ids of the facts, ascending.
        position: Log position of the last entry that tells of it; None if nothing was erased from the log.
        at: When that was.
        horizon: Reads of these namespaces as of earlier moments are refused; None if facts were chosen by subject.
        erased: From where; empty for a trial.
        left: What still holds some of it, and what to do about it.
        not_touched: What may hold it, and was not looked at.
    """

    namespaces: tuple[str, ...]
    facts: tuple[int, ...]
    position: int | None = None
    at: datetime | None = None
    horizon: datetime | None = None
    erased: tuple[Erasure, ...] = ()
    left: tuple[str, ...] = ()
    not_touched: tuple[str, ...] = NOT_TOUCHED


class Ended:
    """Chooses the facts that had ended by some time: superseded, retracted or undone.

    Args:
        by: Microseconds.
    """

    def __init__(self, by: int) -> None:
        self._by = by

    def __call__(self, space: NamespaceState) -> tuple[list[Record], list[Entry]]:
        """The facts, ascending by id, and no aliases."""
        bags = (bag for relations in space.ended.out.values() for bag in relations.values())
        facts = [record for record in in_order(*bags) if record.end is not None and record.end.at <= self._by]
        return facts, []


class About:
    """Chooses all that is about an entity: facts with it at either end, facts whose texts name it, and its aliases.

    Args:
        name: Any of its names.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __call__(self, space: NamespaceState) -> tuple[list[Record], list[Entry]]:
        """The facts, live or not, ascending by id, and the entries of the aliases."""
        key = space.entities.resolve(self._name)
        names = {key, normalise(self._name), *map(normalise, space.entities.aliases(self._name))}
        named = _Named(key, names, space)
        about = {record.id: record for edges in (space.live, space.ended) for record in edges.touching(key)}
        for record in space.facts.values():
            if record.id not in about and named.in_any((record.statement, record.question, record.source or "")):
                about[record.id] = record
        aliases = [entry for entry in space.named if key in _ends(space, entry)]
        return [about[number] for number in sorted(about)], aliases


def compact(engine: Engine, namespaces: Sequence[str], by: int, *, trial: bool) -> DeletionReceipt:
    """Erase the facts of some namespaces that had ended by some time, in microseconds. See `EditMemory.compact`."""
    by = min(by, engine.now())
    return _erase(engine, namespaces, Ended(by), by, trial=trial)


def erase(engine: Engine, namespaces: Sequence[str], subject: str, *, trial: bool) -> DeletionReceipt:
    """Erase all that some namespaces hold about an entity. See `EditMemory.erase`."""
    receipt = _erase(engine, namespaces, About(subject), None, trial=trial)
    if not receipt.namespaces:
        raise UnknownEntity(
            f"There is nothing about {subject!r} in {', '.join(map(repr, namespaces)) or 'any namespace'}.",
            "Check its name and the namespace's; what was erased before cannot be found again.",
        )
    return receipt


def _erase(
    engine: Engine, namespaces: Sequence[str], choose: Ended | About, horizon: int | None, *, trial: bool
) -> DeletionReceipt:
    if trial:
        return _trial(engine, namespaces, choose, horizon)

    def next_batch(space: NamespaceState) -> tuple[Sequence[Record], Sequence[Entry]]:
        facts, aliases = choose(space)
        # The aliases go last: until then they tell what the entity is called.
        return facts[:_BATCH], aliases if len(facts) <= _BATCH else []

    receipt = DeletionReceipt((), (), horizon=moment_of(horizon))
    entries = vectors = searched = 0
    for namespace in sorted(namespaces):
        while (erased := engine.erase(namespace, next_batch, horizon)) is not None:
            entries += erased.entries
            vectors += erased.vectors
            searched += erased.searched
            receipt = receipt._replace(
                namespaces=tuple(dict.fromkeys((*receipt.namespaces, namespace))),
                facts=(*receipt.facts, *erased.facts),
                position=erased.position,
                at=moment_of(erased.at),
            )
    purged = engine.purge()
    places = [
        Erasure("memedit_log", "entries emptied", entries),
        Erasure("memedit_vectors", "vectors deleted that no other fact's text has", vectors),
    ]
    if searched:
        places.append(Erasure("memedit_pgvector", "vectors deleted from the database's own index", searched))
    if purged.snapshot is not None:
        path, generation = purged.snapshot
        places.append(
            Erasure(str(path), f"written anew without the facts, generation {generation}", len(receipt.facts))
        )
    if purged.state is not None:
        places.append(Erasure(str(purged.state), "deleted; it is made again without the facts", len(receipt.facts)))
    if purged.files:
        places.append(Erasure(engine.place, "written anew without what was deleted", entries + vectors))
    left = (purged.left,) if purged.left else ()
    return receipt._replace(facts=tuple(sorted(receipt.facts)), erased=tuple(places), left=left)


def _trial(engine: Engine, namespaces: Sequence[str], choose: Ended | About, horizon: int | None) -> DeletionReceipt:
    engine.follow()
    with engine.state.lock:
        chosen = {name: choose(engine.space(name)) for name in sorted(namespaces)}
    found = tuple(name for name, (facts, aliases) in chosen.items() if facts or aliases)
    numbers = sorted(record.id for facts, _ in chosen.values() for record in facts)
    return DeletionReceipt(found, tuple(numbers), horizon=moment_of(horizon))


class _Named:
    """Tells whether a text names an entity."""

    def __init__(self, key: str, names: Iterable[str], space: NamespaceState) -> None:
        self._key = key
        self._space = space
        self._names = frozenset(names)
        self._longest = max(map(len, self._names))
        self._squeezed = [_squeezed(name) or name for name in self._names]

    def in_any(self, texts: Iterable[str]) -> bool:
        return any(self._in(text) for text in texts if text)

    def _in(self, text: str) -> bool:
        squeezed = _squeezed(text)
        if not any(name in squeezed for name in self._squeezed):  # which is quick, and mostly so
            return False
        return any(find_names(text, self._names.__contains__, self._as_key, self._longest))

    def _as_key(self, span: str) -> str | None:
        try:
            return self._key if self._space.entities.resolve(span) == self._key else None
        except InvalidFact:
            return None  # what cannot be a name names nothing


def _squeezed(text: str) -> str:
    """A text without whatever may be left out or put in between the letters of a name."""
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", text.replace("&", "and")).casefold())


def _ends(space: NamespaceState, entry: Entry) -> set[str]:
    return {space.entities.resolve(name) for name in (entry.subject or "", entry.object or "")}
