"""One edit in many contexts: its sentence after sampled prefixes, as a batch that is cheap to run again and again.

What changes from run to run is one state at the subject's last token, and a causal model's earlier tokens never see it.
So the tokens before it (the heads) are run once, and only those from it on (the tails) are run at each step.

Knows nothing of how a value is found or written.
"""

from __future__ import annotations

import copy
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple
from weakref import WeakKeyDictionary

from memedit.errors import InvalidEdit
from memedit.parametric.edits import WeightEdit
from memedit.parametric.layers import LayerMap
from memedit.parametric.sample import continued
from memedit.parametric.states import watched

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from transformers.cache_utils import Cache


class Marked(NamedTuple):
    """A text as tokens.

    Attributes:
        tokens: Its tokens.
        subject: Places of the subject's first and last token.
        target: Place of the target's first token; the number of tokens, where there is no target.
    """

    tokens: list[int]
    subject: tuple[int, int]
    target: int


def mark(tokenizer: PreTrainedTokenizerBase, text: str, subject: tuple[int, int], target: int) -> Marked:
    """Tokenize a text and find its subject and its target.

    Args:
        tokenizer: A fast tokenizer.
        text: The text.
        subject: The subject's span in it, in characters.
        target: Where the target begins, in characters.

    Raises:
        InvalidEdit: The tokens do not tell where they stand in the text, or the target is in a token with the prompt.
    """
    if not tokenizer.is_fast:
        raise InvalidEdit(
            "This tokenizer does not tell where its tokens stand in the text, so the subject cannot be found.",
            "Load the model's fast tokenizer (tokenizer.json).",
        )
    encoded = tokenizer(text, return_offsets_mapping=True)
    spans: list[tuple[int, int]] = encoded["offset_mapping"]
    inside = [place for place, (start, end) in enumerate(spans) if start < subject[1] and end > subject[0]]
    after = [place for place, (start, end) in enumerate(spans) if end > target and end > start]
    begin = after[0] if after else len(spans)
    if not inside or inside[-1] >= begin:
        raise InvalidEdit(
            f"The subject of {text!r} cannot be told from what follows it in tokens.",
            "Put a word between the subject and the target.",
        )
    return Marked(encoded["input_ids"], (inside[0], inside[-1]), begin)


