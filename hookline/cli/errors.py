"""How a failed run ends: a clear message for what a user can mend, a traceback for what we must."""

from __future__ import annotations

import sys
import traceback

from hookline.config import ConfigError

__all__ = ["UsageError", "report"]


class UsageError(ValueError):
    """A call or recipe that cannot work, found before anything was built."""


def report(error: Exception) -> int:
    """Print why the run ended.

    Args:
        error: what was raised. Errors of Hookline's own classes say what to do and are shown without a traceback.

    Returns:
        2 for a wrong call or recipe, 1 for a failed run.
    """
    if isinstance(error, ConfigError | UsageError):
        print(describe(error), file=sys.stderr)
        return 2
    if type(error).__module__.startswith("hookline.") or isinstance(error, OSError | FloatingPointError):
        print(describe(error), file=sys.stderr)
        return 1
    traceback.print_exception(error)
    return 1


def describe(error: BaseException) -> str:
    """Write an error and the notes on what was being done, without a traceback."""
    return "\n  ".join([f"error: {error}", *getattr(error, "__notes__", [])])
