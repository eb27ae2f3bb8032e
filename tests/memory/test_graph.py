"""The networkx view: the facts around entities, how two hang together, and a drawing."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from memedit.memory.fact import FactInput
from memedit.memory.graph import connections, neighbourhood, to_dot
from memedit.memory.memory import EditMemory

TRIPLES = (
    ("Bolt", "sport", "cricket"),
    ("cricket", "country of origin", "France"),
    ("France", "capital", "Lyon"),
    ("Spain", "capital", "Vigo"),
)


@pytest.fixture
def memory() -> Iterator[EditMemory]:
    with EditMemory(embed_on_write=False) as opened:
        opened.assert_facts(FactInput(subject=s, relation=r, object=o) for s, r, o in TRIPLES)
        opened.assert_fact(FactInput(statement="Nothing to see here, the officer said, and shrugged."))
        yield opened


def test_a_neighbourhood_reaches_both_ways_and_no_further(memory: EditMemory) -> None:
    view = memory.view()

    assert set(neighbourhood(view, ["France"], hops=1)) == {"cricket", "france", "lyon"}
    assert set(neighbourhood(view, ["france"], hops=2)) == {"bolt", "cricket", "france", "lyon"}
    assert set(neighbourhood(view, ["nobody"])) == set()


def test_edges_carry_their_facts_and_run_from_subject_to_object(memory: EditMemory) -> None:
    graph = neighbourhood(memory.view(), ["France", "Lyon"], hops=1)

    edges = {(subject, obj): data for subject, obj, data in graph.edges(data=True)}
    assert set(edges) == {("cricket", "france"), ("france", "lyon")}
    assert edges["france", "lyon"]["fact"].statement == "The capital of France is Lyon."
    assert (edges["france", "lyon"]["relation"], edges["france", "lyon"]["label"]) == ("P36", "capital")
    assert graph.nodes["lyon"]["name"] == "Lyon"


def test_implied_facts_are_added_on_request(memory: EditMemory) -> None:
    graph = neighbourhood(memory.view(), ["Lyon"], hops=1, implied=True)

    assert {(subject, obj, data["implied"]) for subject, obj, data in graph.edges(data=True)} == {
        ("france", "lyon", False),
        ("lyon", "france", True),
    }


def test_a_limit_bounds_the_facts(memory: EditMemory) -> None:
    assert neighbourhood(memory.view(), ["France"], limit=1).number_of_edges() == 1


def test_connections_are_the_chains_between_two_entities(memory: EditMemory) -> None:
    (found,) = connections(memory.view(), "Bolt", "LYON")

    assert found.relations == ("P641", "P495", "P36")
    assert connections(memory.view(), "Bolt", "Vigo") == []


def test_a_drawing_names_nodes_and_edges_and_escapes_quotes() -> None:
    with EditMemory(embed_on_write=False) as memory:
        memory.assert_fact(FactInput(subject='The "Crag"', relation="capital", object="a\\b"))
        graph = neighbourhood(memory.view(), ["a\\b"], hops=1, implied=True)

    drawing = to_dot(graph)

    assert drawing.startswith("digraph facts {")
    assert '"crag" [label="The \\"Crag\\""];' in drawing
    assert 'label="a\\\\b"' in drawing
    assert '[label="capital"];' in drawing
    assert "style=dashed" in drawing
