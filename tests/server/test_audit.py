"""The audit log of writes from the command line: the same log as the gateway's, with who, when and what came of it."""

from __future__ import annotations

import getpass
import json
import socket
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from memedit.cli import app
from memedit.errors import NothingToUndo, StoreError
from memedit.server.audit import Writer, audited, local_writer
from memedit.server.records import AuditEntry, Records


@pytest.fixture
def memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MEMEDIT_MEMORY", str(tmp_path / "facts.db"))
    monkeypatch.delenv("MEMEDIT_ACCESS", raising=False)
    return tmp_path / "facts.db"


def run(*words: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(app, list(words), input=stdin)


def entries(place: Path, namespace: str = "default") -> list[AuditEntry]:
    with Records(place) as records:
        return records.entries(namespace)


def test_every_write_of_the_command_line_is_in_the_log(memory: Path, tmp_path: Path) -> None:
    lines = tmp_path / "facts.jsonl"
    lines.write_text('{"subject": "Peru", "relation": "capital", "object": "Cusco"}\n')
    fact = json.loads(run("add", "Japan", "capital", "Osaka", "--json").stdout)["fact"]["id"]
    run("add", "--stdin", stdin="The capital of Spain is Seville.\n")
    run("add", "Japan", "P99999", "Osaka")
    run("import", str(lines), "--no-embed")
    run("alias", "Japan", "Nippon")
    run("alias", "Japan")
    run("facts")
    run("undo")
    run("retract", str(fact))
    run("retract", str(fact))

    found = entries(Path(f"{memory}.server"))

    assert [(one.action, one.outcome) for one in found] == [
        ("add", "done"), ("add", "done"), ("add", "refused"), ("import", "done"), ("alias", "done"), ("undo", "done"),
        ("retract", "done"), ("retract", "refused"),
    ]  # fmt: skip
    assert found[0].facts == found[6].facts == (fact,)
    assert found[2].detail == "UnknownRelation"
    assert {(one.key, one.client) for one in found} == {(f"cli:{getpass.getuser()}", socket.gethostname())}
    assert all(datetime.now(UTC) - one.at < timedelta(minutes=10) for one in found)


def test_an_erasure_is_in_the_log_of_every_namespace_it_touches(memory: Path) -> None:
    fact = json.loads(run("add", "Japan", "capital", "Osaka", "--json").stdout)["fact"]["id"]
    run("add", "Japan", "capital", "Nara", "--namespace", "acme")
    run("compact", "--subject", "Osaka", "--yes")
    run("compact", "--subject", "Japan", "--all-namespaces", "--yes")
    run("compact", "--subject", "Japan", "--trial")

    here, there = entries(Path(f"{memory}.server")), entries(Path(f"{memory}.server"), "acme")

    assert [(one.action, one.outcome, one.facts) for one in here] == [
        ("add", "done", (fact,)),
        ("erase", "done", (fact,)),
    ]
    assert [(one.action, one.outcome, len(one.facts)) for one in there] == [("add", "done", 1), ("erase", "done", 1)]


def test_the_log_is_where_the_gateway_looks_for_it(
    memory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMEDIT_ACCESS", str(tmp_path / "access.db"))

    run("add", "Japan", "capital", "Osaka", "--namespace", "acme")

    assert [one.action for one in entries(tmp_path / "access.db", "acme")] == ["add"]
    assert not Path(f"{memory}.server").exists()


def test_nothing_is_written_where_the_log_cannot_be(memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMEDIT_ACCESS", str(memory.parent / "no" / "such" / "folder.db"))

    result = run("add", "Japan", "capital", "Osaka")

    assert result.exit_code == 4
    monkeypatch.delenv("MEMEDIT_ACCESS")
    assert run("facts", "--json").stdout == ""


def test_a_write_that_fails_says_how_and_one_that_is_killed_stays_begun() -> None:
    def refuse() -> tuple[None, list[int]]:
        raise NothingToUndo("There is nothing.", "Write something.")

    def fail() -> tuple[None, list[int]]:
        raise RuntimeError("the disk is gone")

    def kill() -> tuple[None, list[int]]:
        raise KeyboardInterrupt

    who = Writer("cli:alice", "host")
    with Records(":memory:") as records:
        for job, kind in ((refuse, NothingToUndo), (fail, RuntimeError), (kill, KeyboardInterrupt)):
            with pytest.raises(kind):
                audited(records, who, ["a"], "undo", job)
        found = records.entries("a")

    assert [(one.outcome, one.detail) for one in found] == [
        ("refused", "NothingToUndo"),
        ("failed", "RuntimeError"),
        ("begun", ""),
    ]


def test_a_write_stands_though_its_entry_cannot_be_completed(tmp_path: Path) -> None:
    with Records(tmp_path / "records.db") as records:

        def job() -> tuple[str, list[int]]:
            with records._begin() as connection:
                connection.exec_driver_sql("DROP TABLE memedit_server_audit")
            return "written", [1]

        assert audited(records, Writer("k", "c"), ["a"], "add", job) == "written"
        with pytest.raises(StoreError):
            records.entries("a")


def test_a_user_without_a_name_is_known_by_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.setattr("getpass.getuser", nameless)

    assert local_writer("cli").key.removeprefix("cli:").isdigit()
