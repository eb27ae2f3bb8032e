"""All that is particular to SQLite: whose file it is, the pragmas, the locks, and what its errors mean.

Whose file it is is read from the file's first hundred bytes, before SQLite opens it: even a read through SQLite may
write (it recovers journals, and makes shared-memory files), and a file that is not ours must stay as it is.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import cast

import sqlalchemy as sa
from sqlalchemy.pool import NullPool, StaticPool

from memedit.errors import CorruptDatabase, ForeignDatabase, MemEditError, ReadOnlyStore, StoreBusy, StoreError

APPLICATION_ID = 0x6D656D65
"""Marks a SQLite file as memedit's ("meme"); it stands at bytes 68 to 71 of the file."""

_MAGIC = b"SQLite format 3\x00"
_POLL_SECONDS = 0.01


def check_file(path: Path) -> None:
    """See that `path` is a memory, or a place where one can be made. Writes nothing.

    Raises:
        StoreError: `path` is a folder, or its folder does not exist.
        CorruptDatabase: The file is no SQLite database.
        ForeignDatabase: It is another application's.
        ReadOnlyStore: The file or its folder cannot be written.
    """
    if path.is_dir():
        raise StoreError(f"{path} is a folder.", "Give the path of a file, e.g. facts.db.")
    if not path.parent.is_dir():
        raise StoreError(f"The folder {path.parent} does not exist.", "Create it, or give another path.")
    for place in (path, path.parent):
        if place.exists() and not os.access(place, os.W_OK, effective_ids=os.access in os.supports_effective_ids):
            raise _read_only(place)
    if not path.exists() or path.stat().st_size == 0:
        return
    with path.open("rb") as file:
        header = file.read(100)
    if len(header) < 100 or not header.startswith(_MAGIC):
        raise CorruptDatabase(
            f"{path} is not a database, or its first page is damaged.",
            "Give another path, or restore the file from a backup; it was left untouched.",
        )
    if int.from_bytes(header[68:72], "big") != APPLICATION_ID:
        raise ForeignDatabase(
            f"{path} is a SQLite database, but not an edit memory.",
            "Give the path of a new file; this one was left untouched.",
        )


class SQLite:
    """A SQLite file, or memory; a `memedit.memory.database.Database`.

    One connection writes and one reads, each under its own lock, so that a reader never waits for a writer.

    Args:
        file: The file, made if it is not there; None for memory.
        busy_timeout: Seconds to wait while another process writes.

    Raises:
        StoreError: See `check_file`.
    """

    def __init__(self, file: Path | None, busy_timeout: float) -> None:
        self.file = file
        self.place = "the in-memory database" if file is None else str(file)
        self._busy_timeout = busy_timeout
        self._write_lock = threading.RLock()
        self._read_lock = self._write_lock if file is None else threading.RLock()
        self._version = 0
        if file is not None:
            check_file(file)
        self._engine = _engine(file, busy_timeout)
        with ExitStack() as opened, _explained(self.place):
            self._writer = opened.enter_context(self._engine.connect())
            self._reader = opened.enter_context(self._engine.connect()).execution_options(isolation_level="AUTOCOMMIT")
            opened.pop_all()  # all is well: from here on, `close` closes them

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """See `Database`."""
        with self._write_lock, _explained(self.place), self._writer.begin():
            yield self._writer

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """See `Database`."""
        with self._read_lock, _explained(self.place):
            yield self._reader

    def sign(self, connection: sa.Connection) -> None:
        """See `Database`."""
        connection.exec_driver_sql(f"PRAGMA application_id={APPLICATION_ID}")

    def snapshot(self, memory_id: str) -> Path | None:
        """See `Database`: beside the file."""
        return None if self.file is None else self.file.with_name(self.file.name + ".index")

    def forget(self, connection: sa.Connection, facts: Sequence[int]) -> int:
        """SQLite searches no vectors."""
        return 0

    def scrub(self, tables: Sequence[str]) -> str:
        """See `Database`. The file is written anew without its free pages, and the write-ahead log emptied."""
        if self.file is None:
            return ""
        with self._write_lock, _explained(self.place):
            driver = cast("sqlite3.Connection", self._writer.connection.driver_connection)
            driver.execute("VACUUM")
            busy = driver.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
            self._writer.rollback()  # it only lent its driver
        if not busy:
            return ""
        return f"{self.file}-wal: another process is reading from it. Compact again, or close that process."

    def start(self, memory_id: str) -> None:
        """Let readers read while a writer writes. Once done, it is a property of the file.

        Only after the signature has been committed: until then it would lie in the log and not in the file.
        """
        if self.file is None:
            return
        deadline = time.monotonic() + self._busy_timeout
        while True:
            try:
                with self.reading() as connection:
                    connection.exec_driver_sql("PRAGMA journal_mode=WAL")
            except StoreBusy:
                # This pragma fails at once when the file is locked: SQLite's own waiting does not cover it.
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
            else:
                return

    def confine(self, connection: sa.Connection, namespace: str) -> None:
        """SQLite knows no rules for rows."""

    def announce(self, connection: sa.Connection, position: int) -> None:
        """Not needed: `changed` asks the file."""

    def changed(self) -> bool:
        """See `Database`."""
        if self.file is None:
            return False
        with self.reading() as connection:
            driver = cast("sqlite3.Connection", connection.connection.driver_connection)
            version, self._version = self._version, int(driver.execute("PRAGMA data_version").fetchone()[0])
        return version != self._version

    def wait(self, seconds: float) -> None:
        """See `Database`."""
        time.sleep(min(seconds, _POLL_SECONDS))

    def close(self) -> None:
        """See `Database`."""
        with self._write_lock, self._read_lock:
            self._reader.close()
            self._writer.close()
            self._engine.dispose()


