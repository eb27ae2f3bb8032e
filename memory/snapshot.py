"""The index's file, there whole or not at all: temporary file, fsync, rename, length and checksum.

Knows nothing of what is in it.
"""

from __future__ import annotations

import os
import struct
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from memedit.errors import MemEditError

_MAGIC = b"memedit\x00"
_HEADER = struct.Struct("<8sIQI")  # magic, version of the contents, bytes that follow, their CRC-32
_CHUNK = 1 << 20
_STALE_SECONDS = 3600


class CorruptIndex(MemEditError, ValueError):
    """The file is not a whole index of this version: torn, truncated, altered or something else."""


class Sink(Protocol):
    """Where the contents go."""

    def write(self, data: bytes, /) -> int:
        """Append `data`."""
        ...


def write_snapshot(path: Path, version: int, fill: Callable[[Sink], None]) -> None:
    """Replace a file in one step; when this returns the new one is on disk.

    Args:
        path: The file.
        version: Format version of the contents.
        fill: Writes the contents to the sink it is given.

    Raises:
        OSError: The folder cannot be written or is full.
    """
    _sweep(path)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(bytes(_HEADER.size))
            sink = _CheckedSink(file)
            fill(sink)
            file.seek(0)
            file.write(_HEADER.pack(_MAGIC, version, sink.length, sink.checksum))
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


@contextmanager
def read_snapshot(path: Path, version: int) -> Iterator[BinaryIO]:
    """Open a snapshot whose length and checksum are right; the contents are read from the file that is yielded.

    Raises:
        FileNotFoundError: There is no such file.
        CorruptIndex: The file is not a whole snapshot of this version.
    """
    with path.open("rb") as file:
        problem = _problem(file, version)
        if problem:
            raise CorruptIndex(f"{path} {problem}.", "Delete it; it is rebuilt from the log.")
        file.seek(_HEADER.size)
        yield file


def first_line(path: Path, version: int) -> bytes:
    """The first line of a snapshot's contents; whether all of it is whole is not looked at.

    Raises:
        FileNotFoundError: There is no such file.
        CorruptIndex: The file is no snapshot of this version.
    """
    with path.open("rb") as file:
        header = file.read(_HEADER.size)
        if len(header) < _HEADER.size or _HEADER.unpack(header)[:2] != (_MAGIC, version):
            raise CorruptIndex(f"{path} is no index of this version.", "Delete it; it is rebuilt from the log.")
        return file.readline()


def _problem(file: BinaryIO, version: int) -> str:
    header = file.read(_HEADER.size)
    if len(header) < _HEADER.size or not header.startswith(_MAGIC):
        return "is not an index of memedit's"
    _, found, length, checksum = _HEADER.unpack(header)
    if found != version:
        return f"is of format version {found}, not {version}"
    if os.fstat(file.fileno()).st_size != _HEADER.size + length:
        return "is torn: its length is wrong"
    actual = 0
    while chunk := file.read(_CHUNK):
        actual = zlib.crc32(chunk, actual)
    return "" if actual == checksum else "is damaged: its checksum is wrong"


class _CheckedSink:
    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.length = 0
        self.checksum = 0

    def write(self, data: bytes, /) -> int:
        self.checksum = zlib.crc32(data, self.checksum)
        self.length += len(data)
        return self._file.write(data)


def _sweep(path: Path) -> None:
    """Delete what writers that were killed left behind."""
    for leftover in path.parent.glob(f".{path.name}.*.tmp"):
        try:
            if time.time() - leftover.stat().st_mtime > _STALE_SECONDS:
                leftover.unlink()
        except FileNotFoundError:
            continue  # another process was quicker


def _sync_folder(folder: Path) -> None:
    """The rename itself must reach the disk too."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
