"""What a yes/no question claims, and that "no" is said only where it is certain."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from memedit.answer import Hop
from memedit.claims import builtin_names, judge, names_entity
from memedit.memory.catalogue import Catalogue
from memedit.memory.fact import Fact

NAMES = builtin_names()


def fact(subject: str, relation: str, obj: str, number: int = 1) -> Fact:
    return Fact(
        id=number, namespace="default", subject=subject, relation=relation, object=obj, transaction=1,
        statement=Catalogue.default().get(relation).state(subject, obj), recorded_at=datetime(2026, 1, 1, tzinfo=UTC),
    )  # fmt: skip


def answer(question: str, *steps: tuple[str, str, str]) -> str | None:
    facts = [fact(*step, number) for number, step in enumerate(steps, 1)]
    hops = [Hop(one.subject, one.relation, "", one.object, "edit", one.id) for one in facts]
    return judge(question, facts, hops, NAMES)


LYON = ("France", "P36", "Lyon")
COOK = ("Apple", "P169", "Ada Byron")


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("Is Lyon the capital of France?", "Yes."),
        ("Is the capital of France Lyon?", "Yes."),
        ("Is Paris the capital of France?", "No, it is Lyon."),
        ("Is the capital of France still Paris?", "No, it is Lyon."),
        ("Is Paris the capital of France or not?", "No, it is Lyon."),
        ("Does France have Lyon as its capital?", "Yes."),
        ("Does France have Paris as its capital?", "No, it is Lyon."),
        ("Isn't Lyon the capital of France?", "Yes, it is Lyon."),
        ("Is Lyon not the capital of France?", "Yes, it is Lyon."),
        ("Isn't Paris the capital of France?", "No, it is Lyon."),
        ("Is it true that the capital of France is Paris?", "No, it is Lyon."),
        ("True or false: Lyon is the capital of France.", "Yes."),
        ("Yes or no: is Lyon the capital of France?", "Yes."),
        ("The capital of France is Paris, right?", "No, it is Lyon."),
        ("Is the capital of France Paris or Lyon?", "Lyon"),
        ("Is the capital of France Paris or Nice?", "Neither, it is Lyon."),
    ],
)
def test_a_claim_is_compared_with_the_object(question: str, expected: str) -> None:
    assert answer(question, LYON) == expected


def test_names_are_compared_as_entities() -> None:
    assert answer("Is Ada Lovelace a citizen of the USA?", ("Ada Lovelace", "P27", "United States")) == "Yes."
    assert answer("Is Tim Cook the CEO of Apple?", COOK) == "No, it is Ada Byron."


@pytest.mark.parametrize(
    ("question", "step"),
    [
        ("Was Ada Byron born in Italy?", ("Ada Byron", "P19", "Rome")),
        ("Does France border Spain?", ("France", "P47", "Italy")),
        ("Is Ada Byron a musician?", ("Ada Byron", "P106", "guitarist")),
        ("Is the author of Emma British?", ("Emma", "P50", "Ada Byron")),
        ("Is the CEO of Apple a woman?", COOK),
        ("Is Steve Jobs the founder of Apple?", COOK),
        ("Was Paris ever the capital of France?", LYON),
        ("Is Lyon larger than the capital of France?", LYON),
        ("Is it raining in the capital of France?", LYON),
        ("What is the capital of France?", LYON),
        ("Is the University of Lyon in the capital of France?", LYON),
        ("Is New York the headquarters of Acme?", ("Acme", "P159", "New York City Hall")),
    ],
)
def test_nothing_is_said_where_it_is_not_certain(question: str, step: tuple[str, str, str]) -> None:
    assert answer(question, step) is None


def test_one_of_several_objects_is_enough() -> None:
    assert answer("Does France border Italy?", ("France", "P47", "Italy")) == "Yes."


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        ("Is Osaka the capital of the country where Mount Fuji is located?", "Yes."),
        ("Is Kyoto the capital of the country where Mount Fuji is located?", "No, it is Osaka."),
        ("Is the capital of the country where Mount Fuji is located Kyoto?", "No, it is Osaka."),
        ("Is the capital of the country where Mount Fuji is located near Kyoto?", None),
        ("Is Kyoto in the country where Mount Fuji is located?", None),
    ],
)
def test_a_claim_about_a_chain_is_compared_with_its_end(question: str, expected: str | None) -> None:
    assert answer(question, ("Mount Fuji", "P17", "Japan"), ("Japan", "P36", "Osaka")) == expected


def test_an_entity_is_named_by_any_of_its_names() -> None:
    assert names_entity("Who leads the USA's army?", "United States", NAMES)
    assert not names_entity("Who leads the army?", "United States", NAMES)
