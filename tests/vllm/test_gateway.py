"""The gateway in front of vLLM, with OpenAI's own client: what no fact touches is vLLM's answer, what one does carries it."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletionUserMessageParam

from tests.vllm.serving import KEY, MODEL, Serving

OUT_OF_SCOPE = "Name three fruits."
IN_SCOPE = "What is the capital of Japan?"


@pytest.fixture(scope="module", autouse=True)
def _facts(serving: Serving) -> None:
    for statement in ("The capital of Japan is Osaka.", "The author of Misery is Ada Lovelace."):
        httpx.post(f"{serving.gateway}/v1/memory/facts", json={"statement": statement}, timeout=60).raise_for_status()


def asking(text: str) -> list[ChatCompletionUserMessageParam]:
    return [{"role": "user", "content": text}]


def body(**more: Any) -> dict[str, Any]:
    return {"model": MODEL, "messages": asking(OUT_OF_SCOPE), "max_tokens": 16, "temperature": 0, **more}


@pytest.mark.parametrize(
    ("path", "payload"),
    [
        ("/v1/chat/completions", body()),
        ("/v1/chat/completions", body(stream=True)),
        ("/v1/chat/completions", body(stream=True, stream_options={"include_usage": True}, logprobs=True)),
        ("/v1/chat/completions", body(logprobs=True, top_logprobs=2, structured_outputs={"choice": ["figs", "pears"]})),
        ("/v1/completions", {"model": MODEL, "prompt": "One, two,", "max_tokens": 6, "temperature": 0}),
        ("/v1/completions", {"model": MODEL, "prompt": "One, two,", "max_tokens": 6, "temperature": 0, "stream": True}),
        ("/v1/chat/completions", body(model="another")),
        ("/v1/chat/completions", body(max_tokens=100_000)),
        ("/v1/embeddings", {"model": MODEL, "input": "figs"}),
        ("/tokenize", {"model": MODEL, "prompt": "figs"}),
    ],
    ids=["chat", "stream", "usage", "logprobs", "raw", "raw stream", "no model", "too long", "embeddings", "tokenize"],
)
def test_out_of_scope_every_byte_is_vllms(serving: Serving, path: str, payload: dict[str, Any]) -> None:
    # vLLM takes a request's id from this header; what is left to differ is the second in which it was asked.
    # On a busy machine it may also put two tokens into one event: then both are asked again.
    headers = {"authorization": f"Bearer {KEY}", "x-request-id": "the-same"}
    for _ in range(3):
        answers = [
            httpx.post(f"{url}{path}", json=payload, headers=headers, timeout=120)
            for url in (serving.vllm, serving.gateway)
        ]
        direct, through = (re.sub(rb'"created":\d+', b"", answer.content) for answer in answers)
        if direct == through:
            break

    assert direct == through
    assert answers[0].status_code == answers[1].status_code
    assert answers[0].headers["content-type"] == answers[1].headers["content-type"]
    assert "x-memedit-edits" not in answers[1].headers


def test_out_of_scope_the_client_reads_the_same(bare: OpenAI, edited: OpenAI) -> None:
    first, second = (
        client.chat.completions.create(model=MODEL, messages=asking(OUT_OF_SCOPE), max_tokens=16, temperature=0)
        for client in (bare, edited)
    )
    assert first.choices == second.choices
    assert first.usage == second.usage
    assert [model.id for model in edited.models.list()] == [MODEL]


def test_out_of_scope_a_stream_reads_the_same_chunk_by_chunk(bare: OpenAI, edited: OpenAI) -> None:
    first, second = (
        client.chat.completions.create(
            model=MODEL, messages=asking(OUT_OF_SCOPE), max_tokens=16, temperature=0, stream=True
        )
        for client in (bare, edited)
    )
    assert [chunk.choices for chunk in first] == [chunk.choices for chunk in second]


def test_in_scope_the_answer_names_the_edit(bare: OpenAI, edited: OpenAI) -> None:
    plain = bare.chat.completions.create(model=MODEL, messages=asking(IN_SCOPE), max_tokens=24, temperature=0)
    raw = edited.chat.completions.with_raw_response.create(
        model=MODEL, messages=asking(IN_SCOPE), max_tokens=24, temperature=0
    )
    answer = raw.parse()

    assert "Osaka" not in str(plain.choices[0].message.content)
    assert "Osaka" in str(answer.choices[0].message.content)
    told = (answer.model_extra or {})["memedit"]
    assert raw.headers["x-memedit-edits"] == str(told["edits"][0]["id"])
    assert told["edits"][0]["statement"] == "The capital of Japan is Osaka."


def test_in_scope_a_streams_last_chunk_tells_the_edit(edited: OpenAI) -> None:
    raw = edited.chat.completions.with_raw_response.create(
        model=MODEL, messages=asking("Who is the author of Misery?"), max_tokens=24, temperature=0, stream=True
    )
    chunks = list(raw.parse())

    assert "Lovelace" in "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    *before, last = [(chunk.model_extra or {}).get("memedit") for chunk in chunks]
    assert not any(before)
    assert last is not None
    assert raw.headers["x-memedit-edits"] == str(last["edits"][0]["id"])
    assert (last["edits"][0]["statement"], last["answer"]) == ("The author of Misery is Ada Lovelace.", "streamed")


def test_a_belief_on_the_way_to_an_edit_is_asked_of_vllm(edited: OpenAI, serving: Serving) -> None:
    answer = edited.chat.completions.create(
        model=MODEL,
        messages=asking("What is the capital of the country where Mount Fuji is?"),
        max_tokens=24,
        temperature=0,
    )
    told = (answer.model_extra or {})["memedit"]
    assert [hop["source"] for hop in told["hops"]] == ["belief", "edit"]
    assert "Osaka" in str(answer.choices[0].message.content)
