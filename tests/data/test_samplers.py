from itertools import chain, islice

import numpy as np
import pytest

from hookline import distributed
from hookline.data.samplers import (
    InferenceSampler,
    RepeatFactorTrainingSampler,
    TrainingSampler,
    repeat_factors_from_category_frequency,
)


@pytest.mark.parametrize("size", [0, 1, 2, 7, 16])
@pytest.mark.parametrize("world", [1, 2, 3, 8])
def test_inference_parts_are_contiguous_even_and_whole(size, world):
    parts = [list(InferenceSampler(size, rank, world)) for rank in range(world)]
    assert list(chain.from_iterable(parts)) == list(range(size))
    lengths = [len(InferenceSampler(size, rank, world)) for rank in range(world)]
    assert lengths == [len(part) for part in parts]
    assert max(lengths) - min(lengths) <= 1


def test_ranks_share_the_training_stream(monkeypatch):
    whole = list(islice(TrainingSampler(7, seed=3), 30))
    assert sorted(whole[:7]) == list(range(7))
    monkeypatch.setattr(distributed, "get_world_size", lambda: 3)
    parts = []
    for rank in range(3):
        monkeypatch.setattr(distributed, "get_rank", lambda rank=rank: rank)
        parts.append(list(islice(TrainingSampler(7, seed=3), 10)))
    assert [parts[i % 3][i // 3] for i in range(30)] == whole


def test_training_in_order():
    assert list(islice(TrainingSampler(3, shuffle=False, seed=0), 7)) == [0, 1, 2, 0, 1, 2, 0]


def test_without_a_seed_each_sampler_is_another():
    orders = [tuple(islice(TrainingSampler(50), 50)) for _ in range(2)]
    assert orders[0] != orders[1]


def test_repeat_factors_equal_the_definition():
    records = [{"annotations": [{"category_id": c} for c in of]} for of in ([0], [0, 0, 1], [0, 2], [], [0, 1])]
    factors = repeat_factors_from_category_frequency(records, 0.5)
    # f = 4/5, 2/5, 1/5
    r = [1.0, (0.5 / 0.4) ** 0.5, (0.5 / 0.2) ** 0.5]
    assert factors.tolist() == pytest.approx([r[0], r[1], r[2], 1.0, r[1]])
    linear = repeat_factors_from_category_frequency(records, 0.5, sqrt=False)
    assert linear.tolist() == pytest.approx([1, 1.25, 2.5, 1, 1.25])
    assert repeat_factors_from_category_frequency(records, 0.0).tolist() == [1] * 5


def test_a_threshold_in_percent_is_refused():
    with pytest.raises(ValueError, match="fraction of the images, from 0 to 1, got 10"):
        repeat_factors_from_category_frequency([], 10)


def test_repeated_sampling_follows_the_factors():
    sampler = RepeatFactorTrainingSampler([1.0, 3.0, 2.0], seed=0)
    drawn = list(islice(sampler, 600))
    assert np.bincount(drawn).tolist() == [100, 300, 200]
    assert RepeatFactorTrainingSampler.repeat_factors_from_category_frequency([{"annotations": []}], 0.1) == [1.0]
