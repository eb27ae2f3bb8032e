"""The tables of the edit memory, and the numbered steps that make them.

A step never changes once it has been released: a new shape of the tables is a new step at the end of `MIGRATIONS`.
Only portable SQL belongs here. Knows nothing of what the rows mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from uuid import uuid4

import sqlalchemy as sa

from memedit.errors import StoreError
from memedit.memory.chain import START, links

Migration = Callable[[sa.Connection], None]

_CHUNK = 10_000

BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
"""64 bits everywhere; SQLite makes only a column of type INTEGER the alias of its row id."""

metadata = sa.MetaData()

meta = sa.Table(
    "memedit_meta",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, nullable=False),
)
"""What is true of the whole database: the number of the last migration, the memory's own id, and up to which log position
the files have been freed of what was erased."""

head = sa.Table(
    "memedit_head",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("seq", BIG, nullable=False),
    sa.Column("transaction", BIG, nullable=False),
    sa.Column("fact", BIG, nullable=False),
    sa.Column("at", BIG, nullable=False),
)
"""One row: the last sequence number, transaction, fact id and time handed out. They never go back, so ids are never
reused; and a writer that holds this row holds the log."""

log = sa.Table(
    "memedit_log",
    metadata,
    sa.Column("seq", BIG, primary_key=True, autoincrement=False),
    sa.Column("transaction", BIG, nullable=False, index=True),
    sa.Column("at", BIG, nullable=False),
    sa.Column("namespace", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("fact", BIG),
    sa.Column("other", BIG),
    sa.Column("reason", sa.Text),
    sa.Column("subject", sa.Text),
    sa.Column("relation", sa.Text),
    sa.Column("object", sa.Text),
    sa.Column("statement", sa.Text),
    sa.Column("question", sa.Text),
    sa.Column("valid_from", BIG),
    sa.Column("valid_to", BIG),
    sa.Column("source", sa.Text),
    sa.Column("body", sa.Text),
)
"""The edit log: append-only, the truth. Its columns are those of `memedit.memory.store.Entry`."""

vectors = sa.Table(
    "memedit_vectors",
    metadata,
    sa.Column("id", BIG, primary_key=True),
    sa.Column("embedder", sa.Text, nullable=False),
    sa.Column("text_hash", sa.LargeBinary(16), nullable=False),
    sa.Column("vector", sa.LargeBinary, nullable=False),
    sa.UniqueConstraint("embedder", "text_hash"),
)
"""Embeddings, float32, or float16 and one byte "h", by embedder and text. Kept in the order of writing and found by a small index:
keyed by the hash itself, every insert would touch a random page."""

chain = sa.Table(
    "memedit_chain",
    metadata,
    sa.Column("seq", BIG, primary_key=True, autoincrement=False),
    sa.Column("hash", sa.LargeBinary(32), nullable=False),
)
"""The hash chain over the log (`memedit.memory.chain`): one row a transaction, by the number of its last entry."""

rehashed = sa.Table(
    "memedit_rehashed",
    metadata,
    sa.Column("compaction", BIG, primary_key=True, autoincrement=False),
    sa.Column("seq", BIG, primary_key=True, autoincrement=False),
    sa.Column("hash", sa.LargeBinary(32), nullable=False),
)
"""The hashes of what compactions left of transactions (`memedit.memory.tombstones`)."""


def schema_of(connection: sa.Connection, table: sa.Table = meta) -> int:
    """The number of the last migration that the database has been through; 0 for an empty one.

    Args:
        connection: To the database.
        table: Where that number stands, under the name "schema".
    """
    if not sa.inspect(connection).has_table(table.name):
        return 0
    return int(connection.execute(sa.select(table.c.value).where(table.c.name == "schema")).scalar_one())


def migrate(connection: sa.Connection) -> None:
    """Bring the database to the newest shape, inside the transaction that `connection` is in.

    Raises:
        StoreError: The database was made by a newer version.
    """
    go_through(connection, MIGRATIONS, meta, "The edit memory was")


def go_through(connection: sa.Connection, steps: Sequence[Migration], table: sa.Table, what: str) -> None:
    """Run the steps that a database has not been through yet. The first one makes `table` and its row "schema".

    Args:
        connection: To the database, in a transaction.
        steps: All steps, in order.
        table: Where the number of the last one stands.
        what: What they make the tables of, for the error: "The keys were".

    Raises:
        StoreError: The database was made by a newer version.
    """
    done = schema_of(connection, table)
    if done > len(steps):
        raise StoreError(
            f"{what} written by a newer memedit (schema {done}; this one knows {len(steps)}).",
            "Upgrade memedit; the database was left untouched.",
        )
    for number, step in enumerate(steps[done:], done + 1):
        step(connection)
        connection.execute(table.update().where(table.c.name == "schema").values(value=str(number)))


def _create(connection: sa.Connection) -> None:
    for table in (meta, head, log, vectors):
        table.create(connection)
    connection.execute(meta.insert(), [{"name": "schema", "value": "0"}, {"name": "id", "value": uuid4().hex}])
    connection.execute(head.insert().values(id=1, seq=0, transaction=0, fact=0, at=0))


def _chain(connection: sa.Connection) -> None:
    """Chain the log that is there, as it is found."""
    chain.create(connection)
    previous, last = START, 0
    while rows := connection.execute(sa.select(log).where(log.c.seq > last).order_by(log.c.seq).limit(_CHUNK)).all():
        if len(rows) == _CHUNK:  # the last transaction of a chunk may go on in the next one
            whole = [row for row in rows if row.transaction != rows[-1].transaction]
            rows = (
                whole
                or connection.execute(
                    sa.select(log).where(log.c.transaction == rows[0].transaction).order_by(log.c.seq)
                ).all()
            )
        made = list(links(previous, [tuple(row) for row in rows]))
        connection.execute(chain.insert(), [{"seq": seq, "hash": hashed} for seq, hashed in made])
        last, previous = made[-1]


def _tombstones(connection: sa.Connection) -> None:
    rehashed.create(connection)


MIGRATIONS: tuple[Migration, ...] = (_create, _chain, _tombstones)
"""Step n is at place n - 1."""
