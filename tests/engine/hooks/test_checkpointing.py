import logging

import pytest
import torch

from child_processes import run_ranks
from hookline.engine import Checkpointer
from hookline.engine.hooks import BestCheckpointer, CallbackHook, EvalHook, PeriodicCheckpointer


class Saver:
    """Notes what is saved."""

    max_to_keep = None

    def __init__(self):
        self.saved = []
        self.waited = 0

    def save(self, name, *, iteration):
        self.saved.append((name, iteration))

    def wait(self):
        self.waited += 1


def scores(values):
    """Put a metric at every iteration that has a value."""
    return CallbackHook(
        after_step=lambda t: (
            t.storage.put_scalar("AP", values[t.iter], smoothing_hint=False) if values.get(t.iter) is not None else None
        )
    )


class TestPeriodic:
    def test_names_and_timeline(self, make_trainer):
        saver = Saver()
        make_trainer([PeriodicCheckpointer(saver, 20)]).train(0, 45)
        assert saver.saved == [("model_0000019", 19), ("model_0000039", 39), ("model_final", 44)]
        assert saver.waited == 1

    def test_the_last_one_may_be_both(self, make_trainer):
        saver = Saver()
        make_trainer([PeriodicCheckpointer(saver, 20, file_prefix="net")]).train(0, 20)
        assert saver.saved == [("net_0000019", 19), ("net_final", 19)]

    def test_without_the_last_one(self, make_trainer):
        saver = Saver()
        make_trainer([PeriodicCheckpointer(saver, 20, save_last=False)]).train(0, 45)
        assert saver.saved == [("model_0000019", 19), ("model_0000039", 39)]

    def test_slim_files_are_passed_over_by_a_resume(self, make_trainer, tmp_path, caplog):
        trainer = make_trainer()
        checkpointer = Checkpointer(trainer.model, tmp_path, trainer=trainer)
        trainer.register_hooks([PeriodicCheckpointer(checkpointer, 2, save_optimizer=False)])
        trainer.train(0, 5)
        assert "cannot be resumed" in caplog.text
        slim, final = (
            torch.load(tmp_path / f"{name}.pth", weights_only=True) for name in ("model_0000003", "model_final")
        )
        assert "optimizer" not in slim
        assert "optimizer" in final
        (tmp_path / "model_final.pth").unlink()
        assert checkpointer.resume() == -1

    def test_own_end(self, make_trainer):
        saver = Saver()
        make_trainer([PeriodicCheckpointer(saver, 0, max_iter=100)]).train(0, 5)
        assert saver.saved == []

    def test_how_many_are_kept(self, make_trainer, tmp_path):
        trainer = make_trainer()
        checkpointer = Checkpointer(trainer.model, tmp_path, trainer=trainer)
        trainer.register_hooks([PeriodicCheckpointer(checkpointer, 2, max_to_keep=2)])
        trainer.train(0, 9)
        assert {p.name for p in tmp_path.glob("*.pth")} == {"model_0000005.pth", "model_0000007.pth", "model_final.pth"}
        with pytest.raises(ValueError, match="max_to_keep=0"):
            PeriodicCheckpointer(checkpointer, 2, max_to_keep=0)


