"""A gateway in front of the scripted upstream, both on loopback ports; planner, scope and embedder are real.

One of each serves all tests; every test works in a namespace of its own.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from memedit.memory.fact import FactInput
from memedit.memory.memory import EditMemory
from memedit.server.app import create_app
from memedit.server.records import Records, Role
from memedit.server.services import Services
from memedit.server.settings import Settings
from tests.server.upstream import Upstream, scripted, served

_numbers = itertools.count(1)


@dataclass
class Gate:
    """The gateway as a test sees it.

    Attributes:
        url: Where it listens.
        namespace: The test's own.
        keys: An API key for each role, bound to the namespace.
        client: Sends requests with the editor's key.
        memory: What the gateway serves.
        records: Its keys and audit log.
    """

    url: str
    namespace: str
    keys: dict[Role, str]
    client: httpx.Client
    memory: EditMemory
    records: Records

    def as_role(self, role: Role) -> dict[str, str]:
        """The headers of a request with the key of that role."""
        return {"authorization": f"Bearer {self.keys[role]}"}

    def know(self, *sentences: str) -> list[int]:
        """Record facts in the test's namespace; their ids."""
        facts = [FactInput(statement=sentence) for sentence in sentences]
        return [receipt.fact.id for receipt in self.memory.assert_facts(facts, namespace=self.namespace)]

    def chat(self, text: str, **more: object) -> httpx.Response:
        """Ask."""
        messages = [{"role": "user", "content": text}]
        return self.client.post("/v1/chat/completions", json={"model": "scripted-1", "messages": messages, **more})


@pytest.fixture(scope="session")
def _upstream() -> Iterator[Upstream]:
    with scripted() as state:
        yield state


@pytest.fixture
def upstream(_upstream: Upstream) -> Upstream:
    _upstream.reset()
    return _upstream


@pytest.fixture(scope="session")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EditMemory]:
    with EditMemory(Path(tmp_path_factory.mktemp("gateway")) / "facts.db") as memory:
        yield memory


@pytest.fixture(scope="session")
def records(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Records]:
    with Records(tmp_path_factory.mktemp("records") / "facts.db.server") as records:
        yield records


@pytest.fixture(scope="session")
def services(_upstream: Upstream, memory: EditMemory, records: Records) -> Services:
    settings = Settings(f"{_upstream.url}/v1", timeout=30.0, rate=0, max_body=200_000)
    return Services(settings, memory, records)


@pytest.fixture(scope="session")
def gateway_url(services: Services) -> Iterator[str]:
    app = create_app(services.settings, services.memory, services.records, editor=services.editor, warm=False)
    services.warm_up()  # once for all tests, and not within the first one's time
    with served(app) as url:
        yield url


@pytest.fixture
def gate(gateway_url: str, memory: EditMemory, records: Records, upstream: Upstream) -> Iterator[Gate]:
    namespace = f"tenant-{next(_numbers)}"
    keys = {role: records.create_key(role.value, role, [namespace])[1] for role in Role}
    headers = {"authorization": f"Bearer {keys[Role.EDITOR]}"}
    with httpx.Client(base_url=gateway_url, headers=headers, timeout=120) as client:
        yield Gate(gateway_url, namespace, keys, client, memory, records)
