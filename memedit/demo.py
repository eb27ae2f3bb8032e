"""The demonstration: a handful of facts, and questions whose answers show what an edit changes and what it leaves alone.

Nothing is staged: every answer is computed, by the model and through the memory that an application would use, and
checked against what is expected of it. What the base model says by itself is asked of it before the first fact is
written.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from memedit.answer import Answer, HopSource
from memedit.editor import MemEditor
from memedit.memory.entities import normalise
from memedit.models.base import LanguageModel, Sampling
from memedit.strategies.direct import BASE_TOKENS, base_prompt

FACTS = (
    "The capital of Japan is Osaka.",
    "The chief executive officer of Microsoft is Albert Einstein.",
    "The author of Hamlet is Ada Lovelace.",
    "Ada Lovelace is married to Isaac Newton.",
)
"""What the demonstration teaches; none of it is what a model believes."""


@dataclass(frozen=True, slots=True)
class Trial:
    """A question, and what its answer has to show.

    Attributes:
        shows: What it demonstrates.
        question: The question.
        answer: The right answer; None for the base model's own, byte for byte.
        sources: Where each hop has to come from.
    """

    shows: str
    question: str
    answer: str | None
    sources: tuple[HopSource, ...] = ()


TRIALS = (
    Trial("an edit", "What is the capital of Japan?", "Osaka", ("edit",)),
    Trial("a paraphrase", "Which city is Japan's seat of government?", "Osaka", ("edit",)),
    Trial("its inverse", "Which country is Osaka the capital of?", "Japan", ("implied",)),
    Trial("two edits, two hops", "Who is the author of Hamlet married to?", "Isaac Newton", ("edit", "edit")),
    Trial(
        "an edit in a two-hop question",
        "What is the capital of the country where Mount Fuji is located?",
        "Osaka",
        ("belief", "edit"),
    ),
    Trial(
        "an edit in the middle of three hops",
        "What country is the CEO of the company that developed Windows a citizen of?",
        "Germany",
        ("belief", "edit", "belief"),
    ),
    Trial("no change: another subject", "What is the capital of France?", None),
    Trial("no change: another relation", "What is the official language of Japan?", None),
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a trial went.

    Attributes:
        trial: The trial.
        answer: The answer it got.
        problem: What is wrong with it; empty where it is as expected.
    """

    trial: Trial
    answer: Answer
    problem: str


def demonstrate(model: str | LanguageModel = "embedded") -> Iterator[Outcome]:
    """Teach the facts to a new memory in a temporary folder, and try every question.

    Args:
        model: The base model, as `MemEditor` takes it.

    Raises:
        ModelError: The base model failed.
    """
    with TemporaryDirectory(prefix="memedit-demo-") as folder, MemEditor(model, Path(folder) / "demo.db") as editor:
        own = {trial.question: base_answer(editor.model, trial.question) for trial in TRIALS if trial.answer is None}
        editor.add_facts(FACTS)
        for trial in TRIALS:
            answer = editor.ask(trial.question)
            yield Outcome(trial, answer, problem_of(trial, answer, own.get(trial.question, "")))


def base_answer(model: LanguageModel, question: str) -> str:
    """What the base model says to the unchanged prompt, asked without memedit."""
    return model.generate([base_prompt(question)], Sampling(max_tokens=BASE_TOKENS))[0].text


def problem_of(trial: Trial, answer: Answer, own: str) -> str:
    """What is wrong with an answer; empty where it is as expected.

    Args:
        trial: What is expected.
        answer: The answer.
        own: The base model's own answer, where the trial expects that.
    """
    if trial.answer is None:
        if answer.in_scope:
            return "an edit was used"
        same = answer.text.encode() == own.encode()
        return "" if same else f"not the base model's own answer, {own!r}"
    if normalise(answer.text or "?") != normalise(trial.answer):
        return f"expected {trial.answer!r}"
    sources = tuple(hop.source for hop in answer.hops)
    return "" if sources == trial.sources else f"expected hops from {', '.join(trial.sources)}"
