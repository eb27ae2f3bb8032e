"""Facts in and out of files: JSON Lines and CSV both ways, and the edit requests of MQuAKE, CounterFact and zsRE.

Readers yield `FactInput` row by row and write nothing, so that a memory can take a whole file in one transaction or
none of it. A bad row is named by file, row and field.

Knows nothing of stored facts or of any memory.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, date, datetime, time
from pathlib import Path
from typing import Literal, TextIO, get_args

from memedit.errors import BadDataFile, BadRow, InvalidFact
from memedit.memory.catalogue import Catalogue
from memedit.memory.entities import normalise
from memedit.memory.fact import FREE_TEXT, Fact, FactInput
from memedit.memory.rows import Row, csv_rows, json_rows, reading

Format = Literal["jsonl", "csv", "mquake", "counterfact", "zsre"]
"""Formats of facts. ``jsonl`` is also read from a JSON array; the last three are read only."""

FIELDS: tuple[str, ...] = tuple(FactInput.model_fields)
"""The columns of a CSV file and the keys of a JSON Lines row: the fields of `FactInput`."""


def read_facts(
    path: str | Path,
    format: Format | None = None,  # noqa: A002
    *,
    catalogue: Catalogue | None = None,
) -> Iterator[FactInput]:
    """The facts of a file, one row at a time.

    - ``jsonl`` and ``csv``: what `write_facts` writes. Columns may be missing; times are ISO 8601 with a time zone, a bare
      date being midnight UTC; an empty CSV cell is no value.
    - ``mquake``: every requested rewrite, once.
    - ``counterfact``: the rewrite with its relation; in EasyEdit's reduced format, which has none, a statement.
    - ``zsre``: a triple where the question fits a template of the catalogue and asks about the row's subject, else
      question and answer as a free-text fact.

    Args:
        path: A UTF-8 file, with or without a byte order mark.
        format: The format; None finds it out from the file's name and first row.
        catalogue: Reads the questions of ``zsre``; None is `Catalogue.default()`.

    Raises:
        BadDataFile: The file cannot be read or its format is not known.
        BadRow: A row is no fact; raised when the row is reached.
    """
    file = Path(path)
    found = _sniff(file) if format is None else _known(format, get_args(Format))
    if found == "csv":
        return map(_fact, csv_rows(file, FIELDS))
    if found == "mquake":
        return _mquake_facts(json_rows(file))
    questions = Catalogue.default() if catalogue is None else catalogue
    return (_read(row, found, questions) for row in json_rows(file))


def edit_request(
    values: Mapping[str, object],
    format: Literal["counterfact", "zsre"],  # noqa: A002
    *,
    catalogue: Catalogue,
    file: str | Path,
    row: int,
) -> FactInput:
    """The fact of one row of CounterFact or zsRE that was read already, as `read_facts` gives it.

    Args:
        values: The row.
        format: Which of the two; KnowEdit's rows have the fields of CounterFact in EasyEdit's reduced format.
        catalogue: Reads the questions of ``zsre``.
        file: Where the row stands, for the fact's source and for messages.
        row: Its 1-based number.

    Raises:
        BadRow: The row is no fact.
    """
    return _read(Row(Path(file), row, values), format, catalogue)


def _read(row: Row, format: str, catalogue: Catalogue) -> FactInput:  # noqa: A002
    if format == "zsre":
        return _zsre_fact(row, catalogue)
    return _counterfact_fact(row) if format == "counterfact" else _fact(row)


def write_facts(path: str | Path, facts: Iterable[FactInput | Fact], format: Format | None = None) -> int:  # noqa: A002
    """Write facts to a file, which appears whole or not at all. `read_facts` reads back equal values.

    Args:
        path: Where to; an existing file is replaced.
        facts: What to write. Of a recorded `Fact`, what it takes to assert it again: not its id, nor its history.
        format: ``jsonl`` or ``csv``; None goes by the file's name.

    Returns:
        How many facts were written.

    Raises:
        BadDataFile: The format is not one that is written, or the file cannot be written.
    """
    file = Path(path)
    found = format or _SUFFIXES.get(file.suffix.lower()) or file.suffix or str(file)
    part = file.with_name(file.name + ".part")
    try:
        with part.open("w", encoding="utf-8", newline="") as out:
            count = dump_facts(out, facts, _known(found, ("jsonl", "csv")))
            out.flush()
            os.fsync(out.fileno())
        part.replace(file)
    except OSError as error:
        raise BadDataFile(f"{file} cannot be written: {error.strerror}.", "Choose another path.") from error
    finally:
        part.unlink(missing_ok=True)
    return count


def dump_facts(out: TextIO, facts: Iterable[FactInput | Fact], format: str = "jsonl") -> int:  # noqa: A002
    """Write facts to an open stream (for a file, one opened with ``newline=""``), as `write_facts` does.

    Returns:
        How many facts were written.
    """
    count = 0
    if _known(format, ("jsonl", "csv")) == "csv":
        table = csv.DictWriter(out, FIELDS)
        table.writeheader()
        for count, fact in enumerate(facts, 1):  # noqa: B007
            table.writerow(_values(fact))
        return count
    for count, fact in enumerate(facts, 1):  # noqa: B007
        given = {field: value for field, value in _values(fact).items() if value is not None}
        out.write(json.dumps(given, ensure_ascii=False) + "\n")
    return count


def as_input(fact: Fact) -> FactInput:
    """What it takes to assert a recorded fact again."""
    free = fact.is_free_text
    return FactInput(
        subject=None if free else fact.subject,
        relation=fact.relation,
        object=None if free else fact.object,
        statement=fact.statement,
        valid_from=fact.valid_from,
        valid_to=fact.valid_to,
        source=fact.source,
    )


# -- formats -------------------------------------------------------------------------------------------------

_SUFFIXES: dict[str, Format] = {".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl", ".csv": "csv", ".tsv": "csv"}


def _known(name: str, formats: tuple[str, ...]) -> str:
    if name not in formats:
        raise BadDataFile(f"{name!r} is no format of facts here.", f"Use one of: {', '.join(formats)}.")
    return name


def _sniff(file: Path) -> str:
    """The format of a file, by its name and the keys of its first row."""
    by_name = _SUFFIXES.get(file.suffix.lower())
    if by_name == "csv":
        with reading(file):
            return by_name
    try:
        first = next(json_rows(file), None)
    except BadRow as error:
        raise BadDataFile(f"{file} has no format that is known: its first row is not JSON.", _MEND) from error
    if first is None and by_name is not None:
        return by_name
    keys = frozenset() if first is None else first.values.keys()
    if first is not None and "requested_rewrite" in keys:
        return "mquake" if isinstance(first.values["requested_rewrite"], list) else "counterfact"
    if {"src", "subject"} <= keys:
        return "zsre"
    if {"prompt", "subject", "target_new"} <= keys:
        return "counterfact"
    if keys & set(FIELDS):
        return "jsonl"
    raise BadDataFile(f"{file} has no format that is known; its first row holds {sorted(keys) or 'nothing'}.", _MEND)


_MEND = f"Facts are JSON Lines or CSV with the fields {', '.join(FIELDS)}, or the edit requests of MQuAKE, CounterFact or zsRE."


# -- rows into facts -----------------------------------------------------------------------------------------


def _fact(row: Row) -> FactInput:
    unknown = [key for key in row.values if key not in FIELDS]
    if unknown:
        row.fail(unknown[0], "There is no such field.", f"A fact has the fields {', '.join(FIELDS)}.")
    values: dict[str, str | datetime | None] = {}
    for field, value in row.values.items():
        if value is not None and not isinstance(value, str):
            row.fail(field, f"{value!r} is not text.", "Put it in quotes.")
        values[field] = _moment(row, field, value) if value and field.startswith("valid_") else value
    triple = [values.get(field) for field in ("subject", "relation", "object")]
    if not all(triple) and not (values.get("statement") and (not any(triple) or triple == [None, FREE_TEXT, None])):
        missing = next(field for field in ("subject", "relation", "object") if not values.get(field))
        row.fail(missing, "It is missing.", "Give subject, relation and object, or a statement alone.")
    for field in ("subject", "object"):
        if isinstance(name := values.get(field), str):
            _check_name(row, field, name)
    return FactInput.model_validate(values)


def _check_name(row: Row, field: str, name: str) -> None:
    try:
        normalise(name)
    except InvalidFact as error:
        row.fail(field, error.problem, error.mend)


def _moment(row: Row, field: str, text: str) -> datetime:
    try:
        if len(text) == len("2026-01-31"):
            return datetime.combine(date.fromisoformat(text), time(), UTC)
        moment = datetime.fromisoformat(text)
    except ValueError:
        row.fail(field, f"{text!r} is no time.", 'Write it like "2026-01-31" or "2026-01-31T12:00:00+00:00".')
    if moment.utcoffset() is None:
        row.fail(field, f"{text!r} has no time zone.", 'Add one, e.g. "+00:00".')
    return moment


def _values(fact: FactInput | Fact) -> dict[str, str | None]:
    given = as_input(fact) if isinstance(fact, Fact) else fact
    return {
        field: value.isoformat() if isinstance(value := getattr(given, field), datetime) else value for field in FIELDS
    }


def _rewritten(row: Row, rewrite: object) -> tuple[str, str | None, str, str]:
    """Subject, relation id, new object and prompt of a ``requested_rewrite``."""
    if not isinstance(rewrite, dict):
        row.fail("requested_rewrite", "It holds no rewrite.", "It must be an object with subject and target_new.")
    target = rewrite.get("target_new_str") or rewrite.get("target_new")
    fields = {
        "subject": rewrite.get("subject"),
        "target_new": target.get("str") if isinstance(target, dict) else target,
        "relation_id": rewrite.get("relation_id") or "",
        "prompt": rewrite.get("prompt") or "",
    }
    for field, value in fields.items():
        if not isinstance(value, str):
            row.fail(f"requested_rewrite.{field}", "There is no text here.", "Every rewrite needs it.")
    for field in ("subject", "target_new"):
        _check_name(row, f"requested_rewrite.{field}", str(fields[field]))
    subject, target, relation, prompt = map(str, fields.values())
    return subject, relation or None, target, prompt


def _mquake_facts(rows: Iterator[Row]) -> Iterator[FactInput]:
    """The rewrites of all cases; the cases share many of them, and each is given once, where it first stands."""
    seen: set[tuple[str, str, str]] = set()
    for row in rows:
        rewrites = row.values.get("requested_rewrite")
        if not isinstance(rewrites, list):
            row.fail("requested_rewrite", "It is no list of rewrites.", "Every case of MQuAKE has one.")
        for rewrite in rewrites:
            subject, relation, target, _ = _rewritten(row, rewrite)
            if relation is None:
                row.fail("requested_rewrite.relation_id", "It is missing.", "Every rewrite of MQuAKE has one.")
            key = (normalise(subject), relation, normalise(target))
            if key not in seen:
                seen.add(key)
                yield FactInput(subject=subject, relation=relation, object=target, source=_source(row))


def _counterfact_fact(row: Row) -> FactInput:
    if "requested_rewrite" in row.values:
        subject, relation, target, prompt = _rewritten(row, row.values["requested_rewrite"])
        if relation is not None:
            return FactInput(subject=subject, relation=relation, object=target, source=_source(row))
    else:
        subject, target, prompt = row.text("subject"), row.text("target_new"), row.text("prompt")
    sentence = f"{prompt.replace('{}', subject).strip()} {target.strip()}"
    return FactInput(statement=sentence if sentence.endswith(".") else f"{sentence}.", source=_source(row))


def _zsre_fact(row: Row, catalogue: Catalogue) -> FactInput:
    subject, question = row.text("subject"), " ".join(row.text("src").split())
    answers = row.values.get("answers")
    if not row.values.get("alt") and isinstance(answers, list) and answers:
        row = row._replace(values={**row.values, "alt": answers[0]})
    answer = row.text("alt")
    asked = catalogue.parse_question(question)
    if asked is not None and normalise(asked[0]) == normalise(subject):
        return FactInput(subject=subject, relation=asked[1], object=answer, source=_source(row))
    return FactInput(relation=FREE_TEXT, statement=f"{question} {answer}", source=_source(row))


def _source(row: Row) -> str:
    return f"{row.file.name}, row {row.number}"
