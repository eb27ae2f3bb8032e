"""The tables of API keys and of the audit log, and the numbered steps that make them.

As in `memedit.memory.migrations`, a step never changes once it has been released. Knows nothing of what the rows mean.
"""

from __future__ import annotations

import sqlalchemy as sa

from memedit.memory.migrations import BIG, Migration, go_through

metadata = sa.MetaData()

meta = sa.Table(
    "memedit_server_meta",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)
"""What is true of the whole database: the number of the last migration."""

keys = sa.Table(
    "memedit_server_keys",
    metadata,
    sa.Column("id", sa.Text, primary_key=True),
    sa.Column("hash", sa.LargeBinary(32), nullable=False),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("role", sa.Text, nullable=False),
    sa.Column("namespaces", sa.Text, nullable=False),
    sa.Column("created_at", BIG, nullable=False),
    sa.Column("revoked_at", BIG),
)
"""API keys: of the secret only its hash. `namespaces` is a JSON array; a "*" in it stands for all."""

audit = sa.Table(
    "memedit_server_audit",
    metadata,
    sa.Column("id", BIG, primary_key=True, autoincrement=True),
    sa.Column("at", BIG, nullable=False),
    sa.Column("key", sa.Text, nullable=False),
    sa.Column("client", sa.Text, nullable=False),
    sa.Column("namespace", sa.Text, nullable=False, index=True),
    sa.Column("action", sa.Text, nullable=False),
    sa.Column("outcome", sa.Text, nullable=False),
    sa.Column("facts", sa.Text, nullable=False),
    sa.Column("detail", sa.Text, nullable=False),
)
"""Who tried to write what, when, and what came of it. `facts` is a JSON array of fact ids. Times are microseconds
since 1970 in UTC."""


def migrate(connection: sa.Connection) -> None:
    """Bring the database to the newest shape, inside the transaction that `connection` is in.

    Raises:
        StoreError: The database was made by a newer version.
    """
    go_through(connection, MIGRATIONS, meta, "The keys were")


def _create(connection: sa.Connection) -> None:
    for table in (meta, keys, audit):
        table.create(connection)
    connection.execute(meta.insert().values(name="schema", value="0"))


MIGRATIONS: tuple[Migration, ...] = (_create,)
"""Step n is at place n - 1."""
