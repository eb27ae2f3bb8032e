"""The facts around some entities as a networkx graph: to look at, to draw, and to find how two entities hang together.

Nodes are canonical keys of entities with their ``name``; an edge is a fact, from subject to object, keyed by relation
and fact id. Knows nothing of questions.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from memedit.memory.fact import FREE_TEXT, Fact, Path
from memedit.memory.view import MemoryView

if TYPE_CHECKING:
    import networkx as nx


def neighbourhood(
    view: MemoryView, entities: Iterable[str], *, hops: int = 2, limit: int = 1000, implied: bool = False
) -> nx.MultiDiGraph[str]:
    """The live facts within some steps of some entities, in either direction.

    Args:
        view: What to read.
        entities: Names of the entities in the middle.
        hops: How many steps to go.
        limit: Most facts; the nearest come first.
        implied: Whether to add what follows from inverse and symmetric relations.

    Returns:
        Nodes carry ``name``; edges carry ``fact`` (the `Fact`), ``relation`` (its id), ``label`` and ``implied``.
    """
    import networkx as nx

    graph: nx.MultiDiGraph[str] = nx.MultiDiGraph()
    frontier = list(dict.fromkeys(entities))
    seen = set()
    for _ in range(hops):
        reached: list[str] = []
        for entity in frontier:
            if entity in seen:
                continue
            seen.add(entity)
            for fact in (*view.facts_about(entity), *view.facts_naming(entity)):
                if fact.relation == FREE_TEXT or (fact.implied_from is not None and not implied):
                    continue
                if graph.number_of_edges() >= limit:
                    return graph
                _add(graph, view, fact)
                reached += [fact.subject, fact.object]
        frontier = list(dict.fromkeys(reached))
    return graph


def connections(view: MemoryView, start: str, end: str, *, max_hops: int = 4, limit: int = 256) -> list[Path]:
    """The chains of live facts that lead from one entity to another, the shortest first.

    Args:
        view: What to read.
        start: A name of the first entity.
        end: A name of the last.
        max_hops: Most facts in a chain.
        limit: How many chains from `start` to look at.
    """
    target = view.resolve(end)
    paths = view.paths(start, max_hops, limit)
    return sorted((path for path in paths if view.resolve(path.end) == target), key=lambda path: len(path.facts))


def to_dot(graph: nx.MultiDiGraph[str]) -> str:
    """The graph in Graphviz's language; implied facts are dashed. Draw it with ``dot -Tsvg``."""
    lines = ["digraph facts {", "  rankdir=LR;", "  node [shape=box, style=rounded];"]
    lines += [f"  {_quoted(key)} [label={_quoted(data['name'])}];" for key, data in graph.nodes(data=True)]
    for subject, obj, data in graph.edges(data=True):
        style = ", style=dashed" if data["implied"] else ""
        lines.append(f"  {_quoted(subject)} -> {_quoted(obj)} [label={_quoted(data['label'])}{style}];")
    return "\n".join([*lines, "}"])


def _add(graph: nx.MultiDiGraph[str], view: MemoryView, fact: Fact) -> None:
    ends = []
    for name in (fact.subject, fact.object):
        key = view.resolve(name) or name
        if key not in graph:
            graph.add_node(key, name=name)
        ends.append(key)
    label = view.catalogue.get(fact.relation).label
    implied = fact.implied_from is not None
    # The same key again changes nothing, so a fact met from both ends is one edge.
    graph.add_edge(*ends, key=(fact.relation, fact.id), fact=fact, relation=fact.relation, label=label, implied=implied)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
