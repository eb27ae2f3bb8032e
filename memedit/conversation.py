"""A follow-up as a question of its own: "And who is her husband?" after talk of Ada Byron is "Who is Ada Byron's husband?".

A planner reads one question. So the last turn of a conversation is completed from the turns before it where it
names no subject itself: by rule, in about a millisecond, without a model. Three kinds of follow-up are completed:

- pronouns and definite nouns: "Where was she born?", "What is its capital?", "Who founded that company?";
- a relation without its subject: "And the CEO?", "Who is the head of state?";
- another subject for the question before: "And Germany?".

Whatever is not clearly one of these, or could mean two things, stays as it is: a request about the conversation ("rewrite that in
French"), a pronoun without an antecedent. Only what is planned is completed; the prompt that a model gets keeps the user's
words. English only. Knows nothing of prompts or of how questions are answered.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import product
from typing import TYPE_CHECKING, Literal, NamedTuple

from memedit.memory.naming import PLACES
from memedit.referents import (
    NOUN_KINDS,
    PERSON,
    Entity,
    Exchange,
    Gender,
    Kinds,
    Named,
    gender_of,
    gender_of_answer,
    names_in,
    read_exchange,
    relation_named,
)

if TYPE_CHECKING:
    from memedit.memory.fact import Relation
    from memedit.memory.memory import MemoryView

LONGEST = 240
"""Characters of a follow-up; what is longer says itself what it is about."""
REMEMBERED = 6
"""Exchanges that a follow-up may go back to."""


class Turn(NamedTuple):
    """Something that was said.

    Attributes:
        role: By whom.
        text: The words.
    """

    role: Literal["user", "assistant"]
    text: str


def self_contained(turns: Sequence[Turn], view: MemoryView) -> str:
    """The last turn as a question that can be understood alone; as it is where it can be already, or cannot be made so.

    Args:
        turns: The conversation so far; the last turn is the user's.
        view: Knows names, relations, and the facts that chains were made of.
    """
    last = turns[-1].text
    if len(turns) < 2 or _form(last) is None or not view:
        return last
    talk = _Talk(view)
    for question, reply in _exchanges(turns[:-1])[-REMEMBERED:]:
        talk.hear(talk.complete(question) or question, reply)
    return talk.complete(last) or last


class _Form(NamedTuple):
    """A turn that may be a follow-up.

    Attributes:
        body: Its words without what only leads over ("And", "What about", "Can you tell me").
        elliptic: Whether something led over that leaves the verb out, so that the body may be a mere noun.
        opened: Whether anything led over.
    """

    body: str
    elliptic: bool
    opened: bool


class _Talk:
    """A conversation, as it is read turn by turn."""

    def __init__(self, view: MemoryView) -> None:
        self._view = view
        self._exchanges: list[Exchange] = []
        self._genders: dict[str, Gender] = {}

    def hear(self, question: str, reply: str) -> None:
        """Note what an exchange was about."""
        exchange = read_exchange(question, reply, self._view)
        self._exchanges.append(exchange)
        gender = gender_of_answer(question)
        if gender is not None and len(exchange.answers) == 1:
            self._genders.setdefault(exchange.answers[0].key, gender)

    def complete(self, text: str) -> str | None:
        """A turn made self-contained; None where there is nothing to complete, or it cannot be told with what."""
        form = _form(text)
        if form is None or not self._exchanges:
            return None
        names = names_in(form.body, self._view)
        places = [match for match in _REFERRING.finditer(form.body) if _refers(match, form.body, names)]
        if places:
            return self._with_antecedents(form, places)
        if names:
            return self._with_other_subject(form, names)
        return self._with_subject(form)

    # -- pronouns --------------------------------------------------------------------------------------------

    def _with_antecedents(self, form: _Form, places: Sequence[re.Match[str]]) -> str | None:
        body = form.body
        told: list[str] = []
        at = 0
        chosen: dict[str, Entity] = {}
        for match in places:
            kind = _kind_of_reference(match, body)
            if kind is None:
                return None
            entity = chosen.get(kind.word) or self._antecedent(kind, self._demanded(match, body))
            if entity is None:
                return None
            chosen[kind.word] = entity
            told += [body[at : match.start()], kind.written(entity.name)]
            at = match.end()
        for word, entity in chosen.items():
            if (gender := _GENDERS.get(word)) is not None:
                self._genders[entity.key] = gender
        whole = "".join([*told, body[at:]])
        return self._asked_out(whole, form, next(iter(chosen.values())))

    def _asked_out(self, whole: str, form: _Form, entity: Entity) -> str | None:
        """A sentence of what may be a mere noun: "Ada's husband" is asked for as "Who is Ada's husband?"."""
        if _ASKING.match(whole):
            return _sentence(whole)
        noun = whole.removeprefix(_possessive(entity.name)).strip(" ?.!")
        if noun == whole.strip(" ?.!") or not noun or len(noun.split()) > _LONGEST_NOUN:
            return None
        relation = relation_named(noun, self._view.catalogue)
        if relation is None and not form.elliptic:
            return None
        return f"{_who_or_what(relation)} is {_possessive(entity.name)} {noun}?"

    def _antecedent(self, reference: _Reference, demanded: Kinds) -> Entity | None:
        """What a pronoun stands for: the latest that fits; None where nothing does, or two do equally well."""
        for exchange in reversed(self._exchanges):
            groups = (exchange.answers, exchange.topics, exchange.between)
            for surely, together in product((True, False), groups):
                fitting = self._fitting(reference, [one for one in together if one.may_be(demanded)], surely=surely)
                if fitting:
                    return fitting[0] if len(fitting) == 1 else None
        return None

    def _fitting(self, reference: _Reference, together: Sequence[Entity], *, surely: bool) -> list[Entity]:
        gender = _GENDERS.get(reference.word)
        fitting = [one for one in together if reference.admits(one, surely=surely)]
        if gender is None:
            return fitting
        fitting = [one for one in fitting if self._gender(one) in (None, gender)]
        return [one for one in fitting if self._gender(one) == gender] or fitting

    def _gender(self, entity: Entity) -> Gender | None:
        return self._genders.get(entity.key) or gender_of(entity, self._view)

    def _demanded(self, match: re.Match[str], body: str) -> Kinds:
        """What the words around a pronoun ask it to be: "its capital" is a country's."""
        if match["owner"] is not None:
            words = _WORDS_AFTER.match(body, match.end())
            parts = words[0].split() if words else []
            for size in range(min(len(parts), _LONGEST_NOUN), 0, -1):
                relation = relation_named(" ".join(parts[:size]), self._view.catalogue)
                if relation is not None:
                    return relation.subject_types
            return frozenset()
        asked = body[: match.start()] + _STAND_IN + body[match.end() :]
        parsed = self._view.catalogue.parse_question(_sentence(asked))
        if parsed is None or parsed[0] != _STAND_IN:
            return frozenset()
        return self._view.catalogue.get(parsed[1]).subject_types

    # -- what is left out ------------------------------------------------------------------------------------

    def _with_subject(self, form: _Form) -> str | None:
        """The question for a relation whose subject was left out: "And the CEO?", "Who is the CEO?"."""
        match = _WHO_IS.fullmatch(form.body)
        noun = match["noun"] if match else form.body.strip(" ?.!") if form.opened else ""
        if not noun or len(noun.split()) > _LONGEST_NOUN + 1:
            return None
        relation = relation_named(noun, self._view.catalogue)
        if relation is None:
            return None
        for exchange in reversed(self._exchanges):
            for together in (exchange.topics, exchange.answers, exchange.between):
                fitting = [one for one in together if one.kinds and one.may_be(relation.subject_types)]
                fitting = fitting or [one for one in together if one.may_be(relation.subject_types)]
                if fitting:
                    return relation.ask(fitting[0].name) if len(fitting) == 1 else None
        return None

    def _with_other_subject(self, form: _Form, names: Sequence[Named]) -> str | None:
        """The question before, asked of another subject: "And Germany?"."""
        [first, *others] = names
        words = (form.body[: first.start] + form.body[first.end :]).strip(" ?.!")
        if others or not form.elliptic or (words and not _OF.fullmatch(words)):
            return None
        before = self._exchanges[-1]
        if len(before.topics) != 1 or not _ASKING.match(before.question):
            return None
        old = before.topics[0]
        new = read_exchange(first.name, "", self._view).topics
        if not new or new[0].key == old.key or not new[0].may_be(old.kinds):
            return None
        return before.question.replace(old.name, first.name)


