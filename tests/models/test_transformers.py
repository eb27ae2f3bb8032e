from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest

from memedit.errors import InvalidQuestion, InvalidSpec, ModelNotFound, PromptTooLong
from memedit.models.base import Message, Sampling
from memedit.models.transformers import TransformersModel

from .conftest import save_tokenizer

SHARED = "The capital of Peru is Lima. Question: who wrote Misery? Answer: Stephen King. Question: " * 2
PROMPTS = [
    f"{SHARED}what is the capital of France? Answer:",
    f"{SHARED}who? Answer:",
    f"{SHARED}who wrote the capital of Peru, and is it in France or in Peru? Answer:",
    f"{SHARED}Misery",
]
UNLIKE = [
    "France",
    "The capital of France is Paris, and the capital of Peru",
    "{",
    "Question: who wrote Misery? Answer:",
]
CHAT: list[Message] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Who wrote Misery?"},
]


@pytest.fixture(scope="module")
def model(tiny: Path) -> TransformersModel:
    return TransformersModel(tiny)


@contextmanager
def watched_batches(model: TransformersModel) -> Iterator[list[tuple[int, int]]]:
    """The shape (rows, tokens) of every forward pass."""
    shapes: list[tuple[int, int]] = []
    network: Any = cast("Any", model._network).model

    def note(module: object, args: object, kwargs: dict[str, Any]) -> None:
        shapes.append(tuple(kwargs["input_ids"].shape))

    hook = network.register_forward_pre_hook(note, with_kwargs=True)
    try:
        yield shapes
    finally:
        hook.remove()


def reference(model: TransformersModel, prompt: str, tokens: int) -> str:
    """What the library's own greedy decoding writes for one prompt."""
    import torch

    network: Any = cast("Any", model._network).model
    tokenizer: Any = cast("Any", model._tokenizer).tokenizer
    inputs = tokenizer(prompt, return_tensors="pt")
    with torch.inference_mode():
        output = network.generate(**inputs, max_new_tokens=tokens, do_sample=False, pad_token_id=0)
    return str(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))


def texts(model: TransformersModel, prompts: list[str], sampling: Sampling) -> list[str]:
    return [completion.text for completion in model.generate(prompts, sampling)]


# -- what is written ------------------------------------------------------------------------------------------------


def test_writes_what_the_librarys_own_greedy_decoding_writes(any_tiny: Path) -> None:
    model = TransformersModel(any_tiny)
    prompts = PROMPTS + UNLIKE
    assert texts(model, prompts, Sampling(max_tokens=20)) == [reference(model, prompt, 20) for prompt in prompts]


def test_a_prompt_gets_the_same_text_alone_and_in_a_batch(any_tiny: Path) -> None:
    model = TransformersModel(any_tiny, prefixes=0)
    together = texts(model, PROMPTS + UNLIKE, Sampling(max_tokens=16))
    assert together == [texts(model, [prompt], Sampling(max_tokens=16))[0] for prompt in PROMPTS + UNLIKE]


def test_a_shared_prefix_changes_no_text_and_no_count(tiny: Path) -> None:
    sampling = Sampling(max_tokens=16)
    sharing, plain = TransformersModel(tiny), TransformersModel(tiny, prefixes=0)
    assert sharing.generate(PROMPTS + UNLIKE, sampling) == plain.generate(PROMPTS + UNLIKE, sampling)
    assert len(sharing._decoder._kept) == 1


def test_a_shared_prefix_is_run_once_and_kept(tiny: Path) -> None:
    model = TransformersModel(tiny)
    whole = max(model.count_tokens(prompt) for prompt in PROMPTS)
    with watched_batches(model) as first:
        model.generate(PROMPTS, Sampling(max_tokens=1))
    with watched_batches(model) as second:
        model.generate(PROMPTS, Sampling(max_tokens=1))
    [(one, prefix), (rows, rest)] = first
    assert (one, rows) == (1, len(PROMPTS))
    assert prefix >= 32
    assert prefix + rest == whole
    assert second == [(rows, rest)]


