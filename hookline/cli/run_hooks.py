"""The hooks of a run in the order in which they act, as the settings say."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch import nn

from hookline.cli.averages import Average, build_averages, save_averages, with_averages
from hookline.cli.evaluations import Evaluations
from hookline.cli.guards import build_watchdog, guard_hooks
from hookline.cli.loggers import build_histograms, build_writer_hook
from hookline.cli.precise_bn import build_precise_bn
from hookline.cli.schedules import SCHEDULES, schedulers
from hookline.cli.suspension import build_suspend_checkpointer
from hookline.config import LazyConfig
from hookline.engine import Checkpointer, hooks
from hookline.engine.data_parallel import UnusedParameterCheck
from hookline.evaluation import EvaluationInterrupted

__all__ = ["RunParts", "default_hooks", "repeating_hooks"]


@dataclass(frozen=True)
class RunParts:
    """What a run was built of, for those who make its hooks.

    Attributes:
        cfg: the recipe.
        model: the model, on its device, without a wrapper.
        loader: the training loader.
        checkpointer: saves the run.
        evaluations: those of the recipe; None with ``--no-validate``.
        max_iter: the number of steps of the run.
        resume: the run in the output folder goes on, even if it has no checkpoint yet.
    """

    cfg: DictConfig
    model: nn.Module
    loader: Any
    checkpointer: Checkpointer
    evaluations: Evaluations | None
    max_iter: int
    resume: bool = False


def default_hooks(parts: RunParts) -> list[hooks.HookBase | None]:
    """List the hooks of a run in the order in which they act.

    Args:
        parts: what the run was built of.
    """
    settings = parts.cfg.train
    averages = build_averages(settings)
    eval_period = settings.eval_period if parts.evaluations else 0
    suspend = build_suspend_checkpointer(settings.suspend, parts.checkpointer)
    watchdog, watchdog_end = build_watchdog(settings.guards)
    return [
        watchdog,
        hooks.IterationTimer(),
        UnusedParameterCheck(),
        *guard_hooks(settings.guards),
        *schedulers(parts.cfg),
        *(each.hook for each in averages),
        hooks.ResumeReport(_compared_settings(parts.cfg), allow_changed_data=settings.allow_changed_data),
        build_precise_bn(settings, parts.model, parts.loader, averages, eval_period),
        hooks.PeriodicCheckpointer(
            parts.checkpointer, settings.checkpointer.period, max_to_keep=settings.checkpointer.max_to_keep
        ),
        *_evaluation(parts, suspend, averages),
        *save_averages(parts.checkpointer, averages),
        build_histograms(settings.loggers),
        build_writer_hook(parts),
        watchdog_end,
        suspend,  # the last one: what it saves is a whole step, evaluated and written
    ]


def repeating_hooks(cfg: DictConfig) -> list[hooks.HookBase | None]:
    """List the hooks of an attempt that only repeats steps, to learn why one was not finite: it leaves nothing behind.

    Args:
        cfg: the recipe.
    """
    watchdog, _ = build_watchdog(cfg.train.guards)
    averages = [each.hook for each in build_averages(cfg.train)]
    return [
        watchdog,
        *guard_hooks(cfg.train.guards),
        *schedulers(cfg),
        *averages,
    ]


def _compared_settings(cfg: DictConfig) -> dict[str, str]:
    """Give what a resumed run compares, besides what the trainer itself knows."""
    others = [node for node in SCHEDULES.values() if node != "lr_multiplier" and cfg.get(node) is not None]
    return {name: LazyConfig.to_py(OmegaConf.create({name: cfg.get(name)})) for name in ("lr_multiplier", *others)}


def _evaluation(parts: RunParts, suspend: Any, averages: list[Average]) -> list[hooks.HookBase]:
    """Make the hook that evaluates, unless the run shall not."""
    evaluations = parts.evaluations
    if evaluations is None:
        return []
    return [
        hooks.EvalHook(
            parts.cfg.train.eval_period,
            with_averages(lambda: evaluations.run(parts.model, suspend.requested), averages),
            interruption=EvaluationInterrupted,
        )
    ]
