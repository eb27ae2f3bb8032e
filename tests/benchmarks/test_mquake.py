from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from benchmarks import mquake
from benchmarks.mquake import main
from benchmarks.mquake_data import load
from benchmarks.mquake_run import Options, place, run
from memedit import MemEditor
from memedit.answer import Answer, Hop
from memedit.errors import InvalidSpec, ModelUnavailable
from memedit.memory.memory import EditMemory, MemoryView
from memedit.models.base import Completion, LanguageModel, Prompt, Sampling, Score
from memedit.strategies.base import Steps

Write = Callable[..., Path]
Rows = list[dict[str, Any]]


class Follow:
    """Follows the longest path of edits from an entity that the question names; asks no model."""

    name = "follow"

    def __init__(self, fails_after: int | None = None) -> None:
        self.asked: list[str] = []
        self.fails_after = fails_after

    def __call__(self, question: str, view: MemoryView) -> Steps:
        if self.fails_after is not None and len(self.asked) >= self.fails_after:
            raise ModelUnavailable("The server is down.")
        self.asked.append(question)
        yield from ()
        paths = [path for mention in view.mentions(question) for path in view.paths(mention.text)]
        if not paths:
            return Answer(question, "unknown", strategy=self.name)
        longest = max(paths, key=lambda path: len(path.facts))
        hops = tuple(Hop(f.subject, f.relation, f.relation, f.object, "edit", f.id) for f in longest.facts)
        return Answer(question, longest.end, hops, longest.facts, strategy=self.name)


class Meddler:
    """Uses an edit for whatever it is asked."""

    name = "meddler"

    def __call__(self, question: str, view: MemoryView) -> Steps:
        yield from ()
        fact = view.facts()[0]
        return Answer(question, fact.object, edits=(fact,), strategy=self.name)


class Believer:
    """A base model that knows that Mirela Toma is a citizen of Peru, and nothing else."""

    name = "believer"
    context_length = 2048

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling = Sampling()) -> list[Completion]:
        return [Completion("Peru" if "Mirela Toma" in str(p) else "Atlantis", 7, 1) for p in prompts]

    def stream(self, prompt: Prompt, sampling: Sampling = Sampling()) -> Iterator[str]:
        yield self.generate([prompt], sampling)[0].text

    def score(self, pairs: Sequence[tuple[Prompt, str]]) -> list[Score]:
        return [Score(-1.0, 1, False) for _ in pairs]

    def count_tokens(self, prompt: Prompt) -> int:
        return 7


