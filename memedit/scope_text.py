"""How a text and a fact are put before the scope network: as one sequence of tokens, with what matches marked.

Where the text names the fact's subject in full, the name gives way to one marker on both sides, so that the network reads
"What is the capital of [it]?" against "The capital of [it] is Lyon." for every country alike, and a longer name shows as
"[it] Pro". Words that occur on both sides are marked as well.

Knows nothing of networks or of the edit memory.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from enum import IntEnum
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

    from tokenizers import Tokenizer

MAX_TEXT = 64
"""Most tokens of a text that are read; of longer texts, those around the subject's name."""
MAX_FACT = 48
"""Most tokens of a fact's statement that are read."""

TITLES = frozenset({
    "A", "An", "The", "President", "King", "Queen", "Sir", "Dame", "Dr", "Mr", "Mrs", "Ms", "Prince",
    "Princess", "Pope", "Senator", "Minister", "Chancellor", "Emperor", "Lord", "Lady", "Professor",
    "Saint", "St", "General", "Captain", "City", "State", "Republic", "Kingdom",
})  # fmt: skip
"""Words that may be capitalised next to a name without being part of it."""

_CLS, _SEP, _MARKER = 101, 102, 2
_LEAST_SAID = 2
"""Words that a statement to be completed has, its subject apart."""
_LEAST_WORDS = 2
"""Words of the shortest name that has variants."""
_WORD = re.compile(r"\w+")
_LONGEST_WORD = 64
_WORD_BEFORE, _WORD_AFTER = re.compile(r"(\w+)[.]? $"), re.compile(r" (\w+)")
_BREAK = re.compile(r"\n+|(?<=\w{3})[.!?…][\"'”’)\]]*\s+")
_ASKS = re.compile(r"\b(?:what|which|who|whom|whose|where|when|why|how)\b", re.IGNORECASE)
_ARTICLES = {"A", "An", "The"}
_OFFICES = TITLES | {"CEO", "CFO", "Chief", "Prime", "Vice", "Actor", "Author", "Singer"}
_UNSPACED = re.compile(r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\ufaff]")

Span = tuple[int, int]


class FactText(NamedTuple):
    """A fact as far as scope is concerned.

    Attributes:
        subject: Name of the subject; empty for free text.
        object: Name of the object; empty for free text.
        statement: The fact as a sentence.
    """

    subject: str
    object: str
    statement: str


class Role(IntEnum):
    """What a token is to the pair it stands in."""

    TEXT = 0
    TEXT_SHARED = 1
    TEXT_SUBJECT = 2
    TEXT_SUBJECT_PART = 3
    TEXT_OBJECT = 4
    FACT = 5
    FACT_SHARED = 6
    FACT_SUBJECT = 7
    FACT_SUBJECT_FOUND = 8
    FACT_SUBJECT_MISSING = 9
    FACT_OBJECT = 10
    FACT_OBJECT_FOUND = 11


class Encoded(NamedTuple):
    """A pair as the network reads it; three lists of one length.

    Attributes:
        ids: Token ids of MiniLM's vocabulary.
        roles: `Role` of each token.
        cased: 1 where the token begins with a capital letter or a digit in the original, else 0.
    """

    ids: list[int]
    roles: list[int]
    cased: list[int]


@lru_cache(maxsize=1 << 14)
def fold(text: str) -> str:
    """The text without case and accents, character for character: spans in one are spans in the other."""
    if text.isascii():
        return text.lower()
    return "".join((unicodedata.normalize("NFKD", char)[:1].casefold() or char)[0] for char in text)


def mentions(text: str, name: str) -> list[Span]:
    """Where a text names something in full, whatever the case and accents, left to right.

    Examples:
        >>> mentions("Is Malmö bigger than malmo's port? Malmöhus isn't.", "Malmo")
        [(3, 8), (21, 26)]
    """
    folded, bare = fold(text), _bare(name)
    if not bare or any(word not in folded for word in bare.split()):
        return []  # most names are not there, and to compile a pattern takes long
    return [match.span() for match in _pattern(bare).finditer(folded)]


@lru_cache(maxsize=1 << 14)
def _bare(name: str) -> str:
    return re.sub(r"^(the|a|an) (?=\w)", "", fold(name).strip(" \"'“”‘’"))


