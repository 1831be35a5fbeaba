"""The optimizer of a run: its settings checked, its parameter groups checked and told, fused where that helps."""

from __future__ import annotations

import logging
from typing import Any

import torch
from omegaconf import DictConfig
from torch import nn

from hookline.cli.errors import UsageError
from hookline.cli.learning_rate import scale_learning_rate
from hookline.config import instantiate
from hookline.config.arguments import find_target
from hookline.config.nodes import is_record, read
from hookline.distributed import is_main_process
from hookline.engine.curves import check_value
from hookline.engine.fused import IMPLEMENTATIONS, fuses, keep_implementation
from hookline.engine.optimizer import get_default_optimizer_params
from hookline.engine.param_groups import check_param_groups, describe_param_groups, left_out, some_names

__all__ = ["build_optimizer", "check_optimizer"]

FACTORS = ("lr", "weight_decay", "momentum")
SHOWN_NAMES = 10

logger = logging.getLogger(__name__)


def check_optimizer(cfg: DictConfig) -> None:
    """Check the numbers of ``optimizer``; which arguments there are is checked with all other calls.

    Args:
        cfg: the whole recipe.

    Raises:
        UsageError: if one cannot be; names it.
    """
    node = cfg.optimizer
    if not is_record(node):  # a recipe to evaluate with needs none
        return
    for key in FACTORS:
        try:
            check_value(f"optimizer.{key}", read(node, key) if key in node else 0.0)
        except ValueError as error:
            raise UsageError(str(error)) from error
    betas = read(node, "betas") if node.get("betas") is not None else ()
    for index, beta in enumerate(betas):
        if not isinstance(beta, int | float) or not 0.0 <= beta < 1.0:
            raise UsageError(f"optimizer.betas[{index}]={beta!r}: expected a number in [0, 1)")


def build_optimizer(cfg: DictConfig, model: nn.Module) -> torch.optim.Optimizer:
    """Build the optimizer of a recipe and tell what its groups hold.

    Without ``optimizer.params`` all trainable parameters are one group. On a GPU the fused implementation is taken
    where the class has one and the recipe does not choose.

    Args:
        cfg: the whole recipe.
        model: on its device.

    Raises:
        UsageError: if the groups cannot be trained with, names parameters.
    """
    node = cfg.optimizer
    groups = _groups(instantiate(node.params, model=model) if "params" in node else get_default_optimizer_params(model))
    _check(groups, model)
    chosen: dict[str, Any] = {}
    parameters = [parameter for group in groups for parameter in group["params"]]
    if not any(key in node for key in IMPLEMENTATIONS) and fuses(find_target(node), parameters):
        chosen["fused"] = True
    optimizer: torch.optim.Optimizer = instantiate(node, params=groups, **chosen)
    # torch's own read their own settings only; another's class may read more
    known = optimizer.defaults if type(optimizer).__module__.startswith("torch.optim.") else None
    _check(optimizer.param_groups, model, known)
    keep_implementation(optimizer)
    scale_learning_rate(cfg, optimizer)
    if is_main_process():
        _tell(optimizer, model)
    return optimizer


def _tell(optimizer: torch.optim.Optimizer, model: nn.Module) -> None:
    logger.info("%s", describe_param_groups(optimizer, model))
    missing = left_out(optimizer.param_groups, model)
    if missing:
        logger.warning(
            "optimizer.params leaves out %d trainable parameters, which will stay as they are: %s",
            *(len(missing), some_names(missing, SHOWN_NAMES)),
        )


def _groups(params: Any) -> list[dict[str, Any]]:
    """Give groups, also where the recipe gives parameters, with their names or without."""
    given = list(params)
    if not all(isinstance(item, dict) for item in given):
        given = [{"params": [item[1] if isinstance(item, tuple) else item for item in given]}]
    return [{**group, "params": _as_list(group["params"])} for group in given]


def _as_list(params: Any) -> list[torch.Tensor]:
    return [params] if isinstance(params, torch.Tensor) else list(params)


def _check(groups: list[dict[str, Any]], model: nn.Module, defaults: Any = None) -> None:
    try:
        check_param_groups(groups, model, defaults)
    except ValueError as error:
        raise UsageError(f"optimizer.params: {error}") from error
