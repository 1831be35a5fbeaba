"""From the settings ``train.env`` to those of each process, and to how the processes are started."""

from __future__ import annotations

import argparse
import logging
import multiprocessing
from dataclasses import fields
from datetime import timedelta
from typing import Any

import torch.distributed as dist
import torch.multiprocessing
from omegaconf import DictConfig

from hookline.cli.checks import expect_int, expect_number, expect_one_of
from hookline.cli.errors import UsageError
from hookline.engine.process_settings import ProcessSettings

__all__ = ["build_process_settings", "check_process_settings", "launch_options"]

_LEAST = {"num_threads": 1, "num_interop_threads": 1, "opencv_num_threads": 0}
_SWITCHES = ("cudnn_benchmark", "cudnn_deterministic")
_TIMEOUTS = ("rendezvous_timeout_s", "timeout_s", "eval_timeout_s")
_LEVELS = [logging.getLevelName(level) for level in (logging.DEBUG, logging.INFO, logging.WARNING, logging.ERROR)]


def check_process_settings(cfg: DictConfig) -> None:
    """Check ``train.env``.

    Args:
        cfg: the whole recipe.

    Raises:
        UsageError: naming the key, its value and what is expected.
    """
    env = cfg.train.env
    if not isinstance(env, DictConfig):
        raise UsageError(f"train.env={env!r}: expected settings of the process; leave it out for the usual ones")
    for key, least in _LEAST.items():
        if env[key] is not None:
            expect_int(f"env.{key}", env[key], least)
    for key in _SWITCHES:
        if not isinstance(env[key], bool | None):
            raise UsageError(f"train.env.{key}={env[key]!r}: expected true, false or null")
    for key in _TIMEOUTS:
        expect_number(f"env.{key}", env[key], 0, exclusive=True)
    for key, valid in _choices().items():
        if env[key] is not None:
            expect_one_of(f"env.{key}", env[key], valid)
    expect_one_of("env.log_level", env.log_level, _LEVELS)
    _check_against_others(cfg)


def _choices() -> dict[str, list[str]]:
    return {
        "mp_start_method": multiprocessing.get_all_start_methods(),
        "sharing_strategy": sorted(torch.multiprocessing.get_all_sharing_strategies()),
        "matmul_precision": ["highest", "high", "medium"],
        "backend": ["nccl", "gloo"],
    }


def _check_against_others(cfg: DictConfig) -> None:
    """Refuse what another setting contradicts.

    Raises:
        UsageError: naming both.
    """
    train, env = cfg.train, cfg.train.env
    if None not in (env.cudnn_benchmark, train.get("cudnn_benchmark")) and env.cudnn_benchmark != train.cudnn_benchmark:
        raise UsageError(
            f"train.env.cudnn_benchmark={env.cudnn_benchmark} and train.cudnn_benchmark={train.cudnn_benchmark}: they "
            "are one setting, the second is Detectron2's name; give one"
        )
    if env.matmul_precision is not None and train.precision == "tf32":
        raise UsageError(
            f"train.env.matmul_precision={env.matmul_precision!r} and train.precision='tf32', which makes it 'high': "
            "give one"
        )
    if env.backend == "nccl" and not (dist.is_nccl_available() and torch.cuda.is_available() and train.device != "cpu"):
        raise UsageError(
            f"train.env.backend='nccl' needs GPUs, and train.device={train.device!r} has none here: leave it null, or "
            "'gloo'"
        )


def build_process_settings(cfg: DictConfig, args: argparse.Namespace) -> ProcessSettings:
    """Make what each process applies before anything is built.

    Args:
        cfg: the whole recipe.
        args: the command line; evaluation alone does without cuDNN's benchmark, since its images vary in shape.
    """
    given: dict[str, Any] = {field.name: cfg.train.env[field.name] for field in fields(ProcessSettings)}
    if args.eval_only and given["cudnn_benchmark"]:
        given["cudnn_benchmark"] = False
    return ProcessSettings(**given)


def launch_options(cfg: DictConfig) -> dict[str, Any]:
    """Give :func:`hookline.engine.launch` the backend, the time-outs, and whether the run keeps to the CPU.

    Args:
        cfg: the whole recipe.
    """
    env = cfg.train.env
    times = {key.removesuffix("_s"): timedelta(seconds=env[key]) for key in _TIMEOUTS}
    return {"backend": env.backend, "on_cpu": cfg.train.device == "cpu", **times}
