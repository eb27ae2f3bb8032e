"""Names: which spellings are one name, and which names are one entity."""

from __future__ import annotations

import tomllib
from importlib import resources
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from memedit.errors import InvalidFact
from memedit.memory.entities import MAX_NAME, EntityTable, normalise
from memedit.memory.fact import EntityType


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("The Beatles", "beatles"),
        ("J. K. Rowling", "J.K. Rowling"),
        ("J. K. Rowling", "JK Rowling"),
        ("U.S.A.", "USA"),
        ("Washington, D.C.", "washington dc"),
        ("Jean-Paul  Sartre", "Jean Paul Sartre"),
        ("“Misery”", "Misery"),
        ("O’Brien", "O'Brien"),
        ("Johnson & Johnson", "Johnson and Johnson"),
        ("Ｔｏｋｙｏ", "Tokyo"),
        ("Ångström", "A\u030angstro\u0308m"),
        ("STRASSE", "Straße"),
        ("Yahoo!", "Yahoo"),
        ("\u200eMalta", "Malta"),
        ("The A-Team", "A-Team"),
        ("A Tale of Two Cities", "Tale of Two Cities"),
    ],
)
def test_spellings_of_one_name_have_one_key(one: str, other: str) -> None:
    assert normalise(one) == normalise(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("C", "C++"), ("C", "C#"), ("-5", "5"), ("1.5", "15"), ("Malé", "Male"), ("A. Milne", "Milne"), ("a-ha", "Ha"),
        ("iPad", "iPad Pro"), ("東京", "京都"), ("!!!", "???"), ("😀", "😁"),
    ],
)  # fmt: skip
def test_different_names_have_different_keys(one: str, other: str) -> None:
    assert normalise(one) != normalise(other)


@pytest.mark.parametrize("name", ["The", "!!!", "東京", "Москва", "الرياض", "दिल्ली", "🇬🇧", "A", "..."])
def test_no_name_is_left_empty(name: str) -> None:
    assert normalise(name)


@pytest.mark.parametrize("name", ["", "   ", "\u00a0", "x" * (MAX_NAME + 1), "a\nb", "a\x00b", "a\tb", "\ud800"])
def test_what_is_no_name_is_refused(name: str) -> None:
    with pytest.raises(InvalidFact):
        normalise(name)


@given(st.one_of(st.text(min_size=1, max_size=20), st.text("aAnthe .-!&'#1é́“İß ", min_size=1, max_size=20)))
def test_a_key_is_its_own_key(name: str) -> None:
    try:
        key = normalise(name)
    except InvalidFact:
        return
    assert normalise(key) == key


@pytest.mark.parametrize(
    ("alias", "entity"),
    [
        ("the USA", "United States of America"),
        ("U.S.", "United States of America"),
        ("UK", "United Kingdom"),
        ("China", "People's Republic of China"),
        ("Czechia", "Czech Republic"),
        ("Burma", "Myanmar"),
        ("Republic of Ireland", "Ireland"),
        ("USSR", "Soviet Union"),
        ("East Germany", "German Democratic Republic"),
        ("New York", "New York City"),
        ("Bombay", "Mumbai"),
        ("soccer", "association football"),
        ("English language", "English"),
        ("Farsi", "Persian"),
        ("Roman Catholic Church", "Catholic Church"),
        ("British Broadcasting Corporation", "BBC"),
    ],
)
def test_a_well_known_alias_stands_for_its_entity(alias: str, entity: str) -> None:
    assert EntityTable.builtin().resolve(alias) == normalise(entity)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Georgia", "Georgian"), ("Republic of the Congo", "Democratic Republic of the Congo"),
        ("Ireland", "Northern Ireland"), ("People's Republic of China", "Taiwan"), ("North Korea", "South Korea"),
        ("Netherlands", "Kingdom of the Netherlands"), ("Russia", "Soviet Union"), ("Germany", "West Germany"),
        ("Germany", "German Empire"), ("United Kingdom", "United Kingdom of Great Britain and Ireland"),
        ("United Kingdom", "England"), ("United Kingdom", "Great Britain"), ("Guinea", "Guinea-Bissau"),
        ("Dominica", "Dominican Republic"), ("Niger", "Nigeria"), ("Denmark", "Kingdom of Denmark"),
        ("association football", "football"), ("American football", "football"), ("France", "French"),
        ("English", "American English"), ("Catholic Church", "Catholicism"), ("Serbian", "Croatian"),
        ("Washington", "Washington, D.C."), ("Quebec", "Quebec City"), ("Panama", "Panama City"),
    ],
)  # fmt: skip
def test_entities_that_the_world_keeps_apart_stay_apart(one: str, other: str) -> None:
    table = EntityTable.builtin()
    assert table.resolve(one) != table.resolve(other)


