"""Evaluation on a Ray cluster: the cases of a run are dealt to workers on many machines, and what they record comes back.

Each worker opens what it answers with (an editor of its own, over a memory with the same edits) from a recipe that is sent to it;
it is given keys of cases and gives back their records. A case is answered as it is in one process, so the figures are
the same. Where a machine is lost, Ray gives its cases to another. Knows nothing of what a case is.
"""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import TYPE_CHECKING, Protocol

from memedit.errors import InvalidSpec, MemEditError, MissingExtra, ModelUnavailable
from memedit.evaluation.runs import Record

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from ray import ObjectRef

SHARES = 4
"""Batches for each worker, at the least: so they finish together, and little is done again where one is lost."""


class Worker(Protocol):
    """Answers cases."""

    def __call__(self, keys: Sequence[str]) -> Mapping[str, Record]:
        """The record of each case, by its key."""
        ...


class Recipe(Protocol):
    """What a worker is opened from; it is pickled, and so must be whatever it holds."""

    def open(self) -> AbstractContextManager[Worker]:
        """A worker, on the machine that this is called on."""
        ...


def worker_count(text: str) -> int | None:
    """How many workers ``--workers`` means: None for none (this process), 0 for one a core of the cluster.

    >>> worker_count("1"), worker_count("ray"), worker_count("ray:8")
    (None, 0, 8)

    Raises:
        ValueError: It means nothing.
    """
    if text == "1":
        return None
    kind, _, count = text.partition(":")
    if kind != "ray" or (count and not (count.isdecimal() and int(count))):
        raise ValueError(f"{text!r} is neither 1, nor ray, nor ray:N")
    return int(count or 0)


def on_ray(recipe: Recipe, batches: Sequence[Sequence[str]], workers: int) -> Iterator[Mapping[str, Record]]:
    """Answer cases on a Ray cluster; the records of each batch as they come, in no fixed order.

    Uses the cluster that this process, or the environment variable RAY_ADDRESS, is connected with; else starts one on this
    machine.

    Args:
        recipe: Opens each worker.
        batches: Keys of the cases that are answered together.
        workers: How many workers, each on a core of its own; 0 for all cores.

    Raises:
        MissingExtra: Ray is not installed.
        InvalidSpec: The cluster has fewer cores than workers.
        MemEditError: What a worker met with; batches that came before are good.
        ModelUnavailable: The cluster lost its workers and could not start others.
    """
    try:
        import ray
        import ray.data
    except ModuleNotFoundError as error:
        raise MissingExtra(error.name or "ray", "ray") from error
    if not batches:
        return
    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    resources: dict[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    cores = int(resources.get("CPU", 1))
    if workers > cores:
        raise InvalidSpec(
            f"{workers} workers need as many cores; the cluster has {cores}.", "Ask for fewer, or add nodes."
        )
    count = min(workers or cores, len(batches))
    quiet = ray.data.DataContext.get_current()
    quiet.enable_progress_bars = False
    rows = ray.data.from_items([{"keys": json.dumps(list(keys))} for keys in batches], override_num_blocks=len(batches))
    answered = rows.map_batches(
        _Actor, fn_constructor_args=(ray.put(recipe),), batch_size=1, concurrency=count, num_cpus=1
    )
    try:
        for row in answered.iter_rows():
            if row["error"]:
                failed: MemEditError = pickle.loads(row["error"])
                raise failed
            yield json.loads(row["records"])
    except ray.exceptions.RayError as error:
        raise ModelUnavailable(
            f"The Ray cluster could not finish: {str(error).strip().splitlines()[-1]}",
            "Start it again; finished cases are kept.",
        ) from error


def batch_size(cases: int, workers: int, most: int) -> int:
    """Cases of a batch: at most `most`, and so few that each worker gets several batches.

    >>> batch_size(100, 4, 256), batch_size(100_000, 4, 256)
    (7, 256)

    Args:
        cases: How many there are.
        workers: How many share them; 0 for one a core of this machine.
        most: The most that are answered side by side.
    """
    return min(most, max(1, -(-cases // (SHARES * (workers or os.cpu_count() or 1)))))


class _Actor:
    """A worker in a process of Ray's. An error of ours is handed back as a result: it would be no better at a second try."""

    def __init__(self, recipe: ObjectRef[Recipe]) -> None:
        import ray

        self._stack = ExitStack()
        self._work: Worker | None = None
        self._failed = b""
        try:
            self._work = self._stack.enter_context(ray.get(recipe).open())
        except MemEditError as error:
            self._failed = pickle.dumps(error)

    def __call__(self, batch: dict[str, NDArray[np.object_]]) -> dict[str, list[str] | list[bytes]]:
        [keys] = batch["keys"]
        if self._work is None:
            return {"records": ["{}"], "error": [self._failed]}
        try:
            return {"records": [json.dumps(dict(self._work(json.loads(keys))))], "error": [b""]}
        except MemEditError as error:
            return {"records": ["{}"], "error": [pickle.dumps(error)]}
