from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.mquake_data import load
from memedit.errors import BadDataFile, BadRow

DEV = Path(__file__).parents[2].parent / "shared/data/mquake/MQuAKE-CF-3k-dev.json"

Write = Callable[..., Path]
Rows = list[dict[str, Any]]


def test_a_row_is_split_into_what_is_asked_and_what_scores_it(rows: Rows, write_rows: Write) -> None:
    case, gold = load(write_rows(rows))[0]

    assert [(edit.subject, edit.relation, edit.object) for edit in case.edits] == [
        ("The Salt Road", "P50", "Mirela Toma")
    ]
    assert case.edits[0].sentence == "The author of The Salt Road is Mirela Toma."
    assert len(case.questions) == 3
    assert gold.case_id == "11"
    assert gold.answers == ("Peru", "Republic of Peru")
    assert [(hop.subject, hop.relation, hop.object, hop.edited) for hop in gold.chain] == [
        ("The Salt Road", "P50", "Mirela Toma", True),
        ("Mirela Toma", "P27", "Peru", False),
    ]
    assert [hop.object for hop in gold.old_chain] == ["Old Writer", "Chad"]
    assert not gold.fully_edited


def test_what_is_asked_holds_nothing_of_the_gold(rows: Rows, write_rows: Write) -> None:
    case, gold = load(write_rows(rows))[0]

    assert "Peru" not in repr(case)
    assert "Chad" not in repr(case)
    assert gold.answers[0] == "Peru"


@pytest.mark.parametrize("lines", [False, True])
def test_remastered_reads_as_the_original(
    rows: Rows, write_rows: Write, as_remastered: Callable[..., Any], lines: bool
) -> None:
    original = load(write_rows(rows))

    remastered = load(write_rows([as_remastered(row) for row in rows], "r.json", lines=lines))

    assert [problem.case for problem in remastered] == [problem.case for problem in original]
    assert [problem.gold.chain for problem in remastered] == [problem.gold.chain for problem in original]


def test_hard_with_places_of_edits_reads_as_the_original(rows: Rows, write_rows: Write) -> None:
    hard = copy.deepcopy(rows)
    for row in hard:
        row["orig"]["edit_triples_idx"] = [0]

    assert load(write_rows(hard, "hard.json")) == load(write_rows(rows))


def test_temporal_rows_have_more_old_answers_and_may_lack_labels(rows: Rows, write_rows: Write) -> None:
    temporal = copy.deepcopy(rows[:1])
    temporal[0]["answer_extended"] = ["Tchad"]
    del temporal[0]["orig"]["triples_labeled"], temporal[0]["orig"]["new_triples_labeled"]

    gold = load(write_rows(temporal))[0].gold

    assert gold.old_answers == ("Chad", "Tchad")
    assert [(hop.subject, hop.object) for hop in gold.chain] == [
        ("The Salt Road", "Mirela Toma"),
        ("Mirela Toma", "Peru"),
    ]


def test_subjects_with_braces_are_put_into_the_prompt_as_they_are(rows: Rows, write_rows: Write) -> None:
    rows[0]["requested_rewrite"][0]["subject"] = "The {0} Road"

    assert load(write_rows(rows))[0].case.edits[0].sentence == "The author of The {0} Road is Mirela Toma."


@pytest.mark.parametrize(
    ("path", "value", "field"),
    [
        (("requested_rewrite", 0, "subject"), "", "requested_rewrite.0.subject"),
        (("requested_rewrite", 0, "target_new", "str"), None, "requested_rewrite.0.target_new.str"),
        (("requested_rewrite", 0, "prompt"), "The author is", "requested_rewrite.0.prompt"),
        (("questions",), [], "questions"),
        (("new_single_hops", 1, "answer"), 7, "new_single_hops.1.answer"),
        (("orig", "new_triples_labeled"), [["a", "b", "c"]], "orig"),
    ],
)
def test_a_bad_row_is_named_with_its_field(
    rows: Rows, write_rows: Write, path: tuple[str | int, ...], value: object, field: str
) -> None:
    target: Any = rows[1]
    for part in path[:-1]:
        target = target[part]
    target[path[-1]] = value

    with pytest.raises(BadRow, match=r"cases\.json, row 2, field") as caught:
        load(write_rows(rows))

    assert (caught.value.row, caught.value.source, caught.value.field) == (2, "cases.json", field)


def test_a_row_without_a_field_is_named(rows: Rows, write_rows: Write) -> None:
    del rows[2]["new_answer"]

    with pytest.raises(BadRow) as caught:
        load(write_rows(rows))

    assert (caught.value.row, caught.value.field) == (3, "new_answer")


def test_unlabelled_triples_without_a_hop_each_are_refused(rows: Rows, write_rows: Write) -> None:
    del rows[0]["orig"]["new_triples_labeled"]
    rows[0]["new_single_hops"].pop()

    with pytest.raises(BadRow) as caught:
        load(write_rows(rows))

    assert caught.value.field == "new_single_hops"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'[{"subject": "a", "prompt": "b"}]', "not in the format of MQuAKE"),
        (b"[1, 2]", "not in the format of MQuAKE"),
        (b"[]", "no rows"),
        (b"", "no rows"),
        (b"[{", "neither a JSON array nor JSON Lines"),
        (b"\xff\xfe\x00", "neither a JSON array nor JSON Lines"),
        (b"PAR1....", "Parquet"),
    ],
)
def test_another_format_is_refused(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "file.json"
    path.write_bytes(content)

    with pytest.raises(BadDataFile, match=reason):
        load(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadDataFile, match="cannot be read"):
        load(tmp_path / "none.json")


@pytest.mark.data
@pytest.mark.skipif(not DEV.exists(), reason=f"needs {DEV.name} in ../shared/data/mquake")
def test_the_official_file_is_read_whole() -> None:
    problems = load(DEV)

    assert len(problems) == 999
    assert all(problem.gold.chain[-1].object == problem.gold.answers[0] for problem in problems)
    assert all(sum(hop.edited for hop in problem.gold.chain) == len(problem.case.edits) for problem in problems)
