"""``train.ema`` and ``train.swa``: the averages of the weights that a run keeps, and what is evaluated with them."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from omegaconf import DictConfig
from torch import nn

from hookline.cli.checks import check_group, expect_bool, expect_int, expect_number, expect_one_of
from hookline.cli.errors import UsageError
from hookline.engine import Checkpointer, get_event_storage, has_event_storage, hooks

__all__ = [
    "Average",
    "build_averages",
    "check_averages",
    "check_start",
    "restore_averages",
    "save_averages",
    "shorten_averages",
    "with_averages",
]

EVALUATE = ("instead", "beside")
COMMON: dict[str, Any] = {"evaluate": "instead", "save_final": True}
EMA: dict[str, Any] = {"decay": None, "half_life": None, "warmup": True, **COMMON}
SWA: dict[str, Any] = {"start": None, "period": 1, **COMMON}

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Average:
    """Averages of a run.

    Attributes:
        name: ``ema`` or ``swa``; the prefix of their metrics.
        hook: keeps them.
        evaluate: ``instead`` of the weights, ``beside`` them, or None.
        save_final: whether ``model_final_<name>.pth`` is written.
    """

    name: str
    hook: hooks.AverageHook
    evaluate: str | None
    save_final: bool


def check_averages(cfg: DictConfig) -> None:
    """Check ``train.ema`` and ``train.swa``.

    Args:
        cfg: the whole recipe.

    Raises:
        UsageError: naming the key, its value and what is expected.
    """
    ema, swa = (_group(cfg, name, known) for name, known in (("ema", EMA), ("swa", SWA)))
    if ema is not None:
        _check_ema(ema)
    if swa is not None:
        _check_swa(swa)
        if cfg.train.max_iter is not None:
            check_start(cfg.train, cfg.train.max_iter)
    if ema is not None and swa is not None and ema["evaluate"] == swa["evaluate"] == "instead":
        raise UsageError(
            "train.ema.evaluate='instead' and train.swa.evaluate='instead': only one can stand for the weights; "
            "set the other to 'beside' or null"
        )


def check_start(train: DictConfig, max_iter: int) -> None:
    """Check that averages begin before the end, once the length of the run is known.

    Args:
        train: the node, checked otherwise.
        max_iter: the number of steps of the run, also where the recipe gives epochs.

    Raises:
        UsageError: naming the key, its value and the length of the run.
    """
    if train.swa is not None and train.swa.start > max_iter:  # a share of the run is always before it
        raise UsageError(f"train.swa.start={train.swa.start!r} is beyond the end of the run, its {max_iter} iterations")


def shorten_averages(cfg: DictConfig) -> None:
    """Let averages begin at once, in the few steps of ``--fast-dev-run``.

    Args:
        cfg: the whole recipe; changed.
    """
    if isinstance(cfg.train.swa, DictConfig) and "start" in cfg.train.swa:
        cfg.train.swa.update(start=0, period=1)


def build_averages(settings: DictConfig) -> list[Average]:
    """Make the averages that a run keeps.

    Args:
        settings: ``train``, checked.
    """
    found = []
    if settings.ema is not None:
        ema = EMA | dict(settings.ema)
        hook: hooks.AverageHook = hooks.EMAHook(ema["decay"], half_life=ema["half_life"], warmup=ema["warmup"])
        found.append(Average("ema", hook, ema["evaluate"], ema["save_final"]))
    if settings.swa is not None:
        swa = SWA | dict(settings.swa)
        hook = hooks.SWAHook(swa["start"], swa["period"])
        found.append(Average("swa", hook, swa["evaluate"], swa["save_final"]))
    return found


def with_averages(evaluate: Callable[[], dict[str, Any]], averages: Sequence[Average]) -> Callable[[], dict[str, Any]]:
    """Let an evaluation use averages instead of the model's weights, or also.

    Args:
        evaluate: evaluates the model as it is; returns ``{task: {metric: value}}``.
        averages: what a run keeps. Those that have not begun yet are left out.

    Returns:
        A function like the one given. Results of averages beside the weights are under ``<name>/<task>``.
    """
    instead = next((each for each in averages if each.evaluate == "instead"), None)
    beside = [each for each in averages if each.evaluate == "beside"]

    def evaluate_all() -> dict[str, Any]:
        others: dict[str, Any] = {}
        for each in beside:
            if each.hook.ready:
                with _scope(each.name):
                    found = _evaluate_one(each, evaluate)
                others |= {f"{each.name}/{task}": values for task, values in found.items()}
        # last, so that the files which an evaluation leaves go with the usual names
        main = _evaluate_one(instead, evaluate) if instead is not None and instead.hook.ready else evaluate()
        return main | others

    return evaluate_all if averages else evaluate


def save_averages(checkpointer: Checkpointer, averages: Sequence[Average]) -> list[hooks.HookBase]:
    """Make the hooks that save averages at the end of a run.

    Args:
        checkpointer: saves.
        averages: what the run keeps.
    """
    return [
        hooks.AveragesCheckpointer(checkpointer, each.hook, f"model_final_{each.name}", average=each.name)
        for each in averages
        if each.save_final
    ]


def restore_averages(averages: Sequence[Average], model: nn.Module, file: str, content: Mapping[str, Any]) -> None:
    """Take the averages out of a checkpoint, to evaluate them; say so where it has none, or has others.

    Args:
        averages: those that the recipe asks for.
        model: the model.
        file: the checkpoint, for messages.
        content: what the file holds besides the model.
    """
    states = content.get("hooks") or {}
    for each in averages:
        state = states.get(each.hook.state_key)
        if each.evaluate is None:
            continue
        if state:
            each.hook.load_state_dict(state)
            each.hook.attach(model)
            logger.info(f"{file} holds averages ({each.name}) of {each.hook.updates} updates")
        elif content.get("meta", {}).get("average") == each.name:
            logger.info(f"{file} holds averages ({each.name}) as the weights of its model")
        else:
            logger.warning(f"{file} holds no averages, so train.{each.name} has no effect: its model is evaluated")
    for name, key in (("ema", "EMAHook"), ("swa", "SWAHook")):
        if states.get(key) and not any(each.name == name for each in averages):
            logger.info(f"{file} also holds averages, which are not evaluated; train.{name} would do that")


def _evaluate_one(average: Average, evaluate: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    logger.info(f"Evaluating the averaged weights (train.{average.name}, {average.hook.updates} updates)")
    with average.hook.averaged():
        return evaluate()


def _scope(name: str) -> contextlib.AbstractContextManager[None]:
    """Put ``name/`` before what an evaluation itself logs, such as pictures, where a run is going on."""
    return get_event_storage().name_scope(name) if has_event_storage() else contextlib.nullcontext()


def _group(cfg: DictConfig, name: str, known: Mapping[str, Any]) -> dict[str, Any] | None:
    """Fill in a group and check what both have.

    Raises:
        UsageError: naming what is wrong.
    """
    if cfg.train[name] is None:
        return None
    group = {**known, **check_group(name, cfg.train[name], known)}
    if group["evaluate"] is not None:
        expect_one_of(f"{name}.evaluate", group["evaluate"], EVALUATE)
    expect_bool(f"{name}.save_final", group["save_final"])
    return group


def _check_ema(ema: Mapping[str, Any]) -> None:
    if (ema["decay"] is None) == (ema["half_life"] is None):
        raise UsageError(
            f"train.ema.decay={ema['decay']} and train.ema.half_life={ema['half_life']}: give one of them, such as "
            "decay=0.999 or half_life=700"
        )
    if ema["decay"] is not None:
        expect_number("ema.decay", ema["decay"], 0)
        if ema["decay"] >= 1:
            raise UsageError(f"train.ema.decay={ema['decay']!r}: expected a number below 1, such as 0.999")
    else:
        expect_number("ema.half_life", ema["half_life"], 0, exclusive=True)
    expect_bool("ema.warmup", ema["warmup"])


def _check_swa(swa: Mapping[str, Any]) -> None:
    start = swa["start"]
    if start is None:
        raise UsageError("train.swa.start is missing: a number of steps, or a share of the run such as 0.75")
    expect_number("swa.start", start, 0)
    if start >= 1 and start != int(start):
        raise UsageError(f"train.swa.start={start!r}: expected a whole number of steps, or a share of the run below 1")
    expect_int("swa.period", swa["period"], 1)
