"""`memedit deploy`: gateways on a Ray cluster."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from memedit.commands import show
from memedit.commands.serve import AccessOption, Open, Rate, Timeout, UpstreamKey, access_place, check_open
from memedit.commands.session import session


def deploy(
    context: typer.Context,
    upstream: Annotated[
        list[str],
        typer.Option(
            metavar="URL",
            help="A model server to stand in front of (http://host:port/v1): vLLM, or a Ray Serve LLM application; may be "
            "repeated, the gateways are then shared out among them.",
        ),
    ],
    replicas: Annotated[
        str, typer.Option(metavar="N|MIN:MAX", help="How many gateways; between MIN and MAX as the load needs.")
    ] = "1:4",
    busy: Annotated[
        float, typer.Option(min=1, metavar="N", help="Requests in flight in a gateway that their number is chosen for.")
    ] = 16.0,
    cores: Annotated[float, typer.Option(min=0.1, metavar="N", help="Cores that a gateway is given.")] = 1.0,
    ray: Annotated[
        str | None,
        typer.Option(
            envvar="RAY_ADDRESS",
            metavar="ADDRESS",
            help="The cluster: 'auto' for the one of this machine, or host:port.  [default: a new one on this machine]",
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen on, on every machine.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port to listen on.")] = 8321,
    upstream_key: UpstreamKey = None,
    access: AccessOption = None,
    open_: Open = False,
    rate: Rate = 1200,
    timeout: Timeout = 300.0,
    detach: Annotated[
        bool, typer.Option("--detach", help="Leave the gateways running on the cluster, and return.")
    ] = False,
) -> None:
    """Run gateways on a Ray cluster, in front of model servers: as many as the load needs, replaced when they die.

    memedit --memory postgresql://... deploy --ray auto --upstream http://gpu1:8000/v1 --upstream http://gpu2:8000/v1
    """
    from memedit.server.ray import Fleet, stop
    from memedit.server.ray import deploy as run
    from memedit.server.settings import Settings

    here = session(context)
    check_open(open_, host)
    here.make_folder()
    least, most = parse_replicas(replicas)
    settings = Settings(
        upstream=upstream[0],
        upstream_key=upstream_key,
        namespace=here.namespace,
        open=open_,
        rate=rate,
        timeout=timeout,
    )
    memory, records = (as_seen_anywhere(place) for place in (here.memory_path, access_place(context, access)))
    fleet = Fleet(settings, memory, records, tuple(upstream), least, most, busy, cores)
    with show.elapsed("Starting the gateways"):
        run(fleet, host=host, port=port, address=ray)
    show.note(f"Listening on http://{host}:{port}/v1 on every machine, {least} to {most} gateways.")
    if detach:
        return
    try:
        while True:
            time.sleep(3600)
    finally:
        stop()


def as_seen_anywhere(place: str) -> str:
    """A database URL as it is, a file by its full path: gateways start in folders of their own."""
    return place if "://" in place else str(Path(place).resolve())


def parse_replicas(text: str) -> tuple[int, int]:
    """Fewest and most replicas.

    >>> parse_replicas("3"), parse_replicas("1:8")
    ((3, 3), (1, 8))

    Raises:
        typer.BadParameter: It is neither.
    """
    least, _, most = text.partition(":")
    if not least.isdecimal() or not (most or least).isdecimal():
        raise typer.BadParameter(f"{text!r} is neither a number of replicas nor MIN:MAX.")
    return int(least), int(most or least)
