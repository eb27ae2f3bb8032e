"""Finding known names in a text: longest match, left to right, one hash look-up a span.

The text is cut into words once; a span's key is then a slice of one string, made as `memedit.memory.entities.normalise`
makes keys. Scripts written without spaces between words, and Korean, whose particles stick to the noun, are cut into
single characters, so that a name is found inside a longer run.

Knows nothing of facts or of which names there are.
"""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Callable, Iterator
from typing import NamedTuple

from memedit.errors import InvalidFact
from memedit.memory.entities import normalise

Span = tuple[int, int]


class _Words(NamedTuple):
    """A text in words: the joined keys, where each word lies in them, and where it lies in the text."""

    keys: str
    starts: list[int]
    ends: list[int]
    spans: list[Span]
    possessive: list[bool]


def find_names(
    text: str, known: Callable[[str], bool], resolve: Callable[[str], str | None], longest: int
) -> Iterator[tuple[Span, str]]:
    """The spans of `text` whose key is known; they do not overlap.

    A leading article is no part of a span, nor is a possessive "'s". A name that is also a function word ("It", "The
    Who") counts only where it is capitalised and does not open the text.

    Args:
        text: Any text.
        known: Whether a key may be that of a name; asked for every span, so it must be quick.
        resolve: The key of the entity that a span, as written, stands for; None if there is none after all.
        longest: Length in characters of the longest key that is known.

    Yields:
        The span (start, end) in characters of `text`, and the key of its entity.
    """
    words = _cut(text)
    first = 0
    while first < len(words.spans):
        for end in _candidates(text, words, first, known, longest):
            span = words.spans[first][0], words.spans[end][1]
            entity = resolve(text[slice(*span)])
            if entity is not None:
                yield span, entity
                first = end
                break
        first += 1


def _candidates(text: str, words: _Words, first: int, known: Callable[[str], bool], longest: int) -> Iterator[int]:
    """The words with which a name that begins with the word `first` may end, the farthest first."""
    keys, ends = words.keys, words.ends
    begin, start = words.starts[first], words.spans[first][0]
    # In "a-ha" `normalise` keeps the first mark, since the first word would pass for an article.
    marked = _ARTICLE_LIKE.match(text, start) is not None
    for end in range(bisect_right(ends, begin + longest) - 1, first - 1, -1):
        key = keys[begin : ends[end]]
        if known(key):
            inner = end > first and words.possessive[end] and known(keys[begin : ends[end - 1]])
            if not inner and (key not in _FUNCTION_WORDS or (first > 0 and not text[start].islower())):
                yield end
        elif marked and _is_known(text[start : words.spans[end][1]], known):
            yield end


def _is_known(name: str, known: Callable[[str], bool]) -> bool:
    try:
        return known(normalise(name))
    except InvalidFact:  # a question may hold control characters and be of any length; a name may not
        return False


def _cut(text: str) -> _Words:
    plain = text.translate(_CLASSES)
    initials = [match.span() for match in _INITIALS.finditer(text)]
    pieces: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    spans: list[Span] = []
    possessive: list[bool] = []
    length = 0
    for match in _WORD.finditer(plain):
        word, start = match[0], match.start()
        if spans:
            joined = _is_joined(plain, spans[-1][1], start) or any(a < start < b for a, b in initials)
            if not joined:
                pieces.append(" ")
                length += 1
        key = "and" if word == "&" else _key_of(word)
        pieces.append(key)
        starts.append(length)
        length += len(key)
        ends.append(length)
        spans.append((start, match.end()))
        possessive.append(key == "s" and plain[start - 1 : start] == _DROPPED)
    return _Words("".join(pieces), starts, ends, spans, possessive)


def _is_joined(plain: str, end: int, start: int) -> bool:
    """Whether nothing that makes a space lies between two words."""
    if start == end:
        return plain[start] != "&" and plain[end - 1] != "&"
    return plain.count(_DROPPED, end, start) == start - end


def _key_of(word: str) -> str:
    if word.isascii():
        return word.casefold()
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", word).casefold())


_DROPPED = "\x00"


class _Classes(dict[int, str]):
    """A translation table filled on demand, one character to one, so that places in the text stay what they are."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        category = unicodedata.category(character)
        if category == "Cf":
            result = _DROPPED
        elif character.isspace() or category == "Cc" or (category[0] == "P" and character not in "#@%-&"):
            result = " "
        else:
            result = character
        self[code] = result
        return result


_CLASSES = _Classes({ord(mark): _DROPPED for mark in "'\"`´‘’‚‛“”„‟«»‹›′″ʹʺʻʼʽʾʿ™®©℠"})
_UNSPACED = (
    "\u0e00-\u0eff\u0f00-\u0fff\u1000-\u109f\u1780-\u17ff"  # Thai, Lao, Tibetan, Burmese, Khmer
    "\u3005-\u3007\u3041-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Chinese, Japanese
    "\u1100-\u11ff\uac00-\ud7af"  # Korean
)
_WORD = re.compile(rf"&|[{_UNSPACED}]|(?:(?<!\w)-(?=\d))?[^ \x00&\-{_UNSPACED}]+")
_INITIALS = re.compile(r"(?<!\w)(?:[^\W\d_]\. ?)+[^\W\d_](?:\.|(?!\w))")
_ARTICLE_LIKE = re.compile(r"(?:the|an|a)[^\w\s]", re.IGNORECASE)
_FUNCTION_WORDS = frozenset(
    re.findall(
        r"\w+",
        "a about after all am an and any are as at be been before between but by can could did do does each for from had "
        "has have he her here him his how i if in into is it its many may me might more most much must my no not now of "
        "on one only or other our out over own she should so some such than that the their them then there these they "
        "this those to under up us was we were what when where which while who whom whose why will with would yes you "
        "your",
    )
)
