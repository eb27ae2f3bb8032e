"""vLLM under `memedit serve`: waited for, passed on, started again when it dies, and gone when memedit goes.

The last test stops the server that all tests here share.
"""

from __future__ import annotations

import os
import signal

import httpx

from tests.vllm.serving import MODEL, Serving, running


def ask(serving: Serving) -> httpx.Response:
    payload = {"model": MODEL, "messages": [{"role": "user", "content": "Name a fruit."}], "max_tokens": 4}
    return httpx.post(f"{serving.gateway}/v1/chat/completions", json=payload, timeout=120)


def test_the_start_is_told_and_vllms_log_is_passed_through(serving: Serving) -> None:
    started = next(line for line in serving.lines if line.startswith("Starting vLLM with embedded"))
    ready = next(line for line in serving.lines if line.startswith("vLLM is ready after"))

    between = serving.lines[serving.lines.index(started) + 1 : serving.lines.index(ready)]
    assert between
    assert all(line.startswith("vllm |") for line in between)
    assert serving.readiness()["vllm"] == {"state": "ready", "restarts": 0}


def test_vllm_asks_for_a_key_that_only_the_gateway_has(serving: Serving) -> None:
    assert httpx.get(f"{serving.vllm}/v1/models", timeout=30).status_code == 401
    assert httpx.get(f"{serving.gateway}/v1/models", timeout=30).status_code == 200


def test_a_killed_vllm_comes_back(serving: Serving) -> None:
    server = serving.server()
    os.kill(server, signal.SIGKILL)
    serving.eventually(lambda: serving.readiness().get("ready") is False, 30)

    failed = ask(serving)

    assert failed.status_code == 502
    assert failed.json()["error"]["code"] == "model_unavailable"
    serving.eventually(lambda: serving.readiness().get("vllm") == {"state": "restarting", "restarts": 1}, 30)
    serving.wait_until_ready()
    serving.eventually(lambda: serving.readiness().get("vllm") == {"state": "ready", "restarts": 1}, 30)
    assert ask(serving).status_code == 200
    assert server not in serving.processes()


def test_sigterm_leaves_no_process(serving: Serving) -> None:
    processes = serving.processes()
    assert len(processes) > 3  # memedit, the guard, vLLM and its engine

    serving.stop()

    assert serving.process.returncode == 0
    assert processes.keys().isdisjoint(running())
