"""Questions about relations that no catalogue has, so that the planner learns to match descriptions and not a list.

Two sources: zsRE, whose questions come in two wordings (one describes the relation, the other asks), and relations made
up from everyday nouns, described as the catalogue describes one that a user adds by name. Either may stand anywhere in a
chain of known relations.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

from memedit.memory.catalogue import Catalogue
from memedit.planner_model import description
from memedit.training.phrasing import HOLE, Phrasebook, Wording, place

OPEN = "?"
"""Stands in a chain for the relation that is not of the catalogue."""


class OpenQuestion(NamedTuple):
    """A question with one relation of no catalogue in its chain.

    Attributes:
        text: The question.
        span: Where the start entity stands.
        chain: Relation ids, with `OPEN` once.
        descriptions: The texts that describe the open relation.
    """

    text: str
    span: tuple[int, int]
    chain: tuple[str, ...]
    descriptions: tuple[str, ...]


class OpenRelation(NamedTuple):
    """A relation of no catalogue.

    Attributes:
        wording: How it is asked for; without phrases it can only be a chain's last hop.
        descriptions: The texts that describe it.
    """

    wording: Wording
    descriptions: tuple[str, ...]


def paraphrased(source: str, rephrased: str) -> OpenRelation:
    """A relation from two wordings of a question, each with ``{x}`` for the subject; the first describes it."""
    match = _DEFINITE.match(source)
    phrases = (match.group(1),) if match else ()
    return OpenRelation(_wording(phrases, (rephrased,)), (source,))


def made_up() -> list[OpenRelation]:
    """Relations made up from everyday nouns."""
    relations = []
    catalogue = Catalogue()
    for label in (*(f"favourite {noun}" for noun in _FAVOURITES), *_NOUNS):
        texts = description(catalogue.define(label))
        phrases = (f"the {label} of {HOLE}", f"{HOLE}'s {label}")
        questions = (
            f"What is {HOLE}'s {label}?", f"What is the {label} of {HOLE}?", f"Who or what is the {label} of {HOLE}?",
            f"Which {label} does {HOLE} have?", f"Do you know {HOLE}'s {label}?", f"Tell me the {label} of {HOLE}.",
        )  # fmt: skip
        relations.append(OpenRelation(_wording(phrases, questions), texts))
    return relations


def ask(
    rng: random.Random,
    relation: OpenRelation,
    book: Phrasebook,
    weights: Mapping[str, float],
    name_for: Callable[[str], str],
) -> OpenQuestion:
    """A question about a chain of known relations with an open one in it.

    Args:
        rng: Source of chance.
        relation: The open relation.
        book: Wordings of the known ones.
        weights: Relation id to how often it is drawn.
        name_for: Gives a name that a chain beginning with a relation can start from.
    """
    before = book.random_chain(rng, rng.choice((1, 1, 2)), weights) if rng.random() < 0.5 else ()
    after: tuple[str, ...] = ()
    if relation.wording.phrases and rng.random() < 0.4:
        after = book.random_chain(rng, rng.choice((1, 1, 2)), weights)[: 3 - len(before)]
    chain = (*before, OPEN, *after)
    name = name_for(chain[0])
    if relation.wording.phrases and (after or rng.random() < 0.7):
        wider = Phrasebook({**book.wordings, OPEN: relation.wording}, book.shortcuts, book.mined)
        composed = wider.compose(rng, chain, name, name_for(""))
    else:
        inner = book.noun_phrase(rng, before, HOLE)
        composed = place(rng.choice(relation.wording.questions).replace(HOLE, inner), name, rng)
    return OpenQuestion(composed.text, composed.span, chain, relation.descriptions)


def _wording(phrases: tuple[str, ...], questions: tuple[str, ...]) -> Wording:
    return Wording((OPEN,), "", frozenset({"thing"}), frozenset({"thing"}), phrases, questions)


_DEFINITE = re.compile(r"^(?:What|Who|Which) (?:is|was|are) (the [^?]*\{x\})\?$")
_FAVOURITES = (
    "colour", "book", "film", "song", "food", "drink", "animal", "city", "band", "sport", "hobby", "season", "number", "game",
    "painter", "teacher", "flower", "poem", "joke", "holiday",
)  # fmt: skip
_NOUNS = (
    "best friend", "nickname", "shoe size", "main sponsor", "mascot", "slogan", "head gardener", "chief engineer", "team doctor",
    "personal trainer", "landlord", "bodyguard", "neighbour", "godfather", "star sign", "blood type", "phone number",
    "email address", "serial number", "weight", "height", "price", "release channel", "test lead", "on-call engineer",
    "product owner", "backup server", "main database", "hosting provider", "supplier", "warehouse", "delivery day",
    "office hours", "meeting room", "current project", "deadline", "budget", "invoice address", "account manager", "lawyer",
    "dentist", "tutor", "mentor", "rival", "sidekick", "arch-enemy", "home planet", "superpower", "weapon", "flagship", "horse",
    "pet", "car", "holiday home", "patron saint", "national flower", "national bird", "national dish", "national animal",
    "flag colour", "dialling code", "internet domain", "main airport", "largest lake", "oldest bridge", "tallest building",
    "main street", "choir leader", "conductor", "drummer", "bassist", "lead singer", "sound engineer", "cover artist",
    "narrator", "stunt double", "translator", "illustrator", "main character", "villain", "setting", "first line",
    "working title", "budget holder", "spokesperson", "chief scientist", "head of research", "night shift manager",
    "union representative", "insurance company", "bank", "auditor", "security contact", "runner-up", "starting price",
    "battery life", "screen size", "top speed", "fuel type", "engine supplier", "main ingredient", "side dish", "wine pairing",
    "recipe author", "bedtime", "gate number", "seat number", "platform number", "opening hours", "entry fee", "dress code",
    "exchange partner", "thesis supervisor", "roommate", "desk neighbour", "favoured brand", "preferred language",
    "time of departure", "next stop", "successor school", "feeder river", "water source", "power plant", "garden designer",
)  # fmt: skip
