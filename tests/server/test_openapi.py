"""The OpenAPI document, tried out by schemathesis: whatever fits it, and much that does not, is answered without a 5xx."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
import schemathesis
from fastapi import Response
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode, SerializationContext
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.schemas import APIOperation, BaseSchema

from memedit.server.records import ALL, Role
from tests.server.conftest import Gate
from tests.server.upstream import Upstream

EXAMPLES = 10
"""Requests tried for each operation, of those that fit the document and of those that do not."""


@schemathesis.serializer("application/x-ndjson")
def as_it_is(_: SerializationContext, value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


@pytest.fixture
def document(gate: Gate, upstream: Upstream) -> BaseSchema:
    upstream.answer = lambda sent: Response(b'{"choices": []}', media_type="application/json")
    return schemathesis.openapi.from_url(f"{gate.url}/openapi.json")


def try_out(operation: APIOperation[Any, Any, Any, Any], mode: GenerationMode, headers: dict[str, str]) -> set[int]:
    """Send an operation's examples; the statuses that came back. Fails at a server error, or one in another shape."""
    statuses: set[int] = set()

    @given(case=operation.as_strategy(generation_mode=mode))
    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        phases=[Phase.explicit, Phase.generate],
        suppress_health_check=list(HealthCheck),
        derandomize=True,
        database=None,
    )
    def answers(case: Case[Any]) -> None:
        answer = case.call(headers=headers, timeout=60)
        case.validate_response(answer, checks=[not_a_server_error])
        statuses.add(answer.status_code)
        if answer.status_code >= 400:
            assert set(answer.json()["error"]) == {"message", "type", "param", "code"}

    with suppress(Unsatisfiable):  # an operation that takes nothing can be sent nothing that does not fit
        answers()
    return statuses


@pytest.mark.slow
def test_no_operation_answers_with_a_server_error(gate: Gate, document: BaseSchema) -> None:
    # The key reaches everything, so that what is tried is not refused at the door.
    key = gate.records.create_key("schemathesis", Role.ADMIN, [gate.namespace, ALL])[1]
    # A position that no log has reached is waited for, and then told as a 503; tests/server/test_replicas.py has that.
    headers = {"authorization": f"Bearer {key}", "x-memedit-position": "0"}
    operations = [found.ok() for found in document.get_all_operations() if isinstance(found, Ok)]

    fitting = {one.label: try_out(one, GenerationMode.POSITIVE, headers) for one in operations}
    for one in operations:
        try_out(one, GenerationMode.NEGATIVE, headers)

    assert {"POST /v1/memory/facts", "POST /v1/memory/import", "DELETE /v1/memory/facts/{fact_id}"} <= set(fitting)
    assert 201 in fitting["POST /v1/memory/facts"]
    assert 200 in fitting["POST /v1/chat/completions"]
