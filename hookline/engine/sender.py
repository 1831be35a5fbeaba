"""A thread that does what may be slow or fail, such as talking to a server, so that training does neither."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable

__all__ = ["Sender"]

QUEUE_LIMIT = 20_000  # jobs that may wait while a server is down
RETRY_S = (2.0, 300.0)  # the first pause after a failure, and the longest one
HOPELESS = 3  # failures after which a job that alone fails is given up
LAST_TRY_S = 5.0  # how long closing waits where nothing works

logger = logging.getLogger(__name__)


class Sender:
    """Does jobs one after the other in a thread; one that fails is named in a warning, once, and tried again.

    While the first job waits for its next try, the others wait behind it, except that a job which still fails just
    after one behind it succeeded is given up.

    Args:
        name: whom it sends to, for messages.
        advice: said when something was not sent, such as where it can still be found.
    """

    def __init__(self, name: str, advice: str = "") -> None:
        self.name = name
        self.is_failing = False
        self._advice = advice
        self._jobs: deque[Callable[[], bool | None]] = deque()
        self._condition = threading.Condition()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        self._warned = False
        self._failures = 0  # of the first job
        self._lost = 0

    def put(self, job: Callable[[], bool | None]) -> None:
        """Hand in a job; returns at once.

        Args:
            job: called in the thread, perhaps several times until it does not raise. It returns False where it had
                nothing to send, which says nothing about whether the service works.
        """
        with self._condition:
            if len(self._jobs) >= QUEUE_LIMIT:
                del self._jobs[1]  # the first one may be at work
                self._lost += 1
            self._jobs.append(job)
            self._condition.notify_all()
        if self._thread is None:
            self._thread = threading.Thread(target=self._work, name=f"hookline-{self.name}", daemon=True)
            self._thread.start()

    def wait(self, timeout_s: float) -> bool:
        """Wait until all is done, something fails, or time is up.

        Args:
            timeout_s: the longest wait.

        Returns:
            Whether all is done.
        """
        with self._condition:
            self._condition.wait_for(lambda: not self._jobs or self.is_failing, timeout_s)
            return not self._jobs

    def close(self, timeout_s: float) -> None:
        """Wait for what is left and end the thread; says what was not sent.

        Args:
            timeout_s: the longest wait; where the newest try failed it is a few seconds.
        """
        self._closing.set()
        with self._condition:
            self._condition.notify_all()
        if self._thread is not None:
            self._thread.join(min(timeout_s, LAST_TRY_S) if self.is_failing else timeout_s)
        left = self._lost + len(self._jobs)
        if left:
            logger.warning("%s: %d entries were not sent. %s", self.name, left, self._advice)

    def _work(self) -> None:
        pause = RETRY_S[0]
        while True:
            with self._condition:
                self._condition.wait_for(lambda: self._jobs or self._closing.is_set())
                if not self._jobs:
                    return
            if self._do_next():
                pause = RETRY_S[0]
                continue
            if self._closing.wait(pause):
                if not self._do_next():  # one more try when the run ends
                    return
                continue
            pause = min(2 * pause, RETRY_S[1])

    def _do_next(self) -> bool:
        """Do the first job; returns whether the queue got shorter."""
        if self._try(0):
            return True
        if self._failures < HOPELESS or not self._another_works():
            return False
        if not self._try(0):  # it may have failed because the service was down until just now
            with self._condition:
                self._jobs.popleft()
                self._lost += 1
                self.is_failing = False
                self._condition.notify_all()
            self._failures = 0
        return True

    def _another_works(self) -> bool:
        """Try those behind the first job up to one that needs the service; returns whether that one succeeded."""
        while len(self._jobs) > 1:
            if not self._try(1):
                return False
            if not self.is_failing:
                return True
        return False

    def _try(self, place: int) -> bool:
        job = self._jobs[place]
        started = time.monotonic()
        try:
            talked = job() is not False
        except Exception as error:
            self._note(error, time.monotonic() - started)
            return False
        with self._condition:
            with contextlib.suppress(ValueError):  # it was too many in the meantime
                self._jobs.remove(job)
            was_failing = self.is_failing
            self.is_failing = was_failing and not talked
            self._condition.notify_all()
        if place == 0:
            self._failures = 0
        if was_failing and talked:
            logger.info("%s works again: what waited is being sent", self.name)
        return True

    def _note(self, error: Exception, seconds: float) -> None:
        self._failures += 1
        with self._condition:
            self.is_failing = True
            self._condition.notify_all()
        if not self._warned:
            self._warned = True
            logger.warning(
                "%s failed after %.1f s with %s: %s. Training goes on; it is tried again, and further failures are not "
                "told",
                *(self.name, seconds, type(error).__name__, error),
            )
