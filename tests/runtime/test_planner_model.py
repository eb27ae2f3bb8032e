"""The planner that ships: start entities, chains, path scores, and that it leaves alone what is no chain."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from memedit.errors import ModelNotFound
from memedit.memory.catalogue import Catalogue
from memedit.memory.memory import EditMemory, MemoryView
from memedit.planner_model import Calibration, TrainedPlanner, shipped_weights
from memedit.strategies.base import ScorePaths

QUESTIONS = {
    "Who is the head of state of the country where Mira Lindqvist is a citizen?": ("Mira Lindqvist", ("P27", "P35")),
    "In which city was the author of The Copper Garden born?": ("The Copper Garden", ("P50", "P19")),
    "What is the capital of Norway?": ("Norway", ("P36",)),
    "On which continent is the headquarters of the company that makes the Falcon 300?": (
        "Falcon 300",
        ("P176", "P159", "P30"),
    ),
    "Who is Tom Okafor's wife's employer?": ("Tom Okafor", ("P26", "P108")),
}
NOT_CHAINS = (
    "Write a haiku about autumn.", "def add(a, b): return a + b", "What is 17 times 23?", "Hello, how are you?",
    "Translate to French: the meeting is at noon.", "SELECT name FROM users;",
)  # fmt: skip


@pytest.fixture(scope="module")
def planner() -> TrainedPlanner:
    return TrainedPlanner(Catalogue.default())


@pytest.fixture(scope="module")
def view() -> Iterator[MemoryView]:
    with EditMemory(":memory:", embed_on_write=False) as memory:
        yield memory.view()


@pytest.mark.parametrize(("question", "expected"), QUESTIONS.items())
def test_the_first_plan_is_the_chain(
    planner: TrainedPlanner, view: MemoryView, question: str, expected: tuple[str, tuple[str, ...]]
) -> None:
    first = planner.plan([(question, view)])[0][0]

    assert (first.start, first.relations) == expected
    assert question[slice(*first.span)] == first.start


@pytest.mark.parametrize("text", NOT_CHAINS)
def test_what_asks_for_no_chain_has_no_plan(planner: TrainedPlanner, view: MemoryView, text: str) -> None:
    assert planner.plan([(text, view)]) == [[]]


def test_a_start_ends_with_its_name(planner: TrainedPlanner, view: MemoryView) -> None:
    question = "What country is the CEO of the company that developed Windows a citizen of?"

    assert planner.plan([(question, view)])[0][0].start == "Windows"


def test_plans_are_ranked_by_confidence(planner: TrainedPlanner, view: MemoryView) -> None:
    for plans in planner.plan([(question, view) for question in QUESTIONS]):
        confidences = [plan.confidence for plan in plans]
        assert confidences == sorted(confidences, reverse=True)
        assert all(0.0 <= confidence <= 1.0 for confidence in confidences)
        assert len({plan.relations for plan in plans}) == len(plans) == 5


def test_a_batch_plans_what_its_questions_plan_alone(planner: TrainedPlanner, view: MemoryView) -> None:
    together = planner.plan([(question, view) for question in QUESTIONS])
    alone = [planner.plan([(question, view)])[0] for question in QUESTIONS]

    assert [plans[0].relations for plans in together] == [plans[0].relations for plans in alone]
    for some, same in zip(together, alone, strict=True):
        assert some[0].confidence == pytest.approx(same[0].confidence, abs=0.03)


def test_a_plan_scores_as_path_what_it_scored_as_plan(planner: TrainedPlanner, view: MemoryView) -> None:
    question = next(iter(QUESTIONS))
    plans = planner.plan([(question, view)])[0]

    scores = planner.score([ScorePaths(question, plans[0].span, tuple(plan.relations for plan in plans))])[0]

    assert scores == pytest.approx([plan.confidence for plan in plans], abs=0.05)


def test_a_path_that_spells_out_a_skipped_hop_beats_shorter_and_longer_ones(planner: TrainedPlanner) -> None:
    question = "What is the capital of the country where the sport Mira Lindqvist plays originated?"
    span = (question.index("Mira"), question.index(" plays"))
    paths = (
        ("P413", "P641"),
        ("P413", "P641", "P495"),
        ("P413", "P641", "P495", "P36"),
        ("P27", "P36"),
        ("P413", "P641", "P495", "P37"),
    )

    scores = planner.score([ScorePaths(question, span, paths)])[0]

    assert max(zip(scores, paths, strict=True))[1] == ("P413", "P641", "P495", "P36")


def test_an_entity_that_the_question_is_not_about_scores_low(planner: TrainedPlanner) -> None:
    question = "I met Tom Okafor. Who is the head of state of the country where Mira Lindqvist is a citizen?"
    starts = [(question.index(name), question.index(name) + len(name)) for name in ("Mira Lindqvist", "Tom Okafor")]

    right, wrong = planner.score([ScorePaths(question, span, (("P27", "P35"),)) for span in starts])

    assert wrong[0] < 0.2 < right[0]


@pytest.mark.parametrize(
    ("name", "question", "expected"),
    [
        (
            "favourite dessert",
            "What is the favourite dessert of the spouse of Mira Lindqvist?",
            ("P26", "favourite_dessert"),
        ),
        ("mascot", "What is the mascot of the university where Tom Okafor studied?", ("P69", "mascot")),
        ("patron saint", "Who is the patron saint of the birthplace of Ada Quill?", ("P19", "patron_saint")),
        ("shoe size", "What is the shoe size of Ada Quill?", ("shoe_size",)),
    ],
)
def test_a_relation_defined_at_run_time_is_planned_at_once(
    view: MemoryView, name: str, question: str, expected: tuple[str, ...]
) -> None:
    catalogue = Catalogue(Catalogue.default())
    planner = TrainedPlanner(catalogue)
    before = planner.plan([(question, view)])[0]

    relation = catalogue.define(name)
    after = planner.plan([(question, view)])[0]

    assert all(relation.id not in plan.relations for plan in before)
    assert after[0].relations == expected


def test_looking_again_keeps_what_is_certain_in_all(view: MemoryView) -> None:
    catalogue = Catalogue(Catalogue.default())
    catalogue.define("favourite dessert")
    plans = TrainedPlanner(catalogue).plan([("What is the favourite dessert of Ada Quill?", view)])[0]

    assert 0 < sum(plan.confidence for plan in plans) <= 1.01
    assert [plan.confidence for plan in plans] == sorted((plan.confidence for plan in plans), reverse=True)


def test_no_questions_and_no_chains_are_answered_with_nothing(planner: TrainedPlanner) -> None:
    assert planner.plan([]) == []
    assert planner.score([]) == []
    assert planner.score([ScorePaths("Who wrote Emma?", (10, 14), ())]) == [[]]


def test_a_folder_without_weights_says_how_to_train(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="memedit train planner"):
        TrainedPlanner(Catalogue.default(), tmp_path)


def test_calibration_keeps_the_order_and_the_range() -> None:
    calibration = Calibration(slope=1.5, offset=-0.5)

    values = [calibration(log) for log in (-50.0, -3.0, -1.0, -0.1, 0.0)]

    assert values == sorted(values)
    assert all(0.0 <= value <= 1.0 for value in values)


def test_the_shipped_weights_are_small() -> None:
    assert sum(file.stat().st_size for file in shipped_weights().parent.rglob("*") if file.is_file()) < 50_000_000
