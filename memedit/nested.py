"""Questions that go on where the facts end: "What is the highest peak in the country where Nosferatu was made?".

Inside such a question a noun phrase stands for the object of an edit, and what is asked about that object is no relation of
the catalogue. With the object put in the place of the phrase, a question is left that any model can be asked: "What is the
highest peak in Australia?". Reads words only; knows nothing of models.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from memedit.answer import Hop
from memedit.claims import Names
from memedit.errors import UnknownRelation
from memedit.memory.fact import EntityType, Relation
from memedit.memory.naming import PLACES, kind_of


class Nested(NamedTuple):
    """A question taken apart around a noun phrase.

    Attributes:
        before: What stands before the phrase.
        phrase: The phrase.
        after: What stands after it.
    """

    before: str
    phrase: str
    after: str

    def about(self, name: str) -> str:
        """The question with a name in the place of the phrase."""
        return f"{self.before}{name}{self.after}"

    @property
    def asked(self) -> str:
        """The question that the phrase itself answers.

        >>> Nested("Who leads ", "the club that Ann plays for", "?").asked
        'What is the club that Ann plays for?'
        """
        return f"What is {self.phrase}?"


def find_nested(question: str, name: str) -> Nested | None:
    """The innermost noun phrase that describes something by a name, with a question left around it.

    >>> find_nested("What is the highest peak in the country where Nosferatu was made?", "Nosferatu")
    Nested(before='What is the highest peak in ', phrase='the country where Nosferatu was made', after='?')
    >>> find_nested("In which state is the company that made the IBM 729 based?", "IBM 729")
    Nested(before='In which state is ', phrase='the company that made the IBM 729', after=' based?')
    >>> find_nested("What is the capital of Ann's country of birth?", "Ann")
    Nested(before='What is the capital of ', phrase="Ann's country of birth", after='?')
    >>> find_nested("What is the country where Nosferatu was made?", "Nosferatu") is None
    True
    """
    place = question.casefold().find(name.casefold())
    if place < 0 or not question.rstrip().endswith("?"):
        return None
    end = place + len(name)
    owned = _OWNED.match(question, end)
    starts = [match.start() for match in _ARTICLE.finditer(question, 0, place)]
    chosen = place if owned else next(
        (start for start in reversed(starts) if _DESCRIBES.search(question[start:place])), None
    )  # fmt: skip
    if chosen is None:
        return None
    before = question[:chosen]
    if not _ASKS.search(before) or _SAYS_NOTHING.fullmatch(before.strip()):
        return None
    if question[end : end + 1] in _CLOSING_QUOTES:
        end += 1
    stop = _end_of_phrase(question, before, question[chosen:place], end, after=1 if "," in name else 0)
    return Nested(before, question[chosen:stop], question[stop:])


def question_left(question: str, hop: Hop, names: Names) -> str | None:
    """What a question asks of the object that a hop leads to; None where it asks for that object.

    Args:
        question: The question.
        hop: The only hop of a resolved chain.
        names: Tell names and relations apart.
    """
    try:
        relation = names.catalogue.get(hop.relation)
    except UnknownRelation:
        return None
    found = find_nested(question, hop.entity)
    if found is None:
        return _asked_of_object(question, hop, relation)
    own = {word[:_STEM] for word in _WORD.findall(f"{relation.label} {relation.question}".casefold())}
    if all(word[:_STEM] in own for word in _WORD.findall(_EMPTY_WORDS.sub(" ", found.before).casefold())):
        return None  # "What caused the death of Ann?" asks for the cause of death
    asked = frozenset(_KINDS[word] for word in _WORD.findall(found.before.casefold()) if word in _KINDS)
    return None if asked & _kinds(hop, relation) else found.about(hop.object)


def plainly(question: str, names: Names) -> str:
    """A question for the name of what a relation leads to, as one for that; any other as it is.

    "What is the origin of Ann's name?" asks about a name: that is no relation.

    >>> from memedit.claims import builtin_names
    >>> plainly("What's the director of Nimbus's name?", builtin_names())
    'What is the director of Nimbus?'
    """
    match = _FOR_NAME.fullmatch(question.strip())
    plain = f"What {'was' if match['verb'] == 'was' else 'is'} {match['phrase']}?" if match else ""
    return plain if match and names.catalogue.parse_question(plain) is not None else question


def _asked_of_object(question: str, hop: Hop, relation: Relation) -> str | None:
    """The question with the object in the place of the entity, where it asks for what the object cannot be but may have: the
    country of a city, the holy book of a religion.
    """
    match = _ASKS_FOR_KIND.search(question)
    place = question.casefold().find(hop.entity.casefold())
    if match is None or place < 0 or not question.rstrip().endswith("?"):
        return None
    asked, types, kinds = _KINDS_OF_ANSWERS[match.group(1).casefold()], relation.object_types, _kinds(hop, relation)
    if not kinds or "thing" in kinds or types == {asked}:
        return None
    among_places = asked in PLACES and kinds & PLACES
    beyond = kinds <= _WITHIN.get(asked, frozenset()) if among_places else asked not in kinds | types
    return question[:place] + hop.object + question[place + len(hop.entity) :] if beyond else None


def _kinds(hop: Hop, relation: Relation) -> frozenset[EntityType]:
    """What the object of a hop can be."""
    known, types = kind_of(hop.object), relation.object_types
    return frozenset({known}) if known is not None and (known in types or known in PLACES) else types


def _end_of_phrase(question: str, before: str, inside: str, end: int, *, after: int) -> int:
    """Where the phrase ends: with the question or at a comma (not at the first `after` ones, which belong to the name), or
    where the question's own verb follows it.
    """
    closings = [match.start() for match in _CLOSING.finditer(question, end)]
    commas = [at for at in closings if question[at : at + 1] == ","][:after]
    last = next((at for at in closings if at not in commas), len(question))
    if not _AWAITS_VERB.search(before):
        return last
    words = [end + match.end() for match in re.finditer(r"\s*[^\s]+", question[end:last])]
    if _OWNED.match(question, end) or _CLAUSE.search(inside):
        return words[-2] if len(words) > 1 else end
    return end


_AUXILIARY = r"(?:is|are|was|were|does|do|did|has|have|had|can|could|would|will|might|may)"
_ARTICLE = re.compile(r"\b[Tt]he (?=\w)")
_OWNED = re.compile(r"['’]s? (?!name\b)(?=[a-z])")
_ASKS = re.compile(r"\b(?:what|which|who|whom|whose|where|when|how)\b", re.IGNORECASE)
_STEM = 4
_DESCRIBES = re.compile(
    r"^[Tt]he (?:[\w'’-]+ ){1,6}?(?:of|where|in which|at which|on which|to which|for which|from which|by which|that|which|who|"
    r"whose|whom|by|in|from|for|on|to|at|with)\s"
    r"|^[Tt]he (?:same )?(?:country|continent|city|state|region|company|network|organi[sz]ation|religion|language|sport|"
    r"person|place|club|team|university|school) (?:as |(?=$))"
)
"""An article, what is described, and how: "the country where ...", "the language of ..."; not "the film ..."."""
_CLAUSE = re.compile(r" where ")
_CLOSING_QUOTES = tuple('"”»')
_CLOSING = re.compile(r"[?!]|\.$|, |$")
_AWAITS_VERB = re.compile(rf"(?:^|\s){_AUXILIARY}\s*$", re.IGNORECASE)
_EMPTY = (
    rf"(?:(?:what|who)['’]s|do you know|can you|could you|tell me|{_AUXILIARY}|in|on|at|to|from|for|of|with|by|and|so|what|which|"
    r"who|whom|whose|where|when|how|name|please|give|say|it|one|high|the|a|an|called|known as)(?!\w)"
)
# Possessive, so that no question can be made to take long; longer ones of the words above come first for that.
_SAYS_NOTHING = re.compile(rf"(?:\W|{_EMPTY})*+", re.IGNORECASE)
_EMPTY_WORDS = re.compile(rf"\b{_EMPTY}", re.IGNORECASE)
_WORD = re.compile(r"\w+")
_KINDS: dict[str, EntityType] = {
    "who": "person", "person": "person", "whom": "person", "city": "city", "town": "city", "capital": "city",
    "country": "country", "nation": "country", "continent": "continent", "language": "language", "languages": "language",
    "religion": "religion", "faith": "religion", "sport": "sport", "company": "organization", "organization": "organization",
    "organisation": "organization", "network": "organization", "occupation": "occupation", "profession": "occupation",
    "position": "position", "genre": "genre",
}  # fmt: skip
"""What a word says is asked for."""
_KINDS_OF_ANSWERS = {
    word: kind for word, kind in _KINDS.items() if word not in ("who", "whom", "position", "genre")
} | dict.fromkeys(("book", "text", "scripture"), "work")
"""The same for words that come after "which"."""
_ASKS_FOR_KIND = re.compile(
    rf"\b(?:what|which)(?:['’]s| is| are| was| were)?(?: the)?(?: [a-z-]+){{0,2}}? ({'|'.join(_KINDS_OF_ANSWERS)})"
    rf"(?= (?:{_AUXILIARY}|in|on|at|from|by|for|of|that|which|where|to|[a-z]+ed|spoken)\b|(?-i: [A-Z])|[?,])",
    re.IGNORECASE,
)
_WITHIN: dict[EntityType, frozenset[EntityType]] = {
    "country": frozenset({"city"}), "continent": frozenset({"city", "country"}),
}  # fmt: skip
"""What lies within places of a kind."""
_FOR_NAME = re.compile(r"what(?:['’](?=s)| )(?P<verb>s|is|was) (?P<phrase>the [a-z].+)['’]s? name\?", re.IGNORECASE)
