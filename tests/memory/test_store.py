"""The store: a durable, append-only log; files that are not ours stay as they are; every failure has a typed error."""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import sqlalchemy as sa

from memedit.errors import CorruptDatabase, ForeignDatabase, InvalidSpec, ReadOnlyStore, StoreBusy, StoreError
from memedit.memory.store import Entry, Head, Kind, Store


def entry(seq: int, *, transaction: int = 1, subject: str = "France") -> Entry:
    return Entry(seq, transaction, seq, "default", Kind.ASSERT.value, fact=seq, subject=subject)


def append(store: Store, *entries: Entry) -> None:
    with store.transaction() as transaction:
        last = entries[-1]
        transaction.append(entries, Head(last.seq, last.transaction, last.fact or 0, last.at))


def append_and_fail(store: Store) -> None:
    with store.transaction() as transaction:
        transaction.append([entry(1)], Head(1, 1, 1, 1))
        raise RuntimeError


def everything(store: Store) -> list[Entry]:
    return [found for chunk in store.entries_after(0) for found in chunk]


def test_what_was_appended_is_read_back_after_reopening(place: str) -> None:
    written = [entry(1), entry(2, subject="東京 🗼"), entry(3, transaction=2)]
    with Store(place) as store:
        append(store, *written[:2])
        append(store, written[2])
        memory_id = store.memory_id

    with Store(place) as store:
        assert everything(store) == written
        assert [found for chunk in store.entries_after(2) for found in chunk] == written[2:]
        assert store.memory_id == memory_id
        with store.transaction() as transaction:
            assert transaction.head == Head(3, 2, 3, 3)
            assert transaction.entries_of(1) == written[:2]


def test_a_log_longer_than_a_chunk_is_read_whole(place: str) -> None:
    with Store(place) as store:
        append(store, *(entry(seq) for seq in range(1, 25_002)))

        sizes = [len(chunk) for chunk in store.entries_after(0)]

    assert sum(sizes) == 25_001
    assert len(sizes) > 1


def test_an_error_within_a_transaction_writes_nothing(place: str) -> None:
    with Store(place) as store:
        with pytest.raises(RuntimeError):
            append_and_fail(store)

        assert everything(store) == []
        append(store, entry(1))
        assert everything(store) == [entry(1)]


def test_changed_tells_of_commits_of_others(place: str) -> None:
    with Store(place) as store, Store(place) as other:
        hears_nothing_more(store)

        append(other, entry(1))
        assert hears(store)
        hears_nothing_more(store)


