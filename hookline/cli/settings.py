"""From the command line to the whole recipe: load it, apply flags and overrides, fill in and check ``train``."""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from hookline.cli.averages import check_averages, shorten_averages
from hookline.cli.checkpointing import check_checkpointer
from hookline.cli.checks import check_names, expect_bool, expect_int, expect_one_of
from hookline.cli.compilation import check_compile
from hookline.cli.errors import UsageError
from hookline.cli.fully_sharded import check_fsdp
from hookline.cli.gradients import check_gradients
from hookline.cli.guards import check_guards
from hookline.cli.learning_rate import check_auto_scale_lr
from hookline.cli.loggers import check_loggers
from hookline.cli.optimizer import check_optimizer
from hookline.cli.periods import check_period, expect_epochs, prefer_epochs, shorten_periods, with_other_unit
from hookline.cli.precise_bn import check_precise_bn
from hookline.cli.process_settings import check_process_settings
from hookline.cli.recipes import find_recipe
from hookline.cli.schedules import check_schedules, keep_schedules
from hookline.cli.stopping import check_early_stopping
from hookline.cli.validation import check_validation_loss
from hookline.config import LazyConfig
from hookline.configs.common import train as common
from hookline.engine.data_parallel import ddp_options
from hookline.engine.precision import PRECISIONS

__all__ = ["load_settings", "precision_of"]

DEFAULTS: dict[str, Any] = OmegaConf.to_container(common.train)  # type: ignore[assignment]

NODES = ("model", "dataloader", "optimizer", "train")

# Read by `default_setup` where a recipe, such as Detectron2's, has it.
OPTIONAL = ("cudnn_benchmark",)

# Their keys are arguments that others check.
OPEN_ENDED = ("ddp", "grad_clip")

# Each checks its own group of settings of the whole recipe.
CHECKS: tuple[Callable[[DictConfig], None], ...] = (
    check_auto_scale_lr,
    check_averages,
    check_checkpointer,
    check_compile,
    check_early_stopping,
    check_fsdp,
    check_gradients,
    check_guards,
    check_loggers,
    check_optimizer,
    check_precise_bn,
    check_process_settings,
    check_schedules,
    check_validation_loss,
)


def load_settings(args: argparse.Namespace) -> DictConfig:
    """Load the recipe of a command line.

    Args:
        args: what :func:`hookline.cli.train.parse_arguments` gave.

    Returns:
        The recipe with every ``train`` setting present.

    Raises:
        UsageError: if the recipe lacks a node, has an unknown ``train`` setting, or a value cannot be.
    """
    path = find_recipe(args.config_file)
    args.config_file = str(path)  # so that what is kept beside the run names the file, not its short name
    cfg = LazyConfig.load(str(path))
    missing = [node for node in NODES if node not in cfg]
    if missing:
        raise UsageError(f"{path}: a recipe needs the nodes {', '.join(NODES)}; missing: {', '.join(missing)}")
    _refuse_unknown(cfg.train, f"{path}: ")
    _complete(cfg)
    whole = _with(cfg, with_other_unit(args.opts)) if args.fast_dev_run else None
    cfg = LazyConfig.apply_overrides(cfg, _flags_as_overrides(args) + with_other_unit(args.opts))
    if args.fast_dev_run:
        shorten_averages(cfg)
        shorten_periods(cfg)
    if whole is not None:
        keep_schedules(cfg, whole)
    prefer_epochs(cfg.train)
    _refuse_unknown(cfg.train, "")  # +train.key=value adds what the saved config could not be loaded with
    _check(cfg)
    return cfg


def _with(cfg: DictConfig, overrides: list[str]) -> DictConfig:
    return LazyConfig.apply_overrides(copy.deepcopy(cfg), overrides)


def _refuse_unknown(train: DictConfig, where: str) -> None:
    """Refuse settings that nothing reads, also inside of groups such as ``train.checkpointer``."""
    check_names(train, [*DEFAULTS, *OPTIONAL], "train", where)
    for key, value in DEFAULTS.items():
        if isinstance(value, dict) and key not in OPEN_ENDED and isinstance(train.get(key), DictConfig):
            check_names(train[key], value, f"train.{key}", where)


