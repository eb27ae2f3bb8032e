"""Which of the upstream server's paths a role may reach: inference is everyone's, all else is an admin's.

A model server has more paths than OpenAI's: it can be put to sleep, made to forget its caches, to load adapters or to profile itself.
These have no list that will still be whole after the next release, so what is allowed is listed, and not what is forbidden. Knows
nothing of keys.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import unquote

from memedit.server.records import Role

_READS = re.compile(r"/v1/models(?:/.+)?|/v1/responses/[^/]+|/(?:version|ping|health|v1/health)")
"""What a reader may get."""
_ASKS = re.compile(
    r"/v1/(?:embeddings|responses|messages|moderations|rerank|score|audio/(?:speech|transcriptions|translations)"
    r"|images/(?:generations|edits|variations)|chat/completions/render|completions/render|messages/count_tokens)"
    r"|/v2/rerank|/(?:tokenize|detokenize|pooling|classify|score|rerank)"
)
"""What a reader may post to."""


def role_for(method: str, path: bytes, also: Sequence[str] = ()) -> Role:
    """The role that a request to the upstream server needs.

    Args:
        method: The request's.
        path: Its path, still percent-encoded, without the query.
        also: Further paths that an operator opens to readers; one that ends in a slash opens what is below it.

    Returns:
        `Role.READER` for inference and what is open; `Role.ADMIN` for everything else, also for a path that an upstream server
        might read otherwise than it is read here.

    >>> role_for("GET", b"/v1/models"), role_for("POST", b"/sleep")
    (<Role.READER: 'reader'>, <Role.ADMIN: 'admin'>)
    """
    text = _decoded(path)
    if text is None:
        return Role.ADMIN
    if any(text == one or (one.endswith("/") and text.startswith(one)) for one in also):
        return Role.READER
    reads = method in ("GET", "HEAD", "OPTIONS")
    return Role.READER if (_READS if reads else _ASKS).fullmatch(text) and (reads or method == "POST") else Role.ADMIN


def _decoded(path: bytes) -> str | None:
    """The path as any server would read it; None where servers may differ."""
    text = path.decode("latin-1")
    for _ in range(3):
        plain = unquote(text)
        if plain == text:
            break
        text = plain
    else:
        return None
    parts = text.split("/")[1:]
    doubtful = re.search(r"[\\;?#%\x00-\x20\x7f-\x9f]", text) is not None or any(
        part in ("", ".", "..") for part in parts
    )
    return None if doubtful else text
