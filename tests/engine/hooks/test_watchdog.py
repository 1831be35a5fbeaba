import logging
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from child_processes import run_ranks
from hookline.engine.hooks import CallbackHook, EvalHook, Watchdog


def hang_in_this_function(seconds):
    time.sleep(seconds)


def at(iteration, seconds):
    return lambda trainer: hang_in_this_function(seconds) if trainer.iter == iteration else None


class Clock:
    """Stands for the module `time` in the watchdog, so that a busy machine is no stall."""

    now = 0.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr("hookline.engine.hooks.watchdog.time", clock)
    return clock


def test_a_step_that_hangs_is_reported_with_its_stack_and_training_goes_on(make_trainer, caplog):
    with caplog.at_level(logging.WARNING):
        make_trainer([Watchdog(1.0), CallbackHook(after_backward=at(2, 3.0))]).train(0, 4)
    report = next(m for m in caplog.messages if "has not moved" in m)
    assert "s, in iteration 2. Its stacks:" in report
    assert "in hang_in_this_function" in report
    assert [m for m in caplog.messages if m.startswith("rank 0 moves again")]


def test_a_long_stall_is_reported_again_when_it_is_twice_as_long(clock, caplog):
    dog = Watchdog(10.0)
    dog.trainer = SimpleNamespace(iter=1)
    dog.after_step()
    dog.before_step()
    reported = (None, 0.0)
    for clock.now in map(float, range(100)):
        reported = dog._look(reported)
    assert [m[: m.index(" s,")] for m in caplog.messages] == [
        f"rank 0 has not moved for {seconds}" for seconds in (11, 23, 47, 95)
    ]
    dog.after_step()
    assert dog._look(reported) == (None, 0.0)
    assert caplog.messages[-1] == "rank 0 moves again, after more than 95 s"


def test_the_first_step_and_evaluations_have_their_own_limit(make_trainer, clock, caplog):
    dog = Watchdog(10.0, between_s=30.0)

    def wait(seconds):
        clock.now += seconds
        dog._look((None, 0.0))

    first = CallbackHook(after_backward=lambda trainer: wait(5.0 if trainer.iter else 20.0))
    make_trainer([dog, first, EvalHook(2, lambda: wait(20.0)), dog.end()]).train(0, 4)
    assert "has not moved" not in caplog.text
    second = CallbackHook(after_backward=lambda trainer: wait(11.0 if trainer.iter == 1 else 5.0))
    make_trainer([dog, second, EvalHook(3, lambda: wait(31.0)), dog.end()]).train(0, 4)
    reports = [m for m in caplog.messages if "has not moved" in m]
    for where in ("in iteration 1", "after iteration 2, in a hook such as evaluation", "after iteration 3, at the end"):
        assert any(f"s, {where}" in report for report in reports)


@pytest.mark.parametrize("with_end", [False, True])
def test_nothing_is_left_behind(make_trainer, with_end):
    dog = Watchdog(30.0)

    def fail(trainer):
        assert any(thread.name == "hookline-watchdog" for thread in threading.enumerate())
        raise KeyError

    with pytest.raises(KeyError):
        make_trainer([dog, CallbackHook(after_backward=fail), dog.end() if with_end else None]).train(0, 2)
    assert not any(thread.name == "hookline-watchdog" for thread in threading.enumerate())


def test_the_limit_must_be_positive():
    with pytest.raises(ValueError, match="limit_s=0"):
        Watchdog(0)


WORKER = """
import logging, sys, time
import torch
from hookline.data import build_detection_train_loader
from hookline.engine import HookBase, SimpleTrainer, hooks
logging.basicConfig(level=logging.INFO, stream=sys.stdout)

def decode_a_broken_file(record):
    if record["number"] >= 6:
        time.sleep(4)
    return {"x": torch.ones(2), **record}

class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.ones(()))
    def forward(self, batch):
        return {"loss": self.w * batch[0]["x"].sum()}

if __name__ == "__main__":
    model = Model()
    records = [{"number": n, "file_name": f"{n}.jpg", "image_id": n} for n in range(8)]
    loader = build_detection_train_loader(dataset=records, mapper=decode_a_broken_file, total_batch_size=1,
                                          aspect_ratio_grouping=False,
                                          num_workers=2, prefetch_factor=1)
    trainer = SimpleTrainer(model, loader, torch.optim.SGD(model.parameters(), lr=0.1))
    trainer.register_hooks([hooks.Watchdog(1.0)])
    trainer.train(0, 8)
    print("trained to the end")
"""


