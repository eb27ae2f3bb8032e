"""The gateway: what no edit is in scope of passes through as bytes, what one is carries it and says so."""

from __future__ import annotations

import gzip
import json
from typing import Any

import httpx
import openai
import pytest
from fastapi import Response

from memedit.prompts.data import reminder
from memedit.server.records import Role
from tests.server.conftest import Gate
from tests.server.upstream import MODEL, SSE, Upstream, completion, stream

FACT = "The capital of Japan is Osaka."
QUESTION = "What is the capital of Japan?"
TWO_HOPS = "What is the capital of the country where Mount Fuji is located?"
UNRELATED = "Who painted the Mona Lisa?"


def events(body: bytes) -> list[dict[str, Any]]:
    """The JSON chunks of a stream."""
    lines = [line[6:] for line in body.split(b"\n") if line.startswith(b"data: ")]
    return [json.loads(line) for line in lines if line != b"[DONE]"]


class TestOutOfScope:
    def test_request_and_answer_pass_as_the_bytes_they_are(self, gate: Gate, upstream: Upstream) -> None:
        gate.know(FACT)
        body = (
            b'{ "model":"scripted-1","messages":[{"role":"system","content":"Be \\u0062rief"},{"role":"user",'
            b'"content":[{"type":"text","text":"Who painted this?"},{"type":"image_url","image_url":{"url":"data:,x"}}]}],'
            b'"logprobs":true,"top_logprobs":2,"tools":[{"type":"function","function":{"name":"f"}}],"odd":1.50}'
        )

        answer = gate.client.post("/v1/chat/completions", content=body, headers={"x-request-id": "r1"})

        [sent] = upstream.sent
        assert sent.body == body
        assert sent.headers["x-request-id"] == "r1"
        assert answer.content == completion(sent, f"base: {sent.last}").body
        assert "x-memedit-edits" not in answer.headers
        assert "memedit" not in answer.json()

    def test_a_stream_passes_byte_for_byte_wherever_its_pieces_break(self, gate: Gate, upstream: Upstream) -> None:
        gate.know(FACT)
        upstream.answer = lambda sent: stream(SSE)

        answer = gate.chat(UNRELATED, stream=True, stream_options={"include_usage": True})

        assert answer.content == b"".join(SSE)
        assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
        assert answer.headers["x-odd"] == "yes"

    def test_a_stream_comes_as_it_is_written_and_not_at_its_end(self, gate: Gate, upstream: Upstream) -> None:
        upstream.answer = lambda sent: stream(SSE)

        with gate.client.stream(
            "POST", "/v1/chat/completions", json={"messages": [{"role": "user", "content": UNRELATED}], "stream": True}
        ) as answer:
            pieces = list(answer.iter_raw())

        assert len(pieces) > 1
        assert b"".join(pieces) == b"".join(SSE)

    def test_a_compressed_answer_stays_compressed(self, gate: Gate, upstream: Upstream) -> None:
        packed = gzip.compress(b'{"choices": []}', mtime=0)
        upstream.answer = lambda sent: Response(packed, headers={"content-encoding": "gzip"}, media_type="text/json")

        with gate.client.stream(
            "POST", "/v1/chat/completions", json={"messages": [{"role": "user", "content": "Hi"}]}
        ) as answer:
            raw = b"".join(answer.iter_raw())

        assert raw == packed
        assert answer.headers["content-encoding"] == "gzip"

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"{",
            b"[1]",
            b'{"messages": 3}',
            b'{"messages": [{"role": "user", "content": 7}]}',
            b"\xff\xfe",
            b"[" * 5000,
        ],
    )
    def test_what_cannot_be_read_is_left_to_the_upstream_server(
        self, gate: Gate, upstream: Upstream, body: bytes
    ) -> None:
        upstream.answer = lambda sent: Response(b'{"error": {"message": "no"}}', 400)

        answer = gate.client.post("/v1/chat/completions", content=body)

        assert (answer.status_code, answer.content) == (400, b'{"error": {"message": "no"}}')
        assert upstream.sent[0].body == body

    def test_token_ids_pass(self, gate: Gate, upstream: Upstream) -> None:
        gate.know(FACT)
        body = b'{"prompt": [1, 2, 3], "model": "m"}'
        upstream.answer = lambda sent: Response(b"{}")

        gate.client.post("/v1/completions", content=body)

        assert upstream.sent[0].body == body

    def test_other_paths_pass_with_method_query_headers_and_body(self, gate: Gate, upstream: Upstream) -> None:
        with gate.client.stream(
            "PUT", "/v1/odd%2Fpath?a=%20b&a=2", content=b"\x00\xff",
            headers={"x-thing": "1", "accept-encoding": "gzip", **gate.as_role(Role.ADMIN)},
        ) as answer:  # fmt: skip
            raw = b"".join(answer.iter_raw())

        [sent] = upstream.sent
        assert (sent.method, sent.query, sent.body, sent.headers["x-thing"]) == ("PUT", "a=%20b&a=2", b"\x00\xff", "1")
        assert sent.headers["accept-encoding"] == "gzip"
        assert answer.status_code == 207
        assert raw == gzip.compress(b"odd \x00\xff", mtime=0)
        assert answer.headers.get_list("set-cookie") == ["a=1", "b=2"]

    def test_models_are_those_of_the_upstream_server(self, gate: Gate, upstream: Upstream) -> None:
        assert gate.client.get("/v1/models").content == httpx.get(f"{upstream.url}/v1/models").content

    def test_no_key_and_no_header_of_ours_reaches_the_upstream_server(self, gate: Gate, upstream: Upstream) -> None:
        gate.client.post(
            "/v1/chat/completions",
            json={"messages": [{"role": "user", "content": "Hi"}]},
            headers={"x-memedit-namespace": gate.namespace},
        )
        gate.client.get("/v1/odd", headers={"x-memedit-key": gate.keys[Role.ADMIN], "authorization": "Bearer theirs"})

        chat, odd = upstream.sent
        assert "authorization" not in chat.headers
        assert odd.headers["authorization"] == "Bearer theirs"
        assert not [name for one in upstream.sent for name in one.headers if name.startswith("x-memedit")]
        assert not any(key in str(one.headers) for key in gate.keys.values() for one in upstream.sent)


