"""What the planner is trained on: labelled questions from public files and an endless stream of composed ones.

Reads MQuAKE cases, PokeMQA's single-hop paraphrases, zsRE's rephrased questions and lists of names; composes chains with
`memedit.training.phrasing`. Knows nothing of networks. A source whose file is missing is left out, and said so.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from memedit.memory.fact import Relation
from memedit.training.negatives import not_a_chain
from memedit.training.open_relations import OpenQuestion, OpenRelation, ask, made_up, paraphrased
from memedit.training.phrasing import HOLE, Phrasebook, place

_REMARKS = (
    "I was reading about {}. ", "We spoke of {} yesterday. ", "{} was in the news again. ", "My friend likes {}. ",
    "And then came {}. ", "Here is something on {}: ", "Forget {}. ",
)  # fmt: skip
_EMPTY = re.compile(r"^(?:Who|What|Where) (?:is|was|are) (?:the )?\??$")
"""What is left of a paraphrase that asks for nothing in particular."""
_ARTICLED = re.compile(r"^(?:the|a|an) ", re.IGNORECASE)


class Example(NamedTuple):
    """A labelled question.

    Attributes:
        text: The question.
        span: Where the start entity stands (start, end) in characters, or None where there is none.
        chain: Relation ids from the start entity outwards; empty for "not a chain".
        source: Where it is from: ``mquake``, ``hops``, ``pokemqa``, ``composed``, ``spliced``, ``negative``.
    """

    text: str
    span: tuple[int, int] | None
    chain: tuple[str, ...]
    source: str


class Case(NamedTuple):
    """A MQuAKE case, as far as planning is concerned.

    Attributes:
        case_id: Its number.
        subject: The start entity.
        chain: The relation ids of the unedited chain.
        questions: The multi-hop questions.
        hops: (question, subject, relation id) of every single hop.
    """

    case_id: int
    subject: str
    chain: tuple[str, ...]
    questions: tuple[str, ...]
    hops: tuple[tuple[str, str, str], ...]


@dataclass(slots=True)
class Corpus:
    """Everything read from the data folder.

    Attributes:
        cases: MQuAKE cases to train on.
        single: Single-hop examples.
        open: Relations of no catalogue.
        names: Relation id to names of things that have it.
        phrasebook: Wordings, with questions mined from the data.
        missing: Files that were not there.
    """

    cases: list[Case]
    single: list[Example]
    open: list[OpenRelation]
    names: dict[str, list[str]]
    phrasebook: Phrasebook
    missing: list[str] = field(default_factory=list)

    def without(self, relations: Iterable[str]) -> Corpus:
        """The corpus with every question about some relations left out."""
        gone = set(relations)
        return Corpus(
            [case for case in self.cases if not gone & set(case.chain)],
            [example for example in self.single if not gone & set(example.chain)],
            self.open,
            self.names,
            self.phrasebook.without(gone),
            self.missing,
        )


def read_cases(path: Path) -> list[Case]:
    """The cases of a MQuAKE file, in its order."""
    cases: list[Case] = []
    for raw in json.loads(path.read_text("utf-8")):
        old, new = raw["orig"]["triples_labeled"], raw["orig"]["new_triples_labeled"]
        chain = tuple(str(relation) for _, relation, _ in raw["orig"]["triples"])
        hops: dict[tuple[str, str, str], None] = {}
        for labelled, singles in ((old, raw["single_hops"]), (new, raw["new_single_hops"])):
            for (subject, _, _), relation, single in zip(labelled, chain, singles, strict=False):
                hops[(str(single["question"]), str(subject), relation)] = None
        questions = tuple(str(question) for question in raw["questions"])
        cases.append(Case(int(raw["case_id"]), str(old[0][0]), chain, questions, tuple(hops)))
    return cases


def find_name(text: str, name: str) -> tuple[int, int] | None:
    """Where a name stands in a text, exactly or else in any case; its leading article is not part of it."""
    for needle in (name, _ARTICLED.sub("", name)):
        at = text.find(needle)
        if at < 0:
            at = text.casefold().find(needle.casefold())
        if at >= 0 and needle:
            return at, at + len(needle)
    return None


def read_corpus(data: Path, cases: Sequence[Case], catalogue: Iterable[Relation] = ()) -> Corpus:
    """Read every source under `data` (laid out as the public files are) around the given MQuAKE cases.

    Args:
        data: The folder; what is missing in it is left out.
        cases: The MQuAKE cases to train on.
        catalogue: Relations to compose questions about, besides those of the phrasebook's own wordings.
    """
    corpus = Corpus(list(cases), [], [], {}, Phrasebook.default(catalogue))
    names: dict[str, Counter[str]] = defaultdict(Counter)
    mined: dict[str, Counter[str]] = defaultdict(Counter)
    for case in cases:
        names[case.chain[0]][case.subject] += 1
        for question, subject, relation in case.hops:
            names[relation][subject] += 1
            if span := find_name(question, subject):
                corpus.single.append(Example(question, span, (relation,), "hops"))
    _read_pokemqa(data, corpus, names, mined)
    _read_zsre(data, corpus)
    _read_names(data, corpus, names)
    corpus.names = {relation: sorted(counts) for relation, counts in names.items()}
    corpus.phrasebook.mined = {
        relation: [text for text, count in counts.items() if count > 2] for relation, counts in mined.items()
    }
    return corpus


class Sampler:
    """An endless, seeded stream of training examples.

    Args:
        corpus: What to draw from.
        seed: Makes the stream repeatable.
        mixture: Source to its share; see `MIXTURE`.
    """

    MIXTURE: Mapping[str, float] = {
        "mquake": 0.33, "spliced": 0.12, "composed": 0.36, "single": 0.13, "negative": 0.06,
    }  # fmt: skip

    def __init__(self, corpus: Corpus, seed: int, mixture: Mapping[str, float] | None = None) -> None:
        self._corpus = corpus
        self._rng = random.Random(seed)
        self._mixture = dict(mixture or self.MIXTURE)
        self._made_up = made_up()
        self._chains = Counter(case.chain for case in corpus.cases)
        self._chain_list = list(self._chains)
        self._chain_weights = [count**0.6 for count in self._chains.values()]
        relations = Counter(relation for case in corpus.cases for relation in case.chain)
        self._weights = {relation: 1.0 + 0.6 * count**0.5 for relation, count in relations.items()}
        for relation in corpus.phrasebook.wordings:
            self._weights.setdefault(relation, 0.5)
        kinds: dict[str, set[str]] = defaultdict(set)
        for relation, wording in corpus.phrasebook.wordings.items():
            for kind in wording.subjects:
                if len(wording.subjects) == 1:
                    kinds[kind].update(corpus.names.get(relation, ()))
        self._by_kind = {kind: sorted(pool) for kind, pool in kinds.items()}
        self._all_names = sorted({name for pool in corpus.names.values() for name in pool}) or ["Ada Lovelace"]
        # "Who is the Prime Minister of Norway?" asks for something; "Who is Ada Lovelace?" does not.
        offices = set(corpus.names.get("P1308", ()))
        self._plain_names = [name for name in self._all_names if name not in offices] or ["Ada Lovelace"]

    def draw(self) -> Example:
        """The next example."""
        source = self._rng.choices(list(self._mixture), list(self._mixture.values()))[0]
        if source in ("mquake", "spliced") and not self._corpus.cases:
            source = "composed"
        if source == "single" and not self._corpus.single:
            source = "composed"
        match source:
            case "mquake":
                example = self._mquake()
            case "spliced":
                example = self._spliced()
            case "single":
                example = self._rename(self._rng.choice(self._corpus.single), 0.4)
            case "negative":
                return self._negative()
            case _:
                example = self._composed()
        return self._roughen(example)

    @property
    def plain_names(self) -> list[str]:
        """Names of entities that ask for nothing by themselves."""
        return self._plain_names

    def batch(self, size: int) -> list[Example]:
        """The next `size` examples."""
        return [self.draw() for _ in range(size)]

    def state(self) -> object:
        """Where the stream stands, for `restore`."""
        return self._rng.getstate()

    def restore(self, state: object) -> None:
        """Go on from where `state` was taken."""
        self._rng.setstate(state)  # type: ignore[arg-type]

    def open_batch(self, size: int) -> list[OpenQuestion]:
        """Questions about relations of no catalogue, half of them from data where there are any."""
        rng, book = self._rng, self._corpus.phrasebook
        drawn = []
        for _ in range(size):
            relations = self._corpus.open if self._corpus.open and rng.random() < 0.5 else self._made_up
            drawn.append(ask(rng, rng.choice(relations), book, self._weights, self._name_for))
        return drawn

    def _mquake(self) -> Example:
        case = self._rng.choice(self._corpus.cases)
        question = self._rng.choice(case.questions)
        return self._rename(Example(question, find_name(question, case.subject), case.chain, "mquake"), 0.6)

    def _spliced(self) -> Example:
        """A MQuAKE question whose start entity gives way to a phrase for it: one or two hops more, at most four."""
        rng = self._rng
        case = rng.choice(self._corpus.cases)
        question = rng.choice(case.questions)
        span = find_name(question, case.subject)
        book = self._corpus.phrasebook
        room = 4 - len(case.chain)
        first = case.chain[0]
        before = [name for name in book.wordings if first in book.wordings and self._leads_to(name, first)]
        if span is None or room < 1 or not before:
            return self._composed()
        inner = [rng.choices(before, [self._weights[name] for name in before])[0]]
        if room > 1 and rng.random() < 0.3:
            more = [name for name in book.wordings if self._leads_to(name, inner[0])]
            inner[:0] = rng.choices(more, [self._weights[name] for name in more])[:1] if more else []
        phrase = book.noun_phrase(rng, inner, HOLE)
        start, end = span
        if question[:start].lower().endswith("the ") and phrase.startswith("the "):
            phrase = phrase[4:]
        quote = question[start - 1 : start] in ('"', "'") and question[end : end + 1] in ('"', "'")
        start, end = (start - 1, end + 1) if quote else (start, end)
        template = question[:start] + phrase + question[end:]
        composed = place(template, self._name_for(inner[0]), rng)
        return Example(composed.text, composed.span, (*inner, *case.chain), "spliced")

    def _leads_to(self, first: str, second: str) -> bool:
        return first != second and self._corpus.phrasebook.follows(first, second)

    def _composed(self) -> Example:
        rng = self._rng
        book = self._corpus.phrasebook
        if self._chain_list and rng.random() < 0.4:
            chain = rng.choices(self._chain_list, self._chain_weights)[0]
            if len(chain) > 1 and rng.random() < 0.25:
                chain = (
                    chain[rng.randrange(len(chain)) :] if rng.random() < 0.5 else chain[: rng.randint(1, len(chain))]
                )
        else:
            chain = book.random_chain(rng, rng.choices((1, 2, 3, 4), (2, 3, 3, 3))[0], self._weights)
        composed = book.compose(rng, chain, self._name_for(chain[0]), self._name_for(rng.choice(list(book.wordings))))
        return Example(composed.text, composed.span, chain, "composed")

    def _negative(self) -> Example:
        return Example(not_a_chain(self._rng, self._rng.choice(self._plain_names)), None, (), "negative")

    def _name_for(self, relation: str) -> str:
        rng = self._rng
        own = self._corpus.names.get(relation, [])
        wording = self._corpus.phrasebook.wordings.get(relation)
        kinds = sorted(wording.subjects) if wording else []
        pool = self._by_kind.get(rng.choice(kinds), []) if kinds else []
        if own and (len(own) >= 20 or not pool) and rng.random() < 0.6:
            return rng.choice(own)
        return rng.choice(pool or own or self._all_names)

    def _rename(self, example: Example, chance: float) -> Example:
        if example.span is None or self._rng.random() >= chance:
            return example
        pool = self._corpus.names.get(example.chain[0], [])
        wording = self._corpus.phrasebook.wordings.get(example.chain[0])
        if wording and len(wording.subjects) == 1:
            pool = self._by_kind.get(next(iter(wording.subjects)), pool)
        if not pool:
            return example
        name = self._rng.choice(pool)
        start, end = example.span
        text = example.text[:start] + name + example.text[end:]
        return example._replace(text=text, span=(start, start + len(name)))

    def _roughen(self, example: Example) -> Example:
        """Now and then the case, the question mark or a polite opening changes."""
        rng = self._rng
        text, span = example.text, example.span
        if rng.random() < 0.06:
            lowered = text.lower()
            text = lowered if len(lowered) == len(text) else text
        if rng.random() < 0.05:
            text = text.rstrip("?. ")
        if rng.random() < 0.05:
            opening = rng.choice(("Please tell me: ", "Question: ", "Do you know? ", "I wonder: ", "Q: ", "Hey, "))
            if rng.random() < 0.4:
                opening = rng.choice(_REMARKS).format(rng.choice(self._all_names))
            text = opening + text
            span = (span[0] + len(opening), span[1] + len(opening)) if span else None
        return example._replace(text=text, span=span)


def _read_pokemqa(data: Path, corpus: Corpus, names: dict[str, Counter[str]], mined: dict[str, Counter[str]]) -> None:
    path, clozes = data / "pokemqa" / "cls-filtered.json", data / "mquake" / "prompts" / "cloze_templates.json"
    if not path.is_file() or not clozes.is_file():
        corpus.missing.append(str(path))
        return
    patterns = []
    for relation, template in json.loads(clozes.read_text("utf-8")).items():
        body = re.escape(template).replace(re.escape("[X]"), "(.+)").replace("__", ".+")
        patterns.append((relation, re.compile(f"^{body}$")))
    for row in json.loads(path.read_text("utf-8")):
        found = [(relation, match.group(1)) for relation, pattern in patterns if (match := pattern.match(row["edit"]))]
        # "The [X] is __" and "[X] is located in __" match far too much: only taken where nothing else does.
        sure = [pair for pair in found if pair[0] not in ("P1308", "P131", "P276")] or found[:1]
        if len(sure) != 1:
            continue
        relation, subject = sure[0]
        names[relation][subject] += 1
        for question in row["questions"]:
            span = find_name(question, subject)
            empty = span is not None and relation != "P1308" and _EMPTY.match(question[: span[0]] + question[span[1] :])
            if span and not empty:
                corpus.single.append(Example(question, span, (relation,), "pokemqa"))
                mined[relation][question[: span[0]] + HOLE + question[span[1] :]] += 1


def _read_zsre(data: Path, corpus: Corpus) -> None:
    path = data / "zsre" / "zsre_mend_train_10000.json"
    if not path.is_file():
        corpus.missing.append(str(path))
        return
    for row in json.loads(path.read_text("utf-8")):
        subject = str(row["subject"])
        if subject in row["src"] and (span := find_name(row["rephrase"], subject)):
            rephrased = row["rephrase"][: span[0]] + HOLE + row["rephrase"][span[1] :]
            corpus.open.append(paraphrased(str(row["src"]).replace(subject, HOLE), rephrased))


def _read_names(data: Path, corpus: Corpus, names: dict[str, Counter[str]]) -> None:
    folder = data / "pararel" / "trex_lms_vocab"
    if not folder.is_dir():
        corpus.missing.append(str(folder))
        return
    for path in sorted(folder.glob("*.jsonl")):
        if path.stem in corpus.phrasebook.wordings:
            for line in path.read_text("utf-8").splitlines():
                names[path.stem][str(json.loads(line)["sub_label"])] += 1
