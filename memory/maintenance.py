"""Looking after a memory: copies of it, as it is or as it was, and whether it is whole.

Works on the log and what is kept with it, in whichever database; a copy is always a memory of its own. Knows nothing of
what facts mean, but for the texts that vectors are kept of.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from datetime import datetime
from itertools import chain, groupby, islice, takewhile
from pathlib import Path
from typing import NamedTuple

import numpy as np

from memedit.errors import CorruptDatabase, HistoryCompacted, StoreError
from memedit.memory.chain import START, link
from memedit.memory.index import CorruptIndex, VectorIndex
from memedit.memory.provenance import Provenance
from memedit.memory.state import microseconds_of, moment_of
from memedit.memory.store import Entry, Head, Kind, Link, Store, Vector
from memedit.memory.tombstones import Compaction, keep_hashes, vouched

_CHUNK = 5_000
_BATCH = 512
_NEAREST = 4
_TOLERANCE = 1e-3
_MOST_FAULTS = 20


class Copied(NamedTuple):
    """What a copy of a memory holds.

    Attributes:
        position: Log position that it goes up to.
        at: When the last transaction in it was written; None if it is empty.
        transactions: How many transactions it has.
    """

    position: int
    at: datetime | None
    transactions: int


class Report(NamedTuple):
    """What was found when a memory was verified.

    Attributes:
        position: Log position that was verified up to.
        transactions: How many transactions were verified.
        hash: The last hash of the chain, in hexadecimal. Noted down elsewhere, it tells later whether the log up to
            `position` is still the same.
        vectors: How many vectors of the index's snapshot were held against the log; None where there is no snapshot.
        faults: What is wrong, in sentences; empty if all is well. Of many, the first ones.
    """

    position: int
    transactions: int
    hash: str
    vectors: int | None
    faults: tuple[str, ...]


def verify(place: str | Path) -> Report:
    """Recompute the hash chain over the log, and hold the index's snapshot against the log.

    Writers are not kept waiting; what they write meanwhile is left out.

    Args:
        place: As `Store` takes it.

    Raises:
        StoreError: The memory cannot be opened or read.
    """
    with Store(_there(place)) as store:
        faults: list[str] = []
        end = store.head().seq
        last, transactions = Link(0, START), 0
        for covered in _checked(store, end):
            last, transactions = covered.link, transactions + 1
            if covered.fault and len(faults) < _MOST_FAULTS:
                faults.append(covered.fault)
        if last.seq < end:
            faults.append(f"The log should go on to entry {end}, but what is there ends with entry {last.seq}.")
        with store.transaction() as transaction:  # nobody writes now, so nothing may be there beyond the head
            extra = next(transaction.entries_after(transaction.head.seq), [])
        if extra:
            faults.append(f"Entry {extra[0].seq} was added to the log behind memedit's back.")
        vectors = _check_index(store, faults)
    return Report(last.seq, transactions, last.hash.hex(), vectors, tuple(faults))


def backup(place: str | Path, target: Path) -> Copied:
    """Copy a memory to a new SQLite file, while it is being read and written.

    The file appears whole or not at all, and is on disk when this returns. It is a memory as any other: it can be
    opened, verified, or restored from. The index is left out: it is made again from the vectors, which are not.

    Args:
        place: As `Store` takes it.
        target: A file that is not there yet.

    Raises:
        StoreError: The target is there already or cannot be written, or the memory cannot be read.
    """
    part = _new_file(target)
    try:
        with Store(_there(place)) as store:
            if store.path is None:
                copied = _copy(store, part, store.head().seq)
            else:
                with closing(sqlite3.connect(store.path)) as source, closing(sqlite3.connect(part)) as file:
                    source.backup(file)
                    file.execute("PRAGMA journal_mode=DELETE")
                with Store(part) as made:
                    copied = _extent(made)
        _settle(part, target)
    except (OSError, sqlite3.Error) as error:
        if isinstance(error, StoreError):
            raise
        raise StoreError(f"The backup {target} cannot be written: {error}.", "Choose another place.") from error
    finally:
        _sweep(part)
    return copied


def restore(source: str | Path, target: Path, *, position: int | None = None, moment: datetime | None = None) -> Copied:
    """Make a new SQLite file of a memory or a backup, up to a point in time.

    Whole transactions only. The new memory has an id of its own, since the two go different ways from there.

    Args:
        source: A memory or a backup, as `Store` takes it; it is verified while it is read.
        target: A file that is not there yet.
        position: Log position to stop at.
        moment: Transaction time to stop at, with a time zone; what was written at that very time is in.

    Raises:
        CorruptDatabase: The source is not what was written; nothing was made.
        HistoryCompacted: Something that was believed at that point has been erased since.
        StoreError: The target is there already or cannot be written, or the source cannot be read.
    """
    limit = None if moment is None else microseconds_of(moment)
    part = _new_file(target)
    try:
        with Store(_there(source)) as store:
            copied = _copy(store, part, _end(store, position, limit))
        _settle(part, target)
    except OSError as error:
        if isinstance(error, StoreError):
            raise
        raise StoreError(f"{target} cannot be written: {error}.", "Choose another place.") from error
    finally:
        _sweep(part)
    return copied


class _Covered(NamedTuple):
    """A link of the chain, the entries it covers, and what is wrong with them."""

    link: Link
    entries: list[Entry]
    fault: str


def _checked(store: Store, end: int) -> Iterator[_Covered]:
    """The chain and the log up to entry `end`, which must have been committed before."""
    compacted = vouched(store)
    entries = chain.from_iterable(store.entries_after(0))
    waiting = next(entries, None)
    previous = Link(0, START)
    for found in chain.from_iterable(store.links_after(0)):
        if found.seq > end:
            return
        covered: list[Entry] = []
        while waiting is not None and waiting.seq <= found.seq:
            covered.append(waiting)
            waiting = next(entries, None)
        yield _Covered(found, covered, _fault(previous, found, covered, compacted.get(found.seq)))
        previous = found


def _fault(previous: Link, found: Link, covered: list[Entry], compacted: bytes | None) -> str:
    """What is wrong with the entries of a link; `compacted` is the hash of what a compaction left of them."""
    name = f"Entries {previous.seq + 1} to {found.seq}" if found.seq > previous.seq + 1 else f"Entry {found.seq}"
    expected = range(previous.seq + 1, found.seq + 1)
    missing = sorted({*expected} - {entry.seq for entry in covered})
    if missing:
        return f"{name}: {len(missing)} of {len(expected)} gone from the log, the first is {missing[0]}."
    if link(previous.hash, covered) == found.hash or link(found.hash, covered) == compacted:
        return ""
    first = covered[0]
    return (
        f"{name} (transaction {first.transaction}, {moment_of(first.at):%Y-%m-%d %H:%M:%S} UTC, namespace "
        f"{first.namespace!r}): the content or its hash is not what was written."
    )


def _check_index(store: Store, faults: list[str]) -> int | None:
    path = store.snapshot
    if path is None or not path.exists():
        return None
    mend = "delete it, and the next search makes it again"
    try:
        index, generation, fingerprint = VectorIndex.load(path)
    except (CorruptIndex, OSError) as error:
        faults.append(f"The index {path} cannot be used: {error}")
        return 0
    made = Provenance.from_text(fingerprint)
    if (
        made is None
        or made.memory != store.memory_id
        or store.link_at(made.position) != Link(made.position, bytes.fromhex(made.hash))
    ):
        faults.append(f"The index {path} belongs to another memory; {mend}.")
        return 0
    if made.compacted < max((entry.seq for entry in store.compactions()), default=0):
        faults.append(f"The index {path} is from before facts were erased; {mend}.")
    compared = 0
    for texts in _in_chunks(_indexed_texts(store, generation, made), _BATCH):
        kept = store.vectors(made.embedder, [text for _, text in texts])
        known = [(number, kept[text]) for number, text in texts if text in kept]
        if len(known) < len(texts):
            faults.append(
                f"{len(texts) - len(known)} vectors that the index {path} was made from are not kept any more."
            )
        if known:
            compared += len(known)
            wrong = _not_held(index, known)
            if wrong:
                faults.append(f"The index {path} does not hold fact {wrong[0] // 2} as the log has it; {mend}.")
        if len(faults) >= _MOST_FAULTS:
            break
    return compared


def _not_held(index: VectorIndex, known: Sequence[tuple[int, Vector]]) -> list[int]:
    """The ids under which an index does not hold the vector that it should."""
    ids = np.array([number for number, _ in known], np.int64)
    vectors = np.stack([vector for _, vector in known]).astype(np.float32)
    scores, found = index.search(vectors, _NEAREST, within=ids)
    held = ((found == ids[:, np.newaxis]) & (scores > 1 - _TOLERANCE)).any(axis=1)
    # Facts of the same text may crowd each other out: what is left is looked at one by one.
    return [
        int(ids[row])
        for row in np.flatnonzero(~held)
        if not index.search(vectors[row : row + 1], 1, within=ids[row : row + 1])[0][0, 0] > 1 - _TOLERANCE
    ]


def _indexed_texts(store: Store, generation: int, made: Provenance) -> Iterator[tuple[int, str]]:
    """The texts of all facts up to `generation` that a snapshot covers, each with its id in the index."""
    for entry in chain.from_iterable(store.entries_after(0)):
        within = entry.kind == Kind.ASSERT and entry.fact is not None and entry.fact <= generation
        if within and entry.fact is not None and made.covers(entry.namespace):
            for side, text in enumerate((entry.statement, entry.question)):
                if text:
                    yield 2 * entry.fact + side, text


def _in_chunks(items: Iterable[tuple[int, str]], size: int) -> Iterator[list[tuple[int, str]]]:
    left = iter(items)
    while some := list(islice(left, size)):
        yield some


def _end(store: Store, position: int | None, limit: int | None) -> int:
    """Number of the last entry to restore, having verified that far."""
    end = at = 0
    for found, entries, fault in _checked(store, store.head().seq):
        if (position is not None and found.seq > position) or (limit is not None and entries and entries[0].at > limit):
            break
        if fault:
            raise CorruptDatabase(fault, f"Restore from another backup, or up to position {end} only.")
        end, at = found.seq, entries[0].at
    for entry in store.compactions():
        horizon = Compaction.from_json(entry.body or "").horizon
        if entry.seq > end and horizon is not None and at < horizon:
            raise HistoryCompacted(
                f"Position {end} is from before {moment_of(horizon)}, and what had ended by then in the namespace "
                f"{entry.namespace!r} was erased at position {entry.seq}.",
                "Restore from a backup made before that, or up to a later position.",
            )
    return end


def _copy(store: Store, part: Path, end: int) -> Copied:
    """Write the log up to entry `end`, with its vectors, to a new memory.

    Its hashes are copied too, so that those noted down stay those of their positions; but not where something of it was
    erased later on, since what tells of that is not copied with it.
    """
    embedders = store.embedders()
    compactions = store.compactions()
    chained = all(entry.seq <= end for entry in compactions)
    links = chain.from_iterable(store.links_after(0))
    with Store(part) as made:
        with made.transaction() as transaction:
            for batch in _batches(store, end):
                last = batch[-1]
                last_fact = max(transaction.head.fact, *(entry.fact or 0 for entry in batch))
                hashes = list(islice(links, len({entry.transaction for entry in batch}))) if chained else None
                transaction.append(batch, Head(last.seq, last.transaction, last_fact, last.at), chained=hashes)
                texts = {text for entry in batch for text in (entry.statement, entry.question) if text}
                for embedder in embedders:
                    transaction.keep_vectors(embedder, store.vectors(embedder, texts))
            for compaction, rows in groupby(store.rehashed() if chained else (), key=lambda row: row.compaction):
                if compaction <= end:
                    keep_hashes(transaction.connection, compaction, [(row.seq, row.hash) for row in rows])
        if store.compactions() != compactions:
            raise StoreError("The memory was compacted while it was being copied.", "Copy it again.")
        return _extent(made)


def _batches(store: Store, end: int) -> Iterator[list[Entry]]:
    """The log up to entry `end`, in lists of whole transactions."""
    batch: list[Entry] = []
    entries = takewhile(lambda entry: entry.seq <= end, chain.from_iterable(store.entries_after(0)))
    for _, of_one in groupby(entries, key=lambda entry: entry.transaction):
        batch += of_one
        if len(batch) >= _CHUNK:
            yield batch
            batch = []
    if batch:
        yield batch


def _extent(store: Store) -> Copied:
    head = store.head()
    return Copied(head.seq, moment_of(head.at) if head.seq else None, sum(map(len, store.links_after(0))))


def _there(place: str | Path) -> str | Path:
    """`place`, if it is not a file that would have to be made."""
    if "://" not in str(place) and not Path(place).expanduser().exists():
        raise StoreError(f"There is no edit memory at {place}.", "Check the path, or name it with --memory.")
    return place


def _new_file(target: Path) -> Path:
    """Where a file is made before it is `target`."""
    if target.exists():
        raise StoreError(f"{target} is there already.", "Choose a name that is not; nothing is ever overwritten.")
    part = target.absolute().with_name(f".{target.name}.{os.getpid()}.part")
    _sweep(part)
    return part


def _settle(part: Path, target: Path) -> None:
    """Bring what was made to the disk, and then to its name."""
    with closing(sqlite3.connect(part)) as file:
        file.execute("PRAGMA journal_mode=DELETE")  # so that it is one file
    for path in (part, part.parent):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
            if path == part:
                part.rename(target)
        finally:
            os.close(handle)


def _sweep(part: Path) -> None:
    for ending in ("", "-wal", "-shm", "-journal"):
        part.with_name(part.name + ending).unlink(missing_ok=True)
