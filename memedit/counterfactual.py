"""What the answer is, given the question and the chain of facts behind it (SERAC's counterfactual model).

Where the question asks for the slot at the end of the chain, the answer is that object; where it names the object and asks
for the subject, the subject; where it asks whether the object is so and so, the two are compared. All that is certain and
asks no model. Where it asks something about the object, the base model is asked that. Everything else (free-text facts,
requests to write, claims that cannot be read) goes to the counterfactual model with the chain in its prompt: the base model, or
the embedded one with an adapter (`memedit.counterfactual_adapter`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from memedit.answer import Hop
from memedit.claims import Names, builtin_names, is_yes_or_no, judge, names_entity
from memedit.errors import UnknownRelation
from memedit.memory.fact import Fact
from memedit.models.base import Message, Sampling
from memedit.nested import question_left
from memedit.prompts import render
from memedit.prompts.belief import BELIEF_STOP, BELIEF_TOKENS, parse_belief, short_answer_prompt
from memedit.prompts.data import as_data, data_steps
from memedit.strategies.base import Step, complete

ANSWER_TOKENS = 96

_ASKS_FOR_SLOT = re.compile(
    r"\b(who|whom|whose|what|which|where|when|in which|name|identify|tell me|how (?:high|many|much|old|long|tall|far|large|big|deep))\b",
    re.IGNORECASE,
)
_YES_OR_NO = re.compile(
    r"^\W*(is|are|was|were|am|do|does|did|has|have|had|can|could|will|would|should|may|might|must|isn't|aren't|wasn't|"
    r"weren't|doesn't|don't|didn't|hasn't)\b",
    re.IGNORECASE,
)
_WRITES = re.compile(
    r"^\W*(why|how (?!is .* called|high|many|much|old|long|tall|far|large|big|deep)|write|explain|describe|summari[sz]e|list|compare|translate|compose|draft|tell me (?:a|more|about)|give me)\b",
    re.IGNORECASE,
)
_ASKS_FOR_HOLDER = re.compile(
    r"\b(which|what) (country|nation|state|place|city|company|firm|business|organi[sz]ation|institution|university|team|"
    r"club|party|group|band|church|product|office|position|book|work)\b",
    re.IGNORECASE,
)
_QUESTION_AND_ANSWER = re.compile(r"^(?P<question>[^?]+\?)\s+(?P<answer>[^?]+?)\.?$")
_SENTENCE_END = re.compile(r"(?<=\w\w[.?!])\s+(?=[\"“A-Z0-9])|\n+")
_ENDS_OPEN = re.compile(r"[^.?!]$")


def asks_for_object(question: str) -> bool:
    """Whether the object at the end of a chain is itself the answer to `question`.

    A cloze ("The capital of France is") asks for the object too.

        >>> asks_for_object("What is the capital of France?")
        True
        >>> asks_for_object("The capital of France is")
        True
        >>> asks_for_object("Is Lyon the capital of France?")
        False
        >>> asks_for_object("Write a poem about the capital of France.")
        False
    """
    if _YES_OR_NO.match(question) or _WRITES.match(question) or is_yes_or_no(question):
        return False
    return bool(_ASKS_FOR_SLOT.search(question) or _ENDS_OPEN.search(question.strip()))


def settle(question: str, facts: Sequence[Fact], hops: Sequence[Hop], names: Names | None = None) -> str | None:
    """The answer that a chain gives without a model, or None where it is not certain.

    Args:
        question: The question.
        facts: The edits in scope.
        hops: The resolved chain; empty for a free-text fact.
        names: Tell names and relations apart; the built-in ones if None.
    """
    names = names or builtin_names()
    if not hops:
        return _given_answer(question, facts)
    question = _asking_part(question, hops[0].entity)
    if not asks_for_object(question):
        return judge(question, facts, hops, names)
    only = hops[0]
    if len(hops) == 1 and question_left(question, only, names):
        return None
    if len(hops) > 1 or names_entity(question, only.entity, names) or not names_entity(question, only.object, names):
        return hops[-1].object
    # It names the object and not the subject: what it asks for is the subject, or something else altogether.
    return only.entity if _leads_back(question, only, names) else None


def left_to_ask(question: str, hops: Sequence[Hop], names: Names | None = None) -> str | None:
    """What a question asks of the object at the end of a chain ("What is the highest peak in Australia?"), with no relation of
    the catalogue; None where the chain says it all.

    Chains of several hops were chosen because they say it all.
    """
    if len(hops) != 1:
        return None
    part = _asking_part(question, hops[0].entity)
    return question_left(part, hops[0], names or builtin_names()) if asks_for_object(part) else None


def counterfactual_prompt(question: str, facts: Sequence[Fact], hops: Sequence[Hop]) -> list[Message]:
    """The chat that asks a model `question` given what the memory says."""
    system = render("facts.jinja", statements=[as_data(fact.statement) for fact in facts], hops=data_steps(hops))
    return [{"role": "system", "content": system}, {"role": "user", "content": question}]


def answer_text(question: str, facts: Sequence[Fact], hops: Sequence[Hop], names: Names | None = None) -> Step[str]:
    """The answer to an in-scope question; a step of a strategy, used with ``yield from``.

    Args:
        question: The question.
        facts: The edits in scope, at least one.
        hops: The resolved chain; empty for a free-text fact.
        names: Tell names and relations apart, usually the `MemoryView`; the built-in ones if None.
    """
    settled = settle(question, facts, hops, names)
    if settled is not None:
        return settled
    left = left_to_ask(question, hops, names)
    if left is not None:
        told = yield from complete(short_answer_prompt(left), Sampling(max_tokens=BELIEF_TOKENS, stop=BELIEF_STOP))
        if parse_belief(told.text):
            return parse_belief(told.text)
    prompt = counterfactual_prompt(question, facts, hops)
    completion = yield from complete(prompt, Sampling(max_tokens=ANSWER_TOKENS), counterfactual=True)
    return completion.text.strip()


def _given_answer(question: str, facts: Sequence[Fact]) -> str | None:
    """The answer that a free-text fact was given with ("Who wrote Nimbus? Ada Quill."), to a question for it."""
    match = _QUESTION_AND_ANSWER.match(facts[0].statement) if len(facts) == 1 else None
    if match is None:
        return None
    own = match.group("question").casefold() == question.strip().casefold()
    asks = not (_YES_OR_NO.match(question) or _WRITES.match(question) or is_yes_or_no(question))
    return match.group("answer") if own or asks else None


def _asking_part(question: str, entity: str) -> str:
    """The question from the sentence on that names the entity last: what comes before it may be about anything."""
    at = question.casefold().rfind(entity.casefold())
    starts = [match.end() for match in _SENTENCE_END.finditer(question, 0, max(at, 0))]
    return question[starts[-1] :] if starts else question


def _leads_back(question: str, hop: Hop, names: Names) -> bool:
    """Whether a question that names the object of a hop asks for its subject, and the object has one only."""
    try:
        relation = names.catalogue.get(hop.relation)
    except UnknownRelation:
        return False
    asked = names.catalogue.parse_question(question)
    if asked is not None and names.resolve(asked[0]) == names.resolve(hop.object):
        return asked[1] == relation.inverse or (relation.symmetric and asked[1] == relation.id)
    if not (_ASKS_FOR_HOLDER.search(question) or _ENDS_OPEN.search(question.strip())):
        return False
    # Who holds an office of an organisation or a country seldom holds two.
    held = relation.object_types == {"person"} and bool(relation.subject_types & {"organization", "country"})
    return relation.inverse is not None or relation.symmetric or held
