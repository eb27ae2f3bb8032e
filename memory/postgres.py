"""All that is particular to PostgreSQL: its locks, its notifications, its rules for rows, and what its errors mean.

Writers take an advisory lock at the beginning of a transaction. Commits are announced by NOTIFY; a thread listens, so
that a read costs nothing where nothing is new. While that thread has no connection, every read asks the database.

A memory lives in the current schema of the connection, so that a database can hold several (``?options=-csearch_path%3D``
names one in a URL). Needs the extra ``postgres``.
"""

from __future__ import annotations

import os
import re
import selectors
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import cast

import sqlalchemy as sa

from memedit.errors import (
    CorruptDatabase,
    InvalidSpec,
    MemEditError,
    MissingExtra,
    ReadOnlyStore,
    StoreBusy,
    StoreError,
    StoreUnavailable,
)

try:
    import psycopg
    from psycopg.sql import SQL, Identifier
except ImportError as error:
    raise MissingExtra("psycopg", "postgres") from error

LOCK = 0x6D656D65
"""First half of the advisory lock's key ("meme"); the second half is the schema's."""

SETTING = "memedit.rows"
"""The setting that says which rows of the log a connection sees: "all", "of:" and a namespace, or else none."""

PGVECTOR_TABLES = "memedit_pgvector_"
"""What the names of the tables begin with that vectors are searched in (`memedit.memory.pgvector`)."""

