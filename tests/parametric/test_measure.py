"""`python -m memedit.parametric measure`: what it reads, and what it says of the layer."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from memedit.errors import BadDataFile, BadRow
from memedit.parametric.__main__ import app

ROW: dict[str, Any] = {
    "requested_rewrite": {
        "prompt": "The capital of {}",
        "subject": "New Zealand",
        "target_new": {"str": "Osaka"},
        "target_true": {"str": "a"},
    },
    "paraphrase_prompts": ["The city of New Zealand"],
    "neighborhood_prompts": ["The city of"],
}


def measure(tmp_path: Path, spec: str, rows: object, *words: str) -> dict[str, Any]:
    (tmp_path / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    out = tmp_path / "out.json"
    arguments = [
        "measure",
        "--data",
        str(tmp_path / "rows.json"),
        "--model",
        spec,
        "--method",
        "ft-m",
        "--json",
        str(out),
    ]
    done = CliRunner().invoke(app, [*arguments, *words])
    if done.exception is not None:
        raise done.exception
    found: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    return found


def test_every_row_is_measured_and_the_layer_told(tmp_path: Path, spec: str) -> None:
    found = measure(tmp_path, spec, [ROW, ROW], "--layer", "1")

    assert found["layer"] == 1
    assert len(found["cases"]) == 2
    assert {"ES", "PS", "NS", "ES_unedited"} <= set(found["figures"])


@pytest.mark.parametrize("field", ["requested_rewrite.target_new.str", "neighborhood_prompts"])
def test_a_broken_row_is_named_before_anything_is_measured(field: str, tmp_path: Path, spec: str) -> None:
    broken = copy.deepcopy(ROW)
    *steps, last = field.split(".")
    inner = broken
    for step in steps:
        inner = inner[step]
    del inner[last]

    with pytest.raises(BadRow) as caught:
        measure(tmp_path, spec, [ROW, broken])

    assert (caught.value.source, caught.value.row, caught.value.field) == ("rows.json", 2, field)


@pytest.mark.parametrize(("rows", "words"), [({}, []), ([ROW], ["--start", "5"])])
def test_nothing_to_measure_is_an_error(rows: object, words: list[str], tmp_path: Path, spec: str) -> None:
    with pytest.raises(BadDataFile, match=r"rows\.json"):
        measure(tmp_path, spec, rows, *words)
