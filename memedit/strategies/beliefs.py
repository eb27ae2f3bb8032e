"""What the base model believes about a slot: one hop that no edit holds. A step of strategies that does no I/O."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from memedit.memory.fact import Relation
from memedit.models.base import Sampling
from memedit.prompts.belief import BELIEF_STOP, BELIEF_TOKENS, belief_prompt, parse_belief, short_answer_prompt
from memedit.strategies.base import Step, complete

if TYPE_CHECKING:
    from memedit.memory.memory import MemoryView


class Belief(NamedTuple):
    """What the base model says of a slot.

    Attributes:
        name: What it names; empty where it names nothing.
        log_probability: Of what it wrote, where it tells.
    """

    name: str
    log_probability: float | None = None


def ask_belief(view: MemoryView, entity: str, relation: str, *, probability: bool = False) -> Step[Belief]:
    """What the base model believes about a slot; with its probability, where that is wanted and the model tells.

    A belief that only adds to the entity's name ("NBC Sports" for the city where NBC is) is no answer: it is asked once more, in
    another form.
    """
    asked = view.catalogue.get(relation)
    sampling = Sampling(max_tokens=BELIEF_TOKENS, stop=BELIEF_STOP, probability=probability)
    for prompt in (belief_prompt(asked, entity), short_answer_prompt(asked.ask(entity))):
        completion = yield from complete(prompt, sampling)
        name = parse_belief(completion.text)
        if not (name.casefold().startswith(f"{entity.casefold()} ") and _leads_to_another_kind(asked)):
            return Belief(name, completion.log_probability)
    return Belief("", None)


def _leads_to_another_kind(relation: Relation) -> bool:
    """Whether what a relation leads from and what it leads to are told apart by their kinds."""
    kinds, others = relation.subject_types, relation.object_types
    return bool(kinds and others) and "thing" not in kinds | others and not kinds & others
