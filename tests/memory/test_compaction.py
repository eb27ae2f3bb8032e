"""Erasing for good: what is gone is gone from every file, what stays can be read and verified, and the past says so."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import pytest
import sqlalchemy as sa

from memedit.errors import HistoryCompacted, NothingToUndo, StoreBusy, UnknownEntity
from memedit.memory import compaction, engine
from memedit.memory.fact import FactInput, Receipt
from memedit.memory.maintenance import backup, restore, verify
from memedit.memory.memory import EditMemory
from memedit.memory.migrations import log, vectors
from memedit.memory.store import Entry, Kind, Store, text_hash
from memedit.memory.tombstones import Compaction
from tests.memory.hash_embedder import HashEmbedder
from tests.postgres import Server

START = datetime(2030, 1, 1, tzinfo=UTC)
SECRET = "Quagmire Zyxwv"
"""A name that is nowhere else: wherever it is found, it was not erased."""


def opened(place: str | Path, *, hours: Iterator[int] | None = None) -> EditMemory:
    """A memory whose writes are made at whole hours: the first at one o'clock."""
    clock = count(1) if hours is None else hours
    return EditMemory(place, embedder=HashEmbedder(), clock=lambda: START + timedelta(hours=next(clock)))


def tell(
    memory: EditMemory, subject: str, obj: str, relation: str = "capital", namespace: str | None = None
) -> Receipt:
    return memory.assert_fact(FactInput(subject=subject, relation=relation, object=obj), namespace=namespace)


def hour(number: float) -> datetime:
    return START + timedelta(hours=number)


def shown(memory: EditMemory, as_of: datetime | None = None, namespace: str | None = None) -> list[str]:
    return [fact.object for fact in memory.facts(as_of=as_of, namespace=namespace)]


def found(memory: EditMemory, k: int = 50) -> set[int]:
    """What a search finds, from the index as it is."""
    [hits] = memory.view().search(memory.embedder.encode(["anything"]), k)
    return {hit.fact.id for hit in hits}


def capitals(memory: EditMemory) -> list[int]:
    """Four capitals of France, each superseding the last, and two of other lands, one of them retracted."""
    ids = [tell(memory, "France", city).fact.id for city in ("Lyon", "Nice", "Lille", "Metz")]
    ids += [tell(memory, "Spain", "Porto").fact.id, tell(memory, "Italy", "Turin").fact.id]
    memory.retract(ids[4])
    return ids


# -- by retention --------------------------------------------------------------------------------------------


def test_what_had_ended_before_a_time_is_erased_and_the_rest_is_as_it_was(place: str) -> None:
    with opened(place) as memory:
        lyon, nice, lille, metz, spain, italy = capitals(memory)  # Lyon ended at two, Nice at three, Lille at four
        before = {number: memory.get(number) for number in (lille, metz, spain, italy)}
        found(memory)

        receipt = memory.compact(hour(3))

        assert receipt.facts == (lyon, nice)
        assert memory.history() == list(before.values())
        assert found(memory) == {metz, italy}
    with opened(place) as memory:
        assert memory.history() == list(before.values())
        assert found(memory) == {metz, italy}
        assert tell(memory, "Peru", "Cusco").fact.id == italy + 1
    assert verify(place).faults == ()


def test_the_past_can_be_read_up_to_the_horizon_and_says_why_not_beyond(place: str) -> None:
    with opened(place) as memory:
        capitals(memory)
        then = shown(memory, hour(3))
        view = memory.view(as_of=hour(2))
        assert [fact.object for fact in view.facts()] == ["Nice"]

        memory.compact(hour(3))

        for reader in (memory, opened(place)):
            with pytest.raises(HistoryCompacted, match=r"compacted.*2030-01-01 03:00:00"):
                reader.facts(as_of=hour(2.9))
            with pytest.raises(HistoryCompacted):
                reader.view(as_of=hour(2.9))
            assert shown(reader, hour(3)) == then == ["Lille"]
        with pytest.raises(HistoryCompacted):
            view.facts()
        reader.close()


