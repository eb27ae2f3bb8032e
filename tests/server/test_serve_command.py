"""`memedit keys`, `memedit serve` and `memedit mcp`: what they print, refuse and start."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner, Result

from memedit.cli import app
from memedit.server.records import Records, Role
from tests.server.upstream import Upstream


@pytest.fixture
def memory_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MEMEDIT_MEMORY", str(tmp_path / "facts.db"))
    return tmp_path / "facts.db"


def run(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


def test_keys_are_made_listed_and_revoked(memory_file: Path) -> None:
    made = run("keys", "create", "alice", "--role", "editor", "--for", "a", "--for", "b", "--json")
    plain = run("keys", "create", "bob")
    told = json.loads(made.stdout)
    with Records(f"{memory_file}.server") as records:
        key = records.check_key(told["key"])
        assert records.check_key(plain.stdout.strip()).namespaces == ("default",)
    assert (key.name, key.role, key.namespaces) == ("alice", Role.EDITOR, ("a", "b"))

    revoked = run("keys", "revoke", key.id)

    assert revoked.exit_code == 0
    rows = [json.loads(line) for line in run("keys", "list", "--json").stdout.splitlines()]
    assert [(row["name"], row["revoked_at"] is None) for row in rows] == [("alice", False), ("bob", True)]
    assert "key" not in rows[0]
    assert "revoked" in run("keys", "list").stdout


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (["serve", "--upstream", "localhost:8000"], "not the URL"),
        (["serve", "--upstream", "http://localhost:1/v1", "--open", "--host", "0.0.0.0"], "everyone on the network"),
        (["keys", "revoke", "nobody"], "no API key"),
        (["keys", "create", "x", "--for", ""], "cannot name a namespace"),
    ],
)
def test_what_cannot_be_is_refused_with_how_to_mend_it(memory_file: Path, words: list[str], problem: str) -> None:
    result = run(*words)

    assert result.exit_code == 1
    assert problem in " ".join(result.stderr.split())


def test_an_unknown_role_is_a_usage_error(memory_file: Path) -> None:
    assert run("keys", "create", "x", "--role", "king").exit_code == 2


@pytest.mark.slow
def test_the_server_starts_answers_logs_without_contents_and_stops(memory_file: Path, upstream: Upstream) -> None:
    run("add", "The capital of Japan is Osaka.")
    key = run("keys", "create", "alice").stdout.strip()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    upstream.reply = lambda sent: "Osaka it is"
    command = [sys.executable, "-m", "memedit.cli", "serve", "--upstream", f"{upstream.url}/v1", "--port", str(port)]
    process = subprocess.Popen(command, env=dict(os.environ), stderr=subprocess.PIPE, text=True)
    try:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 120
        while not _is_ready(url):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.2)
        answer = httpx.post(
            f"{url}/v1/chat/completions",
            json={"messages": [{"role": "user", "content": "What is the capital of Japan?"}]},
            headers={"authorization": f"Bearer {key}"}, timeout=60,
        )  # fmt: skip
    finally:
        process.send_signal(signal.SIGINT)
        _, logged = process.communicate(timeout=60)

    assert answer.json()["memedit"]["answer"] == "carried"
    rows = [json.loads(line) for line in logged.splitlines() if line.startswith("{")]
    [chat] = [row for row in rows if row["event"] == "request" and row["route"] == "chat"]
    assert (chat["status"], chat["edits"], chat["key"]) == (200, [1], key.split("_")[1])
    assert "Osaka" not in logged
    assert key not in logged


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=5).status_code == 200
    except httpx.TransportError:
        return False
