"""The edit log in SQL: append-only entries, read in order, written in transactions that are durable on return.

The log is the truth; everything else is a fold of it (`memedit.memory.state`) or a cache (the vectors kept here by
text, the index made from them). Knows nothing of what the entries mean: it never reads a fact, it only keeps it.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from enum import StrEnum
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple, Self, cast

import numpy as np
import numpy.typing as npt
import sqlalchemy as sa

from memedit.errors import InvalidSpec
from memedit.memory import sqlite
from memedit.memory.migrations import MIGRATIONS, migrate, schema_of
from memedit.memory.migrations import head as head_table
from memedit.memory.migrations import log as log_table
from memedit.memory.migrations import meta as meta_table
from memedit.memory.migrations import vectors as vectors_table

Vector = npt.NDArray[np.float32]

_CHUNK = 10_000
_MAX_PARAMETERS = 500


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


class Store:
    """A database that holds an edit log.

    Safe to use from several threads: one connection writes and one reads, each under its own lock, so that a reader
    never waits for a writer.

    Args:
        path: A file, ":memory:", or a SQLAlchemy URL of SQLite.
        busy_timeout: Seconds to wait while another process writes.

    Raises:
        StoreError: The database cannot be used; see its subclasses. It is untouched then.
        InvalidSpec: The URL names another kind of database.
    """

    def __init__(self, path: str | Path = ":memory:", *, busy_timeout: float = 10.0) -> None:
        self.path = _file_of(path)
        self._place = self.path or "the in-memory database"
        self._write_lock = threading.RLock()
        self._read_lock = self._write_lock if self.path is None else threading.RLock()
        if self.path is not None:
            sqlite.check_file(self.path)
        self._engine = sqlite.make_engine(self.path, busy_timeout)
        with ExitStack() as opened, sqlite.explained(self._place):
            self._writer = opened.enter_context(self._engine.connect())
            self._reader = opened.enter_context(self._engine.connect()).execution_options(isolation_level="AUTOCOMMIT")
            if schema_of(self._reader) != len(MIGRATIONS):
                with self._writer.begin():
                    sqlite.mark(self._writer)
                    migrate(self._writer)
            if self.path is not None:
                sqlite.use_write_ahead_log(self._reader, busy_timeout)
            self.memory_id = str(self._reader.scalar(sa.select(meta_table.c.value).where(meta_table.c.name == "id")))
            opened.pop_all()  # all is well: from here on, `close` closes them
        self._version = 0

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """Write: a transaction that excludes all other writers, and is on disk when the block ends without an error.

        Raises:
            StoreBusy: Another process held the database longer than the timeout.
        """
        with self._write_lock, sqlite.explained(self._place), self._writer.begin():
            yield Transaction(self._writer)

    def changed(self) -> bool:
        """Whether anything was committed since this was last asked, by anyone. Takes microseconds."""
        if self.path is None:
            return False
        with self._read_lock, sqlite.explained(self._place):
            driver = cast("sqlite3.Connection", self._reader.connection.driver_connection)
            version, self._version = self._version, sqlite.data_version(driver)
        return version != self._version

    def entries_after(self, seq: int) -> Iterator[list[Entry]]:
        """The log beyond `seq`, in order, in chunks."""
        while True:
            with self._read_lock, sqlite.explained(self._place):
                chunk = _entries_after(self._reader, seq)
            if chunk:
                yield chunk
                seq = chunk[-1].seq
            if len(chunk) < _CHUNK:
                return

    def vectors(self, embedder: str, texts: Iterable[str]) -> dict[str, Vector]:
        """The vectors kept for `texts` under an embedder's name; texts that have none are left out."""
        with self._read_lock, sqlite.explained(self._place):
            return _vectors(self._reader, embedder, texts)

    def known_texts(self, embedder: str, texts: Iterable[str]) -> set[str]:
        """Those of `texts` that a vector is kept of under an embedder's name."""
        by_hash = {text_hash(text): text for text in texts}
        with self._read_lock, sqlite.explained(self._place):
            return {by_hash[hashed] for hashed in _known_hashes(self._reader, embedder, list(by_hash))}

    def has_vectors(self, embedder: str) -> bool:
        """Whether any vector is kept under an embedder's name."""
        query = sa.select(vectors_table.c.id).where(vectors_table.c.embedder == embedder).limit(1)
        with self._read_lock, sqlite.explained(self._place):
            return self._reader.scalar(query) is not None

    def close(self) -> None:
        """Let go of the database."""
        with self._write_lock, self._read_lock:
            self._reader.close()
            self._writer.close()
            self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Transaction:
    """A write in progress, made by `Store.transaction`."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection
        columns = (head_table.c.seq, head_table.c.transaction, head_table.c.fact, head_table.c.at)
        # The row's lock excludes other writers where beginning a transaction does not (SQLite ignores it).
        self.head = Head(*connection.execute(sa.select(*columns).with_for_update()).one())

    def entries_after(self, seq: int) -> Iterator[list[Entry]]:
        """What the log holds beyond `seq`, in order, in chunks."""
        while chunk := _entries_after(self._connection, seq):
            yield chunk
            seq = chunk[-1].seq

    def entries_of(self, transaction: int) -> list[Entry]:
        """The entries that one transaction wrote."""
        query = sa.select(log_table).where(log_table.c.transaction == transaction).order_by(log_table.c.seq)
        return _entries(self._connection, query)

    def append(self, entries: Sequence[Entry], head: Head) -> None:
        """Write entries, numbered from `self.head.seq` + 1 on, and move the head to `head`."""
        self._connection.execute(log_table.insert(), [entry._asdict() for entry in entries])
        self._connection.execute(head_table.update().values(**head._asdict()))
        self.head = head

    def keep_vectors(self, embedder: str, vectors: Mapping[str, Vector]) -> None:
        """Keep the vectors of texts under an embedder's name; those that are there already stay."""
        known = _known_hashes(self._connection, embedder, [text_hash(text) for text in vectors])
        rows = {
            hashed: {"embedder": embedder, "text_hash": hashed, "vector": vector.astype("<f4").tobytes()}
            for text, vector in vectors.items()
            if (hashed := text_hash(text)) not in known
        }
        if rows:
            self._connection.execute(vectors_table.insert(), list(rows.values()))


