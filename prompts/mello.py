"""MeLLo's rounds (Zhong et al. 2023, arXiv:2305.14795, section 5): how they are put to the model, and how its words are read.

In two notations with the same demonstrations: the paper's lines, which the model continues as raw text, and a chat of JSON
objects. Reading never fails: what is not there comes back as None or empty. Knows no models and no memory.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.resources import files
from typing import Literal, NamedTuple

from memedit.prompts import render

MELLO_TOKENS = 160
"""Most tokens of a call: a verdict, a sub-question and a tentative answer."""

LINES_STOP = ("Retrieved fact:", "\nQuestion:")
"""Where the model must pause for a fact, and where it would go on to a question of its own."""


class Round(NamedTuple):
    """A sub-question and what became of it.

    Attributes:
        subquestion: The sub-question.
        generated_answer: The model's tentative answer, usually a sentence.
        retrieved_fact: The stored fact nearest to the sub-question.
        contradicts: Whether the model finds that the fact contradicts its answer; None until it has said so.
        intermediate_answer: What holds after that; empty until then.
    """

    subquestion: str
    generated_answer: str
    retrieved_fact: str
    contradicts: bool | None = None
    intermediate_answer: str = ""


class Said(NamedTuple):
    """What could be read from a call; empty or None where the model did not say it.

    Attributes:
        contradicts: Its verdict on the fact it was shown.
        intermediate_answer: What holds after that.
        subquestion: The next sub-question.
        generated_answer: The tentative answer to that.
        final_answer: The answer to the whole question.
    """

    contradicts: bool | None = None
    intermediate_answer: str = ""
    subquestion: str = ""
    generated_answer: str = ""
    final_answer: str = ""


class Worked(NamedTuple):
    """A demonstration: a question and its rounds to the end."""

    question: str
    rounds: tuple[Round, ...]
    final_answer: str


class Turn(NamedTuple):
    """One message of the chat."""

    role: Literal["system", "user", "assistant"]
    content: str


def lines_prompt(question: str, rounds: Sequence[Round]) -> str:
    """The paper's prompt: demonstrations, the question, and the rounds so far; the model writes the next lines.

    >>> lines_prompt("Who is the mayor of the capital of Peru?", []).splitlines()[-1]
    'Question: Who is the mayor of the capital of Peru?'
    """
    text = render("mello.jinja", demonstrations=_demonstrations(), question=_line(question), rounds=rounds)
    return text.rstrip("\n") + "\n"


def read_lines(text: str) -> Said:
    r"""What a model wrote in the paper's notation.

    >>> read_lines("Subquestion: Who wrote Emma?\nGenerated answer: Jane Austen wrote Emma.\n").generated_answer
    'Jane Austen wrote Emma.'
    >>> said = read_lines("Retrieved fact contradicts to generated answer, so the intermediate answer is: Mo Yan\nFinal answer: Mo Yan")
    >>> said.contradicts, said.final_answer
    (True, 'Mo Yan')
    >>> read_lines("I do not know.")
    Said(contradicts=None, intermediate_answer='', subquestion='', generated_answer='', final_answer='')
    """
    contradicts: bool | None = None
    found: dict[str, str] = {}
    for line in map(str.strip, text.splitlines()):
        if (verdict := _VERDICT.match(line)) and contradicts is None:
            contradicts = not verdict.group(1)
            found["intermediate"] = _name(verdict.group(2))
        elif (named := _LABELLED.match(line)) and named.group(2):
            label = named.group(1).lower().replace("-", "").replace(" ", "")
            if label in found:
                break  # it has gone on to a round of its own
            found[label] = named.group(2).strip()
        if "finalanswer" in found or "generatedanswer" in found:
            break
    return Said(
        contradicts,
        found.get("intermediate", ""),
        found.get("subquestion", ""),
        found.get("generatedanswer", ""),
        _name(found.get("finalanswer", "")),
    )


def chat_prompt(question: str, rounds: Sequence[Round]) -> list[Turn]:
    """The same as a chat of JSON objects: instructions, demonstrations, the question, and the rounds so far."""
    turns = [Turn("system", render("mello_structured.jinja"))]
    for shown in _demonstrations():
        turns += _exchange(shown.question, shown.rounds, finished=True)
    return turns + _exchange(question, rounds, finished=False)


def read_json(text: str) -> Said:
    """What a model wrote under `schema`.

    >>> read_json('{"subquestion": "Who wrote Emma?", "generated_answer": "Jane Austen"}').subquestion
    'Who wrote Emma?'
    >>> read_json('{"subquestion": "Who wro').subquestion
    ''
    """
    try:
        read = json.loads(text)
    except ValueError:
        return Said()
    if not isinstance(read, dict):
        return Said()
    verdict = read.get("contradicts")
    texts = {key: value.strip() for key, value in read.items() if isinstance(value, str)}
    intermediate = _name(texts.get("intermediate_answer", ""))
    answered = read.get("question_answered") is True
    return Said(
        verdict if isinstance(verdict, bool) else None,
        intermediate,
        "" if answered else texts.get("subquestion", ""),
        "" if answered else texts.get("generated_answer", ""),
        intermediate if answered else "",
    )


def schema(*, first: bool, last: bool) -> Mapping[str, object]:
    """The JSON schema of a call.

    Args:
        first: No fact has been shown yet, so there is nothing to judge.
        last: There is no round left, so there is nothing to ask.
    """
    text, flag = {"type": "string"}, {"type": "boolean"}
    judged = {} if first else {"contradicts": flag, "intermediate_answer": text}
    decided = {} if first or last else {"question_answered": flag}
    asked = {} if last else {"subquestion": text, "generated_answer": text}
    properties: dict[str, object] = {**judged, **decided, **asked}
    return {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _exchange(question: str, rounds: Sequence[Round], *, finished: bool) -> list[Turn]:
    """The user's and the model's turns; ends with the user's, or if finished with the model's last."""
    turns = [Turn("user", f"Question: {question}")]
    said: dict[str, object] = {}
    for one in rounds:
        if said:
            said["question_answered"] = False
        said |= {"subquestion": one.subquestion, "generated_answer": one.generated_answer}
        turns += [Turn("assistant", _json(said)), Turn("user", f"Retrieved fact: {one.retrieved_fact}")]
        said = {"contradicts": one.contradicts, "intermediate_answer": one.intermediate_answer}
    if finished:
        said |= {"question_answered": True, "subquestion": "", "generated_answer": ""}
        turns.append(Turn("assistant", _json(said)))
    return turns


def _json(said: Mapping[str, object]) -> str:
    return json.dumps(said, ensure_ascii=False)


def _line(text: str) -> str:
    """A text on one line: a line break would end it for the protocol."""
    return " ".join(text.split())


def _name(text: str) -> str:
    """An intermediate or final answer without quotes and the full stop of a sentence."""
    text = text.strip().strip('"“”').strip()
    if text.endswith(".") and not re.search(r"\b(?:[A-Z]|Jr|Sr|Inc|Co|Ltd|St)\.$", text):
        text = text[:-1].rstrip()
    return text


_VERDICT = re.compile(
    r"retrieved fact (does not |doesn'?t )?contradicts?\b.*?\banswer is[\s:]+([^\s:].*)$", re.IGNORECASE
)
_LABELLED = re.compile(r"(sub[- ]?question|generated answer|final answer)\s*:\s*(.*)$", re.IGNORECASE)


@lru_cache(maxsize=1)
def _demonstrations() -> tuple[Worked, ...]:
    text = (files("memedit.prompts") / "demonstrations" / "mello.jsonl").read_text("utf-8")
    read = [json.loads(line) for line in text.splitlines()]
    return tuple(
        Worked(one["question"], tuple(Round(**each) for each in one["rounds"]), one["final_answer"]) for one in read
    )
