"""The decoding loop of the in-process models: rows side by side, a shared prefix run once, stops, constraints.

Works on token ids and on any `Network`; renders no prompts and knows no names of models. The own `generate` of transformers is
not used for its models: it cannot start a batch from a prefix that its prompts share without running that prefix for each of
them, and it shows no token before all rows are done.
"""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from memedit.models.base import Sampling, Score
from memedit.models.network import Network, Reading, States, Tokens

if TYPE_CHECKING:
    import torch
    from llguidance import LLMatcher

_SHORTEST_PREFIX = 32  # tokens; prompts that share fewer are not grouped
_WORTH_KEEPING = 128  # tokens not run again, over a group, from which a prefix pays for the smaller batches it brings
_SLACK = 16  # tokens by which a prefix already kept may be shorter than the one the prompts share


@dataclass(slots=True, eq=False)
class Row:
    """One prompt being completed.

    Attributes:
        tokens: The prompt.
        sampling: How to decode it.
        decode: Token ids to text.
        matcher: Says which tokens may come next, where the output has a schema.
        generator: Source of randomness for temperatures above 0.
        generated: Tokens written so far, without the end-of-text token.
        text: Their text, cut before a stop string; set at the end.
        finish_reason: None while it is being written.
    """

    tokens: Tokens
    sampling: Sampling
    decode: Callable[[Tokens], str]
    matcher: LLMatcher | None = None
    generator: torch.Generator | None = None
    generated: Tokens = field(default_factory=list)
    text: str = ""
    finish_reason: Literal["stop", "length"] | None = None

    def accept(self, token: int, ends: frozenset[int]) -> None:
        """Take the next token."""
        if token in ends:
            self._finish(self.decode(self.generated), "stop")
            return
        self.generated.append(token)
        if self.matcher is not None:
            self.matcher.consume_token(token)
        if self.sampling.stop:
            text = self.decode(self.generated)
            cuts = [at for at in (text.find(stop) for stop in self.sampling.stop) if at >= 0]
            if cuts:
                self._finish(text[: min(cuts)], "stop")
                return
        if self.matcher is not None and self.matcher.is_stopped():
            self._finish(self.decode(self.generated), "stop")
        elif len(self.generated) >= self.sampling.max_tokens:
            self._finish(self.decode(self.generated), "length")

    def settled_text(self) -> str:
        """The text that no later token can change: without half a character, or the beginning of a stop string."""
        if self.finish_reason is not None:
            return self.text
        text = self.decode(self.generated).rstrip("\N{REPLACEMENT CHARACTER}")
        held = max((_overlap(text, stop) for stop in self.sampling.stop), default=0)
        return text[: len(text) - held]

    def _finish(self, text: str, reason: Literal["stop", "length"]) -> None:
        self.text, self.finish_reason = text, reason


