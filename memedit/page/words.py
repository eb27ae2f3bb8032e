"""HTML of what the page shows: small pieces, made of escaped text. Knows nothing of servers or of Gradio.

`text` is the only way in for whatever people or models wrote: a fact that holds markup is shown as the characters it is made of.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Literal, NamedTuple

from memedit.memory.fact import EndReason, Fact

StepSource = Literal["edit", "implied", "belief", "trial"]


class Step(NamedTuple):
    """A step of a chain as it is drawn.

    Attributes:
        entity: Where it starts.
        relation: The relation in words.
        object: Where it arrives.
        source: ``edit``, ``implied``, ``belief``, or ``trial``: the fact that is not recorded yet.
        fact: The fact behind it, where there is one.
        statement: What that fact says.
    """

    entity: str
    relation: str
    object: str
    source: StepSource
    fact: Fact | None = None
    statement: str = ""


def text(written: str) -> str:
    """A text that somebody wrote, as HTML that shows its characters and does nothing else.

    The marks of the template languages that a page may be made with are escaped as well.

    >>> text("<b>${x} {{y}}</b>")
    '&lt;b&gt;&#36;&#123;x&#125; &#123;&#123;y&#125;&#125;&lt;/b&gt;'
    """
    return html.escape(written).translate(_TEMPLATE_MARKS)


def moment(at: datetime | None) -> str:
    """A time, to the minute, in UTC."""
    if at is None:
        return ""
    return f'<time datetime="{at.isoformat()}">{at:%Y-%m-%d %H:%M}</time>'


# -- notes ---------------------------------------------------------------------------------------------------


def note(message: str, kind: Literal["good", "bad", "plain"] = "plain", detail: str = "") -> str:
    """A short message; `detail` is HTML under it.

    A problem is an alert, which screen readers read at once.
    """
    role = ' role="alert"' if kind == "bad" else ""
    return f'<div class="note {kind}"{role}><p>{text(message)}</p>{detail}</div>'


def empty(title: str, hint: str) -> str:
    """What stands where there is nothing yet."""
    return f'<div class="empty"><p class="title">{text(title)}</p><p>{text(hint)}</p></div>'


def progress(label: str, done: int, total: int) -> str:
    """How far something is; `total` 0 means that nobody knows."""
    share = f' value="{done}" max="{total}"' if total else ""
    told = f"{label} {done:,} of {total:,}" if total else label
    return f'<div class="note plain"><p>{text(told)}</p><progress{share} aria-label="{text(label)}"></progress></div>'


# -- chains --------------------------------------------------------------------------------------------------


def chain(steps: Sequence[Step], label: str = "How the answer was reached") -> str:
    """A chain, hop by hop: what each rests on is named under it."""
    if not steps:
        return ""
    items = "".join(_step(number, step) for number, step in enumerate(steps, 1))
    return f'<ol class="chain" aria-label="{text(label)}">{items}</ol>'


def _step(number: int, step: Step) -> str:
    return (
        f'<li class="hop {step.source}"><div class="walk"><span class="from">{text(step.entity)}</span> '
        f'<span class="relation">{text(step.relation)}</span><span class="arrow" aria-label="is"> → </span>'
        f'<strong class="to">{text(step.object)}</strong></div>'
        f'<div class="rests"><span class="badge">{_badge(number, step)}</span> {_ground(step)}</div></li>'
    )


def _badge(number: int, step: Step) -> str:
    names = {"edit": "Your fact", "implied": "Follows from", "belief": "Base model", "trial": "This fact"}
    identity = f" #{step.fact.id}" if step.fact is not None else ""
    return f"{number} · {names[step.source]}{identity}"


def _ground(step: Step) -> str:
    if step.source == "belief":
        return "what the model believes by itself"
    said = step.fact.statement if step.fact is not None else step.statement
    source = _source(step.fact)
    return f"<q>{text(said)}</q>{source}" if said else source


def _source(fact: Fact | None) -> str:
    return "" if fact is None or not fact.source else f' <span class="source">Source: {text(fact.source)}</span>'


def statements(facts: Iterable[Fact]) -> str:
    """Facts that were used as sentences, without a chain."""
    items = "".join(
        f'<li class="hop edit"><div class="rests"><span class="badge">Your fact #{fact.id}</span> '
        f"<q>{text(fact.statement)}</q>{_source(fact)}</div></li>"
        for fact in facts
    )
    return f'<ol class="chain" aria-label="Facts that were used">{items}</ol>'


# -- the fact table ------------------------------------------------------------------------------------------


def fact_table(
    facts: Sequence[Fact], *, caption: str, may_write: bool, scores: Sequence[float] = (), history: bool = True
) -> str:
    """Facts as a table, with a button to retract each that is live and one for the history of its slot."""
    nearness = '<th scope="col">Nearness</th>' if scores else ""
    rows = "".join(
        _row(fact, may_write=may_write, score=scores[at] if scores else None, history=history)
        for at, fact in enumerate(facts)
    )
    return (
        f'<table class="facts"><caption>{text(caption)}</caption><thead><tr><th scope="col">Fact</th>{nearness}'
        '<th scope="col">Source</th><th scope="col">Recorded (UTC)</th><th scope="col">State</th>'
        f'<th scope="col"><span class="unseen">Actions</span></th></tr></thead><tbody>{rows}</tbody></table>'
    )


def _row(fact: Fact, *, may_write: bool, score: float | None, history: bool) -> str:
    nearness = "" if score is None else f'<td class="score" data-label="Nearness">{score:.2f}</td>'
    buttons = ""
    if history and not fact.is_free_text:
        buttons += _button("history", fact, "History")
    if may_write and fact.live:
        buttons += _button("retract", fact, "Retract")
    source = text(fact.source) if fact.source else '<span class="none">none given</span>'
    ended = "" if fact.live else " ended"
    return (
        f'<tr class="fact{ended}" data-fact="{fact.id}"><td class="says"><span class="number">#{fact.id}</span> '
        f"{text(fact.statement)}{_validity(fact)}</td>{nearness}"
        f'<td class="from" data-label="Source">{source}</td>'
        f'<td class="when" data-label="Recorded">{moment(fact.recorded_at)}</td>'
        f'<td class="state" data-label="State">{state(fact)}</td><td class="acts">{buttons}</td></tr>'
    )


def _button(action: str, fact: Fact, label: str) -> str:
    return (
        f'<button type="button" class="act {action}" data-act="{action}" data-fact="{fact.id}" '
        f'aria-label="{label} fact {fact.id}: {text(fact.statement)}">{label}</button>'
    )


def state(fact: Fact) -> str:
    """Whether a fact is live, and if not, since when and why."""
    if fact.live:
        return '<span class="pill live">live</span>'
    reason = {
        EndReason.SUPERSEDED: f"replaced by #{fact.superseded_by}" if fact.superseded_by else "replaced",
        EndReason.RETRACTED: "retracted",
        EndReason.UNDONE: "undone",
    }
    told = reason[fact.end_reason] if fact.end_reason is not None else "ended"
    return f'<span class="pill">{told}</span> <span class="when">{moment(fact.retracted_at)}</span>'


def _validity(fact: Fact) -> str:
    parts = [
        f"{word} {at:%Y-%m-%d}" for word, at in (("from", fact.valid_from), ("until", fact.valid_to)) if at is not None
    ]
    return f' <span class="valid">holds {" ".join(parts)}</span>' if parts else ""


_TEMPLATE_MARKS = str.maketrans({"{": "&#123;", "}": "&#125;", "$": "&#36;", "`": "&#96;"})
