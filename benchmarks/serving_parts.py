"""The parts of the serving benchmark that compare a model server bare and behind a gateway, in one run.

Requests go to both in turn (bare, gateway, gateway, bare, ...), so that what else the machine does hits both alike; figures are
ratios, medians and differences of these. No prompt is sent twice, since a model server caches what it has seen.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Iterator, Sequence
from itertools import islice

from benchmarks.serving_load import Json, Load, Reply, fetch, run_load
from benchmarks.serving_prompts import chain_questions, outside, payload
from benchmarks.serving_setup import Server, Serving
from benchmarks.speed_setup import Figure, expect

LEAST_TOKENS_SHARE = 0.95
MOST_ADDED_WAIT = 30.0
MOST_TIME_RATIO = 1.3
LEAST_REQUESTS = 8
"""Requests of a block of one client."""


def outside_scope(serving: Serving, gate: Server) -> list[Figure]:
    """Tokens a second and added time to the first token of requests that no fact is about."""
    prompts = outside(serving.seed + 1, serving.bench.maker)
    model = serving.upstream.model()
    figures: list[Figure] = []

    def block(server: Server, clients: int) -> Load:
        count = max(LEAST_REQUESTS, clients * serving.per_client)
        bodies = [payload(prompt, serving.tokens, model=model) for prompt in islice(prompts, count)]
        return run_load(server.url, bodies, clients)

    block(serving.upstream, 1), block(gate, 1)
    for clients in serving.clients:
        bare: list[Load] = []
        through: list[Load] = []
        before, used = thinking(gate), gate.cpu_seconds()
        for place, server in enumerate(in_turn(serving.upstream, gate, serving.rounds)):
            serving.status(f"out of scope, {clients} clients", place, 2 * serving.rounds)
            (through if server is gate else bare).append(block(server, clients))
        seconds, count = (after - then for after, then in zip(thinking(gate), before, strict=True))
        costs = (1000 * seconds / max(1.0, count), 1000 * (gate.cpu_seconds() - used) / max(1.0, count))
        figures += _outside_figures(serving, clients, bare, through, costs)
    return figures


def single_hop(serving: Serving, gate: Server) -> list[Figure]:
    """The time of a request that a fact is about, to the same request bare."""
    model = serving.upstream.model()
    facts = serving.bench.inputs[:: max(1, serving.bench.facts // (2 * serving.samples + 2))]
    asked = [serving.bench.maker.question(fact) for fact in facts]
    figures: list[Figure] = []
    for kind, questions in (("streamed", asked[: serving.samples]), ("whole", asked[serving.samples : -2])):
        pairs: list[tuple[Reply, Reply]] = []
        for place, question in enumerate(questions):
            serving.status(f"in scope, one hop, {kind}", place, len(questions))
            body = payload(question, serving.tokens, stream=kind == "streamed", model=model)
            order = (serving.upstream, gate) if place % 2 else (gate, serving.upstream)
            replies = {server.url: _good(run_load(server.url, [body])) for server in order}
            pairs.append((replies[serving.upstream.url], replies[gate.url]))
        hit = [(bare, through) for bare, through in pairs if through.edits]
        ratio = statistics.median(through.seconds / bare.seconds for bare, through in hit)
        how = f"Seconds of a {kind} answer of {serving.tokens} tokens through the gateway over those of the same request bare, one client: "
        figures += [
            Figure(
                f"single_hop_time_ratio_{kind}",
                ratio,
                "×",
                how + "the median of the pairs in which the gateway used an edit.",
                MOST_TIME_RATIO,
                samples=len(hit),
            ),
            Figure(f"single_hop_in_scope_{kind}", len(hit) / len(pairs), "", "Share of these questions that the gateway used an edit for.", at_least=True, samples=len(pairs)),
        ]  # fmt: skip
        if kind == "whole":
            outcomes = [str((through.memedit or {}).get("answer")) for _, through in hit]
            serving.notes["whole_answers"] = {one: outcomes.count(one) for one in sorted(set(outcomes))}
    return figures


def multi_hop(serving: Serving, gate: Server) -> list[Figure]:
    """Calls of the model for a chain of hops, to the hops that no edit holds and one more."""
    model = serving.upstream.model()
    excess: list[int] = []
    told: list[Json] = []
    questions = chain_questions()
    for place, question in enumerate(questions):
        serving.status("in scope, several hops", place, len(questions))
        before = serving.upstream.answered()
        reply = _good(run_load(gate.url, [payload(question, serving.tokens, model=model)]))
        after = serving.upstream.answered()
        expect(before is not None and after is not None, "the model server does not count its requests")
        assert before is not None
        assert after is not None
        hops = (reply.memedit or {}).get("hops")
        sources = [str(hop["source"]) for hop in hops] if isinstance(hops, list) else []
        calls, allowed = after - before, sources.count("belief") + 1
        told.append({"question": question, "edits": len(reply.edits), "hops": sources, "calls": calls})
        if reply.edits:
            excess.append(calls - allowed)
    serving.notes["multi_hop"] = told
    how = "Requests that the model server answered for one question, less the hops that no edit holds, less one: "
    return [
        Figure("multi_hop_calls_over", max(excess, default=0), "calls", how + "the most of any question.", 0, samples=len(excess)),
        Figure("multi_hop_in_scope", len(excess) / len(questions), "", "Share of these questions that an edit was used for.", at_least=True, samples=len(questions)),
    ]  # fmt: skip


def carried(serving: Serving, gate: Server) -> list[Figure]:
    """The share of streamed answers that fail to carry the edit; they are not held back to be checked."""
    from memedit.memory.memory import EditMemory
    from memedit.server.answers import carries

    model = serving.upstream.model()
    facts = serving.bench.inputs[1 :: max(1, serving.bench.facts // serving.samples)][: serving.samples]
    names = EditMemory().view()
    hit, missed = 0, []
    for place, fact in enumerate(facts):
        serving.status("streamed answers", place, len(facts))
        question = serving.bench.maker.question(fact)
        reply = _good(run_load(gate.url, [payload(question, serving.tokens, model=model, whole=False)]))
        if reply.edits:
            hit += 1
            if not carries(reply.text, fact.object or "", names):
                missed.append({"question": question, "edit": fact.object, "answer": reply.text})
    serving.notes["missed"] = missed[:10]
    how = f"Streamed answers of at most {serving.tokens} tokens that do not name the edit's object, of those an edit was used for."
    return [Figure("streamed_answers_missing_the_edit", len(missed) / max(1, hit), "", how, samples=hit)]


def in_turn(bare: Server, gate: Server, rounds: int) -> Iterator[Server]:
    """Bare, gateway, gateway, bare, ...: each so many times, neither always first."""
    for place in range(rounds):
        yield from (bare, gate) if place % 2 == 0 else (gate, bare)


def thinking(gate: Server) -> tuple[float, float]:
    """Seconds that a gateway has spent on telling scope, and requests that it told it for, as its metrics say."""
    text = fetch(gate.url, "GET", "/metrics").body.decode()
    found = [
        re.search(rf'^memedit_stage_seconds_{end}{{stage="resolve"}} (\S+)$', text, re.MULTILINE)
        for end in ("sum", "count")
    ]
    seconds, count = (float(one[1]) if one else 0.0 for one in found)
    return seconds, count


def _outside_figures(
    serving: Serving, clients: int, bare: Sequence[Load], through: Sequence[Load], costs: tuple[float, float]
) -> list[Figure]:
    ratio = _rate(through) / _rate(bare)
    waits = [
        sorted(1000 * reply.wait for one in loads for reply in one.replies if reply.ok) for loads in (bare, through)
    ]
    expect(all(waits), "no request was answered")
    failed = sum(one.failed for one in (*bare, *through))
    wrong = sum(bool(reply.edits) for one in through for reply in one.replies)
    count = sum(len(one.replies) for one in through)
    of = f"{clients} clients, {serving.tokens} tokens an answer, {serving.rounds} blocks each in turn: "
    added = [_at(waits[1], share) - _at(waits[0], share) for share in (0.5, 0.99)]
    return [
        Figure(f"outside_tokens_ratio_{clients}", ratio, "×", f"Output tokens a second through the gateway over bare, {of}{_rate(bare):.1f} bare.", LEAST_TOKENS_SHARE, at_least=True, samples=count),
        Figure(f"bare_tokens_per_second_{clients}", _rate(bare), "tokens/s", f"Output tokens a second of the model server alone, {of[:-2]}.", at_least=True, samples=count),
        Figure(f"outside_added_wait_{clients}", added[0], "ms", f"Median time to the first token less that bare ({_at(waits[0], 0.5):.0f} ms), {of[:-2]}.", MOST_ADDED_WAIT, p99=added[1], samples=count),
        Figure(f"outside_resolve_{clients}", costs[0], "ms", f"Mean time that the gateway took to tell that no edit is in scope, {of[:-2]}.", samples=count),
        Figure(f"outside_cpu_{clients}", costs[1], "ms", f"Processor time of the gateway for a request, on all cores, {of[:-2]}.", samples=count),
        Figure(f"outside_failed_{clients}", failed, "answers", f"Answers with an error, bare or not, {of[:-2]}.", 0, samples=2 * count),
        Figure(f"outside_wrongly_in_scope_{clients}", wrong / count, "", "Share of these requests that an edit was used for.", samples=count),
    ]  # fmt: skip


def _rate(loads: Sequence[Load]) -> float:
    tokens = sum(reply.tokens for one in loads for reply in one.replies if reply.ok)
    return tokens / sum(one.seconds for one in loads)


def _at(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def _good(one: Load) -> Reply:
    [reply] = one.replies
    expect(reply.ok, f"a request failed with {reply.status} {reply.error}: {reply.body[:500]!r}")
    return reply
