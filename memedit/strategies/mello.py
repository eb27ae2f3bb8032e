"""MeLLo: memory-based editing by rounds of self-checking (Zhong et al. 2023, arXiv:2305.14795, section 5).

Each round the base model splits a sub-question off and answers it tentatively; the fact of the memory that is most similar
to the sub-question is put before it; it says whether that contradicts its answer, and takes the intermediate answer
from the fact if so and from itself if not. The verdict comes in one call with what follows: the next sub-question, or the
final answer. So n rounds are n + 1 calls.

As in the paper, retrieval is the embedder's similarity over all facts, without a gate: whether a fact is about the
sub-question is for the model to say. Its answer may therefore differ from the unedited one though no fact contradicted.

Where the model leaves the protocol or comes to no end, the last intermediate answer stands; where there is none, and with an empty
memory, the question goes to the base model (the paper's script counts such questions as wrong). `Mello(structured=True)` runs
the same rounds as a chat under a JSON schema.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from memedit.answer import Answer, Hop
from memedit.memory.fact import Fact
from memedit.models.base import Message, Sampling
from memedit.prompts.mello import (
    LINES_STOP,
    MELLO_TOKENS,
    Round,
    Said,
    chat_prompt,
    lines_prompt,
    read_json,
    read_lines,
    schema,
)
from memedit.strategies.base import Step, Steps, complete, nearest
from memedit.strategies.direct import ask_base

if TYPE_CHECKING:
    from memedit.memory.memory import MemoryView

_NO_EDIT = "no fact contradicted the base model, which answered in rounds"


@dataclass(frozen=True, slots=True)
class Mello:
    """Sub-question, tentative answer, nearest fact, contradiction or not.

    Attributes:
        structured: Chat under a JSON schema instead of the paper's lines.
        rounds: Most sub-questions.
    """

    structured: bool = False
    rounds: int = 4

    @property
    def name(self) -> str:
        """``mello``, or ``mello-structured``."""
        return "mello-structured" if self.structured else "mello"

    def __call__(self, question: str, view: MemoryView) -> Steps:
        """See `memedit.strategies.base.Strategy`."""
        rounds: list[Round] = []
        facts: list[Fact] = []
        said = Said()
        while len(view) > 0:
            said = yield from self._say(question, rounds)
            if rounds:
                rounds[-1] = judged(rounds[-1], said)
            if said.final_answer or len(rounds) == self.rounds or not (said.subquestion and said.generated_answer):
                break
            hits = yield from nearest(view, said.subquestion)
            if not hits:
                break
            facts.append(hits[0].fact)
            rounds.append(Round(said.subquestion, said.generated_answer, " ".join(facts[-1].statement.split())))
        text = said.final_answer or (rounds[-1].intermediate_answer if rounds else "")
        if not text:
            return (yield from ask_base(question, self.name))
        used = dict.fromkeys(fact for fact, one in zip(facts, rounds, strict=True) if one.contradicts)
        notice = "" if used else _NO_EDIT
        return Answer(
            question, text, hops(rounds, facts), tuple(used), strategy=self.name, planner="model", notice=notice
        )

    def _say(self, question: str, rounds: Sequence[Round]) -> Step[Said]:
        """What the model says after the rounds so far."""
        if not self.structured:
            lines = yield from complete(
                lines_prompt(question, rounds), Sampling(max_tokens=MELLO_TOKENS, stop=LINES_STOP)
            )
            return read_lines(lines.text)
        chat: list[Message] = [{"role": turn.role, "content": turn.content} for turn in chat_prompt(question, rounds)]
        wanted = schema(first=not rounds, last=len(rounds) == self.rounds)
        written = yield from complete(chat, Sampling(max_tokens=MELLO_TOKENS, json_schema=wanted))
        return read_json(written.text)


def structured() -> Mello:
    """MeLLo under a JSON schema; what ``mello-structured`` names."""
    return Mello(structured=True)


def judged(one: Round, said: Said) -> Round:
    """The round with the model's verdict; without one its tentative answer stands."""
    if said.contradicts is None or not said.intermediate_answer:
        return one._replace(contradicts=False, intermediate_answer=one.generated_answer)
    return one._replace(contradicts=said.contradicts, intermediate_answer=said.intermediate_answer)


def hops(rounds: Sequence[Round], facts: Sequence[Fact]) -> tuple[Hop, ...]:
    """The rounds as hops, each named by its sub-question."""
    made: list[Hop] = []
    for one, fact in zip(rounds, facts, strict=True):
        asked, found = one.subquestion, one.intermediate_answer
        if one.contradicts:
            made.append(Hop(fact.subject, asked, asked, found, "edit", fact.id))
        else:
            made.append(Hop(made[-1].object if made else "", asked, asked, found, "belief"))
    return tuple(made)
