"""Invented rows in the layouts of CounterFact, zsRE and KnowEdit, a model that knows some facts, and a way to run over them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from memedit.answer import Answer
from memedit.memory.memory import MemoryView
from memedit.models.base import Completion, Prompt, Sampling, Score
from memedit.strategies.base import Steps
from memedit.strategies.direct import ask_base

Row = dict[str, Any]


def counterfact_row(number: int, subject: str, new: str, old: str) -> Row:
    """A row of CounterFact about who wrote a book."""
    return {
        "case_id": number,
        "requested_rewrite": {
            "prompt": "The author of {} is",
            "relation_id": "P50",
            "target_new": {"str": new, "id": "Q1"},
            "target_true": {"str": old, "id": "Q2"},
            "subject": subject,
        },
        "paraphrase_prompts": [f"It rained. {subject} was written by", f"The writer of {subject} is"],
        "neighborhood_prompts": ["The author of Glass Harbour is", "The author of Low Tide is"],
        "attribute_prompts": ["The author of Fern Hill is"],
        "generation_prompts": [f"{subject} is known for", f"{subject} is known for"],
        "portability": {
            "Recalled Relation": f"({new}, country of citizenship, Peru)",
            "New Question": f"Of which country is the author of {subject} a citizen?",
            "New Answer": "Peru",
        },
    }


COUNTERFACT: list[Row] = [
    counterfact_row(7, "The Salt Road", "Mirela Toma", "Jon Dahl"),
    counterfact_row(8, "Kite Season", "Ana Ruiz", "Jon Dahl"),
    counterfact_row(9, "Winter Bees", "Ito Kana", "Jon Dahl"),
]
REDUCED: list[Row] = [
    {
        "case_id": 3,
        "prompt": "The author of The Salt Road is",
        "subject": "The Salt Road",
        "target_new": "Mirela Toma",
        "ground_truth": "Jon Dahl",
        "rephrase_prompt": "The writer of The Salt Road is",
        "locality_prompt": "The author of Glass Harbour is",
        "locality_ground_truth": "Jon Dahl",
    }
]
ZSRE: list[Row] = [
    {
        "subject": "The Salt Road",
        "src": "Who is the author of The Salt Road?",
        "rephrase": "Who wrote The Salt Road?",
        "alt": "Mirela Toma",
        "answers": ["Jon Dahl"],
        "loc": "nq question: who wrote glass harbour",
        "loc_ans": "Jon Dahl",
        "portability": {
            "Recalled Relation": "(Mirela Toma, country of citizenship, Peru)",
            "New Question": "Of which country is the author of The Salt Road a citizen?",
            "New Answer": "Peru",
        },
    },
    {
        "subject": "Zorble",
        "src": "How do zorblings greet a Zorble?",
        "rephrase": "What do zorblings say to a Zorble?",
        "alt": "Hail",
        "loc": "nq question: how old is the moon",
        "loc_ans": "Old enough",
    },
]
KNOWEDIT: list[Row] = [
    {
        "subject": "The Salt Road",
        "prompt": "The author of The Salt Road is",
        "target_new": "Mirela Toma",
        "ground_truth": "Jon Dahl",
        "portability": {
            "Reasoning": [{"prompt": "The author of The Salt Road is a citizen of", "ground_truth": [["Peru", "PE"]]}],
            "Subject_Aliasing": [{"prompt": "The author of Salt Way is", "ground_truth": "Mirela Toma"}],
            "Logical_Generalization": [{"prompt": "Mirela Toma wrote", "ground_truth": ""}],
        },
        "locality": {
            "Relation_Specificity": [{"prompt": "The genre of The Salt Road is", "ground_truth": [["novel"]]}],
            "Forgetfulness": [{"prompt": "The author of The Salt Road, not Mirela Toma, is", "ground_truth": ""}],
        },
    }
]


class Reader:
    """A base model that says "Jon Dahl wrote it." to everything, and finds "Jon" and "Dahl" likely and all else unlikely.

    Words are its tokens.
    """

    name = "reader"
    context_length = 4096

    def __init__(self) -> None:
        self.prompts: list[str] = []
        self.scored: list[tuple[str, str]] = []

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling = Sampling()) -> list[Completion]:
        self.prompts += map(str, prompts)
        return [Completion("Jon Dahl wrote it.", 5, 4) for _ in prompts]

    def stream(self, prompt: Prompt, sampling: Sampling = Sampling()) -> Iterator[str]:
        yield self.generate([prompt], sampling)[0].text

    def score(self, pairs: Sequence[tuple[Prompt, str]]) -> list[Score]:
        self.scored += [(str(prompt), text) for prompt, text in pairs]
        return [self._score(text.split()) for _, text in pairs]

    def count_tokens(self, prompt: Prompt) -> int:
        return 5

    def _score(self, words: Sequence[str]) -> Score:
        matched = sum(word in ("Jon", "Dahl") for word in words)
        sure = matched == len(words)
        likeliest = tuple(1 if word in ("Jon", "Dahl") else 0 for word in words)
        return Score(-0.5 if sure else -9.0, len(words), sure, matched, likeliest)


class Named:
    """Answers with the object of the edit whose subject the question names; where none is named, with the base model.

    Args:
        fails_after: How many questions it answers before it stops with an error.
    """

    name = "named"

    def __init__(self, fails_after: int | None = None) -> None:
        self.asked: list[str] = []
        self.fails_after = fails_after

    def __call__(self, question: str, view: MemoryView) -> Steps:
        if self.fails_after is not None and len(self.asked) >= self.fails_after:
            raise RuntimeError("killed")
        self.asked.append(question)
        facts = [fact for mention in view.mentions(question) for fact in view.facts_about(mention.text)]
        if not facts:
            return (yield from ask_base(question, self.name))
        return Answer(question, facts[-1].object, edits=(facts[-1],), strategy=self.name)
