"""`MemEditor`: facts in, answers out, chat, and what bad input gets. The base model is scripted."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from memedit.answer import Answer
from memedit.editor import MAX_QUESTION_CHARACTERS, MemEditor
from memedit.errors import (
    AlreadyRetracted,
    BadRow,
    InvalidFact,
    InvalidQuestion,
    InvalidSpec,
    ModelUnavailable,
    NothingToUndo,
    UnknownFact,
)
from memedit.memory.embedder import SentenceEmbedder
from memedit.memory.fact import FactInput
from memedit.memory.memory import EditMemory
from memedit.models.base import Completion, LanguageModel, Message, Prompt, Sampling
from memedit.models.scripted import ScriptedModel
from memedit.prompts.data import reminder

EMBEDDER = SentenceEmbedder()


@pytest.fixture
def model() -> ScriptedModel:
    return ScriptedModel("the base model's words")


@pytest.fixture
def editor(model: ScriptedModel) -> Iterator[MemEditor]:
    with MemEditor(model, embedder=EMBEDDER) as editor:
        yield editor


def user(text: str) -> list[Message]:
    return [{"role": "user", "content": text}]


def test_a_fact_is_taken_as_a_triple_or_as_a_sentence(editor: MemEditor) -> None:
    triple = editor.add_fact("France", "capital", "Lyon").fact
    sentence = editor.add_fact("The capital of Spain is Seville.").fact

    assert (triple.relation, triple.object) == ("P36", "Lyon")
    assert (sentence.relation, sentence.object) == ("P36", "Seville")


def test_facts_are_taken_in_every_form(editor: MemEditor) -> None:
    receipts = editor.add_facts(
        [
            ("France", "capital", "Lyon"),
            {"subject": "Spain", "relation": "P36", "object": "Seville"},
            FactInput(subject="Peru", relation="capital", object="Cusco"),
            "The capital of Kenya is Mombasa.",
        ]
    )

    assert [receipt.fact.object for receipt in receipts] == ["Lyon", "Seville", "Cusco", "Mombasa"]


def test_half_a_triple_is_refused_with_a_way_to_mend_it(editor: MemEditor) -> None:
    with pytest.raises(InvalidFact, match="both a relation and an object"):
        editor.add_fact("France", "capital")


def test_one_bad_row_keeps_the_whole_batch_out(editor: MemEditor) -> None:
    with pytest.raises(BadRow, match="row 2"):
        editor.add_facts([("France", "capital", "Lyon"), ("", "capital", "Rome")])

    assert editor.facts() == []


@pytest.mark.parametrize(
    "row", [{"subjekt": "Spain"}, {"subject": "Spain", "valid_from": "soon"}, ("Spain", "capital"), 7]
)
def test_a_row_of_a_wrong_shape_is_named(editor: MemEditor, row: object) -> None:
    with pytest.raises(BadRow, match="row 2"):
        editor.add_facts([("France", "capital", "Lyon"), row])  # type: ignore[list-item]

    assert editor.facts() == []


def test_a_newer_object_supersedes_and_undo_brings_the_older_back(editor: MemEditor) -> None:
    editor.add_fact("France", "capital", "Lyon")
    editor.add_fact("France", "capital", "Nice")
    assert editor.ask("What is the capital of France?").text == "Nice"

    editor.undo()

    assert editor.ask("What is the capital of France?").text == "Lyon"
    assert [fact.object for fact in editor.history("France", "capital")] == ["Lyon", "Nice"]


def test_retract_takes_a_receipt_a_fact_or_an_id(editor: MemEditor) -> None:
    receipts = editor.add_facts([("A", "capital", "B"), ("C", "capital", "D"), ("E", "capital", "F")])

    editor.retract(receipts[0])
    editor.retract(receipts[1].fact)
    editor.retract(receipts[2].fact.id)

    assert editor.facts() == []


def test_retracting_what_is_not_there_is_an_error(editor: MemEditor) -> None:
    receipt = editor.add_fact("France", "capital", "Lyon")
    editor.retract(receipt)

    with pytest.raises(AlreadyRetracted):
        editor.retract(receipt)
    with pytest.raises(UnknownFact):
        editor.retract(10**9)


def test_undo_with_nothing_left_is_an_error(editor: MemEditor) -> None:
    with pytest.raises(NothingToUndo):
        editor.undo()


def test_a_question_about_the_past_is_answered_from_the_past() -> None:
    times = iter(datetime(2026, 1, 1, tzinfo=UTC) + timedelta(days=n) for n in range(1000))
    memory = EditMemory(embedder=EMBEDDER, clock=lambda: next(times))
    with memory, MemEditor(ScriptedModel("base"), memory) as editor:
        first = editor.add_fact("France", "capital", "Lyon").fact
        editor.add_fact("France", "capital", "Nice")

        then = editor.ask("What is the capital of France?", as_of=first.recorded_at + timedelta(hours=1))

    assert then.text == "Lyon"


def test_facts_outlive_the_editor(tmp_path: Path) -> None:
    with MemEditor(ScriptedModel("base"), tmp_path / "facts.db", embedder=EMBEDDER) as editor:
        editor.add_fact("France", "capital", "Lyon")

    with MemEditor(ScriptedModel("base"), tmp_path / "facts.db", embedder=EMBEDDER) as editor:
        assert editor.ask("What is the capital of France?").text == "Lyon"


@pytest.mark.parametrize("question", ["", "  \n"])
def test_an_empty_question_is_refused(editor: MemEditor, question: str) -> None:
    with pytest.raises(InvalidQuestion, match="empty"):
        editor.ask(question)


def test_an_overlong_question_is_refused(editor: MemEditor) -> None:
    with pytest.raises(InvalidQuestion, match="chat"):
        editor.ask("x" * (MAX_QUESTION_CHARACTERS + 1))


@pytest.mark.parametrize("question", ["フランスの首都はどこですか?", "Какая столица Франции?", "🤷", "؟"])
def test_a_question_in_another_script_reaches_the_base_model_unchanged(
    editor: MemEditor, model: ScriptedModel, question: str
) -> None:
    editor.add_fact("Spain", "capital", "Seville")

    answer = editor.ask(question)

    assert answer.text == "the base model's words"
    assert model.calls[-1].prompt == f"user: {question}"


def test_an_unknown_strategy_names_the_known_ones() -> None:
    with pytest.raises(InvalidSpec, match="walk"):
        MemEditor(ScriptedModel("base"), strategy="stroll")


def test_the_base_strategy_leaves_edits_out(editor: MemEditor) -> None:
    editor.add_fact("France", "capital", "Lyon")

    assert editor.ask("What is the capital of France?", strategy="base").text == "the base model's words"


def test_a_model_that_fails_is_reported_and_loses_no_fact() -> None:
    class Down(ScriptedModel):
        def generate(self, prompts: object, sampling: Sampling = Sampling()) -> list[Completion]:
            raise ModelUnavailable("The server does not answer.", "Start it.")

    with MemEditor(Down(), embedder=EMBEDDER) as editor:
        editor.add_fact("France", "capital", "Lyon")
        with pytest.raises(ModelUnavailable, match="Start it"):
            editor.ask("How do I boil an egg?")

        assert editor.ask("What is the capital of France?").text == "Lyon"


def test_an_answer_reads_well(editor: MemEditor) -> None:
    fact = editor.add_fact("France", "capital", "Lyon").fact

    text = str(editor.ask("What is the capital of France?"))

    assert text.splitlines()[0] == "Lyon"
    assert f"France --capital--> Lyon  [edit #{fact.id}" in text
    assert "0 model calls" in text


def test_explain_tells_what_would_be_used_and_asks_no_model(editor: MemEditor, model: ScriptedModel) -> None:
    fact = editor.add_fact("France", "capital", "Lyon").fact

    explanation = editor.explain("What is the capital of France?")

    assert model.calls == []
    assert explanation.scoped[0].fact.id == fact.id
    assert explanation.candidates[0].chain == ("P36",)
    assert "The capital of France is Lyon." in str(explanation)
    assert explanation.to_dict()["question"] == "What is the capital of France?"


# -- chat --------------------------------------------------------------------------------------------------------


def test_chat_puts_the_edit_before_the_last_turn_and_keeps_the_rest(editor: MemEditor, model: ScriptedModel) -> None:
    fact = editor.add_fact("France", "capital", "Lyon").fact
    messages: list[Message] = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi!"},
        {"role": "user", "content": "What is the capital of France?"},
    ]

    reply = editor.chat(messages)

    prompt = model.calls[-1].prompt
    assert [one.id for one in reply.edits] == [fact.id]
    assert reply.text == "the base model's words"
    assert prompt.startswith("system: Be brief.\nuser: Hello\nassistant: Hi!\nuser: ")
    assert "The capital of France is Lyon." in prompt
    assert prompt.endswith(f"What is the capital of France?\n\n{reminder('Lyon')}")


def test_chat_out_of_scope_sends_the_conversation_as_it_is(editor: MemEditor, model: ScriptedModel) -> None:
    editor.add_fact("France", "capital", "Lyon")

    reply = editor.chat(user("Write a haiku about rain."))

    assert reply.edits == ()
    assert model.calls[-1].prompt == "user: Write a haiku about rain."


def test_chat_resolves_a_follow_up_against_the_turns_before(editor: MemEditor, model: ScriptedModel) -> None:
    editor.add_fact("The spouse of Ada Byron is Carl Dorn.")
    talk = [
        *user("Who wrote Nimbus?"),
        *[Message(role="assistant", content="Ada Byron.")],
        *user("Who is her husband?"),
    ]

    reply = editor.chat(talk)

    assert reply.question == "Who is Ada Byron's husband?"
    assert [edit.object for edit in reply.edits] == ["Carl Dorn"]
    assert model.calls[-1].prompt.endswith(f"</facts>\n\nWho is her husband?\n\n{reminder('Carl Dorn')}")
    assert editor.chat(user("Who wrote Nimbus?")).question == ""


def test_chat_streams(editor: MemEditor) -> None:
    assert "".join(editor.chat(user("Hello there"), stream=True)) == "the base model's words"


@pytest.mark.parametrize("messages", [[], [{"role": "assistant", "content": "Hi"}], [{"role": "user", "content": " "}]])
def test_chat_without_a_last_user_turn_is_refused(editor: MemEditor, messages: list[Message]) -> None:
    with pytest.raises(InvalidQuestion, match="user's message"):
        editor.chat(messages)


def test_the_edited_model_is_a_language_model(editor: MemEditor, model: ScriptedModel) -> None:
    editor.add_fact("France", "capital", "Lyon")
    edited = editor.as_model()
    prompts: list[Prompt] = [user("What is the capital of France?"), "Once upon a time"]

    completions = edited.generate(prompts)

    assert isinstance(edited, LanguageModel)
    assert [completion.text for completion in completions] == ["the base model's words"] * 2
    assert "Lyon" in model.calls[-2].prompt
    assert model.calls[-1].prompt == "Once upon a time"
    assert edited.count_tokens(prompts[0]) > model.count_tokens(prompts[0])
    assert edited.score([(prompts[1], "the base model's words")])[0].greedy


def test_an_answer_without_edits_says_so() -> None:
    assert "no edit in scope" in str(Answer("q", "text", strategy="walk"))
