"""Reads the rows of a benchmark's file, and names what is wrong with one: file, row and field.

Knows nothing of what the rows mean.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NoReturn, TypeVar

from pydantic import BaseModel, ValidationError

from memedit.errors import BadDataFile, BadRow

Row = Mapping[str, object]
M = TypeVar("M", bound=BaseModel)

_PROBLEMS = {
    "missing": "is missing.",
    "string_type": "is no text.",
    "string_pattern_mismatch": "is empty.",
    "too_short": "is empty.",
    "tuple_type": "is no list.",
    "dict_type": "is no object.",
    "model_type": "is no object.",
    "model_attributes_type": "is no object.",
}
"""What is wrong with a field, in words of JSON."""
_SHOWN_FIELDS = 8
_COMPARE = "Mend the row, or leave it out."


def read_rows(path: str | Path, name: str, *layouts: Sequence[str]) -> Iterator[Row]:
    """The objects of a JSON array or of JSON Lines, in order.

    Args:
        path: The file.
        name: Name of the format, for messages.
        layouts: The fields of a row, for each layout that the format comes in; a file whose first row has no more than
            half of the fields of any is another format's.

    Raises:
        BadDataFile: The file is missing, unreadable or in another format.
        BadRow: A row is no object.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise BadDataFile(f"{path}: cannot be read ({error.strerror}).", f"Give the path of a {name} file.") from error
    if data.startswith(b"PAR1"):
        raise BadDataFile(
            f"{path}: is a Parquet file.", "Export it first, e.g. datasets.load_dataset(...).to_json(PATH)."
        )
    try:
        text = data.decode("utf-8-sig").strip()
        rows = json.loads(text) if text.startswith("[") else None
    except (ValueError, RecursionError) as error:
        raise _no_json(path, "neither a JSON array nor JSON Lines", error, name) from error
    rows = list(_lines(text, path, name)) if rows is None else rows
    if not rows:
        raise BadDataFile(f"{path}: holds no rows.", f"Give a {name} file.")
    first = rows[0]
    if not any(_has_most(first, fields) for fields in layouts):
        found = ", ".join(list(first)[:_SHOWN_FIELDS]) if isinstance(first, dict) else type(first).__name__
        raise BadDataFile(
            f"{path}: is not in the format of {name}: its first row has {found}.",
            f"A row of {name} has {'; or '.join(', '.join(fields) for fields in layouts)}.",
        )
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise BadRow("is not an object.", f"Give a {name} file.", row=number, source=path.name)
        yield row


def _lines(text: str, path: Path, name: str) -> Iterator[object]:
    """The values of JSON Lines; a row ends with a line feed, and nothing else."""
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            yield json.loads(line)
        except (ValueError, RecursionError) as error:
            if number == 1:
                is_one = line.startswith("{") and "Extra data" not in str(error)
                found = (
                    "one JSON object, or its first line is broken" if is_one else "neither a JSON array nor JSON Lines"
                )
                raise _no_json(path, found, error, name) from error
            raise BadRow(f"is no JSON ({error}).", _COMPARE, row=number, source=path.name) from error


def _no_json(path: Path, found: str, error: Exception, name: str) -> BadDataFile:
    return BadDataFile(f"{path}: is {found} ({error}).", f"Give a {name} file: an array, or a row a line.")


def _has_most(row: object, fields: Sequence[str]) -> bool:
    return isinstance(row, dict) and sum(field in row for field in fields) > len(fields) // 2


def parse_row(model: type[M], row: object, number: int, source: str) -> M:
    """A row as a checked value.

    Args:
        model: What it must be.
        row: The row.
        number: Its 1-based number.
        source: Name of its file.

    Raises:
        BadRow: A field is missing or wrong; the first such field is named.
    """
    try:
        return model.model_validate(row)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"])
        problem = _PROBLEMS.get(first["type"], f"{first['msg'].removeprefix('Value error, ')}.")
        fail_row(problem, number, source, field)


def fail_row(problem: str, number: int, source: str, field: str) -> NoReturn:
    """Raise `BadRow` for a field of a row."""
    raise BadRow(problem, _COMPARE, row=number, source=source, field=field) from None
