"""A rank ends when the program that started it was killed."""

import subprocess
import sys
import textwrap
import time

import psutil
import pytest

PARENT = textwrap.dedent("""
    import subprocess, sys
    print(subprocess.Popen([sys.executable, "-c", sys.argv[1]]).pid, flush=True)
    sys.stdin.read()
""")


@pytest.mark.parametrize("handler", ["signal.SIG_DFL", "signal.SIG_IGN"])
def test_an_orphan_ends_also_if_it_is_deaf_to_sigterm(tmp_path, handler):
    child = textwrap.dedent(f"""
        import pathlib, signal, time
        from hookline.engine import launch_signals
        launch_signals._ORPHAN_GRACE_S = 1.0
        signal.signal(signal.SIGTERM, {handler})
        launch_signals.follow_parent()
        pathlib.Path({str(tmp_path / "follows")!r}).touch()
        time.sleep(120)
    """)
    command = [sys.executable, "-c", PARENT, child]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as parent:
        rank = psutil.Process(int(parent.stdout.readline()))
        deadline = time.monotonic() + 60
        while not (tmp_path / "follows").exists():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(1.5)
        assert rank.is_running()
        parent.kill()
    _, left = psutil.wait_procs([rank], timeout=20)
    assert not left