class _Reference(NamedTuple):
    """A word or two that stand for something named before.

    Attributes:
        word: The pronoun, or the common noun.
        kinds: What it can stand for; empty for anything.
        no_person: Whether it stands for no person.
        owner: Whether it says whose something is.
        place: Whether it says where something is.
    """

    word: str
    kinds: Kinds = frozenset()
    no_person: bool = False
    owner: bool = False
    place: bool = False

    def admits(self, entity: Entity, *, surely: bool) -> bool:
        """Whether it can stand for an entity, by what that is; `surely` if what may be a person is no thing."""
        if self.no_person and (entity.kinds == PERSON or (surely and "person" in entity.kinds)):
            return False
        return entity.may_be(self.kinds)

    def written(self, name: str) -> str:
        """What stands in its place."""
        if self.owner:
            return _possessive(name)
        return f"in {name}" if self.place else name


def _exchanges(turns: Sequence[Turn]) -> list[tuple[str, str]]:
    """The turns in pairs of what the user said and what came in return."""
    pairs: list[tuple[str, str]] = []
    for turn in turns:
        if turn.role == "user":
            pairs.append((turn.text, ""))
        elif pairs:
            question, reply = pairs[-1]
            pairs[-1] = (question, f"{reply}\n{turn.text}" if reply else turn.text)
    return pairs


