"""Gateways as a Ray Serve application: replicas over one memory and the same model servers, as many as the load needs.

Every replica is the application of `memedit.server.app` in a process of its own, on any machine of the cluster. Ray's
proxies deal requests to them; one whose process or machine dies is replaced. Replicas on several machines share a memory on
PostgreSQL; on one machine a SQLite file will do. Knows nothing of what a gateway does.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from types import ModuleType
from typing import TYPE_CHECKING

from memedit.errors import InvalidSpec, MissingExtra, ModelUnavailable
from memedit.server.settings import Settings

if TYPE_CHECKING:
    from fastapi import FastAPI
    from ray.serve import Application

NAME = "memedit"
"""The application's name in Ray Serve."""
MOST_AT_ONCE = 256
"""Requests that a replica works on at a time; further ones wait in Ray's proxy."""
CHECK_SECONDS = 2.0
"""How often Ray asks a replica whether it lives."""


@dataclass(frozen=True, slots=True)
class Fleet:
    """The gateways of one deployment.

    Attributes:
        settings: How each runs; its `upstream` is replaced by one of `upstreams`.
        memory: The edit memory: a SQLite file that every replica can open, or a database URL.
        access: Where API keys and the audit log are, likewise.
        upstreams: Base URLs of the model servers; each replica stands in front of one.
        least: Fewest replicas.
        most: Most replicas.
        busy: Requests in flight in a replica that the number of replicas is chosen for.
        cores: Cores that a replica is given.

    Raises:
        InvalidSpec: There is no model server, or a number is out of its range.
    """

    settings: Settings
    memory: str
    access: str
    upstreams: tuple[str, ...]
    least: int = 1
    most: int = 1
    busy: float = 16.0
    cores: float = 1.0

    def __post_init__(self) -> None:
        if not self.upstreams:
            raise InvalidSpec("There is no model server to stand in front of.", "Give --upstream URL.")
        for url in self.upstreams:
            replace(self.settings, upstream=url)
        if not 1 <= self.least <= self.most or self.busy <= 0 or self.cores <= 0:
            raise InvalidSpec(
                f"{self.least} to {self.most} replicas of {self.cores:g} cores cannot be.",
                "Give at least one replica, at least as many at most, and numbers above 0.",
            )

    def upstream_of(self, replica: str) -> str:
        """The model server that a replica stands in front of; the same for the same name."""
        return self.upstreams[zlib.crc32(replica.encode()) % len(self.upstreams)]


class Gateway:
    """A replica; what it does is in the ASGI application that it is made with."""


def application(fleet: Fleet) -> Application:
    """The Ray Serve application of a fleet.

    Raises:
        MissingExtra: Ray Serve is not installed.
    """
    serve = _serve()

    def build() -> FastAPI:
        return replica_app(fleet, serve.get_replica_context().replica_id.unique_id)

    scale: dict[str, object] = {"num_replicas": fleet.least}
    if fleet.most > fleet.least:
        bounds = {"min_replicas": fleet.least, "initial_replicas": fleet.least, "max_replicas": fleet.most}
        scale = {"autoscaling_config": {**bounds, "target_ongoing_requests": fleet.busy}}
    deployment = serve.deployment(
        serve.ingress(build)(Gateway),
        name="gateway",
        max_ongoing_requests=MOST_AT_ONCE,
        ray_actor_options={"num_cpus": fleet.cores},
        health_check_period_s=CHECK_SECONDS,
        **scale,
    )
    bound: Application = deployment.bind()
    return bound


def replica_app(fleet: Fleet, replica: str) -> FastAPI:
    """The application of one replica, which closes its memory and records when it ends.

    Args:
        fleet: Whose replica it is.
        replica: Its name.
    """
    from memedit.memory.memory import EditMemory
    from memedit.server.app import create_app
    from memedit.server.logs import write_json_lines
    from memedit.server.records import Records

    settings = replace(fleet.settings, upstream=fleet.upstream_of(replica))
    memory = EditMemory(fleet.memory)
    records = Records(fleet.access)
    app = create_app(settings, memory, records)
    lifespan = app.router.lifespan_context

    @asynccontextmanager
    async def closing(app: FastAPI) -> AsyncIterator[None]:
        try:
            async with lifespan(app):
                yield
        finally:
            records.close()
            memory.close()

    app.router.lifespan_context = closing
    write_json_lines(contents=settings.log_contents)
    return app


def deploy(fleet: Fleet, *, host: str, port: int, address: str | None = None) -> None:
    """Run a fleet on a Ray cluster; returns when its least number of replicas answers. An earlier deployment is replaced.

    Args:
        fleet: What to run.
        host: The address that Ray's proxies listen on, on every machine.
        port: Their port.
        address: The cluster; that of the environment variable RAY_ADDRESS, or a new one on this machine, if None.

    Raises:
        MissingExtra: Ray Serve is not installed.
        InvalidSpec: The memory is a file and the cluster has several machines.
        ModelUnavailable: There is no such cluster, or the replicas did not start.
    """
    serve = _serve()
    import ray

    try:
        if not ray.is_initialized():
            ray.init(address=address, log_to_driver=False)
        nodes: list[dict[str, object]] = ray.nodes()  # type: ignore[no-untyped-call]
        check_shared(fleet, [str(node["NodeManagerAddress"]) for node in nodes if node["Alive"]])
        serve.start(proxy_location="EveryNode", http_options={"host": host, "port": port})
        serve.run(application(fleet), name=NAME, route_prefix="/")
    except (ConnectionError, TimeoutError, RuntimeError, ray.exceptions.RayError) as error:
        raise ModelUnavailable(
            f"The gateways did not start: {str(error).strip().splitlines()[-1]}",
            "Look at `ray status` and `serve status`, and at the replicas' logs in Ray's dashboard.",
        ) from error


def stop() -> None:
    """Stop the gateways; the cluster, where it was there before, goes on."""
    _serve().delete(NAME)


def check_shared(fleet: Fleet, machines: Sequence[str]) -> None:
    """See that every replica can open the memory and the records.

    Raises:
        InvalidSpec: One is a file and there are several machines.
    """
    files = [place for place in (fleet.memory, fleet.access) if "://" not in place]
    if files and len(set(machines)) > 1:
        raise InvalidSpec(
            f"{files[0]} is a file, and the cluster has {len(set(machines))} machines.",
            "Keep the memory and the keys on PostgreSQL: --memory postgresql://... --access postgresql://...",
        )


def _serve() -> ModuleType:
    try:
        from ray import serve
    except ImportError as error:
        raise MissingExtra(error.name or "ray", "ray") from error
    return serve
