"""Looking after a memory: what was changed is found and named, copies are whole, and reach back to any point in time."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from hypothesis import given
from hypothesis import strategies as st

from memedit.errors import CorruptDatabase, StoreError
from memedit.memory import migrations
from memedit.memory.chain import START, link, links
from memedit.memory.fact import FactInput
from memedit.memory.maintenance import backup, restore, verify
from memedit.memory.memory import EditMemory
from memedit.memory.store import Entry, Store
from tests.memory.hash_embedder import HashEmbedder

START_OF_TIME = datetime(2030, 1, 1, tzinfo=UTC)

VALUES = st.none() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=8)
ROWS = st.lists(st.tuples(*[VALUES] * 4), min_size=1, max_size=4)


def fill(place: str | Path, count: int = 6) -> None:
    """Write facts at whole hours, every other one to another namespace; the second supersedes the first, and so on."""
    hours = iter(range(1, 1000))
    with EditMemory(
        place, embedder=HashEmbedder(), clock=lambda: START_OF_TIME + timedelta(hours=next(hours))
    ) as memory:
        for number in range(count):
            namespace = "acme" if number % 2 else "zenith"
            fact = FactInput(subject="France", relation="capital", object=f"City {number}")
            memory.assert_fact(fact, namespace=namespace)
        memory.save_index()


def change(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def shown(place: str | Path) -> dict[str, list[str]]:
    with EditMemory(place, embedder=HashEmbedder()) as memory:
        return {name: [fact.object for fact in memory.facts(namespace=name)] for name in memory.namespaces()}


# -- the chain -----------------------------------------------------------------------------------------------


@given(ROWS, ROWS)
def test_different_entries_have_different_hashes(
    one: list[tuple[object, ...]], other: list[tuple[object, ...]]
) -> None:
    assert (link(START, one) == link(START, other)) == (repr(one) == repr(other))  # type: ignore[arg-type]


@given(ROWS, st.binary(max_size=32), st.binary(max_size=32))
def test_a_hash_covers_the_one_before_it(rows: list[tuple[int | str | None, ...]], one: bytes, other: bytes) -> None:
    assert (link(one, rows) == link(other, rows)) == (one == other)


def test_links_are_one_for_each_transaction() -> None:
    rows = [(1, 1, "a"), (2, 1, "b"), (3, 2, "c")]

    first, second = links(START, rows)

    assert first == (2, link(START, rows[:2]))
    assert second == (3, link(first[1], rows[2:]))


# -- verify --------------------------------------------------------------------------------------------------


def test_a_memory_that_nobody_meddled_with_is_whole(place: str) -> None:
    fill(place)

    report = verify(place)

    assert report.faults == ()
    assert report.transactions == 6
    assert report.position == 10
    assert len(bytes.fromhex(report.hash)) == 32
    assert report.vectors == 12


def test_an_empty_memory_is_whole(place: str) -> None:
    Store(place).close()

    assert verify(place) == (0, 0, "", None, ())


ADDED = (
    "INSERT INTO memedit_log SELECT 11, 7, at, namespace, kind, 9, other, reason, subject, relation, object, statement, "
    "question, valid_from, valid_to, source, body FROM memedit_log WHERE seq = 1"
)
COLUMNS = [name for name in Entry._fields if name not in ("seq", "transaction")]


@pytest.mark.parametrize("column", COLUMNS)
def test_a_changed_value_is_found_and_its_transaction_is_named(column: str, tmp_path: Path) -> None:
    path = tmp_path / "facts.db"
    fill(path)
    change(path, f"UPDATE memedit_log SET {column} = 7 WHERE seq = 4")

    (fault,) = verify(path).faults

    assert fault.startswith("Entries 3 to 4 (transaction 3, 2030-01-01 03:00:00 UTC, namespace 'zenith')") or (
        column in ("at", "namespace")
    )
    assert "Entries 3 to 4 (transaction 3" in fault


@pytest.mark.parametrize(
    ("meddling", "named"),
    [
        (["UPDATE memedit_chain SET hash = zeroblob(32) WHERE seq = 4"], "Entries 3 to 4"),
        (["DELETE FROM memedit_log WHERE seq = 5"], "the first is 5"),
        (["DELETE FROM memedit_log WHERE seq > 8", "DELETE FROM memedit_chain WHERE seq > 8"], "ends with entry 8"),
        (["DELETE FROM memedit_chain WHERE seq = 4"], "Entries 3 to 6"),
        (
            [ADDED],
            "Entry 11 was added",
        ),
    ],
)
def test_meddling_is_found_and_named(meddling: Iterable[str], named: str, tmp_path: Path) -> None:
    path = tmp_path / "facts.db"
    fill(path)
    change(path, *meddling)

    assert named in " ".join(verify(path).faults)


def test_an_index_that_does_not_fit_the_log_is_found(tmp_path: Path) -> None:
    for name in ("one.db", "two.db"):
        fill(tmp_path / name)
    (tmp_path / "one.db.index").write_bytes((tmp_path / "two.db.index").read_bytes())
    torn = (tmp_path / "two.db.index").read_bytes()
    (tmp_path / "two.db.index").write_bytes(torn[:-1])

    assert "belongs to another memory" in verify(tmp_path / "one.db").faults[0]
    assert "cannot be used" in verify(tmp_path / "two.db").faults[0]


def test_an_index_that_holds_another_vector_is_found(tmp_path: Path) -> None:
    path = tmp_path / "facts.db"
    fill(path)
    change(path, "UPDATE memedit_vectors SET vector = (SELECT vector FROM memedit_vectors WHERE id = 1) WHERE id = 3")

    assert "does not hold fact" in verify(path).faults[0]


def test_a_log_from_before_the_chain_is_chained_when_it_is_opened(place: str) -> None:
    fill(place)
    report = verify(place)
    with Store(place) as store, store.transaction() as transaction:
        for table in (migrations.rehashed, migrations.chain):
            table.drop(transaction.connection)
        transaction.connection.execute(
            sa.update(migrations.meta).values(value="1").where(migrations.meta.c.name == "schema")
        )

    assert verify(place) == report


def test_a_long_log_is_chained_transaction_by_transaction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrations, "_CHUNK", 3)
    test_a_log_from_before_the_chain_is_chained_when_it_is_opened(str(tmp_path / "short.db"))
    with EditMemory(tmp_path / "facts.db", embed_on_write=False) as memory:
        for size in (1, 7, 3, 2, 9):
            memory.assert_facts(FactInput(statement=f"Sentence {size} {number}.") for number in range(size))
    report = verify(tmp_path / "facts.db")

    change(
        tmp_path / "facts.db",
        "DROP TABLE memedit_rehashed",
        "DROP TABLE memedit_chain",
        "UPDATE memedit_meta SET value = '1' WHERE name = 'schema'",
    )

    assert verify(tmp_path / "facts.db") == report


# -- backup and restore --------------------------------------------------------------------------------------


def test_a_backup_is_a_whole_memory_of_its_own(place: str, tmp_path: Path) -> None:
    fill(place)

    copied = backup(place, tmp_path / "copy.db")

    assert (copied.position, copied.transactions) == (10, 6)
    assert verify(tmp_path / "copy.db")[:3] == verify(place)[:3]
    assert not verify(tmp_path / "copy.db").faults
    assert shown(tmp_path / "copy.db") == shown(place) == {"acme": ["City 5"], "zenith": ["City 4"]}
    with Store(place) as one, Store(tmp_path / "copy.db") as other:
        texts = ["The capital of France is City 5."]
        assert other.vectors("hash", texts).keys() == one.vectors("hash", texts).keys()
    assert [path.name for path in tmp_path.glob("*copy*")] == ["copy.db"]


def test_a_backup_is_whole_while_others_write(place: str, tmp_path: Path) -> None:
    with EditMemory(place, embed_on_write=False, busy_timeout=60) as memory:
        stop = threading.Event()

        def write() -> None:
            number = 0
            while not stop.is_set():
                number += 1
                memory.assert_facts(FactInput(statement=f"Sentence {number} {part}.") for part in range(3))

        memory.assert_fact(FactInput(statement="The first."))
        writer = threading.Thread(target=write)
        writer.start()
        copies = [backup(place, tmp_path / f"copy{number}.db") for number in range(3)]
        faults = [verify(place).faults, *(verify(tmp_path / f"copy{number}.db").faults for number in range(3))]
        stop.set()
        writer.join()

    assert faults == [()] * 4
    assert all(copied.position % 3 == 1 for copied in copies)


@pytest.mark.parametrize(
    ("hours", "expected"), [(0, {}), (1, {"zenith": ["City 0"]}), (3.5, {"zenith": ["City 2"], "acme": ["City 1"]})]
)
def test_a_memory_is_restored_to_a_moment(
    hours: float, expected: dict[str, list[str]], place: str, tmp_path: Path
) -> None:
    fill(place)
    backup(place, tmp_path / "copy.db")

    copied = restore(tmp_path / "copy.db", tmp_path / "then.db", moment=START_OF_TIME + timedelta(hours=hours))

    assert shown(tmp_path / "then.db") == expected
    assert copied.at == (START_OF_TIME + timedelta(hours=int(hours)) if hours else None)
    assert not verify(tmp_path / "then.db").faults


@pytest.mark.filterwarnings("ignore::memedit.errors.IndexRebuilt")
def test_a_memory_is_restored_to_a_position_and_goes_on_from_there(tmp_path: Path) -> None:
    path = tmp_path / "facts.db"
    fill(path)

    copied = restore(path, tmp_path / "then.db", position=5)  # in the midst of transaction 4, entries 5 and 6

    assert copied.position == 4
    with EditMemory(tmp_path / "then.db", embedder=HashEmbedder()) as memory, Store(path) as store:
        receipt = memory.assert_fact(FactInput(subject="Spain", relation="capital", object="Lyon"), namespace="acme")
        assert (receipt.fact.id, receipt.fact.transaction) == (4, 4)
        assert memory._engine._store.memory_id != store.memory_id
    assert not verify(tmp_path / "then.db").faults


def test_damage_is_not_restored_but_what_is_before_it_can_be(tmp_path: Path) -> None:
    path = tmp_path / "facts.db"
    fill(path)
    change(path, "UPDATE memedit_log SET object = 'Rome' WHERE seq = 5")

    with pytest.raises(CorruptDatabase, match=r"Entries 5 to 6.*up to position 4"):
        restore(path, tmp_path / "then.db")
    assert not list(tmp_path.glob("*then*"))

    assert restore(path, tmp_path / "then.db", position=4).position == 4


def test_nothing_is_overwritten_and_nothing_made_of_nothing(tmp_path: Path) -> None:
    path = tmp_path / "facts.db"
    fill(path)
    before = path.read_bytes()

    for make in (backup, restore):
        with pytest.raises(StoreError, match="there already"):
            make(path, path)
        with pytest.raises(StoreError, match="no edit memory"):
            make(tmp_path / "typo.db", tmp_path / "new.db")
    with pytest.raises(StoreError, match="no edit memory"):
        verify(tmp_path / "typo.db")

    assert path.read_bytes() == before
    assert sorted(found.name for found in tmp_path.iterdir()) == ["facts.db", "facts.db.index"]
