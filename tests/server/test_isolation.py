"""No namespace's fact reaches another's prompt or answer: a property over keys, namespaces and kinds of requests."""

from __future__ import annotations

import itertools
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from memedit.memory.fact import FactInput
from memedit.server.records import ALL, Role
from tests.server.conftest import Gate
from tests.server.upstream import MODEL, Upstream

QUESTION = "What is the capital of Japan?"
TWO_HOPS = "What is the capital of the country where Mount Fuji is located?"
_runs = itertools.count()


@dataclass(frozen=True)
class Kind:
    """A kind of request: how it is made, and whether the facts of its namespace are to be seen in it."""

    method: str
    path: str
    body: dict[str, Any] | None = None
    in_scope: bool = True


def chat(*texts: str, **more: Any) -> Kind:
    turns = [{"role": "assistant" if at % 2 else "user", "content": text} for at, text in enumerate(texts)]
    return Kind("POST", "/v1/chat/completions", {"model": MODEL, "messages": turns, **more})


KINDS = (
    chat(QUESTION),
    chat(QUESTION, stream=True),
    chat(TWO_HOPS),
    chat("Who rules Japan?", "Naruhito.", "And what is its capital?"),
    Kind("POST", "/v1/completions", {"model": MODEL, "prompt": "The capital of Japan is"}),
    Kind("POST", "/v1/completions", {"model": MODEL, "prompt": ["Once upon a time", QUESTION]}),
    Kind("POST", "/v1/chat/completions", {"messages": [{"role": "user", "content": "Write a haiku."}]}, in_scope=False),
    Kind("GET", "/v1/memory/facts"),
    Kind("GET", "/v1/memory/history?subject=Japan"),
    Kind("GET", "/v1/memory/search?q=capital%20of%20Japan&k=50"),
    Kind("GET", "/v1/memory/export"),
    Kind("POST", "/v1/memory/explain", {"question": QUESTION}),
)
NAMES = ("a", "b", "日本", "a b", "a%62")
"""Namespaces' names; some are easily taken for one another."""


@given(data=st.data())
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_fact_reaches_another_namespace(gate: Gate, upstream: Upstream, data: st.DataObject) -> None:
    run = next(_runs)
    places = {f"{gate.namespace}-{run}-{name}": f"Town{run}x{at}y" for at, name in enumerate(NAMES)}
    held = data.draw(st.sets(st.sampled_from(sorted(places)), min_size=1, max_size=3), label="held")
    for place in held:
        fact = FactInput(subject="Japan", relation="capital", object=places[place])
        gate.memory.assert_fact(fact, namespace=place)
    bound = data.draw(st.lists(st.sampled_from(sorted(places)), min_size=1, max_size=2, unique=True), label="bound")
    everywhere = data.draw(st.booleans(), label="everywhere")
    asked = data.draw(st.sampled_from([None, *sorted(places)]), label="asked")
    role = data.draw(st.sampled_from(list(Role)), label="role")
    kind = data.draw(st.sampled_from(KINDS), label="kind")
    _, text = gate.records.create_key("p", role, [*bound, ALL] if everywhere else bound)
    headers = {"authorization": f"Bearer {text}"}
    if asked is not None:
        headers["x-memedit-namespace"] = quote(asked, safe="")
    upstream.reset()

    answer = httpx.request(kind.method, f"{gate.url}{kind.path}", json=kind.body, headers=headers, timeout=120)

    place = asked or ("default" if everywhere else bound[0])
    allowed = everywhere or place in bound
    sent = b"".join(one.body + json.dumps(one.headers).encode() for one in upstream.sent).decode()
    told = sent + answer.text + str(answer.headers)
    assert (answer.status_code == 403) == (not allowed)
    for other, town in places.items():
        if other != place or other not in held or not allowed:
            assert town not in told, other
        elif kind.in_scope:
            assert town in told
