from fractions import Fraction

import pytest

from hookline.engine import Every


def fired(every, n, max_iter=None):
    return [i for i in range(n) if every(i, max_iter)]


def test_timeline_is_that_of_iteration_plus_one():
    assert fired(Every(20), 61) == [19, 39, 59]
    assert fired(Every(1), 3) == [0, 1, 2]


def test_zero_never_fires():
    assert fired(Every(0), 100) == []
    assert fired(Every(0, last=True), 10, 10) == [9]


def test_first_counts_finished_iterations():
    assert fired(Every(5, first=10), 21) == [9, 14, 19]


def test_last_fires_at_the_end_whatever_the_period():
    assert fired(Every(20, last=True), 45, 45) == [19, 39, 44]
    assert fired(Every(20, last=True), 40, 40) == [19, 39]
    assert fired(Every(20), 45, 45) == [19, 39]


def test_of_takes_periods_and_values():
    every = Every(3, first=6)
    assert Every.of(every, last=True) is every
    assert Every.of(3, last=True) == Every(3, last=True)


@pytest.mark.parametrize("period", [2.0, "20", True, None])
def test_refuses_what_is_no_whole_number(period):
    with pytest.raises(TypeError, match="whole number"):
        Every(period)


def test_refuses_negative_numbers():
    with pytest.raises(ValueError, match="-1"):
        Every(-1)
    with pytest.raises(ValueError, match="-2"):
        Every(1, first=-2)


@pytest.mark.parametrize(("samples", "batch"), [(61, 8), (7, 2), (8, 8), (5, 8), (117_266, 16)])
@pytest.mark.parametrize("count", [1, 2, 0.5, 1 / 3, 0.1, 2.5])
def test_epochs_end_where_their_samples_do(samples, batch, count):
    """The k-th time is the first step at whose end k * count epochs of samples were seen; counted sample by sample."""
    every = Every.epochs(count, Fraction(samples, batch))
    exact = {0.5: Fraction(1, 2), 1 / 3: Fraction(1, 3), 0.1: Fraction(1, 10), 2.5: Fraction(5, 2)}.get(count, count)
    steps = min(200, 3 * samples)
    expected, k = set(), 1
    for done in range(1, steps + 1):
        while done * batch >= k * exact * samples:
            expected.add(done - 1)
            k += 1
    assert fired(every, steps) == sorted(expected)


def test_epochs_may_begin_late_and_never():
    assert fired(Every.epochs(1, Fraction(61, 8), first=20), 40) == [22, 30, 38]  # after 23, 31, 39 steps
    assert fired(Every.epochs(1, Fraction(61, 8)), 16) == [7, 15]
    assert fired(Every.epochs(0, Fraction(61, 8)), 40) == []
    for wrong in (-1, float("nan"), float("inf"), 1e-5):
        with pytest.raises(ValueError, match="epochs"):
            Every.epochs(wrong, Fraction(1))
