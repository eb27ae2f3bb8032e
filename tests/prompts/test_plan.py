"""Decompositions by the base model: what it is told, and what is made of its words."""

from __future__ import annotations

import json

import pytest

from memedit.memory.catalogue import Catalogue
from memedit.prompts.plan import parse_plan, plan_prompt, plan_schema

CATALOGUE = Catalogue.default()
RELATIONS = [CATALOGUE.get("P50"), CATALOGUE.get("P27")]
QUESTION = "Which country is the author of Misery a citizen of?"


def test_the_prompt_shows_the_relations_and_the_questions_of_edits() -> None:
    prompt = plan_prompt(QUESTION, RELATIONS, ["Who wrote Misery?"])

    assert f"- author: {CATALOGUE.get('P50').ask('X')}" in prompt
    assert "- Who wrote Misery?" in prompt
    assert prompt.rstrip().endswith(f"Question: {QUESTION}")


def test_the_schema_admits_the_relations_only() -> None:
    chain = plan_schema(RELATIONS)["properties"]["relations"]  # type: ignore[index]

    assert chain["items"] == {"enum": ["author", "country of citizenship"]}
    assert chain["maxItems"] == 4


def test_a_decomposition_names_the_start_as_the_question_does() -> None:
    text = json.dumps({"start": "misery", "relations": ["author", "country of citizenship"]})

    assert parse_plan(text, QUESTION, RELATIONS) == ("Misery", ("P50", "P27"))


@pytest.mark.parametrize(
    "text",
    [
        '{"start": "Misery", "rela',
        '{"start": "Misery", "relations": []}',
        '{"start": "It", "relations": ["author"]}',
        '{"start": "Misery", "relations": ["spouse"]}',
        '{"relations": ["author"]}',
        "[]",
        '{"start": "", "relations": ["author"]}',
    ],
)
def test_what_is_no_decomposition_is_none(text: str) -> None:
    assert parse_plan(text, "Who wrote Misery?", RELATIONS) is None
