"""The drivers: one batch a round for each kind of request, results to the right generator, costs to the right question."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

from memedit.answer import Answer
from memedit.errors import ModelUnavailable
from memedit.memory.fact import FactInput
from memedit.memory.memory import EditMemory
from memedit.models.base import Completion, Prompt, Sampling, Score
from memedit.strategies.base import (
    Complete,
    Embed,
    MakePlans,
    Measure,
    Nearest,
    Plan,
    Read,
    Retrieve,
    Scoped,
    ScorePaths,
    Size,
    Steps,
    complete,
    score_paths,
)
from memedit.strategies.driver import Toolbox, answer_many, run, run_each
from tests.memory.hash_embedder import HashEmbedder


@dataclass
class EchoModel:
    """Completes a prompt with itself in capitals, and remembers its batches."""

    name: str = "echo"
    context_length: int = 100
    batches: list[list[Prompt]] = field(default_factory=list)

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling = Sampling()) -> list[Completion]:
        self.batches.append(list(prompts))
        return [Completion(str(prompt).upper(), len(str(prompt)), 1) for prompt in prompts]

    def stream(self, prompt: Prompt, sampling: Sampling = Sampling()) -> list[str]:  # pragma: no cover
        raise AssertionError("not streamed here")

    def score(self, pairs: Sequence[tuple[Prompt, str]]) -> list[Score]:  # pragma: no cover
        raise AssertionError("not scored here")

    def count_tokens(self, prompt: Prompt) -> int:
        return len(str(prompt))


@dataclass
class LengthScorer:
    """Scores a chain by its length, and remembers its batches."""

    batches: list[int] = field(default_factory=list)

    def score(self, requests: Sequence[ScorePaths]) -> list[list[float]]:
        self.batches.append(len(requests))
        return [[float(len(chain)) for chain in request.chains] for request in requests]


class NoPlanner:
    def plan(self, questions: Sequence[tuple[str, object]]) -> list[list[Plan]]:
        return [[] for _ in questions]


class NoScope:
    threshold = 0.5

    def retrieve(self, requests: Sequence[tuple[object, str, int]]) -> list[list[Scoped]]:
        return [[] for _ in requests]


def tools(model: object, scorer: object | None = None) -> Toolbox:
    return Toolbox(lambda: model, NoScope(), NoPlanner(), scorer or LengthScorer())  # type: ignore[arg-type, return-value]


def say_twice(question: str) -> Steps:
    first = yield from complete(question)
    second = yield from complete(first.text + "!")
    return Answer(question, second.text)


def score_once(question: str) -> Steps:
    scores = yield from score_paths(question, (0, 1), [("a",), ("a", "b")])
    return Answer(question, str(scores))


def say_nothing(question: str) -> Steps:
    return Answer(question, "at once")
    yield MakePlans


def test_one_question_runs_to_its_answer() -> None:
    model = EchoModel()

    outcome = run(say_twice("hello"), tools(model))

    assert outcome.result.text == "HELLO!"
    assert model.batches == [["hello"], ["HELLO!"]]


def test_cost_counts_the_calls_and_tokens_of_each_question_apart() -> None:
    answers = answer_many([say_twice("ab"), say_nothing("cd")], tools(EchoModel()))

    assert (answers[0].cost.model_calls, answers[0].cost.prompt_tokens, answers[0].cost.completion_tokens) == (2, 5, 2)
    assert answers[1].cost.model_calls == 0
    assert answers[0].cost.seconds > 0


def test_questions_side_by_side_share_one_batch_a_round() -> None:
    model = EchoModel()

    answers = answer_many([say_twice(str(n)) for n in range(5)], tools(model))

    assert [answer.text for answer in answers] == ["0!", "1!", "2!", "3!", "4!"]
    assert [len(batch) for batch in model.batches] == [5, 5]


def test_a_prompt_asked_by_two_questions_in_a_round_is_sent_once_and_counted_for_both() -> None:
    model = EchoModel()

    answers = answer_many([say_twice("same"), say_twice("same")], tools(model))

    assert [len(batch) for batch in model.batches] == [1, 1]
    assert [answer.cost.model_calls for answer in answers] == [2, 2]


def test_no_more_than_the_limit_are_in_flight_and_places_are_refilled() -> None:
    model = EchoModel()

    answers = answer_many([say_twice(str(n)) for n in range(7)], tools(model), side_by_side=3)

    assert len(answers) == 7
    assert max(len(batch) for batch in model.batches) == 3


def test_jobs_that_need_nothing_end_without_a_round() -> None:
    model = EchoModel()

    answers = answer_many([say_nothing(str(n)) for n in range(5)], tools(model), side_by_side=2)

    assert [answer.question for answer in answers] == ["0", "1", "2", "3", "4"]
    assert model.batches == []


def test_requests_of_different_kinds_are_batched_by_kind() -> None:
    model, scorer = EchoModel(), LengthScorer()

    answers = answer_many([say_twice("x"), score_once("y"), score_once("z")], tools(model, scorer))

    assert scorer.batches == [2]
    assert answers[1].text == "[1.0, 2.0]"


def test_jobs_are_started_lazily() -> None:
    started: list[int] = []

    def job(number: int) -> Steps:
        started.append(number)
        return (yield from say_twice(str(number)))

    outcomes = run_each((job(n) for n in range(100)), tools(EchoModel()), side_by_side=2)
    next(outcomes)

    assert len(started) <= 4


def test_a_failing_model_is_reported_as_it_is() -> None:
    class Down(EchoModel):
        def generate(self, prompts: Sequence[Prompt], sampling: Sampling = Sampling()) -> list[Completion]:
            raise ModelUnavailable("The server at http://localhost:1 does not answer.", "Start it.")

    with pytest.raises(ModelUnavailable, match="Start it"):
        run(say_twice("hello"), tools(Down()))


def test_no_jobs_give_no_answers() -> None:
    assert answer_many([], tools(EchoModel())) == []


def test_a_facts_scope_is_decided_by_the_classifiers_threshold() -> None:
    class OneFact(NoScope):
        threshold = 0.7

        def retrieve(self, requests: Sequence[tuple[object, str, int]]) -> list[list[Scoped]]:
            return [[Scoped(text, 0.7), Scoped(text, 0.69)] for _, text, _ in requests]  # type: ignore[arg-type]

    tools = Toolbox(EchoModel, OneFact(), NoPlanner(), LengthScorer())  # type: ignore[arg-type]

    [found] = tools.serve([Retrieve(None, "text")])  # type: ignore[arg-type]

    assert [one.in_scope for one in found] == [True, False]  # type: ignore[attr-defined]


@pytest.mark.parametrize("aside", [False, True])
def test_scope_and_plans_of_a_question_come_as_a_pair_and_where_there_is_room_side_by_side(aside: bool) -> None:
    met = threading.Barrier(2, timeout=10)

    class Scopes(NoScope):
        def retrieve(self, requests: Sequence[tuple[object, str, int]]) -> list[list[Scoped]]:
            if aside:
                met.wait()
            return [[Scoped(text, 0.7)] for _, text, _ in requests]  # type: ignore[arg-type]

    class Plans(NoPlanner):
        def plan(self, questions: Sequence[tuple[str, object]]) -> list[list[Plan]]:
            if aside:
                met.wait()
            return [[Plan(text, (0, 1), ("P36",), 0.5)] for text, _ in questions]

    with ThreadPoolExecutor(1) as side:
        toolbox = Toolbox(EchoModel, Scopes(), Plans(), LengthScorer(), side=side if aside else None)  # type: ignore[arg-type]
        pairs = toolbox.serve([Read(None, "a"), Read(None, "b")])  # type: ignore[arg-type]

    expected = [([Scoped(text, 0.7, True)], [Plan(text, (0, 1), ("P36",), 0.5)]) for text in "ab"]  # type: ignore[arg-type]
    assert pairs == expected


def test_the_planner_reads_no_question_that_the_gate_keeps_back() -> None:
    class Gate:
        def worth_planning(self, questions: Sequence[tuple[str, object]]) -> list[bool]:
            return [text != "chat" for text, _ in questions]

    class Plans(NoPlanner):
        def plan(self, questions: Sequence[tuple[str, object]]) -> list[list[Plan]]:
            return [[Plan(text, (0, 1), ("P36",), 0.5)] for text, _ in questions]

    toolbox = Toolbox(EchoModel, NoScope(), Plans(), LengthScorer(), gate=Gate())  # type: ignore[arg-type]
    pairs = toolbox.serve([Read(None, "a"), Read(None, "chat"), Read(None, "b")])  # type: ignore[arg-type]

    planned = {"a": [Plan("a", (0, 1), ("P36",), 0.5)], "chat": [], "b": [Plan("b", (0, 1), ("P36",), 0.5)]}
    assert pairs == [([], plans) for plans in planned.values()]


def test_texts_are_embedded_once_however_many_ask_for_them() -> None:
    with EditMemory(embedder=HashEmbedder(), embed_on_write=False) as memory:
        view = memory.view()

        first, second = tools(EchoModel()).serve([Embed(view, ("a", "b")), Embed(view, ("b", "a", "b"))])

        assert isinstance(memory.embedder, HashEmbedder)
        assert memory.embedder.texts == ["a", "b"]
    assert [list(row) for row in second] == [list(first[row]) for row in (1, 0, 1)]  # type: ignore[attr-defined, index]


def test_the_nearest_facts_are_found_whatever_their_scope() -> None:
    with EditMemory(embedder=HashEmbedder()) as memory:
        memory.assert_facts([FactInput(statement="one is here now"), FactInput(statement="two is there then")])

        [hits, other] = tools(EchoModel()).serve(
            [Nearest(memory.view(), "two is there then"), Nearest(memory.view(), "one is here now", 2)]
        )

    assert [hit.fact.statement for hit in hits] == ["two is there then"]  # type: ignore[attr-defined]
    assert [hit.fact.id for hit in other] == [1, 2]  # type: ignore[attr-defined]


def test_a_prompt_is_measured_against_the_models_context() -> None:
    assert tools(EchoModel()).serve([Measure("twelve chars")]) == [Size(12, 100)]


def test_calls_under_different_schemas_are_different_batches() -> None:
    model = EchoModel()
    schemas = [{"type": "string"}, {"type": "object"}, {"type": "string"}]

    tools(model).serve([Complete(str(n), Sampling(json_schema=schema)) for n, schema in enumerate(schemas)])

    assert model.batches == [["0", "2"], ["1"]]
