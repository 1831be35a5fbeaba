"""What each process of a run does: build what the recipe says, train it with the usual hooks, or evaluate it."""

from __future__ import annotations

import argparse
import contextlib
import gc
import logging
from collections.abc import Iterator
from typing import Any

import torch
from omegaconf import DictConfig
from torch import nn

from hookline.cli.agreement import check_same_on_all_ranks
from hookline.cli.averages import build_averages, check_start, restore_averages, with_averages
from hookline.cli.checkpointing import checkpoint_folder
from hookline.cli.compilation import compile_modules
from hookline.cli.evaluations import Evaluations
from hookline.cli.fully_sharded import checkpointer_class, distribute, shards
from hookline.cli.gradients import gradient_clipper
from hookline.cli.guards import Recovery
from hookline.cli.loggers import require_packages
from hookline.cli.notices import remembered_in_rank
from hookline.cli.optimizer import build_optimizer
from hookline.cli.periods import steps_of_epochs
from hookline.cli.pictures import save_preview
from hookline.cli.preflight import check_classes
from hookline.cli.process_settings import build_process_settings
from hookline.cli.run_hooks import RunParts, default_hooks, repeating_hooks
from hookline.cli.settings import load_settings, precision_of
from hookline.cli.suspension import build_deadline
from hookline.cli.weights import from_torchvision, load_for_evaluation
from hookline.config import check_call_arguments, instantiate
from hookline.data.workers import explain_death
from hookline.distributed import is_main_process
from hookline.engine import Checkpointer, SimpleTrainer, build_precision
from hookline.engine.defaults import default_device, default_setup
from hookline.engine.launch_causes import has_lost_contact
from hookline.engine.logger import close_logger
from hookline.engine.losses import NonFiniteError
from hookline.engine.triggers import Trigger

__all__ = ["check_recipe", "run"]

DEV_RECORDS = 8  # how much of the data --fast-dev-run looks at

logger = logging.getLogger(__name__)


def check_recipe(args: argparse.Namespace) -> DictConfig:
    """Load the recipe and bind the arguments of its calls, before any process is started.

    Args:
        args: the command line.

    Returns:
        The whole recipe.

    Raises:
        ConfigError: if a call cannot be made as it is written, or a logger's package is not installed.
    """
    runtime = {"optimizer": ["params"], "optimizer.params": ["model"]}
    cfg = load_settings(args)
    check_call_arguments(cfg, runtime=runtime)
    if not args.eval_only:
        require_packages(cfg)
    return cfg


def run(args: argparse.Namespace) -> None:
    """Train or evaluate in this process, as the command line says.

    Args:
        args: the command line.
    """
    with contextlib.nullcontext() if args.eval_only else remembered_in_rank():
        _run_logged(args)


def _run_logged(args: argparse.Namespace) -> None:
    cfg = load_settings(args)
    check_same_on_all_ranks(cfg)
    default_setup(cfg, args)
    try:
        with build_process_settings(cfg, args).applied(), _data_workers_explained():
            _run(cfg, args)
    except Exception as error:
        if has_lost_contact(error):  # another rank's failure; `launch` finds out whose, and says it once
            logger.info("The run ended because contact with other ranks was lost", exc_info=True)
        else:
            logger.error(f"The run ended with {type(error).__name__}: {error}", exc_info=True)
        raise
    finally:
        close_logger()


@contextlib.contextmanager
def _data_workers_explained() -> Iterator[None]:
    """Say in words that a data worker died: torch's handler raises that wherever the program is at the time.

    Raises:
        RuntimeError: what it means.
    """
    try:
        yield
    except RuntimeError as error:
        explained = explain_death(error)
        if explained is None:
            raise
        raise explained from error


def _run(cfg: DictConfig, args: argparse.Namespace) -> None:
    device = default_device(cfg.train.device)
    model = instantiate(cfg.model)
    if not shards(cfg):  # else it may be too large to be on the device as a whole
        model = model.to(device)
    compile_modules(cfg.train.compile, model, device.type)
    if args.eval_only:
        evaluate(cfg, args, distribute(cfg, model, device) if shards(cfg) else model)
    else:
        train(cfg, args, model, device)


def evaluate(cfg: DictConfig, args: argparse.Namespace, model: nn.Module) -> dict[str, Any]:
    """Evaluate the weights in ``train.init_checkpoint``.

    Args:
        cfg: the recipe.
        args: the command line.
        model: the model, on its device.

    Returns:
        Metrics by task.
    """
    file = cfg.train.init_checkpoint
    averages = build_averages(cfg.train)
    restore_averages(averages, model, file, load_for_evaluation(model, file))
    evaluations = Evaluations(
        cfg, limit=DEV_RECORDS if args.fast_dev_run else None, show_dir=args.show_dir, out=args.out
    )
    return with_averages(lambda: evaluations.run(model), averages)()


