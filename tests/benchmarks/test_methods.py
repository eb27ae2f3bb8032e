"""What stands between a run and the model: a model that remembers, a strategy and edited weights behind one interface."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from memedit import MemEditor
from memedit.answer import Answer
from memedit.errors import InvalidEdit
from memedit.evaluation.figures import figures
from memedit.evaluation.method import Ask, MemoryMethod, Seen
from memedit.evaluation.options import Options
from memedit.evaluation.remembered import RememberedModel
from memedit.evaluation.run import run
from memedit.evaluation.weights import WeightsMethod
from memedit.memory.memory import EditMemory
from memedit.models.base import Completion, Prompt, Sampling
from memedit.strategies.base import Steps, complete
from memedit.strategies.direct import base_prompt
from tests.benchmarks.single_hop import COUNTERFACT, ZSRE, Named, Reader, counterfact_row

if TYPE_CHECKING:
    from memedit.memory.memory import MemoryView
    from memedit.parametric.edits import WeightEdit
    from memedit.parametric.model import ParametricModel


@pytest.fixture
def reader() -> Reader:
    return Reader()


def test_a_remembered_model_is_asked_once_and_tells_what_that_saved(reader: Reader) -> None:
    model = RememberedModel(reader)
    prompt = base_prompt("Who?")

    first = model.generate([prompt, prompt], Sampling(max_tokens=8))
    again = model.generate([base_prompt("Who?")], Sampling(max_tokens=8))
    model.generate([prompt], Sampling(max_tokens=9))

    assert first == again * 2
    assert len(reader.prompts) == 2
    assert math.isfinite(model.saved_seconds)
    assert model.saved_seconds > 0
    assert model.score([("a", " b")] * 2) == model.score([("a", " b")]) * 2
    assert reader.scored == [("a", " b")]


def test_a_method_says_what_an_answer_was_written_under(reader: Reader) -> None:
    with EditMemory(embed_on_write=False) as memory:
        method = MemoryMethod(MemEditor(RememberedModel(reader), memory, strategy=Named()))
        assert method.edit([]) == 0

        [reply] = method.answer([Ask((0, 0), "Low Tide is by")])

    assert (reply.text, reply.scored_under) == ("Jon Dahl wrote it.", "Low Tide is by")
    assert method.score(Seen((0, 0)), [("Low Tide is by", " Jon")])[0].greedy


class Weights(Reader):
    """Stands for a model whose weights are edited: it says the target of the last edit it holds."""

    def __init__(self) -> None:
        super().__init__()
        self.held: list[tuple[str, ...]] = []
        self.prepared = 0

    def check(self, edit: WeightEdit) -> None:
        assert edit.subject in edit.prompt

    def prepare(self) -> None:
        self.prepared += 1

    def hold(self, edits: Sequence[WeightEdit]) -> None:
        self.held.append(tuple(edit.target for edit in edits))

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling = Sampling()) -> list[Completion]:
        return [Completion(self.held[-1][-1], 5, 2) for _ in prompts]


def test_a_parametric_method_holds_the_edits_of_one_memory_at_a_time(tmp_path: Path, reader: Reader) -> None:
    data = tmp_path / "data.json"
    data.write_text(json.dumps(COUNTERFACT), encoding="utf-8")
    weights = Weights()
    method = WeightsMethod(cast("ParametricModel", weights))

    options = Options("counterfact", data, tmp_path / "out.json", edits=1)
    result: dict[str, Any] = figures(run(options, method, RememberedModel(reader)))

    assert sorted(weights.held) == [("Ana Ruiz",), ("Ito Kana",), ("Mirela Toma",)], "each is put in once"
    assert method.edits_made == 3
    assert weights.prepared == 1
    assert set(result["cost"]["peak_memory_mib"]) == {"edit", "question"}
    assert result["generated"]["edit_success"] == 1.0
    assert result["generated"]["exact_invariance"] == 0.0
    assert result["teacher_forced"]["edit_success"] == 0.0, "its probabilities are those of the weights"
    assert result["teacher_forced"]["exact_invariance"] == 1.0


def test_scalability_puts_each_set_of_edits_into_the_weights_once(tmp_path: Path, reader: Reader) -> None:
    rows = [
        counterfact_row(number, f"Book {name}", f"Author {name}", "Jon Dahl")
        for number, name in enumerate("ABCDEFGHIJKL")
    ]
    (tmp_path / "data.json").write_text(json.dumps(rows), encoding="utf-8")
    weights = Weights()
    options = Options(
        "counterfact", tmp_path / "data.json", tmp_path / "out.json", edits=None, scalability=True, cases_per_batch=2
    )

    run(options, WeightsMethod(cast("ParametricModel", weights)), RememberedModel(reader))

    assert len(weights.held) == len(set(weights.held)) == 12 + 2, (
        "each alone, which the first is too; the first ten; all"
    )


class Clock:
    """A clock that stands still but for what is told to take time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        monkeypatch.setattr("time.perf_counter", lambda: self.now)


