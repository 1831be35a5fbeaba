import logging
import multiprocessing
import sys

import psutil
import pytest

from hookline.engine.hooks import CallbackHook, MemoryGuard, memory
from hookline.engine.processes import children_of, command_of, private_memory

MIB = 2**20
linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs /proc")


def run(make_trainer, monkeypatch, courses, **settings):
    """Train with made-up memory: bytes by process and look."""
    looks = {pid: iter(course) for pid, course in courses.items()}
    monkeypatch.setattr(memory, "children_of", lambda: [pid for pid in courses if pid != "self"])
    monkeypatch.setattr(memory, "private_memory", lambda pid="self": next(looks[pid]))
    monkeypatch.setattr(memory, "command_of", lambda pid: "python worker")
    length = len(next(iter(courses.values()))) - 1
    make_trainer([MemoryGuard(period=2, **settings)]).train(0, 2 * length)


def mib(*values):
    return [None if value is None else value * MIB for value in values]


def test_growth_is_said_once_for_each_quarter(make_trainer, monkeypatch, caplog):
    courses = {"self": mib(0, 1000, 1100, 1240, 1250, 1300, 1562, 1563), 7: mib(*[500] * 7)}
    run(make_trainer, monkeypatch, courses, growth=0.25)
    lines = [m for m in caplog.messages if "grew" in m]
    assert [line.split(";")[0] for line in lines] == [
        "the memory of this process grew from 1000 to 1250 MiB (+25 %) between the iterations 1 and 7",
        "the memory of this process grew from 1250 to 1563 MiB (+25 %) between the iterations 7 and 13",
    ]
    assert "MiB is available" in lines[0]


def test_a_worker_is_named_and_measured_from_its_first_look(make_trainer, monkeypatch, caplog):
    run(make_trainer, monkeypatch, {"self": mib(0, *[900] * 4), 7: mib(None, 300, 390, 391)}, growth=0.3)
    (line,) = [m for m in caplog.messages if "grew" in m]
    assert line.startswith("the memory of child process 7 (python worker) grew from 300 to 390 MiB (+30 %)")


def test_a_small_process_may_double(make_trainer, monkeypatch, caplog):
    run(make_trainer, monkeypatch, {"self": mib(0, 20, 60, 80)}, growth=0.25)
    assert "grew" not in caplog.text


def test_where_the_system_does_not_tell_it_is_said_once(make_trainer, monkeypatch, caplog):
    monkeypatch.setattr(memory, "private_memory", lambda pid="self": None)
    with caplog.at_level(logging.INFO):
        make_trainer([MemoryGuard(period=1)]).train(0, 3)
    assert caplog.text.count("memory is not watched") == 1


def test_growth_must_be_a_share():
    with pytest.raises(ValueError, match="growth=0"):
        MemoryGuard(0)


@linux
def test_real_growth_is_seen(make_trainer, caplog):
    kept = []

    def leak(trainer):
        kept.append(bytearray(b"x") * (150 * MIB))

    share = 0.001  # of this process, which may be large
    make_trainer([CallbackHook(before_step=leak), MemoryGuard(share, period=1)]).train(0, 2)
    (line,) = [m for m in caplog.messages if "grew" in m]
    before, after = (float(word) for word in line.split("from ")[1].split(" MiB")[0].split(" to "))
    assert 140 < after - before < 180


def _hold(block, mib, pipe):
    own = bytearray(b"y") * (mib * MIB)
    pipe.send(len(block) + len(own))
    pipe.recv()


@linux
def test_shared_memory_does_not_count():
    """A forked child shares the parent's block; only its own one is private."""
    block = bytearray(b"x") * (200 * MIB)
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    child = context.Process(target=_hold, args=(block, 50, theirs))
    child.start()
    try:
        ours.recv()
        assert child.pid in children_of()
        held = private_memory(child.pid)
        assert 50 * MIB <= held < 120 * MIB
        assert held == pytest.approx(psutil.Process(child.pid).memory_full_info().uss, abs=4 * MIB)
        assert psutil.Process(child.pid).memory_info().rss > 200 * MIB
        assert "python" in command_of(child.pid)
    finally:
        ours.send(None)
        child.join()
    assert private_memory(child.pid) is None
    assert command_of(child.pid) == ""
