"""POST /v1/memory/preview, and the newest facts first."""

from __future__ import annotations

import pytest

from memedit.server.records import Role
from tests.server.conftest import Gate

TWO_HOPS = "What is the capital of the country where Mount Fuji is?"


def test_a_reader_sees_what_a_fact_would_change_and_nothing_is_written(gate: Gate) -> None:
    [kyoto] = gate.know("The capital of Japan is Kyoto.")
    answer = gate.client.post(
        "/v1/memory/preview",
        json={"fact": {"subject": "Japan", "relation": "capital", "object": "Osaka"}, "question": TWO_HOPS},
        headers=gate.as_role(Role.READER),
    )
    told = answer.json()
    assert answer.status_code == 200
    assert (told["status"], told["changes"]) == ("superseded", True)
    assert [fact["id"] for fact in told["replaced"]] == [kyoto]
    assert (told["before"]["answer"], told["after"]["answer"]) == ("Kyoto", "Osaka")
    assert [(hop["source"], hop["edit"], hop["on_trial"]) for hop in told["after"]["hops"]] == [
        ("belief", None, False),
        ("edit", None, True),
    ]
    assert [fact.object for fact in gate.memory.facts(namespace=gate.namespace)] == ["Kyoto"]
    assert gate.records.entries(gate.namespace) == []


def test_without_a_question_only_what_would_give_way_is_told(gate: Gate) -> None:
    told = gate.client.post("/v1/memory/preview", json={"fact": {"statement": "Ada likes tea with lemon."}}).json()
    assert (told["before"], told["after"], told["changes"]) == (None, None, False)
    assert "free text" in told["notice"]


@pytest.mark.parametrize(
    "body", [{}, {"fact": {}}, {"fact": {"subject": "Japan"}}, {"fact": {"statement": "x"}, "question": ""}]
)
def test_what_cannot_be_tried_is_refused(gate: Gate, body: dict[str, object]) -> None:
    answer = gate.client.post("/v1/memory/preview", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["message"]


def test_the_newest_facts_come_first_page_by_page(gate: Gate) -> None:
    ids = gate.know(*(f"The capital of Country{letter} is Town{letter}." for letter in "ABCDE"))
    first = gate.client.get("/v1/memory/facts", params={"newest_first": "true", "limit": 2}).json()
    second = gate.client.get(
        "/v1/memory/facts", params={"newest_first": "true", "limit": 2, "after": first["next_after"]}
    ).json()
    last = gate.client.get(
        "/v1/memory/facts", params={"newest_first": "true", "limit": 2, "after": second["next_after"]}
    ).json()
    assert [fact["id"] for page in (first, second, last) for fact in page["data"]] == ids[::-1]
    assert (last["has_more"], last["next_after"]) == (False, None)
