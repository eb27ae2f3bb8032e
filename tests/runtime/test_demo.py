"""The demonstration: it is real, it holds, and it fails where an answer is not as expected."""

from __future__ import annotations

import json
import re

import pytest
from typer.testing import CliRunner

from memedit.answer import Answer, Hop
from memedit.cli import app
from memedit.demo import FACTS, TRIALS, Trial, problem_of
from memedit.memory.fact import Fact, FactInput
from memedit.memory.memory import EditMemory
from memedit.models.scripted import ScriptedModel

EDIT = Hop("France", "P36", "capital", "Lyon", "edit", 1)
BELIEF = Hop("Eiffel Tower", "P17", "country", "France", "belief")


@pytest.fixture
def fact() -> Fact:
    with EditMemory(embed_on_write=False) as memory:
        return memory.assert_fact(FactInput(subject="France", relation="capital", object="Lyon")).fact


@pytest.mark.model
def test_the_demonstration_holds_on_the_embedded_model() -> None:
    result = CliRunner().invoke(app, ["demo", "--json"])

    document = json.loads(result.stdout)
    assert [(one["shows"], one["problem"]) for one in document["trials"]] == [(trial.shows, "") for trial in TRIALS]
    assert result.exit_code == 0
    assert document["facts"] == list(FACTS)


def test_a_model_that_knows_nothing_fails_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memedit.editor.load_model", lambda spec: ScriptedModel("I do not know"))

    result = CliRunner().invoke(app, ["demo"])

    assert result.exit_code == 1
    assert re.search(r"[1-9] of 8 answers are not as expected", result.stdout)


def test_it_shows_what_the_project_promises() -> None:
    sources = {trial.shows: trial.sources for trial in TRIALS}

    assert sources["an edit in a two-hop question"] == ("belief", "edit")
    assert sources["an edit in the middle of three hops"] == ("belief", "edit", "belief")
    assert [trial.answer for trial in TRIALS].count(None) >= 1


class TestProblem:
    def test_the_right_answer_by_the_right_hops_is_none(self, fact: Fact) -> None:
        trial = Trial("an edit", "Where?", "Lyon", ("belief", "edit"))

        assert problem_of(trial, Answer("Where?", "lyon", (BELIEF, EDIT), (fact,)), "") == ""

    def test_another_answer_is_one(self, fact: Fact) -> None:
        trial = Trial("an edit", "Where?", "Lyon", ("edit",))

        assert "Lyon" in problem_of(trial, Answer("Where?", "Paris", (EDIT,), (fact,)), "")
        assert "Lyon" in problem_of(trial, Answer("Where?", ""), "")

    def test_the_right_answer_by_other_hops_is_one(self, fact: Fact) -> None:
        trial = Trial("an edit", "Where?", "Lyon", ("belief", "edit"))

        assert "belief" in problem_of(trial, Answer("Where?", "Lyon", (EDIT,), (fact,)), "")

    def test_a_changed_byte_is_one_where_nothing_may_change(self) -> None:
        trial = Trial("no change", "Where?", None)

        assert problem_of(trial, Answer("Where?", "Tokyo."), "Tokyo.") == ""
        assert problem_of(trial, Answer("Where?", "Tokyo. "), "Tokyo.")

    def test_an_edit_is_one_where_nothing_may_change(self, fact: Fact) -> None:
        trial = Trial("no change", "Where?", None)

        assert problem_of(trial, Answer("Where?", "Tokyo.", (EDIT,), (fact,)), "Tokyo.")
