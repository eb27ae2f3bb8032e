"""PostgreSQL as the store: processes follow each other, nothing acknowledged is lost, rows keep to their namespace."""

from __future__ import annotations

import importlib
import itertools
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import psycopg
import pytest
import sqlalchemy as sa

from memedit.errors import (
    IndexRebuilt,
    InvalidFact,
    MissingExtra,
    PositionNotReached,
    ReadOnlyStore,
    StoreError,
    StoreUnavailable,
    UnknownNamespace,
)
from memedit.memory.fact import Fact, FactInput, Receipt
from memedit.memory.maintenance import verify
from memedit.memory.memory import EditMemory
from memedit.memory.migrations import head, log
from memedit.memory.postgres import SETTING
from memedit.memory.store import Entry, Head, Kind, Store, Vector
from tests.memory.hash_embedder import HashEmbedder
from tests.postgres import ROLE, Server, running


def tell(memory: EditMemory, subject: str, obj: str, namespace: str | None = None) -> Receipt:
    return memory.assert_fact(FactInput(subject=subject, relation="capital", object=obj), namespace=namespace)


def capital(memory: EditMemory, subject: str, *, at_least: int | None = None) -> list[str]:
    return [fact.object for fact in memory.view(at_least=at_least).lookup(subject, "capital")]


@contextmanager
def replicas(url: str) -> Iterator[tuple[EditMemory, EditMemory]]:
    with EditMemory(url, embedder=HashEmbedder()) as one, EditMemory(url, embedder=HashEmbedder()) as two:
        yield one, two


def test_a_read_at_a_receipts_position_sees_the_write_through_any_replica(postgres: Server) -> None:
    with replicas(postgres.new_url()) as (one, two):
        for number in range(50):
            for writer, reader in ((one, two), (two, one)):
                receipt = tell(writer, "France", f"City {number} {id(writer)}")

                assert capital(reader, "France", at_least=receipt.position) == [receipt.fact.object]


def test_a_replica_hears_of_writes_without_being_told_a_position(postgres: Server) -> None:
    with replicas(postgres.new_url()) as (one, two):
        tell(one, "France", "Lyon")
        deadline = time.monotonic() + 10
        while not capital(two, "France") and time.monotonic() < deadline:
            time.sleep(0.01)

        assert capital(two, "France") == ["Lyon"]
        (hits,) = two.view().search(two.embedder.encode(["What is the capital of France?"]), 1)
        assert hits[0].fact.object == "Lyon"


def test_a_read_waits_for_a_position_that_is_still_to_come(place: str) -> None:
    with replicas(place) as (one, two):
        position = tell(one, "France", "Lyon").position
        later = threading.Timer(0.2, tell, (one, "France", "Nice"))
        later.start()

        assert capital(two, "France", at_least=position + 2) == ["Nice"]  # the new fact, and the end of the old one
        later.join()


def test_a_position_that_does_not_come_is_an_error_that_says_how_far_it_is(place: str) -> None:
    with EditMemory(place, embedder=HashEmbedder()) as memory:
        position = tell(memory, "France", "Lyon").position

        with pytest.raises(PositionNotReached, match=f"position {position}, not 99") as raised:
            memory.view(at_least=99, timeout=0.05)

        assert (raised.value.asked, raised.value.reached) == (99, position)


def test_every_write_tells_a_position_that_holds_it(place: str) -> None:
    with replicas(place) as (one, two):
        first = tell(one, "France", "Lyon")
        again = tell(two, "France", "Lyon")

        assert again.status == "unchanged"
        assert again.position >= first.position > 0
        one.retract(first.fact.id)
        assert capital(two, "France", at_least=one.position) == []


# -- a replica's own snapshot --------------------------------------------------------------------------------


def spain(memory: EditMemory) -> str:
    [[hit]] = memory.view().search(memory.embedder.encode(["What is the capital of Spain?"]), 1)
    return hit.fact.object


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("MEMEDIT_INDEXES", str(tmp_path / "indexes"))
    return tmp_path / "indexes"


