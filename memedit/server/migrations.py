"""The tables of API keys and of the audit log, and the numbered steps that make them.

As in `memedit.memory.migrations`, a step never changes once it has been released. Knows nothing of what the rows mean.
"""

from __future__ import annotations

from collections.abc import Callable

import sqlalchemy as sa

from memedit.errors import StoreError

Migration = Callable[[sa.Connection], None]

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

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
    done = 0
    if sa.inspect(connection).has_table(meta.name):
        done = int(connection.execute(sa.select(meta.c.value).where(meta.c.name == "schema")).scalar_one())
    if done > len(MIGRATIONS):
        raise StoreError(
            f"The keys were written by a newer memedit (schema {done}; this one knows {len(MIGRATIONS)}).",
            "Upgrade memedit; the database was left untouched.",
        )
    for number, step in enumerate(MIGRATIONS[done:], done + 1):
        step(connection)
        connection.execute(meta.update().where(meta.c.name == "schema").values(value=str(number)))


def _create(connection: sa.Connection) -> None:
    for table in (meta, keys, audit):
        table.create(connection)
    connection.execute(meta.insert().values(name="schema", value="0"))


MIGRATIONS: tuple[Migration, ...] = (_create,)
"""Step n is at place n - 1."""
