from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint, EntryPoints
from importlib.util import find_spec
from pathlib import Path

import pytest

import memedit.models
from memedit.errors import InvalidSpec, MissingExtra, ModelNotFound
from memedit.models import load_model
from memedit.models.openai import OpenAIModel
from memedit.models.scripted import ScriptedModel


def echo_backend(rest: str) -> ScriptedModel:
    return ScriptedModel(rest, name="echo")


def test_a_model_is_given_back_as_it_is() -> None:
    model = ScriptedModel("yes")
    assert load_model(model) is model


def test_hf_loads_a_folder(tiny: Path) -> None:
    assert load_model(f"hf:{tiny}").name == f"hf:{tiny}"


def test_a_url_is_a_server_and_is_not_contacted() -> None:
    model = load_model("http://127.0.0.1:9/v1#tiny")
    assert isinstance(model, OpenAIModel)
    assert model.name == "openai:tiny"
    assert repr(model) == "OpenAIModel('http://127.0.0.1:9/v1', 'tiny')"


@pytest.mark.parametrize("spec", ["", "hf:", "vllm:", "gpt-9", "nosuch:thing", "/some/folder", "Embedded"])
def test_a_spec_that_means_nothing_lists_what_does(spec: str) -> None:
    with pytest.raises(InvalidSpec, match="'embedded', 'hf:NAME_OR_PATH', 'vllm:NAME_OR_PATH', 'http://host:port/v1'"):
        load_model(spec)


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed")
def test_vllm_where_it_is_not_installed_names_the_extra() -> None:
    with pytest.raises(MissingExtra, match="vllm") as caught:
        load_model("vllm:embedded")
    assert "memedit[gpu]" in caught.value.mend


def test_hf_with_a_missing_folder_is_not_found() -> None:
    with pytest.raises(ModelNotFound):
        load_model("hf:/no/such/folder")


def test_another_package_adds_a_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint("echo", f"{__name__}:echo_backend", "memedit.models")
    monkeypatch.setattr(memedit.models, "entry_points", lambda group: EntryPoints([entry]).select(group=group))
    assert load_model("echo:hello").generate(["?"])[0].text == "hello"
    assert load_model("echo").name == "echo"
    with pytest.raises(InvalidSpec, match="'echo'"):
        load_model("other:hello")


def test_importing_the_models_imports_nothing_heavy() -> None:
    code = (
        "import sys, memedit.models.openai, memedit.models.transformers, memedit.models.embedded, memedit.models.scripted\n"
        "heavy = {'torch', 'transformers', 'openai', 'gguf', 'tenacity', 'llguidance', 'numpy', 'huggingface_hub'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.strip() == "[]"
