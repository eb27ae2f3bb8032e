"""The command line: ``memedit add | ask | chat | ...``. Parses, and turns errors into messages and exit codes.

What each command does is in `memedit.commands`; nothing heavy is imported before a command needs it.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Annotated, TextIO

import typer
from typer.core import TyperGroup

from memedit import __version__
from memedit.commands import checks, compare, deploy, facts, operations, questions, serve, show, transfer
from memedit.commands.session import Session
from memedit.commands.train import train
from memedit.errors import IndexRebuilt, MemEditError, MissingExtra, ModelError, StoreError

USER_ERROR, MODEL_FAILURE, STORE_FAILURE = 1, 3, 4
_GLOBAL_OPTIONS = ("--memory", "--namespace", "--model")
_EPILOG = "The options --memory, --namespace and --model may stand before or after the command."


def exit_code(error: MemEditError) -> int:
    """What the process exits with for an error; the codes are told in ``memedit --help``."""
    if isinstance(error, StoreError):
        return STORE_FAILURE
    return MODEL_FAILURE if isinstance(error, ModelError | MissingExtra) else USER_ERROR


class Commands(TyperGroup):
    """The group of commands: global options may stand anywhere, and errors become messages and exit codes."""

    def parse_args(self, ctx: typer.Context, args: list[str]) -> list[str]:  # type: ignore[override]
        """Parse, with the global options moved to the front."""
        return super().parse_args(ctx, options_first(args))

    def invoke(self, ctx: typer.Context) -> object:  # type: ignore[override]
        """Run a command."""
        with notices_on_stderr():
            try:
                return super().invoke(ctx)
            except MemEditError as error:
                show.print_error(error)
                raise typer.Exit(exit_code(error)) from error


def options_first(words: list[str]) -> list[str]:
    """The words of a command line with the global options and their values before all others.

    >>> options_first(["ask", "Who?", "--model", "hf:gpt2", "--json"])
    ['--model', 'hf:gpt2', 'ask', 'Who?', '--json']
    """
    first: list[str] = []
    rest: list[str] = []
    left = iter(words)
    for word in left:
        if word == "--":
            rest += [word, *left]
        elif word in _GLOBAL_OPTIONS:
            first += [word, *islice(left, 1)]
        elif word.startswith(tuple(f"{name}=" for name in _GLOBAL_OPTIONS)):
            first.append(word)
        else:
            rest.append(word)
    return first + rest


@contextmanager
def notices_on_stderr() -> Iterator[None]:
    """Show memedit's own warnings as one line without a place in the code."""

    def tell(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if issubclass(category, IndexRebuilt):
            show.note(f"Notice: {message}")
        else:
            usual(message, category, filename, lineno, file, line)

    with warnings.catch_warnings():
        usual = warnings.showwarning
        warnings.showwarning = tell
        yield


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done; 1 something you gave cannot be used; 2 usage; 3 the model, its server or a package "
    "failed; 4 the database failed; 130 interrupted. Errors go to stderr, with how to mend them.",
)


def _version(asked: bool) -> None:
    if asked:
        print(f"memedit {__version__}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    memory: Annotated[
        str | None,
        typer.Option(
            envvar="MEMEDIT_MEMORY",
            metavar="FILE",
            help="The SQLite file of the edit memory, or a database URL; made on demand. By default memedit.db in "
            "your data folder.",
        ),
    ] = None,
    namespace: Annotated[str, typer.Option(help="The tenant to work in.")] = "default",
    model: Annotated[
        str,
        typer.Option(
            envvar="MEMEDIT_MODEL",
            metavar="SPEC",
            help="The base model: embedded, hf:NAME_OR_PATH, vllm:NAME_OR_PATH, or a server's URL "
            "(http://host:port/v1#model-name).",
        ),
    ] = "embedded",
    _show_version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and leave.")
    ] = False,
) -> None:
    """Edit what a language model knows without touching its weights."""
    context.obj = Session(memory, namespace, model)


_COMMANDS: dict[str, Callable[..., None]] = {
    "add": facts.add,
    "ask": questions.ask,
    "chat": questions.chat,
    "explain": questions.explain,
    "facts": facts.facts,
    "history": facts.history,
    "retract": facts.retract,
    "undo": facts.undo,
    "alias": facts.alias,
    "relations": facts.relations,
    "import": transfer.import_facts,
    "export": transfer.export_facts,
    "backup": operations.backup,
    "restore": operations.restore,
    "verify": operations.verify,
    "compact": operations.compact,
    "serve": serve.serve,
    "deploy": deploy.deploy,
    "mcp": serve.mcp,
    "demo": checks.demo,
    "doctor": checks.doctor,
    "compare": compare.compare,
}
for name, command in _COMMANDS.items():
    app.command(name, epilog=_EPILOG)(command)
app.add_typer(serve.keys, name="keys")
app.add_typer(train, name="train")


def main() -> None:
    """Entry point of the ``memedit`` script."""
    app()


if __name__ == "__main__":
    main()
