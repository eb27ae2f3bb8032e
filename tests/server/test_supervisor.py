"""The supervisor with a small server in place of vLLM: one that has a child, as vLLM has, which does not end by itself."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from memedit.errors import InvalidSpec, ModelTimeout, ModelUnavailable
from memedit.server import vllm
from memedit.server.supervisor import Supervisor

SERVER = """
import http.server, os, pathlib, subprocess, sys
port, folder = int(sys.argv[1]), pathlib.Path(sys.argv[2])
stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('child', flush=True); time.sleep(600)"
child = subprocess.Popen([sys.executable, "-c", stubborn])
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()
    def log_message(self, *_): pass
server = http.server.HTTPServer(("127.0.0.1", port), Handler)
(folder / "pids").write_text(f"{os.getpid()} {child.pid}")
print("listening", flush=True)
server.serve_forever()
"""


class Small:
    """A supervised small server."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lines: list[str] = []
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.root = f"http://127.0.0.1:{probe.getsockname()[1]}"
        script = folder / "server.py"
        script.write_text(SERVER)
        self.command = [sys.executable, str(script), self.root.rpartition(":")[2], str(folder)]

    def supervised(self, command: list[str] | None = None) -> Supervisor:
        return Supervisor(
            command or self.command, f"{self.root}/health", environment=dict(os.environ), say=self.lines.append,
            grace=1.0, pause=0.1,
        )  # fmt: skip

    def processes(self) -> list[int]:
        """The ids of the server and its child."""
        return [int(word) for word in (self.folder / "pids").read_text().split()]


@pytest.fixture
def small(tmp_path: Path) -> Small:
    return Small(tmp_path)


def test_it_waits_until_the_server_answers_passes_its_lines_on_and_stops_all_of_it(small: Small) -> None:
    with small.supervised() as supervisor:
        supervisor.wait_until_ready(30)
        assert httpx.get(small.root).status_code == 200
        assert supervisor.condition() == {"state": "ready", "restarts": 0}
        server, child = small.processes()

    assert not is_alive(server)
    assert not is_alive(child)
    assert supervisor.condition()["state"] == "stopped"
    assert {"listening", "child"} <= set(small.lines)


def test_a_server_that_dies_is_started_again_and_nothing_of_it_is_left(small: Small) -> None:
    with small.supervised() as supervisor:
        supervisor.wait_until_ready(30)
        server, child = small.processes()
        os.kill(server, signal.SIGKILL)
        eventually(lambda: supervisor.condition() == {"state": "ready", "restarts": 1})
        again = small.processes()

        assert not is_alive(child)
        assert server not in again
        assert httpx.get(small.root).status_code == 200


def test_a_server_that_never_becomes_ready_is_an_error_with_what_it_said(small: Small) -> None:
    with (
        small.supervised([sys.executable, "-c", "print('no such model'); raise SystemExit(3)"]) as supervisor,
        pytest.raises(ModelUnavailable, match="no such model"),
    ):
        supervisor.wait_until_ready(30)


def test_a_server_that_takes_too_long_is_a_timeout(small: Small) -> None:
    with (
        small.supervised([sys.executable, "-c", "import time; time.sleep(600)"]) as supervisor,
        pytest.raises(ModelTimeout, match=r"within 0\.2 s"),
    ):
        supervisor.wait_until_ready(0.2)


def test_nothing_is_left_when_the_supervising_process_is_killed(small: Small) -> None:
    code = (
        "import os, sys, time; from memedit.server.supervisor import Supervisor\n"
        "s = Supervisor(sys.argv[2:], sys.argv[1], environment=dict(os.environ), say=lambda line: None, grace=1.0)\n"
        "s.start(); s.wait_until_ready(30); print('ready', flush=True); time.sleep(600)"
    )
    command = [sys.executable, "-c", code, f"{small.root}/health", *small.command]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        server, child = small.processes()
        process.kill()
        process.wait()

    eventually(lambda: not is_alive(server) and not is_alive(child))


@pytest.fixture
def no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm, "has_gpu", lambda: False)


@pytest.mark.usefixtures("no_gpu")
def test_without_a_gpu_vllm_computes_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEMEDIT_UPSTREAM_KEY", "secret")

    launch = vllm.prepare("/models/one", ["--max-model-len 512", "--seed=7"], python="/opt/python")

    assert launch.command[:5] == ("/opt/python", "-m", vllm.SERVER, "--model", "/models/one")
    assert " --dtype float32 --enforce-eager --max-model-len 512 --seed=7" in " ".join(launch.command)
    assert launch.key
    assert launch.key not in " ".join(launch.command)
    assert "MEMEDIT_UPSTREAM_KEY" not in launch.environment


@pytest.mark.usefixtures("no_gpu")
def test_what_the_operator_gives_vllm_wins() -> None:
    command = vllm.prepare("one", ["--dtype bfloat16"], python="python").command

    assert command.count("--dtype") == 1
    assert "float32" not in command


@pytest.mark.parametrize(("words", "problem"), [("--port 1", "--port is not for --vllm"), ("'open", "cannot be read")])
def test_arguments_that_cannot_be_are_refused(words: str, problem: str) -> None:
    with pytest.raises(InvalidSpec, match=problem):
        vllm.prepare("one", [words], python="python")


def is_alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def eventually(true: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)
