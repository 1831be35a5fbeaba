"""The watch over ranks: which signals reach them, and who is blamed."""

import contextlib
import os
import signal
from datetime import timedelta
from multiprocessing import Pipe
from types import SimpleNamespace

import pytest

from hookline.engine import launch_watch
from hookline.engine.launch_causes import Causes
from hookline.engine.launch_herald import Herald
from hookline.engine.launch_report import Ending
from hookline.engine.launch_store import serve_store
from hookline.engine.launch_watch import RankFailedError, Watch, Worker


@pytest.fixture
def make_worker():
    """Make a worker whose process has ended with a code, and which told of an ending or not."""
    pipes = []

    def make(rank, code=0, ending=None):
        ours, theirs = Pipe()
        pipes.extend([ours, theirs])
        if ending is not None:
            theirs.send(ending)
        gone, other = os.pipe()
        os.close(other)  # so that it is ready at once, like the sentinel of a process that has ended
        pipes.append(os.fdopen(gone))
        process = SimpleNamespace(pid=10_000_000 + rank, sentinel=gone, exitcode=code, join=lambda: None)
        return Worker(rank, process, ours, theirs)

    yield make
    for pipe in pipes:
        pipe.close()


def test_a_signal_while_ranks_are_started_reaches_each_of_them_once(make_worker, monkeypatch):
    sent = []
    monkeypatch.setattr(launch_watch.os, "kill", lambda pid, number: sent.append((pid - 10_000_000, number)))

    def starting():
        yield make_worker(0)
        signal.raise_signal(signal.SIGUSR1)
        yield make_worker(1)
        signal.raise_signal(signal.SIGUSR2)

    Watch(starting()).run()
    numbers = (signal.SIGUSR1, signal.SIGUSR2)
    assert sent == [(rank, number) for number in numbers for rank in (0, 1)]


def test_a_signal_that_came_before_reaches_each_rank(make_worker, monkeypatch):
    sent = []
    monkeypatch.setattr(launch_watch.os, "kill", lambda pid, number: sent.append((pid - 10_000_000, number)))
    Watch(map(make_worker, (0, 1)), early_signal=lambda: signal.SIGUSR1).run()
    assert sent == [(0, signal.SIGUSR1), (1, signal.SIGUSR1)]


@pytest.mark.parametrize(
    ("others", "blamed"),
    [
        ([("lost", 1, 5.0), ("error", 1, 9.0)], 1),  # the one that lost contact told first
        ([("error", 1, 9.0), ("error", 1, 5.0)], 1),  # the first of two
        ([("lost", 1, 5.0), (None, -signal.SIGKILL, None)], 1),  # killed: it could not tell
        ([("lost", 1, 9.0), ("lost", 1, 5.0)], 1),  # the cause is on another machine
    ],
)
def test_who_is_blamed(make_worker, others, blamed):
    workers = []
    for rank, (kind, code, at) in enumerate(others):
        ending = None if kind is None else Ending(rank, kind, code, at, f"text of {rank}")
        workers.append(make_worker(rank, code, ending))
    with pytest.raises(RankFailedError) as error:
        Watch(workers).run()
    assert error.value.rank == blamed


@pytest.mark.parametrize(
    ("codes", "told"),
    [
        ([-signal.SIGKILL], [(0, "it was killed by SIGKILL; the system may have run out of memory (see dmesg)")]),
        ([0, 3], [(1, "it ended with exit code 3 without a word")]),
        ([0, 0], []),
    ],
)
def test_a_death_is_told_to_other_machines(make_worker, codes, told):
    found = []
    herald = SimpleNamespace(tell=lambda death, ended: found.append(death))
    watch = Watch([make_worker(rank, code) for rank, code in enumerate(codes)], herald=herald)
    with pytest.raises(RankFailedError) if told else contextlib.nullcontext():
        watch.run()
    assert found == told


@pytest.mark.parametrize(
    ("backend", "words"),
    [
        (
            "nccl",
            r"rank 0 was killed by SIGABRT; NCCL ends a rank so that waited train\.env\.timeout_s for another one",
        ),
        ("gloo", "rank 0 was killed by SIGABRT$"),
    ],
)
def test_an_abort_may_be_the_end_of_a_wait(make_worker, backend, words):
    with pytest.raises(RankFailedError, match=words):
        Watch([make_worker(0, -signal.SIGABRT)], backend=backend).run()


@pytest.mark.parametrize(
    ("teller", "kind", "backend", "words"),
    [
        (9, None, "nccl", r"rank 1 ended because rank 9 on \S+ failed before: ValueError: boom"),
        (9, "lost", "nccl", r"rank 1 ended because rank 9 on \S+ failed before: ValueError: boom"),  # by Python, too
        (9, None, "gloo", "rank 1 was killed by SIGABRT$"),
        (None, None, "nccl", "rank 1 was killed by SIGABRT; NCCL ends a rank so"),
    ],
)
def test_an_abort_by_nccl_is_explained_by_what_another_machine_told(make_worker, teller, kind, backend, words):
    store, address = serve_store(None)
    if teller is not None:
        Causes(store, address, teller, 16, timedelta(seconds=7)).tell(ValueError("boom"))
    neighbour = make_worker(0) if kind is None else make_worker(0, 1, Ending(0, kind, 1, 5.0, "its text"))
    watch = Watch([neighbour, make_worker(1, -signal.SIGABRT)], herald=Herald(address, store), backend=backend)
    with pytest.raises(RankFailedError, match=words):
        watch.run()
