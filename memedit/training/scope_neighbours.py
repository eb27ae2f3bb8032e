"""Hard examples by embedding: templates that ask something related but else, and the facts an index takes to be near.

Knows the records and an embedder; nothing of networks. What it finds is kept in a file, since it takes minutes.
"""

from __future__ import annotations

import json
import math
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from memedit.memory.embedder import Embedder, SentenceEmbedder
from memedit.scope_text import FactText
from memedit.training.scope_sources import Record, ScopeCorpus

_RELATED = (0.1, 0.4)
"""Cosine similarities between which two templates are taken to be related and to ask different things."""
_OTHERS = 40
_NEAREST = 8
_BATCH = 512


class Neighbours(NamedTuple):
    """What lies near what.

    Attributes:
        apart: For a template of a record with no known relation, templates that ask something else.
        mined: For a text, the facts nearest to it that it is not about.
    """

    apart: dict[str, list[str]]
    mined: dict[str, list[FactText]]


def neighbours(corpus: ScopeCorpus, path: Path, *, seed: int, texts: int, facts: int) -> Neighbours:
    """Find neighbours, or read those that an earlier run with the same arguments has left.

    Args:
        corpus: The records.
        path: The file that keeps them.
        seed: Makes the draw repeatable.
        texts: Texts for which facts are looked up; half of them are about no fact.
        facts: Facts they are looked up among; half as many templates are compared.
    """
    key = [seed, texts, facts, len(corpus.records), len(corpus.nothing), *_RELATED]
    if path.is_file():
        kept = json.loads(path.read_text("utf-8"))
        if kept["key"] == key:
            mined = {text: [FactText(*fact) for fact in found] for text, found in kept["mined"].items()}
            return Neighbours(kept["apart"], mined)
    embedder = SentenceEmbedder()
    rng = random.Random(f"{seed}:neighbours")
    found = Neighbours(_apart(corpus, embedder, facts // 2), _mine(corpus, embedder, rng, texts, facts))
    path.write_text(json.dumps({"key": key, **found._asdict()}, ensure_ascii=False), "utf-8")
    return found


def _apart(corpus: ScopeCorpus, embedder: Embedder, limit: int) -> dict[str, list[str]]:
    partners: dict[str, set[str]] = defaultdict(set)
    for record in corpus.records:
        if record.relation is None:
            for template in record.templates:
                partners[template] |= set(record.templates)
    templates = sorted(partners)[:: max(1, len(partners) // max(1, limit))]
    vectors = _embed(embedder, [template.replace("{s}", "it") for template in templates], "templates")
    apart: dict[str, list[str]] = {}
    for place, template in enumerate(templates):
        similarity = vectors @ vectors[place]
        related = np.flatnonzero((_RELATED[0] < similarity) & (similarity < _RELATED[1]))
        chosen = [templates[other] for other in related[:: max(1, len(related) // _OTHERS)][:_OTHERS]]
        apart[template] = [other for other in chosen if other not in partners[template]]
    return apart


def _mine(
    corpus: ScopeCorpus, embedder: Embedder, rng: random.Random, texts: int, facts: int
) -> dict[str, list[FactText]]:
    records = rng.sample(corpus.records, min(facts, len(corpus.records)))
    queries: dict[str, Record | None] = {}
    for record in rng.sample(corpus.records, min(texts // 2, len(corpus.records))):
        queries[rng.choice(record.asked)] = record
    for text in rng.sample(corpus.nothing, min(texts // 2, len(corpus.nothing))):
        queries.setdefault(text, None)
    stored = _embed(embedder, [record.statements[0] for record in records], "facts")
    vectors = _embed(embedder, list(queries), "texts")
    nearest = min(_NEAREST, len(records))
    mined: dict[str, list[FactText]] = {}
    for (text, own), vector in zip(queries.items(), vectors, strict=True):
        near = [records[place] for place in np.argpartition(-(stored @ vector), nearest - 1)[:nearest]]
        mined[text] = [
            FactText(record.subject, record.object, record.statements[0])
            for record in near
            if own is None or record.subject.casefold() != own.subject.casefold()
        ]
    return mined


def _embed(embedder: Embedder, texts: Sequence[str], what: str) -> npt.NDArray[np.float32]:
    rows = [np.empty((0, embedder.dimension), np.float32)]
    with progress(what, math.ceil(len(texts) / _BATCH)) as advance:
        for start in range(0, len(texts), _BATCH):
            rows.append(embedder.encode(texts[start : start + _BATCH]))
            advance("")
    return np.concatenate(rows)


@contextmanager
def progress(what: str, total: int, done: int = 0) -> Iterator[Callable[[str], None]]:
    """A progress bar on standard error; yields what to call after each of `total` steps, with a note to show."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("{task.fields[note]}"), console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=total, completed=done, note="")
        yield lambda note: bar.update(task, advance=1, note=note)
