"""`memedit backup`, `restore`, `verify` and `compact`: what they print, and what they exit with."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from memedit.cli import app
from memedit.memory.fact import FactInput
from memedit.memory.memory import EditMemory


@pytest.fixture
def facts(tmp_path: Path) -> Path:
    path = tmp_path / "facts.db"
    with EditMemory(path, embed_on_write=False) as memory:
        for city in ("Lyon", "Nice"):
            memory.assert_fact(FactInput(subject="France", relation="capital", object=city))
    return path


def run(facts: Path, *words: str) -> Result:
    return CliRunner().invoke(app, ["--memory", str(facts), *words])


def test_verify_prints_the_hash_and_exits_with_0_where_all_is_well(facts: Path) -> None:
    plain, told = run(facts, "verify"), run(facts, "verify", "--json")

    report = json.loads(told.stdout)
    assert (plain.exit_code, told.exit_code) == (0, 0)
    assert (report["whole"], report["position"], report["transactions"], report["vectors"]) == (True, 3, 2, None)
    assert report["hash"] in plain.stdout
    assert "2 transactions up to position 3" in plain.stdout


def test_verify_names_what_was_changed_and_exits_with_4(facts: Path) -> None:
    with closing(sqlite3.connect(facts)) as connection, connection:
        connection.execute("UPDATE memedit_log SET object = 'Rome' WHERE seq = 2")

    plain, told = run(facts, "verify"), run(facts, "verify", "--json")

    assert (plain.exit_code, told.exit_code) == (4, 4)
    assert "Entries 2 to 3 (transaction 2" in plain.stdout
    assert json.loads(told.stdout)["whole"] is False
    assert len(json.loads(told.stdout)["faults"]) == 1


def test_a_backup_is_restored_to_a_position(facts: Path, tmp_path: Path) -> None:
    copied = run(facts, "backup", str(tmp_path / "copy.db"), "--json")
    made = run(facts, "restore", str(tmp_path / "copy.db"), str(tmp_path / "then.db"), "--position", "1", "--json")

    assert json.loads(copied.stdout)["position"] == 3
    assert json.loads(made.stdout)["position"] == 1
    assert "Lyon" in run(tmp_path / "then.db", "facts").stdout
    assert "Nice" in run(tmp_path / "copy.db", "facts").stdout


def test_a_backup_over_a_file_and_a_backup_of_nothing_exit_with_4(facts: Path, tmp_path: Path) -> None:
    for done in (run(facts, "backup", str(facts)), run(tmp_path / "typo.db", "backup", str(tmp_path / "copy.db"))):
        assert done.exit_code == 4
        assert done.stdout == ""
        assert done.stderr


def test_compact_erases_what_ended_before_and_prints_a_receipt(facts: Path) -> None:
    trial = run(facts, "compact", "--keep", "0d", "--trial")
    kept = run(facts, "compact", "--keep", "1d", "--yes")
    told = run(facts, "compact", "--keep", "0d", "--yes", "--json")

    assert (trial.exit_code, kept.exit_code, told.exit_code) == (0, 0, 0)
    assert "1 facts of 'default' would be erased" in trial.stdout
    assert "0 facts of no namespace were erased" in kept.stdout
    receipt = json.loads(told.stdout)
    assert (receipt["facts"], receipt["position"], receipt["trial"]) == ([1], 4, False)
    assert receipt["erased"][0] == {"place": "memedit_log", "what": "entries emptied", "amount": 2}
    assert b"Lyon" not in facts.read_bytes()
    assert run(facts, "verify").exit_code == 0
    assert "compacted" in run(facts, "facts", "--as-of", "2020-01-01").stderr


def test_compact_erases_a_subject_from_every_namespace(facts: Path) -> None:
    for namespace in ("acme", "default"):
        run(facts, "--namespace", namespace, "add", "Bob", "employer", "Quagmire Inc")

    told = run(facts, "compact", "--subject", "bob", "--all-namespaces", "--yes")

    assert told.exit_code == 0
    assert "2 facts of 'acme', 'default' were erased" in told.stdout
    assert "Not touched: Backups" in told.stdout
    assert b"Quagmire" not in facts.read_bytes()


@pytest.mark.parametrize(
    ("words", "code", "problem"),
    [
        ((), 2, "Give one of"),
        (("--keep", "1d", "--subject", "Bob"), 2, "Give one of"),
        (("--keep", "soon"), 2, "is no time"),
        (("--keep", "0d"), 2, "say --yes"),
        (("--subject", "Bob", "--yes"), 1, "nothing about 'Bob'"),
    ],
)
def test_compact_erases_nothing_that_it_is_not_sure_of(
    words: tuple[str, ...], code: int, problem: str, facts: Path
) -> None:
    done = run(facts, "compact", *words)

    assert done.exit_code == code
    assert problem in " ".join(done.output.replace("│", " ").split())
    assert b"Lyon" in b"".join(path.read_bytes() for path in facts.parent.iterdir())
