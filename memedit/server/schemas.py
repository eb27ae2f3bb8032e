"""What the facts API takes and gives, beside the values of `memedit.memory.fact`, with the examples its document shows."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from memedit.memory.fact import Fact, FactInput, Receipt
from memedit.server.records import AuditEntry

MAX_BATCH = 10_000
"""Most facts of one JSON batch; larger ones are uploaded."""


class Batch(BaseModel):
    """Facts to be recorded together: all of them, or none."""

    model_config = ConfigDict(extra="forbid")

    facts: list[FactInput] = Field(min_length=1, max_length=MAX_BATCH)


class Question(BaseModel):
    """A question."""

    model_config = ConfigDict(
        extra="forbid", json_schema_extra={"examples": [{"question": "What is the capital of Japan?"}]}
    )

    question: str = Field(min_length=1)


class FactPage(BaseModel):
    """A page of facts, in the order of their ids.

    Attributes:
        data: The facts.
        has_more: Whether there are more.
        next_after: What to give as ``after`` for the next page.
    """

    data: list[Fact]
    has_more: bool = False
    next_after: int | None = None


class Receipts(BaseModel):
    """What a batch did, fact by fact."""

    data: list[Receipt]


class Imported(BaseModel):
    """What an import did."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"facts": 120, "added": 100, "superseded": 5, "unchanged": 15, "free_text": 2}]}
    )

    facts: int
    added: int
    superseded: int
    unchanged: int
    free_text: int


class Found(BaseModel):
    """A fact found by meaning.

    Attributes:
        fact: The fact.
        score: Cosine similarity of the query to it, in [-1, 1].
    """

    fact: Fact
    score: float


class FoundList(BaseModel):
    """Facts found by meaning, nearest first."""

    data: list[Found]


class Namespaces(BaseModel):
    """The namespaces that the key reaches and that something was written to."""

    data: list[str]


class Audited(BaseModel):
    """One attempt to write; see `memedit.server.records.AuditEntry`."""

    id: int
    at: datetime
    key: str
    client: str
    namespace: str
    action: str
    outcome: Literal["begun", "done", "refused", "failed"]
    facts: list[int]
    detail: str

    @classmethod
    def of(cls, entry: AuditEntry) -> Audited:
        """The entry as it is shown."""
        return cls.model_validate(entry._asdict())


class AuditPage(BaseModel):
    """A page of the audit log, oldest first."""

    data: list[Audited]
    has_more: bool = False
    next_after: int | None = None


class Problem(BaseModel):
    """What went wrong: what and why, and how to mend it.

    Attributes:
        message: For people.
        type: The kind of error, by OpenAI's names.
        param: The field at fault, where one can be named.
        code: The error's own name.
    """

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class Failure(BaseModel):
    """An error, in OpenAI's shape."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "error": {
                        "message": "The namespace 'acme' has no fact 7. List its facts to see ids.",
                        "type": "not_found_error",
                        "param": None,
                        "code": "unknown_fact",
                    }
                }
            ]
        }
    )

    error: Problem


FACT_EXAMPLES: dict[str, Any] = {
    "triple": {
        "summary": "A triple",
        "value": {"subject": "Japan", "relation": "capital", "object": "Osaka", "source": "ticket 17"},
    },
    "sentence": {"summary": "A plain sentence", "value": {"statement": "The CEO of Initech is Ada Byron."}},
    "timed": {
        "summary": "A fact that begins to hold later",
        "value": {
            "subject": "Initech",
            "relation": "chief executive officer",
            "object": "Bo Li",
            "valid_from": "2031-01-01T00:00:00Z",
        },
    },
}
BATCH_EXAMPLES: dict[str, Any] = {
    "two": {
        "summary": "Two facts",
        "value": {
            "facts": [
                {"subject": "Japan", "relation": "capital", "object": "Osaka"},
                {"statement": "The CEO of Initech is Ada Byron."},
            ]
        },
    }
}
FAILURES: dict[int | str, dict[str, Any]] = {
    status: {"model": Failure, "description": text}
    for status, text in (
        (400, "Something that was sent cannot be used."),
        (401, "There is no API key, or it is not good."),
        (403, "The key's role or namespaces are not enough."),
        (404, "There is no such thing."),
        (409, "It is not as the request takes it to be."),
        (413, "The request is too large."),
        (429, "Too many requests; the header Retry-After says how long to wait."),
        (503, "The memory is busy; try again."),
    )
}
