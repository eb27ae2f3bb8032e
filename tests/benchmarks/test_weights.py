"""Every parametric method through a benchmark, for real: a tiny model's weights are edited, asked, and given back."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from memedit.errors import UnknownLayers
from memedit.evaluation.cases import Edit
from memedit.evaluation.command import main
from memedit.evaluation.method import Seen
from memedit.evaluation.opening import open_method
from memedit.evaluation.remembered import RememberedModel
from memedit.evaluation.weights import WeightsMethod
from memedit.memory.fact import FactInput
from memedit.parametric.contexts import Prefixes
from memedit.parametric.edits import Applied, Editing
from memedit.parametric.finetune import FineTuning
from memedit.parametric.lora import Lora
from memedit.parametric.memit import Memit
from memedit.parametric.model import METHODS, edited
from memedit.parametric.rome import Rome
from memedit.parametric.sample import TextSample
from memedit.parametric.statistics import SecondMoments
from memedit.parametric.value import ValueSettings
from tests.benchmarks.single_hop import Reader, Row
from tests.parametric.bits import bits_of, changed_names
from tests.parametric.tiny import tiny_llama, tiny_tokenizer

STRONG = ValueSettings(steps=40, rate=2.0, clamp=20.0, decay=0.0)
"""A random model has to be pushed hard."""


def row(subject: str, new: str) -> Row:
    return {
        "requested_rewrite": {
            "prompt": "The capital of {}",
            "relation_id": "P36",
            "subject": subject,
            "target_new": {"str": new},
            "target_true": {"str": "a"},
        },
        "paraphrase_prompts": [f"The city of {subject}"],
        "neighborhood_prompts": ["The city of"],
    }


ROWS = [row("New Zealand", "Osaka"), row("Japan", "Lyon")]


@pytest.fixture
def spec(tmp_path: Path) -> str:
    tiny_llama().save_pretrained(tmp_path / "tiny")
    tiny_tokenizer().save_pretrained(tmp_path / "tiny")
    return f"hf:{tmp_path / 'tiny'}"


@pytest.fixture
def methods(tmp_path: Path) -> dict[str, Callable[[], Editing]]:
    """Every method with settings for a model that knows nothing, so that no tracing could pick a layer."""
    moments = SecondMoments(TextSample(sentences=60, written=16, length=12), folder=tmp_path / "moments")
    bare = Prefixes(count=0)
    return {
        "rome": lambda: Rome(1, moments=moments, prefixes=bare, settings=STRONG),
        "memit": lambda: Memit([0, 1], weight=1e-4, moments=moments, prefixes=bare, settings=STRONG),
        "ft": lambda: FineTuning("l", 1, bound=0.1, steps=10, rate=1e-2),
        "ft-l": lambda: FineTuning("l", 1, bound=0.1, steps=10, rate=1e-2),
        "ft-m": lambda: FineTuning("m", 1, steps=30, rate=2e-2),
        "lora": lambda: Lora(steps=30, rate=2e-2),
    }


@pytest.mark.parametrize("name", METHODS)
def test_a_run_edits_the_weights_and_tells_every_figure(
    name: str, spec: str, methods: dict[str, Callable[[], Editing]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, out = tmp_path / "data.json", tmp_path / "out.json"
    data.write_text(json.dumps(ROWS), encoding="utf-8")
    monkeypatch.setitem(METHODS, name, methods[name])
    words = ["--data", str(data), "--model", spec, "--json", str(out), "--no-fluency", "--strategy", name]

    assert main("counterfact", [*words, "--edits", "1"]) == 0

    result: dict[str, Any] = json.loads(out.read_text(encoding="utf-8"))
    for scoring in ("teacher_forced", "generated"):
        assert {"edit_success", "paraphrase_success", "neighborhood_success"} <= set(result[scoring])
    assert result["teacher_forced"]["edit_success"] == 1.0
    assert result["teacher_forced"]["exact_invariance"] == 0.0, "an edit in the weights reaches every probability"
    assert result["teacher_forced"]["seconds_per_edit"] > 0
    assert set(result["cost"]["peak_memory_mib"]) == {"edit", "question"}

    assert main("counterfact", [*words, "--edits", "all", "--fresh"]) == 0


class Idle:
    """An edit that changes nothing."""

    name = "idle"

    def prepare(self, model: object, tokenizer: object) -> None:
        pass

    def apply(self, model: object, tokenizer: object, edits: object) -> Applied:
        return Applied(lambda: None)


def test_weights_that_no_edit_changed_are_invariant(spec: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data.json").write_text(json.dumps(ROWS), encoding="utf-8")
    monkeypatch.setitem(METHODS, "rome", Idle)
    words = ["--data", str(tmp_path / "data.json"), "--model", spec, "--json", str(tmp_path / "out.json")]

    assert main("counterfact", [*words, "--strategy", "rome", "--no-fluency"]) == 0

    result: dict[str, Any] = json.loads((tmp_path / "out.json").read_text(encoding="utf-8"))
    for scoring in ("teacher_forced", "generated", "mentioned"):
        assert result[scoring]["exact_invariance"] == 1.0


def test_a_method_gives_every_bit_back(spec: str, methods: dict[str, Callable[[], Editing]]) -> None:
    model = edited(spec, methods["rome"]())
    before = bits_of(model.weights)
    method = WeightsMethod(model)
    fact = FactInput(subject="Japan", relation="P36", object="Lyon")
    method.edit([Edit(fact, "The capital of Japan", "Japan", "Lyon")])

    method.score(Seen((0, 1)), [])
    edited_names = changed_names(model.weights, before)
    method.score(Seen((0, 0)), [])

    assert len(edited_names) == 1
    assert not changed_names(model.weights, before)


def test_weights_out_of_reach_are_refused() -> None:
    with (
        pytest.raises(UnknownLayers, match="out of reach"),
        open_method("http://localhost:8000/v1", "rome", RememberedModel(Reader())),
    ):
        pass


def test_a_subject_that_is_not_in_its_prompt_ends_the_command(
    spec: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = {
        "prompt": "The capital is", "subject": "Japan", "target_new": "Lyon", "ground_truth": "a",
        "rephrase_prompt": "The city is", "locality_prompt": "In", "locality_ground_truth": "a",
    }  # fmt: skip
    data = tmp_path / "data.json"
    data.write_text(json.dumps([broken]), encoding="utf-8")

    code = main(
        "counterfact",
        ["--data", str(data), "--model", spec, "--strategy", "ft-m", "--json", str(tmp_path / "out.json")],
    )

    assert code == 2
    assert "data.json, row 1, field 'subject'" in capsys.readouterr().err
