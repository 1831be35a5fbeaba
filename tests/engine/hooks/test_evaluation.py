import contextlib
from collections import OrderedDict

import numpy as np
import pytest
import torch

from hookline.engine import Checkpointer
from hookline.engine.hooks import BestCheckpointer, CallbackHook, EvalHook, PeriodicCheckpointer, flatten_results


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


class Stopped(Exception):
    pass


@pytest.fixture
def run(make_trainer, tmp_path):
    """Train on from the newest checkpoint; the evaluation of an iteration may raise."""

    def run(end, fail=None, hooks=(), **settings):
        calls = []

        def evaluate():
            calls.append(trainer.iter)
            if trainer.iter == fail:
                raise settings.get("interruption", KeyboardInterrupt)
            return {"AP": float(trainer.iter)}

        trainer = make_trainer()
        checkpointer = Checkpointer(trainer.model, tmp_path, trainer=trainer)
        best = BestCheckpointer(2, checkpointer, "AP")
        trainer.register_hooks([PeriodicCheckpointer(checkpointer, 2), EvalHook(2, evaluate, **settings), best, *hooks])
        start = checkpointer.resume() + 1
        with contextlib.suppress(KeyboardInterrupt):
            trainer.train(start, end)
        return calls, trainer.storage.histories().get("AP"), best

    return run


def test_killed_during_an_evaluation_it_is_made_up_for(run):
    calls, history, _ = run(8, fail=3)
    assert (calls, history.values()) == ([1, 3], [(1.0, 1)])
    calls, history, best = run(8)
    assert calls == [4, 5, 8]
    assert history.values() == [(1.0, 1), (4.0, 3), (5.0, 5), (8.0, 8)]
    assert (best.best_metric, best.best_iter) == (8.0, 8)


def test_what_was_evaluated_is_not_evaluated_again(run):
    run(4, eval_after_train=False)
    calls, _, _ = run(8, eval_after_train=False)
    assert calls == [5, 7]
    calls, _, _ = run(8, eval_after_train=False)
    assert calls == []


def test_an_interruption_gives_no_results(run):
    calls, history, _ = run(4, fail=1, interruption=Stopped, eval_after_train=False)
    assert calls == [1, 3]
    assert history.values() == [(3.0, 3)]


def test_the_best_of_all_counts_an_evaluation_that_was_made_up_for(run):
    run(6, fail=3)
    _, _, best = run(5, eval_after_train=False)
    assert (best.best_metric, best.best_iter) == (4.0, 3)
