"""How questions about chains of relations are worded: reads `phrasings.toml` and composes questions from it.

Knows relations by id and the words that people use for them; knows no entities, data or networks. Everything random comes
from the `random.Random` that the caller passes, so the same seed gives the same questions.
"""

from __future__ import annotations

import random
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import NamedTuple

from memedit.memory.fact import Relation
from memedit.planner_model import description

HOLE = "{x}"
_CHOICE = re.compile(r"\(([^()]*)\)")
_FORESTALLED = re.compile(r"^(the|a|an) ", re.IGNORECASE)
_REFERENCE = {
    "person": ("that person", "this person", "he or she", "that individual"),
    "country": ("that country", "this country", "it"),
    "city": ("that city", "this place", "it"),
    "organization": ("that organization", "this company", "it"),
    "work": ("that work", "it"),
}


class Composed(NamedTuple):
    """A question about a chain.

    Attributes:
        text: The question.
        span: Where the start entity stands in it (start, end), in characters.
    """

    text: str
    span: tuple[int, int]


@dataclass(frozen=True, slots=True)
class Wording:
    """The words for one relation, or for a run of relations that people shorten.

    Attributes:
        relations: The relation, or the run ("P413", "P641") that is spoken of as one hop.
        label: Short name; empty for a run.
        subjects: Kinds of things it starts from.
        objects: Kinds of things it arrives at.
        phrases: Noun phrases for the object, with ``{x}`` for the subject.
        questions: Questions for the object, with ``{x}`` for the subject.
        clozes: Beginnings of statements that the object would complete, with ``{x}`` for the subject.
        canonical: The texts by which the catalogue describes it, with ``{subject}`` for the subject.
    """

    relations: tuple[str, ...]
    label: str
    subjects: frozenset[str]
    objects: frozenset[str]
    phrases: tuple[str, ...]
    questions: tuple[str, ...]
    clozes: tuple[str, ...] = ()
    canonical: tuple[str, ...] = ()

    def texts(self) -> tuple[str, ...]:
        """Every text that describes the relation."""
        return (self.label, *self.phrases, *self.questions)


@dataclass(slots=True)
class Phrasebook:
    """All wordings, and the composer of questions.

    Attributes:
        wordings: Relation id to its wording.
        shortcuts: Runs of two or more relations to the wording that skips a hop.
        mined: Further questions for a relation, mined from data, with ``{x}`` for the subject.
    """

    wordings: dict[str, Wording]
    shortcuts: dict[tuple[str, ...], Wording]
    mined: dict[str, list[str]] = field(default_factory=dict)

    @classmethod
    def default(cls, catalogue: Iterable[Relation] = ()) -> Phrasebook:
        """The phrasebook that ships with the package, joined with the wordings of a catalogue's relations."""
        text = files("memedit.training").joinpath("phrasings.toml").read_text("utf-8")
        wordings = {relation.id: _of_catalogue(relation) for relation in catalogue}
        alone = not wordings
        shortcuts: dict[tuple[str, ...], Wording] = {}
        for key, entry in tomllib.loads(text).items():
            run = tuple(key.split("+"))
            other = wordings.get(key)
            wording = Wording(
                run,
                str(entry.get("label", "")),
                frozenset(entry.get("subject", ())),
                frozenset(entry.get("object", ())),
                tuple(dict.fromkeys([*expand(entry["np"]), *(other.phrases if other else ())])),
                tuple(dict.fromkeys([*expand(entry["q"]), *(other.questions if other else ())])),
                other.clozes if other else (),
                other.canonical if other else (),
            )
            if len(run) > 1:
                shortcuts[run] = wording
            elif other or alone:
                wordings[key] = wording
        shortcuts = {run: value for run, value in shortcuts.items() if all(one in wordings for one in run)}
        return cls(wordings, shortcuts)

    def without(self, relations: Iterable[str]) -> Phrasebook:
        """The phrasebook with some relations never mentioned (to test what a model makes of unseen relations)."""
        gone = set(relations)
        return Phrasebook(
            {key: value for key, value in self.wordings.items() if key not in gone},
            {run: value for run, value in self.shortcuts.items() if not gone & set(run)},
            {key: value for key, value in self.mined.items() if key not in gone},
        )

    def follows(self, first: str, second: str) -> bool:
        """Whether a chain can go on from `first` with `second`."""
        return bool(self.wordings[first].objects & self.wordings[second].subjects - {"thing"})

    def random_chain(self, rng: random.Random, length: int, weights: Mapping[str, float]) -> tuple[str, ...]:
        """A chain whose kinds meet, of at most `length` relations, drawn by relation weight."""
        names = list(self.wordings)
        chain = [rng.choices(names, [weights.get(name, 1.0) for name in names])[0]]
        while len(chain) < length:
            options = [name for name in names if self.follows(chain[-1], name) and name != chain[-1]]
            if not options:
                break
            chain.append(rng.choices(options, [weights.get(name, 1.0) for name in options])[0])
        return tuple(chain)

    def noun_phrase(self, rng: random.Random, chain: Sequence[str], subject: str, shorten: float = 0.2) -> str:
        """A noun phrase for what `chain` arrives at from `subject`; `shorten` is the chance to skip hops where known."""
        phrase = subject
        for run in self._runs(rng, chain, shorten):
            wording = self.shortcuts[run] if len(run) > 1 else self.wordings[run[0]]
            phrase = rng.choice(wording.phrases).replace(HOLE, phrase)
        return phrase

    def compose(
        self, rng: random.Random, chain: Sequence[str], name: str, other: str, shorten: float = 0.2
    ) -> Composed:
        """A question for what `chain` arrives at from the entity called `name`; `other` may stand in as a guess."""
        style = rng.random()
        if len(chain) > 1 and style < 0.06:
            text = self._in_two_steps(rng, chain)
        elif style < 0.12 and self.wordings[chain[-1]].clozes:
            inner = self.noun_phrase(rng, chain[:-1], HOLE, shorten)
            text = _upper(rng.choice(self.wordings[chain[-1]].clozes).replace(HOLE, inner))
        elif style < 0.15:
            phrase = self.noun_phrase(rng, chain, HOLE, shorten)
            text = rng.choice(
                (f"Is {phrase} {other}?", f"Is it true that {phrase} is {other}?", f"Is {other} {phrase}?")
            )
        elif style < 0.21:
            text = _upper(self.noun_phrase(rng, chain, HOLE, shorten)) + rng.choice((" is", " is called", "?", ""))
        else:
            text = self._question(rng, chain, shorten)
        return place(text, name, rng)

    def _runs(self, rng: random.Random, chain: Sequence[str], shorten: float) -> list[tuple[str, ...]]:
        runs: list[tuple[str, ...]] = []
        at = 0
        while at < len(chain):
            known = [n for n in (3, 2) if tuple(chain[at : at + n]) in self.shortcuts]
            size = rng.choice(known) if known and rng.random() < shorten else 1
            runs.append(tuple(chain[at : at + size]))
            at += size
        return runs

    def _question(self, rng: random.Random, chain: Sequence[str], shorten: float) -> str:
        *inner, last = self._runs(rng, chain, shorten)
        wording = self.shortcuts[last] if len(last) > 1 else self.wordings[last[0]]
        subject = self.noun_phrase(rng, [relation for run in inner for relation in run], HOLE, shorten)
        how = rng.random()
        mined = self.mined.get(last[0]) if len(last) == 1 else None
        if mined and how < 0.15:
            return rng.choice(mined).replace(HOLE, subject)
        if how < 0.7:
            return _upper(rng.choice(wording.questions).replace(HOLE, subject))
        phrase = rng.choice(wording.phrases).replace(HOLE, subject)
        return _ask_for(rng, phrase, self.wordings[last[-1]].objects)

    def _in_two_steps(self, rng: random.Random, chain: Sequence[str]) -> str:
        at = rng.randrange(1, len(chain))
        first = self._question(rng, chain[:at], 0.0).rstrip("?")
        kinds = [kind for kind in _REFERENCE if kind in self.wordings[chain[at - 1]].objects]
        reference = rng.choice(_REFERENCE[kinds[0]]) if kinds else "it"
        second = self._question(rng, chain[at:], 0.0).replace(HOLE, reference)
        return f"{first}, and {second[0].lower()}{second[1:]}"


