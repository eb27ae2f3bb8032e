"""The page in a real browser: what a visitor does and sees, on a phone and on a desktop, with a mouse and with keys alone."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from memedit.memory.fact import FactInput
from memedit.server.records import Role
from tests.page.conftest import BASE_ANSWER, DESKTOP, PHONE, House, Seen, new_context, shoot, watched

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Locator, Page

pytestmark = [
    pytest.mark.browser,
    pytest.mark.filterwarnings("ignore:.*no_silent_downcasting", "ignore:The copy keyword"),  # Gradio's, of pandas
]

TWO_HOPS = "What is the capital of the country where Mount Fuji is?"
HOSTILE = "Ada's tea is <script>document.title='hacked'</script><img src=x onerror=\"document.title='hacked'\"> ${1+1} {{7*7}} **bold**."


def sign_in(page: Page, house: House, role: Role = Role.EDITOR) -> None:
    page.goto(f"{house.url}/ui")
    page.get_by_label("API key").fill(house.keys[role])
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("button", name="Sign out").wait_for()


def go_to(page: Page, part: str) -> None:
    page.get_by_role("tab", name=part).click()
    page.get_by_role("tab", name=part, selected=True).wait_for()


def add(page: Page, sentence: str, *, source: str = "") -> None:
    page.get_by_label("Fact", exact=True).fill(sentence)
    page.get_by_label("Source").fill(source)
    page.get_by_role("button", name="Add the fact").click()
    page.locator("#added .note.good").filter(has_text=sentence).wait_for()


def ask(page: Page, question: str) -> Locator:
    """Ask; the turn when it is all there."""
    before = page.locator(".turn").count()
    page.get_by_label("Your question").fill(question)
    page.get_by_role("button", name="Ask", exact=True).click()
    turn = page.locator(".turn").nth(before)
    turn.locator(".panel.base .said, .note.bad").wait_for()
    return turn


def fits(page: Page) -> bool:
    """Whether nothing has to be scrolled sideways."""
    return bool(page.evaluate("document.documentElement.scrollWidth <= window.innerWidth"))


def test_a_visitor_adds_a_fact_sees_the_chain_retracts_it_and_sees_the_base_model(
    house: House, seen: Seen, size: tuple[int, int], calls_out: list[str]
) -> None:
    page = seen.page
    page.goto(f"{house.url}/ui")
    page.get_by_label("API key").wait_for()
    shoot(page, size, "1-sign-in")
    sign_in(page, house)
    page.get_by_text("Ask a question").wait_for()
    shoot(page, size, "2-nothing-asked-yet")
    go_to(page, "Facts")
    page.get_by_text("No facts yet").wait_for()
    shoot(page, size, "3-no-facts-yet")
    go_to(page, "Add")
    add(page, "The capital of Japan is Osaka.", source="ticket 17")
    shoot(page, size, "4-added")

    go_to(page, "Ask")
    turn = ask(page, TWO_HOPS)

    shoot(page, size, "5-chain")
    believed, edited = turn.locator(".hop").all_inner_texts()
    assert re.search(r"Mount Fuji country → Japan\s+1 · Base model", believed)
    assert re.search(r"Japan capital → Osaka\s+2 · Your fact #\d+ The capital of Japan is Osaka\.", edited)
    assert "Source: ticket 17" in edited
    assert turn.locator(".panel.edited .said").inner_text() == "It is Osaka."
    assert turn.locator(".panel.base .said").inner_text() == BASE_ANSWER

    go_to(page, "Facts")
    page.get_by_role("button", name=re.compile("Retract fact .* capital of Japan")).click()
    page.locator("#facts-status .note.good").filter(has_text="Retracted").wait_for()
    page.get_by_text("No facts yet").wait_for()
    shoot(page, size, "6-retracted")

    go_to(page, "Ask")
    again = ask(page, TWO_HOPS)

    shoot(page, size, "7-base-model")
    assert again.locator("h3").all_inner_texts() == ["The base model’s own answer"]
    assert again.locator(".said").all_inner_texts() == [BASE_ANSWER]
    assert "It has read this conversation, answers from facts included." in again.inner_text()
    assert again.locator(".hop").count() == 0
    assert fits(page)
    assert (seen.elsewhere, seen.errors, calls_out) == ([], [], [])
    done = [(entry.action, entry.outcome) for entry in house.records.entries(house.namespace)]
    assert done == [("add", "done"), ("retract", "done")]


def test_what_a_fact_would_change_is_shown_before_it_is_recorded(
    house: House, seen: Seen, size: tuple[int, int]
) -> None:
    page = seen.page
    house.memory.assert_fact(FactInput(statement="The capital of Japan is Kyoto."), namespace=house.namespace)
    sign_in(page, house)
    go_to(page, "Add")

    page.get_by_label("Subject, relation, object").check()
    for field, value in (("Subject", "Japan"), ("Relation", "capital"), ("Object", "Osaka")):
        page.get_by_label(field, exact=True).fill(value)
    page.get_by_label("A question to try it on").fill(TWO_HOPS)
    page.get_by_role("button", name="What would it change?").click()
    page.locator("#added .verdict").wait_for()

    shoot(page, size, "8-preview")
    before, after = page.locator("#added .panel").all_inner_texts()
    assert "Kyoto" in before
    assert "Osaka" not in before
    assert "Osaka" in after
    assert "This fact" in after
    assert page.locator("#added .replaced").inner_text().endswith("The capital of Japan is Kyoto.")
    assert [fact.object for fact in house.memory.facts(namespace=house.namespace)] == ["Kyoto"]
    assert fits(page)


def test_markup_in_facts_sources_questions_and_answers_is_shown_as_text(
    house: House, seen: Seen, size: tuple[int, int]
) -> None:
    page = seen.page
    house.upstream.reply = lambda sent: "<b onclick='x'>loud</b> ${1} {{2}}"
    sign_in(page, house)
    go_to(page, "Add")
    add(page, HOSTILE, source="<img src=x onerror=\"document.title='hacked'\">")

    go_to(page, "Ask")
    turn = ask(page, "What is Ada's tea? <i>please</i> ${3}")
    go_to(page, "Facts")
    row = page.locator("tr.fact")
    row.wait_for()

    shoot(page, size, "9-markup-as-text")
    assert HOSTILE in row.inner_text()
    assert "<img src=x onerror" in row.locator(".from").inner_text()
    assert page.locator("#facts :is(script, img, b), #added :is(script, img), #log :is(script, img, b, i)").count() == 0
    go_to(page, "Ask")
    assert "What is Ada's tea? <i>please</i> ${3}" in turn.locator(".asked").inner_text()
    assert "<b onclick='x'>loud</b> ${1} {{2}}" in turn.inner_text()
    assert page.title() == "memedit"
    assert seen.errors == []


def test_facts_are_searched_looked_up_in_the_past_and_brought_back(
    house: House, seen: Seen, size: tuple[int, int]
) -> None:
    page = seen.page
    for sentence in (
        "The capital of Japan is Kyoto.",
        "The capital of Japan is Osaka.",
        "The author of Misery is Ann Lee.",
    ):
        house.memory.assert_fact(FactInput(statement=sentence), namespace=house.namespace)
    sign_in(page, house)
    go_to(page, "Facts")
    rows = page.locator("#facts tr.fact")
    page.locator("#facts caption").wait_for()
    assert rows.count() == 2

    page.get_by_label("Search the facts").fill("osaka")
    page.get_by_label("Search the facts").press("Enter")
    page.wait_for_function("document.querySelectorAll('#facts tr.fact').length === 1")
    page.get_by_role("button", name=re.compile("^History fact")).click()
    page.locator("#history tr.fact").nth(1).wait_for()
    shoot(page, size, "10-history")
    first, second = page.locator("#history tr.fact").all_inner_texts()
    assert "Kyoto" in first
    assert "replaced by #" in first
    assert "Osaka" in second

    page.get_by_label("Search the facts").fill("")
    page.get_by_label("Ended too").check()
    page.wait_for_function("document.querySelectorAll('#facts tr.fact').length === 3")
    page.get_by_role("button", name="Undo the last change").click()
    page.locator("#facts-status .note.good").filter(has_text="undone").wait_for()
    assert "The author of Misery is Ann Lee." in page.locator("#facts-status").inner_text()
    assert len(house.memory.facts(namespace=house.namespace)) == 1

    page.get_by_label("By meaning").check()
    page.get_by_label("Search the facts").fill("Where does the Japanese government sit?")
    page.get_by_role("button", name="Search").click()
    page.locator("#facts .score").first.wait_for()
    assert "The capital of Japan is Osaka." in rows.nth(0).inner_text()
    assert fits(page)


def test_a_file_is_imported_as_a_whole_or_not_at_all(
    house: House, seen: Seen, size: tuple[int, int], tmp_path: Path
) -> None:
    page = seen.page
    good, bad = tmp_path / "good.jsonl", tmp_path / "bad.csv"
    rows = [
        {"subject": f"Company {size[0]}-{number}", "relation": "CEO", "object": "Bo Li"} for number in range(120)
    ]  # new to the embedder
    good.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    bad.write_text("subject,relation,object\nJapan,capital,Osaka\n,capital,Rome\n", encoding="utf-8")
    sign_in(page, house)
    go_to(page, "Import")

    page.locator("#file input[type=file]").set_input_files(bad)
    page.get_by_text("bad.csv").or_(page.get_by_text("bad")).first.wait_for()
    page.get_by_role("button", name="Import", exact=True).click()
    page.locator("#imported .note.bad").wait_for()
    shoot(page, size, "11-import-refused")
    assert "row 3, field 'subject'" in page.locator("#imported").inner_text()
    assert house.memory.view(namespace=house.namespace).facts() == []

    page.locator("#file input[type=file]").set_input_files(good)
    page.get_by_text("good.jsonl").or_(page.get_by_text("good")).first.wait_for()
    page.get_by_role("button", name="Import", exact=True).click()
    page.locator("#imported progress").wait_for()
    page.locator("#imported .note.good").wait_for()
    shoot(page, size, "12-imported")
    assert "120 facts: 120 added" in page.locator("#imported").inner_text()
    go_to(page, "Facts")
    page.wait_for_function("document.querySelectorAll('#facts tr.fact').length === 50")
    page.get_by_role("button", name="Show more").click()
    page.wait_for_function("document.querySelectorAll('#facts tr.fact').length === 100")
    assert fits(page)


def test_a_reader_finds_no_way_to_write(house: House, seen: Seen, size: tuple[int, int]) -> None:
    page = seen.page
    house.memory.assert_fact(FactInput(statement="The capital of Japan is Osaka."), namespace=house.namespace)
    sign_in(page, house, Role.READER)
    go_to(page, "Facts")
    page.locator("tr.fact").wait_for()
    assert page.get_by_role("button", name=re.compile("^Retract")).count() == 0
    go_to(page, "Add")
    page.locator("#part-add").get_by_text("Your key may read facts").wait_for()
    assert page.get_by_role("button", name="Add the fact").count() == 0
    go_to(page, "Import")
    page.locator("#part-import").get_by_text("Your key may read facts").wait_for()
    assert page.get_by_role("button", name="Import", exact=True).count() == 0

    go_to(page, "Facts")
    page.get_by_role("button", name="Undo the last change").click()
    page.locator("#facts-status .note.bad").wait_for()

    shoot(page, size, "13-reader")
    assert "has the role 'reader', and this needs 'editor'" in page.locator("#facts-status").inner_text()
    assert len(house.memory.facts(namespace=house.namespace)) == 1


def test_everything_can_be_done_with_keys_alone(house: House, seen: Seen) -> None:
    page = seen.page
    page.goto(f"{house.url}/ui")
    page.wait_for_function("document.activeElement.id === 'key'")
    page.keyboard.type(house.keys[Role.EDITOR])
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Sign out").wait_for()

    tab_until(page, lambda name: name == "")  # to the page's end: the next is its beginning
    passed = tab_until(page, lambda name: name == "Add")
    assert passed.index("Sign out") < passed.index("Ask") < passed.index("Facts")
    page.keyboard.press("Enter")
    tab_until(page, lambda name: name == "Fact")
    page.keyboard.type("The capital of Japan is Osaka.")
    tab_until(page, lambda name: name == "Add the fact")
    page.keyboard.press("Enter")
    page.locator("#added .note.good").wait_for()

    back_to_tab(page, "Ask")
    tab_until(page, lambda name: name == "Your question")
    page.keyboard.type(TWO_HOPS)
    page.keyboard.press("Enter")
    page.locator(".turn .panel.base .said").wait_for()
    assert page.locator(".turn .hop").count() == 2

    back_to_tab(page, "Facts")
    page.locator("tr.fact").wait_for()
    tab_until(page, lambda name: name.startswith("Retract fact"))
    page.keyboard.press("Enter")
    page.get_by_text("No facts yet").wait_for()
    assert house.memory.facts(namespace=house.namespace) == []


def test_whatever_takes_the_focus_has_a_name_and_lets_it_go_again(house: House, seen: Seen) -> None:
    page = seen.page
    house.memory.assert_fact(FactInput(statement="The capital of Japan is Osaka."), namespace=house.namespace)
    sign_in(page, house)
    for part in ("Ask", "Facts", "Add", "Import"):
        go_to(page, part)
        tab_until(page, lambda name: name == "")
        round_trip = tab_until(page, lambda name: name == "")
        assert round_trip[:4] == ["Sign out", "Ask", "Facts", "Add"]
        assert 6 < len(round_trip) < 30
        assert "(no name)" not in round_trip


@pytest.mark.parametrize("shape", [PHONE, DESKTOP], ids=["phone", "desktop"])
def test_it_can_be_read_in_the_dark(house: House, browser: Browser, shape: tuple[int, int]) -> None:
    house.memory.assert_facts(
        [
            FactInput(statement="The capital of Japan is Osaka.", source="ticket 17"),
            FactInput(statement="The author of Misery is " + "Donaudampfschifffahrtsgesellschaftskapitän" * 2 + "."),
        ],
        namespace=house.namespace,
    )
    context = new_context(browser, shape, dark=True)
    page = watched(context).page
    sign_in(page, house)
    ask(page, TWO_HOPS)
    shoot(page, shape, "14-dark-chain")
    assert fits(page)
    go_to(page, "Facts")
    page.locator("tr.fact").first.wait_for()
    shoot(page, shape, "15-dark-facts")

    light = page.evaluate(
        """() => [...document.querySelectorAll('#facts .says, #facts .act, h1, [role=tab]')].map((part) => {
          const level = (colour) => { const [r, g, b] = colour.match(/[0-9.]+/g).map(Number); return 0.3 * r + 0.6 * g + 0.1 * b; };
          return level(getComputedStyle(part).color);
        })"""
    )
    assert min(light) > 120  # light on dark
    assert fits(page)
    context.close()


def tab_until(page: Page, wanted: Callable[[str], bool]) -> list[str]:
    """Press Tab until what has the focus is wanted; the names of all that had it."""
    names: list[str] = []
    for _ in range(60):
        page.keyboard.press("Tab")
        names.append(focused(page))
        if wanted(names[-1]):
            return names
    raise AssertionError(f"the focus never came to it: {names}")


def back_to_tab(page: Page, part: str) -> None:
    for _ in range(60):
        page.keyboard.press("Shift+Tab")
        if focused(page) == part:
            page.keyboard.press("Enter")
            page.get_by_role("tab", name=part, selected=True).wait_for()
            return
    raise AssertionError(f"the focus never came back to {part}")


def focused(page: Page) -> str:
    """The accessible name of what has the focus; "" at the page's end."""
    return str(
        page.evaluate(
            """() => {
              const part = document.activeElement;
              if (!part || part === document.body) return '';
              const label = part.labels && part.labels.length ? part.labels[0].innerText : '';
              return (part.getAttribute('aria-label') || label || part.innerText || part.value || '(no name)').trim();
            }"""
        )
    )
