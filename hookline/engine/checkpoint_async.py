"""Run one piece of work at a time in a thread of its own, and lose no error of it."""

import logging
import threading
from collections.abc import Callable

__all__ = ["BackgroundWriter"]

_logger = logging.getLogger(__name__)


class BackgroundWriter:
    """At most one write in flight.

    The thread lives as long as its write and is no daemon: a process that ends normally finishes the file first.
    An error is logged when it happens and raised in the caller's thread by the next `wait` or `start`.
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def start(self, work: Callable[[], None]) -> None:
        """Wait for the work before, then begin this one.

        Args:
            work: What to do; it must not touch what the caller changes meanwhile.
        """
        self.wait()
        self._thread = threading.Thread(target=self._run, args=(work,), name="checkpoint-writer")
        self._thread.start()

    def wait(self) -> None:
        """Wait until nothing is in flight; an error of the last work is raised here, once."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        error, self._error = self._error, None
        if error is not None:
            raise error

    def is_busy(self) -> bool:
        """Tell whether a write is in flight."""
        return self._thread is not None and self._thread.is_alive()

    def _run(self, work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            _logger.error("writing in the background failed: %s", error)
            self._error = error
