"""vLLM in this process, for batches: many prompts at a time, scheduled by vLLM, which keeps the prefixes they share.

For a vLLM server there is `memedit.models.openai`. Of vLLM only `LLM`, `SamplingParams` and structured outputs are touched.
Knows nothing of facts.
"""

from __future__ import annotations

import copy
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

from memedit.errors import InvalidSpec, MissingExtra, ModelNotFound, ModelUnavailable
from memedit.models.base import Completion, Prompt, Sampling, Score
from memedit.models.caching import CacheUsage
from memedit.models.loading import locate
from memedit.models.network import Tokens
from memedit.models.tokens import check_length, encoded, joined
from memedit.models.transformers import HubTokenizer

if TYPE_CHECKING:
    from vllm import LLM, RequestOutput, SamplingParams


class VLLMModel:
    """A `vllm.LLM` behind the `LanguageModel` protocol. Threads may share it; they take turns.

    vLLM runs its engine in processes of its own: a script that makes one of these at its top level does so under
    ``if __name__ == "__main__":``.

    Args:
        name_or_path: A folder, a name on the Hugging Face hub, or "embedded", the model that memedit brings.
        name: What reports call it; "vllm:" and `name_or_path` if not given.
        dtype: "float32", "bfloat16", "float16" or "auto"; by default float32 without a GPU (bfloat16 gives wrong text on CPUs
            without AVX-512), else what the checkpoint holds.
        context_length: Most tokens of prompt and completion; by default what the model was made for.
        options: Further arguments of `vllm.LLM`, e.g. {"tensor_parallel_size": 2}.

    Raises:
        MissingExtra: vLLM is not installed.
        ModelNotFound: There is no such model, or vLLM cannot load it.
    """

    def __init__(
        self,
        name_or_path: str | Path,
        *,
        name: str | None = None,
        dtype: str | None = None,
        context_length: int | None = None,
        options: Mapping[str, object] | None = None,
    ) -> None:
        self._name = name or f"vllm:{name_or_path}"
        self._llm = _load(name_or_path, dtype, context_length, options or {})
        self._tokenizer = HubTokenizer(self._llm.get_tokenizer(), frozenset())
        self._lock = threading.Lock()
        self._salt: str | None = None

    @property
    def name(self) -> str:
        """What reports call the model."""
        return self._name

    @property
    def context_length(self) -> int:
        """Most tokens of prompt and completion together."""
        return int(self._llm.model_config.max_model_len)

    def generate(self, prompts: Sequence[Prompt], sampling: Sampling = Sampling()) -> list[Completion]:
        """Complete the prompts in one batch; see `LanguageModel.generate`.

        Of `sampling.choices` the one is written that greedy decoding comes to where only they are allowed. After a raw prompt that
        does not end in white space a choice has a space before it.

        Raises:
            PromptTooLong: A prompt and `sampling.max_tokens` do not fit `context_length`.
            InvalidQuestion: A prompt is empty.
            InvalidSpec: vLLM cannot follow `sampling.json_schema`.
            ModelUnavailable: vLLM's engine has failed.
        """
        leads = [" " if isinstance(prompt, str) and not prompt[-1:].isspace() else "" for prompt in prompts]
        params = [_params(sampling, lead) for lead in leads]
        read = [encoded(self._tokenizer, prompt) for prompt in prompts]
        for tokens, wanted in zip(read, params, strict=True):
            check_length(self, len(tokens), 1 if sampling.choices else int(wanted.max_tokens or 0))
        done = self._run(read, params)
        return [_completion(output, sampling, lead) for output, lead in zip(done, leads, strict=True)]

    def stream(self, prompt: Prompt, sampling: Sampling = Sampling()) -> Iterator[str]:
        """The completion of one prompt; all of it in one piece, since `vllm.LLM` tells nothing before it is done."""
        text = self.generate([prompt], sampling)[0].text
        return iter([text] if text else [])

    def score(self, pairs: Sequence[tuple[Prompt, str]]) -> list[Score]:
        """Log probability of each continuation after its prompt.

        A raw prompt and its continuation are tokenized together, and the continuation begins at the first token that the prompt
        alone does not have. vLLM reads these prompts anew, without its prefix cache.

        Raises:
            PromptTooLong, InvalidQuestion, ModelUnavailable: As `generate`.
        """
        from vllm import SamplingParams

        texts = [joined(self._tokenizer, prompt, continuation) for prompt, continuation in pairs]
        for tokens, _ in texts:
            check_length(self, len(tokens), 1)
        wanted = SamplingParams(max_tokens=1, temperature=0.0, prompt_logprobs=1, detokenize=False)
        done = self._run([tokens for tokens, _ in texts], [wanted] * len(texts))
        return [_score(output, tokens, start) for output, (tokens, start) in zip(done, texts, strict=True)]

    def count_tokens(self, prompt: Prompt) -> int:
        """Tokens of a prompt, chat template included."""
        return len(encoded(self._tokenizer, prompt))

    def salted(self, salt: str) -> Self:
        """The same model in the same engine; its prompts share the prefix cache only with those of the same salt."""
        twin = copy.copy(self)
        twin._salt = salt
        return twin

    def cache_usage(self) -> CacheUsage | None:
        """How much of all prompts so far vLLM found in its prefix cache; None where it does not count."""
        counted: dict[str, int] = {}
        for metric in self._llm.get_metrics():
            if metric.name in _COUNTERS:
                counted[metric.name] = counted.get(metric.name, 0) + int(getattr(metric, "value", 0))
        queried, hits = (counted.get(name) for name in _COUNTERS)
        return None if queried is None else CacheUsage(queried, hits or 0)

    # -- the engine ----------------------------------------------------------------------------------------------

    def _run(self, prompts: Sequence[Tokens], params: Sequence[SamplingParams]) -> list[RequestOutput]:
        if not prompts:
            return []
        salt = {} if self._salt is None else {"cache_salt": self._salt}
        asked = [{"prompt_token_ids": tokens, **salt} for tokens in prompts]
        try:
            with self._lock:
                done: list[RequestOutput] = self._llm.generate(asked, list(params), use_tqdm=False)
        except Exception as error:
            if _is_refusal(error):
                problem = f"vLLM refuses a request: {_first_line(error)}"
                raise InvalidSpec(problem, "Mend the prompt or the schema.") from error
            problem = f"vLLM failed: {_first_line(error)}"
            raise ModelUnavailable(problem, "Its log says why; load the model anew.") from error
        return done


