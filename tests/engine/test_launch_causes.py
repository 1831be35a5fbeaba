"""What ranks tell each other of their end, in a real store, without processes."""

import re
import threading
import time
from datetime import timedelta

import pytest
import torch.distributed as dist

from hookline.cli.errors import Reporter
from hookline.distributed_groups import WaitedTooLongError
from hookline.engine import launch_causes, launch_herald
from hookline.engine.launch_causes import Causes, LostContactError, Orphaned, has_lost_contact
from hookline.engine.launch_herald import Herald
from hookline.engine.launch_store import serve_store

CLOSED = RuntimeError("[/builds/gloo/gloo/transport/tcp/pair.cc:561] Connection closed by peer [127.0.0.1]:5")
TIMED_OUT = RuntimeError("[/builds/gloo/gloo/transport/tcp/unbound_buffer.cc:78] Timed out waiting 7000ms for recv")


@pytest.fixture
def ranks(monkeypatch):
    """Three ranks' boards, each with a connection of its own, as on three machines."""
    monkeypatch.setattr(launch_causes, "_LOOK_S", 0.3)
    store, address = serve_store(None)
    clients = [dist.TCPStore(*address, is_master=False, timeout=timedelta(seconds=5)) for _ in range(3)]
    yield [Causes(client, address, rank, 3, timedelta(seconds=7)) for rank, client in enumerate(clients)]
    del store


@pytest.mark.parametrize(
    ("error", "is_one"),
    [
        (CLOSED, True),
        (TIMED_OUT, True),
        (dist.DistNetworkError("reset"), True),
        (WaitedTooLongError("rank 0 waited", 3.0, "train.env.timeout_s"), True),
        (LostContactError("rank 0 lost"), True),
        (RuntimeError("shapes differ"), False),
        (dist.DistBackendError("NCCL error: remote process exited or there was a network error"), True),
        (dist.DistBackendError("unhandled system error\nLast error:\nsocketStartConnect: Connection refused"), True),
        (dist.DistBackendError("wait timeout after 7000ms, keys: /default_pg/0//cuda//0"), True),
        (dist.DistBackendError("invalid usage\nLast error:\nDuplicate GPU detected : rank 1 and rank 0"), False),
        (dist.DistBackendError("ncclSystemError: System call (e.g. socket, malloc) or device error: no memory"), False),
        (ConnectionError("Connection closed by peer"), False),  # of a file server, say
        (ValueError("/gloo/"), False),
    ],
)
def test_what_is_a_lost_contact(error, is_one):
    assert has_lost_contact(error) is is_one


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ValueError("boom"), r"ValueError: boom \(the traceback is shown there"),
        (SystemExit(5), "it left with exit code 5$"),
        (KeyboardInterrupt(), r"it was interrupted \(Ctrl-C\)$"),
        (Orphaned(143), "the program that had started it was killed$"),
    ],
)
def test_the_first_failure_is_what_all_others_name(ranks, error, words):
    ranks[2].tell(error)
    ranks[1].tell(KeyError("a consequence"))
    for rank in (0, 1):
        with pytest.raises(LostContactError, match=rf"rank {rank} ended because rank 2 on \S+ failed before: {words}"):
            raise ranks[rank].explain(CLOSED)


def test_a_starter_tells_of_a_rank_that_was_killed(ranks):
    """What those say that it ends for that is no cause, even if its word comes late."""
    herald = Herald(ranks[0]._address)
    herald.tell(None, [1])
    ranks[1].tell(SystemExit(143))
    herald.tell((2, "it was killed by SIGKILL"))
    found = str(ranks[0].explain(CLOSED))
    assert re.match(r"rank 0 ended because rank 2 on \S+ failed before: it was killed by SIGKILL$", found)


def test_nobody_listens_to_a_starter_that_cannot_reach_the_store(capfd):
    store, address = serve_store(None)
    del store
    Herald(address).tell((2, "it was killed by SIGKILL"))
    assert capfd.readouterr().err == ""


def test_a_starter_asks_a_silent_store_once_and_looks_its_own_name_up_before(monkeypatch):
    """It has ranks to end meanwhile, and the network may be cut."""
    asked = []
    herald = Herald(("127.0.0.1", 1))
    monkeypatch.setattr(launch_herald, "host_towards", pytest.fail)
    monkeypatch.setattr(launch_herald, "ask_in_time", asked.append)
    herald.tell((2, "it was killed by SIGKILL"))
    herald.tell((2, "it was killed by SIGKILL"), [0, 1])
    assert len(asked) == 1


