"""What may ask a run to stop: signals, a file, a function to poll, a deadline. Each is a small object with one latch.

A trigger is started by :class:`~hookline.engine.hooks.SuspendCheckpointer` before training and stopped after it. Its
``reason`` is None until it fires and keeps the first reason from then on, because a notice may be withdrawn again
(HFAI lowers its flag after five seconds) and must not be missed.
"""

from __future__ import annotations

import importlib
import logging
import os
import signal
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

__all__ = ["CallableTrigger", "DeadlineTrigger", "FileTrigger", "SignalTrigger", "Trigger", "default_triggers"]

logger = logging.getLogger(__name__)


class Trigger:
    """Something that may ask the run to stop."""

    reason: str | None = None

    def start(self) -> None:
        """Begin to listen."""

    def stop(self) -> None:
        """Stop listening and leave the process as it was before :meth:`start`."""

    def fired(self) -> bool:
        """Say whether the run was asked to stop; once true it stays true."""
        return self.reason is not None


class SignalTrigger(Trigger):
    """Fire at a signal; a second one ends the process at once.

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
            self._previous[each] = signal.signal(each, self._handle)

    def stop(self) -> None:
        """Put the previous handlers back."""
        _LISTENING.discard(self)
        while self._previous:
            each, previous = self._previous.popitem()
            signal.signal(each, signal.SIG_DFL if previous is None else previous)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.reason is None:
            self.reason = f"signal {signal.Signals(number).name}"
            return
        signal.signal(number, signal.SIG_DFL)  # asked twice: nobody wants to wait for the save
        os.kill(os.getpid(), number)

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
                self.reason = self._look()
            except Exception as error:
                if not self._warned:  # a poll that fails now may work in a second; saying it once is enough
                    logger.warning(f"{type(self).__name__}: polling failed ({type(error).__name__}: {error})")
                    self._warned = True
            self._quit.wait(self.interval_s)


class FileTrigger(_PollingTrigger):
    """Fire when a file appears. A file that lies there already when training starts counts too.

    Args:
        path: the file.
        interval_s: seconds between looks.
    """

    def __init__(self, path: str | os.PathLike[str], interval_s: float = 1.0) -> None:
        super().__init__(interval_s)
        self.path = os.fspath(path)

    def _look(self) -> str | None:
        return f"file {self.path}" if os.path.exists(self.path) else None


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
        at: the end as seconds since the epoch. With neither, Slurm's ``SLURM_JOB_END_TIME``.
        margin_s: how long before the end to fire.

    Raises:
        ValueError: if both are given, or neither and Slurm has set no end.
    """

    def __init__(self, seconds: float | None = None, *, at: float | None = None, margin_s: float = 0.0) -> None:
        if seconds is not None and at is not None:
            raise ValueError(f"seconds={seconds} and at={at}: give one of them")
        if seconds is None and at is None:
            if "SLURM_JOB_END_TIME" not in os.environ:
                raise ValueError("DeadlineTrigger: give seconds or at; SLURM_JOB_END_TIME is not set")
            at = float(os.environ["SLURM_JOB_END_TIME"])
        self.seconds = seconds
        self.at = at
        self.margin_s = margin_s
        self._started_at: float | None = None

    def start(self) -> None:
        """Begin to count."""
        self._started_at = time.time()

    def fired(self) -> bool:
        """Say whether the end is near."""
        if self.reason is None and self._started_at is not None:
            end = self.at if self.at is not None else self._started_at + float(self.seconds or 0.0)
            if time.time() >= end - self.margin_s:
                self.reason = f"deadline {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(end))}"
        return self.reason is not None


def default_triggers() -> list[Trigger]:
    """Make the triggers for wherever the run is: signals always, HFAI's flag where its client and cluster are found."""
    triggers: list[Trigger] = [SignalTrigger()]
    client = hfai_client()
    if client is not None:
        triggers.append(CallableTrigger(client.receive_suspend_command, name="hfai.client.receive_suspend_command"))
    return triggers


def hfai_client() -> Any | None:
    """Give ``hfai.client`` on an HFAI cluster or in its local simulation, else None."""
    if "MARSV2_NB_NAME" not in os.environ and os.environ.get("HFAI_SIMULATE") != "1":
        return None
    try:
        return importlib.import_module("hfai.client")
    except ImportError:
        logger.warning("This looks like an HFAI cluster, but hfai.client cannot be imported: its flag is not polled")
        return None
