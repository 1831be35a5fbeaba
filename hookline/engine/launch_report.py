"""What a rank tells its starter of how it ended, or its exit code, where it could not."""

import contextlib
import signal
import sys
import time
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from types import TracebackType

from hookline.distributed_groups import TIMEOUT
from hookline.engine.launch_causes import LostContactError

__all__ = ["Ending", "Teller", "death", "from_main", "note_rank", "noted_rank", "traceback_of"]

_CALLER = "hookline.engine.launch_rank"
_NOTED = "hookline_rank"


@dataclass(frozen=True)
class Ending:
    """How a rank ended, as it tells its starter.

    Attributes:
        rank: Its number.
        kind: "exit" (SystemExit), "interrupt" (Ctrl-C), "error", or "lost" where another rank's end was the cause.
        code: Exit code.
        at: When, in seconds since the epoch.
        text: The traceback of an error.
        error: The pickled exception of an error, None where it does not pickle.
    """

    rank: int
    kind: str
    code: int
    at: float
    text: str = ""
    error: bytes | None = None


class Teller:
    """Tells the starter, once, how this rank ended: before the group is taken down, which makes the others fail.

    Args:
        rank: This rank.
        report: The way to the starter.
    """

    def __init__(self, rank: int, report: Connection) -> None:
        self.code = 0
        self._rank = rank
        self._report = report

    def tell(self, error: BaseException) -> None:
        """Tell of a failure; leaving with code 0 is none, and what follows the first failure is not told.

        Args:
            error: What was raised.
        """
        if self.code:
            return
        ending = _ending(self._rank, error)
        self.code = ending.code
        if ending.code:
            with contextlib.suppress(OSError):  # the starter may be gone
                self._report.send(ending)


def _ending(rank: int, error: BaseException) -> Ending:
    if isinstance(error, SystemExit):
        if isinstance(error.code, str):
            print(error.code, file=sys.stderr)
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        return Ending(rank, "exit", code, time.time())
    if isinstance(error, KeyboardInterrupt):
        return Ending(rank, "interrupt", 128 + signal.SIGINT, time.time())
    kind = "lost" if isinstance(error, LostContactError) else "error"
    return Ending(rank, kind, 1, time.time(), traceback_of(error), _pickled(error))


def note_rank(error: BaseException, rank: int) -> None:
    """Remember on an error which rank raised it: under torchrun and srun all ranks write to one console.

    Args:
        error: What was raised.
        rank: The rank.
    """
    error.__dict__.setdefault(_NOTED, rank)


def noted_rank(error: BaseException) -> int | None:
    """Return what :func:`note_rank` noted, None if nothing was.

    Args:
        error: What was raised.
    """
    return error.__dict__.get(_NOTED)


def traceback_of(error: BaseException) -> str:
    """Write an error with its traceback from where the main function begins.

    Args:
        error: What was raised in the main function, or around it.
    """
    return "".join(traceback.format_exception(type(error), error, from_main(error)))


def from_main(error: BaseException) -> TracebackType | None:
    """Return the traceback from where the main function begins: how a rank calls it is the same in every run.

    Args:
        error: What was raised in the main function, or around it.
    """
    begin = error.__traceback__
    while begin is not None and begin.tb_frame.f_globals.get("__name__") == _CALLER:
        begin = begin.tb_next
    return begin or error.__traceback__


def death(code: int, backend: str) -> str:
    """Say of what a rank died that told nothing.

    Args:
        code: Its exit code, or minus the number of a signal; not 0.
        backend: Of the process group, which explains some deaths.
    """
    if code >= 0:
        return f"ended with exit code {code} without a word"
    name = signal.Signals(-code).name
    hint = "; the system may have run out of memory (see dmesg)" if -code == signal.SIGKILL else ""
    if -code == signal.SIGABRT and backend == "nccl":
        hint = (
            f"; NCCL ends a rank so that waited {TIMEOUT} for another one, which hangs or is gone, or that lost it: "
            "its own words are above"
        )
    return f"was killed by {name}{hint}"


def _pickled(error: BaseException) -> bytes | None:
    """The exception for the starter to raise again, if it survives the way there."""
    import cloudpickle

    try:
        data = cloudpickle.dumps(error)
        cloudpickle.loads(data)
    except Exception:
        return None
    return data
