"""What the page's HTML is made of: text that stays text, and what each state is called."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from html.parser import HTMLParser

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memedit.memory.fact import EndReason, Fact
from memedit.page import words
from memedit.page.answers import Turn, conversation
from memedit.page.client import Reply, Used, UsedHop

NOW = datetime(2031, 1, 2, 3, 4, tzinfo=UTC)
HOSTILE = "\"><script>alert(1)</script>${x}{{y}}`z`' onclick='"


def fact(**changes: object) -> Fact:
    values: dict[str, object] = {
        "id": 3, "namespace": "default", "subject": "Japan", "relation": "P36", "object": "Osaka",
        "statement": "The capital of Japan is Osaka.", "recorded_at": NOW, "transaction": 1, **changes,
    }  # fmt: skip
    return Fact.model_validate(values)


class Reader(HTMLParser):
    """Collects the tags, the attributes and the text of a piece of HTML."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attrs}

    def handle_data(self, data: str) -> None:
        self.text += data


@given(st.text(alphabet=st.characters(exclude_categories=["Cs"], exclude_characters="\r\0"), max_size=60))
def test_a_text_is_shown_as_its_own_characters(written: str) -> None:
    shown = words.text(written)
    read = Reader(f"<p>{shown}</p>")
    assert (read.tags, read.text) == (["p"], written)
    assert not set("<>\"'`{}$") & set(shown)


@pytest.mark.parametrize(
    "html",
    [
        words.note(HOSTILE, "bad"),
        words.empty(HOSTILE, HOSTILE),
        words.progress(HOSTILE, 1, 2),
        words.fact_table([fact(statement=HOSTILE, source=HOSTILE)], caption=HOSTILE, may_write=True),
        words.statements([fact(statement=HOSTILE, source=HOSTILE)]),
        words.chain([words.Step(HOSTILE, HOSTILE, HOSTILE, "edit", fact(statement=HOSTILE, source=HOSTILE))]),
        conversation([Turn(HOSTILE, Reply(text=HOSTILE), base_problem=HOSTILE), Turn(HOSTILE, problem=HOSTILE)]),
    ],
    ids=["note", "empty", "progress", "table", "statements", "chain", "conversation"],
)
def test_nothing_that_was_written_becomes_markup(html: str) -> None:
    read = Reader(html)
    assert not {"script", "img", "a", "b"} & set(read.tags)
    assert not any(name.startswith("on") for name in read.attributes)
    assert "${" not in html
    assert "{{" not in html


def test_each_hop_names_what_it_rests_on() -> None:
    drawn = words.chain(
        [
            words.Step("Mount Fuji", "country", "Japan", "belief"),
            words.Step("Japan", "capital", "Osaka", "edit", fact(source="ticket 17")),
            words.Step("Osaka", "mayor", "Ann", "trial", statement="The mayor of Osaka is Ann."),
        ]
    )
    said = [Reader(item).text for item in re.findall(r"<li.*?</li>", drawn)]
    assert "1 · Base model" in said[0]
    assert "2 · Your fact #3" in said[1]
    assert "The capital of Japan is Osaka." in said[1]
    assert "Source: ticket 17" in said[1]
    assert "3 · This fact" in said[2]
    assert "The mayor of Osaka is Ann." in said[2]


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({}, "live"),
        ({"retracted_at": NOW, "end_reason": EndReason.SUPERSEDED, "superseded_by": 9}, "replaced by #9"),
        ({"retracted_at": NOW, "end_reason": EndReason.RETRACTED}, "retracted"),
        ({"retracted_at": NOW, "end_reason": EndReason.UNDONE}, "undone"),
    ],
)
def test_the_table_says_whether_a_fact_is_live_and_why_it_is_not(changes: dict[str, object], told: str) -> None:
    row = fact(**changes)
    table = words.fact_table([row], caption="Facts", may_write=True)
    assert told in Reader(table).text
    assert ("Retract" in Reader(table).text) == row.live


def test_readers_and_free_text_get_fewer_buttons() -> None:
    assert "retract" not in words.fact_table([fact()], caption="Facts", may_write=False)
    free = fact(relation="free_text", subject="", object="")
    assert "history" not in words.fact_table([free], caption="Facts", may_write=True)


def test_an_answer_out_of_scope_is_the_base_models_own() -> None:
    shown = Reader(conversation([Turn("Who?", Reply(text="Nobody."))])).text
    assert "The base model’s own answer" in shown
    assert "nothing was changed" in shown


def test_an_answer_says_how_it_came_to_carry_the_facts() -> None:
    hop = UsedHop(entity="Japan", relation="capital", object="Osaka", source="edit", edit=3)
    used = Used(edits=[], hops=[hop], probability=1.0, answer="given", question="What is the capital of Japan?")
    turn = Turn("And its capital?", Reply(text="Osaka", used=used), Reply(text="Tokyo"), facts={3: fact()})
    shown = Reader(conversation([turn])).text
    assert "this is what the facts give" in shown
    assert "Understood as: What is the capital of Japan?" in shown
    assert "Tokyo" in shown
