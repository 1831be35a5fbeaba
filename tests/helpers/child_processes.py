"""Processes that tests start, none of which outlives its test."""

import contextlib
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import psutil


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def run_ranks(script: str, folder: Path, *arguments: str, ranks=2, timeout=120.0) -> list[tuple[int, str]]:
    """Run a script as `script.py RANK FOLDER ARGUMENTS` on each rank; give exit codes and outputs."""
    (folder / "script.py").write_text(script)
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, folder / "script.py"]
    programs = [
        subprocess.Popen([*command, str(rank), folder, *arguments],
                         env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for rank in range(ranks)
    ]  # fmt: skip
    return ends_of(programs, timeout)


def ends_of(programs: list[subprocess.Popen], timeout: float) -> list[tuple[int, str]]:
    """Wait for programs whose output is a pipe; give exit codes and outputs."""
    try:
        outputs = [program.communicate(timeout=timeout)[0] for program in programs]
        return [(program.returncode, output) for program, output in zip(programs, outputs, strict=True)]
    finally:
        for program in programs:
            program.kill()
            program.communicate()


@contextlib.contextmanager
def whole_session(program: subprocess.Popen, seconds=10.0):
    """Wait in it for the end of a program that leads a session: all of the session must end soon behind it."""
    try:
        yield
        left = left_of(program.pid, seconds)
        assert not left, f"still there: {[process.cmdline() for process in left]}"
    finally:
        for process in session(program.pid):
            process.kill()
        program.kill()
        program.communicate()


def left_of(leader: int, seconds: float) -> list[psutil.Process]:
    """What is still there of a session so long after its leader has ended."""
    deadline = time.monotonic() + seconds
    while (left := session(leader)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def session(leader: int) -> list[psutil.Process]:
    """All living processes of a session: the starter, the ranks, their data workers and helpers."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, ProcessLookupError):
            if os.getsid(process.pid) == leader and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found
