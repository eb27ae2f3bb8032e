"""What a trained planner is worth: accuracy by hops, confusions, calibration, speed; figures as JSON, plots as PNG.

Works on any cases with any `Planner`; knows nothing of how the weights were made.
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
from typing import TYPE_CHECKING, NamedTuple

from memedit.planner import Planner
from memedit.planner_model import Calibration
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
        hop_confusions: Gold number of hops to planned number of hops (0 where nothing was planned) to questions.
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
    hop_confusions: dict[int, dict[int, int]] = field(default_factory=dict)

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


class Judged(NamedTuple):
    """A question, what is right for it, and what was planned.

    Attributes:
        question: The question.
        subject: The gold start entity.
        chain: The gold chain of relation ids.
        plans: The plans, most confident first; empty where none was made.
    """

    question: str
    subject: str
    chain: tuple[str, ...]
    plans: Sequence[Plan]

    @property
    def first(self) -> Plan:
        """The first plan; an empty one where there is none."""
        return self.plans[0] if self.plans else Plan("", (0, 0), (), 0.0)

    @property
    def subject_right(self) -> bool:
        """Whether the first plan starts from the gold entity."""
        return same_name(self.first.start, self.subject)

    @property
    def chain_right(self) -> bool:
        """Whether the first plan's chain is the gold one."""
        return self.first.relations == self.chain

    @property
    def right(self) -> bool:
        """Whether the first plan is right altogether."""
        return self.subject_right and self.chain_right


def evaluate(planner: Planner, cases: Sequence[Case], view: MemoryView, batch: int = 64) -> Figures:
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
    judged = judge(planner, cases, view, batch)
    return summarise(judged, time.perf_counter() - began)


def judge(planner: Planner, cases: Sequence[Case], view: MemoryView, batch: int = 64) -> list[Judged]:
    """The plans for every question of the cases, beside what is right; arguments as for `evaluate`."""
    rows = [(case, question) for case in cases for question in case.questions]
    judged: list[Judged] = []
    for at in range(0, len(rows), batch):
        some = rows[at : at + batch]
        planned = planner.plan([(question, view) for _, question in some])
        judged += [
            Judged(question, case.subject, case.chain, plans)
            for (case, question), plans in zip(some, planned, strict=True)
        ]
    return judged


def summarise(judged: Sequence[Judged], seconds: float) -> Figures:
    """The figures of judged questions.

    Args:
        judged: The questions.
        seconds: How long planning them took.
    """
    total, hops, relations = _Tally(), defaultdict[int, _Tally](_Tally), defaultdict[str, _Tally](_Tally)
    confusions: Counter[tuple[str, str]] = Counter()
    lengths: dict[int, Counter[int]] = defaultdict(Counter)
    for one in judged:
        said = one.first.relations
        among = any(plan.relations == one.chain for plan in one.plans[:5])
        for tally in (total, hops[len(one.chain)]):
            tally.add(subject=one.subject_right, chain=one.chain_right, top5=among, plan=one.right)
        for relation in set(one.chain):
            relations[relation].add(chain=one.chain_right)
        lengths[len(one.chain)][len(said)] += 1
        if len(said) == len(one.chain):
            confusions.update((gold, got) for gold, got in zip(one.chain, said, strict=True) if gold != got)
    error, reliability = calibration_error([(one.first.confidence, one.right) for one in judged])
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
        milliseconds_per_question=1000 * seconds / max(1, len(judged)),
        hop_confusions={gold: dict(sorted(planned.items())) for gold, planned in sorted(lengths.items())},
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
    from memedit.training.plots import plot_calibration, plot_losses, plots_are_possible

    if not plots_are_possible():
        return
    plot_losses(folder / "loss.png", dict(zip(("start entity", "chain"), zip(*losses, strict=True), strict=False)))
    figures = report.get("held_out")
    plot_calibration(folder / "calibration.png", figures["reliability"] if isinstance(figures, dict) else [])


def _bare(name: str) -> str:
    return _LEADING.sub("", name.strip().strip("\"'“”").casefold())


def _log_odds(probability: float) -> float:
    p = min(max(probability, 1e-9), 1 - 1e-6)
    return math.log(p / (1 - p))