def test_a_replica_that_opens_again_reads_its_snapshot_and_only_what_came_since(
    folder: Path, postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = postgres.new_url()
    with replicas(url) as (one, two):
        one.assert_facts(FactInput(subject=f"Land {n}", relation="capital", object="Lyon") for n in range(100))
        tell(one, "Spain", "Vigo")
        two.view(at_least=one.position)
        two.embed_pending()  # as a gateway does when it starts; it may be killed from here on
        assert [path.name for path in folder.glob("*.index")] == [f"{two._engine._store.memory_id}.index"]
        tell(one, "Italy", "Bari")
        asked: list[str] = []
        usual = Store.vectors

        def noted(store: Store, embedder: str, texts: Iterable[str]) -> dict[str, Vector]:
            asked.extend(texts := list(texts))
            return usual(store, embedder, texts)

        monkeypatch.setattr(Store, "vectors", noted)
        with EditMemory(url, embedder=HashEmbedder()) as again:
            assert spain(again) == "Vigo"

    assert asked == ["The capital of Italy is Bari.", "What is the capital of Italy?"]


def test_a_replica_without_a_snapshot_makes_one_without_a_word(folder: Path, postgres: Server) -> None:
    url = postgres.new_url()
    with EditMemory(url, embedder=HashEmbedder()) as one:
        tell(one, "Spain", "Vigo")
    for path in folder.iterdir():
        path.unlink()

    with EditMemory(url, embedder=HashEmbedder()) as two:
        assert spain(two) == "Vigo"
        two.embed_pending()

    assert len(list(folder.glob("*.index"))) == 1


def test_a_snapshot_from_the_future_of_a_database_that_was_set_back_is_not_used(folder: Path, postgres: Server) -> None:
    url = postgres.new_url()
    with EditMemory(url, embedder=HashEmbedder()) as memory:
        france = tell(memory, "France", "Lyon")
        tell(memory, "Spain", "Vigo")
        memory.save_index()
    with Store(url) as store, store.transaction() as transaction:  # as if restored by PostgreSQL's own tools
        for table in ("memedit_log", "memedit_chain"):
            transaction.connection.exec_driver_sql(f"DELETE FROM {table} WHERE seq > {france.position}")
        transaction.connection.execute(sa.update(head).values(seq=france.position, transaction=1, fact=1))

    with EditMemory(url, embedder=HashEmbedder()) as memory:
        italy = tell(memory, "Italy", "Bari").fact
        with pytest.warns(IndexRebuilt, match="another memory"):
            [[hit]] = memory.view().search(memory.embedder.encode([italy.statement]), 1)

    assert hit.fact == italy
    assert hit.score == pytest.approx(1)


def test_a_folder_that_cannot_be_made_keeps_no_replica_from_working(
    folder: Path, postgres: Server, tmp_path: Path
) -> None:
    folder.write_text("a file stands in its place")
    with EditMemory(postgres.new_url(), embedder=HashEmbedder()) as memory:
        tell(memory, "Spain", "Vigo")
        memory.embed_pending()

        assert spain(memory) == "Vigo"
        with pytest.raises(ReadOnlyStore, match="cannot be written"):
            memory.save_index()


# -- rules for rows ------------------------------------------------------------------------------------------


def entry(seq: int, namespace: str) -> Entry:
    return Entry(seq, 1, seq, namespace, Kind.ASSERT.value, fact=seq, subject="France")


def append(store: Store, new: Entry, *, confined_to: str) -> None:
    with store.transaction() as transaction:
        transaction.confine(confined_to)
        transaction.append([new], Head(new.seq, new.transaction, new.seq, new.at))


def test_a_transaction_kept_to_a_namespace_sees_and_writes_no_other(postgres: Server) -> None:
    with Store(postgres.new_url()) as store:
        with store.transaction() as transaction:
            mixed = [entry(1, "acme"), entry(2, "zenith"), entry(3, "")]
            transaction.append(mixed, Head(3, 1, 3, 3))

        with store.transaction() as transaction:
            transaction.confine("acme")
            seen = [row.namespace for row in transaction.entries_of(1)]
        with pytest.raises(StoreError, match="row-level security"):
            append(store, entry(4, "zenith"), confined_to="acme")

        assert seen == ["acme", ""]
        assert [row.seq for chunk in store.entries_after(0) for row in chunk] == [1, 2, 3]


def test_a_namespace_cannot_be_named_so_that_it_sees_all(postgres: Server) -> None:
    with EditMemory(postgres.new_url(), embedder=HashEmbedder()) as memory:
        tell(memory, "France", "Lyon", namespace="acme")
        for name in ("all", "*", "of:acme", "%"):
            tell(memory, "France", "Nice", namespace=name)
            with memory._engine._store.transaction() as transaction:
                transaction.confine(name)
                assert {row.namespace for chunk in transaction.entries_after(0) for row in chunk} == {name}
        with pytest.raises(InvalidFact):
            tell(memory, "France", "Nice", namespace="")


def test_a_connection_that_does_not_say_what_it_may_see_sees_nothing(postgres: Server) -> None:
    url = postgres.new_url()
    with EditMemory(url, embedder=HashEmbedder()) as memory:
        tell(memory, "France", "Lyon", namespace="acme")
        tell(memory, "France", "Nice", namespace="zenith")

    engine = sa.create_engine(url)
    seen = []
    with engine.connect() as connection:
        for rows in (None, "of:acme", "of:nowhere", ""):
            if rows is not None:
                connection.execute(sa.select(sa.func.set_config(SETTING, rows, False)))
            seen.append(connection.scalars(sa.select(log.c.namespace)).all())
    engine.dispose()

    assert seen == [[], ["acme"], [], []]


def test_undo_and_history_work_within_a_namespace(postgres: Server) -> None:
    with EditMemory(postgres.new_url(), embedder=HashEmbedder()) as memory:
        tell(memory, "France", "Lyon", namespace="acme")
        tell(memory, "France", "Nice", namespace="acme")
        tell(memory, "France", "Lille", namespace="zenith")

        memory.undo(namespace="acme")

        assert [fact.object for fact in memory.facts(namespace="acme")] == ["Lyon"]
        assert [fact.object for fact in memory.facts(namespace="zenith")] == ["Lille"]
        with pytest.raises(UnknownNamespace):
            memory.facts(namespace="nobody")


# -- what breaks ---------------------------------------------------------------------------------------------


def cut_connections(server: Server) -> None:
    with server.superuser() as connection:
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = %s", [ROLE])


def append_and_be_cut_off(store: Store, server: Server) -> None:
    with store.transaction() as transaction:
        transaction.append([entry(1, "acme")], Head(1, 1, 1, 1))
        cut_connections(server)


def test_memories_whose_connections_were_cut_go_on(postgres: Server) -> None:
    with replicas(postgres.new_url()) as (one, two):
        tell(one, "France", "Lyon")
        cut_connections(postgres)

        position = tell(one, "France", "Nice").position
        assert capital(two, "France", at_least=position) == ["Nice"]

        tell(one, "France", "Lille")  # heard again, by a new connection
        deadline = time.monotonic() + 10
        while capital(two, "France") != ["Lille"] and time.monotonic() < deadline:
            time.sleep(0.01)
        assert capital(two, "France") == ["Lille"]


def test_a_write_whose_connection_is_cut_in_the_middle_leaves_nothing(postgres: Server) -> None:
    with Store(postgres.new_url()) as store:
        with pytest.raises(StoreUnavailable):
            append_and_be_cut_off(store, postgres)

        assert list(store.entries_after(0)) == []
        append(store, entry(1, "acme"), confined_to="acme")
        assert [row.seq for chunk in store.entries_after(0) for row in chunk] == [1]


@pytest.mark.slow
def test_no_acknowledged_write_is_lost_while_connections_are_cut_again_and_again(postgres: Server) -> None:
    url = postgres.new_url()
    with ExitStack() as opened:
        memories = [opened.enter_context(EditMemory(url, embedder=HashEmbedder())) for _ in range(3)]
        acknowledged: list[Fact] = []
        stop = threading.Event()

        def write(number: int) -> None:
            for count in itertools.count():
                if stop.is_set():
                    return
                with suppress(StoreUnavailable):  # what may be there or not is not counted
                    acknowledged.append(tell(memories[number], f"Land {number}.{count}", "Lyon").fact)

        writers = [threading.Thread(target=write, args=(number,)) for number in range(2)]
        for writer in writers:
            writer.start()
        for cuts in range(8):
            deadline = time.monotonic() + 60
            while len(acknowledged) < 4 * cuts and time.monotonic() < deadline:
                time.sleep(0.01)
            cut_connections(postgres)
        stop.set()
        for writer in writers:
            writer.join()

        position = tell(memories[0], "France", "Lyon").position
        assert len(acknowledged) >= 4 * 7
        histories = [memory.view(at_least=position, timeout=30).memory.history() for memory in memories]
        assert {fact.id: fact for fact in acknowledged}.items() <= {fact.id: fact for fact in histories[0]}.items()
        assert histories[1] == histories[0] == histories[2]
    assert verify(url).faults == ()


def write_until_it_fails(memory: EditMemory, acknowledged: list[Fact]) -> None:
    while True:
        acknowledged.append(tell(memory, f"Land {len(acknowledged)}", "Lyon").fact)


def read_until_it_fails(memory: EditMemory) -> None:
    """The loss of a connection is noticed a moment later."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        memory.view()


@pytest.mark.slow
def test_a_server_that_is_killed_and_started_again_has_lost_nothing_and_is_followed_again() -> None:
    with running() as server, replicas(server.new_url()) as (one, two):
        acknowledged: list[Fact] = []
        killer = threading.Timer(0.5, server.kill)
        killer.start()
        with pytest.raises(StoreError):
            write_until_it_fails(one, acknowledged)
        killer.join()
        with pytest.raises(StoreUnavailable):
            read_until_it_fails(two)
        server.start()

        again = tell(one, "France", "Lyon")
        view = two.view(at_least=again.position, timeout=30)
        assert acknowledged
        assert [view.lookup(fact.subject, "capital") for fact in acknowledged] == [(fact,) for fact in acknowledged]
        assert verify(one._engine.place).faults == ()


def test_a_server_that_is_not_there_is_named_without_its_password() -> None:
    with pytest.raises(StoreUnavailable, match=r"ann:\*\*\*@localhost:1/") as raised:
        EditMemory("postgresql://ann:secret@localhost:1/facts", embedder=HashEmbedder())

    assert "secret" not in str(raised.value)


def test_without_the_driver_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert psycopg.__version__
    monkeypatch.setitem(sys.modules, "psycopg", None)
    monkeypatch.delitem(sys.modules, "memedit.memory.postgres")

    with pytest.raises(MissingExtra, match=r"memedit\[postgres\]"):
        importlib.import_module("memedit.memory.postgres")
