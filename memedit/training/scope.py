"""Trains the scope classifier: ``python -m memedit.training.scope --data DIR --out DIR``.

Seeded; killed, the same command goes on from its last checkpoint. Writes ``model.safetensors`` (float16) and
``config.json`` (sizes, calibration, threshold) for `memedit.scope_model.TrainedScope`, and ``report.json``: loss curve,
calibration and rates by kind on subjects that were not trained on.
"""

from __future__ import annotations

import argparse
import json
import math
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from memedit.errors import BadDataFile
from memedit.scope_text import Encoded, PairReader
from memedit.training.scope_data import Pair, Sampler
from memedit.training.scope_neighbours import neighbours, progress
from memedit.training.scope_sources import PARTS, read_scope_corpus

if TYPE_CHECKING:
    import torch

    from memedit.scope_net import ScopeNet

Floats = npt.NDArray[np.float64]

_CHUNK = 64
"""Edits drawn at a time; their pairs are batched by length, and checkpoints fall between chunks."""


@dataclass(frozen=True, slots=True)
class ScopeTraining:
    """How to train.

    Attributes:
        seed: Makes the run repeatable.
        edits: Edits drawn in all, each with about four pairs.
        batch: Pairs a step.
        rate: Highest learning rate; reached after a twentieth of the run, zero at its end.
        layers: Layers of the network, 1 to 6.
        start: Folder of weights to start from, of as many layers; empty to start from the sentence encoder's.
        mined: Texts for which near facts are looked up.
        facts: Facts they are looked up among.
        false_positives: Share of calibration texts out of scope that the threshold lets pass, in (0, 1).
        held_out: Edits drawn to calibrate on, and as many to report on.
        checkpoint: Chunks between checkpoints.
        bfloat16: Compute in bfloat16; twice as fast where the processor has the instructions.
        threads: Threads to use; 0 leaves it to PyTorch.
    """

    seed: int = 0
    edits: int = 50_000
    batch: int = 48
    rate: float = 2e-4
    layers: int = 4
    start: str = ""
    mined: int = 8_000
    facts: int = 12_000
    false_positives: float = 0.01
    held_out: int = 2_500
    checkpoint: int = 50
    bfloat16: bool = False
    threads: int = 0


def train_scope(data: Path, out: Path, how: ScopeTraining | None = None) -> dict[str, object]:
    """Train on the files under `data`; weights, configuration and report go to `out`.

    Returns:
        The report, as written to ``report.json``.
    """
    import torch

    how = how or ScopeTraining()
    out.mkdir(parents=True, exist_ok=True)
    if how.threads:
        torch.set_num_threads(how.threads)
    corpus = read_scope_corpus(data)
    if any(not corpus.part(part) for part in PARTS):
        raise BadDataFile(
            f"{data}: too few edits to train on; missing: {', '.join(corpus.missing) or 'no file'}.",
            "Give the folder that holds the public data files, such as counterfact/counterfact-train.json.",
        )
    near = neighbours(corpus, out / "neighbours.json", seed=how.seed, texts=how.mined, facts=how.facts)
    reader, table, weights = _foundation()
    trainer = _Trainer(how, out, reader, table, weights)
    losses = trainer.run(Sampler(corpus, "train", apart=near.apart, mined=near.mined))
    parts: dict[str, tuple[list[Pair], Floats]] = {}
    for part in PARTS[1:]:
        sampler = Sampler(corpus, part, apart=near.apart, mined=near.mined)
        rng = random.Random(f"{how.seed}:{part}")
        pairs = [pair for _ in range(how.held_out) for pair in sampler.group(rng)]
        parts[part] = (pairs, trainer.odds(pairs))
    pairs, odds = parts["calibration"]
    labels = np.array([pair.label for pair in pairs], dtype=np.float64)
    slope, shift = fit_logistic(odds, labels)
    threshold = choose_threshold(_sigmoid(slope * odds + shift), labels, how.false_positives)
    config = {
        "network": trainer.net.config.to_dict(),
        "slope": slope,
        "shift": shift,
        "threshold": threshold,
        "format": 1,
    }
    _save(out, trainer.net, config)
    pairs, odds = parts["dev"]
    report: dict[str, object] = {
        "training": asdict(how),
        "missing": corpus.missing,
        "records": {part: len(corpus.part(part)) for part in PARTS},
        "loss": losses,
        "slope": slope,
        "shift": shift,
        "threshold": threshold,
        "held_out": rates(pairs, _sigmoid(slope * odds + shift), threshold),
    }
    (out / "report.json").write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    return report


