"""``--auto-scale-lr``: the learning rate by the linear rule."""

from __future__ import annotations

import logging

import torch
from omegaconf import DictConfig

from hookline.cli.checks import expect_bool, expect_int
from hookline.cli.errors import UsageError

__all__ = ["check_auto_scale_lr", "scale_learning_rate"]

logger = logging.getLogger(__name__)


def check_auto_scale_lr(cfg: DictConfig) -> None:
    """Check what ``train.auto_scale_lr`` needs.

    Args:
        cfg: the whole recipe.

    Raises:
        UsageError: if a setting is missing or has a value that cannot be; names it.
    """
    train = cfg.train
    expect_bool("auto_scale_lr", train.auto_scale_lr)
    reference = train.reference_batch_size
    if reference is not None:
        expect_int("reference_batch_size", reference, 1)
    if not train.auto_scale_lr:
        return
    if reference is None:
        raise UsageError(
            "--auto-scale-lr needs train.reference_batch_size, the images a step for which the recipe's learning rate "
            "was chosen; it is null"
        )
    if _batch_size(cfg) is None:
        raise UsageError("--auto-scale-lr needs dataloader.train.total_batch_size, which this recipe does not have")


def scale_learning_rate(cfg: DictConfig, optimizer: torch.optim.Optimizer) -> None:
    """Multiply the learning rates of a new optimizer as ``train.auto_scale_lr`` says, and log the formula.

    The recipe itself keeps its rate, so a run from the saved ``config.yaml`` scales once too. A resumed run takes the
    scaled rates from its checkpoint instead.

    Args:
        cfg: the whole recipe.
        optimizer: changed in place; all its parameter groups, so that their ratios stay.

    Source: Goyal et al., "Accurate, large minibatch SGD: training ImageNet in 1 hour", section 2.1.
    """
    train = cfg.train
    if not train.auto_scale_lr:
        return
    batch_size = _batch_size(cfg)
    assert batch_size is not None
    factor = batch_size * train.accumulate / train.reference_batch_size
    before = float(optimizer.defaults["lr"])  # what the recipe calls optimizer.lr
    for settings in (optimizer.defaults, *optimizer.param_groups):
        settings["lr"] = settings["lr"] * factor
    logger.info(
        "--auto-scale-lr: learning rate %g x (%d images x %d accumulated) / reference %d = %g, and so all %d parameter "
        "group(s)",
        *(before, batch_size, train.accumulate, train.reference_batch_size, before * factor),
        len(optimizer.param_groups),
    )


def _batch_size(cfg: DictConfig) -> int | None:
    return cfg.dataloader.train.get("total_batch_size") if "train" in cfg.dataloader else None
