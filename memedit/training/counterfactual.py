"""Trains the counterfactual model's adapter: ``memedit train counterfactual``. Seeded, resumable, with progress and a report.

Low-rank updates (Hu et al. 2021) of the last layers of the embedded model are trained on the answers of generated tasks; the
layers before them run without gradients. Writes what `memedit.counterfactual_adapter` loads, ``report.json`` and ``loss.png``.
Relations and free-text templates are split: the report compares the model before and after on those never trained on.
"""

from __future__ import annotations

import json
import math
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import torch
import torch.nn.functional as F  # noqa: N812
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from memedit.counterfactual_adapter import WEIGHTS, load_adapted
from memedit.errors import ModelNotFound
from memedit.models.base import LanguageModel, Sampling
from memedit.models.embedded import load_embedded, model_folder
from memedit.training.counterfactual_data import KINDS, Task, TaskSampler, Triples, is_right, read_triples
from memedit.training.plots import plot_losses, plots_are_possible
from memedit.training.scope_neighbours import progress

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerBase

_ADAPTED = (
    "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj",
    "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj",
)  # fmt: skip
_ANSWER_TOKENS = 48


@dataclass(frozen=True, slots=True)
class AdapterTraining:
    """How to train.

    Attributes:
        seed: Makes the run repeatable.
        steps: Optimiser steps.
        batch: Tasks a step.
        rate: Highest learning rate; reached after a twentieth of the run, near zero at its end.
        rank: Rank of the updates.
        scale: Factor of the updates.
        layers: How many of the last layers are adapted.
        held_out: Share of the relations that is measured on and never trained on, in [0, 1).
        tested: Tasks of each kind that are measured, before and after; 0 measures nothing.
        start: Folder of an adapter to start from; empty to start from none.
        checkpoint: Steps between checkpoints.
        bfloat16: Compute in bfloat16; twice as fast where the processor has the instructions.
        threads: CPU threads; 0 leaves it to PyTorch.
    """

    seed: int = 0
    steps: int = 600
    batch: int = 8
    rate: float = 1e-3
    rank: int = 8
    scale: float = 2.0
    layers: int = 12
    held_out: float = 0.2
    tested: int = 15
    start: str = ""
    checkpoint: int = 20
    bfloat16: bool = False
    threads: int = 0


def train_counterfactual(data: Path, out: Path, how: AdapterTraining = AdapterTraining()) -> dict[str, object]:
    """Train on the triples under `data`; adapter, configuration and report go to `out`.

    Returns:
        The report, as written to ``report.json``.

    Raises:
        BadDataFile: `data` holds no triples.
        ModelNotFound: There is no embedded model, or no adapter to start from.
    """
    out.mkdir(parents=True, exist_ok=True)
    if how.threads:
        torch.set_num_threads(how.threads)
    triples = read_triples(data, how.held_out, how.seed)
    trainer = AdapterTrainer(how, out)
    losses = trainer.run(TaskSampler(triples))
    trainer.export({"trained": asdict(how), "relations": triples.trained})
    report: dict[str, object] = {
        "training": asdict(how),
        "missing": triples.missing,
        "relations": {"trained": triples.trained, "held_out": triples.held_out},
        "loss": losses,
    }
    if how.tested and triples.held_out:
        report["held_out"] = compare(triples, out, how)
    (out / "report.json").write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n", "utf-8")
    if plots_are_possible():
        plot_losses(out / "loss.png", {"answer": losses})
    return report


def compare(triples: Triples, folder: Path, how: AdapterTraining) -> dict[str, object]:
    """Shares of right answers by kind on held-out relations, before and after, and the answers that stayed wrong."""
    sampler, rng = TaskSampler(triples, held_out=True), random.Random(f"{how.seed}:held out")
    tasks = [sampler.draw(rng, kind) for kind in KINDS for _ in range(how.tested)]
    before, _ = measure(load_embedded(), tasks)
    after, wrong = measure(load_adapted(folder), tasks)
    return {"tasks": len(tasks), "before": before, "after": after, "wrong": wrong}


