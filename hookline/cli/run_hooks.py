"""The hooks of a run in the order in which they act, as the settings say."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig, OmegaConf
from torch import nn

from hookline.cli.averages import Average, build_averages, save_averages, with_averages
from hookline.cli.checkpointing import build_best, build_periodic
from hookline.cli.evaluations import Evaluations
from hookline.cli.guards import build_watchdog, guard_hooks
from hookline.cli.loggers import build_histograms, build_writer_hook
from hookline.cli.metrics import MetricNames
from hookline.cli.periods import eval_every
from hookline.cli.precise_bn import build_precise_bn
from hookline.cli.schedules import SCHEDULES, schedulers
from hookline.cli.stopping import build_early_stopping
from hookline.cli.suspension import build_suspend_checkpointer
from hookline.cli.validation import build_validation_loss, validation_every
from hookline.config import LazyConfig
from hookline.engine import Checkpointer, Every, hooks
from hookline.engine.data_parallel import UnusedParameterCheck
from hookline.engine.suspend import SuspendCheckpointer
from hookline.engine.triggers import Trigger
from hookline.evaluation import EvaluationInterrupted

__all__ = ["RunParts", "default_hooks", "repeating_hooks"]

logger = logging.getLogger(__name__)


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
        deadline: of the process, if it has one.
    """

    cfg: DictConfig
    model: nn.Module
    loader: Any
    checkpointer: Checkpointer
    evaluations: Evaluations | None
    max_iter: int
    resume: bool = False
    deadline: Trigger | None = None


def default_hooks(parts: RunParts) -> list[hooks.HookBase | None]:
    """List the hooks of a run in the order in which they act.

    Args:
        parts: what the run was built of.
    """
    settings = parts.cfg.train
    averages = build_averages(settings)
    suspend = build_suspend_checkpointer(settings.suspend, parts.checkpointer, parts.deadline)
    watchdog, watchdog_end = build_watchdog(settings.guards)
    evaluates = parts.evaluations is not None and bool(parts.evaluations.loaders)
    evaluated = eval_every(settings, parts.loader) if evaluates else Every(0)
    return [
        watchdog,
        hooks.IterationTimer(),
        UnusedParameterCheck(),
        *guard_hooks(settings.guards),
        *schedulers(parts.cfg),
        *(each.hook for each in averages),
        hooks.ResumeReport(_compared_settings(parts.cfg), allow_changed_data=settings.allow_changed_data),
        build_precise_bn(settings, parts.model, parts.loader, averages, evaluated),
        build_periodic(settings, parts.checkpointer, parts.loader),
        *_evaluation(parts, evaluated, suspend, averages),
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


def _evaluation(
    parts: RunParts, evaluated: Every, suspend: SuspendCheckpointer, averages: list[Average]
) -> list[hooks.HookBase | None]:
    """Make the hooks that measure the model and those that judge by it, unless the run shall not."""
    train, evaluations = parts.cfg.train, parts.evaluations
    judges = bool(train.checkpointer.save_best) or train.early_stopping is not None
    if evaluations is None:
        if judges or train.validation_loss is not None:
            logger.warning("--no-validate: no validation loss, no best checkpoint and no early stopping either")
        return []
    validated = validation_every(train, parts.loader, eval_every(train, parts.loader))
    found: list[hooks.HookBase | None] = []
    if validated is not None:
        found.append(build_validation_loss(train, evaluations.validation, validated, suspend.requested))
    if evaluations.loaders:
        run = with_averages(lambda: evaluations.run(parts.model, suspend.requested), averages)
        found.append(
            hooks.EvalHook(evaluated, run, train.eval_after_train, interruption=EvaluationInterrupted),
        )
    if not judges:
        return found
    known, silent = evaluations.metric_names(parts.model)
    beside = [f"{each.name}/{name}" for each in averages if each.evaluate == "beside" for name in known]
    names = MetricNames([*known, *beside], silent, validated is not None)
    return [
        *found,
        *build_best(train, parts.checkpointer, names, evaluated, validated),
        build_early_stopping(train, parts.checkpointer, names, evaluated, validated),
    ]
