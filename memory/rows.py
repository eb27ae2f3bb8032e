"""The rows of JSON and CSV files, each of which can say what is wrong with it: file, row and field.

Knows nothing of what the rows mean.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple, NoReturn, TextIO

from memedit.errors import BadDataFile, BadRow


class Row(NamedTuple):
    """A row of a file.

    Attributes:
        file: The file.
        number: Its number, as a person would count.
        values: Its fields.
    """

    file: Path
    number: int
    values: Mapping[str, object]

    def fail(self, field: str, problem: str, mend: str) -> NoReturn:
        """Raise `BadRow` for a field."""
        raise BadRow(problem, mend, row=self.number, source=str(self.file), field=field)

    def text(self, field: str) -> str:
        """The text of a field that must be there.

        Raises:
            BadRow: There is none.
        """
        value = self.values.get(field)
        if not isinstance(value, str) or not value.strip():
            self.fail(field, "There is no text here.", "Every row of this format needs it.")
        return value


def json_rows(file: Path) -> Iterator[Row]:
    """The objects of a JSON array or of JSON Lines; a row's number is its place in the array, or its line.

    Raises:
        BadDataFile: The file cannot be read.
        BadRow: A row is no JSON object.
    """
    with reading(file) as stream:
        head = stream.read(1)
        while head.isspace():
            head = stream.read(1)
        stream.seek(0)
        if head != "[":
            yield from _json_lines(file, stream)
            return
        try:
            rows = json.load(stream)
        except (json.JSONDecodeError, RecursionError) as error:
            raise BadDataFile(f"{file} is not JSON: {error}.", "Mend the file, or write one object a line.") from error
    for number, values in enumerate(rows, 1):
        yield _object(file, number, values)


def csv_rows(file: Path, fields: Collection[str]) -> Iterator[Row]:
    """The rows under the header, numbered as a spreadsheet does: the header is row 1.

    Args:
        file: The file; its cells are separated by commas, semicolons or tabs.
        fields: What its columns may be called.

    Raises:
        BadDataFile: The file cannot be read.
        BadRow: A row, or the header, is not as it should be.
    """
    with reading(file) as stream:
        delimiter = max(",;\t", key=stream.readline().count)
        stream.seek(0)
        table = csv.reader(stream, delimiter=delimiter, strict=True)
        columns: list[str] = []
        number = 0
        try:
            for number, cells in enumerate(table, 1):
                if not columns:
                    columns = _header(file, number, cells, fields)
                elif any(cells):
                    if len(cells) > len(columns):
                        problem = f"There are {len(cells)} cells under {len(columns)} columns."
                        raise BadRow(problem, "Quote a cell that holds a comma.", row=number, source=str(file))
                    yield Row(
                        file, number, {column: cell or None for column, cell in zip(columns, cells, strict=False)}
                    )
        except csv.Error as error:
            raise BadRow(
                f"The row is not CSV: {error}.", "Mend its quotes.", row=number + 1, source=str(file)
            ) from error


class reading:  # noqa: N801
    """Opens a text file; what goes wrong with it becomes `BadDataFile`."""

    def __init__(self, file: Path) -> None:
        self._file = file
        try:
            self._stream = file.open(encoding="utf-8-sig", newline="")
        except OSError as error:
            raise self._unreadable(str(error.strerror)) from error

    def __enter__(self) -> TextIO:
        return self._stream

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        self._stream.close()
        if isinstance(error, UnicodeDecodeError):
            raise self._unreadable("it is not UTF-8 text") from error
        if isinstance(error, OSError):
            raise self._unreadable(str(error.strerror)) from error

    def _unreadable(self, why: str) -> BadDataFile:
        return BadDataFile(f"{self._file} cannot be read: {why}.", "Check the path, and save the file as UTF-8.")


def _json_lines(file: Path, stream: TextIO) -> Iterator[Row]:
    for number, line in enumerate(stream, 1):
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as error:
            problem = f"The line is not JSON: {error}."
            raise BadRow(problem, "Write one JSON object a line.", row=number, source=str(file)) from error
        yield _object(file, number, values)


def _object(file: Path, number: int, values: object) -> Row:
    if not isinstance(values, dict):
        raise BadRow("The row is no JSON object.", 'Write it like {"subject": ...}.', row=number, source=str(file))
    return Row(file, number, values)


def _header(file: Path, number: int, cells: list[str], fields: Collection[str]) -> list[str]:
    columns = [cell.strip().lower() for cell in cells]
    for column in columns:
        if column not in fields or columns.count(column) > 1:
            raise BadRow(
                "There is no such column, or it is there twice.",
                f"The first row names the columns, among: {', '.join(fields)}.",
                row=number, source=str(file), field=column,
            )  # fmt: skip
    return columns