_POLICY = "memedit_one_namespace"
_PATIENT = {"connect_timeout": 10, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
"""So that a connection whose other end is gone is found out in half a minute. Seconds, and probes."""

_RETRY_SECONDS = 0.25
_POLL_SECONDS = 0.05
_STOP_SECONDS = 5

# A server may be told to acknowledge commits before they are on disk; then this memory asks for better.
_BEGIN = sa.text(
    "SELECT set_config('synchronous_commit', 'on', true) FROM (SELECT 1) AS one "
    "WHERE current_setting('synchronous_commit') = 'off'"
)
_LOCK = sa.text("SELECT pg_advisory_xact_lock(:lock, hashtext(current_schema()))").bindparams(lock=LOCK)
_CONFINE = sa.text("SELECT set_config(:setting, :rows, true)")
_VECTOR_TABLES = sa.text(
    "SELECT quote_ident(tablename) FROM pg_tables WHERE schemaname = current_schema() AND starts_with(tablename, :start)"
).bindparams(start=PGVECTOR_TABLES)
_NOTIFY = sa.text("SELECT pg_notify(:channel, :position)")


class Postgres:
    """A PostgreSQL database; a `memedit.memory.database.Database`.

    Args:
        url: ``postgresql://user:password@host:port/database``, with libpq's parameters as the query.
        busy_timeout: Seconds to wait while another process writes.

    Raises:
        InvalidSpec: The URL names another driver than psycopg.
    """

    def __init__(self, url: sa.URL, busy_timeout: float) -> None:
        if url.drivername not in ("postgres", "postgresql", "postgresql+psycopg"):
            raise InvalidSpec(
                f"An edit memory is not kept through {url.drivername!r}.", "Write postgresql+psycopg://... instead."
            )
        self.file: Path | None = None
        self.place = url.render_as_string(hide_password=True)
        self._write_lock = threading.RLock()
        self._closed = False
        self._listener: _Listener | None = None
        given = url.query.get("options", os.environ.get("PGOPTIONS", ""))
        settings = {"lock_timeout": max(1, int(busy_timeout * 1000)), SETTING: "all"}
        options = [str(given), *(f"-c {name}={value}" for name, value in settings.items())]
        self._engine = sa.create_engine(
            url.set(drivername="postgresql+psycopg"),
            isolation_level="READ COMMITTED",  # each statement sees what was committed while it waited for the lock
            pool_pre_ping=True,
            connect_args={name: value for name, value in _PATIENT.items() if name not in url.query}
            | {"options": " ".join(options), "client_encoding": "utf8"},
        )
        self._reading = self._engine.execution_options(isolation_level="AUTOCOMMIT")

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """See `Database`."""
        committing = False
        with self._write_lock, self._explained():
            try:
                with self._engine.begin() as connection:
                    connection.execute(_BEGIN)
                    connection.execute(_LOCK)
                    yield connection
                    committing = True
            except sa.exc.DBAPIError as error:
                if committing and error.connection_invalidated:
                    raise StoreUnavailable(
                        f"The connection to {self.place} broke while a write was being committed: it may be there or not.",
                        "Write it again: facts that are there are left unchanged.",
                    ) from error
                raise

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """See `Database`."""
        with self._explained(), self._reading.connect() as connection:
            yield connection

    def sign(self, connection: sa.Connection) -> None:
        """Rule that a transaction told to keep to a namespace sees and writes no other's rows of the log.

        A connection that says nothing sees none. Superusers are above such rules; the owner of the tables is not.
        """
        self.rule(connection, "memedit_log")

    def rule(self, connection: sa.Connection, table: str) -> None:
        """Put a table with a column ``namespace`` under the rule of `sign`."""
        connection.exec_driver_sql(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        connection.exec_driver_sql(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        connection.exec_driver_sql(f"DROP POLICY IF EXISTS {_POLICY} ON {table}")
        setting = f"current_setting('{SETTING}', true)"
        connection.exec_driver_sql(
            f"CREATE POLICY {_POLICY} ON {table} USING ({setting} = 'all' OR {setting} = 'of:' || namespace"
            f" OR ({setting} <> '' AND namespace = ''))"
        )

    def snapshot(self, memory_id: str) -> Path | None:
        """See `Database`: in a folder of this machine, MEMEDIT_INDEXES or one in the user's cache folder."""
        folder = os.environ.get("MEMEDIT_INDEXES")
        if folder is None:
            from platformdirs import user_cache_path

            folder = str(user_cache_path("memedit", appauthor=False) / "indexes")
        return Path(folder).expanduser() / f"{memory_id}.index"

    def scrub(self, tables: Sequence[str]) -> str:
        """See `Database`. The tables are written anew, which keeps readers waiting meanwhile."""
        kept: list[str] = []

        def noted(notice: psycopg.errors.Diagnostic) -> None:
            # "0 dead row versions cannot be removed yet." in whatever language: those that somebody may still see.
            count = re.match(r"\d+", notice.message_detail or "")
            if count is not None and int(count[0]):
                kept.append(notice.message_detail or "")

        with self.reading() as connection:
            driver = cast("psycopg.Connection", connection.connection.driver_connection)
            driver.add_notice_handler(noted)
            try:
                for table in (*tables, *connection.scalars(_VECTOR_TABLES)):
                    connection.exec_driver_sql(f"VACUUM (FULL, VERBOSE, ANALYZE) {table}")
            finally:
                driver.remove_notice_handler(noted)
        if not kept:
            return ""
        return (
            f"{self.place}: a transaction that began before the erasure is still open, so its rows could not be removed "
            f"({kept[0]}). End it (pg_stat_activity shows it) and compact again."
        )

    def start(self, memory_id: str) -> None:
        """Begin to listen."""
        self._channel = f"memedit_{memory_id}"
        self._listener = _Listener(self._engine, self._channel)
        self._listener.start()

    def confine(self, connection: sa.Connection, namespace: str) -> None:
        """See `Database`."""
        connection.execute(_CONFINE, {"setting": SETTING, "rows": f"of:{namespace}"})

    @contextmanager
    def confined(self, namespace: str) -> Iterator[sa.Connection]:
        """A transaction that reads, and sees no rows of other namespaces."""
        with self._explained(), self._engine.begin() as connection:
            self.confine(connection, namespace)
            yield connection

    def forget(self, connection: sa.Connection, facts: Sequence[int]) -> int:
        """See `Database`."""
        ids = [2 * number + side for number in facts for side in (0, 1)]
        return sum(
            connection.execute(sa.text(f"DELETE FROM {table} WHERE id = ANY(:ids)"), {"ids": ids}).rowcount
            for table in connection.scalars(_VECTOR_TABLES).all()
        )

    def announce(self, connection: sa.Connection, position: int) -> None:
        """See `Database`."""
        connection.execute(_NOTIFY, {"channel": self._channel, "position": str(position)})

    def changed(self) -> bool:
        """See `Database`."""
        return self._listener is None or self._listener.news()

    def wait(self, seconds: float) -> None:
        """See `Database`."""
        if self._listener is not None:
            self._listener.wait(seconds)

    def close(self) -> None:
        """See `Database`."""
        with self._write_lock:
            self._closed = True
            if self._listener is not None:
                self._listener.stop()
            self._engine.dispose()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turn the database's errors into memedit's."""
        if self._closed:
            raise StoreError("The memory is closed.", "Open it again; a `with` block closes it at its end.")
        try:
            yield
        except (sa.exc.DBAPIError, psycopg.Error) as error:
            raise _explain(self.place, error) from error


class _Listener(threading.Thread):
    """Waits for notifications on a connection of its own, and makes another when that breaks."""

    def __init__(self, engine: sa.Engine, channel: str) -> None:
        super().__init__(name="memedit-listen", daemon=True)
        self._engine = engine
        self._channel = channel
        self._changed = threading.Condition()
        self._news = True
        self._hears = False
        self._waker, self._woken = socket.socketpair()
        self._stopping = threading.Event()

    def news(self) -> bool:
        """Whether anything was heard since this was last asked, or may have been missed."""
        with self._changed:
            news, self._news = self._news or not self._hears, False
            return news

    def wait(self, seconds: float) -> None:
        """Wait for news."""
        with self._changed:
            self._changed.wait_for(lambda: self._news, seconds if self._hears else min(seconds, _POLL_SECONDS))

    def stop(self) -> None:
        """Let go of the connection."""
        if not self._stopping.is_set():
            self._stopping.set()
            self._waker.send(b"x")
            self.join(_STOP_SECONDS)
            self._waker.close()
            self._woken.close()

    def run(self) -> None:
        """Listen until told to stop."""
        while not self._stopping.is_set():
            try:
                self._listen()
            except (sa.exc.SQLAlchemyError, psycopg.Error, OSError):
                self._tell(hears=False)
                self._stopping.wait(_RETRY_SECONDS)

    def _listen(self) -> None:
        borrowed = self._engine.raw_connection()
        driver = cast("psycopg.Connection", borrowed.driver_connection)
        borrowed.detach()
        with closing(driver) as connection:
            connection.autocommit = True
            connection.execute(SQL("LISTEN {}").format(Identifier(self._channel)))
            # Only now, and with news: what was committed before this moment was not announced here.
            self._tell(hears=True)
            with selectors.DefaultSelector() as ready:
                ready.register(connection.fileno(), selectors.EVENT_READ)
                ready.register(self._woken, selectors.EVENT_READ)
                while not self._stopping.is_set():
                    ready.select()
                    if any(connection.notifies(timeout=0)):
                        self._tell(hears=True)

    def _tell(self, *, hears: bool) -> None:
        with self._changed:
            self._hears = hears
            self._news = True
            self._changed.notify_all()


def _explain(place: str, error: sa.exc.DBAPIError | psycopg.Error) -> MemEditError:
    origin = error.orig if isinstance(error, sa.exc.DBAPIError) else error
    told = " ".join(str(origin).split())
    code = getattr(origin, "sqlstate", None) or ""
    if code == "55P03":
        return StoreBusy(
            f"Another process has been writing to {place} for longer than the timeout.",
            "Try again, let that process finish its batch, or open the memory with a longer busy_timeout.",
        )
    if code in ("42501", "25006"):
        return ReadOnlyStore(
            f"{place} cannot be written: {told}.",
            "Give the role its rights on the schema and its tables, and name the primary server, not a standby.",
        )
    if code.startswith("XX00"):
        return CorruptDatabase(f"{place} is damaged: {told}.", "Restore it from a backup.")
    if code == "53100":
        return StoreError(f"The disk that holds {place} is full; nothing was written.", "Free some space and retry.")
    lost = isinstance(error, sa.exc.DBAPIError) and error.connection_invalidated
    if lost or code.startswith(("08", "57P")) or (isinstance(origin, psycopg.OperationalError) and not code):
        return StoreUnavailable(f"{place} cannot be reached: {told}.", "Check that the server runs, and try again.")
    return StoreError(f"The database {place} failed: {told}.", "See the cause above.")
