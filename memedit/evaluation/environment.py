"""What a benchmark's JSON says about where it ran: versions, machine, commit, command line, checksums of its data.

Knows nothing of what is measured.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("memedit", "torch", "transformers", "sentence-transformers", "faiss-cpu", "numpy", "sqlalchemy", "pydantic")


def environment(argv: Sequence[str]) -> dict[str, object]:
    """Where and how this run was made.

    Args:
        argv: The command line after the interpreter, usually ``sys.argv``.

    Returns:
        JSON-ready: ``command``, ``python``, ``platform``, ``cpu``, ``cores`` (those this process may use),
        ``memory_gib``, ``load_average`` (processes that ran or waited, in the last minute), ``versions`` (of the installed
        packages that matter), ``commit`` (None outside a git checkout; ends in "+changes" when the tree differs from it)
        and ``started_at`` (UTC).
    """
    return {
        "command": _command(argv),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": _memory_gib(),
        "load_average": round(os.getloadavg()[0], 2),
        "versions": {name: found for name in PACKAGES if (found := _version(name))},
        "commit": _commit(),
        "started_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def peak_memory_mib(*, reset: bool = False) -> dict[str, float]:
    """The most memory this process has used since the last reset, in MiB.

    Args:
        reset: Count anew from now on. Where the system cannot (outside Linux), the host's count goes back to the start.

    Returns:
        ``host``, and ``device`` where torch used an accelerator.
    """
    peak = {"host": round(_host_peak_kib() / 1024, 1)}
    torch = sys.modules.get("torch")
    has_device = torch is not None and torch.cuda.is_available()
    if torch is not None and has_device:
        peak["device"] = round(torch.cuda.max_memory_allocated() / 2**20, 1)
    if reset:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        if torch is not None and has_device:
            torch.cuda.reset_peak_memory_stats()
    return peak


class PeakMemory:
    """The most memory this process uses in each phase of a run, in MiB by device.

    Attributes:
        peaks: By the phase's name, what `peak_memory_mib` tells.
    """

    def __init__(self) -> None:
        self.peaks: dict[str, dict[str, float]] = {}
        self._phase = ""

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Count what is used from here on under a name; a phase within a phase is counted under its own name only."""
        outer = self._begin(name)
        try:
            yield
        finally:
            self._begin(outer)

    def _begin(self, name: str) -> str:
        outer, self._phase = self._phase, name
        used = peak_memory_mib(reset=True)
        if outer:
            known = self.peaks.setdefault(outer, {})
            known.update({device: max(value, known.get(device, 0.0)) for device, value in used.items()})
        return outer


def _host_peak_kib() -> float:
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return float(line.split()[1])
    except OSError:
        pass
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1024 if sys.platform == "darwin" else 1)


def sha256(path: str | Path) -> str:
    """The SHA-256 of a file, in hexadecimal.

    Raises:
        OSError: The file cannot be read.
    """
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _command(argv: Sequence[str]) -> str:
    """The command line to run again: a module's file becomes ``python -m package.module``, an installed command its name."""
    if not argv:
        return Path(sys.executable).name
    program, *arguments = argv
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    if not program.endswith(".py"):
        return shlex.join([Path(program).name, *arguments])
    start = ["-m", spec.name] if spec is not None else [program]
    return shlex.join(["python", *start, *arguments])


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30, 1)
    except (AttributeError, OSError, ValueError):
        return None


def _commit() -> str | None:
    """This checkout's commit; None where the package is installed, though it be inside someone else's checkout."""
    head = _git("ls-files", "--error-unmatch", Path(__file__).name) and _git("rev-parse", "HEAD")
    if not head:
        return None
    return head + ("+changes" if _git("status", "--porcelain", "--untracked-files=no") else "")


def _git(*arguments: str) -> str:
    try:
        done = subprocess.run(
            ["git", *arguments],
            cwd=Path(__file__).parent,
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
