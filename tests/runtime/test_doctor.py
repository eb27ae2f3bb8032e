"""The doctor: every part is tried for real, and what is broken is told with its mend and hides nothing else."""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib import metadata
from pathlib import Path

import pytest

from memedit import doctor
from memedit.doctor import Finding, Part, examine
from memedit.memory.fact import FactInput
from memedit.memory.memory import EditMemory

SLOW_PARTS = ("_embedder", "_embedded_model")


@pytest.fixture
def _without_models(monkeypatch: pytest.MonkeyPatch) -> None:
    for part in SLOW_PARTS:
        monkeypatch.setattr(doctor, part, lambda: Finding("works", "not tried in this test"))


@pytest.fixture
def memory_file(tmp_path: Path) -> Path:
    """A memory of two facts whose index is saved."""
    path = tmp_path / "facts.db"
    with EditMemory(path) as memory:
        memory.assert_fact(FactInput(subject="France", relation="capital", object="Lyon"))
        memory.assert_fact(FactInput(subject="France", relation="capital", object="Nice"))
    return path


def look(memory: Path | str, model: str = "embedded") -> dict[str, Part]:
    return {part.name: part for part in examine(str(memory), model)}


@pytest.mark.model
def test_on_a_machine_set_up_for_it_everything_needed_works(memory_file: Path) -> None:
    parts = look(memory_file)

    assert [part.name for part in parts.values() if not part.fine] == []
    assert {part.name for part in parts.values() if part.needed} >= {"Python", "packages", "embedder", "embedded model"}


@pytest.mark.usefixtures("_without_models")
def test_a_part_that_breaks_hides_no_other(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def fail() -> Finding:
        raise RuntimeError("undefined symbol")

    monkeypatch.setattr(doctor, "_faiss", fail)

    parts = look(tmp_path / "facts.db")

    assert parts["FAISS"].finding.state == "broken"
    assert "undefined symbol" in parts["FAISS"].finding.detail
    assert parts["memory"].finding.state == "works"


@pytest.mark.usefixtures("_without_models")
def test_a_missing_package_is_named_with_its_mend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    installed = metadata.version

    def version(name: str) -> str:
        if name == "faiss-cpu":
            raise metadata.PackageNotFoundError(name)
        return installed(name)

    monkeypatch.setattr(metadata, "version", version)

    finding = look(tmp_path / "facts.db")["packages"].finding

    assert finding.state == "not installed"
    assert "faiss-cpu" in finding.detail
    assert "pip install" in finding.mend


@pytest.mark.usefixtures("_without_models")
def test_a_package_that_is_too_old_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    installed = metadata.version
    monkeypatch.setattr(metadata, "version", lambda name: "1.0" if name == "torch" else installed(name))

    finding = look(tmp_path / "facts.db")["packages"].finding

    assert finding.state == "broken"
    assert "torch 1.0" in finding.detail


def test_the_embedded_model_is_not_needed_where_another_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(doctor, "_embedder", lambda: Finding("works", ""))
    monkeypatch.setattr(doctor, "_embedded_model", lambda: Finding("not installed", "no weights", "pip install ..."))

    embedded = look(tmp_path / "facts.db")["embedded model"]
    served = look(tmp_path / "facts.db", "http://127.0.0.1:9/v1")["embedded model"]

    assert not embedded.fine
    assert served.fine


@pytest.mark.usefixtures("_without_models")
def test_a_server_that_is_down_is_broken_and_needed(tmp_path: Path) -> None:
    part = look(tmp_path / "facts.db", "http://127.0.0.1:9/v1")["model server"]

    assert part.finding.state == "broken"
    assert "http://127.0.0.1:9/v1" in part.finding.detail
    assert part.finding.mend
    assert not part.fine


@pytest.mark.usefixtures("_without_models")
def test_a_server_that_answers_works(tmp_path: Path, server: str) -> None:
    finding = look(tmp_path / "facts.db", server)["model server"].finding

    assert finding.state == "works"
    assert "tiny" in finding.detail
    assert "'Yes.'" in finding.detail


@pytest.mark.usefixtures("_without_models")
class TestMemory:
    def test_a_file_that_is_not_there_yet_is_fine_and_not_made(self, tmp_path: Path) -> None:
        parts = look(tmp_path / "new" / "facts.db")

        assert parts["memory"].finding.state == "works"
        assert list(tmp_path.iterdir()) == []

    def test_a_good_file_is_opened_and_its_index_compared_with_the_log(self, memory_file: Path) -> None:
        parts = look(memory_file)

        assert "1 live facts in 1 namespaces" in parts["memory"].finding.detail
        assert parts["vector index"].finding.state == "works"
        assert "2 facts found again" in parts["vector index"].finding.detail

    def test_another_applications_database_is_refused_untouched(self, tmp_path: Path) -> None:
        path = tmp_path / "other.db"
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE songs (name TEXT)")
        before = path.read_bytes()

        part = look(path)["memory"]

        assert part.finding.state == "broken"
        assert not part.fine
        assert path.read_bytes() == before

    def test_a_folder_that_cannot_be_written_is_told(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(os, "access", lambda *_, **__: False)

        part = look(tmp_path / "facts.db")["memory"]

        assert part.finding.state == "broken"
        assert not part.fine

    def test_a_damaged_index_is_told_but_not_needed(self, memory_file: Path) -> None:
        index = memory_file.with_name("facts.db.index")
        index.write_bytes(index.read_bytes()[:-10])

        part = look(memory_file)["vector index"]

        assert part.finding.state == "broken"
        assert part.fine

    def test_the_index_of_another_memory_is_told(self, memory_file: Path, tmp_path: Path) -> None:
        other = tmp_path / "other.db"
        with EditMemory(other) as memory:
            memory.assert_fact(FactInput(subject="Japan", relation="capital", object="Kyoto"))
        shutil.copy(tmp_path / "other.db.index", tmp_path / "facts.db.index")

        assert "belongs to another memory" in look(memory_file)["vector index"].finding.detail

    def test_an_index_that_is_ahead_of_the_log_is_told(self, memory_file: Path) -> None:
        with sqlite3.connect(memory_file) as connection:
            connection.execute("DELETE FROM memedit_log")

        assert "which the log does not have" in look(memory_file)["vector index"].finding.detail


@pytest.fixture
def server() -> Iterator[str]:
    """A model server of one model, which says yes."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.reply('{"object": "list", "data": [{"id": "tiny", "object": "model"}]}')

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.reply(
                '{"id": "1", "object": "chat.completion", "created": 0, "model": "tiny", "choices": [{"index": 0, '
                '"message": {"role": "assistant", "content": "Yes."}, "finish_reason": "stop"}], '
                '"usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}}'
            )

        def reply(self, body: str) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as httpd:
        thread = threading.Thread(target=httpd.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{httpd.server_port}/v1"
        httpd.shutdown()
        thread.join()
