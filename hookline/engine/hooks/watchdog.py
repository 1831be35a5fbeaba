"""When training does not move: where every rank and every data worker stands."""

from __future__ import annotations

import faulthandler
import logging
import os
import sys
import threading
import time
from typing import Any

from hookline.distributed import get_rank
from hookline.engine.hook_base import HookBase
from hookline.engine.processes import children_of, command_of
from hookline.io.stacks import own_stacks, stacks_of

__all__ = ["Watchdog"]

ABORT_DELAY_S = 3.0  # for the watchdogs of the other ranks, which are ended with this one

logger = logging.getLogger(__name__)


class Watchdog(HookBase):
    """Logs the Python stacks of this process and of its data workers when a step takes too long; training goes on.

    Each rank watches itself, so of ranks that wait for one another every one reports. A stall is reported again each
    time it has become twice as long. Should the interpreter itself be blocked, its own watchdog in C writes the stacks
    to the standard error.

    Between steps, where evaluations and checkpoints happen, and in the first step, where workers start and kernels are
    chosen, another limit counts.

    Register it as the first hook, so that the time of all others counts as time between steps.

    Args:
        limit_s: seconds that a step may take.
        between_s: seconds that may lie between two steps, and that the first step may take; at least ``limit_s``.
        abort: end the process, with exit code 1, after the first report.

    Raises:
        ValueError: if the limit is not positive.
    """

    def __init__(self, limit_s: float, between_s: float = 3600.0, *, abort: bool = False) -> None:
        if not limit_s > 0:
            raise ValueError(f"limit_s={limit_s}: expected seconds above 0")
        self._limits = {"step": limit_s, "between": max(limit_s, between_s)}
        self._abort = abort
        self._moved: tuple[float, str, str] = (0.0, "between", "")  # since when, which limit, in words
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._is_first = True
        self._end: HookBase | None = None

    def before_train(self) -> None:
        """Begin to watch."""
        self._is_first = True
        self._note("between", f"before iteration {self.trainer.iter}")
        self._stop.clear()
        self._thread = threading.Thread(target=self._watch, name="hookline-watchdog", daemon=True)
        self._thread.start()

    def before_step(self) -> None:
        """Note that a step begins."""
        self._note("between" if self._is_first else "step", f"in iteration {self.trainer.iter}")

    def after_step(self) -> None:
        """Note that a step has ended."""
        self._is_first = False
        self._note("between", f"after iteration {self.trainer.iter}, in a hook such as evaluation or a checkpoint")

    def end(self) -> HookBase:
        """Return a hook to be registered behind others, until whose end in ``after_train`` this one watches on."""
        self._end = _WatchdogEnd(self)
        return self._end

    def after_train(self) -> None:
        """Stop watching, unless another hook does that later."""
        self._note("between", f"after iteration {self.trainer.iter - 1}, at the end")
        if not any(hook is self._end for hook in self.trainer._hooks):
            self.stop()

    def stop(self) -> None:
        """Stop watching."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _note(self, limit: str, where: str) -> None:
        self._moved = (time.monotonic(), limit, where)  # one assignment: the thread sees all of it or nothing

    def _watch(self) -> None:
        tick = min(1.0, self._limits["step"] / 4)
        reported: tuple[Any, float] = (None, 0.0)  # the stall, and how long it was when it was reported
        try:
            while not self._stop.wait(tick):
                reported = self._look(reported)
                self._arm(self._limits[self._moved[1]] + 10 * tick)
            self._look(reported)
        finally:
            faulthandler.cancel_dump_traceback_later()

    def _look(self, reported: tuple[Any, float]) -> tuple[Any, float]:
        """Report a stall, or its end.

        Returns:
            The stall that is reported, and its length by now.
        """
        since, limit, where = moved = self._moved
        if reported[0] is not None and reported[0] is not moved:
            logger.warning("rank %d moves again, after more than %.0f s", get_rank(), reported[1])
            reported = (None, 0.0)
        stalled = time.monotonic() - since
        if stalled > max(self._limits[limit], 2 * reported[1]):
            self._report(stalled, where)
            return moved, stalled
        return reported

    def _arm(self, seconds: float) -> None:
        """Put off the interpreter's watchdog, which only barks where this thread itself cannot run."""
        if sys.__stderr__ is not None and not sys.__stderr__.closed:
            faulthandler.dump_traceback_later(seconds, file=sys.__stderr__)

    def _report(self, stalled: float, where: str) -> None:
        rank = get_rank()
        parts = [f"rank {rank} has not moved for {stalled:.0f} s, {where}. Its stacks:", own_stacks(with_caller=False)]
        for pid in children_of():
            stacks, who = stacks_of(pid), f"child process {pid} ({command_of(pid)[:60]})"
            parts += [f"{who}:", stacks] if stacks else [f"{who} tells no stacks"]
        text = "\n".join(parts)
        logger.error("%s", text)
        if rank and sys.__stderr__ is not None:  # the console shows the log of rank 0 alone
            print(text, file=sys.__stderr__, flush=True)
        if self._abort:
            logger.error("rank %d is ended by its watchdog", rank)
            time.sleep(ABORT_DELAY_S)
            os._exit(1)


class _WatchdogEnd(HookBase):
    """Stops a watchdog behind the last work of the other hooks."""

    def __init__(self, watchdog: Watchdog) -> None:
        self._watchdog = watchdog

    def after_train(self) -> None:
        self._watchdog.stop()
