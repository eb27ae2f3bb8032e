"""From what a caller gives to what can be recorded: names checked, relation found, sentence parsed, times in order.

Knows nothing of what is recorded already.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import NamedTuple

from memedit.errors import InvalidFact
from memedit.memory.catalogue import Catalogue
from memedit.memory.entities import normalise
from memedit.memory.fact import FREE_TEXT, FactInput, Relation
from memedit.memory.state import microseconds_of

MAX_TEXT = 5000
"""Longest statement or source, in characters."""


class Prepared(NamedTuple):
    """A fact that can be recorded. Times are microseconds since 1970 in UTC; None stands for no bound.

    Attributes:
        relation: Its relation, or None for free text, which has no subject and no object either.
        notice: What the caller should know.
    """

    subject: str
    relation: Relation | None
    object: str
    statement: str
    question: str
    valid_from: int | None
    valid_to: int | None
    source: str | None
    notice: str | None = None

    @property
    def relation_id(self) -> str:
        """The relation's id, or `FREE_TEXT`."""
        return FREE_TEXT if self.relation is None else self.relation.id


def prepare(fact: FactInput, catalogue: Catalogue) -> Prepared:
    """Check a fact and complete it. A relation that is new by name is defined in `catalogue`.

    Raises:
        InvalidFact: It cannot be recorded as it is.
        UnknownRelation: Its relation looks like a Wikidata id, and the catalogue does not have it.
    """
    statement = None if fact.statement is None else _text(fact.statement, "statement")
    triple = _triple(fact)
    notice = None
    if triple is None and statement is not None and fact.relation != FREE_TEXT:
        triple = _parsed(statement, catalogue)
        if triple is None:
            notice = "The sentence fits no template of the catalogue, so it was kept as free text."
        else:
            statement = None  # a fact reads the same however it was given
    valid_from, valid_to = _interval(fact)
    source = None if fact.source is None else _text(fact.source, "source")
    if triple is None:
        if statement is None:
            raise InvalidFact("The fact is empty.", "Give subject, relation and object, or a statement.")
        return Prepared("", None, "", statement, "", valid_from, valid_to, source, notice)
    subject, name, obj = triple
    relation = _relation(name, catalogue)
    statement = statement or relation.state(subject, obj)
    return Prepared(subject, relation, obj, statement, relation.ask(subject), valid_from, valid_to, source)


def aware_microseconds(moment: datetime, name: str) -> int:
    """The stored form of a time that a caller gave.

    Raises:
        InvalidFact: It has no time zone, so that it names no moment.
    """
    if moment.utcoffset() is None:
        raise InvalidFact(
            f"{name} ({moment.isoformat()}) has no time zone.", "Give one, e.g. moment.replace(tzinfo=timezone.utc)."
        )
    return microseconds_of(moment)


def check_namespace(name: str) -> str:
    """Return `name` if it can name a namespace.

    Raises:
        InvalidFact: It is empty, longer than 200 characters or holds control characters.
    """
    if not name.strip() or len(name) > 200 or _CONTROL.search(name):
        raise InvalidFact(
            f"{name[:40]!r} cannot name a namespace.", "Use 1 to 200 printable characters, e.g. the tenant's id."
        )
    return name


_CONTROL = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\ud800-\\udfff]")
_WIKIDATA_ID = re.compile(r"P[1-9]\d*")


def _triple(fact: FactInput) -> tuple[str, str, str] | None:
    if fact.relation == FREE_TEXT:
        if fact.subject or fact.object:
            raise InvalidFact("A free-text fact has no subject and no object.", "Leave them out, or name a relation.")
        return None
    given = {"subject": fact.subject, "relation": fact.relation, "object": fact.object}
    missing = [name for name, value in given.items() if value is None]
    if len(missing) == 3:
        return None
    if missing:
        raise InvalidFact(f"The fact has no {' and no '.join(missing)}.", "Give all three, or a statement alone.")
    subject, relation, obj = (_name(value or "", name) for name, value in given.items())
    return subject, relation, obj


def _name(value: str, field: str) -> str:
    try:
        normalise(value)
    except InvalidFact as error:
        raise InvalidFact(f"The {field} cannot be recorded. {error.problem}", error.mend) from None
    return value.strip()


def _text(value: str, field: str) -> str:
    text = " ".join(value.split())
    if not text:
        raise InvalidFact(f"The {field} is empty.", "Write it out, or leave it out altogether.")
    if len(text) > MAX_TEXT:
        raise InvalidFact(
            f"The {field} is {len(text):,} characters long.",
            f"Shorten it to {MAX_TEXT:,}, or split it in several facts.",
        )
    if control := _CONTROL.search(text):
        raise InvalidFact(f"The {field} holds the control character U+{ord(control[0]):04X}.", "Remove it.")
    return text


def _parsed(statement: str, catalogue: Catalogue) -> tuple[str, str, str] | None:
    triple = catalogue.parse(statement)
    if triple is None:
        return None
    try:
        return _name(triple.subject, "subject"), triple.relation_id, _name(triple.object, "object")
    except InvalidFact:
        return None


def _relation(name: str, catalogue: Catalogue) -> Relation:
    relation = catalogue.resolve(name)
    if relation is not None:
        return relation
    if _WIKIDATA_ID.fullmatch(name):
        return catalogue.get(name)  # raises, with the nearest names
    return catalogue.define(name)


def _interval(fact: FactInput) -> tuple[int | None, int | None]:
    start = None if fact.valid_from is None else aware_microseconds(fact.valid_from, "valid_from")
    stop = None if fact.valid_to is None else aware_microseconds(fact.valid_to, "valid_to")
    if start is not None and stop is not None and stop <= start:
        raise InvalidFact(
            f"valid_to ({fact.valid_to}) is not after valid_from ({fact.valid_from}).",
            "A fact holds from valid_from up to, but not including, valid_to: swap them or leave one out.",
        )
    return start, stop
