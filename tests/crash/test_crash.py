"""A writer that is killed at any point loses nothing that it has acknowledged, and leaves index and log in agreement."""

from __future__ import annotations

import multiprocessing
import random
import signal
import time
import warnings
from collections.abc import Callable, Sequence
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path

import pytest

from memedit.errors import IndexRebuilt
from memedit.memory.maintenance import verify
from memedit.memory.memory import EditMemory
from memedit.memory.store import Store
from tests.crash.writer import Acknowledged, write_until_killed
from tests.memory.hash_embedder import HashEmbedder
from tests.postgres import Server

KILLS = 50
KILLS_A_MEMORY = 10


def kill_a_writer(place: str, seed: int, *, reports: int, seconds: float) -> list[Acknowledged]:
    """Start a writer and kill it.

    Args:
        place: The memory's file or URL.
        seed: Chooses what is written.
        reports: How many reports to wait for, the first of which says that the memory is open.
        seconds: How long to wait after that.

    Returns:
        What the writer had acknowledged.
    """
    processes = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["pytest", "tests.crash.writer"])  # so that a writer starts at once
    reading, writing = processes.Pipe(duplex=False)
    writer = processes.Process(target=write_until_killed, args=(place, seed, writing))
    writer.start()
    writing.close()
    said = [reading.recv() for _ in range(reports)]
    time.sleep(seconds)
    writer.kill()
    writer.join(60)
    assert writer.exitcode == -signal.SIGKILL
    return [report for report in (*said, *rest(reading)) if report is not None]


def rest(reading: Connection) -> list[Acknowledged | None]:
    """What was reported before the end; a report that was cut off is none."""
    said: list[Acknowledged | None] = []
    try:
        while True:
            said.append(reading.recv())
    except EOFError:
        return said


def check(place: str, earlier: Sequence[Acknowledged], last: Sequence[Acknowledged]) -> None:
    """Hold a memory against what its writers said: the earlier ones, and the one that was killed last."""
    with EditMemory(place, embedder=HashEmbedder()) as memory:
        history = {fact.id: fact.statement for fact in memory.history()}
        reports = (*earlier, *last)
        written = {number: text for report in reports for number, text in report.written.items()}
        erased = {number for report in reports for number in report.erasing} - history.keys()
        assert {number: text for number, text in written.items() if number not in erased}.items() <= history.items()
        if last:
            # A write that was under way when the writer was killed may be there too, but it came later.
            assert [fact.id for fact in memory.facts(as_of=last[-1].time)] == last[-1].live
        check_index(memory)
    # A compaction that was cut off may have left its old index; nothing else may be amiss.
    assert [fault for fault in verify(place).faults if "before facts were erased" not in fault] == []


def check_index(memory: EditMemory) -> None:
    """Every live fact is found by its statement and its question, and nothing else is."""
    live = memory.facts()
    if not live:
        return
    view = memory.view()
    for texts in ([fact.statement for fact in live], [fact.question for fact in live]):
        for fact, (best, *_) in zip(live, view.search(memory.embedder.encode(texts), 1), strict=True):
            assert best.fact == fact
            assert best.score == pytest.approx(1)
    (found,) = view.search(memory.embedder.encode(["anything"]), len(live) + 10)
    assert sorted(hit.fact.id for hit in found) == [fact.id for fact in live]


@pytest.fixture(params=["sqlite", "postgres"])
def new_place(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[], str]:
    """Places of empty memories."""
    if request.param == "postgres":
        server: Server = request.getfixturevalue("postgres")
        return server.new_url
    numbers = count(1)
    return lambda: str(tmp_path / f"facts{next(numbers)}.db")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::memedit.errors.IndexRebuilt")
def test_no_acknowledged_write_is_lost_however_often_the_writer_is_killed(new_place: Callable[[], str]) -> None:
    choose = random.Random(2024)
    written = 0

    for _ in range(KILLS // KILLS_A_MEMORY):
        place = new_place()
        earlier: list[Acknowledged] = []
        for kill in range(KILLS_A_MEMORY):
            # Every other time in the midst of opening: creating the file, or replaying what the last one left.
            opening = kill % 2 == 0
            reports, seconds = (
                (0, choose.uniform(0, 0.1)) if opening else (choose.randint(1, 14), choose.uniform(0, 0.05))
            )
            said = kill_a_writer(place, kill, reports=reports, seconds=seconds)
            check(place, earlier, said)
            earlier += said
        written += sum(len(report.written) for report in earlier)

    assert written > 5 * KILLS, "the writers were killed before they could write much: the test has shown little"


def test_a_killed_writers_index_is_caught_up_with_a_notice(place: str) -> None:
    said = kill_a_writer(place, 1, reports=5, seconds=0)
    with Store(place) as store:
        assert store.snapshot is not None
        store.snapshot.parent.mkdir(exist_ok=True)
        store.snapshot.write_bytes(b"torn")

    with pytest.warns(IndexRebuilt):
        check(place, [], said)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(place, said, [])
