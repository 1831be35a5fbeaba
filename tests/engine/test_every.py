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
