"""Salts of the prefix cache and its figures, against a server by script; tests/vllm has them against vLLM."""

from __future__ import annotations

import json
from typing import Any

import pytest

from memedit.editor import MemEditor
from memedit.models.base import Message, Sampling
from memedit.models.caching import CacheUsage, Salted, cache_salt, cache_usage
from memedit.models.openai import OpenAIModel
from memedit.models.scripted import ScriptedModel

from .server import Reply, Server, chat_completion, completion

CHAT: list[Message] = [{"role": "user", "content": "Who wrote Misery?"}]
COMPLETIONS, CHATS = "/v1/completions", "/v1/chat/completions"


def answering(path: str, body: dict[str, Any]) -> Reply:
    if body.get("prompt_logprobs"):
        entries = [None, *({str(token): {"logprob": -1.0, "rank": 2}} for token in body["prompt"][1:])]
        return completion("yes", prompt_logprobs=entries)
    if path == "/tokenize":
        return Reply({"tokens": list(range(len(json.dumps(body))))})
    if path == "/metrics":
        text = 'vllm:prefix_cache_queries_total{engine="0"} 200.0\nvllm:prefix_cache_hits_total{engine="0"} 150.0\n'
        return Reply(text.encode(), content_type="text/plain")
    return completion("yes") if path == COMPLETIONS else chat_completion("yes")


def test_a_salted_model_sends_its_salt_with_every_prompt() -> None:
    with Server(answering) as server:
        plain = OpenAIModel(server.url)
        model = plain.salted("mine")
        model.generate(["Go on", CHAT])
        model.generate(["Go on"], Sampling(choices=("yes", "no")))
        model.score([("Go", " on")])
        plain.generate(["Go on"])

    *salted, free = server.sent(COMPLETIONS)
    assert [body["cache_salt"] for body in (*salted, *server.sent(CHATS))] == ["mine"] * 4
    assert salted[1]["structured_outputs"] == {"choice": [" yes", " no"]}
    assert "cache_salt" not in free


def test_a_server_that_is_not_vllm_is_sent_no_salt_and_tells_no_figures() -> None:
    with Server(answering, owner="someone") as server:
        model = OpenAIModel(server.url).salted("mine")
        model.generate(["Go on"])
        assert model.cache_usage() is None

    assert "cache_salt" not in server.sent(COMPLETIONS)[0]


def test_the_models_of_all_salts_share_what_the_server_said() -> None:
    with Server(answering) as server:
        model = OpenAIModel(server.url)
        model.salted("a").generate(["Go on"])
        server.models.clear()
        assert model.salted("b").generate(["Go on"])[0].text == "yes"


def test_the_hit_rate_is_read_from_the_servers_figures() -> None:
    with Server(answering) as server:
        usage = OpenAIModel(server.url).cache_usage()
    assert usage == CacheUsage(200, 150)
    assert usage.rate == 0.75


def test_the_figures_of_several_engines_are_added_up_and_nothing_is_no_rate() -> None:
    text = (
        "# TYPE vllm:prefix_cache_queries_total counter\n"
        'vllm:prefix_cache_queries_total{engine="0"} 1.5e3\nvllm:prefix_cache_queries_total{engine="1"} 500.0\n'
        'vllm:prefix_cache_hits_total{engine="1"} 1000.0\nvllm:prefix_cache_queries_created{engine="0"} 1.7e+09\n'
    )
    assert cache_usage(text) == CacheUsage(2000, 1000)
    assert cache_usage("up 1\n") is None
    assert CacheUsage(0, 0).rate == 0.0


def test_salts_differ_by_namespace_and_by_secret_and_suit_vllm() -> None:
    salts = {cache_salt(name, secret) for name in ("a", "b", "größe/ä@") for secret in (b"", b"x", b"y")}
    assert len(salts) == 9
    assert all(salt.isalnum() and len(salt) == 32 for salt in salts)


@pytest.mark.parametrize("ask", ["ask", "ask_many", "chat"])
def test_the_editor_asks_for_each_namespace_under_its_own_salt(ask: str) -> None:
    with Server(answering) as server, MemEditor(OpenAIModel(server.url), strategy="base") as editor:
        for namespace in ("a", "b", "a"):
            if ask == "chat":
                editor.chat(CHAT, namespace=namespace)
            elif ask == "ask":
                editor.ask("Who wrote Misery?", namespace=namespace)
            else:
                editor.ask_many(["Who wrote Misery?", "Who wrote It?"], namespace=namespace)

    salts = [body["cache_salt"] for path, body in server.requests if path in (COMPLETIONS, CHATS)]
    assert list(dict.fromkeys(salts)) == [cache_salt("a"), cache_salt("b")]


def test_questions_of_several_namespaces_asked_together_keep_order_and_salts() -> None:
    with Server(answering) as server, MemEditor(OpenAIModel(server.url), strategy="base") as editor:
        views = [editor.view(namespace=name) for name in ("a", "b", "a")]
        told: list[int] = []
        answers = editor.answer_views(
            [(f"Question {number}?", view) for number, view in enumerate(views)],
            on_answer=lambda place, answer: told.append(place),
        )

    assert [answer.question for answer in answers] == ["Question 0?", "Question 1?", "Question 2?"]
    assert sorted(told) == [0, 1, 2]
    sent = {body["messages"][-1]["content"][len("Question ")]: body["cache_salt"] for body in server.sent(CHATS)}
    assert sent == {"0": cache_salt("a"), "1": cache_salt("b"), "2": cache_salt("a")}


def test_a_model_without_such_a_cache_is_used_as_it_is() -> None:
    model = ScriptedModel({}, default="yes")
    assert not isinstance(model, Salted)
    assert MemEditor(model, strategy="base").ask("Who wrote Misery?").text == "yes"
