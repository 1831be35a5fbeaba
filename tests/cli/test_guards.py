"""`train.guards`: what is refused, and runs whose losses are not finite, on one process and on two."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from hookline.cli import job
from hookline.cli.errors import UsageError
from hookline.cli.guards import Recovery, check_guards, guard_hooks
from hookline.cli.train import main
from hookline.configs.common.train import train as defaults
from hookline.engine import Checkpointer, SimpleTrainer
from hookline.engine.losses import NonFiniteError
from hookline.engine.triggers import DeadlineTrigger
from small_runs import PROGRAM

TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]

PARTS = '''
import torch
from torch import nn
from hookline.distributed import get_rank


class Net(nn.Module):
    """Batch norm and dropout; a sample that is marked spoils the forward pass, or the gradient alone."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(4, 8)
        self.norm = nn.BatchNorm1d(8)
        self.head = nn.Linear(8, 1)

    def forward(self, batch):
        x = torch.stack([sample["x"] for sample in batch])
        out = self.head(nn.functional.dropout(self.norm(self.stem(x)), 0.1, self.training))
        marks = [sample["mark"] for sample in batch]
        if "forward" in marks:
            out = out * float("inf")
        extra = (out.sum() * 0.0).sqrt() if "gradient" in marks else 0.0
        return {"loss": out.square().mean() + extra}


class Stream:
    """Batch n depends on n and the rank; `bad` marks some: {batch: [rank, mark]}."""

    batch_size = 2

    def __init__(self, bad=None):
        self.bad, self.position = {int(k): list(v) for k, v in (bad or {}).items()}, 0

    def seek(self, number):
        self.position = number

    def __iter__(self):
        while True:
            number, self.position = self.position, self.position + 1
            generator = torch.Generator().manual_seed(1000 * get_rank() + number)
            rank, mark = self.bad.get(number, (-1, ""))
            yield [
                {"x": torch.randn(4, generator=generator), "file_name": f"{number}_{i}_of{get_rank()}.jpg",
                 "mark": mark if rank == get_rank() and i == 1 else ""}
                for i in range(4)
            ]
