"""Watch the ranks of one machine: pass signals on, end all when one fails, and find out which one it was."""

import contextlib
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from types import FrameType

from hookline.engine.launch_causes import ended_because
from hookline.engine.launch_herald import Herald
from hookline.engine.launch_report import Ending, death
from hookline.engine.launch_signals import SUSPENDING

__all__ = ["RankFailedError", "Watch", "Worker"]

# After the first failure the others get this long to end by themselves, then SIGTERM, then SIGKILL.
_GRACE_S = {"error": 2.0, "lost": 2.0, "exit": 60.0, "interrupt": 10.0}
_TERM_GRACE_S = 4.0
# Failures that come so shortly after each other are told apart by their own clocks.
_TOGETHER_S = 1.0
_PASSED_ON: tuple[int, ...] = (signal.SIGTERM, *SUSPENDING)


class RankFailedError(RuntimeError):
    """A rank failed; the message holds its own traceback, or the signal that ended it.

    Args:
        message: Which rank, and how.
        rank: Its number.
    """

    def __init__(self, message: str, rank: int) -> None:
        super().__init__(message)
        self.rank = rank

    def __reduce__(self) -> tuple[type, tuple[str, int]]:
        return type(self), (str(self), self.rank)


@dataclass
class Worker:
    """A spawned rank.

    Attributes:
        rank: Its number.
        process: The process.
        report: Where it tells its ending.
        lifeline: Our end of what keeps it from being orphaned.
        ending: What it told, None before.
        died_at: When it was seen to have died, in seconds since the epoch, None before.
    """

    rank: int
    process: BaseProcess
    report: Connection
    lifeline: Connection
    ending: Ending | None = None
    died_at: float | None = field(default=None)

    def is_alive(self) -> bool:
        """Tell whether the process was still running when last looked at."""
        return self.died_at is None

    def has_failed(self) -> bool:
        """Tell whether it ended other than by returning from its main function."""
        return self.ending is not None or (self.died_at is not None and self.process.exitcode != 0)

    def lost_contact(self) -> bool:
        """Tell whether it failed because another rank did."""
        return self.ending is not None and self.ending.kind == "lost"

    def failed_at(self) -> float:
        """When it failed, by its own clock if it said so."""
        if self.ending is not None:
            return self.ending.at
        return self.died_at if self.died_at is not None else float("inf")


