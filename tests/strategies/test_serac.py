"""SERAC: the classifier's own threshold decides between the counterfactual model and the untouched base model."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from memedit.editor import MemEditor
from memedit.memory.embedder import SentenceEmbedder
from memedit.models.scripted import ScriptedModel
from memedit.scope import EmbeddingScope

EMBEDDER = SentenceEmbedder()
BASE = "  What the base model says,\nwhite space and all. "


@pytest.fixture
def editor() -> Iterator[MemEditor]:
    with MemEditor(ScriptedModel(BASE), embedder=EMBEDDER, strategy="serac") as editor:
        yield editor


def test_in_scope_the_nearest_edit_answers(editor: MemEditor) -> None:
    receipt = editor.add_fact("France", "capital", "Lyon")
    editor.add_fact("Spain", "capital", "Seville")

    answer = editor.ask("What is the capital city of France?")

    assert answer.text == "Lyon"
    assert [fact.id for fact in answer.edits] == [receipt.fact.id]
    assert answer.strategy == "serac"


def test_out_of_scope_prompt_and_answer_are_those_of_the_base_model(editor: MemEditor) -> None:
    editor.add_fact("France", "capital", "Lyon")
    questions = ["How do I boil an egg?", "What is the capital of Spain?", "The mother tongue of Goethe is"]

    answers = editor.ask_many(questions)
    serac = list(editor.model.calls)  # type: ignore[attr-defined]
    base = editor.ask_many(questions, strategy="base")

    assert [answer.text for answer in answers] == [answer.text for answer in base] == [BASE] * 3
    assert serac == editor.model.calls[3:]  # type: ignore[attr-defined]
    assert not any(answer.in_scope or answer.hops for answer in answers)


@pytest.mark.parametrize(("threshold", "in_scope"), [(0.999, False), (0.05, True)])
def test_the_threshold_is_the_classifiers(threshold: float, in_scope: bool) -> None:
    scope = EmbeddingScope(EMBEDDER, threshold=threshold)

    with MemEditor(ScriptedModel(BASE), embedder=EMBEDDER, strategy="serac", scope=scope) as editor:
        editor.add_fact("France", "capital", "Lyon")
        answer = editor.ask("What is the capital of France?")

    assert answer.in_scope is in_scope
    assert answer.text == ("Lyon" if in_scope else BASE)


def test_an_empty_memory_asks_the_base_model(editor: MemEditor) -> None:
    assert editor.ask("What is the capital of France?").text == BASE


def test_a_free_text_edit_goes_to_the_model_with_the_question(editor: MemEditor) -> None:
    editor.add_fact("Our office moved to the third floor, next to the old library, in March.")

    answer = editor.ask("To which floor did our office move in March?")

    assert answer.in_scope
    assert answer.hops == ()


def test_chat_and_explain_use_it(editor: MemEditor) -> None:
    receipt = editor.add_fact("France", "capital", "Lyon")

    reply = editor.chat([{"role": "user", "content": "What is the capital of France?"}])
    other = editor.chat([{"role": "user", "content": "How do I boil an egg?"}])

    assert [fact.id for fact in reply.edits] == [receipt.fact.id]
    assert other.edits == ()
    assert editor.explain("What is the capital of France?").scoped[0].in_scope
