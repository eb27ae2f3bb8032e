"""The parts of the serving benchmark about what must never go wrong: a mix of questions and writes, and failing servers.

They run against a scripted model server, which repeats its prompt: so what the gateway put there is seen exactly, and ten
thousand requests take minutes.
"""

from __future__ import annotations

import asyncio
import random
import signal
import statistics
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

from benchmarks.serving_load import CHAT, Client, Json, Reply, each, fetch
from benchmarks.serving_prompts import chats, payload
from benchmarks.serving_setup import Server, Serving, await_ready, write_fact
from benchmarks.speed_setup import Figure, expect, timed

READERS, WRITERS = 16, 2
SLOTS = 100
"""Facts that are live at a time."""
MOST_GROWTH = 5.0
"""Per cent that the gateway's resident size may grow over the second half of the mix."""
DEADLINE = 2.0
"""Seconds that the gateway waits for a slow model server in the part about it."""
_PLACES = ("Alder", "Birch", "Cedar", "Dogwood", "Elder", "Fir", "Ginkgo", "Hazel", "Ivy", "Juniper")
_KINDS = ("ville", "stad", "grad", "ford", "mouth", "burg", "haven", "field", "bridge", "minster")


@dataclass
class Ledger:
    """What was written and acknowledged, and when.

    Attributes:
        live: By id, subject and object of every fact whose assertion was acknowledged and that was not told to end.
        ended: By id, when its end was acknowledged.
        ending: Ids of facts whose end has been asked for, acknowledged or not.
    """

    live: dict[int, tuple[str, str]] = field(default_factory=dict)
    ended: dict[int, float] = field(default_factory=dict)
    ending: set[int] = field(default_factory=set)

    def stale(self, reply: Reply) -> list[int]:
        """The facts that an answer used, though their end had been acknowledged before it was asked for."""
        return [one for one in reply.edits if self.ended.get(one, reply.sent) < reply.sent]


def mix(serving: Serving) -> list[Figure]:
    """Requests mixed with writes, and at the end a gateway killed under writes."""
    ledger = Ledger()
    memory = serving.copy("mix")
    with serving.scripted() as upstream:
        with serving.gateway(memory, upstream.url) as gate:
            figures = asyncio.run(_mix(serving, gate, ledger))
            figures.append(_lost("mix_lost_writes", gate, ledger, "after the mix"))
            asyncio.run(_kill_under_writes(gate, ledger))
        with serving.gateway(memory, upstream.url) as gate:
            figures.append(
                _lost("killed_gateway_lost_writes", gate, ledger, "after SIGKILL under writes and a new start")
            )
    return figures


def broken_upstream(serving: Serving) -> list[Figure]:
    """A model server that is killed in the middle of a stream, stays away, comes back; and one that is too slow."""
    memory = serving.scratch / "empty.db"
    with serving.scripted(pace=0.05) as upstream, serving.gateway(memory, upstream.url) as gate:
        assert upstream.process is not None
        port = int(upstream.url.rpartition(":")[2])
        broken, ended = asyncio.run(_kill_mid_stream(gate, upstream))
        away = fetch(gate.url, "POST", CHAT, payload("Who is there?", 4))
        with serving.scripted(pace=0.05, port=port) as again:
            await_ready(again, "/v1/models")
            began = time.perf_counter()
            while not fetch(gate.url, "POST", CHAT, payload("Who is there?", 4)).ok:
                time.sleep(0.02)
                expect(time.perf_counter() - began < 60, "the gateway did not recover")
            recovered = time.perf_counter() - began
    serving.gateway_options = (*serving.gateway_options, "--timeout", str(DEADLINE))
    with serving.scripted(delay=10 * DEADLINE) as upstream, serving.gateway(memory, upstream.url) as gate:
        late = fetch(gate.url, "POST", CHAT, payload("Who is there?", 4, stream=False))
    serving.gateway_options = serving.gateway_options[:-2]
    shaped = [bool(broken.error) and "Incomplete" not in broken.error, _is_shaped(away), _is_shaped(late)]
    serving.notes["broken_upstream"] = {"mid_stream": broken.error, "away": away.status, "late": late.status}
    return [
        Figure("broken_upstream_unshaped", shaped.count(False), "answers", "Answers not in OpenAI's error shape, of one broken off in its stream, one with no server there, one too late.", 0, samples=3),
        timed("killed_upstream_told_after", "ms", [ended], "From SIGKILL of the model server to the end of the stream, an error event in it."),
        timed("away_upstream_told_after", "ms", [away.seconds], "A request while no model server is there, until its error.", 1000 * DEADLINE),
        timed("slow_upstream_told_after", "s", [late.seconds], f"A request to a model server that takes {10 * DEADLINE:g} s, with --timeout {DEADLINE:g}.", 1.5 * DEADLINE),
        timed("upstream_back_answered_after", "ms", [recovered], "From the model server's first answer after its new start to the gateway's first."),
    ]  # fmt: skip


