"""The state's snapshot: the fold of a long log in columns, read in a tenth of the time that reading the log takes.

A cache like the index's: written to a temporary file, fsync, rename, with a checksum, the log position it stands at and the
chain's hash there. Whatever is wrong with it, the state is folded from the log; what the log holds beyond it is folded
onto it. It holds texts of facts, so it must go when facts are erased. Knows nothing of SQL.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache
from hashlib import blake2b
from importlib import resources
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import numpy.typing as npt

from memedit.memory.catalogue import Catalogue
from memedit.memory.fact import EndReason, Relation
from memedit.memory.record import End, Record
from memedit.memory.snapshot import CorruptIndex, Sink, read_snapshot, write_snapshot
from memedit.memory.state import NamespaceState, State
from memedit.memory.store import Entry

Numbers = npt.NDArray[np.int64]

_FORMAT = 1_000_001  # no number of the index's format, whose files are made in the same way
_EndRow = tuple[int, str, int | None]


class Origin(NamedTuple):
    """Which log a state is the fold of.

    Attributes:
        memory: The memory's id.
        position: Log position.
        hash: The chain's hash there, in hexadecimal.
    """

    memory: str
    position: int
    hash: str


def save_state(path: Path, state: State, origin: Origin) -> bool:
    """Write a snapshot.

    Args:
        path: The file; it is replaced in one step.
        state: The state. It is locked while it is copied out.
        origin: What it is the fold of.

    Returns:
        Whether it was written; not if the state has gone on from `origin`, or holds something that cannot be written so.

    Raises:
        OSError: The folder cannot be written.
    """
    with state.lock:
        if state.position != origin.position:
            return False
        head = {"origin": origin._asdict(), "rules": _rules(), "definitions": state.definitions}
        head |= {"last_fact": state.last_fact, "compacted": state.compacted}
        head["relations"] = [relation.model_dump_json() for relation in state.relations.values()]
        spaces = [_Columns.of(space) for space in state.namespaces.values()]
    if any(space is None for space in spaces):
        return False

    def write(sink: Sink) -> None:
        sink.write(json.dumps(head).encode() + b"\n")
        for space in spaces:
            if space is not None:
                space.write(sink)

    write_snapshot(path, _FORMAT, write)
    return True


def load_state(path: Path, catalogue: Catalogue, belongs: Callable[[Origin], bool]) -> State | None:
    """Read a snapshot.

    Args:
        path: The file.
        catalogue: The relations; those that the log defines are added to it.
        belongs: Tells whether a log is the caller's.

    Returns:
        The state; None where the file is not there, is damaged, was made by other rules of naming, or does not belong.
    """
    try:
        with read_snapshot(path, _FORMAT) as file:
            head = json.loads(file.readline())
            origin = Origin(**head["origin"])
            if head["rules"] != _rules() or not belongs(origin):
                return None
            spaces = []
            while line := file.readline():
                spaces.append(_Columns.read(line, file).space())
    except (OSError, CorruptIndex, ValueError, LookupError, TypeError):
        return None
    state = State(catalogue)
    for text in head["relations"]:
        relation = catalogue.define(Relation.model_validate_json(text))
        state.relations[relation.id] = relation
    state.definitions, state.last_fact, state.compacted = head["definitions"], head["last_fact"], head["compacted"]
    state.position = origin.position
    state.namespaces = {space.name: space for space in spaces}
    return state


class _Columns(NamedTuple):
    """A namespace's state as columns.

    Attributes:
        head: What there is little of, as JSON.
        numbers: int64 [3, n]: id, time and transaction of each fact, oldest first.
        texts: int32 [7, n]: places in `words` of relation, subject, object, their keys, and the forms of statement and question.
        undoable: int64 [m]: the transactions that can be undone.
        words: Every text, once.
    """

    head: dict[str, Any]
    numbers: Numbers
    texts: npt.NDArray[np.int32]
    undoable: Numbers
    words: Sequence[str]

    @classmethod
    def of(cls, space: NamespaceState) -> _Columns | None:
        """The columns of a namespace; None if one of its texts cannot be told from two."""
        records = list(space.facts.values())
        places: dict[str, int] = {}
        texts = np.empty((7, len(records)), np.int32)
        for row, record in enumerate(records):
            for column, text in enumerate(
                (
                    record.relation,
                    record.subject,
                    record.object,
                    record.subject_key,
                    record.object_key,
                    record.statement_form,
                    record.question_form,
                )
            ):
                texts[column, row] = places.setdefault(text, len(places))
        if any("\n" in text for text in places):
            return None
        head: dict[str, Any] = {
            "name": space.name,
            "horizon": space.horizon,
            "undoing": space.undoing,
            "timed": space.timed,
            "longest_name": space.longest_name,
            "facts": len(records),
            "undoable": len(space.undoable),
            "named": [list(entry) for entry in space.named],
            "valid": [
                [row, record.valid_from, record.valid_to]
                for row, record in enumerate(records)
                if record.valid_from is not None or record.valid_to is not None
            ],
            "sources": [[row, record.source] for row, record in enumerate(records) if record.source is not None],
            "ends": [[row, *_end_row(record.end)] for row, record in enumerate(records) if record.end is not None],
            "revivals": [
                [row, [[*_end_row(end), revived] for end, revived in record.revivals]]
                for row, record in enumerate(records)
                if record.revivals
            ],
        }
        numbers = np.array(
            [(record.id, record.recorded_at, record.transaction) for record in records], np.int64
        ).T.reshape(3, -1)
        return cls(head, numbers, texts, np.array(space.undoable, np.int64), list(places))

    def write(self, sink: Sink) -> None:
        """Write it: a line of JSON, the arrays, and the words, one a line."""
        words = "\n".join(self.words).encode()
        sink.write(json.dumps(self.head | {"words": len(words)}).encode() + b"\n")
        for array, kind in ((self.numbers, "<i8"), (self.texts, "<i4"), (self.undoable, "<i8")):
            sink.write(array.astype(kind).tobytes())
        sink.write(words)

    @classmethod
    def read(cls, line: bytes, file: BinaryIO) -> _Columns:
        """Read what `write` wrote; its first line has been read."""
        head = json.loads(line)
        count = head["facts"]
        numbers = np.frombuffer(file.read(24 * count), "<i8").reshape(3, count)
        texts = np.frombuffer(file.read(28 * count), "<i4").reshape(7, count)
        undoable = np.frombuffer(file.read(8 * head["undoable"]), "<i8")
        return cls(head, numbers, texts, undoable, file.read(head["words"]).decode().split("\n"))

    def space(self) -> NamespaceState:
        """The namespace's state."""
        head, words = self.head, self.words
        space = NamespaceState(head["name"])
        space.horizon, space.undoing, space.timed = head["horizon"], head["undoing"], head["timed"]
        space.longest_name, space.undoable = head["longest_name"], self.undoable.tolist()
        space.named = [Entry(*row) for row in head["named"]]
        space.read_names()
        columns = [[words[place] for place in column] for column in self.texts.tolist()]
        records = [Record.of(space.name, *row) for row in zip(*self.numbers.tolist(), *columns, strict=True)]
        for row, start, stop in head["valid"]:
            records[row].valid_from, records[row].valid_to = start, stop
        for row, source in head["sources"]:
            records[row].source = source
        for row, *end in head["ends"]:
            records[row].end = _end(*end)
        for row, revivals in head["revivals"]:
            records[row].revivals = tuple((_end(*end), revived) for *end, revived in revivals)
        live, ended = space.live, space.ended
        for record in records:
            (live if record.end is None else ended).add(record)
        space.facts = {record.id: record for record in records}
        space.relations = dict(Counter(record.relation for record in records if record.end is None))
        space.live_count = sum(space.relations.values())
        return space


@cache
def _rules() -> str:
    """A digest of what keys are made by: a snapshot that was made by other rules is of no use."""
    package = resources.files(__package__)
    made = blake2b(digest_size=16)
    for name in ("aliases.toml", "entities.py"):
        made.update(package.joinpath(name).read_bytes())
    return made.hexdigest()


def _end_row(end: End) -> _EndRow:
    return end.at, end.reason.value, end.superseded_by


def _end(at: int, reason: str, superseded_by: int | None) -> End:
    return End(at, EndReason(reason), superseded_by)
