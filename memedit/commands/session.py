"""What every command shares: the global options, the dates people type, and how the memory and the editor are opened.

Imports nothing heavy, so that ``memedit --help`` and ``memedit add`` are quick.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from memedit.commands import show
from memedit.errors import ReadOnlyStore

if TYPE_CHECKING:
    from memedit.editor import MemEditor
    from memedit.memory.memory import EditMemory
    from memedit.server.audit import Job

ACCESS = "MEMEDIT_ACCESS"
"""The environment variable that says where API keys and the audit log are, if not beside the memory."""
_T = TypeVar("_T")


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


def parse_span(text: str) -> timedelta:
    """A number of weeks, days, hours or minutes.

    >>> parse_span("90d").days, parse_span("12h").seconds
    (90, 43200)

    Raises:
        typer.BadParameter: It is none.
    """
    units = {"w": "weeks", "d": "days", "h": "hours", "m": "minutes"}
    number, unit = text[:-1], units.get(text[-1:].lower())
    try:
        if unit is not None and number.isdecimal():
            return timedelta(**{unit: int(number)})
    except OverflowError:
        pass
    raise typer.BadParameter(f"{text!r} is no time, such as 90d, 12h or 4w.")


Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout and nothing else (messages go to stderr).")]
AsOf = Annotated[
    datetime | None,
    typer.Option("--as-of", parser=parse_date, metavar="DATE", help="As the memory stood then (ISO date, UTC)."),
]
Strategy = Annotated[
    str,
    typer.Option(
        metavar="NAME", help="How to answer: walk, serac, ike, mello, mello-structured, base, or an installed one."
    ),
]
Demonstrations = Annotated[
    Path | None,
    typer.Option(
        exists=True, dir_okay=False, metavar="FILE", help="JSON Lines that ike takes its demonstrations from."
    ),
]


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

    def make_folder(self) -> None:
        """Make the folder of the default memory, if that is the one.

        Raises:
            ReadOnlyStore: It cannot be made.
        """
        if not self.memory:
            _make_folder(default_memory())

    def open_memory(self, *, embed_on_write: bool = False) -> EditMemory:
        """The edit memory, created where there is none.

        Args:
            embed_on_write: Whether writes embed their texts; else the next search does.

        Raises:
            StoreError: It cannot be opened.
        """
        from memedit.memory.memory import EditMemory

        self.make_folder()
        in_database = [name.strip() for name in os.environ.get("MEMEDIT_PGVECTOR", "").split(",") if name.strip()]
        return EditMemory(self.memory_path, embed_on_write=embed_on_write, in_database=in_database)

    def write(self, action: str, job: Job[_T], *, namespaces: Sequence[str] = ()) -> _T:
        """Do a write with an entry in the audit log: who, when, and what came of it.

        Args:
            action: What is done.
            job: Does it; gives its result, and the ids of the facts that it recorded or ended.
            namespaces: Where to, each with an entry of its own; by default the session's.

        Raises:
            StoreError: The audit log cannot be written to; then nothing was done.
        """
        from memedit.server.audit import audited, local_writer
        from memedit.server.records import Records, records_beside

        with Records(os.environ.get(ACCESS) or records_beside(self.memory_path)) as records:
            return audited(records, local_writer("cli"), namespaces or (self.namespace,), action, job)

    def open_editor(self, memory: EditMemory, strategy: str = "walk", demonstrations: Path | None = None) -> MemEditor:
        """An editor over an open memory; it loads the model when it is first needed.

        Args:
            memory: The memory.
            strategy: Name of the strategy.
            demonstrations: The file that `ike` takes its demonstrations from.

        Raises:
            InvalidSpec: There is no such strategy, or it takes no demonstrations.
            BadDataFile, BadRow: The demonstrations are not as they should be.
            UnknownNamespace: Nothing was ever written to the namespace: a typing error, more likely than a wish.
        """
        from memedit.editor import MemEditor
        from memedit.strategies import with_demonstrations

        memory.view(namespace=self.namespace, must_exist=True)
        chosen = with_demonstrations(strategy, demonstrations)
        return MemEditor(self.model, memory, namespace=self.namespace, strategy=chosen)


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
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ReadOnlyStore(
            f"The folder of the memory cannot be made: {error}.", "Name a file you can write: --memory FILE."
        ) from error
