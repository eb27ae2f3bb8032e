"""Reads plain sentences: matches them against templates with a ``{subject}`` and, in a statement, an ``{object}``.

The most specific template wins (most literal letters). Precision goes before recall: a template that would fit almost
anything ("{subject} plays {object}.") counts only where the kind of the entity is known, and relations that fit equally
well are told apart by that kind or not at all.

Knows nothing of the catalogue, storage or models.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from threading import Lock
from typing import NamedTuple

from memedit.memory.fact import Relation
from memedit.memory.naming import (
    CLOSED,
    LONGEST,
    NAMED,
    PLACES,
    ObjectPattern,
    as_name,
    is_dated,
    is_possessed,
    is_proper,
    kind_of,
    reads_as,
    without_kind,
)


class Match(NamedTuple):
    """A reading of a sentence.

    Attributes:
        subject: The subject's name.
        relation: The relation whose template fitted.
        object: The object's name; empty in a question.
    """

    subject: str
    relation: Relation
    object: str


class TemplateParser:
    """Templates of many relations, indexed so that only those that share a word with the sentence are tried.

    Args:
        questions: Whether the templates are questions, which have no object, and where tense makes no difference.
    """

    def __init__(self, *, questions: bool = False) -> None:
        self._questions = questions
        self._templates: dict[str, tuple[Relation, tuple[str, ...], ObjectPattern | None]] = {}
        self._index: dict[str, list[_Template]] | None = None
        self._slips: dict[str, str] = {}
        self._lock = Lock()

    def add(self, relation: Relation, templates: Sequence[str], pattern: ObjectPattern | None = None) -> None:
        """Add a relation's templates, the canonical one first; they replace those it had."""
        with self._lock:
            self._templates[relation.id] = (relation, tuple(templates), pattern)
            self._index = None

    @staticmethod
    def best(sentence: str, parsers: Sequence[TemplateParser]) -> Match | None:
        """The best reading of `sentence` by the templates of all `parsers` (of one kind), or None."""
        text = _one_line(sentence, question=parsers[0]._questions)
        if text is None:
            return None
        readings = [reading for parser in parsers for reading in parser._readings(text, text)]
        if not readings:
            respelt = text
            for parser in parsers:
                respelt = parser._respell(respelt)
            if respelt != text:
                readings = [reading for parser in parsers for reading in parser._readings(respelt, text)]
        return _choose(readings)

    def _readings(self, text: str, original: str) -> Iterator[_Reading]:
        index = self._index
        if index is None:
            with self._lock:
                index = self._build_index()
        for word in {*_WORD.findall(text.casefold()), ""}:
            for template in index.get(word, ()):
                if (reading := template.read(text, original)) is not None:
                    yield reading

    def _build_index(self) -> dict[str, list[_Template]]:
        """Files every template under the rarest of its words."""
        templates = [
            _Template(relation, text, text == texts[0], pattern)
            for relation, texts, pattern in self._templates.values()
            for text in texts
        ]
        frequency: dict[str, int] = defaultdict(int)
        for template in templates:
            for word in template.words:
                frequency[word] += 1
        index: dict[str, list[_Template]] = defaultdict(list)
        for template in templates:
            index[min(template.words, key=lambda word: (frequency[word], word), default="")].append(template)
        self._slips = {
            slip: word
            for word in frequency
            if len(word) >= _SHORTEST_RESPELT
            for slip in _slips(word)
            if slip not in frequency
        }
        self._index = dict(index)
        return self._index

    def _respell(self, text: str) -> str:
        """`text` with two swapped letters of a template's word put right; every character keeps its place."""
        return _WORD.sub(lambda word: self._slips.get(word[0].casefold(), word[0]), text)


class _Reading(NamedTuple):
    template: _Template
    subject: str
    object: str


