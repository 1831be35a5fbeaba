"""Schedules that fvcore lacks, as functions from progress to a value.

``where`` is the progress in [0, 1). What lies beyond counts as the end: the last value holds.
"""

from __future__ import annotations

import difflib
import math
from bisect import bisect_right
from collections.abc import Callable
from itertools import pairwise

from fvcore.common.param_scheduler import MultiStepParamScheduler as _MultiStep
from fvcore.common.param_scheduler import ParamScheduler

__all__ = [
    "FixedStepParamScheduler",
    "FlatCosineParamScheduler",
    "MultiStepParamScheduler",
    "PerEpochParamScheduler",
    "PolynomialParamScheduler",
]

# Progress is iteration / length, in floating point: so near below a border counts as behind it.
BORDER = 1e-9

SHAPES: dict[str, Callable[[float, float, float], float]] = {
    "cos": lambda start, end, share: end + 0.5 * (start - end) * (1 + math.cos(math.pi * share)),
    "linear": lambda start, end, share: start + (end - start) * share,
}


class MultiStepParamScheduler(_MultiStep):
    """fvcore's steps at milestones, with checked arguments and exact to the iteration in runs of any length.

    Args:
        values: one for each range, not negative.
        num_updates: the length of the run in the unit of the milestones; by default the last milestone.
        milestones: where the next value begins, rising and before the end; evenly spread by default.

    Raises:
        ValueError: if values are negative or not finite, or milestones unsorted or not inside the run.
    """

    def __init__(
        self, values: list[float], num_updates: int | None = None, milestones: list[int] | None = None
    ) -> None:
        values = list(values)
        for index, value in enumerate(values):
            check_value(f"values[{index}]", value)
        if milestones is not None:
            milestones = list(milestones)
            _check_milestones(milestones, num_updates)
            needed = len(values) - (num_updates is not None)
            if len(milestones) != needed:
                unit = "one less than values" if num_updates is not None else "as many as values, the last is the end"
                raise ValueError(f"milestones={milestones}: expected {needed} of them, {unit}")
        super().__init__(values, num_updates, milestones)

    def __call__(self, where: float) -> float:
        """Return the value at a progress."""
        # fvcore adds 1e-6 to the progress, which is a step too early in a run of a million steps
        position = (min(where, 1.0) + 1e-12) * self._num_updates
        return self._param_schedule[bisect_right(self._milestones, position)]


class FixedStepParamScheduler(ParamScheduler):
    """Multiplies by ``gamma`` after every ``step_size``; torch's StepLR, mmcv's ``step`` with one number.

    Args:
        step_size: length of a step, in any unit.
        num_updates: the length of the run in the same unit.
        gamma: the factor of each step.
        min_value: the lowest value; ``min_lr / lr`` of mmcv.

    Raises:
        ValueError: if a length is not above 0, the first step lies beyond the end, or a value is negative or not
            finite.
    """

    def __init__(self, step_size: float, num_updates: float, gamma: float = 0.1, min_value: float = 0.0) -> None:
        if not 0 < step_size < num_updates or not math.isfinite(num_updates):
            raise ValueError(f"step_size={step_size}: expected a length above 0 and below num_updates={num_updates}")
        self._steps = num_updates / step_size
        self._gamma = check_value("gamma", gamma)
        self._min_value = check_value("min_value", min_value)

    def __call__(self, where: float) -> float:
        """Return the value at a progress."""
        return max(self._gamma ** int(min(where, 1.0) * self._steps + BORDER), self._min_value)


class PolynomialParamScheduler(ParamScheduler):
    """``end_value + (start_value - end_value) * (1 - where) ** power``.

    Args:
        power: above 0; 1 is a straight line.
        end_value: at the end; ``min_lr / lr`` of mmcv.
        start_value: at the beginning.

    Raises:
        ValueError: if an argument is negative or not finite, or the power 0.
    """

    def __init__(self, power: float = 1.0, end_value: float = 0.0, start_value: float = 1.0) -> None:
        check_value("power", power)
        if power == 0:
            raise ValueError("power=0: expected a number above 0; ConstantParamScheduler holds one value")
        self._power = power
        self._end = check_value("end_value", end_value)
        self._start = check_value("start_value", start_value)

    def __call__(self, where: float) -> float:
        """Return the value at a progress."""
        return self._end + (self._start - self._end) * (1.0 - min(where, 1.0)) ** self._power


class FlatCosineParamScheduler(ParamScheduler):
    """``start_value`` up to a share of the run, then half a cosine down to ``end_value``.

    Args:
        flat: share of the run at which the cosine begins, in [0, 1).
        start_value: of the flat part.
        end_value: at the end.

    Raises:
        ValueError: if the share is not in [0, 1), or a value is negative or not finite.
    """

    def __init__(self, flat: float = 0.75, start_value: float = 1.0, end_value: float = 0.0) -> None:
        if not 0.0 <= flat < 1.0:
            raise ValueError(f"flat={flat}: expected a share of the run in [0, 1)")
        self._flat = flat
        self._start = check_value("start_value", start_value)
        self._end = check_value("end_value", end_value)

    def __call__(self, where: float) -> float:
        """Return the value at a progress."""
        share = (min(where, 1.0) - self._flat) / (1.0 - self._flat)
        return SHAPES["cos"](self._start, self._end, max(share, 0.0))


class PerEpochParamScheduler(ParamScheduler):
    """Changes any schedule only where an epoch begins, as mmcv does with ``by_epoch=True``.

    Args:
        scheduler: the schedule.
        num_epochs: epochs of the run.

    Raises:
        ValueError: if the number of epochs is not positive.
    """

    def __init__(self, scheduler: Callable[[float], float], num_epochs: float) -> None:
        if not num_epochs > 0:
            raise ValueError(f"num_epochs={num_epochs}: expected a number above 0")
        self._scheduler, self._num_epochs = scheduler, num_epochs

    def __call__(self, where: float) -> float:
        """Return the value at the beginning of the epoch."""
        return self._scheduler(int(where * self._num_epochs + BORDER) / self._num_epochs)


def _check_milestones(milestones: list[int], num_updates: int | None) -> None:
    if any(later <= sooner for sooner, later in pairwise(milestones)):
        raise ValueError(f"milestones={milestones}: expected rising ones, such as {sorted(set(milestones))}")
    if milestones and milestones[0] <= 0:
        raise ValueError(f"milestones={milestones}: expected them above 0, where the run begins")
    if num_updates is not None and milestones and milestones[-1] >= num_updates:
        raise ValueError(f"milestones={milestones}: expected them before the end, num_updates={num_updates}")


def check_value(name: str, value: float) -> float:
    """Refuse what cannot be a factor.

    Args:
        name: of the argument, for the message.
        value: what it is.

    Returns:
        The value.

    Raises:
        ValueError: if the value is negative or not finite.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise ValueError(f"{name}={value!r}: expected a finite number of at least 0")
    return value


def named_shape(name: str, value: str) -> Callable[[float, float, float], float]:
    """Find a way from one value to another.

    Args:
        name: of the argument, for the message.
        value: ``cos`` or ``linear``.

    Returns:
        A function of start, end and the share of the way.

    Raises:
        ValueError: if there is no such way; names the nearest.
    """
    if value not in SHAPES:
        near = difflib.get_close_matches(str(value), SHAPES, n=1, cutoff=0.3) or list(SHAPES)
        raise ValueError(f"{name}={value!r}: expected {' or '.join(map(repr, near))}")
    return SHAPES[value]
