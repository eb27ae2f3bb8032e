"""The tools for agents, called through the mcp client in this process. The language model is scripted."""

from __future__ import annotations

import getpass
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import anyio
import pytest
from mcp import Client

from memedit import MemEditor
from memedit.memory.memory import EditMemory
from memedit.models.scripted import ScriptedModel
from memedit.server.mcp import make_server
from memedit.server.records import Records

_T = TypeVar("_T")


@pytest.fixture
def editor(memory: EditMemory, request: pytest.FixtureRequest) -> Iterator[MemEditor]:
    model = ScriptedModel("the base model's own words")
    with MemEditor(model, memory, namespace=f"mcp-{request.node.name}", model_plans=False) as editor:
        yield editor


def talk(editor: MemEditor, conversation: Callable[[Client], Awaitable[_T]], records: Records | None = None) -> _T:
    async def main() -> _T:
        async with Client(make_server(editor, records or Records(":memory:"))) as client:
            return await conversation(client)

    return anyio.run(main)


def call(editor: MemEditor, tool: str, **arguments: object) -> Any:
    """What a tool gave, as plain values."""
    result = talk(editor, lambda client: client.call_tool(tool, dict(arguments)))
    assert not result.is_error, result.content
    return result.structured_content


def refusal(editor: MemEditor, tool: str, **arguments: object) -> str:
    result = talk(editor, lambda client: client.call_tool(tool, dict(arguments)))
    assert result.is_error
    return str(result.content[0].text)  # type: ignore[union-attr]


def test_the_five_tools_are_offered_and_described(editor: MemEditor) -> None:
    listed = talk(editor, lambda client: client.list_tools())

    assert [tool.name for tool in listed.tools] == ["add_fact", "retract", "search", "ask", "explain"]
    assert all(tool.description for tool in listed.tools)


def test_a_fact_is_added_asked_for_searched_and_retracted(editor: MemEditor) -> None:
    question = "What is the capital of Japan?"
    added = call(editor, "add_fact", statement="The capital of Japan is Osaka.", source="an agent")

    answer = call(editor, "ask", question=question)
    found = call(editor, "search", text="Japanese capital", k=1)["result"]
    why = call(editor, "explain", question=question)
    gone = call(editor, "retract", fact_id=added["fact"]["id"])
    after = call(editor, "ask", question=question)

    assert (answer["text"], answer["in_scope"]) == ("Osaka", True)
    assert answer["edits"][0]["source"] == "an agent"
    assert [hop["object"] for hop in answer["hops"]] == ["Osaka"]
    assert found[0]["fact"]["id"] == added["fact"]["id"]
    assert why.get("result", why)["scope"][0]["fact_id"] == added["fact"]["id"]
    assert gone["end_reason"] == "retracted"
    assert (after["text"], after["in_scope"]) == ("the base model's own words", False)


def test_a_triple_with_times_is_added(editor: MemEditor) -> None:
    added = call(
        editor, "add_fact", subject="Initech", relation="chief executive officer", object="Bo Li",
        valid_from="2031-01-01T00:00:00Z",
    )  # fmt: skip

    assert added["fact"]["valid_from"] == "2031-01-01T00:00:00Z"


def test_errors_tell_the_agent_how_to_mend_them(editor: MemEditor) -> None:
    editor.add_fact("The capital of Japan is Osaka.")

    assert "no fact 999999" in refusal(editor, "retract", fact_id=999_999)
    assert "either a statement" in refusal(editor, "add_fact", source="me")
    assert "either a statement" in refusal(editor, "add_fact", subject="Japan")
    assert refusal(editor, "ask", question="  ")


def test_every_write_is_in_the_audit_log_with_the_operating_systems_user(editor: MemEditor) -> None:
    with Records(":memory:") as records:

        async def use(client: Client) -> int:
            added = await client.call_tool("add_fact", {"statement": "The capital of Japan is Osaka."})
            assert added.structured_content is not None
            fact: int = added.structured_content["fact"]["id"]
            await client.call_tool("retract", {"fact_id": fact})
            await client.call_tool("retract", {"fact_id": fact})
            await client.call_tool("search", {"text": "Japan"})
            return fact

        fact = talk(editor, use, records)
        entries = records.entries(editor.namespace)

    assert [(one.action, one.outcome, one.facts) for one in entries] == [
        ("add", "done", (fact,)),
        ("retract", "done", (fact,)),
        ("retract", "refused", ()),
    ]
    assert {one.key for one in entries} == {f"mcp:{getpass.getuser()}"}
    assert all(datetime.now(UTC) - one.at < timedelta(minutes=10) for one in entries)