def _form(text: str) -> _Form | None:
    """A turn's form, if it may be a follow-up about what was named: a short question, or a noun that something led to."""
    body = text.strip()
    if not body or len(body) > LONGEST or "\n" in body or "`" in body:
        return None
    opened = elliptic = False
    while (lead := _LEAD.match(body)) is not None and lead.end() < len(body):
        opened = True
        elliptic = elliptic or lead["about"] is not None or lead["and"] is not None
        body = body[lead.end() :]
    if _TALK.search(body) or _EXPLETIVE.search(body):
        return None
    if not (_ASKING.match(body) or opened or _OWNER_FIRST.match(body)):
        return None
    if opened and (indirect := _INDIRECT.fullmatch(body)) is not None:
        body = f"{indirect['word']} {indirect['verb']} {indirect['rest']}?"
    return _Form(body, elliptic, opened)


def _refers(match: re.Match[str], body: str, names: Sequence[Named]) -> bool:
    """Whether a pronoun goes back to earlier turns: no name comes before it, and it is no part of one."""
    if any(name.start < match.end() for name in names):
        return False
    if match["place"] is not None:
        return _EXISTS.search(body) is None
    if match["noun"] is not None and match["article"].casefold() == "the":
        ends = not body[match.end() :].strip(" ?.!")
        return _GOES_ON.match(body, match.end()) is None and not (ends and _WHO_IS.fullmatch(body))
    return True


def _kind_of_reference(match: re.Match[str], body: str) -> _Reference | None:
    word = match[0].casefold()
    if match["noun"] is not None:
        noun = match["noun"].casefold()
        return _Reference(noun, NOUN_KINDS[noun])
    if match["place"] is not None:
        return _Reference(word, PLACES, place=True)
    owner = match["owner"] is not None
    if owner and word != "her" and _WORDS_AFTER.match(body, match.end()) is None:
        return None  # "Is it his?"
    if word == "her" and (_WORDS_AFTER.match(body, match.end()) is None or _AFTER_OBJECT.match(body, match.end())):
        owner = False
    word = _SAME.get(word, word)
    if word in ("he", "she"):
        return _Reference(word, PERSON, owner=owner)
    return _Reference(word, no_person=word == "it", owner=owner)


def _who_or_what(relation: Relation | None) -> str:
    return "Who" if relation is not None and relation.object_types == PERSON else "What"


def _possessive(name: str) -> str:
    return f"{name}'s"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _choices(words: Iterable[str]) -> str:
    return "|".join(sorted(map(re.escape, words), key=len, reverse=True))