@pytest.mark.slow
def test_a_data_worker_that_hangs_tells_where(tmp_path):
    (tmp_path / "script.py").write_text(WORKER)
    result = subprocess.run(
        [sys.executable, tmp_path / "script.py"], capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert "trained to the end" in result.stdout
    assert "has not moved" in result.stdout
    assert "child process" in result.stdout
    assert "in decode_a_broken_file" in result.stdout


BLOCKED = """
import ctypes, sys, time
import torch
from hookline.engine import HookBase, SimpleTrainer, hooks

class Block(HookBase):
    def after_backward(self):
        time.sleep(0.4)
        if self.trainer.iter == 3:
            self.hold_the_lock()

    def hold_the_lock(self):
        ctypes.PyDLL(None).sleep(8)  # no other thread of the interpreter runs meanwhile

class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.ones(()))
    def forward(self, batch):
        return {"loss": self.w * 1.0}

model = Model()
trainer = SimpleTrainer(model, [None] * 9, torch.optim.SGD(model.parameters(), lr=0.1))
trainer.register_hooks([hooks.Watchdog(1.0), Block()])
trainer.train(0, 6)
"""


@pytest.mark.slow
def test_native_code_that_holds_the_lock_is_found_too(tmp_path):
    (tmp_path / "script.py").write_text(BLOCKED)
    result = subprocess.run(
        [sys.executable, tmp_path / "script.py"], capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stderr
    assert "Timeout (0:00:0" in result.stderr
    assert "in hold_the_lock" in result.stderr


RANKS = """
import logging, sys, time
from datetime import timedelta
import torch, torch.distributed as dist
from hookline.engine import HookBase, SimpleTrainer, hooks
from torch.nn.parallel import DistributedDataParallel

rank, root, case = int(sys.argv[1]), sys.argv[2], sys.argv[3]
logging.basicConfig(level=logging.INFO, filename=f"{root}/log.{rank}")
dist.init_process_group("gloo", init_method=f"file://{root}/store", rank=rank, world_size=2,
                        timeout=timedelta(seconds=60))

def wait_for_a_lost_disk():
    time.sleep(4 if case == "on" else 60)

class Hang(HookBase):
    def after_backward(self):
        if rank == 1 and self.trainer.iter == 2:
            wait_for_a_lost_disk()

class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.ones(()))
    def forward(self, batch):
        return {"loss": self.w * 1.0}

model = DistributedDataParallel(Model())
trainer = SimpleTrainer(model, [None] * 9, torch.optim.SGD(model.parameters(), lr=0.1))
trainer.register_hooks([hooks.Watchdog(1.0, abort=case == "abort"), Hang()])
trainer.train(0, 6)
dist.destroy_process_group()
"""


@pytest.mark.slow
@pytest.mark.parametrize("case", ["on", "abort"])
def test_every_rank_reports_when_one_hangs(tmp_path, case):
    ranks = run_ranks(RANKS, tmp_path, case)
    assert [code for code, _ in ranks] == ([0, 0] if case == "on" else [1, 1])
    logs = [(tmp_path / f"log.{r}").read_text() for r in range(2)]
    assert "rank 0 has not moved" in logs[0]
    assert "in backward" in logs[0]
    assert "rank 1 has not moved" in logs[1]
    assert "in wait_for_a_lost_disk" in logs[1]
    assert "in wait_for_a_lost_disk" in ranks[1][1]  # the console shows only the log of rank 0
    if case == "on":
        assert "rank 1 moves again" in logs[1]
