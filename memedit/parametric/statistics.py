"""Second moments of a layer's keys, C = E[k k^T], from a sample of text, kept in the user's cache folder.

C tells which directions of key space the model uses, so that an update can avoid them (Meng et al. 2022, section 3.1).
It is estimated once for a model, a layer and a sample. A matrix is kept under the hash of the model's weights, so
another checkpoint under the same name gets its own, and with a hash of the sample in its name, so the matrices of all layers
come from the same text.

Knows nothing of edits.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from memedit.parametric.layers import LayerMap, frozen
from memedit.parametric.sample import TextSample
from memedit.parametric.states import Halt, stop_after, watched

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

RIDGE = 1e-4
"""Added to C's diagonal, as a part of the diagonal's mean: directions that the sample never showed stay invertible."""

_BATCH_TOKENS = 1024


class SecondMoments:
    """Estimates of C, computed when first asked for.

    Args:
        sample: The text to take keys from.
        folder: Where estimates are kept; by default ``parametric`` in memedit's cache folder.
    """

    def __init__(self, sample: TextSample | None = None, *, folder: Path | None = None) -> None:
        self.sample = sample or TextSample()
        self._folder = folder
        # The hash of a model is taken once, at its first use: edits made to it later still count against the same C.
        self._hashes: WeakKeyDictionary[PreTrainedModel, str] = WeakKeyDictionary()
        self._known: dict[tuple[str, int], torch.Tensor] = {}

    def get(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, layers: Sequence[int]
    ) -> dict[int, torch.Tensor]:
        """C of each layer, float64 [inputs, inputs], with the ridge added.

        Args:
            model: The model, unedited at the first call.
            tokenizer: Its tokenizer.
            layers: Numbers of layers.
        """
        if model not in self._hashes:
            self._hashes[model] = weights_hash(model)
        name = self._hashes[model]
        missing = [layer for layer in layers if (name, layer) not in self._known and not self._load(name, layer)]
        if missing:
            for layer, moment in estimate(model, self.sample.tokens(model, tokenizer), missing).items():
                self._known[name, layer] = moment
                self._save(name, layer)
        return {layer: _with_ridge(self._known[name, layer]) for layer in layers}

    def _path(self, name: str, layer: int) -> Path:
        from memedit.models.embedded import cache_folder

        folder = self._folder or cache_folder() / "parametric"
        return folder / name / f"layer-{layer}-{self.sample.fingerprint()}.safetensors"

    def _load(self, name: str, layer: int) -> bool:
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            self._known[name, layer] = load_file(self._path(name, layer))["moment"].double()
        except (OSError, KeyError, SafetensorError):  # not there, or damaged: it is estimated again
            return False
        return True

    def _save(self, name: str, layer: int) -> None:
        from safetensors.torch import save

        path = self._path(name, layer)
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, building = tempfile.mkstemp(prefix=f".{path.stem}-", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(save({"moment": self._known[name, layer].float().contiguous()}))
        Path(building).replace(path)


def estimate(model: PreTrainedModel, texts: Sequence[Sequence[int]], layers: Sequence[int]) -> dict[int, torch.Tensor]:
    """The mean of k k^T over every token but the first of each text, float64 [inputs, inputs] a layer.

    A text's first token attends to nothing else and gets the same outsized key whatever follows; it would drown the rest.

    Args:
        model: The model.
        texts: Tokens of each text.
        layers: Numbers of layers.
    """
    import torch

    names = LayerMap(model)
    widths = {layer: names.matrix(layer).shape[1] for layer in layers}
    moments = {layer: torch.zeros(width, width).double() for layer, width in widths.items()}
    count = 0
    mask = torch.zeros(0)

    def add(layer: int, keys: torch.Tensor, _: torch.Tensor) -> None:
        chosen = keys[mask].float()
        moments[layer] += (chosen.T @ chosen).double().cpu()

    with ExitStack() as stack:
        stack.enter_context(frozen(model))
        stack.enter_context(torch.no_grad())
        for layer in layers:
            stack.enter_context(watched(names.down(layer), partial(add, layer)))
        stack.enter_context(stop_after(names.down(max(layers))))
        for batch in _batches(texts):
            width = max(len(text) for text in batch)
            tokens = torch.tensor([[*text, *[0] * (width - len(text))] for text in batch], device=model.device)
            counts = [[0 < place < len(text) for place in range(width)] for text in batch]
            mask = torch.tensor(counts, device=model.device)
            count += int(mask.sum())
            with suppress(Halt):
                # Padding is on the right, where no token that counts can see it: no attention mask is needed.
                model.base_model(tokens, use_cache=False)
    return {layer: moment / max(count, 1) for layer, moment in moments.items()}


def weights_hash(model: PreTrainedModel) -> str:
    """A short name for exactly these weights: every byte of every parameter counts."""
    import torch

    digest = hashlib.blake2b(digest_size=12)
    for name, parameter in model.named_parameters():
        digest.update(f"{name} {tuple(parameter.shape)} {parameter.dtype}".encode())
        digest.update(parameter.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _with_ridge(moment: torch.Tensor) -> torch.Tensor:
    import torch

    return moment + RIDGE * moment.diagonal().mean() * torch.eye(len(moment), dtype=moment.dtype)


def _batches(texts: Sequence[Sequence[int]]) -> Iterator[list[Sequence[int]]]:
    batch: list[Sequence[int]] = []
    for text in sorted((text for text in texts if len(text) > 1), key=len):
        if batch and (len(batch) + 1) * len(text) > _BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(text)
    if batch:
        yield batch
