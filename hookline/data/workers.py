"""What a data worker process does at its start, and what to say when one has died."""

import functools
import gc
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch.multiprocessing

from hookline.io.stacks import offer_stacks

CHECK_TRAINER_S = 2.0  # how long a worker may outlive the trainer


class DataWorkerError(RuntimeError):
    """A data worker process died."""


def init_worker(worker_id: int, then: Callable[[int], None] | None = None, sharing_strategy: str | None = None) -> None:
    """Make a worker ignore the signals that are meant for the trainer, and spare the memory it shares.

    Schedulers and terminals send their signals to every process of a job. A worker that obeys one takes the trainer
    down before its state is saved; a forked one would even run the trainer's own handler. So workers go on until the
    trainer ends them: it sends SIGTERM itself, tells them through their queue, or is gone. Should one hang, the
    trainer can ask it for its stacks.

    Args:
        worker_id: 0 and up.
        then: called with the id afterwards.
        sharing_strategy: the trainer's way to share tensors, which only forked workers know.
    """
    if sharing_strategy is not None:
        torch.multiprocessing.set_sharing_strategy(sharing_strategy)
    gc.freeze()  # else each collection writes into the headers of all inherited objects, and thereby copies their pages
    for name in ("SIGINT", "SIGUSR1", "SIGUSR2"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if hasattr(signal, "sigtimedwait"):
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        parent = multiprocessing.parent_process()
        trainer = os.getppid() if parent is None or parent.pid is None else parent.pid
        obey = functools.partial(_obey_only, trainer, os.getppid())
        threading.Thread(target=obey, name="hookline-sigterm", daemon=True).start()
    offer_stacks()
    if then is not None:
        then(worker_id)


@contextmanager
def sigterm_held() -> Iterator[None]:
    """Start workers inside of this block, in which SIGTERM waits.

    They inherit that, and so does every thread that their libraries start before :func:`init_worker` runs: one that
    does not block the signal would let it end the worker.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _obey_only(trainer: int, maker: int) -> None:
    """End the process when the trainer sends SIGTERM, or when it is gone.

    Torch's own watchdog is not enough: a worker that finds its parent dead still waits for a reader of its results.

    Args:
        trainer: the process that may send SIGTERM.
        maker: the process that forked this one: the trainer, or a fork server that ends with it.
    """
    while os.getppid() == maker:
        received = signal.sigtimedwait({signal.SIGTERM}, CHECK_TRAINER_S)
        if received is not None and received.si_pid == trainer:
            break
    os._exit(0)


def explain_death(error: Exception, num_workers: int | None = None) -> DataWorkerError | None:
    """Say in words why a worker died; ``None`` if the error is about something else.

    Args:
        error: what torch's loader raised. Its handler may raise a worker's death at any place of the program.
        num_workers: how many there were, None where that is not known.
    """
    text = str(error).strip()
    cut_off = isinstance(error, ConnectionError | EOFError) and bool(num_workers)  # while it handed a tensor over
    if "DataLoader worker" not in text and not cut_off:
        return None
    reason = "It may have crashed in native code; num_workers=0 shows where"
    if "Killed" in text or "exited unexpectedly" in text or cut_off:
        reason = (
            "If nobody killed it, the system ended it because memory was full: fewer workers or a smaller "
            "prefetch_factor need less (the kernel's log, dmesg, says so)"
        )
    elif "Bus error" in text or "shared memory" in text:
        reason = "Shared memory was full: give the container more of it (docker run --shm-size=8g) or use fewer workers"
    which = f", one of {num_workers}" if num_workers else ""
    return DataWorkerError(f"a data worker died{which}. {reason}. torch says: {text}")
