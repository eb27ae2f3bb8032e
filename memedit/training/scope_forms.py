"""How a relation is worded in the texts that the scope classifier is trained on, and what else those texts look like.

Collects questions, cloze prompts and statements for each relation from the phrasebook and from public files; wraps texts
as people and benchmarks do; makes names that are nearly, but not, the name of an entity. Knows nothing of facts or networks.
"""

from __future__ import annotations

import json
import random
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from memedit.memory.catalogue import Catalogue
from memedit.training.phrasing import HOLE, Phrasebook

SUBJECT = "{s}"
OBJECT = "{o}"

_EMPTY = frozenset(
    re.findall(
        r"\w+",
        "a an and are as at be been by can did do does for found from had has have he her his how in into is it its of on "
        "or part s she situated located that the their there they this to was were what where which who whose with",
    )
)
_OVERLAPPING: tuple[frozenset[str], ...] = tuple(
    frozenset(group.split())
    for group in (
        "P17 P131 P276 P1376 P150 P1001", "P17 P495", "P276 P195 P115 P159", "P103 P1412 P2936", "P37 P2936", "P364 P407 P2936",
        "P39 P106 P101 P1308 P410", "P6 P35 P1308 P1313 P1906", "P169 P488 P1037 P1075 P3975", "P6 P1037", "P57 P1037",
        "P176 P178 P170 P61 P287 P1056 P112", "P162 P272", "P127 P749 P137 P1830 P355", "P463 P54 P361", "P54 P118",
        "P1344 P607 P710 P1346 P166", "P551 P937", "P495 P740", "P50 P170 P58", "P86 P676 P175", "P1303 P106", "P641 P413",
        "P641 P106", "P175 P161 P371", "P27 P495 P172", "P800 P1056", "P1441 P361 P179", "P138 P1448", "P735 P734", "P571 P577",
        "P22 P25 P8810", "P26 P451", "P1066 P737 P802 P69", "P31 P279 P361 P136 P366 P921 P171 P105 P106",
        "P527 P150 P355 P674 P161 P710 P361", "P155 P1365", "P156 P1366", "P179 P361 P144", "P403 P974 P205 P206 P131",
        "P400 P277", "P828 P509 P1542 P144", "P47 P206 P190 P530",
    )
)  # fmt: skip
"""Relations whose wordings often mean one another: neither is taken as an example of what the other is not."""

_INVERSE: Mapping[str, tuple[str, ...]] = {
    "P36": ("{o} is the capital of which country?", "Which country has {o} as its capital?", "What country's capital is {o}?"),
    "P169": ("Which company does {o} run?", "Which company is {o} the CEO of?", "{o} is the chief executive officer of"),
    "P6": ("Which place is {o} the head of government of?", "{o} is the head of government of"),
    "P35": ("Which country is {o} the head of state of?", "{o} is the head of state of"),
    "P26": ("Who is {o} married to?", "Who is the spouse of {o}?", "{o} is married to"),
    "P286": ("Which team does {o} coach?", "{o} is the head coach of"),
    "P488": ("Which organization is chaired by {o}?", "{o} is the chairperson of"),
}  # fmt: skip
"""Questions for the subject of relations that name one subject for an object; they ask about the edit itself."""

SYMMETRIC = frozenset({"P26", "P190", "P47", "P3373", "P530"})


@dataclass(slots=True)
class Forms:
    """The wordings of one relation, with ``{s}`` for the subject and ``{o}`` for the object.

    Attributes:
        questions: Questions for the object.
        clozes: Prompts that the object completes.
        statements: Sentences that state the fact.
        phrases: Noun phrases for the object.
        vague: Those wordings that might as well mean another relation ("{s} is in").
        kinds: Kinds of things the subject can be; empty where that is not known.
    """

    questions: list[str] = field(default_factory=list)
    clozes: list[str] = field(default_factory=list)
    statements: list[str] = field(default_factory=list)
    phrases: list[str] = field(default_factory=list)
    vague: set[str] = field(default_factory=set)
    kinds: frozenset[str] = frozenset()

    def ask(self, rng: random.Random, *, clear: bool = False) -> str:
        """A question or prompt with a hole for the subject; `clear` leaves out what is vague."""
        for _ in range(8):
            pool = rng.choices((self.questions, self.clozes), (3, 2))[0] or self.questions or self.clozes
            form = rng.choice(pool)
            if not (clear and form in self.vague):
                return form
        return form

    def tell(self, rng: random.Random) -> str:
        """A statement with holes for subject and object."""
        return rng.choice(self.statements)


