"""Logs are a JSON object a line, and hold no words of anyone's unless the operator asks for them."""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import pytest

from memedit.errors import UnknownFact
from memedit.server.logs import LOGGER, JsonLines
from memedit.server.services import Services
from tests.server.conftest import Gate
from tests.server.test_access import another
from tests.server.upstream import Upstream

QUESTION = "What is the capital of Japan?"


def line_of(error: Exception, *, contents: bool) -> dict[str, Any]:
    """The line that an exception is logged as."""
    try:
        try:
            raise error
        except ValueError as cause:
            raise UnknownFact("There is no fact of Osaka.", "Look.") from cause
    except UnknownFact:
        record = logging.LogRecord(LOGGER, logging.ERROR, __file__, 1, "failed", (), sys.exc_info())
    line: dict[str, Any] = json.loads(JsonLines(contents=contents).format(record))
    return line


def test_of_an_exception_only_kind_and_place_are_logged() -> None:
    line = line_of(ValueError("Japan"), contents=False)

    assert (line["level"], line["event"]) == ("error", "failed")
    assert [told.split(" at ")[0] for told in line["exception"]] == ["UnknownFact", "ValueError"]
    assert all("test_logs.py" in told and "line_of" in told for told in line["exception"])
    assert "Osaka" not in json.dumps(line)
    assert "Japan" not in json.dumps(line)


def test_an_operator_may_ask_for_what_it_says() -> None:
    assert "There is no fact of Osaka." in line_of(ValueError("Japan"), contents=True)["exception"]


@pytest.mark.parametrize("asked_for", [False, True])
def test_questions_and_facts_are_logged_only_if_asked_for(
    gate: Gate, services: Services, upstream: Upstream, caplog: pytest.LogCaptureFixture, asked_for: bool
) -> None:
    caplog.set_level(logging.INFO, LOGGER)
    upstream.reply = lambda sent: "Osaka."
    headers = {"authorization": gate.client.headers["authorization"]}
    with another(services, log_contents=asked_for) as client:
        client.post("/v1/memory/facts", json={"statement": "The capital of Japan is Osaka."}, headers=headers)
        client.get("/v1/memory/facts", params={"subject": "Japan"}, headers=headers)
        client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": QUESTION}]}, headers=headers)

    records = [record for record in caplog.records if record.name == LOGGER]
    told = "\n".join(JsonLines().format(record) for record in records)
    assert {"write", "request"} <= {record.getMessage() for record in records}
    assert (QUESTION in told) == asked_for
    assert "Osaka" not in told
    assert gate.namespace in told
