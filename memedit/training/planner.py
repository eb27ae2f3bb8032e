"""Trains the planner: `train_planner(data, out)`. Seeded, resumable, with progress and a report.

Questions come from `memedit.training.data`, the network from `memedit.planner_net`; relations are described by random
draws from their wordings, encoded once by the installed sentence encoder, so that the network learns to compare with
descriptions and not with a list of relations.
"""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F  # noqa: N812
from safetensors.torch import save_file
from torch import Tensor

from memedit.memory.minilm import from_sentence_encoder
from memedit.planner_net import MAX_HOPS, NetConfig, PlannerNet
from memedit.planner_words import Describer, Vocabulary
from memedit.training.data import Corpus, Example, Sampler
from memedit.training.open_relations import OPEN, OpenQuestion, made_up


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """How to train.

    Attributes:
        steps: Optimiser steps.
        batch: Catalogue questions a step.
        open_batch: Questions about relations of no catalogue a step.
        encoder_rate: Peak learning rate of the encoder.
        decoder_rate: Peak learning rate of the rest.
        warmup: Share of the steps in which the rate rises.
        average: Decay of the running average of the weights, which is what is kept.
        seed: Seed of data and weights.
        threads: CPU threads.
        frozen: Encoder layers, from the first, that are not trained: a third less work for three of six.
        half: Whether to compute in bfloat16.
    """

    steps: int = 2500
    batch: int = 44
    open_batch: int = 12
    encoder_rate: float = 2e-4
    decoder_rate: float = 1e-3
    warmup: float = 0.06
    average: float = 0.998
    seed: int = 0
    threads: int = 1
    frozen: int = 0
    half: bool = True


