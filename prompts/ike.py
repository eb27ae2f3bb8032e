"""IKE's prompt (Zheng et al. 2023, arXiv:2305.12740, section 3.2): which demonstrations, in which order, in which words.

Selection and order are pure functions over vectors; whoever calls them embeds. Knows no models.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from memedit.errors import BadDataFile, BadRow
from memedit.prompts import render

if TYPE_CHECKING:
    from memedit.memory.embedder import Vectors

Kind = Literal["copy", "update", "retain"]

RATIO: dict[Kind, int] = {"copy": 1, "update": 3, "retain": 4}
"""Of each kind, among eight demonstrations (appendix A of the paper: 4, 12 and 16 of 32)."""

PATTERN: tuple[Kind, ...] = ("update", "retain", "update", "retain", "copy", "retain", "update", "retain")
"""The kinds from the nearest demonstration on, over and over: so the ratio holds however many are dropped."""


class Probe(NamedTuple):
    """What is asked after an edit, in both forms, and what is to be answered.

    Attributes:
        question: As a question; empty where there is none.
        sentence: As a sentence to complete; empty where there is none.
        answer: The answer.
    """

    question: str
    sentence: str
    answer: str


class Example(NamedTuple):
    """An edit of the corpus with a probe of each kind.

    Attributes:
        subject: Name of the edit's subject; may be empty.
        fact: The edit as a sentence.
        probes: By kind. Copy: the edit's own wording; update: another; retain: what the edit leaves as it was.
    """

    subject: str
    fact: str
    probes: dict[Kind, Probe]


class Demonstration(NamedTuple):
    """An example as it is shown."""

    kind: Kind
    fact: str
    prompt: str
    answer: str


def nearest_last(corpus: Vectors, fact: Vectors, k: int, *, left_out: frozenset[int] = frozenset()) -> list[int]:
    """The k examples most similar to the new fact, in the order of the prompt: cos(c_1, f) <= ... <= cos(c_k, f).

    Args:
        corpus: float32 [n, d], rows of length 1.
        fact: float32 [d], of length 1.
        k: How many; fewer where the corpus has fewer.
        left_out: Rows that must not be shown.

    Returns:
        Rows of the corpus, the nearest last; of equally near ones the earlier is nearer.
    """
    similarity = corpus @ fact
    ranked = sorted((row for row in range(len(corpus)) if row not in left_out), key=lambda row: -similarity[row])
    return ranked[:k][::-1]


def demonstrations(chosen: Sequence[Example], *, as_question: bool) -> list[Demonstration]:
    """The examples as they are shown, by `PATTERN` counted from the nearest, which is the last.

    Args:
        chosen: Examples, the nearest last.
        as_question: Ask in questions rather than in sentences to complete, where an example has both.
    """
    shown = []
    for rank, example in enumerate(reversed(chosen)):
        kind = PATTERN[rank % len(PATTERN)]
        probe = example.probes[kind]
        first, second = (probe.question, probe.sentence) if as_question else (probe.sentence, probe.question)
        shown.append(Demonstration(kind, example.fact, first or second, probe.answer))
    return shown[::-1]


def drop_farthest(shown: Sequence[Demonstration], tokens: int, budget: int) -> list[Demonstration]:
    """The demonstrations that are left of a prompt of `tokens` tokens for it to have about `budget`, the nearest ones.

    At least one is dropped; the caller measures again.

        >>> shown = [Demonstration("copy", "far", "?", "x"), Demonstration("copy", "near", "?", "x")]
        >>> [one.fact for one in drop_farthest(shown, 120, 100)]
        ['near']
    """
    share = (tokens - budget) / max(tokens, 1)
    return list(shown[max(1, int(share * len(shown))) :])


def ike_prompt(shown: Sequence[Demonstration], fact: str, question: str) -> str:
    """The prompt: demonstrations, the new fact, what is asked. All but its last line depends on the fact alone."""
    return render("ike.jinja", demonstrations=shown, fact=fact, question=question.strip())


def is_question(text: str) -> bool:
    """Whether a text asks, rather than is a sentence to complete.

    >>> is_question("What is the capital of France?"), is_question("The capital of France is")
    (True, False)
    """
    return bool(re.search(r"[.?!。？！]\W*$", text))


def naming(examples: Sequence[Example], subject: str) -> frozenset[int]:
    """The examples that say something of `subject`: beside its edit they would contradict it, or give it away."""
    name = subject.casefold()
    if not name:
        return frozenset()
    return frozenset(row for row, example in enumerate(examples) if any(name in text for text in _texts(example)))


def read_examples(path: str | Path | None = None) -> list[Example]:
    """The examples of a JSON-lines file, or of the corpus that ships with the package.

    A row has a ``fact`` and, under ``copy``, ``update`` and ``retain``, an ``answer`` with a ``question``, a ``sentence`` to
    complete, or both. It may have the fact's ``subject``.

    Raises:
        BadDataFile: The file cannot be read, or is empty.
        BadRow: A row is not as it should be; the error names file, row and field.
    """
    source = files("memedit.prompts") / "demonstrations" / "ike.jsonl" if path is None else Path(path)
    try:
        lines = source.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise BadDataFile(f"The demonstrations {source} cannot be read: {error}.", "Name a JSON-lines file.") from error
    examples = [_example(line, row, str(source)) for row, line in enumerate(lines, 1) if line.strip()]
    if not examples:
        raise BadDataFile(f"The demonstrations {source} are empty.", "Give at least one row.")
    return examples


def _texts(example: Example) -> list[str]:
    asked = [text for probe in example.probes.values() for text in probe]
    return [text.casefold() for text in (example.fact, *asked)]


def _example(line: str, row: int, source: str) -> Example:
    def bad(problem: str, field: str = "") -> BadRow:
        return BadRow(problem, _ROW_MEND, row=row, source=source, field=field)

    def text(values: dict[str, object], key: str, place: str) -> str:
        value = values.get(key, "")
        if not isinstance(value, str) or "\n" in value:
            raise bad("is not a line of text.", place)
        return value.strip()

    try:
        read = json.loads(line)
    except ValueError as error:
        raise bad(f"is no JSON: {error}.") from error
    if not isinstance(read, dict):
        raise bad("is no JSON object.")
    probes: dict[Kind, Probe] = {}
    for kind in RATIO:
        given = read.get(kind)
        if not isinstance(given, dict):
            raise bad("is missing or no object.", kind)
        probe = Probe(*(text(given, key, f"{kind}.{key}") for key in Probe._fields))
        if not probe.answer or not (probe.question or probe.sentence):
            raise bad("has no answer, or neither question nor sentence.", kind)
        probes[kind] = probe
    fact = text(read, "fact", "fact")
    if not fact:
        raise bad("is missing.", "fact")
    return Example(text(read, "subject", "subject"), fact, probes)


_ROW_MEND = (
    'Rows look like those of prompts/demonstrations/ike.jsonl: {"fact": ..., "copy": {"question": ..., ...}, ...}.'
)
