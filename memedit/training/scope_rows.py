"""Rows for ``benchmarks.scope`` from edits that the classifier was not trained on.

``python -m memedit.training.scope_rows --data DIR --out FILE`` writes one JSON object a line: an edit, texts in its scope,
and texts out of it by kind. Subjects are those of the held-out split, and of files that training does not read.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

from memedit.memory.catalogue import Catalogue
from memedit.scope_text import mentions
from memedit.training.negatives import not_a_chain
from memedit.training.scope_data import Sampler
from memedit.training.scope_forms import dress, fill, yes_or_no
from memedit.training.scope_sources import Record, ScopeCorpus, read_scope_corpus

Row = dict[str, object]


def held_out_rows(corpus: ScopeCorpus, data: Path, count: int, seed: int = 0) -> list[Row]:
    """At most `count` rows, each subject once; `data` is the folder that the corpus was read from."""
    rng = random.Random(seed)
    sampler = Sampler(corpus, "dev")
    records = [*_counterfact(data), *_zsre(data), *rng.sample(sampler.records, len(sampler.records))]
    rng.shuffle(records)
    trained = {record.subject.casefold() for record in corpus.part("train")}
    rows: list[Row] = []
    seen: set[str] = set()
    catalogue = Catalogue.default()
    for record in records:
        subject = record.subject.casefold()
        if subject in seen or subject in trained or len(rows) >= count:
            continue
        seen.add(subject)
        rows.append(_row(rng, sampler, record, catalogue))
    return rows


def _row(rng: random.Random, sampler: Sampler, record: Record, catalogue: Catalogue) -> Row:
    forms = sampler.corpus.wordings.forms.get(record.relation or "")
    edit: Row = {"subject": record.subject, "object": record.object, "statement": rng.choice(record.statements)}
    if record.relation in catalogue:
        edit["relation"] = record.relation
        edit["statement"] = catalogue.get(str(record.relation)).state(record.subject, record.object)
    inside = [text for text in record.asked if mentions(text, record.subject)][:4]
    if forms:
        inside.append(sampler.ask(rng, record, record.subject, generate=1.0))
        if forms.statements:
            inside.append(yes_or_no(rng, forms, record.subject, record.object))
    outside: dict[str, list[str]] = {}
    for text, kind in record.outside[:4]:
        outside.setdefault({"near": "neighbourhood", "relation": "same_subject"}.get(kind, kind), []).append(text)
    for _ in range(2):
        near = sampler.near_name(rng, record, record.subject)
        if near.casefold() != record.subject.casefold() and (record.templates or forms):
            outside.setdefault("near_subject", []).append(sampler.ask(rng, record, near))
        if other := sampler.other_question(rng, record, record.subject):
            outside.setdefault("same_subject", []).append(other)
    if forms and forms.phrases and rng.random() < 0.5:
        outer = sampler.corpus.wordings.forms[rng.choice(sampler.corpus.wordings.others(str(record.relation)))]
        outside["chain"] = [fill(outer.ask(rng, clear=True), fill(rng.choice(forms.phrases), record.subject))]
    nothing = not_a_chain(rng, "")
    while "{name}" in nothing or "  " in nothing:
        nothing = not_a_chain(rng, "")
    outside["unrelated"] = [nothing, rng.choice(sampler.corpus.nothing)]
    unstirred = dict.fromkeys(inside)
    return {
        "edit": edit,
        "in_scope": list(unstirred),
        "out_of_scope": {
            kind: [dress(rng, text, sampler.corpus.fragments) for text in texts] for kind, texts in outside.items()
        },
    }


def _counterfact(data: Path) -> Iterator[Record]:
    path = data / "counterfact" / "counterfact-full-dev.json"
    for row in json.loads(path.read_text("utf-8")) if path.is_file() else ():
        rewrite = row["requested_rewrite"]
        prompt = rewrite["prompt"].replace("{}", rewrite["subject"])
        target = rewrite["target_new"]["str"]
        yield Record(
            rewrite["subject"],
            rewrite["relation_id"],
            target,
            [f"{prompt} {target}."],
            [prompt, *row["paraphrase_prompts"]],
            "counterfact-full",
            outside=[(text, "near") for text in row["neighborhood_prompts"][:3]],
        )


def _zsre(data: Path) -> Iterator[Record]:
    path = data / "zsre" / "zsre_mend_eval-dev.json"
    for row in json.loads(path.read_text("utf-8")) if path.is_file() else ():
        statement = f"{row['src']} {row['alt']}"
        asked = [row["src"], row["rephrase"]]
        outside = [(row["loc"], "unrelated_question")]
        yield Record(row["subject"], None, row["alt"], [statement], asked, "zsre-eval", outside=outside)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description="Write held-out rows for benchmarks.scope.")
    parser.add_argument("--data", type=Path, required=True, help="folder of public data files")
    parser.add_argument("--out", type=Path, required=True, help="the JSON Lines file to write")
    parser.add_argument("--count", type=int, default=800, help="most rows")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    rows = held_out_rows(read_scope_corpus(options.data), options.data, options.count, options.seed)
    options.out.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")


if __name__ == "__main__":
    main()
