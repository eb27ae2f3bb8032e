"""The edit log in SQL: append-only entries, read in order, written in transactions that are durable on return.

The log is the truth; everything else is a fold of it (`memedit.memory.state`) or a cache (the vectors kept here by
text, the index made from them). Knows nothing of what the entries mean: it never reads a fact, it only keeps it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from enum import StrEnum
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa

from memedit.errors import InvalidSpec
from memedit.memory.chain import START, links
from memedit.memory.database import Database
from memedit.memory.migrations import MIGRATIONS, migrate, schema_of
from memedit.memory.migrations import chain as chain_table
from memedit.memory.migrations import head as head_table
from memedit.memory.migrations import log as log_table
from memedit.memory.migrations import meta as meta_table
from memedit.memory.migrations import rehashed as rehashed_table
from memedit.memory.migrations import vectors as vectors_table
from memedit.memory.sqlite import SQLite

Vector = npt.NDArray[np.float16 | np.float32]
"""A vector as it is given and as it comes back: float16 takes half the space."""

_CHUNK = 10_000
_MAX_PARAMETERS = 500
_SCRUBBED = "scrubbed"
_HALF = b"h"
"""Behind the bytes of a float16 vector, which this makes odd in number."""

_MEND = "Give a file, or e.g. sqlite:///facts.db or postgresql://user@host/database."


class Kind(StrEnum):
    """What an entry of the log records."""

    ASSERT = "assert"
    """A fact begins to be believed. `fact` is its id; the rest of the row is its content."""
    END = "end"
    """Fact `fact` ceases to be believed, for `reason`; fact `other` took its place, where one did."""
    REVIVE = "revive"
    """Fact `fact` is believed again, because the write that had ended it was undone."""
    UNDO = "undo"
    """Transaction `other` is undone by the entries that follow in this transaction."""
    ALIAS = "alias"
    """`object` becomes another name of the entity `subject`."""
    RELATION = "relation"
    """The catalogue gains the relation `relation`; `body` holds it as JSON. Belongs to no namespace."""
    ERASED = "erased"
    """What the entry held has been erased (see `memedit.memory.tombstones`)."""
    COMPACT = "compact"
    """Facts of the namespace were erased from the log; `body` says which, as JSON."""


class Entry(NamedTuple):
    """One row of the log, in the order of its columns. Times are microseconds since 1970 in UTC."""

    seq: int
    transaction: int
    at: int
    namespace: str
    kind: str
    fact: int | None = None
    other: int | None = None
    reason: str | None = None
    subject: str | None = None
    relation: str | None = None
    object: str | None = None
    statement: str | None = None
    question: str | None = None
    valid_from: int | None = None
    valid_to: int | None = None
    source: str | None = None
    body: str | None = None


class Head(NamedTuple):
    """The last sequence number, transaction number, fact id and time that the log has handed out."""

    seq: int
    transaction: int
    fact: int
    at: int


class Link(NamedTuple):
    """The hash of a transaction, found by its last entry (see `memedit.memory.chain`)."""

    seq: int
    hash: bytes


class Rehashed(NamedTuple):
    """The hash of what the compaction that entry `compaction` tells of left of the transaction that ends with `seq`."""

    compaction: int
    seq: int
    hash: bytes


class Store:
    """A database that holds an edit log.

    Safe to use from several threads. What is particular to a database is in `memedit.memory.sqlite` and
    `memedit.memory.postgres`.

    Args:
        path: A file, ":memory:", or a SQLAlchemy URL of SQLite or PostgreSQL.
        busy_timeout: Seconds to wait while another process writes.

    Attributes:
        path: The file it lies in; None for memory and for servers.
        place: What the database is called in messages, without passwords.
        database: What it is kept in.
        memory_id: The memory's own id, given when it was made.
        snapshot: Where a snapshot of the index made from it is kept; None for memory.

    Raises:
        StoreError: The database cannot be used; see its subclasses. It is untouched then.
        InvalidSpec: The URL names another kind of database.
        MissingExtra: It is PostgreSQL, and its driver is not installed.
    """

    def __init__(self, path: str | Path = ":memory:", *, busy_timeout: float = 10.0) -> None:
        self.database = _database_of(path, busy_timeout)
        self.path = self.database.file
        self.place = self.database.place
        try:
            with self.database.reading() as connection:
                schema = schema_of(connection)
            if schema != len(MIGRATIONS):
                with self.database.writing() as connection:
                    migrate(connection)
                    self.database.sign(connection)
            with self.database.reading() as connection:
                query = sa.select(meta_table.c.value).where(meta_table.c.name == "id")
                self.memory_id = str(connection.scalar(query))
            self.snapshot = self.database.snapshot(self.memory_id)
            self.database.start(self.memory_id)
        except BaseException:
            self.database.close()
            raise

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Write: a transaction that excludes all other writers, and is on disk when the block ends without an error.

        Raises:
            StoreBusy: Another process held the database longer than the timeout.
        """
        with self.database.writing() as connection:
            yield Transaction(connection, self.database)

    def changed(self) -> bool:
        """Whether anything may have been committed since this was last asked, by anyone. Takes microseconds.

        What another process has committed to a SQLite file is told at once; PostgreSQL's news take a moment to arrive.
        """
        return self.database.changed()

    def wait(self, seconds: float) -> None:
        """Return when something may have been committed, or after some time, `seconds` at most."""
        self.database.wait(seconds)

    def entries_after(self, seq: int) -> Iterator[list[Entry]]:
        """The log beyond `seq`, in order, in chunks."""
        while True:
            with self.database.reading() as connection:
                chunk = _entries_after(connection, seq)
            if chunk:
                yield chunk
                seq = chunk[-1].seq
            if len(chunk) < _CHUNK:
                return

    def head(self) -> Head:
        """The log's head."""
        with self.database.reading() as connection:
            *numbers, _ = connection.execute(_HEAD).one()
        return Head(*numbers)

    def links_after(self, seq: int) -> Iterator[list[Link]]:
        """The hash chain beyond entry `seq`, in order, in chunks."""
        while True:
            query = sa.select(chain_table).where(chain_table.c.seq > seq).order_by(chain_table.c.seq).limit(_CHUNK)
            with self.database.reading() as connection:
                chunk = [Link(*row) for row in connection.execute(query)]
            if chunk:
                yield chunk
                seq = chunk[-1].seq
            if len(chunk) < _CHUNK:
                return

    def link_at(self, seq: int) -> Link:
        """The last link of the chain up to entry `seq`; entry 0 and `START` if there is none."""
        query = sa.select(chain_table).where(chain_table.c.seq <= seq).order_by(chain_table.c.seq.desc()).limit(1)
        with self.database.reading() as connection:
            found = connection.execute(query).one_or_none()
        return Link(0, START) if found is None else Link(*found)

    def compactions(self) -> list[Entry]:
        """The entries that tell of compactions."""
        with self.database.reading() as connection:
            query = sa.select(log_table).where(log_table.c.kind == Kind.COMPACT).order_by(log_table.c.seq)
            return _entries(connection, query)

    def rehashed(self) -> list[Rehashed]:
        """The hashes of what compactions left, in the order of compactions and then of transactions."""
        query = sa.select(rehashed_table).order_by(rehashed_table.c.compaction, rehashed_table.c.seq)
        with self.database.reading() as connection:
            return [Rehashed(*row) for row in connection.execute(query)]

    def vectors(self, embedder: str, texts: Iterable[str]) -> dict[str, Vector]:
        """The vectors kept for `texts` under an embedder's name; texts that have none are left out."""
        with self.database.reading() as connection:
            return _vectors(connection, embedder, texts)

    def known_texts(self, embedder: str, texts: Iterable[str]) -> set[str]:
        """Those of `texts` that a vector is kept of under an embedder's name."""
        by_hash = {text_hash(text): text for text in texts}
        with self.database.reading() as connection:
            return {by_hash[hashed] for hashed in _known_hashes(connection, embedder, list(by_hash))}

    def has_vectors(self, embedder: str) -> bool:
        """Whether any vector is kept under an embedder's name."""
        query = sa.select(vectors_table.c.id).where(vectors_table.c.embedder == embedder).limit(1)
        with self.database.reading() as connection:
            return connection.scalar(query) is not None

    def embedders(self) -> list[str]:
        """The names that vectors are kept under."""
        with self.database.reading() as connection:
            return sorted(connection.scalars(sa.select(vectors_table.c.embedder).distinct()))

    def scrubbed_until(self) -> int:
        """Up to which log position `scrub` has done what it was told; 0 if it never had to."""
        query = sa.select(meta_table.c.value).where(meta_table.c.name == _SCRUBBED)
        with self.database.reading() as connection:
            return int(connection.scalar(query) or 0)

    def scrub(self, position: int) -> str:
        """Bring it about that what was erased from the log, and its vectors, are no longer in the database's files.

        Args:
            position: Log position of the last erasure.

        Returns:
            What still holds some of it, and what to do about it; empty if nothing does.

        Raises:
            StoreBusy: Others used the database longer than the timeout.
        """
        left = self.database.scrub([log_table.name, vectors_table.name])
        if not left:
            with self.database.writing() as connection:
                connection.execute(meta_table.delete().where(meta_table.c.name == _SCRUBBED))
                connection.execute(meta_table.insert().values(name=_SCRUBBED, value=str(position)))
        return left

    def close(self) -> None:
        """Let go of the database."""
        self.database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Transaction:
    """A write in progress, made by `Store.transaction`.

    Attributes:
        connection: What it is made through.
        head: The log's head.
    """

    def __init__(self, connection: sa.Connection, database: Database) -> None:
        self.connection = connection
        self._database = database
        # The row's lock excludes other writers where beginning a transaction does not (SQLite ignores it).
        *numbers, last_link = connection.execute(_HEAD.with_for_update(of=head_table)).one()
        self.head = Head(*numbers)
        self._last_link: bytes = last_link or START

    def entries_after(self, seq: int) -> Iterator[list[Entry]]:
        """What the log holds beyond `seq`, in order, in chunks."""
        while chunk := _entries_after(self.connection, seq):
            yield chunk
            seq = chunk[-1].seq

    def entries_of(self, transaction: int) -> list[Entry]:
        """The entries that one transaction wrote."""
        query = sa.select(log_table).where(log_table.c.transaction == transaction).order_by(log_table.c.seq)
        return _entries(self.connection, query)

    def forget(self, facts: Sequence[int]) -> int:
        """Delete the vectors that the database itself searches of facts; returns how many there were."""
        return self._database.forget(self.connection, facts)

    def confine(self, namespace: str) -> None:
        """Keep what is left of the transaction to one namespace and to what belongs to none.

        On PostgreSQL the database itself then shows and takes no other rows of the log; SQLite has no such rule.
        """
        self._database.confine(self.connection, namespace)

    def append(self, entries: Sequence[Entry], head: Head, *, chained: Sequence[Link] | None = None) -> None:
        """Write entries of whole transactions, numbered from `self.head.seq` + 1 on, and move the head to `head`.

        Args:
            entries: The entries.
            head: The log's head after them.
            chained: Their hashes, where they are copied and keep them.
        """
        made = list(links(self._last_link, entries)) if chained is None else chained
        _insert(self.connection, log_table, entries)
        _insert(self.connection, chain_table, made)
        self._last_link = made[-1][1]
        self.connection.execute(head_table.update().values(**head._asdict()))
        self._database.announce(self.connection, head.seq)
        self.head = head

    def keep_vectors(self, embedder: str, vectors: Mapping[str, Vector]) -> None:
        """Keep the vectors of texts under an embedder's name; those that are there already stay."""
        rows = {hashed: vector for text, vector in vectors.items() for hashed in (text_hash(text),)}
        for hashed in _known_hashes(self.connection, embedder, list(rows)):
            del rows[hashed]
        # In the order of hashes, so that each page of the table's index is touched once.
        made = [(embedder, hashed, _blob(rows[hashed])) for hashed in sorted(rows)]
        _insert(self.connection, vectors_table, made, columns=("embedder", "text_hash", "vector"))


