"""Log lines of every process: one JSON object each, to stderr.

The text of a foreign exception never gets in, because a driver may quote card or person data in it; its
class, SQLSTATE and place do.
"""

import json
import logging
import sys
import time
import traceback
from typing import Any

from server.errors import OneCardError

# Python's own complaints about the program: they name types and attributes, never a caller's values.
_MISTAKES = (AttributeError, ImportError, NameError, SyntaxError, TypeError)


class JsonLineFormatter(logging.Formatter):
    """One JSON object per line: time, level, logger, process, message, the record's extra fields."""

    _STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}

    def format(self, record: logging.LogRecord) -> str:
        milliseconds = int(record.msecs)
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{milliseconds:03}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "pid": record.process,
            "message": record.getMessage(),
        }
        line |= {key: value for key, value in vars(record).items() if key not in self._STANDARD}
        if record.exc_info and record.exc_info[1] is not None:
            line["error"] = error_facts(record.exc_info[1])
        return json.dumps(line, ensure_ascii=False, default=str)


def error_facts(error: BaseException) -> dict[str, Any]:
    """What may be logged of an error: its class, where it arose, and the text where it can hold no data."""
    facts: dict[str, Any] = {"type": type(error).__name__}
    if isinstance(error, OneCardError):
        facts |= {"reason": error.reason, "text": error.message}
    elif isinstance(error, _MISTAKES):
        facts["text"] = str(error)
    for name in ("sqlstate", "constraint_name", "errno"):
        if value := getattr(error, name, None):
            facts[name] = value
    frames = traceback.extract_tb(error.__traceback__)[-12:]
    facts["frames"] = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if isinstance(error, BaseExceptionGroup):
        facts["members"] = [error_facts(member) for member in error.exceptions[:8]]
    elif cause is not None:
        facts["cause"] = type(cause).__name__
    return facts


def set_up_logging(level: str) -> None:
    """Log lines to stderr in every process, from ``level`` on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLineFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # asyncio and asyncpg put representations of tasks and statements into their messages.
    logging.getLogger("asyncio").setLevel(max(logging.WARNING, root.level))
