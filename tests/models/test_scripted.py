from __future__ import annotations

import re

import pytest

from memedit.errors import BadModelResponse, PromptTooLong
from memedit.models.base import Completion, LanguageModel, Message, Prompt, Sampling
from memedit.models.scripted import Call, ScriptedModel

CHAT: list[Message] = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Who wrote Misery?"}]


def test_is_a_language_model() -> None:
    assert isinstance(ScriptedModel(), LanguageModel)


def test_replies_by_text_pattern_function_and_default() -> None:
    model = ScriptedModel(
        {
            "Who wrote Misery?": "Stephen King",
            re.compile(r"capital of (\w+)"): lambda prompt: prompt.upper(),
            str.isdigit: "a number",
        },
        default="I do not know.",
    )
    prompts: list[Prompt] = ["Who wrote Misery?", CHAT, "the capital of Peru", "1984", "Hello"]
    replies = [completion.text for completion in model.generate(prompts)]
    assert replies == ["Stephen King", "Stephen King", "THE CAPITAL OF PERU", "a number", "I do not know."]


def test_remembers_what_it_was_asked() -> None:
    model = ScriptedModel("yes")
    model.generate(["a", CHAT], Sampling(max_tokens=3))
    list(model.stream("b"))
    assert model.calls[0] == Call("a", Sampling(max_tokens=3))
    assert model.calls[1].prompt == "system: Be brief.\nuser: Who wrote Misery?"
    assert [call.prompt for call in model.calls[2:]] == ["b"]
    assert model.batches == [2, 1]


def test_cuts_at_stop_strings_and_the_limit() -> None:
    model = ScriptedModel("one two\nthree four")
    assert model.generate(["?"], Sampling(stop=("\n",)))[0].text == "one two"
    [completion] = model.generate(["?"], Sampling(max_tokens=3))
    assert completion == Completion("one two\nthree", 1, 3, "length")
    assert model.generate(["?"], Sampling(max_tokens=0))[0].text == ""


def test_streams_the_whole_reply() -> None:
    assert list(ScriptedModel(" one two ").stream("?")) == [" one", " two", " "]


def test_a_reply_that_is_missing_or_no_choice_is_an_error() -> None:
    with pytest.raises(BadModelResponse, match="no reply to 'Hello'"):
        ScriptedModel({"Bye": "Bye"}).generate(["Hello"])
    with pytest.raises(BadModelResponse, match="none of"):
        ScriptedModel("maybe").generate(["Hello"], Sampling(choices=("yes", "no")))
    assert ScriptedModel("yes").generate(["Hello"], Sampling(choices=("yes", "no")))[0].text == "yes"


def test_scores_the_scripted_reply_highest() -> None:
    right, wrong = ScriptedModel("Stephen King").score([(CHAT, " Stephen King"), (CHAT, " Jane Austen herself")])
    assert (right.log_probability, right.tokens, right.greedy, right.matched_tokens) == (0.0, 2, True, 2)
    assert (wrong.log_probability, wrong.tokens, wrong.greedy, wrong.matched_tokens) == (-3.0, 3, False, 0)
    assert right.likeliest == wrong.likeliest[:2]


def test_refuses_a_prompt_over_its_context() -> None:
    model = ScriptedModel("yes", context_length=10)
    assert model.context_length == 10
    with pytest.raises(PromptTooLong):
        model.generate(["one two three four"], Sampling(max_tokens=7))