@lru_cache(maxsize=1 << 14)
def _pattern(name: str) -> re.Pattern[str]:
    body = r"\s+".join(re.escape(word) for word in name.split())
    before = r"(?<!\w)" if name[0].isalnum() and not _UNSPACED.match(name[0]) else ""
    after = r"(?!\w)" if name[-1].isalnum() and not _UNSPACED.match(name[-1]) else ""
    return re.compile(before + body + after)


def last_said(text: str, span: Span) -> str | None:
    r"""What a text says from the sentence on that names something, where other things are said before; else None.

    A label before it ("Category:Novels of 1932 Low Tide is") is left out as well, save of questions. Other words before the
    name stay: they may be the beginning of a longer one.

    Args:
        text: The text.
        span: Where it names it.

    Examples:
        >>> last_said("It rained all day. Low Tide was written by", (19, 27))
        'Low Tide was written by'
        >>> last_said("See also\n\nCategory:Books The Low Tide was written by", (29, 37))
        'Low Tide was written by'
        >>> last_said("The author of Low Tide was born in", (14, 22)) is None
        True
    """
    start, end = span
    begin = max((found.end() for found in _BREAK.finditer(text, 0, start)), default=0)
    if begin == 0 or set(_WORD.findall(text[:begin])[-1:]) & _OFFICES:
        return None  # the latter is "Prof. Ada Byron"
    before, after = text[begin:start], text[end:]
    previous = [word for word in before.split() if word not in _ARTICLES][-1:]
    labelled = (
        ":" in before
        and previous
        and not previous[0][0].islower()
        and previous[0] not in _OFFICES
        and not _ASKS.search(before)
        and not text.rstrip().endswith("?")
        and not _BREAK.search(after.rstrip())
        and len(words(after)) >= _LEAST_SAID
    )
    return text[start if labelled else begin :]


def in_longer_name(text: str, span: Span) -> bool:
    """Whether a name in a text is likely a part of a longer one, by the capitals beside it.

    Examples:
        >>> in_longer_name("Where was Ann Lyon born?", (14, 18)), in_longer_name("Who runs Lyon Airways?", (9, 13))
        (True, True)
        >>> in_longer_name("Is Lyon big?", (3, 7)), in_longer_name("Where was President Lyon born?", (20, 24))
        (False, False)
    """
    begin = max(0, span[0] - _LONGEST_WORD)
    before, after = _WORD_BEFORE.search(text[begin : span[0]]), _WORD_AFTER.match(text, span[1])
    starts = before is not None and not text[: begin + before.start()].strip()  # any word has a capital there
    beside = [match.group(1) for match in (None if starts else before, after) if match is not None]
    return any(word[0].isupper() and word not in _OFFICES for word in beside)


def words(text: str) -> list[str]:
    """The words of a text, folded."""
    return _WORD.findall(fold(text))


def variant(text: str, name: str) -> Span | None:
    """Where a text writes a person's name otherwise: without a middle initial, or with the last name first.

    Not with an initial more: George P. Bush is another than George Bush.

    Examples:
        >>> variant("The occupation of Mohamed Elsayed is", "Mohamed E. Elsayed")
        (18, 33)
        >>> variant("Who employs Lindqvist, Mira?", "Mira Lindqvist")
        (12, 27)
        >>> variant("Who makes the iPhone X?", "iPhone"), variant("Where was George P. Bush born?", "George Bush")
        (None, None)
    """
    own = words(name)
    full = _without_initials(own)
    if len(full) < _LEAST_WORDS or not _all_words(text).issuperset(full):
        return None
    found = list(_WORD.finditer(fold(text)))
    for first in range(len(found)):
        for last in range(first + 1, min(len(found), first + len(own) + 2)):
            inside = [match.group() for match in found[first : last + 1]]
            start, end = found[first].start(), found[last].end()
            if _are_variants(inside, own):
                return start, end
            comma = text.find(",", start, end)
            if comma >= 0:
                at = sum(match.end() <= comma for match in found[first : last + 1])
                if _are_variants(inside[at:] + inside[:at], own):
                    return start, end
    return None


@lru_cache(maxsize=1 << 8)
def _all_words(text: str) -> frozenset[str]:
    return frozenset(words(text))


