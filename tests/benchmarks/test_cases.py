"""The files of CounterFact, zsRE and KnowEdit: what is read from them, and how a broken one is named."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from memedit.errors import BadDataFile, BadRow
from memedit.evaluation.cases import Benchmark, load, recalled_fact, sniff
from tests.benchmarks.single_hop import COUNTERFACT, KNOWEDIT, REDUCED, ZSRE, Row

FILES: dict[Benchmark, list[Row]] = {"counterfact": COUNTERFACT, "zsre": ZSRE, "knowedit": KNOWEDIT}


def write(path: Path, rows: object) -> Path:
    path.write_text(json.dumps(rows), encoding="utf-8")
    return path


def test_counterfact(tmp_path: Path) -> None:
    problem = load(write(tmp_path / "f.json", COUNTERFACT), "counterfact")[0]

    edit, expected = problem.case.edit, problem.gold.expected
    assert (edit.fact.subject, edit.fact.relation, edit.fact.object) == ("The Salt Road", "P50", "Mirela Toma")
    assert (edit.prompt, edit.target) == ("The author of The Salt Road is", "Mirela Toma")
    assert [question.kind for question in problem.case.questions] == [
        "edit", "paraphrase", "paraphrase", "locality", "locality", "attribute", "generation", "portability",
    ]  # fmt: skip
    assert (expected[0].answers, expected[0].against) == (("Mirela Toma",), "Jon Dahl")
    assert (expected[3].answers, expected[3].against) == (("Jon Dahl",), "Mirela Toma")
    assert expected[-1].recalled == ("Mirela Toma", "country of citizenship")
    assert problem.gold.case_id == "7"


def test_counterfact_in_the_reduced_layout(tmp_path: Path) -> None:
    [problem] = load(write(tmp_path / "f.json", REDUCED), "counterfact")

    assert problem.case.edit.fact.statement == "The author of The Salt Road is Mirela Toma."
    assert [question.kind for question in problem.case.questions] == ["edit", "paraphrase", "locality", "generation"]
    assert problem.gold.expected[2].answers == ("Jon Dahl",)


def test_zsre_is_a_triple_where_its_question_is_a_templates(tmp_path: Path) -> None:
    known, free = load(write(tmp_path / "f.json", ZSRE), "zsre")

    assert (known.case.edit.fact.relation, known.case.edit.fact.object) == ("P50", "Mirela Toma")
    assert free.case.edit.fact.statement == "How do zorblings greet a Zorble? Hail"
    assert known.gold.expected[1].against is None


def test_knowedit_names_its_kinds_and_takes_aliases(tmp_path: Path) -> None:
    [problem] = load(write(tmp_path / "f.json", KNOWEDIT), "knowedit")

    groups = {expected.group: expected for expected in problem.gold.expected}
    assert groups["Reasoning"].answers == ("Peru", "PE")
    assert "Logical_Generalization" not in groups, "nothing is expected of it"
    assert groups["Forgetfulness"].answers == (), "what counts is what the unedited model says"


def test_edits_can_all_be_sentences(tmp_path: Path) -> None:
    problems = load(write(tmp_path / "f.json", COUNTERFACT), "counterfact", edits_as="statements")

    assert problems[0].case.edit.fact.statement == "The author of The Salt Road is Mirela Toma."
    assert problems[0].case.edit.fact.subject is None


def test_a_relation_the_catalogue_does_not_know_becomes_a_sentence(tmp_path: Path) -> None:
    row = copy.deepcopy(COUNTERFACT[0])
    row["requested_rewrite"]["relation_id"] = "P99999999"

    [problem] = load(write(tmp_path / "f.json", [row]), "counterfact")

    assert problem.case.edit.fact.statement == "The author of The Salt Road is Mirela Toma."


def test_a_row_of_json_lines_ends_with_a_line_feed_only(tmp_path: Path) -> None:
    row = copy.deepcopy(ZSRE[0]) | {"src": "Who is\u2028the author of The Salt Road?"}
    path = tmp_path / "f.jsonl"
    path.write_text("\n\n".join(json.dumps(one, ensure_ascii=False) for one in (row, ZSRE[1])), encoding="utf-8")

    assert [one.case.row for one in load(path, "zsre")] == [1, 2]


def test_a_broken_row_of_json_lines_is_named_by_its_line(tmp_path: Path) -> None:
    path = tmp_path / "f.jsonl"
    path.write_text("\n".join([json.dumps(ZSRE[0]), "", '{"subject": "Zorb', json.dumps(ZSRE[1])]), encoding="utf-8")

    with pytest.raises(BadRow, match="no JSON") as caught:
        load(path, "zsre")

    assert (caught.value.source, caught.value.row) == ("f.jsonl", 3)


def test_one_object_is_told_from_json_lines(tmp_path: Path) -> None:
    path = tmp_path / "f.json"
    path.write_text(json.dumps({"edit": ZSRE[0]}, indent=1), encoding="utf-8")

    with pytest.raises(BadDataFile, match="one JSON object"):
        load(path, "zsre")


@pytest.mark.parametrize(
    ("text", "answers", "expected"),
    [
        ("(Peru, capital, Lima)", ["Lima"], ("Peru", "capital")),
        ("(Kent, 1st Duke, title, Duke of Kent)", ["Duke of Kent"], ("Kent, 1st Duke", "title")),
        ("(Peru, languages, Spanish, Quechua)", ["Aymara"], ("Peru", "languages")),
        ("(Peru, languages, Spanish, Quechua)", ["spanish, quechua"], ("Peru", "languages")),
        ("(Peru, Lima)", ["Lima"], None),
        ("", ["Lima"], None),
    ],
)
def test_what_must_be_known_beside_an_edit(text: str, answers: list[str], expected: tuple[str, str] | None) -> None:
    assert recalled_fact(text, answers) == expected


def test_the_same_seed_draws_the_same_cases(tmp_path: Path) -> None:
    path = write(tmp_path / "f.json", COUNTERFACT)

    first, again = (load(path, "counterfact", seed=3, limit=2) for _ in range(2))

    assert [one.case.row for one in first] == [one.case.row for one in again]
    assert len(first) == 2


@pytest.mark.parametrize("benchmark", FILES)
def test_the_format_is_told_by_the_first_row(benchmark: Benchmark, tmp_path: Path) -> None:
    assert sniff(write(tmp_path / "f.json", FILES[benchmark])) == benchmark


@pytest.mark.parametrize("benchmark", FILES)
@pytest.mark.parametrize("other", FILES)
def test_a_file_of_another_format_is_refused(benchmark: Benchmark, other: Benchmark, tmp_path: Path) -> None:
    path = write(tmp_path / "f.json", FILES[other])

    if benchmark == other:
        assert load(path, benchmark)
    else:
        with pytest.raises(BadDataFile, match=r"f\.json"):
            load(path, benchmark)


BREAKS: list[tuple[Benchmark, list[str | int], Any, str]] = [
    ("counterfact", ["requested_rewrite", "target_true"], {}, "requested_rewrite.target_true.str"),
    ("counterfact", ["requested_rewrite", "prompt"], "The author is", "requested_rewrite.prompt"),
    ("counterfact", ["neighborhood_prompts", 1], "", "neighborhood_prompts.1"),
    ("counterfact", ["paraphrase_prompts"], None, "paraphrase_prompts"),
    ("zsre", ["alt"], "", "alt"),
    ("zsre", ["loc"], 3, "loc"),
    ("knowedit", ["portability", "Reasoning", 0, "prompt"], None, "portability.Reasoning.0.prompt"),
    ("knowedit", ["locality"], [], "locality"),
]


@pytest.mark.parametrize(("benchmark", "where", "value", "field"), BREAKS)
def test_a_broken_row_is_named_by_file_row_and_field(
    benchmark: Benchmark, where: list[str | int], value: object, field: str, tmp_path: Path
) -> None:
    rows = copy.deepcopy(FILES[benchmark]) + copy.deepcopy(FILES[benchmark])
    row: Any = rows[-1]
    for step in where[:-1]:
        row = row[step]
    row[where[-1]] = value

    with pytest.raises(BadRow) as caught:
        load(write(tmp_path / "f.json", rows), benchmark)

    assert (caught.value.source, caught.value.row, caught.value.field) == ("f.json", len(rows), field)


DATA = Path(__file__).parents[2].parent / "shared" / "data"


@pytest.mark.data
@pytest.mark.parametrize(
    ("benchmark", "name", "rows"),
    [
        ("counterfact", "counterfact/counterfact-full-dev.json", 300),
        ("zsre", "zsre/zsre_mend_eval-dev.json", 300),
        ("knowedit", "knowedit/wiki_counterfact/train_cf.json", 1428),
        ("knowedit", "knowedit/wiki_recent/recent_train.json", 570),
    ],
)
def test_the_public_files_are_read_whole(benchmark: Benchmark, name: str, rows: int) -> None:
    path = DATA / name
    if not path.is_file():
        pytest.skip(f"{path} is missing: the public benchmark data is not part of the project")

    assert sniff(path) == benchmark
    assert len(load(path, benchmark, limit=3, seed=0)) == 3
    assert len(json.loads(path.read_text(encoding="utf-8"))) == rows
