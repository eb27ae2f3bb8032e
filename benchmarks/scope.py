r"""Scope: is a text about an edit? (SERAC's scope classifier, Mitchell et al. 2022, section 3.1)

    python -m benchmarks.scope --data FILE.jsonl --memory N --json OUT [--scope trained|embedding]

A row of the file:

    {"edit": {"subject": "iPad", "relation": "P178", "object": "Nokia", "statement": "The developer of iPad is Nokia."},
     "in_scope": ["Who developed the iPad?", "The iPad was developed by"],
     "out_of_scope": {"near_subject": ["Who developed the iPad Pro?"], "unrelated": ["Write a haiku."]}}

``relation`` may be left out; the edit is then given as its statement alone. All edits of the file are in one memory, padded
with invented facts to N. Every text is put to the scope classifier against that memory:

- ``recall``: texts in scope for which the right edit is returned with at least the threshold's probability;
- ``top1_accuracy``: texts in scope for which the right edit is the likeliest;
- ``false_positive_rate``, by kind: texts out of scope for which *any* edit of the memory is returned with at least the
  threshold's probability, unless another row says that this very text is in that edit's scope;
  ``false_positive_rate_own`` counts the row's own edit alone;
- ``expected_calibration_error``: of the likeliest edit's probability, over all texts, as a forecast of its being right;
- ``milliseconds_per_question``: one text at a time, embedding included, after a warm-up.
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from benchmarks.scope_data import Row, fill_memory, load
from memedit.evaluation.environment import environment, sha256
from memedit.evaluation.report import Table
from memedit.evaluation.runs import progress, write_json
from memedit.evaluation.terminal import exit_code, show

if TYPE_CHECKING:
    from memedit.memory.memory import EditMemory, MemoryView
    from memedit.scope import ScopeClassifier

BENCHMARK = "scope"
RETURNED = 5
"""Facts asked for with every text."""
_TIMED = 200
_BATCH = 64
_BINS = 15


@dataclass(frozen=True, slots=True)
class Options:
    """What is run, and how.

    Attributes:
        data: The file of rows.
        json: Where the result goes.
        memory: Edits in memory, padding included.
        scope: The classifier under test.
        weights: Folder of other weights for the trained classifier.
        threshold: Another threshold than the classifier's own.
        store: Where to keep the memory, so that the next run need not embed it again; None keeps it nowhere.
        seed: Seed of the padding and of the texts timed.
    """

    data: Path
    json: Path
    memory: int = 10_000
    scope: Literal["trained", "embedding"] = "trained"
    weights: Path | None = None
    threshold: float | None = None
    store: Path | None = None
    seed: int = 0


class Judged(NamedTuple):
    """What the classifier made of a text.

    Attributes:
        text: The text.
        row: Number of its row.
        kind: Its kind; None in scope.
        found: Row number (None for padding) and probability of each edit returned, likeliest first.
    """

    text: str
    row: int
    kind: str | None
    found: tuple[tuple[int | None, float], ...]


def judge(scope: ScopeClassifier, view: MemoryView, rows: Sequence[Row], owner: dict[int, int]) -> list[Judged]:
    """Put every text of every row to the classifier, in batches."""
    texts: list[tuple[str, int, str | None]] = []
    for number, row in enumerate(rows):
        texts += [(text, number, None) for text in row.in_scope]
        texts += [(text, number, kind) for kind, some in row.out_of_scope.items() for text in some]
    judged: list[Judged] = []
    with progress("texts", len(texts)) as advance:
        for start in range(0, len(texts), _BATCH):
            batch = texts[start : start + _BATCH]
            results = scope.retrieve([(view, text, RETURNED) for text, _, _ in batch])
            for (text, number, kind), scoped in zip(batch, results, strict=True):
                found = tuple((owner.get(one.fact.id), one.probability) for one in scoped)
                judged.append(Judged(text, number, kind, found))
            advance(len(batch))
    return judged


def figures(judged: Sequence[Judged], rows: Sequence[Row], threshold: float, slots: Sequence[int]) -> dict[str, object]:
    """The benchmark's figures.

    Args:
        judged: Every text with what was found.
        rows: The rows.
        threshold: Probability from which a text counts as in scope.
        slots: For each row the number of the row whose edit stands for it.
    """
    wanted: dict[str, set[int]] = defaultdict(set)
    for number, row in enumerate(rows):
        for text in row.in_scope:
            wanted[text].add(slots[number])
    inside = [one for one in judged if one.kind is None]
    outside: dict[str, list[Judged]] = defaultdict(list)
    for one in judged:
        if one.kind is not None:
            outside[one.kind].append(one)
    top = [one.found[0] if one.found else (None, 0.0) for one in judged]
    right = [
        number is not None and number in (wanted[one.text] | ({slots[one.row]} if one.kind is None else set()))
        for one, (number, _) in zip(judged, top, strict=True)
    ]

    def accepted(one: Judged, *, own: bool) -> bool:
        for number, probability in one.found:
            allowed = number is not None and number in wanted[one.text]
            if probability >= threshold and not allowed and (not own or number == slots[one.row]):
                return True
        return False

    return {
        "texts": len(judged),
        "recall": _share(any(n == slots[one.row] and p >= threshold for n, p in one.found) for one in inside),
        "top1_accuracy": _share(one.found[:1] != () and one.found[0][0] == slots[one.row] for one in inside),
        "false_positive_rate": {
            kind: _share(accepted(one, own=False) for one in some) for kind, some in outside.items()
        },
        "false_positive_rate_own": {
            kind: _share(accepted(one, own=True) for one in some) for kind, some in outside.items()
        },
        "counts": {"in_scope": len(inside)} | {kind: len(some) for kind, some in outside.items()},
        "expected_calibration_error": calibration_error([p for _, p in top], right),
        "threshold": threshold,
    }


def calibration_error(probabilities: Sequence[float], right: Sequence[bool], bins: int = _BINS) -> float:
    """Expected calibration error over equal bins (Guo et al. 2017, equation 3).

    >>> calibration_error([1.0, 1.0, 0.0, 0.0], [True, True, False, True])
    0.25
    """
    sums = [[0.0, 0.0] for _ in range(bins)]
    for probability, hit in zip(probabilities, right, strict=True):
        place = min(int(probability * bins), bins - 1)
        sums[place][0] += probability
        sums[place][1] += hit
    return sum(abs(said - was) for said, was in sums) / max(1, len(right))


def milliseconds(scope: ScopeClassifier, view: MemoryView, texts: Sequence[str]) -> float:
    """Mean time for one text on its own, in milliseconds; no text is timed twice."""
    fresh = list(dict.fromkeys(texts))
    for text in fresh[:5]:
        scope.retrieve([(view, f"{text} ", RETURNED)])
    started = time.perf_counter()
    for text in fresh:
        scope.retrieve([(view, text, RETURNED)])
    return 1000.0 * (time.perf_counter() - started) / max(1, len(fresh))


def _share(hits: Iterable[bool]) -> float | None:
    counted = list(hits)
    return sum(counted) / len(counted) if counted else None


def make_scope(options: Options, memory: EditMemory) -> ScopeClassifier:
    """The classifier under test."""
    from memedit.scope import EmbeddingScope
    from memedit.scope_model import TrainedScope

    if options.scope == "embedding":
        return EmbeddingScope(memory.embedder, threshold=0.5 if options.threshold is None else options.threshold)
    return TrainedScope(memory.embedder, weights=options.weights, threshold=options.threshold)


def run(options: Options) -> dict[str, object]:
    """Run the benchmark; the result, JSON-ready."""
    from memedit.memory.memory import EditMemory

    rows, seed = load(options.data), options.seed
    with EditMemory(options.store or ":memory:", embed_on_write=False) as memory:
        filled = fill_memory(memory, rows, options.memory, seed)
        view = memory.view()
        classifier = make_scope(options, memory)
        texts = [text for row in rows for text in (*row.in_scope, *sum(row.out_of_scope.values(), ()))]
        classifier.retrieve([(view, "The first search embeds the memory.", RETURNED)])
        spent = milliseconds(classifier, view, random.Random(seed).sample(texts, min(_TIMED, len(texts))))
        judged = judge(classifier, view, rows, filled.owner)
        return {
            "benchmark": BENCHMARK,
            "data": str(options.data),
            "data_sha256": sha256(options.data),
            "scope": options.scope,
            "seed": seed,
            "edits": len(rows),
            "memory": memory.count(),
            **figures(judged, rows, classifier.threshold, filled.slots),
            "milliseconds_per_question": spent,
            "failures": failures(judged, rows, classifier.threshold, filled.slots),
        }


def failures(
    judged: Sequence[Judged], rows: Sequence[Row], threshold: float, slots: Sequence[int]
) -> list[dict[str, object]]:
    """Up to twenty texts of each kind that were judged wrongly, with the likeliest edit."""
    shown: dict[str | None, list[dict[str, object]]] = defaultdict(list)
    for one in judged:
        number, probability = one.found[0] if one.found else (None, 0.0)
        wrong = (probability >= threshold) != (one.kind is None) or (one.kind is None and number != slots[one.row])
        if wrong and len(shown[one.kind]) < 20:
            likeliest = rows[number].statement if number is not None else "invented"
            shown[one.kind].append(
                {
                    "kind": one.kind or "in_scope",
                    "text": one.text,
                    "edit": rows[one.row].statement,
                    "likeliest": likeliest,
                    "probability": probability,
                }
            )
    return [failure for some in shown.values() for failure in some]


def tables(result: dict[str, object]) -> list[Table]:
    """The figures as tables."""

    def percent(value: object) -> str:
        return f"{100 * value:.2f}" if isinstance(value, int | float) else "–"

    main_rows = [
        ("recall, %", percent(result["recall"])),
        ("right edit likeliest, %", percent(result["top1_accuracy"])),
        ("expected calibration error", f"{result['expected_calibration_error']:.4f}"),
        ("milliseconds a question", f"{result['milliseconds_per_question']:.1f}"),
    ]
    strict, own, counts = (result[name] for name in ("false_positive_rate", "false_positive_rate_own", "counts"))
    assert isinstance(strict, dict)
    assert isinstance(own, dict)
    assert isinstance(counts, dict)
    kinds = [(kind, percent(rate), percent(own[kind]), str(counts[kind])) for kind, rate in strict.items()]
    return [
        Table(f"Scope at {result['memory']} edits ({result['scope']})", ("", "value"), tuple(main_rows)),
        Table("False positives, %", ("kind", "any edit", "own edit", "texts"), tuple(kinds)),
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark from the command line; the exit code."""
    command = sys.argv if argv is None else ["benchmarks.scope", *argv]
    parser = argparse.ArgumentParser(prog="benchmarks.scope", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="JSON Lines file of edits and texts")
    parser.add_argument("--memory", type=int, default=10_000, help="edits in memory, padding included")
    parser.add_argument("--json", type=Path, required=True, help="where the result goes")
    parser.add_argument(
        "--scope", choices=("trained", "embedding"), default="trained", help="the classifier under test"
    )
    parser.add_argument("--weights", type=Path, help="folder of other weights for the trained classifier")
    parser.add_argument("--threshold", type=float, help="another threshold than the classifier's own")
    parser.add_argument("--store", type=Path, help="file that keeps the memory and its vectors for the next run")
    parser.add_argument("--seed", type=int, default=0, help="seed of the padding and of the texts timed")
    options = Options(**vars(parser.parse_args(argv)))

    def body() -> None:
        result = run(options)
        write_json(options.json, result | environment(command))
        show(tables(result))

    return exit_code(body)


if __name__ == "__main__":
    sys.exit(main())
