"""``train.early_stopping``: end a run whose evaluations get no better."""

from __future__ import annotations

from typing import Any

from omegaconf import DictConfig

from hookline.cli.checks import check_group, expect_int, expect_number, expect_one_of
from hookline.cli.errors import UsageError
from hookline.cli.metrics import MODES, MetricNames, rule_of
from hookline.engine import Checkpointer, Every, hooks

__all__ = ["build_early_stopping", "check_early_stopping"]

DEFAULTS: dict[str, Any] = {"metric": "auto", "patience": 5, "min_improvement": 0.0, "rule": None}
METRIC = "train.early_stopping.metric"
RULE = "train.early_stopping.rule"


def check_early_stopping(cfg: DictConfig) -> None:
    """Check ``train.early_stopping``.

    Args:
        cfg: the whole recipe.

    Raises:
        UsageError: naming the key, its value and what is expected.
    """
    if cfg.train.early_stopping is None:
        return
    group = DEFAULTS | check_group("early_stopping", cfg.train.early_stopping, DEFAULTS)
    if not isinstance(group["metric"], str) or not group["metric"]:
        raise UsageError(f"{METRIC}={group['metric']!r}: expected 'auto' or the name of a metric")
    expect_int("early_stopping.patience", group["patience"], 1)
    expect_number("early_stopping.min_improvement", group["min_improvement"], 0)
    if group["rule"] is not None:
        expect_one_of("early_stopping.rule", group["rule"], tuple(MODES))


def build_early_stopping(
    train: DictConfig, checkpointer: Checkpointer, names: MetricNames, evaluated: Every, validated: Every | None
) -> hooks.EarlyStopping | None:
    """Make the hook, if the run shall have it.

    Args:
        train: the node, checked.
        checkpointer: saves ``model_final`` at the stop.
        names: the metrics of the run.
        evaluated: when it evaluates.
        validated: when it measures the validation loss, if at all.

    Raises:
        UsageError: if the run measures the metric at its end only.
    """
    if train.early_stopping is None:
        return None
    group = DEFAULTS | dict(train.early_stopping)
    metric = names.primary(METRIC) if group["metric"] == "auto" else group["metric"]
    names.check(metric, METRIC)
    on_validation = validated is not None and names.is_validation(metric)
    every = validated if validated is not None and on_validation else evaluated
    if every.period == 0:
        period = "train.validation_loss.period" if on_validation else "train.eval_period"
        raise UsageError(f"train.early_stopping: {metric} is measured at the end of the run only; set {period}")
    return hooks.EarlyStopping(
        every,
        metric,
        group["patience"],
        group["min_improvement"],
        MODES[rule_of(metric, group["rule"], RULE)],
        checkpointer if train.checkpointer.save_last else None,
    )
