"""`memedit train`: each command hands its options to its trainer, and says what came of it.

The trainers themselves are tested in `tests/training`.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from memedit.cli import app

PLANNER = {"subject_accuracy": 0.98, "chain_accuracy": 0.8, "chain_top5": 0.95, "plan_accuracy": 0.79}
SCOPE = {
    "in_scope": {"slot": 0.97, "near_subject": 0.01},
    "counts": {"slot": 60, "near_subject": 40},
    "expected_calibration_error": 0.02,
    "calibration": [
        {"share": 0.4, "predicted": 0.1, "observed": 0.05},
        {"share": 0.6, "predicted": 0.9, "observed": 1.0},
    ],
}


def run(*words: str) -> Result:
    return CliRunner().invoke(app, ["train", *words])


@pytest.fixture
def folders(tmp_path: Path) -> tuple[str, ...]:
    (tmp_path / "data").mkdir()
    (tmp_path / "out").mkdir()
    return ("--data", str(tmp_path / "data"), "--out", str(tmp_path / "out"))


def test_planner_options_reach_the_trainer(folders: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    called: dict[str, object] = {}

    def train(data: Path, out: Path, **options: object) -> dict[str, object]:
        called.update(options, data=data)
        return {"held_out": {**PLANNER, "expected_calibration_error": 0.03}}

    monkeypatch.setattr("memedit.training.planner_run.train_planner", train)
    result = run("planner", *folders, "--steps", "7", "--seed", "3", "--held-out", "0.5", "--left-out", "P36", "--json")

    assert result.exit_code == 0, result.output
    config = called["config"]
    assert (getattr(config, "steps", 0), getattr(config, "seed", 0)) == (7, 3)
    assert (called["held_out"], called["left_out"], called["start"]) == (0.5, ["P36"], None)
    assert json.loads(result.stdout)["held_out"]["plan_accuracy"] == 0.79


def test_scope_writes_its_plots(folders: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "memedit.training.scope.train_scope", lambda data, out, how: {"loss": [0.7, 0.5, 0.3], "held_out": SCOPE}
    )
    result = run("scope", *folders, "--edits", "64")

    assert result.exit_code == 0, result.output
    assert "in scope near_subject: 0.0100" in result.stdout
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"loss.png", "calibration.png"}


def test_a_missing_package_is_named_before_the_training(
    folders: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("memedit.training.plots.plots_are_possible", lambda: False)
    result = run("counterfactual", *folders)

    assert result.exit_code == 3
    assert "memedit[train]" in result.stderr


def test_a_folder_that_is_not_there_is_a_usage_error(tmp_path: Path) -> None:
    assert run("scope", "--data", str(tmp_path / "none"), "--out", str(tmp_path)).exit_code == 2


def test_a_folder_without_data_is_an_error_and_not_a_traceback(folders: tuple[str, ...]) -> None:
    result = run("counterfactual", *folders)

    assert result.exit_code == 1
    assert "too few triples" in result.stderr
