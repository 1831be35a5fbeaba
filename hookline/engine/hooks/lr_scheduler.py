"""Schedules at work: learning rate, momentum or weight decay over the run."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.optim.lr_scheduler import LRScheduler as TorchScheduler

from hookline.engine.hook_base import HookBase
from hookline.engine.schedule import check_schedule, value_at

__all__ = ["LRScheduler", "first_value"]

SETTINGS = ("lr", "momentum", "weight_decay")

logger = logging.getLogger(__name__)


class LRScheduler(HookBase):
    """Multiplies a setting of the optimizer by a function of progress, and records it as a metric.

    In iteration k every parameter group has its first value times ``scheduler(k / max_iter)``; past the end the last
    value is held. This depends on the iteration alone, so a resume needs no state and the group's first value, kept as
    ``initial_lr`` where torch keeps it too, comes back with the optimizer.

    Args:
        optimizer: by default the trainer's.
        scheduler: a function from [0, 1) to a factor, such as fvcore's schedulers and
            :class:`~hookline.engine.schedule.WarmupParamScheduler`; or one of torch's, which is stepped once after
            every iteration. By default the trainer's ``scheduler``.
        key: the setting: ``lr``, ``momentum`` (of Adam: the first beta) or ``weight_decay``.
        max_iter: the length that counts as progress 1, by default that of the run.

    Raises:
        ValueError: if there is no such setting, or a torch scheduler is to drive another one than ``lr``.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer | None = None,
        scheduler: Callable[[float], float] | TorchScheduler | None = None,
        *,
        key: str = "lr",
        max_iter: int | None = None,
    ) -> None:
        if key not in SETTINGS:
            raise ValueError(f"unknown setting {key!r} to schedule; there are: {', '.join(SETTINGS)}")
        if key != "lr" and isinstance(scheduler, TorchScheduler):
            raise ValueError(f"{type(scheduler).__name__} drives the learning rate, not {key!r}")
        self._optimizer = optimizer
        self._scheduler: Any = scheduler
        self._key = key
        self._max_iter = max_iter
        self._factor: float | None = None
        self._first = f"initial_{key}"
        self._length = 1
        self._group_count = 0
        self._shown_group = 0
        self._shown_value = 0.0

    @property
    def state_key(self) -> str:
        """The name of this hook's state in a checkpoint."""
        return type(self).__qualname__ if self._key == "lr" else f"{type(self).__qualname__}.{self._key}"

    def before_train(self) -> None:
        """Set the value of the first step.

        Raises:
            TypeError: if the scheduler can not be called.
            ValueError: if the optimizer's value or one of the schedule is negative or not finite.
        """
        self._optimizer = self._optimizer or self.trainer.optimizer
        if self._scheduler is None:
            self._scheduler = getattr(self.trainer, "scheduler", None)
        if not isinstance(self._scheduler, TorchScheduler) and not callable(self._scheduler):
            raise TypeError(f"scheduler must be a function of progress or a torch scheduler, got {self._scheduler!r}")
        self._shown_group = _typical_group(self._optimizer)
        self._length = max(self._max_iter or self.trainer.max_iter, 1)
        self._factor = None
        if isinstance(self._scheduler, TorchScheduler):
            self._note()
        else:
            check_schedule(self._scheduler, self._length, self._key)
            self._apply(self.trainer.start_iter)

    def after_step(self) -> None:
        """Record the value of this step and set that of the next one."""
        trainer = self.trainer
        trainer.storage.put_scalar(self._key, self._shown_value, smoothing_hint=False)
        if isinstance(self._scheduler, TorchScheduler):
            self._scheduler.step()
            self._note()
        else:
            self._apply(trainer.iter + 1)

    def state_dict(self) -> dict[str, Any]:
        """Return the state of a torch scheduler; a function of progress has none."""
        return self._scheduler.state_dict() if isinstance(self._scheduler, TorchScheduler) else {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Give a torch scheduler its state back."""
        if isinstance(self._scheduler, TorchScheduler):
            logger.info("Loading the scheduler's state")
            self._scheduler.load_state_dict(dict(state))

    def _apply(self, iteration: int) -> None:
        """Write the value of an iteration, if it is another one than before."""
        assert self._optimizer is not None
        groups = self._optimizer.param_groups
        factor = value_at(self._scheduler, iteration, self._length)
        if factor == self._factor and len(groups) == self._group_count:
            return
        self._factor, self._group_count = factor, len(groups)
        for group in groups:
            if self._first not in group:
                group[self._first] = first_value(group, self._key)
            _write(group, self._key, group[self._first] * factor)
        self._shown_value = groups[self._shown_group][self._first] * factor

    def _note(self) -> None:
        assert self._optimizer is not None
        self._shown_value = _read(self._optimizer.param_groups[self._shown_group], self._key)


def _read(group: dict[str, Any], key: str) -> float:
    if key == "momentum" and "betas" in group:
        return float(group["betas"][0])
    if key not in group:
        raise ValueError(f"the optimizer has no {key!r} to schedule; its settings are: {', '.join(sorted(group))}")
    return float(group[key])


def first_value(group: dict[str, Any], key: str) -> float:
    """Read a setting that is to be multiplied by a schedule.

    Args:
        group: of an optimizer.
        key: ``lr``, ``momentum`` (of Adam: the first beta) or ``weight_decay``.

    Raises:
        ValueError: if the group has no such setting, or it is negative or not finite.
    """
    value = _read(group, key)
    if not math.isfinite(value) or value < 0:
        raise ValueError(f"the optimizer's {key} is {value}: expected a finite number of at least 0")
    return value


def _write(group: dict[str, Any], key: str, value: float) -> None:
    if key == "momentum" and "betas" in group:
        group["betas"] = (value, *group["betas"][1:])
    elif isinstance(group[key], torch.Tensor):  # compiled and captured optimizers keep it on the device
        group[key].fill_(value)
    else:
        group[key] = value


def _typical_group(optimizer: torch.optim.Optimizer) -> int:
    """Find the group whose setting stands for all: the one with most parameters, or the most frequent rate."""
    groups = optimizer.param_groups
    sizes = [len(group["params"]) for group in groups]
    if max(sizes) > 1:
        return sizes.index(max(sizes))
    rates = [float(group["lr"]) for group in groups]
    return rates.index(Counter(rates).most_common(1)[0][0])
