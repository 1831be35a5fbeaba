"""Signals that come twice."""

import os
import subprocess
import sys
import time

import pytest

from hookline import signals
from hookline.signals import end_if_repeated

CODE = (
    "import signal, time; from hookline.signals import end_if_repeated; {}print('alive', flush=True); {}time.sleep(60)"
)
ASK = "end_if_repeated(signal.SIGTERM, time.monotonic() - {}); "


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
