"""The gateway with a vLLM of its own, as a process that tests start, look at and stop."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import httpx

KEY = "the-key-of-vllm"
MODEL = "smollm2-135m-instruct"
STARTING = 540.0
"""Most seconds that vLLM may take to be ready; it takes about fifty on two idle cores."""


class Serving:
    """`memedit serve --model embedded`, in a process of its own.

    Attributes:
        gateway: Where the gateway listens.
        vllm: Where the vLLM behind it listens.
        lines: What it has written so far.
    """

    def __init__(self, python: Path, environment: dict[str, str], folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.gateway = f"http://127.0.0.1:{port}"
        self.lines: list[str] = []
        command = [sys.executable, "-m", "memedit.cli", "serve", "--model", "embedded", "--open", "--port", str(port)]
        command += ["--memory", str(folder / "facts.db"), "--vllm-python", str(python), "--rate", "0"]
        command += ["--vllm", "--max-model-len 2048 --block-size 32 --distributed-executor-backend uni"]
        self.process = subprocess.Popen(
            command, env=environment, stderr=subprocess.PIPE, text=True, errors="replace", cwd=folder
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def vllm(self) -> str:
        """The URL in vLLM's own log, which the gateway passes through."""
        [*_, found] = re.findall(r"^vllm \|.* on (http://127\.0\.0\.1:\d+)", "\n".join(self.lines), re.MULTILINE)
        return str(found)

    def readiness(self) -> dict[str, object]:
        """What /readyz says; nothing where nobody answers."""
        with suppress(httpx.TransportError):
            told: dict[str, object] = httpx.get(f"{self.gateway}/readyz", timeout=10).json()
            return told
        return {}

    def wait_until_ready(self) -> None:
        self.eventually(lambda: self.readiness().get("ready") is True, STARTING)

    def eventually(self, true: Callable[[], bool], seconds: float) -> None:
        """Wait until something is so; the log's end is the message where it does not come to be."""
        deadline = time.monotonic() + seconds
        while not true():
            assert self.process.poll() is None, "\n".join(self.lines[-150:])
            assert time.monotonic() < deadline, "\n".join(self.lines[-150:])
            time.sleep(0.2)

    def processes(self) -> dict[int, int]:
        """Every process that runs below memedit's own, by its id, and its parent."""
        parents = running()
        found = {self.process.pid: os.getpid()}
        while more := {child: parent for child, parent in parents.items() if parent in found and child not in found}:
            found |= more
        return found

    def server(self) -> int:
        """The process that is vLLM's own: the guard's child, which is memedit's."""
        parents = self.processes()
        guards = {child for child, parent in parents.items() if parent == self.process.pid}
        return next(child for child, parent in parents.items() if parent in guards)

    def stop(self) -> str:
        """End it as an operator would; what it wrote."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)
        self._reader.join(10)
        return "\n".join(self.lines)

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line.rstrip())


def running() -> dict[int, int]:
    """Every process of the machine that has not ended, by its id, and its parent."""
    found: dict[int, int] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            if state != "Z":
                found[int(stat.parent.name)] = int(parent)
    return found
