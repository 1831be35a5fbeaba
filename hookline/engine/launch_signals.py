"""How a rank ends by a signal, and when its starter is gone."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection
from types import FrameType
from typing import Any

from hookline.engine.launch_causes import Orphaned

__all__ = ["SUSPENDING", "follow_parent", "follow_starter", "left_by_sigterm", "obey_signals"]

SUSPENDING: tuple[int, ...] = (signal.SIGUSR1, signal.SIGUSR2) if os.name == "posix" else ()
"""Signals that ask a run to save and leave, and mean nothing else to a rank."""

# A rank whose starter was killed gets this long to leave in order.
_ORPHAN_GRACE_S = 10.0
_REPEATED_INTERRUPT_S = 2.0
_AGAIN_S = 0.05
_PARENT_PERIOD_S = 1.0
_starter_is_gone = threading.Event()


def obey_signals() -> None:
    """End by SystemExit on SIGTERM and by KeyboardInterrupt on Ctrl-C, wherever the main thread is."""
    interrupt = _InterruptOnce()
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGINT, interrupt)
    _insist(interrupt)


def follow_starter(lifeline: Connection) -> None:
    """End this process soon after its starter.

    Args:
        lifeline: Ends when the starter does, however that happens.
    """
    threading.Thread(target=_follow, args=(lifeline,), name="lifeline", daemon=True).start()


def follow_parent() -> None:
    """End this process soon after the one that started it, such as torchrun, which has no lifeline."""
    threading.Thread(target=_follow_parent, args=(os.getppid(),), name="parent", daemon=True).start()


@contextlib.contextmanager
def left_by_sigterm(early_signal: Callable[[], int | None] | None) -> Iterator[None]:
    """Leave the block by SystemExit at SIGTERM: there is nothing to save yet.

    Args:
        early_signal: Tells which signal came before, of those that the caller remembers; None where he does not, and
            signals are left alone.

    Raises:
        SystemExit: With 143, also if SIGTERM came before the block.
    """
    if early_signal is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _leave)
    try:
        if early_signal() == signal.SIGTERM:
            raise SystemExit(128 + signal.SIGTERM)
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


def _leave(number: int, frame: FrameType | None) -> None:
    """End by SystemExit, so that `finally` blocks run and data workers are taken along.

    Raises:
        SystemExit: Always.
    """
    raise (Orphaned if _starter_is_gone.is_set() else SystemExit)(128 + number)


class _InterruptOnce:
    """Raise KeyboardInterrupt for a Ctrl-C, which comes from the terminal and from the starter, once."""

    def __init__(self) -> None:
        self._last_s = -_REPEATED_INTERRUPT_S

    def forget(self) -> None:
        """Raise again at the next signal, however soon it comes."""
        self._last_s = -_REPEATED_INTERRUPT_S

    def __call__(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if now - self._last_s >= _REPEATED_INTERRUPT_S:
            self._last_s = now
            raise KeyboardInterrupt


def _insist(interrupt: _InterruptOnce) -> None:
    """Repeat a signal whose exception Python ignored, since it was raised in a `__del__` or in a callback of a fork.

    Args:
        interrupt: The handler of SIGINT.
    """
    rank, print_it = os.getpid(), sys.unraisablehook

    def repeat(unraisable: Any) -> None:
        error = unraisable.exc_value
        if isinstance(error, KeyboardInterrupt):
            interrupt.forget()
            number = signal.SIGINT
        elif isinstance(error, SystemExit) and error.code == 128 + signal.SIGTERM:
            number = signal.SIGTERM
        else:
            print_it(unraisable)
            return
        if os.getpid() == rank:  # a data worker that was just forked is not meant
            again = threading.Timer(_AGAIN_S, os.kill, (rank, number))  # at once, it would be raised in here
            again.daemon = True
            again.start()

    sys.unraisablehook = repeat


def _follow(lifeline: Connection) -> None:
    """End this process soon after its starter, which may have been killed without a chance to say so."""
    with contextlib.suppress(EOFError, OSError):
        lifeline.recv()  # nothing is ever sent
    _end_orphan()


def _follow_parent(parent: int) -> None:
    while os.getppid() == parent:  # an orphan gets another one
        time.sleep(_PARENT_PERIOD_S)
    _end_orphan()


def _end_orphan() -> None:
    _starter_is_gone.set()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(_ORPHAN_GRACE_S)
    os._exit(128 + signal.SIGKILL)
