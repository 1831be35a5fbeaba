"""The linear rule: the formula, accumulation, what is missing; and that a resume does not scale again."""

import logging

import pytest
import torch
from omegaconf import OmegaConf

from hookline.cli.errors import UsageError
from hookline.cli.learning_rate import check_auto_scale_lr, scale_learning_rate


def recipe(*, images=128, accumulate=1, reference=8, on=True):
    train = {"auto_scale_lr": on, "reference_batch_size": reference, "accumulate": accumulate}
    return OmegaConf.create({"train": train, "dataloader": {"train": {"total_batch_size": images}}})


def optimizer():
    weights = [torch.nn.Parameter(torch.ones(1)) for _ in range(2)]
    return torch.optim.SGD([{"params": weights[:1]}, {"params": weights[1:], "lr": 0.1}], lr=0.01, momentum=0.9)


def test_mmdetections_example(caplog):
    # lr 0.01 at 4 GPUs x 2 images becomes 0.08 at 16 x 4
    sgd = optimizer()
    with caplog.at_level(logging.INFO, "hookline"):
        logging.getLogger("hookline").propagate = True
        scale_learning_rate(recipe(images=64), sgd)
    assert [group["lr"] for group in sgd.param_groups] == pytest.approx([0.08, 0.8])
    assert "learning rate 0.01 x (64 images x 1 accumulated) / reference 8 = 0.08" in caplog.text


def test_accumulated_batches_count():
    sgd = optimizer()
    scale_learning_rate(recipe(images=8, accumulate=4), sgd)
    assert sgd.param_groups[0]["lr"] == pytest.approx(0.04)


def test_without_the_flag_nothing_changes():
    sgd = optimizer()
    scale_learning_rate(recipe(on=False), sgd)
    assert [group["lr"] for group in sgd.param_groups] == [0.01, 0.1]


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"reference": None}, "needs train.reference_batch_size"),
        ({"reference": 0}, "train.reference_batch_size=0"),
        ({"reference": 0, "on": False}, "train.reference_batch_size=0"),
        ({"on": "yes"}, "train.auto_scale_lr='yes'"),
        ({"images": None}, "needs dataloader.train.total_batch_size"),
    ],
)
def test_what_is_missing_is_named(settings, words):
    with pytest.raises(UsageError, match=words):
        check_auto_scale_lr(recipe(**settings))
