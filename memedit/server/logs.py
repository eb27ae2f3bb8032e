"""Structured logs: one JSON object a line on stderr. What people write is left out unless the operator asks for it."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

LOGGER = "memedit.server"


class JsonLines(logging.Formatter):
    """Formats a record as one line of JSON: time, level, event, and the fields it was logged with."""

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
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)


def log(event: str, level: int = logging.INFO, **fields: object) -> None:
    """Log an event with its fields."""
    logging.getLogger(LOGGER).log(level, event, extra={"fields": fields})


def write_json_lines() -> None:
    """Send memedit's and uvicorn's logs to stderr as JSON lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    for name in (LOGGER, "uvicorn", "uvicorn.error"):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
        logger.setLevel(logging.INFO)