'''

RECIPE = """
import torch
from guarded_parts import Net, Stream
from hookline.config import LazyCall as L
from hookline.configs.common.train import train
from hookline.engine import get_default_optimizer_params

model = L(Net)()
dataloader = dict(train=L(Stream)(), test=None, evaluator=None)
optimizer = L(torch.optim.AdamW)(params=L(get_default_optimizer_params)(), lr=0.01)
train.max_iter = 20
train.log_period = 4
train.device = "cpu"
train.ema = dict(half_life=3)
train.checkpointer.period = 5
"""


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    (tmp_path / "guarded_parts.py").write_text(PARTS)
    (tmp_path / "recipe.py").write_text(RECIPE)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield str(tmp_path / "recipe.py")
    sys.modules.pop("guarded_parts", None)


def run(recipe, folder, *overrides):
    return main(["--config-file", recipe, "--work-dir", str(folder), "--no-validate", *overrides])


def final(folder):
    """Weights, optimizer and averages at the end of a run."""
    content = torch.load(folder / "model_final.pth", weights_only=True)
    found = dict(content["model"])
    for number, state in content["optimizer"]["state"].items():
        found |= {f"optimizer.{number}.{key}": value for key, value in state.items()}
    return found | {f"ema.{key}": value for key, value in content["hooks"]["EMAHook"]["averages"].items()}


def assert_same(left, right):
    assert left.keys() == right.keys()
    different = [name for name in left if not torch.equal(left[name], right[name])]
    assert not different


def iterations(folder):
    return [json.loads(line)["iteration"] for line in (folder / "metrics.json").read_text().splitlines()]


def settings(**guards):
    return OmegaConf.create({"train": {"guards": {**OmegaConf.to_container(defaults.guards), **guards}}})


@pytest.mark.parametrize(
    ("guards", "words"),
    [
        ({"non_finite": "skipp"}, r"train\.guards\.non_finite='skipp': did you mean skip"),
        ({"max_skips": -1}, r"train\.guards\.max_skips=-1: expected a whole number of at least 0"),
        ({"max_restores": 0}, r"train\.guards\.max_restores=0"),
        ({"window": 0.5}, r"train\.guards\.window=0\.5"),
        ({"gc_period": 0}, r"train\.guards\.gc_period=0"),
        ({"memory_growth": -0.1}, r"train\.guards\.memory_growth=-0\.1: expected a number above 0"),
        ({"watchdog_s": "60s"}, r"train\.guards\.watchdog_s='60s'"),
        ({"watchdog_abort": True}, r"set train\.guards\.watchdog_s"),
        ({"anomaly": 1}, r"train\.guards\.anomaly=1: expected true or false"),
    ],
)
def test_a_wrong_setting_is_named(guards, words):
    with pytest.raises(UsageError, match=words):
        check_guards(settings(**guards))
    check_guards(settings())


def test_an_unknown_guard_ends_the_run_before_it_begins(recipe, tmp_path, capsys):
    assert run(recipe, tmp_path / "run", "+train.guards.watchdogs=3") == 2
    assert "did you mean train.guards.watchdog_s?" in capsys.readouterr().err
    assert run(recipe, tmp_path / "run", "train.guards=null") == 2
    assert "train.guards=null: expected a dict" in capsys.readouterr().err


def test_by_default_there_is_no_guard():
    assert guard_hooks(settings().train.guards) == []


def test_all_guards_at_once_change_nothing(recipe, tmp_path):
    everything = ["non_finite=skip", "anomaly=true", "gc_period=3", "memory_growth=0.25", "memory_period=3",
                  "watchdog_s=120"]  # fmt: skip
    assert run(recipe, tmp_path / "guarded", *(f"train.guards.{setting}" for setting in everything)) == 0
    assert run(recipe, tmp_path / "plain") == 0
    assert_same(final(tmp_path / "guarded"), final(tmp_path / "plain"))


def test_what_fails_on_rank_0_when_it_looks_for_a_file_fails_on_all(monkeypatch, tmp_path):
    sent = []
    monkeypatch.setattr("hookline.cli.guards.broadcast", lambda found: sent.append(found) or found)
    cfg = settings(non_finite="restore")
    cfg.train.update(log_period=4, output_dir=str(tmp_path / "lost"))
    recovery = Recovery(cfg, resumed=False)
    model = torch.nn.Linear(1, 1)
    trainer = SimpleTrainer(model, [], torch.optim.SGD(model.parameters(), lr=0.1))
    trainer.register_hooks(guard_hooks(cfg.train.guards))
    recovery.consider(NonFiniteError("a loss is not finite", 7), trainer)
    with pytest.raises(FileNotFoundError, match=r"config\.yaml"):
        recovery.go_back(Checkpointer(model, tmp_path))
    assert isinstance(sent[0], FileNotFoundError)


@pytest.mark.parametrize("mark", ["forward", "gradient"])
def test_going_back_gives_the_run_that_leaves_the_step_out(recipe, tmp_path, mark):
    """Bit for bit, although one looks in every step and the other one goes back by several steps."""
    bad = f"+dataloader.train.bad={{13: [0, {mark}]}}"
    assert run(recipe, tmp_path / "skip", bad, "train.guards.non_finite=skip") == 0
    assert run(recipe, tmp_path / "restore", bad, "train.guards.non_finite=restore", "train.guards.anomaly=true") == 0
    assert_same(final(tmp_path / "skip"), final(tmp_path / "restore"))
    log = (tmp_path / "restore" / "log.txt").read_text()
    assert re.search(r"going back to iteration 10, .* by .*model_0000009\.pth", log)
    assert log.count("the step is left out") == 1
    assert "13_1_of0.jpg" in log
    if mark == "forward":
        assert "rank 0: (the whole model) (Net) produced 1 x inf (of 1 values) in forward" in log
        assert "rank 0: loss 'loss' is 1 x inf (of 1 values)" in log
    else:
        assert "head (Linear) got" in log
        assert "a gradient is not finite at iteration 13" in log
    assert iterations(tmp_path / "restore") == [3, 7, 11, 13, 15, 19]  # one curve; 13 has `non_finite_steps`


def test_going_back_does_not_move_the_deadline(recipe, tmp_path, monkeypatch):
    make, found = job.default_hooks, []

    def noting(parts):
        made = make(parts)
        found.extend(t for t in made[-1].triggers if isinstance(t, DeadlineTrigger))
        return made

    monkeypatch.setattr(job, "default_hooks", noting)
    guards = ["+dataloader.train.bad={13: [0, forward]}", "train.guards.non_finite=restore"]
    assert run(recipe, tmp_path / "run", *guards, "train.suspend.deadline_s=1000") == 0
    first, second = (trigger.at for trigger in found)
    assert first == second


def test_the_run_ends_where_going_back_does_not_help(recipe, tmp_path, capsys):
    bad = "+dataloader.train.bad={" + ", ".join(f"{n}: [0, forward]" for n in range(13, 20)) + "}"
    limited = ["train.guards.non_finite=restore", "train.guards.max_skips=2"]
    assert run(recipe, tmp_path / "run", bad, *limited) == 1
    assert "3 such steps in 1000 iterations, 2 are allowed" in capsys.readouterr().err
    assert (tmp_path / "run" / "log.txt").read_text().count("going back") == 1


def test_going_back_has_its_limit(recipe, tmp_path, capsys):
    bad = "+dataloader.train.bad={7: [0, forward], 18: [0, forward]}"
    once = ["train.guards.non_finite=restore", "train.guards.max_restores=1", "train.log_period=2"]
    assert run(recipe, tmp_path / "run", bad, *once) == 1
    assert "1 times the run went back in 1000 iterations" in capsys.readouterr().err
    assert run(recipe, tmp_path / "more", bad, *once, "train.guards.window=5") == 0
    assert run(recipe, tmp_path / "skip", bad, "train.guards.non_finite=skip") == 0
    assert_same(final(tmp_path / "more"), final(tmp_path / "skip"))


def test_the_limit_survives_a_resume(recipe, tmp_path, capsys):
    bad = "+dataloader.train.bad={7: [0, forward], 18: [0, forward]}"
    once = ["train.guards.non_finite=restore", "train.guards.max_restores=1", "train.log_period=2"]
    assert run(recipe, tmp_path / "run", bad, *once, "train.max_iter=16") == 0
    assert run(recipe, tmp_path / "run", bad, *once, "--resume") == 1
    assert "1 times the run went back in 1000 iterations" in capsys.readouterr().err


def test_a_file_of_another_run_is_not_gone_back_to(recipe, tmp_path, capsys):
    assert run(recipe, tmp_path / "run", "train.max_iter=3") == 0
    restore = "train.guards.non_finite=restore"
    assert run(recipe, tmp_path / "run", "+dataloader.train.bad={4: [0, forward]}", restore) == 1
    assert "no checkpoint from before it to go back to" in capsys.readouterr().err


def test_a_checkpoint_that_the_step_may_have_spoilt_is_not_used(recipe, tmp_path):
    """The gradient of step 9 spoils the weights that its checkpoint holds; step 10 finds that out."""
    bad = "+dataloader.train.bad={9: [0, gradient]}"
    assert run(recipe, tmp_path / "restore", bad, "train.guards.non_finite=restore") == 0
    assert "going back to iteration 5, " in (tmp_path / "restore" / "log.txt").read_text()
    assert run(recipe, tmp_path / "skip", bad, "train.guards.non_finite=skip") == 0
    assert_same(final(tmp_path / "skip"), final(tmp_path / "restore"))


@pytest.mark.parametrize("step", [2, 13])
def test_steps_are_repeated_to_find_the_module(recipe, tmp_path, capsys, step):
    bad = f"+dataloader.train.bad={{{step}: [0, gradient]}}"
    assert run(recipe, tmp_path / "run", bad, "train.guards.anomaly=true") == 1
    message = capsys.readouterr().err
    assert f"a gradient is not finite at iteration {step}" in message
    assert "head (Linear) got 4 x NaN (of 4 values) in backward, in the gradient of its output" in message
    assert f"files of the batch: {step}_0_of0.jpg" in message
    log = (tmp_path / "run" / "log.txt").read_text()
    assert f"going back to {'the beginning' if step == 2 else 'iteration 10'}" in log
    assert max(iterations(tmp_path / "run"), default=-1) <= step + 4  # the repetition writes nothing


def test_by_default_the_run_ends_and_says_what_would_help(recipe, tmp_path, capsys):
    assert run(recipe, tmp_path / "run", "+dataloader.train.bad={13: [0, forward]}") == 1
    message = capsys.readouterr().err
    assert "loss is not finite at iteration 13" in message
    assert "train.guards.anomaly=true" in message
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "not finite by now: " in log
    assert "head.weight" in log


def two_ranks(recipe, folder, *overrides, torchrun=False):
    root = Path(recipe).parent
    path = os.pathsep.join([str(root), str(Path(PROGRAM).parent), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, *(TORCHRUN if torchrun else []), PROGRAM, "--config-file", recipe, "--work-dir", folder,
         "--no-validate", *([] if torchrun else ["--num-procs", "2"]), *overrides],
        env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("torchrun", [False, True])
def test_a_loss_that_ends_two_ranks_is_told_once_of_the_rank_that_has_it(recipe, tmp_path, torchrun):
    bad = "+dataloader.train.bad={13: [1, forward]}"
    ended = two_ranks(recipe, tmp_path / "run", bad, torchrun=torchrun)
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert ended.stderr.count("is not finite at iteration") == 1, ended.stderr
    assert re.search(r"^error: loss is not finite at iteration 13\n  rank 1: loss=inf", ended.stderr, re.M), (
        ended.stderr
    )


@pytest.mark.slow
def test_two_ranks_skip_and_go_back_together(recipe, tmp_path):
    bad = "+dataloader.train.bad={13: [1, forward], 16: [0, gradient]}"
    skip = two_ranks(recipe, tmp_path / "skip", bad, "train.guards.non_finite=skip", "train.guards.anomaly=true")
    assert skip.returncode == 0, skip.stdout + skip.stderr
    restore = two_ranks(recipe, tmp_path / "restore", bad, "train.guards.non_finite=restore")
    assert restore.returncode == 0, restore.stdout + restore.stderr
    assert_same(final(tmp_path / "skip"), final(tmp_path / "restore"))
    sharded = two_ranks(
        recipe, tmp_path / "sharded", bad, "train.guards.non_finite=restore", "train.fsdp={}", "train.ema=null"
    )
    assert sharded.returncode == 0, sharded.stdout + sharded.stderr
    assert re.search(r"going back to iteration 10, .*model_0000009\.dcp", sharded.stdout)
    assert "the step is left out (2 so far)" in sharded.stdout
    for name in ("log.txt", "log.txt.rank1"):
        log = (tmp_path / "skip" / name).read_text()
        assert "rank 1: loss=inf; files of the batch: 13_0_of1.jpg" in log
        assert "rank 0: head (Linear) got" in log
        assert "the step is left out (2 so far)" in log
    assert "going back to iteration 10" in (tmp_path / "restore" / "log.txt.rank1").read_text()
