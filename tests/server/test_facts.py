"""The facts API: what is written, read, found, undone, imported and exported, and what the audit log says of it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from memedit.server.records import Role
from tests.server.conftest import Gate

FACTS = "/v1/memory/facts"
JAPAN = {"subject": "Japan", "relation": "capital", "object": "Osaka"}


def add(gate: Gate, **fact: str) -> dict[str, Any]:
    answer = gate.client.post(FACTS, json=fact)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


def statements(gate: Gate, path: str = FACTS, **query: Any) -> list[str]:
    return [fact["statement"] for fact in gate.client.get(path, params=query).raise_for_status().json()["data"]]


def audit(gate: Gate) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = gate.client.get("/v1/memory/audit", headers=gate.as_role(Role.ADMIN)).json()["data"]
    return found


def test_a_fact_is_recorded_got_superseded_and_retracted(gate: Gate) -> None:
    first = add(gate, **JAPAN, source="me")["fact"]
    second = add(gate, statement="The capital of Japan is Nara.")

    assert first["source"] == "me"
    assert (second["status"], second["replaced"][0]["id"]) == ("superseded", first["id"])
    assert gate.client.get(f"{FACTS}/{first['id']}").json()["end_reason"] == "superseded"
    gone = gate.client.delete(f"{FACTS}/{second['fact']['id']}").json()
    assert gone["end_reason"] == "retracted"
    assert statements(gate) == []


def test_a_batch_is_all_or_nothing_and_names_its_bad_row(gate: Gate) -> None:
    good = gate.client.post(f"{FACTS}/batch", json={"facts": [JAPAN, {"statement": "Ada Byron speaks Welsh."}]})
    bad = gate.client.post(
        f"{FACTS}/batch", json={"facts": [{**JAPAN, "object": "Kobe"}, {"subject": "", "relation": "r", "object": "o"}]}
    )

    assert len(good.json()["data"]) == 2
    assert bad.status_code == 400
    assert bad.json()["error"]["code"] == "bad_row"
    assert "row 2" in bad.json()["error"]["message"]
    assert statements(gate, subject="Japan") == ["The capital of Japan is Osaka."]


def test_json_lines_and_files_are_imported_and_exports_read_back(gate: Gate) -> None:
    lines = "\n".join(
        json.dumps({"subject": f"Land {n}", "relation": "capital", "object": f"Town {n}"}) for n in range(3)
    )
    told = gate.client.post(f"{FACTS}/jsonl", content=lines.encode()).json()
    csv = b"subject,relation,object\nLand 9,capital,Town 9\n"
    upload = gate.client.post("/v1/memory/import", files={"file": ("more.csv", csv)})

    exported = gate.client.get("/v1/memory/export").content
    again = gate.client.post("/v1/memory/import", files={"file": ("back.jsonl", exported)})

    assert told == {"facts": 3, "added": 3, "superseded": 0, "unchanged": 0, "free_text": 0}
    assert upload.json()["added"] == 1
    assert again.json()["unchanged"] == 4
    assert gate.client.get("/v1/memory/export", params={"format": "csv"}).text.splitlines()[0].startswith("subject,")


def test_a_bad_import_names_row_and_field_and_not_where_it_lay(gate: Gate) -> None:
    body = b'{"statement": "Fine."}\n{"subject": "x", "object": "y"}\n'

    answer = gate.client.post("/v1/memory/import", files={"file": ("../../etc/x.jsonl", body)})

    assert answer.status_code == 400
    assert answer.json()["error"]["message"].startswith("upload.jsonl, row 2, field 'relation'")
    assert statements(gate) == []


def test_lists_are_filtered_and_paged(gate: Gate) -> None:
    gate.know(*(f"The capital of Land {n} is Town {n}." for n in range(5)), "Ada Byron speaks Welsh.")

    assert statements(gate, subject="land 3") == ["The capital of Land 3 is Town 3."]
    assert len(statements(gate, relation="capital")) == 5
    assert statements(gate, object="Town 2", text="TOWN") == ["The capital of Land 2 is Town 2."]
    first = gate.client.get(FACTS, params={"limit": 4}).json()
    second = gate.client.get(FACTS, params={"limit": 4, "after": first["next_after"]}).json()
    assert (len(first["data"]), first["has_more"]) == (4, True)
    assert (len(second["data"]), second["has_more"], second["next_after"]) == (2, False, None)


def test_the_past_is_read_as_of_a_moment(gate: Gate) -> None:
    before = datetime.now(UTC) - timedelta(days=1)
    add(gate, **JAPAN)

    assert statements(gate, as_of=before.isoformat()) == []
    assert len(statements(gate, as_of=(before + timedelta(days=2)).isoformat())) == 1
    assert gate.client.get(FACTS, params={"as_of": "2031-01-01T00:00:00"}).json()["error"]["code"] == "invalid_fact"


def test_undo_takes_back_the_last_write_and_history_keeps_all(gate: Gate) -> None:
    add(gate, **JAPAN)
    add(gate, **{**JAPAN, "object": "Nara"})

    touched = gate.client.post("/v1/memory/undo").json()["data"]

    assert len(touched) == 2
    assert statements(gate) == ["The capital of Japan is Osaka."]
    assert len(statements(gate, "/v1/memory/history", subject="Japan")) == 2
    gate.client.post("/v1/memory/undo")
    nothing = gate.client.post("/v1/memory/undo")
    assert (nothing.status_code, nothing.json()["error"]["code"]) == (409, "nothing_to_undo")


def test_search_and_explain_show_the_facts_in_scope(gate: Gate) -> None:
    gate.know("The capital of Japan is Osaka.", "Ada Byron speaks Welsh.")

    hits = gate.client.get("/v1/memory/search", params={"q": "Japanese capital", "k": 1}).json()["data"]
    told = gate.client.post("/v1/memory/explain", json={"question": "What is the capital of Japan?"}).json()

    assert [hit["fact"]["object"] for hit in hits] == ["Osaka"]
    assert told["scope"][0]["statement"] == "The capital of Japan is Osaka."
    assert told["candidates"]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", f"{FACTS}/999999", None, 404, "unknown_namespace"),
        ("GET", f"{FACTS}/none", None, 400, "invalid_request"),
        ("POST", FACTS, {"subject": "x"}, 400, "invalid_fact"),
        ("POST", FACTS, {"subject": "x", "relation": "P99999", "object": "y"}, 400, "unknown_relation"),
        ("POST", FACTS, {"nonsense": 1}, 400, "invalid_request"),
        ("GET", f"{FACTS}?limit=0", None, 400, "invalid_request"),
        ("PATCH", FACTS, {}, 404, "unknown_fact"),
        ("GET", "/v1/memory/nothing", None, 404, "unknown_fact"),
        ("GET", f"{FACTS}?relation=no-such", None, 400, "unknown_relation"),
    ],
)
def test_errors_have_openais_shape(
    gate: Gate, method: str, path: str, body: dict[str, Any] | None, status: int, code: str
) -> None:
    answer = gate.client.request(method, path, json=body)

    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == code


@pytest.mark.parametrize("path", [f"{FACTS}?after={2**63}", f"/v1/memory/audit?after={10**30}", f"{FACTS}/{2**80}"])
def test_a_number_that_no_database_holds_is_the_clients_mistake(gate: Gate, path: str) -> None:
    answer = gate.client.get(path, headers=gate.as_role(Role.ADMIN))

    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "invalid_request"


def test_every_write_is_in_the_audit_log_with_who_when_and_what_came_of_it(gate: Gate) -> None:
    fact = add(gate, **JAPAN)["fact"]["id"]
    gate.client.post(FACTS, json={"subject": "x"})
    gate.client.delete(f"{FACTS}/{fact}")
    gate.client.delete(f"{FACTS}/{fact}")
    gate.client.post("/v1/memory/undo")
    gate.client.post(f"{FACTS}/jsonl", content=b'{"statement": "Fine."}')

    found = audit(gate)

    assert [(one["action"], one["outcome"]) for one in found] == [
        ("add", "done"), ("add", "refused"), ("retract", "done"), ("retract", "refused"), ("undo", "done"),
        ("import", "done"),
    ]  # fmt: skip
    assert found[0]["facts"] == found[2]["facts"] == [fact]
    assert found[3]["detail"] == "AlreadyRetracted"
    assert {one["key"] for one in found} == {gate.keys[Role.EDITOR].split("_")[1]}
    assert all(datetime.now(UTC) - datetime.fromisoformat(one["at"]) < timedelta(minutes=10) for one in found)
    assert all(one["client"] == "127.0.0.1" for one in found)


def test_the_document_has_examples_and_every_route(gate: Gate) -> None:
    document = gate.client.get("/openapi.json").json()

    assert {"/v1/chat/completions", "/v1/completions", FACTS, "/v1/memory/audit", "/readyz"} <= set(document["paths"])
    body = document["paths"][FACTS]["post"]["requestBody"]["content"]["application/json"]
    assert body["examples"]["triple"]["value"]["object"] == "Osaka"
    assert document["components"]["securitySchemes"]
