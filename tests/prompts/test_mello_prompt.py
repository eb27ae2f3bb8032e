"""MeLLo's notation: what is rendered is read back, and what is not the protocol is read as nothing."""

from __future__ import annotations

import json

import pytest

from memedit.prompts.mello import Round, Said, chat_prompt, lines_prompt, read_json, read_lines, schema

OPEN = Round("Who wrote Emma?", "Jane Austen wrote Emma.", "The author of Emma is Mo Yan.")
DONE = OPEN._replace(contradicts=True, intermediate_answer="Mo Yan")


def test_a_question_stands_after_the_demonstrations_alone_in_its_block() -> None:
    assert lines_prompt("Who  wrote\nEmma?", []).rsplit("\n\n", 1)[1] == "Question: Who wrote Emma?\n"


def test_a_round_is_four_lines_with_the_papers_labels() -> None:
    assert lines_prompt("Q?", [DONE]).rsplit("\n\n", 1)[1].splitlines()[1:] == [
        "Subquestion: Who wrote Emma?",
        "Generated answer: Jane Austen wrote Emma.",
        "Retrieved fact: The author of Emma is Mo Yan.",
        "Retrieved fact contradicts to generated answer, so the intermediate answer is: Mo Yan",
    ]
    agreed = DONE._replace(contradicts=False, intermediate_answer="Jane Austen")
    assert lines_prompt("Q?", [agreed]).splitlines()[-1] == (
        "Retrieved fact does not contradict to generated answer, so the intermediate answer is: Jane Austen"
    )


def test_a_round_without_verdict_ends_with_its_fact() -> None:
    assert lines_prompt("Q?", [OPEN]).endswith("Retrieved fact: The author of Emma is Mo Yan.\n")


def test_rounds_only_add_to_the_prompt() -> None:
    assert lines_prompt("Q?", [OPEN]).startswith(lines_prompt("Q?", []))
    assert lines_prompt("Q?", [DONE, OPEN]).startswith(lines_prompt("Q?", [DONE]))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("Subquestion: A?\nGenerated answer: B.\n", Said(subquestion="A?", generated_answer="B.")),
        ("  sub-question: A?\n\nGenerated Answer: B.", Said(subquestion="A?", generated_answer="B.")),
        (
            "Retrieved fact doesn't contradict the generated answer, so the intermediate answer is: Rome.\nFinal answer: Rome",
            Said(False, "Rome", final_answer="Rome"),
        ),
        ("Final answer: J. R. R. Tolkien Jr.\nFinal answer: D", Said(final_answer="J. R. R. Tolkien Jr.")),
        ("Subquestion: A?\nSubquestion: B?\nGenerated answer: C", Said(subquestion="A?")),
        ("Subquestion:\nGenerated answer:\n", Said()),
        ("Retrieved fact contradicts", Said()),
        ("Retrieved fact contradicts to generated answer, so the intermediate answer is:", Said()),
        ("", Said()),
        ("\x00\ud7ff{[", Said()),
    ],
)
def test_lines_are_read_as_far_as_they_keep_to_the_protocol(text: str, said: Said) -> None:
    assert read_lines(text) == said


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '"a"', '{"subquestion": 3}', '{"contradicts": "yes"}'])
def test_json_of_another_shape_is_read_as_nothing(text: str) -> None:
    assert read_json(text) == Said()


def test_an_answered_question_has_the_intermediate_answer_for_its_final_one() -> None:
    text = '{"contradicts": true, "intermediate_answer": "C", "question_answered": true, "subquestion": "more?"}'

    assert read_json(text) == Said(True, "C", final_answer="C")


def test_the_chats_demonstrations_keep_to_the_schema() -> None:
    turns = chat_prompt("Q?", [DONE, OPEN])

    assert [turns[0].role, turns[-1].role] == ["system", "user"]
    assert [turn.role for turn in turns[-3:]] == ["user", "assistant", "user"]
    shapes = {str(list(json.loads(turn.content))) for turn in turns if turn.role == "assistant"}
    assert shapes == {str(schema(first=first, last=False)["required"]) for first in (True, False)}
