"""Figures of a single-hop run: marks what was recorded against what is expected, and sums up.

Here gold meets answers. Every measure is given under ``teacher_forced`` and under ``generated``, and under ``mentioned`` as
generated but more lenient; how each is made is told in `memedit.evaluation.measures`. Where no model wrote an answer (see
`MemoryMethod`), it has probability 1, so that it is right under teacher forcing where it is right as generated.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from typing import Literal, NamedTuple

from memedit.evaluation.cases import Expected, Question
from memedit.evaluation.examine import ALONE, ReplyRecord
from memedit.evaluation.measures import answer_right, entropy, mean, mentions, preferred, tokens_agree, tokens_right
from memedit.evaluation.method import Span
from memedit.evaluation.run import Finished
from memedit.evaluation.scoring import Share, normalise, with_intervals
from memedit.models.base import Score

Scoring = Literal["teacher_forced", "generated", "mentioned"]
SCORINGS: tuple[Scoring, ...] = ("teacher_forced", "generated", "mentioned")
SAME = 1e-3
"""Log probabilities as near as this are one: the order in which numbers are added up moves them by a hundredth of it."""
SHOWN_FAILURES = 20
"""Most failures listed of a kind."""
_PARTS = 10


class Asked(NamedTuple):
    """A question that was asked, with what is expected and what came back.

    Attributes:
        place: Place of its case's edit, from 0.
        number: Its own place in the case.
        question: The question.
        expected: What is expected.
        reply: What came back.
        recalled: Whether the base model, alone, knows what it needs beside the edit; None where that was not asked.
        touched: Whether it names the subject of another case's edit in the same memory.
    """

    place: int
    number: int
    question: Question
    expected: Expected
    reply: ReplyRecord
    recalled: bool | None
    touched: bool


def figures(finished: Finished) -> dict[str, object]:
    """Every figure of a run; JSON-ready.

    ``teacher_forced``, ``generated`` and ``mentioned`` hold, each with its 95% interval under ``intervals``:

    - ``edit_success`` (ES), ``paraphrase_success`` (PS): over the edits' own prompts, and other words for them;
    - ``neighborhood_success`` (CounterFact; NS) over prompts about other subjects, where the right answer is the old one;
      ``locality`` (zsRE, KnowEdit; and ``locality_by_kind``): agreement with the unedited model;
    - ``exact_invariance``: over the same prompts, how often the answer is the unedited model's, byte for byte (teacher
      forced: every log probability that was measured, to `SAME`); ``exact_invariance_untouched`` leaves out the prompts
      that name the subject of another case's edit in the same memory, which may well be about that edit;
    - ``portability`` (``portability_by_kind``): over questions that follow from an edit; ``portability_known`` over those
      whose other fact the base model knows when asked alone, with their number;
    - ``retainability``: edit success of the first, second ... tenth of the edits, all of them being made;
    - ``scalability``: edit success ``after`` the first 1, 10, 100 ... edits, over these edits; and ``loss`` from an edit
      ``alone`` to all;
    - ``seconds_per_edit``, with embedding it or finding its update; ``seconds_per_question``, of answering under
      ``generated`` and ``mentioned``, and of scoring alone under ``teacher_forced``.

    ``cost`` has besides what was needed once before the first edit (``preparation_seconds``: loading the embedder; picking the
    layer to edit and reading its statistics), and the most memory that the process used while it made an ``edit`` and while
    it answered a ``question``.
    """
    options = finished.options
    asked = list(_asked(finished))
    questions = len(asked) + sum(len(record["after"]) for record in finished.records.values())
    replies = [one.reply for one in asked] + [
        reply for record in finished.records.values() for reply in record["after"].values()
    ]
    seconds = sum(record["seconds"] for record in finished.records.values())
    scoring = sum(record["scoring_seconds"] for record in finished.records.values())
    timed = {"generated": seconds, "mentioned": seconds, "teacher_forced": scoring}
    blocks = {
        kind: {
            **_block(finished, asked, kind),
            "seconds_per_edit": finished.seconds_per_edit,
            "seconds_per_question": timed[kind] / questions if questions else None,
        }
        for kind in SCORINGS
        if kind != "teacher_forced" or options.teacher_forced
    }
    written = [record["written"] for record in finished.records.values() if record["written"] is not None]
    bits = [value for value in map(entropy, written) if value is not None]
    return {
        "cases": len(finished.records),
        "edits": len(finished.placed),
        "superseded_edits": finished.superseded,
        "questions": questions,
        "teacher_forced": blocks.get("teacher_forced"),
        "generated": blocks["generated"],
        "mentioned": blocks["mentioned"],
        "fluency": {"entropy_bits": sum(bits) / len(bits) if bits else None, "texts": len(bits)},
        "cost": {
            "model_calls": sum(reply["model_calls"] for reply in replies),
            "prompt_tokens": sum(reply["prompt_tokens"] for reply in replies),
            "completion_tokens": sum(reply["completion_tokens"] for reply in replies),
            "model_calls_per_question": _average([reply["model_calls"] for reply in replies]),
            "prompt_tokens_per_question": _average([reply["prompt_tokens"] for reply in replies]),
            "seconds": seconds,
            "scoring_seconds": scoring,
            "seconds_per_edit": finished.seconds_per_edit,
            "seconds_per_question": seconds / questions if questions else None,
            "preparation_seconds": finished.preparation_seconds,
            "peak_memory_mib": {phase: dict(peaks) for phase, peaks in finished.peak_memory.items()},
        },
        "failures": _failures(asked),
    }


def mark(asked: Asked, scoring: Scoring) -> float | None:
    """How right a reply is, in [0, 1]; None where that cannot be said."""
    return _teacher_forced(asked) if scoring == "teacher_forced" else _generated(asked, lenient=scoring == "mentioned")


def invariant(asked: Asked, scoring: Scoring) -> float | None:
    """Whether a reply is the unedited model's, byte for byte (teacher forced: in every log probability, to `SAME`)."""
    reply = asked.reply
    if scoring != "teacher_forced":
        return float(reply["text"] == reply["base"])
    before, after = reply["base_forced"], reply["forced"]
    if before is None:
        return None
    if after is None:  # no model wrote the answer
        return 0.0
    pairs = zip(before["scores"], after["scores"], strict=True)
    return float(all(abs(new - old) <= SAME for (old, _), (new, _) in pairs))


