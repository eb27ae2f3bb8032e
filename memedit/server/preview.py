"""POST /v1/memory/preview: what a fact would change, before it is recorded. Nothing is written."""

from __future__ import annotations

from typing import Literal

import anyio.to_thread
from fastapi import APIRouter, Request
from pydantic import BaseModel, ConfigDict, Field

from memedit.answer import Hop
from memedit.editor import MAX_QUESTION_CHARACTERS
from memedit.memory.fact import Fact, FactInput
from memedit.preview import Outcome, Preview, preview
from memedit.server.access import services_of
from memedit.server.facts import Reader
from memedit.server.schemas import FAILURES

router = APIRouter(prefix="/v1/memory", tags=["facts"], responses=FAILURES)


class Trial(BaseModel):
    """A fact on trial, and a question to try it on.

    Attributes:
        fact: The fact.
        question: The question; without one only what the fact would take the place of is told.
    """

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {
                    "fact": {"subject": "Japan", "relation": "capital", "object": "Osaka"},
                    "question": "What is the capital of the country where Mount Fuji is?",
                }
            ]
        },
    )

    fact: FactInput
    question: str | None = Field(None, min_length=1, max_length=MAX_QUESTION_CHARACTERS)


class PreviewedHop(BaseModel):
    """A step of a chain.

    Attributes:
        entity: Where it starts.
        relation: The relation in words.
        object: Where it arrives.
        source: ``edit``, ``implied`` (it follows from one), or ``belief`` (the base model says so).
        edit: Id of the fact behind it; None for a belief, and for the fact on trial.
        on_trial: Whether it is the fact on trial.
    """

    entity: str
    relation: str
    object: str
    source: Literal["edit", "implied", "belief"]
    edit: int | None
    on_trial: bool

    @classmethod
    def of(cls, hop: Hop) -> PreviewedHop:
        """The hop as it is shown."""
        on_trial = hop.source != "belief" and hop.edit_id is None
        return cls(
            entity=hop.entity, relation=hop.label, object=hop.object, source=hop.source, edit=hop.edit_id,
            on_trial=on_trial,
        )  # fmt: skip


class Resolved(BaseModel):
    """What the memory says to the question.

    Attributes:
        in_scope: Whether an edit, or the fact on trial, is; if not, the base model answers alone.
        answer: What the edits come to; None where that is for the base model to word.
        hops: The chain.
        edits: The recorded facts in scope.
        probability: How sure that is, in [0, 1].
    """

    in_scope: bool
    answer: str | None
    hops: list[PreviewedHop]
    edits: list[Fact]
    probability: float

    @classmethod
    def of(cls, outcome: Outcome) -> Resolved:
        """The outcome as it is shown."""
        return cls(
            in_scope=bool(outcome.edits) or outcome.uses_trial,
            answer=outcome.answer,
            hops=[PreviewedHop.of(hop) for hop in outcome.hops],
            edits=list(outcome.edits),
            probability=outcome.probability,
        )


class Previewed(BaseModel):
    """What recording a fact would do.

    Attributes:
        statement: The fact as a sentence.
        status: What the receipt would say.
        replaced: The facts whose place it would take.
        notice: What to know about it, e.g. that it would be kept as free text.
        changes: Whether the question would be resolved otherwise than it is.
        before: What the memory says to the question as it is.
        after: What it would say.
    """

    statement: str
    status: Literal["added", "superseded", "unchanged"]
    replaced: list[Fact]
    notice: str | None
    changes: bool
    before: Resolved | None
    after: Resolved | None

    @classmethod
    def of(cls, found: Preview) -> Previewed:
        """The preview as it is shown."""
        return cls(
            statement=found.statement,
            status=found.status,
            replaced=list(found.replaced),
            notice=found.notice,
            changes=found.changes,
            before=None if found.before is None else Resolved.of(found.before),
            after=None if found.after is None else Resolved.of(found.after),
        )


@router.post("/preview", summary="What would a fact change?")
async def preview_fact(request: Request, access: Reader, trial: Trial) -> Previewed:
    """Resolve a question without a fact and with it, and record the fact nowhere."""
    services = services_of(request)

    def job() -> Previewed:
        tools = services.tools(access.namespace, None, access.authorization)
        return Previewed.of(
            preview(trial.question, trial.fact, services.view(access.namespace), tools, services.resolver)
        )

    # It waits for the upstream server in its thread: not in one of those that other requests think in.
    return await anyio.to_thread.run_sync(job)
