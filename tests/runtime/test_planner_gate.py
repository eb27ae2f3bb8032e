"""The gate before the planner: it lets questions about facts through and keeps small talk back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from memedit.memory.embedder import SentenceEmbedder
from memedit.memory.memory import EditMemory
from memedit.planner_gate import LONGEST, PlannerGate

QUESTIONS = (
    "Who is the chief executive officer of Apple?",
    "What is the capital of the country where Albert Einstein was born?",
    "The mother tongue of Danielle Darrieux is",
    "what language does the author of emma speak",
    "In which league does the club of Lionel Messi play?",
)
TALK = (
    "Write a short poem about autumn for my landlord.",
    "Summarise the pros and cons of used cameras.",
    "Hello, how are you?",
    "Explain to a shy child in two sentences why rain barrels matter.",
    "Give me five tips on learning the guitar.",
)


@pytest.fixture(scope="module")
def memory() -> Iterator[EditMemory]:
    with EditMemory(embedder=SentenceEmbedder()) as memory:
        yield memory


def test_questions_about_facts_are_planned_and_tasks_are_not(memory: EditMemory) -> None:
    view = memory.view()

    worth = PlannerGate().worth_planning([(text, view) for text in (*QUESTIONS, *TALK)])

    assert worth == [True] * len(QUESTIONS) + [False] * len(TALK)


def test_a_long_text_is_planned_whatever_it_says(memory: EditMemory) -> None:
    assert PlannerGate().worth_planning([(TALK[0] * (LONGEST // len(TALK[0]) + 1), memory.view())]) == [True]


def test_without_a_gate_or_with_another_embedder_every_question_is_planned(memory: EditMemory, tmp_path: Path) -> None:
    class Other(SentenceEmbedder):
        name = "other"

    assert PlannerGate(tmp_path).worth_planning([(TALK[0], memory.view())]) == [True]
    with EditMemory(embedder=Other(), embed_on_write=False) as another:
        assert PlannerGate().worth_planning([(TALK[0], another.view())]) == [True]
