"""The counterfactual model that ships: the embedded language model with a small low-rank adapter (Hu et al. 2021, equation 3).

An adapter is a folder with ``adapter.safetensors`` (for each adapted matrix W, float16 A [rank, in] and B [out, rank]) and
``config.json`` (its scale and what it was trained on). The adapted matrix is W + scale * B A. Nothing but the adapted matrices
is held twice: the rest are the embedded model's own, mapped from the same file. Knows nothing of facts or prompts.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from memedit.errors import InvalidSpec, ModelNotFound
from memedit.models import LanguageModel, is_embedded

if TYPE_CHECKING:
    from torch import Tensor

    from memedit.models.local import LocalModel

NAME = "counterfactual:smollm2-135m-instruct"
WEIGHTS = "adapter.safetensors"


def shipped_adapter() -> Path:
    """The folder of the adapter that ships with the package; it may not be there."""
    return Path(str(files("memedit") / "weights" / "counterfactual"))


def has_adapter(folder: str | Path | None = None) -> bool:
    """Whether a folder holds an adapter; the one that ships if None."""
    return (Path(folder or shipped_adapter()) / WEIGHTS).is_file()


def choose_counterfactual(
    wanted: str | LanguageModel, model: str | LanguageModel
) -> Callable[[], LanguageModel] | None:
    """What gives the counterfactual model; None for the base model. See `MemEditor`.

    Raises:
        InvalidSpec: `wanted` means nothing.
    """
    if not isinstance(wanted, str):
        return lambda: wanted
    if wanted not in ("auto", "base", "adapter"):
        raise InvalidSpec(
            f"{wanted!r} names no counterfactual model.", "Use 'auto', 'base', 'adapter', or give a model object."
        )
    if wanted == "base" or (wanted == "auto" and not (is_embedded(model) and has_adapter())):
        return None
    lock, loaded = Lock(), list[LanguageModel]()

    def load() -> LanguageModel:
        with lock:
            if not loaded:
                loaded.append(load_adapted())
            return loaded[0]

    return load


def load_adapted(folder: str | Path | None = None) -> LocalModel:
    """The embedded model with an adapter.

    Args:
        folder: The adapter's folder; the one that ships if None.

    Raises:
        ModelNotFound: There is no adapter, or no embedded model.
    """
    import torch

    from memedit.models.embedded import model_folder
    from memedit.models.llama import Llama
    from memedit.models.local import LocalModel
    from memedit.models.tokens import FolderTokenizer

    deltas = read_deltas(folder)
    base = model_folder()
    network = Llama(base, "cuda" if torch.cuda.is_available() else "cpu", deltas=deltas)
    return LocalModel(network, FolderTokenizer(base), name=NAME)


def read_deltas(folder: str | Path | None = None) -> dict[str, Tensor]:
    """What an adapter adds to the matrices it adapts, float32, by the matrices' names.

    Raises:
        ModelNotFound: The folder holds no adapter.
    """
    from safetensors.torch import load_file

    place = Path(folder or shipped_adapter())
    if not has_adapter(place):
        raise ModelNotFound(
            f"There is no counterfactual adapter in {str(place)!r}.", "Train one with: memedit train counterfactual"
        )
    config = json.loads((place / "config.json").read_text("utf-8"))
    return merge(load_file(place / WEIGHTS), float(config["scale"]))


def merge(parts: Mapping[str, Tensor], scale: float) -> dict[str, Tensor]:
    """``scale * B A`` of every adapted matrix; parts are named ``NAME.a`` and ``NAME.b``."""
    names = sorted(name.removesuffix(".a") for name in parts if name.endswith(".a"))
    return {f"{name}.weight": scale * (parts[f"{name}.b"].float() @ parts[f"{name}.a"].float()) for name in names}
