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
        error: what was raised. Those that say what to do are shown without a traceback; the log file has it.

    Returns:
        2 for a wrong call or recipe, 1 for a failed run.
    """
    if isinstance(error, ConfigError | UsageError):
        print(describe(error), file=sys.stderr)
        return 2
    if _is_explained(error):
        print(describe(error), file=sys.stderr)
        return 2 if _is_of_the_recipe(error) else 1
    traceback.print_exception(error)
    return 1


def _is_explained(error: Exception) -> bool:
    """Tell whether the message suffices: our own classes, files, and values that what a recipe builds cannot use."""
    if type(error).__module__.startswith("hookline.") or isinstance(error, OSError | FloatingPointError):
        return True
    refused = isinstance(error, ValueError | TypeError)
    return refused and any(note.startswith("while building") for note in _notes(error))


def _is_of_the_recipe(error: Exception) -> bool:
    """Tell whether a part refused its arguments; what a data set refuses is in its files."""
    built = [note for note in _notes(error) if note.startswith("while building")]
    plain = type(error) in (ValueError, TypeError)
    return plain and bool(built) and not any(note.startswith("while building dataloader") for note in built)


def _notes(error: BaseException) -> list[str]:
    return list(getattr(error, "__notes__", []))


def describe(error: BaseException) -> str:
    """Write an error and the notes on what was being done, without a traceback."""
    return "\n  ".join([f"error: {error}", *_notes(error)])
