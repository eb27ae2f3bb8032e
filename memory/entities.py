"""Entity names: what makes two names the same entity.

`normalise` turns a name into its canonical key; `EntityTable` maps alternative names ("USA") to the key of the entity
they stand for. Only true synonyms are aliases: an alias never joins two entities that the world keeps apart. The
built-in names are in ``aliases.toml``; a namespace lays its own over them.

Knows nothing of facts, storage or models.
"""

from __future__ import annotations

import re
import tomllib
import unicodedata
from collections.abc import Iterator
from functools import cache, lru_cache
from importlib import resources
from typing import NamedTuple, cast, get_args

from memedit.errors import InvalidFact
from memedit.memory.fact import EntityType

MAX_NAME = 1000
"""Longest name in characters."""

_RESOLVED = 1 << 15


@lru_cache(maxsize=1 << 16)
def normalise(name: str) -> str:
    """The canonical key of a name: equal for spellings of one name, in any script.

    Case, quotes, punctuation, spacing, a leading article and the dots of initials make no difference; accents,
    digits, signs such as ``+`` and ``#``, and the order of words do. ``normalise(normalise(x)) == normalise(x)``.

    Args:
        name: A name of 1 to 1000 characters.

    Raises:
        InvalidFact: The name is empty, too long, or holds control characters.

    Examples:
        >>> normalise("The  U.S. of “A”"), normalise("J.K. Rowling"), normalise("C++"), normalise("!!!")
        ('us of a', 'jk rowling', 'c++', '!!!')
    """
    text = _checked(name)
    key = _fold(text)
    while (again := _fold(key)) != key:
        key = again
    return key


class Loosely(NamedTuple):
    """What a name mostly means.

    Attributes:
        meant: The entity's name.
        family: Whether the name is that of a whole family, of which `meant` is the best-known member.
    """

    meant: str
    family: bool


class EntityTable:
    """Maps the names of entities to their canonical keys.

    Args:
        parent: A table to fall back on; additions to this one leave it as it is, and win over it.

    Examples:
        >>> table = EntityTable(parent=EntityTable.builtin())
        >>> table.add_alias("New York City", "The Big Apple")
        >>> table.resolve("the big apple"), table.resolve("USA"), table.resolve("Georgia")
        ('new york city', 'united states of america', 'georgia')
    """

    def __init__(self, parent: EntityTable | None = None) -> None:
        self._parent = parent
        self._aliases: dict[str, _Alias] = {}
        self._by_entity: dict[str, list[str]] = {}
        self._types: dict[str, EntityType] = {}
        self._loose: dict[str, Loosely] = {}
        self._resolved: dict[str, str] = {}

    @classmethod
    def builtin(cls) -> EntityTable:
        """The table of well-known names that ships with the package. Shared: lay your own over it."""
        return _builtin()

    def resolve(self, name: str) -> str:
        """The key of the entity that `name` stands for; the name's own key where it is nobody's alias.

        Raises:
            InvalidFact: The name is empty, too long, or holds control characters.
        """
        if (known := self._resolved.get(name)) is not None:
            return known
        key = normalise(name)
        written = name
        while (alias := self._find(key)) is not None and (not alias.exact_case or _is_upper(written)):
            key = written = alias.entity
        if self._parent is None or self._parent is _builtin():  # which nobody adds to
            if len(self._resolved) >= _RESOLVED:
                self._resolved.clear()
            self._resolved[name] = key
        return key

    def loosely(self, name: str) -> Loosely | None:
        """What a name that means several things mostly means ("football": "association football"), or None.

        Raises:
            InvalidFact: The name is empty, too long, or holds control characters.
        """
        own = self._loose.get(normalise(name))
        return self._parent.loosely(name) if own is None and self._parent is not None else own

    def add_alias(self, entity: str, alias: str) -> None:
        """Make `alias` another name of `entity`. Adding it again changes nothing.

        Raises:
            InvalidFact: One of the names is no name, or `alias` was already added as a name of another entity.
        """
        self._add(self.resolve(entity), alias)

    def aliases(self, name: str) -> tuple[str, ...]:
        """The other names of the entity that `name` stands for, as they were given, the parent's first."""
        key = self.resolve(name)
        inherited = self._parent.aliases(key) if self._parent is not None else ()
        own = self._by_entity.get(key, ())
        kept = tuple(alias for alias in inherited if self.resolve(alias) == key)
        return kept + tuple(alias for alias in own if alias not in kept)

    def type_of(self, name: str) -> EntityType | None:
        """What kind of thing a well-known entity is ("country", "language"), or None where that is not known."""
        key = self.resolve(name)
        own = self._types.get(key)
        return self._parent.type_of(key) if own is None and self._parent is not None else own

    def items(self) -> Iterator[tuple[str, str]]:
        """Every alias as it was given, with the key of its entity; the parent's first."""
        if self._parent is not None:
            for alias, entity in self._parent.items():
                if normalise(alias) not in self._aliases:
                    yield alias, self.resolve(entity)
        for entity, aliases in self._by_entity.items():
            for alias in aliases:
                yield alias, self.resolve(entity)

    def _find(self, key: str) -> _Alias | None:
        found = self._aliases.get(key)
        return self._parent._find(key) if found is None and self._parent is not None else found

    def _add(self, entity: str, alias: str, *, exact_case: bool = False) -> None:
        key = normalise(alias)
        if key == entity:
            return
        held = self._aliases.get(key)
        if held is not None:
            if self.resolve(held.entity) == entity:
                return
            raise InvalidFact(
                f"{alias!r} is already a name of {held.entity!r}, so it cannot become one of {entity!r}.",
                "One name stands for one entity: use a longer name that tells the two apart.",
            )
        self._aliases[key] = _Alias(entity, exact_case)
        self._resolved.clear()
        self._by_entity.setdefault(entity, []).append(alias.strip())


