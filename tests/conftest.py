"""Fixtures shared by all tests: the real data, and a guard against leaks."""

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real data beside the project, or $HOOKLINE_TEST_DATA."""
    folder = Path(os.environ.get("HOOKLINE_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real data not found: {folder} is no folder; set HOOKLINE_TEST_DATA")
    return folder.resolve()


@pytest.fixture(autouse=True)
def leave_no_trace():
    """Fail a test that leaves a thread, a child process or a changed environment variable behind."""
    import multiprocessing
    import threading
    import time

    environment = dict(os.environ)
    threads = set(threading.enumerate())
    yield
    deadline = time.monotonic() + 5.0
    while True:
        children = multiprocessing.active_children()
        extra = [t for t in threading.enumerate() if t not in threads and t.is_alive() and not _is_library_thread(t)]
        if not (children or extra) or time.monotonic() > deadline:
            break
        time.sleep(0.02)
    # pytest's own, and what torch sets once when the first optimizer is made
    others = ("PYTEST_", "TORCHINDUCTOR_CACHE_DIR")
    after = {k: v for k, v in os.environ.items() if not k.startswith(others)}
    before = {k: v for k, v in environment.items() if not k.startswith(others)}
    for key in after.keys() | before.keys():
        if key not in before:
            del os.environ[key]
        elif after.get(key) != before[key]:
            os.environ[key] = before[key]
    assert after == before, f"environment changed: {set(after.items()) ^ set(before.items())}"
    assert not children, f"child processes left behind: {children}"
    assert not extra, f"threads left behind: {extra}"


def _is_library_thread(thread) -> bool:
    """Threads that libraries keep for the life of the process by design (of tqdm, hypothesis, torch's compiler)."""
    if "(_read_thread)" in thread.name:  # that of torch 2.8's compiler
        return True
    return thread.name.startswith(("tqdm", "TMonitor", "pydevd")) or type(thread).__name__ == "TMonitor"
