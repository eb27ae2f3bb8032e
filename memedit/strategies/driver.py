"""Runs strategies: serves what their generators ask for, one question at a time or hundreds side by side.

Every round, the requests of all questions in flight are merged: one batch for the base model, one for the embedder,
one for the planner. Knows nothing of what a strategy does with the results.
"""

from __future__ import annotations

import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Generic, NamedTuple

from memedit.answer import Answer, Cost
from memedit.errors import InvalidSpec
from memedit.memory.fact import Hit
from memedit.models.base import Completion, LanguageModel, Prompt, Sampling, Score
from memedit.planner import PathScorer, Planner
from memedit.scope import ScopeClassifier
from memedit.strategies.base import (
    Complete,
    Embed,
    MakePlans,
    Measure,
    Nearest,
    Plan,
    Rate,
    Read,
    Request,
    Retrieve,
    Scoped,
    ScorePaths,
    Size,
    Step,
    Steps,
    T,
)

if TYPE_CHECKING:
    from memedit.memory.embedder import Vectors
    from memedit.memory.memory import MemoryView
    from memedit.planner_gate import PlannerGate

SIDE_BY_SIDE = 256
"""Most questions in flight at once."""


@dataclass(frozen=True, slots=True)
class Toolbox:
    """What serves the requests of strategies.

    Attributes:
        model: Gives the base model; called when it is first needed.
        scope: Serves `Retrieve`.
        planner: Serves `MakePlans`.
        scorer: Serves `ScorePaths`.
        counterfactual: Gives the counterfactual model; the base model if None.
        side: Where the planner works while scope is told, for `Read`; None to do one after the other.
        gate: Tells the questions that the planner should read, for `Read`; all of them if None.
    """

    model: Callable[[], LanguageModel]
    scope: ScopeClassifier
    planner: Planner
    scorer: PathScorer
    counterfactual: Callable[[], LanguageModel] | None = None
    side: Executor | None = None
    gate: PlannerGate | None = None

    def serve(self, requests: Sequence[Request]) -> list[object]:
        """The result of each request, in order; requests of a kind are served in one batch.

        Raises:
            ModelError: The base model failed.
        """
        results: list[object] = [None] * len(requests)
        by_kind: dict[object, list[int]] = defaultdict(list)
        for place, request in enumerate(requests):
            by_kind[_kind(request)].append(place)
        for places in by_kind.values():
            served = self._serve_kind([requests[place] for place in places])
            for place, result in zip(places, served, strict=True):
                results[place] = result
        return results

    def _serve_kind(self, requests: Sequence[Request]) -> Sequence[object]:
        match requests[0]:
            case Complete(sampling=sampling, counterfactual=counterfactual):
                model = self.counterfactual if counterfactual and self.counterfactual is not None else self.model
                return _complete(model(), [r.prompt for r in requests if isinstance(r, Complete)], sampling)
            case Rate():
                return self._rate([(r.prompt, r.continuation) for r in requests if isinstance(r, Rate)])
            case Retrieve():
                return self._retrieve([r for r in requests if isinstance(r, Retrieve)])
            case Nearest():
                return _nearest([r for r in requests if isinstance(r, Nearest)])
            case Embed():
                return _embed([(r.view, r.texts) for r in requests if isinstance(r, Embed)])
            case Measure():
                return self._measure([r.prompt for r in requests if isinstance(r, Measure)])
            case MakePlans():
                return self.planner.plan([(r.question, r.view) for r in requests if isinstance(r, MakePlans)])
            case Read():
                return self._read([r for r in requests if isinstance(r, Read)])
            case ScorePaths():
                return self.scorer.score([r for r in requests if isinstance(r, ScorePaths)])

    def _retrieve(self, requests: Sequence[Retrieve]) -> list[list[Scoped]]:
        """What the classifier finds, each fact judged by the classifier's own threshold."""
        found = self.scope.retrieve([(r.view, r.text, r.k) for r in requests])
        threshold = self.scope.threshold
        return [[one._replace(in_scope=one.probability >= threshold) for one in scoped] for scoped in found]

    def _read(self, requests: Sequence[Read]) -> list[tuple[list[Scoped], list[Plan]]]:
        questions = [(one.question, one.view) for one in requests]
        worth = self.gate.worth_planning(questions) if self.gate is not None else [True] * len(questions)
        chosen = [question for question, is_worth in zip(questions, worth, strict=True) if is_worth]
        planning = self.side.submit(self.planner.plan, chosen) if self.side is not None and chosen else None
        scoped = self._retrieve([Retrieve(one.view, one.question, one.k) for one in requests])
        plans = iter(self.planner.plan(chosen) if planning is None else planning.result())
        return [(found, next(plans) if is_worth else []) for found, is_worth in zip(scoped, worth, strict=True)]

    def _measure(self, prompts: Sequence[Prompt]) -> list[Size]:
        model = self.model()
        return [Size(model.count_tokens(prompt), model.context_length) for prompt in prompts]

    def _rate(self, pairs: Sequence[tuple[Prompt, str]]) -> Sequence[Score | None]:
        try:
            return self.model().score(pairs)
        except InvalidSpec:  # a server that does not tell probabilities
            return [None] * len(pairs)


