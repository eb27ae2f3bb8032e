"""Similarity search in PostgreSQL, by its extension pgvector: for namespaces whose vectors do not fit a process's memory.

Searched as `memedit.memory.index.VectorIndex` is, a namespace at a time; the rules for rows hold here as for the log. The
vectors lie in a table of their own (one for each embedder), which whichever process finds one missing completes: so
processes need not agree on who does. Exact for small namespaces, by an HNSW graph for large ones, as the planner chooses.

Needs pgvector 0.8 or newer in the database (``CREATE EXTENSION vector``), and the extra ``postgres``.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from hashlib import blake2b

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa

from memedit.errors import InvalidSpec, StoreError
from memedit.memory.embedder import Embedder
from memedit.memory.postgres import PGVECTOR_TABLES, Postgres
from memedit.memory.recall import texts_of
from memedit.memory.state import Record, State
from memedit.memory.store import Store, Vector

Ids = npt.NDArray[np.int64]
Vectors = npt.NDArray[np.float32]

ALL = "*"
"""In place of the namespaces' names: every one."""

_CHUNK = 4_096
_LOOKED_AT = {
    "hnsw.iterative_scan": "strict_order",
    "hnsw.ef_search": "200",
    "hnsw.max_scan_tuples": "200000",
    "plan_cache_mode": "force_custom_plan",
}
"""How thoroughly the graph is searched, also where most of what it finds is another namespace's; and that every query is
planned for its namespace's size."""


