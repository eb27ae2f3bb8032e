"""Runs a command, and ends it with all that it started once nobody is there any more who asked for it.

Run as a script: ``python guard.py GRACE COMMAND ...``. Whoever starts it holds the other end of its stdin and writes nothing.
When that end is closed, by a stop or because its holder was killed, the command gets SIGTERM, and what is left of it GRACE
seconds later SIGKILL. Where it ends by itself, what it leaves behind is killed at once. Ends with the command's exit status.
Needs nothing but the standard library.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from types import FrameType

_DIE_WITH_PARENT, _ADOPT_ORPHANS = 1, 36  # prctl's PR_SET_PDEATHSIG and PR_SET_CHILD_SUBREAPER
_GONE = 127


def main(grace: float, command: list[str]) -> int:
    """Run the command until it ends or stdin does; its exit status, 128 and the signal's number after a signal."""
    asked: list[int] = []

    def note(number: int, _: FrameType | None) -> None:
        asked.append(number)

    wake, woken = os.pipe()
    os.set_blocking(woken, False)
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT):
        signal.signal(number, note)
    _control(_ADOPT_ORPHANS, 1)
    # A group of its own: it can be ended as a whole, and Ctrl-C in a terminal does not reach it.
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, process_group=0, preexec_fn=_die_with_parent)
    while child.poll() is None:
        ready, _, _ = select.select([0, wake], [], [])
        if wake in ready:
            os.read(wake, 4096)
        if (0 in ready and not os.read(0, 4096)) or not {signal.SIGTERM, signal.SIGINT}.isdisjoint(asked):
            break
    _end_all(child, grace if child.poll() is None else 0.0, wake)
    status = child.poll()
    return _GONE if status is None else status if status >= 0 else 128 - status


def _end_all(child: subprocess.Popen[bytes], grace: float, wake: int) -> None:
    """End the child's group; orphans of it are this process's by adoption, so that it sees the last one go."""
    deadline = time.monotonic() + grace
    if grace:
        _signal(child.pid, signal.SIGTERM)
    while time.monotonic() < deadline:
        if not _any_left(child):
            return
        select.select([wake], [], [], 0.2)
    _signal(child.pid, signal.SIGKILL)
    child.wait()


def _any_left(child: subprocess.Popen[bytes]) -> bool:
    """Whether a process of the child's group runs; takes note of those that have ended."""
    if child.poll() is None:
        return True
    try:
        while os.waitpid(-child.pid, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def _signal(group: int, number: signal.Signals) -> None:
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return


def _die_with_parent() -> None:
    _control(_DIE_WITH_PARENT, signal.SIGTERM)


def _control(option: int, value: int) -> None:
    """Linux's prctl; elsewhere nothing, and the guard does without."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(main(float(sys.argv[1]), sys.argv[2:]))