def text_hash(text: str) -> bytes:
    """What a text's vector is kept under: 16 bytes of BLAKE2b."""
    return blake2b(text.encode(), digest_size=16).digest()


def _file_of(path: str | Path) -> Path | None:
    if str(path) == ":memory:":
        return None
    if isinstance(path, str) and "://" in path:
        try:
            url = sa.make_url(path)
        except sa.exc.ArgumentError as error:
            raise InvalidSpec(f"{path!r} is not a database URL.", "Give a file, or e.g. sqlite:///facts.db.") from error
        if url.get_backend_name() != "sqlite":
            raise InvalidSpec(
                f"An edit memory cannot be kept in {url.get_backend_name()!r}.", "Give a file, or sqlite:///facts.db."
            )
        if url.database in (None, "", ":memory:"):
            return None
        path = str(url.database)
    return Path(path).expanduser().absolute()


def _entries_after(connection: sa.Connection, seq: int) -> list[Entry]:
    query = sa.select(log_table).where(log_table.c.seq > seq).order_by(log_table.c.seq).limit(_CHUNK)
    return _entries(connection, query)


def _entries(connection: sa.Connection, query: sa.Select[Any]) -> list[Entry]:
    """The log's rows; straight from the driver, since reading a long log is half of opening a memory."""
    with connection.execute(query) as result:
        return [Entry._make(row) for row in result.cursor.fetchall()] if result.cursor is not None else []


def _vectors(connection: sa.Connection, embedder: str, texts: Iterable[str]) -> dict[str, Vector]:
    by_hash = {text_hash(text): text for text in texts}
    columns = (vectors_table.c.text_hash, vectors_table.c.vector)
    return {
        by_hash[hashed]: np.frombuffer(blob, dtype="<f4")
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
