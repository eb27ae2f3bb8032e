from __future__ import annotations

from pathlib import Path

import pytest

from memedit.errors import BadDataFile
from memedit.evaluation.report import Table, named_sections, number, percent, plot_shares, read_result

FIGURES = {"accuracy": 0.975, "nothing": None, "intervals": {"accuracy": [0.9513, 0.987], "nothing": None}}


def test_a_share_is_shown_with_its_interval() -> None:
    assert percent(FIGURES, "accuracy") == "97.5 [95.1, 98.7]"
    assert percent(FIGURES, "accuracy", interval=False) == "97.5"
    assert percent(FIGURES, "nothing") == "–"
    assert percent(FIGURES, "unknown") == "–"


@pytest.mark.parametrize(
    ("value", "text"), [(1234567, "1,234,567"), (0.12345, "0.123"), (45678.9, "45,679"), (None, "–"), ("x", "x")]
)
def test_numbers_are_short(value: object, text: str) -> None:
    assert number(value) == text


def test_a_table_in_markdown() -> None:
    table = Table("Title", ("", "right"), (("2 hops | 3", "97.5"),))

    assert table.markdown() == "**Title**\n\n|  | right |\n| --- | ---: |\n| 2 hops \\| 3 | 97.5 |\n"


def test_a_table_in_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    Table("Title", ("", "right"), (("[2 hops]", "97.5 [95.1, 98.7]"),)).show()

    shown = capsys.readouterr().out
    assert "[2 hops]" in shown
    assert "97.5 [95.1, 98.7]" in shown


def test_sections_are_labelled() -> None:
    assert list(named_sections({"by": {"2": FIGURES}}, "by", "{} hops")) == [("2 hops", FIGURES)]
    assert list(named_sections({}, "by", "{} hops")) == []


def test_a_plot_is_drawn_even_where_a_figure_is_missing(tmp_path: Path) -> None:
    path = tmp_path / "plot.png"

    plot_shares(path, "Title", [("all", FIGURES), ("none", {})], {"accuracy": "right", "nothing": "n"}, note="cmd")

    assert path.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("content", [None, "{", "[]", '{"benchmark": "other"}'])
def test_what_is_no_result_is_refused(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "out.json"
    if content is not None:
        path.write_text(content)

    with pytest.raises(BadDataFile):
        read_result(path, "mquake")