def test_undo_does_not_reach_behind_what_was_erased(place: str) -> None:
    with opened(place) as memory:
        tell(memory, "Spain", "Porto")
        tell(memory, "France", "Lyon")
        tell(memory, "France", "Nice")
        tell(memory, "Italy", "Turin")
        memory.undo()
        tell(memory, "Italy", "Genoa")
        memory.compact(hour(4))  # Lyon only, which ended at three; Turin at five

        memory.undo()

        assert shown(memory) == ["Porto", "Nice"]
        with pytest.raises(NothingToUndo):
            memory.undo()
    with opened(place) as memory, pytest.raises(NothingToUndo):
        memory.undo()


def test_a_memory_can_be_compacted_again_and_again(place: str) -> None:
    with opened(place) as memory:
        capitals(memory)
        for time in (2, 3, 4, 99):
            memory.compact(hour(time))

        assert memory.compact(hour(99)).facts == ()
        assert shown(memory) == ["Metz", "Turin"]
        assert memory.history() == memory.facts()
    assert verify(place).faults == ()


def test_another_process_lets_go_of_what_was_erased(place: str) -> None:
    with opened(place) as memory, opened(place) as other:
        lyon, *_ = capitals(memory)
        other.view(at_least=memory.position)
        assert lyon in other._engine.state.namespace("default").facts
        found(other)
        other.save_index()

        receipt = memory.compact(hour(99))
        other.view(at_least=receipt.position)

        assert other.history() == memory.history()
        assert found(other) == found(memory)
        assert len(other._engine.recall.index("default")) == 4
        index = other._engine._store.snapshot
        other.save_index()
    assert index is not None
    for kind in ("<f2", "<f4"):
        assert vector("The capital of France is Lyon.", kind) not in index.read_bytes()
    assert verify(place).faults == ()


def test_nothing_is_left_waiting_for_a_batch(place: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compaction, "_BATCH", 2)
    with opened(place) as memory:
        ids = [tell(memory, "France", f"City {number}").fact.id for number in range(8)]

        assert memory.compact(hour(99)).facts == tuple(ids[:-1])

        assert len(memory._engine._store.compactions()) == 4
        assert shown(memory) == ["City 7"]
    assert verify(place).faults == ()


def test_all_namespaces_can_be_compacted_at_once(place: str) -> None:
    with opened(place) as memory:
        for namespace in ("acme", "zenith", "other"):
            for city in ("Lyon", "Nice") if namespace != "other" else ("Lyon",):
                tell(memory, "France", city, namespace=namespace)

        planned = memory.compact(hour(99), everywhere=True, trial=True)
        receipt = memory.compact(hour(99), everywhere=True)

        assert receipt.namespaces == planned.namespaces == ("acme", "zenith")
        assert receipt.facts == planned.facts == (1, 3)
        assert memory.erase("France", everywhere=True).namespaces == ("acme", "other", "zenith")
        assert [memory.history(namespace=name) for name in memory.namespaces()] == [[]] * 3


def test_a_trial_tells_and_erases_nothing(place: str) -> None:
    with opened(place) as memory:
        lyon, nice, *_ = capitals(memory)
        position, history = memory.position, memory.history()

        receipt = memory.compact(hour(3), trial=True)

        assert receipt[:3] == (("default",), (lyon, nice), None)
        assert (memory.position, memory.history()) == (position, history)


def test_only_the_namespace_that_is_named_is_compacted(place: str) -> None:
    with opened(place) as memory:
        for namespace in ("acme", "zenith"):
            for city in ("Lyon", "Nice"):
                tell(memory, "France", city, namespace=namespace)

        memory.compact(hour(99), namespace="acme")

        assert len(memory.history(namespace="acme")) == 1
        assert len(memory.history(namespace="zenith")) == 2
        assert shown(memory, hour(3), namespace="zenith") == ["Lyon"]
        texts = ["The capital of France is Lyon."]  # which the other namespace still has
        assert memory._engine._store.known_texts("hash", texts) == set(texts)


