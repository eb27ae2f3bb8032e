"""What a fact would change: the question is resolved with and without it, and nothing is recorded."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from memedit.editor import MemEditor
from memedit.errors import InvalidFact
from memedit.memory.fact import FactInput
from memedit.memory.memory import EditMemory
from memedit.models.scripted import ScriptedModel
from memedit.preview import Preview, preview
from memedit.strategies.walk import Walk

OSAKA = FactInput(subject="Japan", relation="capital", object="Osaka")
ONE_HOP = "What is the capital of Japan?"
TWO_HOPS = "What is the capital of the country where Mount Fuji is?"


@pytest.fixture(scope="module")
def shared() -> Iterator[EditMemory]:
    with EditMemory() as memory:
        yield memory


@pytest.fixture
def editor(shared: EditMemory, request: pytest.FixtureRequest) -> MemEditor:
    model = ScriptedModel({}, default=lambda prompt: "Japan" if "Fuji" in prompt.rsplit("Q:", 1)[-1] else "nobody")
    return MemEditor(model, shared, namespace=request.node.name, model_plans=False, counterfactual="base")


def tried(editor: MemEditor, question: str | None, fact: FactInput) -> Preview:
    before = editor.memory.position
    found = preview(question, fact, editor.view(), editor.tools, Walk())
    assert editor.memory.position == before
    return found


def test_a_new_fact_brings_a_question_into_scope(editor: MemEditor) -> None:
    found = tried(editor, TWO_HOPS, OSAKA)
    assert found.before is not None
    assert found.after is not None
    assert (found.status, found.changes) == ("added", True)
    assert (found.before.answer, found.before.hops, found.before.edits) == (None, (), ())
    assert (found.after.answer, found.after.uses_trial, found.after.edits) == ("Osaka", True, ())
    assert [(hop.source, hop.edit_id) for hop in found.after.hops] == [("belief", None), ("edit", None)]


def test_it_tells_which_facts_would_give_way(editor: MemEditor) -> None:
    kyoto = editor.add_fact("Japan", "capital", "Kyoto").fact
    found = tried(editor, ONE_HOP, OSAKA)
    assert found.before is not None
    assert found.after is not None
    assert found.status == "superseded"
    assert [fact.id for fact in found.replaced] == [kyoto.id]
    assert (found.before.answer, found.after.answer) == ("Kyoto", "Osaka")
    assert [fact.id for fact in found.before.edits] == [kyoto.id]
    assert [fact.object for fact in editor.facts()] == ["Kyoto"]


def test_recorded_facts_on_the_way_keep_their_own_ids(editor: MemEditor) -> None:
    editor.add_fact("The author of It is Ann Lee.")
    author = editor.add_fact("The author of Misery is Bo Li.").fact
    found = tried(
        editor, "What is the capital of the country of citizenship of the author of Misery?",
        FactInput(statement="The country of citizenship of Bo Li is Japan."),
    )  # fmt: skip
    assert found.after is not None
    assert author.id in {fact.id for fact in found.after.edits}
    assert found.after.uses_trial
    assert found.after.hops[0].edit_id == author.id


def test_an_unrelated_fact_changes_nothing(editor: MemEditor) -> None:
    editor.add_fact("Japan", "capital", "Kyoto")
    found = tried(editor, ONE_HOP, FactInput(statement="The author of Misery is Bo Li."))
    assert (found.status, found.changes) == ("added", False)
    assert found.before == found.after


def test_a_fact_that_is_known_changes_nothing(editor: MemEditor) -> None:
    editor.add_fact("Japan", "capital", "Osaka")
    found = tried(editor, ONE_HOP, OSAKA)
    assert (found.status, found.changes) == ("unchanged", False)
    assert found.after is not None
    assert not found.after.uses_trial


def test_a_relation_of_a_new_name_is_tried_and_then_forgotten(editor: MemEditor) -> None:
    found = tried(editor, None, FactInput(subject="Ada", relation="favourite tea", object="sencha"))
    assert found.statement == "The favourite tea of Ada is sencha."
    assert editor.memory.catalogue.resolve("favourite tea") is None


def test_of_a_large_namespace_what_lies_around_the_question_is_enough(
    editor: MemEditor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memedit.preview.WHOLE", 2)
    editor.memory.add_alias("Japan", "the land of the rising sun", namespace=editor.namespace)
    editor.add_facts([(f"Company {number}", "CEO", f"Boss {number}") for number in range(5)])
    kyoto = editor.add_fact("Japan", "capital", "Kyoto").fact
    mayor = editor.add_fact("The head of government of Osaka is Ann Lee.").fact
    found = tried(editor, "Who is the head of government of the capital of the land of the rising sun?", OSAKA)
    assert found.after is not None
    assert [fact.id for fact in found.replaced] == [kyoto.id]
    assert found.after.answer == "Ann Lee"
    assert [hop.edit_id for hop in found.after.hops] == [None, mayor.id]


def test_what_could_not_be_recorded_is_refused(editor: MemEditor) -> None:
    with pytest.raises(InvalidFact, match="empty"):
        tried(editor, ONE_HOP, FactInput())
