"""Keys, roles, namespaces and limits: who may do what, where, how much, and that nothing leaks."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import pytest

from memedit.errors import InvalidSpec, StoreError, TooManyRequests, Unauthenticated
from memedit.memory.fact import FactInput
from memedit.server.app import create_app
from memedit.server.limits import RateLimit
from memedit.server.paths import role_for
from memedit.server.records import ALL, Records, Role, records_beside
from memedit.server.services import Services
from memedit.server.settings import Settings
from tests.server.conftest import Gate
from tests.server.upstream import Upstream, served

FACTS = "/v1/memory/facts"
QUESTION = "What is the capital of Japan?"


@contextmanager
def another(services: Services, **changes: Any) -> Iterator[httpx.Client]:
    """A gateway over the same memory with other settings."""
    app = create_app(
        replace(services.settings, **changes), services.memory, services.records, editor=services.editor, warm=False
    )
    with served(app) as url, httpx.Client(base_url=url, timeout=120) as client:
        yield client


class TestRoles:
    @pytest.mark.parametrize(
        ("method", "path", "least"),
        [
            ("GET", FACTS, Role.READER),
            ("GET", "/v1/memory/history", Role.READER),
            ("GET", "/v1/memory/search?q=x", Role.READER),
            ("GET", "/v1/memory/export", Role.READER),
            ("GET", "/v1/memory/namespaces", Role.READER),
            ("GET", "/v1/models", Role.READER),
            ("POST", "/v1/embeddings", Role.READER),
            ("GET", "/v1/anything", Role.ADMIN),
            ("POST", "/sleep", Role.ADMIN),
            ("POST", "/v1/chat/completions", Role.READER),
            ("POST", "/v1/completions", Role.READER),
            ("POST", FACTS, Role.EDITOR),
            ("POST", f"{FACTS}/batch", Role.EDITOR),
            ("POST", f"{FACTS}/jsonl", Role.EDITOR),
            ("POST", "/v1/memory/import", Role.EDITOR),
            ("POST", "/v1/memory/undo", Role.EDITOR),
            ("DELETE", f"{FACTS}/1", Role.EDITOR),
            ("GET", "/v1/memory/audit", Role.ADMIN),
        ],
    )
    def test_a_route_needs_its_role_and_a_key(self, gate: Gate, method: str, path: str, least: Role) -> None:
        for role in Role:
            status = gate.client.request(method, path, headers=gate.as_role(role)).status_code
            assert (status == 403) == (not role.covers(least)), (role, status)
        without = httpx.request(method, f"{gate.url}{path}")
        assert without.status_code == 401
        assert without.headers["www-authenticate"] == "Bearer"
        assert without.json()["error"]["code"] == "unauthenticated"

    def test_a_revoked_key_is_refused_at_once(self, gate: Gate) -> None:
        key, text = gate.records.create_key("temp", Role.READER, [gate.namespace])
        headers = {"authorization": f"Bearer {text}"}
        assert gate.client.get(FACTS, headers=headers).status_code == 200

        gate.records.revoke_key(key.id)

        assert gate.client.get(FACTS, headers=headers).status_code == 401

    def test_health_and_metrics_need_no_key_and_say_nothing_of_facts(self, gate: Gate, upstream: Upstream) -> None:
        gate.know("The capital of Japan is Osaka.")
        upstream.reply = lambda sent: "Osaka"
        gate.chat(QUESTION)

        assert httpx.get(f"{gate.url}/healthz").json()["status"] == "ok"
        ready = httpx.get(f"{gate.url}/readyz")
        assert (ready.status_code, ready.json()["ready"]) == (200, True)
        text = httpx.get(f"{gate.url}/metrics").text
        assert 'memedit_scope_decisions_total{decision="in"}' in text
        assert 'memedit_hops_total{source="edit"}' in text
        assert 'memedit_stage_seconds_count{stage="resolve"}' in text
        assert "Osaka" not in text
        assert gate.namespace not in text


class TestUpstreamPaths:
    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("GET", "/v1/models"), ("GET", "/v1/models/org/name"), ("GET", "/v1/models/org%2Fname"), ("HEAD", "/v1/models"),
            ("POST", "/v1/embeddings"), ("POST", "/v1/audio/transcriptions"), ("POST", "/tokenize"), ("POST", "/v1/rerank"),
            ("GET", "/version"), ("GET", "/v1/responses/resp_1"),
        ],
    )  # fmt: skip
    def test_inference_is_open_to_readers(self, method: str, path: str) -> None:
        assert role_for(method, path.encode()) is Role.READER

    @pytest.mark.parametrize(
        ("method", "path"),
        [
            ("POST", "/sleep"), ("POST", "/wake_up"), ("POST", "/reset_prefix_cache"), ("POST", "/v1/load_lora_adapter"),
            ("POST", "/v1/unload_lora_adapter"), ("POST", "/collective_rpc"), ("POST", "/start_profile"), ("GET", "/server_info"),
            ("GET", "/is_sleeping"), ("POST", "/scale_elastic_ep"), ("DELETE", "/v1/models/scripted-1"),
            ("POST", "/v1/models"), ("POST", "/v1/files"), ("GET", "/v1/odd"), ("PUT", "/v1/embeddings"),
            ("GET", "/v1/models/../../sleep"), ("GET", "/v1/models/%2e%2e/%2e%2e/sleep"), ("GET", "/v1/models/..%2f..%2fsleep"),
            ("GET", "/v1/models/%252e%252e/sleep"), ("GET", "/v1/models/%25252e%25252e/sleep"), ("GET", "/v1/models//sleep"),
            ("GET", "/v1/models/..\\sleep"), ("GET", "/v1/models/x;/../sleep"), ("GET", "/v1/models/x%00"), ("POST", "/V1/EMBEDDINGS"),
            ("POST", "//sleep"), ("POST", "/v1/embeddings/"), ("GET", "/"),
        ],
    )  # fmt: skip
    def test_all_else_is_for_admins(self, gate: Gate, upstream: Upstream, method: str, path: str) -> None:
        assert role_for(method, path.encode()) is Role.ADMIN
        for role in (Role.READER, Role.EDITOR):
            connection = HTTPConnection(httpx.URL(gate.url).netloc.decode())  # sends a path as it is
            connection.request(method, path, headers=gate.as_role(role))
            assert connection.getresponse().status == 403
            connection.close()
        assert upstream.sent == []

    def test_an_admin_reaches_them_and_an_operator_may_open_some(
        self, gate: Gate, services: Services, upstream: Upstream
    ) -> None:
        with another(services, reader_paths=("/v1/files", "/extra/")) as client:
            statuses = [
                client.post(path, headers=gate.as_role(Role.READER)).status_code
                for path in ("/v1/files", "/v1/files/1", "/extra/a/b", "/extra")
            ]

        assert statuses == [207, 403, 207, 403]
        assert gate.client.post("/sleep", headers=gate.as_role(Role.ADMIN)).status_code == 207
        assert [sent.path for sent in upstream.sent] == ["/v1/files", "/extra/a/b", "/sleep"]

    @pytest.mark.parametrize("path", ["files", "/", ""])
    def test_what_is_no_path_cannot_be_opened(self, path: str) -> None:
        with pytest.raises(InvalidSpec):
            Settings("http://localhost:1/v1", reader_paths=(path,))


class TestNamespaces:
    def test_a_key_works_in_its_own_namespaces_only(self, gate: Gate) -> None:
        answer = gate.client.get(FACTS, headers={"x-memedit-namespace": "tenant-of-others"})

        assert (answer.status_code, answer.json()["error"]["code"]) == (403, "access_denied")

    def test_a_key_of_several_names_the_one_and_percent_encodes_it(self, gate: Gate) -> None:
        names = [gate.namespace, f"{gate.namespace}-日本"]
        _, text = gate.records.create_key("two", Role.EDITOR, names)
        headers = {"authorization": f"Bearer {text}", "x-memedit-namespace": f"{gate.namespace}-%E6%97%A5%E6%9C%AC"}

        gate.client.post(FACTS, json={"statement": "The capital of Japan is Osaka."}, headers=headers)

        assert gate.memory.count(names[1]) == 1
        listed = gate.client.get("/v1/memory/namespaces", headers=headers).json()["data"]
        assert listed == [names[1]]

    def test_ids_of_other_namespaces_are_unknown(self, gate: Gate) -> None:
        gate.know("The capital of France is Lyon.")
        other = gate.memory.assert_fact(
            FactInput(statement="The capital of Japan is Kobe."), namespace=f"{gate.namespace}-b"
        )

        for method in ("GET", "DELETE"):
            answer = gate.client.request(method, f"{FACTS}/{other.fact.id}")
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "unknown_fact")
        assert gate.memory.get(other.fact.id, namespace=f"{gate.namespace}-b").live


class TestLimits:
    @pytest.mark.parametrize("path", ["/v1/chat/completions", FACTS, f"{FACTS}/jsonl", "/v1/embeddings"])
    def test_a_request_that_is_too_large_is_refused(self, gate: Gate, upstream: Upstream, path: str) -> None:
        large = b"x" * 200_001

        declared = gate.client.post(path, content=large)
        chunked = gate.client.post(path, content=(large[at : at + 50_000] for at in range(0, len(large), 50_000)))

        for answer in (declared, chunked):
            assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")
        assert upstream.sent == []

    def test_an_upload_that_is_too_large_is_refused(self, gate: Gate) -> None:
        answer = gate.client.post("/v1/memory/import", files={"file": ("x.jsonl", b"x" * 200_001)})

        assert (answer.status_code, answer.json()["error"]["code"]) == (413, "request_too_large")

    def test_a_server_that_is_slow_is_given_up(self, gate: Gate, services: Services) -> None:
        with another(services, timeout=0.3) as client:
            answer = client.get("/v1/slow", headers=gate.as_role(Role.ADMIN))
            metrics = client.get("/metrics").text

        assert (answer.status_code, answer.json()["error"]["code"]) == (504, "model_timeout")
        assert 'memedit_upstream_errors_total{kind="timeout"} 1.0' in metrics

    def test_too_many_requests_are_refused_for_each_key_apart(self, gate: Gate, services: Services) -> None:
        with another(services, rate=30) as client:
            mine = [client.get(FACTS, headers=gate.as_role(Role.EDITOR)) for _ in range(6)]
            others = client.get(FACTS, headers=gate.as_role(Role.READER))

        refused = [one for one in mine if one.status_code == 429]
        assert refused
        assert mine[0].status_code == others.status_code == 200
        assert refused[0].json()["error"]["type"] == "rate_limit_error"
        assert int(refused[0].headers["retry-after"]) >= 1

    def test_a_bucket_fills_again(self) -> None:
        now = 0.0
        limit = RateLimit(60, clock=lambda: now)
        for _ in range(6):
            limit.take("a")
        with pytest.raises(TooManyRequests) as refused:
            limit.take("a")
        now = refused.value.wait

        limit.take("a")

    def test_an_open_gateway_asks_for_no_key_and_passes_the_clients_on(
        self, services: Services, upstream: Upstream
    ) -> None:
        with another(services, open=True) as client:
            assert client.get("/v1/odd", headers={"authorization": "Bearer theirs"}).status_code == 207
            assert client.get(FACTS).status_code == 200

        assert upstream.sent[0].headers["authorization"] == "Bearer theirs"

    def test_a_server_that_is_down_is_told_in_openais_shape(self, gate: Gate, services: Services) -> None:
        with another(services, upstream="http://127.0.0.1:9/v1", upstream_key="secret") as client:
            answer = client.get("/v1/models", headers=gate.as_role(Role.READER))
            ready = client.get("/readyz")
            metrics = client.get("/metrics").text

        assert (answer.status_code, answer.json()["error"]["code"]) == (502, "model_unavailable")
        assert (ready.status_code, ready.json()["upstream"]) == (503, False)
        assert 'memedit_upstream_errors_total{kind="unreachable"} 1.0' in metrics

    def test_the_operators_key_is_sent_in_place_of_the_clients(
        self, gate: Gate, services: Services, upstream: Upstream
    ) -> None:
        with another(services, upstream_key="secret") as client:
            client.get("/v1/odd", headers=gate.as_role(Role.ADMIN))

        assert upstream.sent[0].headers["authorization"] == "Bearer secret"


class TestRecords:
    def test_keys_are_kept_as_hashes_and_survive_reopening(self, tmp_path: Path) -> None:
        file = tmp_path / "keys.db"
        with Records(file) as records:
            key, text = records.create_key("alice", Role.ADMIN, ["a", ALL])
            records.begin_write(key.id, "host", "a", "add")

        with Records(file) as records:
            assert records.check_key(text) == key
            assert records.list_keys() == [key]
            assert [one.outcome for one in records.entries("a")] == ["begun"]
            assert records.entries("b") == []
        secret = text.split("_", 2)[2]
        assert not any(secret.encode() in path.read_bytes() for path in tmp_path.iterdir())

    @pytest.mark.parametrize("text", ["", "mk", "mk__", "mk_a_b", "sk-1234", "mk_\x00_x"])
    def test_what_is_no_key_is_refused(self, text: str) -> None:
        with Records(":memory:") as records, pytest.raises(Unauthenticated):
            records.check_key(text)

    def test_a_key_with_another_secret_is_refused(self) -> None:
        with Records(":memory:") as records:
            key, text = records.create_key("alice", Role.READER, ["a"])
            with pytest.raises(Unauthenticated):
                records.check_key(f"mk_{key.id}_{text[-5:]}")

    def test_a_key_needs_a_namespace_and_only_a_known_one_is_revoked(self) -> None:
        with Records(":memory:") as records:
            with pytest.raises(InvalidSpec):
                records.create_key("alice", Role.READER, [])
            with pytest.raises(InvalidSpec):
                records.revoke_key("nobody")

    def test_a_newer_database_is_left_alone(self, tmp_path: Path) -> None:
        file = tmp_path / "keys.db"
        Records(file).close()
        with sqlite3.connect(file) as connection:
            connection.execute("UPDATE memedit_server_meta SET value = '99'")
        with pytest.raises(StoreError, match="newer"):
            Records(file)

    def test_they_lie_beside_the_memory(self) -> None:
        assert records_beside("facts.db") == "facts.db.server"
        assert records_beside("postgresql://host/db") == "postgresql://host/db"
