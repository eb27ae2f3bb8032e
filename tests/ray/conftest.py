"""A Ray cluster of two nodes on this machine; a test may kill the second."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import pytest

from tests.benchmarks.conftest import rows as rows
from tests.benchmarks.conftest import write_rows as write_rows

if TYPE_CHECKING:
    from ray.cluster_utils import Cluster

HERE = "tests/ray/"
SMALL: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 80 * 2**20}
TRIES = 4
"""Ray gives a node thirty seconds to start, which is little on a busy machine."""


@dataclass
class Nodes:
    """The cluster.

    Attributes:
        cluster: Ray's handle.
        second: The node that may be killed; None once it is.
    """

    cluster: Cluster
    second: Any = None

    @property
    def second_id(self) -> str:
        """The second node's id, as it knows itself."""
        return str(self.second.node_id)

    def kill_second(self) -> None:
        """Kill every process of the second node, as if its machine had lost power."""
        self.cluster.remove_node(self.second, allow_graceful=False)
        self.second = None

    def add(self, **more: Any) -> Any:
        """Start a node of one core."""
        for left in reversed(range(TRIES)):
            try:
                return self.cluster.add_node(**SMALL, **more)
            except Exception:
                if not left:
                    raise
        raise AssertionError


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what stands in this folder; leave it out, with the reason, where Ray is not installed."""
    missing = next((name for name in ("ray", "pyarrow", "fastapi") if find_spec(name) is None), None)
    skip = pytest.mark.skip(reason=f'{missing} is not installed: pip install "memedit[ray]"')
    for item in items:
        if HERE in item.nodeid:
            item.add_marker(pytest.mark.ray)
            if missing is not None:
                item.add_marker(skip)


@pytest.fixture(scope="session")
def _nodes() -> Iterator[Nodes]:
    import ray
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_memory_monitor_refresh_ms", "0")  # this machine's other processes are none of its business
        patch.setenv("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "120")  # five seconds are little on a busy machine
        patch.setenv("RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S", "60")
        patch.delenv("RAY_ADDRESS", raising=False)
        nodes = Nodes(Cluster())
        try:
            nodes.add(include_dashboard=False)
            ray.init(address=nodes.cluster.address, log_to_driver=False)
            yield nodes
        finally:
            ray.shutdown()
            nodes.cluster.shutdown()  # type: ignore[no-untyped-call]


@pytest.fixture
def nodes(_nodes: Nodes) -> Nodes:
    """Two nodes of one core each, which this process is connected with."""
    if _nodes.second is None:
        _nodes.second = _nodes.add()
        _nodes.cluster.wait_for_nodes(timeout=120)
    return _nodes
