"""What a trained planner is worth: accuracy by hops, confusions, calibration, speed; figures as JSON, plots as PNG.

Works on any cases with any `TrainedPlanner`; knows nothing of how the weights were made.
"""

from __future__ import annotations

import json
import math
import re
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from memedit.planner_model import Calibration, TrainedPlanner
from memedit.strategies.base import Plan
from memedit.training.data import Case

if TYPE_CHECKING:
    from memedit.memory.memory import MemoryView

_LEADING = re.compile(r"^(?:the|a|an) ")
_BINS = 10


@dataclass(slots=True)
class Figures:
    """What was measured.

    Attributes:
        questions: How many questions.
        subject_accuracy: Share with the right start entity.
        chain_accuracy: Share with the gold chain first.
        chain_top5: Share with the gold chain among the first five.
        plan_accuracy: Share with start entity and chain right.
        by_hops: The same four, by number of hops.
        confusions: (gold relation, planned relation, times) at the same place of chains of equal length.
        by_relation: Relation id to the share of questions with it whose chain came first.
        expected_calibration_error: Of the first plan's confidence, over ten bins.
        reliability: (mean confidence, share right, questions) of every bin that is not empty.
        milliseconds_per_question: Wall clock, in batches.
    """

    questions: int
    subject_accuracy: float
    chain_accuracy: float
    chain_top5: float
    plan_accuracy: float
    by_hops: dict[int, dict[str, float]]
    confusions: list[tuple[str, str, int]]
    by_relation: dict[str, float]
    expected_calibration_error: float
    reliability: list[tuple[float, float, int]]
    milliseconds_per_question: float

    def to_dict(self) -> dict[str, object]:
        """As plain values."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(slots=True)
class _Tally:
    questions: int = 0
    right: Counter[str] = field(default_factory=Counter)

    def add(self, **outcomes: bool) -> None:
        self.questions += 1
        self.right.update({name: int(outcome) for name, outcome in outcomes.items()})

    def shares(self) -> dict[str, float]:
        return {name: count / max(1, self.questions) for name, count in sorted(self.right.items())}


def evaluate(planner: TrainedPlanner, cases: Sequence[Case], view: MemoryView, batch: int = 64) -> Figures:
    """Plan every question of the cases and compare with their chains.

    Args:
        planner: What to judge.
        cases: The cases.
        view: A view of a memory; what it holds does not matter.
        batch: Questions planned at once.
    """
    rows = [(case, question) for case in cases for question in case.questions]
    planner.plan([(question, view) for _, question in rows[:batch]])
    began = time.perf_counter()
    plans: list[list[Plan]] = []
    for at in range(0, len(rows), batch):
        plans += planner.plan([(question, view) for _, question in rows[at : at + batch]])
    elapsed = time.perf_counter() - began
    total, hops, relations = _Tally(), defaultdict[int, _Tally](_Tally), defaultdict[str, _Tally](_Tally)
    confusions: Counter[tuple[str, str]] = Counter()
    confident: list[tuple[float, bool]] = []
    for (case, _), ranked in zip(rows, plans, strict=True):
        first = ranked[0] if ranked else Plan("", (0, 0), (), 0.0)
        subject = same_name(first.start, case.subject)
        chain = first.relations == case.chain
        among = any(plan.relations == case.chain for plan in ranked[:5])
        for tally in (total, hops[len(case.chain)]):
            tally.add(subject=subject, chain=chain, top5=among, plan=subject and chain)
        for relation in set(case.chain):
            relations[relation].add(chain=chain)
        if len(first.relations) == len(case.chain):
            confusions.update(
                (gold, said) for gold, said in zip(case.chain, first.relations, strict=True) if gold != said
            )
        confident.append((first.confidence, subject and chain))
    error, reliability = calibration_error(confident)
    shares = total.shares()
    return Figures(
        questions=total.questions,
        subject_accuracy=shares.get("subject", 0.0),
        chain_accuracy=shares.get("chain", 0.0),
        chain_top5=shares.get("top5", 0.0),
        plan_accuracy=shares.get("plan", 0.0),
        by_hops={number: {**tally.shares(), "questions": tally.questions} for number, tally in sorted(hops.items())},
        confusions=[(gold, said, times) for (gold, said), times in confusions.most_common(25)],
        by_relation={relation: tally.shares().get("chain", 0.0) for relation, tally in sorted(relations.items())},
        expected_calibration_error=error,
        reliability=reliability,
        milliseconds_per_question=1000 * elapsed / max(1, len(rows)),
    )


def fit_calibration(probabilities: Sequence[float], right: Sequence[bool]) -> Calibration:
    """Platt's scaling: slope and offset on the log-odds of greatest likelihood, by Newton's method.

    Args:
        probabilities: What the network said, in [0, 1].
        right: Whether it was so.
    """
    odds = [_log_odds(value) for value in probabilities]
    slope, offset = 1.0, 0.0
    for _ in range(30):
        g0 = g1 = 0.0
        h00 = h01 = h11 = 1e-6
        for x, y in zip(odds, right, strict=True):
            p = 1 / (1 + math.exp(-min(40.0, max(-40.0, slope * x + offset))))
            g0, g1 = g0 + (p - y) * x, g1 + (p - y)
            w = p * (1 - p)
            h00, h01, h11 = h00 + w * x * x, h01 + w * x, h11 + w
        determinant = h00 * h11 - h01 * h01
        if abs(determinant) < 1e-9:
            break
        # Newton's step, kept short: from far away it may overshoot.
        slope -= max(-1.0, min(1.0, (h11 * g0 - h01 * g1) / determinant))
        offset -= max(-1.0, min(1.0, (h00 * g1 - h01 * g0) / determinant))
    return Calibration(slope=min(max(slope, 0.2), 3.0), offset=min(max(offset, -3.0), 3.0))


def calibration_error(outcomes: Sequence[tuple[float, bool]]) -> tuple[float, list[tuple[float, float, int]]]:
    """Expected calibration error over ten equal bins, and (mean confidence, share right, size) of each."""
    bins: dict[int, list[tuple[float, bool]]] = defaultdict(list)
    for confidence, right in outcomes:
        bins[min(_BINS - 1, int(confidence * _BINS))].append((confidence, right))
    rows = [
        (sum(c for c, _ in members) / len(members), sum(r for _, r in members) / len(members), len(members))
        for _, members in sorted(bins.items())
    ]
    return sum(abs(said - was) * size for said, was, size in rows) / max(1, len(outcomes)), rows


def same_name(a: str, b: str) -> bool:
    """Whether two spans name the same entity: case, quotes and a leading article do not count."""
    return _bare(a) == _bare(b)


def write_report(folder: Path, report: dict[str, object], losses: Sequence[tuple[float, float]]) -> None:
    """Write report.json, and, where matplotlib is installed, loss.png and calibration.png."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "report.json").write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    try:
        import matplotlib as mpl
    except ImportError:
        return
    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(6, 4))
    for name, series in zip(("start entity", "chain"), zip(*losses, strict=True), strict=False):
        axes.plot(_smooth(series), label=name)
    axes.set(xlabel="step", ylabel="cross-entropy, nats", yscale="log")
    axes.legend()
    figure.savefig(folder / "loss.png", dpi=120, bbox_inches="tight")
    figure, axes = plt.subplots(figsize=(4, 4))
    axes.plot([0, 1], [0, 1], color="grey", linewidth=1)
    figures = report.get("held_out")
    rows = figures["reliability"] if isinstance(figures, dict) else []
    axes.scatter([row[0] for row in rows], [row[1] for row in rows], s=[10 + row[2] / 2 for row in rows])
    axes.set(xlabel="confidence", ylabel="share right", xlim=(0, 1), ylim=(0, 1))
    figure.savefig(folder / "calibration.png", dpi=120, bbox_inches="tight")
    plt.close("all")


def _smooth(series: Sequence[float], span: int = 20) -> list[float]:
    return [
        sum(series[max(0, at - span) : at + 1]) / len(series[max(0, at - span) : at + 1]) for at in range(len(series))
    ]


def _bare(name: str) -> str:
    return _LEADING.sub("", name.strip().strip("\"'“”").casefold())


def _log_odds(probability: float) -> float:
    p = min(max(probability, 1e-9), 1 - 1e-6)
    return math.log(p / (1 - p))
