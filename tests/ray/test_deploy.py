"""Gateways on a Ray cluster: they share a memory, and go on answering from every acknowledged fact when a node is killed."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from benchmarks.serving_setup import free_port
from memedit.commands.deploy import as_seen_anywhere, parse_replicas
from memedit.errors import InvalidSpec, ModelUnavailable
from memedit.server.ray import Fleet, check_shared, deploy, stop
from memedit.server.settings import Settings
from tests.ray.conftest import Nodes
from tests.server.upstream import Upstream, scripted

QUESTION = "What is the capital of Japan?"
PATIENCE = 600.0


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with scripted() as state:
        yield state


@pytest.fixture
def fleet(upstream: Upstream, tmp_path: Path) -> Fleet:
    """Two gateways over one file."""
    settings = Settings(f"{upstream.url}/v1", open=True, rate=0, timeout=30.0)
    files = (str(tmp_path / "facts.db"), str(tmp_path / "keys.db"))
    return Fleet(settings, *files, (f"{upstream.url}/v1",), least=2, most=2)


@pytest.fixture
def client(nodes: Nodes, fleet: Fleet) -> Iterator[httpx.Client]:
    """A client of the deployed fleet."""
    port = free_port()
    try:
        until(lambda: deployed(fleet, port))
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=120) as client:
            yield client
    finally:
        stop()


def deployed(fleet: Fleet, port: int) -> bool:
    """Deploy; on a busy machine Ray's proxies may need longer than the minute it gives them, and another try."""
    try:
        deploy(fleet, host="127.0.0.1", port=port)
    except ModelUnavailable:
        return False
    return True


def ask(client: httpx.Client, question: str) -> httpx.Response:
    return client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": question}]})


def until(holds: Callable[[], bool]) -> None:
    """Return when something holds; fail if it does not come to."""
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.5)


def survives(client: httpx.Client, write: Callable[[], httpx.Response]) -> httpx.Response:
    """The first good answer: a request that was with the killed node fails, and is sent again."""
    answers: list[httpx.Response] = []

    def good() -> bool:
        try:
            answers.append(write())
        except httpx.HTTPError:
            return False
        return answers[-1].is_success

    until(good)
    return answers[-1]


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_killed_node_loses_no_acknowledged_fact_and_answers_go_on(nodes: Nodes, client: httpx.Client) -> None:
    until(lambda: client.get("/readyz").status_code == 200)
    added = [
        client.post("/v1/memory/facts", json={"statement": sentence}).raise_for_status().json()["fact"]["id"]
        for sentence in ("The capital of Japan is Osaka.", "The capital of France is Lyon.")
    ]
    before = [ask(client, QUESTION) for _ in range(4)]

    nodes.kill_second()

    after = [survives(client, lambda: ask(client, QUESTION)) for _ in range(6)]
    third = survives(
        client, lambda: client.post("/v1/memory/facts", json={"statement": "The capital of Peru is Cusco."})
    )
    listed = survives(client, lambda: client.get("/v1/memory/facts"))
    outside = survives(client, lambda: ask(client, "Who painted the Mona Lisa?"))
    assert {answer.headers.get("x-memedit-edits") for answer in [*before, *after]} == {str(added[0])}
    assert all("Osaka" in answer.text for answer in [*before, *after])
    assert {fact["id"] for fact in listed.json()["data"]} >= {*added, third.json()["fact"]["id"]}
    assert "memedit" not in outside.json()


def test_replicas_are_shared_out_among_model_servers(fleet: Fleet) -> None:
    urls = tuple(f"http://127.0.0.1:{port}/v1" for port in (1, 2, 3))
    many = Fleet(fleet.settings, fleet.memory, fleet.access, urls, most=64)

    chosen = [many.upstream_of(f"replica-{number}") for number in range(64)]

    assert set(chosen) == set(urls)
    assert chosen == [many.upstream_of(f"replica-{number}") for number in range(64)]


def test_a_file_is_no_memory_for_several_machines(fleet: Fleet) -> None:
    check_shared(fleet, ["10.0.0.1", "10.0.0.1"])

    with pytest.raises(InvalidSpec, match="2 machines"):
        check_shared(fleet, ["10.0.0.1", "10.0.0.2"])


def test_what_cannot_be_deployed_is_refused(fleet: Fleet) -> None:
    for bad in ({"upstreams": ()}, {"upstreams": ("nowhere",)}, {"least": 3}, {"cores": 0.0}):
        with pytest.raises(InvalidSpec):
            Fleet(**{name: getattr(fleet, name) for name in Fleet.__slots__} | bad)


def test_numbers_of_replicas_and_places_as_they_are_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)

    assert (parse_replicas("3"), parse_replicas("1:8")) == ((3, 3), (1, 8))
    assert as_seen_anywhere("facts.db") == str(tmp_path / "facts.db")
    assert as_seen_anywhere("postgresql://db/facts") == "postgresql://db/facts"
