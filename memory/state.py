"""What the log amounts to: an in-memory fold of its entries, kept per namespace and found by entity.

`State.apply` is the one way in, for a memory's own writes, for other processes' and at opening alike; applied to the
same log it gives the same state.

Knows nothing of SQL, of vectors, or of the rules by which writes are made (`memedit.memory.draft`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from threading import RLock

import numpy as np
import numpy.typing as npt

from memedit.errors import CorruptDatabase, HistoryCompacted
from memedit.memory.catalogue import Catalogue
from memedit.memory.entities import EntityTable, normalise
from memedit.memory.fact import EndReason, Fact, Relation
from memedit.memory.record import Edges as Edges
from memedit.memory.record import End, forget_forms
from memedit.memory.record import Record as Record
from memedit.memory.record import free_text_key as free_text_key
from memedit.memory.record import in_order as in_order
from memedit.memory.record import microseconds_of as microseconds_of
from memedit.memory.record import moment_of as moment_of
from memedit.memory.store import Entry, Kind
from memedit.memory.tombstones import Compaction

Ids = npt.NDArray[np.int64]

_CACHED_FACTS = 8192


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
        named: The entries of the aliases that were added here.
        undoing: Number of the last transaction that undid another; 0 if there was none.
        horizon: What was believed before this time is no longer known whole, because facts that had ended by then were
            erased; None if none were.
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
        self.horizon: int | None = None
        self.named: list[Entry] = []
        self.undoing = 0
        self._cache: dict[int, Fact] = {}
        self._live_ids: Ids | None = None
        self._entered: list[int] = []

    def fact(self, record: Record) -> Fact:
        """A record's public value as it stands now."""
        fact = self._cache.get(record.id)
        if fact is None:
            if len(self._cache) >= _CACHED_FACTS:
                self._cache.clear()
            fact = self._cache[record.id] = record.fact(record.end)
        return fact

    def live_ids(self) -> Ids:
        """The ids of the facts believed now, int64 [live_count], in no particular order."""
        if self._live_ids is None:
            self._live_ids = np.fromiter(
                (number for number, record in self.facts.items() if record.end is None), np.int64
            )
        elif self._entered:
            self._live_ids = np.concatenate([self._live_ids, np.array(self._entered, np.int64)])
        self._entered.clear()
        return self._live_ids

    def check_moment(self, as_of: int | None) -> None:
        """See that what was believed at a transaction time (None: now) is still known.

        Raises:
            HistoryCompacted: Facts that were live then have been erased.
        """
        if as_of is not None and self.horizon is not None and as_of < self.horizon:
            raise HistoryCompacted(
                f"The history of the namespace {self.name!r} is compacted: facts that had ended by {moment_of(self.horizon)} "
                f"were erased, so what was believed at {moment_of(as_of)} is no longer known.",
                "Read as of a later moment, or restore a backup from before the compaction to a file of its own.",
            )

    def apply(self, entry: Entry, made: Record | None) -> Record | None:
        """Take in one entry; returns the record that it added, if it did. `made` is that record, where it was made before."""
        match entry.kind:
            case Kind.ASSERT:
                record = Record(entry, self.entities) if made is None else made
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
                self.undoing = entry.transaction
            case Kind.ALIAS:
                self.named.append(entry)
                self._add_alias(entry.subject or "", entry.object or "")
            case Kind.ERASED if entry.fact is not None:
                self._note_write(entry)
        return None

    def forget(self, compaction: Compaction) -> list[int]:
        """Let go of what was erased from the log; returns the ids of the facts that were still held.

        Whether the log was read before it was compacted or after, the same is left.
        """
        forget_forms()
        held = [number for number in compaction.facts if number in self.facts]
        for number in held:
            record = self.facts.pop(number)
            if record.end is None:
                self._leave(record, End(0, EndReason.RETRACTED, None))
            self.ended.remove(record)
            self.timed -= record.valid_from is not None or record.valid_to is not None
            self._cache.pop(number, None)
        self.undoable = [number for number in self.undoable if number > compaction.through]
        if compaction.horizon is not None:
            self.horizon = max(compaction.horizon, self.horizon or compaction.horizon)
        if compaction.aliases:
            self.named = [entry for entry in self.named if entry.seq not in compaction.aliases]
            # Facts under the names that are gone were erased with them, so the keys of all others stay as they are.
            self.read_names()
        return held

    def read_names(self) -> None:
        """Make the table of names anew from `named`."""
        self.aliases.clear()
        self.entities = EntityTable(parent=EntityTable.builtin())
        for entry in self.named:
            self.entities.add_alias(entry.subject or "", entry.object or "")
            self.aliases.add(normalise(entry.object or ""))

    def _enter(self, record: Record) -> None:
        record.end = None
        if self._live_ids is not None:
            self._entered.append(record.id)
        self.live.add(record)
        self.live_count += 1
        self.relations[record.relation] = self.relations.get(record.relation, 0) + 1
        self.longest_name = max(self.longest_name, len(record.subject_key), len(record.object_key))
        self._cache.pop(record.id, None)

    def _leave(self, record: Record, end: End) -> None:
        record.end = end
        self._live_ids = None
        self.live.remove(record)
        self.ended.add(record)
        self.live_count -= 1
        self.relations[record.relation] -= 1
        if not self.relations[record.relation]:
            del self.relations[record.relation]
        self._cache.pop(record.id, None)

    def _note_write(self, entry: Entry) -> None:
        number = entry.transaction
        if number != self.undoing and (not self.undoable or self.undoable[-1] != number):
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
        compacted: Sequence number of the last compaction; 0 if there was none.
        forgotten: Ids of the facts that compactions took away, until somebody takes them out of here.
    """

    def __init__(self, catalogue: Catalogue) -> None:
        self.lock = RLock()
        self.position = 0
        self.namespaces: dict[str, NamespaceState] = {}
        self.relations: dict[str, Relation] = {}
        self.definitions = 0
        self.last_fact = 0
        self.compacted = 0
        self.forgotten: list[int] = []
        self._catalogue = catalogue

    def namespace(self, name: str) -> NamespaceState:
        """A namespace's state; an empty one if nothing was ever written to it."""
        return self.namespaces.get(name) or NamespaceState(name)

    def records(self) -> list[Record]:
        """Every fact ever recorded, in the order of ids."""
        with self.lock:
            return list(in_order(*(space.facts.values() for space in self.namespaces.values())))

    def apply(self, entries: Iterable[Entry], made: Mapping[int, Record] | None = None) -> list[Record]:
        """Take in entries of the log; those that were applied already are passed over.

        Args:
            entries: The entries.
            made: Records of facts that they assert, where these were made already: they become the state's.

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
                    record = self._apply(entry, made or {})
                except (LookupError, ValueError) as error:
                    raise CorruptDatabase(
                        f"Entry {entry.seq} of the edit log makes no sense: {error!r}.",
                        "Restore the database from a backup.",
                    ) from error
                self.position = entry.seq
                self.last_fact = max(self.last_fact, entry.fact or 0)
                if record is not None:
                    added.append(record)
        return added

    def _apply(self, entry: Entry, made: Mapping[int, Record]) -> Record | None:
        if entry.kind == Kind.RELATION:
            relation = self._catalogue.define(Relation.model_validate_json(entry.body or ""))
            self.relations[relation.id] = relation
            self.definitions += 1
            return None
        if entry.namespace not in self.namespaces:
            self.namespaces[entry.namespace] = NamespaceState(entry.namespace)
        if entry.kind == Kind.COMPACT:
            self.compacted = entry.seq
            self.forgotten += self.namespaces[entry.namespace].forget(Compaction.from_json(entry.body or ""))
            return None
        return self.namespaces[entry.namespace].apply(entry, made.get(entry.fact or 0))