def rates(pairs: Sequence[Pair], probabilities: Floats, threshold: float) -> dict[str, object]:
    """Share judged in scope by kind, calibration error and calibration curve of judged pairs."""
    by_kind: dict[str, list[float]] = defaultdict(list)
    for pair, probability in zip(pairs, probabilities, strict=True):
        by_kind[pair.kind].append(float(probability))
    labels = np.array([pair.label for pair in pairs], dtype=np.float64)
    error, curve = calibration_error(probabilities, labels)
    return {
        "in_scope": {kind: float(np.mean(np.array(found) >= threshold)) for kind, found in sorted(by_kind.items())},
        "counts": {kind: len(found) for kind, found in sorted(by_kind.items())},
        "expected_calibration_error": error,
        "calibration": curve,
    }


def choose_threshold(probabilities: Floats, labels: Floats, false_positives: float) -> float:
    """The least threshold, of at least a half, that no more than a share of the texts out of scope reach."""
    outside = np.sort(probabilities[labels == 0])[::-1]
    allowed = int(false_positives * len(outside))
    reached = float(outside[allowed]) if allowed < len(outside) else 0.0
    return round(max(0.5, min(0.999, reached + 1e-4)), 4)


def calibration_error(probabilities: Floats, labels: Floats, bins: int = 15) -> tuple[float, list[dict[str, float]]]:
    """Expected calibration error over equal bins (Guo et al. 2017, equation 3), and the curve it sums over."""
    place = np.minimum((probabilities * bins).astype(int), bins - 1)
    curve = []
    for one in range(bins):
        inside = place == one
        if inside.any():
            curve.append(
                {
                    "share": float(inside.mean()),
                    "predicted": float(probabilities[inside].mean()),
                    "observed": float(labels[inside].mean()),
                }
            )
    return float(sum(b["share"] * abs(b["predicted"] - b["observed"]) for b in curve)), curve


def fit_logistic(odds: Floats, labels: Floats, steps: int = 50) -> tuple[float, float]:
    """Slope and shift that turn log-odds into calibrated ones (Platt 1999), by Newton's method."""
    design = np.stack([odds, np.ones_like(odds)], 1)
    theta = np.zeros(2)  # from here Newton's steps are safe: a steep start can overshoot without end
    for _ in range(steps):
        probabilities = _sigmoid(design @ theta)
        gradient = design.T @ (probabilities - labels) + 1e-3 * (theta - [1.0, 0.0])
        weight = probabilities * (1 - probabilities)
        theta = theta - np.linalg.solve((design.T * weight) @ design + 1e-3 * np.eye(2), gradient)
    return float(theta[0]), float(theta[1])


