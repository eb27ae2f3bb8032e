"""Entries of the log whose content has been erased: what is left of them, and how the hash chain goes on holding.

A tombstone keeps its number, transaction, time and namespace, and the id of its fact. The hash of its transaction stays
as it was written, so that later hashes, and those noted down elsewhere, still hold; but it can no longer be computed. So
a compaction hashes the stored hash together with what is left of the transaction's entries, and records the hash of all
these in an entry of its own (`Kind.COMPACT`), which the chain covers. Whoever empties an entry without such a record, or
changes what a compaction left, is found out.

A transaction's first entry with content holds random bytes (`salt`), which go with it: so the hash that stays is no help
to someone who guesses what was erased. Knows nothing of what is to be erased, or why.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from itertools import groupby
from typing import NamedTuple, Self

import sqlalchemy as sa

from memedit.memory.chain import link
from memedit.memory.migrations import BIG
from memedit.memory.migrations import chain as chain_table
from memedit.memory.migrations import log as log_table
from memedit.memory.migrations import rehashed as rehashed_table
from memedit.memory.migrations import vectors as vectors_table
from memedit.memory.store import Kind, Store, text_hash

_BATCH = 500
_STAYS = {"seq", "transaction", "at", "namespace", "kind", "fact"}
_scratch = sa.MetaData()
_facts, _transactions = (
    sa.Table(f"memedit_chosen_{name}", _scratch, sa.Column("id", BIG, primary_key=True), prefixes=["TEMPORARY"])
    for name in ("facts", "transactions")
)


class Compaction(NamedTuple):
    """What a `Kind.COMPACT` entry records, as its `body`.

    Attributes:
        facts: Ids of the facts erased, ascending.
        aliases: Sequence numbers of the aliases erased.
        horizon: Facts that had ended by this time were erased, so that reads of earlier moments are not exact any more;
            None where facts were chosen otherwise. In microseconds.
        through: Number of the last transaction that something was erased of.
        digest: Hash of the hashes of what is left of each transaction, in hexadecimal.
    """

    facts: tuple[int, ...]
    aliases: tuple[int, ...]
    horizon: int | None
    through: int
    digest: str

    def to_json(self) -> str:
        """As it is written."""
        return json.dumps({**self._asdict(), "facts": list(_runs(self.facts))}, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Self:
        """As it was written.

        Raises:
            ValueError: It was not.
        """
        values = json.loads(text)
        try:
            facts = tuple(number for first, last in values["facts"] for number in range(first, last + 1))
            return cls(facts, tuple(values["aliases"]), values["horizon"], values["through"], values["digest"])
        except (LookupError, TypeError) as error:
            raise ValueError(f"no compaction: {error!r}") from error


class Emptied(NamedTuple):
    """What was erased of the log, and the hashes of what is left of the transactions it was in.

    Attributes:
        entries: How many entries were emptied.
        through: The last transaction of them.
        hashes: For each transaction the number of its last entry, and the hash of what is left.
    """

    entries: int
    through: int
    hashes: tuple[tuple[int, bytes], ...]

    @property
    def digest(self) -> str:
        """The hash of all hashes."""
        return _digest(self.hashes)


def salt() -> str:
    """What makes the content of a transaction impossible to guess from its hash."""
    return secrets.token_urlsafe(16)


def empty(connection: sa.Connection, namespace: str, facts: Sequence[int], aliases: Sequence[int]) -> Emptied:
    """Erase what the log holds of some facts and aliases, within the transaction that `connection` is in.

    Args:
        connection: A connection that writes.
        namespace: Where they are.
        facts: Ids of facts, each one once.
        aliases: Sequence numbers of entries of `Kind.ALIAS`.
    """
    log = log_table.c
    for table in (_facts, _transactions):
        table.create(connection)
    if facts:
        connection.execute(_facts.insert(), [{"id": number} for number in facts])
    chosen = sa.and_(
        log.namespace == namespace,
        sa.or_(log.fact.in_(sa.select(_facts.c.id)), sa.and_(log.kind == Kind.ALIAS, log.seq.in_(list(aliases)))),
    )
    touched = sa.select(log.transaction).where(chosen).distinct()
    connection.execute(_transactions.insert().from_select(["id"], touched))
    nothing = {column.name: None for column in log if column.name not in _STAYS}
    emptied = connection.execute(log_table.update().where(chosen).values(kind=Kind.ERASED.value, **nothing))
    within = log.transaction.in_(sa.select(_transactions.c.id))
    salted = log.kind.in_([Kind.ASSERT, Kind.ALIAS])
    connection.execute(log_table.update().where(within, salted).values(body=None))
    hashes = tuple(_rehash(connection, within))
    through = connection.scalar(sa.select(sa.func.max(_transactions.c.id))) or 0
    for table in (_transactions, _facts):
        table.drop(connection)
    return Emptied(emptied.rowcount, through, hashes)


def keep_hashes(connection: sa.Connection, compaction: int, hashes: Iterable[tuple[int, bytes]]) -> None:
    """Keep the hashes that entry `compaction` answers for."""
    rows = [{"compaction": compaction, "seq": seq, "hash": hashed} for seq, hashed in hashes]
    if rows:
        connection.execute(rehashed_table.insert(), rows)


def delete_vectors(connection: sa.Connection, texts: Iterable[str]) -> int:
    """Delete the vectors of texts, whichever embedder made them; how many there were."""
    embedders = connection.scalars(sa.select(vectors_table.c.embedder).distinct()).all()
    hashes = [text_hash(text) for text in texts]
    deleted = 0
    for start in range(0, len(hashes), _BATCH):
        some = hashes[start : start + _BATCH]
        named = sa.and_(vectors_table.c.embedder.in_(embedders), vectors_table.c.text_hash.in_(some))
        deleted += connection.execute(vectors_table.delete().where(named)).rowcount
    return deleted


def vouched(store: Store) -> dict[int, bytes]:
    """The hashes of what compactions left, by the last entry of the transaction.

    Left out are those that the compaction's own entry in the log does not answer for.
    """
    digests = {entry.seq: Compaction.from_json(entry.body or "").digest for entry in store.compactions()}
    kept: dict[int, bytes] = {}
    for compaction, rows in groupby(store.rehashed(), key=lambda row: row.compaction):
        hashes = [(row.seq, row.hash) for row in rows]
        if digests.get(compaction) == _digest(hashes):
            kept.update(hashes)
    return kept


def _rehash(connection: sa.Connection, within: sa.ColumnElement[bool]) -> Iterator[tuple[int, bytes]]:
    log = log_table.c
    ends = sa.select(sa.func.max(log.seq)).where(within).group_by(log.transaction)
    links = connection.execute(sa.select(chain_table).where(chain_table.c.seq.in_(ends)))
    stored = {row.seq: row.hash for row in links}
    rows = connection.execute(sa.select(log_table).where(within).order_by(log.seq))
    for _, of_one in groupby(rows, key=lambda row: row.transaction):
        left = [tuple(row) for row in of_one]
        end: int = left[-1][0]
        yield end, link(stored[end], left)


def _digest(hashes: Iterable[tuple[int, bytes]]) -> str:
    made = blake2b(digest_size=32)
    for seq, hashed in hashes:
        made.update(seq.to_bytes(8, "big") + hashed)
    return made.hexdigest()


def _runs(numbers: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Ascending numbers as runs of consecutive ones: first and last."""
    for _, run in groupby(enumerate(numbers), key=lambda pair: pair[1] - pair[0]):
        members = [number for _, number in run]
        yield members[0], members[-1]
