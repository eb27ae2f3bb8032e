"""`memedit compare`: the grid is run once, goes on, and comes to one report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from memedit.cli import app
from memedit.commands.compare import sizes
from memedit.errors import BadDataFile, InvalidSpec, UnknownLayers
from memedit.evaluation.compare import Grid, cell_command, compare, make_grid, tables
from memedit.evaluation.remembered import RememberedModel
from tests.benchmarks.single_hop import COUNTERFACT, Reader


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "counterfact.json"
    path.write_text(json.dumps(COUNTERFACT), encoding="utf-8")
    return path


@pytest.fixture
def reader() -> Reader:
    return Reader()


def run(grid: Grid, reader: Reader, **options: Any) -> dict[str, Any]:
    return compare(grid, command=["memedit", "compare"], load_model=lambda _: RememberedModel(reader), **options)


def grid(data: Path, **options: Any) -> Grid:
    options = {"strategies": ["base"], "edits": [1, 2, 1000], "model": "scripted", **options}
    return make_grid(data, data.parent / "out", **options)


def test_the_grid_comes_to_one_report(data: Path, reader: Reader) -> None:
    report = run(grid(data), reader)

    out = data.parent / "out"
    assert [(cell["strategy"], cell["edits_per_memory"]) for cell in report["cells"]] == [
        ("base", 1), ("base", 2), ("base", "all"),
    ]  # fmt: skip
    text = (out / "report.md").read_text(encoding="utf-8")
    assert "benchmarks.counterfact" in text
    assert "--edits all" in text
    assert report["data_sha256"] in text
    assert json.loads((out / "report.json").read_text(encoding="utf-8"))["cases"] == 3
    assert (out / "accuracy.png").stat().st_size > 0
    assert (out / "cost.png").stat().st_size > 0
    assert len(tables(report)) == 4


def test_the_report_holds_every_command_with_where_its_files_lie(data: Path, reader: Reader) -> None:
    probe = {"question": "What is the mayor's dog called?", "answer": "Rex"}
    shown = data.parent / "mine.jsonl"
    row = {"fact": "The mayor's dog is called Rex.", "copy": probe, "update": probe, "retain": probe}
    shown.write_text(json.dumps(row), encoding="utf-8")

    report = run(grid(data, strategies=["base", "ike"], edits=[1], demonstrations=shown), reader)

    out = data.parent / "out"
    base, ike = (cell_command(cell, str(data), str(shown), folder=out) for cell in report["cells"])
    text = (data.parent / "out" / "report.md").read_text(encoding="utf-8")
    assert base in text
    assert ike in text
    assert f"--data {data} " in base
    assert "--demonstrations" not in base
    assert f"--demonstrations {shown}" in ike
    assert any("Rex" in prompt for prompt in reader.prompts)


def test_demonstrations_are_for_ike(data: Path) -> None:
    with pytest.raises(InvalidSpec, match="demonstrations"):
        grid(data, demonstrations=data)


def test_what_was_run_is_not_run_again(data: Path, reader: Reader) -> None:
    run(grid(data), reader)
    out = data.parent / "out"
    (out / "base-2.json").unlink()
    before = {name: (out / name).stat().st_mtime_ns for name in ("base-1.json", "base-all.json")}

    again = run(grid(data), reader)

    assert {name: (out / name).stat().st_mtime_ns for name in before} == before
    assert (out / "base-2.json").is_file()
    assert len(again["cells"]) == 3


def test_all_and_more_edits_than_rows_are_one_run(data: Path) -> None:
    assert [cell.edits for cell in grid(data, edits=[1, 3, 100, None]).cells(3, 3)] == [1, None]


def test_a_memory_of_more_edits_than_cases_is_filled_up_from_the_file(data: Path, reader: Reader) -> None:
    report = run(grid(data, edits=[1, 3, 100, None], limit=1), reader)

    assert [(cell["edits_per_memory"], cell["cases"], cell["edits"]) for cell in report["cells"]] == [
        (1, 1, 1), (3, 1, 3),
    ]  # fmt: skip
    assert len({cell["questions"] for cell in report["cells"]}) == 1


def test_how_edits_are_given_is_in_every_command(data: Path, reader: Reader) -> None:
    report = run(grid(data, edits=[1], edits_as="statements"), reader)

    [cell] = report["cells"]
    assert "--edits-as statements" in cell_command(cell, str(data))


def test_results_of_another_comparison_are_kept(data: Path, reader: Reader) -> None:
    run(grid(data, edits=[1]), reader)

    with pytest.raises(BadDataFile, match="another comparison"):
        run(grid(data, edits=[1], seed=5), reader)

    assert run(grid(data, edits=[1], seed=5), reader, fresh=True)["seed"] == 5


def test_an_unknown_name_is_refused_before_anything_is_run(data: Path, reader: Reader) -> None:
    with pytest.raises(InvalidSpec, match="psychic"):
        run(grid(data, strategies=["base", "psychic"]), reader)

    assert not reader.prompts


def test_weights_out_of_reach_are_refused_before_anything_is_run(data: Path, reader: Reader) -> None:
    with pytest.raises(UnknownLayers, match="out of reach"):
        run(grid(data, strategies=["base", "rome"], model="http://localhost:8000/v1"), reader)

    assert not reader.prompts


def test_the_command(data: Path, reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memedit.models.load_model", lambda spec: reader)
    words = [
        "compare",
        "--data",
        str(data),
        "--strategies",
        "base",
        "--edits",
        "1",
        "--out",
        str(data.parent / "report"),
    ]

    result = CliRunner().invoke(app, words)

    assert result.exit_code == 0, result.output
    assert "edit success (ES)" in result.stdout
    assert (data.parent / "report" / "report.md").is_file()


def test_numbers_of_edits() -> None:
    assert sizes("1, 10,all") == [1, 10, None]
    assert CliRunner().invoke(app, ["compare", "--data", __file__, "--edits", "0"]).exit_code == 2
