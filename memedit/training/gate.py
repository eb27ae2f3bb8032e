"""Trains `memedit.planner_gate`: a planner's own decisions, learned from sentence vectors alone.

The texts are those that the planner is trained on, CounterFact's sentences and zsRE's questions, and as many that ask for no
chain. The threshold is not where the two divide best but where next to nothing is lost that the planner makes a plan of.
"""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors.numpy import save_file
from torch.nn.functional import binary_cross_entropy_with_logits

from memedit.memory.catalogue import Catalogue
from memedit.memory.embedder import Embedder, SentenceEmbedder
from memedit.memory.memory import EditMemory
from memedit.planner_gate import FILE, LONGEST
from memedit.planner_model import TrainedPlanner
from memedit.training.data import Corpus, Sampler
from memedit.training.negatives import not_a_chain

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from memedit.memory.embedder import Vectors

COUNTERFACT = "counterfact/counterfact-train.json"
ZSRE = "zsre/zsre_mend_train_10000.json"
_SHARE = 0.2
"""Of the texts, held out for the threshold."""
_LOST = 0.001
"""Share of held-out texts with a plan that the threshold is first set to lose; `_MARGIN` of log-odds is added to that."""
_MARGIN = 1.0
_DECAY = 1e-5
_BATCH = 256


@dataclass(frozen=True, slots=True)
class _Texts:
    """Texts, and which of them ask for no chain by how they were made."""

    texts: list[str]
    made_negative: NDArray[np.bool_]


def train_gate(
    data: str | Path, folder: str | Path, corpus: Corpus, catalogue: Catalogue, *, texts: int = 4000, seed: int = 0
) -> dict[str, float]:
    """Train a gate for the planner of a folder and write it there.

    Args:
        data: Folder laid out as the public data are; what it lacks is left out.
        folder: Folder of the planner's weights.
        corpus: What the planner was trained on.
        catalogue: The relations it plans with.
        texts: How many texts of each kind.
        seed: Makes the choice repeatable.

    Returns:
        Of the held-out texts, the share of those with a plan that is let through, and of those that ask for no chain. Empty,
        and no gate written, where the planner makes no plan of any.
    """
    drawn = _draw(Path(data), corpus, texts, seed)
    planned = _planned(drawn.texts, catalogue, Path(folder)) & ~drawn.made_negative
    vectors = _vectors(drawn.texts, SentenceEmbedder(cache=0))
    kept = round(len(planned) * (1 - _SHARE))
    weight, bias = _fit(vectors[:kept], planned[:kept])
    odds, right, negative = vectors[kept:] @ weight + bias, planned[kept:], drawn.made_negative[kept:]
    if not right.any():
        return {}
    least = float(np.quantile(odds[right], _LOST)) - _MARGIN
    shift = np.array([bias - least], np.float32)
    save_file({"weight": weight, "bias": shift}, Path(folder) / FILE)
    return {
        "planned_let_through": float((odds[right] > least).mean()),
        "others": float((odds[negative] > least).mean()),
    }


def _draw(data: Path, corpus: Corpus, count: int, seed: int) -> _Texts:
    rng, sampler = random.Random(seed), Sampler(corpus, seed)
    asked = [example.text for example in sampler.batch(count)]
    for name, field in ((COUNTERFACT, "prompt"), (ZSRE, "src")):
        if (data / name).is_file():
            rows = json.loads((data / name).read_text("utf-8"))
            asked += [row[field] for row in rng.sample(rows, min(len(rows), count // 2))]
    names = sampler.plain_names
    others = [not_a_chain(rng, rng.choice(names)) for _ in range(count)]
    made_negative = set(others) - set(asked)
    texts = [text for text in dict.fromkeys([*asked, *others]) if len(text) <= LONGEST]
    rng.shuffle(texts)
    return _Texts(texts, np.array([text in made_negative for text in texts]))


def _planned(texts: Sequence[str], catalogue: Catalogue, folder: Path) -> NDArray[np.bool_]:
    planner = TrainedPlanner(catalogue, folder)
    with EditMemory(":memory:", catalogue=catalogue, embed_on_write=False) as memory:
        view = memory.view()
        plans = [planner.plan([(text, view) for text in some]) for some in _batches(texts)]
    return np.array([bool(plan) for some in plans for plan in some])


def _vectors(texts: Sequence[str], embedder: Embedder) -> Vectors:
    return np.concatenate([embedder.encode(some) for some in _batches(texts)])


def _batches(texts: Sequence[str]) -> list[Sequence[str]]:
    return [texts[at : at + _BATCH] for at in range(0, len(texts), _BATCH)]


def _fit(vectors: Vectors, planned: NDArray[np.bool_]) -> tuple[Vectors, float]:
    """Logistic regression; weight [d] and bias."""
    x, y = torch.from_numpy(vectors), torch.from_numpy(planned).float()
    weight, bias = torch.zeros(x.shape[1], requires_grad=True), torch.zeros(1, requires_grad=True)
    optimiser = torch.optim.LBFGS([weight, bias], max_iter=300, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        value = binary_cross_entropy_with_logits(x @ weight + bias, y) + _DECAY * weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimiser.step(loss)  # type: ignore[no-untyped-call]
    fitted: Vectors = weight.detach().numpy()
    return fitted, bias.item()
