"""Python stacks of processes that hang: a process offers its own, another one asks for it.

A child that called :func:`offer_stacks` writes the stacks of its threads into a file in memory when it gets a signal;
the asking process reads that file through ``/proc``. The interpreter of the child need not be running: the signal's
handler is C. Only Linux can do this; elsewhere nothing is offered.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import tempfile
import time
from pathlib import Path

__all__ = ["STACK_SIGNAL", "offer_stacks", "own_stacks", "stacks_of"]

# SIGUSR1 and SIGUSR2 mean suspension; the real-time signals near the ends of their range are taken by libraries.
STACK_SIGNAL: int = signal.SIGRTMIN + 11 if hasattr(signal, "SIGRTMIN") else 0

_FILE = "hookline-stacks"
_offered: int | None = None


def offer_stacks() -> None:
    """Let other processes of this user read the stacks of this one; doing it again, or after a fork, is harmless."""
    global _offered
    if STACK_SIGNAL and hasattr(os, "memfd_create"):
        before, _offered = _offered, os.memfd_create(_FILE)
        faulthandler.register(STACK_SIGNAL, file=_offered, all_threads=True)
        if before is not None:  # the parent's
            os.close(before)


def own_stacks(*, with_caller: bool = True) -> str:
    """Return the stacks of all threads of this process, the newest call first.

    Args:
        with_caller: also that of the thread that asks.
    """
    with tempfile.TemporaryFile() as file:
        faulthandler.dump_traceback(file=file, all_threads=True)
        file.seek(0)
        threads = file.read().decode("utf-8", "replace").rstrip().split("\n\n")
    return "\n\n".join(one for one in threads if with_caller or not one.startswith("Current thread"))


def stacks_of(pid: int, wait_s: float = 1.0) -> str | None:
    """Ask a process for its stacks.

    Args:
        pid: the process.
        wait_s: how long it may take.

    Returns:
        The stacks, or None where it offers none or does not answer. A process that offers none gets no signal, which
        could end it.
    """
    if not _listens(pid):
        return None
    file = _file_of(pid)
    if file is None:
        return None
    size, deadline = file.stat().st_size, time.monotonic() + wait_s
    with contextlib.suppress(OSError):
        os.kill(pid, STACK_SIGNAL)
        while time.monotonic() < deadline:
            before = file.stat().st_size
            time.sleep(0.05)
            if size < before == file.stat().st_size:  # it has been written, and grows no more
                with open(file, "rb") as content:
                    content.seek(size)
                    return content.read().decode("utf-8", "replace").rstrip()
    return None


def _listens(pid: int) -> bool:
    """Tell whether the process has a handler for the signal."""
    try:
        status = Path(f"/proc/{pid}/status").read_text("utf-8")
    except OSError:
        return False
    caught = next((int(line.split()[1], 16) for line in status.splitlines() if line.startswith("SigCgt:")), 0)
    return bool(STACK_SIGNAL) and bool(caught >> (STACK_SIGNAL - 1) & 1)


def _file_of(pid: int) -> Path | None:
    try:
        for file in Path(f"/proc/{pid}/fd").iterdir():
            with contextlib.suppress(OSError):
                if _FILE in os.readlink(file):
                    return file
    except OSError:
        pass
    return None
