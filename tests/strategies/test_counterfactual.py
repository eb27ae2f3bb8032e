"""The counterfactual answer: the object where it is asked for, the base model with the facts where it is not."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from memedit.answer import Hop
from memedit.counterfactual import answer_text, asks_for_object, counterfactual_prompt
from memedit.memory.fact import Fact
from memedit.models.base import Completion
from memedit.strategies.base import Complete

FACT = Fact(
    id=7,
    namespace="default",
    subject="France",
    relation="P36",
    object="Lyon",
    statement="The capital of France is Lyon.",
    recorded_at=datetime(2026, 1, 1, tzinfo=UTC),
    transaction=1,
)
HOP = Hop("France", "P36", "capital", "Lyon", "edit", 7)


@pytest.mark.parametrize(
    "question",
    [
        "What is the capital of France?",
        "In which city does the French president reside?",
        "The capital of France is",
        "Name the capital of France.",
        "Tell me who founded the town.",
        "Of which country is Lyon the capital?",
    ],
)
def test_a_question_for_the_slot_asks_for_the_object(question: str) -> None:
    assert asks_for_object(question)


@pytest.mark.parametrize(
    "question",
    [
        "Is Lyon the capital of France?",
        "Does France have its capital in Paris?",
        "Wasn't Paris the capital of France?",
        "Write a poem about the capital of France.",
        "Explain why the capital moved.",
        "Tell me about the capital of France.",
    ],
)
def test_other_requests_do_not(question: str) -> None:
    assert not asks_for_object(question)


def test_a_slot_question_is_answered_without_a_model() -> None:
    steps = answer_text("What is the capital of France?", (FACT,), (HOP,))

    with pytest.raises(StopIteration) as end:
        next(steps)

    assert end.value.value == "Lyon"


def test_a_yes_no_question_goes_to_the_model_with_the_fact_in_its_prompt() -> None:
    steps = answer_text("Is Paris the capital of France?", (FACT,), (HOP,))

    request = next(steps)
    with pytest.raises(StopIteration) as end:
        steps.send(Completion(" No, it is Lyon.\n", 50, 6))

    assert isinstance(request, Complete)
    assert request.prompt == counterfactual_prompt("Is Paris the capital of France?", (FACT,), (HOP,))
    assert "The capital of France is Lyon." in str(request.prompt)
    assert end.value.value == "No, it is Lyon."


def test_a_free_text_fact_has_no_slot_and_goes_to_the_model() -> None:
    request = next(answer_text("When does the pool open?", (FACT,), ()))

    assert isinstance(request, Complete)
