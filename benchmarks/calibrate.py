"""Fits the constants of the untrained scope classifier (`memedit.scope.EmbeddingScope`) on development data.

    python -m benchmarks.calibrate --data ../shared/data/pokemqa/cls-filtered.json

Each row of the data is an edit and questions about it, e.g. {"edit": "The capital of France is Lyon", "questions":
["What is the capital of France?", ...]}. A question and its own edit are a positive pair; a question and each of the
edits nearest to it by embedding are negatives, which is what the classifier meets behind the index. Edits are taken
once as triples and once as free text. Prints the constants and their calibration error; knows nothing of the runtime.
"""

from __future__ import annotations

import argparse
import json
import random
import re
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from memedit.memory.catalogue import Catalogue
from memedit.memory.embedder import SentenceEmbedder

Matrix = NDArray[np.float64]


def words(text: str) -> frozenset[str]:
    """The words of a text, in lower case."""
    return frozenset(re.findall(r"\w+", text.casefold()))


def pairs(rows: list[dict[str, object]], neighbours: int, *, free_text: bool) -> tuple[Matrix, Matrix]:
    """Features [n, 3] (constant, similarity, share of words) and labels [n] of positive and negative pairs."""
    catalogue, embedder = Catalogue.default(), SentenceEmbedder()
    edits = [str(row["edit"]) for row in rows]
    triples = [catalogue.parse(edit + ".") for edit in edits]
    kept = [n for n in range(len(rows)) if free_text or triples[n] is not None]
    statements = embedder.encode([edits[n] for n in kept])
    asked = [catalogue.get(t.relation_id).ask(t.subject) if (t := triples[n]) else edits[n] for n in kept]
    questions = statements if free_text else embedder.encode(asked)
    features: list[list[float]] = []
    labels: list[float] = []
    for place, n in enumerate(kept):
        texts = [str(text) for text in rows[n]["questions"]]  # type: ignore[attr-defined]
        for text, vector in zip(texts, embedder.encode(texts), strict=True):
            similarity = np.maximum(statements @ vector, questions @ vector)
            for other in {place, *np.argsort(-similarity)[:neighbours].tolist()}:
                triple, edit = triples[kept[other]], edits[kept[other]]
                wanted, given = (words(text), words(edit)) if free_text else (words(triple.subject), words(text))
                share = len(wanted & given) / max(1, len(wanted))
                features.append([1.0, float(similarity[other]), share])
                labels.append(float(other == place))
    return np.array(features), np.array(labels)


def fit(features: Matrix, labels: Matrix, steps: int = 30) -> Matrix:
    """Weights [3] of a logistic regression, by Newton's method with a little ridge."""
    weights = np.zeros(features.shape[1])
    for _ in range(steps):
        p = 1 / (1 + np.exp(-features @ weights))
        hessian = (features * (p * (1 - p))[:, None]).T @ features + 1e-3 * np.eye(len(weights))
        weights += np.linalg.solve(hessian, features.T @ (labels - p) - 1e-3 * weights)
    return weights


def expected_calibration_error(p: Matrix, labels: Matrix, bins: int = 10) -> float:
    """Mean over equal-width bins, weighted by size, of |share of positives - mean probability|."""
    which = np.minimum((p * bins).astype(int), bins - 1)
    gaps = [abs(labels[which == b].mean() - p[which == b].mean()) * (which == b).mean() for b in np.unique(which)]
    return float(sum(gaps))


def main() -> None:
    parser = argparse.ArgumentParser(description="Fit the constants of the untrained scope classifier.")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--edits", type=int, default=1200, help="edits used, half to fit and half to check")
    parser.add_argument("--neighbours", type=int, default=8, help="nearest edits paired with each question")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rows = json.loads(options.data.read_text("utf-8"))
    random.Random(options.seed).shuffle(rows)
    rows = rows[: options.edits]
    half = len(rows) // 2
    for free_text in (False, True):
        weights = fit(*pairs(rows[:half], options.neighbours, free_text=free_text))
        features, labels = pairs(rows[half:], options.neighbours, free_text=free_text)
        p = 1 / (1 + np.exp(-features @ weights))
        kind = "free text" if free_text else "triples"
        error = expected_calibration_error(p, labels)
        recall, false = (p[labels == 1] >= 0.5).mean(), (p[labels == 0] >= 0.5).mean()
        print(f"{kind}: bias {weights[0]:.2f}, similarity {weights[1]:.2f}, named {weights[2]:.2f}")
        print(f"  on the other half: recall {recall:.3f}, false positives {false:.4f}, calibration error {error:.4f}")


if __name__ == "__main__":
    main()
