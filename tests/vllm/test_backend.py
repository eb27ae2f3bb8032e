"""`OpenAIModel` against vLLM, beside the same weights computed by memedit itself."""

from __future__ import annotations

import json

import pytest

from memedit.errors import InvalidQuestion, ModelNotFound, ModelUnavailable, PromptTooLong
from memedit.models.base import LanguageModel, Message, Prompt, Sampling
from memedit.models.embedded import load_embedded
from memedit.models.openai import OpenAIModel
from tests.vllm.serving import KEY, MODEL, Serving

CHAT: list[Message] = [{"role": "user", "content": "What is the capital of France?"}]
SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string", "maxLength": 12}, "sure": {"type": "boolean"}},
    "required": ["city", "sure"],
    "additionalProperties": False,
}


@pytest.fixture
def model(serving: Serving) -> OpenAIModel:
    return OpenAIModel(f"{serving.vllm}/v1", api_key=KEY, timeout=300.0)


@pytest.fixture(scope="module")
def embedded() -> LanguageModel:
    return load_embedded()


def test_name_and_context_length_are_vllms(model: OpenAIModel) -> None:
    assert (model.name, model.context_length) == (f"openai:{MODEL}", 2048)


def test_greedy_text_is_that_of_the_same_weights_in_this_process(model: OpenAIModel, embedded: LanguageModel) -> None:
    prompts: list[Prompt] = ["The capital of Italy is", CHAT, "Water boils at"]
    theirs, ours = (one.generate(prompts, Sampling(max_tokens=8)) for one in (model, embedded))

    assert [done.text for done in theirs] == [done.text for done in ours]
    assert [done.prompt_tokens for done in theirs] == [done.prompt_tokens for done in ours]
    assert [done.finish_reason for done in theirs] == [done.finish_reason for done in ours]


def test_a_batch_keeps_its_order(model: OpenAIModel) -> None:
    names = ["France", "Italy", "Spain", "Peru", "Japan", "Egypt"]
    together = model.generate([f"The capital of {name} is" for name in names], Sampling(max_tokens=3))
    alone = [model.generate([f"The capital of {name} is"], Sampling(max_tokens=3))[0] for name in names]
    assert [done.text for done in together] == [done.text for done in alone]


def test_a_stream_is_the_same_text_in_pieces(model: OpenAIModel) -> None:
    pieces = list(model.stream(CHAT, Sampling(max_tokens=12)))
    assert len(pieces) > 2
    assert "".join(pieces) == model.generate([CHAT], Sampling(max_tokens=12))[0].text


def test_output_follows_a_schema(model: OpenAIModel) -> None:
    [done] = model.generate([CHAT], Sampling(max_tokens=40, json_schema=SCHEMA))
    answer = json.loads(done.text)
    assert set(answer) == {"city", "sure"}
    assert isinstance(answer["sure"], bool)


@pytest.mark.parametrize("prompt", ["Is Paris in France? Answer yes or no:", CHAT])
def test_output_is_one_of_the_choices(model: OpenAIModel, prompt: str | list[Message]) -> None:
    assert model.generate([prompt], Sampling(choices=("yes", "no")))[0].text in ("yes", "no")


def test_stop_strings_and_lengths_are_kept(model: OpenAIModel) -> None:
    [cut] = model.generate(["One, two, three,"], Sampling(max_tokens=4))
    [stopped] = model.generate([CHAT], Sampling(max_tokens=12, stop=(" of",)))
    assert (cut.completion_tokens, cut.finish_reason) == (4, "length")
    assert stopped.text == "The capital"


def test_log_probabilities_are_those_of_the_same_weights(model: OpenAIModel, embedded: LanguageModel) -> None:
    pairs: list[tuple[Prompt, str]] = [
        ("The capital of France is", " Paris"),
        ("The capital of France is", " Rome, of course"),
        (CHAT, "Paris"),
    ]
    for ours, theirs in zip(embedded.score(pairs), model.score(pairs), strict=True):
        assert theirs.log_probability == pytest.approx(ours.log_probability, abs=2e-3)
        assert theirs[1:] == ours[1:]


def test_prompts_are_counted_as_vllm_reads_them(model: OpenAIModel, embedded: LanguageModel) -> None:
    for prompt in ("The capital of France is", CHAT):
        assert model.count_tokens(prompt) == embedded.count_tokens(prompt)


def test_what_vllm_refuses_has_its_own_error(model: OpenAIModel, serving: Serving) -> None:
    with pytest.raises(PromptTooLong):
        model.generate(["word " * 3000], Sampling(max_tokens=8))
    with pytest.raises(InvalidQuestion):
        model.generate([""])
    with pytest.raises(ModelNotFound, match=MODEL):
        OpenAIModel(f"{serving.vllm}/v1", "another", api_key=KEY).generate(["Hello"])
    with pytest.raises(ModelUnavailable, match="refuses the API key"):
        OpenAIModel(f"{serving.vllm}/v1", api_key="wrong").generate(["Hello"])
