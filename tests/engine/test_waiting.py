"""Two ranks whose time-out is short, and what rank 0 does alone and slowly."""

import contextlib
import io
import os
import signal
import sys
import time
from datetime import timedelta

import cloudpickle
import pytest
import torch
import torch.distributed as dist
from torch import nn

from hookline import distributed as hd
from hookline.engine import Checkpointer, EventWriter, SimpleTrainer, hooks
from hookline.engine.data_parallel import create_ddp_model
from hookline.engine.launch import launch
from hookline.engine.launch_causes import LostContactError

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # the ranks cannot import a test file by name

# Where nothing must fail there is time enough for a busy machine; where time must run out it is short.
TIMEOUT_S, SLOW_S = 10.0, 12.0
SHORT_TIMEOUT_S = 3.0


class Sum(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(2, 1)

    def forward(self, batch):
        return {"loss": self.linear(torch.ones(1, 2)).sum()}


class SlowCheckpointer(Checkpointer):
    def save(self, name, **meta):
        slow()
        super().save(name, **meta)


class SlowWriter(EventWriter):
    def write(self):
        slow()


def slow():
    if hd.is_main_process():
        time.sleep(SLOW_S)


def evaluate():
    slow()
    return {"a": 1.0}


def on_two(main, *args, eval_timeout_s, timeout_s=SHORT_TIMEOUT_S):
    with contextlib.redirect_stderr(io.StringIO()):
        times = {"timeout": timeout_s, "eval_timeout": eval_timeout_s, "rendezvous_timeout": 60}
        times = {name: timedelta(seconds=seconds) for name, seconds in times.items()}
        launch(main, 0, args=args, num_procs_per_machine=2, **times)


def train(folder, what):
    torch.set_num_threads(1)
    model = Sum()
    trainer = SimpleTrainer(create_ddp_model(model), [[{}]], torch.optim.SGD(model.parameters(), lr=0.1))
    made = {
        "evaluate": lambda: hooks.EvalHook(1, evaluate),
        "write": lambda: hooks.PeriodicWriter([SlowWriter()] if hd.is_main_process() else [], period=1),
        "save": lambda: hooks.PeriodicCheckpointer(SlowCheckpointer(model, folder, trainer=trainer), 1),
    }
    trainer.register_hooks([made[what]()])
    trainer.train(0, 2)
    hd.synchronize()


@pytest.mark.slow
@pytest.mark.parametrize("what", ["evaluate", "save", "write"])
def test_what_rank_0_does_alone_may_take_longer_than_a_collective(tmp_path, what):
    on_two(train, str(tmp_path), what, eval_timeout_s=120, timeout_s=TIMEOUT_S)


@pytest.mark.slow
def test_but_not_longer_than_its_own_time(tmp_path):
    start = time.monotonic()
    words = r"rank 1 waited 4 s \(train\.env\.eval_timeout_s\) for rank\(s\) 0 on"
    with pytest.raises(LostContactError, match=words):
        on_two(train, str(tmp_path), "evaluate", eval_timeout_s=4)
    assert time.monotonic() - start < 60


def stop_rank_1():
    if hd.get_rank() == 1:
        os.kill(os.getpid(), signal.SIGSTOP)
    hd.synchronize()


@pytest.mark.slow
def test_a_patient_wait_notices_a_rank_that_is_gone_without_a_word():
    start = time.monotonic()
    with pytest.raises(LostContactError, match=r"rank\(s\) 1 was not heard for 3 s \(train\.env\.timeout_s\)"):
        on_two(stop_rank_1, eval_timeout_s=600)
    assert time.monotonic() - start < 120


def write_with_rank_1_stopped(folder):
    import torch.distributed.checkpoint as dcp

    from hookline.engine.checkpoint_shards import write_parts

    if hd.get_rank() == 1:
        dcp.FileSystemWriter.write_data = lambda *args: os.kill(os.getpid(), signal.SIGSTOP)
    write_parts(folder, {"a": torch.ones(4)})


def send_weights_to_rank_1_stopped(folder):
    from hookline.engine.fully_sharded import create_fully_sharded_model

    if hd.get_rank() == 1:
        os.kill(os.getpid(), signal.SIGSTOP)
    create_fully_sharded_model(Sum(), "cpu")


@pytest.mark.slow
@pytest.mark.parametrize("main", [write_with_rank_1_stopped, send_weights_to_rank_1_stopped])
def test_so_does_one_in_torchs_own_code(tmp_path, main):
    with pytest.raises(LostContactError, match=r"rank\(s\) 1 was not heard for 3 s \(train\.env\.timeout_s\)"):
        on_two(main, str(tmp_path), eval_timeout_s=40)


def each_kind():
    slow()
    assert hd.all_gather(hd.get_rank(), patient=True) == [0, 1]
    slow()
    assert hd.any_rank(hd.is_main_process(), patient=True)
    slow()
    assert hd.broadcast(hd.get_rank()) == 0
    slow()
    assert hd.gather(hd.get_rank(), dst=1) == ([0, 1] if hd.get_rank() == 1 else [])
    slow()
    hd.synchronize()


@pytest.mark.slow
def test_every_patient_wait_is_patient():
    on_two(each_kind, eval_timeout_s=120, timeout_s=TIMEOUT_S)


def impatient(wait):
    slow()
    wait()


@pytest.mark.slow
@pytest.mark.parametrize(
    "wait",
    [
        lambda: hd.all_gather(0),
        lambda: hd.any_rank(False),
        lambda: hd.reduce_dict({"a": torch.ones(())}),
        lambda: hd.gather(0, patient=False),
        lambda: hd.broadcast(0, patient=False),
    ],
)
def test_the_others_are_not(wait):
    with pytest.raises(LostContactError, match=r"rank 1 waited 3 s \(train\.env\.timeout_s\) for rank\(s\) 0 on"):
        on_two(impatient, wait, eval_timeout_s=60)


def which_groups():
    assert dist.get_backend() == "gloo"
    hd.synchronize()


def test_a_backend_can_be_asked_for():
    with contextlib.redirect_stderr(io.StringIO()):
        launch(which_groups, 0, num_procs_per_machine=2, backend="gloo")


@pytest.mark.parametrize(("backend", "words"), [("nccl", "needs a GPU for each process"), ("mpi", "expected 'nccl'")])
def test_an_impossible_backend_is_refused(backend, words):
    with pytest.raises(ValueError, match=words):
        launch(which_groups, 0, num_procs_per_machine=2, backend=backend)
