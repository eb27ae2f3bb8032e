"""What a question claims: reads "Is Lyon the capital of France?" and answers by comparing with the fact, where that is certain.

A yes/no question is turned back into the sentence it asks about ("Lyon is the capital of France"), which the catalogue's
templates read. What is named as the object is then compared with the object by entity, aliases included. A "yes" is certain
whenever they are the same; a "no" only where the relation holds one object and the two exclude each other: someone born in Rome
was born in Italy too. Whatever is not certain is None, and left to a model.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple, Protocol

from memedit.answer import Hop
from memedit.errors import InvalidFact, UnknownRelation
from memedit.memory.catalogue import Catalogue
from memedit.memory.entities import EntityTable
from memedit.memory.fact import Fact, Relation
from memedit.memory.naming import PLACES, as_name, is_proper, kind_of


class Names(Protocol):
    """What tells names and relations apart; a `MemoryView` is one."""

    @property
    def catalogue(self) -> Catalogue:
        """The relations."""
        ...

    def resolve(self, name: str) -> str | None:
        """The key of the entity that a name stands for; None if it cannot be a name."""
        ...


class BuiltinNames:
    """The relations and names that ship with the package."""

    catalogue: Catalogue

    def __init__(self) -> None:
        self.catalogue = Catalogue.default()

    def resolve(self, name: str) -> str | None:
        """See `Names.resolve`."""
        try:
            return EntityTable.builtin().resolve(name)
        except InvalidFact:
            return None


@lru_cache(maxsize=1)
def builtin_names() -> Names:
    """The shared `BuiltinNames`."""
    return BuiltinNames()


class Claim(NamedTuple):
    """What a yes/no question says the object is.

    Attributes:
        names: The names; several in "Is it Lyon or Paris?".
        negated: Whether the question has a "not" in it.
    """

    names: tuple[str, ...]
    negated: bool = False


def is_yes_or_no(question: str) -> bool:
    """Whether a question is to be answered with yes or no (or by one of two names).

    >>> is_yes_or_no("Isn't Lyon the capital of France?"), is_yes_or_no("Lyon is the capital of France, right?")
    (True, True)
    >>> is_yes_or_no("What is the capital of France?")
    False
    """
    text = question.strip()
    return _ASKED.match(text) is not None or any(form.fullmatch(text) for form in _STATED)


def judge(question: str, facts: Sequence[Fact], hops: Sequence[Hop], names: Names) -> str | None:
    """The answer to a yes/no question about the end of a chain, or None where it is not certain.

    Args:
        question: The question.
        facts: The facts in scope; those of the last hop's slot are its objects.
        hops: The resolved chain.
        names: Tell names and relations apart.
    """
    if not hops or not is_yes_or_no(question) or _UNCERTAIN.search(question):
        return None
    try:
        relation = names.catalogue.get(hops[-1].relation)
    except UnknownRelation:
        return None
    claim = read_claim(question, hops, relation, names)
    if claim is None:
        return hops[-1].object if _leaves_choice(question, hops[0].entity, names) else None
    objects = [one.object for one in facts if one.id == hops[-1].edit_id] or [hops[-1].object]
    if not relation.single_valued:
        objects += [one.object for one in facts if one.relation == relation.id and one.subject == hops[-1].entity]
    keys = {names.resolve(one): one for one in reversed(objects)}
    said = next((keys[key] for name in claim.names if (key := names.resolve(name)) in keys), None)
    if said is not None:
        return said if len(claim.names) > 1 else f"Yes, it is {said}." if claim.negated else "Yes."
    if all(excludes(relation, name, objects[0]) for name in claim.names):
        return f"{'No' if len(claim.names) == 1 else 'Neither'}, it is {objects[0]}."
    return None


def read_claim(question: str, hops: Sequence[Hop], relation: Relation, names: Names) -> Claim | None:
    """What a yes/no question claims to be at the end of a chain; None where it cannot be told."""
    found: dict[Claim, None] = {}
    for text, negated in sentences(question):
        triple = names.catalogue.parse(text)
        if triple is None:
            continue
        ends = [(triple.subject, triple.object)] if triple.relation_id == relation.id else []
        if triple.relation_id == relation.inverse or (ends and relation.symmetric):
            ends.append((triple.object, triple.subject))
        said = [end for about, end in ends if names.resolve(about) == names.resolve(hops[-1].entity)]
        if not said:
            return None  # it claims something else
        found[Claim(_choices(said[0], hops[-1].object, names), negated)] = None
    if not found:
        found = dict.fromkeys(_by_phrase(question, hops, relation, names))
    return next(iter(found)) if len(found) == 1 else None


def sentences(question: str) -> Iterator[tuple[str, bool]]:
    """The statements that a yes/no question may ask about, and whether each was negated.

    >>> [text for text, _ in sentences("Is Lyon the capital of France?")][:2]
    ['Lyon is the capital of France', 'Lyon the capital is of France']
    >>> list(sentences("Does Ada speak Welsh?"))[0]
    ('Ada speaks Welsh', False)
    >>> list(sentences("Is it true that Lyon is the capital of France?"))
    [('Lyon is the capital of France', False)]
    """
    for form in _STATED:
        if stated := form.fullmatch(question.strip()):
            sentence = f" {stated['statement'].rstrip('.,!? ')} "
            if _ASKED.match(sentence.strip()):  # "Yes or no: is Lyon ...?"
                yield from sentences(f"{sentence.strip()}?")
            else:
                yield _NOT.sub(" ", sentence, count=1).strip(), _NOT.search(sentence) is not None
            return
    asked = _asked(question)
    if asked is None:
        return
    words = asked.rest.split()
    for place in range(1, len(words)):
        before, after = words[:place], words[place:]
        if before[-1] in _UNENDED:
            continue
        if asked.verb in _DO:
            for form_of_verb in _inflected(after[0]):
                yield " ".join([*before, form_of_verb, *after[1:]]), asked.negated
        else:
            yield " ".join([*before, asked.verb, *after]), asked.negated


def excludes(relation: Relation, claimed: str, obj: str) -> bool:
    """Whether a slot that holds `obj` cannot be said to hold `claimed` as well.

    >>> relations = Catalogue.default()
    >>> excludes(relations.get("P36"), "Paris", "Lyon"), excludes(relations.get("P19"), "Italy", "Rome")
    (True, False)
    """
    kinds = relation.object_types
    if not relation.single_valued or kinds & _NESTED or _contains(claimed, obj) or _contains(obj, claimed):
        return False
    if is_proper(obj, "A") != is_proper(claimed, "A"):
        return False
    if kinds & PLACES and "country" in kinds and kinds != {"country"}:
        return kind_of(claimed) == kind_of(obj) == "country"
    demonym = "person" in kinds and bool(_DEMONYM.fullmatch(claimed)) and not _DEMONYM.fullmatch(obj)
    return not demonym and not (kinds and "country" not in kinds and kind_of(claimed) == "country")


def rules_out(question: str, name: str) -> bool:
    """Whether a question says that it is not after the entity of that name.

    >>> rules_out("The occupation of Bo Li, which is not painter, is", "painter")
    True
    >>> rules_out("Which city other than Lyon is a capital?", "Lyon")
    True
    >>> rules_out("Is Lyon not the capital of France?", "Lyon")
    False
    """
    pattern = rf"{_OTHER_THAN}\s+(?:an? |the )?[\"“']?{re.escape(name)}(?!\w)"
    return re.search(pattern, question, re.IGNORECASE) is not None


def names_entity(text: str, name: str, names: Names) -> bool:
    """Whether a text names an entity, by whichever of its names."""
    key = names.resolve(name)
    words = _WORD.findall(text)
    longest = max(8, len(name.split()) + 1)
    spans = (words[at : at + size] for at in range(len(words)) for size in range(1, min(longest, len(words) - at) + 1))
    return any(names.resolve(_POSSESSIVE.sub("", " ".join(span))) == key for span in spans)


def _by_phrase(question: str, hops: Sequence[Hop], relation: Relation, names: Names) -> Iterator[Claim]:
    """Claims about a chain: "Is Kyoto the capital of the country where ...?", "Is the capital of the ... Kyoto?"."""
    asked = _asked(question)
    if asked is None or asked.verb in _DO:
        return
    start = re.escape(hops[0].entity)
    for phrase in (relation.phrase, *relation.phrases):
        head, _, tail = phrase.partition("{subject}")
        if tail or len(head) < _SHORTEST_HEAD:
            continue
        head = re.escape(head)
        forms = (rf"(?P<said>.+?) {head}.*{start}.*", rf"{head}.*{start}\S*(?: [^A-Z]\S*)* (?P<said>[A-Z0-9].*)")
        for form in forms:
            match = re.fullmatch(form, asked.rest)
            name = as_name(match["said"]) if match else None
            if (
                name
                and is_proper(name, "A")
                and not _PREPOSITION.search(asked.rest[: match.start("said")] if match else "")
            ):
                yield Claim(_choices(name, hops[-1].object, names), asked.negated)
                return


def _leaves_choice(question: str, entity: str, names: Names) -> bool:
    """Whether a question that is read as no claim leaves a choice of objects: "Was Ann male or female?"."""
    asked = _asked(question)
    about, either, last = asked.rest.rpartition(" or ") if asked else ("", "", "")
    if not either or len(last.split()) > _LONGEST_CHOICE or not names_entity(about, entity, names):
        return False
    return all(names.catalogue.parse(text) is None for text, _ in sentences(question))


class _Asked(NamedTuple):
    """A yes/no question taken apart: "Isn't it still Lyon?" is "is", "it Lyon", negated."""

    verb: str
    rest: str
    negated: bool


def _asked(question: str) -> _Asked | None:
    text = _OR_NOT.sub("", question.strip()).rstrip("?!. ")
    match = _ASKED.match(text)
    if match is None:
        return None
    rest = _FILLER.sub(" ", f" {text[match.end() :].strip()} ")
    negated = match["not"] is not None or _NOT.search(rest) is not None
    return _Asked(match["verb"].casefold(), _NOT.sub(" ", rest, count=1).strip(), negated)


def _choices(said: str, obj: str, names: Names) -> tuple[str, ...]:
    """The names in "either Lyon or Paris"; one name where there is no choice, or the name itself has an "or" in it."""
    text = said.removeprefix("either ")
    if names.resolve(text) == names.resolve(obj):
        return (text,)
    return tuple(part.strip() for part in _OR.split(text) if part.strip())


def _contains(longer: str, shorter: str) -> bool:
    return f" {' '.join(_WORD.findall(shorter.casefold()))} " in f" {' '.join(_WORD.findall(longer.casefold()))} "


def _inflected(verb: str) -> Iterator[str]:
    """The forms that "do" and "did" took over from a verb."""
    if verb in _IRREGULAR:
        yield from _IRREGULAR[verb]
        return
    stem = verb[:-1] + "i" if re.search(r"[^aeiou]y$", verb) else verb
    yield stem + ("es" if re.search(r"(?:[sxz]|ch|sh|i)$", stem) else "s")
    yield stem + ("d" if stem.endswith("e") else "ed")


_ASKED = re.compile(
    r"(?:so|and|but|well|tell me|hey|please)?,? ?"
    r"(?P<verb>is|are|was|were|does|do|did|has|have|had)(?P<not>n['’]t)?(?= )",
    re.IGNORECASE,
)
_STATED = (
    re.compile(
        r"(?:is|was|isn['’]t) it (?:true|correct|right|the case|so|a fact) that (?P<statement>.+)", re.IGNORECASE
    ),
    re.compile(r"(?:true or false|yes or no|right or wrong)[:,?]? (?P<statement>.+)", re.IGNORECASE),
    re.compile(
        r"(?P<statement>.+), (?:right|correct|true|yes|no|isn['’]t (?:it|he|she|that so)|is(?:n['’]t)? that (?:right|so))\?",
        re.IGNORECASE,
    ),
)
_UNENDED = frozenset(("the", "a", "an", "of", "in", "by", "to", "at", "for", "from", "on", "with", "and", "or"))
"""Words that no subject ends with."""
_DO = frozenset(("do", "does", "did"))
_NOT = re.compile(r"\snot\s|n['’]t\s", re.IGNORECASE)
_OTHER_THAN = r"(?:(?:which|who|that) (?:is|was|are|were) not|(?:isn|wasn|aren|weren)['’]t|other than|besides|except(?: for)?|a(?:part|side) from)"
_FILLER = re.compile(r"\s(?:still|currently|now|really|actually|today|these days|indeed)(?=\s)")
_OR_NOT = re.compile(r",? or not\W*$", re.IGNORECASE)
_OR = re.compile(r",? or |, ")
_UNCERTAIN = re.compile(
    r"\b(?:ever|never|formerly|previously|once|used to|before|after|until|originally|no longer|any ?more|only|both|"
    r"than|same|different|older|younger|larger|bigger|smaller|related|neither|nor|if|why|because)\b|\bas \w+ as\b"
)
_WORD = re.compile(r"[^\s,;:!?\"“”()]+")
_POSSESSIVE = re.compile(r"(?<=\w)['’]s?$|\.$")
_PREPOSITION = re.compile(r" (?:in|of|at|by|from|on|to|with|for|an?|near) $")
_DEMONYM = re.compile(r"[A-Z][a-z]+(?:ish|ese|ian|ean|can|ench|utch|reek|wiss|elsh|rish)")
_NESTED = frozenset({"occupation", "genre", "position", "office"})
"""Kinds with kinds of themselves: a guitarist is a musician too."""
_SHORTEST_HEAD = 8
_LONGEST_CHOICE = 3
"""Most words of the last thing that a question leaves to choose."""
_IRREGULAR = {
    "write": ("wrote", "writes"), "speak": ("speaks", "spoke"), "make": ("makes", "made"), "win": ("won", "wins"),
    "hold": ("holds", "held"), "lead": ("leads", "led"), "build": ("built", "builds"), "run": ("runs", "ran"),
    "have": ("has", "had"), "found": ("founded",), "bear": ("bore", "bears"), "sing": ("sang", "sings"),
    "go": ("goes", "went"), "come": ("comes", "came"), "begin": ("began", "begins"), "stand": ("stands", "stood"),
    "teach": ("teaches", "taught"), "lie": ("lies", "lay"), "fight": ("fought",), "do": ("does", "did"),
    "be": ("is", "was"), "take": ("takes", "took"), "give": ("gives", "gave"), "sell": ("sells", "sold"),
}  # fmt: skip
