"""`MemEditor`: the public face. Facts go in, questions are answered from them, and what they do not touch is unchanged."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self, overload

from memedit.counterfactual_adapter import choose_counterfactual
from memedit.errors import InvalidFact, InvalidQuestion
from memedit.inputs import FactLike, fact_inputs
from memedit.memory.fact import Fact, FactInput, Receipt
from memedit.models import is_embedded, load_model
from memedit.models.base import LanguageModel, Message, Sampling
from memedit.models.caching import salted
from memedit.strategies import load_strategy

if TYPE_CHECKING:
    from memedit.answer import Answer
    from memedit.edited import ChatReply, EditedModel
    from memedit.explain import Explanation
    from memedit.memory.embedder import Embedder
    from memedit.memory.memory import EditMemory, MemoryView
    from memedit.parametric.edits import Editing
    from memedit.parametric.fallback import Fallback
    from memedit.planner import PathScorer, Planner
    from memedit.scope import ScopeClassifier
    from memedit.strategies.base import Steps, Strategy
    from memedit.strategies.driver import Toolbox

PLAN_BELOW = 0.3
"""Confidence of the trained planner below which a strong base model is asked to plan."""
MAX_QUESTION_CHARACTERS = 20_000
CHAT_TOKENS = 256
"""Most tokens of a chat reply where the caller does not say."""


class MemEditor:
    """A base model with an edit memory beside it.

    Args:
        model: ``"embedded"``, ``"hf:NAME_OR_PATH"``, ``"vllm:NAME_OR_PATH"``, ``"http://host:port/v1"``, or a `LanguageModel`.
            It is loaded at the first question.
        memory: A SQLite file, ``":memory:"``, a database URL, or an `EditMemory` (which the caller then closes).
        namespace: The tenant that calls without one work in.
        strategy: Name of the strategy, or a `Strategy`.
        embedder: Replaces the embedded all-MiniLM-L6-v2; ignored where `memory` is an `EditMemory`.
        planner: Replaces the planner.
        scorer: Replaces the path scorer.
        scope: Replaces the scope classifier.
        counterfactual: What answers from edits where their objects alone are no answer: ``"base"``, the base model;
            ``"adapter"``, the embedded model with the adapter trained for it; or a `LanguageModel`. ``"auto"`` is the
            adapter where `model` is ``"embedded"`` and an adapter is installed, else the base model.
        model_plans: Whether `walk` asks the base model to decompose a question where the trained planner is unsure; None
            for every base model but the embedded one, which plans worse than chance.
        fallback: For comparison with edits in weights: a method of `memedit.parametric` ("rome"). Where no edit is in scope
            of a question, `ask` gives what a copy of the base model says that the method writes the facts into; it
            warns, and every such answer has a notice with the base model's own. Needs a model in this process.

    Raises:
        InvalidSpec: The model or strategy name means nothing.
        UnknownLayers: There is a fallback, and the model's weights are out of reach.
        StoreError: The memory cannot be opened.
    """

    def __init__(
        self,
        model: str | LanguageModel = "embedded",
        memory: str | Path | EditMemory = ":memory:",
        *,
        namespace: str = "default",
        strategy: str | Strategy = "walk",
        embedder: Embedder | None = None,
        planner: Planner | None = None,
        scorer: PathScorer | None = None,
        scope: ScopeClassifier | None = None,
        counterfactual: Literal["auto", "base", "adapter"] | LanguageModel = "auto",
        model_plans: bool | None = None,
        fallback: str | Editing | None = None,
    ) -> None:
        from memedit.memory.memory import EditMemory

        self._model = model
        self._fallback = _make_fallback(model, fallback)
        self._model_plans = not is_embedded(model) if model_plans is None else model_plans
        self._strategy = self._load_strategy(strategy)
        self._owns_memory = not isinstance(memory, EditMemory)
        self.memory = memory if isinstance(memory, EditMemory) else EditMemory(memory, embedder=embedder)
        self.namespace = namespace
        self._planner, self._scorer, self._scope = planner, scorer, scope
        self._counterfactual = choose_counterfactual(counterfactual, model)
        self._tools: Toolbox | None = None
        self._loading = threading.RLock()

    # -- facts -----------------------------------------------------------------------------------------------

    def add_fact(
        self,
        subject_or_statement: str,
        relation: str | None = None,
        object: str | None = None,  # noqa: A002 - the field's standard name
        *,
        valid_from: datetime | None = None,
        valid_to: datetime | None = None,
        source: str | None = None,
        namespace: str | None = None,
    ) -> Receipt:
        """Record a fact, durably, before returning. It supersedes what a single-valued slot held.

        Args:
            subject_or_statement: The subject; or, alone, a plain sentence ("The capital of France is Lyon."). A
                sentence that fits no template is kept as free text, and the receipt says so.
            relation: Relation id ("P36"), label ("capital"), or any new name.
            object: The object.
            valid_from: When it begins to hold (aware datetime).
            valid_to: When it ceases to hold, exclusive.
            source: Where it comes from, kept for audit.
            namespace: The tenant, if not the editor's.

        Raises:
            InvalidFact: A name is empty, too long or holds control characters; or the times are reversed.
            UnknownRelation: `relation` looks like a Wikidata id and the catalogue does not have it.
        """
        if (relation is None) != (object is None):
            raise InvalidFact(
                "A triple needs both a relation and an object.",
                'Call add_fact("France", "capital", "Lyon") or add_fact("The capital of France is Lyon.").',
            )
        fact = FactInput(
            subject=subject_or_statement if relation is not None else None,
            relation=relation,
            object=object,
            statement=subject_or_statement if relation is None else None,
            valid_from=valid_from,
            valid_to=valid_to,
            source=source,
        )
        return self.memory.assert_fact(fact, namespace=namespace or self.namespace)

    def add_facts(self, facts: Iterable[FactLike], *, namespace: str | None = None) -> list[Receipt]:
        """Record many facts in one transaction: all of them, or none.

        Raises:
            BadRow: A fact is bad; the error names its 1-based row, and nothing was written.
        """
        return self.memory.assert_facts(fact_inputs(facts), namespace=namespace or self.namespace)

    def retract(self, fact: int | Fact | Receipt, *, namespace: str | None = None) -> Fact:
        """Stop believing a fact. It stays in the history.

        Raises:
            UnknownFact: This namespace has no such fact.
            AlreadyRetracted: It is no longer live.
        """
        fact_id = fact if isinstance(fact, int) else fact.fact.id if isinstance(fact, Receipt) else fact.id
        return self.memory.retract(fact_id, namespace=namespace or self.namespace)

    def undo(self, *, namespace: str | None = None) -> list[Fact]:
        """Take back the last write that was not yet undone; the facts it touched, as they are now.

        Raises:
            NothingToUndo: No write is left.
        """
        return self.memory.undo(namespace=namespace or self.namespace)

    def facts(
        self,
        *,
        subject: str | None = None,
        relation: str | None = None,
        text: str | None = None,
        as_of: datetime | None = None,
        limit: int | None = None,
        namespace: str | None = None,
    ) -> list[Fact]:
        """Live facts, oldest first.

        Args:
            subject: Only facts about this entity (aliases resolved).
            relation: Only facts of this relation (id or label).
            text: Only facts whose statement contains this, whatever the case.
            as_of: As they stood at this moment.
            limit: At most so many.
            namespace: The tenant, if not the editor's.
        """
        return self.memory.facts(
            subject=subject,
            relation=relation,
            text=text,
            as_of=as_of,
            limit=limit,
            namespace=namespace or self.namespace,
        )

    def history(
        self, subject: str | None = None, relation: str | None = None, *, namespace: str | None = None
    ) -> list[Fact]:
        """Everything ever recorded, oldest first: live, superseded, retracted and undone facts."""
        return self.memory.history(subject, relation, namespace=namespace or self.namespace)

    # -- questions -------------------------------------------------------------------------------------------

    def ask(
        self,
        question: str,
        *,
        strategy: str | Strategy | None = None,
        namespace: str | None = None,
        as_of: datetime | None = None,
    ) -> Answer:
        """Answer a question. With no edit in scope: what the base model says to the unchanged prompt, byte for byte.

        Args:
            question: The question, or a sentence to complete.
            strategy: Replaces the editor's strategy for this question.
            namespace: The tenant, if not the editor's.
            as_of: Answer from the facts as they stood at this moment.

        Raises:
            InvalidQuestion: It is empty or longer than 20,000 characters.
            ModelError: The base model failed.
        """
        return self.ask_many([question], strategy=strategy, namespace=namespace, as_of=as_of)[0]

    def ask_many(
        self,
        questions: Sequence[str],
        *,
        strategy: str | Strategy | None = None,
        namespace: str | None = None,
        as_of: datetime | None = None,
        progress: bool = False,
    ) -> list[Answer]:
        """Answer many questions side by side: each round is one batch for the model and one for the embedder.

        Args:
            questions: The questions; answers come in the same order.
            strategy: Replaces the editor's strategy.
            namespace: The tenant, if not the editor's.
            as_of: Answer from the facts as they stood at this moment.
            progress: Show a progress bar.

        Raises:
            InvalidQuestion: One is empty or too long.
            ModelError: The base model failed.
        """
        view = self.view(namespace=namespace, as_of=as_of)
        pairs = [(question, view) for question in questions]
        if not progress:
            return self.answer_views(pairs, strategy=strategy)
        from rich.progress import Progress

        with Progress(transient=True) as bar:
            task = bar.add_task("Answering", total=len(pairs))
            return self.answer_views(pairs, strategy=strategy, on_answer=lambda *_: bar.advance(task))

    def answer_views(
        self,
        questions: Sequence[tuple[str, MemoryView]],
        *,
        strategy: str | Strategy | None = None,
        on_answer: Callable[[int, Answer], None] | None = None,
    ) -> list[Answer]:
        """Like `ask_many`, each question over a view of its own; what benchmarks use.

        Args:
            questions: Pairs of a question and the view it is answered from.
            strategy: Replaces the editor's strategy.
            on_answer: Called with (place, answer) as each is finished.
        """
        chosen = self._strategy if strategy is None else self._load_strategy(strategy)
        jobs: list[Steps] = [chosen(_checked(question), view) for question, view in questions]
        views = [view for _, view in questions]
        if self._fallback is None:
            return self._run(jobs, views, on_answer)
        return self._fallback.answer(self._run(jobs, views), views, on_answer)

    def explain(self, question: str, *, namespace: str | None = None) -> Explanation:
        """What would be retrieved for a question, and why. The base model is not called.

        Raises:
            InvalidQuestion: It is empty or too long.
        """
        from memedit.explain import explain

        return explain(_checked(question), self.view(namespace=namespace), self.tools)

    # -- chat ------------------------------------------------------------------------------------------------

    @overload
    def chat(
        self, messages: Sequence[Message], *, stream: Literal[False] = False, namespace: str | None = None,
        sampling: Sampling | None = None,
    ) -> ChatReply: ...  # fmt: skip

    @overload
    def chat(
        self, messages: Sequence[Message], *, stream: Literal[True], namespace: str | None = None,
        sampling: Sampling | None = None,
    ) -> Iterator[str]: ...  # fmt: skip

    def chat(
        self,
        messages: Sequence[Message],
        *,
        stream: bool = False,
        namespace: str | None = None,
        sampling: Sampling | None = None,
    ) -> ChatReply | Iterator[str]:
        """Answer the last user turn in the base model's own words, with the edits in scope in its prompt.

        A follow-up ("And who is her husband?") is resolved against the turns before it; see `memedit.conversation`.

        Args:
            messages: The conversation; the last message is the user's.
            stream: Give the text in pieces as it is written, instead of a `ChatReply`.
            namespace: The tenant, if not the editor's.
            sampling: How the base model decodes; by default greedily, at most 256 tokens.

        Raises:
            InvalidQuestion: There is no user message at the end.
            ModelError: The base model failed.
        """
        from memedit.edited import check_conversation

        check_conversation(messages)
        sampling = sampling or Sampling(max_tokens=CHAT_TOKENS)
        edited = self.as_model(namespace=namespace)
        return edited.stream(messages, sampling) if stream else edited.reply(messages, sampling)

    def as_model(self, *, namespace: str | None = None) -> EditedModel:
        """The edited model: a `LanguageModel` for whatever takes one, with this editor's facts."""
        from memedit.edited import EditedModel
        from memedit.strategies.base import Resolver
        from memedit.strategies.walk import Walk

        resolver = self._strategy if isinstance(self._strategy, Resolver) else Walk()
        tools = self._tools_for(namespace or self.namespace)
        return EditedModel(tools.model(), resolver, tools, lambda: self.view(namespace=namespace))

    # -- parts -----------------------------------------------------------------------------------------------

    @property
    def strategy(self) -> Strategy:
        """How questions are answered where a call does not say."""
        return self._strategy

    @property
    def model(self) -> LanguageModel:
        """The base model, loaded when first needed."""
        with self._loading:
            if isinstance(self._model, str):
                self._model = load_model(self._model)
            return self._model

    @property
    def tools(self) -> Toolbox:
        """What serves the strategies: model, scope classifier, planner and path scorer."""
        with self._loading:
            if self._tools is None:
                self._tools = self._make_tools()
            return self._tools

    def _tools_for(self, namespace: str) -> Toolbox:
        """The tools, with a model that shares its prompts' cached beginnings with no other namespace."""
        return replace(self.tools, model=lambda: salted(self.model, namespace))

    def _run(
        self,
        jobs: Sequence[Steps],
        views: Sequence[MemoryView],
        on_answer: Callable[[int, Answer], None] | None = None,
    ) -> list[Answer]:
        """Run strategies side by side, those of each namespace by themselves."""
        from memedit.strategies.driver import answer_many

        answers: dict[int, Answer] = {}
        for namespace in dict.fromkeys(view.namespace for view in views):
            places = [place for place, view in enumerate(views) if view.namespace == namespace]

            def note(number: int, answer: Answer, places: list[int] = places) -> None:
                answers[places[number]] = answer
                if on_answer is not None:
                    on_answer(places[number], answer)

            answer_many([jobs[place] for place in places], self._tools_for(namespace), on_answer=note)
        return [answers[place] for place in range(len(jobs))]

    def _load_strategy(self, spec: str | Strategy) -> Strategy:
        if spec == "walk" and self._model_plans:
            from memedit.strategies.walk import Walk

            return Walk(plan_below=PLAN_BELOW)
        return load_strategy(spec)

    def _make_tools(self) -> Toolbox:
        from memedit.planner import default_planner
        from memedit.planner_gate import PlannerGate
        from memedit.scope import default_scope
        from memedit.strategies.driver import Toolbox

        planner, scorer = self._planner, self._scorer
        gate = PlannerGate() if planner is None else None
        if planner is None or scorer is None:
            own_planner, own_scorer = default_planner(self.memory.catalogue)
            planner, scorer = planner or own_planner, scorer or own_scorer
        scope = self._scope or default_scope(self.memory.embedder)
        return Toolbox(lambda: self.model, scope, planner, scorer, self._counterfactual, gate=gate)

    def view(self, *, namespace: str | None = None, as_of: datetime | None = None) -> MemoryView:
        """A reading of one namespace of the memory, now or at a past moment."""
        return self.memory.view(namespace=namespace or self.namespace, as_of=as_of)

    def close(self) -> None:
        """Close the memory, unless it was handed in open."""
        if self._owns_memory:
            self.memory.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def _checked(question: str) -> str:
    if not question.strip():
        raise InvalidQuestion("The question is empty.", "Ask something.")
    if len(question) > MAX_QUESTION_CHARACTERS:
        raise InvalidQuestion(
            f"The question has {len(question):,} characters; at most {MAX_QUESTION_CHARACTERS:,} are read.",
            "Put long texts into chat() instead.",
        )
    return question


def _make_fallback(model: str | LanguageModel, method: str | Editing | None) -> Fallback | None:
    if method is None:
        return None
    from memedit.parametric.fallback import Fallback

    return Fallback(model, method)