def _generated(asked: Asked, *, lenient: bool) -> float | None:
    question, expected, reply = asked.question, asked.expected, asked.reply
    if question.kind == "generation":
        return None
    if question.kind == "locality" and expected.against is None:
        return float(normalise(reply["text"]) == normalise(reply["base"] or ""))
    if lenient:
        return float(mentions(reply["text"], expected.answers, expected.against))
    return float(answer_right(reply["text"], question.prompt, expected.answers))


def _teacher_forced(asked: Asked) -> float | None:
    question, expected, reply = asked.question, asked.expected, asked.reply
    if not expected.answers:
        return None
    said = answer_right(reply["text"], question.prompt, expected.answers)
    forced = reply["forced"]
    if expected.against is not None:
        certain = [(float(said), 1), (0.0, 1)]
        scores = certain if forced is None else forced["scores"]
        return float(preferred(*(Score(log, tokens, greedy=False) for log, tokens in scores)))
    if question.kind == "locality":
        return _predicted_as_before(reply, said)
    if forced is None:
        return float(said)
    told = zip(forced["matched"], forced["scores"], strict=True)
    return max((tokens_right(right, tokens) for right, (_, tokens) in told if right is not None), default=None)


def _predicted_as_before(reply: ReplyRecord, said: bool) -> float | None:
    """How much of an answer is predicted as the unedited model predicts it; None where a model does not tell.

    An answer that no model wrote predicts the expected tokens if it is the expected one (`said`), and else none of what the
    unedited model does.
    """
    before, forced = reply["base_forced"], reply["forced"]
    if before is None:
        return None
    if forced is None:
        matched, (_, tokens) = before["matched"][0], before["scores"][0]
        return 0.0 if not said else None if matched is None else tokens_right(matched, tokens)
    told = before["likeliest"][0] and forced["likeliest"][0]
    return tokens_agree(before["likeliest"][0], forced["likeliest"][0]) if told else None


