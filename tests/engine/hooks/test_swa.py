"""The mean of late weights."""

import pytest
import torch

from hookline.engine import Checkpointer
from hookline.engine.hooks import CallbackHook, SWAHook


@pytest.mark.parametrize(
    ("start", "period", "due"),
    [(0.5, 1, [9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19]), (14, 3, [13, 16, 19]), (0, 8, [7, 15]), (20, 1, [19])],
)
def test_the_mean_of_the_steps_that_are_due(make_trainer, two_losses, start, period, due):
    model, course, hook = two_losses(), [], SWAHook(start, period)
    note = CallbackHook(after_step=lambda trainer: course.append(model.linear.weight.detach().double().clone()))
    make_trainer([note, hook], model=model).train(0, 20)
    expected = torch.stack([course[iteration] for iteration in due]).mean(0)
    assert hook.updates == len(due)
    torch.testing.assert_close(hook.state_dict()["averages"]["linear.weight"].double(), expected, rtol=1e-6, atol=1e-7)


def test_a_resumed_run_has_the_same_averages_bit_for_bit(make_trainer, tmp_path):
    def run(start, resume=False):
        hook = SWAHook(4, 3)
        trainer = make_trainer([hook])
        checkpointer = Checkpointer(trainer.model, tmp_path, trainer=trainer)
        trainer.train(checkpointer.resume() + 1 if resume else 0, start)
        return hook.state_dict(), checkpointer

    whole, _ = run(14)
    _, checkpointer = run(8)
    checkpointer.save("model_0000007", iteration=7)
    resumed, _ = run(14, resume=True)
    assert resumed["updates"] == whole["updates"] == 4
    assert all(torch.equal(value, whole["averages"][name]) for name, value in resumed["averages"].items())


def test_there_are_none_before_the_start(make_trainer):
    hook = SWAHook(10)
    make_trainer([hook]).train(0, 9)
    assert not hook.ready
    assert hook.state_dict() == {}


@pytest.mark.parametrize(
    ("start", "period", "words"),
    [(-1, 1, "start=-1"), (float("nan"), 1, "start=nan"), (2.5, 1, "start=2.5"), (2, 0, "period=0")],
)
def test_refusals(start, period, words):
    with pytest.raises(ValueError, match=words):
        SWAHook(start, period)