def test_prompts_asked_one_by_one_come_to_share_their_prefix_too(tiny: Path) -> None:
    model = TransformersModel(tiny)
    answers = [texts(model, [prompt], Sampling(max_tokens=8))[0] for prompt in PROMPTS]
    with watched_batches(model) as shapes:
        model.generate([f"{SHARED}who wrote Peru? Answer:"], Sampling(max_tokens=1))
    assert sum(tokens for _, tokens in shapes) < 32
    assert answers == texts(TransformersModel(tiny, prefixes=0), PROMPTS, Sampling(max_tokens=8))


def test_only_the_last_prefixes_are_kept(tiny: Path) -> None:
    model = TransformersModel(tiny, prefixes=2)
    for start in ("A", "B", "C"):
        model.generate([start * 40 + end for end in "xyzuvw"], Sampling(max_tokens=1))
    assert len(model._decoder._kept) == 2


def test_rows_that_are_done_leave_the_batch(model: TransformersModel) -> None:
    long, short = UNLIKE[1], UNLIKE[3]
    stop = texts(model, [short], Sampling(max_tokens=4))[0][:2]
    with watched_batches(model) as shapes:
        together = model.generate([long, short], Sampling(max_tokens=12, stop=(stop,)))
    assert [shapes[0][0], shapes[-1][0]] == [2, 1]
    assert together[0] == model.generate([long], Sampling(max_tokens=12, stop=(stop,)))[0]


def test_batches_keep_to_rows_and_tokens(tiny: Path) -> None:
    prompts = [f"{number} {'France ' * number}" for number in range(1, 25)]
    model = TransformersModel(tiny, batch_size=5, batch_tokens=200, prefixes=0)
    with watched_batches(model) as shapes:
        model.generate(prompts, Sampling(max_tokens=1))
    assert all(rows <= 5 for rows, _ in shapes)
    assert all(rows * (tokens + 1) <= 200 for rows, tokens in shapes)
    assert sum(rows for rows, _ in shapes) == len(prompts)


def test_text_ends_before_the_first_stop_string(model: TransformersModel) -> None:
    [whole] = model.generate([UNLIKE[1]], Sampling(max_tokens=20))
    early, late = whole.text[3:5], whole.text[8:10]
    [cut] = model.generate([UNLIKE[1]], Sampling(max_tokens=20, stop=(late, early)))
    assert cut.text == whole.text[: whole.text.index(early)]
    assert cut.finish_reason == "stop"
    assert cut.completion_tokens < whole.completion_tokens


def test_the_limit_of_tokens_is_kept(model: TransformersModel) -> None:
    [completion] = model.generate(["France"], Sampling(max_tokens=5))
    assert (completion.completion_tokens, completion.finish_reason) == (5, "length")
    [nothing] = model.generate(["France"], Sampling(max_tokens=0))
    assert (nothing.text, nothing.completion_tokens, nothing.finish_reason) == ("", 0, "length")


def test_no_prompts_give_no_completions(model: TransformersModel) -> None:
    assert model.generate([]) == []
    assert model.score([]) == []


def test_sampling_with_a_seed_is_repeatable_alone_and_in_a_batch(model: TransformersModel) -> None:
    sampling = Sampling(max_tokens=12, temperature=1.0, seed=11)
    together = texts(model, UNLIKE, sampling)
    assert together == [texts(model, [prompt], sampling)[0] for prompt in UNLIKE]
    assert together != texts(model, UNLIKE, Sampling(max_tokens=12, temperature=1.0, seed=12))


# -- choices and schemas -----------------------------------------------------------------------------------------------


def test_the_likeliest_choice_wins(model: TransformersModel) -> None:
    prompt = "The capital of Peru is"
    choices = ("Lima", "Paris", "Stephen King", "France")
    scores = model.score([(prompt, f" {choice}") for choice in choices])
    best = max(zip(scores, choices, strict=True), key=lambda pair: pair[0].log_probability)[1]
    [completion] = model.generate([prompt], Sampling(choices=choices))
    assert completion.text == best
    assert completion.finish_reason == "stop"


