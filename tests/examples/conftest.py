"""The examples are run against the gateway and the scripted model server of the server's tests."""

from tests.server.conftest import _upstream, gate, gateway_url, memory, records, services, upstream

__all__ = ["_upstream", "gate", "gateway_url", "memory", "records", "services", "upstream"]
