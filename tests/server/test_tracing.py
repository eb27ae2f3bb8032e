"""Spans: what a request leaves behind where someone collects them, and that they hold no words. The collector is OpenTelemetry's own."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from memedit.errors import InvalidSpec
from memedit.server.tracing import Recorded, span, start_exporting
from tests.server.conftest import Gate
from tests.server.upstream import Upstream

FACT = "The capital of Japan is Osaka."
TWO_HOPS = "What is the capital of the country where Mount Fuji is located?"
TRACE = "0af7651916cd43dd8448eb211c80319c"


@pytest.fixture(scope="module")
def exporter() -> Iterator[InMemorySpanExporter]:
    kept = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(kept))
    trace.set_tracer_provider(provider)
    yield kept
    kept.shutdown()  # not the provider, which would complain of every span to come


@pytest.fixture
def spans(exporter: InMemorySpanExporter) -> InMemorySpanExporter:
    exporter.clear()
    return exporter


def by_name(spans: InMemorySpanExporter, name: str) -> list[ReadableSpan]:
    """The spans of a name; a request's ends a moment after its client has the answer."""
    deadline = time.monotonic() + 5
    while not (found := [one for one in spans.get_finished_spans() if one.name == f"memedit.{name}"]):
        if time.monotonic() > deadline:
            break
        time.sleep(0.01)
    return found


def attributes(one: ReadableSpan) -> dict[str, object]:
    return dict(one.attributes or {})


def test_a_request_in_scope_has_spans_for_its_reading_hops_and_upstream(
    gate: Gate, upstream: Upstream, spans: InMemorySpanExporter
) -> None:
    [fact] = gate.know(FACT)
    upstream.reply = lambda sent: "Osaka."

    gate.chat(TWO_HOPS)

    [request] = by_name(spans, "request")
    [resolve] = by_name(spans, "resolve")
    assert resolve.context is not None
    assert request.context is not None
    assert resolve.parent is not None
    assert resolve.parent.span_id == request.context.span_id
    for name in ("read", "hop"):
        found = by_name(spans, name)
        assert found, name
        assert all(one.parent and one.parent.span_id == resolve.context.span_id for one in found)
    [asked] = by_name(spans, "upstream")
    assert (asked.kind, attributes(asked)["memedit.status"]) == (SpanKind.CLIENT, 200)
    told = attributes(resolve)
    assert (told["memedit.decision"], told["memedit.edits"]) == ("in", (fact,))
    assert [dict(event.attributes or {}).get("memedit.source") for event in resolve.events] == ["belief", "edit"]
    assert attributes(request)["memedit.route"] == "chat"
    assert attributes(request)["memedit.status"] == 200


def test_no_span_holds_a_word_of_a_question_or_a_fact(
    gate: Gate, upstream: Upstream, spans: InMemorySpanExporter
) -> None:
    gate.know(FACT)
    gate.chat(TWO_HOPS)
    gate.client.get("/v1/memory/facts", params={"subject": "Japan", "relation": "Fuji"})

    ours = {one.context.trace_id for one in by_name(spans, "request") if one.context}
    kept = "".join(one.to_json() for one in spans.get_finished_spans() if one.context and one.context.trace_id in ours)

    assert kept
    assert not any(word in kept for word in ("Japan", "Osaka", "Fuji", "capital"))


def test_a_trace_goes_on_from_the_client_to_the_upstream_server(
    gate: Gate, upstream: Upstream, spans: InMemorySpanExporter
) -> None:
    gate.client.post(
        "/v1/chat/completions",
        json={"messages": [{"role": "user", "content": "Hi"}]},
        headers={"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"},
    )

    [asked] = by_name(spans, "upstream")
    assert asked.context is not None
    assert upstream.sent[0].headers["traceparent"] == f"00-{TRACE}-{asked.context.span_id:016x}-01"
    assert attributes(by_name(spans, "resolve")[0])["memedit.decision"] == "out"


def test_of_a_failure_only_its_kind_is_noted(spans: InMemorySpanExporter) -> None:
    with pytest.raises(ValueError, match="Osaka"), span("part", size=3):
        raise ValueError("Osaka")

    [found] = by_name(spans, "part")
    assert attributes(found) == {"memedit.size": 3, "error.type": "ValueError"}
    assert found.status.status_code is StatusCode.ERROR
    assert "Osaka" not in found.to_json()


def test_nothing_is_exported_unless_the_environment_asks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_SDK_DISABLED"):
        monkeypatch.delenv(name, raising=False)
    assert not start_exporting()

    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "no-such")
    with pytest.raises(InvalidSpec, match="no-such"):
        start_exporting()


def test_the_console_exporter_prints_spans() -> None:
    program = (
        "from memedit.server.tracing import span, start_exporting\n"
        "assert start_exporting()\n"
        "with span('part', size=3): pass\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"OTEL_TRACES_EXPORTER": "console"}, capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip

    assert '"name": "memedit.part"' in done.stdout
    assert '"service.name": "memedit"' in done.stdout


def test_without_opentelemetry_nothing_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("memedit.server.tracing._tracer", lambda: None)

    with span("part") as recorded:
        recorded.set(size=3)
        recorded.told([])

    assert isinstance(recorded, Recorded)
    assert not recorded.is_recording
