"""Questions about what an edit leads to: where the phrase that stands for it begins and ends, and when there is none."""

from __future__ import annotations

import time

import pytest

from memedit.answer import Hop
from memedit.claims import builtin_names
from memedit.nested import find_nested, plainly, question_left


def hop(entity: str, relation: str, obj: str) -> Hop:
    return Hop(entity, relation, builtin_names().catalogue.get(relation).label, obj, "edit", 1)


@pytest.mark.parametrize(
    ("question", "made", "left"),
    [
        (
            "What is a famous animal from the country where Nimbus originated?",
            hop("Nimbus", "P495", "Australia"),
            "What is a famous animal from Australia?",
        ),
        (
            "In which city is the network that aired Nimbus based?",
            hop("Nimbus", "P449", "CBS"),
            "In which city is CBS based?",
        ),
        ("Who founded the company Ann Lee works for?", hop("Ann Lee", "P108", "Microsoft"), "Who founded Microsoft?"),
        ("Who founded the religion followed by Ann Lee?", hop("Ann Lee", "P140", "Islam"), "Who founded Islam?"),
        (
            "What is the highest mountain near Foo Island's continent?",
            hop("Foo Island", "P30", "Africa"),
            "What is the highest mountain near Africa?",
        ),
        (
            "In which region is Ann Lee's country of citizenship located?",
            hop("Ann Lee", "P27", "Fiji"),
            "In which region is Fiji located?",
        ),
        (
            "Which landmark was in the city where Ann Lee passed away?",
            hop("Ann Lee", "P20", "Paris"),
            "Which landmark was in Paris?",
        ),
        (
            "Which landmark was in the city where Ann Lee, 1st Baron Lee, passed away?",
            hop("Ann Lee, 1st Baron Lee", "P20", "Paris"),
            "Which landmark was in Paris?",
        ),
        (
            'In which country is the language of "Nimbus" spoken?',
            hop("Nimbus", "P364", "Welsh"),
            "In which country is Welsh spoken?",
        ),
        (
            "In which country did Ann Lee die, if not at sea?",
            hop("Ann Lee", "P20", "Paris"),
            "In which country did Paris die, if not at sea?",
        ),
        (
            "What is the holy book followed by Ann Lee?",
            hop("Ann Lee", "P140", "Islam"),
            "What is the holy book followed by Islam?",
        ),
        (
            "Which country does Ann Lee play for?",
            hop("Ann Lee", "P54", "Acme FC"),
            "Which country does Acme FC play for?",
        ),
    ],
)
def test_the_object_takes_the_place_of_the_phrase_that_describes_it(question: str, made: Hop, left: str) -> None:
    assert question_left(question, made, builtin_names()) == left


@pytest.mark.parametrize(
    ("question", "made"),
    [
        ("What is the country where Nimbus originated?", hop("Nimbus", "P495", "Australia")),
        ("What is the name of the country where Nimbus originated?", hop("Nimbus", "P495", "Australia")),
        ("What is Ann Lee's country of citizenship?", hop("Ann Lee", "P27", "Fiji")),
        ("Which country is the home of Ann Lee?", hop("Ann Lee", "P27", "Fiji")),
        ("Who wrote the script of the film Nimbus?", hop("Nimbus", "P58", "Ada Quill")),
        ("In which city is the headquarters of Acme located?", hop("Acme", "P159", "Lyon")),
        ("Who is the author of the novel Nimbus?", hop("Nimbus", "P50", "Ada Quill")),
        ("What did Ann Lee's mother say?", hop("Bo Li", "P27", "Fiji")),
        ("The official language of Foo is", hop("Foo", "P37", "Dutch")),
        ("What city was Ann Lee born in?", hop("Ann Lee", "P19", "Iceland")),
        ("On which continent is Foo Peak?", hop("Foo Peak", "P30", "Australia")),
        ("Which company owns Foo?", hop("Foo", "P127", "Belgium")),
        ("Which sport team does Ann Lee play for?", hop("Ann Lee", "P54", "Acme FC")),
        ("What city was Ann Lee born in?", hop("Ann Lee", "P19", "Paris")),
    ],
)
def test_a_question_for_the_object_itself_leaves_nothing(question: str, made: Hop) -> None:
    assert question_left(question, made, builtin_names()) is None


def test_a_question_for_the_name_of_something_asks_for_it() -> None:
    names = builtin_names()

    assert plainly("What's the capital of Foo's name?", names) == "What is the capital of Foo?"
    assert plainly("What was the director of Nimbus’s name?", names) == "What was the director of Nimbus?"
    assert plainly("What is the origin of Ann's name?", names) == "What is the origin of Ann's name?"


@pytest.mark.parametrize("words", ["the name of ", "what's ", "in which ", "the of ", "the X of "])
def test_a_question_made_to_take_long_does_not(words: str) -> None:
    began = time.process_time()

    find_nested(f"{words * 5_000}x the country where Ann was born {words * 5_000}?", "Ann")

    assert time.process_time() - began < 5


@pytest.mark.parametrize("question", ["", "?", "the", "Ann", "the Ann", "Who saw the Ann of", "the of Ann 's x"])
def test_scraps_are_no_error(question: str) -> None:
    found = find_nested(question, "Ann")
    assert found is None or found.about(found.phrase) == question
