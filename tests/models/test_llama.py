"""The own Llama: the numbers transformers gives, however the tokens come, and models it cannot compute are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from memedit.models.base import Sampling
from memedit.models.local import LocalModel
from memedit.models.tokens import FolderTokenizer
from memedit.models.transformers import TransformersModel

if TYPE_CHECKING:
    import torch

    from memedit.models.llama import Llama
    from memedit.models.network import States


PADS = (0, 5, 11)
WIDTH = 40


@pytest.fixture(scope="module", params=["tied", "untied"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model whose heads share keys and values three by three."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    made = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(5)
    config = LlamaConfig(
        vocab_size=120,
        hidden_size=48,
        intermediate_size=80,
        num_hidden_layers=3,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=512,
        initializer_range=0.3,
        rope_parameters={"rope_type": "default", "rope_theta": 50_000.0},
        tie_word_embeddings=request.param == "tied",
    )
    network: Any = LlamaForCausalLM(config)
    network.save_pretrained(made)
    return made


@pytest.fixture(scope="module")
def reference(folder: Path) -> Any:
    from transformers import AutoModelForCausalLM

    auto: Any = AutoModelForCausalLM
    return auto.from_pretrained(folder).eval()


@pytest.fixture
def network(folder: Path) -> Llama:
    from memedit.models.llama import Llama

    return Llama(folder)


def batch(prefix: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ids, mask and positions of three rows that begin with the same `prefix` tokens and then have their own padding."""
    import torch

    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(0, 120, (len(PADS), prefix + WIDTH), generator=generator)
    ids[:, :prefix] = ids[0, :prefix]
    mask = torch.ones_like(ids)
    for row, pad in enumerate(PADS):
        mask[row, prefix : prefix + pad] = 0
    return ids, mask, (mask.cumsum(1) - 1).clamp(min=0)


def expected(reference: Any, ids: torch.Tensor, mask: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    import torch

    with torch.inference_mode():
        logits: torch.Tensor = reference(input_ids=ids, attention_mask=mask, position_ids=positions).logits
    return logits


def states_of(network: Llama, ids: torch.Tensor) -> States:
    import torch

    reading = network.begin(1)
    with torch.inference_mode():
        reading.read(ids[None], torch.ones_like(ids[None]), torch.arange(len(ids))[None], 1)
        return reading.states()


def assert_close(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    assert ours.shape == theirs.shape
    assert float((ours - theirs).abs().max()) < 1e-4


@pytest.mark.parametrize("laid_out", [False, True], ids=["as saved", "laid out"])
@pytest.mark.parametrize("prefix", [0, 30])
def test_logits_are_those_of_transformers(network: Llama, reference: Any, prefix: int, laid_out: bool) -> None:
    import torch

    ids, mask, positions = batch(prefix)
    states = states_of(network, ids[0, :prefix]) if prefix else ()
    if laid_out:
        network.begin(100)

    with torch.inference_mode():
        logits = network.begin(len(PADS), states).read(ids[:, prefix:], mask, positions[:, prefix:], WIDTH - max(PADS))

    assert_close(logits, expected(reference, ids, mask, positions)[:, prefix + max(PADS) :])


def test_long_inputs_are_read_in_pieces(network: Llama, reference: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr("memedit.models.llama._SCORES", 1)  # pieces of 16 tokens
    ids, mask, positions = batch(0)

    with torch.inference_mode():
        logits = network.begin(len(PADS)).read(ids, mask, positions, 20)

    assert_close(logits, expected(reference, ids, mask, positions)[:, -20:])


@pytest.mark.parametrize("prefix", [0, 30])
def test_tokens_one_by_one_after_rows_were_dropped(network: Llama, reference: Any, prefix: int) -> None:
    import torch

    ids, mask, positions = batch(prefix)
    kept = torch.tensor([0, 2])
    states = states_of(network, ids[0, :prefix]) if prefix else ()
    reading = network.begin(len(PADS), states)
    at = prefix + max(PADS) + 1

    with torch.inference_mode():
        reading.read(ids[:, prefix:at], mask[:, :at], positions[:, prefix:at], 1)
        reading.select(kept)
        steps = [
            reading.read(ids[kept, n : n + 1], mask[kept, : n + 1], positions[kept, n : n + 1], 1)
            for n in range(at, prefix + WIDTH)
        ]

    assert_close(torch.cat(steps, 1), expected(reference, ids[kept], mask[kept], positions[kept])[:, at:])


@pytest.mark.parametrize(
    "change",
    [
        {"model_type": "mistral"},
        {"attention_bias": True},
        {"hidden_act": "gelu"},
        {"rope_parameters": {"rope_type": "llama3", "factor": 8.0}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_what_it_does_not_compute_is_refused(folder: Path, tmp_path: Path, change: dict[str, object]) -> None:
    from memedit.models.llama import LlamaConfig

    values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    path = tmp_path / "config.json"
    path.write_text(json.dumps(values | change), encoding="utf-8")

    with pytest.raises(ValueError, match=next(iter(change))):
        LlamaConfig.read(path)


def test_a_whole_model_writes_and_scores_like_transformers(tiny: Path) -> None:
    from memedit.models.llama import Llama

    ours = LocalModel(Llama(tiny), FolderTokenizer(tiny), name="own")
    theirs = TransformersModel(tiny)
    shared = "The capital of Peru is Lima. Question: who wrote Misery? Answer: Stephen King. Question: " * 2
    ends = ("who?", "what is the capital of Peru?", "x")
    prompts = [*(f"{shared}{end}" for end in ends), "France", "{", "The capital"]
    pairs = [(prompt, " Paris") for prompt in prompts]

    assert ours.generate(prompts, Sampling(max_tokens=20)) == theirs.generate(prompts, Sampling(max_tokens=20))
    assert [score.log_probability for score in ours.score(pairs)] == pytest.approx(
        [score.log_probability for score in theirs.score(pairs)], abs=1e-3
    )
