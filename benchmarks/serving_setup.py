"""What the serving benchmark starts: the filled memory, a gateway over it, a model server behind it; and what it reads of them.

Every server is a process of its own on a free port of the loopback, and is stopped at the end. Knows nothing of what is
measured.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.serving_load import Client, Reply, fetch
from benchmarks.serving_prompts import chain_facts
from benchmarks.serving_upstream import REQUESTS
from benchmarks.speed_setup import Bench, expect

PATIENCE = 600.0
"""Seconds a server may take to be ready: vLLM compiles, and the gateway loads 100,000 facts."""
FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_tile", "asimd", "sve")
"""What decides how quickly a CPU runs a model."""


@dataclass(frozen=True, slots=True)
class Server:
    """A running server.

    Attributes:
        url: Its root.
        process: Its process, where this benchmark started it.
        log: What it wrote.
    """

    url: str
    process: subprocess.Popen[bytes] | None = None
    log: Path | None = None

    def rss_mib(self) -> float:
        """Its resident size now."""
        assert self.process is not None
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text("ascii").split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def cpu_seconds(self) -> float:
        """The processor time that it has used so far, on all cores."""
        assert self.process is not None
        fields = Path(f"/proc/{self.process.pid}/stat").read_text("ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def answered(self) -> int | None:
        """Requests that it has answered, as its metrics say; None where it does not tell."""
        told = fetch(self.url, "GET", "/metrics")
        counts = re.findall(rf"^{REQUESTS}(?:\{{[^}}]*\}})? ([0-9.e+]+)$", told.body.decode(), re.MULTILINE)
        return round(sum(map(float, counts))) if told.ok and counts else None

    def model(self) -> str:
        """The first model that it lists."""
        listed = fetch(self.url, "GET", "/v1/models").json.get("data")
        expect(isinstance(listed, list) and bool(listed), f"{self.url} lists no model")
        assert isinstance(listed, list)
        return str(listed[0]["id"])


@dataclass
class Serving:
    """What the parts share.

    Attributes:
        bench: Makes the facts and keeps the filled memory.
        upstream: The model server, bare.
        scratch: A folder that is thrown away.
        clients: How many clients to load it with, in turn.
        tokens: Output tokens of a request.
        rounds: Pairs of blocks, bare and through the gateway.
        per_client: Requests of each client in a block.
        samples: Requests of the parts that send them one at a time.
        requests: Requests of the mix.
        writes: Writes of the mix.
        gateway_options: More options of ``memedit serve``.
        status: Is told what is being done, with (done, total).
        notes: What a reader of the figures should know.
    """

    bench: Bench
    upstream: Server
    scratch: Path
    clients: Sequence[int] = (1, 4, 16, 64)
    tokens: int = 32
    rounds: int = 3
    per_client: int = 2
    samples: int = 40
    requests: int = 10_000
    writes: int = 1_000
    gateway_options: Sequence[str] = ()
    status: Callable[[str, int, int], None] = lambda *_: None
    notes: dict[str, object] = field(default_factory=dict)

    @property
    def seed(self) -> int:
        """Seed of every choice."""
        return self.bench.seed

    def copy(self, name: str) -> Path:
        """A copy of the filled memory, with the facts of the chains added."""
        from memedit.memory.memory import EditMemory

        self.bench.fill()
        self.status("copying the memory", 0, 0)
        copied = self.scratch / f"{name}.db"
        for file in self.bench.folder.glob(self.bench.path.name + "*"):
            shutil.copyfile(file, self.scratch / file.name.replace(self.bench.path.name, copied.name))
        with EditMemory(copied) as memory:
            memory.assert_facts(chain_facts())
            memory.save_index()
        return copied

    @contextmanager
    def gateway(self, memory: Path, upstream: str | None = None) -> Iterator[Server]:
        """A gateway over a memory, warmed up.

        Args:
            memory: The memory's file.
            upstream: The model server; the one that is measured if None.
        """
        self.status("starting the gateway", 0, 0)
        command = [sys.executable, "-m", "memedit.cli", "--memory", str(memory), "serve", "--upstream"]
        command += [upstream or self.upstream.url, "--open", "--rate", "0", *self.gateway_options]
        with started(command, "/readyz", self.scratch) as server:
            yield server

    @contextmanager
    def scripted(self, *, delay: float = 0.0, pace: float = 0.0, port: int | None = None) -> Iterator[Server]:
        """A scripted model server."""
        command = [sys.executable, "-m", "benchmarks.serving_upstream", "--delay", str(delay), "--pace", str(pace)]
        with started(command, "/v1/models", self.scratch, port=port) as server:
            yield server


@contextmanager
def started(
    command: Sequence[str], ready: str, scratch: Path, *, port: int | None = None, env: dict[str, str] | None = None
) -> Iterator[Server]:
    """Start a server with ``--port`` added, wait until a path answers 200, and stop it at the end.

    Raises:
        RuntimeError: It ended, or was not ready in time; the message has the end of its log.
    """
    port = free_port() if port is None else port
    with tempfile.NamedTemporaryFile(dir=scratch, suffix=".log", delete=False) as log:
        process = subprocess.Popen(
            [*command, "--port", str(port)], stdout=log, stderr=log, env={**os.environ, **(env or {})}
        )
    server = Server(f"http://127.0.0.1:{port}", process, Path(log.name))
    try:
        await_ready(server, ready)
        yield server
    finally:
        stop(process)


def await_ready(server: Server, path: str) -> None:
    """Return when a path of a server answers 200.

    Raises:
        RuntimeError: It ended, or was not ready in time.
    """
    until = time.monotonic() + PATIENCE
    while not fetch(server.url, "GET", path).ok:
        alive = server.process is None or server.process.poll() is None
        if not alive or time.monotonic() > until:
            said = server.log.read_text("utf-8", "replace")[-2000:] if server.log is not None else ""
            raise RuntimeError(f"a server {'was not ready in time' if alive else 'has ended'}:\n{said}")
        time.sleep(0.25)


def stop(process: subprocess.Popen[bytes]) -> None:
    """Stop a process, by force if it does not go within 15 seconds."""
    process.terminate()
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def free_port() -> int:
    """A port of the loopback that nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def cpu_flags() -> list[str]:
    """Which of `FLAGS` this CPU has."""
    try:
        text = Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        return []
    found = set(
        re.findall(r"\w+", next((line for line in text.splitlines() if line.startswith(("flags", "Features"))), ""))
    )
    return [flag for flag in FLAGS if flag in found]


async def write_fact(client: Client, subject: str, relation: str, obj: str) -> Reply:
    """Record a fact through the gateway."""
    return await client.send("POST", "/v1/memory/facts", {"subject": subject, "relation": relation, "object": obj})
