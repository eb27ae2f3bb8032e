"""The trained scope classifier over a real memory: what is read, in what order, and what the shipped weights say."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from memedit.errors import ModelNotFound
from memedit.memory.fact import FactInput
from memedit.memory.memory import EditMemory
from memedit.scope_model import CrossEncoder, TrainedScope
from memedit.scope_text import FactText, Role, mentions

EDITS = (
    ("iPad", "manufacturer", "Nokia"),
    ("iPad Pro", "manufacturer", "Siemens"),
    ("United Kingdom", "capital", "Leeds"),
    ("Albert Einstein", "place of death", "Lisbon"),
    ("Windows 7", "developer", "Oracle"),
    ("Acme Robotics", "chief executive officer", "Mara Voss"),
)
NOTHING = (
    "Write a haiku about autumn.",
    "What is 17 * 23?",
    "def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)",
    "Wie geht es dir heute?",
    "日本の首都はどこですか",
    "Thanks, that was really helpful!",
)


class Echo:
    """A scorer that remembers what it was given and believes everything."""

    def __init__(self, probability: float = 0.9) -> None:
        self.pairs: list[tuple[str, FactText]] = []
        self._probability = probability

    def probabilities(self, pairs: Sequence[tuple[str, FactText]]) -> list[float]:
        self.pairs += pairs
        return [self._probability] * len(pairs)


@pytest.fixture(scope="module")
def memory() -> Iterator[EditMemory]:
    with EditMemory() as memory:
        memory.assert_facts([FactInput(subject=s, relation=r, object=o) for s, r, o in EDITS])
        memory.assert_fact(FactInput(statement="Our Lisbon office is closed on Fridays."))
        yield memory


@pytest.fixture(scope="module")
def scope(memory: EditMemory) -> TrainedScope:
    return TrainedScope(memory.embedder)


@pytest.mark.parametrize(
    ("text", "subject"),
    [
        ("Who makes the iPad?", "iPad"),
        ("The iPad Pro is manufactured by", "iPad Pro"),
        ("What is the capital of the United Kingdom?", "United Kingdom"),
        ("What is the capital of the UK?", "United Kingdom"),
        ("Retrieved May 10, 2011. Albert Einstein passed away in", "Albert Einstein"),
        ("Is Mara Voss the CEO of Acme Robotics?", "Acme Robotics"),
    ],
)
def test_a_text_about_an_edit_finds_it(scope: TrainedScope, memory: EditMemory, text: str, subject: str) -> None:
    best = scope.retrieve([(memory.view(), text, 3)])[0][0]
    assert best.fact.subject == subject
    assert best.probability >= scope.threshold


@pytest.mark.parametrize(
    "text",
    [
        "Who makes the iPad Mini?",
        "When was the iPad first released?",
        "Where was Albert Einstein born?",
        "Who developed Windows 8?",
        "Who is the CEO of Acme Robotics Europe?",
        *NOTHING,
    ],
)
def test_a_text_about_no_edit_finds_none(scope: TrainedScope, memory: EditMemory, text: str) -> None:
    found = scope.retrieve([(memory.view(), text, 3)])[0]
    assert all(one.probability < scope.threshold for one in found)


def test_a_free_text_fact_is_found(scope: TrainedScope, memory: EditMemory) -> None:
    best = scope.retrieve([(memory.view(), "On which day is the Lisbon office closed?", 1)])[0][0]
    assert best.fact.statement == "Our Lisbon office is closed on Fridays."
    assert best.probability >= scope.threshold


def test_texts_together_are_judged_as_each_alone(scope: TrainedScope, memory: EditMemory) -> None:
    view = memory.view()
    texts = ["Who makes the iPad?", "Where did Albert Einstein die?", *NOTHING]
    together = scope.retrieve([(view, text, 3) for text in texts])
    alone = [scope.retrieve([(view, text, 3)])[0] for text in texts]
    assert [[one.fact.id for one in found] for found in together] == [[one.fact.id for one in found] for found in alone]
    for many, few in zip(together, alone, strict=True):
        assert [one.probability for one in many] == pytest.approx([one.probability for one in few], abs=1e-4)


def test_views_of_one_call_are_kept_apart(scope: TrainedScope, memory: EditMemory) -> None:
    ids = [fact.id for fact in memory.facts(subject="iPad")]
    masked, empty = memory.view(ids=ids), memory.view(ids=[])
    text = "Who makes the iPad?"
    shown, hidden = scope.retrieve([(masked, text, 5), (empty, text, 5)])
    assert [one.fact.id for one in shown] == ids
    assert hidden == []


def test_no_request_is_no_work(scope: TrainedScope) -> None:
    assert scope.retrieve([]) == []


def test_an_alias_is_read_as_the_name_of_the_subject(memory: EditMemory) -> None:
    echo = Echo()
    TrainedScope(memory.embedder, scorer=echo).retrieve([(memory.view(), "What is the UK's capital?", 1)])
    assert ("What is the United Kingdom's capital?", "Leeds") in [(text, fact.object) for text, fact in echo.pairs]


def test_a_name_inside_a_longer_known_name_is_not_read(memory: EditMemory) -> None:
    echo = Echo()
    TrainedScope(memory.embedder, scorer=echo).retrieve([(memory.view(), "Who makes the iPad Pro?", 1)])
    subjects = [fact.subject for _, fact in echo.pairs]
    assert "iPad Pro" in subjects
    assert "iPad" not in subjects


def test_facts_that_are_not_read_come_last_and_small(memory: EditMemory) -> None:
    echo = Echo(0.02)
    found = TrainedScope(memory.embedder, scorer=echo, pairs=1).retrieve([(memory.view(), "Who makes the iPad?", 7)])[0]
    assert len(echo.pairs) == 1
    assert sorted(one.fact.id for one in found) == [fact.id for fact in memory.view().facts()]
    assert found[0].probability == 0.02
    assert all(one.probability <= 0.005 for one in found[1:])


def test_weights_that_are_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="memedit train scope"):
        CrossEncoder(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"format": 0}), "utf-8")
    with pytest.raises(ModelNotFound, match="format 0"):
        CrossEncoder(tmp_path)


def test_importing_it_imports_no_torch() -> None:
    code = "import sys, memedit.scope_model; print('torch' in sys.modules, 'sentence_transformers' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.split() == ["False", "False"]


def test_mentions_are_whole_names_in_any_case_and_script() -> None:
    assert mentions("the ipads of IPAD users", "iPad") == [(13, 17)]
    assert mentions("東京の人口は", "東京") == [(0, 2)]
    assert mentions("Who is Zoe?", "Zoë") == [(7, 10)]
    assert mentions("anything", "") == []


def test_a_named_subject_becomes_one_marker_on_both_sides() -> None:
    from memedit.planner_words import Vocabulary
    from memedit.scope_text import MAX_TEXT, PairReader

    reader = PairReader(Vocabulary.installed().folder)
    fact = FactText("Goursez Vreizh", "Franche-Comté", "Goursez Vreizh is in the country of Franche-Comté.")
    pair = reader.encode("Which country is Goursez Vreizh in?", fact)
    assert pair.roles.count(Role.TEXT_SUBJECT) == pair.roles.count(Role.FACT_SUBJECT) == 1
    other = reader.encode(
        "Which country is Lake Como in?",
        fact._replace(subject="Lake Como", statement="Lake Como is in the country of Franche-Comté."),
    )
    assert pair.ids == other.ids
    long = reader.encode("word " * 500 + "Goursez Vreizh is in which country? " + "word " * 500, fact)
    assert len(long.ids) <= MAX_TEXT + 60
    assert Role.TEXT_SUBJECT in long.roles
