"""How a process ends that was a rank.

While Python ends it stops every thread that wants its lock, which a thread of C++ does not survive: the process aborts.
A thread of gloo wants the lock when it frees the tensors of the last collective. Then torchrun and srun would take a
finished run for a failed one. Seen with torch 2.15: one of some hundred processes ended by SIGABRT so.
"""

import atexit
import os
import signal
import sys
import threading
from typing import NoReturn

__all__ = ["end_process", "has_been_rank", "note_rank_here"]

_was_rank = False


def note_rank_here() -> None:
    """Remember that this process has been a rank of a process group."""
    global _was_rank
    _was_rank = True


def has_been_rank() -> bool:
    """Tell whether this process has been a rank of a process group."""
    return _was_rank


def end_process(code: int) -> NoReturn:
    """Finish threads and exit handlers, then end without taking the interpreter apart.

    Freeing all modules takes half a second of CPU time, and libraries' destructors may hang or crash in it. A signal
    must not lead there, either: what hangs here is killed by the starter.

    Args:
        code: Exit code.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
