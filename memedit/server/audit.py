"""Every write with an entry in the audit log, whichever way it comes: over HTTP, by MCP, or from the command line.

The entry is there before the write and is completed after it, so that a write of a process that was killed shows as "begun".
Knows nothing of HTTP or of how facts are written.
"""

from __future__ import annotations

import getpass
import os
import socket
from collections.abc import Callable, Sequence
from typing import NamedTuple, TypeVar

from memedit.errors import MemEditError, StoreError
from memedit.memory.fact import Receipt
from memedit.server.logs import log
from memedit.server.records import Records

_T = TypeVar("_T")
Job = Callable[[], tuple[_T, Sequence[int]]]
"""Does a write; gives its result, and the ids of the facts that it recorded or ended."""


class Writer(NamedTuple):
    """Who writes.

    Attributes:
        key: Id of the API key; of a local writer the way and the user of the operating system: "cli:alice".
        client: Where it comes from: an address, or the machine's name.
    """

    key: str
    client: str


def local_writer(way: str) -> Writer:
    """The operating system's user, who came by `way`: ``cli`` or ``mcp``."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        user = str(os.getuid()) if hasattr(os, "getuid") else "unknown"
    return Writer(f"{way}:{user}", socket.gethostname())


def audited(records: Records, who: Writer, namespaces: Sequence[str], action: str, job: Job[_T]) -> _T:
    """Do a write, with an entry in the audit log that is there before it and says afterwards what came of it.

    Args:
        records: Hold the audit log.
        who: Who writes.
        namespaces: Where to, each with an entry of its own; where there are several, none of them names facts.
        action: What is done: ``add``, ``import``, ``retract``, ``undo``, ``alias`` or ``erase``.
        job: Does it.

    Raises:
        StoreError: The entry cannot be made; then nothing was written.
        Exception: Whatever `job` raises.
    """
    numbers = [records.begin_write(who.key, who.client, namespace, action) for namespace in namespaces]
    try:
        result, facts = job()
    except Exception as error:
        outcome = "refused" if isinstance(error, MemEditError) else "failed"
        _end(records, numbers, outcome, (), type(error).__name__)
        raise
    _end(records, numbers, "done", facts if len(numbers) == 1 else (), f"{len(facts)} facts")
    return result


def touched(receipts: Sequence[Receipt]) -> list[int]:
    """The ids of the facts that a write recorded or ended."""
    written = [receipt for receipt in receipts if receipt.status != "unchanged"]
    return sorted({fact.id for receipt in written for fact in (receipt.fact, *receipt.replaced)})


def _end(records: Records, numbers: Sequence[int], outcome: str, facts: Sequence[int], detail: str) -> None:
    for number in numbers:
        try:
            records.end_write(number, outcome, facts, detail)
        except StoreError as error:  # the write itself stands as it is; its entry stays at "begun"
            log("audit entry not completed", 40, entry=number, outcome=outcome, problem=str(error))
