"""Who and what the earlier turns of a conversation named: what "she", "its" or "the CEO" in a later turn can stand for.

Every exchange, a question and its reply, offers entities in the order in which people take up again what was said: what the
reply named, what the question was about, and what lies on the chain of facts between them. Each has a kind (person, place, ...) as
far as facts, relations or question words tell it. Knows nothing of what is asked next, and calls no model.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, NamedTuple

from memedit.memory.catalogue import Catalogue
from memedit.memory.fact import EntityType, Fact, Relation
from memedit.memory.naming import PLACES, kind_of

if TYPE_CHECKING:
    from memedit.memory.memory import MemoryView

Kinds = frozenset[EntityType]
Gender = Literal["female", "male"]
PERSON: Kinds = frozenset({"person"})
LONGEST_READ = 1200
"""Characters of a turn that are read."""
_HOPS, _PATHS, _FACTS = 3, 48, 8


class Named(NamedTuple):
    """A name in a text.

    Attributes:
        name: As it is written.
        start: Where it begins, in characters.
        end: Where it ends.
    """

    name: str
    start: int
    end: int


class Entity(NamedTuple):
    """Something that was talked about.

    Attributes:
        name: Its name, as it was last written.
        key: What tells it apart from others.
        kinds: What it can be; empty where that is not known.
    """

    name: str
    key: str
    kinds: Kinds = frozenset()

    def may_be(self, kinds: Kinds) -> bool:
        """Whether it can be one of these kinds; an empty set admits all."""
        return not kinds or not self.kinds or bool(widened(self.kinds) & widened(kinds))


class Exchange(NamedTuple):
    """What a question and its reply were about.

    Attributes:
        question: The question, made self-contained.
        topics: What it names, in its order.
        answers: What the reply names beyond that; more than one only where it names them side by side.
        between: What lies on the chain of facts between the two.
    """

    question: str
    topics: tuple[Entity, ...]
    answers: tuple[Entity, ...]
    between: tuple[Entity, ...]


def read_exchange(question: str, reply: str, view: MemoryView) -> Exchange:
    """What was talked about in an exchange.

    Args:
        question: The user's turn, made self-contained.
        reply: The assistant's.
        view: Knows names, relations, and the facts between them.
    """
    slot = _slot(question, view)
    asked = (slot[1].object_types if slot else None) or kinds_asked(question)
    topics = _entities(names_in(question, view), view, slot[1].subject_types if slot else frozenset())
    keys = {topic.key for topic in topics}
    told = [one for one in _answering(reply, view) if key_of(one.name, view) not in keys]
    answers = _entities(told, view, asked)
    between = [one for one in _between(slot, topics, answers, view) if one.key not in keys]
    said = {one.key for one in answers}
    return Exchange(question, tuple(topics), tuple(answers), tuple(one for one in between if one.key not in said))


def names_in(text: str, view: MemoryView) -> list[Named]:
    """The names in a text: entities of the view, quoted titles, and words with capitals that are no relations.

    Args:
        text: A turn of a conversation.
        view: Knows names in any case.
    """
    text = text[:LONGEST_READ]
    found = [Named(one.text, one.start, one.end) for one in view.mentions(text) if not _is_common(one.text, view)]
    for match in _QUOTED.finditer(text):
        _put(found, Named(match[1], *match.span(1)))
    for match in _CAPITALS.finditer(text):
        if (name := _trimmed(text, match.span(), view)) is not None:
            _put(found, name)
    return sorted(found, key=lambda one: one.start)


def relation_named(words: str, catalogue: Catalogue) -> Relation | None:
    """The relation that a noun names ("CEO", "official language"), or None.

    >>> relation_named("the current CEO", Catalogue.default()).label
    'chief executive officer'
    """
    noun = _DETERMINER.sub("", words.strip()).casefold()
    if not noun:
        return None
    return catalogue.resolve(noun) or _heads(catalogue, len(catalogue)).get(noun)


def gender_of(entity: Entity, view: MemoryView) -> Gender | None:
    """What a title or a fact says of a person."""
    if title := _TITLE.match(entity.name):
        return "male" if title[1].casefold() in _MALE_TITLES else "female"
    for fact in view.lookup(entity.name, "P21"):
        if fact.object.casefold() in ("female", "male"):
            return "female" if fact.object.casefold() == "female" else "male"
    return None


def gender_of_answer(question: str) -> Gender | None:
    """What a question says of who answers it: a husband is male.

    >>> gender_of_answer("Who is Ada's husband?"), gender_of_answer("Who is the CEO?")
    ('male', None)
    """
    match = _KINSHIP.search(question)
    return None if match is None else "male" if match[1].casefold() in _MALE else "female"


def key_of(name: str, view: MemoryView) -> str:
    """What tells an entity apart from others."""
    return view.resolve(name) or name.casefold()


def widened(kinds: Kinds) -> Kinds:
    """The kinds with those that are told apart in relations but not in talk: a city is a place."""
    return kinds | PLACES if kinds & PLACES else kinds


def kinds_asked(question: str) -> Kinds:
    """What kind of thing a question's own words ask for; empty where they do not say.

    >>> sorted(kinds_asked("Who founded Initech?")), sorted(kinds_asked("Which company made it?"))
    (['person'], ['organization'])
    """
    match = _ASKS_KIND.match(question.strip())
    if match is None:
        return frozenset()
    return NOUN_KINDS.get((match[2] or "").casefold(), frozenset()) or _WORD_KINDS.get(match[1].casefold(), frozenset())


# -- the parts of an exchange --------------------------------------------------------------------------------


def _slot(question: str, view: MemoryView) -> tuple[str, Relation] | None:
    """The subject and the relation that a question asks for, where it asks for one hop."""
    if len(question) > LONGEST_READ:
        return None
    parsed = view.catalogue.parse_question(question)
    if parsed is not None:
        return parsed[0], view.catalogue.get(parsed[1])
    match = _SLOT.fullmatch(question.strip())
    relation = None if match is None else relation_named(match["noun"], view.catalogue)
    return None if match is None or relation is None else (match["subject"], relation)


def _entities(names: Iterable[Named], view: MemoryView, hint: Kinds) -> list[Entity]:
    found: dict[str, Entity] = {}
    names = list(names)
    for one in names:
        key = key_of(one.name, view)
        kinds = _kinds(one.name, view) or (hint if len(names) == 1 else frozenset())
        found.setdefault(key, Entity(one.name, key, kinds))
    return list(found.values())


def _kinds(name: str, view: MemoryView) -> Kinds:
    """What an entity can be by its name and its facts."""
    if (known := kind_of(name)) is not None:
        return frozenset({known})
    if _COMPANY.search(name):
        return frozenset({"organization"})
    possible: Kinds | None = None
    for path in view.paths(name, 1, _FACTS):
        kinds = view.catalogue.get(path.relations[0]).subject_types
        if kinds:
            possible = kinds if possible is None else (possible & kinds or possible)
    return possible or frozenset()


def _answering(reply: str, view: MemoryView) -> list[Named]:
    """What a reply names first: one name, or all of a list.

    Of a reply of several sentences only the first that names anything counts.
    """
    if "```" in reply:
        return []
    for sentence in _SENTENCE.split(reply[:LONGEST_READ]):
        names = names_in(sentence, view)
        names = [one for one in names if not _opens_only(sentence, one, view)]
        if names:
            return names
    return []


def _between(
    slot: tuple[str, Relation] | None, topics: Sequence[Entity], answers: Sequence[Entity], view: MemoryView
) -> list[Entity]:
    """What facts lead through from a topic to an answer; where the reply named none, where they lead."""
    if not answers:
        facts = () if slot is None else view.lookup(slot[0], slot[1].id)
        return [_arrived(fact, view) for fact in facts[:2]]
    ends = {one.key for one in answers}
    for topic in topics:
        for path in view.paths(topic.name, _HOPS, _PATHS):
            if key_of(path.facts[-1].object, view) in ends:
                return [_arrived(fact, view) for fact in path.facts[:-1]]
    return []


def _arrived(fact: Fact, view: MemoryView) -> Entity:
    return Entity(fact.object, key_of(fact.object, view), view.catalogue.get(fact.relation).object_types)


# -- names ---------------------------------------------------------------------------------------------------


def _put(found: list[Named], name: Named) -> None:
    if not any(name.start < other.end and other.start < name.end for other in found):
        found.append(name)


def _trimmed(text: str, span: tuple[int, int], view: MemoryView) -> Named | None:
    """A run of words with capitals without those that are no part of a name; None where nothing is left."""
    start, end = span
    while (lead := _LEADING.match(text, start, end)) is not None and lead.end() > start:
        start = lead.end()
    while " of " in text[start:end]:
        head, _, _ = text[start:end].partition(" of ")
        if relation_named(head, view.catalogue) is None and head.casefold() not in _OFFICES:
            break
        start += len(head) + len(" of ")
        if lead := _LEADING.match(text, start, end):
            start = lead.end()
    name = _TRAILING.sub("", text[start:end])
    if len(name) < 2 or name.casefold() in _NO_NAMES or _is_common(name, view):
        return None
    return Named(name, start, start + len(name))


def _is_common(name: str, view: MemoryView) -> bool:
    """Whether words name a relation and not an entity ("CEO"), or are no name at all."""
    return name.casefold() in _NO_NAMES or (
        relation_named(name, view.catalogue) is not None and kind_of(name) is None and not view.paths(name, 1, 1)
    )


def _opens_only(sentence: str, one: Named, view: MemoryView) -> bool:
    """Whether a single word is written with a capital only because it opens a sentence, as far as that can be told."""
    if sentence[: one.start].strip() or " " in one.name or kind_of(one.name) is not None:
        return False
    rest = sentence[one.end :].strip(" .!?\"'”’*")
    if not rest or _PREDICATE.match(sentence, one.end):
        return False
    return not any(mention.start == one.start for mention in view.mentions(sentence))


@lru_cache(maxsize=16)
def _heads(catalogue: Catalogue, _size: int) -> dict[str, Relation]:
    """The nouns that relations' phrases are made with; `_size` renews the cache when relations are added."""
    heads: dict[str, set[str]] = {}
    for relation in catalogue:
        for phrase in (relation.phrase, *relation.phrases):
            match = _HEAD.fullmatch(phrase)
            if match is not None:
                heads.setdefault((match[1] or match[2]).casefold(), set()).add(relation.id)
    return {head: catalogue.get(next(iter(ids))) for head, ids in heads.items() if len(ids) == 1}


