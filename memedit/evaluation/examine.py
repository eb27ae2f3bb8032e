"""Examines cases: answers first, then what the unedited model says, then the scores of what is expected.

What a `Method` is handed to answer is an `Ask`; what is expected goes to `Method.score` alone, after the answers are in.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import groupby
from typing import TypedDict

from memedit.evaluation.cases import Expected, Question
from memedit.evaluation.measures import answer_right
from memedit.evaluation.method import Ask, Method, Reply, Seen, Span, ask_unedited
from memedit.evaluation.options import Options, Placed
from memedit.evaluation.remembered import RememberedModel
from memedit.models.base import Prompt, Sampling, Score

FLUENCY_TOKENS = 100
"""Most tokens written for the measure of fluency. ROME's texts are of 100 with their prompts, which are all of a case's,
and sampled from the five likeliest; here the first prompt is continued by the likeliest, so that a run can be
repeated."""
SCORED_NAMES = 4
"""Most names of an answer that are scored under teacher forcing; the best counts."""
ALONE = "alone"
_RECALL_TOKENS = 12


class ForcedRecord(TypedDict):
    """What teacher forcing gave for one prompt.

    Attributes:
        scores: Log probability and tokens of each text that was scored: of the expected name and what it is weighed
            against; or of each expected name, where it is weighed against nothing.
        matched: How many tokens of each text were the likeliest; None where the model does not tell.
        likeliest: The likeliest tokens at the places of each text; empty where the model does not tell.
    """

    scores: list[tuple[float, int]]
    matched: list[int | None]
    likeliest: list[list[int]]


class ReplyRecord(TypedDict):
    """A reply as a run keeps it.

    Attributes:
        text: The answer.
        edits: The statements of the edits used.
        base: The unedited model's answer, for prompts that edits are not about; else None.
        forced: What teacher forcing gave; None where no model wrote the answer, or it was not asked for.
        base_forced: The same of the unedited model, where `base` is.
        model_calls: Prompts sent to the base model.
        prompt_tokens: Tokens in them.
        completion_tokens: Tokens it wrote.
    """

    text: str
    edits: list[str]
    base: str | None
    forced: ForcedRecord | None
    base_forced: ForcedRecord | None
    model_calls: int
    prompt_tokens: int
    completion_tokens: int


class CaseRecord(TypedDict):
    """A finished case.

    Attributes:
        replies: By the question's place in its case.
        after: The reply to the edit's prompt by how many edits were seen, see `Options.scalability`.
        written: What the model wrote for the measure of fluency.
        recalled: Whether the base model, asked alone, knows what a portability question needs; by the question's place.
        seconds: Its share of the time that answering took.
        scoring_seconds: Its share of the time that teacher forcing took.
    """

    replies: dict[str, ReplyRecord]
    after: dict[str, ReplyRecord]
    written: str | None
    recalled: dict[str, bool]
    seconds: float
    scoring_seconds: float


def checkpoints(count: int) -> list[int]:
    """How many edits are seen at each point of the scalability curve: 1, 10, 100 ..., short of all.

    >>> checkpoints(300)
    [1, 10, 100]
    """
    return [10**power for power in range(len(str(count))) if 10**power < count]


class _Job(TypedDict):
    """A prompt to be asked: whose it is, under which name it is recorded, with what, and what is expected."""

    case: str
    name: str
    after: bool
    span: Span
    question: Question
    expected: Expected


class Examination:
    """Cases examined together: first all answers, then what the base model says, then the scores."""

    def __init__(self, options: Options, method: Method, model: RememberedModel, cases: Sequence[Placed]) -> None:
        self._options, self._method, self._model, self._cases = options, method, model, cases

    def examine(self) -> dict[str, CaseRecord]:
        """The record of each case, by its key."""
        finished: dict[str, CaseRecord] = {
            case.key: {
                "replies": {},
                "after": {},
                "written": None,
                "recalled": {},
                "seconds": 0.0,
                "scoring_seconds": 0.0,
            }
            for case in self._cases
        }
        jobs = [job for case in self._cases for job in self._jobs(case)]
        for together in self._together(jobs):
            self._ask(together, finished)
        self._recall(jobs, finished)
        return finished

    def _ask(self, jobs: Sequence[_Job], finished: Mapping[str, CaseRecord]) -> None:
        """Answer prompts together, compare and score the answers, and add them to the records of their cases."""
        began = self._clock()
        replies = self._method.answer([Ask(job["span"], job["question"].prompt) for job in jobs])
        seconds, began = self._clock() - began, self._clock()
        records = [_reply_record(reply) for reply in replies]
        if self._options.teacher_forced:
            self._score(jobs, replies, records)
        scoring_seconds = self._clock() - began
        self._compare(jobs, records)
        for job, record in zip(jobs, records, strict=True):
            case = finished[job["case"]]
            case["after" if job["after"] else "replies"][job["name"]] = record
            case["seconds"] += seconds / len(jobs)
            case["scoring_seconds"] += scoring_seconds / len(jobs)
        self._write(jobs, replies, finished)

    def _together(self, jobs: Sequence[_Job]) -> Iterator[Sequence[_Job]]:
        """The jobs that are answered in one go: where it takes time to put edits in, those that see the same ones."""
        if self._method.side_by_side:
            yield jobs
            return
        for _, own in groupby(sorted(jobs, key=_span), key=_span):
            yield list(own)

    def _jobs(self, case: Placed) -> Iterator[_Job]:
        for number, question, expected in case.asked(self._options):
            yield _Job(
                case=case.key, name=str(number), after=False, span=case.span, question=question, expected=expected
            )
        if self._options.scalability:
            question, expected = case.problem.case.questions[0], case.problem.gold.expected[0]
            spans = {str(count): (0, count) for count in checkpoints(case.span[1]) if count > case.place}
            for name, span in {**spans, ALONE: (case.place, case.place + 1)}.items():
                yield _Job(case=case.key, name=name, after=True, span=span, question=question, expected=expected)

    def _clock(self) -> float:
        """Seconds, with those that remembered answers would have taken, and without those that edits take."""
        return time.perf_counter() + self._model.saved_seconds - self._method.edit_seconds

    def _score(self, jobs: Sequence[_Job], replies: Sequence[Reply], records: Sequence[ReplyRecord]) -> None:
        """Score what is expected, under what each answer was written under."""
        scored = [
            (job, reply.scored_under, record, Seen(job["span"], reply.counterfactual))
            for job, reply, record in zip(jobs, replies, records, strict=True)
            if reply.scored_under is not None and job["expected"].answers
        ]
        for seen in dict.fromkeys(one[-1] for one in scored):
            own = [one for one in scored if one[-1] == seen]
            wanted = [_wanted(job["expected"], prompt) for job, prompt, _, _ in own]
            for (_, _, record, _), forced in zip(own, _forced(wanted, partial(self._method.score, seen)), strict=True):
                record["forced"] = forced

    def _compare(self, jobs: Sequence[_Job], records: Sequence[ReplyRecord]) -> None:
        """Ask the unedited model what edits are not about, and score it too."""
        kept = [
            (job, record)
            for job, record in zip(jobs, records, strict=True)
            if job["question"].kind in ("locality", "attribute")
        ]
        texts = ask_unedited(self._model, [job["question"].prompt for job, _ in kept])
        for (_, record), text in zip(kept, texts, strict=True):
            record["base"] = text
        if self._options.teacher_forced:
            scored = [(job, record) for job, record in kept if job["expected"].answers]
            wanted = [_wanted(job["expected"], job["question"].prompt) for job, _ in scored]
            for (_, record), forced in zip(scored, _forced(wanted, self._model.score), strict=True):
                record["base_forced"] = forced

    def _write(self, jobs: Sequence[_Job], replies: Sequence[Reply], finished: Mapping[str, CaseRecord]) -> None:
        writing = [
            (job, reply, (Seen(job["span"], reply.counterfactual), reply.stop))
            for job, reply in zip(jobs, replies, strict=True)
            if job["question"].kind == "generation"
        ]
        for how in dict.fromkeys(one[-1] for one in writing):
            own = [one for one in writing if one[-1] == how]
            sampling = Sampling(max_tokens=FLUENCY_TOKENS, stop=how[1])
            written = self._method.write(how[0], [reply.written_under for _, reply, _ in own], sampling)
            for (job, _, _), completion in zip(own, written, strict=True):
                finished[job["case"]]["written"] = completion.text

    def _recall(self, jobs: Sequence[_Job], finished: Mapping[str, CaseRecord]) -> None:
        """Ask the unedited model for what each portability question needs beside the edit."""
        asked = [(job, *job["expected"].recalled) for job in jobs if job["expected"].recalled is not None]
        prompts = [recall_prompt(subject, relation) for _, subject, relation in asked]
        sampling = Sampling(max_tokens=_RECALL_TOKENS, stop=("\n",))
        for (job, _, _), prompt, said in zip(asked, prompts, self._model.generate(prompts, sampling), strict=True):
            known = answer_right(said.text, prompt, job["expected"].answers)
            finished[job["case"]]["recalled"][job["name"]] = known


def _span(job: _Job) -> Span:
    return job["span"]


def recall_prompt(subject: str, relation: str) -> str:
    """The few-shot prompt that asks the base model for a fact by its subject and a relation in free words."""
    shown = (
        ("Iceland", "capital", "Reykjavik"),
        ("Leo Tolstoy", "occupation", "writer"),
        ("piano", "is a", "instrument"),
    )
    lines = [f"{name} | {words} | {answer}" for name, words, answer in shown]
    return "\n".join(["subject | relation | object", *lines, f"{subject} | {relation} |"])


def _reply_record(reply: Reply) -> ReplyRecord:
    return {
        "text": reply.text,
        "edits": list(reply.edits),
        "base": None,
        "forced": None,
        "base_forced": None,
        "model_calls": reply.cost.model_calls,
        "prompt_tokens": reply.cost.prompt_tokens,
        "completion_tokens": reply.cost.completion_tokens,
    }


def _wanted(expected: Expected, prompt: Prompt) -> list[tuple[Prompt, str]]:
    """The texts to score for a prompt: the name and what it is weighed against, or else each accepted name."""
    names = expected.answers[:SCORED_NAMES] if expected.against is None else (expected.answers[0], expected.against)
    return [(prompt, _continued(prompt, name)) for name in names]


def _continued(prompt: Prompt, text: str) -> str:
    return f" {text}" if isinstance(prompt, str) and not prompt[-1:].isspace() else text


def _forced(
    wanted: Sequence[Sequence[tuple[Prompt, str]]], score: Callable[[Sequence[tuple[Prompt, str]]], list[Score]]
) -> list[ForcedRecord]:
    """What teacher forcing gives for each prompt, all of them scored together."""
    scores = iter(score([pair for pairs in wanted for pair in pairs]))
    return [_forced_record([next(scores) for _ in pairs]) for pairs in wanted]


def _forced_record(scores: Sequence[Score]) -> ForcedRecord:
    return {
        "scores": [(score.log_probability, score.tokens) for score in scores],
        "matched": [score.matched_tokens for score in scores],
        "likeliest": [list(score.likeliest) for score in scores],
    }