# -- by subject ----------------------------------------------------------------------------------------------


def about_a_person(memory: EditMemory) -> list[int]:
    """Facts that are somehow about a person, and one that is not."""
    memory.add_alias(SECRET, "Zed")
    facts = [
        FactInput(subject=SECRET, relation="employer", object="Acme"),
        FactInput(subject="zed", relation="employer", object="Zenith"),
        FactInput(subject="Bob", relation="spouse", object=SECRET.upper()),
        FactInput(statement="It is said that Zed's cat sleeps all day."),
        FactInput(subject="Bob", relation="child", object="Ann", source=f"told by {SECRET}"),
    ]
    ids = [memory.assert_fact(fact).fact.id for fact in facts]
    memory.assert_fact(FactInput(statement="It is said that zeds are letters."))
    return ids


def test_all_about_an_entity_is_erased_whatever_it_is_called(place: str) -> None:
    with opened(place) as memory:
        ids = about_a_person(memory)

        receipt = memory.erase("Zed")

        assert list(receipt.facts) == ids
    with opened(place) as other:
        for reader in (memory, other):
            if reader is other:
                assert [fact.statement for fact in reader.history()] == ["It is said that zeds are letters."]
                assert reader.aliases(SECRET) == ()
                assert reader.view().mentions(f"Where is {SECRET}, called Zed?") == []
                assert shown(reader, hour(1)) == []  # the past can be read, without it


def test_what_an_erased_fact_had_superseded_stays_ended_in_every_view(place: str) -> None:
    with opened(place) as memory:
        lyon, nice = (tell(memory, "France", city).fact.id for city in ("Lyon", "Nice"))
        assert [fact.id for fact in memory.view(ids=[lyon]).facts()] == [lyon]

        memory.erase("Nice")

        assert [fact.id for fact in memory.history()] == [lyon]
        assert memory.facts() == memory.view(ids=[lyon]).facts() == memory.view(ids=[lyon, nice]).facts() == []


def test_what_is_too_much_for_a_batch_is_found_by_its_aliases_to_the_end(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compaction, "_BATCH", 2)
    with opened(place) as memory:
        ids = about_a_person(memory)

        assert list(memory.erase("Zed").facts) == ids
    with opened(place) as memory:
        assert [fact.statement for fact in memory.history()] == ["It is said that zeds are letters."]
        assert memory.aliases(SECRET) == ()
    assert verify(place).faults == ()


def test_an_erased_alias_is_forgotten_at_once_and_can_be_given_again(place: str) -> None:
    with opened(place) as memory:
        about_a_person(memory)
        memory.add_alias("Bob", "Bobby")

        memory.erase(SECRET)

        assert memory.aliases(SECRET) == ()
        memory.add_alias("Bob", "Zed")
        tell(memory, "Zed", "Acme", "employer")
        assert [fact.object for fact in memory.view().lookup("Bobby", "employer")] == ["Acme"]
    with opened(place) as memory:
        assert memory.aliases("Bob") == ("Bobby", "Zed")
        assert [fact.object for fact in memory.view().lookup("Bobby", "employer")] == ["Acme"]


def test_nothing_about_an_entity_is_an_error(place: str) -> None:
    with opened(place) as memory:
        capitals(memory)

        with pytest.raises(UnknownEntity, match="Atlantis"):
            memory.erase("Atlantis")


def test_a_word_that_looks_like_a_name_is_not_taken_for_it(place: str) -> None:
    with opened(place) as memory:
        about = memory.assert_fact(FactInput(statement="It is said that the US is large.")).fact.id
        memory.assert_fact(FactInput(statement="It is said that they told us."))

        assert memory.erase("United States of America").facts == (about,)


# -- what is left where --------------------------------------------------------------------------------------


def vector(text: str, kind: str = "<f2") -> bytes:
    return bytes(HashEmbedder().encode([text])[0].astype(kind))


