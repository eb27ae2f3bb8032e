"""What every route works with: the editor, the records, the upstream server, and threads for whatever blocks.

The event loop never waits for a model, an index or a database: `Services.work` runs such calls in threads of their own number.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from secrets import token_bytes
from threading import Lock
from typing import TypeVar

import anyio
import anyio.to_thread

from memedit.conversation import Turn, self_contained
from memedit.editor import MemEditor
from memedit.memory.memory import EditMemory, MemoryView
from memedit.models.caching import cache_salt
from memedit.models.openai import OpenAIModel
from memedit.server.audit import Writer, audited
from memedit.server.limits import RateLimit
from memedit.server.logs import log
from memedit.server.metrics import Metrics
from memedit.server.records import Records
from memedit.server.settings import Settings
from memedit.server.thinking import Thinker
from memedit.server.tracing import traced
from memedit.server.upstream import Upstream
from memedit.strategies.base import Read, Resolution, Resolver, Step
from memedit.strategies.driver import Toolbox
from memedit.strategies.walk import Walk

_T = TypeVar("_T")

MOST_MODELS = 64
"""Clients for the upstream server's models that are kept."""
MOST_WAITING = 256
"""Most beliefs asked of the upstream server at a time."""
OWN_THRESHOLD = 0.07
"""`Walk.own_threshold`, which 97 of 100 right beliefs of the embedded model reach."""
_FIRST = "Who is the head of the state where Rome is?"
_LENGTHS = range(4, 64, 6)
"""Words of the questions that are planned at the start."""
POSITION_SECONDS = 5.0
"""How long a request waits for the log position that it asks for."""


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
        self.thinker = Thinker()
        self.ready = False
        self.condition: Callable[[], Mapping[str, object]] | None = None
        # Made anew at every start: a client that could guess a salt could tell by an answer's speed what others ask.
        self._secret = token_bytes(32)
        base = OpenAIModel(settings.base, api_key=settings.upstream_key, timeout=settings.timeout, retries=1)
        # Model plans would cost a call for every question: only beliefs on the way to an edit are asked for, each once.
        walk = Walk(own_threshold=OWN_THRESHOLD)
        self.editor = editor or MemEditor(base, memory, strategy=walk, model_plans=False, counterfactual="base")
        self._resolver = self.editor.strategy if isinstance(self.editor.strategy, Resolver) else walk
        self._models: OrderedDict[tuple[str | None, str | None], OpenAIModel] = OrderedDict()
        self._lock = Lock()
        self._threads = anyio.CapacityLimiter(settings.threads)
        self._waiting = anyio.CapacityLimiter(MOST_WAITING)

    async def work(self, job: Callable[..., _T], *arguments: object) -> _T:
        """Run what blocks in a thread."""
        return await anyio.to_thread.run_sync(job, *arguments, limiter=self._threads)

    def warm_up(self) -> None:
        """Load what the first questions would, and embed the facts that are not yet."""
        tools = self.editor.tools
        self.memory.embed_pending()
        view = self.view(self.settings.namespace)
        [nearest] = view.search(self.memory.embedder.encode([_FIRST]), 1)
        for text in (_FIRST, *(hit.fact.statement for hit in nearest)):  # only of a fact is the cross-encoder asked
            tools.serve([Read(view, text)])
        for words in _LENGTHS:  # code is generated for every length
            tools.planner.plan([("Who " * words, view)])
        self.ready = True

    def view(self, namespace: str) -> MemoryView:
        """A reading of a namespace, as it is now."""
        return self.memory.view(namespace=namespace)

    @property
    def resolver(self) -> Resolver:
        """Finds the edits in scope of what is asked."""
        return self._resolver

    def tools(self, namespace: str, model: str | None, authorization: str | None) -> Toolbox:
        """What serves the resolver, with a model of the upstream server (its first if None) to ask for beliefs."""
        salt = cache_salt(namespace, self._secret)
        return replace(
            self.editor.tools,
            model=lambda: self._model(model, authorization).salted(salt),
            side=self.thinker.side,
        )

    async def salt(self, namespace: str, authorization: str | None, own: object = None) -> str | None:
        """Under which salt vLLM is to keep a prompt with facts of a namespace; None where the upstream server is another.

        Args:
            namespace: The namespace.
            authorization: How the upstream server is to be addressed.
            own: A salt of the client's, which divides the namespace further.
        """
        if not await self.upstream.is_vllm(authorization):
            return None
        salt = cache_salt(namespace, self._secret)
        return cache_salt(own, salt.encode()) if isinstance(own, str) and own else salt

    async def reach(self, position: int) -> None:
        """Wait until the log has been taken in as far as `position`; takes none of the threads that others think in.

        Raises:
            PositionNotReached: It did not come that far in time.
        """
        if self.memory.position < position:

            def job() -> None:
                self.memory.view(at_least=position, timeout=POSITION_SECONDS)

            await anyio.to_thread.run_sync(job, limiter=self._waiting)

    async def resolve(
        self,
        texts: Sequence[str],
        namespace: str,
        model: str | None,
        authorization: str | None,
        earlier: Sequence[Turn] = (),
    ) -> tuple[MemoryView, list[Resolution]]:
        """What the memory says to each text; beliefs on the way are asked of the upstream server's model.

        Args:
            texts: What is asked.
            namespace: Whose facts to answer from.
            model: The upstream server's model; its first if None.
            authorization: How the upstream server is to be addressed.
            earlier: What was said before a single text, which is completed from it.

        Returns:
            The reading of the facts that was used, and what it says to each text.

        Raises:
            ModelError: The upstream server's model failed.
        """

        def prepare() -> tuple[MemoryView, Toolbox, list[str]]:
            view = self.view(namespace)
            asked = [self_contained([*earlier, Turn("user", text)], view) for text in texts]
            return view, self.tools(namespace, model, authorization), asked

        view, tools, asked = await self.work(prepare)
        found = [await self._resolve(traced(self._resolver.resolve(question, view)), tools) for question in asked]
        return view, [
            one if question == text else one._replace(question=question)
            for one, question, text in zip(found, asked, texts, strict=True)
        ]

    async def _resolve(self, steps: Step[Resolution], tools: Toolbox) -> Resolution:
        """Run a resolver, side by side with those of other requests; waiting for the upstream server holds up none of them."""
        result: object = None
        while True:
            stop = await self.thinker.advance(steps, result, tools)
            if stop.request is None:
                assert stop.found is not None
                return stop.found
            [result] = await anyio.to_thread.run_sync(
                tools.serve, [stop.request], limiter=self._waiting, abandon_on_cancel=True
            )

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
        facts: Sequence[int] = ()

        def timed() -> tuple[_T, Sequence[int]]:
            nonlocal facts
            with self.metrics.timed("memory"):
                result, facts = job()
            return result, facts

        try:
            result = audited(self.records, Writer(key, client), [namespace], action, timed)
        except Exception:
            self.metrics.write(action, "refused")
            raise
        self.metrics.write(action, "done")
        log("write", action=action, key=key, namespace=namespace, facts=list(facts)[:20], count=len(facts))
        return result

    async def close(self) -> None:
        """Close what was opened here."""
        await self.upstream.close()
        await anyio.to_thread.run_sync(self.thinker.close)

    def _model(self, name: str | None, authorization: str | None) -> OpenAIModel:
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
