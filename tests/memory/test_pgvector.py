"""pgvector in place of the process's own index: the same facts are found, and none of another namespace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

import numpy as np
import pytest
import sqlalchemy as sa

from memedit.errors import InvalidSpec, StoreError
from memedit.memory.fact import Fact, FactInput
from memedit.memory.maintenance import verify
from memedit.memory.memory import EditMemory, MemoryView
from memedit.memory.pgvector import ALL, PgVectors
from memedit.memory.postgres import SETTING
from tests.memory.hash_embedder import HashEmbedder
from tests.postgres import Server

BIG = "big tenant"


@contextmanager
def opened(url: str, *in_database: str, embed: bool = True) -> Iterator[EditMemory]:
    with EditMemory(
        url, embedder=HashEmbedder(), in_database=in_database, namespace=BIG, embed_on_write=embed
    ) as memory:
        yield memory


def fill(memory: EditMemory, count: int = 30, namespace: str | None = None) -> list[Fact]:
    facts = [FactInput(subject=f"Land {number}", relation="capital", object="Lyon") for number in range(count)]
    return [receipt.fact for receipt in memory.assert_facts(facts, namespace=namespace)]


def nearest(view: MemoryView, texts: list[str], k: int = 5) -> list[list[tuple[int, float]]]:
    """For each text the ids found, with the scores to four places."""
    hits = view.search(view.memory.embedder.encode(texts), k)
    return [[(hit.fact.id, round(hit.score, 4)) for hit in found] for found in hits]


def in_table(memory: EditMemory) -> list[tuple[int, str]]:
    vectors = memory._engine.recall._database
    assert vectors is not None
    with memory._engine._store.database.reading() as connection:
        return [
            tuple(row) for row in connection.execute(sa.text(f"SELECT id, namespace FROM {vectors._table} ORDER BY id"))
        ]


TEXTS = ["What is the capital of Land 7?", "The capital of Land 12 is Lyon.", "anything at all"]


def test_the_same_facts_are_found_in_the_same_order_as_by_the_processs_own_index(postgres: Server) -> None:
    url = postgres.new_url()
    with opened(url, BIG) as here, opened(url) as there:
        fill(here)
        fill(here, 10, namespace="small")
        here.retract(3)
        position = here.assert_fact(FactInput(subject="Land 7", relation="capital", object="Nice")).position
        then = datetime.now(UTC)
        here.retract(5)

        for options in ({}, {"as_of": then}, {"ids": range(1, 12)}, {"namespace": "small"}):
            mine = here.view(**options)
            own = there.view(at_least=position + 1, **options)
            assert nearest(mine, TEXTS) == nearest(own, TEXTS)
            assert nearest(mine, TEXTS, 100) == nearest(own, TEXTS, 100)


def test_only_the_namespaces_that_are_named_are_searched_in_the_database(postgres: Server) -> None:
    url = postgres.new_url()
    with opened(url, BIG) as memory:
        fill(memory, 4)
        fill(memory, 3, namespace="small")
        for namespace in (BIG, "small"):
            memory.view(namespace=namespace).search(memory.embedder.encode(TEXTS), 1)

        assert {namespace for _, namespace in in_table(memory)} == {BIG}
        assert len(in_table(memory)) == 8
        assert len(memory._engine.recall.index("small")) == 6
        memory.save_index()
    assert verify(url).faults == ()


@pytest.mark.filterwarnings("ignore::memedit.errors.IndexRebuilt")  # the two take turns with one snapshot
def test_any_process_completes_the_table_and_none_does_it_twice(postgres: Server) -> None:
    url = postgres.new_url()
    with opened(url) as memory:  # one that knows nothing of it
        fill(memory, 20)
    with opened(url, ALL) as one, opened(url, ALL) as two:
        new = one.assert_fact(FactInput(subject="Spain", relation="capital", object="Porto"))
        for memory in (two, one):
            assert nearest(memory.view(at_least=new.position), [new.fact.statement], 1) == [[(new.fact.id, 1.0)]]

        assert len(in_table(one)) == 42
        assert memory.embedder.encode([]).shape == (0, 64)
        assert two.embed_pending() == 0


def test_facts_written_without_an_embedder_are_embedded_when_they_are_looked_for(postgres: Server) -> None:
    with opened(postgres.new_url(), ALL, embed=False) as memory:
        fact, *_ = fill(memory, 3)
        assert in_table(memory) == []

        assert nearest(memory.view(), [fact.statement], 1) == [[(fact.id, 1.0)]]
        assert len(in_table(memory)) == 6


def test_erased_facts_are_gone_from_the_table_and_do_not_come_back(postgres: Server) -> None:
    url = postgres.new_url()
    with opened(url, ALL) as one, opened(url, ALL) as two, opened(url) as plain:
        fact, other = fill(one, 2)
        two.view(at_least=one.position).search(two.embedder.encode(TEXTS), 1)

        receipt = plain.erase("Land 0", namespace=BIG)  # by a process that does not search there itself

        assert ("memedit_pgvector", 2) in [(erasure.place, erasure.amount) for erasure in receipt.erased]
        for memory in (one, two):
            assert [found for found, _ in nearest(memory.view(at_least=receipt.position), [fact.statement])[0]] == [
                other.id
            ]
            assert {number // 2 for number, _ in in_table(memory)} == {other.id}


def test_a_wrong_query_sees_no_vectors_of_another_namespace(postgres: Server) -> None:
    url = postgres.new_url()
    with opened(url, ALL) as memory:
        fill(memory, 3, namespace="acme")
        fill(memory, 3, namespace="zenith")
        for namespace in ("acme", "zenith"):
            memory.view(namespace=namespace).search(memory.embedder.encode(TEXTS), 1)
        vectors = memory._engine.recall._database
        assert isinstance(vectors, PgVectors)
        query = sa.text(f"SELECT DISTINCT namespace FROM {vectors._table}")
        with vectors._database.confined("acme") as connection:
            assert connection.scalars(query).all() == ["acme"]
        scores, ids = vectors.search("acme", memory.embedder.encode(TEXTS), 50, None)
        assert {int(number) // 2 for number in ids.ravel() if number >= 0} == {1, 2, 3}
        assert np.isneginf(scores[ids < 0]).all()

    engine = sa.create_engine(url)
    with engine.connect() as connection:
        assert connection.scalars(query).all() == []
        connection.execute(sa.select(sa.func.set_config(SETTING, "of:zenith", False)))
        assert connection.scalars(query).all() == ["zenith"]
    engine.dispose()


@pytest.mark.filterwarnings("ignore::memedit.errors.IndexRebuilt")
def test_the_setting_can_be_changed_from_one_opening_to_the_next(postgres: Server) -> None:
    url = postgres.new_url()
    for in_database in ((), (BIG,), (), (ALL,), ("other",)):
        with opened(url, *in_database) as memory:
            fact = memory.assert_fact(FactInput(statement=f"Opened with {in_database} {memory.position}.")).fact
            everything = [one.statement for one in memory.facts()]
            assert [found[0][0] for found in nearest(memory.view(), everything, 1)] == [
                one.id for one in memory.facts()
            ]
            assert fact.statement in everything
            memory.save_index()


@pytest.mark.slow
def test_many_vectors_are_found_by_the_graph_nearly_as_by_looking_at_all(postgres: Server) -> None:
    count = 6_000
    with opened(postgres.new_url(), ALL) as memory:
        memory.assert_facts(FactInput(statement=f"Sentence number {number}.") for number in range(count))
        query = memory.embedder.encode([f"Sentence number {number}." for number in range(0, count, 500)])
        query = (query + memory.embedder.encode([f"x{number}" for number in range(len(query))])) / np.float32(2**0.5)
        memory.view().search(query, 1)
        vectors = memory._engine.recall._database
        assert vectors is not None
        with memory._engine._store.database.reading() as connection:
            connection.exec_driver_sql(f"ANALYZE {vectors._table}")
        scores, ids = vectors.search(BIG, query, 5, None)
        exact_scores, exact = vectors.search(BIG, query, 5, 2 * np.arange(1, count + 1))

        same = np.mean([len(np.intersect1d(*pair)) / 5 for pair in zip(ids, exact, strict=True)])
        assert same >= 0.9
        assert scores[:, 0] == pytest.approx(exact_scores[:, 0], abs=1e-5)


def test_without_pgvector_or_postgresql_the_mend_is_named(place: str, postgres: Server) -> None:
    if "://" not in place:
        with pytest.raises(InvalidSpec, match="takes PostgreSQL"), opened(place, ALL):
            pass
        return
    with postgres.superuser() as connection:
        connection.execute("DROP EXTENSION vector CASCADE")
    try:
        with pytest.raises(StoreError, match="CREATE EXTENSION vector"), opened(place, ALL):
            pass
    finally:
        with postgres.superuser() as connection:
            connection.execute("CREATE EXTENSION vector")
