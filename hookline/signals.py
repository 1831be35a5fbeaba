"""What a signal means that comes a second time: nobody wants to wait for what the first one began."""

import os
import signal
import time

__all__ = ["REPEATED_S", "end_if_repeated"]

REPEATED_S = 2.0
"""A scheduler and the starter of the ranks may both deliver one and the same signal within this time."""


def end_if_repeated(number: int, first_s: float) -> None:
    """End this process by a signal, if it is asked again.

    Args:
        number: The signal that has come.
        first_s: When the first one came, by `time.monotonic`.
    """
    if time.monotonic() - first_s < REPEATED_S:
        return
    if os.getpid() == 1:  # of a container: the system keeps it from dying by a signal
        os._exit(128 + number)
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