def test_who_says_nothing_is_named(ranks):
    found = {}
    threads = [
        threading.Thread(target=lambda rank=rank: found.update({rank: ranks[rank].explain(CLOSED)})) for rank in (0, 2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for rank in (0, 2):
        assert f"rank {rank} lost the connection to rank(s) 1 on " in str(found[rank])
        assert "memory was full: see dmesg" in str(found[rank])


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            dist.DistBackendError("NCCL error: remote process exited\nLast error:\nnet plugin broke"),
            r"none has told of a failure of its own\. Here it was: DistBackendError: NCCL error.*net plugin broke",
        ),
        (TIMED_OUT, r"waited 7 s \(train\.env\.timeout_s\) in a collective, and so did all others, in another one"),
    ],
)
def test_where_nobody_is_silent(ranks, error, words):
    found = {}
    threads = [threading.Thread(target=lambda i=i: found.update({i: ranks[i].explain(error)})) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for rank in range(3):
        assert re.match(rf"rank {rank} .*{words}", str(found[rank]))


def test_a_wait_names_how_long_and_which_setting(ranks):
    assert "rank 0 waited 7 s (train.env.timeout_s) for rank(s) 1 on " in str(ranks[0].explain(TIMED_OUT))
    own = WaitedTooLongError("rank 0 waited", 3.0, "train.env.eval_timeout_s")
    assert "rank 0 waited 3 s (train.env.eval_timeout_s) for rank(s) " in str(ranks[0].explain(own))


def test_without_the_store_machine_0_is_gone():
    store, address = serve_store(None)
    causes = Causes(dist.TCPStore(*address, is_master=False), address, 1, 2, timedelta(seconds=7))
    del store
    start = time.monotonic()
    assert f"at {address[0]}:{address[1]}, cannot be asked: machine 0 has ended" in str(causes.explain(CLOSED))
    causes.tell(ValueError("heard by nobody"))
    causes.leave()
    assert time.monotonic() - start < 10


def test_rank_0_waits_for_the_others_when_its_work_is_done(ranks, monkeypatch):
    threading.Timer(0.5, lambda: [ranks[rank].leave() for rank in (1, 2)]).start()
    start = time.monotonic()
    ranks[0].leave()
    assert 0.4 < time.monotonic() - start < 5


@pytest.mark.parametrize("ending", ["a failure", "time"])
def test_but_not_for_ever(ranks, monkeypatch, ending):
    monkeypatch.setattr(launch_causes, "_LEAVE_S", 60.0 if ending == "a failure" else 0.3)
    if ending == "a failure":
        ranks[2].tell(ValueError("boom"))
    start = time.monotonic()
    ranks[0].leave()
    assert time.monotonic() - start < 5


@pytest.mark.parametrize("how", ["told", "reported", "shown by nobody else"])
def test_a_rank_that_hangs_is_ended_some_time_after_a_failure(ranks, monkeypatch, capfd, how):
    monkeypatch.setattr(launch_causes, "_WATCH_PERIOD_S", 0.05)
    monkeypatch.setattr(launch_causes, "_WATCH_GRACE_S", 0.2)
    monkeypatch.setattr(launch_causes, "_LAST_GRACE_S", 0.2)
    ended, told = threading.Event(), []
    monkeypatch.setattr(launch_causes.os, "_exit", lambda code: ended.set())
    on_failure = {"told": told.append, "reported": Reporter(), "shown by nobody else": None}[how]
    with ranks[0].watched(on_failure):
        assert not ended.wait(0.5)  # nobody has failed
        ranks[2].tell(ValueError("boom"))
        assert ended.wait(5)
    first, *more = capfd.readouterr().err.splitlines()
    assert first == "rank 0 hangs and is ended"
    (reason,) = map(str, told) if how == "told" else more
    assert reason.removeprefix("error: ").startswith("rank 0 ended because rank 2 on ")
    assert bool(more) is (how != "told")


@pytest.mark.parametrize("is_done", [True, False])
def test_a_rank_that_works_on_is_not_ended_because_rank_0_is_done_and_gone(monkeypatch, is_done, capfd):
    monkeypatch.setattr(launch_causes, "_WATCH_PERIOD_S", 0.05)
    monkeypatch.setattr(launch_causes, "_WATCH_GRACE_S", 0.2)
    monkeypatch.setattr(launch_causes, "_LAST_GRACE_S", 0.2)
    monkeypatch.setattr(launch_causes, "_LEAVE_S", 0.3)
    ended = threading.Event()
    monkeypatch.setattr(launch_causes.os, "_exit", lambda code: ended.set())
    store, address = serve_store(None)  # by rank 0 itself, as under srun
    causes = Causes(dist.TCPStore(*address, is_master=False), address, 1, 2, timedelta(seconds=7))
    with causes.watched(lambda error: None):
        if is_done:
            Causes(store, address, 0, 2, timedelta(seconds=7)).leave()
        del store
        assert ended.wait(1.5 if is_done else 10) is not is_done
    if is_done:
        causes.leave()


class Counting:
    """A store that counts the questions put to it."""

    def __init__(self, store):
        self.store, self.asked = store, 0

    def __getattr__(self, name):
        self.asked += 1
        return getattr(self.store, name)


def test_many_ranks_ask_little(monkeypatch):
    monkeypatch.setattr(launch_causes, "_LOOK_S", 0.0)
    store, address = serve_store(None)
    size = 400
    ranks = [Causes(store, address, rank, size, timedelta(seconds=7)) for rank in range(size)]
    for causes in ranks[:-30]:
        causes.explain(CLOSED)
    ranks[0]._store = counting = Counting(store)
    told = str(ranks[0].explain(CLOSED))
    assert "lost the connection to rank(s) 370 on " in told
    assert "377 on " in told
    assert "and 22 more" in told
    assert counting.asked < 10


def test_a_rank_that_leaves_in_time_is_not_ended(ranks, monkeypatch):
    monkeypatch.setattr(launch_causes, "_WATCH_PERIOD_S", 0.05)
    monkeypatch.setattr(launch_causes, "_WATCH_GRACE_S", 0.5)
    monkeypatch.setattr(launch_causes.os, "_exit", lambda code: told.append(code))
    told = []
    with ranks[0].watched(told.append):
        ranks[2].tell(ValueError("boom"))
        time.sleep(0.2)
    time.sleep(0.6)
    assert not told
