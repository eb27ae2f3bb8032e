"""What happens at the page's buttons: each calls the gateway's API as the visitor, and shows what came of it.

A refusal or failure never leaves a handler: it is shown where the visitor looks, with how to mend it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from memedit.errors import MemEditError
from memedit.memory.fact import Fact, FactInput, Receipt
from memedit.page import words
from memedit.page.answers import Turn, conversation, previewed
from memedit.page.client import Gateway, Message, Refused
from memedit.page.guard import Visitor, visitor_of
from memedit.server.records import ALL, Role
from memedit.server.services import Services

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.requests import Request

PAGE = 50
"""Facts of the table that are fetched at a time."""
FOUND = 20
"""Facts that a search by meaning shows."""
REMEMBERED = 8
"""Turns of a conversation that are sent with the next question."""
Which = Literal["live", "all", "near"]
Problem = (Refused, MemEditError)


@dataclass(frozen=True)
class Listing:
    """What the fact table shows.

    Attributes:
        facts: The facts.
        scores: Their nearness, in a search by meaning.
        text: What was searched for.
        which: Live facts, all ever recorded, or those nearest in meaning.
        next_after: Where the next page begins; None where there is none.
        problem: Why there is nothing to show.
    """

    facts: tuple[Fact, ...] = ()
    scores: tuple[float, ...] = ()
    text: str = ""
    which: Which = "live"
    next_after: int | None = None
    problem: str = ""


@dataclass(frozen=True)
class Draft:
    """A fact as it stands in the form."""

    as_sentence: bool = True
    sentence: str = ""
    subject: str = ""
    relation: str = ""
    object: str = ""
    source: str = ""

    def fact(self) -> FactInput:
        """The fact.

        Raises:
            Refused: Something is missing.
        """
        source = self.source.strip() or None
        if self.as_sentence:
            if not self.sentence.strip():
                raise Refused("There is no fact yet. Write it as a sentence: The capital of Japan is Osaka.")
            return FactInput(statement=self.sentence.strip(), source=source)
        parts = {"subject": self.subject, "relation": self.relation, "object": self.object}
        missing = [name for name, value in parts.items() if not value.strip()]
        if missing:
            raise Refused(f"The fact has no {' and no '.join(missing)}. Fill in all three.")
        return FactInput(
            subject=self.subject.strip(), relation=self.relation.strip(), object=self.object.strip(), source=source
        )


@dataclass(frozen=True)
class Arrival:
    """What a visitor finds.

    Attributes:
        visitor: Who they are; None where nobody has signed in.
        namespaces: Those they may choose from, the first being their own.
        problem: Why there is less than there could be.
    """

    visitor: Visitor | None
    namespaces: list[str] = field(default_factory=list)
    problem: str = ""

    @property
    def may_write(self) -> bool:
        """Whether they may record facts."""
        return self.visitor is not None and self.visitor.role.covers(Role.EDITOR)


class Actions:
    """The handlers.

    Args:
        app: The gateway.
        services: Know the keys and the upstream server.
    """

    def __init__(self, app: FastAPI, services: Services) -> None:
        self._app = app
        self._services = services

    async def arrive(self, request: Request) -> Arrival:
        """Who has come, and where they may work."""
        try:
            visitor = await visitor_of(request, self._services)
            reached = await Gateway(self._app, self._services, visitor).namespaces()
        except Problem as error:
            return Arrival(None, [], str(error))
        own, default = visitor.namespaces, self._services.settings.namespace
        first = [default] if ALL in own or default in own else []
        names = dict.fromkeys([*first, *(name for name in own if name != ALL), *reached])
        return Arrival(visitor, list(names))

    # -- conversation ----------------------------------------------------------------------------------------

    async def ask(
        self, question: str, turns: list[Turn], namespace: str, request: Request
    ) -> AsyncIterator[tuple[str, list[Turn]]]:
        """Ask with the facts, and where they made a difference the base model alone too; the conversation so far."""
        if not question.strip():
            yield conversation(turns) or NO_QUESTIONS, turns
            return
        before = turns[-REMEMBERED:]
        turn = Turn(question.strip(), has_read_edits=any(past.is_edited for past in before))
        turns = [*turns, turn]
        yield conversation(turns), turns
        try:
            gateway = await self._gateway(request, namespace)
            models = await gateway.models()
            model = models[0] if models else ""
            turn.reply = await gateway.answer(_messages(before, turn, base=False), model)
            turn.facts = await self._behind(gateway, turn)
        except Problem as error:
            turn.problem = str(error)
            yield conversation(turns), turns
            return
        yield conversation(turns), turns
        if turn.is_edited:
            try:
                turn.base = await gateway.base_answer(_messages(before, turn, base=True), model)
            except Problem as error:
                turn.base_problem = str(error)
            yield conversation(turns), turns

    async def _behind(self, gateway: Gateway, turn: Turn) -> dict[int, Fact]:
        used = turn.reply.used if turn.reply is not None else None
        numbers = dict.fromkeys(edit.id for edit in used.edits) if used is not None else {}
        return {number: await gateway.fact(number) for number in numbers}

    # -- facts -----------------------------------------------------------------------------------------------

    async def list_facts(self, text: str, which: Which, namespace: str, request: Request) -> Listing:
        """The facts that a search finds."""
        try:
            gateway = await self._gateway(request, namespace)
            if which == "near" and text.strip():
                found = (await gateway.search(text, FOUND)).data
                return Listing(tuple(one.fact for one in found), tuple(one.score for one in found), text, which)
            page = await gateway.facts(text=text, live=which != "all", limit=PAGE)
        except Problem as error:
            return Listing((), (), text, which, problem=str(error))
        return Listing(tuple(page.data), (), text, which, page.next_after)

    async def more_facts(self, listing: Listing, namespace: str, request: Request) -> Listing:
        """The same with the next page."""
        if listing.next_after is None:
            return listing
        try:
            gateway = await self._gateway(request, namespace)
            page = await gateway.facts(
                text=listing.text, live=listing.which != "all", after=listing.next_after, limit=PAGE
            )
        except Problem as error:
            return replace(listing, problem=str(error))
        return replace(listing, facts=(*listing.facts, *page.data), next_after=page.next_after)

    async def history(self, fact_id: int, namespace: str, request: Request) -> str:
        """Everything ever recorded where a fact stands."""

        async def job(gateway: Gateway) -> str:
            fact = await gateway.fact(fact_id)
            past = (await gateway.history(fact.subject, fact.relation)).data
            caption = f"History of #{fact_id}, oldest first"
            return words.fact_table(past, caption=caption, may_write=False, history=False)

        return await self._shown(job, namespace, request)

    async def retract(self, fact_id: int, namespace: str, request: Request) -> str:
        """Retract a fact."""

        async def job(gateway: Gateway) -> str:
            fact = await gateway.retract(fact_id)
            return words.note(f"Retracted #{fact.id}: {fact.statement}", "good")

        return await self._shown(job, namespace, request)

    async def undo(self, namespace: str, request: Request) -> str:
        """Undo the last write."""

        async def job(gateway: Gateway) -> str:
            facts = await gateway.undo()
            items = "".join(
                f"<li>#{fact.id} {words.text(fact.statement)} {words.state(fact)}</li>" for fact in facts[:PAGE]
            )
            more = f"<p>and {len(facts) - PAGE:,} more</p>" if len(facts) > PAGE else ""
            return words.note("The last change was undone.", "good", f"<ul>{items}</ul>{more}")

        return await self._shown(job, namespace, request)

    async def try_fact(self, draft: Draft, question: str, namespace: str, request: Request) -> str:
        """What a fact would change; nothing is recorded."""

        async def job(gateway: Gateway) -> str:
            return previewed(question.strip(), await gateway.preview(draft.fact(), question))

        return await self._shown(job, namespace, request)

    async def add_fact(self, draft: Draft, namespace: str, request: Request) -> tuple[str, bool]:
        """Record a fact; what came of it, and whether it is recorded now."""
        try:
            receipt = await (await self._gateway(request, namespace)).add(draft.fact())
        except Problem as error:
            return words.note(str(error), "bad"), False
        return _receipt(receipt), True

    async def import_file(self, file: str | None, namespace: str, request: Request) -> AsyncIterator[str]:
        """Record the facts of an uploaded file, all or none; how far it is, and what came of it."""
        if not file:
            yield words.note("There is no file yet. Choose one first.", "bad")
            return
        path, reached = Path(file), [(0, 0)]
        try:
            gateway = await self._gateway(request, namespace)
            job = asyncio.create_task(gateway.import_file(path, lambda *now: reached.__setitem__(0, now)))
            while not job.done():
                done, total = reached[0]
                busy = "Recording" if total and done == total else "Reading texts:" if total else "Checking the file"
                yield words.progress(busy, done, total if done < total else 0)
                await asyncio.wait([job], timeout=0.3)
            made = await job
        except Problem as error:
            yield words.note(str(error), "bad", "<p>Nothing was recorded.</p>")
            return
        finally:
            path.unlink(missing_ok=True)
        yield words.note(
            f"{made.facts:,} facts: {made.added:,} added, {made.superseded:,} in the place of others, "
            f"{made.unchanged:,} known already; {made.free_text:,} of them free text.",
            "good",
        )

    # -- helpers ---------------------------------------------------------------------------------------------

    async def _gateway(self, request: Request, namespace: str) -> Gateway:
        visitor = await visitor_of(request, self._services)
        return Gateway(self._app, self._services, visitor, namespace or None)

    async def _shown(self, job: Callable[[Gateway], Awaitable[str]], namespace: str, request: Request) -> str:
        try:
            return await job(await self._gateway(request, namespace))
        except Problem as error:
            return words.note(str(error), "bad")


NO_QUESTIONS = words.empty(
    "Ask a question",
    "The answer shows the facts that it rests on, step by step, beside what the base model says without them.",
)


def table(listing: Listing, *, may_write: bool) -> str:
    """A listing as it is shown."""
    if listing.problem:
        return words.note(listing.problem, "bad")
    if not listing.facts:
        if listing.text.strip():
            return words.empty(f"No fact contains “{listing.text.strip()}”", "Use fewer words, or search by meaning.")
        hint = "Record the first under Add, or bring a file under Import." if may_write else "An editor records them."
        return words.empty("No facts yet", hint)
    captions = {"live": "Live facts, newest first", "all": "Everything recorded, newest first"}
    caption = "Live facts nearest in meaning" if listing.scores else captions.get(listing.which, captions["live"])
    return words.fact_table(listing.facts, caption=caption, may_write=may_write, scores=listing.scores)


def _receipt(receipt: Receipt) -> str:
    fact = receipt.fact
    told = {
        "added": f"Recorded as #{fact.id}: {fact.statement}",
        "superseded": f"Recorded as #{fact.id}, in the place of what was there: {fact.statement}",
        "unchanged": f"Known already as #{fact.id}: {fact.statement}",
    }[receipt.status]
    items = "".join(f"<li>#{one.id} {words.text(one.statement)}</li>" for one in receipt.replaced)
    detail = f'<ul class="replaced">{items}</ul>' if items else ""
    if receipt.notice:
        detail += f"<p>{words.text(receipt.notice)}</p>"
    return words.note(told, "good", detail)


def _messages(before: list[Turn], turn: Turn, *, base: bool) -> list[Message]:
    """The conversation as a chat: with the answers that were given, or with the base model's own."""
    messages: list[Message] = []
    for past in before:
        reply = past.base if base and past.is_edited else past.reply
        if reply is not None and reply.text:
            messages += [{"role": "user", "content": past.question}, {"role": "assistant", "content": reply.text}]
    return [*messages, {"role": "user", "content": turn.question}]