class _Trainer:
    """The network, its optimizer, and where in the run they are."""

    def __init__(
        self,
        how: ScopeTraining,
        out: Path,
        reader: PairReader,
        table: torch.Tensor,
        weights: Mapping[str, torch.Tensor],
    ) -> None:
        import torch

        from memedit.scope_net import ScopeConfig, ScopeNet, from_minilm

        torch.manual_seed(how.seed)
        self._how = how
        self._path = out / "checkpoint.pt"
        self._reader = reader
        self._table = table
        self.net: ScopeNet = ScopeNet(ScopeConfig(layers=how.layers))
        from_minilm(self.net, weights)
        if how.start:
            from safetensors.torch import load_file

            started = load_file(Path(how.start) / "model.safetensors")
            self.net.load_state_dict({name: value.float() for name, value in started.items()})
        self._optimizer = torch.optim.AdamW(self.net.parameters(), lr=how.rate, weight_decay=0.01)
        self._chunk = 0
        self._losses: list[float] = []
        if self._path.is_file():
            self._resume()

    def run(self, sampler: Sampler) -> list[float]:
        """Train to the end; the mean loss of every chunk."""
        chunks = math.ceil(self._how.edits / _CHUNK)
        with progress("scope classifier", chunks, self._chunk) as advance:
            while self._chunk < chunks:
                self._losses.append(self._learn(sampler, chunks))
                self._chunk += 1
                advance(f"loss {self._losses[-1]:.4f}")
                if self._chunk % self._how.checkpoint == 0 or self._chunk == chunks:
                    self._checkpoint()
        return self._losses

    def odds(self, pairs: Sequence[Pair]) -> Floats:
        """Log-odds of pairs, in their order."""
        import torch

        encoded = [self._reader.encode(pair.text, pair.fact) for pair in pairs]
        order = sorted(range(len(pairs)), key=lambda place: len(encoded[place].ids))
        odds = np.empty(len(pairs))
        self.net.eval()
        for start in range(0, len(order), 256):
            rows = order[start : start + 256]
            with torch.inference_mode():
                odds[rows] = self._forward([encoded[row] for row in rows]).numpy()
        return odds

    def _learn(self, sampler: Sampler, chunks: int) -> float:
        import torch

        rng = random.Random(f"{self._how.seed}:{self._chunk}")
        pairs = [pair for _ in range(_CHUNK) for pair in sampler.group(rng)]
        labelled = [(self._reader.encode(pair.text, pair.fact), pair.label) for pair in pairs]
        labelled.sort(key=lambda row: len(row[0].ids))
        batches = [labelled[start : start + self._how.batch] for start in range(0, len(labelled), self._how.batch)]
        rng.shuffle(batches)
        self.net.train()
        total = 0.0
        for place, batch in enumerate(batches):
            for group in self._optimizer.param_groups:
                group["lr"] = self._how.rate * _schedule((self._chunk + place / len(batches)) / chunks)
            odds = self._forward([encoded for encoded, _ in batch])
            labels = torch.tensor([float(label) for _, label in batch])
            loss = torch.nn.functional.binary_cross_entropy_with_logits(odds, labels)
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
            self._optimizer.step()
            total += loss.item() * len(batch)
        return total / len(labelled)

    def _forward(self, encoded: Sequence[Encoded]) -> torch.Tensor:
        import torch

        from memedit.scope_net import collate

        words, roles, cased, mask = collate(encoded, self._table)
        # What is calibrated is what will be served: float32.
        with torch.autocast("cpu", torch.bfloat16, enabled=self._how.bfloat16 and self.net.training):
            odds: torch.Tensor = self.net(words, roles, cased, mask)
        return odds.float()

    def _checkpoint(self) -> None:
        import torch

        state = {
            "how": asdict(self._how),
            "net": self.net.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "chunk": self._chunk,
            "losses": self._losses,
        }
        temporary = self._path.with_suffix(".tmp")
        torch.save(state, temporary)
        temporary.replace(self._path)

    def _resume(self) -> None:
        """Go on from the checkpoint, unless it is of another configuration."""
        import torch

        state = torch.load(self._path, weights_only=True)
        loose = ("threads", "checkpoint", "held_out")
        if any(state["how"].get(name) != value for name, value in asdict(self._how).items() if name not in loose):
            return
        self.net.load_state_dict(state["net"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._chunk, self._losses = state["chunk"], state["losses"]


def _schedule(done: float) -> float:
    return min(1.0, done / 0.05) * (1.0 - done)


def _sigmoid(odds: Floats) -> Floats:
    return np.asarray(1.0 / (1.0 + np.exp(-np.clip(odds, -40, 40))))


def _foundation() -> tuple[PairReader, torch.Tensor, dict[str, torch.Tensor]]:
    """The tokenizer, the word vectors and the weights of all-MiniLM-L6-v2."""
    from safetensors.torch import load_file

    from memedit.planner_words import Vocabulary

    vocabulary = Vocabulary.installed()
    return PairReader(vocabulary.folder), vocabulary.vectors, load_file(vocabulary.folder / "model.safetensors")


def _save(out: Path, net: ScopeNet, config: Mapping[str, object]) -> None:
    from safetensors.torch import save_file

    save_file({name: value.half().contiguous() for name, value in net.state_dict().items()}, out / "model.safetensors")
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n", "utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Train the scope classifier.")
    parser.add_argument("--data", type=Path, required=True, help="folder of public data files")
    parser.add_argument("--out", type=Path, required=True, help="folder for weights, configuration and report")
    defaults = ScopeTraining()
    for name, value in asdict(defaults).items():
        flag = "--" + name.replace("_", "-")
        if isinstance(value, bool):
            parser.add_argument(flag, action="store_true")
        else:
            parser.add_argument(flag, type=type(value), default=value)
    options = vars(parser.parse_args(arguments))
    report = train_scope(options.pop("data"), options.pop("out"), ScopeTraining(**options))
    print(json.dumps(report["held_out"], indent=2))


if __name__ == "__main__":
    main()