_HEAD = sa.select(
    head_table.c.seq,
    head_table.c.transaction,
    head_table.c.fact,
    head_table.c.at,
    sa.select(chain_table.c.hash).where(chain_table.c.seq == head_table.c.seq).scalar_subquery(),
)


def text_hash(text: str) -> bytes:
    """What a text's vector is kept under: 16 bytes of BLAKE2b."""
    return blake2b(text.encode(), digest_size=16).digest()


def _database_of(path: str | Path, busy_timeout: float) -> Database:
    if str(path) == ":memory:":
        return SQLite(None, busy_timeout)
    if isinstance(path, Path) or "://" not in path:
        return SQLite(_absolute(path), busy_timeout)
    try:
        url = sa.make_url(path)
    except sa.exc.ArgumentError as error:
        raise InvalidSpec(f"{path!r} is not a database URL.", _MEND) from error
    if url.get_backend_name() in ("postgresql", "postgres"):
        from memedit.memory.postgres import Postgres  # asks for the driver, which is an extra

        return Postgres(url, busy_timeout)
    if url.get_backend_name() != "sqlite":
        raise InvalidSpec(f"An edit memory cannot be kept in {url.get_backend_name()!r}.", _MEND)
    return SQLite(None if url.database in (None, "", ":memory:") else _absolute(str(url.database)), busy_timeout)


