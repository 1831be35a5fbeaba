import multiprocessing
import subprocess
import sys
import time

import pytest

from hookline.io.stacks import offer_stacks, own_stacks, stacks_of

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc and memfd")


def hang_here(pipe):
    offer_stacks()
    pipe.send("ready")
    pipe.recv()


@pytest.fixture(params=["fork", "spawn"])
def hanging(request):
    context = multiprocessing.get_context(request.param)
    ours, theirs = context.Pipe()
    child = context.Process(target=hang_here, args=(theirs,))
    child.start()
    ours.recv()
    yield child
    ours.send("end")
    child.join()
    assert child.exitcode == 0


def test_a_child_tells_where_it_hangs_as_often_as_it_is_asked(hanging):
    for _ in range(2):
        stacks = stacks_of(hanging.pid, wait_s=5.0)
        assert "hang_here" in stacks
        assert stacks.count("most recent call first") == 1
    assert hanging.is_alive()


def test_a_child_of_another_kind_is_left_alone():
    with subprocess.Popen(["sleep", "60"]) as child:
        assert stacks_of(child.pid) is None
        time.sleep(0.1)
        assert child.poll() is None
        child.kill()
    assert stacks_of(child.pid) is None


def test_ones_own():
    assert "in test_ones_own" in own_stacks()
    assert "in test_ones_own" not in own_stacks(with_caller=False)