class Wordings:
    """The forms of every relation known from the data folder.

    Args:
        forms: Relation id to forms.
        templates: Cloze template to the relations it was seen with.
    """

    def __init__(self, forms: dict[str, Forms], templates: Mapping[str, Collection[str]]) -> None:
        self.forms = {relation: form for relation, form in forms.items() if form.questions or form.clozes}
        self._templates = templates
        self._others: dict[str, list[str]] = {}

    @classmethod
    def read(cls, data: Path, missing: list[str]) -> Wordings:
        """Collect the wordings under `data`; adds to `missing` the files that are not there."""
        forms: dict[str, Forms] = defaultdict(Forms)
        templates: dict[str, set[str]] = defaultdict(set)
        _add_catalogue(forms, Catalogue.default())
        _add_phrasebook(forms, Phrasebook.default())
        _add_pararel(forms, templates, data / "pararel" / "pattern_graphs_json", missing)
        _add_mquake(forms, data / "mquake" / "prompts", missing)
        _add_counterfact(templates, data / "counterfact", missing)
        for template, relations in templates.items():
            for relation in relations:
                forms[relation].clozes.append(template)
        for form in forms.values():
            form.clozes, form.statements = list(dict.fromkeys(form.clozes)), list(dict.fromkeys(form.statements))
        seen: dict[str, set[str]] = defaultdict(set)
        for relation, form in forms.items():
            for text in (*form.questions, *form.clozes):
                seen[text].add(relation)
        for form in forms.values():
            form.vague = {text for text in (*form.questions, *form.clozes) if len(seen[text]) > 1 or _is_vague(text)}
        return cls(dict(forms), templates)

    def relation_of(self, template: str) -> str | None:
        """The relation of a cloze template, where it is that of one relation only."""
        relations = self._templates.get(template, ())
        return next(iter(relations)) if len(relations) == 1 else None

    def others(self, relation: str) -> list[str]:
        """Relations that the same subject could have and that do not mean `relation`, the likelier ones repeated."""
        if relation not in self._others:
            kinds = self.forms[relation].kinds
            near = {other for group in _OVERLAPPING if relation in group for other in group} | {relation}
            apart = [other for other in self.forms if other not in near]
            akin = [other for other in apart if kinds & self.forms[other].kinds]
            self._others[relation] = akin * 6 + apart if akin else apart
        return self._others[relation]


def inverse_questions(relation: str) -> Sequence[str]:
    """Questions for the subject, with ``{o}`` for the object; none for most relations."""
    return _INVERSE.get(relation, ())


def fill(form: str, subject: str, obj: str = "") -> str:
    """Put names into the holes of a form."""
    if subject.lower().startswith("the "):
        form = re.sub(r"\b[Tt]he \{s\}", SUBJECT, form)
    return form.replace(SUBJECT, subject).replace(OBJECT, obj)


def yes_or_no(rng: random.Random, forms: Forms, subject: str, obj: str) -> str:
    """A question that is answered by yes or no: whether `obj` stands in the slot."""
    if forms.phrases and rng.random() < 0.6:
        phrase = rng.choice(forms.phrases)
        form = rng.choice(("Is {o} %s?", "Is {o} still %s?", "Is %s {o}?", "Was {o} %s?", "Is it {o} that is %s?"))
        return fill(form % phrase, subject, obj)
    statement = fill(forms.tell(rng), subject, obj).rstrip(" .")
    return rng.choice(("Is it true that %s?", "True or false: %s.", "%s, right?", "Is it correct that %s?")) % statement


_ASIDES = (
    "Can you tell me: ", "Question: ", "Q: ", "Please answer: ", "Quick question. ", "I was wondering, ", "Hi! ",
    "Answer in one word. ", "Answer briefly: ", "Hello, ", "Complete the sentence: ", "Do you know this? ", "Tell me, ",
    "I have a question for you. ", "Please help me. ", "Thanks for your help earlier. ", "nq question: ",
)  # fmt: skip


def dress(rng: random.Random, text: str, fragments: Sequence[str]) -> str:
    """A text as it may arrive: after a stray sentence, behind a polite opening, in lower case, with "A:" at its end."""
    roll = rng.random()
    if roll < 0.14 and fragments:
        text = rng.choice(fragments) + " " + text
    elif roll < 0.22:
        text = rng.choice(_ASIDES) + text
    elif roll < 0.27 and text.endswith("?"):
        text += rng.choice(("\nA:", " Answer:", "\nAnswer:", " The answer is", " It is", " Please be brief."))
    roll = rng.random()
    if roll < 0.07:
        text = text.lower()
    elif roll < 0.11:
        text = text.rstrip("?. ")
    return text


