"""Remember a scheduler's signal that comes while nobody can act on it: before the first step, and after the last.

Importing torch and building a model take many seconds, leaving takes one or two. A signal that meets Python's default
there kills a job that would have been put back into the queue, or turns a finished run into a failed one. Nothing here
imports torch.
"""

from __future__ import annotations

import atexit
import contextlib
import multiprocessing
import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

from hookline.signals import end_if_repeated, let_through

__all__ = ["early_signal", "received", "remembered", "remembered_in_rank"]

_NAMES = ("SIGTERM", "SIGUSR1", "SIGUSR2")
_received: list[tuple[str, float]] = []


def received() -> tuple[str, float] | None:
    """Return the name of the first signal that was remembered, and when it came by ``time.monotonic()``."""
    return _received[0] if _received else None


def early_signal() -> int | None:
    """Return the number of the first signal that was remembered, or SIGTERM if it was among them: it waits least."""
    names = [name for name, _ in _received]
    if not names:
        return None
    return signal.SIGTERM if "SIGTERM" in names else getattr(signal, names[0])


@contextlib.contextmanager
def remembered(names: tuple[str, ...] = _NAMES, *, process_ends: bool = False) -> Iterator[None]:
    """Remember signals instead of dying of them while the block runs; a second one ends the process all the same.

    Training puts its own handlers over these and gives them back when it is done.

    Args:
        names: the signals.
        process_ends: nothing but the end of the process follows the block, so they stay harmless.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = [getattr(signal, name) for name in names if hasattr(signal, name)]
    previous = {number: signal.signal(number, _remember) for number in numbers}
    let_through(numbers)
    try:
        yield
    finally:
        if _remember not in previous.values():  # not inside another such block
            _received.clear()
        if not process_ends:
            for number, handler in previous.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)
        atexit.register(_ignore, numbers)  # torch takes its time to go


def remembered_in_rank() -> contextlib.AbstractContextManager[None]:
    """Remember signals in a rank that `launch` started, also those that came while it could not yet.

    SIGTERM stays with `launch`, which ends ranks by it.
    """
    if multiprocessing.parent_process() is None:
        return contextlib.nullcontext()
    return remembered(_NAMES[1:], process_ends=True)


def _remember(number: int, frame: FrameType | None) -> None:
    if _received:
        end_if_repeated(number, _received[0][1])
    _received.append((signal.Signals(number).name, time.monotonic()))


def _ignore(numbers: list[int]) -> None:
    for number in numbers:
        signal.signal(number, signal.SIG_IGN)