class TestInScope:
    def test_the_edit_is_in_the_last_users_turn_and_all_else_is_kept(self, gate: Gate, upstream: Upstream) -> None:
        gate.know(FACT)
        messages = [
            {"role": "system", "content": "You are terse."},
            {"role": "user", "content": "Hello"},
            {"role": "assistant", "content": None, "tool_calls": [{"id": "t", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": "t", "content": "The capital is Tokyo."},
            {"role": "user", "content": QUESTION},
        ]  # fmt: skip
        upstream.reply = lambda sent: "It is Osaka."

        gate.client.post("/v1/chat/completions", json={"model": "m", "messages": messages, "odd": 1.5, "n": 1})

        [sent] = upstream.completions
        assert sent.json["messages"][:-1] == messages[:-1]
        assert {name: value for name, value in sent.json.items() if name != "messages"} == {
            "model": "m",
            "odd": 1.5,
            "n": 1,
        }
        last = sent.json["messages"][-1]["content"]
        assert last.endswith(f"\n\n{QUESTION}\n\n{reminder('Osaka')}")
        assert f"<facts>\n- {FACT}\n</facts>" in last

    def test_the_answer_says_which_edits_were_used_and_is_otherwise_untouched(
        self, gate: Gate, upstream: Upstream
    ) -> None:
        [fact] = gate.know(FACT)
        upstream.reply = lambda sent: "It is Osaka."

        answer = gate.chat(QUESTION)

        [sent] = upstream.completions
        original = completion(sent, "It is Osaka.").body
        told = answer.json()["memedit"]
        assert answer.headers["x-memedit-edits"] == str(fact)
        assert told["edits"] == [{"id": fact, "statement": FACT, "implied": False}]
        assert told["answer"] == "carried"
        [hop] = told["hops"]
        assert (hop["entity"], hop["relation"], hop["object"], hop["source"]) == ("Japan", "capital", "Osaka", "edit")
        assert answer.content.startswith(bytes(original).rstrip()[:-1])
        assert int(answer.headers["content-length"]) == len(answer.content)

    def test_a_chain_is_resolved_with_beliefs_of_the_upstream_model(self, gate: Gate, upstream: Upstream) -> None:
        gate.know(FACT)
        upstream.reply = lambda sent: "That would be Osaka."

        answer = gate.chat(TWO_HOPS)

        hops = answer.json()["memedit"]["hops"]
        assert [(hop["object"], hop["source"]) for hop in hops] == [("Japan", "belief"), ("Osaka", "edit")]
        [sent] = upstream.completions
        assert "So what is asked for is: Osaka" in sent.last
        assert len(upstream.sent) == 2  # one unedited hop, one answer

    def test_content_in_parts_gets_the_edit_as_a_part(self, gate: Gate, upstream: Upstream) -> None:
        gate.know(FACT)
        upstream.reply = lambda sent: "Osaka"
        image = {"type": "image_url", "image_url": {"url": "data:,x"}}
        parts = [image, {"type": "text", "text": QUESTION}]

        gate.client.post("/v1/chat/completions", json={"messages": [{"role": "user", "content": parts}]})

        [note, *rest] = upstream.completions[0].json["messages"][0]["content"]
        assert rest == [*parts, {"type": "text", "text": reminder("Osaka")}]
        assert note["type"] == "text"
        assert FACT in note["text"]

    def test_a_stream_has_the_field_in_its_last_chunk_and_comes_untouched_before_it(
        self, gate: Gate, upstream: Upstream
    ) -> None:
        [fact] = gate.know(FACT)
        upstream.answer = lambda sent: stream(SSE)

        answer = gate.chat(QUESTION, stream=True)

        plain = b"".join(SSE)
        chunks = events(answer.content)
        assert answer.headers["x-memedit-edits"] == str(fact)
        assert [("memedit" in chunk) for chunk in chunks] == [False, False, False, True]
        assert chunks[-1]["memedit"]["edits"][0]["id"] == fact
        cut = answer.content.index(b',"memedit"')
        assert plain.startswith(answer.content[:cut])
        assert answer.content.endswith(b"}\n\ndata: [DONE]\n\n")

    def test_a_stream_without_a_closing_chunk_gets_one(self, gate: Gate, upstream: Upstream) -> None:
        gate.know(FACT)
        upstream.answer = lambda sent: stream((SSE[0], b"data: [DONE]\n\n"))

        chunks = events(gate.chat(QUESTION, stream=True).content)

        assert chunks[-1]["choices"] == []
        assert chunks[-1]["memedit"]["answer"] == "streamed"

    def test_an_answer_without_the_edit_is_asked_for_once_more(self, gate: Gate, upstream: Upstream) -> None:
        gate.know(FACT)
        upstream.reply = lambda sent: "Osaka." if "Answer with it" in sent.last else "It is Tokyo."

        answer = gate.chat(QUESTION).json()

        assert answer["choices"][0]["message"]["content"] == "Osaka."
        assert answer["memedit"]["answer"] == "asked_again"
        assert len(upstream.completions) == 2

    def test_an_answer_that_never_carries_the_edit_gives_way_to_it(self, gate: Gate, upstream: Upstream) -> None:
        gate.know(FACT)
        upstream.reply = lambda sent: "It is Tokyo."

        answer = gate.chat(QUESTION, logprobs=True).json()

        assert answer["choices"][0]["message"]["content"] == FACT
        assert answer["memedit"]["answer"] == "given"
        assert len(upstream.completions) == 2

    def test_the_edit_is_given_where_asking_again_fails(self, gate: Gate, upstream: Upstream) -> None:
        gate.know(FACT)
        upstream.answer = lambda sent: (
            Response(b"{}", headers={"content-length": "500"})
            if "Answer with it" in sent.last
            else completion(sent, "It is Tokyo.")
        )

        answer = gate.chat(QUESTION)

        assert (answer.status_code, answer.json()["memedit"]["answer"]) == (200, "given")
        assert answer.json()["choices"][0]["message"]["content"] == FACT

    def test_of_several_choices_those_without_the_edit_give_way_to_it(self, gate: Gate, upstream: Upstream) -> None:
        gate.know(FACT)
        texts = ["It is Tokyo.", "Osaka it is.", "Kyoto."]
        choices = [
            {"index": at, "finish_reason": "stop", "logprobs": {"content": []}, "message": {"role": "assistant", "content": text}}
            for at, text in enumerate(texts)
        ]  # fmt: skip
        upstream.answer = lambda sent: Response(json.dumps({"choices": choices}), media_type="application/json")

        answer = gate.chat(QUESTION, n=3).json()

        assert [one["message"]["content"] for one in answer["choices"]] == [FACT, "Osaka it is.", FACT]
        assert answer["choices"][1] == choices[1]
        assert answer["choices"][0]["logprobs"] is None
        assert answer["memedit"]["answer"] == "given"

    def test_each_prompt_of_a_batch_is_held_to_its_own_edit(self, gate: Gate, upstream: Upstream) -> None:
        gate.know(FACT, "The capital of Peru is Cusco.")
        said = [" Tokyo", " Leonardo", " Cusco"]
        choices = [{"index": at, "text": text} for at, text in enumerate(said)]
        upstream.answer = lambda sent: Response(json.dumps({"choices": choices}), media_type="application/json")
        prompts = ["The capital of Japan is", "The Mona Lisa was painted by", "The capital of Peru is"]

        answer = gate.client.post("/v1/completions", json={"model": MODEL, "prompt": prompts}).json()

        again = upstream.completions[1].json["prompt"]
        assert [one["text"] for one in answer["choices"]] == [FACT, " Leonardo", " Cusco"]
        assert again[0].endswith(reminder("Osaka", again=True))
        assert again[1] == prompts[1]
        assert answer["memedit"]["answer"] == "given"

    def test_an_answer_that_must_have_a_form_is_not_replaced(self, gate: Gate, upstream: Upstream) -> None:
        gate.know(FACT)
        upstream.reply = lambda sent: '{"city": "Tokyo"}'

        answer = gate.chat(QUESTION, response_format={"type": "json_object"}).json()

        assert answer["choices"][0]["message"]["content"] == '{"city": "Tokyo"}'
        assert answer["memedit"]["answer"] == "missed"

    def test_a_tool_call_is_not_checked(self, gate: Gate, upstream: Upstream) -> None:
        gate.know(FACT)
        call = {
            "index": 0,
            "finish_reason": "tool_calls",
            "message": {"role": "assistant", "content": None, "tool_calls": [{"id": "t"}]},
        }
        upstream.answer = lambda sent: Response(json.dumps({"choices": [call]}), media_type="application/json")

        answer = gate.chat(QUESTION).json()

        assert answer["choices"] == [call]
        assert answer["memedit"]["answer"] == "unchecked"
        assert len(upstream.completions) == 1

    def test_a_completion_carries_the_edit_before_its_prompt(self, gate: Gate, upstream: Upstream) -> None:
        [fact] = gate.know(FACT)
        upstream.reply = lambda sent: " Osaka"

        answer = gate.client.post("/v1/completions", json={"model": MODEL, "prompt": "The capital of Japan is"})

        assert answer.headers["x-memedit-edits"] == str(fact)
        assert upstream.completions[0].last.endswith("</facts>\n\nThe capital of Japan is")
        assert answer.json()["choices"][0]["text"] == " Osaka"

    def test_each_prompt_of_a_batch_gets_its_own_edits(self, gate: Gate, upstream: Upstream) -> None:
        gate.know(FACT)
        body = {"model": MODEL, "prompt": [QUESTION, UNRELATED]}

        gate.client.post("/v1/completions", json=body)

        first, second = upstream.completions[0].json["prompt"]
        assert FACT in first
        assert second == UNRELATED

    def test_a_retracted_fact_is_in_no_prompt(self, gate: Gate, upstream: Upstream) -> None:
        [fact] = gate.know(FACT)
        gate.client.delete(f"/v1/memory/facts/{fact}").raise_for_status()

        answer = gate.chat(QUESTION)

        assert upstream.completions[0].last == QUESTION
        assert "memedit" not in answer.json()

    def test_an_error_of_the_upstream_server_passes(self, gate: Gate, upstream: Upstream) -> None:
        gate.know(FACT)
        upstream.answer = lambda sent: Response(b'{"error": {"message": "full"}}', 429, {"retry-after": "3"})

        answer = gate.chat(QUESTION)

        assert (answer.status_code, answer.content) == (429, b'{"error": {"message": "full"}}')
        assert answer.headers["retry-after"] == "3"


class TestUpstreamFailures:
    def test_a_stream_that_breaks_off_ends_with_an_error_in_openais_shape(self, gate: Gate, upstream: Upstream) -> None:
        for knows in (False, True):
            if knows:
                gate.know(FACT)
            upstream.answer = lambda sent: stream(SSE[:2], break_off=True)

            answer = gate.chat(QUESTION, stream=True)

            last = answer.content.rstrip().rsplit(b"\n\ndata: ", 1)[-1]
            assert json.loads(last)["error"]["code"] == "bad_model_response"
            assert answer.content.startswith(SSE[0])
            assert b"Osa" not in answer.content  # half an event cannot be read

    def test_an_answer_that_breaks_off_is_an_error(self, gate: Gate, upstream: Upstream) -> None:
        upstream.answer = lambda sent: Response(b"{}", headers={"content-length": "500"})

        answer = gate.chat(UNRELATED)

        assert answer.status_code == 502
        assert answer.json()["error"]["type"] == "upstream_error"

    def test_a_broken_body_of_another_path_breaks_off_here_too(self, gate: Gate) -> None:
        with pytest.raises(httpx.RemoteProtocolError):
            gate.client.get("/v1/abort", headers=gate.as_role(Role.ADMIN))


class TestOpenAIClient:
    def test_chat_streams_and_completions_work_with_one_changed_url(self, gate: Gate, upstream: Upstream) -> None:
        [fact] = gate.know(FACT)
        upstream.reply = lambda sent: "It is Osaka now."
        client = openai.OpenAI(base_url=f"{gate.url}/v1", api_key=gate.keys[Role.READER], max_retries=0)

        whole = client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": QUESTION}])
        pieces = list(
            client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": QUESTION}], stream=True)
        )
        text = client.completions.create(model=MODEL, prompt=QUESTION)

        assert whole.choices[0].message.content == "It is Osaka now."
        assert (whole.model_extra or {})["memedit"]["edits"][0]["id"] == fact
        assert (
            "".join(one.choices[0].delta.content or "" for one in pieces if one.choices).strip() == "It is Osaka now."
        )
        assert (pieces[-1].model_extra or {})["memedit"]["edits"][0]["id"] == fact
        assert text.choices[0].text == "It is Osaka now."
        assert [model.id for model in client.models.list()] == [MODEL]

    def test_errors_are_the_clients_own(self, gate: Gate, upstream: Upstream) -> None:
        stranger = openai.OpenAI(base_url=f"{gate.url}/v1", api_key="mk_no_key", max_retries=0)
        client = openai.OpenAI(base_url=f"{gate.url}/v1", api_key=gate.keys[Role.READER], max_retries=0)
        upstream.answer = lambda sent: stream(SSE[:2], break_off=True)

        with pytest.raises(openai.AuthenticationError, match="memedit keys create"):
            stranger.models.list()
        with pytest.raises(openai.APIError, match="broke off"):
            list(client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": "Hi"}], stream=True))


def test_a_belief_is_asked_of_the_model_that_the_request_names(gate: Gate, upstream: Upstream) -> None:
    gate.know(FACT)

    answer = gate.chat(TWO_HOPS, model="no-such-model")

    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "model_not_found"
