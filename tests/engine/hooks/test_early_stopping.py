import logging

import pytest

from child_processes import run_ranks
from hookline.engine import Checkpointer
from hookline.engine.hooks import EarlyStopping, EvalHook

VALUES = [0.1, 0.5, 0.4, 0.55, 0.5, 0.5, 0.5, 0.9]  # evaluations 0, 1, ...


def train(make_trainer, hook, values=VALUES, start=0, end=16, save_dir=None, resume=False):
    def evaluate():
        value = values[min((trainer.iter + 1) // 2, len(values)) - 1]
        return {"bbox": {"AP": value}} if value is not None else None

    trainer = make_trainer([EvalHook(2, evaluate, eval_after_train=False), hook])
    if save_dir is not None:
        checkpointer = Checkpointer(trainer.model, str(save_dir), trainer=trainer)
        hook._checkpointer = checkpointer
        if resume:
            start = checkpointer.resume() + 1
        trainer.train(start, end)
        return trainer, checkpointer
    trainer.train(start, end)
    return trainer


@pytest.mark.parametrize(
    ("settings", "stop", "best"),
    [
        ({"patience": 3}, 14, (0.55, 7)),  # the last improvement is in iteration 7
        ({"patience": 1}, 6, (0.5, 3)),
        ({"patience": 3, "min_improvement": 0.1}, 10, (0.5, 3)),
        ({"patience": 5}, 16, (0.55, 7)),  # to the end
        ({"patience": 2, "mode": "min"}, 6, (0.1, 1)),
    ],
)
def test_timeline(make_trainer, settings, stop, best):
    hook = EarlyStopping(2, "bbox/AP", **settings)
    trainer = train(make_trainer, hook)
    assert (trainer.iter, trainer.max_iter) == (stop, stop)
    assert (hook.best, hook.best_iter) == best
    assert hook.stopped == (stop < 16)
    assert len(trainer.storage.history("total_loss").values()) == stop


def test_same_stop_through_a_resume_and_at_once_when_resumed_again(make_trainer, tmp_path):
    def hook(patience=3):
        return EarlyStopping(2, "bbox/AP", patience=patience)

    first, checkpointer = train(make_trainer, hook(), end=11, save_dir=tmp_path)
    assert first.iter == 11
    checkpointer.save("model_0000010", iteration=10)
    second, _ = train(make_trainer, hook(), save_dir=tmp_path, resume=True)
    assert second.iter == 14
    assert (tmp_path / "model_final.pth").is_file()
    third, checkpointer = train(make_trainer, hook(), save_dir=tmp_path, resume=True)
    assert (third.start_iter, third.iter) == (14, 14)
    patient, _ = train(make_trainer, hook(4), save_dir=tmp_path, resume=True)
    assert (patient.start_iter, patient.iter) == (14, 16)  # a longer patience goes on


def test_old_values_and_nan(make_trainer, caplog):
    hook = EarlyStopping(2, "bbox/AP", patience=2)
    assert train(make_trainer, hook, [0.5, None, None, None, None, 0.4, None, 0.3]).iter == 16
    assert hook.waited == 1  # what is evaluated in the last step stops nothing
    nan = float("nan")
    assert train(make_trainer, EarlyStopping(2, "bbox/AP", patience=2), [nan, nan, 0.5, 0.6]).iter == 4
    with caplog.at_level(logging.WARNING):
        assert train(make_trainer, EarlyStopping(2, "box/AP")).iter == 16
    assert "no metric 'box/AP' to stop early by; there are: bbox/AP" in caplog.text


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"patience": 0}, "patience=0"),
        ({"min_improvement": -1}, "min_improvement=-1"),
        ({"min_improvement": float("nan")}, "min_improvement=nan"),
        ({"mode": "most"}, "mode='most'"),
    ],
)
def test_refusals(settings, words):
    with pytest.raises(ValueError, match=words):
        EarlyStopping(2, "bbox/AP", **settings)


TWO_RANKS = """
import sys
import torch
import torch.distributed as dist
from hookline.engine import SimpleTrainer
from hookline.engine.hooks import EarlyStopping, EvalHook, ValidationLossHook

rank, root = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{root}/store", rank=rank, world_size=2)


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.ones(()))

    def forward(self, batch):
        return {"loss": self.w * sum(batch) / len(batch)}


model = Model()
trainer = SimpleTrainer(model, [[1.0]] * 20, torch.optim.SGD(model.parameters(), lr=0.0))
own = [[1.0, 2.0, 3.0], [10.0]] if rank == 0 else [[4.0]]
stop = EarlyStopping(2, "AP", patience=2)
trainer.register_hooks([
    ValidationLossHook(2, own), EvalHook(2, lambda: {"AP": 1.0} if rank == 0 else None, False), stop])
trainer.train(0, 20)
assert trainer.iter == 6, trainer.iter
assert (stop.best, stop.best_iter, stop.waited) == (1.0, 1, 2)
assert trainer.storage.latest()["validation/total_loss"] == (4.0, 5), trainer.storage.latest()  # not again at the end
dist.destroy_process_group()
"""


def test_two_ranks_stop_together_and_share_the_validation_loss(tmp_path):
    for code, output in run_ranks(TWO_RANKS, tmp_path):
        assert code == 0, output