class TestBest:
    def run(self, make_trainer, values, end=10, period=1, state=None, **kwargs):
        saver = Saver()
        hook = BestCheckpointer(period, saver, "AP", **kwargs)
        if state is not None:
            hook.load_state_dict(state)
        trainer = make_trainer([scores(values), hook])
        trainer.train(0, end)
        return hook, saver.saved

    def test_saves_what_is_better(self, make_trainer):
        hook, saved = self.run(make_trainer, {0: 1.0, 3: 3.0, 4: 3.0, 5: 2.0, 7: 4.0})
        assert saved == [("model_best", 0), ("model_best", 3), ("model_best", 7)]
        assert (hook.best_metric, hook.best_iter) == (4.0, 7)

    def test_smaller_may_be_better(self, make_trainer):
        _, saved = self.run(make_trainer, {0: 1.0, 3: 3.0, 5: 0.5}, mode="min", file_prefix="low")
        assert saved == [("low", 0), ("low", 5)]

    def test_an_old_value_counts_once(self, make_trainer):
        hook, saved = self.run(make_trainer, {1: 1.0}, end=20, period=2)
        assert saved == [("model_best", 1)]
        assert hook.state_dict() == {"best_metric": 1.0, "best_iter": 1, "seen_iter": 1}

    def test_values_that_are_not_finite_do_not_count(self, make_trainer):
        hook, saved = self.run(make_trainer, {0: float("nan"), 1: float("inf"), 2: 1.0})
        assert saved == [("model_best", 2)]
        assert hook.best_metric == 1.0

    def test_the_final_evaluation_counts(self, make_trainer):
        saver = Saver()
        results = iter([1.0, 5.0])
        make_trainer([
            EvalHook(3, lambda: {"bbox": {"AP": next(results)}}),
            BestCheckpointer(3, saver, "bbox/AP"),
        ]).train(0, 6)  # fmt: skip
        assert saver.saved == [("model_best", 2), ("model_best", 5)]

    def test_survives_a_resume(self, make_trainer):
        hook, _ = self.run(make_trainer, {0: 5.0})
        _, saved = self.run(make_trainer, {3: 4.0, 8: 6.0}, state=hook.state_dict())
        assert saved == [("model_best", 8)]

    def test_a_wrong_name_lists_the_nearest(self, make_trainer, caplog):
        saver = Saver()
        trainer = make_trainer([EvalHook(1, lambda: {"bbox": {"AP": 1.0}}), BestCheckpointer(1, saver, "bbox/APP")])
        with caplog.at_level(logging.WARNING):
            trainer.train(0, 2)
        assert "bbox/AP" in caplog.text.replace("bbox/APP", "")
        assert not saver.saved

    def test_several_metrics_have_own_states(self, make_trainer):
        trainer = make_trainer([BestCheckpointer(1, Saver(), "a"), BestCheckpointer(1, Saver(), "b")])
        assert set(trainer.hooks_state_dict()) == {"BestCheckpointer.a", "BestCheckpointer.b"}

    def test_all_ranks_save_what_rank_0_found_the_best(self, tmp_path):
        for code, output in run_ranks(TWO_RANKS, tmp_path):
            assert code == 0, output

    def test_wrong_mode(self):
        with pytest.raises(ValueError, match="'largest'"):
            BestCheckpointer(1, Saver(), "AP", mode="largest")


TWO_RANKS = """
import sys
import torch
import torch.distributed as dist
from hookline.engine import SimpleTrainer
from hookline.engine.hooks import BestCheckpointer, EvalHook

rank, root = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{root}/store", rank=rank, world_size=2)


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.ones(()))

    def forward(self, batch):
        return {"loss": self.w * sum(batch)}


class Saver:
    saved = []

    def save(self, name, *, iteration):
        self.saved.append((name, iteration))
        dist.barrier()  # as where each rank holds a part


model = Model()
trainer = SimpleTrainer(model, [[1.0]] * 20, torch.optim.SGD(model.parameters(), lr=0.0))
values = iter([1.0, 0.5, 2.0])
best = BestCheckpointer(2, Saver(), "AP")
trainer.register_hooks([EvalHook(2, lambda: {"AP": next(values)} if rank == 0 else None, False), best])
trainer.train(0, 6)
assert Saver.saved == [("model_best", 1), ("model_best", 5)], Saver.saved
assert (best.best_metric, best.best_iter) == (2.0, 5)
dist.destroy_process_group()
"""


def test_a_run_through_real_files_goes_on_bit_for_bit(make_trainer, tmp_path):
    """Stop at 20 by the end of training, resume to 40; also from a checkpoint between two readings of the losses."""
    from hookline.engine import JSONWriter
    from hookline.engine.hooks import IterationTimer, LRScheduler, PeriodicWriter
    from hookline.engine.schedule import CosineParamScheduler, WarmupParamScheduler

    def run(folder, end, resume=""):
        trainer = make_trainer(accumulate=2)
        checkpointer = Checkpointer(trainer.model, folder, trainer=trainer)
        trainer.register_hooks([
            IterationTimer(),
            LRScheduler(scheduler=WarmupParamScheduler(CosineParamScheduler(1.0, 0.0), 0.01, 0.2), max_iter=40),
            PeriodicCheckpointer(checkpointer, 13),
            PeriodicWriter([JSONWriter(folder / "metrics.json")], period=5),
        ])  # fmt: skip
        start = checkpointer.resume(folder / resume) + 1 if resume else 0
        trainer.train(start, end)
        return trainer

    def curve(folder):
        import json

        rows = [json.loads(line) for line in (folder / "metrics.json").read_text().splitlines()]
        return [{k: v for k, v in row.items() if "loss" in k or k in ("lr", "iteration")} for row in rows]

    whole = run(tmp_path / "whole", 40)
    run(tmp_path / "parts", 20)
    parts = run(tmp_path / "parts", 40, resume="model_final.pth")
    again = run(tmp_path / "parts", 40, resume="model_0000012.pth")
    for other in (parts, again):
        for a, b in zip(whole.model.parameters(), other.model.parameters(), strict=True):
            assert torch.equal(a, b)
    assert curve(tmp_path / "whole") == curve(tmp_path / "parts")
    assert [row["iteration"] for row in curve(tmp_path / "whole")] == [4, 9, 14, 19, 24, 29, 34, 39]