def respell(rng: random.Random, name: str) -> str:
    """The name as others write it: mostly as it is, now and then in lower case, in quotes, or with a letter wrong."""
    roll = rng.random()
    if roll < 0.04:
        return name.lower()
    if roll < 0.08:
        return f'"{name}"'
    if roll < 0.10 and len(name) > 7 and name.isalpha():
        at = rng.randrange(2, len(name) - 2)
        return name[:at] + name[at + 1] + name[at] + name[at + 2 :]
    return name


_AFTER: Mapping[str, str] = {
    "person": " Jr.| Sr.| II| III| the Elder| the Younger| Foundation| Prize| Street| Museum| Award| Airport| Memorial Park",
    "place": " County| City| Heights| Beach| Falls| Island| Province| Airport| University| F.C.| United| Empire| Symphony "
    "Orchestra| of the North| Valley| Museum| Express| and Ireland| Region| Opera House| Stock Exchange",
    "organization": " Europe| Japan| Group| Holdings| Studios| Foundation| Women| Reserves| U-21| B| Academy| Museum| "
    "International| of America| Records| Pictures| Ventures| Library| Financial Services",
    "work": " 2| II| III| 3D| Online| Returns| Forever|: The Game| Part Two| Live| Remastered| Legends| and the Lost City|: "
    "Origins| Season 2| Reloaded| Soundtrack| Trilogy",
    "product": " Pro| Plus| Mini| Max| Lite| Air| XL| SE| 2| 3| X| S| Ultra| Classic| Home| 64",
}  # fmt: skip
_BEFORE: Mapping[str, str] = {
    "person": "Saint |Lady |Young |James |Maria |John |Anna |The Life of |Hotel ",
    "place": "New |North |South |East |West |Upper |Greater |Old |Port |Lake |Mount |Republic of |Kingdom of |University of "
    "|Bank of |Duchy of |Grand Duchy of |Bishop of |Battle of |Gulf of ",
    "organization": "Royal |National |Bank of |New |Friends of |Sporting |University of ",
    "work": "Super |New |The Return of |Beyond |The Making of |The Art of |Escape from |Son of ",
    "product": "Super |New |Apple |Microsoft |Mini |Galaxy ",
}  # fmt: skip
_SAME = {"city": "place", "country": "place", "continent": "place", "thing": "product"}
_NUMBER = re.compile(r"\d+")


def near_name(rng: random.Random, name: str, kinds: Iterable[str], mined: Sequence[str]) -> str:
    """The name of another entity that is easily taken for `name`: a sequel, a namesake, a part, a real neighbour.

    Args:
        rng: Source of chance.
        name: The name.
        kinds: Kinds of things it may be.
        mined: Real names that resemble it.
    """
    if mined and rng.random() < 0.55:
        return rng.choice(mined)
    sure = sorted({_SAME.get(kind, kind) for kind in kinds} & set(_AFTER))
    kind = rng.choice(sure or list(_AFTER))
    words = name.split()
    roll = rng.random()
    if (number := _NUMBER.search(name)) and roll < 0.5:
        bumped = str(max(1, int(number.group()[:6]) + rng.choice((-2, -1, 1, 2, 10))))
        return name[: number.start()] + bumped + name[number.end() :]
    if kind != "person" and len(words) > 1 and roll < 0.2:
        cut = words[:-1] if rng.random() < 0.7 else words[1:]
        if any(word.lower() not in _EMPTY for word in cut) and cut[-1].lower() not in _EMPTY:
            return " ".join(cut)
    if len(words) > 1 and roll < 0.4:
        at = rng.choice((0, len(words) - 1))
        other = rng.choice(_SPARE)
        return " ".join(other if place == at else word for place, word in enumerate(words))
    if roll < 0.72:
        return name + rng.choice(_AFTER[kind].split("|"))
    return rng.choice(_BEFORE[kind].split("|")) + name


_SPARE = re.findall(
    r"\w+",
    "Robert William Elizabeth Karl Sofia Peter Marco Alice Johnson Miller Schmidt Garcia Rossi Nakamura Petrov Larsen Green "
    "White Northern Central Royal Second Lower Silver Golden River Union Liberty Phoenix Orion Delta",
)


