import pickle
from itertools import chain, islice

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hookline.data.stream import TrainingStream, hash_words


def elements(stream, count):
    """The first elements of the endless stream, by the slowest way."""
    epochs = count // stream.epoch_length + 1
    return [int(i) for e in range(epochs) for i in stream.epoch(e)][:count]


def naive_window(stream, number):
    """Deal a window's elements one after the other, as the module's text says."""
    size, window = stream.batch_size, stream.batches_per_window * stream.batch_size
    part = elements(stream, (number + 1) * window)[number * window :]
    buckets, batches = {}, []
    rest = list(enumerate(part))
    for place, index in enumerate(part):
        bucket = buckets.setdefault(0 if stream.groups is None else int(stream.groups[index]), [])
        bucket.append((place, index))
        if len(bucket) == size:
            batches.append([i for _, i in bucket])
            rest = [item for item in rest if item not in bucket]
            bucket.clear()
    left = [i for _, i in sorted(rest)]
    return batches + [left[i : i + size] for i in range(0, len(left), size)]


@given(
    size=st.integers(1, 40),
    batch=st.integers(1, 12),
    window=st.integers(0, 5),
    grouped=st.booleans(),
    rare=st.booleans(),
)
@settings(max_examples=150, deadline=None)
def test_windows_equal_a_naive_reading(size, batch, window, grouped, rare):
    random = np.random.default_rng(size)
    groups = random.integers(0, 2, size) if grouped else None
    factors = 1 + 2 * random.random(size) if rare else None
    stream = TrainingStream(size, batch, 5, groups=groups, repeat_factors=factors)
    assert stream.window(window).tolist() == naive_window(stream, window)


