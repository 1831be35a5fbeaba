import random
from collections import Counter

import numpy as np
import torch

from hookline.engine.randomness import StepSeeder, mix_seed


def draws():
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def test_same_numbers_give_the_same_draws():
    StepSeeder(7, rank=1)(100)
    first = draws()
    draws()
    StepSeeder(7, rank=1)(100)
    assert draws() == first


def test_seed_rank_step_and_stream_all_count():
    seen = set()
    for seed, rank, step, stream in [
        (7, 1, 5, 0),
        (8, 1, 5, 0),
        (7, 2, 5, 0),
        (7, 1, 6, 0),
        (7, 1, 5, 1),
        (1, 7, 5, 0),
    ]:
        StepSeeder(seed, rank)(step, stream)
        seen.update(draws())
    assert len(seen) == 18


def test_seed_torch_leaves_the_other_generators_alone():
    seeder = StepSeeder(0)
    seeder(3)
    expected = draws()
    seeder(3)
    random_draw, numpy_draw = random.random(), float(np.random.rand())
    seeder.seed_torch(3, 0)
    assert (random_draw, numpy_draw, float(torch.rand(()))) == expected


def test_mixed_seeds_of_neighbours_are_spread():
    seeds = [mix_seed(0, step) for step in range(4096)]
    assert len(set(seeds)) == 4096
    assert max(seeds) < 2**64
    bits = Counter(bit for seed in seeds for bit in range(64) if seed >> bit & 1)
    assert all(1800 < bits[bit] < 2300 for bit in range(64))


def test_negative_and_large_seeds_work():
    assert mix_seed(-1) != mix_seed(1)
    assert mix_seed(2**64 + 3) == mix_seed(3)
    StepSeeder(-5)(0)
