"""MeLLo's rounds with a scripted model: what it is shown, how its words are taken, and how each way of failing ends."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from memedit.answer import Answer
from memedit.editor import MemEditor
from memedit.memory.embedder import SentenceEmbedder
from memedit.models.scripted import ScriptedModel
from memedit.strategies.mello import Mello

EMBEDDER = SentenceEmbedder()
FACTS = [("Misery", "author", "Richard Dawkins"), ("Japan", "capital", "Osaka")]
QUESTION = "What country is the author of Misery a citizen of?"
AUTHOR = "Subquestion: Who is the author of Misery?\nGenerated answer: The author of Misery is Stephen King.\n"
CITIZEN = (
    "Subquestion: What country is Richard Dawkins a citizen of?\n"
    "Generated answer: Richard Dawkins is a citizen of the United Kingdom.\n"
)
YES = "Retrieved fact contradicts to generated answer, so the intermediate answer is: "
NO = "Retrieved fact does not contradict to generated answer, so the intermediate answer is: "
SCRIPT = [
    AUTHOR,
    f"{YES}Richard Dawkins\n{CITIZEN}",
    f"{NO}United Kingdom\nFinal answer: United Kingdom\n\nQuestion: x",
]


def by_round(replies: list[str]) -> Callable[[str], str]:
    """A model that says the n-th reply once n facts were retrieved for the last question; after that, the last."""

    def reply(prompt: str) -> str:
        done = prompt.rsplit("Question: ", 1)[-1].count("Retrieved fact: ")
        return replies[min(done, len(replies) - 1)]

    return reply


def ask(replies: list[str], strategy: Mello | str = "mello", question: str = QUESTION) -> tuple[Answer, ScriptedModel]:
    model = ScriptedModel(by_round(replies))
    with MemEditor(model, embedder=EMBEDDER) as editor:
        editor.add_facts(FACTS)
        return editor.ask(question, strategy=strategy), model


def test_each_round_shows_the_model_what_the_paper_shows() -> None:
    _, model = ask(SCRIPT)

    ends = [call.prompt.rsplit("\n\n", 1)[-1] for call in model.calls]
    first = f"Question: {QUESTION}\n"
    second = f"{first}{AUTHOR}Retrieved fact: The author of Misery is Richard Dawkins.\n"
    assert ends[:2] == [first, second]
    assert ends[2].startswith(f"{second}{YES}Richard Dawkins\n{CITIZEN}Retrieved fact: ")


def test_hops_are_sub_questions_and_the_edits_used_are_named() -> None:
    answer, _ = ask(SCRIPT)

    assert answer.text == "United Kingdom"
    assert [(hop.label, hop.object, hop.source) for hop in answer.hops] == [
        ("Who is the author of Misery?", "Richard Dawkins", "edit"),
        ("What country is Richard Dawkins a citizen of?", "United Kingdom", "belief"),
    ]
    assert [fact.subject for fact in answer.edits] == ["Misery"]
    assert (answer.strategy, answer.cost.model_calls) == ("mello", 3)


def test_prompts_share_the_four_demonstrations() -> None:
    _, model = ask(SCRIPT)

    starts = {call.prompt.rsplit("\n\n", 1)[0] for call in model.calls}
    [start] = starts
    assert start.count("Final answer: ") == 4
    assert all("Retrieved fact:" in call.sampling.stop for call in model.calls)


def test_retrieval_has_no_gate() -> None:
    _, model = ask(["Subquestion: How long does an egg boil?\nGenerated answer: Four minutes.\n", "?"])

    assert model.calls[1].prompt.rsplit("Question: ", 1)[-1].count("Retrieved fact: The ") == 1


def test_it_ends_after_four_rounds_with_the_last_intermediate_answer() -> None:
    answer, model = ask([AUTHOR, f"{YES}Richard Dawkins\n{AUTHOR}"])

    assert answer.text == "Richard Dawkins"
    assert len(answer.hops) == 4
    assert len(model.calls) == 5


@pytest.mark.parametrize(
    "garbage", ["", "I am sorry, I cannot.", "Subquestion:", "\n\n\n", "Final answer:", "{}", "[1]"]
)
@pytest.mark.parametrize("strategy", ["mello", "mello-structured"])
def test_a_model_that_never_keeps_to_the_protocol_answers_as_the_base_model(garbage: str, strategy: str) -> None:
    answer, model = ask([garbage], strategy)

    assert answer.text == garbage
    assert not answer.hops
    assert model.calls[-1].prompt == f"user: {QUESTION}"


def test_without_a_verdict_the_tentative_answer_stands() -> None:
    answer, _ = ask([AUTHOR, "Hm."])

    assert answer.text == "The author of Misery is Stephen King."
    assert answer.edits == ()


def test_a_verdict_with_nothing_after_it_is_the_answer() -> None:
    answer, _ = ask([AUTHOR, f"{YES}Richard Dawkins."])

    assert answer.text == "Richard Dawkins"


def test_an_empty_memory_asks_the_base_model() -> None:
    model = ScriptedModel("base")
    with MemEditor(model, embedder=EMBEDDER, strategy="mello") as editor:
        assert editor.ask(QUESTION).text == "base"
    assert [call.prompt for call in model.calls] == [f"user: {QUESTION}"]


def test_questions_side_by_side_advance_one_round_a_batch() -> None:
    model = ScriptedModel(by_round(SCRIPT))
    with MemEditor(model, embedder=EMBEDDER, strategy="mello") as editor:
        editor.add_facts(FACTS)
        answers = editor.ask_many([QUESTION, f"{QUESTION} Say.", f"{QUESTION} Tell."])

    assert model.batches == [3, 3, 3]
    assert [answer.text for answer in answers] == ["United Kingdom"] * 3


STRUCTURED: list[dict[str, object]] = [
    {"subquestion": "Who is the author of Misery?", "generated_answer": "Stephen King"},
    {
        "contradicts": True,
        "intermediate_answer": "Richard Dawkins",
        "question_answered": False,
        "subquestion": "What country is Richard Dawkins a citizen of?",
        "generated_answer": "United Kingdom",
    },
    {
        "contradicts": False,
        "intermediate_answer": "United Kingdom",
        "question_answered": True,
        "subquestion": "",
        "generated_answer": "",
    },
]


def test_structured_rounds_come_to_the_same_answer() -> None:
    answer, model = ask([json.dumps(said) for said in STRUCTURED], "mello-structured")
    plain, _ = ask(SCRIPT)

    assert answer.text == plain.text
    assert [hop.source for hop in answer.hops] == ["edit", "belief"]
    assert answer.edits[0].subject == "Misery"
    assert answer.strategy == "mello-structured"
    for call, said in zip(model.calls, STRUCTURED, strict=True):
        assert call.sampling.json_schema is not None
        assert str(call.sampling.json_schema["required"]) == str(list(said))


def test_the_last_structured_round_asks_for_a_verdict_only() -> None:
    answer, model = ask([json.dumps(said) for said in STRUCTURED[:2]], "mello-structured")

    assert answer.text == "Richard Dawkins"
    assert model.calls[-1].sampling.json_schema is not None
    assert model.calls[-1].sampling.json_schema["required"] == ["contradicts", "intermediate_answer"]


@pytest.mark.parametrize("strategy", ["mello", "mello-structured"])
def test_chat_and_explain_go_on_working(strategy: str) -> None:
    with MemEditor(ScriptedModel("words"), embedder=EMBEDDER, strategy=strategy) as editor:
        editor.add_facts(FACTS)

        reply = editor.chat([{"role": "user", "content": "What is the capital of Japan?"}])

        assert [fact.subject for fact in reply.edits] == ["Japan"]
        assert editor.explain("What is the capital of Japan?").scoped


@pytest.mark.model
def test_the_embedded_model_keeps_to_the_schema() -> None:
    with MemEditor(embedder=EMBEDDER, strategy=Mello(structured=True, rounds=1)) as editor:
        editor.add_facts(FACTS)

        answer = editor.ask("What is the capital of Japan?")

    assert answer.text
    assert len(answer.hops) == 1
