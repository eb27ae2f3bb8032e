"""Composed questions: every wording is usable, and what is composed is labelled right."""

from __future__ import annotations

import random

import pytest

from memedit.memory.catalogue import Catalogue
from memedit.training.data import Case, Corpus, Sampler, find_name, read_corpus
from memedit.training.negatives import not_a_chain
from memedit.training.phrasing import HOLE, Phrasebook, expand, place


def test_choices_expand_to_every_reading() -> None:
    assert expand(["the (head|chief) of {x} (now|)"]) == [
        "the head of {x} now", "the head of {x}", "the chief of {x} now", "the chief of {x}",
    ]  # fmt: skip


def test_every_wording_has_one_hole() -> None:
    book = Phrasebook.default(Catalogue.default())

    wordings = [*book.wordings.values(), *book.shortcuts.values()]

    odd = [text for one in wordings for text in (*one.phrases, *one.questions) if text.count(HOLE) != 1]
    assert odd == []


def test_shortcuts_run_over_relations_that_can_follow_each_other() -> None:
    book = Phrasebook.default()

    assert [run for run in book.shortcuts if not all(map(book.follows, run, run[1:]))] == []


def test_the_start_entity_is_where_the_composer_says() -> None:
    book, rng = Phrasebook.default(Catalogue.default()), random.Random(1)

    for _ in range(300):
        chain = book.random_chain(rng, rng.randint(1, 4), {})
        text, (start, end) = book.compose(rng, chain, "Zora Quill", "Nowhere")
        assert text[start:end] == "Zora Quill"
        assert HOLE not in text


def test_a_doubled_article_is_dropped() -> None:
    text, span = place("Who leads the {x}?", "The Beatles", random.Random(0))

    assert text == "Who leads The Beatles?"
    assert text[slice(*span)] == "The Beatles"


@pytest.mark.parametrize(
    ("text", "name", "found"),
    [
        ("Who wrote Emma?", "Emma", "Emma"),
        ("Who wrote the emma?", "The Emma", "the emma"),
        ("Who leads Beatles?", "The Beatles", "Beatles"),
    ],
)
def test_names_are_found_in_any_case_and_without_their_article(text: str, name: str, found: str) -> None:
    span = find_name(text, name)

    assert span is not None
    assert text[slice(*span)] == found


def test_a_name_that_is_not_there_is_not_found() -> None:
    assert find_name("Who wrote Emma?", "Persuasion") is None


@pytest.fixture
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    case = Case(
        1, "Emma", ("P50", "P27"), ("What country is the author of Emma from?",), (("Who wrote Emma?", "Emma", "P50"),)
    )
    return read_corpus(tmp_path_factory.mktemp("no_data"), [case])


def test_missing_files_are_left_out_and_named(corpus: Corpus) -> None:
    assert len(corpus.missing) == 3
    assert [example.chain for example in corpus.single] == [("P50",)]


def test_the_same_seed_draws_the_same_examples(corpus: Corpus) -> None:
    assert Sampler(corpus, 5).batch(50) == Sampler(corpus, 5).batch(50)
    assert Sampler(corpus, 5).batch(50) != Sampler(corpus, 6).batch(50)


def test_every_example_with_a_chain_has_a_start_entity(corpus: Corpus) -> None:
    examples = Sampler(corpus, 0).batch(300)

    assert all((example.span is None) == (not example.chain) for example in examples)
    assert all(len(example.chain) <= 4 for example in examples)
    assert {example.source for example in examples} >= {"mquake", "composed", "negative"}


def test_what_is_left_out_is_never_mentioned(corpus: Corpus) -> None:
    left = corpus.without(["P50"])

    assert left.cases == []
    assert all("P50" not in example.chain for example in Sampler(left, 0).batch(200))


def test_negatives_are_texts_without_open_fields() -> None:
    rng = random.Random(3)

    texts = [not_a_chain(rng, "Ada Lovelace") for _ in range(300)]

    assert all(text.strip() for text in texts)
    assert not any("{name" in text or "{topic" in text for text in texts)
