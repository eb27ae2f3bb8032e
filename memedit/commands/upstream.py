"""The model server that `memedit serve` stands in front of: one that runs, or a vLLM that is started for it and kept running."""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import NamedTuple

from memedit.commands import show
from memedit.errors import InvalidSpec


class Behind(NamedTuple):
    """The server behind the gateway.

    Attributes:
        url: Its base URL.
        key: The API key it asks for; None for none, or for the client's own.
        condition: Tells how it is, where memedit runs it.
    """

    url: str
    key: str | None
    condition: Callable[[], Mapping[str, object]] | None = None


@contextmanager
def behind(
    url: str | None, key: str | None, model: str, arguments: Sequence[str], python: str | None, wait: float
) -> Iterator[Behind]:
    """The server, for as long as the block lasts.

    Args:
        url: Where one runs; None to start vLLM.
        key: The API key for the one that runs.
        model: What vLLM is to serve: "embedded", "hf:NAME_OR_PATH", or a name or path by itself; or the URL of one that runs.
        arguments: What vLLM is given.
        python: The Python that has vLLM; found if None.
        wait: Seconds it has to be ready.

    Raises:
        InvalidSpec: vLLM is not there, or there are arguments for it and it is not to be started.
        ModelUnavailable, ModelTimeout: It did not become ready.
    """
    if url is None and model.startswith(("http://", "https://")):
        url = model.partition("#")[0]
    if url is not None:
        if arguments:
            raise InvalidSpec(
                f"--vllm is for a vLLM that memedit starts, and {url} runs already.", "Leave one of the two out."
            )
        yield Behind(url, key)
        return
    from memedit.server.supervisor import Supervisor
    from memedit.server.vllm import prepare

    served = model.removeprefix("hf:").removeprefix("vllm:")
    launch = prepare(served, arguments, python)
    show.note(f"Starting vLLM with {served} ({launch.command[0]}) ...")
    began = time.monotonic()
    signal.signal(signal.SIGTERM, _leave)
    with Supervisor(launch.command, f"{launch.root}/health", environment=launch.environment, say=_pass_on) as vllm:
        with show.elapsed(f"Waiting for vLLM to load {served}"):
            vllm.wait_until_ready(wait)
        show.note(f"vLLM is ready after {time.monotonic() - began:.0f} s.")
        yield Behind(f"{launch.root}/v1", launch.key, vllm.condition)


def _pass_on(line: str) -> None:
    sys.stderr.write(f"vllm | {line}\n")  # at once, or the end of the line may come after what another thread writes
    sys.stderr.flush()


def _leave(_: int, __: FrameType | None) -> None:
    """Leave by way of every open block, so that vLLM is stopped; SIGTERM alone would end the process where it is."""
    raise SystemExit(0)
