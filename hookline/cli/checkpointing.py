"""``train.checkpointer``: when a run is saved, where, what of it, and which states count as the best."""

from __future__ import annotations

import re
from typing import Any

from omegaconf import DictConfig, ListConfig

from hookline.cli.checks import expect_bool, expect_int, expect_one_of
from hookline.cli.errors import UsageError
from hookline.cli.metrics import MODES, MetricNames, rule_of
from hookline.cli.periods import build_every, check_period
from hookline.engine import Checkpointer, Every, hooks

__all__ = ["build_best", "build_periodic", "check_checkpointer", "checkpoint_folder"]

BEST = "train.checkpointer.save_best"
RULE = "train.checkpointer.rule"


def check_checkpointer(cfg: DictConfig) -> None:
    """Check ``train.checkpointer``.

    Args:
        cfg: the whole recipe.

    Raises:
        UsageError: naming the key, its value and what is expected.
    """
    settings = cfg.train.checkpointer
    check_period("checkpointer.period", settings.period, settings.period_epochs, least=1)
    if settings.max_to_keep is not None:
        expect_int("checkpointer.max_to_keep", settings.max_to_keep, 1)
    for switch in ("asynchronous", "save_last", "save_optimizer"):
        expect_bool(f"checkpointer.{switch}", settings[switch])
    expect_one_of("checkpointer.on_save_error", settings.on_save_error, ("raise", "warn"))
    if settings.dir is not None and (not isinstance(settings.dir, str) or not settings.dir):
        raise UsageError(f"train.checkpointer.dir={settings.dir!r}: expected the path of a folder, or null")
    if settings.rule is not None:
        expect_one_of("checkpointer.rule", settings.rule, tuple(MODES))
    _file_names(_best_metrics(settings.save_best))


def checkpoint_folder(train: DictConfig) -> str:
    """Give the folder of the checkpoints.

    Args:
        train: the node.
    """
    return train.checkpointer.dir or train.output_dir


def build_periodic(train: DictConfig, checkpointer: Checkpointer, loader: Any) -> hooks.PeriodicCheckpointer:
    """Make the hook that saves every so often.

    Args:
        train: the node, checked.
        checkpointer: saves.
        loader: the training loader.
    """
    settings = train.checkpointer
    return hooks.PeriodicCheckpointer(
        checkpointer,
        build_every(
            "checkpointer.period", settings.period, settings.period_epochs, loader=loader, accumulate=train.accumulate
        ),
        max_to_keep=settings.max_to_keep,
        save_last=settings.save_last,
        save_optimizer=settings.save_optimizer,
    )


def build_best(
    train: DictConfig, checkpointer: Checkpointer, names: MetricNames, evaluated: Every, validated: Every | None
) -> list[hooks.HookBase]:
    """Make a hook for each metric of ``save_best``.

    Args:
        train: the node, checked.
        checkpointer: saves.
        names: the metrics of the run.
        evaluated: when it evaluates.
        validated: when it measures the validation loss, if at all.
    """
    settings = train.checkpointer
    metrics = [names.primary(BEST) if name == "auto" else name for name in _best_metrics(settings.save_best)]
    files = _file_names(metrics)
    found: list[hooks.HookBase] = []
    for name, file in zip(metrics, files, strict=True):
        names.check(name, BEST)
        every = validated if validated is not None and names.is_validation(name) else evaluated
        mode = MODES[rule_of(name, settings.rule, RULE)]
        found.append(hooks.BestCheckpointer(every, checkpointer, name, mode, file))
    return found


def _best_metrics(setting: Any) -> list[str]:
    """Read ``save_best``: nothing, a name, or several.

    Raises:
        UsageError: if it is something else.
    """
    names = list(setting) if isinstance(setting, list | tuple | ListConfig) else [] if setting is None else [setting]
    if not all(isinstance(name, str) and name for name in names):
        raise UsageError(f"{BEST}={setting!r}: expected null, 'auto', the name of a metric, or a list of names")
    return names


def _file_names(metrics: list[str]) -> list[str]:
    """Name a file for each metric.

    Raises:
        UsageError: if two of them are the same.
    """
    if len(metrics) < 2:
        return ["model_best"] * len(metrics)
    files = ["model_best_" + re.sub(r"[^\w.-]+", "_", name) for name in metrics]
    twice = next((name for place, name in enumerate(metrics) if files[place] in files[:place]), None)
    if twice is not None:
        raise UsageError(f"{BEST}={metrics}: {twice!r} and another one would be saved to the same file")
    return files