def hears(store: Store) -> bool:
    """Whether news arrive in good time: those of a server are a moment on their way."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if store.changed():
            return True
        store.wait(0.1)
    return False


def hears_nothing_more(store: Store) -> None:
    """Take in the news there are, until there are none."""
    deadline = time.monotonic() + 10
    while store.changed() or store.changed():
        assert time.monotonic() < deadline
        store.wait(0.05)


def test_commits_are_flushed_to_disk_in_write_ahead_mode(tmp_path: Path) -> None:
    with Store(tmp_path / "facts.db") as store, store.transaction() as transaction:
        connection = transaction.connection

        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2  # FULL


def test_vectors_are_kept_exactly_by_embedder_and_text(place: str) -> None:
    vector = np.array([0.1, -0.7, 1e-8], np.float32)
    with Store(place) as store:
        assert not store.has_vectors("one")
        for _ in range(2):
            with store.transaction() as transaction:
                transaction.keep_vectors("one", {"a": vector, "b": -vector})

        kept = store.vectors("one", ["a", "b", "c"])

        assert {text: found.tolist() for text, found in kept.items()} == {"a": vector.tolist(), "b": (-vector).tolist()}
        assert store.vectors("other", ["a"]) == {}
        assert store.known_texts("one", ["a", "c"]) == {"a"}
        assert store.has_vectors("one")
        assert not store.has_vectors("other")


def test_many_vectors_are_found_at_once(place: str) -> None:
    vectors = {f"text {number}": np.array([number], np.float32) for number in range(2000)}
    with Store(place) as store:
        with store.transaction() as transaction:
            transaction.keep_vectors("one", vectors)

        assert {text: int(found[0]) for text, found in store.vectors("one", vectors).items()} == {
            f"text {number}": number for number in range(2000)
        }


@pytest.mark.parametrize("path", [":memory:", "sqlite://", "sqlite:///:memory:"])
def test_a_memory_store_leaves_no_file(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with Store(path) as store:
        append(store, entry(1))

        assert everything(store) == [entry(1)]
        assert store.path is None
    assert list(tmp_path.iterdir()) == []


def test_a_url_of_sqlite_names_a_file(tmp_path: Path) -> None:
    with Store(f"sqlite:///{tmp_path}/facts.db") as store:
        assert store.path == tmp_path / "facts.db"


@pytest.mark.parametrize(
    "url", ["mysql://localhost/facts", "postgresql+asyncpg://localhost/facts", "no such thing://x"]
)
def test_other_databases_are_refused_by_name(url: str) -> None:
    with pytest.raises(InvalidSpec, match="postgresql"):
        Store(url)


# -- files that are not ours ---------------------------------------------------------------------------------


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_foreign_database_is_refused_and_untouched(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("CREATE TABLE memedit_meta (name TEXT)")
    connection.close()
    before = contents(tmp_path)

    with pytest.raises(ForeignDatabase, match=r"other\.db.*untouched"):
        Store(path)

    assert contents(tmp_path) == before


@pytest.mark.parametrize("content", [b"subject,relation,object\n", b"\x00" * 8192, b"SQLite format 3\x00short"])
def test_a_file_that_is_no_database_is_refused_and_untouched(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "facts.db"
    path.write_bytes(content)

    with pytest.raises(CorruptDatabase, match="untouched"):
        Store(path)

    assert contents(tmp_path) == {"facts.db": content}


def test_a_damaged_database_is_refused_and_untouched(tmp_path: Path) -> None:
    path = tmp_path / "facts.db"
    with Store(path) as store:
        append(store, *(entry(seq) for seq in range(1, 500)))
    damaged = bytearray(path.read_bytes())
    damaged[4096:] = os.urandom(len(damaged) - 4096)
    path.write_bytes(damaged)

    with pytest.raises(CorruptDatabase, match="backup"):
        Store(path)

    assert contents(tmp_path) == {"facts.db": bytes(damaged)}


def test_a_truncated_database_is_refused_and_untouched(tmp_path: Path) -> None:
    path = tmp_path / "facts.db"
    with Store(path) as store:
        append(store, *(entry(seq) for seq in range(1, 500)))
    truncated = path.read_bytes()[:5000]
    path.write_bytes(truncated)

    with pytest.raises(CorruptDatabase):
        Store(path)

    assert contents(tmp_path) == {"facts.db": truncated}


def test_an_empty_file_becomes_a_memory(tmp_path: Path) -> None:
    path = tmp_path / "facts.db"
    path.touch()

    with Store(path) as store:
        append(store, entry(1))

    with Store(path) as store:
        assert everything(store) == [entry(1)]


def test_a_database_of_a_newer_version_is_refused(place: str) -> None:
    with Store(place) as store, store.transaction() as transaction:
        transaction.connection.execute(sa.text("UPDATE memedit_meta SET value = '99' WHERE name = 'schema'"))

    with pytest.raises(StoreError, match="Upgrade memedit"):
        Store(place)


def test_a_folder_and_a_missing_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is a folder"):
        Store(tmp_path)
    with pytest.raises(StoreError, match="does not exist"):
        Store(tmp_path / "nowhere" / "facts.db")


# -- permissions and locks -----------------------------------------------------------------------------------


@contextmanager
def unprivileged() -> Iterator[None]:
    """Root may write anywhere, so permissions can only be tested as somebody else."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that every user can reach, which pytest's own folders are not."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o777)
    yield folder
    folder.chmod(0o777)
    shutil.rmtree(folder)


def test_a_read_only_folder_is_refused(public_folder: Path) -> None:
    public_folder.chmod(0o555)

    with unprivileged(), pytest.raises(ReadOnlyStore, match="permission"):
        Store(public_folder / "facts.db")

    assert list(public_folder.iterdir()) == []


def test_a_memory_in_a_folder_that_became_read_only_is_refused(public_folder: Path) -> None:
    path = public_folder / "facts.db"
    with unprivileged():
        Store(path).close()
    before = contents(public_folder)
    public_folder.chmod(0o555)

    with unprivileged(), pytest.raises(ReadOnlyStore, match="permission"):
        Store(path)

    assert contents(public_folder) == before


def test_a_read_only_file_is_refused(public_folder: Path) -> None:
    path = public_folder / "facts.db"
    with unprivileged():
        Store(path).close()
        path.chmod(0o444)

        with pytest.raises(ReadOnlyStore, match=r"facts\.db"):
            Store(path)


def test_a_writer_that_waits_too_long_is_told_so_and_readers_do_not_wait(place: str) -> None:
    with Store(place) as holder, Store(place, busy_timeout=0.05) as other:
        append(holder, entry(1))
        with holder.transaction():
            with pytest.raises(StoreBusy, match="busy_timeout"), other.transaction():
                pass
            assert everything(other) == [entry(1)]

        append(other, entry(2))
        assert everything(holder) == [entry(1), entry(2)]
