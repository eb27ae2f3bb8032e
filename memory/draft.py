"""The rules of writing: which entries of the log a write comes to, given the state before it.

A draft is made while the write lock is held and applied after its entries are on disk. Facts of one batch see each
other through it. Knows nothing of SQL and changes no state.

Superseding is SQL:2011's ``FOR PORTION OF``: a new fact ends every live rival whose valid time overlaps its own, and
what lies outside is recorded anew as remnants. Rivals are all the facts of the slot where the relation is
single-valued, else those with the same object.

Undoing is a write of its own: facts that the undone write had recorded are ended (`EndReason.UNDONE`), facts that it
had ended are revived under their own ids. The log keeps both, so what was believed in between can still be read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple

from memedit.errors import AlreadyRetracted, InvalidFact, NothingToUndo, UnknownFact
from memedit.memory.entities import normalise
from memedit.memory.fact import EndReason, Relation
from memedit.memory.intake import Prepared
from memedit.memory.state import NamespaceState, Record, free_text_key, moment_of
from memedit.memory.store import Entry, Head, Kind
from memedit.memory.tombstones import salt


class Outcome(NamedTuple):
    """What became of one fact: its id, and the ids of those whose place it took."""

    fact: int
    status: Literal["added", "superseded", "unchanged"]
    replaced: tuple[int, ...] = ()


class Draft:
    """A write to one namespace, in the making.

    Args:
        namespace: Its state, up to date with `head`.
        head: The log's head; numbers are given out from it.
        now: Transaction time in microseconds. Moved past the last transaction's where the clock has not, so that
            every moment between two writes can be told apart.

    Attributes:
        entries: What is to be appended to the log.
        made: The records of the facts that it asserts, by id.
    """

    def __init__(self, namespace: NamespaceState, head: Head, now: int) -> None:
        self.entries: list[Entry] = []
        self.made: dict[int, Record] = {}
        self._namespace = namespace
        self._before = head
        self._transaction = head.transaction + 1
        self._at = max(now, head.at + 1)
        self._last_fact = head.fact
        self._slots: dict[tuple[str, str], list[Record]] = {}
        self._salted = False

    @property
    def head(self) -> Head:
        """The log's head after this write."""
        return Head(self._before.seq + len(self.entries), self._transaction, self._last_fact, self._at)

    def record(self, fact: Prepared) -> Outcome:
        """Assert a fact."""
        subject, obj = self._keys(fact)
        slot = self._slot(subject, fact.relation_id)
        same = [record for record in slot if record.object_key == obj]
        single_valued = fact.relation is not None and fact.relation.single_valued
        rivals = [record for record in (slot if single_valued else same) if _overlap(record, fact)]
        if all(rival.object_key == obj for rival in rivals) and _cover(rivals, fact):
            return Outcome(min(rivals, key=_start).id, "unchanged")
        new = self._assert(fact)
        for rival in rivals:
            self._end(rival.id, EndReason.SUPERSEDED, new.id)
        remnants = [self._remnant(rival, start, end) for rival in rivals for start, end in _outside(rival, fact)]
        kept = [record for record in slot if record not in rivals]
        self._slots[subject, fact.relation_id] = [*kept, new, *remnants]
        return Outcome(new.id, "superseded" if rivals else "added", tuple(rival.id for rival in rivals))

    def retract(self, fact_id: int) -> None:
        """End a live fact.

        Raises:
            UnknownFact: The namespace has no such fact.
            AlreadyRetracted: It is not live.
        """
        record = self._namespace.facts.get(fact_id)
        if record is None:
            raise UnknownFact(
                f"The namespace {self._namespace.name!r} has no fact {fact_id}.", "List its facts to see their ids."
            )
        if record.end is not None:
            by = f" by fact {record.end.superseded_by}" if record.end.superseded_by else ""
            raise AlreadyRetracted(
                f"Fact {fact_id} ({record.statement!r}) was {record.end.reason}{by} on {moment_of(record.end.at)}.",
                "Nothing needs to be done; to bring it back, assert it again or undo the write that ended it.",
            )
        self._end(fact_id, EndReason.RETRACTED, None)

    def to_undo(self) -> int:
        """Number of the transaction that an undo would undo.

        Raises:
            NothingToUndo: There is none left.
        """
        if not self._namespace.undoable:
            raise NothingToUndo(
                f"Nothing is left to undo in the namespace {self._namespace.name!r}.",
                "Every write to it has been undone, or it has none.",
            )
        return self._namespace.undoable[-1]

    def undo(self, written: Iterable[Entry]) -> list[int]:
        """Undo a transaction.

        Args:
            written: The entries of the transaction `to_undo`.

        Returns:
            The ids of the facts touched, ascending.
        """
        self._add(Kind.UNDO, other=self.to_undo())
        touched = set()
        # Backwards, so that a fact that was recorded and ended by one batch ends up ended.
        for entry in reversed(list(written)):
            if entry.kind == Kind.ASSERT and entry.fact is not None:
                self._end(entry.fact, EndReason.UNDONE, None)
            elif entry.kind == Kind.END and entry.fact is not None:
                self._add(Kind.REVIVE, fact=entry.fact)
            else:
                continue
            touched.add(entry.fact)
        return sorted(touched)

    def add_alias(self, entity: str, alias: str) -> None:
        """Give an entity another name; nothing happens where it is one already.

        Raises:
            InvalidFact: A name is no name, or `alias` was added as a name of another entity.
        """
        entities = self._namespace.entities
        held = entities.resolve(alias)
        if held == entities.resolve(entity):
            return
        if normalise(alias) in self._namespace.aliases:
            raise InvalidFact(
                f"{alias!r} is already a name of {held!r}, so it cannot become one of {entity!r}.",
                "One name stands for one entity: use a longer name that tells the two apart.",
            )
        self._add(Kind.ALIAS, subject=entity.strip(), object=alias.strip())

    def define(self, relations: Iterable[Relation], known: Mapping[str, Relation]) -> None:
        """Record relations, but for those that are known in the same form."""
        for relation in {relation.id: relation for relation in relations}.values():
            if known.get(relation.id) != relation:
                self._add(Kind.RELATION, namespace="", relation=relation.id, body=relation.model_dump_json())

    def _keys(self, fact: Prepared) -> tuple[str, str]:
        if fact.relation is None:
            key = free_text_key(fact.statement)
            return key, key
        entities = self._namespace.entities
        return entities.resolve(fact.subject), entities.resolve(fact.object)

    def _slot(self, subject: str, relation: str) -> list[Record]:
        drafted = self._slots.get((subject, relation))
        return self._namespace.live.out.get(subject, {}).get(relation, []) if drafted is None else drafted

    def _assert(self, fact: Prepared) -> Record:
        self._last_fact += 1
        entry = self._add(
            Kind.ASSERT,
            fact=self._last_fact,
            subject=fact.subject,
            relation=fact.relation_id,
            object=fact.object,
            statement=fact.statement,
            question=fact.question,
            valid_from=fact.valid_from,
            valid_to=fact.valid_to,
            source=fact.source,
        )
        made = self.made[self._last_fact] = Record(entry, self._namespace.entities)
        return made

    def _remnant(self, record: Record, valid_from: int | None, valid_to: int | None) -> Record:
        self._last_fact += 1
        entry = self._add(
            Kind.ASSERT,
            fact=self._last_fact,
            subject=record.subject,
            relation=record.relation,
            object=record.object,
            statement=record.statement,
            question=record.question,
            valid_from=valid_from,
            valid_to=valid_to,
            source=record.source,
        )
        made = self.made[self._last_fact] = Record(entry, self._namespace.entities)
        return made

    def _end(self, fact: int, reason: EndReason, superseded_by: int | None) -> None:
        self._add(Kind.END, fact=fact, reason=reason.value, other=superseded_by)

    def _add(self, kind: Kind, *, namespace: str | None = None, **content: int | str | None) -> Entry:
        if not self._salted and kind in (Kind.ASSERT, Kind.ALIAS):
            self._salted = True
            content["body"] = salt()
        entry = Entry(
            seq=self._before.seq + len(self.entries) + 1,
            transaction=self._transaction,
            at=self._at,
            namespace=self._namespace.name if namespace is None else namespace,
            kind=kind.value,
            **content,  # type: ignore[arg-type]
        )
        self.entries.append(entry)
        return entry


_NEVER = float("inf")
Interval = Record | Prepared


def _start(interval: Interval) -> float:
    return -_NEVER if interval.valid_from is None else interval.valid_from


def _stop(interval: Interval) -> float:
    return _NEVER if interval.valid_to is None else interval.valid_to


def _overlap(one: Interval, other: Interval) -> bool:
    return _start(one) < _stop(other) and _start(other) < _stop(one)


def _cover(records: Iterable[Record], fact: Prepared) -> bool:
    """Whether the intervals of `records` together leave no gap in that of `fact`."""
    reached = _start(fact)
    for record in sorted(records, key=_start):
        if _start(record) > reached:
            return False
        reached = max(reached, _stop(record))
        if reached >= _stop(fact):
            return True
    return False


def _outside(record: Record, fact: Prepared) -> list[tuple[int | None, int | None]]:
    """The parts of `record`'s interval before and after that of `fact`."""
    parts: list[tuple[int | None, int | None]] = []
    if _start(record) < _start(fact):
        parts.append((record.valid_from, fact.valid_from))
    if _stop(record) > _stop(fact):
        parts.append((fact.valid_to, record.valid_to))
    return parts