_HEAD = re.compile(r"the ([^{}]+) of \{subject\}|\{subject\}'s ([^{}]+)")
_SLOT = re.compile(
    r"(?:who|what|where)(?:['’]s| is| was| are| were) (?P<subject>.+)['’]s (?P<noun>[a-z][\w -]*)\W*", re.IGNORECASE
)
_DETERMINER = re.compile(r"^(?:the\s+)?(?:(?:current|present|new|actual|latest)\s+)?", re.IGNORECASE)
_QUOTED = re.compile(r"[\"“«]([^\"”»]{2,80})[\"”»]")
_CAPITAL = r"[^\W\d_a-zß-öø-ÿ](?:\w?\.(?=[ \w])|[\w'’&-]*(?:\.\w[\w'’&-]*)*)"
_CAPITALS = re.compile(rf"\b{_CAPITAL}(?: (?:(?:of|the|de|del|van|von|der|den|la|le|du|da|di|al|bin) )*{_CAPITAL})*")
_TRAILING = re.compile(r"(?:['’]s?|[.,:;-])+$")
_SENTENCE = re.compile(r"(?<=[^\W\d_]{2}[.!?])\s+|\n+")
_PREDICATE = re.compile(r"['’]s\b|,?\s+(?:is|was|has|had|became|wrote|founded|who|lies|and)\b")
_NO_NAMES_TEXT = """
a according actually add after all also although am an and any april are as at august because before but by can
certainly compare compose continue correct could create currently december describe did do does draft draw during
eight either eleven explain false february finally first five fix for four friday from generate give given go had
has have he hello help hence her here hers hey hi his how however hundred i if implement improve in indeed into is
it its january july june just keep last let list make march may maybe me million monday my name neither nevertheless
next nine no nobody none nor not note nothing november now october of oh ok okay on once one only or our perhaps
please read recommend remember repeat saturday say search september seven shall she should show since six so solve
sorry still suggest summarise summarize sunday sure take talk tell ten test thank thanks that the their them then
there therefore these they think this those though thousand three thursday thus to today translate true try tuesday
twelve two unfortunately unknown until use want was we wednesday well were what what's when where where's which
while who who's whom whose why will with would write yes yet you your zero
"""
_NO_NAMES = frozenset(_NO_NAMES_TEXT.split())
_LEADING = re.compile(
    rf"(?:(?:{'|'.join(sorted(map(re.escape, _NO_NAMES), key=len, reverse=True))})(?:\s+|$))+", re.IGNORECASE
)
_OFFICES = frozenset(("president", "mayor", "king", "queen", "prime minister", "minister", "head", "director", "bank"))
_COMPANY = re.compile(
    r"\b(?:Inc|Corp|Corporation|Ltd|LLC|GmbH|AG|PLC|Company|University|College|Institute|Party|Club|Records|FC|Group)\b\.?$"
)
_TITLE = re.compile(r"(Mr|Mrs|Ms|Miss|Sir|Lord|Lady|King|Queen|Prince|Princess|Dame)\b")
_MALE_TITLES = frozenset(("mr", "sir", "lord", "king", "prince"))
_MALE = frozenset(("husband", "father", "son", "brother", "uncle", "grandfather", "nephew", "king", "grandson"))
_KINSHIP = re.compile(
    r"(?:['’]s?|the|whose) (husband|father|son|brother|uncle|grandfather|nephew|king|grandson|wife|mother|daughter|sister|aunt|"
    r"grandmother|niece|queen|granddaughter)\b",
    re.IGNORECASE,
)
NOUN_KINDS: dict[str, Kinds] = {
    **dict.fromkeys(("person", "man", "woman", "author", "writer", "actor", "actress", "singer", "player", "politician"), PERSON),
    **dict.fromkeys(("place", "city", "town", "country", "nation", "state", "continent", "region"), PLACES),
    **dict.fromkeys(
        ("company", "firm", "organization", "organisation", "university", "school", "team", "club", "party", "band", "group"),
        frozenset[EntityType]({"organization"}),
    ),
    **dict.fromkeys(
        ("book", "novel", "film", "movie", "song", "album", "work", "show", "series", "game", "play", "poem", "painting"),
        frozenset[EntityType]({"work", "product"}),
    ),
    "language": frozenset({"language"}),
    "religion": frozenset({"religion"}),
    "sport": frozenset({"sport"}),
}  # fmt: skip
"""What a common noun says that something is."""
_WORD_KINDS: dict[str, Kinds] = {"who": PERSON, "whom": PERSON, "who's": PERSON, "where": PLACES}
_ASKS_KIND = re.compile(r"(?:in |by |to |from |of )?(who's|whom|who|where|which|what)\b(?: (\w+))?", re.IGNORECASE)
