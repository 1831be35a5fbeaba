import math
import random

import numpy as np
import pytest

from hookline.engine.history import HistoryBuffer, median


def filled(values, **kwargs):
    history = HistoryBuffer(**kwargs)
    for iteration, value in enumerate(values):
        history.update(value, iteration)
    return history


def test_statistics_equal_numpy():
    rng = random.Random(0)
    values = [rng.gauss(0, 1) for _ in range(101)]
    history = filled(values)
    for window in (1, 2, 19, 20, 500):
        assert history.median(window) == np.median(values[-window:])
        assert history.avg(window) == pytest.approx(np.mean(values[-window:]), abs=1e-12)
    assert history.global_avg() == pytest.approx(np.mean(values), abs=1e-12)
    assert history.latest() == values[-1]
    assert history.latest_iteration() == 100


def test_median_with_nan_is_nan():
    assert math.isnan(median([1.0, math.nan, 2.0]))
    assert median([1.0, math.inf, -math.inf]) == 1.0


def test_window_counts_iterations_not_values():
    history = HistoryBuffer()
    for iteration in range(0, 100, 7):
        history.update(float(iteration), iteration)
    assert history.count_within(20) == 3  # 84, 91, 98
    assert history.smoothed(20) == 91.0
    assert filled([1.0, 2.0, 3.0]).count_within(2) == 2


def test_old_values_are_dropped_but_counted():
    history = filled([float(i) for i in range(1000)], max_length=100)
    assert 100 <= len(history) < 200
    assert history.values()[-1] == (999.0, 999)
    assert history.global_avg() == pytest.approx(499.5)


def test_amend_replaces_or_appends():
    history = filled([1.0, 2.0, 3.0])
    history.amend(20.0, 1)
    history.amend(4.0, 3)
    history.amend(5.0, 10)
    assert history.values() == [(1.0, 0), (20.0, 1), (3.0, 2), (4.0, 3), (5.0, 10)]
    assert history.global_avg() == pytest.approx(33 / 5)


def test_tail_and_extend_are_inverse():
    history = filled([float(i) for i in range(50)])
    other = HistoryBuffer()
    other.extend(**history.tail(20))
    assert other.values() == history.values()[-20:]
    assert other.median(20) == history.median(20)