def _absolute(path: str | Path) -> Path:
    return Path(path).expanduser().absolute()


def _entries_after(connection: sa.Connection, seq: int) -> list[Entry]:
    query = sa.select(log_table).where(log_table.c.seq > seq).order_by(log_table.c.seq).limit(_CHUNK)
    return _entries(connection, query)


def _entries(connection: sa.Connection, query: sa.Select[Any]) -> list[Entry]:
    """The log's rows; straight from the driver, since reading a long log is half of opening a memory."""
    with connection.execute(query) as result:
        return [Entry._make(row) for row in result.cursor.fetchall()] if result.cursor is not None else []


def _insert(
    connection: sa.Connection, table: sa.Table, rows: Sequence[tuple[object, ...]], columns: Sequence[str] = ()
) -> None:
    """Insert rows, each in the order of `columns` (all of the table's, if none are named)."""
    names = columns or table.columns.keys()
    if not rows:
        return
    if connection.dialect.name != "sqlite":
        connection.execute(table.insert(), [dict(zip(names, row, strict=True)) for row in rows])
        return
    # Straight to the driver: writing a long batch is half as fast through SQLAlchemy.
    quoted, marks = ", ".join(f'"{name}"' for name in names), ", ".join("?" * len(names))
    connection.exec_driver_sql(f'INSERT INTO "{table.name}" ({quoted}) VALUES ({marks})', [tuple(row) for row in rows])


