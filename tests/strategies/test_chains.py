"""Chains of relations: plans realised on edits, and where a chain may start."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from memedit.memory.fact import FactInput
from memedit.memory.memory import EditMemory, MemoryView
from memedit.strategies.base import Plan
from memedit.strategies.chains import realise, starts


@pytest.fixture
def memory() -> Iterator[EditMemory]:
    with EditMemory(embed_on_write=False) as memory:
        yield memory


def view(memory: EditMemory, *facts: tuple[str, str, str]) -> MemoryView:
    memory.assert_facts([FactInput(subject=subject, relation=relation, object=obj) for subject, relation, obj in facts])
    return memory.view()


def test_a_product_has_no_chief_executive_so_its_developer_is_put_in(memory: EditMemory) -> None:
    seen = view(memory, ("iLife", "P178", "Initech"), ("Initech", "P169", "Bo Li"))

    assert realise(seen, "iLife", ("P169", "P27")) == ("P178", "P169", "P27")


def test_a_hop_in_the_middle_is_put_in_too(memory: EditMemory) -> None:
    seen = view(
        memory,
        ("Helter Skelter", "P175", "City Orchestra"),
        ("City Orchestra", "P1037", "Bo Li"),
        ("Bo Li", "P20", "Oslo"),
    )

    assert realise(seen, "Helter Skelter", ("P175", "P20")) == ("P175", "P1037", "P20")


def test_the_sport_of_a_player_is_that_of_the_position_played(memory: EditMemory) -> None:
    seen = view(memory, ("Bo Li", "P413", "relief pitcher"), ("relief pitcher", "P641", "rugby"))

    assert realise(seen, "Bo Li", ("P641",)) == ("P413", "P641")


def test_the_country_of_what_is_in_a_region_is_that_of_the_region(memory: EditMemory) -> None:
    seen = view(memory, ("Foo Hall", "P131", "Athens"), ("Bar Hall", "P131", "Turkey"))

    assert realise(seen, "Foo Hall", ("P17", "P36")) == ("P131", "P17", "P36")
    assert realise(seen, "Bar Hall", ("P17", "P36")) == ("P131", "P36")
    assert realise(seen, "Bar Hall", ("P17",)) == ("P131",)


def test_nothing_is_put_in_where_an_edit_holds_the_hop(memory: EditMemory) -> None:
    seen = view(
        memory, ("Bo Li", "P413", "relief pitcher"), ("relief pitcher", "P641", "rugby"), ("Bo Li", "P641", "golf")
    )

    assert realise(seen, "Bo Li", ("P641",)) == ("P641",)


def test_a_spouse_does_not_lend_her_citizenship(memory: EditMemory) -> None:
    seen = view(memory, ("Bo Li", "P26", "Ada Quill"), ("Ada Quill", "P27", "Norway"))

    assert realise(seen, "Bo Li", ("P27",)) == ("P27",)


def test_a_plan_is_not_made_longer_than_there_is_room(memory: EditMemory) -> None:
    seen = view(memory, ("iLife", "P178", "Initech"), ("Initech", "P169", "Bo Li"))

    assert realise(seen, "iLife", ("P169",), room=1) == ("P169",)


@pytest.mark.parametrize(
    ("question", "planned", "expected"),
    [
        ("Who wrote Mere Christianity?", "Mere Christianity", "Mere Christianity"),
        ("Who wrote the Christianity entry?", "Christianity", "Christianity"),
        ("Who founded the Religion of Christianity?", "Religion of Christianity", "Religion of Christianity"),
        ("Who leads the Kingdom of Christianity?", "Kingdom of Christianity", "Christianity"),
    ],
)
def test_a_part_of_a_longer_name_is_no_start(memory: EditMemory, question: str, planned: str, expected: str) -> None:
    seen = view(memory, ("Christianity", "P112", "Bo Li"))
    at = question.index(planned)

    found = starts(question, seen, [Plan(planned, (at, at + len(planned)), ("P50",), 0.9)])

    assert [start.name for start in found] == [expected]
