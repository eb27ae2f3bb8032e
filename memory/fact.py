"""What a fact is: the frozen values that the edit memory stores and that everything above it passes around.

Knows nothing of storage, search or models.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum
from typing import Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

DEFAULT_NAMESPACE = "default"
FREE_TEXT = "free_text"
"""Id of the pseudo-relation of facts that are a statement only."""

EntityType = Literal[
    "person", "place", "city", "country", "continent", "organization", "work", "language", "religion", "sport",
    "position", "occupation", "genre", "product", "office", "thing",
]  # fmt: skip
"""What a relation's subject or object can be; ``thing`` admits everything. Used to prune chains of relations."""


class Relation(BaseModel):
    """A relation of the catalogue.

    Templates hold ``{subject}`` and, where the object is stated, ``{object}``.

    Attributes:
        id: Wikidata property id where there is one ("P36"), else a slug ("favourite_colour").
        label: Short name, "capital".
        statement: The canonical statement, "The capital of {subject} is {object}."
        question: The canonical question, "What is the capital of {subject}?"
        phrase: Noun phrase that denotes the object, so that paths nest: "the capital of {subject}".
        statements: Other phrasings of the statement, used to parse plain sentences.
        questions: Other phrasings of the question, used to plan.
        phrases: Other noun phrases for the object, used to render paths: "{subject}'s capital city".
        inverse: Id of the relation that holds from object to subject, if one does.
        symmetric: Whether (a, r, b) implies (b, r, a).
        single_valued: Whether a slot holds one live object at a time.
        inherited_through: Relations to something whose object is the subject's too: a player's sport is the sport of the
            position played.
        subject_types: What the subject can be; empty means anything.
        object_types: What the object can be; empty means anything.
        wikidata: Wikidata property id, or None.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str
    label: str
    statement: str
    question: str
    phrase: str
    statements: tuple[str, ...] = ()
    questions: tuple[str, ...] = ()
    phrases: tuple[str, ...] = ()
    inverse: str | None = None
    symmetric: bool = False
    single_valued: bool = True
    inherited_through: tuple[str, ...] = ()
    subject_types: frozenset[EntityType] = frozenset()
    object_types: frozenset[EntityType] = frozenset()
    wikidata: str | None = None

    def state(self, subject: str, obj: str) -> str:
        """The canonical statement of (subject, this relation, obj)."""
        return self.statement.replace("{subject}", subject).replace("{object}", obj)

    def ask(self, subject: str) -> str:
        """The canonical question for the slot (subject, this relation)."""
        return self.question.replace("{subject}", subject)

    def denote(self, subject: str) -> str:
        """The noun phrase for the object of (subject, this relation)."""
        return self.phrase.replace("{subject}", subject)


class Slot(NamedTuple):
    """Where a single-valued relation holds one live object.

    Attributes:
        namespace: The tenant.
        subject: Canonical key of the subject (see `memedit.memory.entities`).
        relation: Relation id.
    """

    namespace: str
    subject: str
    relation: str


class FactInput(BaseModel):
    """A fact as a caller gives it, before it is recorded.

    Either ``subject``, ``relation`` and ``object`` are given, or ``statement`` alone, which is parsed with the
    catalogue's templates and kept as free text where that fails.

    Attributes:
        subject: Name of the subject.
        relation: Relation id, label or a new name.
        object: Name of the object.
        statement: A plain sentence; with a triple, it replaces the statement made from the template.
        valid_from: When the fact begins to hold (aware datetime), or None for "always did".
        valid_to: When it ceases to hold (exclusive), or None for "still does".
        source: Where the fact comes from, free text, kept for audit.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    subject: str | None = None
    relation: str | None = None
    object: str | None = None
    statement: str | None = None
    valid_from: datetime | None = None
    valid_to: datetime | None = None
    source: str | None = None


class EndReason(StrEnum):
    """Why a fact is no longer live."""

    SUPERSEDED = "superseded"
    RETRACTED = "retracted"
    UNDONE = "undone"


class Fact(BaseModel):
    """A recorded fact: immutable but for the end of its transaction time.

    Attributes:
        id: 64-bit id, never reused. An implied fact has the id of the fact it comes from.
        namespace: The tenant.
        subject: Name of the subject as given; empty for free text.
        relation: Relation id; `FREE_TEXT` for free text.
        object: Name of the object as given; empty for free text.
        statement: The fact as a sentence.
        question: The question the fact answers; empty for free text.
        valid_from: When it begins to hold in the world, or None for "always did".
        valid_to: When it ceases to hold (exclusive), or None.
        recorded_at: When memedit learnt it (transaction time, aware UTC).
        retracted_at: When memedit ceased to believe it, or None while live.
        end_reason: Why it ceased, or None while live.
        superseded_by: Id of the fact that took its place, where one did.
        source: Where it came from, as the caller said.
        transaction: Number of the write that recorded it.
        implied_from: For a fact that follows by an inverse or symmetric relation, the id of the one it follows from.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    id: int = Field(gt=0)
    namespace: str
    subject: str
    relation: str
    object: str
    statement: str
    question: str = ""
    valid_from: datetime | None = None
    valid_to: datetime | None = None
    recorded_at: datetime
    retracted_at: datetime | None = None
    end_reason: EndReason | None = None
    superseded_by: int | None = None
    source: str | None = None
    transaction: int
    implied_from: int | None = None

    @property
    def live(self) -> bool:
        """Whether memedit still believes the fact (transaction time; says nothing of valid time)."""
        return self.retracted_at is None

    @property
    def is_free_text(self) -> bool:
        """Whether the fact is a statement that was not parsed into a triple."""
        return self.relation == FREE_TEXT

    def __str__(self) -> str:
        return self.statement


class Receipt(BaseModel):
    """What a write did.

    Attributes:
        fact: The fact as recorded (or as it already stood).
        status: ``added``; ``superseded`` (it took the place of `replaced`); ``unchanged`` (it was there already).
        replaced: The facts whose place it took.
        notice: What the caller should know, e.g. that a sentence was kept as free text.
        position: Log position that holds the write; what `EditMemory.view` takes as `at_least`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    fact: Fact
    status: Literal["added", "superseded", "unchanged"]
    replaced: tuple[Fact, ...] = ()
    notice: str | None = None
    position: int = 0


class Hit(NamedTuple):
    """A fact found by similarity.

    Attributes:
        fact: The fact.
        score: Cosine similarity of the query to the nearest of the fact's texts, in [-1, 1].
    """

    fact: Fact
    score: float


class Mention(NamedTuple):
    """An entity of the memory named in a text.

    Attributes:
        start: First character of the span.
        end: One past the last character.
        text: The span as written.
        key: Canonical key of the entity.
    """

    start: int
    end: int
    text: str
    key: str


class Path(NamedTuple):
    """A chain of facts, each one's object the next one's subject.

    Attributes:
        start: Name of the entity it starts from.
        facts: One to four facts, in order.
    """

    start: str
    facts: tuple[Fact, ...]

    @property
    def relations(self) -> tuple[str, ...]:
        """The relation ids along the path."""
        return tuple(fact.relation for fact in self.facts)

    @property
    def end(self) -> str:
        """The object the path arrives at."""
        return self.facts[-1].object
