"""The page's parts and what each button is wired to. All of Gradio that memedit uses is in this module and `mount`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import gradio as gr

from memedit.page import words
from memedit.page.actions import NO_QUESTIONS, Actions, Arrival, Draft, Listing, Which, table
from memedit.page.answers import Turn, conversation
from memedit.page.guard import SIGN_OUT

if TYPE_CHECKING:
    from gradio.blocks import Block
    from gradio.components import Component
    from starlette.requests import Request

WHICH: list[tuple[str, Which]] = [("Live only", "live"), ("Ended too", "all"), ("By meaning", "near")]
SENTENCE, TRIPLE = "A sentence", "Subject, relation, object"
FILES = [".jsonl", ".ndjson", ".json", ".csv", ".tsv"]

_ANNOUNCED = "element.setAttribute('role', 'status'); element.setAttribute('aria-live', 'polite');"
_LOG = """
element.setAttribute('role', 'log');
element.setAttribute('aria-live', 'polite');
element.setAttribute('aria-label', 'Conversation');
const calm = window.matchMedia('(prefers-reduced-motion: reduce)');
watch('value', () => {
  const last = element.querySelector('.turn:last-of-type');
  if (last) last.scrollIntoView({ block: 'nearest', behavior: calm.matches ? 'auto' : 'smooth' });
});
"""
_TABLE = """
let place = -1;
element.addEventListener('click', (event) => {
  const button = event.target.closest('button[data-act]');
  if (!button) return;
  place = [...element.querySelectorAll('button[data-act]')].indexOf(button);
  trigger('act', { act: button.dataset.act, fact: Number(button.dataset.fact) });
});
watch('value', () => {
  const buttons = element.querySelectorAll('button[data-act]');
  const lost = !document.activeElement || document.activeElement === document.body;
  if (place >= 0 && lost && buttons.length) buttons[Math.min(place, buttons.length - 1)].focus();
  place = -1;
});
"""


def build(actions: Actions) -> gr.Blocks:
    """The page."""
    page = gr.Blocks(title="memedit", analytics_enabled=False, delete_cache=(600, 3600))
    with page:
        Page(actions).build(page)
    page.queue(default_concurrency_limit=16, max_size=256, api_open=False)
    return page


class Page:
    """One page's components.

    Args:
        actions: What its buttons do.
    """

    def __init__(self, actions: Actions) -> None:
        self._actions = actions

    def build(self, page: gr.Blocks) -> None:
        """Lay the parts out and wire them."""
        self._turns = gr.State([])
        self._listing = gr.State(Listing())
        self._may_write = gr.State(False)
        self._header = gr.HTML(_header(None), elem_id="top")
        self._namespace = gr.Dropdown(
            [], label="Namespace", visible=False, interactive=True, allow_custom_value=True, elem_id="namespace"
        )
        with gr.Tabs(elem_id="parts"):
            with gr.Tab("Ask", id="ask", elem_id="part-ask"):
                self._ask_part()
            with gr.Tab("Facts", id="facts", elem_id="part-facts") as facts_tab:
                self._facts_part()
            with gr.Tab("Add", id="add", elem_id="part-add"):
                self._add_part()
            with gr.Tab("Import", id="import", elem_id="part-import"):
                self._import_part()
        listed = [self._listing, self._table, self._more]
        arrived = [
            self._header, self._namespace, self._may_write, self._add, self._importing, self._reads_only, self._no_import
        ]  # fmt: skip
        _on(page.load, self._arrive, [], [*arrived, *listed])
        _on(facts_tab.select, self._list, self._search, listed)
        _on(self._namespace.change, self._move, self._search, [self._turns, self._log, *listed])

    # -- parts -----------------------------------------------------------------------------------------------

    def _ask_part(self) -> None:
        self._log = gr.HTML(NO_QUESTIONS, js_on_load=_LOG, elem_id="log")
        with gr.Row(elem_id="asking", elem_classes="line"):
            self._question = gr.Textbox(
                "", label="Your question", placeholder="Who is the head of state of the country where Mount Fuji is?",
                lines=1, max_lines=6, scale=8, elem_id="question", autofocus=True,
            )  # fmt: skip
            ask = gr.Button("Ask", variant="primary", scale=1, min_width=96, elem_id="ask")
        clear = gr.Button("New conversation", size="sm", elem_id="clear", elem_classes="quiet")
        inputs = [self._question, self._turns, self._namespace]
        for listen in (ask.click, self._question.submit):
            _on(listen, self._ask, inputs, [self._log, self._turns, self._question])
        _on(clear.click, lambda: (NO_QUESTIONS, [], ""), [], [self._log, self._turns, self._question])

    def _facts_part(self) -> None:
        with gr.Row(elem_classes="line"):
            self._text = gr.Textbox(
                "", label="Search the facts", placeholder="A name, or some words", scale=8, elem_id="search"
            )
            find = gr.Button("Search", scale=1, min_width=96, elem_id="find")
        self._which = gr.Radio(WHICH, value="live", label="Show", elem_id="which")
        self._status = gr.HTML("", js_on_load=_ANNOUNCED, elem_id="facts-status")
        self._past = gr.HTML("", elem_id="history")
        self._table = gr.HTML("", js_on_load=_TABLE, elem_id="facts")
        with gr.Row(elem_classes="line"):
            self._more = gr.Button("Show more", visible=False, elem_id="more")
            self._undo = gr.Button("Undo the last change", elem_id="undo", elem_classes="quiet")
        self._search: list[Component] = [self._text, self._which, self._namespace, self._may_write]
        listed = [self._listing, self._table, self._more]
        for listen in (find.click, self._text.submit, self._which.change):
            _on(listen, self._list, self._search, listed)
        _on(self._more.click, self._list_more, [self._listing, self._namespace, self._may_write], listed)
        _on(self._undo.click, self._take_back, self._search, [self._status, self._past, *listed])
        _on(self._table.act, self._act, self._search, [self._status, self._past, *listed])

    def _add_part(self) -> None:
        self._reads_only = gr.HTML(
            words.note("Your key may read facts, not record them. You can still see what one would change."),
            visible=False,
        )
        how = gr.Radio([SENTENCE, TRIPLE], value=SENTENCE, label="The fact as", elem_id="how")
        sentence = gr.Textbox(
            "", label="Fact", placeholder="The capital of Japan is Osaka.", lines=1, max_lines=4, elem_id="sentence"
        )
        with gr.Row(visible=False, elem_classes="line") as triple:
            subject = gr.Textbox("", label="Subject", placeholder="Japan", elem_id="subject")
            relation = gr.Textbox("", label="Relation", placeholder="capital", elem_id="relation")
            obj = gr.Textbox("", label="Object", placeholder="Osaka", elem_id="object")
        source = gr.Textbox("", label="Source (optional)", placeholder="Ticket 17, a link, a person", elem_id="source")
        trial = gr.Textbox(
            "", label="A question to try it on (optional)",
            placeholder="What is the capital of the country where Mount Fuji is?", elem_id="trial",
        )  # fmt: skip
        with gr.Row(elem_classes="line"):
            preview = gr.Button("What would it change?", elem_id="preview")
            self._add = gr.Button("Add the fact", variant="primary", visible=False, elem_id="add")
        shown = gr.HTML("", js_on_load=_ANNOUNCED, elem_id="added")
        _on(how.change,
            lambda chosen: (gr.update(visible=chosen == SENTENCE), gr.update(visible=chosen == TRIPLE)),
            [how], [sentence, triple])  # fmt: skip
        draft: list[Component] = [how, sentence, subject, relation, obj, source]
        _on(preview.click, self._try, [*draft, trial, self._namespace], [shown])
        _on(trial.submit, self._try, [*draft, trial, self._namespace], [shown])
        cleared = [sentence, subject, relation, obj]
        _on(self._add.click, self._record, [*draft, self._namespace], [shown, *cleared])

    def _import_part(self) -> None:
        self._no_import = gr.HTML(words.note("Your key may read facts, not record them."), visible=False)
        with gr.Column(visible=False) as self._importing:
            gr.HTML(_FILE_HELP)
            file = gr.File(label="File of facts", file_types=FILES, type="filepath", height=160, elem_id="file")
            start = gr.Button("Import", variant="primary", elem_id="import", elem_classes="quiet")
            shown = gr.HTML("", js_on_load=_ANNOUNCED, elem_id="imported")
        _on(start.click, self._import, [file, self._namespace], [shown, file])

    # -- events ----------------------------------------------------------------------------------------------

    async def _arrive(self, request: gr.Request) -> list[object]:
        found = await self._actions.arrive(_inner(request))
        first = found.namespaces[0] if found.namespaces else None
        listing = await self._actions.list_facts("", "live", first or "", _inner(request))
        may_write = found.may_write
        return [
            _header(found),
            gr.update(choices=found.namespaces, value=first, visible=len(found.namespaces) > 1),
            may_write,
            gr.update(visible=may_write),
            gr.update(visible=may_write),
            gr.update(visible=not may_write),
            gr.update(visible=not may_write),
            *_listed(listing, may_write),
        ]

    async def _move(
        self, text: str, which: Which, namespace: str, may_write: bool, request: gr.Request
    ) -> list[object]:
        listing = await self._actions.list_facts(text, which, namespace, _inner(request))
        return [[], NO_QUESTIONS, *_listed(listing, may_write)]

    async def _ask(
        self, question: str, turns: list[Turn], namespace: str, request: gr.Request
    ) -> AsyncIterator[tuple[str, list[Turn], str]]:
        async for shown, after in self._actions.ask(question, turns, namespace, _inner(request)):
            yield shown or conversation(after), after, ""

    async def _list(
        self, text: str, which: Which, namespace: str, may_write: bool, request: gr.Request
    ) -> list[object]:
        return _listed(await self._actions.list_facts(text, which, namespace, _inner(request)), may_write)

    async def _list_more(self, listing: Listing, namespace: str, may_write: bool, request: gr.Request) -> list[object]:
        return _listed(await self._actions.more_facts(listing, namespace, _inner(request)), may_write)

    async def _act(
        self, event: gr.EventData, text: str, which: Which, namespace: str, may_write: bool, request: gr.Request
    ) -> list[object]:
        number = int(event.fact)
        if event.act == "history":
            return [gr.skip(), await self._actions.history(number, namespace, _inner(request)), *[gr.skip()] * 3]
        told = await self._actions.retract(number, namespace, _inner(request))
        return [told, "", *await self._list(text, which, namespace, may_write, request)]

    async def _take_back(
        self, text: str, which: Which, namespace: str, may_write: bool, request: gr.Request
    ) -> list[object]:
        told = await self._actions.undo(namespace, _inner(request))
        return [told, "", *await self._list(text, which, namespace, may_write, request)]

    async def _try(
        self, how: str, sentence: str, subject: str, relation: str, obj: str, source: str, question: str,
        namespace: str, request: gr.Request,
    ) -> AsyncIterator[str]:  # fmt: skip
        yield words.progress("Trying it out", 0, 0)
        draft = Draft(how == SENTENCE, sentence, subject, relation, obj, source)
        yield await self._actions.try_fact(draft, question, namespace, _inner(request))

    async def _record(
        self, how: str, sentence: str, subject: str, relation: str, obj: str, source: str, namespace: str,
        request: gr.Request,
    ) -> list[str]:  # fmt: skip
        draft = Draft(how == SENTENCE, sentence, subject, relation, obj, source)
        told, recorded = await self._actions.add_fact(draft, namespace, _inner(request))
        kept = Draft(draft.as_sentence, source=source) if recorded else draft
        values = asdict(kept)
        return [told, *(values[name] for name in ("sentence", "subject", "relation", "object"))]

    async def _import(self, file: str | None, namespace: str, request: gr.Request) -> AsyncIterator[tuple[str, object]]:
        told = ""
        async for told in self._actions.import_file(file, namespace, _inner(request)):
            yield told, gr.skip()
        yield told, None


def _on(
    listen: Callable[..., object],
    do: Callable[..., object],
    inputs: Sequence[Component],
    outputs: Sequence[Block],
) -> None:
    """Wire an event; without Gradio's own veil over what is being changed, and not as a part of Gradio's API."""
    listen(do, inputs, outputs, show_progress="hidden", api_visibility="private")


def _inner(request: gr.Request) -> Request:
    """The browser's request."""
    assert request.request is not None
    return request.request


