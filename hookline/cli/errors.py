"""How a failed run ends: a clear message for what a user can mend, a traceback for what we must."""

from __future__ import annotations

import re
import sys
import threading
import traceback

from hookline.config import ConfigError

__all__ = ["Reporter", "UsageError", "describe", "report"]

_NODE = re.compile(r"while building ([^\s:]+)[ :]")
_ARGUMENT = re.compile(r"[a-z_]\w*[^\s=]*=")


class UsageError(ValueError):
    """A call or recipe that cannot work, found before anything was built."""


def report(error: Exception) -> int:
    """Print why the run ended.

    Args:
        error: what was raised. Those that say what to do are shown without a traceback; the log file has it.

    Returns:
        2 for a wrong call or recipe, 1 for a failed run.
    """
    from hookline.engine.launch import LaunchError, RankFailedError, RendezvousError  # imports torch
    from hookline.engine.launch_report import noted_rank, traceback_of

    refused = isinstance(error, LaunchError) and not isinstance(error, RendezvousError)
    if isinstance(error, ConfigError | UsageError) or refused:
        print(describe(error), file=sys.stderr)
        return 2
    cause = error.__cause__
    if _is_explained(error) and _is_of_the_recipe(error):
        print(describe(error), file=sys.stderr)
        return 2
    rank = cause.rank if isinstance(cause, RankFailedError) else noted_rank(error)
    if getattr(error, "of_all_ranks", False):
        if not isinstance(cause, RankFailedError) and rank:
            return 1  # rank 0 shows it, on the same console under srun
        rank = None
    if _is_explained(error):
        print(describe(error, rank), file=sys.stderr)
    elif isinstance(cause, RankFailedError):
        print(f"error: {cause}", file=sys.stderr)  # with the traceback of the rank
    elif rank is not None:
        print(f"error: rank {rank} failed:\n{traceback_of(error)}", file=sys.stderr)
    else:
        traceback.print_exception(error)
    return 1


class Reporter:
    """Reports each error at once and only once: a rank that failed may then take long to leave its group."""

    def __init__(self) -> None:
        self._codes: list[tuple[Exception, int]] = []
        self._lock = threading.Lock()

    def __call__(self, error: Exception) -> int:
        """Print why the run ended, if that has not been done.

        Args:
            error: what was raised.

        Returns:
            What :func:`report` returned for it.
        """
        with self._lock:
            code = next((code for reported, code in self._codes if reported is error), None)
            if code is None:
                code = report(error)
                self._codes.append((error, code))
            return code


def _is_explained(error: Exception) -> bool:
    """Tell whether the message suffices: our own classes, files, and values that what a recipe builds cannot use."""
    if type(error).__module__.startswith("hookline.") or isinstance(error, FloatingPointError):
        return True
    if isinstance(error, OSError):
        return error.errno is None or error.filename is not None  # else the system's words, which name nothing
    refused = isinstance(error, ValueError | TypeError)
    return refused and any(note.startswith("while building") for note in _notes(error))


def _is_of_the_recipe(error: Exception) -> bool:
    """Tell whether a part refused its arguments; what a data set refuses is in its files."""
    built = [note for note in _notes(error) if note.startswith("while building")]
    plain = type(error) in (ValueError, TypeError)
    return plain and bool(built) and not any(note.startswith("while building dataloader") for note in built)


def _notes(error: BaseException) -> list[str]:
    return list(getattr(error, "__notes__", []))


def describe(error: BaseException, rank: int | None = None) -> str:
    """Write an error and the notes on what was being done, without a traceback.

    A part of a recipe that refuses an argument, such as ``milestones=[9, 5]: ...``, does not know where in the recipe
    it stands. The note does, so the argument is named by its whole path: ``lr_multiplier.milestones=[9, 5]: ...``.

    Args:
        error: what was raised.
        rank: the rank that raised it, None where that does not matter.
    """
    notes = _notes(error)
    node = next((found[1] for note in notes if (found := _NODE.match(note))), "")
    path = f"{node}." if node and _ARGUMENT.match(str(error)) else ""
    text = f"{path}{error}"
    place = "" if rank is None or re.match(rf"rank {rank}\b", text) else f"rank {rank}: "
    return "\n  ".join([f"error: {place}{text}", *notes])