def test_the_time_of_edits_is_no_part_of_the_time_of_questions(
    tmp_path: Path, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)

    class Slow(Weights):
        def hold(self, edits: Sequence[WeightEdit]) -> None:
            clock.now += 100
            super().hold(edits)

        def generate(self, prompts: Sequence[Prompt], sampling: Sampling = Sampling()) -> list[Completion]:
            clock.now += len(prompts)
            return super().generate(prompts, sampling)

    (tmp_path / "data.json").write_text(json.dumps(COUNTERFACT), encoding="utf-8")
    options = Options("counterfact", tmp_path / "data.json", tmp_path / "out.json", edits=1, fluency=False)
    result: dict[str, Any] = figures(
        run(options, WeightsMethod(cast("ParametricModel", Slow())), RememberedModel(reader))
    )

    assert result["cost"]["seconds_per_edit"] == 100
    assert result["cost"]["seconds_per_question"] == 1


def test_a_remembered_answer_counts_with_the_time_it_took(
    tmp_path: Path, reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Clock(monkeypatch)

    class Slow(Reader):
        def generate(self, prompts: Sequence[Prompt], sampling: Sampling = Sampling()) -> list[Completion]:
            clock.now += len(prompts)
            return super().generate(prompts, sampling)

    (tmp_path / "data.json").write_text(json.dumps(COUNTERFACT), encoding="utf-8")
    options = Options(
        "counterfact", tmp_path / "data.json", tmp_path / "out.json", edits=None, fluency=False, cases_per_batch=1
    )
    slow = Slow()
    model = RememberedModel(slow)
    with EditMemory(embed_on_write=False) as memory:
        result: dict[str, Any] = figures(run(options, MemoryMethod(MemEditor(model, memory, strategy="base")), model))

    recalls = 3  # asked beside the questions, and not counted with them
    assert len(slow.prompts) - recalls < result["questions"], "the cases share their neighborhood prompts"
    assert result["cost"]["seconds"] == result["questions"]


def test_an_answer_of_the_counterfactual_model_is_scored_by_it(tmp_path: Path, reader: Reader) -> None:
    class Told:
        name = "told"

        def __call__(self, question: str, view: MemoryView) -> Steps:
            said = yield from complete("Edit and question:", Sampling(max_tokens=8), counterfactual=True)
            return Answer(question, said.text, edits=tuple(view.facts()), strategy=self.name)

    (tmp_path / "data.json").write_text(json.dumps(COUNTERFACT[:1]), encoding="utf-8")
    options = Options("counterfact", tmp_path / "data.json", tmp_path / "out.json", edits=None, fluency=False)
    model, other = RememberedModel(reader), Reader()
    with EditMemory(embed_on_write=False) as memory:
        editor = MemEditor(model, memory, strategy=Told(), counterfactual=other)
        run(options, MemoryMethod(editor), model)

    assert ("Edit and question:", " Mirela Toma") in other.scored
    assert ("Edit and question:", " Mirela Toma") not in reader.scored


def test_an_edit_whose_subject_is_not_in_its_prompt_is_named_by_file_and_row(tmp_path: Path, reader: Reader) -> None:
    row = {**ZSRE[0], "subject": "Kite Season"}
    data = tmp_path / "data.json"
    data.write_text(json.dumps([row]), encoding="utf-8")

    with pytest.raises(InvalidEdit, match=r"data\.json, row 1, field 'subject'.*Kite Season"):
        run(
            Options("zsre", data, tmp_path / "out.json"),
            WeightsMethod(cast("ParametricModel", Weights())),
            RememberedModel(reader),
        )