_LONGEST_NOUN = 4
_STAND_IN = "Xanadu Q. Stand"
_SAME = {
    "him": "he", "his": "he", "her": "she", "hers": "she", "its": "it", "them": "they", "their": "they",
}  # fmt: skip
_GENDERS: dict[str, Gender] = {"he": "male", "she": "female"}
_REFERRING = re.compile(
    r"\b(?:(?P<owner>his|her|its|their)|(?:he|him|she|it|they|them)|(?P<place>there)"
    rf"|(?P<article>this|that|the same|the) (?P<noun>{_choices(NOUN_KINDS)}))\b(?!['’]s [a-z]+ing)",
    re.IGNORECASE,
)
_LEAD = re.compile(
    r"(?:(?P<and>and|or|but)\b[, ]*"
    r"|(?:so|then|ok|okay|also|now|well|next|great|good|thanks|thank you|right|hm+|cool|nice|interesting|i see)\b[,.! ]*(?!$)"
    r"|(?P<about>what about|how about)\s+"
    r"|(?:please |(?:can|could|would|will) you (?:please )?)?(?:tell me|say|name)\s+(?:me )?"
    r"|do you know\s+|i (?:want|would like|['’]d like) to know\s+|i wonder\s+|please\s+)",
    re.IGNORECASE,
)
_ASKING = re.compile(
    r"(?:(?:in|on|at|to|from|by|of|for|since|with) )?(?:who|whom|whose|what|which|where|when|why|how)\b"
    r"|(?:is|are|was|were|does|do|did|has|have|had|will|isn['’]t|wasn['’]t|didn['’]t|doesn['’]t)\b",
    re.IGNORECASE,
)
_INDIRECT = re.compile(
    r"(?P<word>who|what|where) (?P<rest>(?:his|her|its|their|the) [\w ]+?) (?P<verb>is|was|are|were)\W*", re.IGNORECASE
)
_OWNER_FIRST = re.compile(r"(?:his|her|its|their)\s+\w[\w ]*\?*$", re.IGNORECASE)
_TALK = re.compile(
    r"\b(?:you|your|yours|i|me|my|mine|we|us|our|code|script|function|translate|rewrite|rephrase|summari[sz]e|shorten|"
    r"sentence|paragraph|text|word|words|answer|question|reply|spell|spelled|in (?:french|english|german|spanish))\b",
    re.IGNORECASE,
)
_EXPLETIVE = re.compile(
    r"\b(?:(?:what (?:does|did) it (?:mean|matter|say))"
    r"|(?:is|was|isn['’]t|wasn['’]t) it (?:true|right|correct|possible|ok|okay|raining|sunny|that|not|just|really|worth|late|better|"
    r"necessary|so|safe|legal|hard|easy|me|the case|a good|because)"
    r"|what time is it|how is it going|is that it|why is it (?:that|so)|it is|it['’]s|that['’]s it|does it (?:matter|make sense|"
    r"work)|how does it work|about it\W*$|of it\W*$|do it\b|say it\b|put it\b|make it\b)",
    re.IGNORECASE,
)
_EXISTS = re.compile(
    r"\b(?:is|are|was|were|isn['’]t|aren['’]t|will|has|have) there\b|\bthere (?:is|are|was|were|be)\b", re.IGNORECASE
)
_WORDS_AFTER = re.compile(r"\s+[^\W\d_][\w'’-]*(?: [^\W\d_][\w'’-]*){0,3}")
_AFTER_OBJECT = re.compile(
    r"\s+(?:in|at|on|to|from|when|before|after|during|by|with|for|and|or|as|into|than|about|there|then|now|today|back|of|"
    r"until|since|while|because)\b",
    re.IGNORECASE,
)
_GOES_ON = re.compile(
    r",?\s+(?:of|that|which|where|who|whose|in|with|about|by|from|for|to|and|or|at|on)\b", re.IGNORECASE
)
_WHO_IS = re.compile(
    r"(?:who|what|where|which)(?:['’]s| is| was| are) (?P<noun>the (?:[\w-]+ ?){1,5})\W*", re.IGNORECASE
)
_OF = re.compile(r"(?:of|for|in|with|by|from|the|of the|for the|in the)", re.IGNORECASE)
