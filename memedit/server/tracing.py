"""OpenTelemetry spans: a request, and in it what was decided, planned, walked and asked of the upstream server.

Needs the extra ``otel``; without it, or where nobody has set a tracer provider, nothing is recorded and nothing costs. A span holds
ids, counts and relation ids, never a name or a word of a message. Knows nothing of HTTP servers or of strategies beyond the
requests that they make.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, TypeVar

from memedit import __version__
from memedit.errors import InvalidSpec, MissingExtra
from memedit.strategies.base import (
    Complete,
    Embed,
    MakePlans,
    Measure,
    Nearest,
    Rate,
    Read,
    Request,
    Resolution,
    Retrieve,
    ScorePaths,
    Step,
)

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, SpanKind, Tracer

_T = TypeVar("_T")
Value = str | int | float | bool | Sequence[int] | Sequence[str]

_STAGES: Mapping[type[Request], str] = {
    Retrieve: "scope",
    Nearest: "scope",
    Embed: "scope",
    MakePlans: "plan",
    Read: "read",
    ScorePaths: "plan",
    Complete: "hop",
    Rate: "hop",
    Measure: "hop",
}
"""What a resolver does while it waits: an edit's scope is judged, chains are planned and weighed, a hop is asked of the model."""


class Recorded:
    """A span that is open, or none where nothing is recorded."""

    def __init__(self, span: Span | None = None) -> None:
        self._span = span

    @property
    def is_recording(self) -> bool:
        """Whether anyone will see it."""
        return self._span is not None and self._span.is_recording()

    def set(self, **attributes: Value | None) -> None:
        """Set attributes, each under ``memedit.`` and its name; those that are None are left out."""
        if self._span is not None:
            for name, value in attributes.items():
                if value is not None:
                    self._span.set_attribute(f"memedit.{name}", value)

    def told(self, found: Sequence[Resolution]) -> None:
        """Note what was resolved: the decision, the edits' ids, and an event for every hop."""
        if self._span is None or not self.is_recording:
            return
        facts = [fact.id for one in found for fact in one.facts]
        self.set(decision="in" if facts else "out", edits=facts, completed=any(one.question for one in found))
        for hop in (hop for one in found for hop in one.hops):
            known = {"memedit.relation": hop.relation, "memedit.source": hop.source}
            self._span.add_event("hop", known if hop.edit_id is None else {**known, "memedit.edit": hop.edit_id})


@contextmanager
def span(name: str, **attributes: Value | None) -> Iterator[Recorded]:
    """Record a block as a span named ``memedit.`` and `name`, inside the one that is open."""
    tracer = _tracer()
    if tracer is None:
        yield Recorded()
        return
    with _opened(tracer, name) as recorded:
        recorded.set(**attributes)
        yield recorded


@contextmanager
def request_span(headers: Sequence[tuple[bytes, bytes]]) -> Iterator[Recorded]:
    """Record a block as the span of a request, inside that of the client where its headers name one."""
    tracer = _tracer()
    if tracer is None:
        yield Recorded()
        return
    from opentelemetry import propagate
    from opentelemetry.trace import SpanKind, get_current_span

    context = None
    if not get_current_span().get_span_context().is_valid:  # else whoever serves us has opened the client's already
        context = propagate.extract(
            {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in headers}
        )
    with _opened(tracer, "request", context, SpanKind.SERVER) as recorded:
        yield recorded


@contextmanager
def upstream_span(method: str, headers: list[tuple[bytes, bytes]]) -> Iterator[Recorded]:
    """Record a block as the span of a request to the upstream server, which is told of it in `headers`."""
    tracer = _tracer()
    if tracer is None:
        yield Recorded()
        return
    from opentelemetry import propagate
    from opentelemetry.trace import SpanKind

    with _opened(tracer, "upstream", kind=SpanKind.CLIENT) as recorded:
        carrier: dict[str, str] = {}
        if recorded.is_recording:
            propagate.inject(carrier)
        kept = [(name, value) for name, value in headers if name.decode("latin-1").lower() not in carrier]
        headers[:] = [*kept, *((name.encode("latin-1"), value.encode("latin-1")) for name, value in carrier.items())]
        recorded.set(method=method)
        yield recorded


def traced(steps: Step[_T]) -> Step[_T]:
    """A resolver with a span for each of its waits: ``memedit.scope``, ``memedit.plan`` and ``memedit.hop``."""
    tracer = _tracer()
    if tracer is None:
        return steps
    from opentelemetry import context

    return _traced(steps, tracer, context.get_current())


def start_exporting() -> bool:
    """Export spans as the environment says (``OTEL_TRACES_EXPORTER``, ``OTEL_EXPORTER_OTLP_ENDPOINT``); whether it asks for it.

    Raises:
        MissingExtra: It asks for it, and OpenTelemetry is not installed.
        InvalidSpec: The exporter that it names is not installed.
    """
    name = os.environ.get("OTEL_TRACES_EXPORTER", "otlp" if "OTEL_EXPORTER_OTLP_ENDPOINT" in os.environ else "none")
    if name == "none" or os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return False
    try:
        from opentelemetry import trace
        from opentelemetry.sdk.resources import SERVICE_NAME, Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError as error:
        raise MissingExtra("opentelemetry-sdk", "otel") from error
    names = (name, "otlp_proto_http", "otlp_proto_grpc") if name == "otlp" else (name,)
    found = [one for wanted in names for one in entry_points(group="opentelemetry_traces_exporter", name=wanted)]
    if not found:
        raise InvalidSpec(
            f"There is no exporter {name!r} for OpenTelemetry.",
            "Install its package, e.g. opentelemetry-exporter-otlp, or set OTEL_TRACES_EXPORTER=none.",
        )
    service = os.environ.get("OTEL_SERVICE_NAME", "memedit")
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: service}))
    provider.add_span_processor(BatchSpanProcessor(found[0].load()()))
    trace.set_tracer_provider(provider)
    return True


@contextmanager
def _opened(
    tracer: Tracer, name: str, context: Context | None = None, kind: SpanKind | None = None
) -> Iterator[Recorded]:
    """A span around a block; of an exception only its kind is noted, for what it says may quote a fact."""
    from opentelemetry.trace import SpanKind, Status, StatusCode

    with tracer.start_as_current_span(
        f"memedit.{name}", context, kind or SpanKind.INTERNAL, record_exception=False, set_status_on_exception=False
    ) as opened:
        try:
            yield Recorded(opened)
        except BaseException as error:
            opened.set_attribute("error.type", type(error).__name__)
            opened.set_status(Status(StatusCode.ERROR))
            raise


def _traced(steps: Step[_T], tracer: Tracer, context: Context) -> Step[_T]:
    result: object = None
    while True:
        try:
            request = steps.send(result)
        except StopIteration as end:
            found: _T = end.value
            return found
        opened = tracer.start_span(f"memedit.{_STAGES.get(type(request), 'wait')}", context)
        opened.set_attribute("memedit.asked", type(request).__name__)
        try:
            result = yield request
        finally:
            opened.end()


@lru_cache(maxsize=1)
def _tracer() -> Tracer | None:
    """The tracer, where OpenTelemetry is installed; it records once a provider is set."""
    try:
        from opentelemetry import trace
    except ModuleNotFoundError:
        return None
    return trace.get_tracer("memedit", __version__)