def _are_variants(written: list[str], name: list[str]) -> bool:
    """Whether what is written differs from the name in initials that it leaves out, and in nothing else."""
    plain, full = _without_initials(written), _without_initials(name)
    return plain == full and set(written) - set(plain) <= set(name) - set(full)


def _without_initials(parts: list[str]) -> list[str]:
    """The words of a name without single letters between others."""
    return [part for at, part in enumerate(parts) if len(part) > 1 or at in (0, len(parts) - 1)]


class PairReader:
    """Encodes pairs with MiniLM's tokenizer. Safe to share between threads.

    Args:
        folder: Where ``tokenizer.json`` lies.
    """

    def __init__(self, folder: Path) -> None:
        from tokenizers import Tokenizer

        self._tokenizer: Tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def encode(self, text: str, fact: FactText) -> Encoded:
        """One pair: ``[CLS] text [SEP] statement [SEP]``."""
        statement = fact.statement
        if fact.subject and not mentions(statement, fact.subject):
            statement = f"{fact.subject}: {statement}"
        named = mentions(text, fact.subject) if fact.subject else []
        text_words, fact_words = set(words(text)), set(words(statement))
        subject_words = set(words(fact.subject))
        object_named = mentions(text, fact.object) if fact.object else []

        roles = [int(Role.TEXT)] * len(text)
        _paint_words(text, roles, fact_words, Role.TEXT_SHARED)
        _paint_words(text, roles, subject_words, Role.TEXT_SUBJECT_PART)
        _paint(roles, object_named, Role.TEXT_OBJECT)
        left = self._pieces(text, roles, named, Role.TEXT_SUBJECT)

        roles = [int(Role.FACT)] * len(statement)
        _paint_words(statement, roles, text_words, Role.FACT_SHARED)
        stated = mentions(statement, fact.object) if fact.object else []
        _paint(roles, stated, Role.FACT_OBJECT_FOUND if object_named else Role.FACT_OBJECT)
        subjects = mentions(statement, fact.subject) if fact.subject else []
        _paint(roles, subjects, Role.FACT_SUBJECT_MISSING)
        for start, end in subjects:
            _paint_words(statement, roles, text_words, Role.FACT_SUBJECT_FOUND, start, end)
        right = self._pieces(statement, roles, subjects if named else [], Role.FACT_SUBJECT)

        left, right = _window(left), right[:MAX_FACT]
        tokens = [(_CLS, int(Role.TEXT), 0), *left, (_SEP, int(Role.TEXT), 0), *right, (_SEP, int(Role.FACT), 0)]
        ids, kinds, cased = zip(*tokens, strict=True)
        return Encoded(list(ids), list(kinds), list(cased))

    def _pieces(
        self, text: str, roles: Sequence[int], marked: Sequence[Span], marker: Role
    ) -> list[tuple[int, int, int]]:
        """(id, role, cased) of every token, each marked span being one token."""
        pieces: list[tuple[int, int, int]] = []
        at = 0
        for start, end in [*marked, (len(text), len(text))]:
            if at < start:
                encoding = self._tokenizer.encode(text[at:start], add_special_tokens=False)
                for token, (first, _) in zip(encoding.ids, encoding.offsets, strict=True):
                    char = text[at + first]
                    pieces.append((token, roles[at + first], int(char.isupper() or char.isdigit())))
            if start < end:
                pieces.append((_MARKER, int(marker), 0))
            at = end
        return pieces


def _paint(roles: list[int], spans: Sequence[Span], role: Role) -> None:
    for start, end in spans:
        roles[start:end] = [int(role)] * (end - start)


def _paint_words(
    text: str, roles: list[int], chosen: set[str], role: Role, start: int = 0, end: int | None = None
) -> None:
    _paint(roles, [m.span() for m in _WORD.finditer(fold(text), start, end or len(text)) if m.group() in chosen], role)


def _window(pieces: list[tuple[int, int, int]]) -> list[tuple[int, int, int]]:
    """At most `MAX_TEXT` tokens: those around the last marker, else the last ones, where a prompt's question stands."""
    if len(pieces) <= MAX_TEXT:
        return pieces
    marker = max((place for place, piece in enumerate(pieces) if piece[0] == _MARKER), default=len(pieces))
    start = max(0, min(marker - MAX_TEXT // 2, len(pieces) - MAX_TEXT))
    return pieces[start : start + MAX_TEXT]
