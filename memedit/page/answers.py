"""HTML of conversations and of previews: an answer with its chain, beside the base model's own. Knows nothing of servers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from memedit.memory.fact import Fact
from memedit.page.client import Reply, Used
from memedit.page.words import Step, StepSource, chain, note, statements, text
from memedit.server.preview import Previewed, Resolved

_TOLD = {
    "asked_again": "The model was reminded of the facts before it said so.",
    "given": "The model's own words left the facts out, so this is what the facts give.",
    "missed": "The model's words may leave the facts out: the answer had to have a set form.",
}


@dataclass
class Turn:
    """A question and what came of it.

    Attributes:
        question: What was asked.
        reply: The answer with the facts.
        base: The base model's own answer; None where it is the same call, or is still to come.
        problem: Why there is no answer.
        base_problem: Why there is none of the base model.
        facts: The recorded facts behind the answer, by id.
        has_read_edits: Whether answers from facts were sent with the question, as part of the conversation.
    """

    question: str
    reply: Reply | None = None
    base: Reply | None = None
    problem: str = ""
    base_problem: str = ""
    facts: Mapping[int, Fact] = field(default_factory=dict)
    has_read_edits: bool = False

    @property
    def is_edited(self) -> bool:
        """Whether facts were in scope."""
        return self.reply is not None and self.reply.used is not None


def conversation(turns: Sequence[Turn]) -> str:
    """The turns, oldest first."""
    return "".join(_turn(number, turn) for number, turn in enumerate(turns, 1))


def _turn(number: int, turn: Turn) -> str:
    return (
        f'<article class="turn" aria-label="Question {number}">'
        f'<p class="asked"><span class="unseen">You asked: </span>{text(turn.question)}</p>{_answers(turn)}</article>'
    )


def _answers(turn: Turn) -> str:
    if turn.problem:
        return note(turn.problem, "bad")
    if turn.reply is None:
        return _panel("Looking through the facts", _waiting("Thinking"), "waits")
    used = turn.reply.used
    if used is None:
        why = '<p class="told">No recorded fact is about this, so nothing was changed.</p>'
        if turn.has_read_edits:
            why += '<p class="told">It has read this conversation, answers from facts included. A new one leaves them out.</p>'
        return (
            f'<div class="pair one">{_panel("The base model’s own answer", _said(turn.reply.text) + why, "base")}</div>'
        )
    told = f'<p class="told">{_TOLD[used.answer]}</p>' if used.answer in _TOLD else ""
    if used.question:
        told = f'<p class="told">Understood as: {text(used.question)}</p>{told}'
    edited = _panel("With your facts", _said(turn.reply.text) + _grounds(used, turn.facts) + told, "edited")
    if turn.base_problem:
        own = note(turn.base_problem, "bad")
    elif turn.base is None:
        own = _waiting("Asking the base model")
    else:
        own = _said(turn.base.text)
    return f'<div class="pair">{edited}{_panel("The base model alone", own, "base")}</div>'


def _panel(title: str, body: str, kind: str) -> str:
    return f'<section class="panel {kind}"><h3>{title}</h3>{body}</section>'


def _said(words: str) -> str:
    return f'<p class="said">{text(words)}</p>' if words else '<p class="said none">(The model said nothing.)</p>'


def _waiting(label: str) -> str:
    return f'<p class="waiting">{label}<span class="dots" aria-hidden="true"><i></i><i></i><i></i></span></p>'


def _grounds(used: Used, facts: Mapping[int, Fact]) -> str:
    """The chain behind an answer; where there is none, the facts."""
    said = {edit.id: edit.statement for edit in used.edits}
    steps = [
        Step(
            hop.entity, hop.relation, hop.object, hop.source,
            None if hop.edit is None else facts.get(hop.edit),
            "" if hop.edit is None else said.get(hop.edit, ""),
        )
        for hop in used.hops
    ]  # fmt: skip
    return chain(steps) or statements(fact for fact in (facts.get(edit.id) for edit in used.edits) if fact)


# -- previews ------------------------------------------------------------------------------------------------


def previewed(question: str, found: Previewed) -> str:
    """What a fact would change, for a question where there is one."""
    if found.before is None or found.after is None:
        return note(_place(found), "plain", f"{_replaced(found)}<p>Nothing has been recorded.</p>")
    verdict = (
        "Yes: this question would be answered differently."
        if found.changes
        else "No: this question would be answered as it is now."
    )
    before = _panel("As it is now", _resolved(found.before, found.statement), "base")
    after = _panel("With this fact", _resolved(found.after, found.statement), "edited")
    return (
        f'<div class="preview"><p class="asked">{text(question)}</p><p class="verdict">{verdict}</p>'
        f'<div class="pair">{before}{after}</div><p class="told">{text(_place(found))}</p>{_replaced(found)}'
        '<p class="told">Nothing has been recorded.</p></div>'
    )


def _resolved(found: Resolved, statement: str) -> str:
    if not found.in_scope:
        return (
            '<p class="said none">The base model’s own answer</p>'
            '<p class="told">No fact is in scope, so the model is asked as if there were none.</p>'
        )
    answer = found.answer or "The model words the answer from the facts below."
    facts = {fact.id: fact for fact in found.edits}
    steps = []
    for hop in found.hops:
        source: StepSource = "trial" if hop.on_trial else hop.source
        steps.append(
            Step(
                hop.entity, hop.relation, hop.object, source, None if hop.edit is None else facts.get(hop.edit),
                statement if hop.on_trial else "",
            )
        )  # fmt: skip
    grounds = chain(steps) or statements(found.edits)
    if not steps and not found.edits:
        grounds = f'<ol class="chain"><li class="hop trial"><div class="rests"><span class="badge">This fact</span> <q>{text(statement)}</q></div></li></ol>'
    return _said(answer) + grounds


def _place(found: Previewed) -> str:
    if found.status == "unchanged":
        return "This fact is recorded already."
    told = "It would take the place of what is recorded:" if found.replaced else "It would be recorded as a new fact."
    return f"{found.notice} {told}" if found.notice else told


def _replaced(found: Previewed) -> str:
    items = "".join(f"<li>#{fact.id} {text(fact.statement)}</li>" for fact in found.replaced)
    return f'<ul class="replaced">{items}</ul>' if items else ""