def _listed(listing: Listing, may_write: bool) -> list[object]:
    return [listing, table(listing, may_write=may_write), gr.update(visible=listing.next_after is not None)]


def _header(found: Arrival | None) -> str:
    who = ""
    if found is not None and found.visitor is not None and found.visitor.key is not None:
        who = (
            f'<form class="who" method="post" action="{SIGN_OUT}"><span>{words.text(found.visitor.name)} '
            f'<span class="pill">{found.visitor.role.value}</span></span><button type="submit">Sign out</button></form>'
        )
    problem = words.note(found.problem, "bad") if found is not None and found.problem else ""
    return (
        f'<header class="top"><h1>memedit</h1><p>What the model should know, and why it says what it says</p>{who}</header>'
        f"{problem}"
    )


_FILE_HELP = (
    '<div class="help"><p>A file of facts is recorded as a whole, or not at all. JSON Lines has a fact a line:</p>'
    "<pre>" + words.text('{"subject": "Japan", "relation": "capital", "object": "Osaka"}') + "\n"
    + words.text('{"statement": "The CEO of Initech is Ada Byron.", "source": "ticket 17"}') + "</pre>"
    "<p>A CSV file names the same fields in its first row. Edits of MQuAKE, CounterFact and zsRE are read too.</p></div>"
)  # fmt: skip
