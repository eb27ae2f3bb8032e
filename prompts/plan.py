"""Asking a strong base model for the decomposition of a question, and reading it.

The question forms of the nearest edits are shown first: guiding a decomposition by what the memory can answer beats
showing the edits' answers (IRAKE). The output is held to a schema, since line protocols collapse on chat models.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from memedit.memory.fact import Relation
from memedit.prompts import render

PLAN_TOKENS = 96
"""Most tokens of a decomposition."""

_MAX_HOPS = 4


class Decomposition(NamedTuple):
    """What the model made of a question.

    Attributes:
        start: The start entity, as the question names it.
        relations: Ids of the relations to follow from it, one to four.
    """

    start: str
    relations: tuple[str, ...]


def plan_prompt(question: str, relations: Sequence[Relation], asked: Sequence[str]) -> str:
    """The prompt that asks for a decomposition.

    Args:
        question: The question.
        relations: The relations to choose from.
        asked: Questions that edits answer.
    """
    return render("plan.jinja", question=question, relations=relations, asked=asked)


def plan_schema(relations: Sequence[Relation]) -> Mapping[str, object]:
    """The JSON schema of a decomposition over some relations."""
    labels = [relation.label for relation in relations]
    chain = {"type": "array", "items": {"enum": labels}, "minItems": 0, "maxItems": _MAX_HOPS}
    return {
        "type": "object",
        "properties": {"start": {"type": "string"}, "relations": chain},
        "required": ["start", "relations"],
        "additionalProperties": False,
    }


def parse_plan(text: str, question: str, relations: Sequence[Relation]) -> Decomposition | None:
    """The decomposition in what the model wrote.

    Returns:
        None where it is cut off, names no start entity that the question holds, or has no relations: "not a chain".
    """
    by_label = {relation.label: relation.id for relation in relations}
    try:
        value = json.loads(text)
        start, chain = str(value["start"]).strip(), [by_label[label] for label in value["relations"]]
    except (ValueError, KeyError, TypeError):
        return None
    at = question.casefold().find(start.casefold())
    if not start or at < 0 or not 1 <= len(chain) <= _MAX_HOPS:
        return None
    return Decomposition(question[at : at + len(start)], tuple(chain))
