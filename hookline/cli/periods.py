"""Periods in iterations or epochs: ``train.eval_period``, ``train.checkpointer.period``, ``train.validation_loss``."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

from omegaconf import DictConfig

from hookline.cli.checks import expect_int, expect_number
from hookline.cli.errors import UsageError
from hookline.configs.common import train as common
from hookline.engine import Every

__all__ = [
    "build_every",
    "check_period",
    "eval_every",
    "expect_epochs",
    "iterations_per_epoch",
    "prefer_epochs",
    "shorten_periods",
    "steps_of_epochs",
    "with_other_unit",
]


def prefer_epochs(train: DictConfig) -> None:
    """Let a period in epochs replace the default one in iterations.

    Args:
        train: the node, with every setting; changed.
    """
    defaults = common.train
    if train.eval_period_epochs is not None and train.eval_period == defaults.eval_period:
        train.eval_period = None
    checkpointer = train.checkpointer
    if checkpointer.period_epochs is not None and checkpointer.period == defaults.checkpointer.period:
        checkpointer.period = None


def with_other_unit(overrides: list[str]) -> list[str]:
    """Let a period on the command line replace the recipe's, also one in the other unit.

    Args:
        overrides: those of the command line.

    Returns:
        The overrides, in front of them those that set what is replaced to null.
    """
    given = dict(override.lstrip("+").split("=", 1) for override in overrides if "=" in override)
    pairs = [(key, f"{key}_epochs") for key in ("train.eval_period", "train.checkpointer.period")]
    replaced = [
        other
        for own, other in [*pairs, *((epochs, steps) for steps, epochs in pairs)]
        if given.get(own, "null") != "null" and other not in given
    ]
    return [*(f"{key}=null" for key in replaced), *overrides]


def shorten_periods(cfg: DictConfig) -> None:
    """Let nothing wait for the end of an epoch in the few steps of ``--fast-dev-run``.

    Args:
        cfg: the whole recipe; changed.
    """
    train, checkpointer = cfg.train, cfg.train.checkpointer
    train.eval_start_epochs = None
    if train.eval_period_epochs is not None:
        train.update(eval_period=2, eval_period_epochs=None)
    if checkpointer.period_epochs is not None:
        checkpointer.update(period=2, period_epochs=None)
    if isinstance(cfg.train.validation_loss, DictConfig):
        cfg.train.validation_loss.update(period=2, period_epochs=None)


def check_period(key: str, period: Any, epochs: Any, *, least: int = 0) -> None:
    """Check a period that is given in iterations or in epochs.

    Args:
        key: of the period in iterations, below ``train``; the other one has ``_epochs`` added.
        period: its value, None where it is not given.
        epochs: that in epochs.
        least: the smallest valid period.

    Raises:
        UsageError: if both or none are given, or a value cannot be.
    """
    if (period is None) == (epochs is None):
        raise UsageError(f"train.{key}={period} and train.{key}_epochs={epochs}: give one, set the other null")
    if epochs is None:
        expect_int(key, period, least)
    else:
        expect_epochs(f"{key}_epochs", epochs, exclusive=least > 0)


def expect_epochs(key: str, value: Any, *, exclusive: bool = False) -> None:
    """Check a number of epochs.

    Args:
        key: the setting's path below ``train``.
        value: what it is.
        exclusive: 0 is not valid.

    Raises:
        UsageError: if it is something else, or too small a share of an epoch.
    """
    expect_number(key, value, 0, exclusive=exclusive)
    try:
        Every.epochs(value, Fraction(1))
    except ValueError as error:
        raise UsageError(f"train.{key}={value!r}: {error}") from error


def build_every(key: str, period: int | None, epochs: float | None, loader: Any, accumulate: int) -> Every:
    """Make the value of a period.

    Args:
        key: as in :func:`check_period`.
        period: in iterations; None where it is in epochs.
        epochs: in epochs.
        loader: the training loader.
        accumulate: batches per iteration.
    """
    if epochs is None:
        assert period is not None
        return Every(period)
    return Every.epochs(epochs, iterations_per_epoch(f"{key}_epochs", loader, accumulate))


def eval_every(train: DictConfig, loader: Any) -> Every:
    """Tell when a run evaluates.

    Args:
        train: the node, checked.
        loader: the training loader.
    """
    every = build_every("eval_period", train.eval_period, train.eval_period_epochs, loader, train.accumulate)
    first = train.eval_start
    if train.eval_start_epochs is not None:
        first = steps_of_epochs("eval_start_epochs", train.eval_start_epochs, loader, train.accumulate)
    return Every(every.period, first or None)


def iterations_per_epoch(key: str, loader: Any, accumulate: int) -> Fraction:
    """Give the exact length of an epoch, which need not be a whole number of iterations.

    Args:
        key: the setting that asks, below ``train``.
        loader: the training loader.
        accumulate: batches per iteration.

    Raises:
        UsageError: if the loader does not say how long an epoch is.
    """
    length, batch_size = getattr(loader, "epoch_length", None), getattr(loader, "batch_size", None)
    if length is None or batch_size is None:
        lacking = "epoch_length" if length is None else "batch_size"
        name = "train.max_iter" if key == "max_epochs" else f"train.{key.removesuffix('_epochs')}"
        raise UsageError(f"train.{key}: {type(loader).__name__} has no {lacking}; set {name}, in iterations, instead")
    return Fraction(length, batch_size * accumulate)


def steps_of_epochs(key: str, epochs: float, loader: Any, accumulate: int) -> int:
    """Count the iterations after which so many epochs are finished.

    Args:
        key: the setting that asks, below ``train``.
        epochs: also a share of one.
        loader: the training loader.
        accumulate: batches per iteration.
    """
    return math.ceil(Every.epochs(epochs, iterations_per_epoch(key, loader, accumulate)).period)
