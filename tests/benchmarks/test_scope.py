"""The scope benchmark: what its figures count, and that it runs from a file to a result."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import scope
from benchmarks.scope import Judged, calibration_error, figures
from benchmarks.scope_data import Row, fill_memory, invented_facts, load
from memedit.errors import BadDataFile
from memedit.memory.catalogue import Catalogue
from memedit.memory.memory import EditMemory

IPAD = {
    "edit": {"subject": "iPad", "relation": "P176", "object": "Nokia", "statement": "iPad is produced by Nokia."},
    "in_scope": ["Who makes the iPad?"],
    "out_of_scope": {"near_subject": ["Who makes the iPad Pro?"], "unrelated": ["Write a haiku."]},
}
OFFICE = {
    "edit": {"subject": "Lisbon office", "object": "Fridays", "statement": "Our Lisbon office is closed on Fridays."},
    "in_scope": ["When is the Lisbon office closed?"],
    "out_of_scope": {"same_subject": ["Who runs the Lisbon office?"]},
}


def row(subject: str, **texts: tuple[str, ...]) -> Row:
    inside = texts.pop("in_scope", ())
    return Row(subject, "P36", "Lyon", f"The capital of {subject} is Lyon.", inside, dict(texts))


def write(path: Path, *rows: object) -> Path:
    path.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    return path


def test_any_edit_in_scope_is_a_false_positive_unless_its_row_wants_the_text() -> None:
    rows = [row("A", in_scope=("a?",), near=("b?", "c?")), row("B", in_scope=("b?",))]
    judged = [
        Judged("a?", 0, None, ((0, 0.9), (1, 0.1))),
        Judged("b?", 0, "near", ((1, 0.9), (0, 0.2))),
        Judged("c?", 0, "near", ((1, 0.9), (0, 0.2))),
        Judged("b?", 1, None, ((None, 0.8), (1, 0.7))),
    ]
    result = figures(judged, rows, 0.5, [0, 1])

    assert result["recall"] == 1.0
    assert result["top1_accuracy"] == 0.5
    assert result["false_positive_rate"] == {"near": 0.5}
    assert result["false_positive_rate_own"] == {"near": 0.0}
    # "a?" 0.9 right, "b?" 0.9 right (row B wants it), "c?" 0.9 wrong, "b?" 0.8 wrong
    assert result["expected_calibration_error"] == pytest.approx((0.7 + 0.8) / 4)


def test_perfect_forecasts_have_no_calibration_error() -> None:
    assert calibration_error([1.0, 0.0, 1.0], [True, False, True]) == 0.0
    assert calibration_error([], []) == 0.0


def test_a_later_row_of_the_same_slot_stands_for_both(tmp_path: Path) -> None:
    other = {**IPAD, "edit": {**IPAD["edit"], "object": "Sony", "statement": "iPad is produced by Sony."}}  # type: ignore[dict-item]
    rows = load(write(tmp_path / "rows.jsonl", IPAD, OFFICE, other))
    with EditMemory(embed_on_write=False) as memory:
        filled = fill_memory(memory, rows, 12, seed=0)
        assert memory.count() == 12
        assert filled.slots == [2, 1, 2]


def test_invented_facts_are_repeatable_and_avoid_the_rows_names() -> None:
    relations = [relation.id for relation in Catalogue.default()]
    first = invented_facts(50, 1, set(), relations)
    again = invented_facts(50, 1, {str(first[0].subject).casefold()}, relations)
    assert first == invented_facts(50, 1, set(), relations)
    assert first[0].subject not in [fact.subject for fact in again]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no rows"),
        ("{", "line 1"),
        ('{"edit": {}}', "line 1"),
        ('{"edit": {"subject": "a", "object": "b"}, "in_scope": 3}', "line 1"),
    ],
)
def test_a_bad_file_is_named_with_its_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(text, "utf-8")
    with pytest.raises(BadDataFile, match=message):
        load(path)


@pytest.mark.parametrize("classifier", ["embedding", "trained"])
def test_it_runs_from_file_to_result(tmp_path: Path, classifier: str, capsys: pytest.CaptureFixture[str]) -> None:
    data, out = write(tmp_path / "rows.jsonl", IPAD, OFFICE), tmp_path / "out.json"
    assert scope.main(["--data", str(data), "--memory", "30", "--json", str(out), "--scope", classifier]) == 0

    result = json.loads(out.read_text("utf-8"))
    assert (result["edits"], result["memory"], result["texts"]) == (2, 30, 5)
    assert result["counts"] == {"in_scope": 2, "near_subject": 1, "unrelated": 1, "same_subject": 1}
    assert result["recall"] == 1.0
    assert result["false_positive_rate"]["unrelated"] == 0.0
    assert result["milliseconds_per_question"] > 0
    assert "False positives" in capsys.readouterr().out


def test_a_missing_file_is_an_error_and_not_a_traceback(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert scope.main(["--data", str(tmp_path / "none.jsonl"), "--json", str(tmp_path / "out.json")]) == 2
    assert "none.jsonl" in capsys.readouterr().err
