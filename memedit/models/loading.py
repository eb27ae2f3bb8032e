"""Finding and loading a model of the transformers library: from a folder, the local hub cache, or the hub."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from memedit.errors import InvalidSpec, ModelNotFound

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_HUB_TIMEOUT = 10.0  # seconds
_FILES = ["*.json", "*.safetensors", "*.jinja", "*.txt", "*.model"]


def load(name_or_path: str | Path, dtype: str, device: str) -> tuple[PreTrainedTokenizerBase, PreTrainedModel]:
    """Load a tokenizer and a causal model in evaluation mode.

    Args:
        name_or_path: A folder, or a name on the hub.
        dtype: "float32", ..., or "auto": what the checkpoint holds.
        device: Where to put it.

    Raises:
        ModelNotFound: There is no such model, it is of another kind, or the hub cannot be reached.
        InvalidSpec: The device cannot be used.
    """
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM, AutoTokenizer

    place = locate(name_or_path)
    try:
        with _quiet():
            tokenizer = AutoTokenizer.from_pretrained(place, local_files_only=True)
            model = AutoModelForCausalLM.from_pretrained(
                place, local_files_only=True, dtype=dtype if dtype == "auto" else getattr(torch, dtype)
            )
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ModelNotFound(
            f"{name_or_path} cannot be loaded as a causal language model: {_first_line(error)}",
            "It needs config.json, model.safetensors and tokenizer.json, as transformers' save_pretrained writes them.",
        ) from error
    module: torch.nn.Module = model
    try:
        module.to(device)
    except (RuntimeError, AssertionError) as error:
        raise InvalidSpec(
            f"The device {device!r} cannot be used: {_first_line(error)}", "Use 'cpu', or 'cuda' where there is a GPU."
        ) from error
    module.eval()
    return tokenizer, model


def locate(name_or_path: str | Path) -> Path:
    """The folder with a model's files, fetched from the hub where they are not on this machine.

    Raises:
        ModelNotFound: There is no such model, or the hub cannot be reached.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    text = str(name_or_path)
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        return path
    if isinstance(name_or_path, Path) or path.is_absolute() or text.startswith((".", "~")) or text.count("/") > 1:
        raise ModelNotFound(
            f"There is no folder {text}.", "Check the path, or give a model's name on the hub, OWNER/NAME."
        )
    try:
        return Path(snapshot_download(text, allow_patterns=_FILES, local_files_only=True))
    except HFValidationError as error:
        raise ModelNotFound(
            f"{text!r} is neither a folder nor the name of a model.", "Names look like OWNER/NAME."
        ) from error
    except LocalEntryNotFoundError:
        return _fetch(text)


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """The tokens that end a text, as the tokenizer and the model's generation settings name them."""
    ends: set[int] = set()
    for value in (tokenizer.eos_token_id, getattr(model.generation_config, "eos_token_id", None)):
        ends.update(value if isinstance(value, list) else [value] if isinstance(value, int) else [])
    return frozenset(ends)


def _fetch(name: str) -> Path:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        # One quick question first: with no network the download itself would go on trying for most of a minute.
        HfApi().model_info(name, timeout=_HUB_TIMEOUT)
        return Path(snapshot_download(name, allow_patterns=_FILES))
    except HfHubHTTPError as error:
        raise ModelNotFound(
            f"There is no folder {name!r} here, and the hub shows no such model: {_first_line(error)}",
            "Check the name; a gated model needs the environment variable HF_TOKEN.",
        ) from error
    except Exception as error:  # connection errors are those of whichever HTTP library huggingface_hub uses
        raise ModelNotFound(
            f"The model {name!r} is not on this machine and the hub cannot be reached ({_first_line(error)}).",
            "Download it where there is a network and give the folder's path, or use 'embedded', which needs none.",
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the bar transformers draws while it loads; for most models it is gone before it is read."""
    from transformers.utils import logging

    was_on = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        if was_on:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
