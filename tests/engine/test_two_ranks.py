"""The trainer on two gloo processes: averaged losses, checks on all ranks, and hooks that only rank 0 has."""

import json

import pytest

from child_processes import run_ranks

SCRIPT = r"""
import json, sys
from datetime import timedelta
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from hookline.distributed import is_main_process
from hookline.engine import HookBase, JSONWriter, SimpleTrainer, hooks

rank, root = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{root}/store", rank=rank, world_size=2,
                        timeout=timedelta(seconds=60))


class Model(torch.nn.Module):
    def __init__(self, case):
        super().__init__()
        self.w = torch.nn.Parameter(torch.ones(()))
        self.case, self.steps = case, 0

    def forward(self, batch):
        self.steps += 1
        losses = {"loss_a": self.w * batch[0]["x"], "loss_b": self.w * 0.0 + torch.rand(())}
        if rank == 1:
            losses["loss_c"] = self.w * 2.0
            if self.case == "nan" and self.steps == 6:
                losses["loss_c"] = losses["loss_c"] * float("nan")
        return losses


class Saver:
    def __init__(self):
        self.saved = []
    def save(self, name, iteration):
        self.saved.append(name)


class Peek(HookBase):
    def __init__(self):
        self.seen = []
    def after_step(self):
        self.seen.append(self.trainer.storage.latest()["total_loss"][0])


def run(case):
    model = DistributedDataParallel(Model(case))
    loader = [[{"x": float(rank + 1), "file_name": f"rank{rank}_{i}.jpg"}] for i in range(7)]
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    trainer = SimpleTrainer(model, loader, optimizer, gather_metric_period=10, accumulate=1 + (case == "accumulate"))
    here = is_main_process() or case != "only rank 0"
    saver, best, peek = Saver(), Saver(), Peek()
    trainer.register_hooks([
        peek if is_main_process() else None,
        hooks.PeriodicCheckpointer(saver, 4) if here else None,
        hooks.EvalHook(10, lambda: {"AP": 1.0} if is_main_process() else {}),
        hooks.BestCheckpointer(10, best, "AP") if here else None,
        hooks.PeriodicWriter([JSONWriter(f"{root}/{case}.json")], 10) if is_main_process() else None,
    ])
    error = None
    try:
        trainer.train(0, 25)
    except FloatingPointError as caught:
        error = str(caught)
    names = ("total_loss", "loss_a", "loss_b", "loss_c")
    histories = {n: h.values() for n, h in trainer.storage.histories().items() if n in names}
    return {"saved": saver.saved, "best": best.saved, "error": error, "iter": trainer.iter,
            "seen": peek.seen, "histories": histories}


results = {case: run(case) for case in ("only rank 0", "everywhere", "accumulate", "nan")}
with open(f"{root}/rank{rank}.results", "w") as file:
    json.dump(results, file)
dist.destroy_process_group()
"""


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    for code, output in run_ranks(SCRIPT, folder):
        assert code == 0, output
    return folder, [json.loads((folder / f"rank{r}.results").read_text()) for r in range(2)]


@pytest.mark.parametrize("case", ["only rank 0", "everywhere", "accumulate"])
def test_losses_are_means_over_ranks(ranks, case):
    folder, results = ranks
    first, second = results[0][case], results[1][case]
    assert first["histories"] == second["histories"]
    histories = first["histories"]
    assert histories["loss_a"] == [[1.5, i] for i in range(25)]
    assert histories["loss_c"] == [[2.0, i] for i in range(25)]  # of the only rank that has it
    for (total, _), (noise, _) in zip(histories["total_loss"], histories["loss_b"], strict=True):
        assert total == pytest.approx(1.5 + noise + 1.0, abs=1e-6)
    assert len({noise for noise, _ in histories["loss_b"]}) == 25
    assert len(first["seen"]) == 25
    saved = [f"model_{i:07d}" for i in (3, 7, 11, 15, 19, 23)]
    assert first["saved"] == [*saved, "model_final"]
    assert second["saved"] == ([] if case == "only rank 0" else first["saved"])
    assert first["best"] == ["model_best"]  # all ranks that have the hook save: each may hold a part of the model
    assert second["best"] == ([] if case == "only rank 0" else ["model_best"])
    lines = [json.loads(line) for line in (folder / f"{case}.json").read_text().splitlines()]
    assert [line["iteration"] for line in lines] == [9, 19, 24, 25]
    assert [line["loss_a"] for line in lines[:3]] == [1.5] * 3


def test_a_bad_loss_on_one_rank_stops_all_before_the_checkpoint(ranks):
    for result in (rank["nan"] for rank in ranks[1]):
        assert result["saved"] == ["model_0000003"]
        assert result["iter"] == 7
        assert "iteration 5" in result["error"]
        assert "rank 1: loss_a=2" in result["error"]
        assert "loss_c=nan" in result["error"]
        assert "rank1_5.jpg" in result["error"]
        assert "rank 0" not in result["error"]
