"""The connection to an OpenAI-compatible server: its client, opened late, and what the server says about its models.

Knows nothing of prompts. Several models of one server, or one model under several salts, share one connection.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, NamedTuple

from memedit.errors import BadModelResponse, InvalidSpec, ModelNotFound
from memedit.models.patience import Patience

if TYPE_CHECKING:
    from openai import OpenAI

Flavour = Literal["vllm", "other"]

_NO_KEY = "none"  # the client insists on a key; servers that need none ignore it


class Served(NamedTuple):
    """What /v1/models says.

    Attributes:
        model: The model's name.
        context_length: How much it reads, in tokens; 0 where the server does not say.
        flavour: Whose server it is.
    """

    model: str
    context_length: int
    flavour: Flavour


class Connection:
    """One model at one server. Nothing is sent before it is needed; threads may share it.

    Args:
        base_url: The server, e.g. "http://localhost:8000/v1".
        model: The model's name there; by default the first that the server lists.
        api_key: Sent to the server, and put nowhere else.
        timeout: Seconds a request may take, its retries included.
        retries: How often a request is sent again after 408, 409, 429, 5xx or a broken connection.
        flavour: "vllm" or "other"; found out if not given.

    Raises:
        InvalidSpec: `base_url` is no URL.
    """

    def __init__(
        self,
        base_url: str,
        model: str | None,
        *,
        api_key: str | None,
        timeout: float,
        retries: int,
        flavour: Flavour | None,
    ) -> None:
        if not re.match(r"https?://[^/\s]+", base_url):
            raise InvalidSpec(f"{base_url!r} is not the URL of a server.", "It looks like http://localhost:8000/v1.")
        self.base_url = base_url.rstrip("/")
        self.model = model
        self.server = re.sub(r"//[^/]*@", "//", self.base_url)  # in messages, without a password
        self.patience = Patience(self.server, timeout, retries, api_key or "")
        self._api_key = api_key or _NO_KEY
        self._flavour = flavour
        self._client: OpenAI | None = None
        self._served: Served | None = None
        self._lock = threading.Lock()

    @property
    def root(self) -> str:
        """The server's address without ``/v1``: where vLLM's own endpoints are."""
        return self.base_url.removesuffix("/v1")

    def client(self) -> OpenAI:
        """The client; it is opened at the first call."""
        with self._lock:
            if self._client is None:
                from openai import OpenAI

                self._client = OpenAI(base_url=self.base_url, api_key=self._api_key, max_retries=0)
            return self._client

    def served(self) -> Served:
        """What the server says about the model; asked once.

        Raises:
            ModelUnavailable, ModelTimeout, BadModelResponse, ModelNotFound: It does not say.
        """
        with self._lock:
            known = self._served
        if known is None:
            if self.model and self._flavour:
                known = Served(self.model, 0, self._flavour)
            else:
                known = self._ask()
            with self._lock:
                self._served = known
        return known

    def _ask(self) -> Served:
        client = self.client()
        answer = self.patience.send(lambda timeout: client.get("/models", cast_to=object, options={"timeout": timeout}))
        listed = mapping(answer).get("data")
        cards = [mapping(card) for card in listed] if isinstance(listed, list) else []
        named = {str(card["id"]): card for card in cards if "id" in card}
        if not named:
            raise BadModelResponse(f"{self.server}/models lists no model.", "Check the URL; it usually ends in /v1.")
        if self.model and self.model not in named:
            raise ModelNotFound(
                f"{self.server} serves no model {self.model!r}.", f"It serves: {', '.join(sorted(named)[:10])}."
            )
        model = self.model or next(iter(named))
        length = named[model].get("max_model_len")
        is_vllm = named[model].get("owned_by") == "vllm"
        return Served(
            model, length if isinstance(length, int) else 0, self._flavour or ("vllm" if is_vllm else "other")
        )


def mapping(value: object) -> Mapping[str, object]:
    """The value where it is a mapping, else an empty one."""
    return value if isinstance(value, Mapping) else {}