def _asked(finished: Finished) -> Iterator[Asked]:
    subjects: dict[Span, dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
    for case in finished.placed:
        subjects[case.span][normalise(case.problem.case.edit.subject)].add(case.place)
    for case in finished.placed:
        if not case.is_asked:
            continue
        record = finished.records[case.key]
        for number, question, expected in case.asked(finished.options):
            named = _named(question.prompt, subjects[case.span])
            reply, known = record["replies"][str(number)], record["recalled"].get(str(number))
            yield Asked(case.place, number, question, expected, reply, known, bool(named - {case.place}))


def _named(prompt: str, subjects: Mapping[str, Set[int]]) -> set[int]:
    """The places of the edits whose subjects a prompt names, in whole words."""
    words = normalise(prompt).split()
    spans = (" ".join(words[start:end]) for start in range(len(words)) for end in range(start + 1, len(words) + 1))
    return {place for span in spans if span in subjects for place in subjects[span]}


def _block(finished: Finished, asked: Sequence[Asked], scoring: Scoring) -> dict[str, object]:
    def over(wanted: Callable[[Asked], bool], measure: Callable[[Asked, Scoring], float | None] = mark) -> Share:
        marks = (measure(one, scoring) for one in asked if wanted(one))
        return mean(value for value in marks if value is not None)

    def of_kind(kind: str) -> Share:
        return over(lambda one: one.question.kind == kind)

    def by_group(kind: str) -> dict[str, object]:
        names = sorted({one.expected.group for one in asked if one.question.kind == kind and one.expected.group})
        return {name: _figure(over(_in_group(kind, name))) for name in names}

    neighborhood = finished.options.benchmark == "counterfact"
    shares = {
        "edit_success": of_kind("edit"),
        "paraphrase_success": of_kind("paraphrase"),
        "neighborhood_success" if neighborhood else "locality": of_kind("locality"),
        "exact_invariance": over(lambda one: one.question.kind == "locality", invariant),
        "exact_invariance_untouched": over(lambda one: one.question.kind == "locality" and not one.touched, invariant),
        "portability": of_kind("portability"),
    }
    if finished.options.attributes:
        shares["attribute_success"] = of_kind("attribute")
    size = min(finished.options.edits or len(finished.placed), len(finished.placed))
    known = over(lambda one: one.question.kind == "portability" and bool(one.recalled))
    return {
        **with_intervals(shares),
        "portability_known": _figure(known),
        "portability_by_kind": by_group("portability"),
        "locality_by_kind": {} if neighborhood else by_group("locality"),
        "retainability": [
            {"from_edit": start + 1, "to_edit": end, **_figure(over(_at_place(size, start, end)))}
            for start, end in _tenths(size)
        ],
        "scalability": _scalability(finished, asked, scoring),
    }


def _in_group(kind: str, group: str) -> Callable[[Asked], bool]:
    return lambda one: one.question.kind == kind and one.expected.group == group


def _at_place(size: int, start: int, end: int) -> Callable[[Asked], bool]:
    return lambda one: one.question.kind == "edit" and start <= one.place % size < end


def _tenths(size: int) -> list[tuple[int, int]]:
    """The places of the first tenth of a memory's edits, of the second, and so on; none where it holds one edit."""
    if size == 1:
        return []
    parts = min(_PARTS, size)
    return [(size * part // parts, size * (part + 1) // parts) for part in range(parts)]


def _scalability(finished: Finished, asked: Sequence[Asked], scoring: Scoring) -> dict[str, object] | None:
    if not finished.options.scalability:
        return None
    marks: dict[str, list[float]] = defaultdict(list)
    edits = [one for one in asked if one.question.kind == "edit"]
    for one, case in zip(edits, finished.placed, strict=True):
        for seen, reply in finished.records[case.key]["after"].items():
            marks[seen].append(mark(one._replace(reply=reply), scoring) or 0.0)
    everything = mean(mark(one, scoring) or 0.0 for one in edits)
    alone = mean(marks.pop(ALONE, ()))
    after = {seen: _figure(mean(values)) for seen, values in sorted(marks.items(), key=lambda item: int(item[0]))}
    loss = None if alone.value is None or everything.value is None else alone.value - everything.value
    return {"after": {**after, str(len(edits)): _figure(everything)}, "alone": _figure(alone), "loss": loss}


def _figure(part: Share) -> dict[str, object]:
    return {"value": part.value, "prompts": part.total, "interval": part.interval}


def _failures(asked: Sequence[Asked]) -> dict[str, list[dict[str, object]]]:
    """The first prompts of each kind that were answered wrong as generated; of locality, not as the unedited model does."""
    failed: dict[str, list[dict[str, object]]] = defaultdict(list)
    for one in asked:
        kind = one.question.kind
        value = invariant(one, "generated") if kind == "locality" else mark(one, "generated")
        name = f"{kind}/{one.expected.group}" if one.expected.group else kind
        if value == 0.0 and len(failed[name]) < SHOWN_FAILURES:
            failed[name].append(
                {
                    "prompt": one.question.prompt,
                    "answer": one.reply["text"],
                    "expected": one.reply["base"] if kind == "locality" else list(one.expected.answers),
                    "edits_used": one.reply["edits"],
                }
            )
    return dict(failed)


def _average(values: Sequence[int]) -> float | None:
    return sum(values) / len(values) if values else None
