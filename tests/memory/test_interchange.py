"""Facts in and out of files: nothing is lost on the way, and a bad row is named."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from memedit.errors import BadDataFile, BadRow
from memedit.memory.fact import FREE_TEXT, Fact, FactInput
from memedit.memory.interchange import FIELDS, as_input, dump_facts, read_facts, write_facts

LYON = FactInput(subject="France", relation="P36", object="Lyon")
NOTE = FactInput(relation=FREE_TEXT, statement="Ada prefers tea, “strong”; never coffee.", source="mail\nof May")
MAYOR = FactInput(
    subject="Łódź", relation="P6", object="Ann Lee", statement="Ann Lee runs Łódź.", source="city hall",
    valid_from=datetime(2024, 1, 31, 9, tzinfo=timezone(timedelta(hours=2))), valid_to=datetime(2026, 1, 1, tzinfo=UTC),
)  # fmt: skip

moments = st.none() | st.datetimes(datetime(2, 1, 1), datetime(9998, 1, 1), timezones=st.timezones())
texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=30)
names = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), min_size=1).filter(str.strip)
facts = st.builds(
    FactInput, subject=names, relation=texts, object=names, statement=st.none() | texts, source=st.none() | texts,
    valid_from=moments, valid_to=moments,
) | st.builds(FactInput, statement=texts, source=st.none() | texts)  # fmt: skip


def in_utc(fact: FactInput) -> FactInput:
    """Where clocks are changed, a moment equals itself in its own zone only (PEP 495)."""
    ends = {name: moment.astimezone(UTC) for name in ("valid_from", "valid_to") if (moment := getattr(fact, name))}
    return fact.model_copy(update=ends)


def written(tmp_path: Path, name: str, text: str) -> Path:
    path = tmp_path / name
    path.write_bytes(text.encode("utf-8"))
    return path


# -- out and in again ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["facts.jsonl", "facts.csv", "FACTS.CSV", "facts.ndjson"])
def test_what_was_written_is_read_back(tmp_path: Path, name: str) -> None:
    assert write_facts(tmp_path / name, [LYON, NOTE, MAYOR]) == 3
    assert list(read_facts(tmp_path / name)) == [LYON, NOTE, MAYOR]


@settings(max_examples=60, deadline=None)
@given(given_facts=st.lists(facts, max_size=4))
@pytest.mark.parametrize("format_name", ["jsonl", "csv"])
def test_no_character_and_no_moment_is_lost(
    tmp_path_factory: pytest.TempPathFactory, given_facts: list[FactInput], format_name: str
) -> None:
    path = tmp_path_factory.mktemp("facts") / f"facts.{format_name}"
    write_facts(path, given_facts)
    assert [in_utc(fact) for fact in read_facts(path)] == [in_utc(fact) for fact in given_facts]


def test_no_facts_make_a_readable_file(tmp_path: Path) -> None:
    for name in ("facts.jsonl", "facts.csv"):
        assert write_facts(tmp_path / name, []) == 0
        assert list(read_facts(tmp_path / name)) == []


def test_a_recorded_fact_is_written_as_what_makes_it_again(tmp_path: Path) -> None:
    recorded = Fact(
        id=7, namespace="acme", subject="France", relation="P36", object="Lyon", statement="The capital of France is Lyon.",
        question="What is the capital of France?", recorded_at=datetime(2026, 1, 1, tzinfo=UTC), transaction=3, source="test",
    )  # fmt: skip
    note = recorded.model_copy(update={"subject": "", "relation": FREE_TEXT, "object": "", "question": ""})
    write_facts(tmp_path / "facts.csv", [recorded, note])

    again = list(read_facts(tmp_path / "facts.csv"))

    assert again == [as_input(recorded), as_input(note)]
    assert again[0].subject == "France"
    assert (again[1].subject, again[1].relation, again[1].statement) == (None, FREE_TEXT, recorded.statement)


def test_a_stream_gets_the_same_lines_as_a_file(tmp_path: Path) -> None:
    for format_name in ("jsonl", "csv"):
        stream = io.StringIO(newline="")
        assert dump_facts(stream, [LYON, MAYOR], format_name) == 2
        write_facts(tmp_path / f"facts.{format_name}", [LYON, MAYOR])
        assert (tmp_path / f"facts.{format_name}").read_bytes().decode("utf-8") == stream.getvalue()


def test_a_failed_export_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "facts.jsonl"
    write_facts(path, [LYON])

    def broken() -> Iterator[FactInput]:
        yield MAYOR
        raise RuntimeError("the memory went away")

    with pytest.raises(RuntimeError):
        write_facts(path, broken())

    assert list(read_facts(path)) == [LYON]
    assert [entry.name for entry in tmp_path.iterdir()] == ["facts.jsonl"]


# -- what people's files look like ---------------------------------------------------------------------------


def test_a_byte_order_mark_and_a_spreadsheets_habits_are_tolerated(tmp_path: Path) -> None:
    path = written(
        tmp_path, "facts.csv",
        "\ufeffSubject;Relation;Object;valid_from\r\nFrance;capital;Lyon;2026-01-31\r\n;;;\r\nPeru;capital;Lima\r\n",
    )  # fmt: skip
    assert list(read_facts(path)) == [
        FactInput(subject="France", relation="capital", object="Lyon", valid_from=datetime(2026, 1, 31, tzinfo=UTC)),
        FactInput(subject="Peru", relation="capital", object="Lima"),
    ]


def test_a_json_array_is_read_like_json_lines(tmp_path: Path) -> None:
    path = written(tmp_path, "facts.json", '\ufeff \n[{"subject": "France", "relation": "P36", "object": "Lyon"}]')
    assert list(read_facts(path)) == [LYON]


def test_blank_lines_are_skipped_and_counted(tmp_path: Path) -> None:
    path = written(tmp_path, "facts.jsonl", '\n{"statement": "Ada is well."}\n\n{"statement": 5}\n')
    rows = read_facts(path)
    assert next(rows).statement == "Ada is well."
    with pytest.raises(BadRow, match="row 4, field 'statement'"):
        next(rows)


def test_good_rows_come_before_the_bad_one_is_reached(tmp_path: Path) -> None:
    path = written(tmp_path, "facts.csv", "subject,relation,object\nFrance,P36,Lyon\n,P36,Lima\n")
    rows = read_facts(path)
    assert next(rows) == LYON
    with pytest.raises(BadRow):
        next(rows)


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ('{"subject": "France", "relation": "P36"}', "object"),
        ('{"subject": "", "relation": "P36", "object": "Lyon"}', "subject"),
        ('{"subject": " ", "relation": "P36", "object": "Lyon"}', "subject"),
        ('{"subject": "Fr\\u0000nce", "relation": "P36", "object": "Lyon"}', "subject"),
        ('{"subject": "France", "relation": "P36", "object": 5}', "object"),
        ('{"subject": "France", "relation": "P36", "object": "Lyon", "colour": "red"}', "colour"),
        ('{"subject": "France", "statement": "The capital of France is Lyon."}', "relation"),
        ('{"statement": "Ada is well.", "valid_from": "yesterday"}', "valid_from"),
        ('{"statement": "Ada is well.", "valid_from": "2024"}', "valid_from"),
        ('{"statement": "Ada is well.", "valid_to": "2024-01-31T12:00:00"}', "valid_to"),
        ("{}", "subject"),
        ("[1]", ""),
        ('{"subject": ', ""),
    ],
)
def test_a_bad_row_is_named_by_file_row_and_field(tmp_path: Path, row: str, field: str) -> None:
    path = written(tmp_path, "facts.jsonl", '{"statement": "Ada is well."}\n' + row)
    with pytest.raises(BadRow) as caught:
        list(read_facts(path))
    assert (caught.value.source, caught.value.row, caught.value.field) == (str(path), 2, field)


@pytest.mark.parametrize(
    ("text", "row", "field"),
    [
        ("subject,relation,colour\n", 1, "colour"),
        ("subject,subject\n", 1, "subject"),
        ("subject,relation,object\nFrance,P36,Lyon,red\n", 2, ""),
        ('subject,relation,object\nFrance,P36,Lyon\n"France"x,P36,Lyon\n', 3, ""),
        ("subject,relation,object\nFrance,P36,\n", 2, "object"),
    ],
)
def test_a_bad_csv_row_is_numbered_as_in_a_spreadsheet(tmp_path: Path, text: str, row: int, field: str) -> None:
    path = written(tmp_path, "facts.csv", text)
    with pytest.raises(BadRow) as caught:
        list(read_facts(path))
    assert (caught.value.row, caught.value.field) == (row, field)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("facts.txt", b"France, capital, Lyon"),
        ("facts.txt", b""),
        ("facts.json", b'[{"colour": "red"}]'),
        ("facts.json", b'[{"subject": '),
        ("facts.jsonl", b'{"subject": "Fran\xe7ois"}'),
        ("facts.jsonl", b"[" * 100_000),
    ],
)
def test_a_file_of_no_known_format_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(BadDataFile, match=name):
        list(read_facts(path))


def test_a_csv_file_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "facts.csv"
    path.write_bytes(b"subject,relation,object\nFran\xe7ois,P19,Lyon\n")
    with pytest.raises(BadDataFile, match="not UTF-8"):
        list(read_facts(path))


@pytest.mark.parametrize("name", ["missing.csv", "missing.jsonl", "."])
def test_a_file_that_cannot_be_opened_is_refused_at_once(tmp_path: Path, name: str) -> None:
    with pytest.raises(BadDataFile, match="cannot be read"):
        read_facts(tmp_path / name)


def test_a_format_that_is_not_written_is_refused(tmp_path: Path) -> None:
    for path, format_name in ((tmp_path / "facts.xlsx", None), (tmp_path / "facts.json", "mquake"), (tmp_path, None)):
        with pytest.raises(BadDataFile):
            write_facts(path, [LYON], format_name)  # type: ignore[arg-type]
    with pytest.raises(BadDataFile, match=r"facts\.csv cannot be written"):
        write_facts(tmp_path / "no" / "facts.csv", [LYON])
    with pytest.raises(BadDataFile, match="'yaml'"):
        read_facts(tmp_path / "facts.yaml", "yaml")  # type: ignore[arg-type]
    assert list(tmp_path.iterdir()) == []


# -- edit requests of benchmarks -----------------------------------------------------------------------------


def rewrite(subject: str, target: object, **more: object) -> dict[str, object]:
    return {"prompt": "The capital of {} is", "relation_id": "P36", "subject": subject, "target_new": target, **more}


def test_mquake_gives_every_rewrite_once(tmp_path: Path) -> None:
    cases = [
        {"requested_rewrite": [rewrite("France", {"str": "Lyon", "id": "Q1"}), rewrite("Peru", {"str": "Cusco"})]},
        {"requested_rewrite": [rewrite("france", {"str": "Lyon"}), rewrite("France", {"str": "Nice"})]},
        {"requested_rewrite": [rewrite("Chad", None, target_new_str="Abéché")]},
    ]
    path = written(tmp_path, "mquake.json", json.dumps(cases))
    found = list(read_facts(path))
    assert [(fact.subject, fact.relation, fact.object) for fact in found] == [
        ("France", "P36", "Lyon"), ("Peru", "P36", "Cusco"), ("France", "P36", "Nice"), ("Chad", "P36", "Abéché"),
    ]  # fmt: skip
    assert found[3].source == "mquake.json, row 3"


def test_counterfact_gives_triples_or_sentences(tmp_path: Path) -> None:
    full = written(tmp_path, "full.json", json.dumps([{"requested_rewrite": rewrite("France", {"str": "Lyon"})}]))
    reduced = written(
        tmp_path, "reduced.json",
        json.dumps([{"case_id": 1, "prompt": "The capital of France is", "subject": "France", "target_new": "Lyon"}]),
    )  # fmt: skip
    assert [(fact.subject, fact.relation, fact.object) for fact in read_facts(full)] == [("France", "P36", "Lyon")]
    assert [fact.statement for fact in read_facts(reduced)] == ["The capital of France is Lyon."]


def test_zsre_gives_a_triple_where_the_question_is_known(tmp_path: Path) -> None:
    rows = [
        {"subject": "Ada Lovelace", "src": "What is the mother tongue of Ada  Lovelace?", "alt": "French"},
        {"subject": "Ada Lovelace", "src": "What  tone does Ada Lovelace sing in?", "answers": ["alto"]},
        {"subject": "Ada", "src": "What is the mother tongue of Ada Lovelace?", "alt": "French"},
    ]
    found = list(read_facts(written(tmp_path, "zsre.json", json.dumps(rows))))
    assert [(fact.subject, fact.relation, fact.object) for fact in found] == [
        ("Ada Lovelace", "P103", "French"), (None, FREE_TEXT, None), (None, FREE_TEXT, None),
    ]  # fmt: skip
    assert found[1].statement == "What tone does Ada Lovelace sing in? alto"


@pytest.mark.parametrize(
    ("row", "field"),
    [
        ({"requested_rewrite": [{"subject": "France"}]}, "requested_rewrite.target_new"),
        ({"requested_rewrite": ["France"]}, "requested_rewrite"),
        ({"requested_rewrite": [rewrite("", {"str": "Lyon"})]}, "requested_rewrite.subject"),
        (
            {"requested_rewrite": [rewrite("France", {"str": "Lyon"}, relation_id=None)]},
            "requested_rewrite.relation_id",
        ),
        ({"requested_rewrite": 5}, "requested_rewrite"),
        ({"prompt": "The capital of France is", "subject": "France", "target_new": ""}, "target_new"),
        ({"src": "Who?", "subject": "France"}, "alt"),
    ],
)
def test_a_bad_edit_request_is_named(tmp_path: Path, row: dict[str, object], field: str) -> None:
    path = written(tmp_path, "edits.jsonl", json.dumps(row))
    with pytest.raises(BadRow) as caught:
        list(read_facts(path))
    assert (caught.value.row, caught.value.field) == (1, field)


def test_the_fields_are_those_of_a_fact() -> None:
    assert FIELDS == ("subject", "relation", "object", "statement", "valid_from", "valid_to", "source")
