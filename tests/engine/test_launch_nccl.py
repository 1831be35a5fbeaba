"""NCCL's first reduction, played by a function: that it is bounded, and what is said."""

import subprocess
import sys
import threading
import time
from datetime import timedelta

import pytest
import torch.distributed as dist

from hookline.engine import launch_nccl
from hookline.engine.launch_nccl import connect_gpus
from hookline.engine.launch_plan import RendezvousError

REMOTE = (
    "NCCL error in: NCCLUtils.cpp:100, remote process exited or there was a network error\nncclRemoteError: refused"
)
NO_NETWORK = "NCCL error in: NCCLUtils.cpp:100, invalid usage\nLast error:\nBootstrap : no socket interface found"
OWN = "NCCL error in: NCCLUtils.cpp:100, invalid usage\nLast error:\nDuplicate GPU detected : rank 1 and rank 0"

PROGRAM = """
import time
from dataclasses import replace
from datetime import timedelta
import torch.distributed as dist
from hookline.engine import launch_nccl, launch_rank
from hookline.engine.launch_rank import RankPlace, Waits, in_group
from hookline.engine.launch_store import serve_store

launch_nccl._reduce = lambda: time.sleep(300)
init = dist.init_process_group
dist.init_process_group = lambda backend, **options: init("gloo", **options)
(_store, address), (_other_store, other_address) = serve_store(None), serve_store(None)
waits = Waits(timedelta(hours=1), timedelta(hours=2), timedelta(seconds=3))
place = RankPlace(0, 1, 0, 1, address, use_gpu=False, backend="gloo", waits=waits)
with in_group(place):
    print("gloo connects by itself", flush=True)
with in_group(replace(place, address=other_address, backend="nccl")):
    print("never here")
"""


@pytest.fixture(autouse=True)
def no_thread_left():
    before = threading.active_count()
    yield
    deadline = time.monotonic() + 10
    while threading.active_count() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert threading.active_count() <= before  # a thread of an earlier test may end meanwhile


def failing(text):
    def reduce():
        raise dist.DistBackendError(text)

    return reduce


def test_a_reduction_in_time_is_all(monkeypatch):
    done = []
    monkeypatch.setattr(launch_nccl, "_reduce", lambda: done.append(True))
    connect_gpus(3, timedelta(hours=1), pytest.fail)
    assert done == [True]


def test_one_that_takes_too_long_ends_the_process_from_a_thread(monkeypatch):
    said, over = [], threading.Event()
    monkeypatch.setattr(launch_nccl, "_reduce", lambda: over.wait(60))

    def give_up(text):
        said.append((text, threading.current_thread() is threading.main_thread()))
        over.set()

    connect_gpus(3, timedelta(seconds=0.2), give_up)
    ((text, in_main),) = said
    assert text.startswith("could not connect to the other ranks by NCCL within 0.2 s, though all came; NCCL_SOCKET_I")
    assert "NCCL_DEBUG=INFO" in text
    assert not in_main


@pytest.mark.parametrize(("text", "words"), [(REMOTE, "ncclRemoteError: refused"), (NO_NETWORK, "no socket interface")])
def test_what_nccl_says_of_the_network_is_explained(monkeypatch, text, words):
    monkeypatch.setattr(launch_nccl, "_reduce", failing(text))
    words = rf"rank 3 could not connect .* NCCL_SOCKET_IFNAME .*NCCL_DEBUG=INFO.*{words}.*\)"
    with pytest.raises(RendezvousError, match=words):
        connect_gpus(3, timedelta(hours=1), pytest.fail)


def test_its_own_failure_stays_what_it_is(monkeypatch):
    monkeypatch.setattr(launch_nccl, "_reduce", failing(OWN))
    with pytest.raises(dist.DistBackendError, match="Duplicate GPU"):
        connect_gpus(3, timedelta(hours=1), pytest.fail)


@pytest.mark.slow
def test_a_rank_ends_where_nccl_does_not_come_back():
    start = time.monotonic()
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 1, done.stderr
    assert done.stdout == "gloo connects by itself\n"
    assert "error: rank 0 could not connect to the other ranks by NCCL within 3 s" in done.stderr
    assert time.monotonic() - start < 120
