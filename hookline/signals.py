"""Signals that end a process: one that comes a second time, one that comes too early, SIGTERM in a container.

Linux spares process 1 from every signal that has no handler, even from those that it sends itself.
"""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator
from types import FrameType

__all__ = ["REPEATED_S", "end_if_repeated", "held_back", "let_through", "obey_sigterm_as_process_1"]

REPEATED_S = 2.0
"""A scheduler and the starter of the ranks may both deliver one and the same signal within this time."""


def end_if_repeated(number: int, first_s: float) -> None:
    """End this process by a signal, if it is asked again: nobody wants to wait for what the first one began.

    Args:
        number: The signal that has come.
        first_s: When the first one came, by `time.monotonic`.
    """
    if time.monotonic() - first_s >= REPEATED_S:
        _end_by(number)


@contextlib.contextmanager
def held_back(numbers: Iterable[int]) -> Iterator[None]:
    """Let signals wait while the block runs; a process that is started in it inherits that, and keeps it.

    So one that has no handlers yet does not die of them, and gets them at its :func:`let_through`.

    Args:
        numbers: The signals.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def let_through(numbers: Iterable[int]) -> None:
    """Take the signals that were held back from this process, now that it has handlers for them.

    Args:
        numbers: The signals.
    """
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)


def obey_sigterm_as_process_1() -> None:
    """Let SIGTERM end process 1 by SystemExit, and a second one at once; any other process is left as it is."""
    if os.getpid() == 1 and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, _leave)


def _leave(number: int, frame: FrameType | None) -> None:
    """End in order, or at once in a process that was forked from this one.

    Raises:
        SystemExit: Always, in process 1.
    """
    if os.getpid() != 1:
        _end_by(number)
    signal.signal(number, _leave_at_once)
    raise SystemExit(128 + number)


def _leave_at_once(number: int, frame: FrameType | None) -> None:
    _end_by(number)


def _end_by(number: int) -> None:
    if os.getpid() == 1:
        os._exit(128 + number)
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
