"""What can go wrong, one class per exit code (design: the life of a step).

A message is one line: what was found, where, and what to do. Anything else that is raised is a bug
and keeps its traceback (exit 70).
"""


class SurefootError(Exception):
    """An error that a person can act on; ``code`` is the exit code of the step."""

    code = 70


class UsageError(SurefootError):
    """A wrong command."""

    code = 2


class ConfigError(SurefootError):
    """A refused config, or not enough room for what it asks."""

    code = 78


class DataError(SurefootError):
    """Bad data."""

    code = 65


class MissingInput(SurefootError):
    """An input is missing or damaged; the message says how to heal it."""

    code = 66


class NotNow(SurefootError):
    """Store, database, disk or GPU is not there right now; trying later can help."""

    code = 75


class OutOfMemory(SurefootError):
    """Out of GPU or main memory; the next attempt goes one rung down."""

    code = 76


class Interrupted(BaseException):
    """SIGTERM or SIGINT was received. No ``Exception``, so that nothing swallows it on its way out."""

    def __init__(self, signal: int) -> None:
        super().__init__(f"stopped by signal {signal}; run the same command again to go on")
        self.code = 128 + signal
