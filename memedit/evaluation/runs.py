"""A run that may be killed: finished cases are kept in a file beside the result, and the same command goes on from there.

The file is JSON Lines: a header with the run's configuration, then one record a finished case, on disk before the run
goes on. The last line may be torn by a kill; it is cut off and its case done again. Knows nothing of what a case is: a
record is a JSON object under a key.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Literal, NamedTuple

from memedit.errors import BadDataFile, InvalidSpec, ReadOnlyStore, StoreBusy

Start = Literal["auto", "resume", "fresh"]
"""How to begin where the file already holds a run. ``auto`` goes on with an unfinished run of the same configuration, starts
a finished one over, and refuses one of another configuration; ``resume`` goes on with either or refuses; ``fresh``
discards. A run is finished when its result has been written."""

Record = dict[str, object]


class RunLog:
    """The finished cases of one run; a context manager.

    Args:
        path: The file of records; made with its folder where it is missing.
        config: Whatever makes one answer comparable with another (data checksum, model, options): JSON values only.
        expected: The keys of every case of the run, to tell an unfinished run from a finished one.
        result: The file that the run's result is written to, by `write_json`.
        start: What to do with a run that the file already holds, see `Start`.

    Attributes:
        path: The file.
        done: The records by key.
        resumed: How many of them an earlier process wrote.

    Raises:
        InvalidSpec: The file holds a run of another configuration, or there is nothing to resume.
        BadDataFile: The file is not a run's.
        StoreBusy: Another process is writing the same run.
        ReadOnlyStore: The file or its folder cannot be written, or there is a folder where the result is to be.
    """

    def __init__(
        self,
        path: str | Path,
        config: Mapping[str, object],
        expected: Collection[str],
        result: str | Path,
        start: Start = "auto",
    ) -> None:
        self.path = Path(path)
        self._result = Path(result)
        self.done: dict[str, Record] = {}
        as_read: Record = json.loads(json.dumps(config))
        self._file = self._open()
        try:
            kept = self._read() if start != "fresh" else None
            if start == "resume" and kept is None:
                raise InvalidSpec(f"{self.path}: there is no run to resume.", "Leave --resume out to start one.")
            if kept is not None and self._goes_on(kept, as_read, expected, start):
                self.done = kept.records
            else:
                self._file.truncate(0)
                self._write([{"config": as_read, "cases": len(expected)}])
        except BaseException:
            self._file.close()
            raise
        self.resumed = len(self.done)

    def add(self, records: Mapping[str, Record]) -> None:
        """Keep the records of finished cases; they are on disk when this returns."""
        self._write([{"key": key, **record} for key, record in records.items()])
        self.done.update(records)

    def missing(self, keys: Iterable[str]) -> list[str]:
        """Those of `keys` that have no record yet, in the same order."""
        return [key for key in keys if key not in self.done]

    def close(self) -> None:
        """Close the file and release its lock."""
        self._file.close()

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _open(self) -> BinaryIO:
        if self._result.is_dir():
            raise ReadOnlyStore(f"{self._result}: is a folder.", "Give --json the path of a file.")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            file = self.path.open("a+b")
        except OSError as error:
            raise ReadOnlyStore(
                f"{self.path}: cannot be written ({error.strerror}).", "Give --json a path in a writable folder."
            ) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.close()
            raise StoreBusy(
                f"{self.path}: another process is writing this run.", "Wait for it, or give another --json."
            ) from error
        return file

    def _read(self) -> _Kept | None:
        """What the file holds, its torn tail cut off; None where not even its header is whole."""
        self._file.seek(0)
        data = self._file.read()
        whole = data[: data.rfind(b"\n") + 1]
        if not data.startswith(_HEADER[: len(data)]):
            raise self._foreign()
        if not whole:
            return None
        try:
            header, *lines = [json.loads(line) for line in whole.splitlines()]
            kept = _Kept(header["config"], header["cases"], {line.pop("key"): line for line in lines})
        except (ValueError, KeyError, TypeError, AttributeError):
            raise self._foreign() from None
        if len(whole) < len(data):
            self._file.truncate(len(whole))
        return kept

    def _foreign(self) -> BadDataFile:
        return BadDataFile(
            f"{self.path}: is not the record of a run.", "Give another --json, or --fresh to overwrite the file."
        )

    def _goes_on(self, kept: _Kept, config: Record, expected: Collection[str], start: Start) -> bool:
        if start == "auto" and not kept.records:
            return False
        differing = [name for name in {**kept.config, **config} if kept.config.get(name) != config.get(name)]
        if differing:
            changes = "; ".join(f"{name} was {kept.config.get(name)}, is now {config.get(name)}" for name in differing)
            raise InvalidSpec(
                f"{self.path} holds {len(kept.records)} of {kept.cases} cases of another configuration: {changes}.",
                "Give the same options for that run, another --json to keep it, or --fresh to discard it.",
            )
        return start == "resume" or not (all(key in kept.records for key in expected) and self._has_result())

    def _has_result(self) -> bool:
        """Whether the result was written after the last record."""
        try:
            return self._result.stat().st_mtime_ns >= os.fstat(self._file.fileno()).st_mtime_ns
        except FileNotFoundError:
            return False

    def _write(self, lines: Iterable[Record]) -> None:
        self._file.write("".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines).encode())
        self._file.flush()
        os.fsync(self._file.fileno())


class _Kept(NamedTuple):
    config: Record
    cases: int
    records: dict[str, Record]


_HEADER = b'{"config": '


def write_json(path: str | Path, value: object) -> None:
    """Write a benchmark's result: a reader sees the old file or the new one, never half of one."""
    path = Path(path)
    temporary = path.with_name(f"{path.name}.tmp")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(value, file, indent=2, ensure_ascii=False)
        file.write("\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


@contextmanager
def progress(description: str, total: int, done: int = 0) -> Iterator[Callable[[int], None]]:
    """A progress bar on standard error.

    Args:
        description: What is counted.
        total: How many there are.
        done: How many an earlier process did, where this one goes on with its run.

    Yields:
        What to call with the number of those done since the last call.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(description, total=total, completed=done)
        yield lambda count: bar.advance(task, count)