@dataclass(frozen=True)
class Prefixes:
    """How to sample the texts that a prompt is put after, so that an edit does not hang on its prompt's first words.

    Attributes:
        count: How many; the bare prompt is always a context too. The text of the ROME paper has 50, its published code 20.
            Fewer are taken because every step of an edit runs a row for each: with the embedded model on one core a step
            took 0.8 s with 6, 1.8 s with 20 and 3.9 s with 50, and for three subjects the key of 6 was within a cosine of
            0.99 of the key of 50.
        shortest: Tokens of the shortest after its first word.
        longest: Tokens of the longest after its first word.
        seed: For what is drawn.
    """

    count: int = 6
    shortest: int = 3
    longest: int = 10
    seed: int = 0

    def texts(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
        """The prefixes, written by the model after a common first word; drawn once for a model."""
        known = _WRITTEN.setdefault(model, {})
        if self not in known:
            known[self] = self._write(model, tokenizer)
        return known[self]

    def _write(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> tuple[str, ...]:
        import torch

        if not self.count:
            return ()
        words = [_OPENINGS[row % len(_OPENINGS)] for row in range(self.count)]
        starts: list[list[int]] = tokenizer(words)["input_ids"]
        width = min(len(start) for start in starts)
        rows = continued(model, torch.tensor([start[:width] for start in starts]), self.longest, self.seed)
        steps = max(self.count - 1, 1)
        lengths = [self.shortest + (self.longest - self.shortest) * row // steps for row in range(self.count)]
        written = [
            tokenizer.decode(row[: width + length], skip_special_tokens=True)
            for row, length in zip(rows, lengths, strict=True)
        ]
        return tuple(f"{' '.join(str(text).split())}. " for text in written)


_WRITTEN: WeakKeyDictionary[PreTrainedModel, dict[Prefixes, tuple[str, ...]]] = WeakKeyDictionary()


class Seen(NamedTuple):
    """A module at the subject's last token: the mean over an edit's sentences.

    Attributes:
        given: What goes into it, [inputs].
        made: What comes out, [outputs].
    """

    given: torch.Tensor
    made: torch.Tensor


_OPENINGS = ("The", "In", "Because", "I", "When", "You", "Then", "It")


class Contexts:
    """An edit's sentence after each prefix, and "SUBJECT is a" as the last row, which keeps the subject's essence.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        edit: The edit.
        prefixes: Texts to put before its sentence.

    Attributes:
        sentences: The number of rows before the last.
        rows: The rows' tokens.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, edit: WeightEdit, prefixes: tuple[str, ...]
    ) -> None:
        start, end = edit.subject_span
        self.rows = [
            mark(tokenizer, prefix + edit.text, (len(prefix) + start, len(prefix) + end), len(prefix) + len(edit.stem))
            for prefix in ("", *prefixes)
        ]
        self.sentences = len(self.rows)
        essence = f"{edit.subject.strip()} is a"
        self.rows.append(mark(tokenizer, essence, (0, len(edit.subject.strip())), len(essence)))
        self._model = model
        self._names = LayerMap(model)
        self._lay_out()

    def _lay_out(self) -> None:
        import torch

        device = self._model.device
        heads = torch.tensor([row.subject[1] for row in self.rows])
        width, length = int(heads.max()), max(len(row.tokens) - row.subject[1] for row in self.rows)
        self._head = torch.zeros(len(self.rows), width, dtype=torch.long)
        self._tail = torch.zeros(len(self.rows), length, dtype=torch.long)
        for number, row in enumerate(self.rows):
            head, tail = row.tokens[: row.subject[1]], row.tokens[row.subject[1] :]
            self._head[number, : len(head)] = torch.tensor(head, dtype=torch.long)
            self._tail[number, : len(tail)] = torch.tensor(tail, dtype=torch.long)
        seen = torch.arange(width) < heads[:, None]
        self._mask = torch.cat([seen, torch.ones_like(self._tail, dtype=torch.bool)], dim=1).long().to(device)
        self._positions = (heads[:, None] + torch.arange(length)).to(device)
        self._head, self._tail = self._head.to(device), self._tail.to(device)
        asked = [
            (number, place - 1 - row.subject[1], row.tokens[place])
            for number, row in enumerate(self.rows[: self.sentences])
            for place in range(row.target, len(row.tokens))
        ]
        self._asked = torch.tensor(asked, device=device).T
        last = self.rows[-1]
        self._essence = len(last.tokens) - 1 - last.subject[1]

    def head(self) -> Cache | None:
        """What the heads leave behind for the tails, with the weights as they are now; None if every head is empty."""
        import torch

        if not self._head.shape[1]:
            return None
        with torch.no_grad():
            # Heads are padded on the right, where nothing that counts sees it; the tails are told what to look past.
            cache: Cache = self._model.base_model(self._head, use_cache=True).past_key_values
        return cache

    def tail(self, head: Cache | None) -> torch.Tensor:
        """Run the tails: their last hidden states, [rows, tokens, width]. Token 0 is the subject's last."""
        hidden: torch.Tensor = self._model.base_model(
            self._tail,
            attention_mask=self._mask,
            position_ids=self._positions,
            past_key_values=copy.deepcopy(head),  # a run appends to it
            use_cache=head is not None,
        ).last_hidden_state
        return hidden

    def target_loss(self, hidden: torch.Tensor) -> torch.Tensor:
        """Mean of -log P(target token) over target tokens and sentences, from what `tail` gives."""
        import torch

        rows, places, tokens = self._asked
        return torch.nn.functional.cross_entropy(self._names.logits(hidden[rows, places]), tokens)

    def essence(self, hidden: torch.Tensor) -> torch.Tensor:
        """Log probabilities of what follows "SUBJECT is a", [vocabulary], from what `tail` gives."""
        return self._names.logits(hidden[-1, self._essence]).log_softmax(-1)

    def look(self, *modules: nn.Module) -> list[Seen]:
        """What each module is given and what it gives at the subject's last token, with the weights as they are now."""
        import torch

        found: list[Seen | None] = [None] * len(modules)

        def see(place: int, given: torch.Tensor, made: torch.Tensor) -> None:
            found[place] = Seen(given[: self.sentences, 0].mean(0), made[: self.sentences, 0].mean(0))

        head = self.head()
        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            for place, module in enumerate(modules):
                stack.enter_context(watched(module, partial(see, place)))
            self.tail(head)
        return [one for one in found if one is not None]
