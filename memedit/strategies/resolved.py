"""From what a question is about to its answer: what every strategy that is a `Resolver` does after resolving."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from memedit.answer import Answer, Hop, HopSource
from memedit.counterfactual import answer_text
from memedit.memory.fact import Fact
from memedit.strategies.base import Resolver, Steps
from memedit.strategies.direct import ask_base

if TYPE_CHECKING:
    from memedit.memory.memory import MemoryView


def answer_resolved(resolver: Resolver, question: str, view: MemoryView) -> Steps:
    """The base model's own answer where no edit is in scope, else the counterfactual model's."""
    found = yield from resolver.resolve(question, view)
    if not found.facts:
        return (yield from ask_base(question, resolver.name, found.probability))
    text = yield from answer_text(question, found.facts, found.hops, view)
    return Answer(question, text, found.hops, found.facts, found.probability, resolver.name, found.planner)


def edit_hop(view: MemoryView, fact: Fact, probability: float, *, joined: Sequence[Fact] = ()) -> Hop:
    """The hop that a fact makes; `joined` gives the objects of a slot with several."""
    objects = ", ".join(one.object for one in joined) if joined else fact.object
    label = view.catalogue.get(fact.relation).label
    source: HopSource = "edit" if fact.implied_from is None else "implied"
    return Hop(fact.subject, fact.relation, label, objects, source, fact.id, probability)
