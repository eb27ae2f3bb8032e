"""What a question comes back as: the text, the hops it took, the edits it used and what it cost."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from memedit.memory.fact import Fact

HopSource = Literal["edit", "implied", "belief"]


@dataclass(frozen=True, slots=True)
class Hop:
    """One (entity, relation) step.

    Attributes:
        entity: The entity the step starts from.
        relation: Relation id, or the sub-question for strategies that ask in words.
        label: The relation in words.
        object: Where the step arrives.
        source: ``edit`` (a recorded fact), ``implied`` (it follows from one), ``belief`` (the base model said so).
        edit_id: Id of the fact behind an edit or an implied step.
        probability: How sure the strategy is of this step, in [0, 1].
    """

    entity: str
    relation: str
    label: str
    object: str
    source: HopSource
    edit_id: int | None = None
    probability: float = 1.0

    def __str__(self) -> str:
        origin = "the base model" if self.source == "belief" else f"{self.source} #{self.edit_id}"
        return f"{self.entity} --{self.label}--> {self.object}  [{origin}, p={self.probability:.2f}]"


@dataclass(frozen=True, slots=True)
class Cost:
    """What an answer cost.

    Attributes:
        model_calls: Prompts sent to the base model.
        prompt_tokens: Tokens in them.
        completion_tokens: Tokens it wrote.
        seconds: Wall-clock time; in a batch, the batch's time divided by its questions.
    """

    model_calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to a question.

    Attributes:
        question: The question as asked.
        text: The answer. With no edit used, exactly what the base model says to the unchanged prompt.
        hops: The steps taken, in order; empty where the base model answered alone.
        edits: The recorded facts that were used.
        probability: How sure the strategy is that these edits belong to this question, in [0, 1].
        strategy: Which strategy answered.
        planner: Who planned the hops: ``paths`` (edited facts), ``catalogue``, ``model``, or "" where nothing was.
        cost: What it cost.
        notice: What the reader should know about where it comes from; "" for nothing.
    """

    question: str
    text: str
    hops: tuple[Hop, ...] = ()
    edits: tuple[Fact, ...] = ()
    probability: float = 1.0
    strategy: str = ""
    planner: str = ""
    cost: Cost = field(default_factory=Cost)
    notice: str = ""

    @property
    def in_scope(self) -> bool:
        """Whether an edit was used."""
        return bool(self.edits)

    def __str__(self) -> str:
        lines = [self.text]
        lines += [f"  {number}. {hop}" for number, hop in enumerate(self.hops, 1)]
        if not self.in_scope:
            lines.append(f"  ({self.notice or _OWN})")
        cost = self.cost
        lines.append(
            f"  {self.strategy}: {cost.model_calls} model calls, "
            f"{cost.prompt_tokens} + {cost.completion_tokens} tokens, {cost.seconds:.2f} s"
        )
        return "\n".join(lines)


_OWN = "no edit in scope: the base model's own answer"