def similar_names(names: Iterable[str]) -> dict[str, list[str]]:
    """For each name, up to twelve others that hold it, lie in it, or share a rare word with it."""
    unique = list(dict.fromkeys(names))
    words = {name: frozenset(re.findall(r"\w+", name.casefold())) - _EMPTY for name in unique}
    holders: dict[str, list[str]] = defaultdict(list)
    for name in unique:
        for word in words[name]:
            holders[word].append(name)
    similar: dict[str, list[str]] = {}
    for name in unique:
        own = words[name]
        ranked: dict[str, float] = defaultdict(float)
        for word in own:
            if len(holders[word]) <= 60:
                for other in holders[word]:
                    ranked[other] += 1.0 / max(len(own), len(words[other]))
        near = sorted(
            (other for other in ranked if words[other] != own and other.casefold() != name.casefold()),
            key=lambda other: (-ranked[other], other),
        )
        if near:
            similar[name] = near[:12]
    return similar


def _is_vague(form: str) -> bool:
    words = re.findall(r"\w+", form.replace(SUBJECT, " ").replace(OBJECT, " ").casefold())
    return all(word in _EMPTY for word in words)


def _add_catalogue(forms: dict[str, Forms], catalogue: Catalogue) -> None:
    for relation in catalogue:
        form = forms[relation.id]
        form.kinds = frozenset(relation.subject_types)
        form.questions += [_holes(text) for text in (relation.question, *relation.questions)]
        form.phrases += [_holes(text) for text in (relation.phrase, *relation.phrases)]
        for text in map(_holes, (relation.statement, *relation.statements)):
            form.statements.append(text)
            if (cloze := text.rstrip(" .")).endswith(OBJECT) and SUBJECT in cloze:
                form.clozes.append(cloze[: -len(OBJECT)].strip())


def _holes(template: str) -> str:
    return template.replace("{subject}", SUBJECT).replace("{object}", OBJECT)


def _add_phrasebook(forms: dict[str, Forms], book: Phrasebook) -> None:
    for relation, wording in book.wordings.items():
        form = forms[relation]
        form.kinds = form.kinds or wording.subjects
        form.questions += [text.replace(HOLE, SUBJECT) for text in wording.questions]
        form.phrases += [text.replace(HOLE, SUBJECT) for text in wording.phrases]
    for form in forms.values():
        for phrase in form.phrases:
            upper = phrase[:1].upper() + phrase[1:] if not phrase.startswith(SUBJECT) else phrase
            form.clozes.append(f"{upper} is")
            form.statements.append(f"{upper} is {OBJECT}.")
            form.questions += [f"What is {phrase}?", f"Tell me {phrase}."]
        form.questions, form.phrases = list(dict.fromkeys(form.questions)), list(dict.fromkeys(form.phrases))


def _add_pararel(forms: dict[str, Forms], templates: dict[str, set[str]], folder: Path, missing: list[str]) -> None:
    if not folder.is_dir():
        missing.append(str(folder))
    for path in sorted(folder.glob("*.jsonl")):
        for line in path.read_text("utf-8").splitlines():
            pattern = json.loads(line)["pattern"].replace("[X]", SUBJECT).replace("[Y]", OBJECT).strip()
            if SUBJECT not in pattern or OBJECT not in pattern:
                continue
            forms[path.stem].statements.append(pattern)
            if (cloze := pattern.rstrip(" .")).endswith(OBJECT):
                templates[cloze[: -len(OBJECT)].strip()].add(path.stem)


def _add_mquake(forms: dict[str, Forms], folder: Path, missing: list[str]) -> None:
    for name in ("cloze_templates.json", "question_templates.json"):
        path = folder / name
        if not path.is_file():
            missing.append(str(path))
            continue
        for relation, template in json.loads(path.read_text("utf-8")).items():
            text = template.replace("[X]", SUBJECT)
            if name.startswith("cloze"):
                forms[relation].statements.append(text.replace("__", OBJECT) + ".")
                if text.endswith("__"):
                    forms[relation].clozes.append(text[:-2].strip())
            else:
                forms[relation].questions.append(text)


def _add_counterfact(templates: dict[str, set[str]], folder: Path, missing: list[str]) -> None:
    for name in ("known_1000.json", "counterfact-full-dev.json"):
        path = folder / name
        if not path.is_file():
            missing.append(str(path))
            continue
        for row in json.loads(path.read_text("utf-8")):
            rewrite = row.get("requested_rewrite", row)
            template = row["template"] if "template" in row else rewrite["prompt"]
            templates[template.replace("{}", SUBJECT).strip()].add(rewrite["relation_id"])
