"""What most training scripts do around the trainer: set up the process, the writers, the data-parallel wrapper."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path
from typing import Any

import torch

from hookline.config import ConfigError, LazyConfig
from hookline.config.command_line import default_argument_parser
from hookline.distributed import get_local_rank, get_rank, get_world_size, is_main_process, is_on_cpu, synchronize
from hookline.engine.data_parallel import create_ddp_model
from hookline.engine.environment import collect_env_info
from hookline.engine.logger import setup_logger
from hookline.engine.writers import CommonMetricPrinter, EventWriter, JSONWriter, TensorboardXWriter
from hookline.io import PathManager, atomic_open

__all__ = ["create_ddp_model", "default_argument_parser", "default_device", "default_setup", "default_writers"]


def default_setup(cfg: Any, args: argparse.Namespace | None = None) -> None:
    """Prepare the process and ``cfg.train.output_dir`` for a run.

    Sets up the logs (a fresh start puts the log of an earlier run aside, ``--resume`` appends to it), writes what the
    run consists of (``config.yaml``, ``config.py``, ``overrides.txt``, ``env.txt``), seeds torch for building the
    model, and, where Detectron2's ``train.cudnn_benchmark`` is set, cuDNN. The other settings of the process,
    ``train.env``, are those of :class:`~hookline.engine.process_settings.ProcessSettings`.

    Args:
        cfg: the whole recipe.
        args: the command line, which is logged and kept; ``args.eval_only`` switches cuDNN's benchmark off.

    Raises:
        OSError: if the folder cannot be made or written; names it.
    """
    output_dir = Path(cfg.train.output_dir)
    if is_main_process():
        _make_folder(output_dir)
    synchronize()
    if not is_main_process():  # another machine may not share the folder: the logs of its ranks stay there
        _make_folder(output_dir, prove=False)
    goes_on = bool(getattr(args, "resume", False)) or bool(getattr(args, "eval_only", False))
    level = (cfg.train.get("env") or {}).get("log_level", "INFO")
    logger = setup_logger(output_dir, get_rank(), level=level, fresh=args is not None and not goes_on)
    logger.info(f"Rank {get_rank()} of {get_world_size()} on {os.uname().nodename}, process {os.getpid()}")
    environment = collect_env_info()
    logger.info(f"Environment:\n{environment}")
    if args is not None:
        logger.info(f"Command line: {shlex.join(sys.argv)}")
    if is_main_process():
        if getattr(args, "eval_only", False) and (output_dir / "config.yaml").exists():
            logger.info(f"The record of the run in {output_dir} is left as it is")
        else:
            _keep_record(cfg, args, output_dir, environment)
            logger.info(f"The whole configuration is in {output_dir / 'config.yaml'}")
    torch.manual_seed(int(cfg.train.seed))  # the trainer seeds every step by itself; this is for the first weights
    if cfg.train.get("cudnn_benchmark") is not None:
        torch.backends.cudnn.benchmark = bool(cfg.train.cudnn_benchmark) and not getattr(args, "eval_only", False)


def _make_folder(folder: Path, prove: bool = True) -> None:
    """Make the folder where there is none, and prove that it can be written.

    Raises:
        OSError: naming the setting and the folder.
    """
    try:
        PathManager.mkdirs(str(folder))
        if prove:
            with atomic_open(folder / ".writable", "w") as file:
                file.write("")
            (folder / ".writable").unlink()
    except OSError as error:
        raise OSError(f"train.output_dir={str(folder)!r} cannot be written: {error}") from error


def _keep_record(cfg: Any, args: argparse.Namespace | None, folder: Path, environment: str) -> None:
    LazyConfig.save(cfg, str(folder / "config.yaml"))
    texts = {"env.txt": environment + "\n"}
    if args is not None:
        overrides = [*getattr(args, "opts", []), *getattr(args, "cfg_options", [])]
        texts["overrides.txt"] = "".join(f"{line}\n" for line in overrides)
        recipe = Path(str(getattr(args, "config_file", "")))
        if recipe.suffix == ".py" and recipe.is_file():
            texts["config.py"] = f"# {recipe.name} as it was; config.yaml holds the result\n" + recipe.read_text(
                "utf-8"
            )
    for name, text in texts.items():
        with atomic_open(folder / name, "w", encoding="utf-8") as file:
            file.write(text)


def default_device(name: str) -> torch.device:
    """Resolve ``train.device``: ``auto`` is this rank's GPU where there is one, else the CPU.

    Processes that were started for the CPU (``--num-procs``) stay there.

    Raises:
        ConfigError: if a GPU is asked for and torch cannot use one, or the processes were started for the CPU.
    """
    has_gpu = torch.cuda.is_available() and not is_on_cpu()
    if name == "auto":
        name = "cuda" if has_gpu else "cpu"
    if name == "cuda":
        if torch.cuda.is_available() and not has_gpu:
            raise ConfigError(
                f"train.device='cuda', but this run was started as {get_world_size()} processes on the CPU "
                "(--num-procs, or no --num-gpus): give --num-gpus, or set train.device=cpu or auto"
            )
        if not has_gpu:
            raise ConfigError("train.device='cuda', but torch can use no GPU here; set train.device=cpu or auto")
        return torch.device("cuda", get_local_rank() % torch.cuda.device_count())  # it may see its own one alone
    return torch.device(name)


def default_writers(output_dir: str, max_iter: int | None = None) -> list[EventWriter]:
    """Make the console printer, ``metrics.json`` and the TensorBoard events of a run.

    Args:
        output_dir: where the files go.
        max_iter: the last iteration, for the estimated time.
    """
    PathManager.mkdirs(output_dir)
    return [
        CommonMetricPrinter(max_iter),
        JSONWriter(os.path.join(output_dir, "metrics.json")),
        TensorboardXWriter(output_dir),
    ]
