"""What the serving benchmark asks: things that no fact in its memory is about, things that one is, and chains of hops.

The same seed gives the same prompts, and none is given twice: a model server caches what it has seen. Knows nothing of
servers.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from benchmarks.generated import FactMaker
from memedit.memory.fact import FactInput

_TASKS = (
    "Write a short poem about {thing} for {person}.",
    "Explain to {person} in two sentences why {thing} matters.",
    "Give me five tips on {thing}, suited to {person}.",
    "Translate into French: 'I would like to talk to {person} about {thing}.'",
    "Draft an e-mail to {person} that politely declines an invitation about {thing}.",
    "What should {person} know before reading a long book on {thing}?",
    "Write a Python function that prints the words '{thing}' and '{person}' in turn.",
    "Continue the story: one evening {person} found a box, and in it was {thing}.",
    "Is it a good idea for {person} to spend a whole weekend on {thing}?",
    "Summarise the pros and cons of {thing} as {person} would see them.",
)
_THINGS = (
    "the sea", "early trains", "sour bread", "tax forms", "a lost glove", "chess openings", "rain barrels", "night shifts",
    "old bicycles", "unit tests", "green tea", "paper maps", "noisy neighbours", "slow cooking", "garden walls",
    "used cameras", "short naps", "long division", "wool socks", "open windows", "cold soup", "loose screws",
)  # fmt: skip
_PEOPLE = (
    "my aunt", "a new colleague", "the whole team", "a tired teacher", "an old friend", "my landlord", "a shy child",
    "our caretaker", "a keen beginner", "the night nurse", "my three cousins", "a busy cook", "the choir", "a retired pilot",
)  # fmt: skip
_DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

CHAINS = (
    (
        "The capital of Japan is Osaka.",
        ("What is the capital of the country where Mount Fuji is located?",),
    ),
    (
        "The capital of France is Lyon.",
        (
            "What is the capital of the country where the Eiffel Tower is located?",
            "What is the capital of the country that Emmanuel Macron is a citizen of?",
        ),
    ),
    ("The capital of Italy is Turin.", ("What is the capital of the country where Venice is located?",)),
    ("The capital of Germany is Hamburg.", ("What is the capital of the country where Munich is located?",)),
    ("The official language of Brazil is Dutch.", ("What is the official language of the country where Rio is located?",)),
    (
        "The chief executive officer of Microsoft is Ada Lovelace.",
        ("Who is the chief executive officer of the company that developed Windows?",),
    ),
    (
        "The author of Hamlet is Jane Austen.",
        ("What is the country of citizenship of the author of Hamlet?", "What language does the author of Hamlet speak?"),
    ),
    (
        "The Louvre is located in the country of Canada.",
        ("What is the capital of the country where the Louvre is located?",),
    ),
)  # fmt: skip
"""Facts about what a small model knows too, and questions that reach them, or lead on from them, by its beliefs."""


def chats(seed: int) -> Iterator[str]:
    """What people ask a model that no fact is about, without end."""
    chance = random.Random(seed)
    while True:
        task = chance.choice(_TASKS).format(thing=chance.choice(_THINGS), person=chance.choice(_PEOPLE))
        yield f"It is {chance.choice(_DAYS)}, {chance.randrange(24)}:{chance.randrange(60):02}. {task}"


def outside(seed: int, known: FactMaker) -> Iterator[str]:
    """Prompts that none of a maker's facts is about, without end: chats, and as many questions about entities it does not have.

    The questions are in the same words as those that a fact is about, which is the harder half.

    Args:
        seed: The same seed gives the same prompts.
        known: The maker of the facts in memory.
    """
    makers = FactMaker(seed=seed, entities=3_000, catalogue=known.catalogue)
    talk, names = chats(seed), known.names
    given: set[str] = set()
    while True:
        [fact] = makers.facts(1)
        if fact.subject not in names:
            fresh = {next(talk), makers.question(fact)} - given
            given |= fresh
            yield from sorted(fresh)


def chain_facts() -> list[FactInput]:
    """The facts of `CHAINS`."""
    return [FactInput(statement=statement) for statement, _ in CHAINS]


def chain_questions() -> list[str]:
    """The questions of `CHAINS`."""
    return [question for _, questions in CHAINS for question in questions]


def payload(
    prompt: str, tokens: int, *, stream: bool = True, model: str | None = None, whole: bool = True
) -> dict[str, object]:
    """A chat request.

    Args:
        prompt: What the user says.
        tokens: Output tokens.
        stream: Whether the answer is streamed.
        model: The model's name, where the server needs one.
        whole: Whether the model is to write all the tokens, even past its end (vLLM's `ignore_eos`), so that answers take
            equally long.
    """
    body: dict[str, object] = {
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": tokens,
        "temperature": 0,
    }
    if model is not None:
        body["model"] = model
    if whole:
        body["ignore_eos"] = True
    if stream:
        body |= {"stream": True, "stream_options": {"include_usage": True}}
    return body


def batches(prompts: Iterator[str], sizes: Sequence[int]) -> Iterator[list[str]]:
    """The next prompts in lists of so many."""
    for size in sizes:
        yield [next(prompts) for _ in range(size)]
