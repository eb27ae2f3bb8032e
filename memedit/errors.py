"""Every exception memedit raises on purpose, in one tree.

A message has three parts: what happened, why, and how to mend it. Code that catches `MemEditError` catches
everything here; each class also derives from the built-in exception a caller would expect, so that
``except ValueError`` works too. This module imports nothing and may be imported from any folder.
"""

from __future__ import annotations


class MemEditError(Exception):
    """Base of all memedit errors.

    Args:
        problem: What is wrong and why, in one sentence that names the thing.
        mend: What the reader can do about it.
    """

    def __init__(self, problem: str, mend: str = "") -> None:
        super().__init__(problem, mend)
        self.problem = problem
        self.mend = mend

    def __str__(self) -> str:
        return f"{self.problem} {self.mend}".rstrip()


# -- what a caller passed in ---------------------------------------------------------------------------------


class InvalidFact(MemEditError, ValueError):
    """A fact that cannot be recorded as it is: an empty or over-long name, control characters, bad times."""


class BadRow(InvalidFact):
    """One row of a batch or of an imported file is bad; nothing of the batch was written.

    Args:
        row: 1-based number of the row.
        source: The file, or "batch".
        field: The field at fault, where one can be named.
    """

    def __init__(self, problem: str, mend: str = "", *, row: int, source: str = "batch", field: str = "") -> None:
        where = f"{source}, row {row}" + (f", field {field!r}" if field else "")
        super().__init__(f"{where}: {problem}", mend)
        self.args = (problem, mend, row, source, field)
        self.row = row
        self.source = source
        self.field = field

    def __reduce__(self) -> tuple[object, ...]:
        problem, mend, row, source, field = self.args
        return (_bad_row, (problem, mend, row, source, field))


def _bad_row(problem: str, mend: str, row: int, source: str, field: str) -> BadRow:
    return BadRow(problem, mend, row=row, source=source, field=field)


class UnknownRelation(MemEditError, LookupError):
    """A relation id that the catalogue does not have."""


class UnknownFact(MemEditError, LookupError):
    """A fact id that this namespace does not have."""


class UnknownEntity(MemEditError, LookupError):
    """An entity that this namespace holds nothing about."""


class UnknownNamespace(MemEditError, LookupError):
    """A namespace that nothing was ever written to."""


class AlreadyRetracted(MemEditError, ValueError):
    """The fact is no longer live, so it cannot be retracted again."""


class NothingToUndo(MemEditError, LookupError):
    """There is no write left to undo in this namespace."""


class InvalidQuestion(MemEditError, ValueError):
    """A question that is empty or longer than the model can read."""


class InvalidSpec(MemEditError, ValueError):
    """A model, strategy or option name that means nothing."""


class BadDataFile(MemEditError, ValueError):
    """A data file in a format that is not known."""


# -- the edit memory -----------------------------------------------------------------------------------------


class HistoryCompacted(MemEditError, LookupError):
    """A past moment of which something has been erased since, so that it can no longer be read as it was."""


class StoreError(MemEditError):
    """The database of the edit memory cannot be used."""


class ForeignDatabase(StoreError):
    """The file is a database, but not one of memedit's; it was left untouched."""


class CorruptDatabase(StoreError):
    """The file is damaged or no database at all; it was left untouched."""


class ReadOnlyStore(StoreError, PermissionError):
    """The database or its folder cannot be written."""


class StoreBusy(StoreError, TimeoutError):
    """Another process held the database longer than the timeout."""


class StoreUnavailable(StoreError, ConnectionError):
    """The database server cannot be reached, or the connection to it broke."""


class PositionNotReached(StoreError, TimeoutError):
    """This process has not seen the log as far as a read asked for, within the time it was given.

    Args:
        asked: The log position asked for.
        reached: The position that was reached.
    """

    def __init__(self, problem: str, mend: str = "", *, asked: int = 0, reached: int = 0) -> None:
        super().__init__(problem, mend)
        self.asked = asked
        self.reached = reached


class IndexRebuilt(UserWarning):
    """The vector index was missing, damaged or behind and was rebuilt from the log. A notice; nothing was lost."""


# -- models and servers --------------------------------------------------------------------------------------


class ModelError(MemEditError):
    """The language model or the embedder failed."""


class ModelNotFound(ModelError, FileNotFoundError):
    """No model under that name or path."""


class ModelUnavailable(ModelError, ConnectionError):
    """The model server does not answer or refuses."""


class ModelTimeout(ModelError, TimeoutError):
    """The model server did not answer in time."""


class BadModelResponse(ModelError, ValueError):
    """The model server answered something that is not a completion."""


class PromptTooLong(ModelError, ValueError):
    """The prompt and the answer do not fit the model's context window."""


# -- the server ----------------------------------------------------------------------------------------------


class Unauthenticated(MemEditError, PermissionError):
    """A request without an API key, or with one that is not, or no longer, known."""


class AccessDenied(MemEditError, PermissionError):
    """The API key's role or namespaces do not cover what was asked for."""


class RequestTooLarge(MemEditError, ValueError):
    """A request with more bytes than are accepted."""


class InvalidRequest(MemEditError, ValueError):
    """A request that cannot be read: it is no JSON, or a field is missing or of the wrong kind.

    Args:
        field: The field at fault, where one can be named.
    """

    def __init__(self, problem: str, mend: str = "", *, field: str = "") -> None:
        super().__init__(problem, mend)
        self.field = field


class TooManyRequests(MemEditError):
    """More requests than a client may send in the time.

    Args:
        wait: Seconds until the next one is accepted.
    """

    def __init__(self, problem: str, mend: str = "", *, wait: float = 1.0) -> None:
        super().__init__(problem, mend)
        self.wait = wait


# -- weights --------------------------------------------------------------------------------------------------


class UnknownLayers(ModelError, ValueError):
    """A model whose weights cannot be edited: its architecture is not known, or it is not in this process."""


class InvalidEdit(MemEditError, ValueError):
    """A weight edit that cannot be applied: its subject is not in its prompt, or a part of it is empty."""


class WeightsEdited(UserWarning):
    """Answers come from a copy of the model whose weights were edited, for comparison; the model itself is unchanged."""


class MissingExtra(MemEditError, ImportError):
    """A part of memedit needs a package that is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"The package {package!r} is not installed.", f'Install it with: pip install "memedit[{extra}]"'
        )
        self.args = (package, extra)
        self.package = package
        self.extra = extra