_DEFAULTS = {
    "VLLM_LOGGING_STREAM": "ext://sys.stderr",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_KVCACHE_SPACE": "4",  # GiB; without a GPU vLLM would else take most of the machine's memory
}
_COUNTERS = ("vllm:prefix_cache_queries", "vllm:prefix_cache_hits")


def _folder(name_or_path: str | Path) -> Path:
    if name_or_path == "embedded":
        from memedit.models.embedded import model_folder

        return model_folder()
    return locate(name_or_path)


def _load(
    name_or_path: str | Path, dtype: str | None, context_length: int | None, options: Mapping[str, object]
) -> LLM:
    # vLLM logs to stdout, where results are printed, and reports its use to its makers, unless it is told otherwise first.
    for name, value in _DEFAULTS.items():
        os.environ.setdefault(name, value)
    try:
        import vllm
    except ModuleNotFoundError as error:
        raise MissingExtra("vllm", "gpu") from error
    import torch

    folder = _folder(name_or_path)
    on_cpu = not torch.cuda.is_available()
    chosen: dict[str, object] = {
        "dtype": dtype or ("float32" if on_cpu else "auto"),
        "enforce_eager": on_cpu,  # compiling takes longer than it saves there
        "max_model_len": context_length,
        "disable_log_stats": False,  # they hold the prefix cache's figures
        # Where a grammar leaves white space open, small models lose themselves in it.
        "structured_outputs_config": {"backend": "guidance", "disable_any_whitespace": True},
        **options,
    }
    try:
        return vllm.LLM(str(folder), **chosen)
    except Exception as error:
        raise ModelNotFound(f"vLLM cannot load {folder}: {_first_line(error)}", "Its log says more.") from error


def _params(sampling: Sampling, lead: str) -> SamplingParams:
    from vllm import SamplingParams
    from vllm.sampling_params import StructuredOutputsParams

    if sampling.choices:
        allowed = [f"{lead}{choice}" for choice in sampling.choices]
        # A token has at least one byte, so this is room enough for any of them.
        room = max(len(choice.encode()) for choice in allowed) + 1
        return SamplingParams(
            max_tokens=room, temperature=0.0, structured_outputs=StructuredOutputsParams(choice=allowed)
        )
    schema = sampling.json_schema
    return SamplingParams(
        max_tokens=sampling.max_tokens,
        temperature=sampling.temperature,
        seed=sampling.seed,
        stop=list(sampling.stop) or None,
        structured_outputs=None if schema is None else StructuredOutputsParams(json=dict(schema)),
    )


def _completion(output: RequestOutput, sampling: Sampling, lead: str) -> Completion:
    [written] = output.outputs
    read = len(output.prompt_token_ids or ())
    if sampling.choices:
        return Completion(written.text.removeprefix(lead), read, len(written.token_ids))
    cut = written.finish_reason == "length"
    return Completion(written.text, read, len(written.token_ids), "length" if cut else "stop")


def _score(output: RequestOutput, tokens: Tokens, start: int) -> Score:
    told = output.prompt_logprobs or []
    total, matched, likeliest = 0.0, 0, list[int]()
    for token, ranked in zip(tokens[start:], told[start:], strict=True):
        one = ranked[token]
        total += one.logprob
        matched += one.rank == 1
        likeliest += [other for other, about in ranked.items() if about.rank == 1][:1]
    count = len(tokens) - start
    return Score(total, count, matched == count, matched, tuple(likeliest) if len(likeliest) == count else ())


def _is_refusal(error: Exception) -> bool:
    """Whether a request was at fault and not the engine; which classes say so has changed between releases of vLLM."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return not names.isdisjoint({"ValueError", "VLLMClientError", "VLLMValidationError"})


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