@pytest.mark.parametrize("wanted", ["Paris", "Paris.", "Paris. The"])
def test_a_choice_that_begins_another_can_lose_and_win(model: TransformersModel, wanted: str) -> None:
    choices = ("Paris", "Paris.", "Paris. The")
    likelier = dict.fromkeys(choices, -9.0) | {wanted: -1.0}
    scored: list[str] = []

    def score(pairs: Any) -> Any:
        from memedit.models.base import Score

        scored.extend(continuation for _, continuation in pairs)
        return [Score(likelier[continuation.strip()], 1, greedy=False) for _, continuation in pairs]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "score", score)
        assert texts(model, ["France"], Sampling(choices=choices)) == [wanted]
    assert scored == [" Paris\n", " Paris.\n", " Paris. The\n"]


def test_each_prompt_of_a_batch_gets_its_own_choice(model: TransformersModel) -> None:
    choices = ("Lima", "Paris", "King", "France")
    sampling = Sampling(choices=choices)
    assert texts(model, UNLIKE, sampling) == [texts(model, [prompt], sampling)[0] for prompt in UNLIKE]


def test_output_follows_a_schema(model: TransformersModel) -> None:
    schema = {
        "type": "object",
        "properties": {
            "start": {"enum": ["France", "Peru"]},
            "relations": {"type": "array", "items": {"enum": ["capital", "author"]}, "minItems": 1, "maxItems": 2},
        },
        "required": ["start", "relations"],
        "additionalProperties": False,
    }
    completions = model.generate([*UNLIKE, CHAT], Sampling(max_tokens=60, json_schema=schema))
    for completion in completions:
        plan = json.loads(completion.text)
        assert list(plan) == ["start", "relations"]
        assert plan["start"] in ("France", "Peru")
        assert 1 <= len(plan["relations"]) <= 2
        assert set(plan["relations"]) <= {"capital", "author"}
        assert completion.finish_reason == "stop"


def test_a_schema_that_cannot_be_followed_is_refused(model: TransformersModel) -> None:
    with pytest.raises(InvalidSpec, match="JSON schema"):
        model.generate(["France"], Sampling(json_schema={"type": "no such type"}))


# -- streams, scores, counts ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prompt", [*UNLIKE, CHAT])
def test_pieces_joined_are_the_text(model: TransformersModel, prompt: Any) -> None:
    sampling = Sampling(max_tokens=40)
    whole = model.generate([prompt], sampling)[0].text
    pieces = list(model.stream(prompt, sampling))
    assert "".join(pieces) == whole
    assert len(pieces) > 3


def test_a_stream_never_shows_what_a_stop_string_takes_back(model: TransformersModel) -> None:
    whole = model.generate([UNLIKE[1]], Sampling(max_tokens=30))[0].text
    sampling = Sampling(max_tokens=30, stop=(whole[6:10],))
    assert "".join(model.stream(UNLIKE[1], sampling)) == model.generate([UNLIKE[1]], sampling)[0].text


def test_a_stream_of_choices_is_the_choice(model: TransformersModel) -> None:
    sampling = Sampling(choices=("Lima", "Paris"))
    assert list(model.stream("France", sampling)) == texts(model, ["France"], sampling)


def test_scores_are_the_models_log_probabilities(any_tiny: Path) -> None:
    import torch

    model = TransformersModel(any_tiny)
    pairs = [
        (PROMPTS[0], " Paris."),
        (PROMPTS[1], " Stephen King wrote it"),
        ("France", " is"),
        ("The", " capital of Peru"),
    ]
    network: Any = cast("Any", model._network).model
    tokenizer: Any = cast("Any", model._tokenizer).tokenizer
    expected, likeliest, matched = [], [], []
    for prompt, continuation in pairs:
        before, tokens = (tokenizer(text)["input_ids"] for text in (prompt, prompt + continuation))
        assert tokens[: len(before)] == before
        with torch.inference_mode():
            logits = network(input_ids=torch.tensor([tokens])).logits[0].log_softmax(-1)
        places = range(len(before), len(tokens))
        expected.append(sum(float(logits[at - 1, tokens[at]]) for at in places))
        likeliest.append(tuple(int(logits[at - 1].argmax()) for at in places))
        matched.append(sum(int(logits[at - 1].argmax()) == tokens[at] for at in places))
    scores = model.score(pairs)
    assert [score.log_probability for score in scores] == pytest.approx(expected, abs=1e-3)
    assert [(score.likeliest, score.matched_tokens) for score in scores] == list(zip(likeliest, matched, strict=True))
    assert [score.tokens for score in scores] == [
        model.count_tokens(prompt + continuation) - model.count_tokens(prompt) for prompt, continuation in pairs
    ]


