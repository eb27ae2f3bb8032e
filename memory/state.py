"""What the log amounts to: an in-memory fold of its entries, kept per namespace and found by entity.

`State.apply` is the one way in, for a memory's own writes, for other processes' and at opening alike; applied to the
same log it gives the same state. Records are lean, since there may be a million: the pydantic `Fact` is made when one
is read.

Knows nothing of SQL, of vectors, or of the rules by which writes are made (`memedit.memory.draft`).
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from threading import RLock
from typing import NamedTuple

from memedit.errors import CorruptDatabase
from memedit.memory.catalogue import Catalogue
from memedit.memory.entities import EntityTable, normalise
from memedit.memory.fact import FREE_TEXT, EndReason, Fact, Relation
from memedit.memory.store import Entry, Kind

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_CACHED_FACTS = 8192
_by_id = attrgetter("id")


class End(NamedTuple):
    """How a fact ceased to be believed: when (microseconds), why, and which fact took its place."""

    at: int
    reason: EndReason
    superseded_by: int | None


class Record:
    """A fact as the state holds it. Times are microseconds since 1970 in UTC.

    Attributes:
        subject_key: Canonical key of the subject under the namespace's present aliases.
        object_key: That of the object. A free-text fact has a key of its own in place of both.
        end: How it ceased to be believed, or None while it is live.
        revivals: Earlier ends that were undone, each with the time of the undoing.
    """

    __slots__ = (
        "end",
        "id",
        "namespace",
        "object",
        "object_key",
        "question",
        "recorded_at",
        "relation",
        "revivals",
        "source",
        "statement",
        "subject",
        "subject_key",
        "transaction",
        "valid_from",
        "valid_to",
    )

    def __init__(self, entry: Entry, entities: EntityTable) -> None:
        self.id = entry.fact or 0
        self.namespace = entry.namespace
        self.subject = entry.subject or ""
        self.relation = entry.relation or ""
        self.object = entry.object or ""
        self.statement = entry.statement or ""
        self.question = entry.question or ""
        self.valid_from = entry.valid_from
        self.valid_to = entry.valid_to
        self.recorded_at = entry.at
        self.transaction = entry.transaction
        self.source = entry.source
        self.end: End | None = None
        self.revivals: tuple[tuple[End, int], ...] = ()
        self.subject_key = self.object_key = ""
        self.find_keys(entities)

    def find_keys(self, entities: EntityTable) -> None:
        """Set the keys anew, because a name has been added."""
        if self.relation == FREE_TEXT:
            self.subject_key = self.object_key = free_text_key(self.statement)
        else:
            self.subject_key = entities.resolve(self.subject)
            self.object_key = entities.resolve(self.object)

    def known_at(self, at: int | None) -> bool:
        """Whether it had been recorded by transaction time `at` (None: now)."""
        return at is None or self.recorded_at <= at

    def end_at(self, at: int | None) -> End | None:
        """Its end as it stood at transaction time `at` (None: now); None if it was live then."""
        if at is None:
            return self.end
        for end, revived_at in self.revivals:
            if end.at <= at < revived_at:
                return end
        return self.end if self.end is not None and self.end.at <= at else None

    def holds_at(self, moment: int) -> bool:
        """Whether valid time `moment` lies in its interval."""
        return (self.valid_from is None or self.valid_from <= moment) and (
            self.valid_to is None or moment < self.valid_to
        )

    def fact(self, end: End | None) -> Fact:
        """The public value, ended as `end` says."""
        return Fact.model_construct(
            id=self.id,
            namespace=self.namespace,
            subject=self.subject,
            relation=self.relation,
            object=self.object,
            statement=self.statement,
            question=self.question,
            valid_from=moment_of(self.valid_from),
            valid_to=moment_of(self.valid_to),
            recorded_at=_EPOCH + self.recorded_at * _MICROSECOND,
            retracted_at=None if end is None else moment_of(end.at),
            end_reason=None if end is None else end.reason,
            superseded_by=None if end is None else end.superseded_by,
            source=self.source,
            transaction=self.transaction,
            implied_from=None,
        )

    def implied_fact(self, relation: Relation) -> Fact:
        """The fact that follows from it under its inverse `relation` (itself, where that is symmetric)."""
        return self.fact(None).model_copy(
            update={
                "subject": self.object,
                "relation": relation.id,
                "object": self.subject,
                "statement": relation.state(self.object, self.subject),
                "question": relation.ask(self.object),
                "implied_from": self.id,
            }
        )


class Edges:
    """Records by the entity at either end and by relation; each list is in the order of ids."""

    def __init__(self) -> None:
        self.out: dict[str, dict[str, list[Record]]] = {}
        self.into: dict[str, dict[str, list[Record]]] = {}

    def add(self, record: Record) -> None:
        """File a record under its keys."""
        _file(self.out, record.subject_key, record)
        if record.relation != FREE_TEXT:
            _file(self.into, record.object_key, record)

    def remove(self, record: Record) -> None:
        """Take out a record that was added under the same keys."""
        _unfile(self.out, record.subject_key, record)
        if record.relation != FREE_TEXT:
            _unfile(self.into, record.object_key, record)

    def touching(self, key: str) -> list[Record]:
        """Every record with the entity at either end, each once."""
        ends = (self.out.get(key, {}), self.into.get(key, {}))
        return list({record.id: record for end in ends for bag in end.values() for record in bag}.values())


class NamespaceState:
    """The state of one namespace. What is read here can come from no other.

    Attributes:
        name: The namespace.
        entities: Its names of entities, laid over the built-in ones.
        facts: Every fact ever recorded, by id, oldest first.
        live: Those believed now.
        ended: The others.
        relations: How many live facts each relation has.
        timed: How many facts were recorded with a bound to their valid time.
        aliases: Keys of the aliases that were added here.
        undoable: Numbers of the transactions that can be undone, the last one last.
        longest_name: Length of the longest key, in characters.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.entities = EntityTable(parent=EntityTable.builtin())
        self.facts: dict[int, Record] = {}
        self.live = Edges()
        self.ended = Edges()
        self.live_count = 0
        self.relations: dict[str, int] = {}
        self.timed = 0
        self.aliases: set[str] = set()
        self.undoable: list[int] = []
        self.longest_name = 0
        self._undoing = 0
        self._cache: dict[int, Fact] = {}

    def fact(self, record: Record) -> Fact:
        """A record's public value as it stands now."""
        fact = self._cache.get(record.id)
        if fact is None:
            if len(self._cache) >= _CACHED_FACTS:
                self._cache.clear()
            fact = self._cache[record.id] = record.fact(record.end)
        return fact

    def apply(self, entry: Entry) -> Record | None:
        """Take in one entry; returns the record that it added, if it did."""
        match entry.kind:
            case Kind.ASSERT:
                record = Record(entry, self.entities)
                self.facts[record.id] = record
                self.timed += record.valid_from is not None or record.valid_to is not None
                self._enter(record)
                self._note_write(entry)
                return record
            case Kind.END:
                record = self.facts[entry.fact or 0]
                self._leave(record, End(entry.at, EndReason(entry.reason or ""), entry.other))
                self._note_write(entry)
            case Kind.REVIVE:
                record = self.facts[entry.fact or 0]
                if record.end is not None:
                    record.revivals += ((record.end, entry.at),)
                self.ended.remove(record)
                self._enter(record)
            case Kind.UNDO:
                self.undoable.pop()  # only the last write can be undone
                self._undoing = entry.transaction
            case Kind.ALIAS:
                self._add_alias(entry.subject or "", entry.object or "")
        return None

    def _enter(self, record: Record) -> None:
        record.end = None
        self.live.add(record)
        self.live_count += 1
        self.relations[record.relation] = self.relations.get(record.relation, 0) + 1
        self.longest_name = max(self.longest_name, len(record.subject_key), len(record.object_key))
        self._cache.pop(record.id, None)

    def _leave(self, record: Record, end: End) -> None:
        record.end = end
        self.live.remove(record)
        self.ended.add(record)
        self.live_count -= 1
        self.relations[record.relation] -= 1
        if not self.relations[record.relation]:
            del self.relations[record.relation]
        self._cache.pop(record.id, None)

    def _note_write(self, entry: Entry) -> None:
        number = entry.transaction
        if number != self._undoing and (not self.undoable or self.undoable[-1] != number):
            self.undoable.append(number)

    def _add_alias(self, entity: str, alias: str) -> None:
        key = normalise(alias)
        # A name in capitals may have stood for another entity than the same name in small letters ("US", "us").
        before = {key, self.entities.resolve(alias), self.entities.resolve(alias.upper())}
        self.entities.add_alias(entity, alias)
        self.aliases.add(key)
        self.longest_name = max(self.longest_name, len(key))
        for edges in (self.live, self.ended):
            touched = {record.id: record for old in before for record in edges.touching(old)}
            for record in touched.values():
                edges.remove(record)
                record.find_keys(self.entities)
                edges.add(record)


