import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from hookline.data.workers import DataWorkerError, explain_death

PROGRAM = """
import os, signal, sys, time
signal.signal(signal.SIGUSR1, lambda *_: print("handler ran in", "worker" if os.getpid() != trainer else "trainer"))
from hookline.data.workers import init_worker
trainer = os.getpid()
worker = os.fork()
if worker == 0:
    init_worker(0, then=lambda worker_id: print("init", worker_id, flush=True))
    print("ready", os.getpid(), flush=True)
    time.sleep(60)
    os._exit(3)
line = sys.stdin.readline()
os.kill(worker, signal.SIGTERM)
print("status", os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]), flush=True)
"""


@pytest.mark.skipif(not hasattr(signal, "sigwaitinfo"), reason="the system does not tell who sent a signal")
def test_only_the_trainer_ends_a_worker():
    with subprocess.Popen([sys.executable, "-c", PROGRAM], stdin=-1, stdout=-1, text=True) as program:
        assert program.stdout.readline() == "init 0\n"
        worker = int(program.stdout.readline().split()[1])
        for name in (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT):
            os.kill(worker, name)
        time.sleep(0.3)
        assert psutil.Process(worker).status() != "zombie"
        output, _ = program.communicate("now\n")
    assert output == "status 0\n"


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