class _Alias(NamedTuple):
    entity: str
    exact_case: bool
    """Whether the alias is also an ordinary word ("us"), so that it counts only when written in capitals."""


@cache
def _builtin() -> EntityTable:
    text = resources.files(__package__).joinpath("aliases.toml").read_text(encoding="utf-8")
    data = tomllib.loads(text)
    exact_case = frozenset(cast("list[str]", data.pop("exact_case")))
    table = EntityTable()
    for section in ("loose", "families"):
        for name, meant in cast("dict[str, str]", data.pop(section)).items():
            table._loose[normalise(name)] = Loosely(meant, family=section == "families")
    for kind in get_args(EntityType):
        for entity, aliases in cast("dict[str, list[str]]", data.get(kind, {})).items():
            key = normalise(entity)
            table._types[key] = kind
            for alias in aliases:
                table._add(key, alias, exact_case=alias in exact_case)
    return table


# -- normalisation -------------------------------------------------------------------------------------------

_LETTER = r"[^\W\d_]"
_DROPPED = str.maketrans("", "", "'\"`´‘’‚‛“”„‟«»‹›′″ʹʺʻʼʽʾʿ™®©℠")
_CONTROL = re.compile("[\\x00-\\x1f\\x7f-\\x9f\\ud800-\\udfff]")
_INITIALS = re.compile(rf"(?<!\w)(?:{_LETTER}\. ?)+{_LETTER}(?:\.|(?!\w))")
_PLAIN = re.compile(r"(?!(?:the|an|a) )[a-z0-9]+(?: [a-z0-9]+)*", re.IGNORECASE | re.ASCII).fullmatch
_ARTICLE = re.compile(r"(?:the|an|a) (?!(?:the|an|a) )")
_ARTICLE_LIKE = re.compile(r"(?:the|an|a)[^\w ]")
_HYPHEN = re.compile(r"(?<=\w)-|-(?!\d)")


class _Spacing(dict[int, str | None]):
    """A translation table filled on demand: punctuation becomes a space, invisible characters vanish."""

    def __missing__(self, code: int) -> str | None:
        category = unicodedata.category(chr(code))
        replacement: str | None = chr(code)
        if category == "Cf":
            replacement = None
        elif category.startswith("P") and replacement not in ("#", "@", "%", "-"):
            replacement = " "
        self[code] = replacement
        return replacement


_SPACING = _Spacing({ord("&"): " and "})


def _checked(name: str) -> str:
    text = name.strip()
    if not text:
        raise InvalidFact("The name is empty.", "Give the entity a name of at least one visible character.")
    if len(text) > MAX_NAME:
        raise InvalidFact(
            f"The name {text[:40]!r}... is {len(text):,} characters long.",
            f"A name has at most {MAX_NAME:,} characters; put longer text into the fact's statement.",
        )
    if (control := _CONTROL.search(text)) is not None:
        raise InvalidFact(
            f"The name {text[:40]!r} holds the control character U+{ord(control[0]):04X}.",
            "Remove it; a name is one line of printable text.",
        )
    return text


def _fold(text: str) -> str:
    if _PLAIN(text):  # most names; reopening a large memory folds every one of them
        return text.lower()
    plain = text.translate(_DROPPED)
    if plain.isascii():
        plain = plain.casefold()
    else:
        plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", plain).casefold())
    plain = " ".join(plain.split())
    if (article := _ARTICLE.match(plain)) is not None:
        plain = plain[article.end() :]
    spaced = _INITIALS.sub(lambda initials: initials[0].replace(".", "").replace(" ", "") + " ", plain)
    # "A. Milne" and "a-ha" keep their first mark: without it the letter would pass for an article.
    start = mark.end() if (mark := _ARTICLE_LIKE.match(spaced)) is not None else 0
    # A hyphen is punctuation, but for the minus sign of a number.
    tail = _HYPHEN.sub(" ", spaced[start:].translate(_SPACING))
    return " ".join((spaced[:start] + tail).split()) or plain or " ".join(text.casefold().split())


def _is_upper(text: str) -> bool:
    return text.upper() == text
