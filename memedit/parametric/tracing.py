"""Causal tracing (Meng et al. 2022, section 2): where in a model a fact is recalled.

A fact's prompt is run three times: clean; with noise on the subject's embeddings, which makes the model forget the answer;
and with the noise but one clean state put back. How much of the answer's probability comes back is the state's indirect
effect. The layer whose MLP has the largest effect at the subject's last token is where a fact is best edited.

Knows nothing of edits.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple
from weakref import WeakKeyDictionary

from memedit.errors import InvalidEdit, InvalidSpec
from memedit.parametric.contexts import Marked, mark
from memedit.parametric.edits import WeightEdit
from memedit.parametric.layers import LayerMap, frozen
from memedit.parametric.states import changed, watched
from memedit.parametric.statistics import weights_hash

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

State = Literal["hidden", "mlp", "attention"]
"""What is put back: the residual stream after a layer, or the outputs of a window of MLPs or of attentions."""

KNOWN = (
    WeightEdit("The Eiffel Tower is in the city of", "Eiffel Tower", "Paris"),
    WeightEdit("The author of Romeo and Juliet is William", "Romeo and Juliet", "Shakespeare"),
    WeightEdit("The capital of South Korea is", "South Korea", "Seoul"),
    WeightEdit("The capital of the United Kingdom is", "United Kingdom", "London"),
    WeightEdit("Albert Einstein worked in the field of", "Albert Einstein", "physics"),
    WeightEdit("The Great Wall is a landmark in the country of", "Great Wall", "China"),
    WeightEdit("The Mona Lisa was painted by Leonardo da", "Mona Lisa", "Vinci"),
    WeightEdit("Star Wars was created by George", "Star Wars", "Lucas"),
)
"""Facts that most models know, to trace where the caller names none. Their subjects have several tokens: what a model makes of
a single one, the lowest layers alone give back."""


@dataclass(frozen=True, slots=True)
class Noise:
    """How the subject is corrupted.

    Attributes:
        strength: Standard deviation of the noise, in standard deviations of the token embeddings.
        samples: How many draws results are averaged over.
        seed: For what is drawn.
    """

    strength: float = 3.0
    samples: int = 10
    seed: int = 0


class Trace(NamedTuple):
    """What tracing one fact showed.

    Attributes:
        fact: The fact.
        state: What was put back.
        tokens: The prompt's tokens, as text.
        subject: Places of the subject's first and last token.
        places: The places whose states were put back.
        clean: The answer's probability in the clean run.
        corrupted: The same with the subject corrupted.
        restored: The same with a state put back, [places, layers].
    """

    fact: WeightEdit
    state: State
    tokens: tuple[str, ...]
    subject: tuple[int, int]
    places: tuple[int, ...]
    clean: float
    corrupted: float
    restored: torch.Tensor

    @property
    def effect(self) -> torch.Tensor:
        """The indirect effect: what putting a state back gains, [places, layers]."""
        return self.restored - self.corrupted


def trace(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    fact: WeightEdit,
    state: State = "hidden",
    *,
    window: int | None = None,
    places: Sequence[int] | None = None,
    noise: Noise = Noise(),
) -> Trace:
    """Trace one fact.

    Args:
        model: The model.
        tokenizer: Its tokenizer.
        fact: A fact that the model knows; the probability is that of its target's first token.
        state: What to put back.
        window: How many layers' MLPs or attentions are put back together, around each layer, with one more below it than
            above where they are even; by default a fifth of the layers, as in the paper. One layer's `hidden` is always
            put back alone.
        places: Which tokens' states to put back; negative ones count from the subject's last token down (-1 is that
            token). By default all.
        noise: How the subject is corrupted.

    Raises:
        UnknownLayers: The model's architecture is not known.
        InvalidSpec: There is no such state.
    """
    import torch

    names = LayerMap(model)
    if state not in ("hidden", "mlp", "attention"):
        raise InvalidSpec(f"There is no state {state!r} to put back.", "Use 'hidden', 'mlp' or 'attention'.")
    marked = mark(tokenizer, fact.text, fact.subject_span, len(fact.stem))
    prompt = marked.tokens[: marked.target]
    chosen = (
        range(len(prompt))
        if places is None
        else [place if place >= 0 else marked.subject[1] + 1 + place for place in places]
    )
    run = _Run(names, marked, noise)
    modules = [_module(names, state, layer) for layer in range(len(names))]
    size = 1 if state == "hidden" else _window(names) if window is None else window
    with frozen(model), torch.no_grad():
        clean, states = run.clean(modules)
        corrupted = float(run.corrupted(1).mean())
        rows = []
        for layer in range(len(names)):
            around = range(max(0, layer - size // 2), min(len(names), layer + (size + 1) // 2))
            rows.append(run.restored([modules[one] for one in around], [states[one] for one in around], list(chosen)))
    return Trace(
        fact,
        state,
        tuple(str(tokenizer.decode([token])) for token in prompt),
        marked.subject,
        tuple(chosen),
        clean,
        corrupted,
        torch.stack(rows, dim=1),
    )


class _Run:
    """Runs of one prompt."""

    def __init__(self, names: LayerMap, marked: Marked, noise: Noise) -> None:
        import torch

        self._names, self._noise = names, noise
        self._tokens = torch.tensor([marked.tokens[: marked.target]], device=names.model.device)
        self._answer = marked.tokens[marked.target]
        self._first, self._last = marked.subject
        embeddings = names.model.get_input_embeddings().weight
        assert isinstance(embeddings, torch.Tensor)
        generator = torch.Generator().manual_seed(noise.seed)
        shape = (noise.samples, self._last - self._first + 1, embeddings.shape[1])
        drawn = torch.randn(shape, generator=generator) * float(embeddings.detach().float().std()) * noise.strength
        self._drawn = drawn.to(embeddings.device, embeddings.dtype)

    def clean(self, modules: Sequence[nn.Module]) -> tuple[float, list[torch.Tensor]]:
        """The answer's probability, and what each module gives, [tokens, width]."""
        states: list[torch.Tensor] = []
        with ExitStack() as stack:
            for module in modules:
                stack.enter_context(watched(module, lambda _, made: states.append(made[0].clone())))
            return float(self._probabilities(1)[0]), states

    def corrupted(self, copies: int) -> torch.Tensor:
        """The answer's probability under each draw of noise, [copies * samples]."""

        def spoil(embedded: torch.Tensor) -> torch.Tensor:
            spoilt = embedded.clone()
            spoilt[:, self._first : self._last + 1] += self._drawn.repeat(copies, 1, 1)
            return spoilt

        with changed(self._names.embeddings(), spoil):
            return self._probabilities(copies * self._noise.samples)

    def restored(
        self, modules: Sequence[nn.Module], states: Sequence[torch.Tensor], places: Sequence[int]
    ) -> torch.Tensor:
        """The answer's mean probability with these modules' clean states put back at each place in turn, [places]."""
        import torch

        rows = torch.arange(len(places) * self._noise.samples)
        where = torch.tensor(places).repeat_interleave(self._noise.samples)

        def restore(clean: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
            mended = output.clone()
            mended[rows, where] = clean[where]
            return mended

        with ExitStack() as stack:
            for module, state in zip(modules, states, strict=True):
                stack.enter_context(changed(module, partial(restore, state)))
            return self.corrupted(len(places)).view(len(places), -1).mean(1)

    def _probabilities(self, rows: int) -> torch.Tensor:
        model = self._names.model
        hidden = model.base_model(self._tokens.expand(rows, -1), use_cache=False).last_hidden_state[:, -1]
        return self._names.logits(hidden).softmax(-1)[:, self._answer].cpu()


def decisive_layer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    facts: Sequence[WeightEdit] = KNOWN,
    *,
    noise: Noise = Noise(samples=5),
    folder: Path | None = None,
) -> int:
    """The layer to edit: where putting MLP outputs back at the subject's last token gains most, over several facts.

    Layers whose window holds the lowest layer are left out.

    Facts that the model does not know (their answer is not likelier clean than corrupted) do not count. The choice is kept
    in the user's cache folder, by the hash of the weights and all that was traced with: facts, noise and window.

    Args:
        model: The model, unedited.
        tokenizer: Its tokenizer.
        facts: The facts to trace.
        noise: How subjects are corrupted.
        folder: Where the choice is kept; by default ``parametric`` in memedit's cache folder.

    Raises:
        UnknownLayers: The model's architecture is not known.
        InvalidEdit: The model knows none of the facts.
    """
    names = LayerMap(model)
    # Kept by the model itself too: once it is edited, its hash is another, but the choice is still the unedited model's.
    picked, name = _PICKED.setdefault(model, {}), _choice_name(facts, noise, _window(names))
    if (folder, name) in picked:
        return picked[folder, name]
    path = _choice_folder(model, folder) / name
    layer = _read(path)
    if layer is None:
        traces = [trace(model, tokenizer, fact, "mlp", places=[-1], noise=noise) for fact in facts]
        gains = [one.effect[0] / (one.clean - one.corrupted) for one in traces if one.clean > 2 * one.corrupted]
        if not gains:
            raise InvalidEdit(
                "The model knows none of the facts that were traced, so no layer can be picked.",
                "Name the layer to edit.",
            )
        # Windows with the lowest layer in them do not count: its MLP works like an embedding of the token, so putting it
        # back undoes the noise instead of showing where the fact is recalled.
        lowest = _window(names) // 2 + 1
        layer = lowest + int(sum(gains[1:], gains[0])[lowest:].argmax())
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"layer": layer}), encoding="utf-8")
    picked[folder, name] = layer
    return layer


_PICKED: WeakKeyDictionary[PreTrainedModel, dict[tuple[Path | None, str], int]] = WeakKeyDictionary()


def _choice_name(facts: Sequence[WeightEdit], noise: Noise, window: int) -> str:
    """The name of the file that keeps a choice: another for whatever makes a choice another."""
    traced = hashlib.blake2b(repr((tuple(facts), noise, window)).encode(), digest_size=6).hexdigest()
    return f"decisive-{traced}.json"


def _choice_folder(model: PreTrainedModel, folder: Path | None) -> Path:
    from memedit.models.embedded import cache_folder

    return (folder or cache_folder() / "parametric") / weights_hash(model)


def _read(path: Path) -> int | None:
    try:
        return int(json.loads(path.read_text(encoding="utf-8"))["layer"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _window(names: LayerMap) -> int:
    """The usual number of MLPs or attentions to put back together."""
    return max(1, len(names) // 5)


def _module(names: LayerMap, state: State, layer: int) -> nn.Module:
    if state == "hidden":
        return names.layer(layer)
    return names.mlp(layer) if state == "mlp" else names.attention(layer)
