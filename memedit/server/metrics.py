"""What is counted and timed, for Prometheus. No label holds a name, a namespace, or a word of any message."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from memedit.answer import Hop
from memedit.models.caching import CacheUsage

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


class Metrics:
    """The figures of one gateway."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = self._counter("memedit_requests", "Requests answered.", "route", "status")
        self._scope = self._counter("memedit_scope_decisions", "Completions by whether an edit was used.", "decision")
        self._hops = self._counter("memedit_hops", "Hops of resolved chains, by where they came from.", "source")
        self._carried = self._counter(
            "memedit_answers", "Answers in scope, by how they came to carry the edit.", "outcome"
        )
        self._writes = self._counter("memedit_writes", "Writes to the memory.", "action", "outcome")
        self._failures = self._counter("memedit_upstream_errors", "Failures of the upstream server.", "kind")
        self._cached = Gauge(
            "memedit_upstream_prefix_cache_hit_ratio",
            "Share of its prompts' tokens that vLLM found in its prefix cache since it started.",
            registry=self.registry,
        )
        self._seconds = Histogram(
            "memedit_stage_seconds", "Seconds a stage took.", ["stage"], buckets=_BUCKETS, registry=self.registry
        )

    def request(self, route: str, status: int) -> None:
        """Count a request; `route` is one of a few names, not a path."""
        self._requests.labels(route, str(status)).inc()

    def scope(self, decision: str, hops: Sequence[Hop] = ()) -> None:
        """Count a decision: ``in``, ``out``, or ``unread`` where there was no text to judge."""
        self._scope.labels(decision).inc()
        for hop in hops:
            self._hops.labels(hop.source).inc()

    def answer(self, outcome: str) -> None:
        """Count an answer in scope: ``carried``, ``asked_again``, ``given``, ``missed``, ``unchecked`` or ``streamed``."""
        self._carried.labels(outcome).inc()

    def write(self, action: str, outcome: str) -> None:
        """Count a write."""
        self._writes.labels(action, outcome).inc()

    def prefix_cache(self, usage: CacheUsage) -> None:
        """Note how much of its prompts the upstream server found in its prefix cache."""
        self._cached.set(usage.rate)

    def upstream_failed(self, kind: str) -> None:
        """Count a failure of the upstream server."""
        self._failures.labels(kind).inc()

    def took(self, stage: str, seconds: float) -> None:
        """Note how long a stage took: ``resolve``, ``upstream_headers``, ``upstream`` or ``memory``."""
        self._seconds.labels(stage).observe(seconds)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Time a block as a stage."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.took(stage, time.perf_counter() - began)

    def render(self) -> bytes:
        """Everything, in Prometheus's text format."""
        return generate_latest(self.registry)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, registry=self.registry)
