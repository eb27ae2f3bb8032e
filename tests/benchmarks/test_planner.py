"""The planner benchmark: what its figures count, and that it runs from a file to a result."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from benchmarks import planner
from memedit.strategies.base import Plan
from memedit.training.planner_report import Judged, summarise


def judged(chain: tuple[str, ...], *plans: tuple[str, tuple[str, ...], float]) -> Judged:
    return Judged(
        "Q?", "Low Tide", chain, [Plan(start, (0, 1), relations, confidence) for start, relations, confidence in plans]
    )


def test_each_figure_counts_what_its_name_says() -> None:
    rows = [
        judged(("P50", "P27"), ("low tide", ("P50", "P27"), 0.9)),
        judged(("P50", "P27"), ("Tide", ("P50", "P27"), 0.8)),
        judged(("P50", "P27", "P36"), ("Low Tide", ("P50", "P36"), 0.6), ("Low Tide", ("P50", "P27", "P36"), 0.3)),
        judged(("P50", "P27", "P36")),
    ]

    result = planner.figures(summarise(rows, 2.0))

    assert result["questions"] == 4
    assert (result["chain_accuracy"], result["chain_accuracy_top5"]) == (0.5, 0.75)
    assert (result["subject_accuracy"], result["plan_accuracy"]) == (0.5, 0.25)
    assert result["by_hops"] == {
        "2": {
            "chain_accuracy": 1.0, "chain_accuracy_top5": 1.0, "subject_accuracy": 0.5, "plan_accuracy": 0.5,
            "questions": 2,
        },
        "3": {
            "chain_accuracy": 0.0, "chain_accuracy_top5": 0.5, "subject_accuracy": 0.5, "plan_accuracy": 0.0,
            "questions": 2,
        },
    }  # fmt: skip
    assert result["hop_confusions"] == {"2": {2: 2}, "3": {0: 1, 2: 1}}
    assert result["expected_calibration_error"] == pytest.approx((0.1 + 0.8 + 0.6) / 4)


def test_every_wrong_plan_is_listed_with_what_is_right() -> None:
    rows = [judged(("P50",), ("Low Tide", ("P50",), 0.9)), judged(("P50",), ("Tide", ("P50",), 0.7))]

    assert planner.failures(rows) == [
        {
            "question": "Q?",
            "gold": {"start": "Low Tide", "chain": ("P50",)},
            "got": {"start": "Tide", "chain": ("P50",), "confidence": 0.7},
            "in_top5": True,
        }
    ]


def test_it_runs_from_file_to_result(
    rows: Sequence[object], write_rows: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, out = write_rows(rows), tmp_path / "out.json"

    assert planner.main(["--data", str(data), "--json", str(out), "--limit", "4"]) == 0

    result = json.loads(out.read_text("utf-8"))
    assert (result["cases"], result["questions"], result["seed"], result["planner"]) == (4, 12, 0, "shipped")
    assert {"command", "versions", "data_sha256"} <= set(result)
    assert result["plan_accuracy"] <= min(result["chain_accuracy"], result["subject_accuracy"])
    assert len(result["failures"]) == round(12 * (1 - result["plan_accuracy"]))
    assert result["milliseconds_per_question"] > 0
    assert result["milliseconds_per_question_batched"] > 0
    assert "2 hops" in capsys.readouterr().out


def test_a_missing_file_is_an_error_and_not_a_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert planner.main(["--data", str(tmp_path / "none.json"), "--json", str(tmp_path / "out.json")]) == 2
    assert "none.json" in capsys.readouterr().err
