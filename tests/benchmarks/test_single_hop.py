"""A single-hop run: what it asks, what it scores, what it keeps, and what its figures say."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from memedit import MemEditor
from memedit.errors import BadDataFile, InvalidSpec
from memedit.evaluation.cases import Benchmark, load
from memedit.evaluation.command import main
from memedit.evaluation.examine import checkpoints, recall_prompt
from memedit.evaluation.figures import figures
from memedit.evaluation.method import Ask, MemoryMethod
from memedit.evaluation.opening import open_method
from memedit.evaluation.options import Options, place, rows_needed
from memedit.evaluation.remembered import RememberedModel
from memedit.evaluation.run import run
from memedit.memory.memory import EditMemory
from memedit.models.base import Prompt, Score
from memedit.strategies.base import Strategy
from memedit.strategies.direct import Base
from tests.benchmarks.single_hop import COUNTERFACT, KNOWEDIT, ZSRE, Named, Reader, Row

Result = dict[str, Any]
Execute = Callable[..., Result]
FILES: dict[Benchmark, list[Row]] = {"counterfact": COUNTERFACT, "zsre": ZSRE, "knowedit": KNOWEDIT}


@pytest.fixture
def reader() -> Reader:
    return Reader()


@pytest.fixture
def execute(tmp_path: Path, reader: Reader) -> Execute:
    """Runs a benchmark over a fresh memory; its figures."""

    def execute(
        benchmark: Benchmark, rows: list[Row] | None = None, strategy: Strategy | None = None, **options: Any
    ) -> Result:
        data = tmp_path / f"{benchmark}.json"
        data.write_text(json.dumps(FILES[benchmark] if rows is None else rows), encoding="utf-8")
        model = RememberedModel(reader)
        options = {"json": tmp_path / "out.json", "cases_per_batch": 2, **options}
        with EditMemory(embed_on_write=False) as memory:
            method = MemoryMethod(MemEditor(model, memory, strategy=strategy or Named()))
            return figures(run(Options(benchmark, data, **options), method, model))

    return execute


def written(tmp_path: Path) -> Path:
    """The rows of CounterFact in a file."""
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(COUNTERFACT), encoding="utf-8")
    return path


def records(tmp_path: Path) -> dict[str, Any]:
    """What the run recorded, without what differs from run to run."""
    _, *lines = (tmp_path / "out.json.cases.jsonl").read_text(encoding="utf-8").splitlines()
    kept = ("replies", "after", "written")
    return {row["key"]: {name: row[name] for name in kept} for row in map(json.loads, lines)}


def test_counterfact_with_an_edit_that_takes(execute: Execute) -> None:
    result = execute("counterfact", edits=None)

    for scoring in ("teacher_forced", "generated"):
        block = result[scoring]
        assert block["edit_success"] == block["paraphrase_success"] == 1.0
        assert block["neighborhood_success"] == 1.0, "the base model says Jon Dahl, and finds him likelier"
        assert block["exact_invariance"] == 1.0
        assert block["portability"] == 0.0, "Named answers with the author, not with the country"
        assert block["seconds_per_edit"] > 0
        assert block["seconds_per_question"] >= 0
        low, high = block["intervals"]["edit_success"]
        assert low < 1.0 == high
    assert (result["cases"], result["questions"]) == (3, 3 * 7)


def test_the_base_model_alone_takes_no_edit(execute: Execute) -> None:
    result = execute("counterfact", strategy=Base())

    for scoring in ("teacher_forced", "generated"):
        assert result[scoring]["edit_success"] == 0.0
        assert result[scoring]["exact_invariance"] == 1.0


def test_an_edit_used_where_none_belongs_breaks_invariance(execute: Execute) -> None:
    class Always(Named):
        def __call__(self, question: str, view: Any) -> Any:
            return super().__call__("The Salt Road" if "Glass" in question else question, view)

    result = execute("counterfact", strategy=Always(), edits=None)

    for scoring in ("teacher_forced", "generated"):
        assert result[scoring]["exact_invariance"] == 0.5
        assert result[scoring]["neighborhood_success"] == 0.5
        assert result[scoring]["exact_invariance_untouched"] == 0.5
    assert result["failures"]["locality/neighborhood"][0]["edits_used"] == [
        "The author of The Salt Road is Mirela Toma."
    ]


def test_an_answer_in_a_sentence_is_mentioned_and_no_exact_match(execute: Execute) -> None:
    class Wordy(Named):
        def __call__(self, question: str, view: Any) -> Any:
            answer = yield from super().__call__(question, view)
            return replace(answer, text=f"They say that {answer.text} did it.") if answer.edits else answer

    result = execute("counterfact", strategy=Wordy(), edits=None)

    assert result["generated"]["edit_success"] == 0.0
    assert result["mentioned"]["edit_success"] == result["mentioned"]["paraphrase_success"] == 1.0
    assert result["mentioned"]["neighborhood_success"] == 1.0
    assert result["mentioned"]["exact_invariance"] == result["generated"]["exact_invariance"]


def test_edits_are_retained_by_their_place_in_their_own_memory(execute: Execute) -> None:
    class First(Named):
        def __call__(self, question: str, view: Any) -> Any:
            subject = view.facts()[0].subject
            return super().__call__(question if subject in question else "", view)

    [early, late] = execute("counterfact", [*COUNTERFACT, COUNTERFACT[0]], First(), edits=2)["generated"][
        "retainability"
    ]

    assert (early["value"], early["prompts"]) == (1.0, 2)
    assert (late["value"], late["prompts"]) == (0.0, 2)


def test_the_last_memory_is_filled_up_too() -> None:
    assert [rows_needed(edits, limit) for edits, limit in ((2, 3), (1, 3), (10, 3), (None, 3), (2, None))] == [
        4, 3, 10, 3, None,
    ]  # fmt: skip


def test_a_prompt_about_another_cases_edit_is_told_apart(execute: Execute) -> None:
    rows = copy.deepcopy(COUNTERFACT)
    rows[0]["neighborhood_prompts"][0] = "The author of Kite Season is"

    one, own = execute("counterfact", rows, edits=None), execute("counterfact", rows, edits=1, start="fresh")

    assert one["generated"]["exact_invariance"] == pytest.approx(5 / 6)
    assert one["generated"]["exact_invariance_untouched"] == own["generated"]["exact_invariance"] == 1.0


def test_zsre_counts_tokens_under_teacher_forcing(execute: Execute, reader: Reader) -> None:
    rows = [copy.deepcopy(ZSRE[0])]
    rows[0] |= {"alt": "Jon Toma", "loc": "nq question: who wrote Low Tide?", "loc_ans": "Jon Berg"}

    result = execute("zsre", rows, strategy=Base())

    assert result["teacher_forced"]["edit_success"] == 0.5, "of Jon Toma the model expects the first token"
    assert result["generated"]["edit_success"] == 0.0
    assert result["teacher_forced"]["locality"] == result["generated"]["locality"] == 1.0
    assert ("Who is the author of The Salt Road?", " Jon Toma") in reader.scored, "the answer is scored as a whole"


def test_an_answer_that_no_model_wrote_predicts_what_it_says_and_nothing_else(execute: Execute) -> None:
    rows = [copy.deepcopy(ZSRE[0])]
    rows[0] |= {"loc": "How long is The Salt Road?", "loc_ans": "Jon Berg"}

    result = execute("zsre", rows, strategy=Named())

    assert result["teacher_forced"]["edit_success"] == 1.0
    assert result["teacher_forced"]["locality"] == 0.0
    assert result["teacher_forced"]["exact_invariance"] == 0.0


def test_a_model_that_does_not_tell_its_likeliest_tokens_is_not_marked_by_them(
    execute: Execute, reader: Reader
) -> None:
    def untold(pairs: Sequence[tuple[Prompt, str]]) -> list[Score]:
        return [Score(-1.0, 2, greedy=False) for _ in pairs]

    reader.score = untold  # type: ignore[method-assign]

    forced = execute("zsre", strategy=Base())["teacher_forced"]

    assert forced["edit_success"] is None
    assert forced["locality"] is None


def test_ike_takes_its_demonstrations_from_a_file(tmp_path: Path, reader: Reader) -> None:
    probe = {"question": "What is the mayor's dog called?", "answer": "Rex"}
    file = tmp_path / "mine.jsonl"
    file.write_text(
        json.dumps({"fact": "The mayor's dog is called Rex.", "copy": probe, "update": probe, "retain": probe}),
        encoding="utf-8",
    )

    with open_method("scripted", "ike", RememberedModel(reader), file) as method:
        method.edit([problem.case.edit for problem in load(written(tmp_path), "counterfact", limit=1)])
        method.answer([Ask((0, 1), "The Salt Road is by")])

    assert "New Fact: The mayor's dog is called Rex." in reader.prompts[-1]
    with (
        pytest.raises(InvalidSpec, match="no demonstrations"),
        open_method("scripted", "walk", RememberedModel(reader), file),
    ):
        pass


def test_memory_and_preparation_are_told_apart_by_phase(execute: Execute) -> None:
    cost = execute("counterfact")["cost"]

    assert set(cost["peak_memory_mib"]) == {"edit", "question"}
    assert min(cost["peak_memory_mib"][phase]["host"] for phase in ("edit", "question")) > 10
    assert cost["preparation_seconds"] > 0


def test_knowedit_is_told_by_kind(execute: Execute) -> None:
    block = execute("knowedit")["generated"]

    assert block["portability_by_kind"]["Reasoning"] == {
        "value": 0.0,
        "prompts": 1,
        "interval": pytest.approx((0.0, 0.79), abs=0.01),
    }
    assert block["portability_by_kind"]["Subject_Aliasing"]["value"] == 0.0
    assert block["locality_by_kind"]["Relation_Specificity"]["value"] == 0.0, "Named answers whatever names the subject"
    assert block["locality"] == 0.0


@pytest.mark.parametrize("benchmark", FILES)
def test_shuffling_what_is_expected_changes_no_answer(benchmark: Benchmark, execute: Execute, tmp_path: Path) -> None:
    rows = [copy.deepcopy(FILES[benchmark][0]) for _ in range(2)]
    false = copy.deepcopy(rows)
    for row in false:
        if benchmark == "counterfact":
            row["requested_rewrite"]["target_true"]["str"] = "Somebody Else"
            row["portability"] |= {"New Answer": "Chad", "Recalled Relation": "(Nobody, country, Chad)"}
        elif benchmark == "zsre":
            row |= {"loc_ans": "Nobody", "answers": ["Nobody"]}
            row["portability"] |= {"New Answer": "Chad", "Recalled Relation": "(Nobody, country, Chad)"}
        else:
            row["ground_truth"] = "Nobody"
            row["portability"]["Reasoning"][0]["ground_truth"] = "Chad"
            row["locality"]["Relation_Specificity"][0]["ground_truth"] = "poem"

    def texts() -> list[list[str]]:
        return [
            [reply["text"] for reply in record["replies"].values()] + [record["written"]]
            for record in records(tmp_path).values()
        ]

    execute(benchmark, rows)
    true = texts()
    execute(benchmark, false, start="fresh")

    assert texts() == true


def test_what_is_expected_never_reaches_the_strategy(execute: Execute, reader: Reader) -> None:
    strategy = Named()

    execute("counterfact", strategy=strategy)

    recalled = recall_prompt("Mirela Toma", "country of citizenship")
    told = [*strategy.asked, *(prompt for prompt in reader.prompts if prompt != recalled)]
    assert not any("Jon Dahl" in text or "Peru" in text for text in strategy.asked)
    assert not any("Jon Dahl" in text for text in told)


def test_an_answer_read_off_an_edit_is_scored_as_certain_and_asks_no_model(execute: Execute, reader: Reader) -> None:
    execute("counterfact", fluency=False)

    assert {prompt for prompt, _ in reader.scored} == {"The author of Glass Harbour is", "The author of Low Tide is"}


def test_a_base_answer_is_scored_after_the_raw_prompt(execute: Execute, reader: Reader) -> None:
    execute("counterfact", [COUNTERFACT[0]], strategy=Base())

    assert ("The author of The Salt Road is", " Mirela Toma") in reader.scored
    assert ("The author of The Salt Road is", " Jon Dahl") in reader.scored


def test_each_case_sees_its_own_edits_only(execute: Execute, tmp_path: Path) -> None:
    class Latest(Named):
        def __call__(self, question: str, view: Any) -> Any:
            return super().__call__(view.facts()[-1].subject + question[:0], view)

    execute("counterfact", strategy=Latest(), edits=1)
    alone = {key: record["replies"]["0"]["text"] for key, record in records(tmp_path).items()}
    execute("counterfact", strategy=Latest(), edits=2, start="fresh")
    grouped = {key: record["replies"]["0"]["text"] for key, record in records(tmp_path).items()}

    assert alone == {"1": "Mirela Toma", "2": "Ana Ruiz", "3": "Ito Kana"}
    assert len(set(grouped.values())) == 2
    assert [case.span for case in place(load(tmp_path / "counterfact.json", "counterfact"), 2)] == [
        (0, 2),
        (0, 2),
        (2, 3),
    ]


@pytest.mark.parametrize("limit", [1, 3, 4, 10, None])
def test_what_fills_a_memory_stands_between_what_is_asked(limit: int | None, tmp_path: Path) -> None:
    rows = [{**copy.deepcopy(COUNTERFACT[0]), "case_id": number} for number in range(10)]
    (tmp_path / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    problems = load(tmp_path / "rows.json", "counterfact")

    placed = place(problems, 10, limit)

    asked = [case for case in placed if case.is_asked]
    gaps = [after.place - case.place for case, after in pairwise(asked)]
    assert sorted(case.problem.case.row for case in placed) == [problem.case.row for problem in problems]
    assert [case.problem for case in asked] == problems[:limit]
    assert [case.place for case in placed] == list(range(10))
    assert max(gaps, default=0) - min(gaps, default=0) <= 1


def test_scalability_asks_with_the_first_edits_and_alone(execute: Execute) -> None:
    many = [
        {**copy.deepcopy(COUNTERFACT[0]), "requested_rewrite": {**COUNTERFACT[0]["requested_rewrite"], "subject": name}}
        for name in (
            "Alder",
            "Birch",
            "Cedar",
            "Damson",
            "Elm",
            "Fir",
            "Gorse",
            "Hazel",
            "Ivy",
            "Juniper",
            "Larch",
            "Maple",
        )
    ]

    block = execute("counterfact", many, edits=None, scalability=True)["generated"]

    assert {seen: part["prompts"] for seen, part in block["scalability"]["after"].items()} == {
        "1": 1,
        "10": 10,
        "12": 12,
    }
    assert block["scalability"]["loss"] == 0.0
    assert sum(part["prompts"] for part in block["retainability"]) == 12
    assert checkpoints(1000) == [1, 10, 100]


def test_only_the_kinds_wanted_are_asked(execute: Execute) -> None:
    result = execute("counterfact", edits=None, kinds=("edit", "paraphrase"))

    assert result["questions"] == 9
    assert result["generated"]["paraphrase_success"] == 1.0
    assert result["generated"]["neighborhood_success"] is None
    with pytest.raises(InvalidSpec, match="own prompts"):
        execute("counterfact", edits=None, kinds=("paraphrase",), scalability=True)


def test_scalability_is_of_one_memory(execute: Execute) -> None:
    with pytest.raises(InvalidSpec, match="one memory"):
        execute("counterfact", edits=1, scalability=True)


def test_a_later_edit_of_the_same_slot_is_counted(execute: Execute) -> None:
    again = copy.deepcopy(COUNTERFACT[0])
    again["requested_rewrite"]["target_new"]["str"] = "Rui Vaz"

    assert execute("counterfact", [COUNTERFACT[0], again], edits=None)["superseded_edits"] == 1


def test_a_killed_run_goes_on_without_repeating_or_losing_a_case(execute: Execute, tmp_path: Path) -> None:
    whole = execute("counterfact", json=tmp_path / "whole.json", cases_per_batch=1)
    with pytest.raises(RuntimeError, match="killed"):
        execute("counterfact", strategy=Named(fails_after=10), cases_per_batch=1)
    kept = len(records(tmp_path))
    second = Named()

    result = execute("counterfact", strategy=second, cases_per_batch=1, start="resume")

    assert kept == 1
    assert len(second.asked) == 2 * 7, "prompts of the two cases that were left"
    assert len(records(tmp_path)) == 3
    assert result["generated"]["edit_success"] == whole["generated"]["edit_success"]


def test_without_scores_only_what_was_generated_is_told(execute: Execute, reader: Reader) -> None:
    result = execute("counterfact", teacher_forced=False)

    assert result["teacher_forced"] is None
    assert not reader.scored


def test_fluency_is_of_text_the_model_wrote_with_the_edit_before_it(execute: Execute, reader: Reader) -> None:
    result = execute("counterfact", [COUNTERFACT[0]])

    assert result["fluency"]["texts"] == 1
    written = [prompt for prompt in reader.prompts if prompt.endswith("The Salt Road is known for")]
    assert any("The author of The Salt Road is Mirela Toma." in prompt for prompt in written)


def test_portability_tells_apart_what_the_model_knows(execute: Execute) -> None:
    rows = [copy.deepcopy(COUNTERFACT[0])]
    rows[0]["portability"]["New Answer"] = "Jon Dahl"

    known = execute("counterfact", rows)["generated"]["portability_known"]
    unknown = execute("counterfact", start="fresh")["generated"]["portability_known"]

    assert (known["prompts"], unknown["prompts"]) == (1, 0)


@pytest.mark.parametrize("benchmark", FILES)
def test_the_command_writes_one_file_and_shows_it_again(
    benchmark: Benchmark,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    reader: Reader,
) -> None:
    data, out = tmp_path / "data.json", tmp_path / "out.json"
    data.write_text(json.dumps(FILES[benchmark]), encoding="utf-8")
    monkeypatch.setattr("memedit.models.load_model", lambda spec: reader)

    code = main(
        benchmark, ["--data", str(data), "--json", str(out), "--strategy", "base", "--edits", "all", "--seed", "4"]
    )
    first = capsys.readouterr().out
    shown = main(benchmark, ["--report", str(out), "--markdown"])

    assert (code, shown) == (0, 0)
    result = json.loads(out.read_text(encoding="utf-8"))
    assert (result["benchmark"], result["seed"], result["edits_per_memory"]) == (benchmark, 4, "all")
    assert {"data_sha256", "versions", "command", "teacher_forced", "generated", "cost"} <= set(result)
    assert "edit success (ES)" in first
    assert "| edit success (ES) |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [(["--strategy", "psychic"], "no strategy 'psychic'"), (["--data", "nowhere.json"], "cannot be read")],
)
def test_a_bad_command_says_what_is_wrong(
    words: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    reader: Reader,
) -> None:
    data = tmp_path / "data.json"
    data.write_text(json.dumps(COUNTERFACT), encoding="utf-8")
    monkeypatch.setattr("memedit.models.load_model", lambda spec: reader)

    code = main("counterfact", ["--data", str(data), "--json", str(tmp_path / "out.json"), *words])

    assert code == 2
    assert said in capsys.readouterr().err


def test_a_report_of_another_benchmark_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out.json").write_text('{"benchmark": "zsre"}', encoding="utf-8")

    assert main("counterfact", ["--report", str(tmp_path / "out.json")]) == 2
    with pytest.raises(BadDataFile):
        load(tmp_path / "out.json", "zsre")
