from __future__ import annotations

import logging
import socket
import time
from dataclasses import replace
from typing import Any

import pytest

from memedit.errors import (
    BadModelResponse,
    InvalidQuestion,
    InvalidSpec,
    MemEditError,
    ModelNotFound,
    ModelTimeout,
    ModelUnavailable,
    PromptTooLong,
)
from memedit.models.base import Message, Prompt, Sampling
from memedit.models.openai import OpenAIModel

from .server import Reply, Server, chat_completion, completion

CHAT: list[Message] = [{"role": "user", "content": "Who wrote Misery?"}]
COMPLETIONS, CHATS = "/v1/completions", "/v1/chat/completions"


def answering(text: str) -> Any:
    return lambda path, body: completion(text) if path == COMPLETIONS else chat_completion(text)


def test_raw_prompt_goes_to_completions_and_chat_to_chat_completions() -> None:
    with Server(answering("Stephen King")) as server:
        model = OpenAIModel(server.url)
        raw, chat = model.generate(["Q: Who wrote Misery?\nA:", CHAT], Sampling(max_tokens=9, stop=("\n",), seed=3))

    assert (raw.text, raw.prompt_tokens, raw.completion_tokens, raw.finish_reason) == ("Stephen King", 7, 2, "stop")
    assert chat.text == "Stephen King"
    [sent] = server.sent(COMPLETIONS)
    assert sent == {
        "model": "tiny",
        "prompt": "Q: Who wrote Misery?\nA:",
        "max_tokens": 9,
        "temperature": 0.0,
        "stop": ["\n"],
        "seed": 3,
    }
    assert server.sent(CHATS)[0]["messages"] == CHAT


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        ({"token_logprobs": [-0.5, -0.25]}, -0.75),
        ({"content": [{"token": "a", "logprob": -1.0}, {"token": "b", "logprob": -2}]}, -3.0),
        (None, None),
        ({"token_logprobs": [-0.5, None]}, None),
        ({"content": [{"token": "a"}]}, None),
    ],
)
def test_the_probability_of_a_completion_is_told_where_it_is_asked_for(told: object, expected: float | None) -> None:
    reply = Reply({"choices": [{"text": "Oslo", "finish_reason": "stop", "logprobs": told}]})
    with Server(lambda path, body: reply) as server:
        model = OpenAIModel(server.url)
        [asked] = model.generate(["The capital is"], Sampling(probability=True))
        [unasked] = model.generate(["The capital is"])

    assert (asked.log_probability, unasked.log_probability) == (expected, None)
    assert ["logprobs" in sent for sent in server.sent(COMPLETIONS)] == [True, False]


def test_many_prompts_run_side_by_side_and_keep_their_order() -> None:
    def behave(path: str, body: dict[str, Any]) -> Reply:
        number = int(body["prompt"])
        reply = completion(f"answer {number}")
        reply.delay = 0.05 if number % 2 else 0.01
        return reply

    with Server(behave) as server:
        completions = OpenAIModel(server.url, concurrency=4).generate([str(number) for number in range(24)])

    assert [done.text for done in completions] == [f"answer {number}" for number in range(24)]
    assert 2 <= server.most_at_once <= 4


def test_takes_name_and_context_length_from_the_server() -> None:
    with Server(answering("yes"), context_length=321) as server:
        model = OpenAIModel(server.url)
        assert model.name == "openai:tiny"
        assert model.context_length == 321


def test_a_length_stop_is_reported() -> None:
    with Server(lambda path, body: completion("and so on and", finish_reason="length")) as server:
        assert OpenAIModel(server.url).generate(["Go on"])[0].finish_reason == "length"


def test_a_server_that_counts_no_tokens_costs_none() -> None:
    with Server(lambda path, body: Reply({"choices": [{"text": "yes", "finish_reason": "stop"}]})) as server:
        [done] = OpenAIModel(server.url).generate(["Go on"])
    assert (done.text, done.prompt_tokens, done.completion_tokens) == ("yes", 0, 0)


# -- a server that fails -------------------------------------------------------------------------------------------


def test_server_that_is_down_is_unavailable() -> None:
    with socket.socket() as taken:  # bound, but nobody listens
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        with pytest.raises(ModelUnavailable, match="cannot be reached"):
            OpenAIModel(url, retries=1).generate(["Hello"])


