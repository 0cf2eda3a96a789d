"""Few log lines with much in them: to stderr, readable on a terminal, JSON lines otherwise."""

import json
import logging
import os
import sys
import time
from pathlib import Path
from typing import Any

LAST_WORDS = Path("/dev/termination-log")  # Kubernetes shows it beside the exit code

_logger = logging.getLogger("surefoot")
_fields: dict[str, Any] = {}


class _Lines(logging.Formatter):
    def __init__(self, *, as_json: bool) -> None:
        super().__init__()
        self.as_json = as_json

    def format(self, record: logging.LogRecord) -> str:
        fields = {**_fields, **getattr(record, "fields", {})}
        if self.as_json:
            stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
            line = {"time": stamp, "level": record.levelname.lower(), "event": record.getMessage(), **fields}
            return json.dumps(line, default=str)
        said = "  ".join(f"{name}={value}" for name, value in fields.items())
        level = "" if record.levelno == logging.INFO else f"{record.levelname} "
        return f"{time.strftime('%H:%M:%S', time.localtime(record.created))}  {level}{record.getMessage():<20} {said}"


def setup(level: str = "INFO", **fields: Any) -> None:
    """Send log lines of ``level`` and above to stderr; ``fields`` stand in each of them."""
    _fields.clear()
    _fields.update(fields)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Lines(as_json=not sys.stderr.isatty()))
    _logger.handlers[:] = [handler]
    _logger.setLevel(level)
    _logger.propagate = False


def debug(event: str, **fields: Any) -> None:
    """Log what only a maintainer wants to see."""
    _logger.debug(event, extra={"fields": fields})


def info(event: str, **fields: Any) -> None:
    """Log one thing that happened."""
    _logger.info(event, extra={"fields": fields})


def warning(event: str, **fields: Any) -> None:
    """Log what a person should know of, though the work goes on."""
    _logger.warning(event, extra={"fields": fields})


def error(event: str, **fields: Any) -> None:
    """Log what ends the step."""
    _logger.error(event, extra={"fields": fields})


def last_words(text: str) -> None:
    """Leave a line where Kubernetes and Argo look for the reason of a container's end."""
    if LAST_WORDS.exists() and os.access(LAST_WORDS, os.W_OK):
        LAST_WORDS.write_text(" ".join(text.split())[:4000], encoding="utf-8")