def _complete(cfg: DictConfig) -> None:
    """Give ``train`` the settings that the recipe leaves out."""
    if cfg.train.get("max_epochs") is not None and "max_iter" not in cfg.train:
        cfg.train.max_iter = None
    for key, value in DEFAULTS.items():
        if key not in cfg.train:
            cfg.train[key] = copy.deepcopy(value)
        elif isinstance(value, dict) and cfg.train[key] is not None:
            for inner, default in value.items():
                cfg.train[key].setdefault(inner, default)


def _flags_as_overrides(args: argparse.Namespace) -> list[str]:
    """Say the flags that stand for settings in the language of overrides; explicit overrides come later and win."""
    overrides = []
    if args.work_dir:
        overrides.append(f"train.output_dir={_quoted(args.work_dir)}")
    if args.load_from:
        overrides.append(f"train.init_checkpoint={_quoted(args.load_from)}")
    if args.auto_scale_lr:
        overrides.append("train.auto_scale_lr=true")
    if args.fast_dev_run:
        overrides += [
            "train.max_iter=2",
            "train.max_epochs=null",
            "train.eval_period=2",
            "train.eval_start=0",
            "train.checkpointer.period=2",
            "train.log_period=1",
        ]
    return overrides


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace("'", "\\'") if "'" in text else text
    return f"'{escaped}'"


def _check(cfg: DictConfig) -> None:
    """Check the values of ``train`` that would fail late or silently.

    Raises:
        UsageError: naming the key, its value and what is expected.
    """
    train = cfg.train
    for key, least in (("accumulate", 1), ("log_period", 1), ("seed", 0)):
        expect_int(key, train[key], least)
    _check_evaluation(train)
    if (train.max_iter is None) == (train.max_epochs is None):
        raise UsageError(
            f"train.max_iter={train.max_iter} and train.max_epochs={train.max_epochs}: give one, set the other null"
        )
    if train.max_iter is not None:
        expect_int("max_iter", train.max_iter, 0)
    else:
        expect_epochs("max_epochs", train.max_epochs, exclusive=True)
    if not isinstance(train.output_dir, str) or not train.output_dir:
        raise UsageError(f"train.output_dir={train.output_dir!r}: expected the path of a folder")
    expect_one_of("precision", train.precision, PRECISIONS)
    _check_device(train.device)
    check_names(train.ddp or {}, ddp_options(), "train.ddp")
    for check in CHECKS:
        check(cfg)


def _check_device(name: Any) -> None:
    """Refuse what is no device of torch.

    Raises:
        UsageError: naming the value and what is expected.
    """
    try:
        torch.device("cpu" if name == "auto" else name)
    except (RuntimeError, TypeError) as error:
        raise UsageError(f"train.device={name!r}: expected 'auto', 'cuda', 'cpu' or another device of torch") from error


def _check_evaluation(train: DictConfig) -> None:
    """Check when a run evaluates.

    Raises:
        UsageError: naming the key, its value and what is expected.
    """
    check_period("eval_period", train.eval_period, train.eval_period_epochs)
    expect_int("eval_start", train.eval_start, 0)
    if train.eval_start_epochs is not None:
        expect_epochs("eval_start_epochs", train.eval_start_epochs)
        if train.eval_start:
            raise UsageError(
                f"train.eval_start={train.eval_start} and train.eval_start_epochs={train.eval_start_epochs}: give one"
            )
    expect_bool("eval_after_train", train.eval_after_train)


def precision_of(cfg: DictConfig) -> str:
    """Give ``train.precision``, or fp16 where Detectron2's ``train.amp.enabled`` asks for it.

    Raises:
        UsageError: if both are set.
    """
    if not cfg.train.amp.enabled:
        return cfg.train.precision
    if cfg.train.precision != "fp32":
        raise UsageError(f"train.amp.enabled=true and train.precision={cfg.train.precision!r}: set one of them")
    return "fp16"