class Trainer:
    """One training run.

    Args:
        corpus: What to train on.
        config: How.
        out: Folder of checkpoints.
        start: Weights to start from instead of the sentence encoder's.
        net: Sizes of the network; fewer layers than the sentence encoder has are its first ones.
    """

    def __init__(
        self,
        corpus: Corpus,
        config: TrainConfig,
        out: Path,
        start: dict[str, Tensor] | None = None,
        net: NetConfig = NetConfig(),
    ) -> None:
        self.corpus, self.config, self.out = corpus, config, out
        out.mkdir(parents=True, exist_ok=True)
        torch.manual_seed(config.seed)
        torch.set_num_threads(config.threads)
        self.rng = random.Random(config.seed)
        self.sampler = Sampler(corpus, config.seed)
        self.vocabulary = Vocabulary.installed()
        self.net = PlannerNet(net)
        encoder = from_sentence_encoder(self.net.config, self.vocabulary.encoder_weights())
        self.net.load_state_dict(start or encoder, strict=start is not None)
        self._freeze(config.frozen)
        self.relations = list(corpus.phrasebook.wordings)
        self.index = {relation: at for at, relation in enumerate(self.relations)}
        self._describe()
        groups = [
            {"params": [p for p in self.net.encoder.parameters() if p.requires_grad], "lr": config.encoder_rate},
            {
                "params": [p for name, p in self.net.named_parameters() if not name.startswith("encoder.")],
                "lr": config.decoder_rate,
            },
        ]
        self.optimiser = torch.optim.AdamW(groups, weight_decay=0.01, betas=(0.9, 0.98))
        self.schedule = torch.optim.lr_scheduler.LambdaLR(self.optimiser, self._rate)
        self.average = {name: value.detach().clone() for name, value in self.net.state_dict().items()}
        self.step = 0
        self.losses: list[tuple[float, float]] = []
        self._queue: list[list[Example]] = []

    def _freeze(self, layers: int) -> None:
        if layers:
            encoder = self.net.encoder
            encoder.kind.requires_grad_(False)
            for part in (encoder.positions, encoder.norm, *encoder.layers[:layers]):
                part.requires_grad_(False)

    def _rate(self, step: int) -> float:
        rise = max(1, int(self.config.warmup * self.config.steps))
        if step < rise:
            return (step + 1) / rise
        done = (step - rise) / max(1, self.config.steps - rise)
        return 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * min(1.0, done)))

    def _describe(self) -> None:
        encoder = Describer(self.vocabulary)
        self._texts: list[Tensor] = []
        book = self.corpus.phrasebook
        for relation in self.relations:
            texts = list(book.wordings[relation].texts())
            picked = texts if len(texts) <= 30 else [texts[0], *self.rng.sample(texts[1:], 29)]
            self._texts.append(encoder.encode(picked).clone())
        relations = (*self.corpus.open, *made_up()) if self.config.open_batch else ()
        described = sorted({relation.descriptions for relation in relations})
        self._open = dict(zip(described, encoder.describe(described), strict=True)) if described else {}
        self._means = F.normalize(torch.stack([texts.mean(0) for texts in self._texts]), dim=-1)

    def _draw_descriptions(self) -> Tensor:
        """One vector a relation: the mean of a few random wordings."""
        rows = []
        for texts in self._texts:
            some = self.rng.sample(range(len(texts)), min(len(texts), self.rng.randint(2, 6)))
            rows.append(texts[some].mean(0))
        return torch.stack(rows)

    def _next(self) -> list[Example]:
        if not self._queue:
            drawn = sorted(self.sampler.batch(self.config.batch * 16), key=lambda example: len(example.text))
            size = self.config.batch
            self._queue = [drawn[at : at + size] for at in range(0, len(drawn), size)]
            self.rng.shuffle(self._queue)
        return self._queue.pop()

    def loss(self, examples: Sequence[Example], extra: Sequence[OpenQuestion]) -> tuple[Tensor, Tensor]:
        """Span loss and chain loss of a batch."""
        texts = [example.text for example in examples] + [question.text for question in extra]
        spans = [example.span for example in examples] + [question.span for question in extra]
        tokens = self.vocabulary.tokenise(texts)
        ends = torch.tensor([tokens.tokens_of(row, span) if span else (0, 0) for row, span in enumerate(spans)])
        described = torch.cat([self._draw_descriptions(), *(self._open[q.descriptions][None] for q in extra)])
        count, stop = len(self.relations), described.shape[0]
        target = torch.full((len(texts), MAX_HOPS + 1), -100)
        barred = torch.zeros(len(texts), stop + 1, dtype=torch.bool)
        barred[: len(examples), count:stop] = True
        for row, example in enumerate(examples):
            labels = [*(self.index[relation] for relation in example.chain), stop]
            target[row, : len(labels)] = torch.tensor(labels)
        for at, question in enumerate(extra):
            row, own = len(examples) + at, self._open[question.descriptions]
            # What says almost the same must not count as wrong.
            barred[row, :count] = self._means @ F.normalize(own, dim=0) > 0.6
            barred[row, count:stop] = F.normalize(described[count:], dim=-1) @ F.normalize(own, dim=0) > 0.6
            labels = [count + at if one == OPEN else self.index[one] for one in question.chain]
            barred[row, labels] = False
            if labels == [count + at] and self.rng.random() < 0.1:
                barred[row, count + at], labels = True, []
            labels.append(stop)
            target[row, : len(labels)] = torch.tensor(labels)
        target[:, MAX_HOPS] = -100
        with torch.autocast("cpu", torch.bfloat16, enabled=self.config.half):
            encoded = self.net.read(self.vocabulary.look_up(tokens.ids), tokens.mask)
            span_logits = self.net.span_logits(encoded, tokens.mask)
            choices = self.net.choices(described)
            fed = choices.fed[target[:, :MAX_HOPS].clamp(0, stop - 1)][:, None]
            memories = self.net.memories(encoded, ends[:, 0], ends[:, 1])
            logits = self.net.next_logits(memories, tokens.mask, fed, choices)[:, 0]
        logits = logits.float().masked_fill(barred[:, None], -1e4)
        chain = F.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=-100)
        span = F.cross_entropy(span_logits.float().flatten(0, 1), ends.flatten())
        return span, chain

    def train(
        self,
        until: int | None = None,
        *,
        save_every: int = 200,
        on_step: Callable[[int, float, float], None] | None = None,
    ) -> None:
        """Run to the last step (or to step `until`), saving a checkpoint now and then.

        Args:
            until: Step to stop after.
            save_every: Steps between checkpoints.
            on_step: Told the step, its span loss and its chain loss.
        """
        last = self.config.steps if until is None else min(until, self.config.steps)
        self.net.train()
        while self.step < last:
            self.optimiser.zero_grad()
            span, chain = self.loss(self._next(), self.sampler.open_batch(self.config.open_batch))
            (0.5 * span + chain).backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
            self.optimiser.step()
            self.schedule.step()
            self.step += 1
            self._average()
            self.losses.append((span.item(), chain.item()))
            if on_step is not None:
                on_step(self.step, *self.losses[-1])
            if self.step % save_every == 0 or self.step == last:
                self.save()

    def save(self) -> None:
        """Write a checkpoint, from which `resume` goes on as if nothing had happened."""
        state = {
            "config": asdict(self.config), "step": self.step, "losses": self.losses, "net": self.net.state_dict(),
            "average": self.average, "optimiser": self.optimiser.state_dict(), "schedule": self.schedule.state_dict(),
            "random": self.rng.getstate(), "sampler": self.sampler.state(), "queue": self._queue,
            "torch": torch.get_rng_state(),
        }  # fmt: skip
        fresh = self.out / "checkpoint.pt.new"
        torch.save(state, fresh)
        fresh.replace(self.out / "checkpoint.pt")

    def resume(self) -> bool:
        """Go on from the folder's checkpoint, if there is one made with the same settings; whether there was."""
        path = self.out / "checkpoint.pt"
        if not path.is_file():
            return False
        state = torch.load(path, weights_only=False)  # our own file: it holds the sampler's random state
        if state["config"] != asdict(self.config):
            return False
        self.step, self.losses, self.average = state["step"], state["losses"], state["average"]
        self.net.load_state_dict(state["net"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.schedule.load_state_dict(state["schedule"])
        self.rng.setstate(state["random"])
        self.sampler.restore(state["sampler"])
        self._queue = state["queue"]
        torch.set_rng_state(state["torch"])
        return True

    @torch.no_grad()
    def _average(self) -> None:
        decay = min(self.config.average, (1 + self.step) / (20 + self.step))
        for name, value in self.net.state_dict().items():
            self.average[name].lerp_(value, 1 - decay)


def export(weights: dict[str, Tensor], net: NetConfig, folder: Path, *, extra: dict[str, object] | None = None) -> None:
    """Write weights as `memedit.planner_model` loads them: float16 safetensors and a config.

    Args:
        weights: State dict of a `PlannerNet`.
        net: Its sizes.
        folder: Where to.
        extra: Further entries of config.json: calibrations, what it was trained on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: value.half().contiguous() for name, value in weights.items()}, folder / "planner.safetensors")
    config = {"net": net.to_dict(), **(extra or {})}
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n", "utf-8")