@given(size=st.integers(1, 60), batch=st.integers(1, 70), grouped=st.booleans())
@settings(max_examples=100, deadline=None)
def test_nothing_is_dropped_and_one_batch_per_window_is_mixed(size, batch, grouped):
    groups = np.random.default_rng(batch).integers(0, 2, size)
    stream = TrainingStream(size, batch, 1, groups=groups if grouped else None)
    for number in range(4):
        window = stream.window(number)
        assert window.shape == (-(-size // batch), batch)
        start = number * window.size
        assert sorted(window.ravel()) == sorted(elements(stream, start + window.size)[start:])
        if grouped:
            mixed = [row for row, members in enumerate(groups[window]) if len(set(members)) > 1]
            assert mixed in ([], [len(window) - 1])


def test_every_sample_appears_once_in_each_epoch():
    stream = TrainingStream(23, 4, 9)
    orders = [stream.epoch(e).tolist() for e in range(5)]
    assert all(sorted(order) == list(range(23)) for order in orders)
    assert len({tuple(order) for order in orders}) == 5
    drawn = [i for batch in islice(stream.batches(), 23) for _, i in batch]  # four epochs are 23 batches
    assert drawn == list(chain.from_iterable(orders[:4]))


def test_fewer_samples_than_the_batch_holds():
    stream = TrainingStream(3, 8)
    assert stream.batches_per_window == 1
    for number in range(5):
        batch = stream.batch(number)
        assert np.bincount(batch, minlength=3).tolist() in [[3, 3, 2], [3, 2, 3], [2, 3, 3]]


def test_draw_numbers_count_on_through_windows():
    stream = TrainingStream(10, 4)
    numbers = [n for batch in islice(stream.batches(), 9) for n, _ in batch]
    assert numbers == list(range(36))
    assert stream.draws(5, slice(2, 4)) == stream.draws(5)[2:4]


def test_seed_and_key_decide_the_order():
    a, b, c = TrainingStream(50, 4, 1), TrainingStream(50, 4, 1), TrainingStream(50, 4, 2)
    assert a.epoch(3).tolist() == b.epoch(3).tolist() != c.epoch(3).tolist()
    assert TrainingStream(50, 7, 1).epoch(3).tolist() == a.epoch(3).tolist()


def test_the_order_never_changes_with_versions():
    """Runs are continued on other machines: these numbers are a promise."""
    assert TrainingStream(10, 2, 0).epoch(0).tolist() == EXPECTED_ORDER
    assert hash_words(1, 2, 3) == EXPECTED_WORDS


EXPECTED_ORDER = [3, 2, 1, 8, 6, 0, 7, 4, 5, 9]
EXPECTED_WORDS = (13782444726454913347, 12127601730499886281, 1707080722238996635, 7742574190803144547)


def test_in_order_without_shuffling():
    stream = TrainingStream(5, 2, shuffle=False)
    assert [stream.batch(k).tolist() for k in range(6)] == [[0, 1], [2, 3], [4, 0], [1, 2], [3, 4], [0, 1]]


def test_repeat_factors_hold_in_each_epoch_and_on_average():
    factors = np.array([1.0, 1.5, 2.25, 0.25, 1.0, 3.0])
    stream = TrainingStream(6, 4, repeat_factors=factors)
    assert stream.epoch_length == 9
    counts = np.array([np.bincount(stream.epoch(e), minlength=6) for e in range(2000)])
    assert (counts.sum(axis=1) == 9).all()
    assert (counts >= np.floor(factors)).all()
    assert (counts <= np.ceil(factors)).all()
    assert np.abs(counts.mean(axis=0) - factors).max() < 0.05


@given(st.lists(st.floats(0.0, 5.0), min_size=1, max_size=30).filter(lambda f: round(sum(f)) >= 1))
@settings(max_examples=200, deadline=None)
def test_epochs_with_repeat_factors_have_a_constant_length(factors):
    stream = TrainingStream(len(factors), 3, repeat_factors=factors)
    assert {len(stream.epoch(e)) for e in range(4)} == {round(sum(factors))}


def test_replacements_are_of_the_same_group_and_depend_on_the_draw():
    groups = np.arange(20) % 2
    stream = TrainingStream(20, 4, groups=groups)
    chosen = [stream.replacement(draw, 1, 7) for draw in range(200)]
    assert set(chosen) == set(range(1, 20, 2))
    assert chosen == [stream.replacement(draw, 1, 7) for draw in range(200)]
    assert len({stream.replacement(5, attempt, 7) for attempt in range(1, 50)}) == 10
    assert {TrainingStream(4, 2).replacement(draw, 1, 0) for draw in range(100)} == {0, 1, 2, 3}


def test_the_order_hash_knows_what_decides_the_order():
    streams = [
        TrainingStream(4, 2),
        TrainingStream(4, 2, shuffle=False),
        TrainingStream(4, 2, groups=[0, 1, 0, 1]),
        TrainingStream(4, 2, groups=[0, 1, 1, 1]),
        TrainingStream(4, 2, repeat_factors=[1, 2, 1, 1]),
    ]
    assert len({s.order_sha256() for s in streams}) == 5
    assert TrainingStream(4, 2).order_sha256() == streams[0].order_sha256()


def test_pickling_leaves_the_plan_behind():
    stream = TrainingStream(100_000, 10)
    stream.batch(3)
    assert len(pickle.dumps(stream)) < 1000
    assert pickle.loads(pickle.dumps(stream)).batch(3).tolist() == stream.batch(3).tolist()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"size": 0}, "the data set is empty"),
        ({"batch_size": 0}, "the batch size must be at least 1, got 0"),
        ({"seed": -1}, "the seed must be an integer of at least 0, got -1"),
        ({"seed": 1.5}, "the seed must be an integer"),
        ({"groups": [0, 1]}, r"groups must have one value for each of the 5 samples, got shape \(2,\)"),
        ({"repeat_factors": [1, 2]}, "repeat_factors must have one value"),
        ({"repeat_factors": [1, 2, 3, 4, -1]}, "repeat_factors must be 0 or greater"),
        ({"repeat_factors": [float("nan")] * 5}, "repeat_factors must be 0 or greater"),
        ({"repeat_factors": [0, 0, 0, 0, 0.2]}, "add up to at least 1"),
    ],
)
def test_refusals(arguments, words):
    with pytest.raises(ValueError, match=words):
        TrainingStream(**({"size": 5, "batch_size": 2} | arguments))
