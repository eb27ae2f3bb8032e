"""The walk on a real memory with the real embedder; the base model is scripted, so that its beliefs are known."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest

from memedit.editor import MemEditor
from memedit.memory.embedder import SentenceEmbedder
from memedit.memory.memory import MemoryView
from memedit.models.base import Completion, Prompt, Sampling
from memedit.models.scripted import ScriptedModel
from memedit.strategies.base import Plan, Scoped, ScorePaths
from memedit.strategies.chains import splices
from memedit.strategies.driver import run
from memedit.strategies.walk import Walk

BELIEFS = {
    "Misery": "Stephen King",
    "Stephen King": "United States of America",
    "Richard Dawkins": "United Kingdom",
    "Naomi Osaka": "Japan",
}
EMBEDDER = SentenceEmbedder()


def believe(prompt: object) -> str:
    """Plays a base model that knows four things and says "base" to everything else."""
    asked = str(prompt).rsplit("Q:", 1)[-1]
    return next((f" {belief}" for name, belief in BELIEFS.items() if name in asked), "base")


@pytest.fixture
def editor() -> Iterator[MemEditor]:
    with MemEditor(ScriptedModel(believe), embedder=EMBEDDER) as editor:
        yield editor


def test_an_edit_answers_its_question_without_the_model(editor: MemEditor) -> None:
    receipt = editor.add_fact("France", "capital", "Lyon")

    answer = editor.ask("What is the capital of France?")

    assert answer.text == "Lyon"
    assert [fact.id for fact in answer.edits] == [receipt.fact.id]
    assert answer.cost.model_calls == 0


def test_a_paraphrase_is_answered_from_the_edit(editor: MemEditor) -> None:
    editor.add_fact("France", "capital", "Lyon")

    assert editor.ask("Which city serves as France's capital?").text == "Lyon"


def test_what_is_asked_of_an_edits_object_is_asked_of_the_model(editor: MemEditor) -> None:
    editor.add_fact("Nimbus Park", "country", "Naomi Osaka")

    answer = editor.ask("What is a famous animal from the country where Nimbus Park is located?")

    assert answer.text == "Japan"  # what the scripted model says to a question that names Naomi Osaka
    assert [hop.object for hop in answer.hops] == ["Naomi Osaka"]
    assert answer.cost.model_calls == 1


def test_two_edits_make_two_hops(editor: MemEditor) -> None:
    editor.add_facts(
        [("Misery", "author", "Richard Dawkins"), ("Richard Dawkins", "country of citizenship", "Iceland")]
    )

    answer = editor.ask('What country is the author of "Misery" a citizen of?')

    assert answer.text == "Iceland"
    assert [(hop.object, hop.source) for hop in answer.hops] == [("Richard Dawkins", "edit"), ("Iceland", "edit")]


def test_a_hop_that_no_edit_holds_is_a_belief(editor: MemEditor) -> None:
    editor.add_fact("Misery", "author", "Richard Dawkins")

    answer = editor.ask('What is the country of citizenship of the author of "Misery"?')

    assert answer.text == "United Kingdom"
    assert [hop.source for hop in answer.hops] == ["edit", "belief"]
    assert answer.cost.model_calls == 1


def test_an_edit_behind_a_belief_is_found(editor: MemEditor) -> None:
    editor.add_fact("Japan", "capital", "Osaka City")

    answer = editor.ask("What is the capital of the country that Naomi Osaka is a citizen of?")

    assert answer.text == "Osaka City"
    assert [hop.source for hop in answer.hops] == ["belief", "edit"]


def test_a_belief_that_the_model_does_not_stand_by_leads_to_no_edit(editor: MemEditor) -> None:
    editor.add_fact("United Kingdom of Great Britain and Ireland", "capital", "Leeds")
    question = "What is the capital of the country that Ada Quill is a citizen of?"

    def guess(prompt: object) -> str:
        return " United Kingdom of Great Britain and Ireland" if str(prompt).endswith("A:") else " Peru"

    assert not MemEditor(ScriptedModel(guess), editor.memory).ask(question).in_scope


@pytest.mark.parametrize(("log_probability", "calls", "in_scope"), [(-0.1, 1, True), (-4.0, 1, False), (None, 2, True)])
def test_a_belief_whose_probability_is_told_is_not_asked_for_again(
    editor: MemEditor, log_probability: float | None, calls: int, in_scope: bool
) -> None:
    editor.add_fact("Iceland", "capital", "Leeds")
    question = "What is the capital of the country that Ada Quill is a citizen of?"

    class Telling(ScriptedModel):
        def generate(self, prompts: Sequence[Prompt], sampling: Sampling = Sampling()) -> list[Completion]:
            told = log_probability if sampling.probability else None
            return [one._replace(log_probability=told) for one in super().generate(prompts, sampling)]

    model = Telling(lambda prompt: " Iceland")
    with MemEditor(model, editor.memory) as asked:
        found = run(Walk(own_threshold=0.1).resolve(question, asked.memory.view()), asked.tools)

    assert (bool(found.result.facts), found.cost.model_calls) == (in_scope, calls)


def test_where_a_chain_rests_on_a_doubtful_belief_the_next_best_chain_is_walked(editor: MemEditor) -> None:
    editor.add_fact("baseball", "country of origin", "Iceland")
    question = "In which country did the sport of Ada Quill begin?"
    span = (question.index("Ada"), question.index(" begin"))
    plans = [
        Plan("Ada Quill", span, chain, p) for chain, p in [(("P413", "P641", "P495"), 0.6), (("P641", "P495"), 0.3)]
    ]

    def guess(prompt: object) -> str:
        if "position" in str(prompt).rsplit("Q:", 1)[-1]:
            return (
                " defender on the left flank" if str(prompt).endswith("A:") else " wicket"
            )  # nothing that it would state
        return " baseball"

    answer = MemEditor(ScriptedModel(guess), editor.memory, planner=Fixed(plans), scorer=Fixed(plans)).ask(question)

    assert answer.text == "Iceland"
    assert [hop.relation for hop in answer.hops] == ["P641", "P495"]


class Fixed:
    """A planner and path scorer whose plans are given."""

    def __init__(self, plans: Sequence[Plan]) -> None:
        self._plans = plans

    def plan(self, questions: Sequence[tuple[str, MemoryView]]) -> list[list[Plan]]:
        return [list(self._plans) for _ in questions]

    def score(self, requests: Sequence[ScorePaths]) -> list[list[float]]:
        known = {plan.relations: plan.confidence for plan in self._plans}
        return [[known.get(chain, 0.001) for chain in request.chains] for request in requests]


def test_chains_are_not_scored_where_none_can_come_to_an_edit(editor: MemEditor) -> None:
    class Unscored(Fixed):
        def score(self, requests: Sequence[ScorePaths]) -> list[list[float]]:
            raise AssertionError(requests)

    editor.add_fact("France", "capital", "Lyon")
    question, span = "Who is married to the author of Emma?", (32, 36)
    plans = [Plan("Emma", span, ("P50", "P26"), 0.9), Plan("Emma", span, ("P50", "P27", "P36"), 0.001)]
    asked = MemEditor(editor.model, editor.memory, planner=Fixed(plans), scorer=Unscored(plans))

    assert not asked.ask(question).in_scope


def test_a_sentence_in_the_very_words_of_the_question_wins_over_a_fact_of_one_hop(editor: MemEditor) -> None:
    editor.add_facts(
        ["Who was behind the creation of Verdala Palace? Ada Quill", ("Verdala Palace", "architect", "Bo Li")]
    )

    assert editor.ask("Who was behind the creation of Verdala Palace?").text == "Ada Quill"
    assert editor.ask("Who was the architect of Verdala Palace?").text == "Bo Li"


def test_a_fact_is_found_after_a_label_and_other_sentences(editor: MemEditor) -> None:
    editor.add_fact("Low Tide", "author", "Ada Quill")

    answer = editor.ask("See also\n\nCategory:Moths described in 1938\nCategory:Cryptolechia Low Tide was written by")

    assert answer.text == "Ada Quill"


@pytest.mark.parametrize("written", ["Mohamed Elsayed", "Elsayed, Mohamed", "Mohamed E Elsayed"])
def test_a_name_without_its_initial_or_turned_round_is_the_same_person(editor: MemEditor, written: str) -> None:
    editor.add_fact("Mohamed E. Elsayed", "occupation", "ferryman")

    assert editor.ask(f"What is the occupation of {written}?").text == "ferryman"
    assert not editor.ask(f"Where was {written} born?").in_scope
    assert not editor.ask("What is the occupation of Mohamed F. Elsayed?").in_scope


def test_out_of_scope_the_base_model_gets_the_bare_question(editor: MemEditor) -> None:
    editor.add_fact("France", "capital", "Lyon")

    answer = editor.ask("How do I boil an egg?")

    assert answer.text == "base"
    assert not answer.in_scope
    assert isinstance(editor.model, ScriptedModel)
    assert [call.prompt for call in editor.model.calls] == ["user: How do I boil an egg?"]


def test_another_relation_of_an_edited_subject_is_not_answered_from_the_edit(editor: MemEditor) -> None:
    editor.add_fact("France", "capital", "Lyon")

    assert not editor.ask("What is the official language of France?").in_scope


def test_another_subject_of_an_edited_relation_is_not_answered_from_the_edit(editor: MemEditor) -> None:
    editor.add_fact("France", "capital", "Lyon")

    assert not editor.ask("What is the capital of Spain?").in_scope


def test_a_yes_no_question_about_an_edit_is_settled_by_the_edit(editor: MemEditor) -> None:
    editor.add_fact("France", "capital", "Lyon")

    answer = editor.ask("Is Paris the capital of France?")

    assert answer.in_scope
    assert answer.text.startswith("No")
    assert "Lyon" in answer.text
    assert answer.cost.model_calls == 0


def test_a_request_to_write_about_an_edit_goes_to_the_model_with_the_edit(editor: MemEditor) -> None:
    editor.add_fact("France", "capital", "Lyon")

    answer = editor.ask("Describe the capital of France.")

    assert answer.in_scope
    assert isinstance(editor.model, ScriptedModel)
    assert "The capital of France is Lyon." in editor.model.calls[-1].prompt


def test_a_free_text_fact_reaches_the_model(editor: MemEditor) -> None:
    receipt = editor.add_fact("Our office moved to the third floor, next to the old library, in March.")

    answer = editor.ask("To which floor did our office move in March?")

    assert receipt.fact.is_free_text
    assert [fact.id for fact in answer.edits] == [receipt.fact.id]


def test_a_retracted_edit_is_not_used(editor: MemEditor) -> None:
    receipt = editor.add_fact("France", "capital", "Lyon")
    editor.retract(receipt)

    assert not editor.ask("What is the capital of France?").in_scope


def test_no_namespace_sees_another(editor: MemEditor) -> None:
    editor.add_fact("France", "capital", "Lyon", namespace="tenant-a")
    editor.add_fact("Spain", "capital", "Seville", namespace="tenant-b")

    assert editor.ask("What is the capital of France?", namespace="tenant-a").text == "Lyon"
    assert not editor.ask("What is the capital of France?", namespace="tenant-b").in_scope


def test_many_questions_get_the_answers_they_get_alone(editor: MemEditor) -> None:
    editor.add_facts([("Misery", "author", "Richard Dawkins"), ("Japan", "capital", "Osaka City")])
    questions = [
        'Who is the author of "Misery"?',
        'What is the country of citizenship of the author of "Misery"?',
        "What is the capital of the country that Naomi Osaka is a citizen of?",
        "How do I boil an egg?",
    ]

    together = editor.ask_many(questions)

    assert [answer.text for answer in together] == [editor.ask(question).text for question in questions]


def test_a_path_is_continued_by_the_plan_that_shares_its_last_relation() -> None:
    assert splices([("position", "sport")], [("sport", "country")], 4) == [("position", "sport", "country")]
    assert splices([("position", "sport")], [("sport", "country")], 2) == []
    assert splices([("sport",)], [("sport", "country")], 4) == []


def test_a_strong_model_plans_where_the_planner_is_unsure(editor: MemEditor) -> None:
    editor.add_facts([("Nimbus", "overseen by", "Ada Quill"), ("Ada Quill", "studied under", "Bo Li")])
    plan = '{"start": "Nimbus", "relations": ["overseen by", "student of"]}'
    model = ScriptedModel(lambda prompt: plan if "follow" in str(prompt) else "base")
    question = "Whoever it is that Nimbus answers to, at whose feet did they once learn?"

    answer = MemEditor(model, editor.memory, strategy=Walk(plan_below=1.1)).ask(question)

    assert answer.text == "Bo Li"
    assert answer.planner == "paths"  # the edits hold the chain that the model found
    assert [call.sampling.json_schema is not None for call in model.calls] == [True]


class Unsure:
    """A planner and path scorer that know nothing."""

    def plan(self, requests: Sequence[tuple[str, MemoryView]]) -> list[list[Plan]]:
        return [
            [Plan("Bo Li", (question.index("Bo Li"), question.index("Bo Li") + 5), ("P108", "P27"), 0.1)]
            for question, _ in requests
        ]

    def score(self, requests: Sequence[ScorePaths]) -> list[list[float]]:
        return [[0.1] * len(request.chains) for request in requests]


def test_an_answer_says_that_the_model_planned(editor: MemEditor) -> None:
    editor.add_fact("Nimbus", "overseen by", "Ada Quill")
    plan = '{"start": "Bo Li", "relations": ["employer", "overseen by"]}'
    model = ScriptedModel(lambda prompt: plan if "follow" in str(prompt) else " Nimbus")
    unsure = Unsure()
    asker = MemEditor(model, editor.memory, strategy=Walk(plan_below=0.3), planner=unsure, scorer=unsure)

    answer = asker.ask("The outfit that pays Bo Li, to whom does it answer?")

    assert (answer.text, answer.planner) == ("Ada Quill", "model")


def test_a_plan_that_is_no_plan_changes_nothing(editor: MemEditor) -> None:
    editor.add_fact("France", "capital", "Lyon")
    model = ScriptedModel(lambda prompt: '{"start": "Peru", "relations": []}')

    answer = MemEditor(model, editor.memory, strategy=Walk(plan_below=1.1)).ask("What is the capital of France?")

    assert answer.text == "Lyon"


class Even:
    """A scope classifier that gives every fact the same probability."""

    threshold = 0.5

    def __init__(self, probability: float) -> None:
        self._probability = probability

    def retrieve(self, requests: Sequence[tuple[MemoryView, str, int]]) -> list[list[Scoped]]:
        return [[Scoped(fact, self._probability) for fact in view.facts()] for view, _, _ in requests]


@pytest.mark.parametrize(("in_doubt", "sure", "in_scope"), [(0.2, 0.9, True), (0.2, 0.1, False), (0.01, 0.9, False)])
@pytest.mark.parametrize("fact", ["On what channel did Nimbus first appear? Acme TV", ("Nimbus", "P449", "Acme TV")])
def test_where_the_classifier_is_in_doubt_the_planner_is_heard(
    fact: str | tuple[str, str, str], in_doubt: float, sure: float, in_scope: bool
) -> None:
    planner = Fixed([Plan("Nimbus", (18, 24), ("P449",), sure)])
    scope = Even(in_doubt)

    with MemEditor(ScriptedModel("base"), embedder=EMBEDDER, scope=scope, planner=planner, scorer=planner) as editor:
        editor.add_facts([fact])

        assert editor.ask("Which channel did Nimbus show up on for the first time?").in_scope == in_scope


def test_a_belief_that_leads_back_to_where_the_chain_has_been_is_no_answer(editor: MemEditor) -> None:
    def believe(prompt: object) -> str:
        return " Finnish" if "Finland" in str(prompt).rsplit("Q:", 1)[-1] else " Finland"

    editor.add_fact("Flanders", "official language", "Finnish")
    plans = Fixed([Plan("Flanders", (39, 47), ("P37", "P495", "P37"), 0.9)])
    question = "In which country is the language of Flanders spoken too?"

    answer = MemEditor(ScriptedModel(believe), editor.memory, planner=plans, scorer=plans).ask(question)

    assert [hop.object for hop in answer.hops] == ["Finnish", "Finland"]


def test_a_belief_that_only_adds_to_the_name_is_asked_for_once_more(editor: MemEditor) -> None:
    def believe(prompt: object) -> str:
        return " Acme Sports" if "War and Peace" not in str(prompt) else " Oslo"

    editor.add_fact("Nimbus", "original broadcaster", "Acme")
    question = "In which city is the network that aired Nimbus based?"
    span = (question.index("Nimbus"), question.index(" based"))
    plans = Fixed([Plan("Nimbus", span, ("P449", "P159"), 0.9)])

    answer = MemEditor(ScriptedModel(believe), editor.memory, planner=plans, scorer=plans).ask(question)

    assert [hop.object for hop in answer.hops] == ["Acme", "Oslo"]


def test_a_question_for_the_name_of_an_edits_object_is_answered(editor: MemEditor) -> None:
    editor.add_fact("Nimbus", "director", "Ada Quill")

    assert editor.ask("What's the director of Nimbus's name?").text == "Ada Quill"
