"""Schedules that fvcore lacks, as functions from progress to a value.

``where`` is the progress in [0, 1). What lies beyond counts as the end: the last value holds.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Sequence
from itertools import accumulate, pairwise

from fvcore.common.param_scheduler import MultiStepParamScheduler as _MultiStep
from fvcore.common.param_scheduler import ParamScheduler

__all__ = [
    "CosineRestartParamScheduler",
    "CyclicParamScheduler",
    "FlatCosineParamScheduler",
    "MultiStepParamScheduler",
    "OneCycleParamScheduler",
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
    """fvcore's steps at milestones, with checked arguments.

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
            _check_value(f"values[{index}]", value)
        if milestones is not None:
            milestones = list(milestones)
            _check_milestones(milestones, num_updates)
        super().__init__(values, num_updates, milestones)


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
        _check_value("power", power)
        if power == 0:
            raise ValueError("power=0: expected a number above 0; ConstantParamScheduler holds one value")
        self._power = power
        self._end = _check_value("end_value", end_value)
        self._start = _check_value("start_value", start_value)

    def __call__(self, where: float) -> float:
        """Return the value at a progress."""
        return self._end + (self._start - self._end) * (1.0 - min(where, 1.0)) ** self._power


class CosineRestartParamScheduler(ParamScheduler):
    """Half-cosines one after the other, each from its start down to ``end_value``.

    Args:
        periods: lengths of the cycles, in any unit.
        num_updates: the length of the run in the same unit, at most the sum of the periods, which is the default.
        restart_weights: start of each cycle as a factor of ``start_value``; all 1 by default.
        start_value: at the beginning of a cycle of weight 1.
        end_value: to which each cycle falls.

    Raises:
        ValueError: if the numbers of periods and weights differ, the periods end before the run, or a value is
            negative or not finite.

    Source: Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts", equation 5.
    """

    def __init__(
        self,
        periods: Sequence[float],
        num_updates: float | None = None,
        restart_weights: Sequence[float] | None = None,
        start_value: float = 1.0,
        end_value: float = 0.0,
    ) -> None:
        if not periods or any(not math.isfinite(period) or period <= 0 for period in periods):
            raise ValueError(f"periods={list(periods)}: expected lengths above 0, at least one")
        weights = [1.0] * len(periods) if restart_weights is None else list(restart_weights)
        if len(weights) != len(periods):
            raise ValueError(f"restart_weights={weights}: expected one for each of {len(periods)} periods")
        total = sum(periods) if num_updates is None else num_updates
        if not 0 < total <= sum(periods):
            raise ValueError(f"num_updates={num_updates}: expected at most the sum of periods, {sum(periods)}")
        self._ends = [end / total for end in accumulate(periods)]
        self._lengths = [period / total for period in periods]
        self._starts = [start_value * _check_value("restart_weights", weight) for weight in weights]
        self._end = _check_value("end_value", end_value)
        _check_value("start_value", start_value)

    def __call__(self, where: float) -> float:
        """Return the value at a progress."""
        last = len(self._ends) - 1
        cycle = next((i for i, end in enumerate(self._ends[:-1]) if where + BORDER < end), last)
        share = (where - self._ends[cycle]) / self._lengths[cycle] + 1.0
        return SHAPES["cos"](self._starts[cycle], self._end, min(max(share, 0.0), 1.0))


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
        self._start = _check_value("start_value", start_value)
        self._end = _check_value("end_value", end_value)

    def __call__(self, where: float) -> float:
        """Return the value at a progress."""
        share = (min(where, 1.0) - self._flat) / (1.0 - self._flat)
        return SHAPES["cos"](self._start, self._end, max(share, 0.0))


