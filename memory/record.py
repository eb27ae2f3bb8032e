"""A recorded fact as the state holds it, and how many of them are found by entity.

There may be a million, so a record is lean: its texts are kept as forms that it shares with others, and the pydantic `Fact`
is made when one is read. Knows nothing of the log's entries but their columns.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from operator import attrgetter
from typing import NamedTuple, Self

from memedit.memory.entities import EntityTable
from memedit.memory.fact import FREE_TEXT, EndReason, Fact, Relation
from memedit.memory.store import Entry

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_SUBJECT, _OBJECT = "\x01", "\x02"  # no text that is recorded holds control characters
_SHARED_FORMS = 1 << 14
_by_id = attrgetter("id")
_forms: dict[str, str] = {}


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
        statement_form: The statement with marks in the place of subject and object: most facts share theirs.
        question_form: The question in the same way.
        end: How it ceased to be believed, or None while it is live.
        revivals: Earlier ends that were undone, each with the time of the undoing.
    """

    __slots__ = (
        "end",
        "id",
        "namespace",
        "object",
        "object_key",
        "question_form",
        "recorded_at",
        "relation",
        "revivals",
        "source",
        "statement_form",
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
        self.statement_form = form_of(entry.statement or "", self.subject, self.object)
        self.question_form = form_of(entry.question or "", self.subject, self.object)
        self.valid_from = entry.valid_from
        self.valid_to = entry.valid_to
        self.recorded_at = entry.at
        self.transaction = entry.transaction
        self.source = entry.source
        self.end: End | None = None
        self.revivals: tuple[tuple[End, int], ...] = ()
        self.subject_key = self.object_key = ""
        self.find_keys(entities)

    @classmethod
    def of(
        cls,
        namespace: str,
        number: int,
        recorded_at: int,
        transaction: int,
        relation: str,
        subject: str,
        obj: str,
        subject_key: str,
        object_key: str,
        statement_form: str,
        question_form: str,
    ) -> Self:
        """One that was taken apart before (see `memedit.memory.state_file`): live, and without bounds or source."""
        made = cls.__new__(cls)
        made.id, made.namespace, made.recorded_at, made.transaction = number, namespace, recorded_at, transaction
        made.relation, made.subject, made.object = relation, subject, obj
        made.subject_key, made.object_key = subject_key, object_key
        made.statement_form, made.question_form = statement_form, question_form
        made.valid_from = made.valid_to = made.source = made.end = None
        made.revivals = ()
        return made

    @property
    def statement(self) -> str:
        """The fact as a sentence."""
        return self.statement_form.replace(_OBJECT, self.object).replace(_SUBJECT, self.subject)

    @property
    def question(self) -> str:
        """The question it answers; empty for free text."""
        return self.question_form.replace(_OBJECT, self.object).replace(_SUBJECT, self.subject)

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


class Bags(Mapping[str, dict[str, list[Record]]]):
    """Records by an entity's key and by relation; each list is in the order of ids.

    Most entities have one record, which is kept as it is: a dict and a list for each would take more than all the rest.
    """

    def __init__(self) -> None:
        self._held: dict[str, Record | dict[str, list[Record]]] = {}

    def file(self, key: str, record: Record) -> Record | None:
        """Add a record; returns another one of this key and relation, if there is one."""
        held = self._held.get(key)
        if held is None:
            self._held[key] = record
            return None
        if isinstance(held, Record):
            held = self._held[key] = {held.relation: [held]}
        bag = held.setdefault(record.relation, [])
        other = bag[-1] if bag else None
        if other is not None and other.id > record.id:
            insort(bag, record, key=_by_id)
        else:
            bag.append(record)
        return other

    def unfile(self, key: str, record: Record) -> None:
        """Take out a record that was added under this key."""
        held = self._held[key]
        if isinstance(held, Record):
            del self._held[key]
            return
        bag = held[record.relation]
        del bag[bisect_left(bag, record.id, key=_by_id)]
        if not bag:
            del held[record.relation]
            if not held:
                del self._held[key]

    def __getitem__(self, key: str) -> dict[str, list[Record]]:
        held = self._held[key]
        return {held.relation: [held]} if isinstance(held, Record) else held

    def __contains__(self, key: object) -> bool:
        return key in self._held

    def __iter__(self) -> Iterator[str]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)


class Edges:
    """Records by the entity at either end and by relation."""

    def __init__(self) -> None:
        self.out = Bags()
        self.into = Bags()

    def add(self, record: Record) -> None:
        """File a record under its keys."""
        self.out.file(record.subject_key, record)
        if record.relation != FREE_TEXT:
            other = self.into.file(record.object_key, record)
            if other is not None and other.object == record.object:  # a million facts may have a thousand objects
                record.object, record.object_key = other.object, other.object_key

    def remove(self, record: Record) -> None:
        """Take out a record that was added under the same keys."""
        self.out.unfile(record.subject_key, record)
        if record.relation != FREE_TEXT:
            self.into.unfile(record.object_key, record)

    def touching(self, key: str) -> list[Record]:
        """Every record with the entity at either end, each once."""
        ends = (self.out.get(key, {}), self.into.get(key, {}))
        return list({record.id: record for end in ends for bag in end.values() for record in bag}.values())


def moment_of(microseconds: int | None) -> datetime | None:
    """The aware UTC datetime of a stored time."""
    return None if microseconds is None else _EPOCH + microseconds * _MICROSECOND


def microseconds_of(moment: datetime) -> int:
    """The stored form of an aware datetime: exact, unlike a float timestamp."""
    return (moment - _EPOCH) // _MICROSECOND


def free_text_key(statement: str) -> str:
    """What a free-text fact is filed under. No name of an entity can have this form."""
    return "\x00" + statement.casefold()


def form_of(text: str, subject: str, obj: str) -> str:
    """A text with marks in the place of two names; equal forms are mostly one string."""
    form = text
    if subject:
        form = form.replace(subject, _SUBJECT)
    if obj:
        form = form.replace(obj, _OBJECT)
    if len(_forms) >= _SHARED_FORMS:
        return _forms.get(form, form)
    return _forms.setdefault(form, form)


def forget_forms() -> None:
    """Share no form any more that was shared until now, so that none lives on here when its facts are erased."""
    _forms.clear()


def in_order(*bags: Iterable[Record]) -> Iterator[Record]:
    """The records of several bags in the order of their ids."""
    return iter(sorted((record for bag in bags for record in bag), key=_by_id))