def leak(memory: EditMemory) -> None:
    """Write, supersede, retract and undo something that must be found nowhere afterwards."""
    about_a_person(memory)
    tell(memory, "France", "Lyon")
    tell(memory, SECRET, "France", "country of citizenship")
    memory.undo()
    memory.save_index()


TEXTS = (SECRET, SECRET.upper(), SECRET.casefold(), "Zed's cat")
VECTORS = (f"{SECRET} is employed by Acme.", "It is said that Zed's cat sleeps all day.")


def held(folder: Path) -> list[tuple[str, str]]:
    """The files under a folder that hold something that was erased."""
    wanted = [(text, vector(text, kind)) for text in VECTORS for kind in ("<f2", "<f4")]
    wanted += [(text, text.encode()) for text in TEXTS]
    files = [file for file in folder.rglob("*") if file.is_file()]
    return [(file.name, name) for file in files for name, data in wanted if data in file.read_bytes()]


def test_no_file_of_a_sqlite_memory_holds_what_was_erased(tmp_path: Path) -> None:
    path = tmp_path / "facts.db"
    with opened(path) as memory:
        leak(memory)
        assert {name for name, _ in held(tmp_path)} >= {"facts.db-wal", "facts.db.index"}

        receipt = memory.erase(SECRET)

        assert held(tmp_path) == []
        assert receipt.left == ()
    assert held(tmp_path) == []
    assert verify(path).faults == ()