@pytest.mark.parametrize("prompts", [["Hello"], ["Hello"] * 3])
def test_slow_server_times_out_within_the_deadline(prompts: list[Prompt]) -> None:
    with Server(lambda path, body: Reply(delay=6.0)) as server:
        model = OpenAIModel(server.url, timeout=0.3)
        begun = time.monotonic()
        with pytest.raises(ModelTimeout, match=r"0\.3 s"):
            model.generate(prompts)
        assert time.monotonic() - begun < 5.0


@pytest.mark.parametrize(
    "reply",
    [
        Reply(b"<html>It works!</html>", content_type="text/html"),
        Reply(b'{"choices": [{"te', content_type="application/json"),
        Reply(b"\xff\xfe\x00", content_type="application/json"),
        Reply({"result": "Stephen King"}),
        Reply({"choices": []}),
        Reply({"choices": "Stephen King"}),
        Reply({"choices": [{"index": 0, "finish_reason": "stop"}]}),
        Reply(["Stephen King"]),
        Reply(None),
    ],
    ids=["html", "cut off", "no text", "no choices", "empty", "string", "without text", "list", "null"],
)
@pytest.mark.parametrize("prompt", ["Hello", CHAT], ids=["raw", "chat"])
def test_garbage_is_a_bad_response(reply: Reply, prompt: Prompt) -> None:
    with Server(lambda path, body: reply) as server, pytest.raises(BadModelResponse, match=r"127\.0\.0\.1"):
        OpenAIModel(server.url).generate([prompt])


def test_a_page_where_the_list_of_models_should_be_is_a_bad_response() -> None:
    with Server(answering("yes")) as server:
        server.models = []
        with pytest.raises(BadModelResponse, match="lists no model"):
            OpenAIModel(server.url).generate(["Hello"])


@pytest.mark.parametrize(
    "failure",
    [
        Reply(hang_up=True),
        Reply({"error": {"message": "busy"}}, status=429),
        Reply({}, status=503),
        Reply({}, status=500),
    ],
    ids=["hangs up", "429", "503", "500"],
)
def test_a_passing_failure_is_tried_again(failure: Reply) -> None:
    replies = iter([failure, completion("Stephen King")])
    with Server(lambda path, body: next(replies)) as server:
        assert OpenAIModel(server.url).generate(["Who wrote Misery?"])[0].text == "Stephen King"
    assert len(server.requests) == 2


def test_waits_as_long_as_the_server_asks() -> None:
    replies = iter([Reply({}, status=429, headers={"Retry-After": "0.5"}), completion("yes")])
    with Server(lambda path, body: next(replies)) as server:
        begun = time.monotonic()
        OpenAIModel(server.url).generate(["Hello"])
        assert time.monotonic() - begun >= 0.5


@pytest.mark.parametrize("failure", [Reply(hang_up=True), Reply({}, status=500)], ids=["hangs up", "500"])
def test_a_lasting_failure_is_unavailable_after_the_retries(failure: Reply) -> None:
    with Server(lambda path, body: failure) as server, pytest.raises(ModelUnavailable):
        OpenAIModel(server.url, retries=2).generate(["Hello"])
    assert len(server.requests) == 3


def test_retries_end_with_the_deadline() -> None:
    busy = Reply({}, status=429, headers={"Retry-After": "30"})
    with Server(lambda path, body: busy) as server:
        begun = time.monotonic()
        with pytest.raises(ModelUnavailable, match="429"):
            OpenAIModel(server.url, timeout=1.0).generate(["Hello"])
        assert time.monotonic() - begun < 10.0


@pytest.mark.parametrize(
    ("status", "message", "expected"),
    [
        (400, "This model's maximum context length is 512 tokens. You requested 700.", PromptTooLong),
        (400, "The prompt (length 700) exceeds max_model_len.", PromptTooLong),
        (400, "Unknown sampling option.", ModelUnavailable),
        (401, "Unauthorized", ModelUnavailable),
        (404, "The model `huge` does not exist.", ModelNotFound),
        (504, "upstream request timeout", ModelTimeout),
    ],
)
def test_refusals_are_told_apart(status: int, message: str, expected: type[MemEditError]) -> None:
    refusal = Reply({"error": {"message": message, "code": status}}, status=status)
    with Server(lambda path, body: refusal) as server, pytest.raises(expected) as caught:
        OpenAIModel(server.url, retries=0).generate(["Hello"])
    assert type(caught.value) is expected
    assert caught.value.mend


