"""A server's prefix cache: whose prompts may share it, and how much of them it knew. Knows nothing of facts.

vLLM keeps the states of the prompts it has read and looks every new prompt's beginning up among them. Prompts with different
salts never share any, so that no tenant can tell from an answer's speed what another has asked.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from typing import NamedTuple, Protocol, runtime_checkable

from memedit.models.base import LanguageModel


class CacheUsage(NamedTuple):
    """How much of its prompts a server found in its prefix cache since it started.

    Attributes:
        queried: Tokens of prompts looked up.
        hits: Those of them that were there.
    """

    queried: int
    hits: int

    @property
    def rate(self) -> float:
        """The share that was there, in [0, 1]; 0 where nothing was looked up."""
        return self.hits / self.queried if self.queried else 0.0


@runtime_checkable
class Salted(Protocol):
    """A `LanguageModel` whose server keeps a prefix cache that can be divided."""

    def salted(self, salt: str) -> LanguageModel:
        """The same model; what it is sent shares the cache only with what is sent under the same salt."""
        ...


def cache_salt(namespace: str, secret: bytes = b"") -> str:
    """The salt of a namespace: 32 hexadecimal digits.

    Args:
        namespace: The tenant.
        secret: Keeps those who know the namespace's name, and can send requests of their own, from using its salt.

    >>> cache_salt("a") == cache_salt("a") != cache_salt("b")
    True
    """
    return hmac.new(secret, f"memedit prefix cache {namespace}".encode(), hashlib.sha256).hexdigest()[:32]


def salted(model: LanguageModel, namespace: str) -> LanguageModel:
    """The model for one namespace; the model itself where it keeps no cache that can be divided."""
    return model.salted(cache_salt(namespace)) if isinstance(model, Salted) else model


def cache_usage(metrics: str) -> CacheUsage | None:
    r"""The prefix cache's use, of vLLM's figures in Prometheus's text format; None where they are not told.

    Args:
        metrics: What vLLM's ``/metrics`` answers. The figures of several engines are added up.

    >>> cache_usage('vllm:prefix_cache_queries_total{engine="0"} 40.0\nvllm:prefix_cache_hits_total{engine="0"} 30.0')
    CacheUsage(queried=40, hits=30)
    """
    sums: dict[str, float] = {}
    for name, value in _FIGURE.findall(metrics):
        sums[name] = sums.get(name, 0.0) + float(value)
    if "queries" not in sums:
        return None
    return CacheUsage(int(sums["queries"]), int(sums.get("hits", 0)))


_FIGURE = re.compile(r"^vllm:prefix_cache_(queries|hits)_total(?:\{[^}\n]*\})?[ \t]+([0-9.eE+]+)", re.MULTILINE)
