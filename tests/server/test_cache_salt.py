"""In-scope requests to vLLM carry a salt of their namespace; others, and those to other servers, go as they came."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from memedit.memory.fact import FactInput
from memedit.memory.memory import EditMemory
from memedit.server.app import create_app
from memedit.server.records import Records
from memedit.server.services import Services
from memedit.server.settings import Settings
from tests.server.upstream import Upstream, make_upstream, served

FACT = FactInput(statement="The capital of Japan is Osaka.")
IN_SCOPE, OUT_OF_SCOPE = "What is the capital of Japan?", "How are you today?"


class Front:
    """An open gateway in front of a scripted vLLM."""

    def __init__(self, url: str, upstream: Upstream) -> None:
        self.url = url
        self.upstream = upstream

    def sent(self, question: str, namespace: str, **more: Any) -> dict[str, Any]:
        """What the upstream server is sent for a question."""
        body = {"model": "scripted-1", "messages": [{"role": "user", "content": question}], **more}
        headers = {"x-memedit-namespace": namespace}
        answer = httpx.post(f"{self.url}/v1/chat/completions", json=body, headers=headers, timeout=60)
        assert answer.status_code == 200
        sent: dict[str, Any] = json.loads(self.upstream.completions[-1].body)
        return sent


@pytest.fixture(scope="module")
def front(memory: EditMemory, records: Records, services: Services) -> Iterator[Front]:
    app, upstream = make_upstream(owner="vllm")
    upstream.reply = lambda sent: "Osaka"
    for namespace in ("salt-a", "salt-b"):
        memory.assert_fact(FACT, namespace=namespace)
    with served(app) as url:
        settings = Settings(f"{url}/v1", open=True, rate=0)
        with served(create_app(settings, memory, records, editor=services.editor, warm=False)) as gateway:
            yield Front(gateway, upstream)


def test_each_namespace_has_a_salt_of_its_own(front: Front) -> None:
    first = front.sent(IN_SCOPE, "salt-a")["cache_salt"]

    assert front.sent(IN_SCOPE, "salt-a", stream=True)["cache_salt"] == first
    assert front.sent(IN_SCOPE, "salt-b")["cache_salt"] != first


def test_a_salt_of_the_clients_divides_its_namespace_further(front: Front) -> None:
    own = {front.sent(IN_SCOPE, namespace, cache_salt="x")["cache_salt"] for namespace in ("salt-a", "salt-b")}
    plain = {front.sent(IN_SCOPE, namespace)["cache_salt"] for namespace in ("salt-a", "salt-b")}

    assert len(own | plain) == 4
    assert "x" not in own


def test_a_request_out_of_scope_is_given_none(front: Front) -> None:
    assert "cache_salt" not in front.sent(OUT_OF_SCOPE, "salt-a")
    assert front.sent(OUT_OF_SCOPE, "salt-a", cache_salt="x")["cache_salt"] == "x"


def test_the_hit_rate_is_among_the_gateways_figures(front: Front) -> None:
    front.upstream.metrics = "vllm:prefix_cache_queries_total 8.0\nvllm:prefix_cache_hits_total 6.0\n"

    figures = httpx.get(f"{front.url}/metrics").text

    assert "memedit_upstream_prefix_cache_hit_ratio 0.75" in figures
