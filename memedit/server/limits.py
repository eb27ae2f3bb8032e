"""How much a client may ask for: a bucket of requests for each client, and a bound on the bytes of a request.

Both are checked before anything is read into memory. Counts are of this process; several gateways count apart.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable

from memedit.errors import RequestTooLarge, TooManyRequests

MOST_CLIENTS = 10_000
"""Buckets kept; the one unused longest gives way to a new client."""


class RateLimit:
    """A token bucket for each client: `rate` requests a minute, of which a tenth may come at once.

    Args:
        rate: Requests a minute; 0 for no limit.
        clock: Tells the time in seconds.
    """

    def __init__(self, rate: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_second = rate / 60
        self._burst = max(1.0, rate / 10)
        self._clock = clock
        self._lock = threading.Lock()
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, client: str) -> None:
        """Count a request.

        Raises:
            TooManyRequests: The client has used up what it may send for now.
        """
        if not self._per_second:
            return
        with self._lock:
            now = self._clock()
            left, then = self._buckets.pop(client, (self._burst, now))
            left = min(self._burst, left + (now - then) * self._per_second)
            allowed = left >= 1
            self._buckets[client] = (left - allowed, now)
            if len(self._buckets) > MOST_CLIENTS:
                self._buckets.popitem(last=False)
        if not allowed:
            wait = (1 - left) / self._per_second
            raise TooManyRequests(
                f"More than {self._per_second * 60:g} requests a minute.", f"Try again in {wait:.1f} s.", wait=wait
            )


def check_size(size: int, limit: int) -> None:
    """Refuse what is too large.

    Raises:
        RequestTooLarge: `size` is above `limit`.
    """
    if size > limit:
        raise RequestTooLarge(
            f"The request has more than the {limit:,} bytes that are accepted.",
            "Send less at once, or have the operator raise --max-body.",
        )