def test_model_the_server_does_not_serve_is_not_found() -> None:
    with Server(answering("yes")) as server, pytest.raises(ModelNotFound, match=r"'huge'.*It serves: tiny"):
        OpenAIModel(server.url, "huge").generate(["Hello"])


def test_empty_prompt_is_refused_before_it_is_sent() -> None:
    prompts: list[Prompt] = ["", []]
    with Server(answering("yes")) as server:
        for prompt in prompts:
            with pytest.raises(InvalidQuestion):
                OpenAIModel(server.url).generate([prompt])
    assert server.requests == []


def test_what_is_no_url_is_refused() -> None:
    with pytest.raises(InvalidSpec, match="localhost:8000"):
        OpenAIModel("localhost:8000")


def test_api_key_stays_out_of_messages_logs_and_repr(caplog: pytest.LogCaptureFixture) -> None:
    key = "sk-very-secret-1234567890"
    refusal = Reply({"error": {"message": f"The key {key} may not do this."}}, status=400)
    caplog.set_level(logging.DEBUG)
    with Server(lambda path, body: refusal) as server:
        model = OpenAIModel(server.url, api_key=key, retries=0)
        with pytest.raises(ModelUnavailable) as caught:
            model.generate(["Hello"])
    assert key not in str(caught.value)
    assert key not in repr(model)
    assert key not in caplog.text


def test_password_of_a_url_stays_out_of_messages() -> None:
    model = OpenAIModel("http://me:hunter2@127.0.0.1:9/v1", retries=0)
    with pytest.raises(ModelUnavailable) as caught:
        model.generate(["Hello"])
    assert "hunter2" not in str(caught.value) + repr(model)


# -- structured output ---------------------------------------------------------------------------------------------


SCHEMA = {"type": "object", "properties": {"start": {"type": "string"}}}


def test_vllm_gets_structured_outputs() -> None:
    with Server(answering('{"start": "x"}'), owner="vllm") as server:
        OpenAIModel(server.url).generate(["Plan:"], Sampling(json_schema=SCHEMA))
    assert server.sent(COMPLETIONS)[0]["structured_outputs"] == {"json": SCHEMA}


def test_another_server_gets_a_response_format() -> None:
    with Server(answering('{"start": "x"}'), owner="someone") as server:
        OpenAIModel(server.url).generate([CHAT], Sampling(json_schema=SCHEMA))
    sent = server.sent(CHATS)[0]
    assert sent["response_format"]["json_schema"]["schema"] == SCHEMA
    assert "structured_outputs" not in sent


def test_vllm_chooses_and_the_leading_space_is_taken_off_again() -> None:
    with Server(lambda path, body: completion(" Lima")) as server:
        [done] = OpenAIModel(server.url).generate(["The capital of Peru is"], Sampling(choices=("Lima", "Cusco")))
    assert done.text == "Lima"
    assert server.sent(COMPLETIONS)[0]["structured_outputs"] == {"choice": [" Lima", " Cusco"]}


def test_vllm_answer_outside_the_choices_is_a_bad_response() -> None:
    with Server(answering("Quito")) as server, pytest.raises(BadModelResponse, match="'Quito'"):
        OpenAIModel(server.url).generate([CHAT], Sampling(choices=("Lima", "Cusco")))


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ("Lima", "Lima"),
        (" lima.", "Lima"),
        ("New York City, of course", "New York City"),
        ("I think it is Cusco", "Cusco"),
        ("Limma", "Lima"),
    ],
)
def test_another_servers_free_answer_is_read_as_the_nearest_choice(said: str, meant: str) -> None:
    with Server(answering(said), owner="someone") as server:
        model = OpenAIModel(server.url)
        [done] = model.generate([CHAT], Sampling(choices=("Lima", "Cusco", "New York", "New York City")))
    assert done.text == meant
    assert "structured_outputs" not in server.sent(CHATS)[0]


# -- scores and counts ---------------------------------------------------------------------------------------------


