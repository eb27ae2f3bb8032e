"""Keeps another server running: starts it, waits until it answers, starts it again when it dies, and stops it with all its children.

Knows nothing of what the server is; `memedit.server.vllm` says how vLLM is started.
"""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

import httpx

from memedit.errors import ModelTimeout, ModelUnavailable
from memedit.server.logs import log

State = Literal["starting", "ready", "restarting", "failed", "stopped"]

_PROBE_SECONDS = 0.5
_SETTLED_SECONDS = 300.0
"""After so long a life a death is a new trouble, and the pauses begin at the shortest again."""


class Supervisor:
    """A server in processes of its own.

    Between it and this process stands a guard (`memedit.server.guard`), which ends it when this process is gone, however it went.

    Args:
        command: Starts it.
        health: A URL that it answers with status 200 once it is ready.
        environment: Its environment.
        say: Called with every line that it writes, from a thread.
        grace: Seconds it has to end by itself when it is stopped.
        pause: Seconds before it is started again; doubled at each death, up to `longest_pause`.
        longest_pause: See there.
    """

    def __init__(
        self,
        command: Sequence[str],
        health: str,
        *,
        environment: Mapping[str, str],
        say: Callable[[str], None],
        grace: float = 10.0,
        pause: float = 1.0,
        longest_pause: float = 60.0,
    ) -> None:
        self._command = tuple(command)
        self._health = health
        self._environment = dict(environment)
        self._say = say
        self._grace = grace
        self._pauses = (pause, longest_pause)
        self._state: State = "stopped"
        self._restarts = 0
        self._last: deque[str] = deque(maxlen=30)
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._process: subprocess.Popen[str] | None = None
        self._keeper = threading.Thread(target=self._keep, name="memedit-supervisor", daemon=True)

    def start(self) -> None:
        """Start it; returns at once."""
        self._set("starting")
        self._keeper.start()

    def wait_until_ready(self, timeout: float) -> None:
        """Wait until it answers.

        Args:
            timeout: Seconds.

        Raises:
            ModelUnavailable: It ended before it ever was ready; the message has its last lines.
            ModelTimeout: It is still not ready.
        """
        with self._changed:
            done = self._changed.wait_for(lambda: self._state in ("ready", "failed", "stopped"), timeout)
        if not done:
            raise ModelTimeout(f"The model server was not ready within {timeout:g} s.", "Give it more time: --wait.")
        if self._state != "ready":
            said = "\n".join(self._last) or "(nothing)"
            raise ModelUnavailable(f"The model server ended before it was ready. It last said:\n{said}", "Mend that.")

    def condition(self) -> dict[str, object]:
        """How it is, for people and probes."""
        return {"state": self._state, "restarts": self._restarts}

    def stop(self) -> None:
        """End it and all its processes; returns when they are gone."""
        self._stopping.set()
        self._let_go()
        if self._keeper.is_alive():
            self._keeper.join(self._grace + 5.0)
        self._set("stopped")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    # -- threads -------------------------------------------------------------------------------------------------

    def _keep(self) -> None:
        shortest, longest = self._pauses
        pause = shortest
        while not self._stopping.is_set():
            began = time.monotonic()
            process = self._spawn()
            threading.Thread(target=self._probe, args=[process], name="memedit-probe", daemon=True).start()
            for line in process.stdout or ():
                self._last.append(line.rstrip())
                self._say(line.rstrip())
            status = process.wait()
            if self._stopping.is_set():
                return
            was_ready = self._state == "ready"
            if not was_ready and self._restarts == 0:
                self._set("failed")
                return
            pause = shortest if time.monotonic() - began > _SETTLED_SECONDS else pause
            log("model server ended", 40, status=status, restart_in_seconds=pause)
            self._restarts += 1
            self._set("restarting")
            self._stopping.wait(pause)
            pause = min(2 * pause, longest)

    def _spawn(self) -> subprocess.Popen[str]:
        guard = [sys.executable, "-I", "-S", str(Path(__file__).with_name("guard.py")), str(self._grace)]
        process = subprocess.Popen(
            [*guard, *self._command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self._environment,
            start_new_session=True,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        with self._changed:
            self._process = process
        if self._stopping.is_set():  # it was stopped while this process was made
            self._let_go()
        return process

    def _probe(self, process: subprocess.Popen[str]) -> None:
        """Ask until it answers, or has ended."""
        with httpx.Client(timeout=2.0, trust_env=False) as client:
            while process.poll() is None and not self._stopping.wait(_PROBE_SECONDS):
                try:
                    if client.get(self._health).status_code == httpx.codes.OK:
                        self._set("ready")
                        return
                except httpx.HTTPError:
                    continue

    def _let_go(self) -> None:
        """Close the guard's stdin, which ends what it guards."""
        with self._changed:
            process = self._process
        if process is not None and process.stdin is not None:
            process.stdin.close()

    def _set(self, state: State) -> None:
        with self._changed:
            self._state = state
            self._changed.notify_all()
