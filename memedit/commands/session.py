"""What every command shares: the global options, the dates people type, and how the memory and the editor are opened.

Imports nothing heavy, so that ``memedit --help`` and ``memedit add`` are quick.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from memedit.commands import show
from memedit.errors import ReadOnlyStore

if TYPE_CHECKING:
    from memedit.editor import MemEditor
    from memedit.memory.memory import EditMemory


def parse_date(text: str) -> datetime:
    """An ISO date or date and time; without a zone it is UTC.

    >>> parse_date("2024-05-01").isoformat()
    '2024-05-01T00:00:00+00:00'

    Raises:
        typer.BadParameter: It is neither.
    """
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is no ISO date, such as 2024-05-01 or 2024-05-01T12:00+02:00.") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else (messages go to stderr).")]
AsOf = Annotated[
    datetime | None,
    typer.Option("--as-of", parser=parse_date, metavar="DATE", help="As the memory stood then (ISO date, UTC)."),
]
Strategy = Annotated[str, typer.Option(help="How to answer: walk (the default), base, or an installed one.")]


@dataclass(frozen=True, slots=True)
class Session:
    """The global options of one call.

    Attributes:
        memory: A SQLite file or a database URL; None is `default_memory`.
        namespace: The tenant.
        model: A model spec, see `memedit.models.load_model`.
    """

    memory: str | None
    namespace: str
    model: str

    @property
    def memory_path(self) -> str:
        """Where the memory is."""
        return self.memory or default_memory()

    def open_memory(self) -> EditMemory:
        """The edit memory, created where there is none. Writes embed nothing; the next search does.

        Raises:
            StoreError: It cannot be opened.
        """
        from memedit.memory.memory import EditMemory

        if not self.memory:
            _make_folder(default_memory())
        return EditMemory(self.memory_path, embed_on_write=False)

    def open_editor(self, memory: EditMemory, strategy: str = "walk") -> MemEditor:
        """An editor over an open memory; it loads the model when it is first needed.

        Raises:
            InvalidSpec: There is no such strategy.
            UnknownNamespace: Nothing was ever written to the namespace: a typing error, more likely than a wish.
        """
        from memedit.editor import MemEditor

        memory.view(namespace=self.namespace, must_exist=True)
        return MemEditor(self.model, memory, namespace=self.namespace, strategy=strategy)


def embed(memory: EditMemory) -> None:
    """Embed what was written without, with a progress bar; the first search would, without a word."""
    with show.progress("Preparing the facts") as tell:
        memory.embed_pending(tell)


def session(context: typer.Context) -> Session:
    """The session that the global options made."""
    found = context.find_object(Session)
    assert found is not None
    return found


def default_memory() -> str:
    """The SQLite file used where no other is named: memedit.db in the user's data folder."""
    from platformdirs import user_data_path

    return str(user_data_path("memedit", appauthor=False) / "memedit.db")


def _make_folder(path: str) -> None:
    from pathlib import Path

    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ReadOnlyStore(
            f"The folder of the memory cannot be made: {error}.", "Name a file you can write: --memory FILE."
        ) from error
