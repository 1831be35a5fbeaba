"""The schedules of a run: which node drives what, checked before anything is built."""

from __future__ import annotations

import contextlib
import copy
import inspect
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from hookline.cli.errors import UsageError
from hookline.config import instantiate
from hookline.config.arguments import accepted_names, find_target
from hookline.config.nodes import is_record, read
from hookline.engine import hooks
from hookline.engine.schedule import CHECKED_STEPS, check_schedule

__all__ = ["SCHEDULES", "check_schedules", "keep_schedules", "schedulers"]

SCHEDULES = {"lr": "lr_multiplier", "momentum": "momentum_multiplier", "weight_decay": "weight_decay_multiplier"}

# What an optimizer must take for a setting to be scheduled: one of these arguments.
NEEDED = {"lr": ("lr",), "momentum": ("momentum", "betas"), "weight_decay": ("weight_decay",)}


def schedulers(cfg: DictConfig) -> list[hooks.HookBase]:
    """Make the hooks that drive the optimizer's settings.

    Args:
        cfg: the recipe.
    """
    return [hooks.LRScheduler(scheduler=instantiate(cfg[node]), key=key) for key, node in _scheduled(cfg)]


def check_schedules(cfg: DictConfig) -> None:
    """Build the schedules of a recipe and look at their values all over the run.

    Args:
        cfg: the whole recipe.

    Raises:
        UsageError: if a node is no schedule, its values cannot be, or the optimizer lacks what it drives.
        ValueError: what a schedule says of its arguments, with a note of its node.
    """
    length = max(cfg.train.max_iter or CHECKED_STEPS, 1)
    for key, node in _scheduled(cfg):
        _check_driven(cfg.optimizer, key, node)
        scheduler = instantiate(cfg[node])
        if not callable(scheduler):
            raise UsageError(f"{node}={scheduler!r}: expected a schedule, such as L(ConstantParamScheduler)(value=1.0)")
        try:
            check_schedule(scheduler, length, key)
        except (TypeError, ValueError) as error:  # a type that it cannot calculate with shows only here
            raise UsageError(f"{node}: {error}") from error


def keep_schedules(cfg: DictConfig, whole: DictConfig) -> None:
    """Give a shortened run the schedules of the whole one: a warm-up of 500 steps does not fit into two.

    Args:
        cfg: the recipe of the shortened run; changed in place.
        whole: the same recipe as it would be trained.
    """
    whole = copy.deepcopy(whole)
    for _, node in _scheduled(cfg):
        with contextlib.suppress(OmegaConfBaseException):  # what leads nowhere is told when the schedule is built
            OmegaConf.resolve(whole[node])
            cfg[node] = whole[node]


def _scheduled(cfg: DictConfig) -> list[tuple[str, str]]:
    return [(key, node) for key, node in SCHEDULES.items() if cfg.get(node) is not None]


def _check_driven(optimizer: Any, key: str, node: str) -> None:
    """Refuse the schedule of a setting that the optimizer does not have, or that is 0 and stays so.

    Raises:
        UsageError: naming the node and what the optimizer takes.
    """
    if not is_record(optimizer):
        return
    target = find_target(optimizer)
    names = [name for name in accepted_names(target) if name != "params"]
    found = next((name for name in NEEDED[key] if name in names), None)
    if found is None and names:
        name = getattr(target, "__name__", str(target))
        needed = " or ".join(NEEDED[key])
        raise UsageError(f"{node}: {name} has no {needed} to multiply; it takes {', '.join(names)}")
    if found is None:  # its arguments cannot be known
        return
    default = inspect.signature(target).parameters[found].default
    value = read(optimizer, found) if found in optimizer else default
    # the weight decay of groups may be another one
    if key == "momentum" and value == 0:
        raise UsageError(f"{node} multiplies optimizer.momentum={value}, which stays 0; set it, such as 0.9")