def measure(model: LanguageModel, tasks: Sequence[Task]) -> tuple[dict[str, float], list[dict[str, object]]]:
    """Share of right answers by kind and in ``all``, and every wrong answer."""
    texts = [one.text for one in model.generate([task.messages() for task in tasks], Sampling(_ANSWER_TOKENS))]
    by_kind: dict[str, list[bool]] = defaultdict(list)
    wrong: list[dict[str, object]] = []
    for task, text in zip(tasks, texts, strict=True):
        right = is_right(task, text)
        by_kind[task.kind].append(right)
        by_kind["all"].append(right)
        if not right:
            wrong.append(
                {
                    "kind": task.kind,
                    "facts": task.statements,
                    "question": task.question,
                    "right": task.answer,
                    "said": text,
                }
            )
    return {kind: sum(some) / len(some) for kind, some in by_kind.items()}, wrong


class AdapterTrainer:
    """The embedded model with trainable updates, and where in the run they are.

    Args:
        how: How to train.
        out: Folder of the checkpoint and of what is exported.

    Raises:
        ModelNotFound: There is no embedded model, or no adapter to start from.
    """

    def __init__(self, how: AdapterTraining, out: Path) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        torch.manual_seed(how.seed)
        self._how, self._out = how, out
        folder = model_folder()
        self._tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder)
        self._device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        net: nn.Module = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        self._net = cast("LlamaForCausalLM", net.requires_grad_(False).to(self._device))
        self._updates = adapt(self._net, how.layers, how.rank, how.scale)
        if how.start:
            self._start(Path(how.start))
        parameters = [part for update in self._updates.values() for part in (update.a, update.b)]
        self._optimizer = torch.optim.AdamW(parameters, lr=how.rate, weight_decay=0.0)
        self._losses: list[float] = []
        self._resume()

    def run(self, sampler: TaskSampler) -> list[float]:
        """Train to the end; the loss of every step."""
        steps = self._how.steps
        with progress("counterfactual model", steps, len(self._losses)) as advance:
            while len(self._losses) < steps:
                done = len(self._losses)
                # A generator a step, so that a run that was killed draws on as if it had not been.
                rng = random.Random(f"{self._how.seed}:{done}")
                self._losses.append(self._learn([sampler.draw(rng) for _ in range(self._how.batch)], done / steps))
                advance(f"loss {self._losses[-1]:.3f}")
                if len(self._losses) % self._how.checkpoint == 0 or len(self._losses) == steps:
                    self._checkpoint()
        return self._losses

    def export(self, extra: dict[str, object]) -> None:
        """Write the updates in float16, and a configuration."""
        parts = {f"{name}.{part}": value for name, update in self._updates.items() for part, value in update.parts()}
        save_file({name: value.half().cpu().contiguous() for name, value in parts.items()}, self._out / WEIGHTS)
        config = {"format": 1, "scale": self._how.scale, "rank": self._how.rank, **extra}
        (self._out / "config.json").write_text(json.dumps(config, indent=1) + "\n", "utf-8")

    def _learn(self, tasks: Sequence[Task], done: float) -> float:
        rows = [self._encode(task) for task in tasks]
        width = max(len(ids) for ids, _ in rows)
        ids = torch.zeros(len(rows), width, dtype=torch.long)
        mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
        for row, (tokens, start) in enumerate(rows):
            ids[row, : len(tokens)] = torch.tensor(tokens)
            mask[row, : len(tokens)] = 1
            labels[row, start : len(tokens)] = ids[row, start : len(tokens)]
        for group in self._optimizer.param_groups:
            group["lr"] = self._how.rate * min(1.0, (done + 1e-3) / 0.05) * (0.02 + 0.98 * math.cos(done * math.pi / 2))
        with torch.autocast(self._device.type, torch.bfloat16, enabled=self._how.bfloat16):
            states = self._net.model(ids.to(self._device), attention_mask=mask.to(self._device)).last_hidden_state
            # Logits of the answers only: those of the prompts would cost more than the adapted layers.
            wanted = (labels[:, 1:] != -100).to(self._device)
            logits = self._net.lm_head(states[:, :-1][wanted])
        loss = F.cross_entropy(logits.float(), labels[:, 1:].to(self._device)[wanted])
        self._optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self._optimizer.param_groups[0]["params"], 1.0)
        self._optimizer.step()
        return loss.item()

    def _encode(self, task: Task) -> tuple[list[int], int]:
        """Tokens of the chat with its answer, and where the answer begins."""
        turns = [{"role": str(turn["role"]), "content": turn["content"]} for turn in task.messages()]
        text = str(self._tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
        before = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        after = self._tokenizer(f"{task.answer}{self._tokenizer.eos_token}", add_special_tokens=False)["input_ids"]
        return [*before, *after], len(before)

    def _start(self, folder: Path) -> None:
        if not (folder / WEIGHTS).is_file():
            raise ModelNotFound(f"There is no adapter in {str(folder)!r}.", "Name a folder that an earlier run wrote.")
        for name, value in load_file(folder / WEIGHTS).items():
            stem, _, part = name.rpartition(".")
            with torch.no_grad():
                getattr(self._updates[stem], part).copy_(value)

    def _checkpoint(self) -> None:
        state = {
            "how": asdict(self._how),
            "updates": {name: update.state_dict() for name, update in self._updates.items()},
            "optimizer": self._optimizer.state_dict(),
            "losses": self._losses,
        }
        fresh = self._out / "checkpoint.pt.new"
        torch.save(state, fresh)
        fresh.replace(self._out / "checkpoint.pt")

    def _resume(self) -> None:
        """Go on from the checkpoint, if there is one of the same settings."""
        path = self._out / "checkpoint.pt"
        if not path.is_file():
            return
        state = torch.load(path, weights_only=True, map_location=self._device)
        loose = ("threads", "checkpoint", "tested")
        if any(state["how"].get(name) != value for name, value in asdict(self._how).items() if name not in loose):
            return
        for name, update in self._updates.items():
            update.load_state_dict(state["updates"][name])
        self._optimizer.load_state_dict(state["optimizer"])
        self._losses = state["losses"]


class LowRank(nn.Module):
    """A linear layer with a trainable update: W x + scale * B A x.

    Args:
        linear: The layer, which is not trained.
        rank: Rank of the update.
        scale: Its factor.
    """

    def __init__(self, linear: nn.Linear, rank: int, scale: float) -> None:
        super().__init__()
        self._linear = [linear]  # in a list, so that it is none of this module's parameters
        self._scale = scale
        device = linear.weight.device
        self.a = nn.Parameter(torch.randn(rank, linear.in_features, device=device) / math.sqrt(linear.in_features))
        self.b = nn.Parameter(torch.zeros(linear.out_features, rank, device=device))

    def forward(self, x: Tensor) -> Tensor:
        """[..., in] to [..., out]."""
        out: Tensor = self._linear[0](x) + self._scale * F.linear(F.linear(x, self.a), self.b)
        return out

    def parts(self) -> tuple[tuple[str, Tensor], tuple[str, Tensor]]:
        """A and B by name."""
        return ("a", self.a.detach()), ("b", self.b.detach())


def adapt(net: LlamaForCausalLM, layers: int, rank: int, scale: float) -> dict[str, LowRank]:
    """Put updates into the last layers of a model; they are returned by the names of their matrices."""
    updates: dict[str, LowRank] = {}
    total = len(net.model.layers)
    for number in range(max(0, total - layers), total):
        for path in _ADAPTED:
            parent = net.model.layers[number].get_submodule(path.split(".")[0])
            name = path.split(".")[1]
            update = LowRank(getattr(parent, name), rank, scale)
            setattr(parent, name, update)
            updates[f"model.layers.{number}.{path}"] = update
    return updates
