import multiprocessing
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from hookline.data.workers import DataWorkerError, explain_death, init_worker, sigterm_held

WAITS = hasattr(signal, "sigtimedwait") and "fork" in multiprocessing.get_all_start_methods()
needs_waiting = pytest.mark.skipif(not WAITS, reason="the system has no way to wait for a signal and a time")


def work(ready, pids=None):
    init_worker(0, then=lambda worker_id: ready.set())
    if pids is not None:
        pids.put(os.getpid())
    time.sleep(60)


def start(method, ready):
    process = multiprocessing.get_context(method).Process(target=work, args=(ready,))
    with sigterm_held():
        process.start()
    assert ready.wait(100)
    return process


@needs_waiting
def test_only_the_trainer_ends_a_worker():
    process = start("fork", multiprocessing.get_context("fork").Event())
    for name in ("TERM", "USR1", "USR2", "INT"):
        send = f"import os, signal; os.kill({process.pid}, signal.SIG{name})"  # from a process that is not the trainer
        subprocess.run([sys.executable, "-S", "-c", send], check=True)
    process.join(0.3)
    assert process.is_alive()
    process.terminate()
    process.join(10)
    assert process.exitcode == 0


@needs_waiting
@pytest.mark.slow
@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_the_trainer_ends_a_worker_however_it_was_made(method):
    process = start(method, multiprocessing.get_context(method).Event())
    process.terminate()
    process.join(10)
    assert process.exitcode == 0


def ended(process):
    """Tell whether a process has ended; nobody may be there to collect an orphan, so a zombie counts."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def train_with_a_worker(pids):
    ready = multiprocessing.get_context("fork").Event()
    multiprocessing.get_context("fork").Process(target=work, args=(ready, pids)).start()
    time.sleep(60)


@needs_waiting
def test_a_worker_ends_with_a_killed_trainer():
    context = multiprocessing.get_context("fork")
    pids = context.SimpleQueue()
    trainer = context.Process(target=train_with_a_worker, args=(pids,))
    trainer.start()
    worker = psutil.Process(pids.get())
    trainer.kill()
    trainer.join()
    for _ in range(500):
        if ended(worker):
            break
        time.sleep(0.02)
    else:
        worker.kill()
        pytest.fail("the worker goes on")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("DataLoader worker (pid 7) is killed by signal: Killed. ", "memory was full"),
        ("DataLoader worker (pid(s) 7, 8) exited unexpectedly", "memory was full"),
        ("DataLoader worker (pid 7) is killed by signal: Bus error. It is possible ... shared memory", "--shm-size"),
        ("DataLoader worker (pid 7) is killed by signal: Segmentation fault. ", "num_workers=0 shows where"),
    ],
)
def test_a_death_is_explained(text, words):
    error = explain_death(RuntimeError(text), 4)
    assert isinstance(error, DataWorkerError)
    assert words in str(error)
    assert "one of 4" in str(error)
    assert text.strip() in str(error)


def test_other_errors_are_not_taken_for_a_death():
    assert explain_death(RuntimeError("shape mismatch"), 4) is None
