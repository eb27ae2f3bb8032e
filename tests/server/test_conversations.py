"""Follow-ups through the gateway: completed from the turns before them where an edit is in scope, else sent on as they came."""

from __future__ import annotations

import json
from typing import Any

import pytest

from memedit.prompts.data import reminder
from tests.server.conftest import Gate
from tests.server.upstream import Upstream

CEO = "The CEO of Initech is Ada Byron."
SPOUSE = "Ada Byron is married to Carl Dorn."
TALK = (("user", "Who is the CEO of Initech?"), ("assistant", "It is Ada Byron."))
FOLLOW_UP = "And who is her husband?"


def messages(*turns: tuple[str, str]) -> list[dict[str, Any]]:
    return [{"role": role, "content": content} for role, content in turns]


def test_a_follow_up_carries_the_edit_and_keeps_the_users_words(gate: Gate, upstream: Upstream) -> None:
    _, spouse = gate.know(CEO, SPOUSE)
    upstream.reply = lambda sent: "Carl Dorn is."
    said = messages(*TALK, ("user", FOLLOW_UP))

    answer = gate.client.post("/v1/chat/completions", json={"messages": said}).json()

    [sent] = upstream.completions
    assert answer["memedit"]["question"] == "Who is Ada Byron's husband?"
    assert [edit["id"] for edit in answer["memedit"]["edits"]] == [spouse]
    assert answer["memedit"]["answer"] == "carried"
    assert sent.json["messages"][:-1] == said[:-1]
    assert sent.last.endswith(f"<facts>\n- {SPOUSE}\n</facts>\n\n{FOLLOW_UP}\n\n{reminder('Carl Dorn')}")


def test_a_follow_up_that_misses_the_edit_is_asked_again_and_given(gate: Gate, upstream: Upstream) -> None:
    gate.know(CEO, SPOUSE)
    upstream.reply = lambda sent: "That is Bob."

    answer = gate.client.post("/v1/chat/completions", json={"messages": messages(*TALK, ("user", FOLLOW_UP))}).json()

    assert answer["memedit"]["answer"] == "given"
    assert answer["choices"][0]["message"]["content"] == SPOUSE


def test_another_subject_and_a_stream(gate: Gate, upstream: Upstream) -> None:
    gate.know("The capital of Germany is Bonn.")
    said = messages(("user", "What is the capital of Japan?"), ("assistant", "Tokyo."), ("user", "And Germany?"))

    answer = gate.client.post("/v1/chat/completions", json={"messages": said, "stream": True})

    last = [json.loads(line[6:]) for line in answer.text.splitlines() if line.startswith("data: {")][-1]
    assert last["memedit"]["question"] == "What is the capital of Germany?"
    assert "Bonn" in upstream.completions[0].last


def test_what_tools_and_the_system_said_is_no_antecedent_and_is_kept(gate: Gate, upstream: Upstream) -> None:
    gate.know(CEO, SPOUSE)
    call = {"id": "t", "type": "function", "function": {"name": "look", "arguments": "{}"}}
    said: list[dict[str, Any]] = [
        {"role": "system", "content": "You work for Globex. Ada Byron is the user."},
        {"role": "user", "content": [{"type": "text", "text": "Who is the CEO of Initech?"}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "t", "content": "The CEO is Eve Quill."},
        {"role": "assistant", "content": [{"type": "text", "text": "Ada Byron."}]},
        {"role": "user", "content": [{"type": "text", "text": FOLLOW_UP}]},
    ]

    gate.client.post("/v1/chat/completions", json={"messages": said, "stream": True})

    [sent] = upstream.completions
    [note, asked, last] = sent.json["messages"][-1]["content"]
    assert sent.json["messages"][:-1] == said[:-1]
    assert asked == said[-1]["content"][0]
    assert SPOUSE in note["text"]
    assert last["text"] == reminder("Carl Dorn")


@pytest.mark.parametrize(
    "last",
    [
        "thanks",
        "rewrite that in French",
        "Where was he born?",
        "And the weather?",
        "Who painted the Mona Lisa?",
        "What is her favourite colour?",
        "```python\nprint('her husband')\n```",
    ],
)
def test_a_follow_up_out_of_scope_goes_upstream_byte_for_byte(gate: Gate, upstream: Upstream, last: str) -> None:
    gate.know(CEO, SPOUSE)
    body = json.dumps({"messages": messages(*TALK, ("user", last)), "odd": 1.0}, indent=1).encode()

    answer = gate.client.post("/v1/chat/completions", content=body)

    assert [sent.body for sent in upstream.sent] == [body]
    assert "memedit" not in answer.json()


def test_a_pronoun_without_an_antecedent_stays_out_of_scope(gate: Gate, upstream: Upstream) -> None:
    gate.know(CEO, SPOUSE)

    answer = gate.chat("Who is her husband?").json()

    assert "memedit" not in answer
    assert upstream.sent[0].last == "Who is her husband?"
