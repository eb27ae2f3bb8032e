"""Each measure does what its paper's formula says."""

from __future__ import annotations

import math

import pytest

from memedit.evaluation.measures import answer_right, entropy, mean, preferred, tokens_agree, tokens_right
from memedit.models.base import Score

CLOZE = "The capital of France is"
QUESTION = "What is the capital of France?"


@pytest.mark.parametrize(
    ("text", "prompt", "right"),
    [
        ("Lyon", CLOZE, True),
        ("lyon.", CLOZE, True),
        ("Lyon, on the Rhone.", CLOZE, True),
        ("The capital of France is Lyon, on the Rhone.", CLOZE, True),
        ("the capital of france is the Lyon.", CLOZE, True),
        ("Lyonesse", CLOZE, False),
        ("Not Lyon", CLOZE, False),
        ("Paris, not Lyon", CLOZE, False),
        ("", CLOZE, False),
        ("The capital of France is Lyon.", f"It rained. {CLOZE}", True),
        ("It rained. The capital of France is Lyon.", f"It rained. {CLOZE}", True),
        ("It rained.", f"It rained. {CLOZE}", False),
        ("Lyon", QUESTION, True),
        ("City of Lyon", QUESTION, True),
        ("Lyon, on the Rhone.", QUESTION, False),
        ("The capital of France is Lyon.", QUESTION, False),
    ],
)
def test_an_answer_is_the_name_and_after_a_cloze_begins_with_it(text: str, prompt: str, right: bool) -> None:
    assert answer_right(text, prompt, ["Lyon", "City of Lyon"]) is right


def test_nothing_expected_is_never_right() -> None:
    assert not answer_right("Lyon", CLOZE, [])


def test_names_are_weighed_by_the_mean_over_their_tokens() -> None:
    long, short = Score(-6.0, 6, False), Score(-2.0, 1, False)

    assert preferred(long, short)
    assert not preferred(short, long)
    assert not preferred(short, short)


def test_tokens_right_and_kept() -> None:
    assert tokens_right(2, 4) == 0.5
    assert tokens_right(0, 0) == 0.0
    assert tokens_agree([5, 6, 7], [5, 8, 7]) == pytest.approx(2 / 3)


def test_entropy_is_the_weighted_mean_of_bigrams_and_trigrams() -> None:
    # "a b a b": bigrams ab, ba, ab; trigrams aba, bab.
    bigrams = -(2 / 3 * math.log2(2 / 3) + 1 / 3 * math.log2(1 / 3))

    assert entropy("a b a b") == pytest.approx((2 / 3 * bigrams + 4 / 3 * 1.0) / 2)
    assert entropy("one two") is None


def test_text_that_repeats_itself_has_less_entropy() -> None:
    repeated, varied = entropy("it is so " * 20), entropy(" ".join(f"w{n}" for n in range(60)))

    assert repeated is not None
    assert varied is not None
    assert repeated < varied


def test_mean_has_an_interval_around_it() -> None:
    part = mean([1.0, 0.5, 0.0, 0.5])

    assert part.value == 0.5
    assert part.interval is not None
    assert part.interval[0] < 0.5 < part.interval[1]
    assert mean([]).value is None
