"""vLLM's prefix cache: prompts of one namespace share it, those of two do not, and the hit rate can be read."""

from __future__ import annotations

import re
import time

import httpx
import pytest

from memedit.editor import MemEditor
from memedit.models.base import Sampling
from memedit.models.caching import CacheUsage
from memedit.models.openai import OpenAIModel
from tests.vllm.serving import KEY, MODEL, Serving

SHORT = Sampling(max_tokens=1)


@pytest.fixture
def model(serving: Serving) -> OpenAIModel:
    return OpenAIModel(f"{serving.vllm}/v1", api_key=KEY, timeout=300.0)


def used(model: OpenAIModel, since: CacheUsage) -> CacheUsage:
    """What was looked up and found since then, once vLLM has counted it."""
    for _ in range(100):
        now = model.cache_usage()
        assert now is not None
        if now.queried > since.queried:
            return CacheUsage(now.queried - since.queried, now.hits - since.hits)
        time.sleep(0.05)
    raise AssertionError("vLLM counted nothing")


def usage(model: OpenAIModel) -> CacheUsage:
    found = model.cache_usage()
    assert found is not None
    return found


def test_repeated_prompts_are_found_and_the_rate_rises(model: OpenAIModel) -> None:
    prompt = "The first of two prompts that begin alike, and at some length. " * 10
    start = usage(model)
    model.salted("one").generate([f"{prompt}A"], SHORT)
    first = used(model, start)
    before = usage(model)
    model.salted("one").generate([f"{prompt}B"], SHORT)
    second = used(model, before)

    assert first.rate < 0.1
    assert second.rate > 0.9
    assert usage(model).hits > before.hits


def test_prompts_of_another_salt_are_not_found(model: OpenAIModel) -> None:
    prompt = "What one tenant asks is nothing that another may learn by the clock. " * 10
    model.salted("one").generate([prompt], SHORT)
    before = usage(model)
    model.salted("two").generate([prompt], SHORT)
    assert used(model, before).hits == 0


def test_scores_are_taken_under_a_salt(model: OpenAIModel) -> None:
    salted = model.salted("one")
    assert salted.score([("The capital of France is", " Paris")]) == model.score(
        [("The capital of France is", " Paris")]
    )


def test_the_editor_shares_within_a_namespace_only(model: OpenAIModel) -> None:
    question = "Which of these came first: " + ", ".join(f"thing {number}" for number in range(40)) + "?"
    rates = []
    with MemEditor(model, strategy="base") as editor:
        for namespace in ("a", "a", "b"):
            before = usage(model)
            editor.ask(question, namespace=namespace)
            rates.append(used(model, before).rate)

    assert rates[1] > 0.8
    assert rates[2] < 0.1


def test_the_gateway_shares_prompts_with_facts_within_a_namespace_only(serving: Serving, model: OpenAIModel) -> None:
    rates = []
    for namespace in ("tenant-a", "tenant-b"):
        headers = {"x-memedit-namespace": namespace}
        fact = {"statement": "The capital of Peru is Cusco."}
        httpx.post(f"{serving.gateway}/v1/memory/facts", json=fact, headers=headers, timeout=60).raise_for_status()
    for namespace in ("tenant-a", "tenant-a", "tenant-b"):
        before = usage(model)
        answer = httpx.post(
            f"{serving.gateway}/v1/chat/completions",
            json={"model": MODEL, "messages": [{"role": "user", "content": "What is the capital of Peru?"}],
                  "temperature": 0, "max_tokens": 12, "stream": True},
            headers={"x-memedit-namespace": namespace},
            timeout=120,
        )  # fmt: skip
        assert answer.headers["x-memedit-edits"]
        rates.append(used(model, before).rate)

    assert rates[1] > 0.5
    assert rates[2] == rates[0]


def test_the_gateways_figures_tell_the_hit_rate(serving: Serving, model: OpenAIModel) -> None:
    figures = httpx.get(f"{serving.gateway}/metrics", timeout=30).text
    found = re.search(r"^memedit_upstream_prefix_cache_hit_ratio (\S+)$", figures, re.MULTILINE)
    assert found is not None
    assert float(found[1]) == pytest.approx(usage(model).rate, abs=0.02)
    assert float(found[1]) > 0
