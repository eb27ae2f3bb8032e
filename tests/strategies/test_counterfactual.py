"""The counterfactual answer: the object where it is asked for, the base model with the facts where it is not."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from memedit.answer import Hop
from memedit.counterfactual import answer_text, asks_for_object, counterfactual_prompt, settle
from memedit.counterfactual_adapter import choose_counterfactual
from memedit.errors import InvalidSpec
from memedit.memory.fact import Fact
from memedit.models.base import Completion
from memedit.models.scripted import ScriptedModel
from memedit.strategies.base import Complete, Plan, Scoped
from memedit.strategies.driver import Toolbox

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


def test_a_claim_that_can_be_read_is_answered_without_a_model() -> None:
    assert settle("Is Paris the capital of France?", (FACT,), (HOP,)) == "No, it is Lyon."


@pytest.mark.parametrize(
    "question",
    ["Which country is governed from Lyon?", "Of which country is Lyon the capital?", "Lyon is the capital of"],
)
def test_a_question_that_names_the_object_is_answered_with_the_subject(question: str) -> None:
    assert settle(question, (FACT,), (HOP,)) == "France"


def test_the_holder_of_an_office_leads_back_to_it_and_a_citizen_does_not() -> None:
    boss = Hop("Initech", "P169", "chief executive officer", "Bo Li", "edit", 7)
    citizen = Hop("Bo Li", "P27", "country of citizenship", "Norway", "edit", 7)

    assert settle("Which company does Bo Li run?", (FACT,), (boss,)) == "Initech"
    assert settle("Who comes from Norway?", (FACT,), (citizen,)) is None
    assert settle("Who is married to Bo Li?", (FACT,), (boss,)) is None


def test_a_question_that_asks_something_else_of_the_object_goes_to_the_model() -> None:
    assert settle("What is the population of Lyon?", (FACT,), (HOP,)) is None


def test_what_is_not_certain_goes_to_the_model_with_the_fact_in_its_prompt() -> None:
    question = "Was Paris ever the capital of France?"
    steps = answer_text(question, (FACT,), (HOP,))

    request = next(steps)
    with pytest.raises(StopIteration) as end:
        steps.send(Completion(" It was, before Lyon.\n", 50, 6))

    assert isinstance(request, Complete)
    assert request.prompt == counterfactual_prompt(question, (FACT,), (HOP,))
    assert "The capital of France is Lyon." in str(request.prompt)
    assert end.value.value == "It was, before Lyon."


def test_a_free_text_fact_has_no_slot_and_goes_to_the_model() -> None:
    request = next(answer_text("When does the pool open?", (FACT,), ()))

    assert isinstance(request, Complete)


@pytest.mark.parametrize("question", ["How endangered does anyone consider Foo?", "Is Foo endangered at all?"])
def test_the_very_question_of_a_fact_has_its_answer(question: str) -> None:
    fact = FACT.model_copy(update={"statement": f"{question} vulnerable", "relation": "free_text"})

    assert settle(question, (fact,), ()) == "vulnerable"
    assert settle("Is Foo common?", (fact,), ()) is None


def test_a_question_that_leaves_a_choice_in_words_of_its_own_is_answered_with_the_object() -> None:
    ann = Hop("Ann Lee", "P21", "sex or gender", "female", "edit", 7)
    father = Hop("Ann Lee", "P22", "father", "Dan Lee", "edit", 7)

    assert settle("Was Ann Lee male or feminine?", (FACT,), (ann,)) == "female"
    assert settle("Was Ann Lee male or not?", (FACT,), (ann,)) is None
    assert settle("Is Bo Lee the father of Ann Lee or Cy?", (FACT,), (father,)) is None


def test_the_counterfactual_model_is_asked_apart_from_the_base_model() -> None:
    base, edited = ScriptedModel(lambda text: "base"), ScriptedModel(lambda text: "edited")
    tools = Toolbox(lambda: base, Nothing(), Nothing(), Nothing(), lambda: edited)

    asked = tools.serve([Complete("a"), Complete("a", counterfactual=True), Complete("b")])
    alone = Toolbox(lambda: base, Nothing(), Nothing(), Nothing()).serve([Complete("a", counterfactual=True)])

    assert [one.text for one in asked if isinstance(one, Completion)] == ["base", "edited", "base"]
    assert [one.text for one in alone if isinstance(one, Completion)] == ["base"]


def test_which_model_answers_is_chosen_by_name_or_given(monkeypatch: pytest.MonkeyPatch) -> None:
    own = ScriptedModel(lambda text: "own")
    monkeypatch.setattr("memedit.counterfactual_adapter.has_adapter", lambda folder=None: True)
    monkeypatch.setattr("memedit.counterfactual_adapter.load_adapted", lambda: own)

    given, adapter = choose_counterfactual(own, "embedded"), choose_counterfactual("auto", "embedded")

    assert given is not None
    assert adapter is not None
    assert given() is adapter() is own
    assert choose_counterfactual("auto", "hf:gpt2") is None
    assert choose_counterfactual("base", "embedded") is None
    with pytest.raises(InvalidSpec, match="colour"):
        choose_counterfactual("colour", "embedded")


class Nothing:
    """Serves what these tests do not ask for."""

    threshold = 0.5

    def retrieve(self, requests: object) -> list[list[Scoped]]:
        raise AssertionError

    def plan(self, questions: object) -> list[list[Plan]]:
        raise AssertionError

    def score(self, requests: object) -> list[list[float]]:
        raise AssertionError
