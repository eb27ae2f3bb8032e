"""`memedit serve`, `memedit mcp` and `memedit keys`: the gateway, the tools for agents, and who may use the gateway."""

from __future__ import annotations

import ipaddress
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from memedit.commands import show
from memedit.commands.session import ACCESS, Json, embed, session
from memedit.errors import InvalidSpec, MissingExtra

if TYPE_CHECKING:
    from memedit.server.records import ApiKey, Records

AccessOption = Annotated[
    str | None,
    typer.Option(
        "--access",
        envvar=ACCESS,
        metavar="FILE",
        help="Where API keys and the audit log are: a SQLite file or a database URL.  [default: beside the memory]",
    ),
]

keys = typer.Typer(no_args_is_help=True, help="Make, list and revoke the API keys of the gateway.")

UpstreamKey = Annotated[
    str | None,
    typer.Option(envvar="MEMEDIT_UPSTREAM_KEY", metavar="KEY", help="The API key for the upstream server."),
]
Open = Annotated[
    bool, typer.Option("--open", help="Ask for no API key: everyone who reaches the port may do everything.")
]
Rate = Annotated[
    int, typer.Option(min=0, metavar="N", help="Most requests a minute for a key at a gateway; 0 for no limit.")
]
Timeout = Annotated[float, typer.Option(min=0.1, metavar="SECONDS", help="How long the upstream server is waited for.")]


def serve(
    context: typer.Context,
    upstream: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="The OpenAI-compatible server to stand in front of (http://host:port/v1). Without it vLLM is started "
            "with --model.",
        ),
    ] = None,
    vllm: Annotated[
        list[str] | None,
        typer.Option(metavar="ARGS", help="What vLLM is started with, e.g. '--max-model-len 4096'; may be repeated."),
    ] = None,
    vllm_python: Annotated[
        str | None,
        typer.Option(
            envvar="MEMEDIT_VLLM_PYTHON",
            metavar="PATH",
            help="The Python that has vLLM.  [default: this one, or that of .venv-vllm in the checkout]",
        ),
    ] = None,
    wait: Annotated[
        float, typer.Option(min=1, metavar="SECONDS", help="How long vLLM may take to be ready, downloads included.")
    ] = 1800.0,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port to listen on.")] = 8321,
    upstream_key: UpstreamKey = None,
    access: AccessOption = None,
    open_: Open = False,
    rate: Rate = 1200,
    max_body: Annotated[int, typer.Option(min=1, metavar="MIB", help="Largest request, in MiB.")] = 32,
    timeout: Timeout = 300.0,
    threads: Annotated[int, typer.Option(min=1, help="Most accesses to the memory at a time.")] = 8,
    log_contents: Annotated[
        bool, typer.Option("--log-contents", help="Log questions too, and what errors say, which may quote facts.")
    ] = False,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATH",
            help="A path of the upstream server that every key may use, beside those of inference; may be repeated. "
            "All other paths are for admin keys.",
        ),
    ] = None,
    ui: Annotated[
        bool | None,
        typer.Option("--ui/--no-ui", help="Serve the page at /ui.  [default: where its packages are installed]"),
    ] = None,
) -> None:
    """Stand in front of a model server: the same API, with the facts of this memory, and an API for these facts.

    memedit keys create alice --role editor
    memedit serve --upstream http://localhost:8000/v1
    memedit serve --model Qwen/Qwen3-4B --vllm "--max-model-len 8192"
    """
    _need_server()
    import uvicorn

    from memedit.commands.upstream import behind
    from memedit.page import is_installed
    from memedit.server.app import create_app
    from memedit.server.logs import write_json_lines
    from memedit.server.settings import Settings
    from memedit.server.tracing import start_exporting

    here = session(context)
    check_open(open_, host)
    if ui and not is_installed():
        raise MissingExtra("gradio", "ui")
    page = is_installed() if ui is None else ui
    with (
        here.open_memory(embed_on_write=True) as memory,
        _open_records(context, access) as records,
        behind(upstream, upstream_key, here.model, vllm or (), vllm_python, wait) as server,
    ):
        settings = Settings(
            upstream=server.url,
            upstream_key=server.key,
            namespace=here.namespace,
            open=open_,
            timeout=timeout,
            max_body=max_body * 1024 * 1024,
            rate=rate,
            threads=threads,
            log_contents=log_contents,
            reader_paths=tuple(allow or ()),
        )
        if not open_ and not any(key.revoked_at is None for key in records.list_keys()):
            show.note("There is no API key yet: every request will be refused. Make one: memedit keys create NAME.")
        show.note(f"Listening on http://{host}:{port}/v1, in front of {settings.base}.")
        if page:
            show.note(f"The page is at http://{host}:{port}/ui.")
        elif ui is None:
            show.note('There is no page at /ui. Install it with: pip install "memedit[ui]"')
        app = create_app(settings, memory, records, condition=server.condition, page=page)
        write_json_lines(contents=log_contents)
        start_exporting()
        uvicorn.run(app, host=host, port=port, log_config=None, access_log=False, timeout_graceful_shutdown=10)


def mcp(context: typer.Context, access: AccessOption = None) -> None:
    """Offer the memory to agents as tools, by the Model Context Protocol on stdin and stdout.

    The tools are add_fact, retract, search, ask and explain.
    """
    try:
        from memedit.server.mcp import make_server
    except ModuleNotFoundError as error:
        raise MissingExtra("mcp", "mcp") from error

    here = session(context)
    with here.open_memory() as memory, _open_records(context, access) as records:
        embed(memory)
        from memedit.editor import MemEditor

        with MemEditor(here.model, memory, namespace=here.namespace) as editor:
            make_server(editor, records).run()


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


def check_open(open_: bool, host: str) -> None:
    """See that a gateway without API keys is reached from this machine alone.

    Raises:
        InvalidSpec: It would be open to a network.
    """
    if open_ and not _is_loopback(host):
        raise InvalidSpec(
            f"--open on {host} would let everyone on the network write facts.",
            "Listen on 127.0.0.1, or leave out --open and make API keys: memedit keys create.",
        )


def access_place(context: typer.Context, access: str | None) -> str:
    """Where API keys and the audit log are: as said, or beside the memory."""
    from memedit.server.records import records_beside

    here = session(context)
    if access is None:
        here.make_folder()
    return access or records_beside(here.memory_path)


def _open_records(context: typer.Context, access: str | None) -> Records:
    from memedit.server.records import Records

    return Records(access_place(context, access))


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
