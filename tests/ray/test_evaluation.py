"""Evaluation on a Ray cluster gives, case by case, what one process gives; also when a node is killed in the middle."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks import mquake_ray
from benchmarks.mquake_ray import CaseRecipe
from benchmarks.mquake_run import Options, run
from memedit.errors import InvalidSpec, ModelUnavailable
from memedit.evaluation import run as single_hop
from memedit.evaluation.options import Options as SingleHopOptions
from memedit.evaluation.ray import on_ray
from tests.benchmarks.single_hop import counterfact_row
from tests.ray.answering import Where, read_parts, slow_editor
from tests.ray.conftest import Nodes

Write = Callable[..., Path]
CASES = 60


@pytest.fixture
def data(rows: list[dict[str, Any]], write_rows: Write) -> Path:
    """Sixty cases: the invented ones again and again, under numbers of their own."""
    return write_rows([{**rows[number % len(rows)], "case_id": number} for number in range(CASES)])


@pytest.fixture
def measure(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[dict[str, Any], dict[str, Any]]]:
    """Runs MQuAKE in this process, or on a cluster; the result, and the answers by case."""
    monkeypatch.setattr(mquake_ray, "CaseRecipe", lambda options, placed: CaseRecipe(options, placed, slow_editor))

    def measure(workers: int | None) -> tuple[dict[str, Any], dict[str, Any]]:
        options = Options(data, tmp_path / f"{workers}.json", cases_per_batch=2, edits_per_memory=5, workers=workers)
        with slow_editor(options) as editor:
            result = run(options, editor)
        _, *lines = (tmp_path / f"{workers}.json.cases.jsonl").read_text("utf-8").splitlines()
        records = {record["key"]: record["answers"] for record in map(json.loads, lines)}
        assert len(lines) == len(records)
        timed = ("setup_seconds", "records", "seconds", "questions_per_second")
        return {name: value for name, value in result.items() if name not in timed}, records

    return measure


def test_every_case_is_answered_once_though_a_node_that_answers_is_killed(nodes: Nodes) -> None:
    batches = [[f"{number}a", f"{number}b"] for number in range(60)]
    came: list[str] = []
    killed = False

    for records in on_ray(Where(seconds=0.5), batches, 2):
        came += records
        if not killed and any(record["node"] == nodes.second_id for record in records.values()):
            nodes.kill_second()
            killed = True

    assert killed
    assert sorted(came) == sorted(key for keys in batches for key in keys)


def test_what_a_worker_meets_with_is_told_as_it_is(nodes: Nodes) -> None:
    with pytest.raises(ModelUnavailable, match="The server is down"):
        list(on_ray(Where(fails_on="c"), [["a"], ["b"], ["c"]], 1))


def test_more_workers_than_cores_are_refused(nodes: Nodes) -> None:
    with pytest.raises(InvalidSpec, match="the cluster has 2"):
        list(on_ray(Where(), [["a"]], 3))


def test_a_killed_node_changes_no_figure_and_no_answer(
    nodes: Nodes, measure: Callable[..., tuple[dict[str, Any], dict[str, Any]]], monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = measure(None)
    came = 0

    def killing(*arguments: Any) -> Any:
        nonlocal came
        for records in on_ray(*arguments):
            came += 1
            if came == 6:
                nodes.kill_second()
            yield records

    monkeypatch.setattr(mquake_ray, "on_ray", killing)

    spread = measure(2)

    assert came > 6
    assert spread == alone
    assert len(spread[1]) == CASES


def test_a_run_that_was_interrupted_goes_on_on_the_cluster(
    nodes: Nodes, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mquake_ray, "CaseRecipe", lambda options, placed: CaseRecipe(options, placed, slow_editor))
    options = Options(data, tmp_path / "out.json", limit=6, cases_per_batch=1)
    records = tmp_path / "out.json.cases.jsonl"
    with slow_editor(options) as editor:
        whole = run(options, editor)
    kept = records.read_text("utf-8").splitlines(keepends=True)[:4]
    records.write_text("".join(kept), encoding="utf-8")

    with slow_editor(options) as editor:
        again = run(replace(options, workers=2), editor)

    assert records.read_text("utf-8").splitlines(keepends=True)[:4] == kept
    assert again["multi_hop_accuracy"] == whole["multi_hop_accuracy"]


def test_single_hop_cases_are_examined_on_the_cluster_as_they_are_here(
    nodes: Nodes, tmp_path: Path, write_rows: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = single_hop.CaseRecipe
    monkeypatch.setattr(single_hop, "CaseRecipe", lambda options, placed: recipe(options, placed, read_parts))
    data = write_rows([counterfact_row(number, f"Book {number}", "Ana Ruiz", "Jon Dahl") for number in range(8)])
    records = []
    for workers in (None, 2):
        options = SingleHopOptions("counterfact", data, tmp_path / f"{workers}.json", workers=workers)
        with read_parts(options) as (method, base):
            finished = single_hop.run(options, method, base)
        timed = ("seconds", "scoring_seconds")
        kept = {k: {n: v for n, v in one.items() if n not in timed} for k, one in finished.records.items()}
        records.append(json.loads(json.dumps(kept)))  # as the run's file has them

    assert len(records[0]) == 8
    assert records[0] == records[1]
