"""Suspension of two processes on gloo, of which only one gets the notice."""

import json

import pytest

from child_processes import run_ranks

SCRIPT = r"""
import json, os, signal, sys, time
from datetime import timedelta
from pathlib import Path
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from hookline.distributed import is_main_process
from hookline.engine import Checkpointer, SimpleTrainer, hooks
from hookline.engine.suspend import SuspendCheckpointer, Suspended
from hookline.engine.triggers import CallableTrigger, DeadlineTrigger, FileTrigger, SignalTrigger
from hookline.evaluation import DatasetEvaluator, EvaluationInterrupted, inference_on_dataset

rank, root = int(sys.argv[1]), Path(sys.argv[2])
dist.init_process_group("gloo", init_method=f"file://{root}/store", rank=rank, world_size=2,
                        timeout=timedelta(seconds=60))
LAST = 9


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = torch.nn.Linear(3, 2)

    def forward(self, batch):
        out = self.linear(torch.stack([sample["x"] for sample in batch]))
        if not self.training:
            return list(out)
        return {"loss": torch.nn.functional.dropout(out, 0.5).square().mean()}


class Loader:
    start = 0

    def seek(self, number):
        self.start = number

    def __iter__(self):
        number = self.start
        while True:
            generator = torch.Generator().manual_seed(2 * number + rank)
            yield [{"x": torch.randn(3, generator=generator)}]
            number += 1


class Sum(DatasetEvaluator):
    def reset(self):
        self.batches = 0

    def process(self, inputs, outputs):
        self.batches += 1

    def evaluate(self):
        return {"batches": self.batches} if is_main_process() else None


def run(folder, act=None, step=4, triggers=None, accumulate=1, evaluating=False):
    model = Model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    trainer = SimpleTrainer(DistributedDataParallel(model), Loader(), optimizer, accumulate=accumulate)
    checkpointer = Checkpointer(model, root / folder, trainer=trainer)
    suspend = SuspendCheckpointer(checkpointer, triggers=[SignalTrigger()] if triggers is None else triggers)
    seen = []

    def batches():
        for number in range(40 + rank):
            seen.append(number)
            if evaluating and act and rank == 1 and number == 3 and trainer.iter == 2:
                act()
            time.sleep(0.02)
            yield [{"x": torch.ones(3)}]

    def evaluate():
        seen.clear()
        return inference_on_dataset(model, batches(), Sum(), should_stop=suspend.requested)

    def maybe_act(trainer):
        if act and not evaluating and trainer.iter == step:
            act()

    trainer.register_hooks([
        hooks.CallbackHook(after_backward=maybe_act),
        hooks.PeriodicCheckpointer(checkpointer, 100),
        hooks.EvalHook(3, evaluate, eval_after_train=False, interruption=EvaluationInterrupted) if evaluating else None,
        suspend,
    ])
    code = None
    try:
        trainer.train(checkpointer.resume() + 1, LAST)
    except Suspended as leaving:
        code = leaving.code
    files = sorted(path.name for path in (root / folder).glob("*.pth"))
    weights = [value for tensor in model.state_dict().values() for value in tensor.flatten().tolist()]
    metrics = trainer.storage.histories()
    evaluations = metrics["batches"].values() if "batches" in metrics else []
    return {"iter": trainer.iter, "code": code, "files": files, "weights": weights, "evaluations": evaluations,
            "batches": len(seen)}


def one(number):
    return lambda: os.kill(os.getpid(), number) if rank == 1 else None


flag = []
cases = {
    "SIGTERM": dict(act=one(signal.SIGTERM)),
    "SIGUSR1": dict(act=one(signal.SIGUSR1)),
    "accumulation": dict(act=one(signal.SIGUSR1), accumulate=2),
    "file": dict(act=lambda: ((root / "flag").touch(), time.sleep(0.2)),
                 triggers=[FileTrigger(root / "flag", 0.01)] if rank else []),
    "callable": dict(act=lambda: (flag.append(1), time.sleep(0.2)),
                     triggers=[CallableTrigger(lambda: bool(flag), 0.001, "flag")] if rank else []),
    "deadline": dict(act=lambda: time.sleep(0.6), triggers=[DeadlineTrigger(0.5)] if rank else []),
    "evaluation": dict(act=one(signal.SIGTERM), evaluating=True),
}
results = {}
for name, case in cases.items():
    same = {key: value for key, value in case.items() if key in ("accumulate", "evaluating")}
    results[name] = [run(name, **case), run(name, **same), run(name + "_whole", **same)]
(root / f"rank{rank}.results").write_text(json.dumps(results))
dist.destroy_process_group()
"""


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    for code, output in run_ranks(SCRIPT, folder, timeout=200):
        assert code == 0, output
    return [json.loads((folder / f"rank{r}.results").read_text()) for r in range(2)]


@pytest.mark.parametrize("case", ["SIGTERM", "SIGUSR1", "accumulation", "file", "callable", "deadline"])
def test_both_leave_at_the_same_step_and_the_resumed_run_is_bit_equal(ranks, case):
    (first, resumed, whole), (other, _, _) = ranks[0][case], ranks[1][case]
    assert first["iter"] == other["iter"]
    assert first["iter"] in (4, 5) or case == "deadline"  # a vote is cast at the beginning of a step
    assert first["files"] == [f"model_{first['iter']:07d}.pth"]
    assert first["code"] == other["code"] == {"SIGTERM": 143, "SIGUSR1": 138, "accumulation": 138}.get(case, 75)
    assert (resumed["code"], resumed["iter"]) == (None, 9)
    assert resumed["weights"] == whole["weights"]


def test_during_an_evaluation(ranks):
    """One rank gets the notice at its fourth batch: both stop, save in the same step, and evaluate again on resume."""
    (first, resumed, whole), (other, _, _) = ranks[0]["evaluation"], ranks[1]["evaluation"]
    assert (first["iter"], first["code"]) == (other["iter"], other["code"]) == (2, 143)
    assert other["batches"] == 4  # asked while the fourth was made, which was not used any more
    assert first["batches"] < 40
    assert first["evaluations"] == []
    assert resumed["evaluations"] == whole["evaluations"] == [[40.0, 2], [40.0, 5], [40.0, 8]]
    assert resumed["weights"] == whole["weights"]
