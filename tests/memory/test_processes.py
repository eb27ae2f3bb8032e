"""Several processes on one database: every write is kept, in one order, and seen by the others."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from memedit.memory.fact import FactInput
from memedit.memory.memory import EditMemory
from tests.memory.hash_embedder import HashEmbedder

ROOT = Path(__file__).resolve().parents[2]

WRITER = """
import sys
from memedit.memory.fact import FactInput
from memedit.memory.memory import EditMemory
from tests.memory.hash_embedder import HashEmbedder

path, name, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
with EditMemory(path, embedder=HashEmbedder(), busy_timeout=60) as memory:
    for number in range(count):
        memory.assert_fact(FactInput(subject=f"{name} {number}", relation="capital", object="Lyon"))
        memory.assert_fact(FactInput(subject="France", relation="capital", object=f"{name} {number}"))
"""


def start(place: str, name: str, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", WRITER, place, name, str(count)], cwd=ROOT, text=True)


def test_two_processes_that_create_and_write_one_memory_lose_nothing(place: str) -> None:
    count = 40
    writers = [start(place, name, count) for name in ("Alpha", "Beta")]

    assert [writer.wait(timeout=120) for writer in writers] == [0, 0]

    with EditMemory(place, embedder=HashEmbedder()) as memory:
        history = memory.history()
        assert [fact.id for fact in history] == list(range(1, 4 * count + 1))
        for name in ("Alpha", "Beta"):
            own = [fact.object for fact in history if fact.subject == "France" and fact.object.startswith(name)]
            assert own == [f"{name} {number}" for number in range(count)]
        assert len(memory.view().lookup("France", "capital")) == 1
        assert memory.count() == 2 * count + 1
        (hits,) = memory.view().search(memory.embedder.encode(["What is the capital of Beta 7?"]), 1)
        assert hits[0].fact.subject == "Beta 7"


def test_a_process_sees_what_another_has_written_and_can_build_on_it(place: str) -> None:
    with EditMemory(place, embedder=HashEmbedder()) as memory:
        memory.assert_fact(FactInput(subject="France", relation="capital", object="Nice"))
        view = memory.view()
        view.search(memory.embedder.encode(["load the index"]), 1)

        assert start(place, "Alpha", 3).wait(timeout=120) == 0

        assert memory.view(at_least=10).lookup("France", "capital")[0].object == "Alpha 2"
        assert memory.count() == 4
        (hits,) = memory.view().search(memory.embedder.encode(["What is the capital of Alpha 1?"]), 1)
        assert hits[0].fact.subject == "Alpha 1"
        receipt = memory.assert_fact(FactInput(subject="France", relation="capital", object="Nice"))
        assert [fact.object for fact in receipt.replaced] == ["Alpha 2"]
        assert [fact.id for fact in memory.undo()] == [receipt.replaced[0].id, receipt.fact.id]


def test_two_memories_on_one_database_follow_each_other(place: str) -> None:
    with (
        EditMemory(place, embedder=HashEmbedder()) as one,
        EditMemory(place, embedder=HashEmbedder()) as two,
    ):
        for number in range(5):
            for writer, reader in ((one, two), (two, one)):
                fact = writer.assert_fact(
                    FactInput(subject=f"Land {number}", relation="favourite dish", object=str(id(writer)))
                ).fact
                reader.view(at_least=writer.position)
                assert reader.get(fact.id) == fact
                assert reader.view().lookup(f"Land {number}", "favourite dish") == (fact,)
                assert reader.position == writer.position
        one.add_alias("Land 1", "Utopia", namespace="acme")
        two.view(at_least=one.position)
        assert two.aliases("Land 1", namespace="acme") == ("Utopia",)
