"""The hash chain over the log: each transaction's hash covers its entries and the hash before it.

Whoever changes, adds or takes away an entry without making all later hashes anew is found out, and where is told; so is
damage that the database did not notice. Knows nothing of SQL.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b
from itertools import groupby

Row = Sequence[int | str | None]
"""The values of an entry, in the order of `memedit.memory.store.Entry`; the second is its transaction."""

START = b""
"""What stands in the place of the hash before the first one."""


def link(previous: bytes, rows: Iterable[Row]) -> bytes:
    """The hash of a transaction, 32 bytes of BLAKE2b.

    Args:
        previous: The hash of the transaction before it, or `START`.
        rows: Its entries, in order.
    """
    made = blake2b(previous, digest_size=32)
    for row in rows:
        # JSON tells a number from a word and where a value ends, so no two rows give the same bytes.
        made.update(_encode(list(row)).encode())
    return made.digest()


def links(previous: bytes, rows: Iterable[Row]) -> Iterator[tuple[int, bytes]]:
    """The hashes of several whole transactions in order, each with the sequence number of its last entry."""
    for _, of_one in groupby(rows, key=_transaction):
        entries = list(of_one)
        previous = link(previous, entries)
        yield int(entries[-1][0] or 0), previous


_encode = json.JSONEncoder(separators=(",", ":")).encode


def _transaction(row: Row) -> int | str | None:
    return row[1]