async def _mix(serving: Serving, gate: Server, ledger: Ledger) -> list[Figure]:
    chance = random.Random(serving.seed)
    talk = chats(serving.seed + 5)
    replies: list[Reply] = []
    stale: list[int] = []
    failed: list[str] = []
    sizes: list[float] = []
    seconds: list[float] = []
    missing = 0

    async def read(client: Client) -> None:
        nonlocal missing
        while len(replies) < serving.requests:
            known = chance.choice(list(ledger.live.items())) if ledger.live and chance.random() < 0.3 else None
            prompt = f"What is the capital of {known[1][0]}?" if known else next(talk)
            reply = await client.send("POST", CHAT, payload(prompt, 8, stream=chance.random() < 0.5))
            replies.append(reply)
            if not reply.ok:
                failed.append(f"{reply.status} {reply.error} {reply.body[:200]!r}")
            stale.extend(ledger.stale(reply))
            if known and known[0] in ledger.live and known[0] not in ledger.ending:
                missing += known[0] not in reply.edits
            if len(replies) % max(1, serving.requests // 200) == 0:
                sizes.append(gate.rss_mib())
                serving.status("questions mixed with writes", len(replies), serving.requests)

    async def write(client: Client) -> None:
        for subject, obj in _pairs(serving.writes, next(numbers)):
            while len(replies) * serving.writes < serving.requests * (len(seconds) - 1):
                await asyncio.sleep(0.005)  # the writes keep step with the questions
            reply = await _write(client, ledger, subject, obj, chance)
            seconds.append(reply.seconds)
            if not reply.ok:
                failed.append(f"{reply.status} {reply.error} {reply.body[:200]!r}")

    numbers = iter(range(WRITERS))
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(each(gate.url, READERS, read))
        tasks.create_task(each(gate.url, WRITERS, write))
    expect(len(seconds) == serving.writes, f"{len(seconds)} writes were made, not {serving.writes}")
    half = sizes[len(sizes) // 2 :]
    quarter = max(1, len(half) // 2)
    growth = 100 * (statistics.median(half[-quarter:]) / statistics.median(half[:quarter]) - 1)
    serving.notes["mix"] = {
        "failed": failed[:5],
        "rss_mib": [round(size, 1) for size in sizes[:: max(1, len(sizes) // 20)]],
    }
    of = f"{serving.requests:,} requests of {READERS} clients mixed with {serving.writes:,} writes of {WRITERS}, a scripted model: "
    asked = sum(bool(reply.edits) for reply in replies)
    return [
        Figure("mix_failed", len(failed), "answers", of + "answers with an error, reads and writes.", 0, samples=len(replies) + len(seconds)),
        Figure("mix_stale_answers", len(stale), "answers", of + "answers that used a fact whose retraction or supersession was acknowledged before they were asked for.", 0, samples=asked),
        Figure("mix_missing_answers", missing, "answers", of + "questions about a live, acknowledged fact whose answer did not use it.", 0, samples=asked + missing),
        Figure("mix_memory_growth", growth, "%", of + "resident size of the gateway, the last quarter over the third.", MOST_GROWTH),
        timed("mix_write", "ms", seconds, of + "one write, acknowledged."),
        timed("mix_request", "ms", [reply.seconds for reply in replies], of + "one request."),
    ]  # fmt: skip


def _pairs(writes: int, writer: int) -> Iterator[tuple[str, str]]:
    """Subjects and objects for one writer: slots of its own, each filled again and again."""
    own = SLOTS // WRITERS
    for number in range(writes // WRITERS + (writer < writes % WRITERS)):
        place = writer * own + number % own
        subject = f"{_PLACES[place // 10]}{_KINDS[place % 10]}ia"
        yield subject, f"{_PLACES[number // own % 10]}{_KINDS[number // own // 10 % 10]} {number}"


async def _write(client: Client, ledger: Ledger, subject: str, obj: str, chance: random.Random) -> Reply:
    """Retract the fact of a slot in one case of four, if there is one; else put another in its place."""
    held = next((one for one, (name, _) in ledger.live.items() if name == subject), None)
    if held is not None:
        ledger.ending.add(held)
    if held is not None and chance.random() < 0.25:
        reply = await client.send("DELETE", f"/v1/memory/facts/{held}")
    else:
        reply = await write_fact(client, subject, "P36", obj)
    if reply.ok:
        if held is not None:
            del ledger.live[held]
            ledger.ended[held] = reply.ended
        fact = reply.json.get("fact")
        if isinstance(fact, dict):
            ledger.live[int(fact["id"])] = (subject, obj)
    return reply


async def _kill_under_writes(gate: Server, ledger: Ledger) -> None:
    """Kill a gateway while facts are written to it; what it acknowledged is in the ledger."""
    chance = random.Random(1)

    async def write(client: Client) -> None:
        number = next(numbers)
        for place in range(10_000):
            reply = await _write(client, ledger, f"Killington {number} {place}", f"Newtown {place}", chance)
            if not reply.ok:
                return

    async def kill() -> None:
        await asyncio.sleep(1.0)
        assert gate.process is not None
        gate.process.send_signal(signal.SIGKILL)

    numbers = iter(range(4))
    await asyncio.gather(each(gate.url, 4, write), kill())


async def _kill_mid_stream(gate: Server, upstream: Server) -> tuple[Reply, float]:
    """Kill the model server while it streams an answer; the answer, and the seconds from there to its end."""
    client = Client(gate.url, timeout=60)
    asking = asyncio.create_task(client.send("POST", CHAT, payload("Tell me everything about trains.", 200)))
    await asyncio.sleep(1.0)
    assert upstream.process is not None
    killed = time.perf_counter()
    upstream.process.send_signal(signal.SIGKILL)
    reply = await asking
    await client.close()
    return reply, reply.ended - killed


def _lost(name: str, gate: Server, ledger: Ledger, when: str) -> Figure:
    """Acknowledged writes that the memory does not show: live facts that are missing, ended ones that are live."""

    async def count() -> int:
        client, wrong = Client(gate.url), 0
        for number in [*ledger.live, *ledger.ended]:
            fact: Json = (await client.send("GET", f"/v1/memory/facts/{number}")).json
            is_live = fact.get("retracted_at") is None and "id" in fact
            doubtful = number in ledger.live and number in ledger.ending  # its end was asked for and not acknowledged
            wrong += not doubtful and is_live != (number in ledger.live)
        await client.close()
        return wrong

    how = f"Acknowledged assertions, supersessions and retractions that do not stand {when}."
    return Figure(name, asyncio.run(count()), "facts", how, 0, samples=len(ledger.live) + len(ledger.ended))


def _is_shaped(reply: Reply) -> bool:
    """Whether an answer is an error as OpenAI's API has them."""
    error = reply.json.get("error")
    return reply.status >= 400 and isinstance(error, dict) and {"message", "type", "code"} <= error.keys()
