"""The thinker: resolvers that come together are served together, and each fails, stops and ends by itself."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import cast

import pytest

from memedit.memory.memory import EditMemory, MemoryView
from memedit.server.thinking import TOGETHER, Stop, Thinker
from memedit.strategies.base import Complete, MakePlans, Request, Resolution, Step
from memedit.strategies.driver import Toolbox


@dataclass
class Tools:
    """Stands for a toolbox: notes what it is asked together, and fails on the question "bad".

    Attributes:
        batches: The questions of each batch.
        gate: What `serve` waits for before it answers.
    """

    batches: list[list[str]] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)

    def serve(self, requests: Sequence[Request]) -> list[object]:
        asked = [one.question for one in requests if isinstance(one, MakePlans)]
        self.batches.append(asked)
        assert self.gate.wait(10)
        if "bad" in asked:
            raise ValueError("a bad question")
        return list(asked)


def resolver(question: str, view: MemoryView, rounds: int = 1) -> Step[Resolution]:
    """Asks its question so many times, and gives back what it was told last."""
    told = ""
    for _ in range(rounds):
        told = yield MakePlans(view, question)
    return Resolution(planner=told)


@pytest.fixture
def view() -> MemoryView:
    return EditMemory().view()


@pytest.fixture
def tools() -> Tools:
    return Tools()


def advance_all(tools: Tools, jobs: Sequence[Step[Resolution]]) -> list[Stop | BaseException]:
    """Start the first resolver, and the others while it is being served."""

    async def run() -> list[Stop | BaseException]:
        thinker = Thinker(threads=1)
        first, *others = (thinker.advance(job, None, cast("Toolbox", tools)) for job in jobs)
        running = [asyncio.create_task(first)]
        while not tools.batches:
            await asyncio.sleep(0.001)
        running += [asyncio.create_task(one) for one in others]
        await asyncio.sleep(0.01)
        tools.gate.set()
        stops = await asyncio.gather(*running, return_exceptions=True)
        thinker.close()
        return stops

    return asyncio.run(asyncio.wait_for(run(), 20))


def test_those_that_come_while_others_are_thought_about_are_served_together(tools: Tools, view: MemoryView) -> None:
    jobs = [resolver(f"q{number}", view) for number in range(6)]

    stops = advance_all(tools, jobs)

    assert [stop.found.planner for stop in stops if isinstance(stop, Stop) and stop.found] == [
        f"q{number}" for number in range(6)
    ]
    assert [len(batch) for batch in tools.batches] == [1, 5]


def test_no_batch_is_larger_than_the_bound(tools: Tools, view: MemoryView) -> None:
    jobs = [resolver(f"q{number}", view, rounds=2) for number in range(3 * TOGETHER)]

    stops = advance_all(tools, jobs)

    assert len(stops) == 3 * TOGETHER
    assert max(map(len, tools.batches)) == TOGETHER


def test_one_that_fails_takes_no_other_with_it(tools: Tools, view: MemoryView) -> None:
    jobs = [resolver(question, view) for question in ("first", "good", "bad", "fine")]

    stops = advance_all(tools, jobs)

    assert [type(stop) for stop in stops] == [Stop, Stop, ValueError, Stop]


def test_a_question_for_the_model_is_handed_back_and_its_answer_taken_on(tools: Tools, view: MemoryView) -> None:
    def asks_the_model() -> Step[Resolution]:
        planned = yield MakePlans(view, "plan")
        said = yield Complete("prompt")
        return Resolution(planner=f"{planned} {said}")

    async def run() -> tuple[Stop, Stop]:
        thinker, steps = Thinker(threads=1), asks_the_model()
        tools.gate.set()
        first = await thinker.advance(steps, None, cast("Toolbox", tools))
        second = await thinker.advance(steps, "an answer", cast("Toolbox", tools))
        thinker.close()
        return first, second

    first, second = asyncio.run(run())

    assert first == Stop(Complete("prompt"), None)
    assert second.found == Resolution(planner="plan an answer")


def test_what_a_resolver_raises_reaches_its_caller(tools: Tools) -> None:
    def breaks() -> Step[Resolution]:
        raise LookupError("no such thing")
        yield  # a generator

    async def run() -> Stop:
        thinker = Thinker(threads=1)
        try:
            return await thinker.advance(breaks(), None, cast("Toolbox", tools))
        finally:
            thinker.close()

    with pytest.raises(LookupError):
        asyncio.run(run())


def test_a_closed_thinker_takes_nothing_more(tools: Tools, view: MemoryView) -> None:
    thinker = Thinker()
    thinker.close()

    with pytest.raises(RuntimeError):
        asyncio.run(thinker.advance(resolver("late", view), None, cast("Toolbox", tools)))
