"""Attempts of a run under torchrun, which meet in one store."""

import contextlib
import re
import socket
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import pytest
import torch.distributed as dist

import failing_run
from hookline.engine import launch_rank
from hookline.engine.launch_attempt import attempt
from hookline.engine.launch_plan import RendezvousError
from hookline.engine.launch_rank import RankPlace, Waits
from hookline.engine.launch_store import Notice, serve_store

PROGRAM = failing_run.__file__
SOON = timedelta(seconds=60)


def names_of(count: int, store: dist.Store, address: tuple[str, int]) -> set[str]:
    """Let so many ranks come, rank 0 last, and return under which names they meet."""
    names, met = [], threading.Barrier(count)

    def come(rank: int) -> None:
        with attempt(dist.TCPStore(*address, is_master=False), address, rank, count, SOON) as name:
            names.append(name)
            met.wait(60)

    threads = [threading.Thread(target=come, args=(rank,)) for rank in reversed(range(count))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(names) == count
    return set(names)


def test_all_ranks_of_an_attempt_meet_under_a_name_that_no_other_has():
    store, address = serve_store(None)
    found = [names_of(3, store, address) for _ in range(3)]
    assert [len(names) for names in found] == [1, 1, 1]
    assert len(set.union(*found)) == 3


def test_a_rank_does_not_take_the_name_of_an_attempt_that_is_over():
    store, address = serve_store(None)
    names_of(2, store, address)
    with (
        pytest.raises(RendezvousError, match=rf"rendezvous at 127\.0\.0\.1:{address[1]}: rank 0 did not come within"),
        attempt(store, address, 1, 2, timedelta(seconds=0.3)),
    ):
        pass


class Counted:
    """A store that counts how often it is asked for an answer."""

    def __init__(self, store):
        self.store, self.looks = store, 0

    def __getattr__(self, name):
        return getattr(self.store, name)

    def check(self, keys):
        self.looks += 1
        return self.store.check(keys)


def test_a_rank_of_many_asks_rarely_and_says_what_it_waits_for(monkeypatch):
    monkeypatch.setattr(Notice.__init__, "__defaults__", (0.0,))
    store, address = serve_store(None)
    counted, said = Counted(store), []
    with (
        pytest.raises(RendezvousError, match="rank 0 did not come within 1 s"),
        attempt(counted, address, 1, 700, timedelta(seconds=1), say=said.append),
    ):
        pass
    assert counted.looks <= 3  # every 0.7 s
    assert said == [f"rendezvous at 127.0.0.1:{address[1]}: waiting for rank 0"]


def test_all_waits_for_ranks_under_torchrun_end_together(monkeypatch):
    """What the store needed to answer is not given again to the waits behind it."""
    store, address = serve_store(None)
    waits = Waits(SOON, SOON, rendezvous_timeout=timedelta(seconds=2))
    place = RankPlace(0, 2, 0, 2, address, use_gpu=False, backend="gloo", waits=waits)
    deadlines = []

    def late_store(address, timeout):
        time.sleep(1)
        return store

    def noted(*arguments, deadline, **more):
        deadlines.append(deadline - time.monotonic())

    @contextlib.contextmanager
    def noted_attempt(of_all, address, rank, world_size, timeout, deadline, say):
        deadlines.append(deadline - time.monotonic())
        yield "name"

    monkeypatch.setattr(launch_rank, "torchrun_store", late_store)
    monkeypatch.setattr(launch_rank, "attempt", noted_attempt)
    monkeypatch.setattr(launch_rank, "meet", noted)
    launch_rank._meet(place, by_torchrun=True, store=None)
    assert len(deadlines) == 2
    assert max(deadlines) <= 1


def agents(folder: Path, machines: int, *arguments: str) -> list[tuple[int, str]]:
    """Run the program under torchrun on so many 'machines' of two ranks that may start again once."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    meeting = ["--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{port}", "--rdzv-id=1", "--local-addr=127.0.0.1"]
    how = [f"--nnodes={machines}", "--nproc-per-node=2", "--max-restarts=1", *meeting]
    command = [sys.executable, "-m", "torch.distributed.run", *how, PROGRAM, str(folder), *arguments]
    with ExitStack() as stack:
        programs = []
        for _ in range(machines):
            program = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            stack.callback(program.kill)
            programs.append(stack.enter_context(program))
        outputs = [program.communicate(timeout=400)[0] for program in programs]
        return [(program.returncode, output) for program, output in zip(programs, outputs, strict=True)]


@pytest.mark.slow
@pytest.mark.parametrize("machines", [1, 2])
def test_torchrun_starts_a_run_again_that_failed(tmp_path, machines):
    """On two machines only one of them counts a restart."""
    fault = ["--where", "forward", "--how", "kill", "--once", "--resume"]
    ended = agents(tmp_path, machines, *fault)
    assert [code for code, _ in ended] == [0] * machines, ended
    assert (tmp_path / "fault").exists()
    assert re.search(rf"done from [36] on {2 * machines} ranks", "".join(output for _, output in ended))