def _complete(model: LanguageModel, prompts: Sequence[Prompt], sampling: Sampling) -> list[Completion]:
    """Complete the prompts, each distinct one once where decoding is greedy."""
    if sampling.temperature > 0:
        return model.generate(prompts, sampling)
    keys = [_key(prompt) for prompt in prompts]
    distinct = dict(zip(keys, prompts, strict=True))
    completions = dict(zip(distinct, model.generate(list(distinct.values()), sampling), strict=True))
    return [completions[key] for key in keys]


def _nearest(requests: Sequence[Nearest]) -> list[list[Hit]]:
    vectors = _embed([(r.view, (r.text,)) for r in requests])
    return [r.view.search(vector, r.k)[0] for r, vector in zip(requests, vectors, strict=True)]


def _embed(requests: Sequence[tuple[MemoryView, tuple[str, ...]]]) -> list[Vectors]:
    """The vectors of each request's texts; one call for each embedder, with each distinct text once."""
    by_embedder: dict[int, dict[str, int]] = defaultdict(dict)
    embedders = {id(view.memory.embedder): view.memory.embedder for view, _ in requests}
    for view, texts in requests:
        rows = by_embedder[id(view.memory.embedder)]
        for text in texts:
            rows.setdefault(text, len(rows))
    encoded = {number: embedders[number].encode(list(rows)) for number, rows in by_embedder.items()}
    return [
        encoded[number][[by_embedder[number][text] for text in texts]]
        for number, texts in ((id(view.memory.embedder), texts) for view, texts in requests)
    ]


def _kind(request: Request) -> object:
    """What requests must share to be served in one batch."""
    if not isinstance(request, Complete):
        return type(request)
    schema = request.sampling.json_schema  # a mapping, which does not hash
    sampling = replace(request.sampling, json_schema=None)
    return sampling, None if schema is None else json.dumps(schema), request.counterfactual


def _key(prompt: Prompt) -> object:
    if isinstance(prompt, str):
        return prompt
    return tuple(tuple(sorted(message.items())) for message in prompt)


class Outcome(NamedTuple, Generic[T]):
    """What a generator came to.

    Attributes:
        place: Its place among the jobs.
        result: What it returned.
        cost: What it cost. Its seconds are its share of the wall-clock time: each round's duration is divided among
            the jobs in flight.
    """

    place: int
    result: T
    cost: Cost


def run(steps: Step[T], tools: Toolbox) -> Outcome[T]:
    """Run one generator to its end.

    Raises:
        ModelError: The base model failed.
    """
    return next(run_each([steps], tools))


def answer_many(
    jobs: Iterable[Steps],
    tools: Toolbox,
    *,
    side_by_side: int = SIDE_BY_SIDE,
    on_answer: Callable[[int, Answer], None] | None = None,
) -> list[Answer]:
    """Run strategies side by side; answers, with their costs, in the order of `jobs`.

    Args:
        jobs: The generators, started lazily as places fall free.
        tools: What serves them.
        side_by_side: Most questions in flight at once.
        on_answer: Called with (place, answer) as each is finished.

    Raises:
        ModelError: The base model failed.
    """
    answers: dict[int, Answer] = {}
    for outcome in run_each(jobs, tools, side_by_side=side_by_side):
        answers[outcome.place] = replace(outcome.result, cost=outcome.cost)
        if on_answer is not None:
            on_answer(outcome.place, answers[outcome.place])
    return [answers[place] for place in range(len(answers))]


def run_each(jobs: Iterable[Step[T]], tools: Toolbox, *, side_by_side: int = SIDE_BY_SIDE) -> Iterator[Outcome[T]]:
    """Run generators side by side and yield each outcome as it comes, in no fixed order."""
    waiting = enumerate(jobs)
    active: list[_Job[T]] = []
    while True:
        while len(active) < side_by_side and (following := next(waiting, None)) is not None:
            active.append(_Job(*following))
            active[-1].advance(None)
        if not active:
            return
        yield from (job.outcome() for job in active if job.request is None)
        active = [job for job in active if job.request is not None]
        if not active:
            continue
        began = time.perf_counter()
        results = tools.serve([job.request for job in active if job.request is not None])
        for job, result in zip(active, results, strict=True):
            job.advance(result)
        share = (time.perf_counter() - began) / len(active)
        for job in active:
            job.seconds += share


@dataclass(slots=True)
class _Job(Generic[T]):
    """A generator in flight: the request it waits for, and its cost so far. Without a request, it has ended."""

    place: int
    steps: Step[T]
    request: Request | None = None
    result: list[T] = field(default_factory=list)
    model_calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    seconds: float = 0.0

    def advance(self, result: object) -> None:
        """Send the result of the open request."""
        if isinstance(result, Completion):
            self.model_calls += 1
            self.prompt_tokens += result.prompt_tokens
            self.completion_tokens += result.completion_tokens
        elif isinstance(result, Score):
            self.model_calls += 1
        try:
            self.request = self.steps.send(result)
        except StopIteration as end:
            self.request = None
            self.result.append(end.value)

    def outcome(self) -> Outcome[T]:
        cost = Cost(self.model_calls, self.prompt_tokens, self.completion_tokens, self.seconds)
        return Outcome(self.place, self.result[0], cost)
