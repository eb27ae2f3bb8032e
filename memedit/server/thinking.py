"""Resolvers of many requests at work side by side: what they ask of planner, scope classifier and embedder goes in batches.

The planner reads eight questions in twice the time that it takes for one, so requests that come together are thought about together,
and a request that comes later joins at the next round. What a resolver asks of the upstream server's model is handed
back to the caller, who waits for it elsewhere. Knows nothing of HTTP.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import NamedTuple

from memedit.memory.cores import use_one_core
from memedit.strategies.base import Complete, Measure, Rate, Request, Resolution, Step
from memedit.strategies.driver import Toolbox

TOGETHER = 8
"""Most resolvers at work in one thread. The planner reads eight questions in twice the time of one; the cross-encoder gains
nothing from more, and all wait for it."""
CORES_PER_THREAD = 4
"""A thread for so many cores: most of the work is in the embedder, which has threads of its own."""


_CACHES = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "256", "LRU_CACHE_CAPACITY": "256"}
"""How many shapes of a network's inputs PyTorch keeps compiled kernels for; by default so many that they take a gigabyte."""


class Stop(NamedTuple):
    """Where a resolver has stopped: at a question for the upstream server's model, or at its end."""

    request: Request | None
    found: Resolution | None


@dataclass(slots=True)
class _Job:
    """A resolver at work; its next result is to be sent to it."""

    steps: Step[Resolution]
    result: object
    tools: Toolbox
    future: Future[Stop] = field(default_factory=Future)
    request: Request | None = None

    def advance(self) -> bool:
        """Run to the next request; whether it is one that is served here."""
        try:
            self.request = self.steps.send(self.result)
        except StopIteration as end:
            self.future.set_result(Stop(None, end.value))
            return False
        except BaseException as error:  # it is the caller's, in another thread
            self.future.set_exception(error)
            return False
        if isinstance(self.request, Complete | Rate | Measure):
            self.future.set_result(Stop(self.request, None))
            return False
        return True


class Thinker:
    """Threads that run resolvers.

    Args:
        threads: How many; by default one for every four cores.

    Attributes:
        side: As many threads for planners to work in meanwhile (`Toolbox.side`).
    """

    def __init__(self, threads: int | None = None) -> None:
        self._count = threads or max(1, (os.cpu_count() or 1) // CORES_PER_THREAD)
        self._waiting: deque[_Job] = deque()
        self._changed = threading.Condition()
        self._threads: list[threading.Thread] = []
        self._closed = False
        self.side = ThreadPoolExecutor(self._count, "memedit-planner", initializer=use_one_core)
        for name, value in _CACHES.items():  # read when PyTorch runs its first network, which is yet to come
            os.environ.setdefault(name, value)

    async def advance(self, steps: Step[Resolution], result: object, tools: Toolbox) -> Stop:
        """Send a result to a resolver and run it to its next question for the model, or to its end.

        Args:
            steps: The resolver.
            result: What it waits for; None at its beginning.
            tools: Serves what it asks in between. Resolvers in one batch share planner, scope and scorer.

        Raises:
            Exception: What the resolver, or what serves it, raised.
        """
        job = _Job(steps, result, tools)
        with self._changed:
            if self._closed:
                raise RuntimeError("The thinker is closed.")
            if not self._threads:
                self._threads = [
                    threading.Thread(target=self._run, name=f"memedit-thinker-{number}", daemon=True)
                    for number in range(self._count)
                ]
                for thread in self._threads:
                    thread.start()
            self._waiting.append(job)
            self._changed.notify()
        return await asyncio.wrap_future(job.future)

    def close(self) -> None:
        """End the threads when they have nothing left to do."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()
        self.side.shutdown()

    def _run(self) -> None:
        use_one_core()
        active: list[_Job] = []
        while True:
            with self._changed:
                while not self._waiting and not active and not self._closed:
                    self._changed.wait()
                if not self._waiting and not active:
                    return
                while self._waiting and len(active) < TOGETHER:
                    job = self._waiting.popleft()
                    if job.future.set_running_or_notify_cancel():
                        active.append(job)
            active = _serve([job for job in active if job.advance()])


def _serve(jobs: Sequence[_Job]) -> list[_Job]:
    """Serve the request of every job; those that can go on."""
    if not jobs:
        return []
    try:
        results = jobs[0].tools.serve([job.request for job in jobs if job.request is not None])
    except Exception as error:  # one of them fails, and tells its own caller
        if len(jobs) > 1:
            return [served for job in jobs for served in _serve([job])]
        jobs[0].future.set_exception(error)
        return []
    for job, result in zip(jobs, results, strict=True):
        job.result = result
    return list(jobs)
