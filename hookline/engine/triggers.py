"""What may ask a run to stop: signals, a file, a function to poll, a deadline. Each is a small object with one latch.

A trigger is started by :class:`~hookline.engine.suspend.SuspendCheckpointer` before training and stopped after it. Its
``reason`` is None until it fires and keeps the first reason from then on, because a notice may be withdrawn again
(HFAI lowers its flag after five seconds) and must not be missed.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

from hookline.engine.job_systems import hfai_client, slurm_end_time
from hookline.signals import end_if_repeated, let_through

__all__ = ["CallableTrigger", "DeadlineTrigger", "FileTrigger", "SignalTrigger", "Trigger", "default_triggers"]

logger = logging.getLogger(__name__)


class Trigger:
    """Something that may ask the run to stop.

    Attributes:
        reason: Why, None until it fires.
        fired_at: When, by ``time.monotonic()``.
    """

    reason: str | None = None
    fired_at: float = float("inf")

    def start(self) -> None:
        """Begin to listen."""

    def stop(self) -> None:
        """Stop listening and leave the process as it was before :meth:`start`."""

    def fire(self, reason: str) -> None:
        """Ask the run to stop; only the first reason counts.

        Args:
            reason: for the log.
        """
        if self.reason is None:
            self.fired_at = time.monotonic()
            self.reason = reason

    def fired(self) -> bool:
        """Say whether the run was asked to stop; once true it stays true."""
        return self.reason is not None


class SignalTrigger(Trigger):
    """Fire at a signal; a second one, two seconds later or more, ends the process at once.

    The handler only sets the latch: writing inside a handler may dead-lock or tear what was being written. Handlers
    are installed in the main thread of this process only. Forked children (data workers) ignore the signals instead,
    since schedulers signal whole process groups and a worker that died would break the step that is to be saved.

    Args:
        signals: the signals to listen to.
    """

    def __init__(self, signals: Sequence[signal.Signals] = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)) -> None:
        self.signals = tuple(signals)
        self._previous: dict[signal.Signals, Any] = {}

    def start(self) -> None:
        """Install the handlers.

        Raises:
            RuntimeError: outside the main thread, where Python cannot install handlers.
        """
        if threading.current_thread() is not threading.main_thread():
            raise RuntimeError("SignalTrigger: signal handlers can be installed in the main thread only")
        _LISTENING.add(self)
        for each in self.signals:
            if each not in self._previous:
                self._previous[each] = signal.signal(each, self._handle)
        let_through(self.signals)  # `launch` may have held them back until now

    def stop(self) -> None:
        """Put the previous handlers back."""
        _LISTENING.discard(self)
        while self._previous:
            each, previous = self._previous.popitem()
            signal.signal(each, signal.SIG_DFL if previous is None else previous)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.reason is None:
            self.fire(f"signal {signal.Signals(number).name}")
        else:
            end_if_repeated(number, self.fired_at)

    def ignore_in_child(self) -> None:
        """Ignore the signals in a process that was forked from this one."""
        while self._previous:
            signal.signal(self._previous.popitem()[0], signal.SIG_IGN)


_LISTENING: weakref.WeakSet[SignalTrigger] = weakref.WeakSet()


def _after_fork() -> None:
    for trigger in list(_LISTENING):
        trigger.ignore_in_child()


if hasattr(os, "register_at_fork"):  # it cannot be undone, so once for all triggers
    os.register_at_fork(after_in_child=_after_fork)


class _PollingTrigger(Trigger):
    """Look every ``interval_s`` seconds from a thread, so that a long step cannot miss a short notice."""

    def __init__(self, interval_s: float) -> None:
        if not interval_s > 0:
            raise ValueError(f"interval_s={interval_s}: expected seconds above 0")
        self.interval_s = interval_s
        self._quit = threading.Event()
        self._thread: threading.Thread | None = None
        self._warned = False

    def _look(self) -> str | None:
        """Give the reason to stop, if there is one now."""
        raise NotImplementedError

    def start(self) -> None:
        """Start the polling thread."""
        if self._thread is None:
            self._quit.clear()
            self._thread = threading.Thread(target=self._poll, name=type(self).__name__, daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """End the polling thread; a poll that hangs is left behind after one second."""
        self._quit.set()
        if self._thread is not None:
            self._thread.join(timeout=1.0)
            self._thread = None

    def _poll(self) -> None:
        while self.reason is None and not self._quit.is_set():
            try:
                reason = self._look()
            except Exception as error:
                reason = None
                if not self._warned:  # a poll that fails now may work in a second; saying it once is enough
                    logger.warning(f"{type(self).__name__}: polling failed ({type(error).__name__}: {error})")
                    self._warned = True
            if reason is not None:
                self.fire(reason)
            self._quit.wait(self.interval_s)


class FileTrigger(_PollingTrigger):
    """Fire when a file appears. A file that lies there already counts too: remove it before the next start.

    Args:
        path: the file.
        interval_s: seconds between looks.
    """

    def __init__(self, path: str | os.PathLike[str], interval_s: float = 1.0) -> None:
        super().__init__(interval_s)
        self.path = os.fspath(path)

    def start(self) -> None:
        """Look once at once, so that a file which lies there stops even a run of a few steps; then keep looking."""
        self.reason = self.reason or self._look()
        super().start()

    def _look(self) -> str | None:
        return f"file {self.path} (remove it before the next start)" if os.path.exists(self.path) else None


class CallableTrigger(_PollingTrigger):
    """Fire when a function first returns something true, such as ``hfai.client.receive_suspend_command``.

    Args:
        function: called without arguments from a thread of its own.
        interval_s: seconds between calls; a second is short enough for a flag that stands for five.
        name: how messages call it.
    """

    def __init__(self, function: Callable[[], Any], interval_s: float = 1.0, name: str | None = None) -> None:
        super().__init__(interval_s)
        self.function = function
        self.name = name or getattr(function, "__qualname__", repr(function))

    def _look(self) -> str | None:
        return f"{self.name}()" if self.function() else None


class DeadlineTrigger(Trigger):
    """Fire some time before an end that is known beforehand.

    Args:
        seconds: seconds from :meth:`start` to the end; or
        at: the end as seconds since the epoch. With neither, the end of this Slurm job.
        margin_s: how long before the end to fire.

    Raises:
        ValueError: if both are given.
    """

    def __init__(self, seconds: float | None = None, *, at: float | None = None, margin_s: float = 0.0) -> None:
        if seconds is not None and at is not None:
            raise ValueError(f"seconds={seconds} and at={at}: give one of them")
        self.seconds = seconds
        self.at = slurm_end_time() if seconds is None and at is None else at
        self.margin_s = margin_s

    def start(self) -> None:
        """Begin to count."""
        if self.at is None:
            assert self.seconds is not None
            self.at = time.time() + self.seconds

    def fired(self) -> bool:
        """Say whether the end is near."""
        if self.reason is None and self.at is not None and time.time() >= self.at - self.margin_s:
            self.fire(f"deadline {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(self.at))}")
        return self.reason is not None


def default_triggers() -> list[Trigger]:
    """Make the triggers for wherever the run is: signals always, HFAI's flag where its client and cluster are found."""
    triggers: list[Trigger] = [SignalTrigger()]
    client = hfai_client()
    if client is not None:
        triggers.append(CallableTrigger(client.receive_suspend_command, name="hfai.client.receive_suspend_command"))
    return triggers
