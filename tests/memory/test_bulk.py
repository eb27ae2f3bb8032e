"""Loading facts with their vectors, and opening a long log by the snapshot of its state."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest

from memedit.errors import BadRow, InvalidFact
from memedit.memory import engine, recall
from memedit.memory.catalogue import Catalogue
from memedit.memory.fact import FactInput
from memedit.memory.index import VectorIndex
from memedit.memory.memory import EditMemory
from memedit.memory.record import Record
from memedit.memory.state import State
from memedit.memory.state_file import Origin, load_state, save_state
from memedit.memory.store import Entry
from tests.memory.hash_embedder import HashEmbedder

START = datetime(2020, 1, 1, tzinfo=UTC)


def capitals(count: int, city: str = "City") -> list[FactInput]:
    return [FactInput(subject=f"Country {n}", relation="capital", object=f"{city} {n}") for n in range(count)]


def vectors_of(memory: EditMemory, facts: list[FactInput]) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    relation = memory.catalogue.get("P36")
    texts = [
        text
        for fact in facts
        for text in (relation.state(fact.subject or "", fact.object or ""), relation.ask(fact.subject or ""))
    ]
    return HashEmbedder().encode(texts).reshape(len(facts), 2, -1)


# -- loading --------------------------------------------------------------------------------------------------


def test_loaded_facts_are_there_as_asserted_ones_are() -> None:
    embedder = HashEmbedder()
    facts = capitals(50)
    with EditMemory(embedder=embedder) as memory, EditMemory(embedder=HashEmbedder()) as other:
        ids = memory.load_facts(facts, vectors_of(memory, facts))
        other.assert_facts(facts)

        assert ids == list(range(1, 51))
        for mine, theirs in zip(memory.facts(), other.facts(), strict=True):
            assert (mine.statement, mine.question, mine.relation) == (
                theirs.statement,
                theirs.question,
                theirs.relation,
            )
        assert memory.view().lookup("country 7", "P36")[0].object == "City 7"
        assert embedder.texts == []  # not one text was embedded
        query = embedder.encode(["What is the capital of Country 9?"])
        assert memory.view().search(query, 1)[0][0].fact.object == "City 9"


def test_loading_supersedes_and_leaves_alone_what_is_there() -> None:
    with EditMemory(embedder=HashEmbedder()) as memory:
        first = memory.load_facts(capitals(3))

        again = memory.load_facts(capitals(3))
        changed = memory.load_facts(capitals(2, city="Town"))

        assert again == first
        assert changed == [4, 5]
        assert [fact.object for fact in memory.facts()] == ["City 2", "Town 0", "Town 1"]
        assert [fact.id for fact in memory.undo()] == [1, 2, 4, 5]


def test_facts_loaded_after_a_search_are_found_by_the_next() -> None:
    with EditMemory(embedder=HashEmbedder()) as memory:
        memory.load_facts(capitals(3))
        memory.view().search(memory.embedder.encode(["warm up"]), 1)

        memory.load_facts([FactInput(statement="The moon is made of cheese.")])

        query = memory.embedder.encode(["The moon is made of cheese."])
        assert memory.view().search(query, 1)[0][0].fact.statement == "The moon is made of cheese."


def test_facts_that_have_ended_do_not_crowd_out_those_that_are_live() -> None:
    with EditMemory(embedder=HashEmbedder()) as memory:
        memory.load_facts(capitals(80))
        for number in range(150):  # each with the very same question
            memory.assert_fact(FactInput(subject="Country 3", relation="capital", object=f"Town {number}"))

        query = memory.embedder.encode(["What is the capital of Country 3?"])
        (hits,) = memory.view().search(query, 5)

        assert hits[0].fact.object == "Town 149"
        assert len({hit.fact.id for hit in hits}) == 5


def test_vectors_that_do_not_fit_are_refused_and_nothing_is_written() -> None:
    facts = capitals(2)
    with EditMemory(embedder=HashEmbedder()) as memory:
        good = vectors_of(memory, facts)
        for bad, reason in (
            (good[:1], "shape"),
            (good[:, :1], "shape"),
            (2 * good, "length"),
            (np.nan * good, "length"),
        ):
            with pytest.raises(InvalidFact, match=reason):
                memory.load_facts(facts, bad)

        assert memory.count() == 0
        assert memory.load_facts([]) == []


def test_a_bad_row_is_named_and_nothing_is_written() -> None:
    with EditMemory(embedder=HashEmbedder()) as memory:
        with pytest.raises(BadRow, match="row 3"):
            memory.load_facts([*capitals(2), FactInput(subject="", relation="capital", object="X")])

        assert memory.count() == 0


class Small(VectorIndex):
    """An index that has every structure at a thousandth of the size."""

    def __init__(self, dimension: int, *, half: bool, folder: Path | None = None, **_: object) -> None:
        super().__init__(dimension, exact_limit=40, whole_limit=80, half=half, folder=folder)


def test_a_memory_past_every_limit_finds_its_facts_before_and_after_reopening(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recall, "VectorIndex", Small)
    path, embedder = tmp_path / "facts.db", HashEmbedder()
    questions = [f"What is the capital of Country {number}?" for number in range(0, 300, 7)]
    expected = [f"City {number}" for number in range(0, 300, 7)]
    expected[0] = "Town 0"

    def found(memory: EditMemory) -> list[str]:
        return [hits[0].fact.object for hits in memory.view().search(embedder.encode(questions), 3)]

    with EditMemory(path, embedder=embedder) as memory:
        memory.load_facts(capitals(200))
        memory.view().search(embedder.encode(["warm up"]), 1)
        memory.load_facts(capitals(300))
        memory.assert_fact(FactInput(subject="Country 0", relation="capital", object="Town 0"))
        assert found(memory) == expected
        memory.save_index()
    with EditMemory(path, embedder=embedder) as memory:
        assert found(memory) == expected
        index = memory._engine.recall.index(memory.namespace)
        assert isinstance(index, VectorIndex)
        assert index.structure.startswith("compressed")


def test_vectors_take_half_their_space_in_the_database_and_come_back_the_same(tmp_path: Path) -> None:
    facts = capitals(2)
    with EditMemory(tmp_path / "facts.db", embedder=HashEmbedder()) as memory:
        given = vectors_of(memory, facts)
        memory.load_facts(facts, given)
        kept = memory._engine._store.vectors("hash", ["What is the capital of Country 1?"])

        (vector,) = kept.values()
        assert vector.dtype == np.float16
        np.testing.assert_array_equal(vector, given[1, 1])


# -- the state's snapshot -------------------------------------------------------------------------------------


def written(path: Path) -> EditMemory:
    """A memory with all that a state can hold."""
    ticks = iter(range(1_000_000))
    memory = EditMemory(path, embedder=HashEmbedder(), clock=lambda: START + timedelta(seconds=next(ticks)))
    memory.define_relation("favourite colour")
    memory.assert_facts(capitals(30))
    memory.assert_facts(capitals(3, city="Town"))
    memory.assert_fact(FactInput(statement="Colourless green ideas sleep furiously", source="a book\u2028"))
    memory.assert_fact(FactInput(subject="Ann", relation="favourite colour", object="red"), namespace="other")
    memory.assert_fact(
        FactInput(
            subject="Ann", relation="employer", object="Acme", valid_from=START, valid_to=START + timedelta(days=9)
        )
    )
    memory.assert_fact(FactInput(subject="Ann", relation="spouse", object="Bob", statement="Ann, Ann! married Bob"))
    memory.add_alias("Country 5", "Fiveland")
    memory.retract(10)
    memory.assert_fact(FactInput(subject="Fiveland", relation="capital", object="Port Five"))
    memory.undo()
    memory.undo()
    return memory


def reading(memory: EditMemory) -> list[object]:
    """All that can be read of a memory, and what the next writes to it say."""
    read: list[object] = [memory.position, memory.namespaces()]
    for name in memory.namespaces():
        read += [memory.history(namespace=name), memory.facts(namespace=name), memory.count(name)]
        for second in range(0, 40, 3):
            moment = START + timedelta(seconds=second)
            read.append(memory.facts(namespace=name, as_of=moment))
            read.append(memory.view(namespace=name, as_of=moment).facts())
        read.append(sorted(memory.view(namespace=name).relations()))
    read += [memory.aliases("Country 5"), memory.view().mentions("Is Fiveland near country 7, or red?")]
    read.append(memory.view().lookup("fiveland", "P36"))
    read.append([fact.id for fact in memory.undo()])
    return read


def test_a_memory_opened_by_the_snapshot_is_the_one_that_the_log_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine, "_WORTH_SAVING", 1)
    for name in ("one.db", "two.db"):
        written(tmp_path / name).close()
    assert (tmp_path / "one.db.state").exists()
    (tmp_path / "two.db.state").unlink()
    folded: list[Entry] = []
    apply = State.apply

    def counting(state: State, entries: Iterable[Entry], made: Mapping[int, Record] | None = None) -> list[Record]:
        some = list(entries)
        folded.extend(some)
        return apply(state, some, made)

    monkeypatch.setattr(State, "apply", counting)

    with EditMemory(tmp_path / "one.db", embedder=HashEmbedder()) as one:
        assert folded == []
        with EditMemory(tmp_path / "two.db", embedder=HashEmbedder()) as two:
            assert len(folded) == two.position
            mine, theirs = reading(one), reading(two)

    assert mine == theirs


def test_what_was_written_after_the_snapshot_is_folded_onto_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_WORTH_SAVING", 40)
    written(tmp_path / "facts.db").close()
    stamp = (tmp_path / "facts.db.state").stat().st_mtime_ns
    with EditMemory(tmp_path / "facts.db", embedder=HashEmbedder()) as memory:
        memory.assert_fact(FactInput(subject="Country 7", relation="capital", object="New Seven"))

    with EditMemory(tmp_path / "facts.db", embedder=HashEmbedder()) as memory:
        assert memory.view().lookup("Country 7", "P36")[0].object == "New Seven"
        assert memory.view().lookup("Country 8", "P36")[0].object == "City 8"
    assert (tmp_path / "facts.db.state").stat().st_mtime_ns == stamp  # too little to write it anew


@pytest.mark.parametrize("harm", ["torn", "flipped", "empty", "foreign"])
def test_a_snapshot_that_is_no_good_is_done_away_with_and_the_log_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: str
) -> None:
    monkeypatch.setattr(engine, "_WORTH_SAVING", 1)
    path, snapshot = tmp_path / "facts.db", tmp_path / "facts.db.state"
    written(path).close()
    contents = snapshot.read_bytes()
    if harm == "foreign":
        with EditMemory(tmp_path / "other.db", embedder=HashEmbedder()) as other:
            other.assert_facts(capitals(60, city="Elsewhere"))
        contents = (tmp_path / "other.db.state").read_bytes()
    flipped = bytearray(contents)
    flipped[len(flipped) // 2] ^= 4
    snapshot.write_bytes({"torn": contents[:-9], "flipped": bytes(flipped), "empty": b"", "foreign": contents}[harm])
    monkeypatch.setattr(engine, "_WORTH_SAVING", 10_000)

    with EditMemory(path, embedder=HashEmbedder()) as memory:
        assert memory.view().lookup("Country 8", "P36")[0].object == "City 8"
        assert not snapshot.exists()


def test_a_snapshot_made_by_other_rules_of_naming_is_not_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_WORTH_SAVING", 1)
    written(tmp_path / "facts.db").close()
    catalogue = Catalogue.default()
    assert load_state(tmp_path / "facts.db.state", catalogue, lambda _: True) is not None

    monkeypatch.setattr("memedit.memory.state_file._rules", lambda: "other rules")

    assert load_state(tmp_path / "facts.db.state", catalogue, lambda _: True) is None


def test_a_state_that_has_gone_on_is_not_written(tmp_path: Path) -> None:
    with EditMemory(embedder=HashEmbedder()) as memory:
        memory.assert_facts(capitals(2))
        state = memory._engine.state

        assert not save_state(tmp_path / "s.state", state, Origin("m", state.position - 1, ""))
        assert save_state(tmp_path / "s.state", state, Origin("m", state.position, ""))


def test_what_is_erased_is_erased_from_the_snapshot_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "_WORTH_SAVING", 1)
    path = tmp_path / "facts.db"
    with EditMemory(path, embedder=HashEmbedder()) as memory:
        memory.assert_facts([*capitals(5), FactInput(subject="Zacharias Quux", relation="spouse", object="Eve")])
    assert b"Quux" in (tmp_path / "facts.db.state").read_bytes()

    with EditMemory(path, embedder=HashEmbedder()) as reader, EditMemory(path, embedder=HashEmbedder()) as memory:
        memory.erase("Zacharias Quux")
        assert not (tmp_path / "facts.db.state").exists()
        assert reader.view().lookup("Zacharias Quux", "spouse") == ()

    assert b"Quux" not in (tmp_path / "facts.db.state").read_bytes()
    with EditMemory(path, embedder=HashEmbedder()) as memory:
        assert memory.count() == 5


def test_a_short_log_has_no_snapshot(tmp_path: Path) -> None:
    written(tmp_path / "facts.db").close()

    assert not (tmp_path / "facts.db.state").exists()


def test_reading_a_snapshot_is_quicker_than_reading_the_log(tmp_path: Path) -> None:
    path = tmp_path / "facts.db"
    with EditMemory(path, embed_on_write=False) as memory:
        memory.load_facts(capitals(25_000))
    seconds = []
    for _ in range(2):
        start = time.process_time()
        EditMemory(path, embed_on_write=False).close()
        seconds.append(time.process_time() - start)
        (tmp_path / "facts.db.state").unlink(missing_ok=True)

    assert seconds[0] < 0.8 * seconds[1]
