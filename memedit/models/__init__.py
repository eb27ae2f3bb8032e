"""Language models: one file a backend, chosen by a short spec. Nothing heavy is imported before a model is loaded.

| spec | model |
| --- | --- |
| ``embedded`` | SmolLM2-135M-Instruct, in this process, no download |
| ``hf:NAME_OR_PATH`` | any causal model of transformers, in this process |
| ``vllm:NAME_OR_PATH`` | the same in vLLM, in this process, for batches (extra ``gpu``) |
| ``http://host:port/v1`` | an OpenAI-compatible server; ``#NAME`` at the end picks one of its models |
| ``NAME`` or ``NAME:REST`` | a backend of another package |

Another package adds a backend with a function from REST (a string, empty if there is none) to a model:

    [project.entry-points."memedit.models"]
    NAME = "its_package:function"
"""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points

from memedit.errors import InvalidSpec
from memedit.models.base import Completion, LanguageModel, Message, Prompt, Sampling, Score

__all__ = ["Completion", "LanguageModel", "Message", "Prompt", "Sampling", "Score", "is_embedded", "load_model"]

ENTRY_POINTS = "memedit.models"


def is_embedded(spec: str | LanguageModel) -> bool:
    """Whether a spec or a model is the embedded language model."""
    return spec == "embedded" if isinstance(spec, str) else spec.name.startswith("embedded:")


def load_model(spec: str | LanguageModel) -> LanguageModel:
    """The model that `spec` names; a model is given back as it is.

    Raises:
        InvalidSpec: `spec` names no backend.
        ModelNotFound: The backend has no such model. A server is asked at the first call, not here.
    """
    if not isinstance(spec, str):
        return spec
    kind, _, rest = spec.partition(":")
    if spec == "embedded":
        from memedit.models.embedded import load_embedded

        return load_embedded()
    if kind == "hf" and rest:
        from memedit.models.transformers import TransformersModel

        return TransformersModel(rest)
    if kind == "vllm" and rest:
        from memedit.models.vllm import VLLMModel

        return VLLMModel(rest)
    if kind in ("http", "https"):
        from memedit.models.openai import OpenAIModel

        url, _, name = spec.partition("#")
        return OpenAIModel(url, name or None)
    plugins: dict[str, EntryPoint] = {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}
    if kind not in plugins:
        own = ("embedded", "hf:NAME_OR_PATH", "vllm:NAME_OR_PATH", "http://host:port/v1")
        known = [repr(name) for name in (*own, *sorted(plugins))]
        raise InvalidSpec(
            f"{spec!r} names no language model.", f"Use one of {', '.join(known)}, or give a model object."
        )
    model: LanguageModel = plugins[kind].load()(rest)
    return model