def test_what_the_model_would_write_scores_as_greedy(model: TransformersModel) -> None:
    prompts = [f"{prompt} {number}" for prompt in UNLIKE for number in range(20)]
    written = texts(model, prompts, Sampling(max_tokens=1))
    readable = [(prompt, text) for prompt, text in zip(prompts, written, strict=True) if text.isalnum()]
    assert readable
    scores = model.score(readable)
    others = model.score([(prompt, "Paris" if text != "Paris" else "Lima") for prompt, text in readable])
    for score, other in zip(scores, others, strict=True):
        assert score.greedy
        assert not other.greedy
        assert score.log_probability > other.log_probability


def test_a_token_over_the_boundary_counts_as_the_continuations(model: TransformersModel) -> None:
    [score] = model.score([("The capital of Peru is Li", "ma")])
    [nothing] = model.score([("The capital of Peru", "")])
    [whole] = model.score([("Li", "ma")])
    assert score.tokens == 1
    assert (nothing.log_probability, nothing.tokens) == (0.0, 0)
    assert whole.tokens > 0


def test_a_chat_is_rendered_with_the_models_template(model: TransformersModel) -> None:
    raw = "<|system|>Be brief.<|end|><|user|>Who wrote Misery?<|end|><|assistant|>"
    assert model.count_tokens(CHAT) == model.count_tokens(raw)
    assert model.generate([CHAT], Sampling(max_tokens=9)) == model.generate([raw], Sampling(max_tokens=9))


def test_without_a_template_the_last_user_message_is_the_prompt(tiny: Path, tmp_path: Path) -> None:
    for file in tiny.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "chat_template.jinja").unlink()
    save_tokenizer(tmp_path, template=None)
    model = TransformersModel(tmp_path)
    assert model.generate([CHAT]) == model.generate(["Who wrote Misery?"])


# -- bad input ---------------------------------------------------------------------------------------------------------


def test_a_prompt_over_the_context_is_refused(model: TransformersModel) -> None:
    with pytest.raises(PromptTooLong, match="256"):
        model.generate(["France", "x " * 300])
    with pytest.raises(PromptTooLong):
        model.generate(["France"], Sampling(max_tokens=256))
    with pytest.raises(PromptTooLong):
        model.score([("France", "x " * 300)])


@pytest.mark.parametrize(
    "call",
    [
        lambda model: model.generate([""]),
        lambda model: model.stream(""),
        lambda model: model.score([("", "Paris")]),
    ],
    ids=["generate", "stream", "score"],
)
def test_an_empty_prompt_is_refused(model: TransformersModel, call: Callable[[TransformersModel], object]) -> None:
    with pytest.raises(InvalidQuestion):
        call(model)


@pytest.mark.parametrize("missing", ["/no/such/folder", "./no-such-folder", "no/such/folder", "~/no-such-folder"])
def test_a_path_that_does_not_exist_is_not_found(missing: str) -> None:
    with pytest.raises(ModelNotFound, match="no folder"):
        TransformersModel(missing)


def test_a_folder_that_holds_no_model_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="cannot be loaded"):
        TransformersModel(tmp_path)


def test_a_torn_weights_file_is_not_found(tiny: Path, tmp_path: Path) -> None:
    for file in tiny.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes()[: 5000 if file.suffix == ".safetensors" else None])
    with pytest.raises(ModelNotFound, match="cannot be loaded"):
        TransformersModel(tmp_path)


def test_a_hub_that_cannot_be_reached_is_said_at_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(ModelNotFound, match="hub cannot be reached"):
        TransformersModel("memedit-tests/no-such-model")


@pytest.mark.parametrize("options", [{"dtype": "float99"}, {"device": "no-such-device"}])
def test_unknown_dtype_and_device_are_refused(tiny: Path, options: dict[str, str]) -> None:
    with pytest.raises(InvalidSpec):
        TransformersModel(tiny, dtype=options.get("dtype"), device=options.get("device"))
