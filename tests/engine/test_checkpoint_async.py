"""One write at a time, and no error lost."""

import subprocess
import sys
import textwrap
import threading

import pytest

from hookline.engine.checkpoint_async import BackgroundWriter


def test_work_runs_in_order_and_the_thread_ends():
    writer, gate, done = BackgroundWriter(), threading.Event(), []
    writer.start(lambda: (gate.wait(10), done.append(1)))
    assert writer.is_busy()
    assert done == []
    threading.Timer(0.05, gate.set).start()
    writer.start(lambda: done.append(len(done) + 1))
    assert done[0] == 1
    writer.wait()
    assert done == [1, 2]
    assert not writer.is_busy()
    assert not [thread for thread in threading.enumerate() if thread.name == "checkpoint-writer"]


@pytest.mark.parametrize("next_call", ["wait", "start"])
def test_an_error_is_raised_once_at_the_next_call(next_call, caplog):
    writer, done = BackgroundWriter(), []

    def fail() -> None:
        raise OSError("no space left")

    writer.start(fail)
    with pytest.raises(OSError, match="no space left"):
        writer.wait() if next_call == "wait" else writer.start(lambda: done.append(1))
    assert "no space left" in caplog.text
    assert done == []
    writer.wait()
    writer.start(lambda: done.append(2))
    writer.wait()
    assert done == [2]


def test_a_process_that_ends_finishes_its_write(tmp_path):
    code = f"""
        import time
        from pathlib import Path
        from hookline.engine.checkpoint_async import BackgroundWriter
        def work():
            time.sleep(0.3)
            Path({str(tmp_path / "done")!r}).write_text("x")
        BackgroundWriter().start(work)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], check=True)
    assert (tmp_path / "done").exists()
