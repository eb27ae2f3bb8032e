"""What can stand in the place of a name: cleans up and judges the words that a template captured in a sentence.

Precision goes before recall. A capture that looks like a clause, a pronoun, a negation or half a sentence is no name.

Knows the built-in entity names, nothing of templates or relations.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Literal

from memedit.errors import InvalidFact
from memedit.memory.entities import EntityTable
from memedit.memory.fact import EntityType

ObjectPattern = Literal["date", "number"]
"""What the object of a relation must read as, where it is no entity."""

PLACES: frozenset[EntityType] = frozenset({"place", "city", "country", "continent"})
NAMED: frozenset[EntityType] = PLACES | {"person", "organization"}
"""Kinds whose names are written with a capital."""
CLOSED: frozenset[EntityType] = frozenset({"country", "continent", "language", "religion", "sport"})
"""Kinds of which nearly every member is among the built-in names."""

LONGEST = 120
"""Longest name, in characters, that is read out of a sentence."""


def as_name(text: str) -> str | None:
    """A captured name without its quotes, article and common noun ("the film Titanic"), or None where it is no name."""
    name = text.strip()
    if len(name) > 2 and _QUOTES.get(name[0]) == name[-1] and name[0] not in name[1:-1]:
        return name[1:-1].strip() or None
    name = _COMMON_NOUN.sub("", name.removeprefix("the "), count=1)
    if not name or len(name) > LONGEST or name[-1] in ",:-" or _CLAUSE.search(name) or _NO_NAME.fullmatch(name):
        return None
    return as_name(name) if name[0] in _QUOTES and name != text.strip() else name


def without_kind(text: str) -> str:
    """The name of a place without what it is: "the city of Lyon" is "Lyon"."""
    return _PLACE_KIND.sub("", text, count=1)


def is_proper(name: str, sentence: str) -> bool:
    """Whether a name begins with a capital, as far as its script and the sentence know capitals."""
    if sentence.lower() == sentence or name.upper() == name.lower():
        return True
    first = name.split()[0]
    return first.lower() != first or "." in first or first[0].isdigit() or _PARTICLE.match(name) is not None


def is_dated(text: str) -> bool:
    """Whether a text is a date or ends in one ("Paris in 1950"), so that it is no name of a place or person."""
    return reads_as("date", text) or _DATED.search(text) is not None


def is_possessed(text: str) -> bool:
    """Whether a text denotes something by its owner ("Ann's profession") rather than naming it."""
    return _POSSESSIVE.search(text) is not None


def reads_as(pattern: ObjectPattern, text: str) -> bool:
    """Whether a text is a date or a number."""
    return _PATTERNS[pattern].fullmatch(text) is not None


@lru_cache(maxsize=4096)
def kind_of(name: str) -> EntityType | None:
    """What kind of thing a name stands for, where the name is well known or says so ("governor of Ohio")."""
    try:
        known = EntityTable.builtin().type_of(name)
    except InvalidFact:
        return None
    if known is None and _OFFICE.fullmatch(name):
        return "office"
    return "occupation" if known is None and _OCCUPATION.fullmatch(name) else known


# -- names and what is none ----------------------------------------------------------------------------------

_QUOTES = {'"': '"', "“": "”", "«": "»", "„": "“", "‘": "’", "'": "'"}
_COMMON_NOUN = re.compile(
    r"^(?:[Tt]he )?(?:film|movie|book|novel|play|poem|album|song|single|series|show|sitcom|musical|opera|painting|game|"
    r"magazine|newspaper|company|band|group|character|episode|river|star|genus|species|gene|protein),? (?=[\"“«]|[A-Z0-9])"
)
_CLAUSE = re.compile(
    r"(?<!\S)(?:is|are|was|were|has|have|had|will|would|can|could|should|does|did|not|never|because|although|though|"
    r"while|whereas|if|but|whose|who|which|when|where|since|until|her|his|their|its|my|your|our)(?!\S)"
    r"|, (?:a|an|the|and|or) |[;\n]|(?<!\b(?:Inc|Bro|Cor|Pro|Jun|Sen))[a-z]{3}[.!?] [A-Z]"
)
_NO_NAME = re.compile(
    r"(?:i|he|she|it|we|they|you|him|her|them|us|this|that|these|those|there|here|who|what|which|someone|nobody|"
    r"everyone|unknown)"
    r"|(?:not|never|no longer|neither) .+|(?:his|her|its|their|an?) (?-i:[a-z]).*"
    r"|(?-i:in|of|at|by|for|from|on|to|with|as|about|also|[a-z]+ing (?:an?|the|in|on|at|as|with|for)) .+"
    r"|.+ (?-i:and|or|but|of|in|by|that|which)"
    r"|(?:in|on|at|after|before|since|during|according to|as of|when|if|while|however|then|but|and)\b[^,]*,.+",
    re.IGNORECASE,
)
_PARTICLE = re.compile(
    r"(?:de|del|della|di|da|dos|du|van|von|der|den|bin|ibn|al|el|la|le|ter|zu|ancient|former)[ -]|[dl]['’]"
)
_PLACE_KIND = re.compile(r"^(?:the )?(?:city|town|village|state|province|region|country|continent)(?: of)? (?=[A-Z])")
_POSSESSIVE = re.compile(r"['’]s [a-z]")

# -- dates and numbers ---------------------------------------------------------------------------------------

_MONTH = "(?:January|February|March|April|May|June|July|August|September|October|November|December)"
_DAY = "(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day"
_NTH = r"\d{1,2}(?:st|nd|rd|th)?"
_PATTERNS: dict[ObjectPattern, re.Pattern[str]] = {
    "date": re.compile(
        rf"(?:(?:{_DAY},? )?(?:(?:the )?{_NTH} (?:of )?)?{_MONTH}(?: {_NTH})?(?:,? \d{{1,4}})?|{_DAY}"
        r"|\d{4}-\d\d(?:-\d\d(?:T[\d:]+Z?)?)?|\d{1,2}[/.]\d{1,2}[/.]\d{2,4}"
        r"|(?:c\. ?|circa |about )?\d{3,4}s?)(?: (?:BC|BCE|AD|CE))?",
        re.IGNORECASE,
    ),
    "number": re.compile(
        r"(?:about |around |over |nearly )?(?:\d[\d,. ]*(?: ?(?:thousand|million|billion))?"
        r"|no|zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve)",
        re.IGNORECASE,
    ),
}
_DATED = re.compile(
    rf" (?:in|on|since|from|until|during|around) (?:\d{{1,2}} )?(?:{_MONTH} )?(?:\d{{1,2}},? )?\d{{4}}$"
)

# -- kinds ---------------------------------------------------------------------------------------------------

_TITLE = (
    "president|prime minister|premier|chancellor|governor|mayor|king|queen|emperor|empress|pope|sultan|emir|monarch|"
    "monarchy|patriarch|general|secretary|justice|minister|speaker|ambassador|archbishop|bishop|taoiseach|senator|"
    "treasurer|comptroller|auditor|commissioner|sheriff|first lady|leader|lieutenant|whip"
)
_OFFICE = re.compile(
    rf"(?:.+ )?(?:{_TITLE})(?:[- ]general)? (?:of|for|to|in) .+|.+ (?:{_TITLE})(?:[- ]general)?", re.IGNORECASE
)
_OCCUPATION = re.compile(
    r"(?:.+ )?\w*(?:ologist|ician|grapher|player|manager|referee|coach|worker|writer|officer|singer|designer|engineer|"
    r"maker|artist|analyst|scientist|novelist|pianist|guitarist|journalist|chemist|physicist|economist|linguist|driver|"
    r"racer|dancer|gymnast|producer|stylist|golfer|trainer|priest|financier|colourist|businessperson|statesperson|"
    r"personnel|instructor|consultant|operator|presenter|performer|director|actor|teacher|lawyer|judge|farmer|painter|"
    r"soldier)"
)
