"""From the setting ``train.fsdp`` to a model of which each process holds a part."""

from __future__ import annotations

from typing import Any

import torch
from omegaconf import DictConfig, ListConfig
from torch import nn

from hookline.cli.checks import check_names, expect_one_of
from hookline.cli.errors import UsageError
from hookline.configs.common import train as common
from hookline.engine import Checkpointer
from hookline.engine.data_parallel import create_ddp_model
from hookline.engine.fully_sharded import GATHER_DTYPES, create_fully_sharded_model, is_fully_sharded

__all__ = ["OPTIONS", "check_fsdp", "checkpointer_class", "distribute", "shards"]

# by name: the default
OPTIONS: dict[str, Any] = {
    "units": None,  # class or module names, * and ? allowed
    "reshard_after_forward": True,
    "gather_dtype": None,  # "bf16" with train.precision="bf16"
    "cpu_offload": False,
    "reduce_every_batch": False,  # with train.accumulate
    "find_unused_parameters": False,
}

# Settings that work on whole weights, or on a model that is wrapped.
_ALONE = ("compile", "ema", "swa", "precise_bn")


def shards(cfg: DictConfig) -> bool:
    """Tell whether the recipe asks for a fully sharded model; a setting without options does too."""
    return cfg.train.get("fsdp") is not None


def check_fsdp(cfg: DictConfig) -> None:
    """Check ``train.fsdp`` and what is set beside it.

    Args:
        cfg: the whole recipe.

    Raises:
        UsageError: naming the key, its value, and what does not go together.
    """
    if not shards(cfg):
        return
    settings = cfg.train.fsdp
    if not isinstance(settings, DictConfig):
        raise UsageError(
            f"train.fsdp={settings!r}: expected null or a dict, such as {{}} or {{units: [BottleneckBlock]}}"
        )
    check_names(settings, OPTIONS, "train.fsdp")
    for name, default in OPTIONS.items():
        value = settings.get(name, default)
        if isinstance(default, bool) and not isinstance(value, bool):
            raise UsageError(f"train.fsdp.{name}={value!r}: expected true or false")
    _check_units(settings.get("units"))
    _check_precision(cfg.train, settings.get("gather_dtype"))
    _check_neighbours(cfg.train)


def distribute(cfg: DictConfig, model: nn.Module, device: torch.device) -> nn.Module:
    """Prepare a model for training or evaluating on all processes, before its optimizer is made.

    Args:
        cfg: the whole recipe.
        model: whole.
        device: this process's.

    Returns:
        The model, sharded or in DistributedDataParallel, on its device.

    Raises:
        UsageError: if the model cannot be sharded as the settings say.
    """
    if not shards(cfg):
        return create_ddp_model(model.to(device), **(cfg.train.ddp or {}))
    options = {str(name): value for name, value in cfg.train.fsdp.items()}
    try:
        return create_fully_sharded_model(model, device, **options)
    except ValueError as error:
        raise UsageError(f"train.fsdp: {error}") from error


def checkpointer_class(model: nn.Module) -> type[Checkpointer]:
    """Choose what saves and loads a run.

    Args:
        model: what :func:`distribute` gave.
    """
    if not is_fully_sharded(model):
        return Checkpointer
    from hookline.engine.checkpoint_sharded import ShardedCheckpointer

    return ShardedCheckpointer


def _check_units(units: Any) -> None:
    is_list = isinstance(units, ListConfig) and len(units) > 0 and all(isinstance(unit, str) for unit in units)
    if units is not None and not is_list:
        raise UsageError(
            f"train.fsdp.units={units!r}: expected null or a list of class or module names, such as [BottleneckBlock]"
        )


def _check_precision(train: DictConfig, gather_dtype: Any) -> None:
    if train.precision == "fp16" or train.amp.enabled:
        key = "train.amp.enabled=true" if train.amp.enabled else "train.precision='fp16'"
        raise UsageError(
            f"{key} and train.fsdp: each process would scale its losses by itself; set train.precision=bf16 instead"
        )
    if gather_dtype is None:
        return
    expect_one_of("fsdp.gather_dtype", gather_dtype, tuple(GATHER_DTYPES))
    if train.precision != gather_dtype:
        raise UsageError(
            f"train.fsdp.gather_dtype={gather_dtype!r} and train.precision={train.precision!r}: "
            f"set train.precision={gather_dtype}, or leave gather_dtype out"
        )


def _check_neighbours(train: DictConfig) -> None:
    """Refuse settings that would have no effect or fail later.

    Raises:
        UsageError: naming both.
    """
    usual = common.train.ddp
    for name, value in (train.ddp or {}).items():
        if value != usual.get(name):
            raise UsageError(
                f"train.ddp.{name}={value!r} and train.fsdp: these are options of DistributedDataParallel, which a "
                "fully sharded model does not use; leave them as they are, or set train.fsdp=null"
            )
    if train.checkpointer.asynchronous:
        raise UsageError(
            "train.checkpointer.asynchronous=true and train.fsdp: all processes write together; set it false"
        )
    if train.guards.anomaly:
        raise UsageError(
            "train.guards.anomaly=true and train.fsdp: one process alone cannot run the model again; set it false"
        )
    for name in _ALONE:
        if train.get(name) not in (None, False):
            raise UsageError(f"train.{name} and train.fsdp do not go together: set one of them null")
