"""A gateway that is killed while clients write loses no fact that it has acknowledged, and its audit log knows of every write."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from memedit.memory.memory import EditMemory
from memedit.server.records import Records
from tests.memory.hash_embedder import HashEmbedder

WRITERS = 4
ROUNDS = 2
WRITES_A_ROUND = 40


class Ledger:
    """What writers were told: the ids and statements of acknowledged facts, and the ids of acknowledged retractions."""

    def __init__(self) -> None:
        self.written: dict[int, str] = {}
        self.retracted: set[int] = set()
        self.acknowledged = 0
        self._lock = threading.Lock()

    def add(self, fact: int, statement: str) -> None:
        with self._lock:
            self.written[fact] = statement
            self.acknowledged += 1

    def retract(self, fact: int) -> None:
        with self._lock:
            self.retracted.add(fact)
            self.acknowledged += 1


@contextmanager
def gateway(memory: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """`memedit serve` in a process of its own, in front of nothing."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "memedit.cli", "serve", "--memory", str(memory), "--upstream", "http://127.0.0.1:9/v1",
        "--open", "--rate", "0", "--port", str(port),
    ]  # fmt: skip
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"}, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        deadline = time.monotonic() + 120
        while not _is_alive(url):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield url, process
    finally:
        process.kill()
        process.wait(60)


def write(url: str, name: str, ledger: Ledger) -> None:
    """Write facts, and retract some of them, until the gateway is gone."""
    with httpx.Client(base_url=url, timeout=30) as client:
        try:
            for number in range(10_000):
                statement = f"The capital of Land {name} {number} is Town {number}."
                fact = (
                    client.post("/v1/memory/facts", json={"statement": statement})
                    .raise_for_status()
                    .json()["fact"]["id"]
                )
                ledger.add(fact, statement)
                if number % 5 == 4:
                    client.delete(f"/v1/memory/facts/{fact}").raise_for_status()
                    ledger.retract(fact)
        except httpx.TransportError:
            return


@pytest.mark.slow
def test_a_gateway_killed_under_writes_loses_no_acknowledged_fact(tmp_path: Path) -> None:
    memory, ledger = tmp_path / "facts.db", Ledger()
    for round_ in range(ROUNDS):
        goal = ledger.acknowledged + WRITES_A_ROUND
        with gateway(memory) as (url, process):
            writers = [
                threading.Thread(target=write, args=(url, f"{round_}-{number}", ledger)) for number in range(WRITERS)
            ]
            for writer in writers:
                writer.start()
            while ledger.acknowledged < goal and any(writer.is_alive() for writer in writers):
                time.sleep(0.002)
            process.send_signal(signal.SIGKILL)
            for writer in writers:
                writer.join(60)
            assert process.wait(60) == -signal.SIGKILL
        assert ledger.acknowledged >= goal

    with EditMemory(memory, embedder=HashEmbedder()) as kept, Records(f"{memory}.server") as records:
        history = {fact.id: fact for fact in kept.history()}
        entries = [*records.entries("default", limit=10_000)]
    assert ledger.written.items() <= {number: fact.statement for number, fact in history.items()}.items()
    assert {number for number in ledger.written if not history[number].live} >= ledger.retracted
    unsure = [number for number in ledger.written if not history[number].live and number not in ledger.retracted]
    assert len(unsure) <= ROUNDS * WRITERS  # retractions under way at the kill
    noted = [fact for entry in entries if entry.outcome == "done" for fact in entry.facts]
    begun = [entry for entry in entries if entry.outcome == "begun"]
    assert len(set(ledger.written) - set(noted)) <= len(begun) <= ROUNDS * WRITERS
    assert len(entries) >= ledger.acknowledged


def _is_alive(url: str) -> bool:
    try:
        return httpx.get(f"{url}/healthz", timeout=5).status_code == 200
    except httpx.TransportError:
        return False
