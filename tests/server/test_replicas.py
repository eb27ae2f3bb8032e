"""Several gateways on one PostgreSQL: a client reads its own writes through any of them, whatever has broken meanwhile."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import httpx
import pytest

from memedit.memory.memory import EditMemory
from memedit.server import services as services_module
from memedit.server.access import POSITION_HEADER
from memedit.server.app import create_app
from memedit.server.records import Records, Role
from memedit.server.services import Services
from memedit.server.settings import Settings
from tests.memory.hash_embedder import HashEmbedder
from tests.postgres import Server, running
from tests.server.upstream import Upstream, served


@dataclass
class Replica:
    """A gateway as a client sees it, and its memory."""

    client: httpx.Client
    memory: EditMemory

    def tell(self, subject: str, obj: str) -> int:
        """Record a capital; the log position of the write."""
        fact = {"subject": subject, "relation": "capital", "object": obj}
        answer = self.client.post("/v1/memory/facts", json=fact)
        assert answer.status_code == 201, answer.text
        return int(answer.headers[POSITION_HEADER])

    def capital(self, subject: str, position: int) -> list[str]:
        """What is read of it at a log position or later."""
        answer = self.read(subject, str(position))
        assert answer.status_code == 200, answer.text
        assert int(answer.headers[POSITION_HEADER]) >= position
        return [fact["object"] for fact in answer.json()["data"]]

    def read(self, subject: str, position: str) -> httpx.Response:
        return self.client.get("/v1/memory/facts", params={"subject": subject}, headers={POSITION_HEADER: position})


@contextmanager
def replicas(
    url: str, upstream: Upstream, count: int, make: Callable[[], EditMemory] | None = None
) -> Iterator[list[Replica]]:
    """Gateways that share a memory and its API keys, and nothing else."""
    with ExitStack() as opened:
        made = []
        key = ""
        for _ in range(count):
            memory = opened.enter_context(make() if make is not None else EditMemory(url, embedder=HashEmbedder()))
            records = opened.enter_context(Records(url))
            key = key or records.create_key("client", Role.EDITOR, ["default"])[1]
            app = create_app(Settings(f"{upstream.url}/v1", rate=0), memory, records, warm=False)
            address = opened.enter_context(served(app))
            headers = {"authorization": f"Bearer {key}"}
            made.append(Replica(opened.enter_context(httpx.Client(base_url=address, headers=headers)), memory))
        yield made


def test_a_client_reads_its_own_writes_through_any_gateway(postgres: Server, upstream: Upstream) -> None:
    with replicas(postgres.new_url(), upstream, 3) as gateways:
        for number in range(60):
            writer, reader = gateways[number % 3], gateways[(number + 1) % 3]
            position = writer.tell("France", f"City {number}")

            assert reader.capital("France", position) == [f"City {number}"]


def test_what_undo_and_retract_answer_is_a_position_too(postgres: Server, upstream: Upstream) -> None:
    with replicas(postgres.new_url(), upstream, 2) as (one, two):
        one.tell("France", "Lyon")
        position = one.tell("France", "Nice")
        undone = two.client.post("/v1/memory/undo", headers={POSITION_HEADER: str(position)})
        assert one.capital("France", int(undone.headers[POSITION_HEADER])) == ["Lyon"]

        [fact] = undone.json()["data"][:1]
        gone = one.client.delete(f"/v1/memory/facts/{fact['id']}")
        assert two.capital("France", int(gone.headers[POSITION_HEADER])) == []


def test_a_question_at_a_position_is_answered_from_the_edit(
    postgres: Server, upstream: Upstream, services: Services
) -> None:
    url = postgres.new_url()
    embedder = services.memory.embedder

    with replicas(url, upstream, 2, lambda: EditMemory(url, embedder=embedder)) as (one, two):
        two.memory.view()
        position = one.tell("Japan", "Osaka")
        body = {"model": "scripted-1", "messages": [{"role": "user", "content": "What is the capital of Japan?"}]}
        answer = two.client.post(
            "/v1/chat/completions", json=body, headers={POSITION_HEADER: str(position)}, timeout=120
        )

        assert answer.headers["x-memedit-edits"] == "1"
        assert all(POSITION_HEADER not in sent.headers for sent in upstream.sent)


def test_a_position_that_does_not_come_is_a_503_that_says_to_try_again(
    postgres: Server, upstream: Upstream, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(services_module, "POSITION_SECONDS", 0.05)
    with replicas(postgres.new_url(), upstream, 1) as [gateway]:
        position = gateway.tell("France", "Lyon")

        answer = gateway.read("France", str(position + 7))

        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert answer.json()["error"]["code"] == "position_not_reached"
        assert str(position + 7) in answer.json()["error"]["message"]


@pytest.mark.parametrize("position", ["-1", "1.5", "soon", "9" * 30, "٣"])
def test_what_is_no_position_is_refused(position: str, postgres: Server, upstream: Upstream) -> None:
    with replicas(postgres.new_url(), upstream, 1) as [gateway]:
        headers = {POSITION_HEADER.encode(): position.encode()}
        answer = gateway.client.get("/v1/memory/facts", headers=headers)

        assert answer.status_code == 400
        assert POSITION_HEADER in answer.json()["error"]["message"]


def until_it_answers(ask: Callable[[], httpx.Response], *, seconds: float) -> httpx.Response:
    deadline = time.monotonic() + seconds
    while (answer := ask()).status_code == 503 and time.monotonic() < deadline:
        time.sleep(0.1)
    return answer


def test_keys_lie_in_the_database_of_a_memory_whose_url_names_no_driver(postgres: Server) -> None:
    with Records(postgres.new_url().replace("postgresql+psycopg:", "postgresql:")) as records:
        _, key = records.create_key("client", Role.EDITOR, ["default"])

        assert records.check_key(key).name == "client"


def test_a_moment_whose_facts_have_been_erased_is_gone(postgres: Server, upstream: Upstream) -> None:
    with replicas(postgres.new_url(), upstream, 2) as (one, two):
        one.tell("France", "Lyon")
        one.tell("France", "Nice")
        position = one.memory.compact(datetime.now(UTC)).position
        assert position is not None

        headers = {POSITION_HEADER: str(position)}
        answer = two.client.get("/v1/memory/facts", params={"as_of": "2020-01-01T00:00:00Z"}, headers=headers)

        assert answer.status_code == 410
        assert answer.json()["error"]["code"] == "history_compacted"
        assert two.capital("France", position) == ["Nice"]


@pytest.mark.slow
def test_gateways_say_503_while_the_database_is_gone_and_catch_up_alone_afterwards(upstream: Upstream) -> None:
    with running() as server, replicas(server.new_url(), upstream, 2) as (one, two):
        positions = {number: one.tell(f"Land {number}", "Lyon") for number in range(20)}
        server.kill()
        fact = {"subject": "France", "relation": "capital", "object": "Nice"}
        refused = one.client.post("/v1/memory/facts", json=fact)
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "1"
        server.start()

        again = until_it_answers(lambda: one.client.post("/v1/memory/facts", json=fact), seconds=30)
        position = int(again.headers[POSITION_HEADER])
        read = until_it_answers(lambda: two.read("France", str(position)), seconds=30)

        assert [found["object"] for found in read.json()["data"]] == ["Nice"]
        assert [two.capital(f"Land {number}", at) for number, at in positions.items()] == [["Lyon"]] * 20