class Decoder:
    """Runs rows through one network.

    Args:
        network: Token ids to logits.
        ends: Tokens that end a text.
        keep: How many shared prefixes are kept ready (0: prefixes are not shared).
    """

    def __init__(self, network: Network, ends: frozenset[int], *, keep: int = 4) -> None:
        self.ends = ends
        self._network = network
        # A sliding window or a recurrent state cannot be cut at the end of a prefix, nor can its rows be dropped.
        self._keep = keep if network.is_plain else 0
        self._kept: OrderedDict[tuple[int, ...], States] = OrderedDict()
        self._recent: deque[Tokens] = deque(maxlen=4)
        self._lock = threading.Lock()

    def group(self, prompts: Sequence[Tokens]) -> list[tuple[Tokens, list[int]]]:
        """Sort prompts by the prefix they share: pairs of that prefix (empty: none) and indices into `prompts`."""
        clusters: dict[tuple[int, ...], list[int]] = {}
        for index, tokens in enumerate(prompts):
            clusters.setdefault(tuple(tokens[:_SHORTEST_PREFIX]), []).append(index)
        groups: list[tuple[Tokens, list[int]]] = []
        others: list[int] = []
        with self._lock:
            for members in clusters.values():
                prefix = self._shared_prefix([prompts[index] for index in members])
                if prefix:
                    groups.append((prefix, members))
                else:
                    others += members
            self._recent.extend(prompts[-1:])
        return [*groups, ([], others)] if others else groups

    def run(self, rows: Sequence[Row], prefix: Tokens) -> Iterator[None]:
        """Complete rows that all begin with `prefix`, side by side; yields after every token.

        Prompts are padded on the left, so that all rows write their next token in one column. Rows that are done leave the
        batch once they are half of it.
        """
        import torch

        active = [row for row in rows if row.sampling.max_tokens > 0]
        if not active:
            return
        ids, mask, positions, reading = self._begin([row.tokens for row in active], prefix)
        while True:
            with torch.inference_mode():
                chosen = _next_tokens(reading.read(ids, mask, positions, 1)[:, -1], active)
            for row, token in zip(active, chosen, strict=True):
                if row.finish_reason is None:
                    row.accept(token, self.ends)
            yield
            going = [index for index, row in enumerate(active) if row.finish_reason is None]
            if not going:
                return
            ids = torch.tensor(chosen, device=ids.device)[:, None]
            if 2 * len(going) <= len(active) and self._network.is_plain:
                kept = torch.tensor(going, device=ids.device)
                with torch.inference_mode():
                    reading.select(kept)
                ids, mask, positions = ids[kept], mask[kept], positions[kept]
                active = [active[index] for index in going]
            mask = torch.cat([mask, mask.new_ones(len(active), 1)], dim=1)
            positions = positions[:, -1:] + 1

    def score(self, texts: Sequence[tuple[Tokens, int]], prefix: Tokens) -> list[Score]:
        """Score the ends of texts that all begin with `prefix`.

        Args:
            texts: Tokens, and the index of the first one to be scored (at least 1, and beyond the prefix).
            prefix: What all of them begin with.
        """
        import torch

        width = max(len(tokens) - start for tokens, start in texts)
        ids, mask, positions, reading = self._begin([tokens for tokens, _ in texts], prefix)
        scores = []
        with torch.inference_mode():
            logits = reading.read(ids, mask, positions, width + 1)
            for row, (tokens, start) in zip(logits, texts, strict=True):
                wanted = torch.tensor(tokens[start:], dtype=torch.long, device=row.device)
                predicted = torch.log_softmax(row[-len(wanted) - 1 : -1].float(), dim=-1)
                total = float(predicted.gather(1, wanted[:, None]).sum())
                likeliest = predicted.argmax(dim=1)
                matched = int((likeliest == wanted).sum())
                scores.append(Score(total, len(wanted), matched == len(wanted), matched, tuple(likeliest.tolist())))
        return scores

    def _begin(
        self, prompts: Sequence[Tokens], prefix: Tokens
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, Reading]:
        """What a batch begins with.

        Returns:
            Token ids still to be run [rows, width], padded on the left; the attention mask over the prefix and them; their
            positions [rows, width]; and a reading of which each row has read the prefix.
        """
        import torch

        rests = [tokens[len(prefix) :] for tokens in prompts]
        width = max(map(len, rests))
        pads = [width - len(rest) for rest in rests]
        device = self._network.device
        ids = torch.tensor([[0] * pad + rest for pad, rest in zip(pads, rests, strict=True)], device=device)
        mask = torch.tensor([[1] * len(prefix) + [0] * pad + [1] * (width - pad) for pad in pads], device=device)
        positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -width:]
        reading = self._network.begin(len(prompts), self._states(prefix) if prefix else ())
        return ids, mask, positions, reading

    def _states(self, prefix: Tokens) -> States:
        """What the network keeps of a prefix."""
        import torch

        key = tuple(prefix)
        with self._lock:
            states = self._kept.get(key)
            if states is not None:
                self._kept.move_to_end(key)
                return states
        reading = self._network.begin(1)
        ids = torch.tensor([prefix], device=self._network.device)
        positions = torch.arange(len(prefix), device=ids.device)[None]
        with torch.inference_mode():
            reading.read(ids, torch.ones_like(ids), positions, 1)
            states = reading.states()
        with self._lock:
            self._kept[key] = states
            while len(self._kept) > self._keep:
                self._kept.popitem(last=False)
        return states

    def _shared_prefix(self, prompts: Sequence[Tokens]) -> Tokens:
        if not self._keep:
            return []
        first = prompts[0]
        longest = min(map(len, prompts)) - 1  # of every prompt one token has to be run, to get the logits of the next
        shared = _common(prompts, longest)
        if len(prompts) == 1:  # one prompt after the other: those before it show what they have in common
            shared = max((_common([first, other], longest) for other in self._recent), default=0)
        kept = [
            len(key) for key in self._kept if len(key) <= longest and all(p[: len(key)] == list(key) for p in prompts)
        ]
        if kept and max(kept) >= shared - _SLACK:
            return first[: max(kept)]
        is_worth_it = len(prompts) == 1 or (len(prompts) - 1) * shared >= _WORTH_KEEPING
        return first[:shared] if is_worth_it and shared >= _SHORTEST_PREFIX else []


def _next_tokens(logits: torch.Tensor, rows: Sequence[Row]) -> list[int]:
    import torch

    logits = logits.float()
    for index, row in enumerate(rows):
        if row.matcher is not None and row.finish_reason is None:
            allowed = torch.frombuffer(bytearray(row.matcher.compute_logit_bias()), dtype=torch.uint8).bool()
            logits[index].masked_fill_(~allowed.to(logits.device), -torch.inf)
    chosen: list[int] = logits.argmax(dim=1).tolist()
    for index, row in enumerate(rows):
        if row.sampling.temperature > 0 and row.finish_reason is None:
            probabilities = torch.softmax(logits[index].cpu() / row.sampling.temperature, dim=0)
            chosen[index] = int(torch.multinomial(probabilities, 1, generator=row.generator))
    return chosen


def _common(prompts: Sequence[Tokens], longest: int) -> int:
    """How many leading tokens all prompts share, at most `longest`."""
    first, last = min(prompts), max(prompts)  # everything else lies between these two, so their prefix is everyone's
    shared = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), min(len(first), len(last)))
    return min(shared, longest)


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that is a beginning of `stop`."""
    return next((size for size in range(min(len(stop), len(text)), 0, -1) if text.endswith(stop[:size])), 0)
