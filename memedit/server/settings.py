"""What an operator decides about a gateway."""

from __future__ import annotations

import re
from dataclasses import dataclass

from memedit.errors import InvalidSpec
from memedit.memory.fact import DEFAULT_NAMESPACE


@dataclass(frozen=True, slots=True)
class Settings:
    """How the gateway runs.

    Attributes:
        upstream: Base URL of the OpenAI-compatible server behind it, e.g. "http://localhost:8000/v1".
        upstream_key: API key for that server; a key that the client sends for it is used where this is None.
        namespace: The namespace of requests that name none, where their key reaches it.
        open: Whether anyone may do everything, without an API key.
        timeout: Seconds to wait for the upstream server: for a whole answer, or for the next piece of a stream.
        max_body: Most bytes of a request.
        rate: Most requests a minute for each key (for each address where there are no keys); 0 for no limit.
        threads: Most accesses to the memory, and other work that blocks, at a time.
        log_contents: Whether logs may hold questions and answers.
        reader_paths: Paths of the upstream server that are open to every key, beside those of inference; one that ends
            in a slash opens what is below it.

    Raises:
        InvalidSpec: `upstream` is no URL, a path does not begin with a slash, or a number is out of its range.
    """

    upstream: str
    upstream_key: str | None = None
    namespace: str = DEFAULT_NAMESPACE
    open: bool = False
    timeout: float = 300.0
    max_body: int = 32 * 1024 * 1024
    rate: int = 1200
    threads: int = 8
    log_contents: bool = False
    reader_paths: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not re.match(r"https?://[^/\s]+", self.upstream):
            raise InvalidSpec(
                f"{self.upstream!r} is not the URL of a server.", "It looks like http://localhost:8000/v1."
            )
        if self.timeout <= 0 or self.max_body <= 0 or self.threads <= 0 or self.rate < 0:
            raise InvalidSpec("A limit is out of its range.", "Give numbers above 0; a rate of 0 means no limit.")
        for path in self.reader_paths:
            if not path.startswith("/") or path == "/":
                raise InvalidSpec(
                    f"{path!r} is no path of a server.", "It looks like /v1/files, or /v1/files/ with all below."
                )

    @property
    def base(self) -> str:
        """The upstream URL, ending in ``/v1``."""
        url = self.upstream.rstrip("/")
        return url if url.endswith("/v1") else f"{url}/v1"

    @property
    def root(self) -> str:
        """The upstream URL without ``/v1``: what the paths of requests are put behind."""
        return self.base.removesuffix("/v1")
