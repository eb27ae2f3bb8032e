"""What the answer is, given the question and the chain of facts behind it (SERAC's counterfactual model).

Where the question asks for the slot at the end of the chain, the answer is that object, and no model is asked. Where
it is a yes/no question, a request to write, or a question about a free-text fact, the base model answers with the
chain in its prompt.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from memedit.answer import Hop
from memedit.memory.fact import Fact
from memedit.models.base import Message, Sampling
from memedit.prompts import render
from memedit.strategies.base import Step, complete

ANSWER_TOKENS = 96

_ASKS_FOR_SLOT = re.compile(r"\b(who|whom|whose|what|which|where|when|in which|name|identify|tell me)\b", re.IGNORECASE)
_YES_OR_NO = re.compile(
    r"^\W*(is|are|was|were|am|do|does|did|has|have|had|can|could|will|would|should|may|might|must|isn't|aren't|wasn't|"
    r"weren't|doesn't|don't|didn't|hasn't)\b",
    re.IGNORECASE,
)
_WRITES = re.compile(
    r"^\W*(why|how (?!is .* called)|write|explain|describe|summari[sz]e|list|compare|translate|compose|draft|tell me (?:a|more|about)|give me)\b",
    re.IGNORECASE,
)
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
    if _YES_OR_NO.match(question) or _WRITES.match(question):
        return False
    return bool(_ASKS_FOR_SLOT.search(question) or _ENDS_OPEN.search(question.strip()))


def counterfactual_prompt(question: str, facts: Sequence[Fact], hops: Sequence[Hop]) -> list[Message]:
    """The chat that asks the base model `question` given what the memory says."""
    system = render("facts.jinja", statements=[fact.statement for fact in facts], hops=hops)
    return [{"role": "system", "content": system}, {"role": "user", "content": question}]


def answer_text(question: str, facts: Sequence[Fact], hops: Sequence[Hop]) -> Step[str]:
    """The answer to an in-scope question; a step of a strategy, used with ``yield from``.

    Args:
        question: The question.
        facts: The edits in scope, at least one.
        hops: The resolved chain; empty for a free-text fact.
    """
    if hops and asks_for_object(question):
        return hops[-1].object
    completion = yield from complete(counterfactual_prompt(question, facts, hops), Sampling(max_tokens=ANSWER_TOKENS))
    return completion.text.strip()
