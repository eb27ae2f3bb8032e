"""Structured logs: one JSON object a line on stderr. What people write is left out unless the operator asks for it."""

from __future__ import annotations

import json
import logging
import sys
import traceback
from datetime import UTC, datetime
from pathlib import Path

LOGGER = "memedit.server"


class JsonLines(logging.Formatter):
    """Formats a record as one line of JSON: time, level, event, and the fields it was logged with.

    Args:
        contents: Whether what an exception says may be logged: it may quote a question or a fact. Else only its kind is, and
            where it was raised.
    """

    def __init__(self, *, contents: bool = False) -> None:
        super().__init__()
        self._contents = contents

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter.format`."""
        fields = getattr(record, "fields", {})
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            **fields,
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info) if self._contents else _places(record.exc_info[1])
        return json.dumps(line, ensure_ascii=False, default=str)


def log(event: str, level: int = logging.INFO, **fields: object) -> None:
    """Log an event with its fields."""
    logging.getLogger(LOGGER).log(level, event, extra={"fields": fields})


def write_json_lines(*, contents: bool = False) -> None:
    """Send memedit's and uvicorn's logs to stderr as JSON lines; `contents` as for `JsonLines`."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(contents=contents))
    for name in (LOGGER, "uvicorn", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(logging.INFO)


def _places(error: BaseException | None) -> list[str]:
    """The kinds of an exception and its causes, each with the places that it passed through."""
    told: list[str] = []
    while error is not None and len(told) < 10:
        frames = traceback.extract_tb(error.__traceback__)[-20:]
        passed = " > ".join(f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames)
        told.append(f"{type(error).__name__} at {passed}")
        error = error.__cause__ or error.__context__
    return told
