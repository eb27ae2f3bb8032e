"""Asking the base model for one hop that no edit holds, and reading what it says.

A few demonstrations of the same relation come first: measured on the embedded model over 400 hops of MQuAKE, they
name the right object for 34% against 27% with mixed demonstrations, 0% with a bare question.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files
from typing import NamedTuple

from memedit.memory.fact import Relation
from memedit.prompts import render
from memedit.prompts.data import as_data

BELIEF_TOKENS = 20
"""Most tokens of a belief: names are short."""

BELIEF_STOP = ("\n",)

DEMONSTRATIONS = 4
"""Demonstrations in a prompt."""


class Demonstration(NamedTuple):
    """A fact that nobody disputes, shown as a question and its answer.

    Attributes:
        relation: Relation id.
        subject: Name of the subject.
        object: Name of the object.
    """

    relation: str
    subject: str
    object: str


def belief_prompt(relation: Relation, subject: str) -> str:
    """The few-shot prompt that asks for the object of (subject, relation).

    Everything but the last question is the same for all subjects of a relation (save those that are demonstrations
    themselves, whose own demonstration is left out), so that a server's prefix cache holds.

        >>> from memedit.memory.catalogue import Catalogue
        >>> belief_prompt(Catalogue.default().get("P36"), "Iceland").splitlines()[-2:]
        ['Q: What is the capital of Iceland?', 'A:']
    """
    shown = [one for one in demonstrations(relation.id) if one.subject.casefold() != subject.casefold()]
    if relation.id == shown[0].relation:
        pairs = [(relation.ask(one.subject), one.object) for one in shown[:DEMONSTRATIONS]]
    else:
        pairs = [(_GENERIC[one.relation].replace("{subject}", one.subject), one.object) for one in shown]
    return render("belief.jinja", demonstrations=pairs, question=as_data(relation.ask(subject)))


def short_answer_prompt(question: str) -> str:
    """The few-shot prompt that asks any question that a name answers, without a sentence around it.

    The demonstrations ask for eight kinds of things: of 194 questions that go on where an edit of CounterFact ends, the
    embedded model answers 44 after these and 32 after questions of six relations of the catalogue.

    >>> short_answer_prompt("What is the highest peak in Australia?").splitlines()[-2:]
    ['Q: What is the highest peak in Australia?', 'A:']
    """
    return render("belief.jinja", demonstrations=_SHORT_ANSWERS, question=as_data(question))


def belief_claim(relation: Relation, subject: str, belief: str) -> tuple[str, str]:
    """The belief put as a statement, to see whether the model would make it too.

    A guess is seldom repeated in another form: of 400 beliefs of the embedded model, the probability of the claim tells
    right from wrong ones with an AUC of 0.88, that of the belief as it was given with 0.84.

    Returns:
        A prompt of statements that ends where the belief belongs, and the belief as its continuation.

        >>> from memedit.memory.catalogue import Catalogue
        >>> prompt, continuation = belief_claim(Catalogue.default().get("P36"), "Iceland", "Oslo")
        >>> prompt.splitlines()[-1], continuation
        ('The capital of Iceland is', ' Oslo')
    """
    opening = _opening(relation)
    shown = [one for one in demonstrations(relation.id) if one.subject.casefold() != subject.casefold()]
    if shown[0].relation == relation.id:
        lines = [f"{opening.replace('{subject}', one.subject)} {one.object}." for one in shown]
    else:
        lines = [f"{_STATED[one.relation].replace('{subject}', one.subject)} {one.object}." for one in shown]
    return "\n".join([*lines, as_data(opening.replace("{subject}", subject))]), f" {as_data(belief)}"


def _opening(relation: Relation) -> str:
    """A statement of the relation up to its object."""
    for statement in (relation.statement, *relation.statements):
        start, held, end = statement.partition("{object}")
        if held and "{subject}" in start and end.strip(" .") == "":
            return start.rstrip()
    return f"{relation.phrase[:1].upper()}{relation.phrase[1:]} is"


def demonstrations(relation: str) -> Sequence[Demonstration]:
    """The demonstrations of a relation, or a mixture where it has none."""
    by_relation = _demonstrations()
    if relation in by_relation:
        return by_relation[relation]
    return [by_relation[other][-1] for other in _GENERIC]


def parse_belief(text: str) -> str:
    r"""The name in what the model wrote; empty where there is none.

    >>> parse_belief(" Paris.")
    'Paris'
    >>> parse_belief(" J. R. R. Tolkien Jr.")
    'J. R. R. Tolkien Jr.'
    >>> parse_belief("\nQ: next")
    ''
    """
    line = text.split("\n", 1)[0].strip().strip('"“”').strip()
    if line.endswith(".") and not re.search(r"\b(?:[A-Z]|Jr|Sr|Inc|Co|Ltd|St|D\.C)\.$", line):
        line = line[:-1].rstrip()
    return line


_GENERIC = {
    "P36": "What is the capital of {subject}?",
    "P50": "Who wrote {subject}?",
    "P641": "Which sport does {subject} belong to?",
    "P27": "Which country is {subject} a citizen of?",
    "P178": "Who developed {subject}?",
    "P30": "On which continent is {subject}?",
}
_SHORT_ANSWERS = (
    ("What is the capital of Iceland?", "Reykjavik"),
    ("Who wrote War and Peace?", "Leo Tolstoy"),
    ("Which sport is played at Wimbledon?", "tennis"),
    ("What is the highest mountain in Japan?", "Mount Fuji"),
    ("Who founded Amazon?", "Jeff Bezos"),
    ("In which country is Swedish spoken?", "Sweden"),
    ("What is a famous dish from Italy?", "pizza"),
    ("What is a famous landmark in New York City?", "Statue of Liberty"),
)
_STATED = {
    "P36": "The capital of {subject} is",
    "P50": "The author of {subject} is",
    "P641": "The sport of {subject} is",
    "P27": "{subject} is a citizen of",
    "P178": "{subject} was developed by",
    "P30": "{subject} is on the continent of",
}


@lru_cache(maxsize=1)
def _demonstrations() -> dict[str, list[Demonstration]]:
    text = (files("memedit.prompts") / "demonstrations" / "beliefs.jsonl").read_text("utf-8")
    found: dict[str, list[Demonstration]] = {}
    for line in text.splitlines():
        one = Demonstration(**json.loads(line))
        found.setdefault(one.relation, []).append(one)
    return found
