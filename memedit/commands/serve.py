"""`memedit serve`, `memedit mcp` and `memedit keys`: the gateway, the tools for agents, and who may use the gateway."""

from __future__ import annotations

import ipaddress
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from memedit.commands import show
from memedit.commands.session import Json, embed, session
from memedit.errors import InvalidSpec, MissingExtra

if TYPE_CHECKING:
    from memedit.server.records import ApiKey, Records

AccessOption = Annotated[
    str | None,
    typer.Option(
        "--access",
        envvar="MEMEDIT_ACCESS",
        metavar="FILE",
        help="Where API keys and the audit log are: a SQLite file or a database URL.  [default: beside the memory]",
    ),
]

keys = typer.Typer(no_args_is_help=True, help="Make, list and revoke the API keys of the gateway.")


def serve(
    context: typer.Context,
    upstream: Annotated[
        str,
        typer.Option(metavar="URL", help="The OpenAI-compatible server to stand in front of (http://host:port/v1)."),
    ],
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port to listen on.")] = 8321,
    upstream_key: Annotated[
        str | None,
        typer.Option(envvar="MEMEDIT_UPSTREAM_KEY", metavar="KEY", help="The API key for the upstream server."),
    ] = None,
    access: AccessOption = None,
    open_: Annotated[
        bool, typer.Option("--open", help="Ask for no API key: everyone who reaches the port may do everything.")
    ] = False,
    rate: Annotated[
        int, typer.Option(min=0, metavar="N", help="Most requests a minute for a key; 0 for no limit.")
    ] = 1200,
    max_body: Annotated[int, typer.Option(min=1, metavar="MIB", help="Largest request, in MiB.")] = 32,
    timeout: Annotated[
        float, typer.Option(min=0.1, metavar="SECONDS", help="How long the upstream server is waited for.")
    ] = 300.0,
    threads: Annotated[int, typer.Option(min=1, help="Most questions resolved at a time.")] = 8,
    log_contents: Annotated[bool, typer.Option("--log-contents", help="Log questions too.")] = False,
) -> None:
    """Stand in front of a model server: the same API, with the facts of this memory, and an API for these facts.

    memedit keys create alice --role editor
    memedit serve --upstream http://localhost:8000/v1
    """
    _need_server()
    import uvicorn

    from memedit.server.app import create_app
    from memedit.server.logs import write_json_lines
    from memedit.server.settings import Settings

    here = session(context)
    settings = Settings(
        upstream=upstream,
        upstream_key=upstream_key,
        namespace=here.namespace,
        open=open_,
        timeout=timeout,
        max_body=max_body * 1024 * 1024,
        rate=rate,
        threads=threads,
        log_contents=log_contents,
    )
    if open_ and not _is_loopback(host):
        raise InvalidSpec(
            f"--open on {host} would let everyone on the network write facts.",
            "Listen on 127.0.0.1, or leave out --open and make API keys: memedit keys create.",
        )
    with here.open_memory(embed_on_write=True) as memory, _open_records(context, access) as records:
        if not open_ and not any(key.revoked_at is None for key in records.list_keys()):
            show.note("There is no API key yet: every request will be refused. Make one: memedit keys create NAME.")
        show.note(f"Listening on http://{host}:{port}/v1, in front of {settings.base}.")
        app = create_app(settings, memory, records)
        write_json_lines()
        uvicorn.run(app, host=host, port=port, log_config=None, access_log=False, timeout_graceful_shutdown=10)


def mcp(context: typer.Context) -> None:
    """Offer the memory to agents as tools, by the Model Context Protocol on stdin and stdout.

    The tools are add_fact, retract, search, ask and explain.
    """
    try:
        from memedit.server.mcp import make_server
    except ModuleNotFoundError as error:
        raise MissingExtra("mcp", "mcp") from error

    here = session(context)
    with here.open_memory() as memory:
        embed(memory)
        from memedit.editor import MemEditor

        with MemEditor(here.model, memory, namespace=here.namespace) as editor:
            make_server(editor).run()


@keys.command("create")
def create_key(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Whose key it is.")],
    role: Annotated[str, typer.Option(help="reader, editor or admin.")] = "reader",
    bound: Annotated[
        list[str] | None,
        typer.Option("--for", metavar="NAMESPACE", help="A namespace it reaches; may be repeated; '*' is every one."),
    ] = None,
    access: AccessOption = None,
    as_json: Json = False,
) -> None:
    """Make an API key. It is shown this once; only its hash is kept."""
    _need_server()
    from memedit.server.records import Role

    if role not in list(Role):
        raise typer.BadParameter(f"{role!r} is no role. Use reader, editor or admin.")
    with _open_records(context, access) as records:
        key, text = records.create_key(name, Role(role), bound or [session(context).namespace])
    if as_json:
        show.emit({**_key_json(key), "key": text})
    else:
        show.say(text)
        show.note(f"The key {key.id} ({key.role}) for {', '.join(key.namespaces)}. It is not shown again.")


@keys.command("list")
def list_keys(context: typer.Context, access: AccessOption = None, as_json: Json = False) -> None:
    """List the API keys, without their secrets."""
    _need_server()
    with _open_records(context, access) as records:
        found = records.list_keys()
    if as_json:
        for key in found:
            show.emit(_key_json(key))
        return
    table = show.new_table("id", "name", "role", "namespaces", "made", "state")
    for key in found:
        state = "good" if key.revoked_at is None else f"revoked {_day(key.revoked_at)}"
        cells = (key.id, key.name, key.role.value, ", ".join(key.namespaces), _day(key.created_at), state)
        table.add_row(*map(Text, cells))
    show.out().print(table)


@keys.command("revoke")
def revoke_key(
    context: typer.Context,
    key_id: Annotated[str, typer.Argument(metavar="ID", help="The key's id, as the list shows it.")],
    access: AccessOption = None,
) -> None:
    """Make an API key useless, from now on."""
    _need_server()
    with _open_records(context, access) as records:
        key = records.revoke_key(key_id)
    show.say(f"Revoked {key.id} ({key.name}).")


def _open_records(context: typer.Context, access: str | None) -> Records:
    from memedit.server.records import Records, records_beside

    here = session(context)
    if access is None:
        here.make_folder()
    return Records(access or records_beside(here.memory_path))


def _need_server() -> None:
    """Fail with the extra's name where a package of it is not there."""
    for package in ("fastapi", "uvicorn", "httpx", "prometheus_client", "python_multipart"):
        try:
            __import__(package)
        except ModuleNotFoundError as error:
            raise MissingExtra(package, "server") from error


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _key_json(key: ApiKey) -> dict[str, object]:
    return {
        "id": key.id,
        "name": key.name,
        "role": key.role.value,
        "namespaces": list(key.namespaces),
        "created_at": key.created_at.isoformat(),
        "revoked_at": None if key.revoked_at is None else key.revoked_at.isoformat(),
    }


def _day(moment: datetime) -> str:
    return moment.date().isoformat()
