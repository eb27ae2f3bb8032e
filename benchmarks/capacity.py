"""How much memory, how many cores and how many model servers for so many facts and so many questions a second.

    python -m benchmarks.capacity measure --json constants.json                    what a question costs on this machine
    python -m benchmarks.capacity plan --constants constants.json [--scale scale.json] [--serving serving.json]
                                       [--facts 1000,1000000] [--questions 1,10,100] [--json OUT] [--markdown]

What is known comes from measurements: the gateway's cost of a question by how many come together from ``measure``, memory by the number of
facts from `benchmarks.scale`, the model server's tokens a second by the number of clients from `benchmarks.serving`. What
lies beyond is worked out from these by `benchmarks.capacity_model`, and is said to be.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.capacity_model import Curve, Line, Need, Work, needed
from memedit.errors import BadDataFile
from memedit.evaluation.environment import environment
from memedit.evaluation.report import Table, number, read_result
from memedit.evaluation.terminal import exit_code, show

if TYPE_CHECKING:
    from memedit.memory.memory import MemoryView
    from memedit.strategies.driver import Toolbox

BENCHMARK = "capacity"
CONSTANTS = "capacity-constants"
BATCHES = (1, 2, 4, 8)
REPEATS = 8
GIB = 2**30


def measure(seed: int = 0, facts: int = 200) -> dict[str, object]:
    """Processor seconds that telling scope takes, by how many questions come together; and that relaying an answer takes.

    Args:
        seed: Of facts and questions.
        facts: Facts in memory. How the search grows with them is measured by `benchmarks.scale`.
    """
    from benchmarks.generated import FactMaker
    from benchmarks.serving_prompts import outside
    from memedit.editor import MemEditor
    from memedit.memory.memory import EditMemory
    from memedit.models.openai import OpenAIModel

    maker = FactMaker(seed=seed)
    with EditMemory() as memory:
        memory.assert_facts(maker.facts(facts))
        nowhere = OpenAIModel("http://127.0.0.1:9/v1")  # questions that would need it are not asked
        editor = MemEditor(nowhere, memory, model_plans=False, counterfactual="base")
        view, tools = memory.view(), editor.tools
        prompts = outside(seed + 1, maker)
        think_together([next(prompts) for _ in range(max(BATCHES))], view, tools)
        thinking = {}
        for size in BATCHES:
            texts = [[next(prompts) for _ in range(size)] for _ in range(REPEATS)]
            thinking[str(size)] = statistics.median(think_together(batch, view, tools) for batch in texts)
    return {"thinking": thinking, **relaying(), "facts": facts, "seed": seed}


def think_together(texts: Sequence[str], view: MemoryView, tools: Toolbox) -> float:
    """Processor seconds of this process until it is known of every text which edits are in scope."""
    from memedit.strategies.base import Complete, Measure, Rate
    from memedit.strategies.walk import Walk

    began = time.process_time()
    waiting = [(steps, next(steps)) for steps in (Walk().resolve(text, view) for text in texts)]
    while waiting:
        waiting = [(steps, asked) for steps, asked in waiting if not isinstance(asked, Complete | Rate | Measure)]
        results = tools.serve([asked for _, asked in waiting])
        following = []
        for (steps, _), result in zip(waiting, results, strict=True):
            with suppress(StopIteration):
                following.append((steps, steps.send(result)))
        waiting = following
    return time.process_time() - began


def relaying(short: int = 8, long: int = 256, requests: int = 60) -> dict[str, float]:
    """Processor seconds of a gateway for passing on a request, and for each token of its streamed answer; its size in bytes.

    It has no facts, and has loaded all that it needs. The requests give their prompts as token ids, which no edit can be in scope of, so that nothing is thought about.
    """
    import tempfile

    from benchmarks.serving_load import run_load
    from benchmarks.serving_setup import started

    used = {}
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        scripted = [sys.executable, "-m", "benchmarks.serving_upstream"]
        with started(scripted, "/v1/models", scratch) as upstream:
            gateway = [sys.executable, "-m", "memedit.cli", "--memory", str(scratch / "empty.db"), "serve"]
            with started([*gateway, "--upstream", upstream.url, "--open", "--rate", "0"], "/readyz", scratch) as gate:
                for tokens in (short, short, long):
                    body: dict[str, object] = {"prompt": [1, 2, 3], "max_tokens": tokens, "stream": True}
                    before = gate.cpu_seconds()
                    load = run_load(gate.url, [body] * requests, 4, path="/v1/completions")
                    assert not load.failed, [reply.error for reply in load.replies if not reply.ok][:1]
                    used[tokens] = (gate.cpu_seconds() - before) / requests
                resident = gate.rss_mib() * 2**20
    token = max(0.0, (used[long] - used[short]) / (long - short))
    request = max(0.0, used[short] - short * token)
    return {"relay_request": request, "relay_token": token, "gateway_resident": resident}


def plan(known: Known, facts: Sequence[int], rates: Sequence[float]) -> dict[str, object]:
    """What each number of facts and each load needs.

    Args:
        known: What was measured.
        facts: Numbers of facts.
        rates: Questions a second.
    """
    sizes = {
        str(count): {
            "resident_gib": known.resident(count) / GIB,
            "disk_gib": known.disk(count) * count / GIB,
            "open_seconds": known.opening(count),
            "measured": count in known.sizes,
        }
        for count in facts
    }
    loads = {f"{rate:g}": as_json(needed(known.work, rate)) for rate in rates}
    return {"facts": sizes, "questions": loads, "work": as_json(known.work)}


class Known:
    """What measurements say.

    Args:
        constants: The result of ``measure``.
        scale: The result of `benchmarks.scale`.
        serving: The result of `benchmarks.serving`, or None where `rates` are given.
        rates: Tokens a second of a model server by how many answers it writes together, where they are not from `serving`.
        tokens: Output tokens of an answer.
        beliefs: Questions for beliefs, for each question.

    Attributes:
        sizes: Numbers of facts that were measured.
        resident: Bytes of a gateway's process by facts: that of one without facts, and as much a fact as was measured.
        disk: Bytes on disk of a fact, by facts.
        opening: Seconds until a gateway can answer, by facts.
        work: What a question costs.
    """

    def __init__(
        self,
        constants: Mapping[str, object],
        scale: Mapping[str, object],
        serving: Mapping[str, object] | None,
        *,
        rates: Mapping[float, float] | None = None,
        tokens: int = 128,
        beliefs: float = 0.1,
    ) -> None:
        by_size = {int(size): floats(found) for size, found in mapping(scale, "sizes").items()}
        self.sizes = frozenset(by_size)
        growth = Line.through({size: found["resident"] for size, found in by_size.items()})
        self.resident = Line(floats(constants)["gateway_resident"], growth.slope)
        self.disk = Curve.through({size: found["disk_bytes_per_fact"] for size, found in by_size.items()})
        self.opening = Line.through({size: found["open_and_search"] for size, found in by_size.items()})
        model = rates or (model_rates(serving) if serving is not None else {})
        if not model:
            raise BadDataFile(
                "There is no measurement of the model server.", "Give --serving JSON of benchmarks.serving, or --rates."
            )
        self.work = Work(
            Curve.through({float(size): seconds for size, seconds in floats(mapping(constants, "thinking")).items()}),
            floats(constants)["relay_request"],
            floats(constants)["relay_token"],
            tokens,
            beliefs,
            8,
            Curve.through(model),
        )


def model_rates(serving: Mapping[str, object]) -> dict[float, float]:
    """Tokens a second of the model server alone, by clients, from a result of `benchmarks.serving`."""
    head = "bare_tokens_per_second_"
    figures = serving.get("figures")
    rows = [row for row in figures if isinstance(row, dict)] if isinstance(figures, list) else []
    return {
        float(str(row["name"]).removeprefix(head)): row["value"] for row in rows if str(row["name"]).startswith(head)
    }


def mapping(result: Mapping[str, object], name: str) -> Mapping[str, object]:
    """The object under a name.

    Raises:
        BadDataFile: There is none.
    """
    found = result.get(name)
    if not isinstance(found, Mapping) or not found:
        raise BadDataFile(f"The measurement has no {name!r}.", "Give the JSON of a finished run.")
    return found


def floats(found: object) -> dict[str, float]:
    """The numbers of an object."""
    pairs = found.items() if isinstance(found, Mapping) else ()
    return {str(name): float(value) for name, value in pairs if isinstance(value, int | float)}


def as_json(value: Need | Work) -> dict[str, object]:
    """JSON-ready."""
    return json.loads(json.dumps(asdict(value)))  # type: ignore[no-any-return]


def tables(result: Mapping[str, object]) -> list[Table]:
    """What the result says, as tables."""
    sizes = [
        (
            f"{int(count):,}",
            *(number(found[name]) for name in ("resident_gib", "disk_gib", "open_seconds")),
            "measured" if found["measured"] else "worked out",
        )
        for count, found in ((count, {**floats(one), **dict(one)}) for count, one in mapping(result, "facts").items() if isinstance(one, Mapping))
    ]  # fmt: skip
    loads = []
    for rate, need in mapping(result, "questions").items():
        waits = floats(mapping({"need": need}, "need").get("waits"))
        counts = floats(need)
        loads.append(
            (
                rate,
                f"{counts['gateways']:.0f}",
                f"{counts['models']:.0f}",
                f"{1000 * waits['added']:.0f}",
                f"{1000 * waits['added_p99']:.0f}",
                f"{waits['answer']:.1f}",
                f"{waits['answer_p99']:.1f}",
            )
        )
    return [
        Table("Memory of a gateway", ("facts", "resident GiB", "disk GiB", "open s", "how it is known"), tuple(sizes)),
        Table(
            "Machines for a load (simulated)",
            ("questions/s", "gateway cores", "model servers", "added ms", "p99", "answer s", "p99"),
            tuple(loads),
        ),
    ]


def main(argv: Sequence[str] | None = None) -> int:
    """The command; its exit code."""
    arguments = _parser().parse_args(argv)
    where = environment(sys.argv)

    def body() -> None:
        if arguments.what == "measure":
            result = {"benchmark": CONSTANTS, **where, **measure(arguments.seed)}
            print(json.dumps(result["thinking"]))
        else:
            serving = None if arguments.serving is None else read_result(arguments.serving, "serving")
            known = Known(
                read_result(arguments.constants, CONSTANTS),
                read_result(arguments.scale, "scale"),
                serving,
                rates=arguments.rates,
                tokens=arguments.tokens,
                beliefs=arguments.beliefs,
            )
            result = {"benchmark": BENCHMARK, **where, **plan(known, arguments.facts, arguments.questions)}
            show(tables(result), markdown=arguments.markdown)
        if arguments.json is not None:
            arguments.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")

    return exit_code(body)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.capacity", description=__doc__.partition("\n")[0])
    parts = parser.add_subparsers(dest="what", required=True)
    first = parts.add_parser("measure", help="what a question costs on this machine")
    first.add_argument("--seed", type=int, default=0)
    then = parts.add_parser("plan", help="what so many facts and questions need")
    then.add_argument("--constants", type=Path, required=True, metavar="JSON", help="of `measure`")
    then.add_argument("--scale", type=Path, required=True, metavar="JSON", help="of benchmarks.scale")
    server = then.add_mutually_exclusive_group(required=True)
    server.add_argument("--serving", type=Path, metavar="JSON", help="of benchmarks.serving")
    server.add_argument(
        "--rates",
        type=_rates,
        metavar="N:TOKENS,...",
        help="tokens/s of a model server writing N answers, e.g. 1:90,64:3000",
    )
    then.add_argument("--facts", type=_numbers(int), default=(1_000, 10_000, 100_000, 1_000_000, 10_000_000))
    then.add_argument("--questions", type=_numbers(float), default=(1.0, 10.0, 100.0), help="a second")
    then.add_argument("--tokens", type=int, default=128, help="output tokens of an answer")
    then.add_argument("--beliefs", type=float, default=0.1, help="questions for beliefs, for each question")
    then.add_argument("--markdown", action="store_true", help="print the tables in Markdown")
    for part in (first, then):
        part.add_argument("--json", type=Path, metavar="OUT", help="where to write it")
    return parser


def _numbers(kind: type[int] | type[float]) -> Callable[[str], tuple[float, ...]]:
    def parse(text: str) -> tuple[float, ...]:
        found = tuple(kind(one) for one in text.split(","))
        if not all(one > 0 and math.isfinite(one) for one in found):
            raise argparse.ArgumentTypeError(f"{text} holds a number that is not above 0")
        return found

    return parse


def _rates(text: str) -> dict[float, float]:
    pairs = [part.split(":") for part in text.split(",")]
    if not all(len(pair) == 2 for pair in pairs):
        raise argparse.ArgumentTypeError(f"{text} is not N:TOKENS,N:TOKENS,...")
    return {float(count): float(tokens) for count, tokens in pairs}


if __name__ == "__main__":
    sys.exit(main())
