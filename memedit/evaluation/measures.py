"""The measures of single-hop editing: small functions over strings and scores, each with its paper's formula.

Two scorings, never mixed:

- *teacher forced*: how probable the expected words are after the prompt (ROME and EasyEdit measure this way);
- *generated*: whether what comes back is the expected answer, by normalised exact match (what a user sees).

Beside them stands *mentioned*, for what answers in sentences: whether the expected answer is anywhere in what was generated.

Knows nothing of files, models or memories.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence

from memedit.evaluation.scoring import Share, matches, normalise
from memedit.models.base import Score

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+")
_WORD = re.compile(r"\w+|[^\w\s]")
_ENTROPY_WEIGHTS = {2: 2 / 3, 3: 4 / 3}


def is_cloze(prompt: str) -> bool:
    """Whether a prompt is a sentence to be continued rather than a question.

    >>> is_cloze("The capital of France is"), is_cloze("What is the capital of France?")
    (True, False)
    """
    return not prompt.rstrip().endswith("?")


def answer_right(text: str, prompt: str, accepted: Iterable[str]) -> bool:
    """Whether a generated answer is an accepted one.

    - After a question: the whole answer is an accepted name, by normalised exact match (`scoring.normalise`).
    - After a cloze: the answer begins with an accepted name, normalised, and the name ends where a word ends, for the
      rest of the sentence may follow. Where the answer first repeats the cloze, or its last sentence, it is what comes
      after that which must begin with the name.

    Containing the name somewhere else is never enough: that is `mentions`.

        >>> answer_right("Lyon, of course.", "The capital of France is", ["Lyon"])
        True
        >>> answer_right("The capital of France is Lyon.", "The capital of France is", ["Lyon"])
        True
        >>> answer_right("Not Lyon.", "The capital of France is", ["Lyon"])
        False
        >>> answer_right("Lyon, of course.", "What is the capital of France?", ["Lyon"])
        False
    """
    names = list(accepted)
    if not is_cloze(prompt):
        return matches(text, names)
    said = normalise(text)
    for cloze in map(normalise, (prompt, _SENTENCE_END.split(prompt)[-1])):
        if said.startswith(f"{cloze} "):
            said = normalise(said.removeprefix(f"{cloze} "))
    return any(f"{said} ".startswith(f"{name} ") for name in map(normalise, names) if name)


def mentions(text: str, accepted: Iterable[str], against: str | None = None) -> bool:
    """Whether a generated answer has an accepted name in it, in whole words, normalised, and has not the name `against`.

    It finds the answer in whatever sentence it stands, also in one that says that it is wrong.

        >>> mentions("It lies in Lyon, in France.", ["Lyon"]), mentions("Lyon, not Paris.", ["Lyon"], "Paris")
        (True, False)
    """
    said = f" {normalise(text)} "

    def has(name: str) -> bool:
        return bool(normalise(name)) and f" {normalise(name)} " in said

    return any(map(has, accepted)) and not (against is not None and has(against))


def preferred(expected: Score, other: Score) -> bool:
    """ROME's success (Meng et al. 2022, section 3.3): P(expected | prompt) > P(other | prompt).

    For edit success (ES) and paraphrase success (PS), expected is the new object o* and other the old one o_c; for neighborhood
    success (NS) the other way round. As in ROME's code, a probability is the geometric mean over an object's tokens,

        P(o | p) = exp( (1/|o|) Σ_i log P(o_i | p, o_<i) ),

    so that a longer name is not at a disadvantage.
    """
    return _per_token(expected) > _per_token(other)


def _per_token(score: Score) -> float:
    return score.log_probability / max(1, score.tokens)


def tokens_right(matched: int, tokens: int) -> float:
    """EasyEdit's accuracy under teacher forcing (Wang et al. 2023).

        (1/n) Σ_i [ argmax P(· | p, t_1 … t_{i-1}) = t_i ]

    where t_1 … t_n are the tokens of the expected answer.

        >>> tokens_right(1, 2)
        0.5
    """
    return matched / tokens if tokens else 0.0


def tokens_agree(before: Sequence[int], after: Sequence[int]) -> float:
    """EasyEdit's locality under teacher forcing: how many of the predicted tokens are those predicted before the edit.

        (1/n) Σ_i [ argmax P_before(· | p, t_1 … t_{i-1}) = argmax P_after(· | p, t_1 … t_{i-1}) ]

    where t_1 … t_n are the tokens of the expected answer.

        >>> tokens_agree([7, 8], [7, 9])
        0.5
    """
    return sum(old == new for old, new in zip(before, after, strict=True)) / len(before) if before else 0.0


def entropy(text: str) -> float | None:
    """Fluency as ROME has it (Meng et al. 2022, section 3.4): the weighted entropy of a text's n-grams, in bits.

        (1/2) Σ_{n in {2, 3}} w_n H_n,    H_n = -Σ_k f_n(k) log2 f_n(k),    w_2 = 2/3, w_3 = 4/3

    where f_n is the frequency of an n-gram of words. Text that repeats itself has little. (ROME prints 100 times this.) None
    for a text of under three words, which has no n-grams to speak of.

        >>> entropy("a a a a a a a")
        0.0
    """
    words = _WORD.findall(text)
    if len(words) <= max(_ENTROPY_WEIGHTS) - 1:
        return None
    return sum(weight * _bits(words, n) for n, weight in _ENTROPY_WEIGHTS.items()) / len(_ENTROPY_WEIGHTS)


def _bits(words: Sequence[str], n: int) -> float:
    counts = Counter(zip(*(words[start:] for start in range(n)), strict=False))
    total = sum(counts.values())
    return sum(-count / total * math.log2(count / total) for count in counts.values()) + 0.0


def mean(marks: Iterable[float]) -> Share:
    """The mean of marks in [0, 1] as a share of their number.

    Its interval is Wilson's, as for a proportion: for marks that count in part it is too wide rather than too narrow.

        >>> mean([1.0, 0.5]).value
        0.75
    """
    counted = list(marks)
    return Share(sum(counted), len(counted))