class _Template:
    """One template, compiled when it is first tried."""

    def __init__(self, relation: Relation, text: str, canonical: bool, pattern: ObjectPattern | None) -> None:
        self.relation = relation
        self.canonical = canonical
        self.pattern = pattern
        self.text = text
        self.is_question = "{object}" not in text
        words = _WORD.findall(text.replace("{subject}", " ").replace("{object}", " ").casefold())
        interchangeable = _ASKING if self.is_question else _OPTIONAL
        self.words = tuple(dict.fromkeys(word for word in words if word not in interchangeable))
        self.specificity = sum(map(len, words))
        self._regexes: tuple[re.Pattern[str], ...] | None = None

    def read(self, text: str, original: str) -> _Reading | None:
        """The names that `original` has where the template, matched with `text`, has its holes."""
        if self._regexes is None:
            # "The author of Eight Is Enough is Ann.": where the first place to split does not give names, try the last.
            repeats = ("+",) if self.is_question else ("+?", "+")
            self._regexes = tuple(_compile(self.text, repeat, question=self.is_question) for repeat in repeats)
        for regex in self._regexes:
            match = regex.fullmatch(text)
            if match is None:
                return None
            subject = as_name(original[slice(*match.span("subject"))])
            obj = "" if self.is_question else self._object(original[slice(*match.span("object"))])
            if subject is not None and obj is not None:
                return _Reading(self, subject, obj) if self._fits(subject, obj, text) else None
        return None

    def _object(self, text: str) -> str | None:
        """The object's name: "the city of Lyon" is Lyon, and with an occupation "a painter" is painter."""
        kinds = self.relation.object_types
        if kinds and kinds <= PLACES:
            text = without_kind(text)
        elif kinds and not kinds <= NAMED:
            text = text.removeprefix("a ").removeprefix("an ")
        return as_name(text)

    def _fits(self, subject: str, obj: str, text: str) -> bool:
        """Whether the names are such as the relation holds between."""
        if self.is_question:
            return not self._is_unfinished(subject) and (
                not self._vague or kind_of(subject) in self.relation.subject_types
            )
        if self.pattern is not None:
            return reads_as(self.pattern, obj)
        kinds = self.relation.object_types
        if kinds and kinds <= NAMED | CLOSED and is_dated(obj):
            return False
        if kinds and kinds <= NAMED and not is_proper(obj, text):
            return False
        if kinds == {"person"} and " and " in obj and " of " not in obj:
            return False
        kind = kind_of(obj)
        if self._vague:
            named_office = kind_of(subject) == "office" and "office" in self.relation.subject_types
            return not is_possessed(subject) and (kind in kinds or named_office)
        if not kinds or self._names_its_object:
            return True
        return kind in kinds or (not kinds <= CLOSED and (kind is None or not kinds <= PLACES))

    def _is_unfinished(self, subject: str) -> bool:
        """Whether the subject of a question still holds words of the question ("Ann's name", "career of Ann")."""
        denoted = _DENOTED.match(subject) is not None and "office" not in self.relation.subject_types
        return denoted or _UNFINISHED.search(subject) is not None

    @property
    def _vague(self) -> bool:
        """Whether the words alone do not say which relation is meant."""
        return all(word in _VAGUE for word in self.words)

    @property
    def _names_its_object(self) -> bool:
        """Whether the words say of what kind the object is ("the country of origin")."""
        kinds = set(_WORD.findall(self.relation.label.casefold())) - _STOP_WORDS
        return any(word in kinds | self.relation.object_types | _KIND_WORDS for word in self.words)


# -- choosing among readings ---------------------------------------------------------------------------------


def _choose(readings: Iterable[_Reading]) -> Match | None:
    ranked = sorted(readings, key=lambda reading: (-reading.template.specificity, not reading.template.canonical))
    if not ranked:
        return None
    top = ranked[0].template
    rivals = [
        reading
        for reading in ranked
        if reading.template.specificity == top.specificity and reading.template.words == top.words
    ]
    chosen = _by_kind(rivals)
    return None if chosen is None else Match(chosen.subject, chosen.template.relation, chosen.object)


def _by_kind(rivals: Sequence[_Reading]) -> _Reading | None:
    """Of relations stated in the same words, the one whose objects are of the kind that this object is."""
    if len({reading.template.relation.id for reading in rivals}) == 1 or rivals[0].template.is_question:
        return rivals[0]
    for reading in rivals:
        if reading.template.pattern is not None:
            return reading
    kind = kind_of(rivals[0].object)
    if kind is not None:
        fitting = [reading for reading in rivals if kind in reading.template.relation.object_types]
        return _only(fitting, key=lambda reading: len(reading.template.relation.object_types))
    # An unlisted name is hardly a country or a language: of what is left, the most general relation.
    fitting = [reading for reading in rivals if not reading.template.relation.object_types <= CLOSED]
    return _only(fitting, key=lambda reading: -len(reading.template.relation.object_types))


def _only(readings: Sequence[_Reading], key: Callable[[_Reading], int]) -> _Reading | None:
    """The reading with the least key, if only one relation has it."""
    least = min(map(key, readings), default=0)
    best = [reading for reading in readings if key(reading) == least]
    return best[0] if len({reading.template.relation.id for reading in best}) == 1 else None


# -- templates as regular expressions ------------------------------------------------------------------------

