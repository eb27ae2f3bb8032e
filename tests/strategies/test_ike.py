"""IKE on a real memory with the real embedder: what the prompt holds, in which order, and what is dropped."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from memedit.editor import MemEditor
from memedit.errors import BadRow
from memedit.memory.embedder import SentenceEmbedder
from memedit.models.scripted import ScriptedModel
from memedit.prompts.ike import read_examples
from memedit.strategies.ike import IKE_TOKENS, Ike

EMBEDDER = SentenceEmbedder()
EXAMPLES = {example.fact: example for example in read_examples()}


@pytest.fixture
def editor() -> Iterator[MemEditor]:
    with MemEditor(ScriptedModel(" Lyon\nNew Fact: more"), embedder=EMBEDDER, strategy="ike") as editor:
        editor.add_facts([("France", "capital", "Lyon"), ("Misery", "author", "Richard Dawkins")])
        yield editor


def prompts(editor: MemEditor) -> list[str]:
    assert isinstance(editor.model, ScriptedModel)
    return [call.prompt for call in editor.model.calls]


def shown_facts(prompt: str) -> list[str]:
    return [line.removeprefix("New Fact: ") for line in prompt.splitlines() if line.startswith("New Fact: ")]


def kind_of(fact: str, prompt: str, answer: str) -> str:
    probes = EXAMPLES[fact].probes
    found = [
        kind for kind, probe in probes.items() if prompt in (probe.question, probe.sentence) and answer == probe.answer
    ]
    assert found
    return found[0]


def test_the_likeliest_fact_and_the_question_come_last(editor: MemEditor) -> None:
    answer = editor.ask("What is the capital of France?")

    assert prompts(editor)[0].endswith(
        "\n\nNew Fact: The capital of France is Lyon.\nPrompt: What is the capital of France?"
    )
    assert answer.text == "Lyon"
    assert [fact.statement for fact in answer.edits] == ["The capital of France is Lyon."]


def test_thirty_two_demonstrations_stand_one_to_three_to_four(editor: MemEditor) -> None:
    editor.ask("What is the capital of France?")

    blocks = [block.split("\n") for block in prompts(editor)[0].split("\n\n")[:-1]]
    kinds = []
    for fact, asked in blocks:
        prompt, answer = (
            asked.removeprefix("Prompt: ").rsplit("? ", 1)
            if "? " in asked
            else asked.removeprefix("Prompt: ").rsplit(". ", 1)
        )
        mark = "?" if "? " in asked else "."
        kinds.append(kind_of(fact.removeprefix("New Fact: "), prompt + mark, answer))

    assert {kind: kinds.count(kind) for kind in set(kinds)} == {"copy": 4, "update": 12, "retain": 16}


def test_the_nearest_demonstration_is_the_last(editor: MemEditor) -> None:
    editor.ask("What is the capital of France?")

    shown = shown_facts(prompts(editor)[0])[:-1]
    similarity = EMBEDDER.encode(shown) @ EMBEDDER.encode(["The capital of France is Lyon."])[0]

    assert len(shown) == 32
    in_bfloat16 = 3e-3  # a text's vector is not quite the same alone and in a batch
    assert all(nearer >= farther - in_bfloat16 for farther, nearer in pairwise(similarity))


def test_questions_about_one_fact_share_all_but_the_last_line(editor: MemEditor) -> None:
    editor.ask_many(["What is the capital of France?", "Which city is France governed from?"])

    one, two = (prompt.rsplit("\n", 1) for prompt in prompts(editor))
    assert one[0] == two[0]
    assert one[1] != two[1]


def test_a_sentence_to_complete_is_shown_sentences(editor: MemEditor) -> None:
    editor.ask("The capital of France is")

    asked = [line for line in prompts(editor)[0].splitlines() if line.startswith("Prompt: ")]
    assert not any("?" in line for line in asked)


def test_no_demonstration_speaks_of_the_subject_of_the_fact(editor: MemEditor) -> None:
    editor.add_fact("Norway", "capital", "Bergen")

    editor.ask("What is the capital of Norway?")

    assert prompts(editor)[0].count("Norway") == 2


def test_the_budget_drops_the_farthest_first(editor: MemEditor) -> None:
    question = "What is the capital of France?"
    editor.ask(question)
    whole = prompts(editor)[0]
    budget = len(whole.split()) // 2

    editor.ask(question, strategy=Ike(budget=budget))

    cut = prompts(editor)[1]
    assert whole.endswith(cut)
    assert cut.startswith("New Fact: ")
    assert budget * 0.8 < len(cut.split()) <= budget


def test_a_small_context_is_a_budget_too() -> None:
    with MemEditor(ScriptedModel(" Lyon", context_length=120), embedder=EMBEDDER, strategy="ike") as editor:
        editor.add_fact("France", "capital", "Lyon")

        answer = editor.ask("What is the capital of France?")

        assert answer.text == "Lyon"
        assert 40 < len(prompts(editor)[0].split()) <= 120 - IKE_TOKENS


def test_there_is_no_gate_and_the_fact_is_always_put(editor: MemEditor) -> None:
    answer = editor.ask("How do I boil an egg?")

    assert answer.in_scope
    assert answer.probability < 0.5


def test_an_empty_memory_asks_the_base_model() -> None:
    with MemEditor(ScriptedModel("base"), embedder=EMBEDDER, strategy="ike") as editor:
        assert editor.ask("How do I boil an egg?").text == "base"
        assert prompts(editor) == ["user: How do I boil an egg?"]


def test_many_questions_side_by_side_are_one_batch(editor: MemEditor) -> None:
    questions = ["What is the capital of France?", "The capital of France is", "Who wrote Misery?"]

    together = editor.ask_many(questions)

    assert isinstance(editor.model, ScriptedModel)
    assert editor.model.batches == [3]
    assert [answer.edits[0].subject for answer in together] == ["France", "France", "Misery"]


def test_other_demonstrations_are_read_from_a_file(editor: MemEditor, tmp_path: Path) -> None:
    probe = {"question": "What is the mayor's dog called?", "answer": "Rex"}
    file = tmp_path / "mine.jsonl"
    file.write_text(
        json.dumps({"fact": "The mayor's dog is called Rex.", "copy": probe, "update": probe, "retain": probe})
    )

    editor.ask("What is the capital of France?", strategy=Ike(demonstrations=file))

    assert shown_facts(prompts(editor)[0]) == ["The mayor's dog is called Rex.", "The capital of France is Lyon."]


def test_a_bad_row_of_demonstrations_is_named(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text('{"fact": "Rex is a dog.", "copy": {"question": "What is Rex?"}}\n')

    with pytest.raises(BadRow, match=r"mine\.jsonl, row 1, field 'copy'"):
        Ike(demonstrations=file)


def test_chat_and_explain_go_on_working(editor: MemEditor) -> None:
    reply = editor.chat([{"role": "user", "content": "What is the capital of France?"}])

    assert [fact.subject for fact in reply.edits] == ["France"]
    assert editor.explain("What is the capital of France?").scoped


@pytest.mark.model
def test_the_embedded_model_takes_the_new_fact() -> None:
    with MemEditor(embedder=EMBEDDER, strategy=Ike(k=8)) as editor:
        editor.add_fact("Mariana Pineda", "P364", "Tamil")

        assert editor.ask("The original language of Mariana Pineda is").text == "Tamil"


@pytest.mark.parametrize(
    ("question", "wording"),
    [
        ("France is governed from", "France is governed from Lyon."),
        ("From which city is France governed?", "The capital of France is Lyon."),
        ("The seat of government of France is", "The seat of government of France is Lyon."),
        ("It rained. The capital of France is", "The capital of France is Lyon."),
    ],
)
def test_a_triple_is_told_in_the_words_most_like_the_question(editor: MemEditor, question: str, wording: str) -> None:
    editor.ask(question)

    assert shown_facts(prompts(editor)[0])[-1] == wording


def test_a_fact_of_no_relation_is_told_as_it_was_given(editor: MemEditor) -> None:
    editor.add_fact("The mayor's dog has learnt to sing.")

    editor.ask("What has the mayor's dog learnt?")

    assert shown_facts(prompts(editor)[0])[-1] == "The mayor's dog has learnt to sing."
