"""What the store asks of a database, whichever it is: transactions that exclude each other, and news of commits.

`memedit.memory.sqlite` and `memedit.memory.postgres` are the two that there are. Knows nothing of tables or rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

import sqlalchemy as sa


class Database(Protocol):
    """A database that can hold an edit log. Safe to use from several threads; errors are those of `StoreError`'s tree.

    Attributes:
        file: The file it lies in; None for memory and for servers.
        place: What it is called in messages, without passwords.
    """

    file: Path | None
    place: str

    def writing(self) -> AbstractContextManager[sa.Connection]:
        """A transaction that excludes all other writers from its beginning; on disk when it ends without an error."""
        ...

    def reading(self) -> AbstractContextManager[sa.Connection]:
        """A connection whose statements each see what has been committed, and wait for no writer."""
        ...

    def sign(self, connection: sa.Connection) -> None:
        """Make the database memedit's, in the transaction that has made or changed its tables."""
        ...

    def snapshot(self, memory_id: str) -> Path | None:
        """Where this process keeps a snapshot of the index; None if nowhere."""
        ...

    def forget(self, connection: sa.Connection, facts: Sequence[int]) -> int:
        """Delete the vectors that the database itself searches of facts; returns how many there were."""
        ...

    def scrub(self, tables: Sequence[str]) -> str:
        """Bring it about that what was deleted from `tables` is no longer in the database's files.

        Returns:
            What still holds some of it, and what to do about it; empty if nothing does.
        """
        ...

    def start(self, memory_id: str) -> None:
        """Do what can only be done once the tables are there; called once."""
        ...

    def confine(self, connection: sa.Connection, namespace: str) -> None:
        """Keep what is left of a transaction to one namespace, where the database can."""
        ...

    def announce(self, connection: sa.Connection, position: int) -> None:
        """Have others told, once the transaction has been committed, that the log has come to `position`."""
        ...

    def changed(self) -> bool:
        """Whether anything may have been committed since this was last asked, by anyone. Takes microseconds."""
        ...

    def wait(self, seconds: float) -> None:
        """Return when something may have been committed, or after some time, `seconds` at most."""
        ...

    def close(self) -> None:
        """Let go of it."""
        ...
