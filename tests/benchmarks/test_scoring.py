from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memedit.evaluation.scoring import (
    Marks,
    Share,
    case_share,
    chain_right,
    edits_right,
    matches,
    multi_hop_figures,
    normalise,
    question_share,
)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("The Beatles", "beatles"),
        ("U.S.A.", "USA"),
        ("The A-Team", "A-Team"),
        ("rock-n-roll", "Rock n Roll"),
        ("O’Brien", "O'Brien"),
        ("  Lima.\n", "lima"),
        ("ﬁlm", "film"),
        ("“Misery”", "Misery"),
    ],
)
def test_spellings_of_one_name_are_equal(a: str, b: str) -> None:
    assert normalise(a) == normalise(b)


@pytest.mark.parametrize(("a", "b"), [("C", "C++"), ("Malmö", "Malmo"), ("A", "B"), ("The The", "Beatles"), ("?", "!")])
def test_different_names_stay_different(a: str, b: str) -> None:
    assert normalise(a) != normalise(b)


@given(st.text(min_size=1).filter(str.strip))
def test_normalising_never_empties_a_name_and_settles(text: str) -> None:
    once = normalise(text)

    assert once
    assert normalise(f" {text} ") == normalise(once) == once


def test_an_answer_that_only_contains_the_name_is_wrong() -> None:
    assert matches("Republic of Peru", ["Peru", "Republic of Peru"])
    assert not matches("It is Peru", ["Peru", "Republic of Peru"])
    assert not matches("", ["Peru"])


@pytest.mark.parametrize(
    ("objects", "right"),
    [
        (["Ana", "the Norway"], True),
        (["Ana", "Kingdom of Norway"], True),
        (["Norway"], False),
        (["Ana", "Norway", "Norway"], False),
        (["Norway", "Ana"], False),
        (["Eva", "Norway"], False),
        ([], False),
    ],
)
def test_a_chain_is_right_hop_by_hop(objects: list[str], right: bool) -> None:
    assert chain_right(objects, [["Ana"], ["Norway", "Kingdom of Norway"]]) is right


def test_edits_are_right_where_all_of_the_case_and_none_beside_its_chain_were_used() -> None:
    assert edits_right({1, 2}, {1, 2}, set())
    assert edits_right({1, 2, 3}, {1, 2}, {3})
    assert not edits_right({1}, {1, 2}, set())
    assert not edits_right({1, 2, 4}, {1, 2}, {3})


def test_a_case_counts_where_any_of_its_questions_is_right() -> None:
    marks = [[False, True, False], [False, False, False], [True, True, True]]

    assert case_share(marks) == Share(2, 3)
    assert question_share(marks) == Share(4, 9)


@pytest.mark.parametrize(
    ("hits", "total", "low", "high"),
    [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (5, 10, 0.2366, 0.7634), (81, 263, 0.2553, 0.3662)],
)
def test_the_interval_is_wilsons(hits: int, total: int, low: float, high: float) -> None:
    interval = Share(hits, total).interval

    assert interval == pytest.approx((low, high), abs=5e-5)


def test_nothing_counted_is_no_figure() -> None:
    assert Share(0, 0).value is None
    assert Share(0, 0).interval is None


def test_figures_of_cases_by_hand() -> None:
    right, lucky, wrong = Marks(True, True, True), Marks(True, False, False), Marks(False, False, True)

    figures = multi_hop_figures([[right, lucky], [lucky, wrong], [wrong, wrong]])

    assert figures["cases"] == 3
    assert figures["questions"] == 6
    assert figures["multi_hop_accuracy"] == pytest.approx(2 / 3)
    assert figures["multi_hop_accuracy_per_question"] == pytest.approx(3 / 6)
    assert figures["hop_wise_accuracy"] == pytest.approx(1 / 3)
    assert figures["hop_wise_accuracy_per_question"] == pytest.approx(1 / 6)
    assert figures["edit_wise_accuracy"] == 1.0
    assert figures["edit_wise_accuracy_per_question"] == pytest.approx(4 / 6)
    assert set(figures["intervals"]) == {name for name in figures if "accuracy" in name}  # type: ignore[call-overload]
