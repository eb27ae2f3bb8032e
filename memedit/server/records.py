"""API keys and the audit log, in SQL. Knows nothing of HTTP, nor of facts beyond their ids.

A key is ``mk_<id>_<secret>``. Its secret has 256 random bits, so that a plain SHA-256 of it is safe to keep: there is
nothing to guess. The secret itself is told once, when the key is made.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import NamedTuple, Self

import sqlalchemy as sa
from sqlalchemy.pool import QueuePool, StaticPool

from memedit.errors import InvalidSpec, StoreError, StoreUnavailable, Unauthenticated
from memedit.memory.intake import check_namespace
from memedit.server.migrations import audit, keys, migrate

ALL = "*"
"""As a namespace of a key: every one."""
_PREFIX = "mk"


class Role(StrEnum):
    """What a key may do; each role may do what those before it may."""

    READER = "reader"
    """Ask, chat, and read facts."""
    EDITOR = "editor"
    """Write facts."""
    ADMIN = "admin"
    """Read the audit log."""

    def covers(self, other: Role) -> bool:
        """Whether this role may do what `other` may."""
        order = list(Role)
        return order.index(self) >= order.index(other)


class ApiKey(NamedTuple):
    """An API key, without its secret.

    Attributes:
        id: Its public part; what logs call it.
        name: Whose it is.
        role: What it may do.
        namespaces: Where; `ALL` in it stands for everywhere. The first is the default one.
        created_at: When it was made.
        revoked_at: When it was revoked, or None while it is good.
    """

    id: str
    name: str
    role: Role
    namespaces: tuple[str, ...]
    created_at: datetime
    revoked_at: datetime | None = None

    def reaches(self, namespace: str) -> bool:
        """Whether the key is bound to a namespace."""
        return ALL in self.namespaces or namespace in self.namespaces


class AuditEntry(NamedTuple):
    """One attempt to write.

    Attributes:
        id: Number of the entry.
        at: When it began.
        key: Id of the API key; for the command line and MCP the operating system's user, as "cli:alice" and "mcp:alice".
        client: The address it came from, or the machine's name.
        namespace: Where.
        action: ``add``, ``import``, ``retract``, ``undo``, ``alias`` or ``erase``.
        outcome: ``done``, ``refused`` (nothing was written), or ``begun``: the server was killed before it could say.
        facts: Ids of the facts that were recorded or ended.
        detail: Why it was refused, or how many rows there were.
    """

    id: int
    at: datetime
    key: str
    client: str
    namespace: str
    action: str
    outcome: str
    facts: tuple[int, ...]
    detail: str


class Records:
    """Keys and audit entries. Safe to use from several threads and processes.

    Args:
        place: A SQLite file (made if it is not there), ":memory:", or a database URL.

    Raises:
        StoreError: The database cannot be used.
    """

    def __init__(self, place: str | Path) -> None:
        self._lock = threading.RLock()
        self._engine = _engine(place)
        self._place = self._engine.url.render_as_string(hide_password=True)
        try:
            with self._begin() as connection:
                migrate(connection)
        except BaseException:
            self._engine.dispose()
            raise

    # -- keys ------------------------------------------------------------------------------------------------

    def create_key(self, name: str, role: Role, namespaces: Sequence[str]) -> tuple[ApiKey, str]:
        """Make a key.

        Returns:
            The key, and the text a client sends, which is kept nowhere.

        Raises:
            InvalidSpec: No namespace is named.
            InvalidFact: One of them is no name.
        """
        if not namespaces:
            raise InvalidSpec("The key is bound to no namespace.", f"Name at least one, or {ALL!r} for all.")
        bound = tuple(dict.fromkeys(check_namespace(one) for one in namespaces))
        key = ApiKey(secrets.token_hex(6), name, role, bound, _now())
        secret = secrets.token_urlsafe(32)
        with self._begin() as connection:
            connection.execute(
                keys.insert().values(
                    id=key.id, hash=_hash(secret), name=name, role=role.value, namespaces=json.dumps(bound),
                    created_at=_microseconds(key.created_at),
                )
            )  # fmt: skip
        return key, f"{_PREFIX}_{key.id}_{secret}"

    def check_key(self, text: str) -> ApiKey:
        """The key that a client sent.

        Raises:
            Unauthenticated: It is none of ours, or was revoked.
        """
        prefix, _, rest = text.partition("_")
        number, _, secret = rest.partition("_")
        row = None
        if prefix == _PREFIX and number and secret:
            with self._begin(reads=True) as connection:
                row = connection.execute(sa.select(keys).where(keys.c.id == number)).one_or_none()
        known = _hash("") if row is None else bytes(row.hash)
        if not hmac.compare_digest(known, _hash(secret)) or row is None or row.revoked_at is not None:
            raise Unauthenticated(
                "The API key is not known, or it was revoked.", "Ask an operator for one: memedit keys create."
            )
        return _key(row)

    def revoke_key(self, number: str) -> ApiKey:
        """Make a key useless from now on; revoking it again changes nothing.

        Raises:
            InvalidSpec: There is no such key.
        """
        with self._begin() as connection:
            connection.execute(
                keys.update()
                .where(keys.c.id == number, keys.c.revoked_at.is_(None))
                .values(revoked_at=_microseconds(_now()))
            )
            row = connection.execute(sa.select(keys).where(keys.c.id == number)).one_or_none()
        if row is None:
            raise InvalidSpec(f"There is no API key {number!r}.", "List them: memedit keys list.")
        return _key(row)

    def list_keys(self) -> list[ApiKey]:
        """Every key ever made, oldest first."""
        with self._begin(reads=True) as connection:
            return [_key(row) for row in connection.execute(sa.select(keys).order_by(keys.c.created_at, keys.c.id))]

    # -- audit -----------------------------------------------------------------------------------------------

    def begin_write(self, key: str, client: str, namespace: str, action: str) -> int:
        """Note, durably, that a write is about to be tried; the number to `end_write` it with."""
        values = {
            "at": _microseconds(_now()), "key": key, "client": client, "namespace": namespace, "action": action,
            "outcome": "begun", "facts": "[]", "detail": "",
        }  # fmt: skip
        with self._begin() as connection:
            return int(connection.execute(audit.insert().values(**values).returning(audit.c.id)).scalar_one())

    def end_write(self, number: int, outcome: str, facts: Sequence[int] = (), detail: str = "") -> None:
        """Note what came of a write."""
        with self._begin() as connection:
            connection.execute(
                audit.update()
                .where(audit.c.id == number)
                .values(outcome=outcome, facts=json.dumps(list(facts)), detail=detail)
            )

    def entries(self, namespace: str, *, after: int = 0, limit: int = 100) -> list[AuditEntry]:
        """The audit log of a namespace beyond an entry, oldest first."""
        query = (
            sa.select(audit).where(audit.c.namespace == namespace, audit.c.id > after).order_by(audit.c.id).limit(limit)
        )
        with self._begin(reads=True) as connection:
            return [
                AuditEntry(
                    row.id, _moment(row.at), row.key, row.client, row.namespace, row.action, row.outcome,
                    tuple(json.loads(row.facts)), row.detail,
                )
                for row in connection.execute(query)
            ]  # fmt: skip

    def close(self) -> None:
        """Let go of the database."""
        self._engine.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _begin(self, *, reads: bool = False) -> Iterator[sa.Connection]:
        try:
            with self._lock, self._engine.connect() as connection:
                connection.execution_options(memedit_reads=reads)
                with connection.begin():
                    yield connection
        except sa.exc.DBAPIError as error:
            if self._engine.name != "sqlite" and (
                error.connection_invalidated or isinstance(error, sa.exc.OperationalError)
            ):
                problem = f"The database of API keys, {self._place}, cannot be reached: {error.orig}."
                raise StoreUnavailable(problem, "Check that the server runs, and try again.") from error
            raise StoreError(f"The database of API keys, {self._place}, failed: {error.orig}.", _MEND) from error


def records_beside(memory: str) -> str:
    """Where keys and audit log are kept where nobody says: beside a memory's file, or in its database server.

    >>> records_beside("facts.db")
    'facts.db.server'
    """
    if memory == ":memory:" or "://" in memory:
        return memory
    return f"{memory}.server"


def _engine(place: str | Path) -> sa.Engine:
    text = str(place)
    if "://" in text and not text.startswith("sqlite"):
        server = sa.make_url(text)
        if server.drivername in ("postgres", "postgresql"):
            server = server.set(drivername="postgresql+psycopg")  # the driver of the memory's extra
        return sa.create_engine(server, pool_pre_ping=True)
    url = sa.make_url(text) if "://" in text else sa.URL.create("sqlite", database=text)
    in_memory = url.database in (None, "", ":memory:")
    engine = sa.create_engine(
        url,
        connect_args={"timeout": 10, "check_same_thread": False},
        poolclass=StaticPool if in_memory else QueuePool,
    )

    @sa.event.listens_for(engine, "connect")
    def _connected(connection: sqlite3.Connection, _: object) -> None:
        connection.isolation_level = None  # the driver would begin transactions of its own, too late
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")

    @sa.event.listens_for(engine, "begin")
    def _begun(connection: sa.Connection) -> None:
        # One that reads first and then writes must hold the lock from the start.
        reads = connection.get_execution_options().get("memedit_reads")
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    return engine


def _key(row: sa.Row[tuple[object, ...]]) -> ApiKey:
    revoked = None if row.revoked_at is None else _moment(row.revoked_at)
    return ApiKey(row.id, row.name, Role(row.role), tuple(json.loads(row.namespaces)), _moment(row.created_at), revoked)


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()


def _now() -> datetime:
    return datetime.now(UTC)


def _microseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1_000_000)


def _moment(microseconds: int) -> datetime:
    return datetime.fromtimestamp(microseconds / 1_000_000, UTC)


_MEND = "Check the path or URL and its permissions; --access names another."
