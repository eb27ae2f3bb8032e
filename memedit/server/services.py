"""What every route works with: the editor, the records, the upstream server, and threads for whatever blocks.

The event loop never waits for a model, an index or a database: `Services.work` runs such calls in threads of their own number.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from threading import Lock
from typing import TypeVar

import anyio
import anyio.to_thread

from memedit.editor import MemEditor
from memedit.errors import MemEditError, StoreError
from memedit.memory.memory import EditMemory, MemoryView
from memedit.models.base import LanguageModel
from memedit.models.openai import OpenAIModel
from memedit.server.limits import RateLimit
from memedit.server.logs import log
from memedit.server.metrics import Metrics
from memedit.server.records import Records
from memedit.server.settings import Settings
from memedit.server.upstream import Upstream
from memedit.strategies.base import Complete, Measure, Rate, Request, Resolution, Resolver, Step
from memedit.strategies.driver import Toolbox
from memedit.strategies.walk import Walk

_T = TypeVar("_T")

MOST_MODELS = 64
"""Clients for the upstream server's models that are kept."""
MOST_WAITING = 256
"""Most beliefs asked of the upstream server at a time."""


class Services:
    """The parts of one gateway.

    Args:
        settings: How it runs.
        memory: The edit memory; the caller closes it.
        records: API keys and audit log; the caller closes them.
        editor: Plans and finds; made over `memory` if None. Its own model is not called.
    """

    def __init__(
        self, settings: Settings, memory: EditMemory, records: Records, editor: MemEditor | None = None
    ) -> None:
        self.settings = settings
        self.memory = memory
        self.records = records
        self.metrics = Metrics()
        self.upstream = Upstream(settings, self.metrics)
        self.limit = RateLimit(settings.rate)
        self.ready = False
        base = OpenAIModel(settings.base, api_key=settings.upstream_key, timeout=settings.timeout, retries=1)
        # Model plans would cost a call for every question: only beliefs on the way to an edit are asked for.
        self.editor = editor or MemEditor(base, memory, model_plans=False, counterfactual="base")
        self._resolver = self.editor.strategy if isinstance(self.editor.strategy, Resolver) else Walk()
        self._models: OrderedDict[tuple[str | None, str | None], LanguageModel] = OrderedDict()
        self._lock = Lock()
        self._threads = anyio.CapacityLimiter(settings.threads)
        self._waiting = anyio.CapacityLimiter(MOST_WAITING)

    async def work(self, job: Callable[..., _T], *arguments: object) -> _T:
        """Run what blocks in a thread."""
        return await anyio.to_thread.run_sync(job, *arguments, limiter=self._threads)

    def warm_up(self) -> None:
        """Load what the first question would, and embed the facts that are not yet."""
        tools = self.editor.tools
        self.memory.embed_pending()
        view = self.view(self.settings.namespace)
        tools.planner.plan([("Who is the head of the state where Rome is?", view)])
        self.memory.embedder.encode(["Who is the head of the state where Rome is?"])
        self.ready = True

    def view(self, namespace: str) -> MemoryView:
        """A reading of a namespace, as it is now."""
        return self.memory.view(namespace=namespace)

    async def resolve(
        self, texts: Sequence[str], namespace: str, model: str | None, authorization: str | None
    ) -> tuple[MemoryView, list[Resolution]]:
        """What the memory says to each text; beliefs on the way are asked of the upstream server's model.

        Args:
            texts: What is asked.
            namespace: Whose facts to answer from.
            model: The upstream server's model; its first if None.
            authorization: How the upstream server is to be addressed.

        Returns:
            The reading of the facts that was used, and what it says to each text.

        Raises:
            ModelError: The upstream server's model failed.
        """

        def prepare() -> tuple[MemoryView, Toolbox]:
            return self.view(namespace), replace(self.editor.tools, model=lambda: self._model(model, authorization))

        view, tools = await self.work(prepare)
        return view, [await self._resolve(self._resolver.resolve(text, view), tools) for text in texts]

    async def _resolve(self, steps: Step[Resolution], tools: Toolbox) -> Resolution:
        """Run a resolver; while it waits for the upstream server it takes none of the threads that others think in."""
        result: object = None
        while True:
            request, found = await self.work(_advance, steps, result, tools)
            if request is None:
                assert found is not None
                return found
            [result] = await anyio.to_thread.run_sync(tools.serve, [request], limiter=self._waiting)

    def write(
        self, action: str, key: str, client: str, namespace: str, job: Callable[[], tuple[_T, Sequence[int]]]
    ) -> _T:
        """Do a write, with an entry in the audit log that is there before it and says afterwards what came of it.

        Args:
            action: What is done.
            key: Whose key it is.
            client: Where it comes from.
            namespace: Where it goes.
            job: Does it; gives its result, and the ids of the facts it recorded or ended.
        """
        number = self.records.begin_write(key, client, namespace, action)
        try:
            with self.metrics.timed("memory"):
                result, facts = job()
        except Exception as error:
            detail = type(error).__name__
            self._end_write(number, "refused" if isinstance(error, MemEditError) else "failed", (), detail)
            self.metrics.write(action, "refused")
            raise
        self._end_write(number, "done", facts, f"{len(facts)} facts")
        self.metrics.write(action, "done")
        log("write", action=action, key=key, namespace=namespace, facts=list(facts)[:20], count=len(facts))
        return result

    async def close(self) -> None:
        """Close what was opened here."""
        await self.upstream.close()

    def _end_write(self, number: int, outcome: str, facts: Sequence[int], detail: str) -> None:
        try:
            self.records.end_write(number, outcome, facts, detail)
        except StoreError as error:  # the write itself stands as it is; its entry stays at "begun"
            log("audit entry not completed", 40, entry=number, outcome=outcome, problem=str(error))

    def _model(self, name: str | None, authorization: str | None) -> LanguageModel:
        with self._lock:
            model = self._models.pop((name, authorization), None)
            if model is None:
                key = (authorization or "").removeprefix("Bearer ") or None
                settings = self.settings
                model = OpenAIModel(settings.base, name, api_key=key, timeout=settings.timeout, retries=1)
            self._models[name, authorization] = model
            if len(self._models) > MOST_MODELS:
                self._models.popitem(last=False)
            return model


def _advance(steps: Step[Resolution], result: object, tools: Toolbox) -> tuple[Request | None, Resolution | None]:
    """Run a resolver to its next question for the model, or to its end."""
    try:
        request = steps.send(result)
        while not isinstance(request, Complete | Rate | Measure):
            request = steps.send(tools.serve([request])[0])
    except StopIteration as end:
        return None, end.value
    return request, None