def test_a_snapshot_of_the_state_goes_with_what_was_erased(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMEDIT_INDEXES", str(tmp_path))
    monkeypatch.setattr(engine, "_WORTH_SAVING", 1)
    with opened(place) as memory:
        leak(memory)
        [state] = tmp_path.glob("*.state")
        assert SECRET.encode() in state.read_bytes()
        with opened(place) as other:
            receipt = memory.erase(SECRET)
            assert not state.exists()
            other.save_index()  # which had read it before

        assert (str(state), 6) in [(erasure.place, erasure.amount) for erasure in receipt.erased]
    assert held(tmp_path) == []


def test_no_table_or_index_of_a_postgresql_memory_holds_what_was_erased(
    postgres: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MEMEDIT_INDEXES", str(tmp_path))
    url = postgres.new_url()
    data = postgres.process.pgdata / "base"

    def on_disk() -> list[tuple[str, str]]:
        with postgres.superuser() as connection:
            connection.execute("CHECKPOINT")
        return held(data) + held(tmp_path)

    with opened(url) as memory:
        leak(memory)
        assert {name for _, name in on_disk()} >= {SECRET, *VECTORS}

        receipt = memory.erase(SECRET)

        assert on_disk() == []
        assert receipt.left == ()
    assert verify(url).faults == ()


def test_a_receipt_names_every_place_and_what_was_not_touched(place: str) -> None:
    with opened(place) as memory:
        leak(memory)
        snapshot = memory._engine._store.snapshot

        receipt = memory.erase(SECRET)

        counts = {erasure.place: erasure.amount for erasure in receipt.erased}
        assert counts["memedit_log"] == 6 + 2 + 1  # facts, the ends of two of them, and an alias
        assert counts["memedit_vectors"] == 11
        assert counts[str(snapshot)] == len(receipt.facts) == 6
        assert receipt.position == memory.position
        assert receipt.horizon is None
        assert any("Backups" in one for one in receipt.not_touched)


def test_what_could_not_be_done_is_told_and_done_the_next_time(tmp_path: Path) -> None:
    path = tmp_path / "facts.db"
    with opened(path) as memory, EditMemory(path, busy_timeout=0.1, embedder=HashEmbedder()) as other:
        leak(memory)
        with other._engine._store.database.reading() as connection:
            connection.exec_driver_sql("BEGIN")
            connection.execute(sa.select(log)).first()
            quick = EditMemory(path, busy_timeout=0.1, embedder=HashEmbedder())
            receipt = quick.erase(SECRET)
            connection.exec_driver_sql("ROLLBACK")
        quick.close()

        assert len(receipt.left) == 1
        assert "-wal" in receipt.left[0]
        again = memory.compact(START)
        assert (again.facts, again.left) == ((), ())
        assert held(tmp_path) == []


def test_rows_that_an_open_transaction_still_sees_are_told_of(postgres: Server) -> None:
    url = postgres.new_url()
    with opened(url) as memory, postgres.superuser() as connection:
        leak(memory)
        connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
        connection.execute("SELECT 1 FROM pg_class LIMIT 1")
        receipt = memory.erase(SECRET)
        connection.execute("ROLLBACK")

        assert len(receipt.left) == 1
        assert "still open" in receipt.left[0]
        assert memory.compact(START).left == ()


def test_a_receipt_is_given_even_where_the_files_cannot_be_written_anew(
    place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened(place) as memory:
        leak(memory)
        database = memory._engine._store.database
        with monkeypatch.context() as patch:
            patch.setattr(type(database), "scrub", busy)
            receipt = memory.erase(SECRET)

        assert receipt.left == ("Somebody reads. Wait.",)
        assert len(receipt.facts) == 6
        assert str(memory._engine.place) not in {erasure.place for erasure in receipt.erased}
        assert [erasure.place for erasure in memory.compact(START).erased][-1] == memory._engine.place
        assert [erasure.amount for erasure in memory.compact(START).erased] == [0, 0]  # all is done


def busy(*_: object) -> str:
    raise StoreBusy("Somebody reads.", "Wait.")


def test_an_index_that_was_saved_before_an_erasure_is_not_used_and_not_kept(tmp_path: Path) -> None:
    path, index = tmp_path / "facts.db", tmp_path / "facts.db.index"
    with opened(path) as memory:
        leak(memory)
        old = index.read_bytes()
        memory.erase(SECRET)
        left = {fact.id for fact in memory.facts()}
    index.write_bytes(old)
    assert "before facts were erased" in verify(path).faults[0]

    with opened(path) as memory, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert found(memory) == left

    assert held(tmp_path) == []


def test_an_index_of_a_later_time_is_not_used_where_the_database_was_set_back(tmp_path: Path) -> None:
    path, copy = tmp_path / "facts.db", tmp_path / "copy.db"
    with opened(path) as memory:
        tell(memory, "France", "Lyon")
        backup(path, copy)
        tell(memory, "Spain", "Porto")
        memory.save_index()
    copy.replace(path)  # under the same id, with an index from its future

    with opened(path) as memory, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peru = tell(memory, "Peru", "Cusco").fact
        [[hit]] = memory.view().search(memory.embedder.encode([peru.statement]), 1)

        assert hit.fact == peru
        assert hit.score == pytest.approx(1)


# -- the chain, and copies -----------------------------------------------------------------------------------


def test_the_hash_of_a_position_stays_what_it_was(place: str, tmp_path: Path) -> None:
    with opened(place) as memory:
        capitals(memory)
        before = verify(place)
        memory.compact(hour(99))
    copied = tmp_path / "copy.db"
    backup(place, copied)

    for one in (place, copied):
        report = verify(one)
        assert report.faults == ()
        assert report.transactions == before.transactions + 1
        with Store(one) as store:
            assert store.link_at(before.position).hash.hex() == before.hash


@pytest.mark.parametrize(
    "meddling",
    [
        "UPDATE memedit_log SET reason = 'retracted' WHERE seq = 1",
        "UPDATE memedit_log SET object = 'Rome' WHERE seq = 1",
        "UPDATE memedit_rehashed SET hash = (SELECT hash FROM memedit_chain WHERE seq = 1) WHERE seq = 1",
        "DELETE FROM memedit_rehashed WHERE seq = 1",
        "UPDATE memedit_log SET kind = 'erased', subject = NULL, object = NULL, statement = NULL WHERE seq = 8",
    ],
)
def test_who_empties_or_changes_entries_behind_memedits_back_is_found_out(meddling: str, place: str) -> None:
    with opened(place) as memory:
        capitals(memory)
        memory.compact(hour(3))
    with Store(place) as store, store.transaction() as transaction:
        transaction.connection.exec_driver_sql(meddling)

    assert verify(place).faults


@pytest.mark.filterwarnings("ignore::memedit.errors.IndexRebuilt")
def test_a_backup_from_before_holds_what_was_erased_and_one_from_after_does_not(place: str, tmp_path: Path) -> None:
    with opened(place) as memory:
        leak(memory)
        (tmp_path / "before").mkdir()
        backup(place, tmp_path / "before" / "copy.db")
        memory.erase(SECRET)
        (tmp_path / "after").mkdir()
        backup(place, tmp_path / "after" / "copy.db")
        restore(place, tmp_path / "after" / "made.db")

    assert held(tmp_path / "before")
    assert held(tmp_path / "after") == []
    with opened(tmp_path / "after" / "made.db") as memory:
        assert shown(memory) == ["", "Lyon"]
        assert tell(memory, "Peru", "Cusco").fact.id == 9
    assert verify(tmp_path / "after" / "made.db").faults == ()


def test_a_point_before_the_horizon_is_not_restored_but_one_before_an_erasure_is(place: str, tmp_path: Path) -> None:
    with opened(place) as memory:
        capitals(memory)
        memory.erase("Spain")
        memory.compact(hour(3))

    with pytest.raises(HistoryCompacted, match="was erased at position"):
        restore(place, tmp_path / "no.db", moment=hour(2))
    assert not list(tmp_path.glob("*no.db*"))

    restore(place, tmp_path / "then.db", moment=hour(4))

    with opened(tmp_path / "then.db") as memory:
        assert shown(memory) == ["Metz"]
    assert verify(tmp_path / "then.db").faults == ()


def test_nothing_can_be_told_from_the_hash_that_stays(tmp_path: Path) -> None:
    from memedit.memory.chain import START as NOTHING
    from memedit.memory.chain import link

    path = tmp_path / "facts.db"
    with opened(path) as memory:
        memory.assert_facts(
            [FactInput(subject=land, relation="capital", object="Lyon") for land in ("France", "Spain")]
        )
        with Store(path) as store:
            [entries] = store.entries_after(0)
        memory.erase("Spain")

    with Store(path) as store:
        [left] = [chunk[:2] for chunk in store.entries_after(0)]
        hashed = store.link_at(2).hash
    assert link(NOTHING, entries) == hashed
    guessed = [entry._replace(body=None) for entry in entries]
    assert link(NOTHING, guessed) != hashed
    assert [entry.body for entry in left] == [None, None]  # the random bytes are gone though the first entry stays
    assert left[0] == entries[0]._replace(body=None)
    assert left[1] == Entry(2, 1, left[1].at, "default", Kind.ERASED.value, fact=2)


def test_a_compaction_is_read_back_as_it_was_written() -> None:
    told = Compaction((1, 2, 3, 7, 9, 10), (4,), 17, 8, "00ff")

    assert Compaction.from_json(told.to_json()) == told
    assert "[[1,3],[7,7],[9,10]]" in told.to_json()
    with pytest.raises(ValueError, match="no compaction"):
        Compaction.from_json("{}")


def test_no_vector_of_what_was_erased_is_kept(place: str) -> None:
    with opened(place) as memory:
        leak(memory)
        memory.erase(SECRET)
        with memory._engine._store.database.reading() as connection:
            kept = connection.scalars(sa.select(vectors.c.text_hash)).all()

        texts = {text for fact in memory.history() for text in (fact.statement, fact.question) if text}
        assert sorted(map(bytes, kept)) == sorted(map(text_hash, texts))


def test_a_compaction_waits_for_no_longer_than_it_is_told(place: str) -> None:
    with opened(place) as memory, EditMemory(place, embedder=HashEmbedder(), busy_timeout=0.05) as other:
        capitals(memory)
        with memory._engine._store.transaction(), pytest.raises(StoreBusy):
            other.compact(hour(99))
