"""``train.precise_bn``: measure the statistics of batch norm before they are evaluated and saved."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig
from torch import nn

from hookline.cli.averages import Average
from hookline.cli.checks import check_group, expect_int
from hookline.engine import hooks

__all__ = ["build_precise_bn", "check_precise_bn"]

DEFAULTS: dict[str, Any] = {"period": None, "num_iter": 200}


def check_precise_bn(cfg: DictConfig) -> None:
    """Check ``train.precise_bn``.

    Args:
        cfg: the whole recipe.

    Raises:
        UsageError: naming the key, its value and what is expected.
    """
    if cfg.train.precise_bn is None:
        return
    group = DEFAULTS | check_group("precise_bn", cfg.train.precise_bn, DEFAULTS)
    if group["period"] is not None:
        expect_int("precise_bn.period", group["period"], 0)
    expect_int("precise_bn.num_iter", group["num_iter"], 1)


def build_precise_bn(
    settings: DictConfig, model: nn.Module, loader: Any, averages: Sequence[Average], eval_period: Any
) -> hooks.PreciseBN | None:
    """Make the hook, if the run shall have it.

    Args:
        settings: ``train``, checked.
        model: the model.
        loader: the training loader; its position stays.
        averages: averages that the run keeps; each gets its own statistics.
        eval_period: when the run evaluates; the hook's period where it has none of its own.
    """
    if settings.precise_bn is None:
        return None
    group = DEFAULTS | dict(settings.precise_bn)
    period = eval_period if group["period"] is None else group["period"]
    kept = [each.hook for each in averages]
    return hooks.PreciseBN(period, model, loader, group["num_iter"], averages=kept, seed=settings.seed)
