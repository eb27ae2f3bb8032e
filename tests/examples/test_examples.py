"""The examples run as they are told to: in a process of their own, against the gateway and the scripted model server."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from memedit.server.records import Role
from tests.server.conftest import Gate
from tests.server.upstream import MODEL, Sent, Upstream

EXAMPLES = Path(__file__).parents[2] / "examples"


def says_the_facts(sent: Sent) -> str:
    """A model that repeats the first fact of its prompt, and knows nothing itself."""
    facts = [line.removeprefix("- ") for line in sent.last.splitlines() if line.startswith("- ")]
    return facts[0] if facts else "I have no idea."


def run(name: str, gate: Gate, role: Role, **more: str) -> list[str]:
    """The lines that an example prints."""
    known = {"OPENAI_BASE_URL": f"{gate.url}/v1", "OPENAI_API_KEY": gate.keys[role]}
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / name)],
        env={**os.environ, **known, **more}, capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_openais_client(gate: Gate, upstream: Upstream) -> None:
    upstream.reply = says_the_facts

    recorded, asked, edit, streamed, again = run("openai_client.py", gate, Role.EDITOR)

    statement = "The chief executive officer of Initech is Ada Byron."
    assert recorded.endswith(statement)
    assert asked == f"Who is the CEO of Initech? {statement}"
    assert edit.endswith(statement)
    assert streamed.startswith(f"Streamed: {statement}")
    assert again.endswith("asked again: I have no idea.")


def test_langchains_chat(gate: Gate, upstream: Upstream) -> None:
    ceo, husband = gate.know("The CEO of Initech is Ada Byron.", "Ada Byron is married to Carl Dorn.")
    upstream.reply = says_the_facts

    first, second = run("langchain_chat.py", gate, Role.READER, MODEL=MODEL, LANGSMITH_TRACING="false")

    assert first.endswith(f"is Ada Byron.  [edits: {ceo}]")
    assert second == f"And who is her husband? Ada Byron is married to Carl Dorn.  [edits: {husband}]"


@pytest.fixture
def app(tmp_path: Path, upstream: Upstream, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    monkeypatch.setenv("MEMEDIT_MEMORY", str(tmp_path / "facts.db"))
    monkeypatch.setenv("MEMEDIT_MODEL", f"{upstream.url}/v1#{MODEL}")
    example = import_module("examples.fastapi_app")
    with TestClient(example.app) as client:
        yield client


def test_an_application_of_ones_own(app: TestClient) -> None:
    added = app.post("/facts", json={"statement": "The capital of Japan is Osaka."}).json()
    answer = app.get("/ask", params={"question": "What is the capital of Japan?"}).json()

    assert (added["status"], added["fact"]["object"]) == ("added", "Osaka")
    assert (answer["answer"], answer["edits"]) == ("Osaka", [added["fact"]["id"]])
    assert "Japan --capital--> Osaka" in answer["hops"][0]
    assert [fact["object"] for fact in app.get("/facts", params={"subject": "japan"}).json()] == ["Osaka"]


def test_it_takes_forty_lines() -> None:
    code = (EXAMPLES / "fastapi_app.py").read_text().split('"""', 2)[2]

    assert len([line for line in code.splitlines() if line.strip()]) <= 40