def test_every_builtin_name_is_entered_once() -> None:
    text = resources.files("memedit.memory").joinpath("aliases.toml").read_text(encoding="utf-8")
    data = tomllib.loads(text)
    kinds = {kind: table for kind, table in data.items() if kind not in ("exact_case", "loose", "families")}
    entries = [normalise(entity) for table in kinds.values() for entity in table]
    aliases = [normalise(alias) for table in kinds.values() for names in table.values() for alias in names]

    assert set(kinds) <= set(get_args(EntityType))
    assert len(entries + aliases) == len({*entries, *aliases})
    loosely = {**data["loose"], **data["families"]}
    assert {normalise(meant) for meant in loosely.values()} <= set(entries)
    assert not {normalise(name) for name in loosely} & set(aliases)


@pytest.mark.parametrize("word", ["us", "Us", "who", "Who", "un", "mit"])
def test_an_ordinary_word_is_no_abbreviation(word: str) -> None:
    assert EntityTable.builtin().resolve(word) == word.lower()


@pytest.mark.parametrize(
    ("name", "kind"),
    [("Lisboa", "city"), ("UK", "country"), ("Danish", "language"), ("Zulu Nation Choir", None), ("judo", "sport")],
)
def test_the_kind_of_a_well_known_name_is_known(name: str, kind: str | None) -> None:
    assert EntityTable.builtin().type_of(name) == kind
    assert EntityTable(parent=EntityTable.builtin()).type_of(name) == kind


def test_an_added_alias_holds_in_its_layer_only() -> None:
    tenant = EntityTable(parent=EntityTable.builtin())
    tenant.add_alias("USA", "Uncle Sam")
    tenant.add_alias("New York City", "The Big Apple")

    assert tenant.resolve("uncle sam") == "united states of america"
    assert tenant.aliases("the Big Apple")[-1] == "The Big Apple"
    assert "NYC" in tenant.aliases("new york")
    assert dict(tenant.items())["Uncle Sam"] == "united states of america"
    assert EntityTable.builtin().resolve("uncle sam") == "uncle sam"


def test_a_layer_wins_over_its_parent() -> None:
    tenant = EntityTable(parent=EntityTable.builtin())
    tenant.add_alias("Burma-Shave", "Burma")

    assert tenant.resolve("Burma") == "burma shave"
    assert "Burma" not in tenant.aliases("Myanmar")
    assert dict(tenant.items())["Burma"] == "burma shave"


def test_aliases_of_aliases_lead_to_one_entity() -> None:
    table = EntityTable()
    table.add_alias("Bob", "Bobby")
    table.add_alias("Robert", "Bob")

    assert table.resolve("Bobby") == table.resolve("Bob") == table.resolve("robert") == "robert"


def test_an_alias_added_twice_or_to_itself_changes_nothing() -> None:
    table = EntityTable()
    table.add_alias("Robert", "Bob")
    table.add_alias("Robert", "BOB")
    table.add_alias("Bob", "Robert")

    assert table.aliases("Robert") == ("Bob",)
    assert table.resolve("Robert") == "robert"


def test_one_alias_cannot_stand_for_two_entities() -> None:
    table = EntityTable()
    table.add_alias("Robert Hooke", "Bob")

    with pytest.raises(InvalidFact, match="already a name of 'robert hooke'"):
        table.add_alias("Robert Boyle", "bob")
    assert table.resolve("Bob") == "robert hooke"