def _blob(vector: Vector) -> bytes:
    return vector.astype("<f2").tobytes() + _HALF if vector.dtype == np.float16 else vector.astype("<f4").tobytes()


def _vector(blob: bytes) -> Vector:
    return np.frombuffer(blob[:-1], "<f2") if len(blob) % 2 else np.frombuffer(blob, "<f4")


def _vectors(connection: sa.Connection, embedder: str, texts: Iterable[str]) -> dict[str, Vector]:
    by_hash = {text_hash(text): text for text in texts}
    columns = (vectors_table.c.text_hash, vectors_table.c.vector)
    return {
        by_hash[hashed]: _vector(blob)
        for some in _batches(list(by_hash))
        for hashed, blob in connection.execute(sa.select(*columns).where(_is_one_of(embedder, some)))
    }


def _known_hashes(connection: sa.Connection, embedder: str, hashes: Sequence[bytes]) -> set[bytes]:
    return {
        hashed
        for some in _batches(hashes)
        for hashed in connection.scalars(sa.select(vectors_table.c.text_hash).where(_is_one_of(embedder, some)))
    }


def _is_one_of(embedder: str, hashes: Sequence[bytes]) -> sa.ColumnElement[bool]:
    return sa.and_(vectors_table.c.embedder == embedder, vectors_table.c.text_hash.in_(hashes))


def _batches(items: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    for start in range(0, len(items), _MAX_PARAMETERS):
        yield items[start : start + _MAX_PARAMETERS]
