"""IKE's selection and order as the paper has them, on vectors made by hand; and the corpus that ships."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from memedit.memory.catalogue import Catalogue
from memedit.prompts.ike import (
    PATTERN,
    RATIO,
    Demonstration,
    Example,
    Probe,
    demonstrations,
    drop_farthest,
    ike_prompt,
    naming,
    nearest_last,
    read_examples,
)
from memedit.training.ike_demonstrations import known_facts, rows

CORPUS = np.array([[1.0, 0.0], [0.0, 1.0], [0.8, 0.6], [0.6, 0.8]], np.float32)
FACT = np.array([1.0, 0.0], np.float32)


def example(name: str) -> Example:
    probes = {kind: Probe(f"{kind} {name}?", f"{kind} {name} is", "x") for kind in RATIO}
    return Example(name, f"{name} is x.", probes)


def test_the_k_nearest_are_taken_the_nearest_last() -> None:
    assert nearest_last(CORPUS, FACT, 3) == [3, 2, 0]


def test_what_is_left_out_makes_room_for_the_next() -> None:
    assert nearest_last(CORPUS, FACT, 3, left_out=frozenset({0})) == [1, 3, 2]


def test_a_small_corpus_gives_fewer() -> None:
    assert len(nearest_last(CORPUS, FACT, 32)) == 4


def test_the_pattern_has_the_papers_ratio() -> None:
    assert Counter(PATTERN) == RATIO == {"copy": 1, "update": 3, "retain": 4}


@pytest.mark.parametrize(("k", "counts"), [(8, (1, 3, 4)), (16, (2, 6, 8)), (32, (4, 12, 16))])
def test_the_ratio_is_that_of_what_is_shown(k: int, counts: tuple[int, int, int]) -> None:
    shown = demonstrations([example(str(n)) for n in range(k)], as_question=True)

    kinds = Counter(one.kind for one in shown)
    assert (kinds["copy"], kinds["update"], kinds["retain"]) == counts


def test_a_demonstration_keeps_its_kind_when_farther_ones_are_dropped() -> None:
    examples = [example(str(n)) for n in range(32)]

    assert demonstrations(examples, as_question=True)[20:] == demonstrations(examples[20:], as_question=True)


def test_the_form_follows_the_question_where_an_example_has_both() -> None:
    only_sentence = example("a")._replace(probes={kind: Probe("", "a is", "x") for kind in RATIO})

    assert [one.prompt for one in demonstrations([only_sentence, example("b")], as_question=True)] == [
        "a is",
        "update b?",
    ]


def test_the_farthest_are_dropped_in_proportion_and_at_least_one() -> None:
    shown = [Demonstration("copy", str(n), "?", "x") for n in range(10)]

    assert drop_farthest(shown, 1000, 500) == shown[5:]
    assert drop_farthest(shown, 1001, 1000) == shown[1:]
    assert drop_farthest(shown[:1], 9000, 10) == []


def test_the_prompt_is_demonstrations_new_fact_and_question() -> None:
    shown = [Demonstration("copy", "A is x.", "A is", "x"), Demonstration("retain", "B is y.", "C is", "z")]

    assert ike_prompt(shown, "D is w.", "D is") == (
        "New Fact: A is x.\nPrompt: A is x\n\nNew Fact: B is y.\nPrompt: C is z\n\nNew Fact: D is w.\nPrompt: D is"
    )


def test_examples_that_name_the_subject_are_found_in_any_of_their_texts() -> None:
    asks_about_a = example("b")._replace(probes={kind: Probe("What is Ada?", "", "x") for kind in RATIO})

    assert naming([example("Ada"), example("c"), asks_about_a], "ADA") == {0, 2}
    assert naming([example("Ada")], "") == frozenset()


def test_the_corpus_is_what_its_script_makes() -> None:
    made = list(rows(known_facts(), Catalogue.default()))

    assert [(one.subject, one.fact) for one in read_examples()] == [(row["subject"], row["fact"]) for row in made]


def test_the_corpus_copies_and_updates_the_new_object_and_retains_another() -> None:
    examples = read_examples()

    assert len(examples) > 300
    for one in examples:
        assert one.probes["copy"].answer == one.probes["update"].answer
        assert one.fact.rstrip(".").endswith(one.probes["copy"].answer)
        assert one.probes["copy"].sentence in one.fact
        assert one.probes["update"].question != one.probes["copy"].question
        assert one.subject in one.probes["update"].question