class Watch:
    """Start ranks, wait for them, and leave none of them behind.

    Args:
        starting: Starts the ranks of this machine one by one as it is iterated over.
        early_signal: Tells which signal came before, if it should be passed on, too.
        herald: Tells other machines of ranks that cannot do it themselves; None where there are none.
        backend: Of the process group, which explains some deaths.
    """

    def __init__(
        self,
        starting: Iterable[Worker],
        early_signal: Callable[[], int | None] | None = None,
        herald: Herald | None = None,
        backend: str = "gloo",
    ) -> None:
        self.workers: list[Worker] = []
        self._starting = starting
        self._early_signal = early_signal
        self._herald = herald
        self._backend = backend
        self._passed_on: set[int] = set()
        self._to_pass_on: deque[int] = deque()
        self._all_started = False
        self._stopped: set[int] = set()

    def run(self) -> None:
        """Start all ranks and wait until they have ended; if one failed, end the others and raise for the first one.

        Raises:
            SystemExit: With the code of the first rank that left by one, or 128 + a signal that was passed on.
            RankFailedError: If a rank died of anything else that cannot be raised here as it was.
            KeyboardInterrupt: On Ctrl-C, when all ranks have ended.
        """
        try:
            with self._signals_passed_on():
                for worker in self._starting:
                    self.workers.append(worker)
                self._all_started = True
                self._pass_on()  # what came meanwhile
                self._wait_for_all()
        except KeyboardInterrupt:
            self._end_by_interrupt()
            raise
        finally:
            self.kill()
        failed = [worker for worker in self.workers if worker.has_failed() and worker.rank not in self._stopped]
        if failed:
            self._raise_for(self._first(failed))

    def _wait_for_all(self) -> None:
        deadline: float | None = None
        while self._alive():
            self._look(timeout_s=0.5 if deadline is None else max(0.0, min(0.5, deadline - time.monotonic())))
            if deadline is None and (failed := [w for w in self.workers if w.has_failed()]):
                self._tell_others(failed)
                ending = failed[0].ending
                deadline = time.monotonic() + _GRACE_S[ending.kind if ending is not None else "error"]
            if deadline is not None and time.monotonic() >= deadline:
                self._terminate()
                return

    def _look(self, timeout_s: float) -> None:
        """Wait for news and take it down."""
        sources: list[Connection | int] = [worker.process.sentinel for worker in self._alive()]
        sources += [worker.report for worker in self._alive() if worker.ending is None and not worker.report.closed]
        wait(sources, timeout_s)
        for worker in self._alive():
            self._read(worker)
            if worker.process.exitcode is not None:
                self._read(worker)  # it may have told and died between the two looks
                worker.died_at = time.time()

    def _read(self, worker: Worker) -> None:
        if worker.ending is not None or worker.report.closed:
            return
        try:
            if worker.report.poll():
                worker.ending = worker.report.recv()
        except (EOFError, OSError):
            worker.report.close()

    def _alive(self) -> list[Worker]:
        return [worker for worker in self.workers if worker.is_alive()]

    def _terminate(self) -> None:
        """SIGTERM, and SIGKILL for what has not ended by then: a rank may hang in a collective."""
        self._stopped.update(worker.rank for worker in self._alive() if not worker.has_failed())
        self._tell_others([worker for worker in self.workers if worker.has_failed()])
        for worker in self._alive():
            worker.process.terminate()
        deadline = time.monotonic() + _TERM_GRACE_S
        while self._alive() and time.monotonic() < deadline:
            self._look(timeout_s=0.1)
        self.kill()

    def _tell_others(self, failed: list[Worker]) -> None:
        """Tell the other machines of a rank that died without a word, and not to heed those that are ended for it."""
        if self._herald is None:
            return
        news = None
        if failed and (first := self._first(failed)).ending is None:
            news = first.rank, f"it {death(first.process.exitcode or 1, self._backend)}"
        if news or self._stopped:
            self._herald.tell(news, self._stopped)

    def kill(self) -> None:
        """End at once what still runs, and close what led to it."""
        for worker in self._alive():
            worker.process.kill()
        for worker in self.workers:
            worker.process.join()
            self._look_at_dead(worker)

    def _look_at_dead(self, worker: Worker) -> None:
        self._read(worker)
        if worker.died_at is None:
            worker.died_at = time.time()
        worker.report.close()
        worker.lifeline.close()

    def _end_by_interrupt(self) -> None:
        """End the ranks after Ctrl-C; a second one ends them at once."""
        try:
            self._send(signal.SIGINT)
            deadline = time.monotonic() + _GRACE_S["interrupt"]
            while self._alive() and time.monotonic() < deadline:
                self._look(timeout_s=0.2)
            self._terminate()
        except KeyboardInterrupt:
            self.kill()

    def _send(self, number: int) -> None:
        for worker in self._alive():
            with contextlib.suppress(ProcessLookupError):
                assert worker.process.pid is not None
                os.kill(worker.process.pid, number)

    def _pass_on(self) -> None:
        """Send each signal once: a second one would interrupt the ranks while they leave."""
        with contextlib.suppress(IndexError):
            while True:
                self._send(self._to_pass_on.popleft())  # taken in one step, since the handler may come in between

    @contextlib.contextmanager
    def _signals_passed_on(self) -> Iterator[None]:
        """Give the ranks the signals that this process gets: what stops jobs mostly tells the first process alone."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return

        def pass_on(number: int, frame: FrameType | None) -> None:
            self._passed_on.add(number)
            self._to_pass_on.append(number)
            if self._all_started:
                self._pass_on()

        before = {number: signal.signal(number, pass_on) for number in _PASSED_ON}
        early = None if self._early_signal is None else self._early_signal()
        if early is not None and early in _PASSED_ON:
            pass_on(early, None)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @staticmethod
    def _first(failed: list[Worker]) -> Worker:
        """The rank that failed first; those that lost contact are the consequences.

        A rank that was killed cannot tell when, but it is the cause of what others told a moment earlier than its
        death was seen. An abort may be a consequence too, since NCCL aborts.
        """
        first = min(failed, key=lambda worker: (worker.lost_contact(), worker.failed_at()))
        for worker in failed:
            killed = worker.ending is None and worker.process.exitcode not in (None, 0, -signal.SIGABRT)
            if killed and (first.lost_contact() or worker.failed_at() - first.failed_at() < _TOGETHER_S):
                return worker
        return first

    def _raise_for(self, worker: Worker) -> None:
        ending, code = worker.ending, worker.process.exitcode or 1
        if ending is None:
            if -code in self._passed_on:
                raise SystemExit(128 - code)
            end = self._cause_of_abort(code) or death(code, self._backend)
            raise RankFailedError(f"rank {worker.rank} {end}", worker.rank)
        if ending.kind == "exit":
            raise SystemExit(ending.code)
        if ending.kind == "interrupt":
            raise KeyboardInterrupt
        cause = RankFailedError(f"rank {ending.rank} failed:\n{ending.text}", ending.rank)
        if ending.error is None:
            raise cause
        import cloudpickle

        raise cloudpickle.loads(ending.error) from cause

    def _cause_of_abort(self, code: int) -> str | None:
        """What another machine told before NCCL ended a rank here, which then cannot ask for it itself."""
        if self._herald is None or self._backend != "nccl" or -code != signal.SIGABRT:
            return None
        cause = self._herald.cause()
        is_of_others = bool(cause) and cause["rank"] not in {worker.rank for worker in self.workers}
        return ended_because(cause) if is_of_others else None
