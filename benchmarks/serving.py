"""The gateway in front of a model server, measured against the same server without it.

    python -m benchmarks.serving --upstream URL | --start-vllm [MODEL] | --scripted   [--facts 100000]
                                 [--clients 1,4,16,64] [--json OUT] [--only NAME ...]

A memory is filled with made-up facts (see `benchmarks.generated`; most of their vectors are blends of real ones) and kept in
``--folder``. A gateway in a process of its own serves a copy of it, in front of the model server, which is asked bare and
through the gateway in turn: the figures are ratios and differences of one run. The load shares the machine with both. The parts
`mix` and `faults` run against a scripted model server in any case.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from benchmarks.serving_faults import broken_upstream, mix
from benchmarks.serving_load import fetch
from benchmarks.serving_parts import carried, multi_hop, outside_scope, single_hop
from benchmarks.serving_setup import Server, Serving, cpu_flags, started
from benchmarks.speed import table
from benchmarks.speed_setup import Bench, Figure
from memedit.evaluation.environment import environment

BENCHMARK = "serving"
COMPARING: dict[str, Callable[[Serving, Server], list[Figure]]] = {
    "outside": outside_scope,
    "single": single_hop,
    "multi": multi_hop,
    "carried": carried,
}
FAULTS: dict[str, Callable[[Serving], list[Figure]]] = {"mix": mix, "faults": broken_upstream}
VLLM_PYTHON = Path(".venv-vllm/bin/python")


def run(serving: Serving, names: Sequence[str]) -> list[Figure]:
    """Measure the parts named."""
    figures: list[Figure] = []
    comparing = [COMPARING[name] for name in names if name in COMPARING]
    if comparing:
        with serving.gateway(serving.copy("facts")) as gate:
            for part in comparing:
                figures += part(serving, gate)
            serving.notes["gateway_rss_mib"] = round(gate.rss_mib(), 1)
    for name in names:
        if name in FAULTS:
            figures += FAULTS[name](serving)
    return figures


@contextmanager
def model_server(options: argparse.Namespace, scratch: Path) -> Iterator[Server]:
    """The model server that the options name, started where they say so."""
    if options.upstream is not None:
        yield Server(options.upstream.rstrip("/").removesuffix("/v1"))
        return
    if options.start_vllm is None:
        command = [sys.executable, "-m", "benchmarks.serving_upstream"]
        with started([*command, "--delay", "0.02", "--pace", str(options.pace)], "/v1/models", scratch) as server:
            yield server
        return
    command = [
        str(options.vllm_python),
        "-m",
        "vllm.entrypoints.openai.api_server",
        "--model",
        _folder(options.start_vllm),
    ]
    command += ["--served-model-name", "model", "--host", "127.0.0.1", *options.vllm_options.split()]
    env = {"VLLM_NO_USAGE_STATS": "1"}
    if not any(Path("/dev").glob("nvidia[0-9]*")):
        command += ["--dtype", "float32", "--enforce-eager", "--max-model-len", "2048"]
        # Its threads are bound as it chooses, which leaves a core to its scheduler. Unbound ("nobind"), that takes a core from
        # them in one answer of three, and the time to the first token jumps between 100 and 200 ms.
        env |= {"VLLM_CPU_KVCACHE_SPACE": "2"}
    with started(command, "/v1/models", scratch, env=env) as server:
        yield server


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns 0 whether or not the targets are met, which the JSON says."""
    options = _parser().parse_args(argv)
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    where = {**environment(sys.argv), "cpu_flags": cpu_flags()}
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with tempfile.TemporaryDirectory() as folder, Progress(*columns, transient=True) as progress:
        task = progress.add_task("", total=None)

        def status(what: str, done: int, total: int) -> None:
            progress.update(task, description=what, completed=done, total=total or None)

        scratch = Path(folder)
        status("starting the model server", 0, 0)
        with model_server(options, scratch) as upstream:
            kept = options.folder or scratch
            kept.mkdir(parents=True, exist_ok=True)
            bench = Bench(options.facts, options.seed, "blended", kept, status)
            serving = Serving(
                bench,
                upstream,
                scratch,
                clients=options.clients,
                tokens=options.tokens,
                rounds=options.rounds,
                per_client=options.per_client,
                samples=options.samples,
                requests=options.requests,
                writes=options.writes,
                status=status,
            )
            server = {"kind": _kind(options), "model": upstream.model(), **_version(upstream)}
            figures = run(serving, options.only or [*COMPARING, *FAULTS])
    table(figures, "Serving").show()
    if options.json is not None:
        asked = ("facts", "tokens", "rounds", "per_client", "samples", "requests", "writes", "seed")
        result = {
            "benchmark": BENCHMARK,
            **{name: getattr(options, name) for name in asked},
            "clients": list(options.clients),
            "model_server": server,
            **where,
            "figures": [figure.to_dict() for figure in figures],
            "notes": serving.notes,
        }
        options.json.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serving", description=__doc__.partition("\n")[0])
    server = parser.add_mutually_exclusive_group(required=True)
    server.add_argument("--upstream", metavar="URL", help="a model server that runs")
    server.add_argument(
        "--start-vllm", nargs="?", const="embedded", metavar="MODEL", help="start vLLM on a model or folder"
    )
    server.add_argument("--scripted", action="store_true", help="a scripted model server, to measure the gateway alone")
    parser.add_argument("--vllm-python", type=Path, default=VLLM_PYTHON, help="the interpreter of vLLM's environment")
    parser.add_argument("--vllm-options", default="", metavar="OPTIONS", help="more options of vLLM, as one word")
    parser.add_argument("--pace", type=float, default=0.02, help="seconds between tokens of the scripted server")
    parser.add_argument("--facts", type=int, default=100_000, help="facts in memory")
    parser.add_argument("--clients", type=_counts, default=(1, 4, 16, 64), help="how many at once, in turn")
    parser.add_argument("--tokens", type=int, default=64, help="output tokens of a request")
    parser.add_argument("--rounds", type=int, default=3, help="pairs of blocks, bare and through the gateway")
    parser.add_argument("--per-client", type=int, default=2, help="requests of each client in a block")
    parser.add_argument("--samples", type=int, default=40, help="requests of the parts that send one at a time")
    parser.add_argument("--requests", type=int, default=10_000, help="requests of the mix")
    parser.add_argument("--writes", type=int, default=1_000, help="writes of the mix")
    parser.add_argument("--only", nargs="+", choices=[*COMPARING, *FAULTS], metavar="NAME", help="some of the parts")
    parser.add_argument("--folder", type=Path, help="keep the filled memory here, and use it again")
    parser.add_argument("--json", type=Path, metavar="OUT", help="where to write the figures")
    parser.add_argument("--seed", type=int, default=0)
    return parser


def _counts(text: str) -> tuple[int, ...]:
    counts = tuple(int(one) for one in text.split(","))
    if min(counts) < 1:
        raise argparse.ArgumentTypeError(f"{text} holds a number below 1")
    return counts


def _folder(model: str) -> str:
    if model != "embedded":
        return model
    from memedit.models.embedded import model_folder

    return str(model_folder())


def _kind(options: argparse.Namespace) -> str:
    if options.scripted:
        return f"scripted, {options.pace:g} s between tokens"
    return "vLLM, started by the benchmark" if options.start_vllm else "started by someone else"


def _version(server: Server) -> dict[str, object]:
    """The version of vLLM, where the server tells one."""
    told = fetch(server.url, "GET", "/version").json.get("version")
    return {} if told is None else {"version": told}


if __name__ == "__main__":
    sys.exit(main())
