"""Requests mixed with writes: no error, no lost write, no answer from a fact that is known to be retracted.

The mix is bounded by `REQUESTS` and `WRITES`; `benchmarks/serving.py` runs one of ten thousand requests.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.server.conftest import Gate
from tests.server.upstream import MODEL, Sent, Upstream

REQUESTS, WRITES, CLIENTS = 300, 60, 6
LANDS = 12


class Book:
    """What clients know: which town each land's capital was last acknowledged to be, and which were acknowledged to be gone.

    Attributes:
        written: Id and town of every acknowledged fact, by land, in order.
        errors: What went wrong.
    """

    def __init__(self) -> None:
        self.written: dict[int, list[tuple[int, str]]] = {land: [] for land in range(LANDS)}
        self.gone: set[str] = set()
        self.errors: list[str] = []
        self._lock = threading.Lock()

    def record(self, land: int, fact: int, town: str) -> None:
        with self._lock:
            self.gone.update(other for _, other in self.written[land])
            self.written[land].append((fact, town))

    def retract(self, town: str) -> None:
        with self._lock:
            self.gone.add(town)

    def known_gone(self) -> frozenset[str]:
        with self._lock:
            return frozenset(self.gone)

    def fail(self, what: str) -> None:
        with self._lock:
            self.errors.append(what)


def says_the_fact(sent: Sent) -> str:
    """A model that follows its prompt: it says the town that the facts name."""
    words = sent.last.replace(".", " ").split()
    return next((word for word in words if word.startswith("Town")), "I do not know.")


def ask(client: httpx.Client, land: int, book: Book, *, stream: bool) -> None:
    """Ask for a capital; nothing that was gone before the question may be in the answer."""
    gone = book.known_gone()
    messages = [{"role": "user", "content": f"What is the capital of Freeland{land}?"}]
    body = {"model": MODEL, "messages": messages, "stream": stream}
    answer = client.post("/v1/chat/completions", json=body)
    if answer.status_code != 200 or '"error"' in answer.text:
        book.fail(f"{answer.status_code}: {answer.text[:200]}")
    told = {word.strip('".,\\}') for word in answer.text.replace(":", " ").split() if "Town" in word}
    if stale := {town for town in gone if any(town in word for word in told)}:
        book.fail(f"answered from {stale}, which was gone")


def write(client: httpx.Client, land: int, number: int, book: Book) -> None:
    """Record a capital, or retract the one that was recorded last."""
    if number % 4 == 3 and book.written[land]:
        fact, town = book.written[land][-1]
        answer = client.delete(f"/v1/memory/facts/{fact}")
        if answer.status_code == 200:
            book.retract(town)
        elif answer.status_code != 409:
            book.fail(f"retract: {answer.text[:200]}")
        return
    town = f"Town{land}n{number}q"
    answer = client.post("/v1/memory/facts", json={"statement": f"The capital of Freeland{land} is {town}."})
    if answer.status_code == 201:
        book.record(land, answer.json()["fact"]["id"], town)
    else:
        book.fail(f"add: {answer.text[:200]}")


@pytest.mark.slow
def test_requests_mixed_with_writes(gate: Gate, upstream: Upstream) -> None:
    upstream.reply = says_the_fact
    book, rng = Book(), random.Random(5)
    # Writes about a land come from one client, so that the order of their acknowledgements is that of the log.
    jobs: list[list[Callable[[httpx.Client], None]]] = [[] for _ in range(CLIENTS)]
    for number in range(WRITES):
        land = rng.randrange(LANDS)
        jobs[land % CLIENTS].append(lambda client, land=land, number=number: write(client, land, number, book))  # type: ignore[misc]
    for number in range(REQUESTS):
        land, stream = rng.randrange(LANDS), number % 3 == 0
        place = rng.randrange(len(jobs[number % CLIENTS]) + 1)
        jobs[number % CLIENTS].insert(
            place,
            lambda client, land=land, stream=stream: ask(client, land, book, stream=stream),  # type: ignore[misc]
        )

    def run(mine: list[Callable[[httpx.Client], None]]) -> None:
        headers = {"authorization": gate.client.headers["authorization"]}
        with httpx.Client(base_url=gate.url, headers=headers, timeout=120) as client:
            for job in mine:
                job(client)

    with ThreadPoolExecutor(CLIENTS) as clients:
        list(clients.map(run, jobs))

    assert book.errors == []
    live = {fact.object for fact in gate.memory.facts(namespace=gate.namespace)}
    acknowledged = {town for facts in book.written.values() for _, town in facts}
    assert len(acknowledged) > WRITES // 2
    assert live == acknowledged - book.gone
    assert {fact.object for fact in gate.memory.history(namespace=gate.namespace)} == acknowledged