def train(cfg: DictConfig, args: argparse.Namespace, model: nn.Module, device: torch.device) -> None:
    """Train from the start, from given weights, or from where a run of the same folder stopped.

    Args:
        cfg: the recipe.
        args: the command line.
        model: the model.
        device: where to train it.
    """
    limit = DEV_RECORDS if args.fast_dev_run else None
    loader = build_train_loader(cfg, limit)
    check_start(cfg.train, last_iteration(cfg, loader))
    evaluations = None
    if not args.no_validate:
        evaluations = Evaluations(cfg, limit=limit, show_dir=args.show_dir, out=args.out, in_training=True)
    tests = {**evaluations.loaders, "validation loss": evaluations.validation} if evaluations else {}
    check_classes(cfg, model, loader, tests, evaluations.class_names() if evaluations else {})
    wrapped = distribute(cfg, model, device)
    recovery, deadline = Recovery(cfg, args.resume), build_deadline(cfg.train.suspend)
    while not attempt(cfg, args, wrapped, model, loader, evaluations, recovery, deadline):
        gc.collect()  # the trainer that failed refers to itself


def attempt(
    cfg: DictConfig,
    args: argparse.Namespace,
    wrapped: nn.Module,
    model: nn.Module,
    loader: Any,
    evaluations: Evaluations | None,
    recovery: Recovery,
    deadline: Trigger | None,
) -> bool:
    """Train until the end, or until a loss is not finite and the run is to go back.

    Args:
        cfg: the recipe.
        args: the command line.
        wrapped: the model as the trainer calls it.
        model: the model itself.
        loader: the training loader.
        evaluations: those of the run.
        recovery: says what to do about losses that are not finite.
        deadline: counts from the first attempt on.

    Returns:
        Whether training came to its end.
    """
    optimizer = build_optimizer(cfg, model)
    trainer = SimpleTrainer(
        wrapped,
        loader,
        optimizer,
        gather_metric_period=cfg.train.log_period,
        precision=build_precision(precision_of(cfg), default_device(cfg.train.device).type),
        accumulate=cfg.train.accumulate,
        grad_clip=gradient_clipper(cfg.train.grad_clip),
        seed=cfg.train.seed,
    )
    checkpointer = checkpointer_class(model)(
        model,
        checkpoint_folder(cfg.train),
        asynchronous=cfg.train.checkpointer.asynchronous,
        on_save_error=cfg.train.checkpointer.on_save_error,
        converters=[from_torchvision],
        trainer=trainer,
    )
    max_iter = last_iteration(cfg, loader)
    if recovery.is_repeating:
        trainer.register_hooks(repeating_hooks(cfg))
    else:
        goes_on = bool(args.resume) or recovery.failed
        parts = RunParts(cfg, model, loader, checkpointer, evaluations, max_iter, resume=goes_on, deadline=deadline)
        trainer.register_hooks(default_hooks(parts))
    if recovery.failed:
        start_iter = recovery.go_back(checkpointer) or first_weights(cfg, checkpointer, model)
        max_iter = recovery.prepare(trainer) or max_iter
    else:
        start_iter = start_weights(cfg, args, checkpointer)
        if is_main_process() and start_iter < max_iter:
            save_preview(cfg, loader, start_iter * cfg.train.accumulate)
    try:
        trainer.train(start_iter, max_iter)
    except NonFiniteError as error:
        recovery.consider(error, trainer)
        return False
    if recovery.is_repeating:
        recovery.give_up()
    return True


def first_weights(cfg: DictConfig, checkpointer: Checkpointer, model: nn.Module) -> int:
    """Give the model once more the weights with which a fresh run begins.

    Returns:
        The iteration to start at, 0.
    """
    torch.manual_seed(int(cfg.train.seed))  # as `default_setup` did
    model.load_state_dict(instantiate(cfg.model).state_dict())
    if cfg.train.init_checkpoint:
        checkpointer.load(cfg.train.init_checkpoint, checkpointables=[])
    return 0


def build_train_loader(cfg: DictConfig, limit: int | None) -> Any:
    """Build ``dataloader.train``; with a limit, on the first ``limit`` records of its data set."""
    node = cfg.dataloader.train
    if limit is None or "dataset" not in node:
        return instantiate(node)
    return instantiate(node, dataset=instantiate(node.dataset)[:limit])


def last_iteration(cfg: DictConfig, loader: Any) -> int:
    """Give ``train.max_iter``, or count the steps of ``train.max_epochs``."""
    if cfg.train.max_iter is not None:
        return cfg.train.max_iter
    return steps_of_epochs("max_epochs", cfg.train.max_epochs, loader, cfg.train.accumulate)


def start_weights(cfg: DictConfig, args: argparse.Namespace, checkpointer: Checkpointer) -> int:
    """Load what the run starts from.

    Returns:
        The iteration to start at.
    """
    if args.resume:
        finished = checkpointer.resume(args.resume if isinstance(args.resume, str) else "")
        if finished >= 0:
            return finished + 1
        logger.info(f"--resume: no checkpoint in {checkpointer.save_dir}, starting fresh")
    elif checkpointer.has_checkpoint():
        logger.warning(
            f"{checkpointer.save_dir} holds checkpoints of an earlier run: this one starts fresh and replaces those of "
            "the same name; --resume would continue, another --work-dir would keep both"
        )
    if cfg.train.init_checkpoint:
        checkpointer.load(cfg.train.init_checkpoint, checkpointables=[])
    return 0