def tokenizing(path: str, body: dict[str, Any]) -> Reply:
    """A token a word, numbered by its length; the probability of a token is exp(-its number)."""
    if path == "/tokenize":
        text = body["prompt"] if "prompt" in body else " ".join(turn["content"] for turn in body["messages"])
        return Reply({"tokens": [len(word) for word in text.split()]})
    probabilities = [
        {str(token): {"logprob": -float(token), "rank": 1 if token < 5 else 2}}
        | ({"0": {"logprob": -0.1, "rank": 1}} if token >= 5 else {})
        for token in body["prompt"]
    ]
    return completion("", prompt_logprobs=[None, *probabilities[1:]])


def test_scores_are_sums_over_the_continuations_tokens() -> None:
    with Server(tokenizing) as server:
        easy, hard, empty, chat = OpenAIModel(server.url).score(
            [("a bb ccc", " dddd"), ("a bb", " cccccc ddd"), ("a bb", ""), (CHAT, "yes")]
        )
    assert (easy.log_probability, easy.tokens, easy.greedy, easy.matched_tokens) == (-4.0, 1, True, 1)
    assert (hard.log_probability, hard.tokens, hard.greedy, hard.matched_tokens) == (-9.0, 2, False, 1)
    assert (easy.likeliest, hard.likeliest) == ((4,), (0, 3))
    assert (empty.log_probability, empty.tokens) == (0.0, 0)
    assert (chat.log_probability, chat.tokens) == (-3.0, 1)


def test_scoring_elsewhere_says_that_it_needs_vllm() -> None:
    with Server(tokenizing, owner="someone") as server, pytest.raises(InvalidSpec, match="vLLM"):
        OpenAIModel(server.url).score([("a", "b")])


def test_tokens_are_counted_by_vllm_and_estimated_elsewhere() -> None:
    with Server(tokenizing) as server:
        assert OpenAIModel(server.url).count_tokens("one two three") == 3
        assert OpenAIModel(server.url).count_tokens(CHAT) == 3
    with Server(tokenizing, owner="someone") as server:
        model = OpenAIModel(server.url)
        assert model.count_tokens("one two three") >= 3
        assert model.count_tokens(CHAT) > model.count_tokens(CHAT[0]["content"])
        assert server.requests == []


# -- streams -------------------------------------------------------------------------------------------------------


def pieces(*texts: str) -> list[object]:
    events: list[object] = [{"choices": [{"index": 0, "text": text, "finish_reason": None}]} for text in texts]
    return [*events, {"choices": [{"index": 0, "text": "", "finish_reason": "stop"}]}, {"choices": [], "usage": {}}]


def test_raw_prompt_streams() -> None:
    with Server(lambda path, body: Reply(events=pieces("Stephen", " King"))) as server:
        assert list(OpenAIModel(server.url).stream("Who wrote Misery?")) == ["Stephen", " King"]
    assert server.requests[0][1]["stream"] is True


def test_chat_streams() -> None:
    events: list[object] = [
        {"choices": [{"index": 0, "delta": {"role": "assistant"}, "finish_reason": None}]},
        {"choices": [{"index": 0, "delta": {"content": "Stephen King"}, "finish_reason": None}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
    ]
    with Server(lambda path, body: Reply(events=events)) as server:
        assert list(OpenAIModel(server.url).stream(CHAT)) == ["Stephen King"]


@pytest.mark.parametrize(
    ("ending", "expected"),
    [(Reply(hang_up=True), ModelUnavailable), (Reply(ends=False), BadModelResponse)],
    ids=["connection lost", "just ends"],
)
def test_stream_that_breaks_off_is_an_error_after_its_pieces(ending: Reply, expected: type[Exception]) -> None:
    with Server(lambda path, body: replace(ending, events=pieces("Stephen", " King")[:2])) as server:
        stream = OpenAIModel(server.url).stream("Who wrote Misery?")
        assert [next(stream), next(stream)] == ["Stephen", " King"]
        with pytest.raises(expected):
            next(stream)


@pytest.mark.parametrize("event", ["{not json", {"error": {"message": "out of memory"}}], ids=["garbage", "error"])
def test_stream_of_nonsense_is_a_bad_response(event: object) -> None:
    with Server(lambda path, body: Reply(events=[event])) as server, pytest.raises(BadModelResponse):
        list(OpenAIModel(server.url).stream("Who wrote Misery?"))