def expand(patterns: Iterable[str]) -> list[str]:
    """Every reading of patterns with choices: "a (b|c)" gives "a b" and "a c"."""
    out: list[str] = []
    for pattern in patterns:
        match = _CHOICE.search(pattern)
        if match is None:
            out.append(re.sub(r" +", " ", pattern).replace(" ?", "?").strip())
        else:
            head, tail = pattern[: match.start()], pattern[match.end() :]
            out.extend(expand(head + option + tail for option in match.group(1).split("|")))
    return out


def place(text: str, name: str, rng: random.Random) -> Composed:
    """Put a name into the hole of a text and say where it stands; now and then in quotes."""
    quoted = rng.random() < 0.08
    shown = f'"{name}"' if quoted else name
    before, _, after = text.partition(HOLE)
    if name.endswith("s") and after.startswith("'s") and rng.random() < 0.4:
        after = "'" + after[2:]
    if before.endswith("the ") and _FORESTALLED.match(name):
        before = before[:-4]
    start = len(before) + int(quoted)
    return Composed(before + shown + after, (start, start + len(name)))


def _of_catalogue(relation: Relation) -> Wording:
    def holed(texts: Iterable[str]) -> tuple[str, ...]:
        return tuple(text.replace("{subject}", HOLE) for text in texts)

    phrases, questions = (relation.phrase, *relation.phrases), (relation.question, *relation.questions)
    return Wording(
        (relation.id,), relation.label, frozenset(relation.subject_types), frozenset(relation.object_types),
        holed(phrases), holed(questions), holed(_clozes(relation)), description(relation),
    )  # fmt: skip


def _clozes(relation: Relation) -> Iterable[str]:
    for statement in (relation.statement, *relation.statements):
        before, _, after = statement.partition("{object}")
        if "{subject}" in before and not after.strip(". "):
            yield before.strip()


def _ask_for(rng: random.Random, phrase: str, kinds: frozenset[str]) -> str:
    options = [f"What is {phrase}?", f"What is the name of {phrase}?", f"Can you tell me {phrase}?", f"Name {phrase}."]
    if kinds & {"person"}:
        options += [f"Who is {phrase}?"] * 4
    for kind in ("country", "city", "language", "religion", "sport", "genre", "continent"):
        if kind in kinds:
            options += [f"Which {kind} is {phrase}?", f"What {kind} is {phrase}?", f"{_upper(phrase)} is which {kind}?"]
    if kinds & {"city", "place"}:
        options += [f"Where is {phrase}?", f"Where is {phrase} located?"]
    return rng.choice(options)


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]
