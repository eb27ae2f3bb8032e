"""The bare tokenizer: what transformers makes of the same folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from memedit.errors import InvalidQuestion
from memedit.models.base import Message
from memedit.models.embedded import model_folder
from memedit.models.tokens import FolderTokenizer

from .conftest import save_tokenizer

TEXTS = ["The capital of France is Lyon.", "", "  two  spaces\n\n", "1984 東京 🙂 Ὀδυσσεύς", "<|end|><|im_end|>"]
CHATS: list[list[Message]] = [
    [{"role": "user", "content": "Who wrote Misery?"}],
    [{"role": "system", "content": "Be  brief.\n"}, {"role": "user", "content": "{{ x }} <b>&\"'"}],
    [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello."},
        {"role": "user", "content": "", "name": "Ada"},
    ],
]
TEMPLATE = """{{ bos_token }}
{%- for turn in messages %}
    {%- if turn['role'] == 'tool' %}{{ raise_exception('no tools') }}{% endif %}
    {% if loop.index > 2 %}{% break %}{% endif %}
<|{{ turn.role }}|>{{ turn | tojson }}{{ eos_token }}
{% endfor %}
{% if tools is none and add_generation_prompt %}
<|assistant|>
{% endif %}"""


def theirs(folder: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder)


def assert_same(folder: Path) -> None:
    own, reference = FolderTokenizer(folder), theirs(folder)
    for text in TEXTS:
        for special in (True, False):
            tokens = own.encode(text, special=special)
            assert tokens == reference(text, add_special_tokens=special)["input_ids"]
            assert own.decode(tokens) == reference.decode(tokens, skip_special_tokens=True)
    for chat in CHATS:
        assert own.render(chat) == reference.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    assert own.end == reference.eos_token
    assert reference.eos_token_id in own.ends


@pytest.mark.model
def test_the_embedded_models_tokens_and_chats_are_those_of_transformers() -> None:
    folder = model_folder()

    assert_same(folder)
    assert FolderTokenizer(folder).ends == {0, 2}


def test_a_template_sees_what_transformers_shows_it(tiny: Path, tmp_path: Path) -> None:
    for file in tiny.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    save_tokenizer(tmp_path, template=TEMPLATE)

    assert_same(tmp_path)


def test_a_template_in_the_settings_counts_too(tiny: Path, tmp_path: Path) -> None:
    for file in tiny.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    template = (tmp_path / "chat_template.jinja").read_text(encoding="utf-8")
    (tmp_path / "chat_template.jinja").unlink()
    settings = tmp_path / "tokenizer_config.json"
    values = json.loads(settings.read_text(encoding="utf-8"))
    settings.write_text(json.dumps(values | {"chat_template": template}), encoding="utf-8")

    assert FolderTokenizer(tmp_path).render(CHATS[0]) == FolderTokenizer(tiny).render(CHATS[0])


def test_what_a_template_refuses_is_said(tiny: Path, tmp_path: Path) -> None:
    for file in tiny.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    save_tokenizer(tmp_path, template=TEMPLATE)

    with pytest.raises(InvalidQuestion, match="no tools"):
        FolderTokenizer(tmp_path).render([{"role": "tool", "content": "3"}])


def test_without_a_template_nothing_is_rendered(tiny: Path, tmp_path: Path) -> None:
    for file in tiny.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / "chat_template.jinja").unlink()
    save_tokenizer(tmp_path, template=None)

    assert FolderTokenizer(tmp_path).render(CHATS[0]) is None