def _engine(file: Path | None, busy_timeout: float) -> sa.Engine:
    """An engine on a file, or on memory.

    A transaction of it takes the write lock when it begins, so that what it reads cannot have changed when it writes;
    a connection with ``isolation_level="AUTOCOMMIT"`` only reads, and waits for nobody.
    """
    engine = sa.create_engine(
        sa.URL.create("sqlite", database=":memory:" if file is None else str(file)),
        connect_args={"timeout": busy_timeout, "check_same_thread": False},
        poolclass=StaticPool if file is None else NullPool,
    )

    @sa.event.listens_for(engine, "connect")
    def _connected(connection: sqlite3.Connection, _: object) -> None:
        connection.isolation_level = None  # the driver would begin transactions of its own, too late
        connection.execute("PRAGMA synchronous=FULL")  # in WAL mode NORMAL could lose the last commits
        connection.execute("PRAGMA secure_delete=ON")  # what a compaction deletes is overwritten at once

    @sa.event.listens_for(engine, "begin")
    def _begun(connection: sa.Connection) -> None:
        if connection.get_execution_options().get("isolation_level") != "AUTOCOMMIT":
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


@contextmanager
def _explained(place: object) -> Iterator[None]:
    """Turn the database's errors into memedit's.

    Args:
        place: The file, to be named.

    Raises:
        StoreBusy, ReadOnlyStore, CorruptDatabase, StoreError: As the case may be.
    """
    try:
        yield
    except (sa.exc.DBAPIError, sqlite3.Error) as error:
        raise _explain(place, error) from error
    except sa.exc.ResourceClosedError as error:
        raise StoreError("The memory is closed.", "Open it again; a `with` block closes it at its end.") from error


def _explain(place: object, error: sa.exc.DBAPIError | sqlite3.Error) -> MemEditError:
    origin = error.orig if isinstance(error, sa.exc.DBAPIError) else error
    code = getattr(origin, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return StoreBusy(
            f"Another process has been holding {place} for longer than the timeout.",
            "Try again, let that process finish its batch, or open the memory with a longer busy_timeout.",
        )
    if code in (sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM):
        return _read_only(place)
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return CorruptDatabase(f"{place} is damaged: {origin}.", "Restore it from a backup; it was left untouched.")
    if code == sqlite3.SQLITE_FULL:
        return StoreError(f"The disk that holds {place} is full; nothing was written.", "Free some space and retry.")
    return StoreError(f"The database {place} failed: {origin}.", "See the cause above.")


def _read_only(place: object) -> ReadOnlyStore:
    return ReadOnlyStore(
        f"{place} cannot be written.", "Give yourself write permission on the file and its folder, or use another path."
    )