class State:
    """The fold of the whole log.

    Attributes:
        lock: Held while reading and while applying; never while waiting for a disk.
        position: Sequence number of the last entry applied.
        namespaces: The namespaces that were ever written to.
        relations: The relations that the log defines, as last defined.
        definitions: How many definitions there were.
        last_fact: The greatest id of a fact.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self.lock = RLock()
        self.position = 0
        self.namespaces: dict[str, NamespaceState] = {}
        self.relations: dict[str, Relation] = {}
        self.definitions = 0
        self.last_fact = 0
        self._catalogue = catalogue

    def namespace(self, name: str) -> NamespaceState:
        """A namespace's state; an empty one if nothing was ever written to it."""
        return self.namespaces.get(name) or NamespaceState(name)

    def apply(self, entries: Iterable[Entry]) -> list[Record]:
        """Take in entries of the log; those that were applied already are passed over.

        Returns:
            The records added.

        Raises:
            CorruptDatabase: The entries do not follow on from the last one applied.
        """
        added: list[Record] = []
        with self.lock:
            for entry in entries:
                if entry.seq <= self.position:
                    continue
                if entry.seq != self.position + 1:
                    raise CorruptDatabase(
                        f"The edit log jumps from entry {self.position} to entry {entry.seq}.",
                        "Entries are missing: restore the database from a backup.",
                    )
                try:
                    record = self._apply(entry)
                except (LookupError, ValueError) as error:
                    raise CorruptDatabase(
                        f"Entry {entry.seq} of the edit log makes no sense: {error!r}.",
                        "Restore the database from a backup.",
                    ) from error
                self.position = entry.seq
                if record is not None:
                    added.append(record)
                    self.last_fact = record.id
        return added

    def _apply(self, entry: Entry) -> Record | None:
        if entry.kind == Kind.RELATION:
            relation = self._catalogue.define(Relation.model_validate_json(entry.body or ""))
            self.relations[relation.id] = relation
            self.definitions += 1
            return None
        if entry.namespace not in self.namespaces:
            self.namespaces[entry.namespace] = NamespaceState(entry.namespace)
        return self.namespaces[entry.namespace].apply(entry)


