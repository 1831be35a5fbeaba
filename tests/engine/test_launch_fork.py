"""That threads of a process group have time to finish before a fork."""

import os

import pytest

from hookline.engine import launch_fork


@pytest.mark.parametrize("in_group", [True, False])
def test_a_fork_waits_a_moment_where_there_is_a_group(monkeypatch, in_group):
    launch_fork.pause_before_forks()
    launch_fork.pause_before_forks()
    paused = []
    monkeypatch.setattr(launch_fork.dist, "is_initialized", lambda: in_group)
    monkeypatch.setattr(launch_fork.time, "sleep", paused.append)
    child = os.fork()
    if child == 0:
        os._exit(0)
    os.waitpid(child, 0)
    assert paused == ([launch_fork._PAUSE_S] if in_group else [])