_WORD = re.compile(r"[^\W_]+")
_TOKEN = re.compile(r"'s\b|\w+|.", re.DOTALL)
_SHORTEST_RESPELT = 6
"""Shortest word, in letters, in which two swapped letters are put right."""
# Words that leave open which relation is meant, words that say of what kind an object is, and words that say nothing.
_VAGUE = frozenset((
    "is", "was", "a", "an", "the", "in", "from", "on", "at", "as", "of", "to", "plays", "played", "performs", "name",
    "person", "current", "currently",
))  # fmt: skip
_KIND_WORDS = frozenset(("tongue", "citizen", "nationality"))
_STOP_WORDS = frozenset(("of", "the", "or", "and", "in", "by", "on", "at", "to", "for", "with", "from"))
_ABBREVIATION = re.compile(r"(?:\b\w\.\w|\b(?:Inc|Jr|Sr|Ltd|Co|Corp|Bros|Dr|Mt|St))$")
_DENOTED = re.compile(r"[a-z]+(?: [a-z]+)* (?:of|for) (?=[A-Z])")
_UNFINISHED = re.compile(
    r"^(?:or|and) |(?:\b(?:an?|the|part|from|for|known|found|born|made|used|played|founded|[a-z]+ated|[a-z]+ished)"
    r"|['’]s [a-z]+)$"
)

_ADVERB = "(?: (?:now|currently|presently))?"
_BEING = "(?:is|was|are|were)"
_SAME: dict[str, str] = {"that": "(?:that|which)", "which": "(?:that|which)", "'s": "(?:['’]s|(?<=[sS])['’])"}
_SAME_ASKING = {
    "what": "(?:what|which|who|whom)", "which": "(?:what|which)", "who": "(?:who|whom|what|which)",
    "does": "(?:does|did)", "did": "(?:does|did)", "is": _BEING, "was": _BEING, "are": _BEING, "headquarters": "headquarters?",
}  # fmt: skip
_OPTIONAL = frozenset(("that", "which", "s"))
_ASKING = _OPTIONAL | _SAME_ASKING.keys() | {"whom"}


def _one_line(sentence: str, *, question: bool) -> str | None:
    """The sentence on one line without its final stop, or None where it cannot be what is looked for."""
    text = " ".join(sentence.split())
    if not text or len(text) > 4 * LONGEST:
        return None
    if question:
        return text.rstrip(" ?.") or None
    if text.endswith("?"):
        return None
    if text.endswith((".", "!")) and not _ABBREVIATION.search(text[:-1]):
        text = text[:-1].rstrip()
    return text


def _compile(template: str, repeat: str, *, question: bool) -> re.Pattern[str]:
    holes = {"{subject}": f"(?P<subject>.{repeat})", "{object}": f"(?P<object>.{repeat})"}
    parts = re.split(r"(\{subject\}|\{object\})", template.rstrip(".?"))
    regexes = [
        holes.get(part) or "".join(_literal(token, question) for token in _TOKEN.findall(part)) for part in parts
    ]
    if question:
        regexes[0] = re.sub(rf"({re.escape(_BEING)}\\ )", r"\1(?:the names? of )?", regexes[0], count=1)
        regexes[0] = regexes[0].replace(r"the\ ", r"(?:the )?(?:current )?", 1)
    elif parts[0].startswith("The "):
        regexes[0] = r"(?:The names? of )?The (?-i:current |present |new )?" + regexes[0].removeprefix(r"The\ ")
    elif parts[:2] == ["", "{subject}"] and parts[2].startswith(" "):
        # "X is located in Y" is also "X, which is located in Y" and "X, located in Y".
        being = re.match(rf"\\ (?:is|was){re.escape(_ADVERB)}", regexes[2])
        verb, rest = (being[0], regexes[2][being.end() :]) if being else ("", regexes[2])
        regexes[2] = f"(?:(?:, (?:which|who|that))?{verb}{'|,' if being else ''}){rest}"
    return re.compile("".join(regexes), re.IGNORECASE)


def _literal(token: str, question: bool) -> str:
    """What a token of a template matches: interchangeable words, and verbs of being with an adverb."""
    folded = token.casefold()
    if question and folded in _SAME_ASKING:
        return _SAME_ASKING[folded]
    if folded in _SAME:
        return _SAME[folded]
    if folded in ("is", "are", "was", "were"):
        return token + _ADVERB
    return re.escape(token)


def _slips(word: str) -> Iterator[str]:
    """`word` with two neighbouring letters swapped, in every way."""
    for place in range(1, len(word) - 1):
        if word[place] != word[place + 1]:
            yield word[:place] + word[place + 1] + word[place] + word[place + 2 :]
