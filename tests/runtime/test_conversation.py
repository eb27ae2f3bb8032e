"""Follow-ups are completed from the turns before them, and everything else is left as it is. Names and facts are real."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from memedit.conversation import Turn, self_contained
from memedit.memory.fact import FactInput
from memedit.memory.memory import EditMemory, MemoryView
from memedit.referents import names_in, read_exchange

FACTS = (
    "The CEO of Initech is Ada Byron.",
    "The spouse of Ada Byron is Carl Dorn.",
    "The capital of Japan is Osaka.",
    "Initech is headquartered in Lisbon.",
    "Ada Byron was born in Porto.",
    "The author of Nimbus is Eve Quill.",
    "Windows was developed by Initech.",
)
CEO = ("Who is the CEO of Initech?", "It is Ada Byron.")
HUSBAND = (*CEO, "And who is her husband?", "Carl Dorn.")
CAPITAL = ("What is the capital of Japan?", "The capital of Japan is Osaka.")
ABOUT = ("Tell me about Initech.", "Initech is a software company in Lisbon. Its CEO is Ada Byron.")
BORN = ("Where was Ada Byron born?", "She was born in Porto.")
AUTHOR = ("Who wrote Nimbus?", "Eve Quill wrote Nimbus.")


@pytest.fixture(scope="module")
def view() -> Iterator[MemoryView]:
    with EditMemory(":memory:", embed_on_write=False) as memory:
        memory.assert_facts([FactInput(statement=sentence) for sentence in FACTS])
        yield memory.view()


def understood(view: MemoryView, *said: str) -> str:
    """What the last of these turns, the user's and the assistant's in turn, is taken to ask."""
    turns = [Turn("assistant" if at % 2 else "user", text) for at, text in enumerate(said)]
    return self_contained(turns, view)


COMPLETED = [
    ((*CEO, "And who is her husband?"), "Who is Ada Byron's husband?"),
    ((*CEO, "who is her husband"), "Who is Ada Byron's husband"),
    ((*CEO, "Where was she born?"), "Where was Ada Byron born?"),
    ((*CEO, "Where is it based?"), "Where is Initech based?"),
    ((*CEO, "And the chairperson?"), "Who is the chairperson of Initech?"),
    ((*CEO, "Who is the chairperson?"), "Who is the chairperson of Initech?"),
    ((*CEO, "Thanks! And who is its chairperson?"), "Who is Initech's chairperson?"),
    ((*CEO, "What about its headquarters?"), "What is Initech's headquarters?"),
    ((*CEO, "And her husband?"), "Who is Ada Byron's husband?"),
    ((*CEO, "her husband?"), "Who is Ada Byron's husband?"),
    ((*CEO, "Can you tell me who her husband is?"), "Who is Ada Byron's husband?"),
    ((*CEO, "Is she married to Carl Dorn?"), "Is Ada Byron married to Carl Dorn?"),
    ((*CEO, "And Globex?"), "Who is the CEO of Globex?"),
    ((*CEO, "What about Globex Corp?"), "Who is the CEO of Globex Corp?"),
    ((*HUSBAND, "Where was he born?"), "Where was Carl Dorn born?"),
    ((*HUSBAND, "Where was she born?"), "Where was Ada Byron born?"),
    ((*HUSBAND, "And where does he work?", "At a bank.", "When was he born?"), "When was Carl Dorn born?"),
    ((*CAPITAL, "And Germany?"), "What is the capital of Germany?"),
    ((*CAPITAL, "And of Germany?"), "What is the capital of Germany?"),
    ((*CAPITAL, "And Germany?", "Bonn.", "And France?"), "What is the capital of France?"),
    ((*CAPITAL, "And the currency?"), "What is the currency of Japan?"),
    (
        ("Who is the head of state of Japan?", "Emperor Naruhito.", "What about its capital?"),
        "What is Japan's capital?",
    ),
    ((*ABOUT, "Who is the CEO?"), "Who is the chief executive officer of Initech?"),
    ((*ABOUT, "Where is the company based?"), "Where is Initech based?"),
    ((*ABOUT, "And who leads that company?"), "Who leads Initech?"),
    ((*BORN, "What country is that city in?"), "What country is Porto in?"),
    ((*BORN, "Who else was born there?"), "Who else was born in Porto?"),
    ((*AUTHOR, "What genre is it?"), "What genre is Nimbus?"),
    ((*AUTHOR, "When was she born?"), "When was Eve Quill born?"),
    (("Who developed Windows?", "That was Initech.", "And who is its CEO?"), "Who is Initech's CEO?"),
    (("Who runs the maker of Windows?", "Ada Byron.", "And where is it based?"), "Where is Initech based?"),
    (("who is the ceo of initech?", "it is ada byron", "and her husband?"), "Who is ada byron's husband?"),
    (("Who wrote “The Long Road”?", "I do not know.", "What is its genre?"), "What is The Long Road's genre?"),
    (("Who is the CEO of Initech?", "I would rather not say.", "Who is her husband?"), "Who is Ada Byron's husband?"),
]

LEFT = [
    (*CAPITAL, "thanks"),
    (*CAPITAL, "Thank you, that was all!"),
    (*CAPITAL, "rewrite that in French"),
    (*CAPITAL, "Translate it to French."),
    (*CAPITAL, "Is that right?"),
    (*CAPITAL, "Are you sure?"),
    (*CAPITAL, "Is it true?"),
    (*CAPITAL, "Why?"),
    (*CAPITAL, "What does it mean?"),
    (*CAPITAL, "Is it raining?"),
    (*CAPITAL, "Go on"),
    (*CAPITAL, "And then?"),
    (*CAPITAL, "And the rest?"),
    (*CAPITAL, "Who painted the Mona Lisa?"),
    (*CAPITAL, "And who is the CEO of Globex?"),
    (*CAPITAL, "Is there a train?"),
    (*CAPITAL, "Can you put it in a table?"),
    (*CAPITAL, "What do you think about it?"),
    (*CAPITAL, "Who is her husband?"),
    (*CEO, "What is the capital of the country where he was born?\nAnd where is `she` from?"),
    (*CEO, "And Paris?"),
    (*CEO, "What's the weather like?"),
    (*CEO, "Is Carl Dorn her husband?"),
    ("Hello!", "Hi, how can I help?", "Who is her husband?"),
    ("Write a function.", "```python\ndef Add(a, b): return a + b\n```", "What does it return?"),
    ("Write a sonnet.", "Shall I compare thee to a summer's day?", "Who wrote it?"),
    ("Is Ada Byron older than Eve Quill?", "Yes.", "Where was she born?"),
    ("Who founded Initech?", "Ada Byron and Carl Dorn.", "Where was he born?"),
    ("Who is the CEO?",),
    ("Where was she born?",),
]


@pytest.mark.parametrize(("said", "question"), COMPLETED)
def test_a_follow_up_is_completed_from_the_turns_before(view: MemoryView, said: tuple[str, ...], question: str) -> None:
    assert understood(view, *said) == question


@pytest.mark.parametrize("said", LEFT)
def test_what_is_no_clear_follow_up_stays_as_it_is(view: MemoryView, said: tuple[str, ...]) -> None:
    assert understood(view, *said) == said[-1]


def test_a_completed_turn_is_what_the_next_one_goes_back_to(view: MemoryView) -> None:
    said = (*CEO, "And who is her husband?", "I do not know.", "Where was he born?")

    assert understood(view, *said) == "Where was Carl Dorn born?"  # as the fact says, though the reply did not


def test_nothing_is_completed_where_there_are_no_facts() -> None:
    with EditMemory(":memory:", embed_on_write=False) as memory:
        assert understood(memory.view(), *CEO, "Where was she born?") == "Where was she born?"


def test_only_the_last_exchanges_are_gone_back_to(view: MemoryView) -> None:
    between = ("What is two plus two?", "Four.") * 6

    assert understood(view, *CEO, *between, "Where was she born?") == "Where was she born?"


def test_a_relation_defined_at_run_time_can_be_left_without_its_subject() -> None:
    with EditMemory(":memory:", embed_on_write=False) as memory:
        memory.assert_fact(FactInput(subject="Initech", relation="mascot", object="Otto"))

        assert understood(memory.view(), *CEO, "And the mascot?") == "What is the mascot of Initech?"


def test_entities_on_the_chain_between_question_and_reply_are_found(view: MemoryView) -> None:
    exchange = read_exchange("Who is the CEO of the maker of Windows?", "Ada Byron.", view)

    assert [one.name for one in exchange.topics] == ["Windows"]
    assert [one.name for one in exchange.between] == ["Initech"]


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("The CEO of Initech is Ada Byron.", ["Initech", "Ada Byron"]),
        ("Sure! According to my notes, the President of Freedonia lives in New York.", ["Freedonia", "New York"]),
        ("who runs initech?", ["initech"]),
        ('It is "A Tale of Two Cities" by Charles Dickens.', ["A Tale of Two Cities", "Charles Dickens"]),
        ("Yes. Not on Monday, I think.", []),
    ],
)
def test_names_are_told_from_words_with_capitals(view: MemoryView, text: str, names: list[str]) -> None:
    assert [one.name for one in names_in(text, view)] == names
