"""MQuAKE's figures: marks what a run recorded against the gold, sums up, and says which tables and bars show it.

Here, and only here, gold meets answers. Knows nothing of editors and memories: it reads records and the facts that
were written.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypedDict

from benchmarks.mquake_data import Edit, Gold, GoldHop, Problem
from memedit.evaluation.report import Figures, Table, named_sections, number, percent, section
from memedit.evaluation.scoring import Marks, chain_right, edits_right, matches, multi_hop_figures, normalise, share

FactKey = tuple[str, str, str]
"""Subject, relation and object of a fact, names normalised; of a free-text fact two empty strings and the statement."""

SHOWN_FAILURES = 20
"""Most cases listed under ``failures``."""


class AnswerRecord(TypedDict):
    """One answer as a run keeps it; edits as `FactKey` in a list."""

    text: str
    hops: list[HopRecord]
    edits: list[list[str]]
    probability: float
    planner: str
    model_calls: int
    prompt_tokens: int
    completion_tokens: int


class HopRecord(TypedDict):
    """One hop of an answer."""

    entity: str
    relation: str
    object: str
    source: str


class CaseRecord(TypedDict):
    """A finished case: its answers in the order of its questions.

    ``seconds`` is the wall-clock time since the case finished before it, so that the sum is the time of the run.
    """

    answers: list[AnswerRecord]
    seconds: float


@dataclass(frozen=True, slots=True)
class Placed:
    """A case in its memory.

    Attributes:
        problem: The case and its gold.
        memory: Number of the memory it is asked in, from 0.
        left_out: Whether its edits were kept out of that memory.
    """

    problem: Problem
    memory: int
    left_out: bool = False

    @property
    def key(self) -> str:
        """What identifies the case in a run."""
        return str(self.problem.case.row)


def fact_key(subject: str, relation: str, obj: str, statement: str) -> FactKey:
    """The key under which two facts count as the same; a free-text fact has no subject."""
    return (normalise(subject), relation, normalise(obj)) if subject else ("", "", normalise(statement))


def belief_key(hop: GoldHop) -> str:
    """What identifies a question to the base model alone in a run."""
    return f"belief {hop.relation} {normalise(hop.subject)}"


def figures(
    placed: Sequence[Placed],
    written: Mapping[int, Sequence[FactKey]],
    records: Mapping[str, CaseRecord],
    beliefs: Mapping[str, str] | None,
) -> dict[str, object]:
    """Every figure of a run; JSON-ready.

    Args:
        placed: All cases in the order in which their edits were written.
        written: By row, the keys of the facts that a case's edits were recorded as, in the order of its edits.
        records: By key, the finished cases; there is one for each of `placed`.
        beliefs: By `belief_key`, what the base model says alone; None where it was not asked.
    """
    memories = _memories(placed, written)
    kept = [case for case in placed if not case.left_out]
    marks = {case.key: _mark(case, memories[case.memory], written, records[case.key]) for case in kept}

    def block(wanted: Callable[[Placed], bool]) -> dict[str, object]:
        return multi_hop_figures([marks[case.key] for case in kept if wanted(case)])

    def split(size: Callable[[Placed], int]) -> dict[str, object]:
        sizes = {case.key: size(case) for case in kept}
        return {
            str(n): multi_hop_figures([marks[key] for key, own in sizes.items() if own == n])
            for n in sorted(set(sizes.values()))
        }

    broken = {case.key for case in kept if _is_broken(case.problem.gold, memories[case.memory])}
    asked = [answer for case in kept for answer in records[case.key]["answers"]]
    seconds = sum(records[case.key]["seconds"] for case in kept)
    left_out = _left_out([case for case in placed if case.left_out], memories, records)
    return {
        **block(lambda _: True),
        "by_hops": split(lambda case: len(case.problem.gold.chain)),
        "by_edits": split(lambda case: len(case.problem.case.edits)),
        "fully_edited": block(lambda case: case.problem.gold.fully_edited),
        "partly_edited": block(lambda case: not case.problem.gold.fully_edited),
        "broken_by_other_edits": {
            "cases": len(broken),
            "broken": block(lambda case: case.key in broken),
            "intact": block(lambda case: case.key not in broken),
            "intact_fully_edited": block(lambda case: case.key not in broken and case.problem.gold.fully_edited),
        },
        "known_beliefs": None if beliefs is None else _known_beliefs(kept, broken, beliefs, block),
        "left_out": left_out,
        "intervention_rate_unedited": left_out and left_out["intervention_rate_unedited"],
        "model_calls": sum(answer["model_calls"] for answer in asked),
        "prompt_tokens": sum(answer["prompt_tokens"] for answer in asked),
        "completion_tokens": sum(answer["completion_tokens"] for answer in asked),
        "model_calls_per_question": _mean(answer["model_calls"] for answer in asked),
        "prompt_tokens_per_question": _mean(answer["prompt_tokens"] for answer in asked),
        "seconds": round(seconds, 3),
        "questions_per_second": len(asked) / seconds if seconds else None,
        "failures": _failures(kept, marks, records),
    }


@dataclass(frozen=True, slots=True)
class _Memory:
    """What the edits of one memory say.

    Attributes:
        held: By (subject, relation), the object written last.
        keys: By (subject, relation, object), the keys of the facts that state it.
    """

    held: dict[tuple[str, str], str]
    keys: dict[FactKey, set[FactKey]]


def _memories(placed: Sequence[Placed], written: Mapping[int, Sequence[FactKey]]) -> dict[int, _Memory]:
    memories: dict[int, _Memory] = defaultdict(lambda: _Memory({}, defaultdict(set)))
    for case in placed:
        memory = memories[case.memory]
        if case.left_out:
            continue
        for edit, key in zip(case.problem.case.edits, written[case.problem.case.row], strict=True):
            subject, relation, obj = triple = _triple(edit)
            memory.held[subject, relation] = obj
            memory.keys[triple].add(key)
    return memories


def _triple(step: Edit | GoldHop) -> FactKey:
    return normalise(step.subject), step.relation, normalise(step.object)


def _mark(case: Placed, memory: _Memory, written: Mapping[int, Sequence[FactKey]], record: CaseRecord) -> list[Marks]:
    gold = case.problem.gold
    required: set[object] = set(written[case.problem.case.row])
    steps = {_triple(hop) for hop in gold.chain}
    allowed: set[object] = steps | {key for step in steps for key in memory.keys.get(step, ())}
    marks = []
    for answer in record["answers"]:
        right = matches(answer["text"], gold.answers)
        chain = chain_right([hop["object"] for hop in answer["hops"]], [hop.names for hop in gold.chain])
        used: set[object] = {tuple(key) for key in answer["edits"]}
        marks.append(Marks(right, right and chain, edits_right(used, required, allowed)))
    return marks


def _is_broken(gold: Gold, memory: _Memory) -> bool:
    """Whether the memory holds another object than the gold chain at one of its steps.

    Case c is broken  <=>  some hop (s, r, o) of its chain has held(s, r) defined and not a name of o,

    where held(s, r) is the object written last to that slot in c's memory. The case's own edits agree with its chain,
    so it takes an edit of another case. An edit that was itself superseded breaks nothing.
    """
    return any(
        (held := memory.held.get((normalise(hop.subject), hop.relation))) is not None
        and held not in {normalise(name) for name in hop.names}
        for hop in gold.chain
    )


def _known_beliefs(
    kept: Sequence[Placed],
    broken: set[str],
    beliefs: Mapping[str, str],
    block: Callable[[Callable[[Placed], bool]], dict[str, object]],
) -> dict[str, object]:
    """Accuracy among partly edited cases by whether the base model knows what is not edited, asked alone."""
    unedited = {case.key: [hop for hop in case.problem.gold.chain if not hop.edited] for case in kept}
    asked = {belief_key(hop): hop for hops in unedited.values() for hop in hops if belief_key(hop) in beliefs}
    right = {key: matches(beliefs[key], hop.names) for key, hop in asked.items()}
    known = {key for key, hops in unedited.items() if hops and all(right.get(belief_key(hop)) for hop in hops)}
    hops = share(right.values())
    return {
        "hops": hops.total,
        "hop_accuracy": hops.value,
        "intervals": {"hop_accuracy": hops.interval},
        "all_known": block(lambda case: case.key in known),
        "all_known_intact": block(lambda case: case.key in known - broken),
        "some_unknown": block(lambda case: bool(unedited[case.key]) and case.key not in known),
    }


def _left_out(
    cases: Sequence[Placed], memories: Mapping[int, _Memory], records: Mapping[str, CaseRecord]
) -> dict[str, object] | None:
    """How often an edit was used for questions of left-out cases.

    intervention_rate_unedited = |{q in Q : an edit was used}| / |Q|,

    where Q holds the questions of the left-out cases of whose old chain no (subject, relation) is edited by anything
    in the memory they are asked in. (A hop whose subject the file does not name may be edited for all we know, so its
    questions are not in Q.)
    """
    if not cases:
        return None
    untouched = [
        case
        for case in cases
        if not any(
            not hop.subject or (normalise(hop.subject), hop.relation) in memories[case.memory].held
            for hop in case.problem.gold.old_chain
        )
    ]
    rate = share(bool(answer["edits"]) for case in untouched for answer in records[case.key]["answers"])
    return {
        "cases": len(cases),
        "questions": sum(len(records[case.key]["answers"]) for case in cases),
        "untouched_cases": len(untouched),
        "untouched_questions": rate.total,
        "interventions": rate.hits,
        "intervention_rate_unedited": rate.value,
        "intervals": {"intervention_rate_unedited": rate.interval},
    }


def _failures(
    kept: Sequence[Placed], marks: Mapping[str, Sequence[Marks]], records: Mapping[str, CaseRecord]
) -> list[dict[str, object]]:
    """The first cases of which no question was answered right, each by its first question."""
    failed = [case for case in kept if not any(mark.answer for mark in marks[case.key])]
    return [
        {
            "case_id": case.problem.gold.case_id,
            "question": case.problem.case.questions[0],
            "answer": records[case.key]["answers"][0]["text"],
            "hops": [f"{hop['entity']} | {hop['relation']} | {hop['object']}" for hop in answer["hops"]],
            "right_answer": case.problem.gold.answers[0],
            "right_hops": [f"{hop.subject} | {hop.relation} | {hop.object}" for hop in case.problem.gold.chain],
        }
        for case in failed[:SHOWN_FAILURES]
        for answer in records[case.key]["answers"][:1]
    ]


def _mean(values: Iterable[int]) -> float | None:
    counted = list(values)
    return sum(counted) / len(counted) if counted else None


# -- how they are shown --------------------------------------------------------------------------------------

ACCURACIES = {
    "multi_hop_accuracy": "Multi-hop",
    "multi_hop_accuracy_per_question": "a question",
    "hop_wise_accuracy": "Hop-wise",
    "hop_wise_accuracy_per_question": "a question",
    "edit_wise_accuracy": "Edit-wise",
    "edit_wise_accuracy_per_question": "a question",
}
BARS = {
    "multi_hop_accuracy": "multi-hop (any question of a case)",
    "multi_hop_accuracy_per_question": "multi-hop (each question)",
    "hop_wise_accuracy": "hop-wise",
    "edit_wise_accuracy": "edit-wise",
}


def title(result: Figures) -> str:
    """One line that says what was measured."""
    size = result.get("edits_per_memory")
    memory = {"all": "all edits in one memory", "1": "each case's edits alone"}.get(
        str(size), f"edits of {size} cases in a memory"
    )
    return f"{result.get('data')}: {result.get('model')}, {result.get('strategy')}, {memory}"


def groups(result: Figures) -> list[tuple[str, dict[str, object]]]:
    """The sets of cases that are shown, each with its figures; empty ones left out."""
    shared, known = section(result, "broken_by_other_edits"), section(result, "known_beliefs")
    found = [
        ("all", dict(result)),
        *named_sections(result, "by_hops", "hops: {}"),
        *named_sections(result, "by_edits", "edits: {}"),
        ("fully edited", section(result, "fully_edited")),
        ("partly edited", section(result, "partly_edited")),
        ("unedited hops known", section(known, "all_known")),
    ]
    if shared.get("cases"):
        found += [
            ("broken by other edits", section(shared, "broken")),
            ("intact", section(shared, "intact")),
            ("intact, fully edited", section(shared, "intact_fully_edited")),
            ("intact, unedited hops known", section(known, "all_known_intact")),
        ]
    return [(label, part) for label, part in found if part.get("cases")]


def tables(result: Figures) -> list[Table]:
    """The result as tables."""
    rows = [
        (
            label,
            number(part.get("cases")),
            *(percent(part, name, interval="question" not in name) for name in ACCURACIES),
        )
        for label, part in groups(result)
    ]
    other = [
        (label, number(result.get(name)))
        for label, name in (
            ("model calls", "model_calls"),
            ("model calls a question", "model_calls_per_question"),
            ("prompt tokens", "prompt_tokens"),
            ("prompt tokens a question", "prompt_tokens_per_question"),
            ("seconds", "seconds"),
            ("questions a second", "questions_per_second"),
        )
    ]
    left_out, known = section(result, "left_out"), section(result, "known_beliefs")
    if left_out:
        rate = percent(left_out, "intervention_rate_unedited")
        other.append(("interventions in untouched questions, %", f"{rate} of {left_out.get('untouched_questions')}"))
    if known:
        other.append(
            ("unedited hops known when asked alone, %", f"{percent(known, 'hop_accuracy')} of {known.get('hops')}")
        )
    return [
        Table(f"{title(result)} (% right, 95% interval)", ("", "cases", *ACCURACIES.values()), tuple(rows)),
        Table("Cost and side figures", ("", "value"), tuple(other)),
    ]
