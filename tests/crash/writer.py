"""Writes to an edit memory until it is killed, and reports every write once it has returned."""

from __future__ import annotations

import random
from contextlib import suppress
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from typing import NamedTuple

from memedit.errors import NothingToUndo
from memedit.memory.fact import FactInput, Receipt
from memedit.memory.memory import EditMemory
from tests.memory.hash_embedder import HashEmbedder


class Acknowledged(NamedTuple):
    """What the memory said after a write.

    Attributes:
        written: The statements that the write recorded, by fact id.
        live: Ids of all live facts.
        time: When this was; what was recorded by then is what is described here.
        erasing: Ids of ended facts that are about to be erased.
    """

    written: dict[int, str]
    live: list[int]
    time: datetime
    erasing: tuple[int, ...] = ()


def write_until_killed(place: str, seed: int, reports: Connection) -> None:
    """Open the memory, report so with None, and write."""
    choose = random.Random(seed)
    memory = EditMemory(place, embedder=HashEmbedder())
    reports.send(None)
    step = 0
    report = Acknowledged({}, [fact.id for fact in memory.facts()], datetime.now(UTC))
    while True:
        step += 1
        if step % 7 == 0:  # what had ended by the last report, so that its time can still be read
            reports.send(report._replace(written={}, erasing=memory.compact(report.time, trial=True).facts))
            memory.compact(report.time)
        receipts = _write(memory, choose, f"{seed}.{step}")
        written = {receipt.fact.id: receipt.fact.statement for receipt in receipts}
        report = Acknowledged(written, [fact.id for fact in memory.facts()], datetime.now(UTC))
        reports.send(report)


def _write(memory: EditMemory, choose: random.Random, mark: str) -> list[Receipt]:
    kind = choose.choices(("one", "batch", "retract", "undo", "save the index"), (8, 4, 3, 2, 1))[0]
    live = memory.facts(limit=5)
    if kind == "retract" and live:
        memory.retract(choose.choice(live).id)
    elif kind == "undo" and live:
        with suppress(NothingToUndo):  # it does not reach behind what was erased
            memory.undo()
    elif kind == "save the index":
        memory.save_index()
    elif kind == "batch":
        return memory.assert_facts(_fact(choose, f"{mark}.{n}") for n in range(choose.randint(2, 20)))
    else:
        return [memory.assert_fact(_fact(choose, mark))]
    return []


def _fact(choose: random.Random, mark: str) -> FactInput:
    # A few slots that keep being superseded, and many of their own.
    subject = f"Land {choose.randint(0, 9)}" if choose.random() < 0.5 else f"Land {mark}"
    return FactInput(subject=subject, relation="capital", object=f"City {mark}")
