"""Signals that come twice, and signals to process 1, as the program of a container is."""

import os
import shutil
import signal
import subprocess
import sys
import time

import psutil
import pytest

from hookline import signals
from hookline.signals import end_if_repeated, obey_sigterm_as_process_1

CODE = (
    "import signal, time; from hookline.signals import end_if_repeated; {}print('alive', flush=True); {}time.sleep(60)"
)
ASK = "end_if_repeated(signal.SIGTERM, time.monotonic() - {}); "

NAMESPACE = ["unshare", "--fork", "--pid", "--kill-child"]
WAIT = """
import sys, time
def wait(*unused):
    try:
        print("ready", flush=True)
        time.sleep(60)
        print("slept", flush=True)
    finally:
        print("cleaned", flush=True)
    return 0
"""
COMMAND = """
from hookline.cli import main
main.COMMANDS["wait"] = ("__main__", "wait", "")
sys.exit(main.main(["wait"]))
"""
EVALUATION = """
from hookline.cli import train
train._launch = wait
sys.exit(train.main(["--config-file", "any", "--eval-only"]))
"""
TRAINING = """
from hookline import signals
from hookline.cli import train
signals.REPEATED_S = 0.0
train._launch = wait
sys.exit(train.main(["--config-file", "any"]))
"""
SUSPENDING = """
from hookline import signals
from hookline.engine.triggers import SignalTrigger
signals.REPEATED_S = 0.0
SignalTrigger().start()
wait()
"""
STUBBORN = """
from hookline.signals import obey_sigterm_as_process_1
obey_sigterm_as_process_1()
try:
    wait()
except SystemExit:
    time.sleep(60)
"""


def test_only_a_signal_that_comes_again_later_ends_the_process():
    code = CODE.format(ASK.format(1), ASK.format(3))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("alive\n", -15)


def test_the_first_process_of_a_container_ends_too(monkeypatch):
    class ExitedError(Exception):
        pass

    def leave(code):
        raise ExitedError(code)

    monkeypatch.setattr(os, "getpid", lambda: 1)
    monkeypatch.setattr(os, "_exit", leave)
    monkeypatch.setattr(signals.signal, "signal", pytest.fail)
    with pytest.raises(ExitedError, match="143"):
        end_if_repeated(15, time.monotonic() - 3)


def can_be_process_1() -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*NAMESPACE, "true"], capture_output=True, check=False, timeout=60).returncode == 0


def as_process_1(script, count):
    """Run a script as process 1 and send it SIGTERM; return its exit code and what it printed.

    Each further signal comes a second after the one before.
    """
    program = subprocess.Popen([*NAMESPACE, sys.executable, "-c", WAIT + script], stdout=subprocess.PIPE, text=True)
    try:
        assert program.stdout.readline() == "ready\n"
        (process,) = psutil.Process(program.pid).children()
        for number in range(count):
            time.sleep(1.0 if number else 0.0)
            os.kill(process.pid, signal.SIGTERM)
        output, _ = program.communicate(timeout=30)
        return program.returncode, output.split()
    finally:
        program.kill()
        program.communicate()


@pytest.mark.skipif(not can_be_process_1(), reason="needs unshare and the right to use it")
@pytest.mark.parametrize(
    ("script", "count", "printed"),
    [
        (COMMAND, 1, ["cleaned"]),
        (EVALUATION, 1, ["cleaned"]),
        (TRAINING, 2, []),
        pytest.param(SUSPENDING, 2, [], marks=pytest.mark.slow),  # imports torch
        (STUBBORN, 2, ["cleaned"]),
    ],
    ids=["command", "evaluation", "training", "suspending", "stubborn"],
)
def test_sigterm_ends_process_1(script, count, printed):
    assert as_process_1(script, count) == (128 + signal.SIGTERM, printed)


def test_another_process_is_left_as_it_is():
    before = signal.getsignal(signal.SIGTERM)
    obey_sigterm_as_process_1()
    assert signal.getsignal(signal.SIGTERM) is before
