from collections import OrderedDict

import numpy as np
import pytest
import torch

from hookline.engine.hooks import CallbackHook, EvalHook, flatten_results


def evaluated(make_trainer, start, end, *args, **kwargs):
    """Give the iterations at which the function was called."""
    calls = []
    hook = EvalHook(*args, lambda: calls.append(trainer.iter), **kwargs)
    trainer = make_trainer([hook])
    trainer.train(start, end)
    return calls


def test_timeline(make_trainer):
    assert evaluated(make_trainer, 0, 10, 4) == [3, 7, 10]
    assert evaluated(make_trainer, 0, 8, 4) == [3, 8]
    assert evaluated(make_trainer, 0, 8, 0) == [8]
    assert evaluated(make_trainer, 5, 8, 2) == [5, 8]


def test_without_the_end(make_trainer):
    assert evaluated(make_trainer, 0, 10, 4, eval_after_train=False) == [3, 7]
    assert evaluated(make_trainer, 0, 8, 4, eval_after_train=False) == [3, 7]


def test_not_after_a_failure(make_trainer):
    def fail(trainer):
        if trainer.iter == 2:
            raise KeyError

    calls = []
    trainer = make_trainer([CallbackHook(before_step=fail), EvalHook(0, lambda: calls.append(1))])
    with pytest.raises(KeyError):
        trainer.train(0, 3)
    assert not calls


def test_results_become_metrics(make_trainer):
    results = OrderedDict(bbox={"AP": np.float64(41.5), "AP50": torch.tensor(60.0)}, time=3)
    trainer = make_trainer([EvalHook(2, lambda: results)])
    trainer.train(0, 3)
    assert trainer.storage.history("bbox/AP").values() == [(41.5, 1), (41.5, 3)]
    assert trainer.storage.latest()["bbox/AP50"] == (60.0, 3)
    assert trainer.storage.latest()["time"] == (3.0, 3)
    assert trainer.storage.smoothing_hints()["bbox/AP"] is False


def test_no_results_on_other_ranks(make_trainer):
    trainer = make_trainer([EvalHook(1, dict), EvalHook(1, lambda: None)])
    trainer.train(0, 2)
    assert set(trainer.storage.latest()) == {"total_loss", "loss_a", "loss_b", "data_time"}


def test_refusals():
    with pytest.raises(ValueError, match="AP='high'"):
        flatten_results({"bbox": {"AP": "high"}})
    with pytest.raises(TypeError, match="list"):
        flatten_results([1.0])
