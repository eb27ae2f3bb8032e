from __future__ import annotations

import pytest

from memedit import MemEditor
from memedit.errors import InvalidSpec, UnknownLayers, WeightsEdited
from memedit.models.base import LanguageModel
from memedit.models.scripted import ScriptedModel
from memedit.parametric.edits import WeightEdit
from memedit.parametric.fallback import weight_edits
from memedit.parametric.finetune import FineTuning

QUESTION = "is a city in Lyon"


def method() -> FineTuning:
    return FineTuning("m", 1, steps=20, rate=0.1)


def test_with_no_edit_in_scope_the_copy_answers_and_says_so(spec: str) -> None:
    with MemEditor(spec, strategy="base") as plain:
        own = plain.ask(QUESTION).text

    with MemEditor(spec, strategy="base", fallback=method()) as editor:
        editor.add_facts([("Japan", "P36", "Osaka"), "A sentence that fits no template at all"])
        with pytest.warns(WeightsEdited, match="ft-m"):
            answer = editor.ask(QUESTION)

        assert answer.text != own
        assert answer.strategy == "base+ft-m"
        assert "1 facts" in answer.notice
        assert own in answer.notice
        assert answer.notice in str(answer)
        assert editor.model.generate([[{"role": "user", "content": QUESTION}]])[0].text == own


def test_without_facts_the_base_model_answers_and_nothing_is_loaded(spec: str) -> None:
    with MemEditor(spec, strategy="base", fallback=method()) as editor:
        answer = editor.ask(QUESTION)

    assert answer.notice == ""
    assert answer.strategy == "base"


@pytest.mark.parametrize("model", [ScriptedModel("Osaka"), "http://localhost:8000/v1"])
def test_weights_out_of_reach_are_refused_at_once(model: str | LanguageModel) -> None:
    with pytest.raises(UnknownLayers, match="out of reach"):
        MemEditor(model, fallback="rome")


def test_an_unknown_method_is_refused_at_once() -> None:
    with pytest.raises(InvalidSpec, match="'mend'"):
        MemEditor("embedded", fallback="mend")


def test_facts_become_edits_in_their_order() -> None:
    with MemEditor("embedded") as editor:
        editor.add_facts([("Japan", "P36", "Osaka"), ("France", "P36", "Lyon")])
        view = editor.view()

        edits = weight_edits(view.facts(), view.catalogue)

    assert edits == [
        WeightEdit("The capital of Japan is", "Japan", "Osaka"),
        WeightEdit("The capital of France is", "France", "Lyon"),
    ]
