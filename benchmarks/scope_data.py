"""The rows of ``benchmarks.scope``, and the memory that they are judged in.

Knows nothing of classifiers or figures.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from memedit.errors import BadDataFile
from memedit.memory.fact import FactInput

if TYPE_CHECKING:
    from memedit.memory.memory import EditMemory


@dataclass(frozen=True, slots=True)
class Row:
    """An edit and the texts to judge it by.

    Attributes:
        subject: Name of the subject.
        relation: Relation id or name, or None.
        object: Name of the object.
        statement: The edit as a sentence.
        in_scope: Texts about it.
        out_of_scope: Texts that are not, by kind.
    """

    subject: str
    relation: str | None
    object: str
    statement: str
    in_scope: tuple[str, ...] = ()
    out_of_scope: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def fact(self) -> FactInput:
        """The edit as it is written to the memory."""
        if self.relation is None:
            return FactInput(statement=self.statement)
        return FactInput(
            subject=self.subject, relation=self.relation, object=self.object, statement=self.statement or None
        )


def load(path: Path) -> list[Row]:
    """Read the rows of a file.

    Raises:
        BadDataFile: The file cannot be read, or a line of it is no row; the message names the line.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadDataFile(f"{path}: cannot be read ({error}).", "Give a JSON Lines file in UTF-8.") from error
    rows = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            rows.append(_row(json.loads(line)))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise BadDataFile(
                f"{path}, line {number}: is not a row ({type(error).__name__}: {error}).",
                "See the example in the documentation of benchmarks.scope.",
            ) from error
    if not rows:
        raise BadDataFile(f"{path}: holds no rows.", "Give a file with at least one row.")
    return rows


def _row(raw: dict[str, object]) -> Row:
    edit, inside, outside = raw["edit"], raw.get("in_scope", []), raw.get("out_of_scope", {})
    if not isinstance(edit, dict) or not isinstance(inside, list) or not isinstance(outside, dict):
        raise TypeError("edit and out_of_scope must be objects, in_scope a list")
    relation = edit.get("relation")
    return Row(
        str(edit["subject"]),
        str(relation) if relation else None,
        str(edit["object"]),
        str(edit.get("statement") or (f"{edit['subject']}: {edit['object']}" if not relation else "")),
        tuple(map(str, inside)),
        {str(kind): tuple(map(str, texts)) for kind, texts in outside.items()},
    )


class Filled(NamedTuple):
    """Which facts of the memory are the rows' edits.

    Attributes:
        owner: Fact id to row number.
        slots: For each row, the number of the row whose edit stands in its slot: its own, or a later one.
    """

    owner: dict[int, int]
    slots: list[int]


def fill_memory(memory: EditMemory, rows: Sequence[Row], size: int, seed: int) -> Filled:
    """Write the rows' edits, then invented facts up to `size`."""
    receipts = memory.assert_facts([row.fact() for row in rows])
    owner: dict[int, int] = {}
    heir: dict[int, int] = {}
    for number, receipt in enumerate(receipts):
        owner[receipt.fact.id] = owner.get(receipt.fact.id, number)
        heir |= {fact.id: receipt.fact.id for fact in receipt.replaced}
    slots = []
    for receipt in receipts:
        standing = receipt.fact.id
        while standing in heir:
            standing = heir[standing]
        slots.append(owner[standing])
    missing = size - memory.count()
    if missing > 0:
        taken = {row.subject.casefold() for row in rows} | {row.object.casefold() for row in rows}
        relations = sorted(relation.id for relation in memory.catalogue)
        memory.assert_facts(invented_facts(missing, seed, taken, relations))
    return Filled(owner, slots)


def invented_facts(count: int, seed: int, taken: Iterable[str], relations: Sequence[str]) -> list[FactInput]:
    """Facts about entities that do not exist, over every relation; none of their names is in `taken`."""
    rng = random.Random(seed)
    used = set(taken)
    facts: list[FactInput] = []
    while len(facts) < count:
        subject, obj = _name(rng), _name(rng)
        if subject.casefold() in used or obj.casefold() in used:
            continue
        used.add(subject.casefold())
        facts.append(FactInput(subject=subject, relation=rng.choice(relations), object=obj))
    return facts


_STARTS = re.findall(
    r"\w+", "Al Bar Cor Dar El Fen Gor Hal Ir Jas Kel Lor Mar Nor Or Per Quin Ros Sel Tor Ul Ver Wes Yar Zan"
)
_MIDDLES = re.findall(r"\w+", "a e i o u an en in on ar er il ol and est ir ami eli ona uri")
_ENDS = re.findall(
    r"\w+", "dale ston ville berg ova ini sen ra na mir dor lia nia mouth field wick ley by holm grad pur"
)
_SHAPES = (
    "{} {}",
    "{}",
    "{} of {}",
    "The {} {}",
    "{} {} {}",
    "{} River",
    "{} FC",
    "{} University",
    "{} Group",
    "Lake {}",
)


def _name(rng: random.Random) -> str:
    shape = rng.choice(_SHAPES)
    parts = [
        rng.choice(_STARTS) + rng.choice(_MIDDLES) + rng.choice(("", rng.choice(_MIDDLES))) + rng.choice(_ENDS)
        for _ in range(3)
    ]
    return shape.format(*parts)