@pytest.fixture
def execute(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Runs the benchmark over a fresh memory; the result."""

    def execute(data: Path, strategy: Any = None, **options: Any) -> dict[str, Any]:
        model: LanguageModel = Believer()
        options = {"json": tmp_path / "out.json", **options}
        with EditMemory(embed_on_write=False) as memory:
            editor = MemEditor(model, memory, strategy=strategy or Follow())
            return run(Options(data=data, **options), editor)

    return execute


Execute = Callable[..., dict[str, Any]]


def records(path: Path) -> dict[str, Any]:
    """The run's records by row, without what differs from run to run."""
    _, *lines = path.read_text(encoding="utf-8").splitlines()
    found = [json.loads(line) for line in lines]
    return {record["key"]: record["answers"] for record in found if "answers" in record}


def test_each_case_alone(rows: Rows, write_rows: Write, execute: Execute) -> None:
    result = execute(write_rows(rows), edits_per_memory=1)

    assert (result["cases"], result["questions"]) == (5, 15)
    assert result["multi_hop_accuracy"] == pytest.approx(3 / 5)
    assert result["hop_wise_accuracy_per_question"] == pytest.approx(3 / 5)
    assert result["fully_edited"]["cases"] == 3
    assert result["fully_edited"]["multi_hop_accuracy"] == 1.0
    assert result["partly_edited"]["multi_hop_accuracy"] == 0.0
    assert {size: part["cases"] for size, part in result["by_hops"].items()} == {"2": 4, "3": 1}
    assert {size: part["cases"] for size, part in result["by_edits"].items()} == {"1": 2, "2": 2, "3": 1}
    assert result["broken_by_other_edits"]["cases"] == 0
    assert result["edits"] == 9
    low, high = result["intervals"]["multi_hop_accuracy"]
    assert low < 3 / 5 < high


def test_the_edits_of_a_case_count_only_where_the_answer_used_them(
    rows: Rows, write_rows: Write, execute: Execute
) -> None:
    result = execute(write_rows(rows), edits_per_memory=1)

    # The edit of case 14 is about its second hop, which no path from the first one's entity reaches.
    assert result["edit_wise_accuracy"] == pytest.approx(4 / 5)


def test_one_memory_for_all_breaks_the_case_whose_edit_was_superseded(
    rows: Rows, write_rows: Write, execute: Execute
) -> None:
    glass, fern = rows[1], rows[3]
    data = write_rows([glass, fern])
    options = Options(data=data, json=data, edits_per_memory=None)
    last = place(load(data), options)[-1].problem.gold.case_id

    result = execute(data, edits_per_memory=None)

    shared = result["broken_by_other_edits"]
    assert shared["cases"] == 1
    assert shared["intact"]["cases"] == 1
    glass_right = last == "12"
    assert shared["intact"]["multi_hop_accuracy"] == (1.0 if glass_right else 0.0)
    assert shared["broken"]["multi_hop_accuracy"] == 0.0


def test_an_edit_of_another_case_that_states_a_step_of_the_chain_may_be_used(
    rows: Rows, write_rows: Write, execute: Execute, official_row: Callable[..., Any]
) -> None:
    helper = official_row(
        21,
        [("Far Shore", "P50", "A. N. Other"), ("A. N. Other", "P27", "Oman")],
        [("Far Shore", "P50", "Mirela Toma"), ("Mirela Toma", "P27", "Peru")],
        [0, 1],
    )

    result = execute(write_rows([rows[0], helper]), edits_per_memory=None)

    assert result["multi_hop_accuracy"] == 1.0
    assert result["edit_wise_accuracy"] == 1.0
    assert result["broken_by_other_edits"]["cases"] == 0


def test_groups_see_their_own_edits_only(rows: Rows, write_rows: Write, execute: Execute, tmp_path: Path) -> None:
    data = write_rows(rows)
    options = Options(data=data, json=tmp_path / "out.json", edits_per_memory=2)
    placed = place(load(data), options)

    execute(data, edits_per_memory=2)

    edits = {case.key: {edit.object for edit in case.problem.case.edits} for case in placed}
    used = {key: {edit[2] for a in answers for edit in a["edits"]} for key, answers in records_of(options).items()}
    for case in placed:
        visible = set().union(*(edits[other.key] for other in placed if other.memory == case.memory))
        assert used[case.key] <= {name.casefold() for name in visible}
    assert [case.memory for case in placed] == [0, 0, 1, 1, 2]


def records_of(options: Options) -> dict[str, Any]:
    return records(options.json.with_name(f"{options.json.name}.cases.jsonl"))


def test_shuffling_the_gold_between_cases_changes_no_answer(
    rows: Rows, write_rows: Write, execute: Execute, tmp_path: Path
) -> None:
    gold = ["answer", "answer_alias", "new_answer", "new_answer_alias", "single_hops", "new_single_hops", "orig"]
    shuffled = [
        {**row, **{field: rows[(place + 1) % len(rows)][field] for field in gold}} for place, row in enumerate(rows)
    ]

    true = execute(write_rows(rows), json=tmp_path / "true.json", edits_per_memory=None)
    false = execute(write_rows(shuffled, "shuffled.json"), json=tmp_path / "false.json", edits_per_memory=None)

    assert records(tmp_path / "true.json.cases.jsonl") == records(tmp_path / "false.json.cases.jsonl")
    assert true["multi_hop_accuracy"] > 0 == false["multi_hop_accuracy"]


def test_statements_alone_give_the_same_answers(rows: Rows, write_rows: Write, execute: Execute) -> None:
    data = write_rows(rows)

    triples = execute(data, edits_per_memory=1, edits_as="triples")
    statements = execute(data, edits_per_memory=1, edits_as="statements", start="fresh")

    assert statements["edits_as"] == "statements"
    assert statements["edit_wise_accuracy"] == triples["edit_wise_accuracy"]
    assert statements["multi_hop_accuracy"] == triples["multi_hop_accuracy"]


def test_left_out_cases_are_asked_and_interventions_counted(rows: Rows, write_rows: Write, execute: Execute) -> None:
    data = write_rows(rows)

    calm = execute(data, edits_per_memory=None, left_out=2, start="fresh")
    meddling = execute(data, Meddler(), edits_per_memory=None, left_out=2, start="fresh")

    assert calm["cases"] == 3
    assert calm["left_out"]["cases"] == 2
    assert calm["left_out"]["untouched_questions"] == 6
    assert calm["intervention_rate_unedited"] == 0.0
    assert meddling["intervention_rate_unedited"] == 1.0


def test_a_left_out_case_whose_old_chain_is_edited_does_not_count(
    rows: Rows, write_rows: Write, execute: Execute, official_row: Callable[..., Any]
) -> None:
    old = [("The Salt Road", "P50", "Old Writer"), ("Old Writer", "P27", "Chad")]
    twin = official_row(31, old, [("The Salt Road", "P50", "Sam Low"), ("Sam Low", "P27", "Cuba")], [0, 1])

    result = execute(write_rows([rows[0], twin]), Meddler(), edits_per_memory=None, left_out=1)

    assert result["left_out"]["cases"] == 1
    assert result["left_out"]["untouched_questions"] == 0
    assert result["intervention_rate_unedited"] is None


def test_unedited_hops_are_asked_alone(rows: Rows, write_rows: Write, execute: Execute) -> None:
    result = execute(write_rows(rows), edits_per_memory=1, ask_beliefs=True)

    known = result["known_beliefs"]
    assert known["hops"] == 2
    assert known["hop_accuracy"] == 0.5
    assert known["all_known"]["cases"] == 1
    assert known["some_unknown"]["cases"] == 1


def test_a_broken_run_goes_on_without_losing_or_repeating_a_case(
    rows: Rows, write_rows: Write, execute: Execute, tmp_path: Path
) -> None:
    data = write_rows(rows)
    first, second = Follow(fails_after=7), Follow()
    with pytest.raises(ModelUnavailable):
        execute(data, first, cases_per_batch=1)
    finished = records(tmp_path / "out.json.cases.jsonl")

    result = execute(data, second, cases_per_batch=1)

    assert len(finished) == 2
    assert len(second.asked) == 15 - 3 * len(finished)
    assert result["cases"] == 5
    assert len(records(tmp_path / "out.json.cases.jsonl")) == 5
    whole = execute(data, Follow(), json=tmp_path / "whole.json")
    assert result["multi_hop_accuracy"] == whole["multi_hop_accuracy"]


def test_a_changed_configuration_does_not_go_on(rows: Rows, write_rows: Write, execute: Execute) -> None:
    data = write_rows(rows)
    with pytest.raises(ModelUnavailable):
        execute(data, Follow(fails_after=7), cases_per_batch=1)

    with pytest.raises(InvalidSpec, match="edits_per_memory was 1, is now all"):
        execute(data, edits_per_memory=None)


def test_a_finished_run_is_resumed_without_asking(rows: Rows, write_rows: Write, execute: Execute) -> None:
    data = write_rows(rows)
    before = execute(data)
    again = Follow()

    after = execute(data, again, start="resume")

    assert again.asked == []
    assert {**after, "setup_seconds": 0} == {**before, "setup_seconds": 0}


def test_the_seed_draws_the_cases_whatever_is_left_out(rows: Rows, write_rows: Write, tmp_path: Path) -> None:
    problems = load(write_rows(rows))
    options: dict[str, Any] = {"data": tmp_path, "json": tmp_path, "limit": 3, "edits_per_memory": 2}

    plain = place(problems, Options(**options, seed=5))
    with_left_out = place(problems, Options(**options, seed=5, left_out=2))

    assert [case.key for case in with_left_out if not case.left_out] == [case.key for case in plain]
    assert [case.memory for case in plain] == [0, 0, 1]
    assert [case.memory for case in with_left_out if case.left_out] == [0, 1]
    assert len({case.key for case in with_left_out}) == 5


def test_leaving_out_every_case_is_refused(rows: Rows, write_rows: Write, tmp_path: Path) -> None:
    problems = load(write_rows(rows))

    with pytest.raises(InvalidSpec, match="leaves no case of the 5"):
        place(problems, Options(data=tmp_path, json=tmp_path, left_out=5))


@pytest.fixture
def command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """The command line with `Follow` in place of the strategy it names."""

    @contextmanager
    def open_editor(options: Options) -> Iterator[MemEditor]:
        with EditMemory(embed_on_write=False) as memory:
            yield MemEditor(Believer(), memory, strategy=Follow())

    monkeypatch.setattr(mquake, "open_editor", open_editor)


@pytest.mark.usefixtures("command_line")
def test_the_command_writes_what_the_report_shows(
    rows: Rows, write_rows: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, plot = tmp_path / "out.json", tmp_path / "plot.png"
    arguments = ["--data", str(write_rows(rows)), "--json", str(out), "--edits-per-memory", "all", "--limit", "4"]

    assert main([*arguments, "--markdown"]) == 0
    first = capsys.readouterr().out
    assert main(["--report", str(out), "--markdown", "--plot", str(plot)]) == 0

    assert capsys.readouterr().out == first
    assert "| hops: 2 |" in first
    assert plot.read_bytes().startswith(b"\x89PNG")
    result = json.loads(out.read_text())
    assert result["edits_per_memory"] == "all"
    assert result["seed"] == 0
    assert len(result["data_sha256"]) == 64
    assert "--edits-per-memory all" in result["command"]
    assert result["versions"]["numpy"]
    assert result["questions_per_second"] > 0


@pytest.mark.usefixtures("command_line")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--data and --json are needed"),
        (["--data", "none.json", "--json", "out.json"], "cannot be read"),
        (["--report", "none.json"], "cannot be read"),
        (["--data", "x", "--json", "y", "--left-out", "-1"], "below 0"),
    ],
)
def test_a_mistake_is_explained_in_one_line(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)

    assert main(arguments) == 2

    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert message in error