def moment_of(microseconds: int | None) -> datetime | None:
    """The aware UTC datetime of a stored time."""
    return None if microseconds is None else _EPOCH + microseconds * _MICROSECOND


def microseconds_of(moment: datetime) -> int:
    """The stored form of an aware datetime: exact, unlike a float timestamp."""
    return (moment - _EPOCH) // _MICROSECOND


def free_text_key(statement: str) -> str:
    """What a free-text fact is filed under. No name of an entity can have this form."""
    return "\x00" + statement.casefold()


def in_order(*bags: Iterable[Record]) -> Iterator[Record]:
    """The records of several bags in the order of their ids."""
    return iter(sorted((record for bag in bags for record in bag), key=_by_id))


def _file(index: dict[str, dict[str, list[Record]]], key: str, record: Record) -> None:
    bag = index.setdefault(key, {}).setdefault(record.relation, [])
    if bag and bag[-1].id > record.id:
        insort(bag, record, key=_by_id)
    else:
        bag.append(record)


def _unfile(index: dict[str, dict[str, list[Record]]], key: str, record: Record) -> None:
    by_relation = index[key]
    bag = by_relation[record.relation]
    del bag[bisect_left(bag, record.id, key=_by_id)]
    if not bag:
        del by_relation[record.relation]
        if not by_relation:
            del index[key]