class OneCycleParamScheduler(ParamScheduler):
    """Up to a peak, down to a very small value. For momentum, which goes the other way, give values that do.

    Args:
        start_value: at the beginning; torch's ``1 / div_factor``.
        peak_value: at the peak, 1 where the optimizer's setting is the largest one.
        end_value: at the end; torch's ``1 / (div_factor * final_div_factor)``.
        pct_start: share of the run at which the peak is.
        anneal_strategy: ``cos`` or ``linear``.
        three_phase: come back to ``start_value`` as fast as it went up, then go on to ``end_value``.
        num_updates: the steps of the run. With it the last step has ``end_value`` and every phase ends one step
            earlier, as in torch; without it ``end_value`` is the limit behind the last step.

    Raises:
        ValueError: if a value is negative or not finite, the strategy unknown, or the phases do not fit into the run.

    Source: Smith and Topin, "Super-convergence: very fast training of neural networks using large learning rates".
    """

    def __init__(
        self,
        start_value: float = 1 / 25,
        peak_value: float = 1.0,
        end_value: float = 1 / 25e4,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        three_phase: bool = False,
        num_updates: int | None = None,
    ) -> None:
        values = [_check_value("start_value", start_value), _check_value("peak_value", peak_value)]
        values += [start_value] * three_phase + [_check_value("end_value", end_value)]
        step = 0.0 if num_updates is None else 1.0 / num_updates
        ends = [0.0, pct_start - step]
        ends += [2 * pct_start - 2 * step] * three_phase + [1.0 - step]
        if not math.isfinite(pct_start) or any(later <= sooner for sooner, later in pairwise(ends)):
            raise ValueError(
                f"pct_start={pct_start}, num_updates={num_updates}: each phase must be longer than a step, expected a "
                f"share above {step:g} and below {0.5 if three_phase else 1 - step:g}"
            )
        self._shape = _shape("anneal_strategy", anneal_strategy)
        self._values, self._ends = values, ends

    def __call__(self, where: float) -> float:
        """Return the value at a progress."""
        last = len(self._ends) - 2
        phase = next((i for i in range(last) if where <= self._ends[i + 1]), last)
        start, end = self._ends[phase], self._ends[phase + 1]
        share = min((where - start) / (end - start), 1.0)
        return self._shape(self._values[phase], self._values[phase + 1], share)


class CyclicParamScheduler(ParamScheduler):
    """Cycles from 1 to ``target_ratio[0]`` and on to ``target_ratio[1]``, all of the same length.

    Args:
        target_ratio: at the top and at the end of a cycle, as factors; for momentum such as ``(0.85 / 0.95, 1)``.
        cyclic_times: how many cycles a run has.
        step_ratio_up: share of a cycle that goes to the first of them.
        anneal_strategy: ``cos`` or ``linear``.
        gamma: how much of the way from 1 to the top is left in each further cycle, in (0, 1].

    Raises:
        ValueError: if an argument is not in its range.

    Source: Smith, "Cyclical learning rates for training neural networks"; the arguments are those of mmcv.
    """

    def __init__(
        self,
        target_ratio: Sequence[float] = (10.0, 1e-4),
        cyclic_times: int = 1,
        step_ratio_up: float = 0.4,
        anneal_strategy: str = "cos",
        gamma: float = 1.0,
    ) -> None:
        if len(target_ratio) != 2:
            raise ValueError(f"target_ratio={list(target_ratio)}: expected two factors, of the top and of the end")
        self._top, self._end = (_check_value("target_ratio", ratio) for ratio in target_ratio)
        if isinstance(cyclic_times, bool) or not isinstance(cyclic_times, int) or cyclic_times < 1:
            raise ValueError(f"cyclic_times={cyclic_times!r}: expected a whole number of at least 1")
        if not 0.0 < step_ratio_up < 1.0:
            raise ValueError(f"step_ratio_up={step_ratio_up}: expected a share of a cycle in (0, 1)")
        if not 0.0 < gamma <= 1.0:
            raise ValueError(f"gamma={gamma}: expected a factor in (0, 1]")
        self._times, self._up, self._gamma = cyclic_times, step_ratio_up, gamma
        self._shape = _shape("anneal_strategy", anneal_strategy)

    def __call__(self, where: float) -> float:
        """Return the value at a progress."""
        position = min(where, 1.0) * self._times
        cycle = min(int(position + BORDER), self._times - 1)
        share = max(position - cycle, 0.0)
        top = 1.0 + (self._top - 1.0) * self._gamma**cycle
        if share < self._up:
            return self._shape(1.0, top, share / self._up)
        return self._shape(top, self._end, (share - self._up) / (1.0 - self._up))


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


def _check_value(name: str, value: float) -> float:
    """Refuse what cannot be a factor.

    Raises:
        ValueError: if the value is negative or not finite.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise ValueError(f"{name}={value!r}: expected a finite number of at least 0")
    return value


def _check_milestones(milestones: list[int], num_updates: int | None) -> None:
    if any(later <= sooner for sooner, later in pairwise(milestones)):
        raise ValueError(f"milestones={milestones}: expected rising ones, such as {sorted(set(milestones))}")
    if milestones and milestones[0] <= 0:
        raise ValueError(f"milestones={milestones}: expected them above 0, where the run begins")
    if num_updates is not None and milestones and milestones[-1] >= num_updates:
        raise ValueError(f"milestones={milestones}: expected them before the end, num_updates={num_updates}")


def _shape(name: str, value: str) -> Callable[[float, float, float], float]:
    if value not in SHAPES:
        near = difflib.get_close_matches(str(value), SHAPES, n=1, cutoff=0.3) or list(SHAPES)
        raise ValueError(f"{name}={value!r}: expected {' or '.join(map(repr, near))}")
    return SHAPES[value]