class PgVectors:
    """The vectors of some namespaces, in the database.

    Args:
        store: The memory's store.
        state: What there is to index.
        embedder: Made the vectors.
        namespaces: Which namespaces; `ALL` in it stands for every one.

    Attributes:
        namespaces: The namespaces, ascending.

    Raises:
        InvalidSpec: The memory is not in PostgreSQL.
        StoreError: The database has no pgvector, or too old a one.
    """

    def __init__(self, store: Store, state: State, embedder: Embedder, namespaces: Collection[str]) -> None:
        if not isinstance(store.database, Postgres):
            raise InvalidSpec(
                f"Vectors cannot be searched in {store.place}: that takes PostgreSQL.",
                "Name no namespaces to be searched in the database (MEMEDIT_PGVECTOR).",
            )
        self._store = store
        self._database = store.database
        self._state = state
        self._dimension = embedder.dimension
        self.namespaces = tuple(sorted(set(namespaces)))
        self._lock = threading.RLock()
        self._waiting: list[Record] = []
        """Records that may not be in the table. Guarded by the state's lock, as is the next."""
        self._gone: list[int] = []
        made_by = blake2b(embedder.name.encode(), digest_size=4).hexdigest()
        self._table = f"{PGVECTOR_TABLES}{embedder.dimension}_{made_by}"
        self._extension = self._prepare()

    def holds(self, namespace: str) -> bool:
        """Whether a namespace is searched here."""
        return ALL in self.namespaces or namespace in self.namespaces

    def note(self, records: Iterable[Record]) -> list[Record]:
        """Records were added to the state; gives back those of other namespaces."""
        others: list[Record] = []
        for record in records:
            (self._waiting if self.holds(record.namespace) else others).append(record)
        return others

    def forget(self, facts: Iterable[int]) -> None:
        """Facts were erased."""
        self._gone.extend(facts)

    @property
    def unsettled(self) -> bool:
        """Whether there may be something to put in or to take out."""
        return bool(self._waiting or self._gone)

    def index(self, namespace: str) -> NamespaceVectors:
        """The vectors of a namespace, to be searched."""
        return NamespaceVectors(self, namespace)

    def settle(self, vectors_of: Callable[[Sequence[Record]], Mapping[str, Vector]]) -> None:
        """Put in what the table lacks, and take out what was erased.

        Args:
            vectors_of: Gives the vectors of the texts of records; what it leaves out is left out here, until the next time.
        """
        with self._lock:
            self._drop_forgotten()
            with self._state.lock:
                waiting = list(self._waiting)
            for start in range(0, len(waiting), _CHUNK):
                self._complete(waiting[start : start + _CHUNK], vectors_of)

    def search(self, namespace: str, queries: Vectors, k: int, within: Ids | None) -> tuple[Vectors, Ids]:
        """See `NamespaceVectors.search`."""
        scores, ids = np.full((len(queries), k), -np.inf, np.float32), np.full((len(queries), k), -1, np.int64)
        given: dict[str, object] = {"namespace": namespace, "k": k}
        masked = ""
        if within is not None:
            masked = " AND id = ANY(:within)"
            given["within"] = within.tolist()
        near = f"vector OPERATOR({self._extension}.<#>) CAST(:query AS {self._extension}.vector)"
        query = sa.text(
            f"SELECT id, -({near}) FROM {self._table} WHERE namespace = :namespace{masked} ORDER BY {near} LIMIT :k"
        )
        with self._database.confined(namespace) as connection:
            for name, value in _LOOKED_AT.items():
                connection.execute(sa.text("SELECT set_config(:name, :value, true)"), {"name": name, "value": value})
            for row, vector in enumerate(queries):
                found = connection.execute(query, {**given, "query": _text(vector)}).all()
                for place, (number, score) in enumerate(sorted(found, key=lambda hit: (-hit[1], hit[0]))):
                    scores[row, place], ids[row, place] = score, number
        return scores, ids

    def facts(self, namespace: str) -> int:
        """How many facts of a namespace there are, live or not."""
        with self._state.lock:
            return len(self._state.namespace(namespace).facts)

    def _complete(
        self, records: Sequence[Record], vectors_of: Callable[[Sequence[Record]], Mapping[str, Vector]]
    ) -> None:
        with self._database.reading() as connection:
            query = sa.text(f"SELECT id FROM {self._table} WHERE id = ANY(:ids)")
            known = set(connection.scalars(query, {"ids": [2 * record.id for record in records]}))
        lacking = [record for record in records if 2 * record.id not in known]
        vectors = vectors_of(lacking) if lacking else {}
        left = {record.id for record in lacking if any(text not in vectors for _, text in texts_of(record))}
        rows = [
            {"id": number, "namespace": record.namespace, "vector": _text(vectors[text])}
            for record in lacking
            if record.id not in left
            for number, text in texts_of(record)
        ]
        if rows:
            with self._store.transaction() as transaction:
                transaction.connection.execute(self._insert, rows)
        done = {record.id for record in records} - left
        with self._state.lock:
            self._waiting[:] = [record for record in self._waiting if record.id not in done]

    def _drop_forgotten(self) -> None:
        with self._state.lock:
            gone = set(self._gone)
            self._gone.clear()
            self._waiting[:] = [record for record in self._waiting if record.id not in gone]
        if gone:  # a process that had not heard of it may have put some in again
            with self._store.transaction() as transaction:
                self._database.forget(transaction.connection, sorted(gone))

    @property
    def _insert(self) -> sa.TextClause:
        return sa.text(
            f"INSERT INTO {self._table} (id, namespace, vector) "
            f"VALUES (:id, :namespace, CAST(:vector AS {self._extension}.vector)) ON CONFLICT DO NOTHING"
        )

    def _prepare(self) -> str:
        """Make the table if it is not there; the extension's schema, quoted."""
        with self._database.reading() as connection:
            found = connection.execute(_EXTENSION).one_or_none()
            there = connection.scalar(sa.text("SELECT to_regclass(:name)"), {"name": self._table})
        if found is None or _version(found.version) < (0, 8):
            raise StoreError(
                f"{self._store.place} has no pgvector of version 0.8 or newer.",
                "Have an administrator install it there: CREATE EXTENSION vector.",
            )
        schema = str(found.schema)
        if there is None:
            with self._store.transaction() as transaction:
                self._create(transaction.connection, schema)
        return schema

    def _create(self, connection: sa.Connection, schema: str) -> None:
        if connection.scalar(sa.text("SELECT to_regclass(:name)"), {"name": self._table}) is not None:
            return  # another process was quicker
        columns = f"id bigint PRIMARY KEY, namespace text NOT NULL, vector {schema}.vector({self._dimension}) NOT NULL"
        for statement in (
            f"CREATE TABLE {self._table} ({columns})",
            f"CREATE INDEX ON {self._table} (namespace)",
            f"CREATE INDEX ON {self._table} USING hnsw (vector {schema}.vector_ip_ops)",
        ):
            connection.exec_driver_sql(statement)
        self._database.rule(connection, self._table)


class NamespaceVectors:
    """The vectors of one namespace, to be searched like a `VectorIndex`.

    Args:
        vectors: Where they are.
        namespace: The namespace.
    """

    def __init__(self, vectors: PgVectors, namespace: str) -> None:
        self._vectors = vectors
        self._namespace = namespace

    def __len__(self) -> int:
        """Two for each fact; one that has no question has only one."""
        return 2 * self._vectors.facts(self._namespace)

    def search(self, queries: Vectors, k: int, *, within: Ids | None = None) -> tuple[Vectors, Ids]:
        """The nearest vectors of each query, best first; see `VectorIndex.search`."""
        return self._vectors.search(self._namespace, queries, k, within)


_EXTENSION = sa.text(
    "SELECT quote_ident(nspname) AS schema, extversion AS version FROM pg_extension "
    "JOIN pg_namespace ON pg_namespace.oid = extnamespace WHERE extname = 'vector'"
)


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2] if part.isdigit())


def _text(vector: Vector) -> str:
    """A vector as pgvector reads it; the shortest decimals that give the same float32."""
    return "[" + ",".join(map(str, vector.astype(np.float32).tolist())) + "]"
